"""What a paused trial waits for: by the latest allocation of this process, or by the decision log's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from lcsearch.allocation.booked import told
from lcsearch.allocation.named import KINDS, allocator
from lcsearch.allocation.receipt import AGAINST, AllocationReceipt
from lcsearch.session.allocations import REMEMBERED_ALLOCATIONS
from lcsearch.session.decision_log import read_allocations
from lcsearch.session.session import Session
from lcsearch.study import Snapshot, Trial
from lcsearch.study.stood import Stood

_SLOTS_SHOWN = 5


def waiting(session: Session, trial: Trial, snapshot: Snapshot, asked: Callable[[], str] | None = None) -> list[str]:
    """What a paused trial waits for, and who got the slots lately, in a few lines.

    Args:
        session: whose allocations are told, or those of its decision log where another process made the latest.
        trial: it is PAUSED.
        snapshot: its study as it stands.
        asked: says what it waits for, were a slot free now; where no allocation is known.
    """
    here, logged, folder = session.allocations(snapshot), *_logged(session, snapshot)
    if logged and (not here.receipts or here.receipts[-1].number < logged[-1].number):
        lines, receipts = _by_receipts(session, trial, snapshot, logged, folder), logged
    elif here.receipts:
        lines, receipts = [str(wait) for wait in here.waits if wait.uid == trial.uid], here.receipts
        lines += [line for one in receipts[-1:] if not lines and (line := one.story(trial.uid))]
        if not lines and not _names(receipts[-1], trial):
            lines = [_since(receipts[-1], "of this process")]
    else:
        return [asked() if asked is not None else _UNKNOWN]
    if (gained := told(receipts, trial.uid)) is not None:
        lines = [*lines, gained]
    latest = [line for one in receipts[-REMEMBERED_ALLOCATIONS:] for line in one.lines][-_SLOTS_SHOWN:]
    return [*lines, "the last slots went to:", *(f"  {line}" for line in latest)]


_UNKNOWN = (
    "no slot was given away by this process, and it keeps no decision log that tells of others: give the process that "
    "allocates and this one the same decision_log=FOLDER"
)


def _logged(session: Session, snapshot: Snapshot) -> tuple[list[AllocationReceipt], str]:
    """The study's receipts in the decision log, in time order, and where that is."""
    folder = session.log_folder
    if folder is not None:
        with suppress(OSError):
            return [one for one in read_allocations(folder) if one.study == snapshot.study], str(folder)
    return [], ""


def _names(receipt: AllocationReceipt, trial: Trial) -> bool:
    """Does it know the trial as it is paused now?"""
    return receipt.live.get(trial.uid, ())[:2] == Stood.of(trial)[:2]


def _since(last: AllocationReceipt, where: str) -> str:
    n = f"allocation {last.number} ({last.allocator}), the latest {where}"
    return f"it was paused after {n}, and no slot was given away since"


def _by_receipts(
    session: Session, trial: Trial, snapshot: Snapshot, receipts: Sequence[AllocationReceipt], folder: str
) -> list[str]:
    """By the latest receipt that knows the trial as it is paused now."""
    found = next((one for one in reversed(receipts) if _names(one, trial)), None)
    last = receipts[-1]
    if found is None:
        return [_since(last, f"in {folder}")]
    source = f"by allocation {found.number} ({found.allocator}), "
    source += f"the latest in {folder}" if found is last else f"in {folder}; later ones do not name it"
    stood = next((str(wait) for wait in found.against if wait.uid == trial.uid), None)
    stood = stood or _made_again(session, trial.uid, snapshot, found) or found.story(trial.uid)
    stood = stood or f"waits: it was not among the {AGAINST} nearest to a slot of the {found.n_waiting} that waited"
    return [stood, f"  {source}"]


def _made_again(session: Session, uid: str, snapshot: Snapshot, receipt: AllocationReceipt) -> str | None:
    """What a trial waited for that is too far from a slot to stand in the receipt; None where nothing tells."""
    if receipt.failed or receipt.allocator not in KINDS:
        return None
    trials = {trial.uid: trial for trial in (*snapshot.bank, *snapshot.live, *snapshot.abandoned)}
    with suppress(Exception):  # a trial that is gone, other knobs: the receipt tells less, that is all
        by = allocator(receipt.allocator, **dict(receipt.knobs))
        made = session.aside().allocate(receipt.asked(by, snapshot.goal, trials))
        if (made.moves, made.stops) == (receipt.moves, receipt.stops):
            return next((str(wait) for wait in made.waits if wait.uid == uid), None)
    return None
