"""A run folder, a study and a saved Tune run of an earlier lcsearch are read as it read them itself (see make.py)."""

from __future__ import annotations

import base64
import json
import pickle
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from earlier.make import HERE, told_of_run, told_of_tune

from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback

TUNE: dict[str, Any] = json.loads((HERE / "tune.json").read_text())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder, in the working directory."""
    with tarfile.open(HERE / "run.tar.gz") as tar:
        safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 has it
        tar.extractall(tmp_path, **safely)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_a_run_folder_tells_what_it_told(root: Path) -> None:
    """But for looks that are made again: two others suffice for them now, where four had to have come as far."""
    told = json.dumps(told_of_run(root))
    told = re.sub(r"/tmp/tmp\w+/earlier.yaml", "earlier.yaml", told)  # where the sweep file stood then
    assert json.loads(told) == json.loads((HERE / "run.json").read_text())


def test_a_saved_state_of_a_tune_run_is_taken_back() -> None:
    scheduler = CurveScheduler(metric="loss", mode="min", max_t=14, n_startup_trials=3, guard=0.0)
    StateCallback(scheduler).set_state({"scheduler": base64.b64decode(TUNE["state"])})
    assert told_of_tune(scheduler) == TUNE["told"]


def test_a_pickled_scheduler_of_a_tune_run_is_read() -> None:
    assert told_of_tune(pickle.loads(base64.b64decode(TUNE["scheduler"]))) == TUNE["told"]


def test_a_saved_state_is_read_wherever_its_classes_stand_by_now() -> None:
    state = base64.b64decode(TUNE["state"]).replace(b"lcsearch.decide.risk", b"lcsearch.decide.rusk")
    scheduler = CurveScheduler(metric="loss", mode="min", max_t=14, n_startup_trials=3, guard=0.0)
    StateCallback(scheduler).set_state({"scheduler": state})
    assert told_of_tune(scheduler) == TUNE["told"]


def test_what_is_saved_now_holds_no_class_of_ours() -> None:
    scheduler = CurveScheduler(metric="loss", mode="min", max_t=14, n_startup_trials=3, guard=0.0)
    callback = StateCallback(scheduler)
    callback.set_state({"scheduler": base64.b64decode(TUNE["state"])})
    saved = callback.get_state()
    assert b"lcsearch" not in saved["scheduler"]
    again = CurveScheduler(metric="loss", mode="min", max_t=14, n_startup_trials=3, guard=0.0)
    StateCallback(again).set_state(saved)
    assert told_of_tune(again) == TUNE["told"]
