"""Space <-> Optuna, and the seeding of samplers."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcsearch.errors import InvalidValue
from lcsearch.schedule import Schedule
from lcsearch.sweep.spec.distributions import Choice, Distribution, Int, LogInt, LogUniform, Uniform
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.space import distributions, from_optuna, planned_schedule, suggest, to_optuna
from lcsearch.sweep.spec.strict import Scalar
from lcsearch.sweep.store.sampler import TrialSampler

SWEEP = {
    "version": 1,
    "name": "toy",
    "objective": {"python": "toy:train"},
    "metric": "loss",
    "goal": "minimize",
    "max_steps": 10,
    "space": {
        "lr": {"loguniform": (1e-5, 1e-1)},
        "width": {"logint": (16, 512)},
        "depth": {"int": (2, 8), "step": 2},
        "drop": {"uniform": (0, 1), "step": 0.25},
        "shape": {"choice": ("linear", "cosine")},
        "fixed": 3,
    },
    "schedule": {"shape": {"param": "shape"}, "peak": {"param": "lr"}, "warmup": 0.1},
    "budget": {"trials": 4},
}
SPACE = SweepFile.model_validate(SWEEP).space

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)


def ordered(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(numbers, numbers).map(lambda ab: (min(ab), max(ab))).filter(lambda ab: ab[0] < ab[1])


def ordered_ints(low: int) -> st.SearchStrategy[tuple[int, int]]:
    ints = st.integers(low, 10_000)
    return st.tuples(ints, ints).map(lambda ab: (min(ab), max(ab))).filter(lambda ab: ab[0] < ab[1])


parameters: st.SearchStrategy[Distribution] = st.one_of(
    ordered(finite).map(lambda b: Uniform(uniform=b)),
    ordered(positive).map(lambda b: LogUniform(loguniform=b)),
    ordered_ints(-100).map(lambda b: Int(int=b)),
    ordered_ints(1).map(lambda b: LogInt(logint=b)),
    st.lists(st.one_of(st.none(), st.booleans(), st.text(max_size=3)), min_size=1, unique=True).map(
        lambda options: Choice(choice=tuple(options))
    ),
    st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(1, 9)).map(
        lambda t: Int(int=(t[0], t[0] + t[1] * t[2]), step=t[1])
    ),
    st.tuples(st.integers(-8, 8), st.sampled_from([0.25, 0.5, 2.0]), st.integers(1, 9)).map(
        lambda t: Uniform(uniform=(t[0] * t[1], (t[0] + t[2]) * t[1]), step=t[1])
    ),
)


@given(parameters)
def test_round_trip(parameter: Distribution) -> None:
    assert from_optuna(to_optuna(parameter)) == parameter


@pytest.mark.filterwarnings("ignore:The distribution is specified by")  # Optuna says that it lowers the end
@given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 9))
def test_a_grid_that_misses_its_end_comes_back_as_the_points_it_has(low: int, length: int, step: int) -> None:
    back = from_optuna(to_optuna(Int(int=(low, low + length), step=step))) if step <= length else None
    if back is not None:
        assert back == Int(int=(low, low + length // step * step), step=step)
        assert from_optuna(to_optuna(back)) == back


def test_conditions_hold_as_their_values_do() -> None:
    space = SweepFile.model_validate(
        {
            **SWEEP,
            "schedule": None,
            "space": {
                "opt": {"choice": ("sgd", "adam")},
                "on": True,
                "momentum": {"uniform": (0, 1), "when": {"opt": "sgd"}},
                "nesterov": {"choice": (True, False), "when": {"momentum": (0.5,), "on": (True,)}},
                "beta": {"uniform": (0, 1), "when": {"opt": ("adam", "sgd"), "on": True}},
                "never": {"uniform": (0, 1), "when": {"on": 1}},
            },
        }
    ).space
    by_opt = {
        opt: set(suggest(optuna.create_study().ask(fixed_distributions={}), {**space, "opt": opt}))
        for opt in ("sgd", "adam")
    }
    assert by_opt == {"sgd": {"opt", "on", "momentum", "beta"}, "adam": {"opt", "on", "beta"}}


def test_round_trip_through_the_files_text() -> None:
    file = SweepFile.model_validate(SWEEP)
    assert SweepFile.model_validate_json(file.model_dump_json(by_alias=True)) == file


def test_distributions_leave_constants_out() -> None:
    found = distributions(SPACE)
    assert list(found) == ["lr", "width", "depth", "drop", "shape"]
    assert found["lr"] == optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)
    assert found["depth"] == optuna.distributions.IntDistribution(2, 8, step=2)


def test_from_optuna_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InvalidValue, match="expected a float, int or categorical distribution"):
        from_optuna(None)  # type: ignore[arg-type]


def test_suggest_and_the_schedule_it_plans() -> None:
    study = optuna.create_study(sampler=TrialSampler("random", 0))
    trial = study.ask()
    params = suggest(trial, SPACE)
    assert list(params) == list(SPACE)
    assert params["fixed"] == 3
    assert trial.distributions == distributions(SPACE)
    schedule = planned_schedule(SweepFile.model_validate(SWEEP), params)
    assert schedule == Schedule(str(params["shape"]), float(params["lr"]), 10.0, warmup=0.1)  # type: ignore[arg-type]


def draw(order: list[int], kind: str = "random") -> dict[int, dict[str, Scalar]]:
    """Parameters by trial number when workers suggest in `order`."""
    study = optuna.create_study(sampler=TrialSampler(kind, 7))  # type: ignore[arg-type]
    trials = {n: study.ask() for n in sorted(order)}
    return {n: suggest(trials[n], SPACE) for n in order}


def test_a_trials_parameters_depend_on_its_number_alone() -> None:
    one, other = draw([0, 1, 2, 3]), draw([3, 1, 0, 2])
    assert one == other
    assert len({str(p) for p in one.values()}) == 4


def test_a_parameter_that_is_added_leaves_the_others_alone() -> None:
    study = optuna.create_study(sampler=TrialSampler("random", 7))
    more = suggest(study.ask(), {"new": Uniform(uniform=(0.0, 1.0)), **SPACE})
    before = draw([0])[0]
    assert {name: more[name] for name in before} == before


def test_tpe_is_a_function_of_seed_number_and_history(tmp_path: Path) -> None:
    def params() -> list[object]:
        study = optuna.create_study(sampler=TrialSampler("tpe", 3))
        for _ in range(14):
            trial = study.ask()
            study.tell(trial, float(suggest(trial, SPACE)["drop"]))  # type: ignore[arg-type]
        return [t.params for t in study.trials]

    assert params() == params()
