"""ProgressMixture: compute goes to the regions of the space where P(beat) differs most from what neighbours had.

After ALP-GMM, "Teacher Algorithms for Curriculum Learning of Deep RL in Continuously Parameterized Environments"
(Portelas et al. 2019): ALP = |r - r of the nearest earlier task|, a mixture of Gaussians over (task, ALP) whose number
of components is the one of the lowest AIC, a share of draws uniform, else a Gaussian in proportion to its mean ALP.
Here a task is a configuration, and r is P(it beats the best value seen).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from lcsearch.allocation.arms import start_new
from lcsearch.allocation.contract import Move, Slots
from lcsearch.allocation.curriculum import Choice, Curriculum, chances, together
from lcsearch.allocation.mixture import COMPONENTS, FEW, MOST, mixture, need_sklearn, scaled
from lcsearch.allocation.rungs import Ladder
from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers
from lcsearch.forecast.network.columns import Columns, plain
from lcsearch.study import Trial

_DIGITS = 9


@dataclass(frozen=True)
class ProgressMixture(Curriculum):
    """Groups are the components of a mixture of Gaussians over (configuration, ALP): a slot is drawn for one of them in
    proportion to its mean ALP, a share of `uniform` for all alike, and goes to its first in line.

    Only trials that come back from a turn are forecast, once each. ALP of one is |P - P of the nearest configuration
    that was forecast before|. The mixture is fitted anew with every `refit` of them (scikit-learn's GaussianMixture);
    before the first fit, and where configurations have no parameter that differs, this is ASHA. 'A new configuration'
    is a group with the others' mean.

    Attributes:
        first: see :class:`~lcsearch.allocation.curriculum.Curriculum`, as for `eta`, `floor` and `n_asked`.
        uniform: share of the slots drawn for all groups alike, in [0, 1].
        refit: in [10, 120].

    Raises:
        InvalidValue: a knob that cannot be, or no scikit-learn (it comes with the extra `sweep`).
    """

    uniform: float = 0.2
    refit: int = 20

    name: ClassVar[str] = "alp-gmm"
    what: ClassVar[str] = "mean difference of P(beat) from its neighbours, of its region,"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_finite_number(self.uniform) and 0 <= self.uniform <= 1):
            raise InvalidValue("a share in [0, 1]", self.uniform, "ProgressMixture.uniform")
        if not (isinstance(self.refit, int) and 10 <= self.refit <= MOST // 2):
            raise InvalidValue(f"an integer in [10, {MOST // 2}]", self.refit, "ProgressMixture.refit")
        need_sklearn("ProgressMixture")

    def init(self) -> Any:
        """P(beat) where a trial was last forecast, uid -> (step, P), and the points, (uid, ALP), the oldest first."""
        return {"p": {}, "points": []}

    def scores(self, *args: Any) -> Any:
        """Groups have scores, not trials."""
        raise NotImplementedError

    def odds(self, scores: Floats) -> Floats:
        """In proportion to the scores, and for all alike."""
        share = scores / scores.sum() if scores.sum() > 0 else np.full(len(scores), 1.0 / len(scores))
        return np.asarray((1.0 - self.uniform) * share + self.uniform / len(scores))

    def asked(self, state: Any, ladder: Ladder, slots: Slots) -> list[Trial]:
        """Those that have reported since they were last forecast, in line."""
        return self.unheard(state["p"], ladder, slots)

    def _choices(
        self, state: Any, ladder: Ladder, slots: Slots, forecasts: Answers, rng: np.random.Generator
    ) -> tuple[Any, list[Choice]]:
        back = self.asked(state, ladder, slots)
        told = together(forecasts, len(back))
        trials = {trial.uid: trial for trial in chain(ladder.snapshot.bank, ladder.snapshot.live)}
        if back and ladder.losses.size:
            state = self._booked(state, trials, back, chances(told, float(ladder.losses[0])).tolist())
            ended = [uid for uid in state["p"] if uid not in trials or trials[uid].status.finished]
            state["p"] = {uid: one for uid, one in state["p"].items() if uid not in ended[:-MOST]}
        deaf = bool(back) and all(one is None for one in told)
        line = self.in_line(ladder, slots)
        groups = None if deaf or not self.begins(ladder, slots) else self._groups(state, trials, line)
        if groups is None:
            return state, []
        of, progress = groups
        queues: dict[int, list[Move]] = {}
        for uid in line:
            k = of[uid]
            why = f"first in line of region {k}: {self.what} {progress[k]:.3g}"
            queues.setdefault(k, []).append(Move(uid, ladder.rungs[ladder.standing[uid] + 1], progress[k], why))
        choices = [Choice(progress[k], tuple(queues[k])) for k in sorted(queues)]
        if n_new := min(slots.free, slots.n_new_allowed):
            choices.append(Choice(math.nan, start_new(n_new, ladder.rungs[0])))
        return state, choices

    def _booked(
        self, state: Any, trials: dict[str, Trial], back: Sequence[Trial], now: Sequence[float]
    ) -> dict[str, Any]:
        """The state with the trials that are back: their P, and how much it differs from the nearest one's."""
        p, points = dict(state["p"]), list(state["points"])
        known = [uid for uid in p if uid in trials]
        plains = {uid: plain(trials[uid].params) for uid in (*known, *(trial.uid for trial in back))}
        x = dict(zip(plains, scaled(list(plains.values())), strict=True))
        for trial, chance in zip(back, now, strict=True):
            if not math.isfinite(chance):
                continue
            others = [uid for uid in p if uid != trial.uid and uid in x]
            if len(others) >= FEW and x[trial.uid].size:
                near = min(others, key=lambda uid: (float(((x[uid] - x[trial.uid]) ** 2).sum()), uid))
                points.append([trial.uid, round(abs(chance - p[near][1]), _DIGITS)])
            p[trial.uid] = [trial.curve.last_step, round(chance, _DIGITS)]
        while len(points) > MOST:
            points = points[self.refit :]
        return {"p": p, "points": points}

    def _groups(
        self, state: Any, trials: dict[str, Trial], line: Sequence[str]
    ) -> tuple[dict[str, int], list[float]] | None:
        """The component of each trial in line, and the mean ALP of each component; None before the first fit."""
        fitted = state["points"][: len(state["points"]) // self.refit * self.refit]
        points = [(uid, alp) for uid, alp in fitted if uid in trials]
        if len(points) < 2 * max(COMPONENTS):
            return None
        known, waiting = ([plain(trials[uid].params) for uid in uids] for uids in ([u for u, _ in points], line))
        x = scaled([*known, *waiting], Columns.of(known))
        if not x.shape[1]:
            return None
        alp = np.array([[alp] for _, alp in points])
        table = np.hstack([x[: len(known)], alp])
        fit = mixture(table)
        of = np.argmax(np.log(fit.weights) + fit.densities(x[len(known) :]), axis=1).tolist() if line else []
        return dict(zip(line, of, strict=True)), fit.progress.tolist()
