"""A program that knows nothing of lcsearch: it fits a line and prints a loss after every epoch."""

import argparse
import random
import time

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--momentum", type=float, default=0.0)
options = parser.parse_args()

rng = random.Random(0)
points = [(x := rng.uniform(-1, 1), 3 * x - 1 + rng.gauss(0, 0.1)) for _ in range(200)]
slope = intercept = speed_s = speed_i = 0.0
for epoch in range(1, 31):
    time.sleep(0.05)  # an epoch of yours takes longer
    for x, y in points[:150]:
        wrong = slope * x + intercept - y
        speed_s = options.momentum * speed_s - options.lr * wrong * x / 10
        speed_i = options.momentum * speed_i - options.lr * wrong / 10
        slope, intercept = slope + speed_s, intercept + speed_i
    loss = sum((slope * x + intercept - y) ** 2 for x, y in points[150:]) / 50
    print(f"epoch={epoch} val_loss={loss:.6f}", flush=True)
