"""Which configuration a new trial gets: of several that a sampler draws, the one that is forecast to gain most. Pure.

An arm that has not begun has no curve, but a configuration, and forecasters that know configurations say what it would
reach. Ranked is by expected improvement at the horizon (Mockus 1975; Jones et al. 1998), so that what is uncertain
counts; and a share of all new trials stays the sampler's own, whatever is forecast. They are also what choices are
measured by: where those stand behind them and none has brought the best trial, nearly all new trials are the sampler's
own, so that a forecaster that is led astray costs little.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import Any, NamedTuple, Self

import numpy as np

from lcsearch.allocation.contract import Key
from lcsearch.allocation.gain import mean_gains
from lcsearch.allocation.mixture import COMPONENTS, FEW, MOST, mixture, need_sklearn, scaled
from lcsearch.allocation.rungs import loss_so_far
from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Answers, Query, judged_kind
from lcsearch.forecast.network.columns import Columns, plain
from lcsearch.study import Snapshot, Status, Trial, uid_sort_key

_NEIGHBOURS = 5
_FEWEST = 3  # of which a forecaster can say what configurations do
_LATEST = 32  # trials that forecasts chose, and as many of the sampler's own, that are compared
_TELLING = 5  # of either kind: fewer tell too little
_DOUBT, _DISBELIEF = -0.5, -1.5  # standard deviations below even: where trust begins to go, and where it is gone
_STILL = 0.1  # of the new trials are chosen even then: trust can be won back

OWN = "the sampler's own"
"""How the `why` begins of a configuration that no forecast has chosen."""
DOUBTED = ", while what forecasts choose is better than it in"
"""Says in such a `why` that the share is larger than it was set."""


class Proposal(NamedTuple):
    """Which of the candidates is begun.

    Attributes:
        row: its place among them, from 0; the first one is what the sampler alone would have begun.
        why: in a few words, for people.
        propensity: the probability with which it was this one, in (0, 1]; of the sampler's own, which forecasts might
            have chosen as well, a bound from below.
        score: expected improvement on the best value seen, in the metric's units, >= 0; None where nobody was asked
            about it.
        p_beat: the probability that it beats the best value seen; None likewise.
    """

    row: int
    why: str
    propensity: float = 1.0
    score: float | None = None
    p_beat: float | None = None

    @property
    def by_forecasts(self) -> bool | None:
        """Whether forecasts chose it (True) or the sampler alone (False); None where it is neither's merit."""
        return chosen(self.why, self.score)


def chosen(why: str, score: float | None) -> bool | None:
    """As :attr:`Proposal.by_forecasts`, of one that was stored."""
    return False if why.startswith(OWN) else None if score is None else True


@dataclass(frozen=True)
class Proposer(ABC):
    """Chooses what is begun among a sampler's candidates, the first of which is what the sampler alone would begin.

    Attributes:
        sampler_share: of the new trials, those that nobody is asked about, in [0, 1]; 1 is the sampler alone.
        n_startup: trials that begin first, >= 0; and three that have reported must be there.
        doubt: why the share is larger than it was set, see :meth:`ByForecast.trusted`; "" where it is not.
    """

    sampler_share: float = 0.25
    n_startup: int = 10
    doubt: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not (is_finite_number(self.sampler_share) and 0 <= self.sampler_share <= 1):
            raise InvalidValue("a share in [0, 1]", self.sampler_share, "sampler_share")
        if not (isinstance(self.n_startup, int) and self.n_startup >= 0):
            raise InvalidValue("a whole number >= 0", self.n_startup, "n_startup_trials")

    def trusted(self, snapshot: Snapshot, begun: Mapping[str, bool]) -> Self:
        """This one, as far as its choices have earned it, see :meth:`ByForecast.trusted`."""
        return self

    def own(self, snapshot: Snapshot, key: Key) -> Proposal | None:
        """The sampler's own, where the new trial is one that nobody is asked about; None: see :meth:`questions`.

        Args:
            snapshot: the study.
            key: seed of this proposal, (study seed, number of the new trial).
        """
        n = len(snapshot.bank) + len(snapshot.live)
        if n < self.n_startup:
            return Proposal(0, f"{OWN}: one of the first {self.n_startup} trials")
        if sum(len(trial.curve) > 0 for trial in chain(snapshot.bank, snapshot.live)) < _FEWEST:
            return Proposal(0, f"{OWN}: fewer than {_FEWEST} trials have reported")
        if np.random.default_rng(key).random() < self.sampler_share:
            return Proposal(0, f"{OWN}, as {self.sampler_share:.0%} of all are{self.doubt}", self.sampler_share)
        return None

    @abstractmethod
    def questions(self, snapshot: Snapshot, candidates: Sequence[Mapping[str, Any]]) -> tuple[Query, ...]:
        """What forecasters are asked before :meth:`choose`."""

    @abstractmethod
    def choose(
        self,
        snapshot: Snapshot,
        candidates: Sequence[Mapping[str, Any]],
        forecasts: Answers,
        key: Key,
        paces: Sequence[float] | None = None,
    ) -> Proposal:
        """The candidate that is begun; the first where there is no reason for another.

        Args:
            snapshot: the study.
            candidates: configurations, name -> value, at least one.
            forecasts: answers to :meth:`questions`.
            key: see :meth:`own`.
            paces: what a step of each candidate costs, > 0, in any unit; None: steps cost the same.
        """

    def _propensity(self, row: int, chance: float = 1.0) -> float:
        """Of a candidate that was chosen with this chance: the first would have been begun by the sampler, too."""
        return self.sampler_share * (row == 0) + (1.0 - self.sampler_share) * chance


@dataclass(frozen=True)
class ByForecast(Proposer):
    """Begins the candidate with the largest expected improvement on the best value seen, by the horizon. Nothing is
    gained beyond the metric's bound, where the goal gives one.

    The sampler's own candidate is begun

    - as one of the first `n_startup` trials,
    - with probability `sampler_share`,
    - where no forecaster says anything of any candidate.

    What is gained counts only where a trial survives: near configurations that failed or ended without a number it is
    worth as much less as their share there says, see :func:`survival`. Candidates that a trial has already are passed
    over, as far as there are others; where none is forecast to gain anything the first of the rest is begun. Trials
    that have not reported yet teach nothing: with k of them a new one is chosen among the first 1 / (k + 1) of its
    candidates, so that workers that ask at once do not bet on one place. Where steps differ in what they cost, gain
    is divided by the root of it: by all of it, as expected improvement per second (Snoek et al. 2012), what is cheap is
    begun too often, for a turn pays for a first rung only (0, 1/2 and 1 were tried; Lee et al. 2020 let it decline).
    """

    def trusted(self, snapshot: Snapshot, begun: Mapping[str, bool]) -> Self:
        """With a larger `sampler_share` where its choices stand behind the sampler's own and none of them leads.

        The latest trials that forecasts chose, and the latest of the sampler's own, are compared in pairs: two that
        have ended by what they came to, others at the last step that both have reached; one that failed, is infeasible
        or ended without a number is worse than any other. From where the share of pairs in which the chosen one is
        better lies half a standard deviation below a half (of equal ones, by Mann and Whitney 1947), the sampler's
        share rises, to all but `_STILL` at one and a half. First reports say little of a slow starter, so nothing is
        doubted while the best value seen is of a trial that forecasts chose. A share of 0 says that nothing is the
        sampler's own, and stays.

        Args:
            snapshot: the study.
            begun: uid -> whether forecasts chose its configuration, in the order in which trials were begun; trials
                that are not there count on neither side.
        """
        if not 0 < self.sampler_share < 1.0 - _STILL:
            return self
        wins, deviation = _wins(snapshot, begun)
        gone = min(max((_DOUBT - (wins - 0.5) / deviation) / (_DOUBT - _DISBELIEF), 0.0), 1.0)
        if not gone > 0 or _leads(snapshot, begun):
            return self
        share = self.sampler_share + gone * (1.0 - _STILL - self.sampler_share)
        doubt = f"{DOUBTED} {wins:.0%} of pairs"
        return replace(self, sampler_share=share, doubt=doubt)

    def questions(self, snapshot: Snapshot, candidates: Sequence[Mapping[str, Any]]) -> tuple[Query, ...]:
        """What each candidate would be judged by at the horizon."""
        kind = judged_kind(snapshot.goal)
        trials = (Trial(f"candidate {i}", params=params) for i, params in enumerate(candidates))
        return tuple(Query(trial, kind, snapshot.horizon) for trial in trials)

    def choose(
        self,
        snapshot: Snapshot,
        candidates: Sequence[Mapping[str, Any]],
        forecasts: Answers,
        key: Key,
        paces: Sequence[float] | None = None,
    ) -> Proposal:
        """See :meth:`Proposer.choose`; nothing is drawn."""
        best = best_seen(snapshot)
        pending = sum(not trial.curve.n_reports and bool(trial.params) for trial in snapshot.live)
        n = math.ceil(len(candidates) / (1 + pending))
        if not math.isfinite(best):
            return Proposal(0, f"{OWN}: no trial has a value yet")
        forecasts = {name: answers[:n] for name, answers in forecasts.items()}
        gains = mean_gains(forecasts, n, best, "improvement", snapshot.bank.least)
        if not np.isfinite(gains).any():
            return Proposal(0, f"{OWN}: nothing is forecast of a configuration")
        gains = gains * survival(snapshot, candidates[:n])
        taken = {identity(trial.params) for trial in chain(snapshot.bank, snapshot.live)}
        worth = gains if paces is None else gains / np.sqrt(paces[:n])
        ranked = np.argsort(-np.nan_to_num(worth, nan=-math.inf, posinf=np.finfo(np.float64).max), kind="stable")
        best_first = (row for row in ranked.tolist() if np.isfinite(gains[row]))
        first = next((row for row in best_first if identity(candidates[row]) not in taken), None)
        if first is None:
            why = f"{OWN}: every candidate with a forecast has been begun before"
            return Proposal(0, why, self._propensity(0))
        if not gains[first] > 0:
            row = next((row for row in range(n) if identity(candidates[row]) not in taken), 0)
            why = "the first that no trial has: none of the candidates is forecast to gain anything"
            return Proposal(row, why, self._propensity(row))
        p = float(
            mean_gains({name: answers[first : first + 1] for name, answers in forecasts.items()}, 1, best, "p_beat")[0]
        )
        score = float(gains[first])
        most = "most" if paces is None else "most for the time that it takes"
        why = f"the one of {n} candidates that is forecast to gain {most}, {score:.3g} on the best value seen"
        return Proposal(first, why, self._propensity(first), score, p)


@dataclass(frozen=True)
class ByProgress(Proposer):
    """Begins a candidate in a region of the space where P(beat) differs most between neighbours: ALP-GMM (Portelas et
    al. 2019, see :mod:`lcsearch.allocation.mixture`), with what is begun as the teacher's tasks.

    Of the begun trials, the earliest first, ALP of one is |P - P of the nearest earlier one|, where P is the chance
    that it beats the best value seen, as forecast now; 0 of one that is complete or failed. A component of the mixture
    is drawn in proportion to its mean ALP, and in it a candidate in proportion to the component's density there. Before
    there are enough points for a mixture, or where ALP is 0 everywhere, it is the sampler's own.

    The paper draws from the Gaussian itself. Here candidates stand for that, so that conditional parameters, steps and
    categories are what the sampler makes of them.

    Raises:
        InvalidValue: as :class:`Proposer`, or no scikit-learn (it comes with the extra `sweep`).
    """

    sampler_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        need_sklearn("ByProgress")

    def questions(self, snapshot: Snapshot, candidates: Sequence[Mapping[str, Any]]) -> tuple[Query, ...]:
        """What each begun trial that may go on would be judged by at the horizon."""
        kind = judged_kind(snapshot.goal)
        return tuple(Query(trial, kind, snapshot.horizon) for trial in _begun(snapshot) if not _settled(trial))

    def choose(
        self,
        snapshot: Snapshot,
        candidates: Sequence[Mapping[str, Any]],
        forecasts: Answers,
        key: Key,
        paces: Sequence[float] | None = None,
    ) -> Proposal:
        """See :meth:`Proposer.choose`; what steps cost is of no account."""
        begun, best = _begun(snapshot), best_seen(snapshot)
        asked = [trial for trial in begun if not _settled(trial)]
        chances = dict(zip((t.uid for t in asked), mean_gains(forecasts, len(asked), best, "p_beat"), strict=True))
        known = [t for t in begun if _settled(t) or math.isfinite(chances[t.uid])]
        if len(known) < FEW + 2 * max(COMPONENTS):
            return Proposal(0, f"{OWN}: too few trials are forecast for regions of the space")
        p = np.array([0.0 if _settled(t) else chances[t.uid] for t in known])
        plains = [plain(trial.params) for trial in known]
        columns = Columns.of(plains)
        x, new = scaled(plains, columns), scaled([plain(one) for one in candidates], columns)
        if not x.shape[1]:
            return Proposal(0, f"{OWN}: no parameter differs")
        nearest = [int(((x[:i] - x[i]) ** 2).sum(1).argmin()) for i in range(FEW, len(x))]
        fit = mixture(np.column_stack([x[FEW:], np.abs(p[FEW:] - p[nearest])]))
        taken = {identity(trial.params) for trial in chain(snapshot.bank, snapshot.live)}
        free = [row for row, params in enumerate(candidates) if identity(params) not in taken]
        if not free:
            return Proposal(0, f"{OWN}: every candidate has been begun before")
        if not fit.progress.sum() > 0:
            return Proposal(0, f"{OWN}: P(beat) is the same everywhere")
        densities = fit.densities(new[free])
        inside = np.exp(densities - densities.max(0))
        shares = fit.progress / fit.progress.sum()
        rng = np.random.default_rng((*key, 1))
        k = int(rng.choice(len(shares), p=shares))
        inside /= inside.sum(0)
        at = int(rng.choice(len(free), p=inside[:, k]))
        why = f"one of {len(candidates)} candidates, drawn in region {k + 1} of {len(shares)}: "
        why += f"P(beat) differs there by {fit.progress[k]:.3g} between neighbours"
        return Proposal(free[at], why, self._propensity(free[at], float(inside[at] @ shares)))


def _wins(snapshot: Snapshot, begun: Mapping[str, bool]) -> tuple[float, float]:
    """In which share of pairs the trial that forecasts chose is better than the sampler's own (equal: half), and its
    standard deviation, were they alike; 1/2 and 1 where there are fewer than `_TELLING` of either, or no pair has been
    at the same step.
    """
    sign, best = snapshot.goal.sign, snapshot.goal.judged == "best"
    everyone = {trial.uid: trial for trial in chain(snapshot.bank, snapshot.live)}
    lost = {uid for uid in begun if uid in everyone and _worthless(everyone[uid])}
    told = [everyone[uid] for uid in begun if uid in lost or (uid in everyone and len(everyone[uid].curve))]
    ours, theirs = ([t for t in told if begun[t.uid] is kind][-_LATEST:] for kind in (True, False))
    if min(len(ours), len(theirs)) < _TELLING:
        return 0.5, 1.0

    def loss(trial: Trial, step: float) -> float:
        return math.inf if trial.uid in lost else trial.curve.at(step, sign, best=best)

    won = []
    for one, other in product(ours, theirs):
        step = math.inf
        if not (one.status.finished and other.status.finished):
            known = [trial.curve for trial in (one, other) if trial.uid not in lost]
            step = min((curve.last_step for curve in known), default=math.inf)
            if any(curve.steps[0] > step for curve in known):  # one had no value yet where the other stands
                continue
        a, b = loss(one, step), loss(other, step)
        won.append(0.5 if a == b else float(a < b))
    if not won:
        return 0.5, 1.0
    return float(np.mean(won)), math.sqrt((len(ours) + len(theirs) + 1) / (12 * len(ours) * len(theirs)))


def _worthless(trial: Trial) -> bool:
    """Has the trial ended as no result at all: without a number, or infeasible?"""
    return is_lost(trial) or (trial.status.finished and not trial.counts)


def _leads(snapshot: Snapshot, begun: Mapping[str, bool]) -> bool:
    """Is the best value seen of a trial that forecasts chose?"""
    best = best_seen(snapshot)
    everyone = (t for t in chain(snapshot.bank, snapshot.live) if begun.get(t.uid) and t.feasible)
    return any(t.status is not Status.FAILED and loss_so_far(t, snapshot) <= best < math.inf for t in everyone)


PROPOSERS: Mapping[str, type[Proposer]] = {"gain": ByForecast, "alp-gmm": ByProgress}
"""What they are called in arguments and files."""


def _begun(snapshot: Snapshot) -> list[Trial]:
    """The latest trials with a configuration that have reported, the earliest first."""
    everyone = (t for t in chain(snapshot.bank, snapshot.live) if t.params and t.curve.n_reports)
    return sorted(everyone, key=lambda trial: uid_sort_key(trial.uid))[-MOST:]


def _settled(trial: Trial) -> bool:
    """Is its value known, so that it beats nothing any more?"""
    return trial.status in (Status.COMPLETE, Status.FAILED)


def survival(snapshot: Snapshot, candidates: Sequence[Mapping[str, Any]]) -> Floats:
    """(n,) the probability, in (0, 1], that a trial of each configuration ends with a number.

    Of the `_NEIGHBOURS` finished or live trials that are nearest, those that failed, or ended at a report that is no
    number, are lost: (survivors + 1/2) / (neighbours + 1), as the posterior mean under Jeffreys' prior; 1 for all where
    none was lost. Weighting expected improvement by it is that of unknown constraints (Gelbart et al. 2014).
    """
    begun = [t for t in chain(snapshot.bank, snapshot.live) if t.params and (t.status.finished or t.curve.n_reports)]
    lost = np.array([is_lost(trial) for trial in begun], np.bool_)
    if not lost.any():
        return np.ones(len(candidates))
    known = [plain(trial.params) for trial in begun]
    columns = Columns.of(known)
    x, z = columns.encode(known), columns.encode([plain(params) for params in candidates])
    apart = np.zeros((len(z), len(x)))
    for k, kind in enumerate(columns.kinds):
        a, b = z[:, k, None], x[None, :, k]
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        far = np.where(np.isnan(a) | np.isnan(b), 1.0, (a - b) ** 2 if kind == 1 else 1.0)
        apart += np.where(same, 0.0, far)
    nearest = np.argsort(apart, axis=1, kind="stable")[:, :_NEIGHBOURS]
    found: Floats = ((~lost)[nearest].sum(1) + 0.5) / (nearest.shape[1] + 1.0)
    return found


def is_lost(trial: Trial) -> bool:
    """Has the trial ended without a number: it failed, or its last report is none?"""
    if trial.status is Status.FAILED:
        return True
    values = trial.curve.reports()[1]
    return trial.status.finished and values.size > 0 and not math.isfinite(values[-1])


def best_seen(snapshot: Snapshot) -> float:
    """The best loss that a trial has reached which may still be the study's result, or where there is none a stopped
    one; inf without any.
    """
    for lost in ((Status.FAILED, Status.STOPPED), (Status.FAILED,)):
        losses = [
            loss_so_far(trial, snapshot)
            for trial in chain(snapshot.bank, snapshot.live)
            if trial.status not in lost and trial.feasible
        ]
        if math.isfinite(best := min(losses, default=math.inf)):
            return best
    return math.inf


def identity(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What two configurations share that are the same."""
    return tuple(sorted((name, repr(value)) for name, value in params.items()))
