"""Stops of an earlier lcsearch, which kept a sentence for people in the place of the decision itself."""

from __future__ import annotations

import math
import re
from functools import lru_cache

from lcsearch.stopping.decision import Decision, Look
from lcsearch.stopping.rules import Rank
from lcsearch.stopping.verdict import Reason, Verdict
from lcsearch.study import Incumbent

_DIVERGED = re.compile(r"step ([^:]+): diverged, (.*)")
_JUDGED = re.compile(
    r"step (?P<step>[^:]+): P\((?P<what>beat|tie)\) (?P<p>[<.\d e+-]+) %"
    r"(?: \(was (?P<p_before>[<.\d e+-]+) % at step (?P<before>\S+)\))?, threshold (?P<threshold>\S+) %, "
    r"incumbent (?P<value>\S+) of trial (?P<uid>.*?)"
    r"(?:, rank (?P<rank>\d+) of (?P<n>\d+) at this step"
    r"(?:, (?P<overall>\d+) of (?P<all>\d+) with those that ended earlier)?)?"
)
_LEAST = 5e-5  # stands for "< 0.01 %"


@lru_cache(maxsize=1 << 14)
def decision_of(line: str, trial: str = "") -> Decision | None:
    """The stop that a stored :attr:`Decision.line` told of, as far as it told; None where it is no such line.

    Numbers are as they were shown, rounded; the observations at the looks are not known and stand as 0.

    >>> line = "step 8: P(beat) 4 % (was 3 % at step 7), threshold 5 %, incumbent 0.1 of trial 0"
    >>> decision_of(line).line == line
    True
    """
    try:
        if found := _DIVERGED.fullmatch(line):
            return Decision("", trial, float(found[1]), Verdict.STOP, Reason.DIVERGED, found[2])
        if (found := _JUDGED.fullmatch(line)) is None:
            return None
        step, bound, threshold = float(found["step"]), found["what"] == "tie", float(found["threshold"]) / 100
        before = math.nan if found["before"] is None else float(found["before"])
        return Decision(
            "",
            trial,
            step,
            Verdict.STOP,
            Reason.BOUND if bound else Reason.BELOW,
            now=Look(step, 0, threshold, _share(found["p"])),
            before=Look(before, 0, threshold, None if found["before"] is None else _share(found["p_before"])),
            incumbent=Incumbent(float(found["value"]), found["uid"], math.nan),
            standing=_standing(found),
            bound=bound or None,
        )
    except ValueError:  # a number that is none
        return None


def _share(percent: str) -> float:
    return _LEAST if percent.startswith("<") else float(percent) / 100


def _standing(found: re.Match[str]) -> Rank | None:
    if found["rank"] is None:
        return None
    rank, n = int(found["rank"]), int(found["n"])
    if found["overall"] is None:
        return Rank(rank, n)
    return Rank(rank, n, int(found["overall"]) - rank, int(found["all"]) - n)
