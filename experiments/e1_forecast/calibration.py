"""P(beat) recalibrated: a logistic regression of what came of it, fitted on half a of the other source's tasks.

    logit P' = c_0 + sum_k c_k x_k        x among FEATURES, the same c at every cut-off, one for each kind of question

What it says about values nobody recalibrates: such rows have no figures of the final value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from lcsearch.curves import Floats
from lcsearch.forecast.contract import Query
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.study import Snapshot

FEATURES = ("logit", "rank", "lead", "gap", "rank_gap")
"""logit P; logit of the trial's rank among the finished ones at its own step; how far it is behind the best of them
there, and behind the incumbent's judged value, both as asinh of robust scales; logit of what `rank-gap` says."""
CLIP = 1e-4
FARTHEST = 5.0
WEAK = 1e3
"""Inverse strength of the ridge penalty."""


def features(snapshot: Snapshot, queries: Sequence[Query], p: Floats) -> Floats:
    """(Q, 5) FEATURES of queries at one step and of one kind, of which `p` was said; NaN where nothing was."""
    bank, now, best = snapshot.bank, queries[0].trial.curve.last_step, queries[0].kind == "best_by"
    here, then = bank.at(now, best=best)[bank.complete], bank.judged[bank.complete]
    losses = [snapshot.goal.sign * query.trial.curve.values for query in queries]
    x = np.array([loss.min() if best else loss[-1] for loss in losses])
    spreads = (
        float(np.subtract(*np.quantile(here, [0.75, 0.25]))),
        float(np.median(np.abs(here - then))),
        float(np.median(np.abs(then - np.median(then)))),
    )
    scale = max(*spreads, 1e-12 * abs(float(np.median(here))), 1e-300)
    better = (here < x[:, None]).sum(1) + 0.5 * (here == x[:, None]).sum(1)
    lead, gap = (np.clip(np.arcsinh((x - y) / scale), -FARTHEST, FARTHEST) for y in (here.min(), then.min()))
    said, other = (
        logit(np.clip(one, CLIP, 1.0 - CLIP))
        for one in (p, RankAndGap().forecast(snapshot, queries).p_beat(snapshot.goal.sign * then.min()))
    )
    return np.stack([said, logit((better + 0.5) / (here.size + 1.0)), lead, gap, other], 1)


def fit(x: Floats, won: Floats) -> list[float]:
    """c_0, c_1, ... of rows x (N, K) and what came of them (N,)."""
    model = LogisticRegression(C=WEAK, max_iter=1000, tol=1e-8).fit(x, won)
    return [float(model.intercept_[0]), *map(float, model.coef_[0])]


@dataclass(frozen=True)
class Calibration:
    """Of one row.

    Attributes:
        names: the FEATURES it is fitted on.
        fitted: source it is fitted on -> kind of question -> c.
    """

    names: tuple[str, ...]
    fitted: Mapping[str, Mapping[str, Sequence[float]]]

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Of a file that `train_peers.py` wrote."""
        found = json.loads(path.read_text())
        return cls(tuple(found["names"]), found["fitted"])

    def write(self, path: Path) -> None:
        """Into a file."""
        path.write_text(json.dumps({"names": self.names, "fitted": self.fitted}, indent=1) + "\n")

    @property
    def version(self) -> str:
        """Of all numbers."""
        return sha256(json.dumps([self.names, self.fitted], sort_keys=True).encode()).hexdigest()[:8]

    def p_beat(self, source: str, snapshot: Snapshot, queries: Sequence[Query], p: Floats) -> Floats:
        """(Q,) P' on a task of `source`, by what was fitted on another one.

        Raises:
            SystemExit: there is no other.
        """
        others = [name for name in self.fitted if name != source]
        if len(others) != 1 or source not in self.fitted:
            raise SystemExit(f"recalibration: expected one of {', '.join(self.fitted)}, got {source!r}")
        first, *rest = self.fitted[others[0]][queries[0].kind]
        x = features(snapshot, queries, p)[:, [FEATURES.index(name) for name in self.names]]
        said = np.asarray(expit(first + x @ np.array(rest)))
        return np.where(np.isnan(p), math.nan, said)
