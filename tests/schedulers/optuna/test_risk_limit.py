"""The risk stays below its limit, whoever stops trials at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from kit.doubles import NormalAroundBest, chances
from kit.studies import SHORTEST, decay, finished, id_of, pruner, storage, study_of
from optuna.trial import Trial, TrialState

from lcsearch.forecast.contract import Forecasts, Query
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.study import Snapshot

LIMIT, P = 0.05, 0.03


class Together:
    """Says P for every query, once `n` threads are asking."""

    name, version = "together", "1"

    def __init__(self, n: int = 1) -> None:
        self.barrier = threading.Barrier(n)

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        self.barrier.wait(60)
        return chances([P] * len(queries), snapshot.goal.sign)


def limited_to(risk: float, n: int = 1) -> CurvePruner:
    return pruner(forecasters=[Together(n)], threshold=0.5, risk=risk)


def ready(study: optuna.Study) -> Trial:
    """A running trial that is due for its first look."""
    trial = study.ask()
    for step, value in enumerate(decay(5.0, SHORTEST + 1)):
        trial.report(value, step)
    return trial


def risk_of(study: optuna.Study) -> float:
    of = study.pruner
    assert isinstance(of, CurvePruner)
    risk = of.report(study).risk
    assert risk is not None
    return risk


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_threads_do_not_pass_the_limit_together(kind: str, tmp_path: Path) -> None:
    n = 8
    with storage(kind, tmp_path) as on:
        study = study_of(limited_to(LIMIT, n), on=on)
        trials = [ready(study) for _ in range(n)]
        answers: dict[int, bool] = {}

        def look(trial: Trial) -> None:
            answers[trial.number] = trial.should_prune()

        threads = [threading.Thread(target=look, args=(trial,)) for trial in trials]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(answers.values()) == 1  # one is 3 %, two would be 5.9 %
        assert risk_of(study) == pytest.approx(P)
        for trial in trials:
            state = TrialState.PRUNED if answers[trial.number] else TrialState.FAIL
            study.tell(trial, state=state)
        assert risk_of(study) == pytest.approx(P)
        held = [t for t in study.trials if t.state == TrialState.FAIL]
        assert not any(t.user_attrs.get("lcsearch:reason") for t in held)


def meanwhile(of: CurvePruner, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Something happens after this pruner has read the study and before it writes."""
    record, acted = of._record, threading.Event()  # noqa: SLF001

    def late(*given: Any) -> None:
        if not acted.is_set():
            acted.set()
            act()
        record(*given)

    monkeypatch.setattr(of, "_record", late)


@pytest.mark.parametrize("first", [True, False])
def test_another_process_that_records_at_the_same_time(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage("sqlite", tmp_path) as here, storage("sqlite", tmp_path) as there:
        one = limited_to(LIMIT)
        study = study_of(one, on=here, study_name="s")
        other = optuna.load_study(study_name="s", storage=there, pruner=limited_to(LIMIT))
        lower, higher = ready(study), ready(study)
        mine, theirs = (lower, higher) if first else (higher, lower)
        adopted = Trial(other, id_of(theirs))
        meanwhile(one, monkeypatch, lambda: stopped.append(adopted.should_prune()))
        stopped: list[bool] = []
        stopped.append(mine.should_prune())
        assert stopped == [True, False]  # theirs, then mine
        assert risk_of(study) == pytest.approx(P)
        assert not study.trials[mine.number].user_attrs["lcsearch:reason"]
        # Nobody told it to stop: neither this nor a report may say that it did not obey.
        mine.report(5.0, 40)
        study.tell(mine, 5.0)
        assert "obeyed" not in one.explain(mine.number, study)
        assert one.report(study).ignored == 0


def test_two_at_once_leave_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that another process takes back while this one waits makes room again for the lower number."""
    with storage("sqlite", tmp_path) as here, storage("sqlite", tmp_path) as there:
        one = limited_to(LIMIT)
        study = study_of(one, on=here, study_name="s")
        other_pruner = limited_to(LIMIT)
        other = optuna.load_study(study_name="s", storage=there, pruner=other_pruner)
        mine, theirs = ready(study), ready(study)
        adopted = Trial(other, id_of(theirs))
        # They write between our reading and our writing, and we write between their writing and their second reading.
        answers: dict[str, bool] = {}
        wrote, both, gone = threading.Event(), threading.Event(), threading.Event()
        record = other_pruner._record  # noqa: SLF001

        def wait_for_mine(*given: Any) -> None:
            record(*given)
            wrote.set()
            assert both.wait(60)

        monkeypatch.setattr(other_pruner, "_record", wait_for_mine)
        thread = threading.Thread(target=lambda: answers.update(theirs=adopted.should_prune()))
        mine_record, mine_withdraw = one._record, one._withdraw  # noqa: SLF001

        def mine_after(*given: Any) -> None:
            if not wrote.is_set():
                thread.start()
                assert wrote.wait(60)
            mine_record(*given)

        def take_back(*given: Any, **more: Any) -> None:
            both.set()
            thread.join()
            gone.set()
            mine_withdraw(*given, **more)

        monkeypatch.setattr(one, "_record", mine_after)
        monkeypatch.setattr(one, "_withdraw", take_back)
        answers["mine"] = mine.should_prune()
        assert answers == {"theirs": False, "mine": True}
        assert risk_of(study) == pytest.approx(P)


def test_the_risk_does_not_rise_without_a_stop() -> None:
    """The margin narrows as the spread does: what must be undercut is no easier for trials that were stopped before."""
    study = study_of(pruner(forecasters=[NormalAroundBest(2.0)], threshold=0.5, risk=0.95))
    trial = ready(study)
    assert trial.should_prune()
    study.tell(trial, state=TrialState.PRUNED)
    before = risk_of(study)
    for _ in range(9):
        study.add_trial(finished(decay(0.1001)))
    assert risk_of(study) <= before
