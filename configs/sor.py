"""Successive over-relaxation of -(u_xx + u_yy) = f on the unit square, u = 0 at its border.

Every point moves by `omega` times the way to what its four neighbours ask for. With omega = 1 (Gauss and Seidel) the
error shrinks by about 1 - (pi h)^2 an iteration, with 2 / (1 + sin(pi h)) by 1 - 2 pi h; from 2 on it grows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from lcsearch.sweep import Context

SAVE_EVERY = 25  # iterations between checkpoints

Floats = NDArray[np.float64]
Points = NDArray[np.intp]  # places in the flattened grid, border included


def passes(n: int, ordering: str, iteration: int) -> list[Points]:
    """The inner points in groups: within one no two are neighbours, so that numpy may relax it at once."""
    row, column = np.mgrid[1 : n + 1, 1 : n + 1]
    at = row * (n + 2) + column
    if ordering == "lexicographic":  # one diagonal after the other is the same as row by row
        return [at[row + column == diagonal] for diagonal in range(2, 2 * n + 1)]
    groups = [at[(row + column) % 2 == colour] for colour in (0, 1)]
    # "symmetric" goes back and forth: red, black; black, red
    return groups[::-1] if ordering == "symmetric" and iteration % 2 == 0 else groups


def right_hand_side(n: int, forcing: str) -> Floats:
    """f at every point of the grid."""
    x = np.linspace(0.0, 1.0, n + 2)
    if forcing == "sine":
        return np.outer(np.sin(math.pi * x), np.sin(2 * math.pi * x))
    f = np.zeros((n + 2, n + 2))
    if forcing == "point":
        f[n // 3, n // 3] = 1.0
    else:
        f[1:-1, 1:-1] = 1.0
    return f


def residual(u: Floats, f: Floats) -> float:
    """log10 of |f + u_xx + u_yy| / |f| over the inner points."""
    h = 1.0 / (len(u) - 1)
    around = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]
    rest = f[1:-1, 1:-1] + (around - 4.0 * u[1:-1, 1:-1]) / h**2
    return float(np.log10(np.linalg.norm(rest) / np.linalg.norm(f[1:-1, 1:-1])))


def relax(v: Floats, ask: Floats, at: Points, width: int, omega: float) -> None:
    """Move the points `at` of the flattened grid `v` whose rows are `width` long; `ask` is h^2 f."""
    around = v[at - 1] + v[at + 1] + v[at - width] + v[at + width]
    v[at] += omega * ((around + ask[at]) / 4.0 - v[at])


@np.errstate(all="ignore")  # what overflows is reported as it is: inf, then NaN
def solve(ctx: Context) -> None:
    """Relax one grid; reports the residual after every iteration, 1 to `max_steps`."""
    p = ctx.params
    n, omega = p["n"], p["omega"]
    f = right_hand_side(n, p["forcing"])
    u = np.zeros((n + 2, n + 2))
    if p["guess"] == "random":
        u[1:-1, 1:-1] = np.random.default_rng(ctx.seed).uniform(-0.1, 0.1, (n, n))
    first = 1
    if (saved := ctx.load()) is not None:
        u = saved.state["u"].numpy()
        first = saved.step + 1
    orders = [passes(n, p["ordering"], iteration) for iteration in (0, 1)]
    v, ask, width = u.reshape(-1), f.reshape(-1) / (n + 1) ** 2, n + 2  # v is u, row after row
    for iteration in range(first, ctx.max_steps + 1):
        for at in orders[iteration % 2]:
            relax(v, ask, at, width, omega)
        ctx.report(residual(u, f), iteration)
        if ctx.checkpoint_due or iteration % SAVE_EVERY == 0:
            ctx.save({"u": torch.from_numpy(u)}, iteration)
