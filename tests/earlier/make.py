"""What an earlier lcsearch left behind, made by its own code: run with that version, `python tests/earlier/make.py`.

`run.tar.gz` is the folder of a sweep with stops, a divergence, a failure and a worker that died, `run.json` what was
told of it then. `tune.json` holds a scheduler of a run of Ray Tune and the state that StateCallback saved of it, both
pickled, and what was told of it. Made at d048679, when stops were stored as sentences.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

SWEEP = """\
version: 1
name: earlier
objective: {python: "earlier:train"}
metric: loss
goal: minimize
step: epoch
max_steps: 14
space:
  a: {uniform: [0, 1]}
backend: {kind: optuna, workers: {n: 1}}
sampler: {kind: random}
pruner: {kind: curve, n_startup_trials: 3, guard: 0.0, opinions: [parametric, rank-gap]}
budget: {trials: 14}
retries: 2
seed: 3
"""

OBJECTIVE = """\
import math, os

def train(ctx):
    limit = ctx.params["a"] if ctx.number < 4 else 3 + 4 * ctx.params["a"]
    if ctx.number == 9:
        limit = 0.0
    print(f"trial number {ctx.number} prints this, as if it said: trial {ctx.number}: NOTHING")
    for epoch in range(1, ctx.max_steps + 1):
        if ctx.number == 6 and epoch == 4:
            raise RuntimeError("no more memory, so to speak")
        if ctx.number == 7 and epoch == 3 and not (ctx.checkpoint_dir / "died").exists():
            (ctx.checkpoint_dir / "died").touch()
            os._exit(9)
        value = 1.5 * 0.8 ** min(epoch, 7) if ctx.number == 8 else limit + 0.7**epoch
        ctx.report(math.nan if ctx.number == 5 and epoch > 2 else value, epoch)
"""


def told_of_run(root: Path) -> dict[str, Any]:
    """What summary, plain lines and `explain` say of the run in `root`, which is the working directory's `run`."""
    from lcsearch.sweep.monitor.open_run import read_state
    from lcsearch.sweep.store.folder import RunFolder
    from lcsearch.sweep.views.explain import explain
    from lcsearch.sweep.views.phrases import finished_line
    from lcsearch.sweep.views.summary import summarize

    study, state = read_state(RunFolder(root))
    rows = state.progress.rows
    return {
        "summary": summarize(state).splitlines(),
        "lines": [finished_line(row, state.sweep) for row in rows],
        "stories": [explain(row.number, state, study).splitlines() for row in rows],
    }


def told_of_tune(scheduler: Any) -> dict[str, Any]:
    """What a scheduler says of its run."""
    return {
        "stopped": scheduler.stopped(),
        "risk": scheduler.risk_now(),
        "stories": {uid: scheduler.explain(uid) for uid in scheduler.stopped()},
        "report": str(scheduler.report()).splitlines()[:3],
    }


def make_run() -> None:
    from lcsearch.sweep.monitor.view import Silent
    from lcsearch.sweep.run import run

    with tempfile.TemporaryDirectory() as at:
        os.chdir(at)
        Path("earlier.py").write_text(OBJECTIVE)
        Path("earlier.yaml").write_text(SWEEP)
        run("earlier.yaml", folder="run", view=Silent())
        (HERE / "run.json").write_text(json.dumps(told_of_run(Path(at, "run")), indent=1) + "\n")
        with tarfile.open(HERE / "run.tar.gz", "w:gz") as tar:
            for name in ("earlier.py", "earlier.yaml", "run"):
                tar.add(name, filter=lambda member: None if member.name.endswith(".lock") else member)


def make_tune() -> None:
    sys.path.insert(0, str(HERE.parent))
    from kit.tune_runner import Runner

    from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback

    scheduler = CurveScheduler(
        metric="loss", mode="min", max_t=14, n_startup_trials=3, guard=0.0, opinions=("parametric", "rank-gap")
    )
    runner = Runner(scheduler)
    for i in range(8):
        trial = runner.start(f"t{i}")
        for epoch in range(1, 15):
            if trial.status == "RUNNING":
                value = float("nan") if i == 5 and epoch > 2 else (0.1 * i if i < 4 else 3.0 + i) + 0.7**epoch
                runner.report(trial, epoch, value)
                runner.step()
        if trial.status == "RUNNING":
            runner.end(trial)
    record = {
        "state": base64.b64encode(StateCallback(scheduler).get_state()["scheduler"]).decode(),
        "scheduler": base64.b64encode(pickle.dumps(scheduler)).decode(),
        "told": told_of_tune(scheduler),
    }
    (HERE / "tune.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    make_run()
    make_tune()
