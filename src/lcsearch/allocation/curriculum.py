"""What the curricula share: arms with a score, how one is drawn for a slot, and a floor of new configurations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lcsearch.allocation.arms import Price, start_new
from lcsearch.allocation.contract import Abilities, Allocation, Key, Move, Slots, Wait
from lcsearch.allocation.gain import record_forecast
from lcsearch.allocation.rungs import Ladder, checked_rungs, rungs_of, served
from lcsearch.curves import Floats
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Absent, Answers, Forecasts, Query, judged_kind
from lcsearch.study import Snapshot, Trial, uid_sort_key

Odds = Callable[[Floats], Floats]
"""(n,) scores of the arms that are left, the higher the better -> (n,) the probability of each for the next slot."""


class Choice(NamedTuple):
    """An arm that slots are drawn for: a trial, a group of them, or 'a new configuration'.

    Attributes:
        score: higher is better; NaN where nobody knows, which counts as the mean of the others.
        moves: its trials, each with its turn, in the order in which they get slots; at least one.
    """

    score: float
    moves: tuple[Move, ...]


class Arm(NamedTuple):
    """A trial that waits, or a new configuration, with its forecast.

    Attributes:
        uid: None for a new configuration.
        until: where its turn ends: at the next rung.
        turn: what that costs, in shares of the horizon, > 0, with a resume and a checkpoint.
        way: the same to the horizon.
        told: its judged loss, as all forecasters that answered have it together, one row in loss units; None where none
            did.
    """

    uid: str | None
    until: float
    turn: float
    way: float
    told: Forecasts | None


def largest(scores: Floats) -> Floats:
    """All for the first of the best."""
    return np.asarray(np.eye(len(scores))[int(np.argmax(scores))])


def softmax(temperature: float) -> Odds:
    """exp(score / temperature), normalised."""

    def odds(scores: Floats) -> Floats:
        weights: Floats = np.exp((scores - scores.max()) / temperature)
        return np.asarray(weights / weights.sum())

    return odds


def drawn(choices: Sequence[Choice], n: int, odds: Odds, floor: float, rng: np.random.Generator) -> Iterator[Move]:
    """The moves of `n` slots, drawn one after the other, with their propensities; then all others, the best arm first:
    what a slot goes to that the budget does not allow the drawn one.

    Args:
        choices: the arms.
        n: slots, >= 0.
        odds: of the arms that have moves left.
        floor: share of the slots that goes to 'a new configuration' whatever its score, while there is one.
        rng: from the allocation's key.
    """
    scores = np.array([choice.score for choice in choices], np.float64)
    known = scores[np.isfinite(scores)]
    scores = np.where(np.isfinite(scores), scores, known.mean() if known.size else 0.0)
    queues = [list(choice.moves) for choice in choices]
    for _ in range(n):
        left = [i for i, queue in enumerate(queues) if queue]
        if not left:
            return
        p = odds(scores[left])
        new = np.array([queues[i][0].uid is None for i in left])
        p = (1.0 - floor) * p + floor * new if new.any() else p
        at = int(np.searchsorted(np.cumsum(p), rng.random() * p.sum(), side="right"))
        at = min(at, int(np.flatnonzero(p > 0)[-1]))  # a sum of floats may end a little early
        yield queues[left[at]].pop(0)._replace(propensity=min(max(float(p[at]), 1e-300), 1.0))
    for i in np.argsort(-scores, kind="stable").tolist():
        yield from queues[i]


def affordable(choices: Sequence[Choice], price: Price, left: float) -> list[Choice]:
    """The arms with the moves that what is left pays for: among these a slot is drawn, and propensities are theirs."""
    paid = [(one, tuple(move for move in one.moves if price.of(move) <= left)) for one in choices]
    return [one._replace(moves=moves) for one, moves in paid if moves]


@dataclass(frozen=True)
class Curriculum(ABC):
    """The half that allocators have in common whose arms are paused trials, asked about one by one, and 'a new
    configuration'.

    A turn takes a trial to the next of ASHA's rungs. Of all that wait the `n_asked` nearest to a promotion are arms
    (as ASHA has them in line: those in the best 1/eta of their rung, the highest rung first, then those the fewest
    places short of it), so an allocation costs as much with a thousand trials as with twenty.

    A share `floor` of the slots begins a new configuration, whatever is forecast. Its own forecast: a new one beats the
    best value seen with the probability of a record, 1 / (1 + t) after t full trials' worth of compute, see
    :func:`~lcsearch.allocation.gain.record_forecast`.

    Until one full trial's worth is spent, and wherever nobody forecasts anything, this is ASHA. Once nothing new may be
    begun only those are arms that ASHA might promote, and what it would cut then is cut: no study runs all to the end.

    Attributes:
        first: the lowest rung, as a share of the horizon, in (0, 1].
        eta: reduction factor of the rungs, >= 2.
        floor: share of new configurations among the slots, in [0, 1].
        n_asked: trials that are forecast at most for one allocation, >= 1.
    """

    first: float = 0.02
    eta: float = 3.0
    floor: float = 0.25
    n_asked: int = 16

    name: ClassVar[str]
    what: ClassVar[str]
    """What arms are ranked by, for people."""

    def __post_init__(self) -> None:
        who = type(self).__name__
        checked_rungs(self.first, self.eta, who)
        if not (is_finite_number(self.floor) and 0 <= self.floor <= 1):
            raise InvalidValue("a share in [0, 1]", self.floor, f"{who}.floor")
        if not (isinstance(self.n_asked, int) and self.n_asked >= 1):
            raise InvalidValue("an integer >= 1", self.n_asked, f"{who}.n_asked")

    @abstractmethod
    def scores(self, state: Any, arms: Sequence[Arm], best: float, rng: np.random.Generator) -> Floats:
        """(n,) the score of each arm, higher is better; NaN where its forecast says nothing.

        Args:
            state: the allocator's.
            arms: those that wait, in line, and 'a new configuration' last, if one may be begun.
            best: the best loss seen, finite.
            rng: from the allocation's key.
        """

    def odds(self, scores: Floats) -> Floats:
        """The probability of each arm for a slot: all for the best one."""
        return largest(scores)

    def init(self) -> Any:
        """There is none."""
        return None

    def after(self, state: Any, ladder: Ladder, moves: Sequence[Move], rng: np.random.Generator) -> Any:
        """The state for the next allocation, once these moves are made."""
        return state

    def step(self, state: Any, trial: Trial, snapshot: Snapshot) -> float:
        """The step that a trial's forecast is asked for: the horizon."""
        return snapshot.horizon

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        """The judged value of the trials that are arms; none in the beginning."""
        kind = judged_kind(snapshot.goal)
        trials = self.asked(state, self.ladder(snapshot), slots)
        return tuple(Query(trial, kind, self.step(state, trial, snapshot)) for trial in trials)

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        """Trials that wait below the first rung, then arms as they are drawn."""
        n_new = min(slots.free, slots.n_new_allowed)
        if not abilities.pause:
            return Allocation(state, start_new(n_new, snapshot.goal.horizon))
        ladder, rng = self.ladder(snapshot), np.random.default_rng(key)
        with np.errstate(all="ignore"):  # losses of 1e308 are no reason to fail
            state, choices = self._choices(state, ladder, slots, forecasts, rng)
            choices = affordable(choices, Price(snapshot, slots), slots.account.left)
            picks = list(drawn(choices, slots.free, self.odds, self.floor, rng))
        if choices:
            moves = chain(ladder.first_steps(), picks, self._others(ladder, slots))
        else:
            new = start_new(n_new, ladder.rungs[0])
            moves = chain(ladder.promotable(ladder.standing), ladder.first_steps(), new)
        by_score = sorted(choices, key=lambda choice: -choice.score if math.isfinite(choice.score) else math.inf)
        ranked = [move.uid for choice in by_score for move in choice.moves if move.uid is not None]
        places = {uid: i for i, uid in enumerate(ranked, start=1)}

        def waits(uid: str) -> Wait:
            if uid not in places:
                return ladder.waits(uid)
            return Wait(uid, places[uid], len(ranked), self.what, "to be the one that is drawn")

        def line(uid: str) -> tuple[int, int]:
            short, rung = ladder.line(uid)
            return (places[uid], 0) if uid in places else (len(ranked) + 1 + short, rung)

        made, stops, left = served(snapshot, slots, moves, waits, line, ladder.best)
        return Allocation(self.after(state, ladder, made, rng), made, stops, left)

    def ladder(self, snapshot: Snapshot) -> Ladder:
        """Its rungs."""
        return Ladder(snapshot, rungs_of(snapshot.goal.horizon, self.first, self.eta), self.eta)

    def asked(self, state: Any, ladder: Ladder, slots: Slots) -> list[Trial]:
        """The trials that are arms, in line; none in the beginning, and none where no trial has a value yet."""
        if not self.begins(ladder, slots):
            return []
        at = {trial.uid: trial for trial in ladder.paused}
        return [at[uid] for uid in self.in_line(ladder, slots)[: self.n_asked]]

    def begins(self, ladder: Ladder, slots: Slots) -> bool:
        """Is one full trial's worth spent, and is there a value to beat?"""
        return slots.account.spent >= ladder.snapshot.goal.horizon and ladder.losses.size > 0

    def in_line(self, ladder: Ladder, slots: Slots) -> list[str]:
        """Who may go on, the nearest to a promotion first: any that waits at a rung, but once nothing new may be begun
        those that ASHA might promote.
        """
        if slots.n_new_allowed:
            may = [uid for uid, k in ladder.standing.items() if k >= 0]
        else:
            may = [move.uid for move in ladder.promotable(ladder.standing) if move.uid is not None]
        return sorted(may, key=lambda uid: self.place(ladder, uid))

    def unheard(
        self, known: Mapping[str, Any], ladder: Ladder, slots: Slots, first: Container[str] = ()
    ) -> list[Trial]:
        """Of the trials that wait at a rung those that have reported since they were last forecast, in line; none in
        the beginning.

        Args:
            known: uid -> (step, ...) where a trial was last forecast.
            ladder: the study's.
            slots: what is free.
            first: uids of those that go before the others.
        """
        if not self.begins(ladder, slots):
            return []
        at = {trial.uid: trial for trial in ladder.paused}
        line = [uid for uid, k in ladder.standing.items() if k >= 0]
        line.sort(key=lambda uid: (uid not in first, self.place(ladder, uid)))
        finite = (at[uid] for uid in line if len(at[uid].curve))  # of the others nobody can say anything
        fresh = [trial for trial in finite if known.get(trial.uid, [None])[0] != trial.curve.last_step]
        return fresh[: self.n_asked]

    @staticmethod
    def place(ladder: Ladder, uid: str) -> Any:
        """Sorts trials that wait, the nearest to a promotion first."""
        return ladder.line(uid), uid_sort_key(uid)

    def _others(self, ladder: Ladder, slots: Slots) -> Iterator[Move]:
        """Those that are no arms: where the budget pays for no arm's turn."""
        rungs, standing = ladder.rungs, ladder.standing
        for uid in self.in_line(ladder, slots):
            yield Move(uid, rungs[standing[uid] + 1], why="no other turn is paid for")

    def _choices(
        self, state: Any, ladder: Ladder, slots: Slots, forecasts: Answers, rng: np.random.Generator
    ) -> tuple[Any, list[Choice]]:
        """The state, and the arms of this allocation with their scores; none where nobody says anything."""
        trials = self.asked(state, ladder, slots)
        told = together(forecasts, len(trials))
        if not any(one is not None for one in told):
            return state, []
        snapshot, n_new = ladder.snapshot, min(slots.free, slots.n_new_allowed)
        price, horizon, best = Price(snapshot, slots), snapshot.goal.horizon, float(ladder.losses[0])

        def arm(uid: str | None, until: float, one: Forecasts | None) -> Arm:
            turn, way = (price.of(Move(uid, step)) / horizon for step in (until, horizon))
            return Arm(uid, until, max(turn, 1e-9), max(way, 1e-9), one)

        arms = [
            arm(trial.uid, ladder.rungs[ladder.standing[trial.uid] + 1], one)
            for trial, one in zip(trials, told, strict=True)
        ]
        if n_new:
            p = 1.0 / (1.0 + slots.account.spent / horizon)
            arms.append(arm(None, ladder.rungs[0], record_forecast(ladder.losses, p)))
        scores = self.scores(state, arms, best, rng)
        found = []
        for one, score in zip(arms, scores.tolist(), strict=True):
            shown = score if math.isfinite(score) else 0.0
            why = f"{self.what} {score:.3g}" if math.isfinite(score) else "no forecast of it"
            if one.uid is None:
                moves = start_new(n_new, one.until, score=shown, why=f"a new configuration: {why}")
            else:
                moves = (Move(one.uid, one.until, shown, why),)
            found.append(Choice(score, moves))
        return state, found


def together(forecasts: Answers, n: int) -> list[Forecasts | None]:
    """Of each of n questions what all forecasters that answered it say together, in loss units: a mixture in equal
    shares; None where none did, or where what it says are no numbers.
    """
    found: list[Forecasts | None] = []
    for i in range(n):
        parts = [
            replace(answer, sign=1.0)
            for name in sorted(forecasts)  # a sum depends on its order
            if not isinstance(answer := forecasts[name][i], Absent)
            and all(np.isfinite(part).all() for part in (answer.knots, answer.levels, answer.tails))
        ]
        found.append(Forecasts.mixture(parts) if parts else None)
    return found


def stacked(told: Sequence[Forecasts | None]) -> Forecasts:
    """Single rows, none of them None, as one: a row is the same distribution with its last knot repeated."""
    rows = [one for one in told if one is not None]
    width = max(one.knots.shape[1] for one in rows)

    def wide(part: str) -> Floats:
        return np.concatenate(
            [np.pad(a := getattr(one, part), ((0, 0), (0, width - a.shape[1])), mode="edge") for one in rows]
        )

    tails = np.concatenate([one.tails for one in rows])
    return Forecasts(wide("knots"), wide("levels"), tails, 1.0, (None,) * len(rows))


def chances(told: Sequence[Forecasts | None], loss: float) -> Floats:
    """(n,) P(L < loss) of each; NaN where nothing is told."""
    found = np.full(len(told), math.nan)
    if known := [i for i, one in enumerate(told) if one is not None]:
        found[known] = stacked([told[i] for i in known]).p_beat(loss)
    return found
