"""What an earlier version has pickled, from before modules were moved, is read by this one."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from base64 import b64decode
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest
from kit.tune_runner import book_of, scheduler

from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback
from lcsearch.schedulers.ray_tune._moved import MOVED
from lcsearch.session.decision_log import DecisionLog
from lcsearch.stopping.policy import Policy

KEPT: dict[str, Any] = json.loads(Path(__file__).with_name("pickles.json").read_text())


def test_a_state_that_was_kept_is_given_back_with_its_curves_ends_and_stops() -> None:
    of = scheduler()
    StateCallback(of).set_state({"scheduler": b64decode(KEPT["state"])})
    assert {uid: entry.status.value for uid, entry in book_of(of).entries.items()} == KEPT["ends"]
    assert of.stopped() == KEPT["stopped"]
    assert of.explain("bad") == KEPT["explain"]


def test_a_tuner_s_scheduler_and_callback_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of, callback = pickle.loads(b64decode(KEPT["pair"]))
    assert isinstance(of, CurveScheduler)
    assert callback.scheduler is of
    assert isinstance(of.session.policy, Policy)
    assert isinstance(of.session.sink, DecisionLog)


def test_a_process_that_has_imported_nothing_yet_reads_them(tmp_path: Path) -> None:
    code = (
        "import json, pickle, sys; from base64 import b64decode; "
        "of, callback = pickle.loads(b64decode(json.load(open(sys.argv[1]))['pair'])); "
        "print(type(of).__name__, callback.scheduler is of)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).with_name("pickles.json"))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "CurveScheduler True\n"), done.stderr


@pytest.mark.parametrize("was", MOVED)
def test_a_name_that_was_leads_to_one_that_is_and_hides_none(was: str) -> None:
    package, _, leaf = was.rpartition(".")
    assert PathFinder.find_spec(was, import_module(package).__path__) is None, f"{leaf} is there again"
    assert import_module(MOVED[was])
    with pytest.raises(AttributeError):
        import_module(was).no_such_name  # noqa: B018
