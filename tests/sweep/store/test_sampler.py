"""The sampler of a sweep file that begins what is forecast to gain most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import Knows

from lcsearch.errors import FileProblem
from lcsearch.forecast.contract import Forecaster, Forecasts, Query
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.study import Snapshot
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.space import suggest
from lcsearch.sweep.store.studies import asks_network, make_sampler

FILE = """\
version: 1
name: toy
objective: {python: "toy:train"}
metric: loss
goal: minimize
max_steps: 6
space:
  x: {uniform: [0, 1]}
  opt: {choice: [sgd, adam]}
  momentum: {uniform: [0, 0.9], when: {opt: sgd}}
  k: 3
sampler: {kind: curve}
pruner: {kind: none}
budget: {trials: 20}
seed: 4
"""


def sweep(tmp_path: Path, old: str = "", new: str = "") -> SweepFile:
    (tmp_path / "toy.py").write_text("def train(ctx): ...")
    (tmp_path / "toy.yaml").write_text(FILE.replace(old, new))
    return load(tmp_path / "toy.yaml").file


def played(file: SweepFile, forecaster: Forecaster | None = None) -> list[dict[str, Any]]:
    """What each of twenty trials gets, each with one report."""
    pruner = CurvePruner(max_steps=6, forecasters=forecaster or Knows())
    study = optuna.create_study(sampler=make_sampler(file), pruner=pruner)
    for _ in range(20):
        trial = study.ask()
        suggest(trial, file.space)
        trial.report(1.0 + abs(trial.params["x"] - 0.3), 1)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return [trial.params for trial in study.trials]


def test_it_begins_what_is_forecast_to_gain_most_and_at_random_what_a_random_sweep_would(tmp_path: Path) -> None:
    chosen, random = played(sweep(tmp_path)), played(sweep(tmp_path, "kind: curve", "kind: random"))
    assert chosen == played(sweep(tmp_path))
    assert chosen[:10] == random[:10]
    own = [n for n in range(10, 20) if chosen[n] == random[n]]
    assert 0 < len(own) < 8
    assert all(abs(chosen[n]["x"] - 0.3) < 0.05 for n in range(10, 20) if n not in own)
    assert all(("momentum" in params) == (params["opt"] == "sgd") for params in chosen)


class Counts(Knows):
    """How many are asked about, each time."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        self.numbers.append(len(queries))
        return super().forecast(snapshot, queries)


def test_a_random_sampler_inside_reads_no_values_so_none_are_forecast_for_it(tmp_path: Path) -> None:
    """Nobody is asked about trials that are paused or stopped, but about the candidates alone."""
    around_random, around_tpe = Counts(), Counts()
    played(sweep(tmp_path), around_random)
    played(sweep(tmp_path, "{kind: curve}", "{kind: curve, inner: tpe}"), around_tpe)
    assert set(around_random.numbers) == {256}
    assert len(around_random.numbers) < 10 < len(around_tpe.numbers)


def test_around_tpe(tmp_path: Path) -> None:
    chosen = played(
        sweep(tmp_path, "{kind: curve}", "{kind: curve, inner: tpe, sampler_share: 0, n_startup_trials: 4}")
    )
    assert all(abs(params["x"] - 0.3) < 0.05 for params in chosen[4:])


def test_the_network_may_be_asked_for_it(tmp_path: Path) -> None:
    assert asks_network(sweep(tmp_path))
    assert not asks_network(sweep(tmp_path, "kind: curve", "kind: random"))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "{kind: curves}",
            "at $.sampler.kind: expected kind random, tpe or curve, got 'curves'. Did you mean 'curve'?",
        ),
        ("{kind: tpe, inner: random}", "at $.sampler.inner: expected one of kind, got 'inner'."),
        ("{kind: curve, sampler_share: 2}", "at $.sampler.sampler_share: expected"),
        ("{kind: curve, proposer: alp}", "at $.sampler.proposer: expected"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(tmp_path: Path, spec: str, told: str) -> None:
    with pytest.raises(FileProblem) as found:
        sweep(tmp_path, "{kind: curve}", spec)
    assert told in str(found.value)
