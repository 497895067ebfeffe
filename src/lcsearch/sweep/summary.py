"""The last words of a sweep, and the story of one trial: plain text for any terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lcsearch.errors import FileProblem
from lcsearch.sweep.budget import ended_by, read_clock
from lcsearch.sweep.claim import times
from lcsearch.sweep.file import Scalar, SweepFile
from lcsearch.sweep.folder import RunFolder
from lcsearch.sweep.looks import LookTail
from lcsearch.sweep.picture import CALIBRATION, risk_now
from lcsearch.sweep.progress import Progress, Row, spark
from lcsearch.sweep.text import best_line, clock, money

if TYPE_CHECKING:
    import optuna

_FAILURES_SHOWN = 10


def summarize(
    progress: Progress, sweep: SweepFile, study: optuna.Study, folder: Path, seconds: float | None = None
) -> str:
    """Best value and configuration, steps spent and saved, each stop with its reason, failures, risk, what next.

    `seconds` are those of the last launch; None when the run is only looked at.
    """
    counts = progress.counts
    said = ", ".join(f"{counts[s]} {s}" for s in ("complete", "stopped", "failed", "running", "waiting") if s in counts)
    lines = [f"{sweep.name}: {said or 'no trials'}{_time(progress, folder, seconds)}"]
    if progress.best is not None:
        lines += [f"best: {best_line(progress.best, sweep)}", *configuration(progress.best.params, "  ")]
        if progress.best.state != "complete":
            lines.append(f"  (trial {progress.best.number} is {progress.best.state}, not complete)")
    total = progress.spent + progress.saved
    share = f" ({progress.saved / total:.0%} of {total})" if total else ""
    lines.append(f"{sweep.step}s: {progress.spent} spent, {progress.saved} saved{share}")
    lines += _spending(progress, sweep, read_clock(RunFolder(folder)).seconds)
    if sweep.pruner.kind == "curve":
        risk = risk_now(study)
        text = "not known yet" if risk is None else f"{risk:.1%} ({CALIBRATION})"
        lines.append(f"risk that some stop lost the winner: {text}")
        looks = LookTail(folder / "decisions").line()
        if looks is not None:
            lines.append(looks)
    stopped, failed = progress.of("stopped"), progress.of("failed")
    if stopped:
        lines.append("stopped:")
        lines += [f"  trial {row.number}: {row.note}" for row in stopped]
    if failed:
        lines.append("failed:")
        lines += [f"  trial {row.number}: {row.note}" for row in failed[:_FAILURES_SHOWN]]
        if len(failed) > _FAILURES_SHOWN:
            lines.append(f"  and {len(failed) - _FAILURES_SHOWN} more")
    lines.append(f"files: {shown(folder)}")
    example = stopped or progress.of("complete") or failed
    if example:
        lines.append(f"next: lcsearch explain {example[0].number} --folder {shown(folder)}")
    return "\n".join(lines)


def _time(progress: Progress, folder: Path, seconds: float | None) -> str:
    """How long it took; of a run that was resumed, all its launches together, where they were counted."""
    if seconds is None:
        return ""
    total = read_clock(RunFolder(folder)).counted
    began = min((row.began.timestamp() for row in progress.rows if row.began is not None), default=time.time())
    if began >= time.time() - seconds - 1:
        return f" in {clock(seconds)}"
    if total is None:
        return f" ({clock(seconds)} in this launch)"
    return f" in {clock(max(total, seconds))} ({clock(seconds)} in this launch)"


def _spending(progress: Progress, sweep: SweepFile, seconds: float) -> list[str]:
    """What it cost where a worker's hour has a price, and which limit ended it where there are several."""
    lines, budget = [], sweep.budget
    if budget.money_per_hour is not None:
        spent, saved = (s / 3600 * budget.money_per_hour for s in (progress.seconds, progress.seconds_saved))
        hours = f"{progress.seconds / 3600:.3g} worker hours at {budget.money_per_hour:g}"
        lines.append(f"money: {money(spent)} spent ({hours}), about {money(saved)} saved")
    limit = ended_by(budget, len(progress.rows), progress.spent, seconds)
    if limit is not None and (budget.steps is not None or budget.seconds is not None):
        n = f"{len(progress.rows)} of {budget.trials} trials"
        match limit:
            case "trials":
                text = n
            case "steps":
                text = f"{progress.spent} of {budget.steps} {sweep.step}s were spent after {n} had begun"
            case _:
                assert budget.seconds is not None
                text = f"{seconds:.3g} of {budget.seconds:g} seconds were used after {n} had begun"
        lines.append(f"ended by budget.{limit}: {text}")
    return lines


def configuration(params: Mapping[str, Scalar], indent: str) -> list[str]:
    """One `name: value` a line, as a sweep file would have it."""
    return [f"{indent}{name}: {_value(value)}" for name, value in params.items()]


def _value(value: Scalar) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def shown(path: Path) -> str:
    """The path from where the user stands, if that is shorter to type."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def explain(number: int, progress: Progress, sweep: SweepFile, study: optuna.Study, folder: RunFolder) -> str:
    """The full story of one trial.

    Raises:
        FileProblem: there is no such trial.
    """
    row = progress.numbered.get(number)
    if row is None:
        known = f"0 to {progress.rows[-1].number}" if progress.rows else "none yet"
        raise FileProblem(f"{folder.root}: expected the number of a trial ({known}), got {number}.")
    lines = [f"trial {number}: {row.state}, {row.spent} of {sweep.max_steps} {sweep.step}s"]
    lines += configuration(row.params, "  ")
    lines += _curve(row, sweep)
    if row.retries:
        lines.append(f"its worker died {times(row.retries)}; it went on from its last checkpoint, if any")
    if row.state == "failed":
        lines.append(f"error: {row.note}")
    explainer = getattr(study.pruner, "explain", None)
    if explainer is not None and row.state != "failed":
        lines.append(str(explainer(study.get_trials(deepcopy=False)[number], study)))
    elif row.note and row.state == "stopped":
        lines.append(row.note)
    elif row.state == "complete":
        lines.append("it was not stopped")
    best = progress.best
    if best is not None:
        lines.append("it is the best trial" if best.number == number else f"best: {best_line(best, sweep)}")
    lines.append(f"checkpoints: {shown(folder.checkpoints(number))}")
    if row.slot is not None:
        log = folder.trial_log(number) if sweep.backend.kind == "ray" else folder.log(row.slot)
        lines.append(f"printed to: {shown(log)}")
    return "\n".join(lines)


def _curve(row: Row, sweep: SweepFile) -> list[str]:
    if not row.values:
        return ["it reported nothing"]
    values = list(row.values.values())
    steps = list(row.values)
    lines = [f"{sweep.metric} over {sweep.step} {steps[0]}..{steps[-1]}: {spark(values, 40)}"]
    lines.append(f"  first {values[0]:.6g}, last {values[-1]:.6g}")
    finite = [(v, s) for s, v in row.values.items() if math.isfinite(v)]
    if finite:
        value, step = min(finite) if sweep.goal == "minimize" else max(finite, key=lambda vs: (vs[0], -vs[1]))
        lines[-1] += f", best {value:.6g} at {sweep.step} {step}"
    if len(finite) < len(values):
        lines[-1] += f"; {len(values) - len(finite)} reports were no finite number"
    return lines
