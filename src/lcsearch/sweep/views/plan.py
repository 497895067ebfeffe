"""`lcsearch plan`: what a sweep would be, cost and hold, before anything is started.

Least and most compute follow from the file. What lies between depends on the curves, which nobody has seen yet: an
earlier run of the sweep is the best witness; without one, shares that were measured on one other sweep must do.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcsearch.checkpoint import UNFINISHED
from lcsearch.errors import LcsearchError
from lcsearch.secrets_in_urls import mask
from lcsearch.stopping.policy import Policy
from lcsearch.sweep.monitor.progress import Progress
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.pruner import CurvePrunerSpec, HyperbandPrunerSpec, MedianPrunerSpec
from lcsearch.sweep.store.budget import worker_seconds
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.turns import asked_at
from lcsearch.sweep.views.phrases import clock, money, more_told, spacing
from lcsearch.sweep.views.plan_turns import allocated, size_told, stops_beside, turn_lines
from lcsearch.sweep.views.summary import shown

_POLICY = Policy()  # what a sweep file cannot set is as here
_WORD = re.compile(r"[A-Za-z0-9_./]([A-Za-z0-9_./:-]*[A-Za-z0-9_./])?")
_ENOUGH = 10  # trials that could have been stopped, before a run's own shares count


@dataclass(frozen=True)
class Shares:
    """How a pruner has stopped.

    Attributes:
        stopped: of the trials that did not have to run to the end, the share that was stopped.
        beyond: where they stopped: 0 is the earliest look that can stop, 1 the horizon; the mean.
        source: where this was measured.
    """

    stopped: float
    beyond: float
    source: str


_E5 = "a rule of thumb: the digits sweep, five seeds, experiments/e5_digits; other tasks differ"
MEASURED = {
    "curve": Shares(0.863, 0.164, _E5),
    "median": Shares(0.749, 0.047, _E5),
    "hyperband": Shares(0.750, 0.132, _E5),
}
"""From experiments/e5_digits/results.json; a test works them out anew."""


@dataclass(frozen=True)
class Gates:
    """When a trial can be stopped at the earliest.

    Attributes:
        whole: trials that run to the end whatever they report, since nothing can be stopped before they have ended.
        first: the earliest step of a stop; None: nothing can be stopped.
    """

    whole: int
    first: int | None


def gates(file: SweepFile) -> Gates:
    """The gates that the file alone decides; one report at each step from 1 is assumed."""
    n, horizon = file.budget.trials, file.max_steps
    match file.pruner:
        case CurvePrunerSpec() as spec:
            # nothing is stopped before there is an incumbent, and finished trials to compare with at the step
            whole = max(spec.n_startup_trials, spec.n_min_trials, 1)
            if _by_rivals(file):  # those that run are compared with each other, beside any that have ended
                whole = min(whole, max(_POLICY.min_comparisons + 1 - file.backend.workers.n, 0))
            late = max(_POLICY.min_observations - spec.n_warmup_steps, 0)  # two reports are needed: fewer
            first = spec.n_warmup_steps + spec.interval_steps * math.ceil(late / spec.interval_steps)
        case MedianPrunerSpec() as spec:
            whole = max(spec.n_startup_trials, spec.n_min_trials, 1)
            first = max(spec.n_warmup_steps, 1)
        case HyperbandPrunerSpec() as spec:
            whole, first = 0, spec.min_resource
        case _:
            return Gates(n, None)
    return Gates(min(whole, n), first) if first < horizon and whole < n else Gates(n, None)


def together(file: SweepFile) -> int:
    """Trials that are expected to run to the end: those that must, or as many as start together before one has."""
    found = gates(file)
    beside = file.backend.workers.n if found.whole and not _by_rivals(file) else 0
    return min(max(found.whole, beside), file.budget.trials)


def _by_rivals(file: SweepFile) -> bool:
    """Are trials compared with running ones until enough have ended, and do enough run at once for that?"""
    return isinstance(file.pruner, CurvePrunerSpec) and 0 < file.pruner.rivals < file.backend.workers.n


def shares(stops: Sequence[int], free: int, first: int, horizon: int, source: str) -> Shares:
    """Shares as measured: `stops` are the last steps of the stopped ones among `free` trials that could be stopped."""
    room = horizon - first
    beyond = [min(max(step - first, 0) / room, 1.0) for step in stops]
    return Shares(min(len(stops) / free, 1.0), sum(beyond) / len(beyond) if beyond else 0.0, source)


@dataclass(frozen=True)
class Earlier:
    """What an earlier run of the sweep measured.

    Attributes:
        shares: how its pruner stopped; None where it was another pruner or too few trials ended.
        seconds_per_step: workers' time for a step; None where no step was made.
        checkpoints: bytes of each trial's checkpoint folder that holds any.
        note: what it is, for people.
        start: seconds that a trial takes beside its steps.
        length: mean steps of its complete trials, where they ended by themselves before the horizon.
        paused_after: mean steps of its trials, where the same allocator paused them and enough ended.
    """

    shares: Shares | None
    seconds_per_step: float | None
    checkpoints: tuple[int, ...]
    note: str
    start: float = 0.0
    length: float | None = None
    paused_after: float | None = None


def earlier_run(sweep: Sweep, folder: RunFolder) -> Earlier | str | None:
    """The run in `folder` as a witness for `sweep`; a text says why it is none; None: there is no run.

    It must have trained the same objective over the same space to the same horizon.
    """
    if not folder.record.exists():
        return None
    from lcsearch.sweep.monitor.open_run import reader

    try:
        record = folder.read()
        before, now = record.file, sweep.file
        for key in ("objective", "space", "max_steps", "metric", "goal", "judged", "plan"):
            if getattr(before, key) != getattr(now, key):
                named = SweepFile.model_fields[key].alias or key
                return f"the run in {shown(folder.root)} is of another {named}, so it says nothing here"
        _, _, progress = reader(folder)
        found = progress()
    except LcsearchError as error:
        return f"the run in {shown(folder.root)} cannot be read: {error}"
    return witness(now, before, found, folder)


def witness(now: SweepFile, before: SweepFile, found: Progress, folder: RunFolder) -> Earlier:
    """What the run `before` in `folder`, which came as far as `found`, says of `now`."""
    source, first = f"the run in {shown(folder.root)}", gates(before).first
    ended = found.of("complete", "stopped")
    free = len(ended) - together(before)
    own = None
    alike, after = before.pruner == now.pruner and before.turns == now.turns, None
    if alike and now.turns is not None and len(ended) >= _ENOUGH:
        after = sum(row.spent for row in ended) / len(ended)
    if alike and now.turns is None and first is not None and free >= _ENOUGH:
        stops = [row.spent for row in ended if row.state == "stopped"]
        own = shares(stops, free, first, before.max_steps, f"{source}, {len(ended)} trials")
    timed = [row for row in ended if row.seconds > 0 and row.spent]
    taken, steps = sum(row.seconds for row in timed), sum(row.spent for row in timed)
    # without times of reports (an earlier lcsearch kept none) start-up cannot be told from steps
    in_steps = found.seconds_of({row.number: row.spent for row in timed}) if timed else None
    in_steps = taken if in_steps is None else min(in_steps, taken)
    per_step = in_steps / steps if timed else None
    start = (taken - in_steps) / len(timed) if timed else 0.0
    whole = [row.spent for row in ended if row.state == "complete"]
    length = sum(whole) / len(whole) if any(n < before.max_steps for n in whole) else None
    sizes = tuple(size for row in found.rows if (size := _bytes(folder.checkpoints(row.number))))
    return Earlier(own, per_step, sizes, source, start, length, after)


def _bytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.match(UNFINISHED))
    return sum(path.stat().st_size for path in files)


@dataclass(frozen=True)
class Compute:
    """Steps of the whole sweep."""

    least: int
    expected: int
    most: int
    source: str


def compute(file: SweepFile, earlier: Earlier | None = None) -> Compute:
    """Least, expected and most steps.

    With n trials of H steps, w of which run whole and the others of which can be stopped from step f on:
    least = w H + (n - w) f, most = n H, and where a share q is stopped, the share b of the way from f to H,
    expected = w' H + (n - w') ((1 - q) H + q (f + b (H - f))), with w' from :func:`together`.
    Where an earlier run's trials ended by themselves, their mean length takes the place of H in what is expected.
    Where an allocator with rungs pauses trials, its rungs say what is expected, or an earlier run of its.
    `budget.steps` and, where the pace is known, `budget.seconds` cut all three; trials that run then go on,
    or where they pause, to the end of their turn, which they reach as far as they save where they are asked to.
    """
    n, horizon, workers = file.budget.trials, file.max_steps, file.backend.workers.n
    found = gates(file)
    least = expected = most = n * horizon
    length = horizon if earlier is None or earlier.length is None else earlier.length
    source = "every trial runs to the end"
    if earlier is not None and length < horizon:
        expected = round(n * length)
        source = f"every trial runs to its own end, {file.step} {length:.3g} in {earlier.note}"
    if found.first is not None:
        known = earlier.shares if earlier is not None and earlier.shares is not None else MEASURED[file.pruner.kind]
        least = found.whole * horizon + (n - found.whole) * found.first
        whole = together(file)
        ends = min(found.first + known.beyond * (horizon - found.first), length)
        mean = (1 - known.stopped) * length + known.stopped * ends
        expected, source = round(whole * length + (n - whole) * mean), known.source
    if (by := allocated(file)) is not None:  # stops hardly begin where few run to the end
        expected, source = by
        if earlier is not None and earlier.paused_after is not None:
            expected, source = round(n * earlier.paused_after), earlier.note
    if (first := asked_at(file)[0]) < horizon:  # all paused there for ever, but one
        least = min(least, round(n * first + horizon - first))
    for limit in _step_limits(file, earlier, expected):
        # at the last begin, limit - 1 steps are spent at most, and the other workers' trials may be young
        most = min(most, ((limit - 1) // horizon + workers) * horizon)
        expected, least = min(expected, max(limit, 1)), min(least, limit)
    if file.pause and file.budget.steps is not None:  # turns are given that it pays for, and no others
        most = min(most, file.budget.steps)
    return Compute(min(least, expected), expected, most, source)


def _step_limits(file: SweepFile, earlier: Earlier | None, expected: int) -> list[int]:
    limits = [file.budget.steps] if file.budget.steps is not None else []
    worked = worker_seconds(file)
    if math.isfinite(worked) and earlier is not None and earlier.seconds_per_step:
        per_step = earlier.seconds_per_step + earlier.start * file.budget.trials / max(expected, 1)
        limits.append(math.ceil(worked / per_step))
    return limits


def describe(sweep: Sweep, folder: RunFolder) -> str:
    """The whole plan as text."""
    file = sweep.file
    earlier = earlier_run(sweep, folder)
    witness = earlier if isinstance(earlier, Earlier) else None
    lines = [f"# {shown(sweep.path)}, resolved", mask(as_yaml(file)).rstrip(), ""]
    n, horizon = file.budget.trials, file.max_steps
    ends = "stopped" if file.turns is None else "cut or stopped"
    lines.append(f"{file.name}: {n} trials of {horizon} {file.step}s, {n * horizon} {file.step}s if none is {ends}")
    if isinstance(earlier, str):
        lines.append(f"note: {earlier}")
    lines += compute_lines(file, compute(file, witness), witness)
    lines.append(_disk_line(n, witness))
    sizes = () if witness is None else witness.checkpoints
    lines += turn_lines(file, sum(sizes) / len(sizes) if sizes else None, "" if witness is None else witness.note)
    stops = "what holds a stop:" if file.turns is None else "what holds a stop, which goes before a pause:"
    lines += [stops, *(f"  {line}" for line in _gate_lines(file))]
    lines.append("nothing was started")
    return "\n".join(lines)


def compute_lines(file: SweepFile, plan: Compute, earlier: Earlier | None) -> list[str]:
    """What `plan` says of steps, time and money."""
    total, pace = file.budget.trials * file.max_steps, earlier.seconds_per_step if earlier is not None else None
    start = earlier.start if earlier is not None else 0.0
    lines = []
    for name, steps in (("least", plan.least), ("expected", plan.expected), ("most", plan.most)):
        text = f"{name}: {steps} {file.step}s ({steps / total:.0%})"
        if pace is not None:
            seconds = steps * pace + file.budget.trials * start
            text += f", {clock(seconds / file.backend.workers.n)} of wall clock on {file.backend.workers.n} workers"
            if file.budget.money_per_hour is not None:
                text += f", money {money(seconds / 3600 * file.budget.money_per_hour)}"
        lines.append(text)
    lines.append(f"  expected by {plan.source}")
    if pace is not None and earlier is not None:
        text = f"  time by {earlier.note}: {pace:.3g} s of a worker for {_a(file.step)}"
        lines.append(text + (f", {start:.3g} s for a trial to start and end" if start else ""))
    else:
        costs = " and money" if file.budget.money_per_hour is not None else ""
        lines.append(f"  time{costs}: not known before a first run")
    if file.budget.steps is not None:
        text = f"no trial is begun after {file.budget.steps} {file.step}s; those that run go on"
        if file.pause:
            text = f"none is begun or resumed whose turn would end beyond {file.budget.steps} {file.step}s in all"
            text += ", where trials save as they are asked to"
        lines.append(f"  budget.steps: {text}")
    turn = " to the end of their turn; nothing is begun or resumed that cannot end by then, as far as its pace tells"
    turn += ", which is rounded down, and without its start-up"
    turn += "; where steps leave less than time, no pace counts" if file.budget.steps is not None else ""
    in_time = turn if file.pause else ""
    if file.budget.seconds is not None:
        text = f"  budget.seconds: no trial is begun after {clock(file.budget.seconds)}; those that run go on{in_time}"
        lines.append(text + ("" if pace is not None else " (not counted above: the pace is not known)"))
    if file.budget.money is not None:
        text = f"  budget.money: no trial is begun after {money(file.budget.money)}; those that run go on{in_time}"
        lines.append(text + ("" if pace is not None else " (not counted above: the pace is not known)"))
    if (asked := file.budget.stop_when) is not None:
        text = f"  budget.stop_when: no trial is begun once another {more_told(asked, file.step)} would gain less than "
        lines.append(f"{text}{asked.gain:g} (not counted above)")
        lines += [f"  ! {file.budget.idle_stop_when}"] if file.budget.idle_stop_when else []
    return lines


def _a(word: str) -> str:
    return f"{'an' if word[0].lower() in 'aeio' else 'a'} {word}"


def _disk_line(n: int, earlier: Earlier | None) -> str:
    head = "checkpoints: one folder a trial, kept"
    if earlier is None or not earlier.checkpoints:
        return f"{head}; their size is not known before a first run that saves"
    sizes = earlier.checkpoints
    mean, largest = sum(sizes) / len(sizes), max(sizes)
    text = f"{size_told(n * mean)} for {n} trials, {size_told(n * largest)} at most"
    return f"{head}; {text} (by {earlier.note}: {size_told(mean)} each, the largest {size_told(largest)})"


def _gate_lines(file: SweepFile) -> list[str]:
    found, n, spec = gates(file), file.budget.trials, file.pruner
    step, workers = file.step, file.backend.workers.n
    lines = []
    match spec:
        case CurvePrunerSpec():
            lines += [
                _startup_line(file, spec, found),
                f"short curves: nothing is stopped before {_POLICY.min_observations} reports"
                f" (n_warmup_steps {spec.n_warmup_steps}, interval_steps {spec.interval_steps})",
                f"looks: {spacing(spec.look_growth)}",
                f"guard: the best {spec.guard:.3g} of all at their own {step} are not stopped, nor where fewer than"
                f" {_POLICY.min_comparisons} others can be compared",
                f"threshold: P(beat) must be below {spec.threshold:g} at a report and at the one before"
                f" ({spec.threshold * _POLICY.few_factor:g} below {_POLICY.few} reports)",
                "risk: no limit"
                if spec.risk is None
                else f"risk: no stop may take the bound of the risk that the winner was lost above {spec.risk:g}",
                *(
                    [f"audit: {spec.audit:.3g} of the stops are not carried out, to count wrong ones"]
                    * (spec.audit > 0)
                ),
                f"not held: a metric that is not finite {_POLICY.divergence_reports} times in a row stops as diverged"
                " where a finished trial has a value; twice that before its first one,"
                " or where it ranked among the best",
            ]
        case MedianPrunerSpec():
            lines.append(f"startup: nothing is stopped before {found.whole} trials have run to the end")
            lines.append(f"warm-up: nothing is stopped before {step} {spec.n_warmup_steps}")
        case HyperbandPrunerSpec():
            lines.append(f"rungs: nothing is stopped before {step} {spec.min_resource}")
        case _ if file.turns is not None:
            lines.append(f"no pruner: {file.turns.kind} alone ends trials early")
        case _:
            lines.append("no pruner: every trial runs to the end")
    if found.first is None:
        if spec.kind != "none":
            lines.append(f"so no trial can be stopped: the gates open after {n} trials or {step} {file.max_steps}")
        return lines
    if file.turns is not None:
        return [*lines, stops_beside(file, found.whole, found.first)]
    lines.append(f"so {n - found.whole} of {n} trials can be stopped, from {step} {found.first} of {file.max_steps} on")
    if workers > found.whole > 0 and not _by_rivals(file):
        text = f"{workers} workers start {workers} trials at once: expect those to run nearly whole"
        lines.append(text + " (pruner.rivals=1 compares them with each other)" * isinstance(spec, CurvePrunerSpec))
    return lines


def _startup_line(file: SweepFile, spec: CurvePrunerSpec, found: Gates) -> str:
    if not _by_rivals(file):
        return f"startup: nothing is stopped before {found.whole} trials have run to the end"
    n = spec.n_startup_trials
    best = "the running one that stands best" if spec.rivals == 1 else f"the best {spec.rivals} of the running ones"
    text = f"startup: before {n} trials have run to the end, one is stopped only as unlikely to beat {best}"
    return text + f", and none before {found.whole} have" * (found.whole > 0)


def as_yaml(file: SweepFile) -> str:
    """The resolved file: `load` reads it as the same sweep."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        """Quotes every text that is not one plain word: in a list, ruamel.yaml leaves `?x` bare, and reads a key."""

    def text(representer: Any, value: str) -> Any:
        style = None if _WORD.fullmatch(value) else '"'
        return representer.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Representer.add_representer(str, text)
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style, yaml.width = None, 4096
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # it says None, and asks for truth
    out = io.StringIO()
    yaml.dump(_said(file.model_dump(mode="json", by_alias=True)), out)
    return out.getvalue()


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    """Without keys that say nothing; a constant may be nothing, and an option too."""
    said: dict[str, Any] = {}
    for key, value in data.items():
        if key == "space":
            said[key] = {name: _said(p) if isinstance(p, Mapping) else p for name, p in value.items()}
        elif value is not None:
            said[key] = _said(value) if isinstance(value, Mapping) else value
    return said
