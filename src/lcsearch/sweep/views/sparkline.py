"""A curve in one line of block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

_FEW = 4  # fewer values have no usual spread
_HUGE = 1e100  # beyond lie blow-ups in any case, and differences between them may overflow
_LOG_HUGE = math.log(_HUGE)


def spark(values: Sequence[float], width: int = 24) -> str:
    """A curve in block characters, low values low; a report that is no number shows as '!'.

    Values far beyond the others, above or below, show as '^' and 'v' and take no room on the scale, which is
    logarithmic where the rest is positive and spans more than a factor of ten.

    >>> spark([4, 3, 2, 1]), spark([1000, 100, 10, 1]), spark([1e30, 5, 4, 3, 2, 1])
    ('█▆▃▁', '█▆▃▁', '^█▆▅▃▁')
    """
    blocks = "▁▂▃▄▅▆▇█"
    if len(values) > width:
        values = [values[i * len(values) // width] for i in range(width - 1)] + [values[-1]]
    bottom, top = _scale(values)
    shown = sorted(v for v in values if bottom <= v <= top)
    logarithmic = bool(shown) and shown[0] > 0 and shown[-1] > 10 * shown[0]
    heights = [math.log(v) for v in shown] if logarithmic else shown
    # a steep start would press the rest flat: the top is cut at three times the median's height
    low = heights[0] if heights else 0.0
    high = max(heights, default=0.0)
    if len(heights) > 3:
        high = min(high, low + 3 * (heights[len(heights) // 2] - low))
    span = high - low or 1.0

    def letter(value: float) -> str:
        if not math.isfinite(value):
            return "!"
        if not bottom <= value <= top:
            return "^" if value > top else "v"
        height = math.log(value) if logarithmic else value
        return blocks[round(min((height - low) / span, 1.0) * 7)]

    return "".join(map(letter, values))


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """What is not far beyond the others: a thousand times their usual spread, in factors where they are positive.

    More than one value and a tenth of them are no outliers: a curve that leaves its plateau late is drawn whole.
    """
    low, high = _far(values)
    finite = [v for v in values if abs(v) < _HUGE]
    most = max(1, len(finite) / 10)
    low = low if sum(v < low for v in finite) <= most else -_HUGE
    return low, high if sum(v > high for v in finite) <= most else _HUGE


def _far(values: Sequence[float]) -> tuple[float, float]:
    low, high = _fence([v for v in values if abs(v) < _HUGE], 1e6)
    known = [v for v in values if low <= v <= high]
    if not known or min(known) <= 0:
        return _fence(known, 1e3)
    logs = [math.log(v) for v in known]
    # losses fall by factors of thousands as they should: only far more of that is off the scale
    bottom, top = _fence(logs, 6.0, least=math.log(10.0))[0], _fence(logs, 3.0, least=math.log(10.0))[1]
    return max(low, math.exp(max(bottom, -_LOG_HUGE))), min(high, math.exp(min(top, _LOG_HUGE)))


def _fence(values: Sequence[float], far: float, least: float | None = None) -> tuple[float, float]:
    """The median and `far` times the distance between the quartiles to either side; that is taken to be the median's
    own size, or `least`, at least.
    """
    if len(values) < _FEW:
        return -_HUGE, _HUGE
    known, last = sorted(values), len(values) - 1
    middle = known[last // 2]
    reach = far * max(known[3 * last // 4] - known[last // 4], abs(middle) if least is None else least)
    return max(middle - (reach or _HUGE), -_HUGE), min(middle + (reach or _HUGE), _HUGE)
