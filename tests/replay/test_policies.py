"""Policies as people type them."""

from __future__ import annotations

import numpy as np
import pytest

from lcsearch.curves import Curve
from lcsearch.data.synthetic import synthetic_task
from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.replay.baselines import Asha, Hyperband, Median, Never, Patience, SuccessiveHalving
from lcsearch.replay.policies import NAMES, policy_spec
from lcsearch.replay.prefetching import PrefetchingForecaster
from lcsearch.session import Session
from lcsearch.stopping.policy import Policy

TASK = synthetic_task("power", 4)


def test_every_name_makes_a_stopper() -> None:
    for name in NAMES:
        found = policy_spec(name)
        assert (found.name, found.kind, found.knobs) == (name, name, ())
        assert isinstance(found.make(TASK), Session) is (name in ("curve", "oracle"))
        assert (found.policy == Policy()) if name in ("curve", "oracle") else found.policy is None


def test_rules_fit_the_study_unless_told_otherwise() -> None:
    assert policy_spec("none").make(TASK) == Never()
    assert policy_spec("patience").make(TASK) == Patience(5)
    assert policy_spec("patience:patience=2").make(TASK) == Patience(2)
    assert policy_spec("median:n_warmup_steps=3,n_min_trials=2").make(TASK) == Median(n_warmup_steps=3, n_min_trials=2)
    assert policy_spec("sha:reduction_factor=3").make(TASK) == SuccessiveHalving(1, 3)
    assert policy_spec("asha").make(TASK) == Asha(50.0, 1)
    assert policy_spec("hyperband").make(TASK) == Hyperband(min_resource=1, max_resource=50)


def test_rules_fit_a_study_whose_steps_are_parts_of_an_epoch() -> None:
    steps = np.array([0.1, 0.2, 0.4])
    task = Task("short", Goal("loss", "minimize", 0.4), (Run("0", Curve.of(steps, [3, 2, 1]), steps),))
    for name in NAMES:
        policy_spec(name).make(task)


def test_knobs_are_read_as_what_they_are() -> None:
    found = policy_spec("curve:threshold=0.02, risk=none ,n_startup_trials=3,forecasters=parametric+rank-gap")
    assert found.policy == Policy(threshold=0.02, risk=None, n_startup_trials=3)
    assert found.forecasters == ("parametric", "rank-gap")
    session = found.make(TASK)
    assert isinstance(session, Session)
    assert [f.name for f in session.panel.forecasters] == ["parametric", "rank-gap"]
    assert found.at(0.4).policy == Policy(threshold=0.4, risk=None, n_startup_trials=3)
    assert found.at(0.4).name == found.name


def test_a_policy_without_the_memo() -> None:
    for ahead in (True, False):
        session = policy_spec("curve:forecasters=parametric+rank-gap").make(TASK, ahead=ahead)
        assert isinstance(session, Session)
        assert [isinstance(f, PrefetchingForecaster) for f in session.panel.forecasters] == [ahead, ahead]


KNOBS = ", ".join(Policy.__dataclass_fields__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"policy: expected one of {', '.join(NAMES)}, got ''."),
        ("medain", f"policy: expected one of {', '.join(NAMES)}, got 'medain'. Perhaps 'median' is meant."),
        ("median:5", "policy 'median:5': expected KEY=VALUE after the colon, got '5'."),
        ("none:a=1", "policy 'none:a=1': expected no key, got 'a'."),
        (
            "asha:grace=2",
            "policy 'asha:grace=2': expected one of max_t, grace_period, reduction_factor, got 'grace'.",
        ),
        (
            "oracle:treshold=0.1",
            f"policy 'oracle:treshold=0.1': expected one of {KNOBS}, got 'treshold'. Perhaps 'threshold' is meant.",
        ),
        ("curve:threshold=2", "threshold: expected a number in [0, 1], got 2."),
        ("curve:threshold=low", "threshold: expected a number in [0, 1], got 'low'."),
        ("curve:threshold=", "threshold: expected a number in [0, 1], got ''."),
        (
            "curve:forecasters=oracle",
            "forecasters: expected one of network, parametric, rank-gap, network=PATH, got 'oracle'.",
        ),
        (
            "curve:threshold=0.1,threshold=0.2",
            "policy 'curve:threshold=0.1,threshold=0.2': expected every key once, got 'threshold'.",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        policy_spec(text)
    assert str(caught.value) == message


def test_a_rule_has_no_threshold() -> None:
    with pytest.raises(InvalidValue) as caught:
        policy_spec("median").at(0.1)
    assert str(caught.value) == "threshold: expected a policy with a threshold (curve, oracle), got 'median'."
