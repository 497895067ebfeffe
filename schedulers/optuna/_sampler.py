"""ForecastSampler: begins the configuration whose forecast promises most; around any sampler of Optuna's."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from lcsearch.allocation.rungs import loss_so_far
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecaster, Kind, Query
from lcsearch.goal import Judged
from lcsearch.proposal import ByForecast, Proposal
from lcsearch.schedulers.optuna._draws import Draw, anywhere, near
from lcsearch.schedulers.optuna._pruner import CurvePruner, several
from lcsearch.schedulers.optuna._record import BEGUN
from lcsearch.schedulers.optuna._snapshot import Reader, snapshot_of
from lcsearch.schedulers.optuna._storage import Shown, store_with, study_key
from lcsearch.session import Session, make_session
from lcsearch.stopping.policy import Policy
from lcsearch.study import Snapshot, Status

if TYPE_CHECKING:
    from optuna import Study

_NEAREST = 5
"""Begun trials, the best so far, near which a quarter of the candidates are drawn."""
_DRAWS = 8
"""Candidates that the sampler inside draws, the first of them what it alone would begin."""
_KEPT = 64  # choices that no trial has fetched
_LAST = 256  # running, paused and stopped trials whose forecasts a sampler is shown: the latest


class ForecastSampler(BaseSampler):
    """Begins the configuration with the largest expected improvement on the best value seen, as forecast.

    For a new trial a few hundred configurations are drawn: some by the sampler inside, most uniformly, a quarter near
    the best trials so far. Forecasters that know configurations, as the network does, say what each of them would
    reach by `max_steps`, from the curves of all trials that have begun, however short; the most promising one is begun.
    `sampler_share` of all trials and the first `n_startup_trials` are the sampler's own, whatever is forecast.

    The sampler inside is shown forecasts in the place of early values: a trial that was stopped, is paused or runs
    stands in its history as if it had ended with the median of its forecast. So a slow starter that was pruned is no
    bad configuration to it.

    With a :class:`CurvePruner` in the study its forecasters, goal and log are used, and what is forecast comes from the
    same model. Fails open: where nothing can be forecast the sampler inside decides alone.

    Args:
        sampler: any sampler for one objective; None: random.
        max_steps: the step at which trials end; "auto": that of the study's CurvePruner, else of the COMPLETE trials.
        judged: "best" or "final", see :class:`CurvePruner`, whose own one counts where the study has one.
        space: makes the suggestions of one configuration, `space(trial)`, as the objective does; needed where a
            parameter depends on another one. None: the parameters that all trials have.
        n_candidates: configurations that are forecast for a new trial, >= 1.
        sampler_share: trials that nobody is asked about, in [0, 1].
        n_startup_trials: trials that begin first.
        forecasters, host: see :class:`CurvePruner`; of no account beside one.
        seed: of the draws. The same seed and the same history give the same configuration.

    Raises:
        InvalidValue: an argument is outside its range.

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
        forecasters: Sequence[Forecaster | str] | Forecaster | str | None = None,
        host: str = "auto",
        seed: int | None = None,
    ) -> None:
        if sampler is not None and not isinstance(sampler, BaseSampler):
            raise InvalidValue("a sampler of Optuna's, or None", sampler, "ForecastSampler(sampler=)")
        if not (isinstance(n_candidates, int) and n_candidates >= 1):
            raise InvalidValue("a whole number >= 1", n_candidates, "ForecastSampler(n_candidates=)")
        self._inner = RandomSampler(seed=seed) if sampler is None else sampler
        self._proposer = ByForecast(sampler_share, n_startup_trials)
        self._space, self._n = space, n_candidates
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._seeded = seed is not None
        self._session = make_session(Policy(), forecasters, None, None, host=host)
        self._reader = Reader(max_steps, judged)
        self._begin()

    def _begin(self) -> None:
        self._beside: Callable[[], tuple[Session, Snapshot]] | None = None
        self._lock = threading.Lock()
        self._chosen: OrderedDict[tuple[Any, ...], Draw] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_chosen", "_beside")}

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
            if not several(study):
                session, snapshot = self._seen(study, trial)
                draw = self._choose(study, trial, session, snapshot)
        except Exception as error:  # whatever fails here, the sampler inside can begin the trial
            session.failed("proposing a configuration", error)
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
        return draw.params

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

    def beside(self, seen: Callable[[], tuple[Session, Snapshot]] | None) -> None:
        """Where a scheduler of another framework keeps the study: its session, and the study as it sees it."""
        self._beside = seen

    def _seen(self, study: Study, trial: FrozenTrial) -> tuple[Session, Snapshot]:
        """Who forecasts, and from what: the study without the new trial."""
        if self._beside is not None:
            return self._beside()
        pruner = study.pruner
        if isinstance(pruner, CurvePruner):
            session, snapshot = pruner.session, pruner.snapshot(study)
        else:
            session, snapshot = self._session, snapshot_of(study, self._reader.read(study))
        live = tuple(one for one in snapshot.live if one.uid != str(trial.number))
        return session, replace(snapshot, live=live)

    def _choose(self, study: Study, trial: FrozenTrial, session: Session, snapshot: Snapshot) -> Draw | None:
        """The configuration that is begun; None where it is the sampler's own."""
        key = (self._seed, trial.number)
        own = self._proposer.own(snapshot, key)
        if own is not None:
            self._note(study, trial, own, 0)
            return None
        begun = [t for t in study.get_trials(deepcopy=False) if t.intermediate_values and t.number != trial.number]
        draws = self._draws(study, trial, snapshot, begun, session)
        if not draws:
            return None
        said = session.propose(self._proposer, snapshot, [draw.params for draw in draws])
        self._note(study, trial, said, len(draws))
        return draws[said.row]

    @staticmethod
    def _note(study: Study, trial: FrozenTrial, said: Proposal, n: int) -> None:
        """Store with the trial why it has its configuration."""
        store_with(study, trial, BEGUN, {**said._asdict(), "n": n, "of": trial.number})

    def _draws(
        self, study: Study, trial: FrozenTrial, snapshot: Snapshot, begun: Sequence[FrozenTrial], session: Session
    ) -> list[Draw]:
        """The candidates, those of the sampler inside first; none where no parameter is known of yet."""
        space = self._space or partial(_suggest_all, _common(begun))
        rng = np.random.default_rng((self._seed, trial.number, 1))
        shown = self._shown(study, snapshot, begun, session)
        found = [self._inside(n, shown, trial, space) for n in range(min(_DRAWS, self._n))]
        if not found[0].params:
            return []
        good = _best(begun, snapshot)
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

    def _shown(self, study: Study, snapshot: Snapshot, begun: Sequence[FrozenTrial], session: Session) -> Study:
        """The study as the sampler inside sees it: what has not ended by itself, with its forecast."""
        if isinstance(self._inner, RandomSampler):
            return study
        kind: Kind = "best_by" if snapshot.goal.judged == "best" else "value"
        cut = [t for t in snapshot.bank if t.status is Status.STOPPED] + list(snapshot.live)
        cut = [t for t in cut if len(t.curve)][-_LAST:]
        if not cut:
            return study
        asked = [Query(t, kind, snapshot.horizon) for t in cut]
        answers = session.panel.ask([(snapshot, asked)])[0].answers
        values: dict[str, float] = {}
        for said in answers.values():  # of several forecasters the last that answered
            for one, answer in zip(cut, said, strict=True):
                if not isinstance(answer, Absent):
                    values[one.uid] = float(answer.quantile(0.5)[0])
        numbered = {t.number: values[str(t.number)] for t in begun if str(t.number) in values}
        return cast("Study", Shown(study, numbered)) if numbered else study


def _suggest_all(distributions: Mapping[str, BaseDistribution], draw: Draw) -> None:
    for name, distribution in distributions.items():
        draw.suggest(name, distribution)


def _common(begun: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The parameters that all trials have which have reported, as Optuna's intersection search space has them; but
    trials that are paused or run count, too.
    """
    found = dict(begun[-1].distributions) if begun else {}
    for trial in begun:
        found = {name: one for name, one in found.items() if trial.distributions.get(name) == one}
    return dict(sorted(found.items()))


def _best(begun: Sequence[FrozenTrial], snapshot: Snapshot) -> list[FrozenTrial]:
    """The trials with the best values so far, best first."""
    everyone = {t.uid: t for t in (*snapshot.bank, *snapshot.live) if t.status is not Status.FAILED}
    known = [(loss_so_far(everyone[uid], snapshot), t.number, t) for t in begun if (uid := str(t.number)) in everyone]
    return [t for loss, _, t in sorted(known, key=lambda one: one[:2])[:_NEAREST] if loss < math.inf]
