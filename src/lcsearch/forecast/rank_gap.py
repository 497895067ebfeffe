"""Rank and gap: no extrapolation at all, only where a trial stands among the finished ones at the same step.

Let x be the trial's loss at its last step s (its best so far when best-by is asked), x_i that of the n COMPLETE trials
at the same step, z_i their loss at the step asked about, F(.) the share of the bank's trials that were better at s.
The forecast is the weighted distribution of

    x - g_i * clip(sqrt((x - m) / (x_i - m)), 1/2, 2)          g_i = x_i - z_i  (what was still gained after s)

    w_i = floor + exp(-(F(x) - F(x_i))^2 / (2 h^2)) exp(-(x - x_i)^2 / (2 (b c)^2))

with m the best z_i less a tenth of c (a larger gap leaves more to gain), c the robust scale of the losses at s, h the
width in rank and b the width in gap. Laplace's rule: of the mass, 1 / (n_eff + 1) lies outside the gains ever seen,
half below and half above, n_eff = (sum w)^2 / sum w^2. So P(beat) from few trials is never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.study import Snapshot

_TINY = 1e-300


@dataclass(frozen=True)
class RankAndGap:
    """The empirical distribution of the finished trials' remaining gains, applied to the trial's present loss.

    A blow-up (1e34) is clipped ten scales beyond the median trial; ranks do the rest.

    Attributes:
        min_comparisons: fewest COMPLETE trials with a value at the trial's step; UNSUPPORTED below.
        rank_width: h, in share of trials; 1 / sqrt(n) is added.
        gap_width: b, in robust scales of the losses at the step.
        floor: weight that every finished trial keeps.
    """

    min_comparisons: int = 4
    rank_width: float = 0.15
    gap_width: float = 1.0
    floor: float = 0.02

    @property
    def name(self) -> str:
        """ "rank-gap"."""
        return "rank-gap"

    @property
    def version(self) -> str:
        """Changes whenever the same question may get another answer."""
        return f"1-{self.min_comparisons}-{self.rank_width:g}-{self.gap_width:g}-{self.floor:g}"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query; "latent" is answered as "value", the trial's noise being part of the gains.

        Absent rows: NONFINITE when the curve has no finite observation; UNSUPPORTED with fewer than `min_comparisons`
        finished trials at the trial's last value.
        """
        absent: list[Absent | None] = [None] * len(queries)
        groups: dict[tuple[float, float, bool], list[int]] = {}
        for i, (trial, kind, step) in enumerate(queries):
            if not len(trial.curve) or not np.isfinite(step):
                absent[i] = Absent.NONFINITE
            else:
                now = trial.curve.last_step
                now = now if step <= now else float(trial.curve.steps[-1])  # reports that are no value are passed over
                groups.setdefault((now, step, kind == "best_by"), []).append(i)
        parts: list[tuple[list[int], Floats, Floats, Floats]] = []
        for (now, step, best), rows in groups.items():
            x = np.array([queries[i].trial.curve.at(step, snapshot.goal.sign, best=best) for i in rows])
            x[np.isinf(x)] = np.nan  # before its first value
            if step <= now:  # nothing is left to gain
                parts.append((rows, x[:, None], np.ones((len(rows), 1)), np.zeros((len(rows), 2))))
                continue
            with np.errstate(over="ignore", invalid="ignore"):  # losses near 1e300: a row that overflows is NONFINITE
                part = self._answer(snapshot, now, step, best, x)
            if part is None:
                for i in rows:
                    absent[i] = Absent.UNSUPPORTED
            else:
                parts.append((rows, *part))
        q, width = len(queries), max((part[1].shape[1] for part in parts), default=1)
        knots, levels, tails = np.full((q, width), np.nan), np.full((q, width), np.nan), np.full((q, 2), np.nan)
        for rows, k, p, t in parts:
            pad = ((0, 0), (0, width - k.shape[1]))
            knots[rows], levels[rows], tails[rows] = np.pad(k, pad, mode="edge"), np.pad(p, pad, mode="edge"), t
        source = f"{self.name}/{self.version}"
        return Forecasts.of(knots, levels, tails, sign=snapshot.goal.sign, source=source, absent=absent)

    def _answer(
        self, snapshot: Snapshot, now: float, step: float, best: bool, x: Floats
    ) -> tuple[Floats, Floats, Floats] | None:
        """Knots (Q, n + 1), levels and tails for trials with present losses x (Q,) that all stand at step `now`."""
        bank = snapshot.bank
        there, later = bank.at(now, best=best), bank.at(step, best=best)
        use = bank.complete & np.isfinite(there) & np.isfinite(later)
        n = int(use.sum())
        if n < self.min_comparisons:
            return None
        everyone = there[~np.isnan(there)]
        here, then = there[use], later[use]
        middle = np.median(here)
        scale = max(float(np.subtract(*np.quantile(here, [0.75, 0.25]))), float(np.median(np.abs(here - then))))
        scale = max(scale, float(np.median(np.abs(then - np.median(then)))), 1e-12 * abs(float(middle)), _TINY)
        high, low = middle + 10.0 * scale, middle - 10.0 * scale
        clipped = np.clip(x, min(low, float(here.min())), high)[:, None]
        here = np.minimum(here, high)
        gains = np.clip(here - then, -10.0 * scale, None)
        ordered = np.sort(everyone)
        rank, rank_i = _share_below(ordered, clipped), _share_below(ordered, here)[None, :]
        width = self.rank_width + 1.0 / np.sqrt(n)
        near = np.exp(-0.5 * ((rank - rank_i) / width) ** 2)
        near *= np.exp(-0.5 * np.minimum((clipped - here) / (self.gap_width * scale), 30.0) ** 2)
        weight = self.floor + near
        goal = then.min() - 0.1 * scale
        ratio = np.maximum(clipped - goal, 0.0) / np.maximum(here - goal, _TINY)
        y = clipped - gains * np.clip(np.sqrt(ratio), 0.5, 2.0)
        order = np.lexsort((weight, y), axis=1)  # ties by weight: the bank's order means nothing
        y, weight = np.take_along_axis(y, order, 1), np.take_along_axis(weight, order, 1)
        total = weight.sum(1, keepdims=True)
        outside = 1.0 / (total[:, 0] ** 2 / (weight**2).sum(1) + 1.0)
        level = (np.cumsum(weight, 1) - 0.5 * weight) / total
        level = 0.5 * outside[:, None] + (1.0 - outside[:, None]) * level
        mean = (weight * y).sum(1) / total[:, 0]
        spread = np.sqrt((weight * (y - mean[:, None]) ** 2).sum(1) / total[:, 0])
        # The tail must reach the best trials, however far ahead: P(beat) is small from there, never nothing.
        reach = 0.25 * np.maximum(y[:, 0] - then.min(), 0.0)
        lower = spread + 0.05 * scale + reach
        if best:
            y, level = np.column_stack([np.minimum(y, x[:, None]), x]), _ended(level)
        lower = np.maximum(lower, 1e-12 * np.abs(y[:, 0]))  # wide enough for the floats there
        return y, level, np.stack([lower, 0.0 * lower if best else spread + 0.05 * scale], 1)


def _share_below(ordered: Floats, x: Floats) -> Floats:
    """Share of `ordered` below x, ties by halves."""
    below: NDArray[np.intp] = np.searchsorted(ordered, x, side="left")
    return 0.5 * (below + np.searchsorted(ordered, x, side="right")) / ordered.size


def _ended(level: Floats) -> Floats:
    """Levels with a last knot that takes all the rest."""
    return np.column_stack([level, np.ones(level.shape[0])])
