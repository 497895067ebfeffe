"""STUDY, as the command line names it -> the study as it stands: its snapshot, and how its words are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcsearch.data.readers import Read, optuna_study, read
from lcsearch.data.readers._assemble import count
from lcsearch.errors import FileProblem, InvalidValue, is_finite_number
from lcsearch.goal import Bounds, Judged
from lcsearch.schedule import Schedule
from lcsearch.schedulers.optuna._snapshot import UNKNOWN, Reader, snapshot_of
from lcsearch.schedulers.optuna._storage import stale
from lcsearch.study import FinishedTrials, Snapshot, Trial
from lcsearch.sweep.monitor.open_run import reader
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.spec.pruner import CurvePrunerSpec
from lcsearch.sweep.spec.space import planned_schedule
from lcsearch.sweep.spec.strict import is_plain
from lcsearch.sweep.store.folder import RunFolder

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Standing:
    """A study as it stands.

    Attributes:
        snapshot: its trials, live ones among them.
        source: what was read, for people.
        metric, step: what a value and a step are called.
        forecasters: who its own file asks; None: the default ones.
        host: where its own file says that the network is held: a URL, or "auto".
        schedule: the learning rate that a configuration plans; None where nobody knows.
        notes: what is not in it, and what had to be assumed, in sentences.
    """

    snapshot: Snapshot
    source: str
    metric: str = "value"
    step: str = "step"
    forecasters: tuple[str, ...] | None = None
    host: str = "auto"
    schedule: Callable[[Mapping[str, Any]], Schedule | None] = lambda params: None
    notes: tuple[str, ...] = ()


def read_standing(
    where: str,
    *,
    study: str | None = None,
    max_steps: float | None = None,
    judged: Judged | None = None,
    metric: str | None = None,
    **columns: Any,
) -> Standing:
    """Read a study; nothing is written or launched.

    Args:
        where: whatever :func:`lcsearch.data.readers.read` takes. Of a folder of `lcsearch run` and of an Optuna storage
            it is read as the pruner reads it.
        study: the study's name, where there are several.
        max_steps: the step at which trials are judged; None for what a run says, else where COMPLETE trials ended.
        judged: "best" or "final"; None for what a run says, else "best".
        metric: of a study of Optuna a mere name, else as for `read`.
        columns: `direction`, `trial`, `step` and `caveats` as for `read`, which a run and Optuna have no use for.

    Raises:
        FileProblem: there is no such study, or no report of a finite value in it.
        InvalidValue: an argument is wrong or missing.
        EnvironmentProblem: a database cannot be reached.
    """
    if judged not in (None, "best", "final"):
        raise InvalidValue("best or final", judged, "--judged")
    if max_steps is not None and not (is_finite_number(max_steps) and max_steps > 0):
        raise InvalidValue("a finite number > 0", max_steps, "--max-steps")
    if "://" not in where and (Path(where) / "run.json").is_file():
        _none_of(columns, where)
        found = _run(where, study, max_steps, judged)
    else:
        with optuna_study(where, study) as opened:
            if opened is not None:
                _none_of(columns, where)
                found = _of_optuna(*opened, max_steps, judged or "best", metric)
            else:
                wish = {"study": study, "max_steps": max_steps, "judged": judged, "metric": metric, **columns}
                found = _of_others(read(where, **wish, live=True))
    _check(found)
    return found


def _none_of(columns: Mapping[str, Any], where: str) -> None:
    """What says how a table is to be read is of no use here.

    Raises:
        InvalidValue: something was said.
    """
    for name, value in columns.items():
        if value is not None:
            raise InvalidValue("none: the study says it itself", str(value), f"{where}: --{name}", "leave it out")


def _of_optuna(
    study: optuna.Study, place: str, max_steps: float | None, judged: Judged, metric: str | None
) -> Standing:
    if len(study.directions) > 1:
        text = f"{place}: expected a study of one objective, got {len(study.directions)}."
        raise FileProblem(f"{text} Optuna keeps no curves of several.")
    source = f"Optuna study {study.study_name!r} in {place}"
    return Standing(_snapshot(study, max_steps, judged, None), source, metric or "value")


def _of_others(found: Read) -> Standing:
    """What is no study of Optuna, with the trials that are under way."""
    goal = found.task.goal
    ended = (Trial(run.uid, run.curve, run.params, run.status, run.schedule) for run in found.task.runs)
    snapshot = Snapshot(found.task.name, goal, FinishedTrials(goal).extend(ended), found.live)
    return Standing(snapshot, found.source, goal.metric, notes=found.left_out)


def _run(where: str, study: str | None, max_steps: float | None, judged: Judged | None) -> Standing:
    folder = RunFolder(Path(where).resolve())
    sweep, loaded, _ = reader(folder)
    file = sweep.file
    if study not in (None, file.name):
        raise InvalidValue(f"{file.name!r}, the study of the run", study, f"{where}: --study", "leave it out")
    snapshot = _snapshot(loaded, max_steps or float(file.max_steps), judged or file.judged, file.bounds)
    spec = file.pruner
    return Standing(
        snapshot,
        f"study {file.name!r} of the run in {where}",
        file.metric,
        file.step,
        spec.forecasters if isinstance(spec, CurvePrunerSpec) else None,
        file.backend.host if "://" in file.backend.host else "auto",
        lambda params: _planned(sweep, params),
    )


def _planned(sweep: Sweep, params: Mapping[str, Any]) -> Schedule | None:
    """The schedule of a configuration, to which the file adds its constants; None where the file's plan cannot be."""
    whole = {name: value for name, value in sweep.file.space.items() if is_plain(value)}
    try:
        return planned_schedule(sweep.file, {**whole, **params})
    except (InvalidValue, KeyError, TypeError):
        return None


def _snapshot(study: optuna.Study, max_steps: float | None, judged: Judged, bounds: Bounds | None) -> Snapshot:
    """As the pruner reads it for people: leftovers of dead processes apart."""
    # a goal's horizon may be any number; the pruner's argument is a whole one
    reading = Reader("auto" if max_steps is None else max_steps, judged, bounds)  # type: ignore[arg-type]
    return snapshot_of(study, reading.read(study), silent=stale(study))


def _check(found: Standing) -> None:
    """There is something to forecast.

    Raises:
        FileProblem: there is not.
    """
    snapshot, where = found.snapshot, found.source
    everyone = (*snapshot.bank, *snapshot.live, *snapshot.abandoned)
    reports = sum(trial.curve.n_reports for trial in everyone)
    if not reports:
        text = f"{where}: expected trials with a report, got none (of {count(len(everyone), 'trial')})."
        raise FileProblem(
            f"{text} Report as they train: trial.report(value, step), in a sweep ctx.report(value, step)."
        )
    if not any(len(trial.curve) for trial in everyone):
        text = f"{where}: expected reports of finite values, got {count(reports, 'report')}, all nan or inf."
        raise FileProblem(f"{text} See what the trials report.")
    if snapshot.goal.horizon == UNKNOWN:
        text = f"{where}: expected a complete trial to take the horizon from, got none."
        raise FileProblem(f"{text} Say at which step trials are judged: --max-steps N.")
