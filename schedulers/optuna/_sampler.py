"""ForecastSampler: begins the configuration whose forecast promises most; around any sampler of Optuna's."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GridSampler,
    PartialFixedSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from lcsearch.allocation.rungs import loss_so_far
from lcsearch.errors import InvalidValue, is_finite_number
from lcsearch.forecast.contract import Absent, Forecaster, Query, judged_kind
from lcsearch.goal import Judged
from lcsearch.proposal import PROPOSERS, Proposal
from lcsearch.schedulers.optuna._draws import Draw, anywhere, near
from lcsearch.schedulers.optuna._pruner import CurvePruner, several
from lcsearch.schedulers.optuna._record import BEGUN, chosen_by
from lcsearch.schedulers.optuna._snapshot import UNKNOWN, Reader, snapshot_of
from lcsearch.schedulers.optuna._storage import Shown, store_with, study_key, whole
from lcsearch.session import Session, make_session
from lcsearch.stopping.policy import Policy
from lcsearch.study import Snapshot, Status

if TYPE_CHECKING:
    from optuna import Study

_UNFIT = (BruteForceSampler, CmaEsSampler, GridSampler, PartialFixedSampler)
"""Samplers that must know of every configuration they draw, and of no other, or that fix parameters."""

_NEAREST = 5
"""Begun trials, the best so far, near which a quarter of the candidates are drawn."""
_DRAWS = 8
"""Candidates that the sampler inside draws, the first of them what it alone would begin."""
_KEPT = 64  # choices that no trial has fetched
_LAST = 256  # running, paused and stopped trials whose forecasts a sampler is shown: the latest
_OF_THIS_PROCESS = ("_lock", "_chosen", "_beside", "paces")

Paces = Callable[[Sequence[FrozenTrial], Sequence[Mapping[str, Any]]], Sequence[float] | None]
"""(trials, configurations that are not begun) -> what a step of each costs; None where that is of no account."""


class Seen(NamedTuple):
    """A study as whoever keeps it sees it.

    Attributes:
        session: who forecasts.
        snapshot: the study.
        uid: number of an Optuna trial -> what it is called there.
    """

    session: Session
    snapshot: Snapshot
    uid: Callable[[int], str] = str


class Numbered(BaseSampler):
    """Random, each draw seeded by (seed, number of the trial, name of the parameter): the same in every process."""

    blind = True

    def __init__(self, seed: int, n: int = 0) -> None:
        self._seed, self._n = seed, n

    def again(self, n: int) -> Numbered:
        """The n-th draw for a trial, from 0."""
        return Numbered(self._seed, n)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Uniform, after the logarithm where the distribution says so."""
        rng = np.random.default_rng((self._seed, trial.number, self._n, *param_name.encode()))
        return anywhere(rng).suggest(param_name, param_distribution)


def _is_blind(sampler: BaseSampler) -> bool:
    """Does it read no values? One of another's says so by an attribute `blind`."""
    return isinstance(sampler, RandomSampler) or getattr(sampler, "blind", False) is True


class ForecastSampler(BaseSampler):
    """Begins the configuration with the largest expected improvement on the best value seen, as forecast.

    For a new trial a few hundred configurations are drawn: some by the sampler inside, most uniformly, a quarter near
    the best trials so far. Forecasters that know configurations, as the network does, say what each of them would
    reach by `max_steps`, from the curves of all trials that have begun, however short; the most promising one is begun.
    `sampler_share` of all trials and the first `n_startup_trials` are the sampler's own, whatever is forecast; more of
    them while what forecasts chose stands behind those, see :meth:`lcsearch.proposal.ByForecast.trusted`.

    The sampler inside is shown forecasts in the place of early values: a trial that was stopped, is paused or runs
    stands in its history as if it had ended with the median of its forecast. So a slow starter that was pruned is no
    bad configuration to it.

    With a :class:`CurvePruner` in the study its forecasters and goal are used, in a :class:`FreezeThaw` the run's.
    Fails open: where nothing can be forecast, or nobody knows yet where trials end, the sampler inside decides alone,
    as it does for enqueued trials and studies of several objectives. A round takes about a tenth of a second.

    Args:
        sampler: a sampler for one objective; None: random, seeded by the trial's number. Around BruteForceSampler,
            CmaEsSampler and GridSampler, which must know of every configuration, it is refused; a PartialFixedSampler
            goes around it.
        max_steps: the step at which trials end; "auto": that of the study's CurvePruner or FreezeThaw, else of the
            COMPLETE trials.
        judged: "best" or "final", see :class:`CurvePruner`, whose own one counts where the study has one.
        space: makes the suggestions of one configuration, `space(trial)`, as the objective does; needed where a
            parameter depends on another one. None: the parameters that all trials have.
        n_candidates: configurations that are forecast for a new trial, >= 1.
        sampler_share: trials that nobody is asked about, in [0, 1]; 0: none, however others fare.
        n_startup_trials: trials that begin first.
        proposer: "gain", or "alp-gmm": in the place of the most promising one a configuration is begun where P(beat)
            differs most between neighbours (ALP-GMM, Portelas et al. 2019), for studies that pause.
        forecasters: who is asked, see :class:`CurvePruner`; of no account beside one.
        host: where the network computes, likewise.
        seed: of the draws. Where the sampler inside is a function of the trial's number and the history, as the default
            one is, so is this one, in whatever process.

    Attributes:
        paces: set by whoever knows what steps cost, where a study pays for them by the clock: for "gain" cheap
            places count more then, see :class:`lcsearch.proposal.ByForecast`, and the choice hangs on what was
            measured, too. None: steps cost the same.

    Raises:
        InvalidValue: an argument is outside its range, or "alp-gmm" without scikit-learn.

    >>> import optuna
    >>> from lcsearch.schedulers.optuna import CurvePruner, ForecastSampler
    >>> study = optuna.create_study(sampler=ForecastSampler(seed=0), pruner=CurvePruner(max_steps=50))
    """

    def __init__(
        self,
        sampler: BaseSampler | None = None,
        *,
        max_steps: int | Literal["auto"] = "auto",
        judged: Judged = "best",
        space: Callable[[Any], Any] | None = None,
        n_candidates: int = 256,
        sampler_share: float = 0.25,
        n_startup_trials: int = 10,
        proposer: Literal["gain", "alp-gmm"] = "gain",
        forecasters: Sequence[Forecaster | str] | Forecaster | str | None = None,
        host: str = "auto",
        seed: int | None = None,
    ) -> None:
        if sampler is not None and not isinstance(sampler, BaseSampler):
            raise InvalidValue("a sampler of Optuna's, or None", sampler, "ForecastSampler(sampler=)")
        if isinstance(sampler, _UNFIT):
            what = "PartialFixedSampler(fixed, ForecastSampler())" if isinstance(sampler, PartialFixedSampler) else ""
            advice = f"Turn it round: {what}" if what else "It must know of every configuration that is begun"
            raise InvalidValue("a sampler that may be overruled", type(sampler).__name__, "ForecastSampler()", advice)
        if max_steps != "auto" and not (is_finite_number(max_steps) and max_steps > 0):
            raise InvalidValue("'auto' or a number > 0", max_steps, "max_steps")
        if judged not in ("best", "final"):
            raise InvalidValue("'best' or 'final'", judged, "judged")
        if space is not None and not callable(space):
            raise InvalidValue("a function of a trial, or None", space, "ForecastSampler(space=)")
        if seed is not None and not (isinstance(seed, int) and seed >= 0):
            raise InvalidValue("a whole number >= 0, or None", seed, "ForecastSampler(seed=)")
        if not (isinstance(n_candidates, int) and n_candidates >= 1):
            raise InvalidValue("a whole number >= 1", n_candidates, "ForecastSampler(n_candidates=)")
        if proposer not in PROPOSERS:
            raise InvalidValue(" or ".join(map(repr, PROPOSERS)), proposer, "ForecastSampler(proposer=)")
        self._proposer = PROPOSERS[proposer](sampler_share, n_startup_trials)
        self._space, self._n, self._max_steps = space, n_candidates, max_steps
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._inner = Numbered(self._seed) if sampler is None else sampler
        self._session = make_session(Policy(), forecasters, None, None, host=host)
        self._reader = Reader(max_steps, judged)
        self._begin()

    def _begin(self) -> None:
        self._beside: Callable[[], Seen] | None = None
        self.paces: Paces | None = None
        self._lock = threading.Lock()
        self._chosen: OrderedDict[tuple[Any, ...], Draw] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def reseed_rng(self) -> None:
        """As the sampler inside. The draws here are seeded by the trial's number, so they need not be."""
        self._inner.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters of the configuration that is chosen here; those of the sampler inside where none is."""
        session, draw = self._session, None
        try:
            if not several(study) and "fixed_params" not in trial.system_attrs:
                seen = self._seen(whole(study), trial)
                session = seen.session
                draw = self._choose(whole(study), trial, seen)
        except Exception as error:  # whatever fails here, the sampler inside can begin the trial
            session.unproposed(error)
        if draw is None:
            return self._inner.infer_relative_search_space(study, trial)
        with self._lock:
            self._chosen[self._key(study, trial)] = draw
            while len(self._chosen) > _KEPT:
                self._chosen.popitem(last=False)
        return draw.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The configuration that is chosen, or what the sampler inside says."""
        with self._lock:
            draw = self._chosen.pop(self._key(study, trial), None)
        if draw is None:
            return self._inner.sample_relative(study, trial, search_space)
        return {name: value for name, value in draw.params.items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler inside."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the sampler inside."""
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the sampler inside."""
        self._inner.after_trial(study, trial, state, values)

    @property
    def session(self) -> Session:
        """Who forecasts where the study has no CurvePruner; counts of failures. To be read."""
        return self._session

    @staticmethod
    def _key(study: Study, trial: FrozenTrial) -> tuple[Any, ...]:
        return (*study_key(study), trial.number)

    def beside(self, seen: Callable[[], Seen] | None) -> None:
        """Where somebody else keeps the study, a scheduler of another framework or a :class:`FreezeThaw`: how they see
        it; None: nobody does.
        """
        self._beside = seen

    def _seen(self, study: Study, trial: FrozenTrial) -> Seen:
        """The study without the new trial, and who forecasts."""
        pruner, auto = study.pruner, self._max_steps == "auto"
        if self._beside is not None:
            seen = self._beside()
        elif isinstance(pruner, CurvePruner):
            reader = None if auto else pruner.reader(int(self._max_steps))
            snapshot = pruner.snapshot(study) if reader is None else snapshot_of(study, reader.read(study))
            seen = Seen(pruner.session, snapshot)
        else:
            seen = Seen(self._session, snapshot_of(study, self._reader.read(study)))
        new = seen.uid(trial.number)
        live = tuple(one for one in seen.snapshot.live if one.uid != new)
        return seen._replace(snapshot=replace(seen.snapshot, live=live))

    def _choose(self, study: Study, trial: FrozenTrial, seen: Seen) -> Draw | None:
        """The configuration that is begun; None where it is left to the sampler inside."""
        if seen.snapshot.horizon == UNKNOWN:
            self._note(study, trial, Proposal(0, "the sampler's own: where trials end is not known yet"), 0)
            return None
        everyone = study.get_trials(deepcopy=False)
        kinds = ((seen.uid(t.number), chosen_by(t)) for t in everyone if t.number != trial.number)
        proposer = self._proposer.trusted(seen.snapshot, {uid: kind for uid, kind in kinds if kind is not None})
        own = proposer.own(seen.snapshot, (self._seed, trial.number))
        if own is not None:
            self._note(study, trial, own, 0)
            if _is_blind(self._inner):
                return None
        begun = [t for t in everyone if t.intermediate_values and t.number != trial.number]
        space = self._space or partial(_suggest_all, _common(begun))
        if own is not None:
            if not begun:
                return None
            draw = self._inside(0, self._shown(study, begun, seen), trial, space)
            return self._checked(draw, begun)
        draws = self._draws(study, trial, begun, seen, space)
        if not draws[0].params:
            self._note(study, trial, Proposal(0, "the sampler's own: all trials have no parameter in common"), 0)
            return None
        params = [draw.params for draw in draws]
        paces = None if self.paces is None else self.paces(everyone, params)
        said = seen.session.propose(proposer, seen.snapshot, params, (self._seed, trial.number), paces)
        taken = self._checked(draws[said.row], begun)  # before what is stored of it
        self._note(study, trial, said, len(draws))
        return taken

    @staticmethod
    def _checked(draw: Draw, begun: Sequence[FrozenTrial]) -> Draw | None:
        """The draw, as far as Optuna will take it; None where nothing is drawn.

        Raises:
            ValueError: `space` has another distribution for a parameter than the objective.
        """
        known = {name for t in begun for name in t.distributions}
        if known and not known & set(draw.distributions):
            raise ValueError(
                f"space: expected parameters that trials have ({sorted(known)}), got {sorted(draw.params)}"
            )
        for name, distribution in draw.distributions.items():
            last = next((t.distributions[name] for t in reversed(begun) if name in t.distributions), distribution)
            check_distribution_compatibility(last, distribution)
        return draw if draw.params else None

    @staticmethod
    def _note(study: Study, trial: FrozenTrial, said: Proposal, n: int) -> None:
        """Store with the trial why it has its configuration."""
        store_with(study, trial, BEGUN, {**said._asdict(), "n": n, "of": trial.number})

    def _draws(
        self, study: Study, trial: FrozenTrial, begun: Sequence[FrozenTrial], seen: Seen, space: Callable[[Any], Any]
    ) -> list[Draw]:
        """The candidates, those of the sampler inside first."""
        rng = np.random.default_rng((self._seed, trial.number, 1))
        shown = self._shown(study, begun, seen)
        cheap = isinstance(self._inner, RandomSampler | TPESampler) or hasattr(self._inner, "again")
        found = [self._inside(n, shown, trial, space) for n in range(min(_DRAWS if cheap else 1, self._n))]
        good = _best(begun, seen)
        for i in range(self._n - len(found)):
            draw = near(good[i // 4 % len(good)].params, rng) if good and i % 4 == 0 else anywhere(rng)
            space(draw)
            found.append(draw)
        return found

    def _inside(self, n: int, shown: Study, trial: FrozenTrial, space: Callable[[Any], Any]) -> Draw:
        """The n-th draw of the sampler inside, from 0. One that draws the same for a trial whenever it is asked says
        who draws another time, by a method `again`.
        """
        again = getattr(self._inner, "again", None)
        inner = self._inner if again is None else again(n)
        together = inner.sample_relative(shown, trial, inner.infer_relative_search_space(shown, trial))

        def value(name: str, distribution: BaseDistribution) -> Any:
            return together[name] if name in together else inner.sample_independent(shown, trial, name, distribution)

        draw = Draw(value)
        space(draw)
        return draw

    def _shown(self, study: Study, begun: Sequence[FrozenTrial], seen: Seen) -> Study:
        """The study as the sampler inside sees it: what has not ended by itself, with its forecast."""
        if _is_blind(self._inner):
            return study
        snapshot = seen.snapshot
        kind = judged_kind(snapshot.goal)
        cut = [t for t in snapshot.bank if t.status is Status.STOPPED] + list(snapshot.live)
        cut = [t for t in cut if len(t.curve)][-_LAST:]
        if not cut:
            return study
        asked = [Query(t, kind, snapshot.horizon) for t in cut]
        answers = seen.session.panel.ask([(snapshot, asked)])[0].answers
        values: dict[str, float] = {}
        for said in answers.values():  # of several forecasters the last that answered
            for one, answer in zip(cut, said, strict=True):
                if not isinstance(answer, Absent):
                    values[one.uid] = float(answer.quantile(0.5)[0])
        numbered = {t.number: values[uid] for t in begun if (uid := seen.uid(t.number)) in values}
        return cast("Study", Shown(study, numbered)) if numbered else study


def _suggest_all(distributions: Mapping[str, BaseDistribution], draw: Draw) -> None:
    for name, distribution in distributions.items():
        draw.suggest(name, distribution)


def _common(begun: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The parameters that all trials have which have reported, as in Optuna's intersection search space; but trials
    that are paused or run count, too, and where a range has changed it is the latest one.
    """
    found = dict(begun[-1].distributions) if begun else {}
    for trial in begun:
        found = {name: one for name, one in found.items() if _alike(trial.distributions.get(name), one)}
    return dict(sorted(found.items()))


def _alike(known: BaseDistribution | None, now: BaseDistribution) -> bool:
    """Of one parameter, as Optuna allows it to change?"""
    if known is None or known == now:
        return known is not None
    try:
        check_distribution_compatibility(known, now)
    except ValueError:
        return False
    return True


def _best(begun: Sequence[FrozenTrial], seen: Seen) -> list[FrozenTrial]:
    """The trials with the best values so far, best first."""
    study = seen.snapshot
    everyone = {t.uid: t for t in (*study.bank, *study.live) if t.status is not Status.FAILED}
    known = [(loss_so_far(everyone[uid], study), t.number, t) for t in begun if (uid := seen.uid(t.number)) in everyone]
    return [t for loss, _, t in sorted(known, key=lambda one: one[:2])[:_NEAREST] if loss < math.inf]
