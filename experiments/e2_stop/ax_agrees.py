"""Is `ax_rule.py` Ax's own default rule? Every look of some searches put to both, in an environment that has Ax:

    pip install ax-platform==1.3.1
    LCSEARCH_DATA=.../data python experiments/e2_stop/ax_agrees.py [--trials 12] [--orders 1]

Trials are reported to Ax's client one value after the other, as its documentation has it; a trial that the rule here
stops is marked as stopped there.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy

import argparse
import logging
import math
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what experiments share

import research
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig
from ax.early_stopping.strategies import PercentileEarlyStoppingStrategy
from ax_rule import AxDefault

from lcsearch.data.tables import load
from lcsearch.data.task import Task
from lcsearch.pretrain.real_tables import half_of
from lcsearch.replay.simulator import World, simulate
from lcsearch.stopping.gates import Event
from lcsearch.stopping.judge import Judgement
from lcsearch.stopping.verdict import Verdict
from lcsearch.study import Snapshot, Status

SOURCES = ("lcbench", "taskset_adam8p", "arlbench")
DEFAULT = {
    "percentile_threshold": 50,
    "min_curves": 3,
    "min_progression": 0.2,
    "max_progression": 0.9,
    "normalize_progressions": True,
    "n_best_trials_to_complete": 3,
    "check_safe": True,
}
"""As `get_default_ess_or_none` has them."""


class Both:
    """A stopper that also asks Ax, and counts what both say."""

    def __init__(self, task: Task) -> None:
        self.rule, self.task, self.said = AxDefault(), task, Counter[tuple[bool, bool]]()
        self.client, self.index, self.told, self.ended = Client(), dict[str, int](), dict[str, int](), 0
        self.client.configure_experiment([RangeParameterConfig("x", (0.0, 1.0), "float")])
        self.client.configure_optimization("loss" if task.goal.sign < 0 else "-loss")
        self.client.set_early_stopping_strategy(PercentileEarlyStoppingStrategy(**DEFAULT))

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        """What the rule here says."""
        for trial in (*list(snapshot.bank)[self.ended :], event.trial):
            if trial.uid not in self.index:
                self.index[trial.uid] = self.client.attach_trial({"x": len(self.index) / 1e3})
            at, steps, values = self.index[trial.uid], *trial.curve.reports()
            for step, value in list(zip(steps, values, strict=True))[self.told.get(trial.uid, 0) :]:
                if not math.isnan(value):
                    self.client.attach_data(at, {"loss": float(value)}, progression=float(step))
            self.told[trial.uid] = steps.size
            if trial.status is Status.COMPLETE:
                self.client.complete_trial(at)
            elif trial.status is Status.STOPPED:
                self.client.mark_trial_early_stopped(at)
            elif trial.status is Status.FAILED:
                self.client.mark_trial_failed(at)
        self.ended = len(snapshot.bank)
        mine: Judgement = self.rule.check(snapshot, event)
        theirs = self.client.should_stop_trial_early(self.index[event.trial.uid])
        self.said[mine.decision.verdict is Verdict.STOP, theirs] += 1
        return mine


def main() -> None:
    """Compare, and print what both said how often."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LCSEARCH_DATA"))
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--orders", type=int, default=1)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    for source in args.sources:
        said = Counter[tuple[bool, bool]]()
        tasks = {task.name: task for task in load(Path(args.data) / source, caveats=research.CAVEATS)}
        for task in (tasks[name] for name in half_of(tasks, "b")[:1]):
            every = math.ceil(len(task.runs[0].steps) / 10)  # a look of Ax's takes a while
            world = World(looks=task.runs[0].steps[every - 1 :: every])
            for order in range(args.orders):
                both = Both(task)
                simulate(task, task.order(order)[: args.trials], both, world)
                said += both.said
        agreed = said[True, True] + said[False, False]
        print(f"{source}: {agreed} of {said.total()} looks agree; {said[True, True]} stops by both", flush=True)


if __name__ == "__main__":
    main()
