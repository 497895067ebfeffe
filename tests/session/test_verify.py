"""Decisions made again from log and study: a clean log comes out as recorded, one changed number is found."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from kit.doubles import NormalAroundBest, Rows
from kit.tune_runner import Runner, book_of, of_run, scheduler
from ray.tune.experiment import Trial as TuneTrial

from lcsearch.allocation.receipt import ALLOCATED
from lcsearch.curves import Curve
from lcsearch.errors import FileProblem
from lcsearch.forecast.contract import Absent, Forecaster
from lcsearch.schedulers.optuna import CurvePruner, FreezeThaw, FreezeThawTrial, as_trial
from lcsearch.schedulers.ray_tune import StateCallback
from lcsearch.schedulers.ray_tune._callback import kept_trials
from lcsearch.session.audit_file import load
from lcsearch.session.verified import Verified
from lcsearch.session.verify import verify
from lcsearch.study import Status, Trial
from lcsearch.study.moment import BEGAN_ANEW

optuna.logging.set_verbosity(optuna.logging.ERROR)
N, STEPS, SD = 16, 14, 0.2
Trials = dict[str, Trial]


def at_hand(name: str) -> Forecaster | None:
    return NormalAroundBest(SD) if name == "fake" else None


def value_of(number: int, step: int) -> float:
    """The first ones decay to about .2, most later ones to about 1; one of them meets NaN and never comes back."""
    rng = np.random.default_rng([number, step])
    if number == 9 and step > 3:
        return math.nan
    limit = 0.2 + 0.01 * number if number < 5 or number % 3 == 0 else 0.5 + 0.05 * number
    return limit + 0.7**step + 0.01 * float(rng.random())


def by_optuna(
    folder: Path,
    told: Callable[[CurvePruner, optuna.Study], None] | None = None,
    groups: Sequence[range] = (range(5), range(5, N)),
    deaf: int | None = None,
    **knobs: Any,
) -> Trials:
    """`groups` run one after the other, the trials of one side by side; `deaf` goes on when told to stop."""
    known: dict[str, Any] = {"look_growth": 1, "forecasters": NormalAroundBest(SD), **knobs}
    pruner = CurvePruner(max_steps=STEPS, decision_log=folder, **known)
    study = optuna.create_study(study_name="s", pruner=pruner)
    trials = [study.ask() for _ in range(N)]
    gone: set[int] = set()
    for some in groups:
        for step in range(STEPS):  # side by side, so that looks see trials that are under way
            for number in some:
                trial = trials[number]
                if number in gone:
                    continue
                trial.report(value_of(number, step), step)
                if trial.should_prune() and number != deaf:
                    gone.add(number)
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        for number in some:
            if number not in gone:
                study.tell(trials[number], value_of(number, STEPS - 1))
    if told is not None:
        told(pruner, study)
    return {str(t.number): as_trial(t) for t in study.get_trials(deepcopy=False)}


def by_freeze_thaw(folder: Path, allocator: str = "greedy", steps: int | None = None) -> Trials:
    pruner = CurvePruner(max_steps=STEPS, decision_log=folder, look_growth=1, forecasters=NormalAroundBest(SD))
    study = optuna.create_study(pruner=pruner)

    def train(trial: FreezeThawTrial) -> float:
        kept, value = trial.load(), math.inf
        for step in range(0 if kept is None else kept.step + 1, STEPS):
            value = value_of(trial.number, step)
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
            if trial.checkpoint_due:
                trial.save({}, step)
        return value

    driver = FreezeThaw(study, train, max_steps=STEPS, allocator=allocator, n_trials=N, steps=steps)
    driver.run()
    driver.finish()
    return {str(t.number): as_trial(t) for t in study.get_trials(deepcopy=False)}


def by_ray(folder: Path, groups: Sequence[range] = (range(5), range(5, N)), **knobs: Any) -> Trials:
    of = scheduler(max_t=STEPS, decision_log=folder, forecasters=[NormalAroundBest(SD)], **knobs)
    runner = Runner(of)
    for some in groups:
        trials = {number: runner.start(f"t{number:02d}") for number in some}
        for step in range(STEPS):
            for number, trial in trials.items():
                if trial.status == TuneTrial.RUNNING:
                    runner.report(trial, step + 1, value_of(number, step))
                    assert of.session.wait(60)
                    runner.step()
    assert of.session.wait(60)
    return {uid: book_of(of_run(runner)).trial(uid) for uid in book_of(of_run(runner)).entries}


MADE: dict[str, Callable[..., Trials]] = {"optuna": by_optuna, "ray": by_ray}


@pytest.fixture(scope="module", params=MADE)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trials]:
    log = tmp_path_factory.mktemp(request.param) / "log"
    return log, MADE[request.param](log)


def lines(log: Path) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for path in sorted(log.glob("*.jsonl")):
        for at, line in enumerate(path.read_text().splitlines()):
            yield path, at, json.loads(line)


def with_record(log: Path, to: Path, change: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """A copy of a log of which one record is changed: the last that `change` takes; returns that."""
    to.mkdir()
    records = [record for _, _, record in lines(log)]
    changed: dict[str, Any] = next(record for record in reversed(records) if change(record))
    (to / "one.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return changed


def test_a_clean_log_comes_out_as_recorded(made: tuple[Path, Trials]) -> None:
    log, trials = made
    found = verify(log, trials, at_hand)
    assert found.mismatch is None
    assert found.not_made_again == {}
    assert found.notes == ()
    reasons = [record["reason"] for _, _, record in lines(log)]
    assert found.looks == len(reasons) > 10
    assert {"BELOW", "ABOVE", "DIVERGED"} <= set(reasons)
    assert found.lines == [f"{found.looks} looks and 0 allocations made again: each came out as recorded"]


def number_in(place: str) -> Callable[[dict[str, Any]], bool]:
    """Changes one number of a STOP by P(beat): by a hundredth of itself, or by 1 where it counts."""

    def change(record: dict[str, Any]) -> bool:
        if record["reason"] != "BELOW":
            return False
        inside: Any = record
        *path, last = place.split(".")
        for part in path:
            inside = inside[part]
        key: Any = int(last) if isinstance(inside, list) else last
        old = inside[key]
        inside[key] = old + 1 if isinstance(old, int) else (old * 1.01 + 1e-5)
        return True

    return change


@pytest.mark.parametrize(
    "place",
    [
        *("now.p", "now.interval.1", "now.threshold", "now.n_observations", "before.step", "before.heard.fake"),
        *("incumbent.value", "target", "horizon", "standing.rank", "risk", "saw.policy.epsilon"),
        "saw.policy.threshold",
    ],
)
def test_one_changed_number_is_found(made: tuple[Path, Trials], tmp_path: Path, place: str) -> None:
    log, trials = made
    changed = with_record(log, tmp_path / "log", number_in(place))
    found = verify(tmp_path / "log", trials, at_hand)
    assert found.mismatch is not None
    assert found.mismatch.what == f"trial {changed['trial']}, step {changed['step']:g}"
    assert found.lines[0].startswith(f"MISMATCH trial {changed['trial']}, step {changed['step']:g}: ")


def test_one_changed_verdict_is_found(made: tuple[Path, Trials], tmp_path: Path) -> None:
    log, trials = made

    def above(record: dict[str, Any]) -> bool:
        if record["reason"] != "BELOW":
            return False
        record["reason"], record["verdict"] = "ABOVE", "CONTINUE"
        return True

    changed = with_record(log, tmp_path / "log", above)
    found = verify(tmp_path / "log", trials, at_hand).mismatch
    assert found is not None
    assert (found.field, found.recorded, found.found) in [("verdict", "CONTINUE", "STOP"), ("reason", "ABOVE", "BELOW")]
    assert changed["trial"] in found.what


@pytest.mark.parametrize("by", [1e-4, 1.0])
def test_one_changed_value_of_the_study_is_found(made: tuple[Path, Trials], by: float) -> None:
    log, trials = made
    for uid in list(trials)[:: N // 4]:
        steps, values = trials[uid].curve.reports()
        changed = values.copy()
        changed[2] += by
        other = {**trials, uid: replace(trials[uid], curve=Curve.of(steps, changed))}
        found = verify(log, other, at_hand).mismatch
        assert found is not None
        assert found.field == "the digest of the study's curves as they were then"


def test_looks_that_knew_a_dead_attempt_cannot_be_made_again(made: tuple[Path, Trials]) -> None:
    """Other values than a log's are no sign of a change where the trial says itself that it began anew."""
    log, trials = made
    uid = list(trials)[-1]
    steps, values = trials[uid].curve.reports()
    anew = replace(trials[uid], curve=Curve.of(steps, values + 1.0), stop_records={BEGAN_ANEW: True})
    found = verify(log, {**trials, uid: anew}, at_hand)
    assert found.mismatch is None
    assert list(found.not_made_again) == [
        "that knew a trial which has begun anew since: what the attempt that died had reported is gone"
    ]
    assert found.looks + sum(found.not_made_again.values()) == verify(log, trials, at_hand).looks


def test_a_trial_that_began_anew_excuses_no_other(made: tuple[Path, Trials]) -> None:
    log, trials = made
    *_, other, uid = trials
    steps, values = trials[uid].curve.reports()
    anew = replace(trials[uid], curve=Curve.of(steps, values + 1.0), stop_records={BEGAN_ANEW: True})
    steps, values = trials[other].curve.reports()
    changed = replace(trials[other], curve=Curve.of(steps, values + 1.0))
    for of in (trials[uid], replace(trials[uid], stop_records={**trials[uid].stop_records, BEGAN_ANEW: True}), anew):
        found = verify(log, {**trials, uid: of, other: changed}, at_hand).mismatch
        assert found is not None
        assert found.field == "the digest of the study's curves as they were then"
        found = verify(log, {u: t for u, t in {**trials, uid: of}.items() if u != other}, at_hand).mismatch
        assert found is not None
        assert found.field == "the study"


def test_a_changed_record_of_a_stop_in_the_study_is_found(made: tuple[Path, Trials]) -> None:
    log, trials = made
    uid = next(uid for uid, trial in trials.items() if trial.stop_records.get("stop") and trial.stop_records["stop"].p)
    stop = trials[uid].stop_records["stop"]
    other = {**trials, uid: replace(trials[uid], stop_records={"stop": replace(stop, p=stop.p * 1.1)})}
    found = verify(log, other, at_hand).mismatch
    assert found is not None
    assert str(found).startswith(f"the study's record of the stop of trial {uid}: record.p was recorded as ")


def test_a_trial_that_is_gone_is_found(made: tuple[Path, Trials]) -> None:
    log, trials = made
    found = verify(log, {uid: trial for uid, trial in trials.items() if not uid.endswith("2")}, at_hand).mismatch
    assert found is not None
    assert "no trial " in str(found)


def test_what_cannot_be_made_again_is_counted_by_why(made: tuple[Path, Trials], tmp_path: Path) -> None:
    log, trials = made
    whole = verify(log, trials, at_hand)
    without = verify(log, trials, lambda name: None)
    assert without.mismatch is None
    assert without.not_made_again == {"by fake 1, which is not at hand": whole.looks - without.looks}
    assert without.looks == 1  # the divergence needs no forecast
    # what needs no forecast is held to the log all the same
    changed = with_record(log, tmp_path / "log", number_in("target"))
    found = verify(tmp_path / "log", trials, lambda name: None).mismatch
    assert found is not None
    assert found.what.startswith(f"trial {changed['trial']}, ")

    def old(record: dict[str, Any]) -> bool:
        return record.pop("saw", None) is None

    to = tmp_path / "old"
    to.mkdir()
    records = [record for _, _, record in lines(log)]
    for record in records:
        old(record)
    (to / "one.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found_old = verify(to, trials, at_hand)
    (why,) = found_old.not_made_again
    assert why == "looks written by an earlier lcsearch, whose receipts do not say what was seen"
    assert found_old.lines[-1] == "nothing was verified"


def test_a_stop_that_the_log_does_not_have_is_said(made: tuple[Path, Trials], tmp_path: Path) -> None:
    log, trials = made
    (tmp_path / "log").mkdir()
    records = [record for _, _, record in lines(log)]
    stopped = [record["trial"] for record in records if record["verdict"] == "STOP"]
    kept = [record for record in records if record["trial"] != stopped[-1]]
    (tmp_path / "log/one.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    found = verify(tmp_path / "log", trials, at_hand)
    assert found.mismatch is None
    assert found.missing == (stopped[-1],)
    assert not found.sound
    assert f"MISSING from this log: the stop of trial {stopped[-1]} of the study" in found.lines
    assert verify(tmp_path / "log", trials, at_hand, elsewhere=(stopped[-1],)).missing == ()


def test_a_stop_whose_process_was_killed_before_its_log_is_told_as_that(
    made: tuple[Path, Trials], tmp_path: Path
) -> None:
    """It was called missing, as one whose line was taken out."""
    log, trials = made
    records = [record for _, _, record in lines(log)]
    at = max(i for i, record in enumerate(records) if record["verdict"] == "STOP")
    uid, step = records[at]["trial"], records[at]["step"]
    (tmp_path / "log").mkdir()
    text = "".join(json.dumps(record) + "\n" for record in records[:at])
    (tmp_path / "log/one.jsonl").write_text(text + json.dumps(records[at])[:50])  # the line may have been begun
    found = verify(tmp_path / "log", trials, at_hand)
    assert (found.mismatch, found.missing, found.unlogged, found.looks) == (None, (), {uid: step}, at)
    assert not found.sound
    assert found.lines[0] == (
        f"NOT IN THIS LOG: the look that stopped trial {uid} (step {step:g}), whose record the study holds whole. A "
        "process that is killed between the two leaves this; so does a log that lost its last lines, or a file"
    )
    assert verify(tmp_path / "log", trials, at_hand, elsewhere=(uid,)).sound
    # a record that does not hold together, or a log with a gap, is no such thing
    stop = trials[uid].stop_records["stop"]
    other = replace(stop, decision=replace(stop.decision, seen="0" * 16))
    changed = {**trials, uid: replace(trials[uid], stop_records={"stop": other})}
    assert verify(tmp_path / "log", changed, at_hand).missing == (uid,)
    (tmp_path / "log/one.jsonl").write_text(text.partition("\n")[2])
    found = verify(tmp_path / "log", trials, at_hand)
    assert uid in found.missing
    assert not found.unlogged


def test_absent_forecasts_are_taken_as_they_were(tmp_path: Path) -> None:
    trials = by_optuna(tmp_path / "log", forecasters=Rows(0.0, Absent.LATE, name="late"))
    found = verify(tmp_path / "log", trials, lambda name: Rows(0.0, 0.0, name="late"))
    assert found.mismatch is None
    assert found.looks > 5
    assert "DIVERGED" in {record["reason"] for _, _, record in lines(tmp_path / "log")}


@pytest.mark.parametrize("framework", MADE)
def test_a_study_whose_first_stops_are_against_rivals(framework: str, tmp_path: Path) -> None:
    trials = MADE[framework](tmp_path / "log", groups=[range(9)], rivals=1, audit=0.9)
    records = [record for _, _, record in lines(tmp_path / "log")]
    assert "RIVALS" in {record["reason"] for record in records}
    assert any("now" in record and "target" not in record for record in records)  # nothing had ended
    found = verify(tmp_path / "log", trials, at_hand)
    assert found.mismatch is None, str(found.mismatch)
    assert found.looks == len(records)

    def audited(record: dict[str, Any]) -> bool:  # as an earlier lcsearch did
        if record["verdict"] != "STOP":
            return False
        record |= {"verdict": "CONTINUE", "reason": "AUDITED", "propensity": 0.9}
        return True

    with_record(tmp_path / "log", tmp_path / "old", audited)
    old = verify(tmp_path / "old", trials, at_hand)
    assert old.mismatch is None, str(old.mismatch)
    assert old.not_made_again == {"looks against rivals that an earlier lcsearch left to audits": 1}


def test_a_stop_that_was_taken_back_is_no_look(made: tuple[Path, Trials], tmp_path: Path) -> None:
    log, trials = made
    records = [record for _, _, record in lines(log)]
    stop = next(record for record in reversed(records) if record["reason"] == "BELOW")
    later = {"verdict": "CONTINUE", "reason": "SUPERSEDED", "time": stop["time"] + 1e-6}
    (tmp_path / "log").mkdir()
    for gone in ({}, dict.fromkeys(("now", "before", "latency"))):  # as it was written earlier, and as it is
        back = {name: it for name, it in stop.items() if name not in ("now", "before", "latency")} | later | gone
        text = "".join(json.dumps(record) + "\n" for record in [*records, back])
        (tmp_path / "log/one.jsonl").write_text(text)
        found = verify(tmp_path / "log", trials, at_hand)
        assert found.mismatch is None, str(found.mismatch)
        assert list(found.not_made_again.values()) == [1]
        assert found.looks == len(records)


def test_looks_between_two_stops_of_a_trial_saw_the_first(tmp_path: Path) -> None:
    trials = by_optuna(tmp_path / "log", deaf=5)
    records = [record for _, _, record in lines(tmp_path / "log")]
    stops = [record["trial"] for record in records if record["verdict"] == "STOP"]
    assert stops.count("5") > 1
    assert set(stops[stops.index("5") + 1 : len(stops) - stops[::-1].index("5") - 1]) - {"5"}
    found = verify(tmp_path / "log", trials, at_hand)
    assert found.mismatch is None, str(found.mismatch)
    assert found.looks == len(records)


def test_under_a_risk_limit(tmp_path: Path) -> None:
    trials = by_optuna(tmp_path / "log", forecasters=NormalAroundBest(0.4), risk=0.05, threshold=0.3)
    reasons = [record["reason"] for _, _, record in lines(tmp_path / "log")]
    assert {"RISK_LIMIT", "BELOW"} <= set(reasons)
    found = verify(tmp_path / "log", trials, lambda name: NormalAroundBest(0.4))
    assert found.mismatch is None
    assert found.looks == len(reasons)


@pytest.mark.parametrize("kind", MADE)
def test_audited_stops_go_on_are_counted_and_verified(kind: str, tmp_path: Path) -> None:
    trials = MADE[kind](tmp_path / "log", audit=0.5, max_wrong_stop=0.3, threshold=0.2)
    records = [record for _, _, record in lines(tmp_path / "log")]
    audited = {record["trial"] for record in records if record["reason"] == "AUDITED"}
    stopped = {record["trial"] for record in records if record["reason"] == "BELOW"}
    assert audited
    assert stopped
    assert not audited & stopped
    for uid, one in trials.items():
        record = one.stop_records.get("audit")
        assert (record is not None) == (uid in audited)
        if record is not None:
            assert (one.status, record.reason, record.decision.propensity) == (Status.COMPLETE, "AUDITED", 0.5)
            first = next(r for r in records if r["trial"] == uid and r["reason"] == "AUDITED")
            assert (record.step, record.p) == (first["step"], pytest.approx(first["now"]["p"]))  # the first one counts
    thresholds = {record["saw"]["policy"]["threshold"] for record in records}
    assert max(thresholds) == 0.2
    found = verify(tmp_path / "log", trials, at_hand)
    assert found.mismatch is None, str(found.mismatch)
    assert found.looks == len(records)


def test_audits_of_a_study_are_told_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "audits.json"
    monkeypatch.setenv("LCSEARCH_AUDIT", str(place))
    reports = []

    def told(pruner: CurvePruner, study: optuna.Study) -> None:
        reports.append(pruner.report(study))
        number = int(reports[-1].audits.ended[0].trial)
        assert pruner.explain(number, study).splitlines()[0] == (
            f"trial {number} ran to its end, although a look at step 5 came to a stop: it was audited, to tell whether "
            "such stops are right"
        )

    by_optuna(tmp_path / "log", told, audit=0.5)
    (report,) = reports
    found = report.audits
    assert found.ended
    assert report.complete + len(report.stops) == N
    text = str(report).splitlines()
    at = next(i for i, line in enumerate(text) if line.startswith(f"audited: {found.n} stop"))
    assert text[at + 1] == f"  {found.sentence}"
    assert load(place) == (found.ended, "")
    # another study of that name adds what it has, and knows the earlier ones
    by_optuna(tmp_path / "log", told, audit=0.5)
    assert load(place) == (found.ended, "")
    assert reports[1].audits.verdicts.n == len(found.ended)


def verified_turns(log: Path, trials: Trials) -> Verified:
    found = verify(log, trials, at_hand)
    assert found.mismatch is None, str(found.mismatch)
    assert found.not_made_again == {}
    return found


def test_allocations_are_made_again(tmp_path: Path) -> None:
    trials = by_freeze_thaw(tmp_path / "log")
    found = verified_turns(tmp_path / "log", trials)
    assert found.allocations > 10

    def moved(record: dict[str, Any]) -> bool:
        if not record.get("moves") or record["moves"][0]["uid"] is None:
            return False
        record["moves"][0]["pause_at"] += 1
        return True

    changed = with_record(tmp_path / "log", tmp_path / "other", moved)
    mismatch = verify(tmp_path / "other", trials, at_hand).mismatch
    assert mismatch is not None
    assert mismatch.what == f"allocation {changed['allocation']}"
    assert mismatch.field == "moves[0].pause_at"


def test_an_allocation_whose_line_was_taken_out_is_missed(tmp_path: Path) -> None:
    """verify passed such a log, whichever line it was."""
    trials = by_freeze_thaw(tmp_path / "log", "asha")
    assert verified_turns(tmp_path / "log", trials).sound
    records = [record for _, _, record in lines(tmp_path / "log")]
    cutting = [record for record in records if record.get("stops")]
    uid, lost = cutting[0]["stops"][0][0], [uid for uid, _ in cutting[0]["stops"]]

    def without(gone: Callable[[dict[str, Any]], bool], number: bool = True) -> Verified:
        kept = [record for record in records if not gone(record)]
        numbered = kept if number else [{**record, "line": n} for n, record in enumerate(kept, start=1)]
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other/one.jsonl").write_text("".join(json.dumps(record) + "\n" for record in numbered))
        return verify(tmp_path / "other", trials, at_hand)

    found = without(lambda record: record is cutting[0], number=False)  # with the lines behind it numbered anew
    assert (found.cut, found.gone, found.sound) == (tuple(lost), 0, False)
    plural = "s" * (len(lost) > 1)
    (said,) = [line for line in found.lines if "MISSING" in line]
    assert said.startswith(f"MISSING from this log: the allocation{plural} that cut trial{plural} {uid}")
    # one that cut nobody is known by the numbers of those behind it
    moving = next(record for record in records if record.get("moves") and not record["stops"])
    found = without(lambda record: record is moving)
    assert (found.cut, found.gone, found.sound) == ((), 1, False)
    assert "GONE from this log: a line is missing before others, taken out or never written" in found.lines
    # all of another process, whose log it is
    assert verify(tmp_path / "log", trials, at_hand).sound
    elsewhere = [uid for uid, trial in trials.items() if ALLOCATED in trial.stop_records]
    (tmp_path / "other/one.jsonl").write_text("")
    assert verify(tmp_path / "other", trials, at_hand, elsewhere=[*elsewhere, *stopped(trials)]).sound


def stopped(trials: Trials) -> list[str]:
    return [uid for uid, trial in trials.items() if "stop" in trial.stop_records]


def test_a_place_that_is_no_record_is_no_pass(made: tuple[Path, Trials], tmp_path: Path) -> None:
    log, trials = made
    records = [record for _, _, record in lines(log)]
    at = next(i for i, record in enumerate(records) if record["verdict"] != "STOP")
    texts = [json.dumps(record) for record in records]
    texts[at] = "x"
    (tmp_path / "log").mkdir()
    (tmp_path / "log/one.jsonl").write_text("".join(f"{text}\n" for text in texts))
    found = verify(tmp_path / "log", trials, at_hand)
    assert (found.mismatch, found.unread, found.sound) == (None, 1, False)
    assert found.lines[0].startswith("! a place of the decision log is no record of a look and left out")


def test_trials_that_no_allocator_cut_are_in_no_allocation(tmp_path: Path) -> None:
    trials = by_freeze_thaw(tmp_path / "log", "uniform", steps=20)
    ended = [trial.stop_records for trial in trials.values() if "cut" in trial.stop_records]
    assert ended
    assert all(records["cut"] == "the search was finished while it was paused" for records in ended)
    assert verified_turns(tmp_path / "log", trials).sound


def test_a_tune_experiment_is_read_from_what_its_callback_keeps(tmp_path: Path) -> None:
    of = scheduler(max_t=STEPS, decision_log=tmp_path / "log", forecasters=[NormalAroundBest(SD)])
    runner = Runner(of)
    for number in range(N):
        trial = runner.start(f"t{number:02d}", evaluated_params={"x": 0.5 * number})
        runner.feed(trial, [value_of(number, step) for step in range(STEPS)])
    assert of.session.wait(60)
    states: Mapping[str, Any] = {"StateCallback": StateCallback(of).get_state(), "Other": {"set": {1}, "path": Path()}}
    (tmp_path / "callback-states-2026.pkl").write_bytes(pickle.dumps(states))
    trials = kept_trials(tmp_path)
    assert trials["t03"].params == {"x": 1.5}
    found = verify(tmp_path / "log", trials, at_hand)
    assert found.mismatch is None
    assert found.looks > 10


def test_the_file_of_a_tune_experiment_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    (tmp_path / "callback-states-2026.pkl").write_bytes(pickle.dumps({"StateCallback": {"scheduler": Evil()}}))
    with pytest.raises(FileProblem, match="expected the state of a CurveScheduler, got that of other callbacks"):
        kept_trials(tmp_path)
    inner = pickle.dumps({"book": Evil()})
    (tmp_path / "callback-states-2026.pkl").write_bytes(pickle.dumps({"StateCallback": {"scheduler": inner}}))
    with pytest.raises(FileProblem, match="expected the state of a CurveScheduler, got "):
        kept_trials(tmp_path)
    (tmp_path / "callback-states-2026.pkl").write_bytes(b"\x80\x05nothing")
    with pytest.raises(FileProblem, match="expected the state of a CurveScheduler, got "):
        kept_trials(tmp_path)
    with pytest.raises(FileProblem, match="expected a Tune experiment whose run had a StateCallback"):
        kept_trials(tmp_path / "nowhere")
    assert not (tmp_path / "touched").exists()
