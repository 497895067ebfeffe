"""`lcsearch verify`: where a log and its study lie, and what making its decisions again came to. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lcsearch.data.readers import optuna_study
from lcsearch.errors import FileProblem, LcsearchError
from lcsearch.forecast.contract import Forecaster
from lcsearch.host.registry import FALLBACK, forecaster, resolve_forecasters
from lcsearch.schedulers.optuna import as_trial
from lcsearch.session.verified import Verified
from lcsearch.session.verify import verify
from lcsearch.study import Trial
from lcsearch.sweep.monitor import run_record
from lcsearch.sweep.monitor.open_run import reader
from lcsearch.sweep.spec.pruner import CurvePrunerSpec
from lcsearch.sweep.store.folder import RunFolder
from lcsearch.sweep.store.studies import quiet_optuna

if TYPE_CHECKING:
    import optuna


def verified(where: Path, study: str | None = None, name: str | None = None) -> Verified:
    """Make the decisions of a log again.

    Args:
        where: a run folder, or a decision log.
        study: what a decision log is of: Optuna storage URL or file, or the folder of a Ray Tune experiment whose run
            had a StateCallback; None for a run folder, which has its own.
        name: the study's, where a storage holds several.

    Raises:
        FileProblem: there is no such log or study.
    """
    quiet_optuna()
    if (where / "run.json").is_file() and study is None:
        folder = RunFolder(where.resolve())
        sweep, loaded, progress = reader(folder)
        spec = sweep.file.pruner
        own = spec.forecasters if isinstance(spec, CurvePrunerSpec) else None
        rows = progress()
        here = {*run_record.stopped_here(folder, rows), *run_record.cut_here(folder, rows)}
        # Machines have logs of their own.
        others = [str(row.number) for row in rows.of("stopped", "thawed") if row.number not in here]
        known = at_hand(own or ())
        return _verified(folder.decisions, _trials(loaded), known, study=sweep.file.name, elsewhere=others)
    if study is None:
        text = f"{where}: expected a run folder, or a decision log and the study that it is of"
        raise FileProblem(f"{text}, got no study. Name it: lcsearch verify {where} STUDY")
    if "://" not in study and Path(study).is_dir():
        return _verified(where, _of_tune(Path(study)), at_hand())
    with optuna_study(study, name) as opened:
        if opened is None:
            raise FileProblem(f"{study}: expected an Optuna storage, or the folder of a Ray Tune experiment.")
        return _verified(where, _trials(opened[0]), at_hand(), study=opened[0].study_name)


def _verified(
    log: Path,
    trials: Mapping[str, Trial],
    forecasters: Callable[[str], Forecaster | None],
    study: str | None = None,
    elsewhere: Collection[str] = (),
) -> Verified:
    if not log.is_dir():
        raise FileProblem(f"{log}: expected a decision log, got no such folder. Runs without a curve pruner have none.")
    return verify(log, trials, forecasters, study=study, elsewhere=elsewhere)


def _trials(study: optuna.Study) -> dict[str, Trial]:
    return {str(frozen.number): as_trial(frozen) for frozen in study.get_trials(deepcopy=False)}


def _of_tune(folder: Path) -> dict[str, Trial]:
    from lcsearch.extras import need_ray

    need_ray("verifying a Tune run")
    from lcsearch.schedulers.ray_tune._callback import kept_trials

    return kept_trials(folder)


def at_hand(own: tuple[str, ...] | list[str] = ()) -> Callable[[str], Forecaster | None]:
    """Forecasters by the names that receipts have: those of lcsearch, and what a file names, as `network=FILE`."""
    return partial(_at_hand, tuple(own))


def _at_hand(own: tuple[str, ...], name: str) -> Forecaster | None:
    try:
        for one in resolve_forecasters(own) if own else ():
            if one.name == name:
                return one
        return forecaster(name) if name in ("network", *FALLBACK) else None
    except LcsearchError:
        return None
