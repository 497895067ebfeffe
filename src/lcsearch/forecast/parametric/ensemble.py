"""The parametric ensemble: seven families of decay, fitted to every curve at once, weighted by their evidence.

Pure numpy, no state: the same snapshot and queries give the same bits, alone or in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Absent, Forecasts, Query
from lcsearch.forecast.parametric.batches import Batch, batched
from lcsearch.forecast.parametric.families import FAMILIES
from lcsearch.forecast.parametric.fit import Fit, curve_at, fit
from lcsearch.forecast.parametric.mixture import DRAWS, NORMALS, TIMES, cells, future, read_off, share_out
from lcsearch.forecast.parametric.observed import Observed, observe, width_of
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.study import Snapshot

#: Draws are dealt to families in this order, so that every family gets a spread of quasi-random points.
_DEAL = np.argsort(np.argsort((np.arange(1, DRAWS + 1) * 0.6180339887498949) % 1.0))
#: Student's t with three degrees of freedom in cells, finer in the tails: a value that no family foresees.
_HALF = np.array([0.0, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5])
_EDGES = np.concatenate([_HALF, 1.0 - _HALF[-2::-1]])
_BROAD = stdtrit(3.0, 0.5 * (_EDGES[1:] + _EDGES[:-1]))
_BROAD_MASS = np.tile(np.diff(_EDGES), 2) / 2.0
_BATCH = 50  # curves at a time: they stay in the processor's cache


@dataclass(frozen=True)
class ParametricEnsemble:
    """Curve extrapolation by an evidence-weighted mixture of parametric families.

    A draw of the mixture is a family, its parameters from the Laplace posterior, and a discrepancy that all future
    times share,

        loss(u) = f(u; p) + z * discrepancy * sqrt(recent^2 + (0.1 unit)^2) * ln(u / u_last),

    because no real curve keeps to a family for ever. A share `broad` of the mass forgets the families altogether: a
    Student-t around the last and the best loss, as wide as the study's spread times the share of the run that is left.
    Curves fool their families (late jumps, chance plateaus), and P(beat) must say so.

    Attributes:
        discrepancy: share of the recent range that an e-fold of time may add or take, as an sd.
        broad: mass of the component that knows the last and the best loss only.
        off_law: a curve leaves its law when the median of its last three |residuals| exceeds this many sigmas.
        min_off_law: fewest observations for which that is said.
    """

    discrepancy: float = 0.1
    broad: float = 0.06
    off_law: float = 5.0
    min_off_law: int = 8

    @property
    def name(self) -> str:
        """ "parametric"."""
        return "parametric"

    @property
    def version(self) -> str:
        """Changes whenever the same question may get another answer."""
        return f"2-{self.discrepancy:g}-{self.broad:g}-{self.off_law:g}-{self.min_off_law}"

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        """One row a query.

        No family says anything of a curve that has not moved yet: it is answered by what became of the finished trials
        that stood beside it, as :class:`RankAndGap` does, where there are enough of them.

        Absent rows: NONFINITE when the curve has no finite observation; UNSUPPORTED when nothing gives it a scale (one
        observation, or a constant curve, in a study without finished trials) or when it has left every family (see
        `off_law`).
        """
        sign, source = snapshot.goal.sign, f"{self.name}/{self.version}"
        absent, batches = batched(queries, width_of, _BATCH)
        parts = [(batch.rows, self._answer(snapshot, queries, batch, absent)) for batch in batches]
        still = [i for i, q in enumerate(queries) if q.trial.curve.still and q.step > q.trial.curve.last_step]
        beside = RankAndGap().forecast(snapshot, [queries[i] for i in still])
        for j, i in enumerate(still):
            if beside.absent[j] is None:
                parts.append((np.array([i]), (beside.knots[j : j + 1], beside.levels[j : j + 1], beside.tails[j])))
                absent[i] = None
        width = max((part[0].shape[1] for _, part in parts), default=2)
        knots, levels = np.full((len(queries), width), np.nan), np.full((len(queries), width), np.nan)
        tails = np.full((len(queries), 2), np.nan)
        for rows, (k, p, t) in parts:
            pad = ((0, 0), (0, width - k.shape[1]))
            knots[rows], levels[rows], tails[rows] = np.pad(k, pad, mode="edge"), np.pad(p, pad, mode="edge"), t
        for i, reason in enumerate(absent):
            if reason is not None:
                knots[i] = levels[i] = np.nan
                tails[i] = np.nan
        return Forecasts.of(knots, levels, tails, sign=sign, source=source, absent=absent)

    def _answer(
        self, snapshot: Snapshot, queries: Sequence[Query], batch: Batch, absent: list[Absent | None]
    ) -> tuple[Floats, Floats, Floats]:
        """Knots, levels, tails of a batch of the queries, and their reasons in `absent`."""
        curves, rows, which = batch
        seen = observe(curves, snapshot.goal, snapshot.horizon, snapshot.robust_range)
        fitted = fit(seen)
        unfit = np.isnan(seen.unit) | self._left_law(seen, fitted)
        steps = np.array([queries[i].step for i in rows])
        kinds = np.array([("value", "latent", "best_by").index(queries[i].kind) for i in rows])
        sign = snapshot.goal.sign
        losses = [sign * curve.values for curve in curves]
        reported = [curve.steps for curve in curves]
        ended = np.array([queries[i].trial.curve.last_step for i in rows]) >= steps
        count = [int(np.searchsorted(reported[c], s, side="right")) for c, s in zip(which, steps, strict=True)]
        best = np.array(
            [losses[c][:n].min() if kind == 2 and n else np.inf for c, n, kind in zip(which, count, kinds, strict=True)]
        )
        known = np.array(
            [
                losses[c][n - 1] if kind == 0 and n and over else np.nan
                for c, n, kind, over in zip(which, count, kinds, ended, strict=True)
            ]
        )
        times, counts, n_future = future(seen.last[which], steps, seen.spacing[which])
        single = kinds < 2
        times = np.where(single[:, None], steps[:, None], times)
        counts = np.where(single[:, None], np.arange(TIMES) == TIMES - 1, counts)
        m, noise = self._draws(seen, fitted, which, seen.time(which, times))
        noise = np.where(kinds == 1, 1e-9, noise)
        where, mass = cells(m, noise, counts)
        unit, loc = seen.unit[which], seen.loc[which]
        broad = self._broad(seen, which, seen.time(which, steps[:, None])[:, 0])
        where = np.concatenate([where.reshape(len(rows), -1), broad], 1)
        each = np.broadcast_to(self.broad * _BROAD_MASS, broad.shape)
        mass = np.concatenate([(1.0 - self.broad) * mass.reshape(len(rows), -1), each], 1)
        knots, levels, tails = read_off(where, mass, (best - loc) / unit)
        knots, tails = loc[:, None] + unit[:, None] * knots, unit[:, None] * tails
        # What is already reported is certain: a best-by without reports to come, a value at a reported step.
        sure = np.where(kinds == 2, np.where((n_future == 0) | ended, best, np.nan), known)
        settled = np.isfinite(sure)
        atom = np.zeros(knots.shape[1])
        atom[-1] = 1.0
        knots = np.where(settled[:, None], sure[:, None], knots)
        levels = np.where(settled[:, None], atom, levels)
        tails = np.where(settled[:, None], 0.0, tails)
        # The cap itself, free of rounding: nothing is better than the best so far by a hair of arithmetic.
        capped = np.isfinite(best)[:, None]
        knots = np.where(capped, np.minimum(knots, best[:, None]), knots)
        knots[:, -2:] = np.where(capped, best[:, None], knots[:, -2:])
        for i, c, certain in zip(rows, which, settled, strict=True):
            if unfit[c] and not certain:
                absent[i] = Absent.UNSUPPORTED
        return knots, levels, tails

    def _draws(self, seen: Observed, fitted: Fit, which: NDArray[np.intp], u: Floats) -> tuple[Floats, Floats]:
        """Latent losses (Q, S, T) of every query's draws at times u (Q, T), and the noise sd (Q,), in curve units."""
        c = seen.n.size
        weights = np.nan_to_num(fitted.weights, nan=1.0 / len(FAMILIES))
        k = share_out(weights, _DEAL)
        rows = np.arange(c)[:, None]
        z = NORMALS[:, :5]
        p = fitted.p[rows, k] + np.matmul(fitted.root[rows, k], z[None, :, :, None])[..., 0]
        p[..., 3:] = np.clip(p[..., 3:], -9.0, 4.0)
        q, s, t = u.shape[0], DRAWS, u.shape[1]
        flat_u = np.repeat(u, s, axis=0)
        first = np.repeat(seen.u[which, 0], s)
        m = curve_at(FAMILIES, k[which].ravel(), flat_u, first, p[which].reshape(-1, 5)).reshape(q, s, t)
        now = seen.u[np.arange(c), seen.n - 1]
        away = np.log(np.maximum(u / now[which, None], 1.0))
        wander = self.discrepancy * np.sqrt(seen.recent**2 + 0.01)[which]
        m += NORMALS[None, :, 5:6] * (wander[:, None] * away)[:, None, :]
        noise = (fitted.noise * fitted.weights).sum(1)[which]
        return m, np.maximum(noise, 1e-7)

    def _broad(self, seen: Observed, which: NDArray[np.intp], u: Floats) -> Floats:
        """(Q, B) losses at time u (Q,), of masses _BROAD_MASS: Student-t around the last and the best loss."""
        rows = np.arange(seen.n.size)
        left = np.clip(1.0 - seen.u[rows, seen.n - 1][which] / u, 0.0, 1.0)
        lowest = np.where(seen.mask > 0, seen.y, np.inf).min(1)[which]
        sd = left * np.maximum(1.0, seen.spread[which])
        around = sd[:, None] * _BROAD
        return np.concatenate([around, lowest[:, None] + around], 1)

    def _left_law(self, seen: Observed, fitted: Fit) -> NDArray[np.bool_]:
        """(C,) the median of the last three surprises is above `off_law`: a jump, no outlier."""
        surprise = (fitted.surprise * fitted.weights[..., None]).sum(1)
        rows = np.arange(seen.n.size)[:, None]
        last = np.maximum(seen.n[:, None] - np.array([1, 2, 3]), 0)
        middle = np.median(surprise[rows, last], axis=1)
        out: NDArray[np.bool_] = (seen.n >= self.min_off_law) & (middle > self.off_law)
        return out
