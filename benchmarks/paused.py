"""How long it takes to read a study whose trials wait: Optuna's storage, and that of sweeps, in one run.

    python benchmarks/paused.py

A study on sqlite with 40 and with 80 paused trials of ten parameters and six reports. Each read is of all trials, after
one of them went on for a step, as in a turn; medians of processor time, the two by turns.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import optuna

from lcsearch.schedulers.optuna._storage import begin, claim, pause
from lcsearch.sweep.store.storage import Patience, PatientStorage

READS = 40


def filled(study: optuna.Study, n: int) -> None:
    """`n` paused trials."""
    for _ in range(n):
        trial = begin(study)
        for i in range(10):
            trial.suggest_float(f"x{i}", 0.0, 1.0)
        for name in ("seconds", "worker", "schedule", "took"):
            trial.set_user_attr(name, {"of": trial.number, "what": name * 8})
        for step in range(6):
            trial.report(1.0 / (1 + step), step)
        pause(study, trial)


def reads(studies: list[optuna.Study], n: int) -> list[float]:
    """Milliseconds of a read after another has trained one trial for a step, the median, by turns with each handle."""
    took: list[list[float]] = [[] for _ in studies]
    for i in range(READS):
        trial = claim(studies[0], i % n)
        assert trial is not None
        trial.report(0.1, 6 + i // n)
        pause(studies[0], trial)
        for study, mine in zip(studies, took, strict=True):
            start = time.process_time()
            study.get_trials(deepcopy=False)
            mine.append(1e3 * (time.process_time() - start))
    return [median(mine) for mine in took]


def main() -> None:
    """A row for each number of trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| paused | Optuna's storage, ms | sweeps', ms |\n|---|---|---|")
    for n in (40, 80):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'study.db'}"
            filled(optuna.create_study(storage=url, study_name="s"), n)
            storages = optuna.storages.RDBStorage(url), PatientStorage(url, Patience(), checked=False)
            found = reads([optuna.load_study(storage=storage, study_name="s") for storage in storages], n)
            print(f"| {n} | {found[0]:.1f} | {found[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
