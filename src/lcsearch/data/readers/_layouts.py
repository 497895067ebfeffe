"""What the columns of a CSV file mean: our own layouts, columns named by the user, and the exports of other tools.

    Weights & Biases, a panel's CSV    Step, "RUN - METRIC", "RUN - METRIC__MIN", "RUN - METRIC__MAX" and so on
    Weights & Biases, run histories    _step, _runtime, METRIC ..., and a column that tells runs apart
    MLflow, metric histories           run_id, key, value, timestamp, step
    Ray Tune, progress.csv             training_iteration, time_total_s, trial_id, METRIC ...

Two tables hold one value a trial, no curves: Optuna's `trials_dataframe()` and MLflow's `search_runs()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lcsearch.data.readers._assemble import ReadOptions
from lcsearch.data.tables import hint, listing
from lcsearch.errors import FileProblem, InvalidValue

PARAM = "param_"
LONG = "trial,step,value[,time][,state][,param_NAME ...]"
WIDE = "trial[,state][,param_NAME ...] and then one column a step, named by its number"
NAME_THEM = "Say which columns they are: --trial, --step, --value"
RUN_COLUMNS = ("run", "run_name", "name", "run_id", "id")
NO_METRICS = frozenset(
    {
        *("training_iteration", "trial_id", "experiment_id", "experiment_tag", "episodes_total", "timesteps_total"),
        *("timesteps_since_restore", "should_checkpoint", "checkpoint_dir_name", "warmup_time", "time_this_iter_s"),
        *("time_total_s", "time_since_restore", "iterations_since_restore", "timestamp", "pid", "done", "hostname"),
        *("node_ip", "date"),
    }
)
"""Columns and keys that Ray Tune adds to what a training reports."""


@dataclass(frozen=True)
class Long:
    """One row a report.

    Attributes:
        trial, step, value: columns.
        metric: what the value is called.
        time: column of the seconds since the trial's start.
        key: column that names the metric of each row, where a table holds several.
    """

    trial: str
    step: str
    value: str
    metric: str
    time: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Panel:
    """One row a step, one column a run.

    Attributes:
        step: column.
        runs: column -> run.
        metric: what the values are.
    """

    step: str
    metric: str
    runs: Mapping[str, str] = field(default_factory=dict)


def layout(header: Sequence[str], wish: ReadOptions, where: str) -> Long | Panel | None:
    """What the header says; None for our own wide layout.

    Raises:
        FileProblem: it says nothing that is known.
        InvalidValue: a column was named that is not there, or one must be named.
    """
    for option, column in (("--trial", wish.trial), ("--step", wish.step)):
        if column is not None and column not in header:
            expected = f"a column, one of {listing(header)}"
            raise InvalidValue(expected, column, f"{where}: {option}", hint(column, header))
    columns = set(header)
    if {"trial", "step"} <= columns and not (wish.trial or wish.step):
        return _long(header, wish, where, "trial", "step", "time")
    if wish.trial is None and (panel := _panel(header, wish, where)) is not None:
        return panel
    if {"run_id", "key", "value", "step"} <= columns and not (wish.trial or wish.step):
        return Long("run_id", "step", "value", wish.metric or "", key="key")
    trial, step, time = wish.trial, wish.step, "time"
    if "training_iteration" in columns:
        trial, step, time = trial or "trial_id", step or "training_iteration", "time_total_s"
    elif "_step" in columns:
        trial = trial or next((name for name in RUN_COLUMNS if name in columns), None)
        step, time = step or "_step", "_runtime"
        if trial is None:
            text = f"the column that tells runs apart, one of {listing(header)}"
            raise InvalidValue(text, None, f"{where}: --trial", "this looks like a run history of Weights & Biases")
    elif trial is None and step is None:
        _check_wide(header, where)
        return None
    trial, step = trial or "trial", step or "step"
    if missing := [name for name in (trial, step) if name not in columns]:
        text = f"{where}: expected a column {missing[0]!r}, got {listing(header)}."
        raise FileProblem(f"{text} {NAME_THEM}.")
    return _long(header, wish, where, trial, step, time)


def _long(header: Sequence[str], wish: ReadOptions, where: str, trial: str, step: str, time: str) -> Long:
    names = {trial, step, time, "state", *NO_METRICS} - {wish.metric}
    others = [c for c in header if c not in names and not c.startswith((PARAM, "config/", "_"))]
    wanted = wish.metric
    if wanted is None:
        wanted = others[0] if len(others) == 1 and "value" not in others else "value"
    if wanted not in header or wanted in (trial, step):
        if wish.metric is None:
            text = f"{where}: expected a column value, got {listing(header)}."
            raise FileProblem(f"{text} Name the column with metric= (--value)." if others else text)
        raise InvalidValue(f"a column, one of {listing(others)}", wanted, f"{where}: metric", hint(wanted, others))
    return Long(trial, step, wanted, wanted, time if time in header else None)


def _panel(header: Sequence[str], wish: ReadOptions, where: str) -> Panel | None:
    """A panel of Weights & Biases: names of runs and metrics, joined by " - ". A run's name may hold that too."""
    first, *rest = header
    if (wish.step or first) not in header or not rest:
        return None
    columns = [c for c in rest if " - " in c and not c.endswith(("__MIN", "__MAX"))]
    if not columns or not all(" - " in c for c in rest if c != wish.step):
        return None
    split = {column: column.rpartition(" - ")[::2] for column in columns}
    metrics = sorted({metric for _, metric in split.values()} - {"_step", "_timestamp", "_runtime"})
    wanted = wish.metric or (metrics[0] if len(metrics) == 1 else None)
    if wanted not in metrics:
        advice = hint(wanted, metrics) if wanted else "name the one to replay"
        raise InvalidValue(f"one of the metrics {listing(metrics)}", wanted, f"{where}: metric", advice)
    return Panel(wish.step or first, wanted, {c: run for c, (run, metric) in split.items() if metric == wanted})


def check_curves(header: Sequence[str], where: str) -> None:
    """Refuse Optuna's table of trials, also with `multi_index=True`, which has the name `params` several times.

    Raises:
        FileProblem: it is that table.
    """
    columns = set(header)
    if {"number", "state"} <= columns and columns & {"value", "values", "values_0"}:
        text = "expected curves, got a table of Optuna's trials_dataframe(), which holds the final value of each trial"
        raise FileProblem(
            f"{where}: {text}. Name the study's storage itself (sqlite:///study.db, or the journal file), which holds "
            "what `trial.report` was given."
        )


def _check_wide(header: Sequence[str], where: str) -> None:
    columns = set(header)
    if "trial" in columns and any(number(column) is not None for column in header):
        return
    check_curves(header, where)
    if "run_id" in columns and any(column.startswith("metrics.") for column in columns):
        text = "expected curves, got a table of MLflow's search_runs(), which holds the last value of each run"
        raise FileProblem(f"{where}: {text}. Name the folder mlruns itself, which holds every value.")
    raise FileProblem(f"{where}: expected {LONG}; or {WIDE}; got {listing(header)}. {NAME_THEM}.")


def number(text: str) -> float | None:
    """A cell as a number, None where it is none."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
