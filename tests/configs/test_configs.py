"""The shipped sweep files are valid, and what they train learns, repeats and resumes to the very same curve."""

from __future__ import annotations

import math
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcsearch.sweep.objective.context import Context, Stopped
from lcsearch.sweep.runtime.trial import load_any
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.space import planned_schedule

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))

CNN = {
    "lr": 0.1, "shape": "cosine", "warmup": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "channels": 4, "blocks": 2,
    "norm": "batch", "dropout": 0.1, "batch_size": 128,
}  # fmt: skip
LM = {
    "lr": 1e-2, "shape": "wsd", "warmup": 0.1, "width": 32, "layers": 1, "heads": 4, "dropout": 0.1,
    "weight_decay": 0.01, "batch_size": 32,
}  # fmt: skip
SOR = {"omega": 1.8, "ordering": "red_black", "guess": "random", "forcing": "constant", "n": 31}
SHRUNKEN = [("digits_cnn", CNN, 7), ("char_lm", LM, 7), ("sor", SOR, 60)]


class Quiet:
    """Takes reports; stops the trial at `last`."""

    def __init__(self, last: int) -> None:
        self.last, self.step = last, 0

    def report(self, value: float, step: int) -> None:
        self.step = step

    def should_prune(self) -> bool:
        return self.step >= self.last


def module(name: str) -> Any:
    load_any(load(CONFIGS / f"{name}.yaml"))
    return import_module(name)


def few_windows(monkeypatch: pytest.MonkeyPatch, characters: int, held: int) -> None:
    lm = module("char_lm")
    monkeypatch.setattr(lm, "CHARACTERS", characters)
    monkeypatch.setattr(lm, "HELD_WINDOWS", held)
    lm.text.cache_clear()


@pytest.fixture(autouse=True)
def _little_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The language model sees a sixth of its characters between evaluations, and an eighth in them."""
    few_windows(monkeypatch, 4096, 32)


def curve(
    name: str,
    params: dict[str, Any],
    steps: int,
    folder: Path,
    *,
    number: int = 4,
    last: int = 1000,
    pause_at: float = math.inf,
) -> dict[int, float]:
    """The reports of one trial of configs/NAME.yaml of `steps` steps, stopped at `last`, or paused."""
    sweep = load(CONFIGS / f"{name}.yaml")
    file, train = sweep.file.model_copy(update={"max_steps": steps}), load_any(sweep)
    folder.mkdir(exist_ok=True)
    ctx = Context(
        Quiet(last),
        params=params,
        number=number,
        goal=file.target,
        seed=0,
        checkpoint_dir=folder,
        schedule=planned_schedule(file, params),
        pause_at=pause_at,
    )
    with suppress(Stopped):
        train(ctx)
    return dict(ctx.reported)


def test_there_are_sweep_files() -> None:
    assert {"digits", "digits_cnn", "char_lm", "sor"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sweep_file_is_valid_and_named_as_it_is_called(path: Path) -> None:
    assert load(path).file.name == path.stem


@pytest.mark.parametrize(("name", "params", "steps"), SHRUNKEN, ids=[name for name, *_ in SHRUNKEN])
def test_the_test_covers_the_space(name: str, params: dict[str, Any], steps: int) -> None:
    assert set(params) == set(load(CONFIGS / f"{name}.yaml").file.space)


@pytest.mark.parametrize(("name", "params", "steps"), SHRUNKEN, ids=[name for name, *_ in SHRUNKEN])
def test_it_improves_repeats_and_resumes_to_the_identical_curve(
    name: str, params: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    every = module(name).SAVE_EVERY
    whole = curve(name, params, steps, tmp_path / "whole")
    assert list(whole) == list(range(1, steps + 1))
    assert whole[steps] < whole[1] - 0.3
    stop = every + 1
    begun = curve(name, params, steps, tmp_path / "part", last=stop)
    assert begun == {step: whole[step] for step in range(1, stop + 1)}  # the same trial, the same values
    rest = curve(name, params, steps, tmp_path / "part")
    assert rest == {step: whole[step] for step in range(stop, steps + 1)}  # from the checkpoint of step `every`
    other = curve(name, params, steps, tmp_path / "other", number=5, last=1)
    assert other[1] != whole[1]


@pytest.mark.parametrize(("name", "params", "steps"), SHRUNKEN, ids=[name for name, *_ in SHRUNKEN])
def test_it_pauses_where_its_turn_is_over(name: str, params: dict[str, Any], steps: int, tmp_path: Path) -> None:
    whole = curve(name, params, steps, tmp_path / "whole", last=3)
    assert curve(name, params, steps, tmp_path / "part", pause_at=2.0) == {step: whole[step] for step in (1, 2)}
    assert curve(name, params, steps, tmp_path / "part", last=3) == {3: whole[3]}


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_one_block_of_the_cnn_without_momentum(norm: str, tmp_path: Path) -> None:
    changed = {"blocks": 1, "norm": norm, "momentum": 0.0}
    (value,) = curve("digits_cnn", {**CNN, **changed}, 7, tmp_path, last=1).values()
    assert math.isfinite(value)


@pytest.mark.parametrize(("name", "params"), [("digits_cnn", {**CNN, "norm": "none"}), ("char_lm", LM)])
def test_a_rate_that_is_far_too_large_is_reported_not_raised(name: str, params: dict[str, Any], tmp_path: Path) -> None:
    changed = {"lr": 1e6, "shape": "constant", "warmup": 0.0}
    values = list(curve(name, {**params, **changed}, 2, tmp_path).values())
    assert len(values) == 2
    assert not values[-1] < math.log(10)


def test_the_text_is_the_same_for_every_trial_and_mostly_in_the_vocabulary() -> None:
    lm = module("char_lm")
    train, held = lm.text()
    lm.text.cache_clear()
    again, held_again = lm.text()
    assert train.equal(again)
    assert held.equal(held_again)
    assert held.shape == (lm.HELD_WINDOWS, lm.CONTEXT + 1)
    assert 500_000 < len(train) < 2_500_000
    assert 0 <= train.min() <= train.max() < lm.VOCABULARY
    assert (train + 32).numpy().astype(np.uint8).tobytes().count(b"import ") > 500
    shares = np.bincount(train.numpy(), minlength=lm.VOCABULARY) / len(train)
    assert shares[lm.VOCABULARY - 1] < 0.05  # lines end here, and what is not ASCII


def test_a_language_model_learns_more_than_how_frequent_each_character_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_windows(monkeypatch, 16_384, 128)
    lm = module("char_lm")
    train, _ = lm.text()
    shares = np.bincount(train.numpy(), minlength=lm.VOCABULARY) / len(train)
    unigram = -sum(share * math.log(share) for share in shares if share > 0)
    values = curve("char_lm", {**LM, "batch_size": 8, "dropout": 0.0}, 8, tmp_path)
    assert values[8] < unigram - 0.5


def test_the_model_sees_only_the_past() -> None:
    import torch

    lm = module("char_lm")
    torch.manual_seed(0)
    model = lm.Transformer(32, 2, 4, 0.0).eval()
    seen = torch.randint(lm.VOCABULARY, (1, lm.CONTEXT))
    changed = seen.clone()
    changed[0, 40:] = (changed[0, 40:] + 1) % lm.VOCABULARY
    assert torch.allclose(model(seen)[0, :40], model(changed)[0, :40], atol=1e-5)
    assert not torch.allclose(model(seen)[0, 40:], model(changed)[0, 40:], atol=1e-2)


def after(folder: Path, **changed: Any) -> float:
    return curve("sor", {**SOR, "guess": "zero", **changed}, 100, folder)[100]


@pytest.mark.parametrize("ordering", ["red_black", "lexicographic"])
def test_the_best_relaxation_is_the_one_of_the_theory(ordering: str, tmp_path: Path) -> None:
    theory = 2 / (1 + math.sin(math.pi / 32))  # h = 1 / (n + 1)
    omegas = [1.0, *np.linspace(1.7, 1.98, 29)]
    ends = [after(tmp_path / str(k), omega=omega, ordering=ordering) for k, omega in enumerate(omegas)]
    assert min(ends) < ends[0] - 5  # decades ahead of Gauss and Seidel
    assert omegas[int(np.argmin(ends))] == pytest.approx(theory, abs=0.03)


def test_back_and_forth_gains_nothing_from_over_relaxation(tmp_path: Path) -> None:
    slow, slower = (after(tmp_path / str(w), omega=w, ordering="symmetric") for w in (1.0, 1.8))
    assert after(tmp_path / "forth", omega=1.8) < slow < slower


def test_diagonal_by_diagonal_is_row_by_row() -> None:
    sor = module("sor")
    rng = np.random.default_rng(0)
    n, omega = 5, 1.3
    ask = rng.normal(size=(n + 2, n + 2))
    u = rng.normal(size=(n + 2, n + 2))
    v = u.reshape(-1).copy()
    for i in range(1, n + 1):
        for j in range(1, n + 1):
            around = u[i, j - 1] + u[i, j + 1] + u[i - 1, j] + u[i + 1, j]
            u[i, j] += omega * ((around + ask[i, j]) / 4 - u[i, j])
    for at in sor.passes(n, "lexicographic", 1):
        sor.relax(v, ask.reshape(-1), at, n + 2, omega)
    np.testing.assert_allclose(v, u.reshape(-1), rtol=1e-12)


@pytest.mark.parametrize("forcing", ["constant", "sine", "point"])
def test_it_solves_the_problem(forcing: str, tmp_path: Path) -> None:
    omega = 2 / (1 + math.sin(math.pi / 8))
    assert after(tmp_path, omega=omega, n=7, forcing=forcing) < -12


def test_beyond_two_it_grows_and_what_overflows_is_reported_as_it_is(tmp_path: Path) -> None:
    assert after(tmp_path / "beyond", omega=2.05) > 2
    values = list(curve("sor", {**SOR, "omega": 1e5}, 100, tmp_path / "far").values())
    assert len(values) == 100
    assert math.inf in values or any(map(math.isnan, values))
    assert math.isnan(values[-1])
