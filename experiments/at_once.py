"""What the searches of 64 trials at once share, in the simulator (`e6_rivals/run.py`) and on a cluster."""

from __future__ import annotations

import time
from typing import Any

from lcsearch.replay.history import History
from lcsearch.replay.policies import PolicySpec
from lcsearch.replay.simulator import World, simulate

AT_ONCE = 64
SOURCES = ("lcbench", "taskset_adam8p", "deepobs_baselines", "arlbench")


def play(task: Any, order: int, rivals: int) -> dict[str, Any]:
    """One search of 64 trials at once."""
    stopper = PolicySpec("curve", (("rivals", rivals),), ("network",)).make(task, ahead=False)
    start = time.monotonic()
    history = simulate(task, task.order(order)[:AT_ONCE], stopper, World(workers=AT_ONCE))
    return {"order": order, "rivals": rivals, **figures(history), "seconds": time.monotonic() - start}


def figures(history: History) -> dict[str, Any]:
    """What a search of 64 trials at once came to."""
    return {
        "saved": 1.0 - history.spent / history.full_cost,
        "stopped": len(history.stopped) / len(history.lives),
        "by_rivals": sum(n for reason, n in history.reasons.items() if reason.name == "RIVALS"),
        "lost": bool(history.lost(1)),
        "missed": bool(history.missed()),
    }
