"""Made studies in which schedules matter: does the network stop winners that fall at the end?

    python experiments/schedules/run.py        # half a minute; writes table.md

Two worlds, 20 studies each, of 12 finished trials and 12 that are asked about, 50 steps:

- "rates": all trials have one warmup-stable-decay schedule (the last fifth decays). A high peak costs in the flat phase
  and pays at the end, so that trials end in the reverse order of their flat phases. Those asked about have higher peaks
  than any finished one, and about half of them win.
- "shapes": the shape is a hyperparameter, one of constant, linear, cosine and wsd; what annealing brings comes early or
  late or never, and ranks before the end say little.

Looks at steps 12, 20, 30 and 38, best value by the end; with the schedules or without, with the configurations or
without. What a network without the schedules gets wrong here no other information can mend.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcsearch import Curve, FinishedTrials, Goal, Query, Snapshot, Status, Trial
from lcsearch.curves import Floats
from lcsearch.host.registry import forecaster
from lcsearch.schedule import Schedule, Shape

HERE = Path(__file__).resolve().parent
STEPS, STUDIES, TRIALS = 50, 20, 12
LOOKS = (12, 20, 30, 38)
SHAPES: tuple[Shape, ...] = ("constant", "linear", "cosine", "wsd")
AT = np.arange(1.0, STEPS + 1)


@dataclass(frozen=True)
class Run:
    """A made run: its schedule and its losses (STEPS,)."""

    schedule: Schedule
    losses: Floats

    def trial(self, uid: str, seen: int, told: tuple[bool, bool]) -> Trial:
        """As of `seen` reports; `told`: the schedule, the configuration."""
        schedule, params = self.schedule, {"lr": self.schedule.peak, "shape": self.schedule.shape}
        status = Status.COMPLETE if seen == STEPS else Status.RUNNING
        curve = Curve(AT[:seen], self.losses[:seen])
        return Trial(uid, curve, params if told[1] else {}, status, schedule if told[0] else None)


def rates(chance: np.random.Generator, z: float) -> Run:
    """A trial whose peak is the higher the larger z."""
    schedule = Schedule("wsd", 10 ** (2 * z - 3), STEPS, warmup=0.05)
    flat, end = 0.3 + 0.15 * z, 0.28 - 0.12 * z + 0.02 * chance.standard_normal()
    annealed = np.where(AT > 0.8 * STEPS, 1 - schedule.rate(AT) / schedule.peak, 0.0)
    losses = flat + 0.7 * np.exp(-AT / 5) - (flat - end) * annealed**0.7
    return Run(schedule, losses + 0.003 * chance.standard_normal(STEPS))


def shapes(chance: np.random.Generator, _: float) -> Run:
    """L = L0 + A S1^-a - C S2 (see `forecast/prior/annealing.py`), for a shape drawn at random."""
    schedule = Schedule(SHAPES[int(chance.integers(len(SHAPES)))], 1.0, STEPS)
    rate = schedule.rate(AT)
    keep, fallen, s2 = np.exp(-1 / (0.05 * STEPS)), 0.0, np.zeros(STEPS)
    for i in range(1, STEPS):
        fallen = keep * fallen + max(rate[i - 1] - rate[i], 0.0)
        s2[i] = s2[i - 1] + (1 - keep) * fallen
    floor, speed = chance.uniform(0.1, 0.3), chance.uniform(1, 2)
    losses = floor + (1 - floor) * (1 + np.cumsum(rate) / STEPS / 0.04 * speed) ** -0.8 - 0.25 * s2
    return Run(schedule, losses + 0.004 * chance.standard_normal(STEPS) * (0.1 + 0.9 * rate))


def ask(world: str, told: tuple[bool, bool]) -> tuple[Floats, Floats]:
    """P(beat) of all looks, and whether the trial beat the best of the finished ones."""
    network, goal = forecaster("network"), Goal("loss", "minimize", STEPS)
    p: list[float] = []
    won: list[bool] = []
    for seed in range(STUDIES):
        chance = np.random.default_rng(seed)
        make = {"rates": rates, "shapes": shapes}[world]
        done = [make(chance, chance.uniform(0, 1)) for _ in range(TRIALS)]
        asked = [make(chance, chance.uniform(1, 1.1)) for _ in range(TRIALS)]
        bank = FinishedTrials(goal).extend(run.trial(str(i), STEPS, told) for i, run in enumerate(done))
        best = min(float(run.losses.min()) for run in done)
        for look in LOOKS:
            live = [run.trial(f"asked-{i}", look, told) for i, run in enumerate(asked)]
            queries = [Query(trial, "best_by", STEPS) for trial in live]
            p += network.forecast(Snapshot(f"{world}-{seed}", goal, bank, tuple(live)), queries).p_beat(best).tolist()
            won += [float(run.losses.min()) < best for run in asked]
    return np.array(p), np.array(won, np.float64)


def main() -> None:
    """Ask, print and write the table."""
    lines = ["`python experiments/schedules/run.py`; what the worlds are: `run.py`.", ""]
    lines += ["| world | told | log-loss | winners | of them P < .05 | median P of winners | of losers |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for world in ("rates", "shapes"):
        for told in ((False, False), (False, True), (True, False), (True, True)):
            p, won = ask(world, told)
            clipped, winners = np.clip(p, 1e-4, 1 - 1e-4), won == 1
            loss = -float(np.mean(won * np.log(clipped) + (1 - won) * np.log(1 - clipped)))
            what = (
                " and ".join(n for n, t in zip(("schedules", "configurations"), told, strict=True) if t)
                or "curves alone"
            )
            lines.append(
                f"| {world} | {what} | {loss:.3f} | {won.mean():.2f} | {np.mean(p[winners] < 0.05):.2f} "
                f"| {np.median(p[winners]):.3f} | {np.median(p[~winners]):.3f} |"
            )
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
