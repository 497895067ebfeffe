"""A forecaster of your own: the average of two that ship, where `forecasters=[...]` would ask both to agree.

Anything with `name`, `version` and `forecast(snapshot, queries)` will do; this one passes `tests/kit/forecasters.py`.
"""

from collections.abc import Sequence

import numpy as np
import optuna

from lcsearch import Absent, Forecaster, Forecasts, Query, Snapshot
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.forecast.rank_gap import RankAndGap
from lcsearch.schedulers.optuna import CurvePruner


class Average:
    """The mixture, in equal shares, of what the forecasters that answer say."""

    def __init__(self, *parts: Forecaster) -> None:
        self.parts = parts

    @property
    def name(self) -> str:
        return "average"

    @property
    def version(self) -> str:  # another one wherever an answer may be another one
        return "1:" + ",".join(f"{part.name}-{part.version}" for part in self.parts)

    def forecast(self, snapshot: Snapshot, queries: Sequence[Query]) -> Forecasts:
        said = [part.forecast(snapshot, queries) for part in self.parts]
        rows: list[Forecasts | Absent] = []
        for i in range(len(queries)):
            forecasters = [one.row(i) for one in said]
            known = [one for one in forecasters if isinstance(one, Forecasts)]
            rows.append(Forecasts.mixture(known) if known else forecasters[0])
        width = max((row.knots.shape[1] for row in rows if isinstance(row, Forecasts)), default=2)
        knots, levels, tails = (np.full((len(rows), n), np.nan) for n in (width, width, 2))
        for i, row in enumerate(rows):
            if isinstance(row, Forecasts):  # shorter rows end in copies of their last knot
                fill = (0, width - row.knots.shape[1])
                knots[i], levels[i] = np.pad(row.knots[0], fill, "edge"), np.pad(row.levels[0], fill, "edge")
                tails[i] = row.tails[0]
        absent = [row if isinstance(row, Absent) else None for row in rows]
        return Forecasts.of(knots, levels, tails, sign=snapshot.goal.sign, source=self.name, absent=absent)


def objective(trial: optuna.Trial) -> float:
    limit, rate = trial.suggest_float("limit", 0, 1), trial.suggest_float("rate", 0.1, 1)
    for step in range(1, 31):
        loss = limit + float(np.exp(-rate * step))
        trial.report(loss, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


if __name__ == "__main__":
    pruner = CurvePruner(max_steps=30, forecasters=Average(ParametricEnsemble(), RankAndGap()))
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=30)
    print(pruner.report(study))
