"""What-if by hand on five trials: saved, stopped, lost for good, frontier, differences, and the words for them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcsearch.curves import Curve
from lcsearch.data.synthetic import synthetic_task
from lcsearch.data.task import Run, Task
from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.goal import Direction, Goal, Judged
from lcsearch.replay import command, processes
from lcsearch.replay.command import show
from lcsearch.replay.policies import policy_spec
from lcsearch.replay.simulator import simulate
from lcsearch.replay.text import compared, summary
from lcsearch.replay.whatif import SWEPT, THRESHOLDS, Replay, differences, ranks, replay, rounds
from lcsearch.study import Status

# Horizon 4, lower is better. "d" wins with 0.5 after a bad start; "e" is worse by 0.001, as good as "d".
CURVES: dict[str, list[float]] = {
    "a": [5, 4, 3, 2],
    "b": [6, 6, 6, 6],
    "c": [5, 3, 2, 1],
    "d": [7, 7, 7, 0.5],
    "e": [4, 4, 4, 0.501],
}
MEDIAN = "median:n_startup_trials=1,n_warmup_steps=2"


def task_of(
    curves: Mapping[str, Sequence[float]],
    statuses: Mapping[str, Status] | None = None,
    direction: Direction = "minimize",
    judged: Judged = "best",
) -> Task:
    goal = Goal("loss", direction, 4.0, judged)
    runs = [
        Run(
            uid,
            Curve.of(range(1, len(c) + 1), [goal.sign * v for v in c]),
            np.arange(1.0, len(c) + 1),
            status=(statuses or {}).get(uid, Status.COMPLETE),
        )
        for uid, c in curves.items()
    ]
    return Task("five", goal, tuple(runs))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_saved_stopped_and_lost_by_hand(direction: Direction) -> None:
    task = task_of(CURVES, direction=direction)
    # Judged 2, 6, 1, 0.5, 0.501. Best to median 0.5, to lower quartile 0.001: the range is twice 4 * 0.001.
    assert task.robust_range == pytest.approx(0.008)
    found = replay(task, [policy_spec("none"), policy_spec(MEDIAN)], orders=3)
    (_, none), (_, history) = found.played
    assert found.best is task.runs[3]
    assert none.spent == none.full_cost == 20
    assert not none.missed()
    # Median of those COMPLETE at step 2: of a alone 4, so b (6) stops. c (3) goes on: 3.5, so d stops and e (4) too.
    assert [(life.uid, life.shown) for life in history.lives] == [("a", 4), ("b", 2), ("c", 4), ("d", 2), ("e", 2)]
    assert history.spent == 14
    assert [life.uid for life in history.lost()] == ["d"]
    assert history.found() == 1
    assert history.missed()  # 1 is worse than 0.5 by more than 0.00008
    # Known to the text: what there was to beat was 2 for b and 1 for d and e.
    assert [history.to_beat(life) for life in history.stopped] == [2, 1, 1]
    never, point = found.points
    assert never.saved == (0.0, 0.0, 0.0)
    assert (never.stopped, never.lost, never.threshold) == (0, 0, None)
    histories = [simulate(task, task.order(seed), policy_spec(MEDIAN).make(task)) for seed in range(3)]
    assert point.saved == tuple(1 - h.spent / 20 for h in histories)
    assert point.stopped == sum(bool(h.lost()) for h in histories)
    assert point.lost == sum(h.missed() for h in histories)
    assert found.frontiers == ()


def test_what_is_as_good_is_not_lost() -> None:
    task = task_of(CURVES | {"d": [4, 4, 4, 0.501], "e": [7, 7, 7, 0.50095]})
    history = replay(task, [policy_spec(MEDIAN)], orders=1).played[0][1]
    assert [life.uid for life in history.stopped] == ["b", "d", "e"]
    # In another order d runs to its end before e, the best by 0.00005, is stopped.
    kept = simulate(task, [3, 0, 4, 1, 2], policy_spec(MEDIAN).make(task))
    assert [life.uid for life in kept.lost()] == ["e"]
    assert kept.found() == 0.501
    assert not kept.missed(0.01 * 0.0005 / task.robust_range + 0.2)
    assert kept.missed(0.0)


def test_a_run_judged_by_its_final_value_must_end() -> None:
    history = simulate(task_of(CURVES, judged="final"), range(5), policy_spec(MEDIAN).make(task_of(CURVES)))
    assert all(history.shown_loss(life) == np.inf for life in history.stopped)
    assert history.found() == 1


def test_the_frontier_has_every_threshold_and_the_policys_own() -> None:
    task = synthetic_task("power", 14, n_steps=16)
    found = replay(task, [policy_spec("curve:threshold=0.3"), policy_spec("median"), policy_spec("oracle")], orders=2)
    (line,) = found.frontiers
    assert [p.threshold for p in line] == sorted([*THRESHOLDS, 0.3])
    assert found.points[0] in line
    assert [p.name for p in found.points] == ["curve:threshold=0.3", "median", "oracle"]
    for point in line:
        alone = [
            simulate(task, task.order(seed), policy_spec(f"curve:threshold={point.threshold}").make(task))
            for seed in range(2)
        ]
        assert point.saved == tuple(1 - h.spent / h.full_cost for h in alone)  # sharing forecasts changes no bit
        assert point.stopped == sum(bool(h.lost()) for h in alone)
    assert [p.saved for p in line] == sorted(p.saved for p in line) or line[-1].saved >= line[0].saved


def test_progress_counts_trials_and_tells_the_orders() -> None:
    told: list[tuple[int, ...]] = []
    replay(task_of(CURVES), [policy_spec("none"), policy_spec("curve")], orders=7, progress=lambda *n: told.append(n))
    assert [n[2] for n in told] == sorted(n[2] for n in told)
    assert [n[0] for n in told] == sorted(n[0] for n in told)
    # Five trials in every search: 2 in the study's own order, and none + 6 thresholds in every random one.
    for orders in (5, 7):
        total = 5 * (2 + 7 * orders)
        assert {n[1] for n in told if n[2] == orders} == {total}
        assert max(n[0] for n in told if n[2] == orders) == total


def test_what_there_is_by_then_is_what_fewer_orders_give() -> None:
    task, entrants = synthetic_task("power", 14, n_steps=16), [policy_spec("curve"), policy_spec("median")]
    found = list(rounds(task, entrants, orders=12))
    assert [part.points[0].orders for part in found] == [5, 10, 12]
    for part in found:
        n = part.points[0].orders
        alone = replay(task, entrants, orders=n)
        assert (part.points, part.frontiers) == (alone.points, alone.frontiers)
        assert [point.saved for point in part.points] == [point.saved[:n] for point in found[-1].points]


def test_other_thresholds_are_searched_over_the_first_orders_only() -> None:
    """Six searches an order would take six times as long as the answer that was asked for."""
    task, told = synthetic_task("late", 14, n_steps=16), list[tuple[int, ...]]()
    entrants = [policy_spec("curve"), policy_spec("median")]
    *_, found = rounds(task, entrants, orders=SWEPT + 2, progress=lambda *n: told.append(n[:2]))
    (line,) = found.frontiers
    assert {point.threshold: point.orders for point in line} == {
        t: SWEPT + 2 if t == 0.05 else SWEPT for t in THRESHOLDS
    }
    assert found.searches(SWEPT) == 7 * SWEPT
    assert found.searches(SWEPT + 2) == 7 * SWEPT + 2 * 2
    assert told[-1] == (14 * (2 + found.searches(SWEPT + 2)),) * 2
    text = summary(found)
    assert "Over 12 random orders of the trials, * its own threshold, others over the first 10:" in text
    rows = [row for row in text.splitlines() if row.startswith("  curve at")]
    assert any(point.lost for point in line)
    for point, row in zip(line, rows, strict=True):
        assert row.endswith(f" {point.lost} ({100 * point.lost / point.orders:.0f} %)")


def test_differences_by_hand() -> None:
    task = task_of(CURVES | {"f": [9, 9, 9]}, {"f": Status.STOPPED})
    one = simulate(task, range(6), policy_spec(MEDIAN).make(task))
    late = simulate(task, range(6), policy_spec("median:n_startup_trials=1,n_warmup_steps=3").make(task))
    never = simulate(task, range(6), policy_spec("none").make(task))
    assert ranks(task) == {3: 1, 4: 2, 2: 3, 0: 4, 1: 5}
    apart = differences(one, never)
    assert [(d.uid, d.rank, d.alone) for d in apart] == [
        ("d", 1, True),
        ("e", 2, True),
        ("b", 5, True),
        ("f", None, True),
    ]
    assert [(d.uid, d.alone, [life.shown for life in d.lives]) for d in differences(one, late)] == [
        ("d", False, [2, 3]),
        ("e", False, [2, 3]),
        ("b", False, [2, 3]),
        ("f", False, [2, 3]),  # stopped at its last report but one by the first; by the other where it had been stopped
    ]
    assert differences(one, one) == []


@pytest.mark.parametrize("name", ["median", "curve"])
def test_of_a_study_that_was_pruned_the_stops_fall_where_they_fell(name: str) -> None:
    """Nothing was stopped by what had pruned it, and that was laid to STARTUP."""
    task = task_of({str(i): [round(0.1 * (i + 1) + 0.8**step, 6) for step in range(20)] for i in range(12)})
    task = replace(task, goal=replace(task.goal, horizon=20.0))
    one = policy_spec(name)
    before = simulate(task, range(12), one.make(task))
    ends = {life.row: life.shown for life in before.stopped}
    assert 3 < len(ends) < 12
    cut = [
        Run(run.uid, run.curve.cut(run.steps[n - 1]), run.clock[:n], status=Status.STOPPED)
        if (n := ends.get(row))
        else run
        for row, run in enumerate(task.runs)
    ]
    found = replay(replace(task, runs=tuple(cut)), [one], orders=1)
    ((_, history),) = found.played
    assert {life.row: life.shown for life in history.stopped} == ends
    assert history.again == history.stopped
    text, n = summary(found), len(ends)
    line = f"  {name}: {n} of 12 trials stopped ({n} where they had been stopped already), 0 % of the steps saved"
    assert f"{line}; the best kept" in text.splitlines()
    assert "what held" not in text


def test_the_summary_word_for_word() -> None:
    task = task_of(CURVES | {"f": [9, 9, 9]}, {"f": Status.STOPPED})
    found = replay(task, [policy_spec(MEDIAN), policy_spec("none")], orders=1)
    point = found.points[0]
    saved = f"{100 * point.saved[0]:3.0f} % ({100 * point.saved[0]:.0f} to {100 * point.saved[0]:.0f})"
    assert summary(found).splitlines() == [
        "five: 6 trials, minimize loss, judged by the best value up to step 4; 5 ran to the end, 1 had been stopped",
        "What had been stopped is censored: nobody knows how it would have gone on. None of it counts as lost, "
        "and what is saved is saved of the steps really trained: little, where a pruner was at work. A study that was "
        "run without one tells more.",
        "The best: trial d, 0.5; as good is what is worse by at most 8e-05, 1 % of the study's range.",
        "",
        "In the order the study ran:",
        f"  {MEDIAN}: 4 of 6 trials stopped, 30 % of the steps saved; the best stopped at step 2, best found 1, worse",
        "    2 of those stopped would have beaten the best finished trial of that moment:",
        f"    trial d (rank 1 of 5): step 2: {found.played[0][1].stopped[1].stop.detail}",  # type: ignore[union-attr]
        f"    trial e (rank 2 of 5): step 2: {found.played[0][1].stopped[2].stop.detail}",  # type: ignore[union-attr]
        "  none: 0 of 6 trials stopped, 0 % of the steps saved; the best kept",
        "",
        "Over one random order of the trials:",
        f"  {'':{len(MEDIAN)}}  {'steps saved':{len(saved)}}  best stopped  of these nothing as good found",
        f"  {MEDIAN}  {saved}  {point.stopped:12d}  {point.lost} ({100 * point.lost} %)",
        f"  {'none':{len(MEDIAN)}}  {'  0 % (0 to 0)':{len(saved)}}  {0:12d}  0 (0 %)",
    ]
    assert compared(found).splitlines() == [
        f"{MEDIAN} and none disagree on 4 of 6 trials:",
        f"  stopped by one alone ({MEDIAN} 3, none 0), best ones first:",
        f"    trial d, rank 1 of 5: {MEDIAN} at step 2",
        f"    trial e, rank 2 of 5: {MEDIAN} at step 2",
        f"    trial b, rank 5 of 5: {MEDIAN} at step 2",
        f"  of unknown end, nothing to conclude: 1 trial, of which {MEDIAN} stops 1 and none 0",
    ]
    assert compared(replay(task, [policy_spec("none"), policy_spec("patience:patience=99")], orders=1)) == (
        "none and patience:patience=99 agree on every trial."
    )
    assert compared(replay(task, [policy_spec("none")], orders=1)) == ""


def test_a_study_without_a_known_best() -> None:
    nan = float("nan")
    for task in (
        task_of(CURVES, dict.fromkeys(CURVES, Status.STOPPED)),
        task_of({"a": [nan] * 4, "b": [nan] * 4}),
        task_of(CURVES, dict.fromkeys(CURVES, Status.FAILED)),
    ):
        found = replay(task, [policy_spec("curve"), policy_spec("median")], orders=1)
        assert found.best is None
        assert [(p.stopped, p.lost) for p in found.points] == [(0, 0), (0, 0)]
        text = summary(found)
        assert "No trial ran to the end with a finite value: what a policy would have lost cannot be said.\n" in text
        assert "best stopped" not in text
        assert "rank" not in text + compared(found)


def test_one_trial() -> None:
    found = replay(
        task_of({"a": [4, 3, 2, 1]}), [policy_spec("curve"), policy_spec("median"), policy_spec("asha")], orders=2
    )
    assert summary(found).startswith("five: 1 trial, minimize loss")
    forged = replace(found, task=replace(found.task, name="fi\nve"))
    assert summary(forged).startswith('"fi\\nve": 1 trial, minimize loss')
    assert "0 of 1 trial stopped, 0 % of the steps saved; the best kept" in summary(found)


class Clock:
    """Seconds that pass while somebody searches."""

    def __init__(self, a_round: float) -> None:
        self.now, self.a_round = 0.0, a_round

    def __call__(self) -> float:
        return self.now

    def rounds(self, *args: Any, orders: int, **kw: Any) -> Iterator[Replay]:
        for part in rounds(*args, orders=orders, **kw):
            self.now += self.a_round * (1 if part.points[0].orders == 5 else part.points[0].orders / 10)
            yield part


def replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: Any, **settings: Any) -> list[str]:
    (tmp_path / "study.csv").write_text(CSV)
    monkeypatch.setattr(command, "rounds", search)
    wish = {"direction": "minimize"}
    found: list[str] = []
    try:
        settings = {"processes": 1, **settings}
        found.extend(show(str(tmp_path / "study.csv"), ["none"], wish, out=tmp_path / "out", **settings))
    except KeyboardInterrupt:
        found.append("interrupted")
    return found


def test_as_many_orders_as_time_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five orders take 25 s: ten would be ready within a minute, twenty would not."""
    clock = Clock(25.0)
    monkeypatch.setattr("lcsearch.replay.command.time.monotonic", clock)
    texts = replayed(tmp_path, monkeypatch, clock.rounds)
    assert "Over 10 random orders of the trials:" in texts[1]
    assert texts[2] == "Only 10 orders, for they took 50 s; --orders 20 takes about 100 s."
    clock.now, every = 0.0, replayed(tmp_path, monkeypatch, clock.rounds, orders=20)  # whoever says how many gets them
    assert "Over 20 random orders of the trials:" in every[1]
    assert not any(text.startswith("Only") for text in every)


def test_with_more_processes_more_orders_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four searched ten orders, two at a time, in 50 s: they search twenty, four at a time, in as long."""
    clock = Clock(25.0)
    monkeypatch.setattr("lcsearch.replay.command.time.monotonic", clock)
    monkeypatch.setattr(processes, "AFTER_S", math.inf)
    texts = replayed(tmp_path, monkeypatch, clock.rounds, processes=4)
    assert "Over 20 random orders of the trials:" in texts[1]


def test_an_interrupt_shows_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off(*args: Any, **kw: Any) -> Iterator[Replay]:
        yield next(rounds(*args, **kw))
        raise KeyboardInterrupt

    texts = replayed(tmp_path, monkeypatch, broken_off)
    assert "Over 5 random orders of the trials:" in texts[1]
    assert texts[2] == "Interrupted after 5 of 20 random orders."
    assert texts[-2].startswith("\nwrote ")
    assert texts[-1] == "interrupted"


def test_an_interrupt_before_anything_is_done_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(*args: Any, **kw: Any) -> Iterator[Replay]:
        yield from ()
        raise KeyboardInterrupt

    assert replayed(tmp_path, monkeypatch, at_once)[1:] == ["interrupted"]


def test_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, clock = Terminal(), Clock(4.0)
    monkeypatch.setattr("lcsearch.replay.command.sys.stderr", terminal)
    monkeypatch.setattr("lcsearch.replay.command.time.monotonic", clock)

    def searched(*args: Any, progress: Any, **kw: Any) -> Iterator[Replay]:
        clock.now = 3.0
        progress(25, 100, 5)
        yield next(rounds(*args, **kw))
        clock.now = 8.0
        progress(100, 200, 10)
        clock.now = 9.0
        progress(120, 160, 20)  # orders behind the tenth are fewer searches: what is left goes by these

    replayed(tmp_path, monkeypatch, searched)
    lines = [line.strip() for line in terminal.getvalue().split("\r") if line.strip()]
    assert lines == [
        "searching 20 random orders; Ctrl-C shows what there is by then",
        "random orders up to 5, then up to 20: 25 %, about 9 s left",
        "random orders up to 10, then up to 20: 50 %, about 8 s left",
        "random orders up to 20: 75 %, about 3 s left",
    ]
    assert terminal.getvalue().endswith(" \r")  # nothing of it stays


def test_bad_arguments_are_named() -> None:
    task = task_of(CURVES)
    with pytest.raises(InvalidValue, match=r"^policies: expected at least one policy, none twice, got \[\].$"):
        replay(task, [])
    with pytest.raises(InvalidValue, match=r"^orders: expected a number >= 1, got 0.$"):
        replay(task, [policy_spec("none")], orders=0)


CSV = "trial,step,value\n" + "".join(f"{u},{s},{v}\n" for u, c in CURVES.items() for s, v in enumerate(c, 1))


def test_nothing_is_searched_before_the_arguments_are_known_to_fit(tmp_path: Path) -> None:
    study = tmp_path / "study.csv"
    study.write_text(CSV)
    wish = {"direction": "minimize"}

    def said(policies: Sequence[str] = ("none",), error: type[Exception] = InvalidValue, **settings: Any) -> str:
        with pytest.raises(error) as caught:
            next(show(str(study), list(policies), wish, **{"out": tmp_path / "out", **settings}))
        return str(caught.value)

    assert said(orders=0) == "--orders: expected a number >= 1, got 0."
    assert said(workers=65) == "--workers: expected 1 to 64, got 65."
    assert said(["none", "none"]) == "--policy: expected every policy once, got 'none'."
    assert said(["medain"]) == (
        "policy: expected one of curve, oracle, none, patience, median, sha, hyperband, asha, got 'medain'. "
        "Perhaps 'median' is meant."
    )
    assert said(["median:n_startup_trials=-1"]) == ("Median.n_startup_trials: expected a whole number >= 0, got -1.")
    assert not (tmp_path / "out").exists()
    blocked = study / "out"
    assert said(error=EnvironmentProblem, out=blocked) == (
        f"{blocked}: expected a folder that can be written, got Not a directory. Choose another with --out."
    )


def test_a_plot_of_an_earlier_replay_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "study.csv").write_text(CSV)
    out = tmp_path / "out"
    settings: dict[str, Any] = {"orders": 1, "out": out}
    texts = list(show(str(tmp_path / "study.csv"), [MEDIAN, "none"], {"direction": "minimize"}, **settings))
    assert texts[-1] == f"\nwrote {out / 'frontier.png'}\nwrote {out / 'disagreement.png'}"
    list(show(str(tmp_path / "study.csv"), ["none"], {"direction": "minimize"}, **settings))
    assert [path.name for path in out.iterdir()] == ["frontier.png"]
