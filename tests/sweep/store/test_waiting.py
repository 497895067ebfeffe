"""Of the trials that wait, a sweep's storage reads those that have changed, whoever changed them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from lcsearch.schedulers.optuna import adopt
from lcsearch.schedulers.optuna._storage import begin, claim, end_cut, pause, report_again
from lcsearch.sweep.store.storage import Patience, PatientStorage

N = 5


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A study with N paused trials, one that is COMPLETE in their middle and one that runs."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="s")
    for number in range(N + 2):
        trial = begin(study)
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("word", ["a", "b"])
        for step, value in enumerate((1.0, nan, inf, 0.5)):
            trial.report(value, step)
        if number == 2:
            study.tell(number, 0.5)
        elif number <= N:
            pause(study, trial)
    return url


def patient(url: str) -> optuna.Study:
    """The study as a worker of a sweep has it."""
    return optuna.load_study(storage=PatientStorage(url, Patience(), checked=True), study_name="s")


def facts(study: optuna.Study) -> list[str]:
    """All that Optuna keeps of every trial; as text, where NaN is itself."""
    return [repr(sorted(vars(trial).items())) for trial in study.get_trials(deepcopy=False)]


def goes_on(study: optuna.Study) -> None:
    trial = claim(study, 1)
    assert trial is not None
    trial.report(0.25, 4)
    pause(study, trial)


def is_judged_anew(study: optuna.Study) -> None:
    """Nothing but a value is another, as where a worker that was given up wakes."""
    report_again(adopt(study, 3), 0, 0.75)


def is_another_infinity(study: optuna.Study) -> None:
    report_again(adopt(study, 3), 2, -inf)


def is_turned_round(study: optuna.Study) -> None:
    report_again(adopt(study, 3), 0, 0.5)
    report_again(adopt(study, 3), 3, 1.0)


def ends(study: optuna.Study) -> None:
    assert claim(study, 0) is not None
    end_cut(study, 0, "for the test")


CHANGES: dict[str, Callable[[optuna.Study], object]] = {
    "goes on, and waits again": goes_on,
    "is claimed": lambda study: claim(study, 4),
    "ends": ends,
    "has one more report": lambda study: adopt(study, 3).report(0.1, 9),
    "has another value": is_judged_anew,
    "is as infinite the other way": is_another_infinity,
    "has two values in each other's places": is_turned_round,
    "has a value in the place of NaN": lambda study: report_again(adopt(study, 3), 1, 0.0),
    "has a note": lambda study: adopt(study, 1).set_user_attr("note", "mine"),
    "waits for its first turn": lambda study: study.enqueue_trial({"x": 0.5}),
    "one more is there": lambda study: begin(study).suggest_float("x", 0, 1),
    "the one that ran waits": lambda study: pause(study, adopt(study, N + 1)),
}


@pytest.mark.parametrize("by", [lambda url: optuna.load_study(storage=url, study_name="s"), patient], ids=["any", "us"])
def test_whoever_changes_what_waits_is_seen(url: str, by: Callable[[str], optuna.Study]) -> None:
    mine, theirs = patient(url), by(url)
    anybody = RDBStorage(url)
    before = facts(mine)
    assert facts(mine) == before  # what it remembers
    for what, change in CHANGES.items():
        change(theirs)
        now = facts(mine)
        assert now == facts(optuna.load_study(storage=anybody, study_name="s")), what
        assert now != before, what
        before = now
    assert facts(theirs) == before


def test_several_handles_over_one_storage_see_the_same(url: str) -> None:
    """Optuna wraps it anew for each."""
    storage = PatientStorage(url, Patience(), checked=True)
    one, other = (optuna.load_study(storage=storage, study_name="s") for _ in range(2))
    assert facts(one) == facts(other)
    goes_on(patient(url))
    assert facts(one) == facts(other) == facts(optuna.load_study(storage=url, study_name="s"))


def test_only_what_has_changed_is_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[int]()

    class Counted(FrozenTrial):
        def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:
            made.append(number)
            super().__init__(number, *args, **kwargs)

    monkeypatch.setattr("optuna.storages._rdb.storage.FrozenTrial", Counted)
    study = patient(url)
    facts(study)
    facts(study)
    made.clear()
    facts(study)
    assert made == [N + 1]  # it runs
    goes_on(patient(url))
    made.clear()
    facts(study)
    assert made == [1, N + 1]
