"""Phrases that live view, summary and report share."""

from __future__ import annotations

from lcsearch.sweep.file import SweepFile
from lcsearch.sweep.progress import Best, Row


def best_line(best: Best, sweep: SweepFile) -> str:
    """`val_loss 0.0712 (trial 12, epoch 38)`."""
    return f"{sweep.metric} {best.value:.6g} (trial {best.number}, {sweep.step} {best.step})"


def finished_line(row: Row, sweep: SweepFile) -> str:
    """One line for a trial that ended, with its reason.

    `trial 12 stopped at epoch 9, 31 saved: val_loss 0.83; step 9: P(beat) 0.4 %...`
    """
    line = f"trial {row.number} {row.state}"
    if row.state == "stopped":
        line += f" at {sweep.step} {row.spent}, {row.saved} saved"
    if row.last is not None and row.state != "failed":
        line += f": {sweep.metric} {row.last[1]:.4g}"
    return f"{line}; {row.note}" if row.note else line


def clock(seconds: float) -> str:
    """`7 s`, `3 min 07 s`, `2 h 05 min`, `3 d 04 h`.

    >>> [clock(s) for s in (7.9, 187, 7500, 273_600)]
    ['7 s', '3 min 07 s', '2 h 05 min', '3 d 04 h']
    """
    s = int(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    return f"{s // 3600} h {s % 3600 // 60:02d} min" if s < 172_800 else f"{s // 86_400} d {s % 86_400 // 3600:02d} h"


def money(amount: float) -> str:
    """Two decimals, more where they would show nothing; the currency is the user's.

    >>> money(12.345), money(0.00213), money(0.0)
    ('12.35', '0.0021', '0.00')
    """
    return f"{amount:.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"
