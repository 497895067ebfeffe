"""ForecastSampler: what is begun, when it is the sampler's own, and what a sampler inside is shown."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from kit.doubles import Dead, Knows, NotANumber, Scripted, Short, Silent
from kit.studies import STORAGES, storage
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Forecaster
from lcsearch.proposal import ByForecast
from lcsearch.schedulers.optuna import CurvePruner, ForecastSampler, FreezeThaw, FreezeThawTrial


def objective(trial: optuna.Trial) -> float:
    end = abs(trial.suggest_float("x", 0, 1) - 0.3)
    trial.suggest_categorical("kind", ["a", "b"])
    for step in range(6):
        trial.report(1.0 + end - step / 5, step)
    return end


def saving(trial: FreezeThawTrial) -> float:
    end = abs(trial.suggest_float("x", 0, 1) - 0.3)
    saved = trial.load()
    for step in range(1 if saved is None else saved.step + 1, 10):
        trial.report(1.0 + end - step / 9, step)
        trial.save({"step": step}, step)
    return end


def played(sampler: BaseSampler, n: int = 16, of: Callable[[Any], float] = objective, **fields: Any) -> Study:
    study = optuna.create_study(sampler=sampler, **fields)
    study.optimize(of, n_trials=n)
    return study


def knowing(inner: BaseSampler | None = None, **fields: Any) -> ForecastSampler:
    known = {"sampler_share": 0.0, "n_startup_trials": 4, "max_steps": 6, "forecasters": Knows(), "seed": 0}
    return ForecastSampler(inner, **{**known, **fields})


def xs(study: Study) -> list[float]:
    return [trial.params["x"] for trial in study.trials]


def test_what_is_forecast_to_gain_most_is_begun() -> None:
    study = played(knowing())
    assert max(abs(x - 0.3) for x in xs(study)[4:]) < 0.05
    inside = knowing(RandomSampler(seed=0))
    assert xs(played(inside))[:4] == xs(played(RandomSampler(seed=0), 4))


def test_gain_counts_per_cost_where_somebody_says_what_steps_cost() -> None:
    """It gains as much on either side of .3, and steps cost a thousandth above it."""
    sampler = knowing()
    sampler.paces = lambda trials, drawn: [1.0 if one["x"] > 0.3 else 1e3 for one in drawn]
    study = played(sampler, 8)
    assert all(trial.params["x"] > 0.3 for trial in study.trials[4:])
    assert "most for the time that it takes" in study.trials[5].system_attrs["lcsearch:begun"]["why"]
    sampler.paces = lambda trials, drawn: None
    assert max(abs(x - 0.3) for x in xs(played(sampler))[4:]) < 0.05
    assert pickle.loads(pickle.dumps(sampler)).paces is None


def test_why_is_stored_and_told(tmp_path: Path) -> None:
    pruner = CurvePruner(max_steps=6, forecasters=Knows())
    study = played(knowing(), 8, pruner=pruner)
    assert "it was begun as the sampler's own: one of the first 4 trials" in pruner.explain(0, study)
    assert "it was begun as the one of 256 candidates that is forecast to gain most, " in pruner.explain(5, study)
    stored = study.trials[5].system_attrs["lcsearch:begun"]
    assert (stored["n"], stored["of"], stored["propensity"]) == (256, 5, 1.0)
    assert stored["score"] > 0


def test_it_may_begin_where_p_beat_differs_between_neighbours() -> None:
    def cut(trial: optuna.Trial) -> float:
        end = abs(trial.suggest_float("x", 0, 1) - 0.3)
        trial.report(1.0 + end, 0)
        if trial.number:
            raise optuna.TrialPruned
        return end

    study = played(knowing(proposer="alp-gmm"), 40, cut)
    whys = [trial.system_attrs["lcsearch:begun"]["why"] for trial in study.trials]
    assert all("own" in why for why in whys[:17])
    assert any("drawn in region" in why for why in whys[17:])
    assert xs(study) == xs(played(knowing(proposer="alp-gmm"), 40, cut))


def test_a_share_stays_the_samplers_own() -> None:
    alone = played(RandomSampler(seed=0), 30)
    assert xs(played(knowing(RandomSampler(seed=0), sampler_share=1.0), 30)) == xs(alone)
    study = played(knowing(sampler_share=0.5), 60)
    own = [t for t in study.trials[4:] if "as 50% of all are" in t.system_attrs["lcsearch:begun"]["why"]]
    assert 15 < len(own) < 41
    assert max(abs(t.params["x"] - 0.3) for t in own) > 0.3


def test_choices_that_stand_behind_are_left_to_the_sampler_and_that_is_told() -> None:
    """Every forecast is wrong: the best is far from .3, it says. Three quarters of all trials were its choice."""

    def wrongly(trial: optuna.Trial) -> float:
        end = 1.0 - abs(trial.suggest_float("x", 0, 1) - 0.3)
        for step in range(6):
            trial.report(1.0 + end - step / 5, step)
        return end

    sampler = knowing(sampler_share=0.25, n_startup_trials=8)
    study = played(sampler, 60, wrongly, pruner=CurvePruner(max_steps=6, forecasters=Knows(), threshold=0.0))
    whys = [trial.system_attrs["lcsearch:begun"]["why"] for trial in study.trials]
    assert sum(why.startswith("the one of 256") for why in whys) < 20
    told = "as 90% of all are, while what forecasts choose is better than it in "
    doubted = [number for number, why in enumerate(whys) if told in why]
    assert len(doubted) > 30
    assert isinstance(study.pruner, CurvePruner)
    assert f"it was begun as the sampler's own, {told}" in study.pruner.explain(doubted[-1], study)
    honest = played(knowing(sampler_share=0.25, n_startup_trials=8), 60)
    whys = [trial.system_attrs["lcsearch:begun"]["why"] for trial in honest.trials]
    assert sum(why.startswith("the one of 256") for why in whys) > 30
    assert not any("better than it" in why for why in whys)


def test_the_same_seed_and_history_give_the_same_configurations() -> None:
    assert xs(played(knowing())) == xs(played(knowing()))
    assert xs(played(knowing())) != xs(played(knowing(seed=1)))


def test_it_goes_on_in_another_process_as_in_one(tmp_path: Path) -> None:
    with storage("sqlite", tmp_path) as kept:
        study = played(knowing(sampler_share=0.3), 8, storage=kept)
        again = optuna.load_study(study_name=study.study_name, storage=kept, sampler=knowing(sampler_share=0.3))
        again.optimize(objective, n_trials=8)
    assert xs(again) == xs(played(knowing(sampler_share=0.3), 16))


def test_where_trials_end_is_known_or_it_is_the_samplers_own() -> None:
    def pruned(trial: optuna.Trial) -> float:
        objective(trial)
        raise optuna.TrialPruned

    study = played(knowing(max_steps="auto"), 8, pruned)
    whys = [t.system_attrs["lcsearch:begun"]["why"] for t in study.trials]
    assert set(whys) == {"the sampler's own: where trials end is not known yet"}
    beside = CurvePruner(forecasters=Knows())  # "auto"
    study = played(knowing(), 8, pruned, pruner=beside)
    assert max(abs(x - 0.3) for x in xs(study)[4:]) < 0.05


def test_a_freeze_thaw_says_where_trials_end_and_who_forecasts() -> None:
    study = optuna.create_study(sampler=ForecastSampler(seed=0, sampler_share=0, n_startup_trials=4))
    FreezeThaw(study, saving, max_steps=9, n_trials=12, forecasters=Knows()).run()
    assert max(abs(x - 0.3) for x in xs(study)[4:]) < 0.05


def test_workers_that_ask_at_once_do_not_bet_on_one_place() -> None:
    class Peak(Knows):
        """Sure of nothing but that .3 is best."""

    study = played(knowing(forecasters=Peak()), 8)
    asked = [study.ask() for _ in range(8)]
    found = [trial.suggest_float("x", 0, 1) for trial in asked]
    assert abs(found[0] - 0.3) < 0.02
    assert max(found) - min(found) > 0.02


def test_a_hyperband_pruner_hides_no_trials_from_it() -> None:
    hyperband = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=6)
    study = played(knowing(), 20, pruner=hyperband)
    own = [t for t in study.trials if "one of the first 4" in t.system_attrs["lcsearch:begun"]["why"]]
    assert [t.number for t in own] == [0, 1, 2, 3]


def test_a_space_that_contradicts_the_objective_is_counted_and_raises_nowhere() -> None:
    sampler = knowing(
        space=lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["b", "a"]))
    )
    assert len(played(sampler, 8).trials) == 8
    assert dict(sampler.session.failed_open) == {"proposing a configuration": 4}


def test_a_space_of_other_parameters_is_counted_too() -> None:
    sampler = knowing(space=lambda trial: trial.suggest_float("typo", 0, 1), forecasters=Silent())
    assert len(played(sampler, 8).trials) == 8
    assert dict(sampler.session.failed_open) == {"proposing a configuration": 4}


def test_a_range_that_is_widened_is_chosen_from() -> None:
    def wider(trial: optuna.Trial) -> float:
        end = abs(trial.suggest_float("x", 0, 1 if trial.number < 6 else 2) - 1.5)
        trial.report(1.0 + end, 1)
        return end

    study = played(knowing(forecasters=Knows(1.5)), 16, wider)
    assert max(abs(x - 1.5) for x in xs(study)[8:]) < 0.05


def test_it_turns_away_from_a_cliff() -> None:
    def cliff(trial: optuna.Trial) -> float:
        end = abs(trial.suggest_float("x", 0, 1) - 0.8)
        trial.report(1.0 + end, 1)
        if trial.params["x"] > 0.7:
            raise RuntimeError("out of memory")
        return end

    study = optuna.create_study(sampler=knowing(forecasters=Knows(0.8), n_startup_trials=8))
    study.optimize(cliff, n_trials=40, catch=(RuntimeError,))
    assert sum(x > 0.7 for x in xs(study)[-20:]) < 8  # all of them, where it does not learn


def test_a_quarter_of_the_candidates_lies_near_the_best_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    choose = ByForecast.choose

    def noted(self: ByForecast, snapshot: Any, candidates: Any, *rest: Any) -> Any:
        seen.append(candidates)
        return choose(self, snapshot, candidates, *rest)

    monkeypatch.setattr(ByForecast, "choose", noted)
    played(knowing(), 30)
    near = [np.mean([abs(params["x"] - 0.3) < 0.15 for params in candidates]) for candidates in seen[-10:]]
    assert np.mean(near) > 0.35  # .3 of all where they are drawn anywhere


def test_one_sampler_of_two_studies() -> None:
    sampler = knowing()
    studies = [optuna.create_study(sampler=sampler) for _ in range(2)]
    for _ in range(8):
        for study in studies:
            study.optimize(objective, n_trials=1)
    assert xs(studies[0]) == xs(studies[1]) == xs(played(knowing(), 8))


@pytest.mark.parametrize("forecaster", [Dead(), Silent(), NotANumber(), Short(Scripted())], ids=lambda f: f.name)
def test_where_nothing_is_forecast_the_sampler_inside_decides(forecaster: Forecaster) -> None:
    study = played(knowing(forecasters=forecaster))
    assert len(study.trials) == 16
    whys = {t.system_attrs["lcsearch:begun"]["why"] for t in study.trials[4:]}
    assert whys == {"the sampler's own: nothing is forecast of a configuration"}


def test_whatever_fails_the_trial_begins(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no")

    sampler = knowing()
    monkeypatch.setattr(sampler, "_draws", broken)
    assert len(played(sampler).trials) == 16
    assert dict(sampler.session.failed_open) == {"proposing a configuration": 12}
    told = [record.message for record in caplog.records if record.name == "lcsearch"]
    assert told == [
        "lcsearch: proposing a configuration failed, the sampler's own configuration is begun: RuntimeError: no"
    ]


def test_a_configuration_that_could_not_be_chosen_is_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no")

    pruner = CurvePruner(max_steps=6, forecasters=Knows())
    sampler = knowing()
    monkeypatch.setattr(sampler, "_draws", broken)
    said = str(pruner.report(played(sampler, 6, pruner=pruner)))
    assert "in this process: 0 looks failed open (the trial went on), 0 held between looks (look_growth), " in said
    assert "2 configurations left to the sampler, for proposing a configuration failed" in said


def test_the_pruner_of_the_study_is_whose_model_is_asked() -> None:
    mine, theirs = Knows(), Knows(0.8)
    study = played(knowing(forecasters=mine), pruner=CurvePruner(max_steps=6, forecasters=theirs))
    assert (mine.asked, theirs.asked) == (0, 12 * 256)
    assert max(abs(x - 0.8) for x in xs(study)[4:]) < 0.05


def test_a_metric_that_is_maximized() -> None:
    def negative(trial: optuna.Trial) -> float:
        end = -abs(trial.suggest_float("x", 0, 1) - 0.3)
        for step in range(6):
            trial.report(end - 1 + step / 5, step)
        return end

    study = played(knowing(), of=negative, direction="maximize")
    assert max(abs(x - 0.3) for x in xs(study)[4:]) < 0.05


def test_a_parameter_that_depends_on_another_is_drawn_by_the_space() -> None:
    def space(trial: Any) -> dict[str, Any]:
        params = {"x": trial.suggest_float("x", 0, 1), "opt": trial.suggest_categorical("opt", ["sgd", "adam"])}
        name = "momentum" if params["opt"] == "sgd" else "beta"
        return {**params, name: trial.suggest_float(name, 0.5, 0.99)}

    def conditional(trial: optuna.Trial) -> float:
        params = space(trial)
        for step in range(6):
            trial.report(1 + abs(params["x"] - 0.3) - step / 5, step)
        return float(abs(params["x"] - 0.3))

    study = played(knowing(space=space), 24, conditional)
    assert all(sorted(t.params) in (["beta", "opt", "x"], ["momentum", "opt", "x"]) for t in study.trials)
    assert {t.params["opt"] for t in study.trials[4:]} == {"sgd", "adam"}
    assert max(abs(x - 0.3) for x in xs(study)[4:]) < 0.05


def test_without_it_parameters_that_all_trials_have_are_chosen_and_others_are_the_samplers() -> None:
    def conditional(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if x > 0.5:
            trial.suggest_int("depth", 1, 5)
        for step in range(6):
            trial.report(1 + abs(x - 0.3) - step / 5, step)
        return abs(x - 0.3)

    study = played(knowing(forecasters=Knows(0.8)), 12, conditional)
    assert max(abs(x - 0.8) for x in xs(study)[4:]) < 0.05
    assert all("depth" in t.params for t in study.trials[4:])


class Learns(BaseSampler):
    """Draws at random, and notes which trials it is shown, in which state and with which value."""

    def __init__(self) -> None:
        self._inner = RandomSampler(seed=0)
        self.seen: list[tuple[int, TrialState, float | None]] = []

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self.seen = [(t.number, t.state, t.value if t.values else None) for t in study.get_trials(deepcopy=False)]
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)


def test_the_sampler_inside_is_shown_forecasts_in_the_place_of_early_values() -> None:
    inner = Learns()

    def stopping(trial: optuna.Trial) -> float:
        end = abs(trial.suggest_float("x", 0, 1) - 0.3)
        trial.report(1.0 + end, 0)
        if trial.number % 2:
            raise optuna.TrialPruned
        trial.report(end, 5)
        return end

    study = played(knowing(inner), 8, stopping)
    ends = {t.number: abs(t.params["x"] - 0.3) for t in study.trials}
    assert [seen[:2] for seen in inner.seen[:7]] == [(n, TrialState.COMPLETE) for n in range(7)]
    assert [value for _, _, value in inner.seen[:7]] == pytest.approx([ends[n] for n in range(7)])
    assert inner.seen[7][1:] == (TrialState.RUNNING, None)
    assert [t.state for t in study.trials[:2]] == [TrialState.COMPLETE, TrialState.PRUNED]  # as they were


def test_paused_trials_are_shown_with_their_forecast_and_resumed_ones_are_not_drawn_again() -> None:
    inner = Learns()
    study = optuna.create_study(sampler=knowing(inner, sampler_share=0.0))

    FreezeThaw(study, saving, max_steps=9, n_trials=12, allocator="asha", forecasters=Knows()).run()
    shown = [state for n, state, value in inner.seen[:-1]]
    assert set(shown) == {TrialState.COMPLETE}  # paused ones among them
    assert len(study.trials) == 12
    assert max(abs(x - 0.3) for x in xs(study)[4:]) < 0.05


@pytest.mark.parametrize(
    "inner",
    [TPESampler(seed=0), NSGAIISampler(seed=0)],
    ids=["tpe", "nsga"],
)
def test_optunas_own_samplers_inside(inner: BaseSampler) -> None:
    study = played(knowing(inner, sampler_share=0.3), 20)
    assert len(study.trials) == 20
    assert min(abs(x - 0.3) for x in xs(study)[4:]) < 0.05


@pytest.mark.parametrize("kind", STORAGES)
def test_in_every_storage(kind: str, tmp_path: Path) -> None:
    with storage(kind, tmp_path) as kept:
        study = played(knowing(), 7, storage=kept)
        again = optuna.load_study(study_name=study.study_name, storage=kept)
        assert again.trials[6].system_attrs["lcsearch:begun"]["n"] == 256
        assert max(abs(x - 0.3) for x in xs(again)[4:]) < 0.05


def test_enqueued_trials_keep_their_parameters() -> None:
    sampler = knowing()
    study = played(sampler, 6)
    study.enqueue_trial({"x": 0.9})
    study.optimize(objective, n_trials=1)
    assert study.trials[-1].params["x"] == 0.9
    assert "lcsearch:begun" not in study.trials[-1].system_attrs


def test_several_objectives_are_the_sampler_insides_business() -> None:
    sampler = knowing(n_startup_trials=0)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=3)
    assert all("lcsearch:begun" not in t.system_attrs for t in study.trials)
    assert not sampler.session.failed_open


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_fixed_parameters_go_around_it() -> None:
    fixed = optuna.samplers.PartialFixedSampler({"x": 0.9}, knowing())
    assert set(xs(played(fixed, 8))) == {0.9}
    with pytest.raises(InvalidValue, match=r"Turn it round: PartialFixedSampler\(fixed, ForecastSampler\(\)\)\.$"):
        knowing(optuna.samplers.PartialFixedSampler({"x": 0.9}, RandomSampler()))


def test_it_can_be_pickled() -> None:
    sampler = pickle.loads(pickle.dumps(knowing()))
    assert xs(played(sampler)) == xs(played(knowing()))


def test_a_candidate_that_a_trial_has_is_not_begun_again() -> None:
    def discrete(trial: optuna.Trial) -> float:
        end = abs(trial.suggest_int("x", 0, 15) - 0.3)
        for step in range(6):
            trial.report(1.0 + end - step / 5, step)
        return end

    study = played(knowing(n_startup_trials=3), 12, discrete)
    assert len(set(xs(study)[3:])) == 9


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"n_candidates": 0}, "ForecastSampler(n_candidates=): expected a whole number >= 1, got 0."),
        (
            {"sampler": optuna.samplers.GridSampler({"x": [1]})},
            "ForecastSampler(): expected a sampler that may be overruled, got 'GridSampler'. It must know of every "
            "configuration that is begun.",
        ),
        ({"max_steps": 0}, "max_steps: expected 'auto' or a number > 0, got 0."),
        ({"judged": "last"}, "judged: expected 'best' or 'final', got 'last'."),
        ({"space": 3}, "ForecastSampler(space=): expected a function of a trial, or None, got 3."),
        ({"seed": -1}, "ForecastSampler(seed=): expected a whole number >= 0, or None, got -1."),
        ({"sampler": "tpe"}, "ForecastSampler(sampler=): expected a sampler of Optuna's, or None, got 'tpe'."),
        ({"sampler_share": 2}, "sampler_share: expected a share in [0, 1], got 2."),
        ({"proposer": "gmm"}, "ForecastSampler(proposer=): expected 'gain' or 'alp-gmm', got 'gmm'."),
    ],
)
def test_arguments_are_checked(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidValue) as found:
        ForecastSampler(**fields)
    assert str(found.value) == text
