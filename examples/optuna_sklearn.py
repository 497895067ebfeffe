"""Optuna and scikit-learn: a linear classifier of handwritten digits, trained epoch by epoch with `partial_fit`."""

import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from lcsearch.schedulers.optuna import CurvePruner

EPOCHS = 30
images, labels = load_digits(return_X_y=True)
x, x_held, y, y_held = train_test_split(images / 16, labels, test_size=0.3, random_state=0)


def objective(trial):
    model = SGDClassifier(
        loss="log_loss",
        learning_rate="constant",
        eta0=trial.suggest_float("lr", 1e-4, 1.0, log=True),
        alpha=trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
        random_state=0,
    )
    best = float("inf")
    for epoch in range(1, EPOCHS + 1):
        model.partial_fit(x, y, classes=range(10))
        loss = log_loss(y_held, model.predict_proba(x_held))
        best = min(best, loss)
        trial.report(loss, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return best


if __name__ == "__main__":
    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(direction="minimize", sampler=sampler, pruner=CurvePruner(max_steps=EPOCHS))
    study.optimize(objective, n_trials=30)
    print(study.pruner.report(study))
    print(f"best: {study.best_value:.4f} with {study.best_params}")
