"""Small networks of the field, which see one curve at a time: LC-PFN's recipe, and the same on our own prior.

Both are transformers after LC-PFN (Adriaensen et al. 2023): a token is Linear(time) + Linear(value), every token
attends to the observed ones only, the head gives the masses of bins of equal prior mass, with exponential tails. 128
wide, 4 layers, 4 heads, before which values are normalised (LC-PFN: 512, 12, 4).

lc-pfn-recipe: trained on the prior of `mcmc`, mirrored: losses that fall within [0, 1] over 100
reports. Real losses come there as they do to `mcmc`: the best loss known (the curve's own or the incumbent's) is .2,
the curve's worst, or what lies the study's spread above that best, .95. It answers "best_by" by the value alone.

wide: trained on single curves of `lcsearch.forecast.prior`. A value is asinh((loss - last) / scale), the scale being
the curve's own; it is asked about "value" and "best_by".

Time counts reports: the first is 1, the horizon m. `train_peers.py` trains them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from cheap import Cheap, Law
from torch import Tensor, nn
from torch.nn import functional as F

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Query
from lcsearch.study import Snapshot

LONGEST = 100
"""Reports of a curve: LC-PFN's horizon. A longer curve is thinned evenly from its end, and its time scaled."""
FARTHEST = 15.0
"""Largest asinh of a value: 1.6 million scales."""


@dataclass(frozen=True)
class Size:
    """Of a network: numbers that describe a time and a value, kinds of question, widths, bins."""

    times: int
    values: int
    kinds: int
    bins: int
    width: int = 128
    layers: int = 4
    heads: int = 4


class _Block(nn.Module):
    """Pre-norm attention to the observed tokens, and a feed-forward part."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.both, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x (B, N + Q, W), of which the first N were observed where `seen` (B, N) -> x."""
        b, t, w = x.shape
        n, shape = seen.shape[1], (b, -1, self.heads, w // self.heads)
        h = self.norm1(x)
        q = self.query(h).view(shape).transpose(1, 2)
        k, v = (part.reshape(shape).transpose(1, 2) for part in self.both(h[:, :n]).chunk(2, -1))
        scores = (q @ k.transpose(-1, -2)) * (w // self.heads) ** -0.5
        share = scores.float().masked_fill(~seen[:, None, None], -1e9).softmax(-1).to(v.dtype)
        x = x + self.out((share @ v).transpose(1, 2).reshape(b, t, w))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class SingleCurve(nn.Module):
    """See the module. `borders` (bins - 1,) lie between the bins, `tails` (2,) are mean distances beyond the last."""

    borders: Tensor
    tails: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.time, self.value = nn.Linear(size.times, size.width), nn.Linear(size.values, size.width)
        self.kind = nn.Embedding(size.kinds, size.width)
        self.blocks = nn.ModuleList(_Block(size.width, size.heads) for _ in range(size.layers))
        self.head = nn.Sequential(
            nn.LayerNorm(size.width), nn.Linear(size.width, 2 * size.width), nn.GELU(),
            nn.Linear(2 * size.width, size.bins),
        )  # fmt: skip
        self.register_buffer("borders", torch.arange(1.0, size.bins))
        self.register_buffer("tails", torch.ones(2))

    def forward(self, times: Tensor, values: Tensor, seen: Tensor, asked: Tensor, kind: Tensor) -> Tensor:
        """Logits of the bins.

        Args:
            times: (B, N, size.times) of the observed reports.
            values: (B, N, size.values) of them.
            seen: (B, N) which are not padding.
            asked: (B, Q, size.times).
            kind: (B, Q) what is asked.

        Returns:
            (B, Q, bins).
        """
        x = torch.cat([self.time(times) + self.value(values), self.time(asked) + self.kind(kind)], 1)
        for block in self.blocks:
            x = block(x, seen)
        out: Tensor = self.head(x[:, times.shape[1] :])
        return out

    def describe(self) -> dict[str, int]:
        """For weight files."""
        return asdict(self.size)


class Peer(Cheap):
    """A network as a forecaster; subclasses say what it is shown."""

    kinds: tuple[str, ...] = ("value",)

    def __init__(self, network: SingleCurve, version: str) -> None:
        self._network, self.version = network.eval(), version

    @staticmethod
    @abstractmethod
    def clock(x: Tensor, m: Tensor) -> Tensor:
        """(..., size.times) of times x and horizons m (...)."""

    @staticmethod
    @abstractmethod
    def shown(v: Tensor) -> Tensor:
        """(..., size.values) of values (...) in the curve's unit."""

    @abstractmethod
    def unit(self, loss: Floats, snapshot: Snapshot) -> tuple[float, float] | None:
        """Zero and scale of a curve; None where it has none."""

    @staticmethod
    def bent(v: Floats) -> Floats:
        """(loss - zero) / scale -> what the network knows."""
        return v

    @staticmethod
    def straight(v: Floats) -> Floats:
        """The inverse of `bent`."""
        return v

    def later(self, snapshot: Snapshot, query: Query) -> Law | None:
        """One of `laters`."""
        return self.laters(snapshot, [query])[0]

    def laters(self, snapshot: Snapshot, queries: Sequence[Query]) -> list[Law | None]:
        """All in one batch."""
        units = [self.unit(snapshot.goal.sign * query.trial.curve.values, snapshot) for query in queries]
        rows = [i for i, unit in enumerate(units) if unit is not None]
        laws: list[Law | None] = [None] * len(queries)
        if not rows:
            return laws
        read = [counted(queries[i], snapshot) for i in rows]
        n = max(len(pick) for pick, *_ in read)
        x, v, seen = torch.ones(len(rows), n), torch.zeros(len(rows), n), torch.zeros(len(rows), n, dtype=torch.bool)
        for j, (i, (pick, times, _, _)) in enumerate(zip(rows, read, strict=True)):
            zero, scale = units[i] or (0.0, 1.0)
            loss = snapshot.goal.sign * queries[i].trial.curve.values[pick]
            with np.errstate(over="ignore"):
                v[j, : len(pick)] = torch.from_numpy(self.bent((loss - zero) / scale))
            x[j, : len(pick)], seen[j, : len(pick)] = torch.from_numpy(times), True
        asked, m = (torch.tensor([[one[k]] for one in read], dtype=torch.float32) for k in (2, 3))
        kind = torch.tensor([[self.kinds.index(k) if (k := queries[i].kind) in self.kinds else 0] for i in rows])
        with torch.inference_mode():
            logits = self._network(self.clock(x, m.expand_as(x)), self.shown(v), seen, self.clock(asked, m), kind)
            levels = torch.softmax(logits[:, 0].double(), -1).cumsum(-1)[:, :-1].clamp(max=1.0).numpy()
        borders = self._network.borders.double().numpy()
        ends = borders[[0, -1]] + np.array([-1.0, 1.0]) * self._network.tails.double().numpy()
        knots, (low, high) = self.straight(borders), self.straight(ends)
        for j, i in enumerate(rows):
            zero, scale = units[i] or (0.0, 1.0)
            laws[i] = zero + scale * knots, levels[j], (scale * float(knots[0] - low), scale * float(high - knots[-1]))
        return laws


def counted(query: Query, snapshot: Snapshot) -> tuple[list[int], Floats, float, float]:
    """Which reports are read, their times, the time asked about, and the horizon's: at most LONGEST."""
    steps, horizon = query.trial.curve.steps, snapshot.horizon
    spacing = float(np.median(np.diff(steps))) if steps.size > 1 else float(steps[0]) or 0.02 * horizon
    base = float(steps[0]) - spacing
    m = max((max(horizon, float(steps[-1])) - base) / spacing, 2.0)
    shrink = min(LONGEST / m, 1.0)
    stride = -(-steps.size // LONGEST)
    pick = list(range(steps.size - 1, -1, -stride))[::-1]
    times = np.maximum((steps[pick] - base) / spacing, 1.0) * shrink
    return pick, times, (query.step - base) / spacing * shrink, m * shrink


class LcPfn(Peer):
    """See the module."""

    name = "lc-pfn-recipe"

    @staticmethod
    def clock(x: Tensor, m: Tensor) -> Tensor:
        """Normalised."""
        return ((x - 50.5) / 28.9).unsqueeze(-1)

    @staticmethod
    def shown(v: Tensor) -> Tensor:
        """Normalised."""
        return ((v - 0.5) / 0.25).unsqueeze(-1)

    @staticmethod
    def bent(v: Floats) -> Floats:
        """Blow-ups end."""
        return np.clip(v, -1.0, 2.0)

    def unit(self, loss: Floats, snapshot: Snapshot) -> tuple[float, float] | None:
        """As `mcmc`, mirrored."""
        leader, spread = snapshot.bank.best_complete, snapshot.robust_range
        middle = float(np.median(loss))
        usual = max(spread, 3.0 * float(np.median(np.abs(loss - middle)))) or float(np.ptp(loss))
        loss = np.clip(loss, middle - 10.0 * usual, middle + 10.0 * usual)
        best = min(float(loss.min()), np.inf if leader is None else leader[0])
        worst = max(float(loss.max()), best + spread)
        scale = (worst - best) / 0.75
        good = np.isfinite(scale) and scale > 1e-12 * max(abs(best), abs(worst))
        return (best - 0.2 * scale, scale) if good else None


class Wide(Peer):
    """See the module."""

    name = "wide"
    kinds = ("value", "best_by")

    @staticmethod
    def clock(x: Tensor, m: Tensor) -> Tensor:
        """Share of the horizon, its logarithm, and that of the horizon."""
        return torch.stack([x / m, torch.log(x / m), torch.log(m) / 5.0], -1)

    @staticmethod
    def shown(v: Tensor) -> Tensor:
        """As it is, and finer around the last value."""
        return torch.stack([v, torch.asinh(100.0 * torch.sinh(v)) / 4.0], -1)

    @staticmethod
    def bent(v: Floats) -> Floats:
        """Its asinh, at most FARTHEST."""
        return np.clip(np.arcsinh(v), -FARTHEST, FARTHEST)

    @staticmethod
    def straight(v: Floats) -> Floats:
        """sinh."""
        return np.asarray(np.sinh(v))

    def unit(self, loss: Floats, snapshot: Snapshot) -> tuple[float, float] | None:
        """The last value; see :func:`own_scale`."""
        seen = torch.ones(1, loss.size, dtype=torch.bool)
        return float(loss[-1]), float(own_scale(torch.from_numpy(loss)[None], seen, loss[-1:, None])[0])


def own_scale(loss: Tensor, seen: Tensor, last: Tensor | Floats) -> Tensor:
    """(B,) mean |loss - last| of the reports (B, N) that are `seen`, none above ten times the median one.

    A curve that is constant gets a millionth of its value.
    """
    last = torch.as_tensor(last)
    away = torch.where(seen, (loss - last).abs(), torch.nan)
    middle = away.nanmedian(1, keepdim=True).values
    away = torch.where(middle > 0, torch.minimum(away, 10.0 * middle), away)
    return torch.maximum(away.nanmean(1), 1e-6 * last[:, 0].abs() + 1e-30)
