"""Optuna and PyTorch: a small network, and a planned learning rate that the forecaster knows."""

import json
from dataclasses import asdict

import optuna
import torch
from torch import nn

from lcsearch import Schedule
from lcsearch.schedulers.optuna import SCHEDULE, CurvePruner

EPOCHS = 30
torch.manual_seed(0)
x = torch.rand(1024, 2) * 6 - 3
y = torch.sin(x[:, :1] * x[:, 1:]) + 0.1 * torch.randn(1024, 1)
x, x_held, y, y_held = x[:768], x[768:], y[:768], y[768:]


def objective(trial):
    schedule = Schedule(
        shape=trial.suggest_categorical("shape", ["constant", "linear", "cosine"]),
        peak=trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        horizon=EPOCHS,
    )
    # Optional: a trial whose learning rate is still to fall is forecast as one.
    trial.set_user_attr(SCHEDULE, json.dumps(asdict(schedule)))

    torch.manual_seed(trial.number)
    width = trial.suggest_int("width", 8, 64, log=True)
    model = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.peak)
    for epoch in range(1, EPOCHS + 1):
        for group in optimizer.param_groups:
            group["lr"] = float(schedule.rate(epoch - 1))
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = nn.functional.mse_loss(model(x_held), y_held).item()
        trial.report(loss, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


if __name__ == "__main__":
    # The objective returns its last loss, so that is what trials are judged by.
    pruner = CurvePruner(max_steps=EPOCHS, judged="final")
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=30)
    print(pruner.report(study))
    stopped = study.get_trials(states=[optuna.trial.TrialState.PRUNED])
    print(pruner.explain(stopped[-1]) if stopped else pruner.why_not(study))
