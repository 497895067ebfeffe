"""The run folder: where everything of one sweep lies, who holds it, and how it comes to be.

::

    runs/digits/
        run.json               the resolved sweep (overrides applied), where its file stood, whether its study was made
        sweep.yaml             the sweep file as it was read
        study.sqlite3          the Optuna study
        clock.json             wall clock of all launches so far
        decisions/             the decision log, one JSONL file per writer
        logs/worker-0.log      what worker 0 and its trials printed
        logs/worker-0.jsonl    what worker 0 told of its trials and itself, see worker_log.py
        pulses/worker-0.json   when worker 0 was alive last, and when its trial reported last
        logs/trial-00012.log   what a trial printed that Ray trained
        logs/ray.log           what Ray itself had to say
        ray/                   what Ray keeps of its runs
        checkpoints/trial-00012/
        report/                what `lcsearch report` made of it
        run.lock               held by the launcher and, through it, by its workers
        claim.lock             held while a worker takes a trial
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lcsearch import files
from lcsearch.errors import EnvironmentProblem, FileProblem
from lcsearch.files import loads, write_atomically
from lcsearch.secrets_in_urls import holds, mask
from lcsearch.sweep.spec.load import Sweep
from lcsearch.sweep.spec.model import SweepFile
from lcsearch.sweep.spec.references import locate

FORMAT = 1
REPORTS = "reports.jsonl"
"""What a trial on Ray has reported, in its checkpoint folder."""

_MEND = "Bring it back from a copy, or start over with --fresh or another --folder."

_LONGEST = 1 << 26  # bytes of run.json and sweep.yaml
_MOST_CHANGES, _WIDEST = 40, 200  # lines of a changed sweep file that are shown, and columns
_LONGEST_CODE = 10_000_000  # bytes; a longer file that a command names is data


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    root: Path

    @property
    def record(self) -> Path:
        """The resolved sweep."""
        return self.root / "run.json"

    @property
    def sweep_copy(self) -> Path:
        """The sweep file as it was read."""
        return self.root / "sweep.yaml"

    @property
    def clock(self) -> Path:
        """How long its launches have run."""
        return self.root / "clock.json"

    @property
    def decisions(self) -> Path:
        """The decision log."""
        return self.root / "decisions"

    @property
    def logs(self) -> Path:
        """What the workers printed."""
        return self.root / "logs"

    def log(self, slot: int) -> Path:
        """What worker `slot` printed."""
        return self.logs / f"worker-{slot}.log"

    def told(self, slot: int) -> Path:
        """What worker `slot` told of its trials and itself."""
        return self.logs / f"worker-{slot}.jsonl"

    def pulse(self, slot: int) -> Path:
        """The pulse of worker `slot`."""
        return self.root / "pulses" / f"worker-{slot}.json"

    def trial_log(self, number: int) -> Path:
        """What one trial printed, where Ray trains."""
        return self.logs / f"trial-{number:05d}.log"

    @property
    def ray_log(self) -> Path:
        """What Ray itself printed in the launcher."""
        return self.logs / "ray.log"

    def checkpoints(self, number: int) -> Path:
        """The checkpoint folder of one trial."""
        return self.root / "checkpoints" / f"trial-{number:05d}"

    def has_checkpoint(self, number: int) -> bool:
        """Has a trial left anything in its checkpoint folder, beside what lcsearch itself keeps there?"""
        return any(path.name != REPORTS for path in self.checkpoints(number).glob("*"))

    @property
    def default_storage(self) -> str:
        """The storage's URL unless the file names one."""
        return f"sqlite:///{self.root / 'study.sqlite3'}"

    def _kept(self) -> dict[str, Any]:
        """What run.json says; nothing where there is none, or one that cannot be read."""
        try:
            record = loads(files.read(self.record, _LONGEST))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def identity(self) -> str:
        """What tells this run from every other on any machine; "" for one of an earlier lcsearch, or none at all."""
        return str(self._kept().get("id", ""))

    def has_study(self) -> bool:
        """Was the run's study made? An earlier lcsearch did not say: then it was."""
        return bool(self._kept().get("study", self.record.exists()))

    def note_study(self) -> None:
        """The run's study was made."""
        if not (record := self._kept()).get("study", False):
            private = self.record.stat().st_mode & 0o077 == 0
            write_atomically(self.record, json.dumps({**record, "study": True}, indent=1).encode(), private=private)

    def write(self, sweep: Sweep) -> None:
        """Write (or rewrite) the record of `sweep`; for the owner's eyes alone if it holds a storage's password."""
        record = {
            "format": FORMAT,
            "id": self.identity() or uuid.uuid4().hex,
            "study": self.has_study(),
            "code": code_of(sweep),
            "file": str(sweep.path),
            "sweep": sweep.file.model_dump(mode="json", by_alias=True),
        }
        private = holds(sweep.text) or holds(sweep.file.backend.storage or "")
        write_atomically(self.sweep_copy, sweep.text.encode(), private=private)
        write_atomically(self.record, json.dumps(record, indent=1).encode(), private=private)

    def changed_code(self, sweep: Sweep) -> list[str]:
        """The objective's own files that are not what they were when the run was last launched."""
        before = self._kept().get("code")
        before = before if isinstance(before, dict) else {}
        return [name for name, digest in code_of(sweep).items() if before.get(name, digest) != digest]

    def read(self) -> Sweep:
        """The sweep as it was resolved when the run was started; without its text where that is gone or damaged.

        Raises:
            FileProblem: this is not a run folder, or one of a later format.
        """
        try:
            content = files.read(self.record, _LONGEST)
        except (FileNotFoundError, NotADirectoryError):
            elsewhere = "Curves of other tools are for `lcsearch replay`."
            raise FileProblem(f"{self.root}: expected a run folder, got no run.json in it. {elsewhere}") from None
        except OSError as error:
            raise FileProblem(f"{self.record}: expected the record of a run, got {_said(error)}. {_MEND}") from error
        try:
            record = loads(content)
            if not isinstance(record, dict):
                raise ValueError(str(record)[:40])
            if record["format"] != FORMAT:
                text = f"{self.record}: expected format {FORMAT}, got {str(record['format'])[:40]}. Update lcsearch."
                raise FileProblem(text)
            file, path = SweepFile.model_validate_json(json.dumps(record["sweep"])), Path(record["file"])
        except (ValueError, KeyError, TypeError) as error:
            said = f"none with {error}" if isinstance(error, KeyError) else _said(error)
            raise FileProblem(f"{self.record}: expected the record of a run, got {said}. {_MEND}") from error
        with contextlib.suppress(FileProblem):  # who resumes is told; nobody else needs it
            return Sweep(file, path, self.text())
        return Sweep(file, path, "")

    def text(self) -> str:
        """The sweep file as it was read when the run was started.

        Raises:
            FileProblem: it is gone or damaged.
        """
        try:
            return files.read_text(self.sweep_copy, _LONGEST)
        except (OSError, ValueError) as error:
            what = "expected the sweep file as the run was started with it"
            raise FileProblem(f"{self.sweep_copy}: {what}, got {_said(error)}. {_MEND}") from error

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the claim lock: one process at a time takes, releases or counts trials on this machine."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self.root / "claim.lock"))
            except OSError as error:
                raise EnvironmentProblem(_unusable(self.root / "claim.lock", error)) from error
            yield

    def hold(self, patience_s: float = 15.0) -> int:
        """Take the run lock and return its file descriptor, for the workers to inherit.

        The lock is free when every process that has the descriptor is gone: a launcher that resumes waits here
        for the workers of a killed one, which notice within seconds.

        Raises:
            EnvironmentProblem: somebody else holds it still.
        """
        deadline, path = time.monotonic() + patience_s, self.root / "run.lock"
        while True:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = files.lock_file(path)
            except OSError as error:
                raise EnvironmentProblem(_unusable(path, error)) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):
                    return descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    text = f"{self.root}: expected nobody at work here, got a running `lcsearch run`. "
                    raise EnvironmentProblem(text + "Wait for it, or end it, then try again.") from None
                time.sleep(0.1)
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Is the open file still the one at `path`? `--fresh` moves a run aside, its lock with it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _unusable(path: Path, error: OSError) -> str:
    return f"{path}: expected a file lcsearch can write to, got {_said(error)}. Move it away, then try again."


def _said(error: Exception) -> str:
    """The first line of it; an error of the system without its number and path, the first of a model with its key."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"${''.join(f'.{key}' for key in first['loc'])} that does not hold ({first['msg']})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")


def check_own_files(folder: RunFolder) -> None:
    """What lcsearch writes in the run folder are its own files: no link to elsewhere, no folder in a file's place.

    Raises:
        EnvironmentProblem: one is not.
    """
    root, own = folder.root, {folder.record, folder.sweep_copy, folder.clock}
    own |= {root / "run.lock", root / "claim.lock", root / "study.sqlite3", folder.ray_log}
    for place in (folder.logs, root / "pulses", folder.decisions):
        _expect(place, stat.S_ISDIR, "a folder")
        if place.is_dir():
            names = ("*.log", "*.jsonl", "worker-*.json")
            own |= {path for path in place.iterdir() if any(path.match(name) for name in names)}
    if not (root / "checkpoints").is_dir():  # they may lie on a larger disk
        _expect(root / "checkpoints", stat.S_ISDIR, "a folder")
    for path in sorted(own):
        _expect(path, stat.S_ISREG, "a file")


def _expect(path: Path, kind: Callable[[int], bool], wanted: str) -> None:
    """What is at `path`, if anything is, is of this kind itself."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if kind(mode):
        return
    kinds = {"a file": stat.S_ISREG, "a folder": stat.S_ISDIR, "a symbolic link": stat.S_ISLNK}
    got = next((name for name, is_one in kinds.items() if is_one(mode)), "something else")
    text = f"{path}: expected {wanted} of lcsearch's own, got {got}"
    text += ", and lcsearch writes through none" if got == "a symbolic link" else ""
    raise EnvironmentProblem(f"{text}. Move it away, then try again.")


def code_of(sweep: Sweep) -> dict[str, str]:
    """Name -> digest of the objective's own files: its module, or the files that its command names.

    What these import is not looked at.
    """
    folder, objective = sweep.path.parent, sweep.file.objective
    if objective.python is not None:
        named = [locate(objective.python, folder)[0]]
    else:
        named = [folder / word for word in objective.command or ()]
    digests = {}
    for file in named:
        with contextlib.suppress(OSError, ValueError):  # most words of a command name no file
            if file.is_file() and file.stat().st_size <= _LONGEST_CODE:
                digests[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests


def prepare(
    sweep: Sweep, folder: RunFolder, *, resume: bool, fresh: bool, check: Callable[[], None] = lambda: None
) -> tuple[Sweep, int, str | None]:
    """Make or reopen the run folder.

    Args:
        check: raises if the run must not begin; called when the folder is held and nothing in it was changed.

    Returns:
        (the sweep to run, the held run lock, a notice for the user or None)

    Raises:
        FileProblem: the folder holds another run, or a changed file is to be resumed.
        EnvironmentProblem: the folder cannot be written, or is in use.
    """
    root, notice = folder.root, None
    _check(sweep, folder, resume=resume, fresh=fresh)  # at once: the lock may be a long wait
    before = folder.identity()
    _writable(root)
    lock = folder.hold()
    try:
        exists = _check(sweep, folder, resume=resume, fresh=fresh)  # whoever held it may have made a run, or another
        if resume and folder.identity() != before:
            text = f"{root}: expected the run that was to be resumed, got one begun in the meantime. "
            raise FileProblem(text + "Look at it with `lcsearch status`, then try again.")
        check()
        if exists and fresh:
            kept = _move_aside(folder)
            notice = f"the earlier run was kept as {kept}"
            new = folder.hold()
            os.close(lock)
            lock = new
        check_own_files(folder)
        if not (exists and fresh) and (changed := folder.changed_code(sweep)):
            notice = f"changed since the last launch: {', '.join(changed)}; trials go on with it as it is now"
        for path in (folder.decisions, folder.logs, root / "checkpoints", root / "pulses"):
            path.mkdir(exist_ok=True)
        folder.write(sweep)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError):
            raise EnvironmentProblem(_unwritable(root, _said(error))) from error
        raise
    return sweep, lock, notice


def _check(sweep: Sweep, folder: RunFolder, *, resume: bool, fresh: bool) -> bool:
    """Is a run in the folder?

    Raises:
        FileProblem: there is what must not be there, or not what is wanted.
    """
    root, exists = folder.root, folder.record.exists()
    if exists and not resume and not fresh:
        text = f"{root}: expected no run here, got the run of {folder.read().path}. "
        raise FileProblem(text + "Use --resume to go on with it, --fresh to start over, --folder to keep both.")
    if not exists and resume:
        raise FileProblem(f"{root}: expected a run to resume, got none. Leave --resume out to start one.")
    if not exists and root.is_dir() and not all(_left_by_a_kill(path, sweep) for path in root.iterdir()):
        text = f"{root}: expected a new or empty folder, got one with other files in it. "
        raise FileProblem(text + "Choose another with --folder.")
    if exists and resume:
        _same_file(sweep, folder)
    return exists


def _left_by_a_kill(path: Path, sweep: Sweep) -> bool:
    """Can `path` stand in a folder without run.json because a launcher died while it made the folder?"""
    match path.name:
        case "decisions" | "logs" | "checkpoints" | "pulses":
            return path.is_dir() and not any(path.iterdir())  # one with things in it is somebody's
        case "sweep.yaml":
            return path.is_file() and path.read_bytes() == sweep.text.encode()
        case name:
            return (
                name == "run.lock" or re.fullmatch(r"\.probe-\d+|\.(sweep\.yaml|run\.json)\.\d+\.tmp", name) is not None
            )


def _same_file(sweep: Sweep, folder: RunFolder) -> None:
    before = folder.text()
    if before != sweep.text:
        lines = difflib.unified_diff(
            before.splitlines(), sweep.text.splitlines(), "as it was run", str(sweep.path), lineterm="", n=0
        )
        shown = [f"    {mask(line[:_WIDEST])}" for line in islice(lines, _MOST_CHANGES)]
        if len(shown) == _MOST_CHANGES:
            shown.append("    ...")
        text = "\n".join([f"{sweep.path}: expected the file this run was started with, got a changed one:", *shown])
        raise FileProblem(f"{text}\nUndo the change to resume, or start over with --fresh or another --folder.")


def _move_aside(folder: RunFolder) -> Path:
    """Rename the folder to the first free `NAME.old-K`: --fresh starts over, it does not destroy."""
    k = 1
    while (kept := folder.root.with_name(f"{folder.root.name}.old-{k}")).exists():
        k += 1
    folder.root.rename(kept)
    return kept


def _unwritable(root: Path, error: object) -> str:
    return f"{root}: expected a folder lcsearch can write to, got {error}. Choose another with --folder."


def _writable(root: Path) -> None:
    """Make `root` and prove that a file can be written in it, before anything starts."""
    probe = root / f".probe-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise EnvironmentProblem(_unwritable(root, error.strerror or error)) from error


def latest(runs: Path, advice: str = "Name one with --folder.") -> Path:
    """The run under `runs` that was started last.

    Raises:
        FileProblem: there is none; `advice` says what to do then.
    """
    times: dict[Path, float] = {}
    for path in runs.glob("*/run.json"):
        with contextlib.suppress(OSError):  # it was moved away just now, or leads nowhere
            times[path] = path.stat().st_mtime
    records = sorted(times, key=times.__getitem__)
    if not records:
        raise FileProblem(f"{runs}: expected a run in this folder, got none. {advice}")
    return records[-1].parent
