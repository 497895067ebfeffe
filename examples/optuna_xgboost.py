"""Optuna and XGBoost: a callback reports every boosting round, and ends the boosting when the trial is stopped."""

import optuna
import xgboost as xgb
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from lcsearch.schedulers.optuna import CurvePruner

ROUNDS = 60
features, labels = load_breast_cancer(return_X_y=True)
x, x_held, y, y_held = train_test_split(features, labels, test_size=0.4, random_state=0)
train, held = xgb.DMatrix(x, y), xgb.DMatrix(x_held, y_held)


class Report(xgb.callback.TrainingCallback):
    """Reports the held-out loss of each round to the trial."""

    def __init__(self, trial):
        super().__init__()
        self.trial = trial

    def after_iteration(self, model, epoch, evals_log):
        self.trial.report(evals_log["held"]["logloss"][-1], epoch + 1)
        if self.trial.should_prune():
            raise optuna.TrialPruned
        return False


def objective(trial):
    params = {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "eta": trial.suggest_float("eta", 1e-3, 1.0, log=True),
        "max_depth": trial.suggest_int("max_depth", 1, 8),
        "subsample": trial.suggest_float("subsample", 0.2, 1.0),
        "nthread": 1,
        "seed": 0,
    }
    seen = {}
    xgb.train(
        params, train, ROUNDS, evals=[(held, "held")], evals_result=seen, callbacks=[Report(trial)], verbose_eval=False
    )
    return min(seen["held"]["logloss"])


if __name__ == "__main__":
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(direction="minimize", sampler=sampler, pruner=CurvePruner(max_steps=ROUNDS))
    study.optimize(objective, n_trials=30)
    print(study.pruner.report(study))
    print(f"best: {study.best_value:.4f} with {study.best_params}")
