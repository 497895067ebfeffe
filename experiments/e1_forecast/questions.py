"""What E1 asks: real curves of a task, ten of them finished, the others cut; what is said about these.

Protocol: see `run.py`.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import research
from entrants import PolicySpec
from numpy.typing import NDArray
from scores import Unit, value_scores

from lcsearch.curves import Curve, Floats
from lcsearch.data.synthetic import synthetic_task
from lcsearch.data.tables import Table
from lcsearch.forecast.contract import Kind, Query
from lcsearch.goal import Goal
from lcsearch.pretrain.real_tables import half_of, of_task
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

SOURCES = ("lcbench", "taskset_adam8p")
KINDS: tuple[Kind, ...] = ("value", "best_by")
CUTS = (0.1, 0.2, 0.4)
GROUP = 15  # curves that share their ten others, and one batch
OTHERS = 10
NOTHING = 1 / (OTHERS + 1)
"""P(beat) of who knows nothing: any of the eleven may be the best."""
SEED = 0
FEWEST_CURVES, FEWEST_REPORTS = 2 * OTHERS, 10
COLUMNS = ("p", "beaten", "in_50", "in_80", "in_95", "crps", "ll", "square")


@dataclass(frozen=True, eq=False)
class RealCurves:
    """A task's finite curves of full length, as losses.

    Attributes:
        seed: of the draws, the task's place in its table.
        steps: (S,).
        losses: (R, S).
        params: R configurations.
    """

    source: str
    name: str
    seed: tuple[int, ...]
    steps: Floats
    losses: Floats
    params: tuple[dict[str, Any], ...]

    @cached_property
    def digest(self) -> str:
        """Of what is asked about."""
        return hashlib.sha256(self.steps.tobytes() + self.losses.tobytes()).hexdigest()[:12]

    @cached_property
    def unit(self) -> Unit:
        """The range of its final values."""
        goal = Goal("loss", "minimize", float(self.steps[-1]), "final")
        return Unit.of([self.trial(f"all-{i}", i, done=True) for i in range(len(self.losses))], goal)

    def trial(self, uid: str, row: int, n: int | None = None, *, done: bool = False, configs: bool = False) -> Trial:
        """One run up to its n-th report."""
        status = Status.COMPLETE if done else Status.RUNNING
        params = self.params[row] if configs else {}
        return Trial(uid, Curve.of(self.steps[:n], self.losses[row, :n]), params, status)


def curves_of(source: str, data: Path | None, half: str) -> tuple[list[RealCurves], list[str]]:
    """The tasks of a source that have enough curves, and a line on each that has not."""
    if source == "made":
        return [_made(kind, i) for i, kind in enumerate(("power", "crossing"))], []
    if data is None or not (data / source).is_dir():
        return [], [f"{source}: skipped, not found (set LCSEARCH_DATA or --data)"]
    table = Table(data / source, research.CAVEATS)
    found, skipped = [], []
    for name in half_of(table.tasks, None if half == "all" else "a" if half == "a" else "b"):
        task = table.task(name)
        groups = [] if task is None else list(of_task(task, table))
        if not groups:
            skipped.append(f"{source} {name}: skipped, no runs that report at the same steps")
        for k, real in enumerate(groups):
            whole = np.isfinite(real.losses).all(1) & (real.length == real.steps.size)
            if whole.sum() < FEWEST_CURVES or real.steps.size < FEWEST_REPORTS:
                what = f"{whole.sum()} finite curves of {real.steps.size} reports"
                skipped.append(f"{source} {real.name}: skipped, {what} (needed: {FEWEST_CURVES} of {FEWEST_REPORTS})")
                continue
            configs = [_config(row, real.kinds) for row in real.params[whole]]
            seed = (SEED, table.tasks.index(name), *((k,) if k else ()))
            found.append(RealCurves(source, real.name, seed, real.steps, real.losses[whole], tuple(configs)))
    return found, skipped


def _config(row: Floats, kinds: NDArray[np.int64]) -> dict[str, Any]:
    """A scaled configuration as a trial has it; what it lacks is left out."""
    known = [(i, float(x)) for i, x in enumerate(row) if math.isfinite(x)]
    return {f"p{i}": f"c{int(x)}" if kinds[i] == 2 else x for i, x in known}


def _made(kind: Any, seed: int) -> RealCurves:
    """Curves the project makes itself."""
    task = synthetic_task(kind, 60, seed, n_steps=50)
    losses = np.array([task.goal.sign * run.curve.values for run in task.runs])
    params = tuple(dict(run.params) for run in task.runs)
    return RealCurves("made", kind, (SEED, seed), task.runs[0].curve.steps, losses, params)


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked at once: about some curves of a task, all cut at one step, beside the same ten others.

    Attributes:
        cut: index into CUTS.
        snapshot: with the others, finished.
        queries: one a curve.
        answers: (Q,) the judged losses.
        target: the incumbent's.
    """

    cut: int
    snapshot: Snapshot
    queries: list[Query]
    answers: Floats
    target: float


def asked(task: RealCurves, kind: Kind, most: int, *, configs: bool = False) -> Iterator[Asked]:
    """The questions about at most so many curves of a task."""
    rng = np.random.default_rng(task.seed)
    picked = rng.permutation(len(task.losses))[:most]
    end = float(task.steps[-1])
    goal = Goal("loss", "minimize", end, "final" if kind == "value" else "best")
    judged = task.losses[:, -1] if kind == "value" else task.losses.min(1)
    # two groups at least: the others come from outside
    for group in np.array_split(rng.permutation(len(picked)), max(2, len(picked) // GROUP)):
        others = picked[rng.choice(np.setdiff1d(np.arange(len(picked)), group), OTHERS, replace=False)]
        rows = picked[group]
        done = [task.trial(f"done-{i}", i, done=True, configs=configs) for i in others]
        snapshot = Snapshot("e1", goal, FinishedTrials(goal).extend(done))
        for at, cut in enumerate(CUTS):
            n = round(cut * task.steps.size)
            queries = [Query(task.trial(f"live-{i}", i, n, configs=configs), kind, end) for i in rows]
            yield Asked(at, snapshot, queries, judged[rows], float(judged[others].min()))


def ask(who: PolicySpec, kind: Kind, task: RealCurves, most: int) -> tuple[Floats, float]:
    """(C, N, 8) COLUMNS of every curve at each cut, NaN where nothing was said, and CPU seconds of the forecasts."""
    found: list[list[Floats]] = [[] for _ in CUTS]
    seconds = 0.0
    for one in asked(task, kind, most, configs=who.configs):
        start = time.process_time()
        said = who.method.forecast(one.snapshot, one.queries)
        seconds += time.process_time() - start
        p = who.p_beat(task.source, one.snapshot, one.queries, said, one.target)
        scores = np.full((len(one.queries), 6), np.nan)
        if kind == "value" and who.calibration is None:
            scores = np.where(np.isnan(p)[:, None], np.nan, value_scores(said, one.answers, task.unit))
        found[one.cut].append(np.column_stack([p, one.answers < one.target, scores]))
    return np.stack([np.concatenate(rows) for rows in found]), seconds
