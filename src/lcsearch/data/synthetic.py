"""Curves the project makes itself, for tests and for machines without any table: every kind a known difficulty.

t = 1..T is the step, u = t / T, z a standard normal number of its own for every report. All depend on the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from lcsearch.curves import Curve, Floats
from lcsearch.data.task import Run, Task
from lcsearch.errors import InvalidValue
from lcsearch.goal import Direction, Goal, Judged

Kind = Literal["power", "crossing", "late", "diverging", "sor", "records"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SOR_GRID = 12  # inner points a side: 50 iterations take the best omega from 1 to about 1e-12


class _Made(NamedTuple):
    """(R, T) losses, lower is better, and (R,) arrays by hyperparameter."""

    losses: Floats
    params: Mapping[str, Any]


def synthetic_task(
    kind: Kind,
    n_runs: int = 64,
    seed: int = 0,
    *,
    n_steps: int = 50,
    direction: Direction = "minimize",
    judged: Judged = "best",
) -> Task:
    """A task of `n_runs` complete runs with reports at steps 1..`n_steps`; the clock counts steps.

    Args:
        kind: "power", "crossing", "late", "diverging", "sor" or "records"; see the functions below for their formulas.
        n_runs: >= 1.
        seed: >= 0; the same arguments give the same curves on every machine, to rounding.
        n_steps: >= 2.
        direction: "maximize" gives the mirrored curves, minus the same values.
        judged: "best" or "final".

    Raises:
        InvalidValue: an argument out of these ranges.

    >>> task = synthetic_task("power", 3)
    >>> len(task), task.goal.horizon, task.runs[0].params.keys()
    (3, 50.0, dict_keys(['learning_rate', 'momentum']))
    """
    if kind not in KINDS:
        raise InvalidValue(f"one of {', '.join(KINDS)}", kind, "synthetic_task(kind)")
    for name, value, low in (("n_runs", n_runs, 1), ("seed", seed, 0), ("n_steps", n_steps, 2)):
        if not (isinstance(value, int) and value >= low):
            raise InvalidValue(f"a whole number >= {low}", value, f"made({name})")
    goal = Goal("loss" if direction == "minimize" else "score", direction, float(n_steps), judged)
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    losses, params = _MAKERS[kind](rng, n_runs, np.arange(1, n_steps + 1, dtype=np.float64))
    t = np.arange(1, n_steps + 1, dtype=np.float64)
    runs = []
    for i in range(n_runs):
        mine = {name: column[i].item() for name, column in params.items()}
        runs.append(Run(str(i), Curve.of(t, goal.sign * losses[i]), t, mine))
    return Task(f"{kind}-{seed}", goal, tuple(runs))


def _power(rng: np.random.Generator, n: int, t: Floats) -> _Made:
    """Power laws whose limit hangs on the configuration: a + (1 - a) t^-c + 0.005 z.

    Learning rate 10^x, x ~ U(-4, -1), momentum m ~ U(0.5, 0.99); with one z a run
    a = 0.1 + 0.08 (x + 2.5)^2 + 0.1 (m - 0.9)^2 + 0.03 |z| and c = 0.5 + 0.5 m + 0.1 (x + 2.5).
    The early order tells most of the late one.
    """
    x, m = rng.uniform(-4, -1, n), rng.uniform(0.5, 0.99, n)
    limit = 0.1 + 0.08 * (x + 2.5) ** 2 + 0.1 * (m - 0.9) ** 2 + 0.03 * np.abs(rng.standard_normal(n))
    rate = 0.5 + 0.5 * m + 0.1 * (x + 2.5)
    losses = limit[:, None] + (1.0 - limit[:, None]) * t ** -rate[:, None]
    return _Made(losses + 0.005 * rng.standard_normal(losses.shape), {"learning_rate": 10.0**x, "momentum": m})


def _crossing(rng: np.random.Generator, n: int, t: Floats) -> _Made:
    """Fast ones end high, slow ones low: a + (1 - a) exp(-u / s) + 0.003 z.

    s = 0.03 * 10^q, q ~ U(0, 1); a = 0.5 - 0.35 q + 0.01 z with one z a run. What leads at a tenth of the run loses.
    """
    q = rng.uniform(0, 1, n)
    limit = 0.5 - 0.35 * q + 0.01 * rng.standard_normal(n)
    losses = limit[:, None] + (1.0 - limit[:, None]) * np.exp(-(t / t[-1]) / (0.03 * 10.0 ** q[:, None]))
    return _Made(losses + 0.003 * rng.standard_normal(losses.shape), {"decay": q})


def _late(rng: np.random.Generator, n: int, t: Floats) -> _Made:
    """All alike until 0.8 of the run, then apart: 1 / sqrt(1 + t) - d max(0, (u - 0.8) / 0.2) + 0.002 z.

    d ~ U(0, 0.05) is the configuration's. Before 0.8 no curve says anything of its end: whoever stops one, stops
    blindly.
    """
    d = rng.uniform(0, 0.05, n)
    losses = 1.0 / np.sqrt(1.0 + t) - d[:, None] * np.maximum(0.0, (t / t[-1] - 0.8) / 0.2)
    return _Made(losses + 0.002 * rng.standard_normal(losses.shape), {"depth": d})


def _diverging(rng: np.random.Generator, n: int, t: Floats) -> _Made:
    """Power laws of which those with a learning rate above 10^-2 break at u = 0.1 + 0.8 v, v ~ U(0, 1).

    From there half of them report NaN; the others 10^k at the k-th report after it, and inf beyond 1e30.
    """
    losses, params = _power(rng, n, t)
    hot = params["learning_rate"] > 1e-2
    after = t - np.ceil((0.1 + 0.8 * rng.uniform(0, 1, n))[:, None] * t[-1])  # >= 0: broken
    silent = rng.uniform(0, 1, n) < 0.5
    grown = np.where(after > 30, np.inf, 10.0 ** np.clip(after + 1.0, 0.0, 31.0))
    broken = np.where(silent[:, None], np.nan, grown)
    return _Made(np.where(hot[:, None] & (after >= 0), broken, losses), params)


@np.errstate(all="ignore")  # what overflows in a long run is reported as it is: inf, then NaN
def _sor(rng: np.random.Generator, n: int, t: Floats) -> _Made:
    """Real curves: log10 of the relative residual of red-black successive over-relaxation, one iteration a step.

    -(u_xx + u_yy) = 1 on the unit square with u = 0 at its border, from a random guess of size a = 10^b, b ~ U(-3, 0),
    with omega ~ U(0.5, 2.05). From omega = 2 on the iteration diverges; the best is near 2 / (1 + sin(pi h)).
    """
    omega, size = rng.uniform(0.5, 2.05, n), 10.0 ** rng.uniform(-3, 0, n)
    side, h2 = SOR_GRID, 1.0 / (SOR_GRID + 1) ** 2
    u = np.zeros((n, side + 2, side + 2))
    u[:, 1:-1, 1:-1] = size[:, None, None] * rng.uniform(-1, 1, (n, side, side))
    row, column = np.mgrid[0:side, 0:side]
    colours = [(row + column) % 2 == colour for colour in (0, 1)]
    losses = np.empty((n, t.size))
    for i in range(t.size):
        for colour in colours:
            step = omega[:, None, None] * (_around(u) + h2) / 4.0 - omega[:, None, None] * u[:, 1:-1, 1:-1]
            u[:, 1:-1, 1:-1] += np.where(colour, step, 0.0)
        rest = 1.0 + (_around(u) - 4.0 * u[:, 1:-1, 1:-1]) / h2
        losses[:, i] = np.log10(np.linalg.norm(rest, axis=(1, 2)) / side)
    return _Made(losses, {"omega": omega, "guess": size})


def _records(rng: np.random.Generator, n: int, t: Floats) -> _Made:
    """Best values so far, as evolutionary searches log them: plateaus and jumps, and no noise.

    From 1 at the first report on, a report brings with probability min(0.9, (3 / T) 10^(-x / 3)) a success, which takes
    a share 0.8 * 10^(x / 3) v of the way to the limit 0.1 |z| that is left; v ~ U(0, 1), one z a run, and mutations of
    size 10^x, x ~ U(-3, 0): small ones succeed often and gain little. The mean pace is alike: a plateau tells little.
    """
    x, limit = rng.uniform(-3, 0, n), 0.1 * np.abs(rng.standard_normal(n))
    hit = rng.uniform(0, 1, (n, t.size)) < np.minimum(0.9, 3.0 / t.size * 10.0 ** (-x[:, None] / 3))
    share = 0.8 * 10.0 ** (x[:, None] / 3) * rng.uniform(0, 1, (n, t.size))
    hit[:, 0] = False
    left = np.where(hit, 1.0 - share, 1.0).cumprod(1)
    return _Made(limit[:, None] + (1.0 - limit[:, None]) * left, {"mutation": 10.0**x})


def _around(u: Floats) -> Floats:
    """(R, side, side) sum of the four neighbours of every inner point."""
    around: Floats = u[:, 2:, 1:-1] + u[:, :-2, 1:-1] + u[:, 1:-1, 2:] + u[:, 1:-1, :-2]
    return around


_MAKERS: Mapping[Kind, Callable[[np.random.Generator, int, Floats], _Made]] = {
    "power": _power,
    "crossing": _crossing,
    "late": _late,
    "diverging": _diverging,
    "sor": _sor,
    "records": _records,
}
