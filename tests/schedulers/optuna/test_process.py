"""Inside a user's training process: nothing of his is touched, and forks do no harm."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.doubles import NormalAroundBest
from kit.studies import SHORTEST, decay, first_stop, pruner, stop_one, study_of

from lcsearch.schedulers.optuna import CurvePruner

TESTS = str(Path(__file__).resolve().parents[2])


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {TESTS!r})\n{code}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("forecasters", [[NormalAroundBest()], None], ids=["fake", "default"])
def test_random_states_and_torch_threads_stay_as_they_were(forecasters: Any) -> None:
    def state() -> tuple[object, ...]:
        return (
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002  # the very thing that must not change
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.get_num_interop_threads(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            str(np.geterr()),
        )

    study = study_of(pruner(forecasters=forecasters))
    before = state()
    stop_one(study)
    trial = study.ask()
    first_stop(trial, decay(0.2, SHORTEST + 5))
    of = study.pruner
    assert isinstance(of, CurvePruner)
    of.explain(trial.number)
    of.why_not(study)
    assert of.report(study).failed_open == 0
    assert state() == before


def test_no_torch_no_cuda_in_a_process_that_uses_the_fake() -> None:
    out = run(
        "from kit.studies import stop_one, study_of\n"
        "stop_one(study_of())\n"
        "print([m for m in ('torch', 'ray', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    assert out.strip() == "[]"


def test_a_fork_in_the_middle_of_a_study() -> None:
    out = run(
        """
import os, threading, warnings
from kit.studies import SHORTEST, decay, first_stop, pruner, stop_one, study_of
study = study_of()
stop_one(study)
child = os.fork()
if child == 0:
    # The child has a copy of the study in memory, and decides the same.
    os._exit(7 if first_stop(study.ask(), decay(5.0)) == SHORTEST else 1)
_, status = os.waitpid(child, 0)
assert first_stop(study.ask(), decay(5.0)) == SHORTEST
print(os.waitstatus_to_exitcode(status))
"""
    )
    assert out.strip() == "7"


def test_data_loader_workers_beside_the_pruner() -> None:
    out = run(
        """
import torch
from torch.utils.data import DataLoader, TensorDataset
from kit.studies import SHORTEST, decay, study_of
torch.set_num_threads(1)
study = study_of()
trial = study.ask()
loader = DataLoader(TensorDataset(torch.arange(8.0)), batch_size=2, num_workers=2, multiprocessing_context="fork")
for step, value in enumerate(decay(5.0, SHORTEST + 1)):
    assert sum(float(batch[0].sum()) for batch in loader) == 28.0
    trial.report(value, step)
    stopped = trial.should_prune()
print(stopped, torch.get_num_threads())
"""
    )
    assert out.split() == ["True", "1"]


def test_the_decision_log_of_a_fork_is_a_file_of_its_own(tmp_path: Path) -> None:
    run(
        f"""
import os
from kit.studies import pruner, stop_one, study_of
study = study_of(pruner(decision_log={str(tmp_path)!r}))
stop_one(study)
child = os.fork()
if child == 0:
    stop_one(study)
    os._exit(0)
os.waitpid(child, 0)
stop_one(study)
"""
    )
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert sorted(len(f.read_text().splitlines()) for f in files) == [1, 2]


def test_the_pruner_keeps_no_study_alive() -> None:
    import gc
    import weakref

    of = pruner()
    study = study_of(of)
    stop_one(study)
    gone = weakref.ref(study)
    del study
    gc.collect()
    assert gone() is None
