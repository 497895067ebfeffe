"""What a task's curves look like in a dozen numbers: the same for drawn and for real ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Floats

STATISTICS = {
    "trials": "trials",
    "reports": "reports of a trial",
    "noise_5": "noise sd, 5 % of trials below",
    "noise_50": "noise sd, median trial",
    "noise_95": "noise sd, 95 % of trials below",
    "lost": "last report not finite",
    "flat": "gains < 2 %",
    "worse": "ends > 5 % above its best",
    "jump": "rises by > 20 % at once",
    "late": "> 30 % of gain in 2nd half",
    "rank_10": "Spearman of 10 % with the end",
    "rank_25": "Spearman of 25 % with the end",
    "rank_50": "Spearman of 50 % with the end",
    "spread": "10 to 90 % of the last values",
    "top": "within 5 % of the best",
}
"""Name of a statistic -> what it is: shares of a task's range (noise, spread) or of its trials, correlations."""


def statistics(steps: Floats, losses: Floats) -> dict[str, float]:
    """The statistics of one task.

    The range of a task reaches from its best last value to the median first one, or to the 90 % quantile of the last
    values where that is higher. Noise is the median |second difference| in the second half over .6745 sqrt(6), the
    standard deviation for white normal noise on a straight line. Gains are of the best so far. Reports that are not
    finite rank last.

    Args:
        steps: (S,) steps of the reports, rising.
        losses: (C, S) lower is better; not finite where a trial diverged.

    Returns:
        Every name in `STATISTICS`; NaN where it cannot be said.
    """
    whole = np.isfinite(losses)
    values = np.where(whole, losses, np.inf)
    best = np.minimum.accumulate(values, axis=1)
    last, n, s = values[:, -1], *losses.shape
    ends = last[np.isfinite(last)]
    firsts = values[:, 0][np.isfinite(values[:, 0])]
    made = dict.fromkeys(STATISTICS, float("nan")) | {"trials": float(n), "reports": float(s)}
    made["lost"] = float(1.0 - ends.size / n)
    if not ends.size or not firsts.size:
        return made
    wide = max(float(np.quantile(ends, 0.9)), float(np.median(firsts))) - float(ends.min())
    wide = wide if wide > 0 else 1.0
    live = whole.all(axis=1)
    at = {f: max(int(np.searchsorted(steps, f * steps[-1], side="right")) - 1, 0) for f in (0.1, 0.25, 0.5)}

    second = np.abs(np.diff(losses[live][:, at[0.5] :], n=2, axis=1))
    if second.size:
        noise = np.median(second, axis=1) / (0.6745 * np.sqrt(6.0)) / wide
        for share in (5, 50, 95):
            made[f"noise_{share}"] = float(np.quantile(noise, share / 100))
    if live.any():
        v, low = values[live], best[live]
        gain = v[:, 0] - low[:, -1]
        made["flat"] = float(np.mean(gain < 0.02 * wide))
        made["worse"] = float(np.mean(v[:, -1] - low[:, -1] > 0.05 * wide))
        made["jump"] = float(np.mean(np.diff(v, axis=1).max(axis=1, initial=0.0) > 0.2 * wide))
        gainers = gain >= 0.02 * wide
        late = (low[:, at[0.5]] - low[:, -1])[gainers] / gain[gainers]
        made["late"] = float(np.mean(late > 0.3)) if late.size else float("nan")
    for share in (10, 25, 50):
        made[f"rank_{share}"] = spearman(values[:, at[share / 100]], last)
    made["spread"] = float(np.quantile(ends, 0.9) - np.quantile(ends, 0.1)) / wide
    made["top"] = float(np.mean(last <= ends.min() + 0.05 * wide))
    return made


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation, ties at their mean rank; NaN where one of the two is constant."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def ranks(x: Floats) -> Floats:
    """0, 1, ..., equal values at their mean rank."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Floats = ends - (counts + 1) / 2
    found: Floats = means[np.asarray(inverse, np.intp).ravel()]
    return found


def summary(tasks: list[dict[str, float]]) -> dict[str, NDArray[np.float64]]:
    """Of every statistic the 10, 50 and 90 % quantiles over the tasks; NaN where no task has it."""
    made = {}
    for name in STATISTICS:
        known = np.array([task[name] for task in tasks], np.float64)
        known = known[np.isfinite(known)]
        made[name] = np.quantile(known, (0.1, 0.5, 0.9)) if known.size else np.full(3, np.nan)
    return made


def table(columns: dict[str, list[dict[str, float]]], across: int = 4) -> str:
    """A text table: a row a statistic, a column a source; median over the tasks, 10 and 90 % quantiles behind it.

    Args:
        columns: source -> the statistics of its tasks.
        across: sources beside one another; the others follow below.
    """
    names, blocks = list(columns), []
    for start in range(0, len(names), across):
        some = names[start : start + across]
        found = [summary(columns[name]) for name in some]
        rows = [["tasks", *(f"{name} ({len(columns[name])})" for name in some)]]
        rows += [[what, *(_cell(one[name]) for one in found)] for name, what in STATISTICS.items()]
        wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        blocks.append("\n".join(_line(row, wide) for row in rows))
    return "\n\n".join(blocks)


def _line(row: list[str], wide: list[int]) -> str:
    cells = [text.rjust(w) for text, w in zip(row[1:], wide[1:], strict=True)]
    return "  ".join([row[0].ljust(wide[0]), *cells]).rstrip()


def _cell(q: NDArray[np.float64]) -> str:
    low, middle, high = (_number(float(x)) for x in q)
    return "-" if middle == "nan" else f"{middle} ({low}, {high})"


def _number(x: float) -> str:
    """Two digits: .15, 3e-4, 52."""
    if x != x:
        return "nan"
    if x == 0 or 0.005 <= abs(x) < 9.95:
        text = f"{x:.2g}" if abs(x) < 0.095 else f"{x:.2f}"
        return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
    return f"{x:.0f}" if abs(x) >= 9.95 else f"{x:.0e}".replace("e-0", "e-")
