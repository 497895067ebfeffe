"""Interrupts are counted as they were sent, however late Python hears of them."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sweep.kit import Remembering, write_toy

from lcsearch.sweep.runtime.launch import Watch
from lcsearch.sweep.runtime.signals import counted
from lcsearch.sweep.spec.load import load
from lcsearch.sweep.store import studies
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.storage import Patience

INT, TERM = signal.SIGINT, signal.SIGTERM


def hear_late(file: Path, signals: tuple[signal.Signals, ...]) -> None:
    """Be sent the signals while this thread waits for a lock of sqlite's: in C, where it does not hear of them."""
    holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")

    def send() -> None:
        for number in signals:
            time.sleep(0.2)
            os.kill(os.getpid(), number)
        time.sleep(0.2)
        holder.execute("ROLLBACK")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as other:
            other.execute("BEGIN EXCLUSIVE")
    finally:
        sender.join()
        holder.close()


class Waiting(Watch):
    """A launch whose loop does not hear of the signals it is sent until all have come."""

    signals: tuple[signal.Signals, ...] = ()
    told = 0
    """How often an interrupt after the first was told of."""

    def on_second_interrupt(self) -> None:
        self.told += 1
        super().on_second_interrupt()

    def loop(self) -> None:
        hear_late(self.folder.root / "locked.sqlite3", self.signals)


class Over(Waiting):
    """One that hears of them when every trial has ended."""

    def loop(self) -> None:
        for _ in range(self.file.budget.trials):
            trial = self.study.ask()
            trial.suggest_float("a", 0, 1)
            trial.report(1.0, 1)
            self.study.tell(trial, 1.0)
        super().loop()


def made(tmp_path: Path, *signals: signal.Signals, kind: type[Waiting] = Waiting) -> Waiting:
    folder, patience = RunFolder(tmp_path / "run"), Patience()
    folder.root.mkdir()
    sweep = load(write_toy(tmp_path))
    folder.write(sweep)
    study = studies.create_study(sweep.file, folder, resume=False, patience=patience)
    watch = kind(sweep, folder, study, Remembering(), patience)
    watch.signals = signals
    return watch


@pytest.mark.parametrize("signals", [(INT,), (INT, INT), (INT, TERM), (TERM, INT, TERM)])
def test_signals_that_come_while_the_main_thread_is_in_c_all_count(
    tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    watch = made(tmp_path, *signals)
    outcome = watch.run(resume=False)
    assert watch.interrupts == len(signals)
    assert (watch.told > 0) is (len(signals) > 1)
    assert outcome.code == 130


@pytest.mark.parametrize(("signals", "code"), [((INT,), 0), ((INT, INT), 130)])
def test_an_interrupt_when_all_trials_have_ended_has_interrupted_nothing(
    tmp_path: Path, signals: tuple[signal.Signals, ...], code: int
) -> None:
    outcome = made(tmp_path, *signals, kind=Over).run(resume=False)
    assert (outcome.code, outcome.message) == (code, "interrupted; go on with --resume" if code else "")


def test_each_counts_once_and_what_others_listen_to_does_not() -> None:
    told: list[int] = []
    before = [signal.getsignal(number) for number in (INT, TERM)]
    usr1 = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with counted([INT, TERM], told.append):
            for number in (INT, TERM, signal.SIGUSR1, INT):
                signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGUSR1, usr1)
    assert told == [1, 2, 3]
    assert [signal.getsignal(number) for number in (INT, TERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_byte_that_comes_late_is_not_counted_again() -> None:
    told: list[int] = []
    with counted([INT], told.append):
        ours = signal.set_wakeup_fd(-1)
        signal.raise_signal(INT)
        os.write(ours, bytes([INT]))
        signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        signal.raise_signal(INT)
    assert told == [1, 2]


def test_somebody_else_who_has_the_bytes_keeps_them_and_calls_still_count() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    told: list[int] = []
    try:
        with counted([INT], told.append):
            signal.set_wakeup_fd(writing)
            signal.raise_signal(INT)
            signal.raise_signal(INT)
        assert told == [1, 2]
        with counted([INT], told.append):
            signal.raise_signal(INT)
        assert signal.set_wakeup_fd(-1) == writing  # both left it where it was
        assert os.read(reading, 9) == bytes([INT, INT])
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reading)
        os.close(writing)


def test_another_thread_cannot_listen() -> None:
    said: list[str] = []

    def listen() -> None:
        try:
            with counted([INT], lambda _: None):
                pass
        except ValueError as error:
            said.append(str(error))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert len(said) == 1
