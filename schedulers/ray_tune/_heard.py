"""What a run's results were like, for those in which nothing is heard of the metric."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.air.constants import TRAINING_ITERATION
from ray.tune.result import AUTO_RESULT_KEYS, DEBUG_METRICS, DONE, TIME_TOTAL_S

_SHOWN = 12


@dataclass
class Heard:
    """Counts of one process, for one run.

    Attributes:
        results: results that held anything of the trial's own (Tune ends a silent trial by one that does not).
        timed: those with the time_attr.
        measured: those with the metric.
        whole: those with both.
        read: a result has had both, as numbers; nothing is counted from then on.
        keys: of the latest result.
        latest: its step and value, as they were.
    """

    results: int = 0
    timed: int = 0
    measured: int = 0
    whole: int = 0
    read: bool = False
    keys: tuple[str, ...] = field(default=())
    latest: tuple[object, object] = (None, None)

    def hear(self, result: Mapping[str, Any], time_attr: str, metric: str, *, read: bool) -> None:
        """Count one result."""
        self.read = self.read or read
        if self.read or not set(result) - {*DEBUG_METRICS, DONE}:
            return
        timed, measured = time_attr in result, metric in result
        self.results += 1
        self.timed += timed
        self.measured += measured
        self.whole += timed and measured
        self.keys = tuple(result)
        if timed and measured:
            self.latest = result[time_attr], result[metric]

    def complaint(self, time_attr: str, metric: str) -> str:
        """Why none of the results says anything, in one line; "" when one does, or there is none."""
        if self.read or not self.results:
            return ""
        missing = [f"{time_attr!r}, the time_attr"] * (not self.timed) + [f"{metric!r}, the metric"] * (
            not self.measured
        )
        if missing:
            return f"none of {self._n} had {', nor '.join(missing)}: they had {self._shown(time_attr, metric)}"
        if not self.whole:
            text = (
                f"none of {self._n} had {time_attr!r}, the time_attr, and {metric!r}, the metric, together: report both"
            )
            return f"{text} in one result"
        step, value = (repr(one)[:40] for one in self.latest)
        text = f"none of {self._n} could be read: the latest had {metric!r}: {value} at {time_attr!r}: {step}"
        return f"{text}; report two numbers"

    @property
    def _n(self) -> str:
        return f"{self.results} result{'s' * (self.results != 1)}"

    def _shown(self, time_attr: str, metric: str) -> str:
        """The keys that may have been meant, and which one it was most likely."""
        auto = {*AUTO_RESULT_KEYS, *DEBUG_METRICS, DONE} - {TRAINING_ITERATION, TIME_TOTAL_S}
        own = sorted(key for key in self.keys if key.split("/")[0] not in auto)
        text = ", ".join(map(repr, own[:_SHOWN])) + (f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else "")
        asked = ([] if self.timed else [time_attr]) + ([] if self.measured else [metric])
        close = [repr(near) for key in asked for near in difflib.get_close_matches(key, own, n=1, cutoff=0.7)]
        return f"{text}; did you mean {' and '.join(close)}?" if close else text
