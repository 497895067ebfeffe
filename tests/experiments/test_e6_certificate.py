"""E6: bounds by hand, tests that hold what they promise, and sweeps that are counted and go on where they were."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.scripts import neighbour
from scipy.stats import beta, binom

from lcsearch.curves import Curve
from lcsearch.data.synthetic import synthetic_task
from lcsearch.data.task import Run, Task
from lcsearch.goal import Goal
from lcsearch.replay.simulator import simulate
from lcsearch.stopping.decision import Decision
from lcsearch.stopping.gates import Event
from lcsearch.stopping.judge import Judgement
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Snapshot
from lcsearch.weights import certificate

for shared in ("research", "provenance"):
    neighbour("e6_certificate", shared)
certify, sweeps, run = (neighbour("e6_certificate", name) for name in ("certify", "sweeps", "run"))


def column(*losses: float) -> Any:
    return np.array(losses, float)


# The statistics


def test_the_binomial_by_hand() -> None:
    assert certify.p_binomial(column(0, 0, 0), 0.5) == pytest.approx(1 / 8)
    assert certify.p_binomial(column(0, 0.25, 0), 0.5) == pytest.approx(4 / 8)  # a quarter lost is a task that lost
    assert certify.p_binomial(column(1, 1, 1), 0.5) == 1


def test_bets_by_hand() -> None:
    # At alpha .5 the bets are .5, 1, 1.5 and 2; a task without a loss pays 1 + b / 2, one that lost all 1 - b / 2.
    assert certify.p_betting(column(0), 0.5) == pytest.approx(1 / np.mean([1.25, 1.5, 1.75, 2]))
    assert certify.p_betting(column(0, 1), 0.5) == 1  # E is below 1
    assert certify.p_betting(column(0, 0.5), 0.5) == certify.p_betting(column(0), 0.5)
    assert certify.p_betting(column(1, 1), 0.999) > 0.9
    assert (certify.p_betting(column(1), 1.0), certify.p_betting(column(0), 0.0)) == (0.0, 1.0)


@pytest.mark.parametrize(("alpha", "n"), [(0.1, 29), (0.05, 59), (0.02, 149)])
def test_so_many_tasks_without_a_loss(alpha: float, n: int) -> None:
    assert certify.tasks_needed(alpha) == n
    assert certify.least(np.zeros((n, 1)), certify.p_binomial)[0] <= alpha
    assert certify.least(np.zeros((n - 1, 1)), certify.p_binomial)[0] > alpha


def test_the_least_share_of_tasks_is_clopper_and_pearsons() -> None:
    losses = np.zeros((40, 1))
    losses[:3] = 0.1
    found = certify.least(losses, certify.p_binomial)[0]
    assert found == pytest.approx(beta.ppf(0.95, 4, 37), abs=1e-4)
    assert found >= beta.ppf(0.95, 4, 37)


def test_the_sequence_ends_at_the_first_that_is_not_proved() -> None:
    losses = np.zeros((60, 3))
    losses[:9, 1] = 1  # the looser one is fine again: it is not reached
    assert certify.fixed_sequence(losses, 0.05, certify.p_binomial) == 1
    assert certify.fixed_sequence(losses, 0.5, certify.p_binomial) == 3
    assert certify.fixed_sequence(losses, 0.01, certify.p_binomial) == 0
    strict, looser, loose = certify.least(losses, certify.p_binomial)
    assert strict < looser == loose


def test_conformal_risk_by_hand() -> None:
    # The largest so far: (0, .5), (.5, .5), (0, 0); one more task may lose all.
    assert certify.conformal(np.array([[0, 0.5], [0.5, 0], [0, 0]])).tolist() == [1.5 / 4, 2 / 4]
    assert certify.conformal(np.zeros((99, 1)))[0] == 0.01


@pytest.mark.parametrize("p", [certify.p_binomial, certify.p_betting])
@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("delta", [0.05, 0.3])
@pytest.mark.parametrize("n", [5, 40])
def test_a_false_claim_is_proved_as_rarely_as_promised(p: Any, alpha: float, delta: float, n: int) -> None:
    """Every number of losses, with its probability where the true rate is just what is denied."""
    false = sum(
        binom.pmf(k, n, alpha)
        for k in range(n + 1)
        if p(column(*([1] * k + [0] * (n - k))), alpha * (1 - 1e-9)) <= delta
    )
    assert false <= delta


LOSSES = st.lists(st.lists(st.integers(0, 4).map(lambda k: k / 4), min_size=3, max_size=3), min_size=1, max_size=30)


@given(LOSSES, st.floats(0.01, 0.9), st.sampled_from([certify.p_binomial, certify.p_betting]))
def test_the_least_alpha_is_where_the_sequence_reaches(losses: list[list[float]], alpha: float, p: Any) -> None:
    table = np.array(losses)
    least = certify.least(table, p)
    assert all(one <= other for one, other in pairwise(least))
    for i, at in enumerate(least):
        assert at >= 1 or certify.fixed_sequence(table, at, p) > i
        assert at <= 1e-4 or certify.fixed_sequence(table, at - 1e-4, p) <= i
    # more can be proved at a larger alpha, and of smaller losses
    assert p(table[:, 0], alpha) >= p(table[:, 0], min(alpha * 1.1, 0.99)) - 1e-12
    assert p(table[:, 0] / 2, alpha) <= p(table[:, 0], alpha) + 1e-12
    assert p(table[::-1, 0], alpha) == pytest.approx(p(table[:, 0], alpha))


# The sweeps


class StopsAt:
    """Stops trials at these steps."""

    def __init__(self, steps: dict[str, float]) -> None:
        self.steps = steps

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        verdict = Verdict.STOP if self.steps.get(event.trial.uid) == event.step else Verdict.CONTINUE
        return Judgement(Decision(snapshot.study, event.trial.uid, event.step, verdict, Reason.BELOW))


def five(**curves: list[float]) -> Task:
    runs = [Run(uid, Curve.of(range(1, 6), values), np.arange(1.0, 6.0)) for uid, values in curves.items()]
    return Task("five", Goal("loss", "minimize", 5), tuple(runs))


def test_what_a_sweep_lost_and_when() -> None:
    task = five(a=[9, 8, 7, 3, 2], b=[9, 9, 9, 9, 9], c=[9, 8, 7, 2, 2])
    kept = sweeps.outcome(simulate(task, [0, 1, 2], StopsAt({"b": 2.0})))
    assert kept == {"lost": None, "as_good": False, "missed": False, "trials": 3, "stopped": [0.4], "spent": 0.8}
    lost = sweeps.outcome(simulate(task, [0, 1, 2], StopsAt({"a": 2.0, "b": 1.0, "c": 3.0})))
    assert (lost["lost"], lost["as_good"], lost["missed"]) == (0.4, False, True)
    tied = sweeps.outcome(simulate(task, [0, 1, 2], StopsAt({"a": 2.0})))  # the first of two that are as good
    assert (tied["lost"], tied["as_good"], tied["missed"]) == (0.4, True, False)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two small tasks that the project makes itself, asked of a forecaster that takes no time."""
    tasks = {
        task.name: task
        for task in (synthetic_task("power", 30, 1, n_steps=12), synthetic_task("crossing", 30, 2, n_steps=12))
    }
    short = five(a=[1] * 5)
    table = type(
        "Table", (), {"name": "made", "tasks": (*tasks, "seen", "five"), "task": lambda _, name: tasks.get(name, short)}
    )
    monkeypatch.setattr(sweeps, "Table", lambda folder, caveats: table())
    monkeypatch.setattr(sweeps, "sources", lambda data: ("made",))
    monkeypatch.setattr(sweeps, "trained", lambda: {"made": frozenset({"seen"})})
    monkeypatch.setattr(sweeps, "ASKED", "rank-gap")
    monkeypatch.setattr(sweeps, "TRIALS", 12)
    monkeypatch.setattr(sweeps, "PARTS", tmp_path / "parts")
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(run, "TABLE", tmp_path / "table.md")
    return tasks


def test_units_are_what_the_card_does_not_name() -> None:
    seen = sweeps.trained()
    assert {"lcbench", "taskset_adam8p", "arlbench", "lcdb11"} <= seen.keys()
    assert "higgs" in seen["lcbench"]
    assert "adult" not in seen["lcbench"]


def test_it_goes_on_where_it_was_and_ships(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units, left = sweeps.units(tmp_path)
    assert units == [("made", name) for name in sorted(made)]
    assert left == {"made": {"five": "1 runs are known to the task's horizon"}}

    def main(*words: str) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", ["run.py", "--data", str(tmp_path), "--gates", "product", *words])
        run.main()
        found: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
        return found

    first = main("--orders", "1")["gates"]["product"]
    assert first["orders"] == 1
    played: list[list[int]] = []
    play = sweeps.play

    def counted(task: Task, policy: Policy, orders: list[int]) -> Any:
        played.append(orders)
        return play(task, policy, orders)

    monkeypatch.setattr(sweeps, "play", counted)
    again = main("--orders", "3")["gates"]["product"]
    assert played == [[1, 2]] * 2
    assert again["orders"] == 3
    line = next(line for line in again["lines"] if line["threshold"] == 0.05)
    assert (line["tasks"], line["source"]) == (2, "")
    assert 0 < line["stopped"] < 1
    assert line["lost"] <= line["at_most"]
    monkeypatch.setattr(sweeps, "PARTS", tmp_path / "elsewhere")  # gates of which nothing is kept stay as they were
    both = main("--gates", "early", "--sources", "made", "--orders", "1")["gates"]
    assert (both["product"], both["early"]["orders"], len(played)) == (again, 1, 4)
    assert "min_comparisons=4, min_observations=3, at " in (tmp_path / "table.md").read_text()
    main("--gates", "early", "--sources", "another", "--orders", "2")
    assert len(played) == 4

    for name in ("weights.json", "network.md"):
        (tmp_path / name).write_bytes((run.WEIGHTS / name).read_bytes())
    run.ship(again, tmp_path)
    once = (tmp_path / "network.md").read_text()
    run.ship(again, tmp_path)
    assert (tmp_path / "network.md").read_text() == once
    assert once.count("## Certificate") == 1
    assert once.index("## Certificate") < once.index("## Limits")
    found = certificate.read("network", tmp_path)
    assert found is not None
    assert found.differs(sweeps.GATES["product"]) == ""
    assert found.line(0.05) == certificate.Line(**{**line, "early": tuple(map(tuple, line["early"]))})
    assert math.isclose(found.confidence, 0.95)


def test_some_sources_alone_replace_no_results_of_all(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(*words: str) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", ["run.py", "--data", str(tmp_path), "--gates", "product", *words])
        run.main()
        found: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
        return found

    shipped: list[Any] = []
    monkeypatch.setattr(run, "ship", shipped.append)
    whole = main("--orders", "1", "--ship", "product")
    assert shipped == [whole["gates"]["product"]]
    monkeypatch.setattr(sweeps, "PARTS", tmp_path / "fresh")  # another machine, on which one task is played
    one, other = sorted(made)
    monkeypatch.setattr(sweeps, "units", lambda data: ([("made", one)], {}))
    partial = main("--orders", "1")
    assert partial["gates"]["product"] == whole["gates"]["product"]
    with pytest.raises(SystemExit, match=f"it has 1 tasks that are not kept here, among them made {other}"):
        main("--orders", "1", "--ship", "product")
    assert len(shipped) == 1
    monkeypatch.setattr(sweeps, "trained", lambda: {"made": frozenset({"seen", other})})  # no unit any more
    assert main("--orders", "1", "--ship", "product")["gates"]["product"]["tasks"] == {"made": [one]}
    assert len(shipped) == 2


def test_the_certificate_that_ships_is_that_of_the_results() -> None:
    results = json.loads(run.RESULTS.read_text())
    found = certificate.read("network")
    assert found is not None
    said = results["gates"]["product"]
    assert said["weights"].startswith(found.version.removeprefix("network-"))
    assert len(found.lines) == len(said["lines"])
    for line, stored in zip(found.lines, said["lines"], strict=True):
        assert line == certificate.Line(**{**stored, "early": tuple(map(tuple, stored["early"]))})
    assert run.TABLE.read_text() == run.table(results)
    assert run.in_words(said) in (run.WEIGHTS / "network.md").read_text()
    page = " ".join((run.HERE.parents[1] / "docs" / "trust.md").read_text().replace("\n> ", " ").split())
    assert f"certificate: {found.text(0.05)}" in page
    assert (run.HERE.parents[1] / "docs" / "sweeps.md").read_text().count(f"certificate: {found.text(0.05)}\n") == 2
    strict, trained = found.line(0.01), found.line(0.01, certificate.TRAINING)
    assert strict is not None
    assert trained is not None
    assert (strict.lost, strict.at_most, strict.spent) == pytest.approx(
        (0.0055, 0.0493, 0.5453), abs=0.0005
    )  # as the page says
    assert (trained.lost, trained.spent) == pytest.approx((0.0, 0.571), abs=0.002)
