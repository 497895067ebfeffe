"""Queries beside the context trials of their studies: one context that all queries share, or one for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcsearch.curves import Floats
from lcsearch.forecast.network import features
from lcsearch.forecast.network.asking import PendingQuery, QueryBatch
from lcsearch.forecast.network.context import Context
from lcsearch.forecast.network.features import Curves, Cuts
from lcsearch.forecast.network.params import N_MATCH, match
from lcsearch.forecast.network.reports import as_tensor, standardize


@dataclass(frozen=True, eq=False)
class Beside:
    """Q queries and their contexts, as B studies of Q / B queries: (1, Q) where all share one context, else (Q, 1).

    Contexts of fewer trials, parameters or reports than the largest are padded; `use` leaves what is no trial out.

    Attributes:
        asked: Q of them.
        looks: the same, read.
        contexts: Q, the context of each.
    """

    asked: Sequence[PendingQuery]
    looks: QueryBatch
    contexts: Sequence[Context]

    @cached_property
    def _groups(self) -> list[tuple[Context, NDArray[np.intp]]]:
        """Every context with its queries."""
        rows: dict[int, list[int]] = {}
        for i, context in enumerate(self.contexts):
            rows.setdefault(id(context), []).append(i)
        return [(self.contexts[mine[0]], np.array(mine)) for mine in rows.values()]

    @property
    def shared(self) -> bool:
        """Whether all queries have one context."""
        return len(self._groups) == 1

    @property
    def shape(self) -> tuple[int, int]:
        """(B, Q / B)."""
        n = len(self.asked)
        return (1, n) if self.shared else (n, 1)

    @property
    def n_context(self) -> int:
        """C: trials of the largest context."""
        return max(len(context) for context, _ in self._groups)

    def _each(self, read: Callable[[Context], Tensor], blank: float) -> Tensor:
        """(1, ...) of every context -> (B, ...), padded with `blank`."""
        parts = [read(context) for context, _ in self._groups]
        if len(parts) == 1:
            return parts[0]
        size = [max(part.shape[k] for part in parts) for k in range(1, parts[0].dim())]
        out = parts[0].new_full((len(parts), *size), blank)
        for i, part in enumerate(parts):
            inside = tuple(slice(n) for n in part.shape[1:])
            out[i][inside] = part[0]
        return out[self._which.to(out.device)]

    @cached_property
    def _which(self) -> Tensor:
        """(Q,) place of each query's context among the groups."""
        which = np.empty(len(self.asked), np.int64)
        for i, (_, rows) in enumerate(self._groups):
            which[rows] = i
        return torch.from_numpy(which)

    @cached_property
    def states(self) -> Tensor:
        """(B, C, W)."""
        return self._each(lambda context: context.states, 0.0)

    @cached_property
    def use(self) -> Tensor:
        """(B, Q / B, C) which context trials count for a query: a trial is no context of its own."""
        use = np.zeros((len(self.asked), self.n_context), np.bool_)
        for context, rows in self._groups:
            use[rows, : len(context)] = True
            for i in rows:
                if (j := context.places.get(self.asked[i].trial.uid)) is not None:
                    use[i, j] = False
        return self.queries(torch.from_numpy(use))

    def queries(self, x: Tensor) -> Tensor:
        """(Q, ...) -> (B, Q / B, ...), where the network is."""
        return x.to(self.looks.unit.device).view(*self.shape, *x.shape[1:])

    @cached_property
    def _pair_features(self) -> tuple[Cuts, Tensor, Tensor, Tensor, Curves, Tensor, Tensor, Tensor]:
        """What :func:`features.beside` is given, the places (4, B, Q / B, C) in one."""
        cuts, unit = self.looks.in_study(self.array("center"), self.array("scale"))
        spread = as_tensor(np.where(self.looks.wide > 0, 1.0, 0.0), "cpu")
        incumbent = standardize(self.looks.target, self.array("center"), self.array("scale"))
        blank = self.contexts[0].curves.y[..., :1]  # of the curves nothing else is read
        y, best = self._each(lambda c: c.curves.y, 0.0), self._each(lambda c: c.curves.best, 0.0)
        curves = Curves(y, self._each(lambda c: c.curves.bad, False), best, blank, blank, blank, blank, blank)
        return (
            Cuts(*(self.queries(getattr(cuts, f.name)[0]) for f in fields(Cuts))),
            self.queries(unit[0]),
            self.queries(spread),
            self.queries(as_tensor(incumbent, "cpu")),
            curves,
            self._each(lambda context: context.reported, 1),
            self._each(lambda context: context.complete, False),
            torch.from_numpy(self._places()).to(unit.device).view(4, *self.shape, -1),
        )

    def pairs(self, at: slice = slice(None)) -> Tensor:
        """(B, Q / B, C, N_PAIR) :func:`features.beside`, of some of the queries where they share a context."""
        cuts, unit, spread, incumbent, curves, reported, complete, places = self._pair_features
        now, half, quarter, until = places[:, :, at].unbind()
        return features.beside(
            cuts.map(lambda x: x[:, at]),
            unit[:, at],
            spread[:, at],
            incumbent[:, at],
            curves,
            reported,
            complete,
            now,
            half,
            quarter,
            until,
        )

    def array(self, name: str) -> Floats:
        """(Q,) of the contexts."""
        return np.array([getattr(context, name) for context in self.contexts], np.float64)

    def _places(self) -> NDArray[np.int64]:
        """(4, Q, C) where context trials stood at the query's step, half and a quarter of it, and the step asked."""
        start, now, until = self.looks.start, self.looks.now, self.looks.until
        passed = now - start
        steps = np.stack([now, start + 0.5 * passed, start + 0.25 * passed, until])
        places = np.full((4, len(self.asked), self.n_context), -1)
        for context, rows in self._groups:
            found = context.place(steps[:, rows].ravel())
            places[:, rows, : len(context)] = found.reshape(4, len(rows), len(context))
        return places

    @cached_property
    def _mine(self) -> Tensor:
        """(B, Q / B, D) configurations of the queries."""
        d = max(len(context.columns.columns) for context, _ in self._groups)
        mine = np.full((len(self.asked), d), np.nan)
        for context, rows in self._groups:
            encoded = context.columns.encode([self.looks.params[i] for i in rows])
            mine[rows, : encoded.shape[1]] = encoded
        return self.queries(as_tensor(mine, "cpu"))

    def alike(self, at: slice = slice(None)) -> Tensor:
        """(B, Q / B, C, D, N_MATCH) :func:`match`, as `pairs`."""
        mine = self._mine[:, at]
        if not mine.shape[-1]:
            return self.states.new_zeros(*mine.shape[:2], self.n_context, 0, N_MATCH)
        return match(
            mine,
            self._each(lambda context: context.params, np.nan),
            self._each(lambda context: context.kinds, 0),
            self._each(lambda context: context.judged, np.nan),
            self.use[:, at],
        )

    def plans(self) -> Tensor | None:
        """(B, Q / B, C, N_PLAN) :func:`features.plans`; None where no schedule is known."""
        looks = self.looks
        if not any(context.schedules for context, _ in self._groups) or all(r.schedule is None for r in looks.reports):
            return None
        steps = np.stack([looks.now, looks.until])
        theirs = np.full((2, 2, len(self.asked), self.n_context), np.nan)
        for context, rows in self._groups:
            for k, found in enumerate(context.planned(steps[:, rows].ravel())):
                theirs[k][:, rows, : len(context)] = found.reshape(2, len(rows), len(context))
        device = str(looks.unit.device)
        mine = [as_tensor(x, device).view(2, *self.shape) for x in looks.plans]
        other = [as_tensor(x, device).view(2, *self.shape, -1) for x in theirs]
        return features.plans((mine[0], mine[1]), (other[0], other[1]))
