"""tmp"""

from lcsearch.allocate.contract import *
from lcsearch.allocate.contract import Allocation, Move


class RunToEnd:
    name = "run-to-end"

    def init(self):
        return None

    def questions(self, state, snapshot, slots):
        return ()

    def allocate(self, state, snapshot, opinions, abilities, slots, key):
        return Allocation(None, tuple(Move(None, snapshot.goal.horizon) for _ in range(min(slots.free, slots.fresh))))
