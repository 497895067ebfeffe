"""What a study was at some moment, in few words: what its trials reported since gives its snapshot back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from lcsearch.errors import InvalidValue
from lcsearch.goal import Goal
from lcsearch.study.bank import FinishedTrials
from lcsearch.study.snapshot import Snapshot
from lcsearch.study.stood import Stood, packed, unpacked
from lcsearch.study.trial import Status, Trial, uid_sort_key

RECORD = "stop"
"""The stop record that takes part in the risk, see :attr:`lcsearch.study.Trial.stop_records`."""
BEGAN_ANEW = "anew"
"""The one that says that a trial began anew after an attempt at it had died: what that one reported is gone."""


@dataclass(frozen=True)
class Moment:
    """A snapshot without its curves.

    Attributes:
        goal: the study's then.
        finished: uids of the finished trials, in the order in which they were known.
        ended: "STOPPED" and "FAILED" -> the uids among them that had ended so; the others were COMPLETE.
        live: the other trials, uid -> how far they had come.
        recorded: the trials whose stop records took part in the risk.
        digest: of all these trials' curves, see :func:`digest_of`; "" where nobody took it.
    """

    goal: Goal
    finished: tuple[str, ...]
    ended: Mapping[str, tuple[str, ...]]
    live: Mapping[str, Stood]
    recorded: tuple[str, ...] = ()
    digest: str = ""
    status: Mapping[str, Status] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", {uid: Status[name] for name, uids in self.ended.items() for uid in uids})

    @classmethod
    def of(cls, snapshot: Snapshot) -> Moment:
        """What is to be kept of a snapshot."""
        everyone = (*snapshot.bank, *snapshot.live, *snapshot.abandoned)
        ended = {
            status.name: tuple(trial.uid for trial in snapshot.bank if trial.status is status)
            for status in (Status.STOPPED, Status.FAILED)
        }
        return cls(
            snapshot.goal,
            tuple(trial.uid for trial in snapshot.bank),
            {name: uids for name, uids in ended.items() if uids},
            {t.uid: Stood.of(t) for t in sorted(snapshot.live, key=lambda t: uid_sort_key(t.uid))},
            tuple(sorted((t.uid for t in everyone if RECORD in t.stop_records), key=uid_sort_key)),
            digest_of(snapshot),
        )

    def to_record(self) -> dict[str, Any]:
        """Plain values for one JSON line; uids in a row are one range."""
        record: dict[str, Any] = {
            "goal": asdict(self.goal),
            "finished": packed(self.finished),
            "live": {uid: stood.to_text() for uid, stood in self.live.items()},
            "digest": self.digest,
        }
        if self.ended:
            record["ended"] = {name: packed(uids) for name, uids in self.ended.items()}
        if self.recorded:
            record["recorded"] = packed(self.recorded)
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Moment:
        """Read :meth:`to_record` back; what else stands in the record is passed over.

        Raises:
            InvalidValue: it is none.
        """
        try:
            return cls(
                Goal(**record["goal"]),
                _all(record["finished"]),
                {Status[name].name: _all(parts) for name, parts in record.get("ended", {}).items()},
                {str(uid): Stood.from_text(text) for uid, text in record["live"].items()},
                _all(record.get("recorded", ())),
                str(record.get("digest", "")),
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InvalidValue("a moment written by lcsearch", str(record)[:80], "Moment.from_record") from error

    def again(self, study: str, trials: Mapping[str, Trial], records: Mapping[str, Any] | None = None) -> Snapshot:
        """The snapshot as it was.

        Args:
            study: its name.
            trials: uid -> trial as it stands now or later.
            records: uid -> stop record of those in :attr:`recorded`; None leaves all trials without any.

        Raises:
            InvalidValue: a trial is not there, or its reports of then cannot be told.
        """
        kept = {} if records is None else {uid: records[uid] for uid in self.recorded if uid in records}

        def then(uid: str) -> Trial:
            if uid not in trials:
                raise InvalidValue("every trial that the receipt names", f"no trial {uid!r}", "again(trials=)")
            return replace(trials[uid], stop_records={RECORD: kept[uid]} if uid in kept else {})

        ended = (replace(then(uid), status=self.status.get(uid, Status.COMPLETE)) for uid in self.finished)
        live = tuple(stood.again(then(uid)) for uid, stood in self.live.items())
        known = {*self.finished, *self.live}
        gone = tuple(Trial(uid, stop_records={RECORD: kept[uid]}) for uid in kept if uid not in known)
        return Snapshot(study, self.goal, FinishedTrials(self.goal).extend(ended), live, gone)


def digest_of(snapshot: Snapshot, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a snapshot shows of curves, in 16 letters: of finished trials in their order, of live ones in any.

    As :attr:`lcsearch.curves.Curve.digest` it is the same in every process and storage.

    Args:
        snapshot: the study.
        known: uid -> the digest that a curve had, for those that are gone.
    """
    whole = hashlib.blake2b(digest_size=8)
    for trial in (*snapshot.bank, *sorted(snapshot.live, key=lambda t: uid_sort_key(t.uid))):
        whole.update(f"{trial.uid} {trial.status.name} {known.get(trial.uid, trial.curve.digest)}|".encode())
    return whole.hexdigest()


def _all(parts: Sequence[str] | Iterable[str]) -> tuple[str, ...]:
    return tuple(uid for part in parts for uid in unpacked(part))
