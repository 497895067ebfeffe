"""What the sweep trains: logistic regression by gradient descent in NumPy, saved as it goes."""

import numpy as np


def train(ctx):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 20))
    y = x @ rng.standard_normal(20) + rng.standard_normal(2000) > 0
    start, weights = 1, np.zeros(20)
    if (saved := ctx.load()) is not None:  # an earlier worker of this trial was killed: go on where it stood
        start, weights = saved.step + 1, saved.state["weights"]
    for epoch in range(start, ctx.max_steps + 1):
        order = np.random.default_rng([ctx.seed, epoch]).permutation(1500)
        for batch in order.reshape(-1, 50):
            wrong = 1 / (1 + np.exp(-x[batch] @ weights)) - y[batch]
            weights = weights - ctx.params["lr"] * (wrong @ x[batch] / 50 + ctx.params["decay"] * weights)
        chance = np.clip(1 / (1 + np.exp(-x[1500:] @ weights)), 1e-9, 1 - 1e-9)
        ctx.report(float(-np.mean(np.where(y[1500:], np.log(chance), np.log(1 - chance)))), epoch)
        ctx.save({"weights": weights}, epoch)
