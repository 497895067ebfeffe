"""What a look saw, so that it can be decided again: the knobs and the study at that moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lcsearch.errors import InvalidValue
from lcsearch.stopping.policy import Policy
from lcsearch.study import Snapshot
from lcsearch.study.moment import Moment


@dataclass(frozen=True)
class Seen:
    """The rest of what a decision is a function of, beside its trial, its step and what forecasters say.

    Attributes:
        policy: the knobs.
        moment: the study.
    """

    policy: Policy
    moment: Moment

    @classmethod
    def of(cls, policy: Policy, snapshot: Snapshot) -> Seen:
        """What a look at this snapshot saw."""
        return cls(policy, Moment.of(snapshot))

    def to_record(self) -> dict[str, Any]:
        """Plain values for one JSON line."""
        knobs = {knob.name: getattr(self.policy, knob.name) for knob in fields(Policy)}
        return {"policy": knobs, **self.moment.to_record()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Seen:
        """Read :meth:`to_record` back.

        Raises:
            InvalidValue: it is none, or has knobs that this lcsearch does not know.
        """
        try:
            return cls(Policy(**record["policy"]), Moment.from_record(record))
        except (KeyError, TypeError) as error:
            raise InvalidValue("what a look saw, as lcsearch wrote it", str(record)[:80], "Seen.from_record") from error
