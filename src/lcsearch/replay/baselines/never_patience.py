"""Stop nothing; stop what no longer improves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lcsearch.replay.baselines.rule import Bare, Said, at_least
from lcsearch.study import Snapshot, Trial


@dataclass(frozen=True)
class Never(Bare):
    """Stops nothing."""

    @property
    def name(self) -> str:
        """ "never"."""
        return "never"

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Go on."""
        return Said(False, "nothing is stopped")


@dataclass(frozen=True)
class Patience(Bare):
    """Stops a trial whose best value is more than `patience` reports old: 0 stops at the first that is no better.

    An equal value is no improvement, nor is a non-finite one; a trial that never reported a finite value is as old as
    its reports are many. LC-PFN section 4.3 compares with 0, 1, 5, 10, 20 and 50. (Optuna's PatientPruner without a
    pruner inside is the same but for ties and NaN, which it forgives.)

    Attributes:
        patience: reports without improvement that are borne, >= 0.
    """

    patience: int

    def __post_init__(self) -> None:
        at_least(self.patience, 0, "Patience.patience")

    @property
    def name(self) -> str:
        """ "patience-5"."""
        return f"patience-{self.patience}"

    def says(self, snapshot: Snapshot, trial: Trial, since: float) -> Said:
        """Count the reports since the best one."""
        best = trial.curve.standings(snapshot.goal.sign, True)[1]
        idle = 0
        if best:
            idle = len(best) - 1 - best.index(best[-1]) if best[-1] < math.inf else len(best)
        return Said(idle > self.patience, f"{idle} reports without improvement")
