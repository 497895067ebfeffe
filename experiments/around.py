"""An allocator that stands around another one, to see what it does."""

from dataclasses import dataclass
from typing import Any

from lcsearch.allocation.contract import Abilities, Allocation, Allocator, Key, Slots
from lcsearch.forecast.contract import Answers, Query
from lcsearch.study import Snapshot


@dataclass
class Around:
    """Leaves all to `inner`."""

    inner: Allocator

    @property
    def name(self) -> str:
        return self.inner.name

    def init(self) -> Any:
        return self.inner.init()

    def questions(self, state: Any, snapshot: Snapshot, slots: Slots) -> tuple[Query, ...]:
        return self.inner.questions(state, snapshot, slots)

    def allocate(
        self, state: Any, snapshot: Snapshot, forecasts: Answers, abilities: Abilities, slots: Slots, key: Key
    ) -> Allocation:
        return self.inner.allocate(state, snapshot, forecasts, abilities, slots, key)
