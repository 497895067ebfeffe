"""The network: a causal curve level, a study level that looks at one query beside every context trial, a binned head.

Curve level: pre-norm causal self-attention over the tokens of one curve. Study level: a query attends to the context
trials, which never see each other nor any query: it is invariant to their order, answers do not depend on what else is
asked, and what is kept of a context trial (its last state) stays valid while the study grows.

The head gives log-masses of the bins between `borders` (in the curve's own unit, around its last value) and of both
tails; the incumbent splits the bin it lies in, so that P(beats the incumbent) is a sum of masses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lcsearch.forecast.network.features import N_CUT, N_PAIR, N_PLAN, N_TOKEN
from lcsearch.forecast.network.params import N_MATCH
from lcsearch.forecast.network.size import Size

KINDS = ("value", "latent", "best_by")


def default_borders(bins: int) -> Tensor:
    """(bins + 1,) borders in own units: even on a double asinh scale, out to 1e4 and down to 1e-4 around zero."""
    # by numpy: torch's own functions, asked on its "meta" device, import a compiler first, which takes seconds
    fine = 0.004 * np.sinh(np.arcsinh(1e4 / 0.004) * np.linspace(-1.0, 1.0, bins + 1))
    return torch.tensor(fine.tolist(), dtype=torch.float32)


class _Block(nn.Module):
    """Pre-norm causal self-attention and a feed-forward part."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (N, T, W), keys and values of what stands before (N, heads, P, W / heads) -> x, all keys and values."""
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        later = torch.ones(t, k.shape[2], dtype=torch.bool, device=x.device).triu(1 + k.shape[2] - t)
        return self._after(x, q, k, v, later), (k, v)

    def only(self, x: Tensor, at: Tensor) -> Tensor:
        """x (N, T, W), at (N,) -> (N, W): what `forward` gives there, without working out the rest."""
        n, t, d = x.shape
        rows = torch.arange(n, device=x.device)
        normed = self.norm1(x)
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(normed[rows, at], weight[:d], bias[:d]).view(n, self.heads, 1, d // self.heads)
        both = F.linear(normed, weight[d:], bias[d:])
        k, v = both.view(n, t, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        later = (torch.arange(t, device=x.device) > at[:, None])[:, None, None]
        return self._after(x[rows, at].unsqueeze(1), q, k, v, later).squeeze(1)

    def _after(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, later: Tensor) -> Tensor:
        # by hand: short sequences in bfloat16 are several times slower through the fused kernel on a CPU
        scores = (q @ k.transpose(-1, -2)) * k.shape[-1] ** -0.5
        y = scores.masked_fill(later, -1e9).softmax(-1).to(v.dtype) @ v
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


@dataclass
class Past:
    """Keys and values of the tokens that were encoded so far, one pair a layer; empty before the first."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class _Look(nn.Module):
    """One round of a query attending to the context trials through what each is beside it."""

    def __init__(self, width: int, pair: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_pair = nn.Linear(width, pair)
        self.hidden = nn.Linear(pair, pair)
        self.scores, self.values = nn.Linear(pair, 2 * heads), nn.Linear(pair, width)
        self.out = nn.Linear(2 * width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, q: Tensor, pairs: Tensor, use: Tensor) -> Tensor:
        """q (B, Q, W), pairs (B, Q, C, P), use (B, Q, C) -> (B, Q, W)."""
        b, n = pairs.shape[:2]
        h = F.gelu(pairs + self.to_pair(self.norm(q)).unsqueeze(2))
        h = F.gelu(self.hidden(h))
        scores = self.scores(h).masked_fill_(~use.unsqueeze(-1), -1e9)
        some = use.any(2)[..., None, None]
        share = torch.softmax(scores, 2) * some
        # two sets of weights for the same values: nearest neighbours and the crowd; mixed first, then made values of,
        # which is the same and needs a tenth of the work
        mixed = (share.transpose(2, 3) @ h).view(b, n, 2, self.heads, -1)
        weight, bias = self.values.weight.view(self.heads, -1, h.shape[-1]), self.values.bias.view(self.heads, -1)
        mixed = torch.einsum("bqghp,hdp->bqghd", mixed, weight) + bias * some.unsqueeze(-1)
        q = q + self.out(mixed.reshape(b, n, -1))
        out: Tensor = q + self.down(F.gelu(self.up(self.norm2(q))))
        return out


class CurveNetwork(nn.Module):
    """See the module."""

    borders: Tensor

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = z = size or Size()
        self.token = nn.Linear(N_TOKEN, z.curve_width)
        self.curve = nn.ModuleList(_Block(z.curve_width, z.curve_heads) for _ in range(z.curve_layers))
        self.curve_norm = nn.LayerNorm(z.curve_width)
        self.cut = nn.Sequential(
            nn.Linear(N_CUT + len(KINDS), z.study_width), nn.GELU(), nn.Linear(z.study_width, z.study_width)
        )
        self.from_curve = nn.Linear(z.curve_width, z.study_width)
        self.pair = nn.Linear(N_PAIR, z.pair_width)
        self.plan = nn.Sequential(nn.Linear(N_PLAN, 24), nn.GELU(), nn.Linear(24, z.pair_width, bias=False))
        self.pair_curve = nn.Linear(z.curve_width, z.pair_width)
        self.match, self.match_out = nn.Linear(N_MATCH, 24), nn.Linear(24, z.pair_width, bias=False)
        self.study = nn.ModuleList(_Look(z.study_width, z.pair_width, z.study_heads) for _ in range(z.study_layers))
        self.norm = nn.LayerNorm(z.study_width)
        self.head = nn.Sequential(
            nn.Linear(z.study_width, 2 * z.study_width), nn.GELU(), nn.Linear(2 * z.study_width, z.bins + 3)
        )
        self.register_buffer("borders", default_borders(z.bins))

    def encode(self, tokens: Tensor, past: Past | None = None) -> Tensor:
        """(N, T, N_TOKEN) -> (N, T, curve_width): the state after each token, which depends on no later one.

        `past` is what stands before these tokens; it is extended by them.
        """
        x = self.token(tokens)
        for i, block in enumerate(self.curve):
            before = past.layers[i] if past is not None and i < len(past.layers) else None
            x, kept = block(x, before)
            if past is not None:
                past.layers[i : i + 1] = [kept]
        out: Tensor = self.curve_norm(x)
        return out

    def encode_ends(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """(N, T, N_TOKEN), (N,) -> (N, curve_width): what `encode` gives at these tokens, for less."""
        x = self.token(tokens)
        *first, last = self.curve
        for block in first:
            x, _ = block(x)
        out: Tensor = self.curve_norm(last.only(x, ends))  # type: ignore[operator]
        return out

    def answer(
        self,
        state: Tensor,
        cut: Tensor,
        kind: Tensor,
        pairs: Tensor,
        plans: Tensor | None,
        match: Tensor,
        context: Tensor,
        use: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Answer Q queries of B studies.

        Args:
            state: (B, Q, curve_width) the query's curve at its cut.
            cut: (B, Q, N_CUT) :func:`features.describe`.
            kind: (B, Q) index into KINDS.
            pairs: (B, Q, C, N_PAIR) :func:`features.beside`.
            plans: (B, Q, C, N_PLAN) :func:`features.plans`; None where no schedule is known.
            match: (B, Q, C, D, N_MATCH) :func:`params.match`, zero where there is no parameter; D may be 0.
            context: (B, C, curve_width) last state of each context trial.
            use: (B, Q, C) which of them count for the query.

        Returns:
            (B, Q, bins + 2) log-masses, lower tail first; (B, Q) how much more of the mass of the incumbent's bin
            lies below it than its share of the width says, in log-odds.
        """
        q = self.cut(torch.cat([cut, F.one_hot(kind, len(KINDS)).to(cut.dtype)], -1)) + self.from_curve(state)
        p = self.pair(pairs)
        p += self.pair_curve(context).unsqueeze(1)  # in place: large, and nothing else needs it
        if plans is not None:
            p += self.plan(plans) * plans[..., :1]  # the first says whether both are known
        if match.shape[-2]:
            there = (match.abs().sum(-1, keepdim=True) > 0).to(match.dtype)
            alike = F.gelu(self.match(match))
            if not bool(there.all()):  # else it changes nothing, and costs
                alike = alike * there
            p += self.match_out(alike.sum(-2) / there.sum(-2).clamp_min(1.0).sqrt())
        for look in self.study:
            q = look(q, p, use)
        out = self.head(self.norm(q))
        return torch.log_softmax(out[..., :-1].float(), -1), 3.0 * torch.tanh(out[..., -1].float())

    def describe_size(self) -> dict[str, int]:
        """For weight files."""
        return asdict(self.size)
