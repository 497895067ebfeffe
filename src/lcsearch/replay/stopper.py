"""What a replay asks at every look: a session with its forecasters, or a rule of the field to compare with."""

from __future__ import annotations

from typing import Protocol

from lcsearch.stopping.gates import Event
from lcsearch.stopping.judge import Judgement
from lcsearch.study import Snapshot


class Stopper(Protocol):
    """Decides looks. :class:`~lcsearch.session.Session` is one; see replay/baselines.py for others."""

    def check(self, snapshot: Snapshot, event: Event) -> Judgement:
        """Decide one look: STOP or CONTINUE. Must not look at anything but its arguments."""
        ...
