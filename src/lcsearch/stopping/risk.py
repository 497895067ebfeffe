"""The risk ledger: how likely it is that a stopped trial would have beaten the present incumbent.

Risk = sum(p_i) over the stopped trials, at most 1: the union bound, which holds however the trials hang together. Where
they are independent it is 1 - prod(1 - p_i), which is shown beside it and limits nothing. A stop leaves a record in the
framework's own storage: the stopped trial's forecast, read off at a few levels, and the target that P(beat) was of.
When the incumbent improves, every p_i is read again from its record, so the ledger is a function of the stored records
and the present target, and needs no state of its own.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Forecasts
from lcsearch.stopping.decision import Decision

LEVELS = (1e-4, 1e-3, 3e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)

LONGEST = 2046
"""Characters that every storage of Optuna keeps."""


UNREADABLE = "unreadable"
"""Among a trial's `stop_records`: lcsearch stopped it, and its record was damaged since."""


@dataclass(frozen=True)
class StopRecord:
    """What a stop leaves behind.

    Attributes:
        step: where the trial was stopped.
        reason: name of the :class:`~lcsearch.stopping.verdict.Reason` that stopped it.
        p: P(beat) when it was stopped; None for a divergence.
        text: the whole story in a few lines, for people.
        losses: forecast judged losses at LEVELS, non-decreasing; empty for a divergence, whose p counts as 0, and for
            a forecast without finite quantiles, whose p counts as it was.
        target: the loss that had to be undercut then: `p` is the forecast's probability of that.
        decision: what was decided on which numbers; None in records of an earlier lcsearch, which kept the text alone.
            Read back, it does not name the study.
    """

    step: float
    reason: str
    p: float | None
    text: str
    losses: tuple[float, ...] = ()
    target: float | None = None
    decision: Decision | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        step: float,
        reason: str,
        p: float | None,
        text: str,
        forecast: Forecasts | None,
        target: float | None = None,
    ) -> StopRecord:
        """Read a single-row forecast off at LEVELS.

        A `p` that misses [0, 1] by a rounding error is its end; a `target` that is no finite number is not kept.
        """
        losses: tuple[float, ...] = ()
        if forecast is not None:
            levels = np.array([LEVELS]) if forecast.sign > 0 else 1.0 - np.array([LEVELS])
            # between two knots a quantile may overshoot the upper one by its last bit, and stand above the next
            read = np.maximum.accumulate(forecast.sign * forecast.quantile(levels)[0])
            losses = tuple(_as_stored(float(v)) for v in read) if np.isfinite(read).all() else ()
        p = None if p is None else min(max(p, 0.0), 1.0)
        return cls(step, reason, p, text, losses, target if target is not None and math.isfinite(target) else None)

    def p_beat(self, loss: float) -> float:
        """P(the trial would have reached a judged loss below `loss`), from the stored levels.

        At `target` it is `p`. Linear between what is stored; below the lowest of it, it falls in proportion to the
        distance over the first levels, exponentially, so that a far better incumbent takes the probability to zero.
        """
        if not self.losses:
            return self.p or 0.0
        losses, levels, p, scale = self._points
        loss, most = 0.25 * loss, 1.0
        if p is not None and self.target is not None:
            target = 0.25 * self.target
            if loss == target:
                return p
            most = p if loss < target else 1.0  # a line to it may pass it by a last bit
        if loss > losses[0]:
            above = levels[min(bisect_left(losses, loss), len(levels) - 1)]
            return min(float(np.interp(loss, losses, levels)), above, most)  # a line may pass its end by a last bit
        if scale <= 0:
            return 0.0 if loss < losses[0] else levels[0]
        return levels[0] * math.exp((loss - losses[0]) / scale)

    @cached_property
    def _points(self) -> tuple[list[float], list[float], float | None, float]:
        """What :meth:`p_beat` reads: losses and levels, P at the target, the scale below the lowest loss; of losses a
        quarter: differences of the largest floats stay finite, and others are the same bit by bit.
        """
        losses, levels, p = [0.25 * v for v in self.losses], list(LEVELS), None
        scale = (losses[3] - losses[0]) / math.log(LEVELS[3] / LEVELS[0])
        if self.target is not None and self.p is not None:
            # Quantiles far in the tail lie far apart, and a line between them lies above the distribution.
            target = 0.25 * self.target
            i = bisect_left(losses, target)
            p = min(max(self.p, levels[i - 1] if i else 0.0), levels[i] if i < len(levels) else 1.0)
            losses.insert(i, target)
            levels.insert(i, p)
        return losses, levels, p, scale

    def read_back(self) -> StopRecord | None:
        """The record as whoever reads the storage will have it; None where it cannot be written or read."""
        try:
            packed, decision = self._packed({})
            return StopRecord._of(json.loads(packed), decision)
        except (ValueError, TypeError, OverflowError):  # InvalidValue is a ValueError
            return None

    def p_lost(self, loss: float) -> float:
        """:meth:`p_beat`, but at most what it was at the stop: the loss to be undercut is the better of then and now.

        A study's incumbent never gets worse, so a target that did is that of a narrower margin, or of a study into
        which the trial was copied without what it had lost against; neither makes the stop a worse one.
        """
        if math.isnan(loss):  # nobody leads yet
            return self.p or 0.0
        return self.p_beat(loss if self.target is None else min(loss, self.target))

    def to_json(self, **more: object) -> str:
        """Compact ASCII text under LONGEST characters: the decision, of which the text is a view.

        Where there is none, or it does not fit or does not read back as it was, the text stands for itself, cut short
        where that does not fit.

        Args:
            more: plain values to stand beside the record's own; :meth:`from_json` passes over them.

        Raises:
            InvalidValue: what stands beside the text is too long already.
        """
        return self._packed(more)[0]

    def _packed(self, more: dict[str, object]) -> tuple[str, Decision | None]:
        """The text, and its decision as it reads back; None where the text of it stands for itself."""
        losses = [_as_stored(v) for v in self.losses]
        record: dict[str, Any] = {"step": self.step, "reason": self.reason, "p": self.p, "text": "", "losses": losses}
        record |= ({} if self.target is None else {"target": self.target}) | more
        if self.decision is not None:
            here = {name: it for name, it in self.decision.to_record().items() if name != "study"}  # in which it stands
            kept = json.dumps(here, default=float, separators=(",", ":"))  # NumPy's numbers, too
            packed = f'{json.dumps(record, separators=(",", ":"))[:-1]},"decision":{kept}}}'
            if len(packed) < LONGEST:
                decision = Decision.from_record(json.loads(kept))
                if decision.text == self.text:
                    return packed, decision
        room = 1500
        while len(packed := json.dumps({**record, "text": self.text[:room]}, separators=(",", ":"))) >= LONGEST:
            if not room:
                raise InvalidValue(f"a record of less than {LONGEST} characters", len(packed), "StopRecord.to_json")
            room = room * 3 // 4  # quotes, line ends and letters beyond ASCII take up to twelve characters each
        return packed, None

    @classmethod
    def from_json(cls, text: str) -> StopRecord:
        """Read :meth:`to_json` back.

        Raises:
            InvalidValue: the text is no stop's record.
        """
        try:
            return cls.from_record(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise InvalidValue("a record written by lcsearch", text[:80], "lcsearch:mark") from error

    def to_record(self) -> dict[str, Any]:
        """Plain values, nothing left out."""
        decision = None if self.decision is None else self.decision.to_record()
        names = ("step", "reason", "p", "text", "losses", "target")
        return {**{name: getattr(self, name) for name in names}, "decision": decision}

    @classmethod
    def from_record(cls, record: Any) -> StopRecord:
        """Read :meth:`to_record` back.

        Raises:
            InvalidValue: it is no stop's record.
        """
        return cls._of(record)

    @classmethod
    def _of(cls, record: Any, decision: Decision | None = None) -> StopRecord:
        """:meth:`from_record`, of which the decision may have been read already."""
        try:
            losses = tuple(float(v) for v in record["losses"])
            if losses and (len(losses) != len(LEVELS) or list(losses) != sorted(losses)):
                raise ValueError("losses")
            p, step = record["p"], float(record["step"])
            p = None if p is None else float(p)
            target = None if record.get("target") is None else float(record["target"])
            if not all(map(math.isfinite, (step, *losses, target or 0.0))) or not (p is None or 0.0 <= p <= 1.0):
                raise ValueError("numbers")
            if decision is None and record.get("decision") is not None:
                decision = Decision.from_record(record["decision"])
            told = str(record["text"]) or ("" if decision is None else decision.text)
            return cls(step, str(record["reason"]), p, told, losses, target, decision)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise InvalidValue("a record written by lcsearch", str(record)[:80], "a stop's record") from error


def _as_stored(loss: float) -> float:
    """Twelve digits: losses of 1e6 that differ by 1e-3 stay apart."""
    return float(f"{loss:.12g}")


def risk_of(records: Iterable[StopRecord], loss: float) -> float:
    """min(1, sum p_i): a bound of P(some stopped trial would have reached a judged loss below `loss`), in [0, 1].

    It rises by stops alone, see :meth:`StopRecord.p_lost`, so a limit that no stop passed is kept. If every p_i is
    calibrated it is a bound whether trials are independent or not (Boole).
    """
    return min(1.0, math.fsum(record.p_lost(loss) for record in records))


def independent_risk_of(records: Iterable[StopRecord], loss: float) -> float:
    """1 - prod(1 - p_i): what :func:`risk_of` bounds, were stopped trials independent given their forecasts, in [0, 1].

    Trials of one study hang together (a forecaster that errs on one errs on its like), so nothing is decided by it.
    """
    kept = 1.0
    for record in records:
        kept *= 1.0 - record.p_lost(loss)
    return 1.0 - kept
