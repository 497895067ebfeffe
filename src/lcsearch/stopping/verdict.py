"""What can be decided about a trial, and why. Every member carries advice a user can act on."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What to do with a trial; the value is the advice."""

    CONTINUE = "Go on training."
    STOP = "Stop: the trial has next to no chance of beating the incumbent, or has diverged."
    PAUSE = "Pause: the trial's turn is over. Save a checkpoint; it goes on from there when it gets a slot again."

    @property
    def advice(self) -> str:
        """What it means for the user."""
        return str(self.value)


class Reason(enum.Enum):
    """The gate that held a look, or the rule that decided it; the value is the advice."""

    # Gates, cheapest first. The first ones need the trial alone.
    NO_REPORT = "The trial has not reported a value yet. Report the metric every step."
    HORIZON = "The trial has reached max_steps: nothing is left to save."
    WARMUP = "The step is below n_warmup_steps."
    INTERVAL = "This interval had its look already. Lower interval_steps to look more often."
    STARTUP = "Fewer than n_startup_trials trials have reached the horizon; the first ones always run to the end."
    FIRST_LOOK = "A stop needs P(beat) at two reports, and this is the trial's first."
    SHORT = "The curve has too few finite observations to have a shape. Report more often to be looked at sooner."
    THAWED = "The trial was stopped once and is thawed to see what it comes to: nothing stops it again."
    NO_VALUE = "The last report is no finite value: no look. Looks are cast at values only."
    NO_INCUMBENT = "No feasible trial has reached a judged value yet, so there is nothing to beat."
    INCUMBENT = "The trial has already passed the incumbent; what leads is never stopped."
    MIN_TRIALS = "Fewer than n_min_trials finished trials have a value at this step."
    COMPARISONS = "Too few other trials have a value at this step to tell where this one stands."
    GUARD = "The trial ranks among the best at its own step. Lower guard to stop more."
    UNMOVED = (
        "The curve has not moved yet, and no finished trial stood still for as long: nothing tells what becomes of it."
    )
    SPACED = (
        "Looks are spaced: the next one comes when the trial has more observations. Set look_growth to 1 to look at "
        "every report."
    )
    SUPERSEDED = (
        "The trial went on before this look was judged, and a newer look, or its end, took its place. Forecasts are "
        "slower than the trial's steps; it just runs a little longer."
    )
    OVERTAKEN = SUPERSEDED  # its name in an earlier version, in logs that are still read
    # Rules.
    ABSENT = "A forecaster gave no forecast, so the trial goes on."
    ABOVE = "P(beat) is not below the threshold at this look. Raise threshold to stop more."
    ABOVE_BEFORE = "P(beat) is below the threshold now but was not at the report before."
    RISK_LIMIT = "The stop would take the risk of having lost the winner above the limit. Raise risk to stop more."
    UNRECORDED = (
        "The stop's record would not read back from the storage, so nothing could explain it: the trial goes on. "
        "Look for values, or a step, beyond all measure."
    )
    BELOW = "P(beat) is below the threshold at this report and at the one before."
    RIVALS = (
        "Fewer than n_startup_trials trials have reached the horizon, so it is compared with what running ones are "
        "forecast to reach: the chance to beat the best of them is below the threshold at this report and at the one "
        "before."
    )
    BOUND = (
        "The incumbent is at the metric's bound and no trial can beat it; P(tie) is below the threshold at this "
        "report and at the one before. End the study, or choose a metric that still tells good trials apart."
    )
    AUDITED = (
        "P(beat) is below the threshold at this report and at the one before, and the trial goes on to its end to tell "
        "whether the stop would have been right. Set audit to 0 to carry out every stop."
    )
    DIVERGED = "The trial's own metric stays non-finite where finished trials have values."
    RULE = "The rule of another method decided, for comparison in a replay; the detail says on which numbers."

    @property
    def advice(self) -> str:
        """What it means for the user."""
        return str(self.value)

    @property
    def fails_open(self) -> bool:
        """True when the trial went on because nothing could be said, not because of what was said."""
        return self in (Reason.ABSENT, Reason.UNRECORDED)
