"""Ray Tune: logistic regression by gradient descent in NumPy, two trials at a time, stopped by `CurveScheduler`."""

import numpy as np
from ray import tune

from lcsearch.schedulers.ray_tune import CurveScheduler, StateCallback

EPOCHS = 30


def train(config):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 20))
    y = x @ rng.standard_normal(20) + rng.standard_normal(2000) > 0
    weights = np.zeros(20)
    for _ in range(EPOCHS):
        for batch in rng.permutation(1500).reshape(-1, 50):
            wrong = 1 / (1 + np.exp(-x[batch] @ weights)) - y[batch]
            weights -= config["lr"] * (wrong @ x[batch] / 50 + config["decay"] * weights)
        chance = np.clip(1 / (1 + np.exp(-x[1500:] @ weights)), 1e-9, 1 - 1e-9)
        tune.report({"loss": float(-np.mean(np.where(y[1500:], np.log(chance), np.log(1 - chance))))})


if __name__ == "__main__":
    lc = CurveScheduler(time_attr="training_iteration", metric="loss", mode="min", max_t=EPOCHS)
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"lr": tune.loguniform(1e-4, 10.0), "decay": tune.loguniform(1e-4, 1.0)},
        tune_config=tune.TuneConfig(scheduler=lc, num_samples=24, reuse_actors=True),
        run_config=tune.RunConfig(callbacks=[StateCallback(lc)]),  # a restored run goes on with what it had learnt
    )
    results = tuner.fit()
    print(lc.report())
    for trial, reason in lc.stopped().items():
        print(f"trial {trial}: {reason}")
    best = results.get_best_result("loss", "min", scope="all")  # the last value alone would not do
    print(f"best: {best.config}")
