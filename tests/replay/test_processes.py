"""Pieces of a computation, and other processes that take some of them, fail, or are killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from lcsearch.data.synthetic import synthetic_task
from lcsearch.replay import processes
from lcsearch.replay.policies import policy_spec
from lcsearch.replay.processes import Do, Pieces, cores
from lcsearch.replay.whatif import ROUND, Replay, replay, rounds

PATIENCE_S = 300.0  # for a process that starts on a loaded machine


@dataclass(frozen=True)
class Squares:
    """Numbers and their squares, with the process that worked them out. The first piece waits for another process.

    Attributes:
        folder: where a process beside the first one leaves a mark when it has begun a piece.
        then: what it does after that.
    """

    folder: Path
    then: str = ""
    first: int = -1

    def begin(self, beside: bool) -> Do[tuple[int, int]]:
        def square(k: int, told: Callable[[int], None]) -> tuple[int, int]:
            told(1)
            if os.getpid() != self.first:
                (self.folder / str(k)).touch()
                if self.then == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.then == "wait":
                    time.sleep(PATIENCE_S)
            elif k == 0:
                end = time.monotonic() + PATIENCE_S
                while not any(self.folder.iterdir()) and time.monotonic() < end:
                    time.sleep(0.01)
            if self.then == "fail" and k:
                raise ValueError(f"piece {k}")
            told(2)
            return k * k, os.getpid()

        return square


@pytest.fixture(autouse=True)
def _others_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "AFTER_S", 0.0)
    monkeypatch.setattr(processes, "POLL_S", 0.01)


def test_another_process_takes_its_part(tmp_path: Path) -> None:
    told: list[int] = []
    with closing(Pieces(Squares(tmp_path, first=os.getpid()), 5, 2)) as pieces:
        assert [found for found, _ in pieces.up_to(2, told.append)] == [0, 1]
        found = pieces.up_to(5, told.append)
    assert [value for value, _ in found] == [0, 1, 4, 9, 16]
    pids = {pid for _, pid in found}
    assert len(pids) == 2
    assert os.getpid() in pids
    assert told == sorted(told)


@pytest.mark.parametrize("number", [1, 2])
def test_one_process_is_enough(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "AFTER_S", PATIENCE_S)  # done long before others would be started
    (tmp_path / "mark").touch()
    with closing(Pieces(Squares(tmp_path, first=os.getpid()), 3, number)) as pieces:
        assert pieces.up_to(3, lambda done: None) == [(k * k, os.getpid()) for k in range(3)]
    assert not multiprocessing.active_children()


def test_what_a_killed_process_had_taken_is_not_lost(tmp_path: Path) -> None:
    with closing(Pieces(Squares(tmp_path, "kill", os.getpid()), 4, 3)) as pieces:
        assert pieces.up_to(4, lambda done: None) == [(k * k, os.getpid()) for k in range(4)]


def test_an_error_is_raised_here(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        closing(Pieces(Squares(tmp_path, "fail", os.getpid()), 4, 2)) as pieces,
        pytest.raises(ValueError, match=r"^piece \d$"),
    ):
        pieces.up_to(4, lambda done: None)
    assert capfd.readouterr() == ("", "")


def test_no_process_stays_behind(tmp_path: Path) -> None:
    def interrupted(done: int) -> None:
        if any(tmp_path.iterdir()):
            raise KeyboardInterrupt

    with closing(Pieces(Squares(tmp_path, "wait", os.getpid()), 4, 2)) as pieces, pytest.raises(KeyboardInterrupt):
        pieces.up_to(4, interrupted)
    assert not multiprocessing.active_children()


WAITS = """
import time
from lcsearch.replay import processes

class Waits:
    def begin(self, beside):
        def piece(k, told):
            told(1)
            if beside:
                print("begun", flush=True)
            time.sleep(3600)
        return piece

if __name__ == "__main__":
    processes.AFTER_S = 0.0
    processes.Pieces(Waits(), 2, 2).up_to(2, lambda done: None)
"""


def test_others_end_with_a_first_process_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    with subprocess.Popen([sys.executable, tmp_path / "waits.py"], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "begun\n"
        first.kill()
        assert first.communicate(timeout=PATIENCE_S)[0] == ""  # nobody is left who could print


@pytest.mark.parametrize("lacks", ["process", "memory", "leave"])
def test_without_another_process_to_be_had_this_one_does_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    def none(*args: object) -> None:
        raise OSError(errno.ENOSPC, "none is to be had")

    context = multiprocessing.get_context("spawn")
    if lacks == "process":
        monkeypatch.setattr(context.Process, "start", none)
    elif lacks == "memory":
        monkeypatch.setattr(type(context), "RawArray", none)
    else:
        monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]  # noqa: SLF001
    (tmp_path / "mark").touch()
    with closing(Pieces(Squares(tmp_path, first=os.getpid()), 3, 2)) as pieces:
        assert pieces.up_to(3, lambda done: None) == [(k * k, os.getpid()) for k in range(3)]


def until_others_have_ended(*progress: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_replay_is_the_same_by_two_processes() -> None:
    task, entrants = synthetic_task("power", 14, n_steps=16), [policy_spec("curve"), policy_spec("median")]

    def points(found: Replay) -> object:
        return found.points, found.frontiers, [history.lives for _, history in found.played]

    alone = [points(found) for found in rounds(task, entrants, orders=12)]
    beside = rounds(task, entrants, orders=12, processes=2, progress=until_others_have_ended)
    assert [points(found) for found in beside] == alone


def test_a_process_that_cannot_forecast_changes_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, entrants = synthetic_task("power", 25, n_steps=20), [policy_spec("curve")]
    alone = replay(task, entrants, orders=ROUND + 1)  # with no more than ROUND there is nothing for another process
    assert min(alone.points[0].saved) > 0
    tried = tmp_path / "tried"
    (tmp_path / "torch.py").write_text(f"open({str(tried)!r}, 'w').close()\nraise MemoryError('no room for it')")
    monkeypatch.syspath_prepend(tmp_path)  # torch is imported in this process, and not yet in others
    beside = replay(task, entrants, orders=ROUND + 1, processes=2, progress=until_others_have_ended)
    assert beside.points == alone.points
    assert tried.exists()


def test_whoever_stops_listening_leaves_no_process() -> None:
    found = rounds(synthetic_task("power", 14, n_steps=16), [policy_spec("curve")], orders=20, processes=2)
    next(found)
    found.close()
    assert not multiprocessing.active_children()


def test_processes_are_a_number_above_0() -> None:
    with pytest.raises(ValueError, match="processes: expected a number >= 1, got 0"):
        replay(synthetic_task("power", 3, n_steps=4), [policy_spec("none")], processes=0)
    assert cores() >= 1
