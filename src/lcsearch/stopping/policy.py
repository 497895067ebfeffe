"""The knobs of the stopping rule, validated once."""

from __future__ import annotations

from dataclasses import dataclass

from lcsearch.errors import InvalidValue, is_finite_number


@dataclass(frozen=True)
class Policy:
    """When a trial may be stopped. Names that Optuna has mean what they mean there.

    Attributes:
        threshold: a trial is stopped when P(beat) is below this at a look, by its curve up to there and by its curve up
            to the report before, in [0, 1]; 0 stops nothing but diverged trials.
        guard: a trial among this best share at its own step is never stopped, in [0, 1]; nor one among that share of
            all trials, those that ended earlier compared where they ended.
        risk: largest allowed bound of P(some stopped trial would have beaten the incumbent), in [0, 1]: the sum of
            their P(beat), which holds however trials hang together; None: no limit.
        n_startup_trials: nothing is stopped before this many trials are COMPLETE.
        rivals: until then, a trial is stopped where it is unlikely to beat each of so many running trials, those that
            stand best at its step, by what all are forecast to reach: for more workers than `n_startup_trials`. 0:
            nothing is stopped until then.
        n_warmup_steps: nothing is stopped below this step.
        interval_steps: at most one look an interval of this many steps, counted from the warm-up: at its first report.
            Above 1 the report before is the first of the latest earlier interval.
        look_growth: after a trial's first look the next one comes when its finite observations have grown by this
            factor, >= 1; 1: a look at every report. So the number of forecasts grows with the logarithm of a trial's
            length, and which looks are made follows from the curve alone, never from a clock.
        n_min_trials: COMPLETE trials needed that have a value at the step.
        min_comparisons: other trials needed at the step for the rank guard to judge; fewer hold the look.
        min_observations: a look at a curve of fewer finite observations is held.
        few: below this many observations the threshold is multiplied by `few_factor`.
        few_factor: see `few`.
        epsilon: to beat the incumbent is to pass it by more than this share of the study's robust range.
        divergence_reports: a trial is stopped when its last reports are non-finite where finished trials have about
            this many values, see lcsearch.stopping.gates.diverged.
        audit: a stop by P(beat) is not carried out with this probability, in [0, 1): see lcsearch.stopping.audit.
        max_wrong_stop: rate of wrong stops that is allowed, in (0, 1): audits that find more make the threshold
            stricter; None: they move nothing.
        threshold_from: where audits of earlier studies have brought the threshold, in [0, `threshold`]; None: there
            were none.
    """

    threshold: float = 0.05
    guard: float = 0.1
    risk: float | None = None
    n_startup_trials: int = 2
    rivals: int = 0
    n_warmup_steps: float = 0
    interval_steps: float = 1
    look_growth: float = 1.1
    n_min_trials: int = 1
    min_comparisons: int = 2
    min_observations: int = 6
    few: int = 8
    few_factor: float = 0.2
    epsilon: float = 0.01
    divergence_reports: int = 3
    audit: float = 0.0
    max_wrong_stop: float | None = None
    threshold_from: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "threshold",
            "guard",
            "risk",
            "few_factor",
            "epsilon",
            "audit",
            "max_wrong_stop",
            "threshold_from",
        ):
            value = getattr(self, name)
            if name in ("risk", "max_wrong_stop", "threshold_from") and value is None:
                continue
            if not is_finite_number(value) or not 0.0 <= value <= 1.0:
                raise InvalidValue("a number in [0, 1]", value, name)
        if self.audit == 1.0:
            raise InvalidValue("a number below 1: where every stop is audited, nothing is stopped", self.audit, "audit")
        if self.max_wrong_stop is not None and (not self.audit or not 0.0 < self.max_wrong_stop < 1.0):
            got = f"{self.max_wrong_stop!r}, and audit={self.audit!r}"
            raise InvalidValue("a number in (0, 1) beside audit=", got, "max_wrong_stop", "as in audit=0.05")
        for name, low in (
            ("n_startup_trials", 0),
            ("rivals", 0),
            ("n_warmup_steps", 0),
            ("interval_steps", 1),
            ("look_growth", 1),
            ("n_min_trials", 1),
            ("min_comparisons", 0),
            ("min_observations", 1),
            ("few", 0),
            ("divergence_reports", 1),
        ):
            value = getattr(self, name)
            if not is_finite_number(value) or value < low:
                raise InvalidValue(f"a number >= {low}", value, name)
