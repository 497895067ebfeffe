"""The outlook in words: lines for people, one JSON object a trial for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lcsearch.forecast.contract import Absent
from lcsearch.outlook.facts import Forecast, Outlook, Prospect
from lcsearch.outlook.standing import Standing
from lcsearch.stopping.decision import percent
from lcsearch.study import Status
from lcsearch.terminal import one_line

_WHY = {
    Absent.LATE: "no answer within the deadline",
    Absent.FAILED: "the forecaster failed",
    Absent.NONFINITE: "nothing finite to forecast from",
    Absent.UNSUPPORTED: "unlike anything that the forecaster knows",
}

NARROW = "  (of configurations not begun such intervals of the network are narrow: 48 to 78 % of the ends were inside)"
"""Measured in searches of three tables, see docs/results.md."""


def head(found: Outlook, standing: Standing) -> list[str]:
    """What was read, what has to be beaten, and who says so."""
    goal, unit = found.goal, standing.step
    lines = [f"read {standing.source}"]
    best = found.incumbent
    side = f"{'below' if goal.sign > 0 else 'above'} {found.target:.6g}" if found.target is not None else ""
    if best is not None:
        line = f"incumbent: trial {best.uid}, {standing.metric} {best.value:.6g} at {unit} {best.step:g}"
        lines.append(f"{line}; P(beat) is that of {side}, the margin of a look included" if side else line)
    else:
        line = "incumbent: none yet, for no trial is complete"
        lines.append(f"{line}; P(beat) is that of {side}, the best seen" if side else line)
    who = ", ".join(f"{name} ({version})" for name, version in found.forecasters.items())
    what = f"{'the best' if goal.judged == 'best' else 'the final'} {standing.metric} by {unit} {found.horizon:g}"
    which = "; of several the one most in the trial's favour, as in a look" if len(found.forecasters) > 1 else ""
    lines.append(f"forecasts by {who}: median and 80 % interval of {what}{which}")
    return lines


def table(found: Outlook, standing: Standing, top: int | None) -> list[str]:
    """A line for each begun trial, the most promising first."""
    rows = [["trial", "state", standing.step, "last", "best", "forecast (80 %)", "P(beat)"]]
    for one in found.trials[:top]:
        mark = " *" if found.incumbent is not None and one.trial.uid == found.incumbent.uid else ""
        last, best = _values(one, found)
        step = f"{one.trial.curve.last_step:g}"
        rows.append([one.trial.uid + mark, one.state, step, _number(last), _number(best), *_said(one, found)])
    lines = _aligned(rows, left=(1, 5))
    if top is not None and len(found.trials) > top:
        lines.append(f"and {len(found.trials) - top} more (--top {len(found.trials)} shows all)")
    return lines


def unseen(found: Outlook, top: int | None) -> list[str]:
    """A line for each configuration that has a forecast, the most promising first; the others by reason."""
    told = [one for one in found.unseen if one.forecast is not None]
    rows = [["not begun", "forecast (80 %)", "P(beat)", "configuration"]]
    for one in told[:top]:
        config = one_line(" ".join(f"{name}={_plain(value)}" for name, value in one.trial.params.items()))
        rows.append([one.trial.uid, *_said(one, found), config])
    lines = _aligned(rows, left=(0, 1, 3)) if told else []
    if top is not None and len(told) > top:
        lines.append(f"and {len(told) - top} more (--top {len(told)} shows all)")
    if any(one.forecast.by == "network" for one in told if one.forecast is not None):
        lines.append(NARROW)
    silent: dict[str, int] = {}
    for one in found.unseen:
        if one.forecast is None:
            why = _absent(one)
            silent[why] = silent.get(why, 0) + 1
    lines += [f"not begun: no forecast of {n} configuration{'s' * (n != 1)}: {why}" for why, n in silent.items()]
    return lines


def objects(found: Outlook, top: int | None) -> Iterator[str]:
    """One JSON object a line for each begun trial, then for each configuration; both with the most promising first.

    Keys: `trial` (null for a configuration that is not begun), `candidate` (where it was read or drawn; null for a
    trial), `state`, `step` (of the last report), `last`, `best` (values; null where not finite), `value` (judged, of a
    complete trial), `by` (the step at which it is judged), `low`, `median`, `high` (quantiles at 10, 50 and 90 %),
    `p_beat`, `forecaster`, `absent` (forecaster -> {`reason`, `error`} of those that gave no forecast), `params`,
    `incumbent` ({`trial`, `value`, `step`} or null) and `target` (what must be passed for `p_beat`: without an
    incumbent the best value seen; null for none).
    """
    best = found.incumbent
    incumbent = None if best is None else {"trial": best.uid, "value": best.value, "step": best.step}
    for one in (*found.trials[:top], *found.unseen[:top]):
        begun = one.trial.curve.n_reports > 0
        last, top_value = _values(one, found)
        said = one.forecast
        entry: dict[str, Any] = {
            "trial": one.trial.uid if begun else None,
            "candidate": None if begun else one.trial.uid,
            "state": one.state,
            "step": one.trial.curve.last_step if begun else None,
            "last": last,
            "best": top_value,
            "value": one.worth,
            "by": one.end,
            **{name: getattr(said, name) if said is not None else None for name in ("low", "median", "high", "p_beat")},
            "forecaster": None if said is None else said.by,
            "absent": {name: {"reason": why.name, "error": error} for name, (why, error) in (one.absent or {}).items()},
            "params": _finite(one.trial.params),
            "incumbent": incumbent,
            "target": found.target,
        }
        yield json.dumps(_finite(entry), allow_nan=False, default=str)


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in entry.items()}


def _values(one: Prospect, found: Outlook) -> tuple[float, float]:
    """The last report and the best finite one; NaN where there is none."""
    curve, sign = one.trial.curve, found.goal.sign
    last = float(curve.reports()[1][-1]) if curve.n_reports else math.nan
    return last, float((sign * curve.values).min() * sign) if len(curve) else math.nan


def _said(one: Prospect, found: Outlook) -> tuple[str, str]:
    """Forecast and P(beat), or in the forecast's place why there is none."""
    if one.forecast is not None:
        p = one.forecast.p_beat
        return interval(one.forecast), "" if p is None else percent(p)
    if one.worth is not None:
        is_it = found.incumbent is not None and one.trial.uid == found.incumbent.uid
        return f"{one.worth:.5g}, {'the incumbent' if is_it else 'complete'}", ""
    if one.trial.status is Status.FAILED:
        return "none: it failed", ""
    if one.trial.status is Status.COMPLETE:
        return "none: it ended without a finite value", ""
    return f"none: {_absent(one)}", ""


def interval(said: Forecast) -> str:
    """`0.0712 (0.069 to 0.0784)`."""
    return f"{said.median:.5g} ({said.low:.5g} to {said.high:.5g})"


def _absent(one: Prospect) -> str:
    """Why nobody gave a forecast."""
    several = len(one.absent or {}) > 1
    told = []
    for name, (why, error) in (one.absent or {}).items():
        alone = why is Absent.NONFINITE and not one.trial.curve.n_reports
        text = "nothing is forecast from a configuration alone" if alone else _WHY[why]
        text += f": {error}" if error else ""
        told.append(f"{text} ({name})" if several else text)
    return "; ".join(told)


def _number(value: float) -> str:
    return f"{value:.5g}"


def _plain(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Columns as wide as their widest cell; those of `left` flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
