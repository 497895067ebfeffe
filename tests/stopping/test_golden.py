"""Golden decisions: a dozen histories and what was decided on them, compared exactly but for rounding in the numbers.

After a change that is meant to change decisions, write them anew and read the difference:

    PYTHONPATH=tests python tests/stopping/test_golden.py && git diff tests/stopping/golden.json
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from kit.builders import goal, snapshot, trial
from kit.doubles import NormalAroundBest

from lcsearch.stopping.gates import Ask, Event, ask, held_decision
from lcsearch.stopping.judge import judge
from lcsearch.stopping.policy import Policy
from lcsearch.stopping.risk import LEVELS, StopRecord
from lcsearch.study import Snapshot, Status, Trial

GOLDEN = Path(__file__).with_name("golden.json")
NAN = math.nan


def decay(limit: float, n: int, rate: float = 0.8) -> list[float]:
    return [limit + rate**i for i in range(n)]


DONE = [trial(str(i), decay(0.1 * (i + 1), 30)) for i in range(6)]
STOPPED = trial(
    "6",
    decay(0.9, 12),
    Status.STOPPED,
    stop_records={"stop": StopRecord(11.0, "BELOW", 0.01, "", tuple(0.05 + p for p in LEVELS))},
)


def policy_of(**fields: Any) -> Policy:
    """The defaults, but stops from the fourth observation on, so that short and sparse curves come to a judgement."""
    return Policy(min_observations=4, **fields)


def case(own: Trial, finished: list[Trial] = DONE, **policy: Any) -> tuple[Policy, Snapshot, Trial]:
    return policy_of(**policy), snapshot(goal(horizon=30), [*finished, STOPPED], (own,), study="golden"), own


def running(values: list[float], **fields: Any) -> Trial:
    return trial("7", values, Status.RUNNING, **fields)


HISTORIES: dict[str, tuple[Policy, Snapshot, Trial]] = {
    "hopeless": case(running(decay(0.9, 15))),
    "hopeless, short curve": case(running(decay(0.9, 5))),
    "hopeless, too short": case(running(decay(0.9, 3))),
    "hopeless, risk limit": case(running(decay(0.9, 15)), risk=0.01),
    "hopeless, beside running trials alone": (
        policy_of(rivals=2, look_growth=1),
        snapshot(
            goal(horizon=30),
            [],
            (running(decay(0.9, 15)), *(trial(str(20 + i), decay(0.1 * i, 16), Status.RUNNING) for i in range(6))),
            study="golden",
        ),
        running(decay(0.9, 15)),
    ),
    "undecided": case(running(decay(0.2, 15))),
    "undecided, high threshold": case(running(decay(0.2, 15)), threshold=0.9),
    "low now, too few observations before": case(running([0.3, *[0.28] * 7]), guard=0.0),
    "still": case(running([0.9] * 15)),
    "still, as one that has finished": case(running([0.9] * 15), [*DONE, trial("5", [0.95] * 30)]),
    "fast and low": case(running(decay(0.05, 15, 0.5))),
    "one NaN": case(running([*decay(0.9, 14), NAN])),
    "diverged": case(running([*decay(0.9, 12), NAN, NAN, NAN])),
    "first report": case(running([3.0])),
    "startup": case(running(decay(0.9, 15)), DONE[:1]),
    "startup is over": case(running(decay(0.9, 15)), DONE[:2]),
    "interval": case(running(decay(0.9, 16)), interval_steps=5),
    "sparse": case(running(decay(0.9, 4), steps=[0, 7, 14, 21]), interval_steps=7),
    "guarded": case(running(decay(0.12, 15)), guard=0.4),
    "final, mirrored": (
        policy_of(),
        snapshot(
            goal("maximize", 30, "final"),
            [trial(t.uid, (-t.curve.values).tolist()) for t in DONE],
            [running([-v for v in decay(0.9, 15)])],
            study="golden",
        ),
        running([-v for v in decay(0.9, 15)]),
    ),
}


def decided(policy: Policy, seen: Snapshot, own: Trial) -> dict[str, Any]:
    event = Event(own, own.curve.last_step)
    question = ask(policy, seen, event)
    if isinstance(question, Ask):
        said = NormalAroundBest(0.1).forecast(seen, question.queries)
        forecasts = {} if question.diverged else {"fake": [said.row(i) for i in range(len(question.queries))]}
        decision = judge(policy, seen, question, forecasts).decision
    else:
        decision = held_decision(seen, event, question)
    record: dict[str, Any] = json.loads(json.dumps(decision.to_record()))
    return record


def same(got: Any, expected: Any) -> bool:
    """Equal, numbers to 1e-9."""
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(same(got[k], expected[k]) for k in got)
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, float):
        return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12)
    return bool(got == expected)


@pytest.mark.parametrize("name", HISTORIES)
def test_golden_decisions(name: str) -> None:
    expected = json.loads(GOLDEN.read_text())[name]
    got = decided(*HISTORIES[name])
    assert (got["verdict"], got["reason"]) == (expected["verdict"], expected["reason"])
    assert same(got, expected), f"{name}: expected {expected}, got {got}"


def test_the_golden_file_holds_these_histories_and_no_others() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == HISTORIES.keys()


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: decided(*history) for name, history in HISTORIES.items()}, indent=1) + "\n")
