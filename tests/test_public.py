from __future__ import annotations

import subprocess
import sys

import pytest

import lcsearch
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue, LcsearchError, is_finite_number

HEAVY = ("torch", "ray", "matplotlib", "sklearn", "pydantic", "scipy", "pandas", "plotly", "rich", "typer")


def loaded_by(module: str, watched: tuple[str, ...]) -> list[str]:
    code = f"import sys, {module}; print(*[m for m in {watched!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.split()


def test_every_public_name_resolves() -> None:
    assert sorted(lcsearch.__all__) == lcsearch.__all__ or set(lcsearch.__all__) == set(lcsearch._HOME) | {  # noqa: SLF001
        "__version__"
    }
    for name in lcsearch.__all__:
        thing = getattr(lcsearch, name)
        assert thing is not None
        if name not in ("__version__",):
            assert getattr(thing, "__name__", name) == name
            assert thing.__doc__
    assert set(lcsearch._HOME) | {"__version__"} == set(lcsearch.__all__)  # noqa: SLF001


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"^module 'lcsearch' has no attribute 'Curves'$"):
        lcsearch.Curves  # noqa: B018


def test_the_optuna_adapter_s_surface() -> None:
    import lcsearch.schedulers.optuna as adapter

    assert sorted(adapter.__all__) == [
        "Checkpoint",
        "CurvePruner",
        "FinishReport",
        "ForecastSampler",
        "FreezeThaw",
        "FreezeThawTrial",
        "Paused",
        "REASON",
        "SCHEDULE",
        "Stop",
        "StopWhen",
        "StudyReport",
        "Thaw",
        "adopt",
        "as_trial",
        "begun_as",
        "decision_of",
        "finish",
        "is_paused",
        "resumed_from",
        "withdraw_stop",
        "write_stop",
    ]

    for name in adapter.__all__:
        assert getattr(adapter, name).__doc__


def test_the_ray_adapter_s_surface() -> None:
    import lcsearch.schedulers.ray_tune as adapter

    assert sorted(adapter.__all__) == [
        "CurveScheduler",
        "PrunedSearch",
        "ResourceBounds",
        "Resources",
        "SCHEDULE",
        "StateCallback",
        "Stop",
        "StudyReport",
        "restored",
    ]
    assert all(getattr(adapter, name).__doc__ for name in adapter.__all__)


def test_importing_lcsearch_pulls_nothing_heavy() -> None:
    assert loaded_by("lcsearch", (*HEAVY, "optuna", "numpy")) == []


def test_importing_the_optuna_adapter_pulls_neither_models_nor_plots() -> None:
    assert loaded_by("lcsearch.schedulers.optuna", HEAVY) == []


def test_the_watch_sees_what_it_watches_for() -> None:
    assert loaded_by("lcsearch.curves", ("numpy", "optuna")) == ["numpy"]


def test_errors_say_expected_got_where_and_what_to_do() -> None:
    error = InvalidValue("a whole number", 2.5, "n", "round it.")
    assert str(error) == "n: expected a whole number, got 2.5. Round it."
    assert str(InvalidValue("x", "y", "z")) == "z: expected x, got 'y'."
    assert isinstance(error, ValueError)
    for kind in (InvalidValue, FileProblem, EnvironmentProblem):
        assert issubclass(kind, LcsearchError)


def test_errors_survive_pickling() -> None:
    import pickle

    error = InvalidValue("a", 1, "b", "c")
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.expected, twin.got, twin.where, twin.advice) == (str(error), "a", 1, "b", "c")


def test_numbers() -> None:
    import numpy as np

    assert all(map(is_finite_number, [0, -1, 2.5, np.int64(3), np.float32(0.5), np.float64(1)]))
    assert not any(map(is_finite_number, [None, "1", True, float("nan"), float("inf"), 10**400, [1], 1j, np.bool_(1)]))
