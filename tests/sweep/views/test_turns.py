"""What is shown of paused trials and of the last turns: live view, status, summary, explain, report."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from sweep.runtime.test_pause import Hand, pausing_toy, swept

from lcsearch.session.decision_log import read_allocations
from lcsearch.sweep.monitor.open_run import read_state, reader
from lcsearch.sweep.report import write as report
from lcsearch.sweep.report.collect import collect
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.views.explain import explain
from lcsearch.sweep.views.live import PlainView
from lcsearch.sweep.views.notices import notices
from lcsearch.sweep.views.screen import layout
from lcsearch.sweep.views.summary import summarize, unfinished


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Seven turns of a sweep: all trials are paused but those that were promoted."""
    tmp_path = tmp_path_factory.mktemp("turns")
    hand = Hand(pausing_toy(tmp_path / "ann"), tmp_path / "ann/run")
    for _ in range(7):
        found = hand.train()
        assert found is not None
        assert found[1] == "WAITING"
    return hand.folder


def test_the_summary_has_paused_trials_and_the_last_turns(folder: RunFolder) -> None:
    _, state = read_state(folder)
    lines = summarize(state).splitlines()
    n = state.progress.counts["paused"]
    assert f"{n} paused" in lines[0]
    at = next(i for i, line in enumerate(lines) if line.startswith("turns: "))
    receipts = sorted(read_allocations(folder.decisions), key=lambda one: one.number)
    first = receipts[-1].against[0]
    assert lines[at] == (
        f"turns: {len(receipts)} given by asha; {n} trials are paused, the nearest to a turn is trial {first.uid}: "
        f"rank {first.rank} of {first.of} by {first.by}"
    )
    assert lines[at + 1 : at + 6] == [f"  {line}" for one in receipts[-5:] for line in one.told("epoch")]
    assert unfinished(state.progress, folder)
    assert state.left is None


def test_the_screen_has_them_too_however_small_it_is(folder: RunFolder) -> None:
    _, state = read_state(folder)
    lines = [line.text for line in layout(state, 120, None)]
    assert any(f"{state.progress.counts['paused']} paused" in line for line in lines)
    assert any(line.startswith("turns: ") for line in lines)
    assert all(len(layout(state, 40, height)) <= height for height in range(1, 30))


def test_a_paused_trial_says_what_it_waits_for(folder: RunFolder) -> None:
    study, state = read_state(folder)
    waiting = [row.number for row in state.progress.of("paused")]
    told = [explain(number, state, study).splitlines() for number in waiting]
    assert all(lines[0].endswith(" epochs") for lines in told)
    assert all(f"trial {n}: paused, " in lines[0] for n, lines in zip(waiting, told, strict=True))
    said = [line for lines in told for line in lines if line.startswith(("waits: rank ", "it is next, until epoch "))]
    assert len(said) == len(waiting)
    assert any(" by value at step 1, needs " in line for line in said)
    before = len(list(read_allocations(folder.decisions)))
    assert before == state.n_turns  # to explain moves nobody


def test_the_report_has_a_card(folder: RunFolder) -> None:
    page = report.write(folder).read_text()
    assert "<h2>Turns</h2>" in page
    assert "running, paused or waiting" in page


def test_the_report_tells_of_every_cut_what_it_was_for(tmp_path: Path) -> None:
    outcome = swept(pausing_toy(tmp_path / "ann", more="checkpoints: {keep: 4}\n", trials=20))
    run, rows = RunFolder(outcome.folder), outcome.progress.rows
    found = collect(run)
    assert found.stops == ()
    assert [cut.number for cut in found.cuts] == [row.number for row in rows if row.state == "stopped"]
    receipts = {uid: one for one in read_allocations(run.decisions) for uid, _ in one.stops}
    kinds = {cut.by for cut in found.cuts}
    assert kinds == {"asha", "checkpoints.keep"}
    for cut in found.cuts:
        row, there = rows[cut.number], [other for other in rows if other.spent >= cut.step]
        assert (cut.step, cut.saved, cut.line) == (row.spent, 25 - row.spent, row.note)
        better = sum(min(list(o.values.values())[: row.spent]) < min(row.values.values()) for o in there)
        assert cut.rank == (1 + better, len(there))
        receipt = receipts.get(str(cut.number))
        assert cut.allocation == (None if receipt is None else receipt.number)
        assert cut.text.startswith(
            f"allocation {cut.allocation} (asha): cut: " if receipt else "its checkpoint was evi"
        )
    page = re.sub(r"<[^>]+>", " ", report.write(run).read_text())
    page = re.sub(r"\s+", " ", page)
    assert "Stops No trial was stopped as it ran. Cut while paused trial epoch rank there by allocation saved" in page
    last = next(cut for cut in found.cuts if cut.by == "asha")
    told = f"{last.number} {last.step:g} {last.rank[0]} of {last.rank[1]} asha {last.allocation} {last.saved}"
    assert f" {told} cut: its rung is closed allocation {last.allocation} (asha): cut: its rung is closed" in page
    assert f"saved by stops and cuts, estimate {outcome.progress.saved} (" in page
    (run.root / "decisions").rename(run.root / "gone")
    assert {(cut.by, cut.allocation) for cut in collect(run).cuts} == {
        ("the allocator", None),
        ("checkpoints.keep", None),
    }


def test_trials_that_could_not_be_paused_are_told_once(tmp_path: Path) -> None:
    hand = Hand(pausing_toy(tmp_path / "ann", trials=2), tmp_path / "ann/run")

    def train(ctx: object) -> None:
        for epoch in range(1, 26):
            ctx.report(1 / epoch, epoch)  # type: ignore[attr-defined]

    assert hand.train(train) == (0, "COMPLETE")
    _, state = read_state(hand.folder)
    assert notices(state.progress, state.sweep) == [
        "1 trial could not be paused (trial 0): the turn of trial 0 was over at epoch 1, and it did not save; call "
        "ctx.save(state, step) after ctx.report where ctx.checkpoint_due, and go on from ctx.load()"
    ]


def test_plain_lines_tell_who_goes_on_and_why(tmp_path: Path) -> None:
    hand, out = Hand(pausing_toy(tmp_path / "ann"), tmp_path / "ann/run"), io.StringIO()
    assert hand.train() == (0, "WAITING")
    sweep, study, progress = reader(hand.folder)
    view = PlainView(sweep.file, out, folder=hand.folder)
    view.start()
    for _ in range(7):
        hand.train()
        view.update(progress(), study)
    first, *lines = out.getvalue().splitlines()
    assert first.endswith("random sampler, none pruner, asha allocator")
    resumed = [line for line in lines if line.startswith("turn: ")]
    assert resumed
    assert all(re.match(r"turn: trial \d+ until epoch (3|9|25): ", line) for line in resumed)
    assert len(lines) == len(set(lines))
