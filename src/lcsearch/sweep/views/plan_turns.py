"""What `plan` says of pausing: who comes how far by the allocator alone, what that costs, and what stops add to it."""

from __future__ import annotations

import math
from collections import Counter

from lcsearch.allocation.allocators.hyperband import AsyncHyperband
from lcsearch.allocation.rungs import rungs_of
from lcsearch.sweep.spec.allocator import CurriculumSpec, GreedySpec, HalvingSpec, RobustSpec, UniformSpec
from lcsearch.sweep.spec.distributions import Choice, Int, LogUniform, Uniform
from lcsearch.sweep.spec.model import ParamRef, SweepFile
from lcsearch.sweep.store.turns import asked_at, make_allocator

_TURNS = 8  # steps that are named
EARLY = {"going-rate": 1.3, "asha": 1.3}
"""Steps that promotions take which come before a rung is full, times those of a full one; a test holds it to
experiments/e5_digits."""


def climbed(file: SweepFile) -> dict[float, int]:
    """Rung -> about how many trials come there when all are begun and nothing stops them; {} where there are no rungs,
    or forecasts say who climbs them.

    A full rung of n sends on floor(n / eta), and one trial comes to the end at least. Where promotions come before a
    rung is full they are some more, and a leader that finishes is one more.
    """
    spec, n = file.turns, file.budget.trials
    if spec is None or isinstance(spec, UniformSpec | GreedySpec | CurriculumSpec | RobustSpec):
        return {}
    rungs, one = rungs_of(float(file.max_steps), spec.first, spec.eta), make_allocator(spec)
    if isinstance(spec, HalvingSpec) and spec.n_arms is not None:
        n = min(n, spec.n_arms)
    brackets = Counter(one.brackets(rungs, n)) if isinstance(one, AsyncHyperband) else {0: n}
    come = [sum(int(m / spec.eta ** max(k - b, 0)) for b, m in brackets.items()) for k in range(len(rungs))]
    return {rung: max(m, 1) for rung, m in zip(rungs, come, strict=True)}


def allocated(file: SweepFile) -> tuple[int, str] | None:
    """(steps, why so many) that the allocator alone would train; None where it has no rungs."""
    come = climbed(file)
    if file.turns is None or not come:
        return None
    kind, below = file.turns.kind, [0.0, *come]
    steps = sum(m * (rung - before) for before, (rung, m) in zip(below, come.items(), strict=False))
    factor = EARLY.get(kind, 1.0)
    source = f"the rungs of {kind}, below"
    if factor > 1:
        source += f", and {factor:g} times that for promotions that come before a rung is full (a rule of thumb)"
    return min(round(factor * steps), file.budget.trials * file.max_steps), source


def turn_lines(file: SweepFile, size: float | None = None, source: str = "") -> list[str]:
    """What the allocator will do, and what pausing costs; empty where nothing pauses.

    Args:
        file: the sweep.
        size: bytes of a checkpoint, in the mean; None where that is not known.
        source: how it is known.
    """
    if file.turns is None:
        return []
    horizon, unit, n = float(file.max_steps), file.step, file.budget.trials
    asked, come = asked_at(file), climbed(file)
    pauses = [step for step in asked if step < horizon]
    lines = [f"turns: given by {file.turns.kind}; a trial that is paused keeps a checkpoint and waits for its next one"]
    if not pauses:
        lines.append(f"  every turn goes to {unit} {horizon:g}: nothing is ever paused")
    else:
        shown = ", ".join(f"{unit} {step:g} ({step / horizon:.0%})" for step in pauses[:_TURNS])
        more = f" and {len(pauses) - _TURNS} more" if len(pauses) > _TURNS else ""
        lines.append(f"  a trial is asked again at {shown}{more}")
        if come:
            told = ", ".join(f"{m} to {unit} {math.ceil(rung - 1e-9)}" for rung, m in come.items())
            lines.append(f"  of {n} trials come about {told}; the others are cut and end as stopped: {_cut(file)}")
        lines += [f"  ! {text}"] if (text := warming(file)) else []
        lines.append(f"  one checkpoint wherever it is paused: {len(pauses)} at most, {n * len(pauses)} for {n} trials")
        if any(prices := file.prices):
            text = f"  a pause costs {prices.checkpoint:g} {unit}s, to go on {prices.resume:g}, as the file has it"
            lines.append(text + (": they come out of budget.steps" if file.budget.steps is not None else ""))
    keep = None if file.checkpoints is None else file.checkpoints.keep
    may = min(n, keep) if keep is not None else n
    text = f"  {may} trials can be paused at once"
    text += f", for no more checkpoints are kept (checkpoints.keep {keep})" if keep is not None and keep < n else ""
    text += f": {size_told(may * size)} by {source}" if size is not None else ""
    lines.append(text)
    lines.append(
        f"  the objective must save where ctx.checkpoint_due; a trial that never does runs to {unit} {horizon:g}"
    )
    if not come:
        lines.append("  what is expected above is without pausing, which ends trials early, too")
    if file.budget.steps is not None or file.budget.seconds is not None:
        lines.append("  when the budget is used up, paused trials are ended as stopped")
    return lines


def warming(file: SweepFile) -> str:
    """That trials are ranked where they may still warm up, and what to do; "" where no rung lies there.

    A trial with a long warm-up has a lower rate at such a rung than one with none, and with it, mostly, a worse value,
    however it ends.
    """
    share, unit = _longest_warmup(file), file.step
    early = [math.ceil(rung - 1e-9) for rung in climbed(file) if rung < share * file.max_steps]
    if not early:
        return ""
    at = ", ".join(f"{step}" for step in early)
    until, first = math.ceil(share * file.max_steps - 1e-9), math.ceil(100 * share - 1e-9) / 100
    return (
        f"trials may warm up until {unit} {until} (schedule.warmup), and turns go by ranks at {unit} {at}, which "
        f"favour those that do not. Where that misleads, set allocator.first to {first:g}"
    )


def _longest_warmup(file: SweepFile) -> float:
    """The largest share of the horizon that a configuration may plan to warm up; 0.0 where all plan the same, so that
    ranks favour nobody.
    """
    entry = None if file.plan is None else file.plan.warmup
    if not isinstance(entry, ParamRef):
        return 0.0
    match file.space[entry.param]:
        case Choice(options=options):
            shares = {float(option) for option in options if isinstance(option, int | float)}
            return max(shares) if len(shares) > 1 else 0.0
        case Uniform(bounds=(_, high)) | LogUniform(bounds=(_, high)) | Int(bounds=(_, high)):
            return float(high)
        case _:
            return 0.0


def _cut(file: SweepFile) -> str:
    """When a trial that waits is cut."""
    assert file.turns is not None
    match file.turns.kind:
        case "halving":
            return "when their rung is full"
        case "going-rate":
            return "where going on pays less than a new trial, or when their rung can grow no more"
        case _:
            return "when their rung can grow no more"


def stops_beside(file: SweepFile, whole: int, first: int) -> str:
    """What stops add to the allocator's cuts, in one sentence.

    Args:
        file: the sweep.
        whole: trials that must have run to the end before any is stopped.
        first: the earliest step of a stop.
    """
    assert file.turns is not None
    kind, n, unit, come = file.turns.kind, file.budget.trials, file.step, climbed(file)
    if not come:
        late = ", when with turns for all alike the others nearly have" if isinstance(file.turns, UniformSpec) else ""
        return f"so stops begin once {whole} trials have run to the end{late}"
    ends = come[max(come)]
    if ends < whole:
        runs = "runs" if ends == 1 else "run"
        return (
            f"so stops hardly begin: by {kind} about {ends} of {n} trials {runs} to the end, and startup waits for "
            f"{whole}. Leave it to {kind}, or lower pruner.{_knob(file)}"
        )
    far = next(m for rung, m in come.items() if rung >= first)
    after = f" once {whole} have run to the end" if whole else ""
    return f"so stops can end those sooner that come to {unit} {first}, about {far} of {n}{after}"


def _knob(file: SweepFile) -> str:
    """What the first stop waits for: the larger of the pruner's two numbers of complete trials."""
    return max("n_startup_trials", "n_min_trials", key=lambda name: getattr(file.pruner, name, 0))


def size_told(n: float) -> str:
    """Bytes for people.

    >>> size_told(12345)
    '12.3 kB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
