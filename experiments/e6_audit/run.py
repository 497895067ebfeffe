"""E6, audits: how soon the alarm and the certificate come, how often wrongly, and where a moved threshold settles.

    python experiments/e6_audit/run.py

Simulations only, a minute of one core; the table is written beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lcsearch.stopping.audit import tracked
from lcsearch.stopping.e_process import audits_needed, verdicts

HERE = Path(__file__).parent
PROMISED = 0.05
AUDITS = 40
LONG = 200


def alarms(rate: float, sweeps: int, audits: int, rng: np.random.Generator) -> float:
    """Share of simulations in which the promise is said to be broken within so many audits."""
    wrong = rng.uniform(size=(sweeps, audits)) < rate
    return sum(verdicts([bool(w) for w in row], PROMISED).broken for row in wrong) / sweeps


def certificates(rate: float, sweeps: int, audits: int, rng: np.random.Generator) -> float:
    """Share in which it is certified."""
    wrong = rng.uniform(size=(sweeps, audits)) < rate
    return sum(verdicts([bool(w) for w in row], PROMISED).kept for row in wrong) / sweeps


FORECASTERS: dict[str, Callable[[float], float]] = {
    "calibrated": lambda p: p,
    "p^2": lambda p: p * p,
    "sqrt p": math.sqrt,
    "lying (0)": lambda p: 0.0,
}


def settled(says: Callable[[float], float], n: int, rng: np.random.Generator, start: float = 0.2) -> dict[str, float]:
    """Where the threshold goes when stops are judged by what a forecaster says of trials whose true P(beat) is
    uniform on [0, 1]: after `n` audits, or when nothing is stopped any more.

    Returns:
        Of the last half of the audits the median threshold and the share of wrong ones; 0 where nothing is stopped.
    """
    wrong: list[bool] = []
    path: list[float] = []
    now = start
    while len(wrong) < n and now > 0:
        p = rng.uniform()
        if says(p) < now:
            wrong.append(bool(rng.uniform() < p))
            now = tracked(now, PROMISED, wrong[-1:], most=start)
            path.append(now)
    late = wrong[len(wrong) // 2 :]
    median = float(np.median(path[len(path) // 2 :])) if now else 0.0
    return {"threshold": median, "wrong": sum(late) / len(late) if now else 0.0, "audits": len(wrong)}


def main() -> None:
    """Run and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sweeps", type=int, default=4000)
    options.add_argument("--out", type=Path, default=HERE / "audit.json")
    given = options.parse_args()
    rng = np.random.default_rng(0)
    found = {
        "promised": PROMISED,
        "simulations": given.sweeps,
        "audits_to_certify": audits_needed(PROMISED),
        "alarm": {
            f"true {rate:g}, {n} audits": alarms(rate, given.sweeps, n, rng)
            for rate, n in ((0.2, AUDITS), (0.2, 100), (0.1, LONG), (PROMISED, AUDITS), (PROMISED, LONG), (0.01, LONG))
        },
        "certificate": {
            f"true {rate:g}, {n} audits": certificates(rate, given.sweeps, n, rng)
            for rate, n in ((0.0, audits_needed(PROMISED)), (0.01, LONG), (PROMISED, LONG), (0.06, LONG), (0.2, LONG))
        },
        "threshold from 0.2": {name: settled(says, 4000, rng) for name, says in FORECASTERS.items()},
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
