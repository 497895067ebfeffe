"""Groups of trials as arms: by rung, by a category, by a region of a number. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from lcsearch.allocation.rungs import Ladder
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.study import Trial

RUNG = "rung"


@dataclass(frozen=True)
class Groups:
    """Which group a trial that waits belongs to.

    Attributes:
        by: "rung", the rung at which a trial waits (a bracket of depth); else the name of a parameter: of a category
            its value, of a number one of `n_regions` regions with as many begun trials in each.
        n_regions: of a number, >= 2.
    """

    by: str = RUNG
    n_regions: int = 3

    def __post_init__(self) -> None:
        if not (isinstance(self.by, str) and self.by):
            raise InvalidValue("'rung' or the name of a parameter", self.by, "groups")
        if not (isinstance(self.n_regions, int) and self.n_regions >= 2):
            raise InvalidValue("an integer >= 2", self.n_regions, "n_regions")

    def of(self, ladder: Ladder) -> Mapping[str, str]:
        """Uid -> its group's name, of all trials that wait at a rung."""
        standing = {uid: k for uid, k in ladder.standing.items() if k >= 0}
        if self.by == RUNG:
            return {uid: f"step {ladder.rungs[k]:g}" for uid, k in standing.items()}
        edges = self._edges(ladder)
        return {t.uid: self._name(t, edges) for t in ladder.paused if t.uid in standing}

    def _edges(self, ladder: Ladder) -> list[float]:
        """Between the regions, rising."""
        everyone = chain(ladder.snapshot.bank, ladder.snapshot.live)
        values = [float(v) for t in everyone if (v := t.params.get(self.by)) is not None and is_finite_number(v)]
        shares = np.arange(1, self.n_regions) / self.n_regions
        return [float(x) for x in np.quantile(values, shares)] if values else []

    def _name(self, trial: Trial, edges: list[float]) -> str:
        value = trial.params.get(self.by)
        if value is None or not is_finite_number(value):
            return f"{self.by} {value!r}" if self.by in trial.params else f"no {self.by}"
        # Not by its ends, which move with every new trial: what is known of a group goes by its name.
        return f"{self.by}, region {bisect_right(edges, float(value)) + 1} of {len(edges) + 1}"
