"""What the sweep file, the objective and the trials disagree about, each said once and with what to do.

The summary, the report and `--json` tell it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from lcsearch.session.explain import startup_waits
from lcsearch.sweep.monitor.progress import Progress, Row
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.placeholders import placeholders
from lcsearch.sweep.spec.pruner import CurvePrunerSpec, MedianPrunerSpec
from lcsearch.sweep.store.ownership import REPLAYED
from lcsearch.sweep.views.phrases import named
from lcsearch.sweep.views.plan_turns import warming


def notices(progress: Progress, sweep: SweepFile) -> list[str]:
    """One text for each kind that there is."""
    told = (
        _startup,
        _warming,
        _stand_ins,
        _too_late,
        _replayed,
        _unsaved,
        _lengths,
        _repeated,
        _descending,
        _returned,
        _without_numbers,
        _diverged,
    )
    return [text for tell in told if (text := tell(progress, sweep))]


def _startup(progress: Progress, sweep: SweepFile) -> str:
    """Once it is over: that the allocator left so few to the end that the pruner never began to stop any."""
    spec = sweep.pruner
    if not isinstance(spec, CurvePrunerSpec | MedianPrunerSpec):
        return ""
    if isinstance(spec, CurvePrunerSpec) and spec.rivals:
        return ""  # it need not wait for them
    if not progress.cut or progress.of("running", "waiting", "paused"):
        return ""
    return startup_waits(len(progress.of("complete")), spec.n_startup_trials, spec.n_min_trials)


def _warming(progress: Progress, sweep: SweepFile) -> str:
    """Once trials are paused or cut by ranks within their warm-up."""
    return warming(sweep) if progress.cut or progress.of("paused") else ""


def _stand_ins(progress: Progress, sweep: SweepFile) -> str:
    """Stops of workers that could not load the model, where the file leaves the forecasters open."""
    spec = sweep.pruner
    if not isinstance(spec, CurvePrunerSpec) or spec.forecasters is not None:
        return ""
    heard = [
        (row.number, {who for who, _ in row.stop.now.heard})
        for row in progress.of("stopped")
        if row.stop is not None and row.stop.now is not None
    ]
    others = [(number, names) for number, names in heard if names - {"network"}]
    if not others:
        return ""
    n, who = len(others), " and ".join(sorted(set().union(*(names for _, names in others))))
    why = "their workers could not load the network: logs/worker-*.log says why"
    if sweep.backend.kind == "ray":
        why = "the launch could not load the network: what it printed says why"
    which = named([number for number, _ in others])
    text = f"{n} of {len(heard)} stops by P(beat) were forecast by {who} ({which}), for {why}"
    return f"{text}. No certificate speaks of such stops"


def _noted(progress: Progress, kind: str) -> list[Row]:
    return [row for row in progress.rows if kind in row.noted]


def _too_late(progress: Progress, sweep: SweepFile) -> str:
    """Stops that saved nothing: training does not wait for a look, and was over, or nearly, when its stop came."""
    late = [row for row in progress.rows if row.overtaken or (row.state == "stopped" and row.spent > row.judged_to)]
    late = [row for row in late if not row.saved]
    if not late:
        return ""
    n, which = len(late), named([row.number for row in late])
    stops = f"{n} stop{'s' * (n != 1)} came too late to save anything ({which})"
    return (
        f"{stops}: a program does not wait for a look, and was at its end by then. Nothing is to be done where its "
        f"{sweep.step}s take no longer than looks; else see that it prints each report at once (flush)"
    )


def _replayed(progress: Progress, sweep: SweepFile) -> str:
    """Steps that were trained, or at least reported, twice: they stand in no count but that of the workers' time."""
    rows = _noted(progress, REPLAYED)
    if not rows:
        return ""
    n, which = int(sum(row.noted[REPLAYED][0] for row in rows)), named([row.number for row in rows])
    again = f"{n} {sweep.step}{'s were' if n != 1 else ' was'} reported a second time by trials that were taken up"
    return (
        f"{again} again ({which}): {sweep.step}s spent count each once, worker time counts both; save checkpoints more "
        f"often where that is much"
    )


def _unsaved(progress: Progress, sweep: SweepFile) -> str:
    """Trials that could not be paused when their turn was over."""
    rows = _noted(progress, "unsaved")
    if not rows:
        return ""
    which, step = named([row.number for row in rows]), rows[0].noted["unsaved"][0]
    return (
        f"{len(rows)} trial{'s' * (len(rows) != 1)} could not be paused ({which}): the turn of trial {rows[0].number} "
        f"was over at {sweep.step} {step:g}, and it did not save; call ctx.save(state, step) after ctx.report where "
        f"ctx.checkpoint_due, and go on from ctx.load()"
    )


def _lengths(progress: Progress, sweep: SweepFile) -> str:
    complete = progress.of("complete")
    early = [row.spent for row in complete if row.spent < sweep.max_steps]
    end = f"{sweep.step} {sweep.max_steps}"
    if not early and _noted(progress, "beyond"):
        return f"reports after {end} were ignored: set max_steps to the objective's own length, or let it end there"
    if not early:
        return ""
    longest = f"the longest of these at {sweep.step} {max(early)}" if len(early) > 1 else f"at {sweep.step} {early[0]}"
    ended = f"{len(early)} of {len(complete)} complete trials ended before {end}, {longest}"
    meant = f"if they are meant to train {sweep.max_steps} {sweep.step}s, {_how_told(sweep)}"
    known = _known(sweep, all_early=len(early) == len(complete))
    return f"{ended}: if they stop early by themselves, nothing is to be done{known}; {meant}"


def _known(sweep: SweepFile, *, all_early: bool) -> str:
    """What follows from early ends, in brackets; nothing where nothing is stopped."""
    if sweep.pruner.kind == "none":
        return ""
    saved = f"{sweep.step}s saved are counted to where they ended"
    if sweep.pruner.kind != "curve":
        return f" ({saved})"
    asked = "the best value by the last end" if sweep.judged == "best" else "the final value at their ends"
    return f" (looks ask about {asked}{', or further, for another may go on' * all_early}; {saved})"


def _how_told(sweep: SweepFile) -> str:
    """How the objective gets max_steps. Braces are named as what they are: nobody may take them for a gap in a text."""
    if sweep.objective.command is None:
        return "the objective gets that number as ctx.max_steps"
    if any("max_steps" in placeholders(part) for part in sweep.objective.command):
        return "see what the program does with that number, which its command line passes on"
    where = "where its command line has the placeholder '{max_steps}'"
    return f"the program gets that number {where}, and in the environment variable LCSEARCH_MAX_STEPS"


def _repeated(progress: Progress, sweep: SweepFile) -> str:
    rows = _noted(progress, "repeated")
    if not rows:
        return ""
    step = f"{sweep.step} {rows[0].noted['repeated'][0]:g}"
    return (
        f"{step} of trial {rows[0].number} was reported more than once{_others(rows)}: the first report of a step "
        f"stands, the others were ignored; report each {sweep.step} once, counted from the trial's begin"
    )


def _descending(progress: Progress, sweep: SweepFile) -> str:
    rows = _noted(progress, "descending")
    if not rows:
        return ""
    step, last = (*rows[0].noted["descending"], math.nan)[:2]
    return (
        f"trial {rows[0].number} reported {sweep.step} {step:g} after {sweep.step} {last:g}{_others(rows)}: a curve is "
        f"read in the order of its steps, so count what was trained upwards, not what is left"
    )


def _others(rows: Sequence[Row]) -> str:
    n = len(rows) - 1
    return f" (and so in {n} other trial{'s' * (n != 1)})" if n else ""


def _returned(progress: Progress, sweep: SweepFile) -> str:
    rows = [row for row in _noted(progress, "returned") if row.state == "complete"]
    if not rows:
        return ""
    row, value = rows[0], rows[0].noted["returned"][0]
    reached = row.reached(sweep.target)
    judged = f"{reached[0]:.6g} at {sweep.step} {reached[1]}" if reached is not None else "nothing finite"
    last = row.last is not None and math.isclose(value, row.last[1], rel_tol=1e-6)
    text = f"trial {row.number} returned {value:.6g}{' (its last report)' * last} and is judged by its {sweep.judged} "
    text += f"{sweep.metric}, {judged}{_others(rows)}: what is returned is not used; "
    return text + ("set judged: final if it should count" if last else "report what is to be judged, or return nothing")


def _without_numbers(progress: Progress, sweep: SweepFile) -> str:
    mute = [row for row in progress.rows if row.values and not any(map(math.isfinite, row.values.values()))]
    mute = [row for row in mute if row.state != "running"]
    if not mute:
        return ""
    n, all_of, which = len(mute), len([row for row in progress.rows if row.values]), named([row.number for row in mute])
    return (
        f"{n} of {all_of} trials that reported have no finite {sweep.metric} at all ({which}), "
        f"so they count for nothing: see what explain tells of one, and take out of the space what they share"
    )


def _diverged(progress: Progress, sweep: SweepFile) -> str:
    best = progress.best
    if best is None or sweep.judged != "best":
        return ""
    row = progress.numbered[best.number]
    values, sign = list(row.values.values()), sweep.target.sign
    first = next((value for value in values if math.isfinite(value)), math.nan)
    ended = _gone(values) if not math.isfinite(values[-1]) else sign * values[-1] > sign * first
    if row.state == "running" or "descending" in row.noted or not ended:
        return ""
    how = "no finite number any more" if not math.isfinite(values[-1]) else f"{values[-1]:.6g}, worse than its first"
    keep = "keep a checkpoint of the best" if sweep.objective.python is not None else "let the program keep its best"
    return (
        f"the best value is of a trial that diverged later: trial {best.number} reached {best.value:.6g} at "
        f"{sweep.step} {best.step}, its report at {sweep.step} {next(reversed(row.values))} is {how}; "
        f"{keep} {sweep.step}, or set judged: final"
    )


def _gone(values: Sequence[float]) -> bool:
    """Are there longer no finite values at the end than between any two, where the metric is not measured each step?"""
    gaps = [len(list(run)) for finite, run in groupby(values, math.isfinite) if not finite]
    return gaps[-1] > max(gaps[:-1], default=0)
