"""The objective contract: a function `f(ctx)` of one `Context`."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from numbers import Real
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Protocol

from lcsearch import checkpoint
from lcsearch.allocation.turns import verdict_at
from lcsearch.checkpoint import Checkpoint
from lcsearch.curves import Curve
from lcsearch.errors import FileProblem, InvalidValue
from lcsearch.goal import Goal
from lcsearch.schedule import Schedule
from lcsearch.stopping.verdict import Verdict
from lcsearch.study import judged_at_end, trained_by
from lcsearch.study.attempts import Attempts
from lcsearch.sweep.spec.references import locate
from lcsearch.sweep.spec.seeds import derive_seed


class Stopped(Exception):
    """Raised out of `ctx.report`: this trial ends here. Not an error: clean up if you must, and let it pass."""


class Interrupted(Stopped):
    """Raised out of `ctx.report`: the sweep is draining; the trial goes on from its checkpoint at `--resume`."""


class Lost(Interrupted):
    """Raised out of `ctx.report`: this process was away for so long that another machine has taken the trial."""


class Paused(Stopped):
    """Raised out of `ctx.save`: this trial's turn is over. It goes on from this checkpoint when it gets another one."""


class Reporter(Protocol):
    """Where reports go; an `optuna.trial.Trial` is one."""

    def report(self, value: float, step: int) -> None:
        """Keep one report."""
        ...

    def should_prune(self) -> bool:
        """Should the trial end here?"""
        ...


class Context:
    """Everything an objective may ask of its sweep.

    Attributes:
        params: the configuration, constants of the space included: a plain dict of the trial's own, so it can be kept
            in JSON or beside a model, and changing it changes nothing that is recorded.
        number: the trial's number.
        max_steps: the step to train to; report steps up to and including it.
        seed: 31 bits, a pure function of (sweep seed, trial number); a thawed trial has the stopped one's.
        device: "cpu", "cuda:0", ...: where to train.
        schedule: the planned learning rate, or None when the sweep file names none: `lr = ctx.schedule(step)`.
        checkpoint_dir: a folder of this trial's own; it exists and outlives the process. What is written into it by
            hand is found again as it was left, perhaps by a process that was killed over it; `saving` is whole.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        params: Mapping[str, Any],
        number: int,
        goal: Goal,
        seed: int,
        checkpoint_dir: Path,
        device: str = "cpu",
        schedule: Schedule | None = None,
        reported: Mapping[int, float] | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        heard: Callable[[int, float], None] = lambda step, at: None,
        pause_at: float = math.inf,
        turn_over: Callable[[], float | None] = lambda: None,
        seeded_as: int | None = None,
    ) -> None:
        self.params: dict[str, Any] = dict(params)
        self.number, self.device, self.schedule = number, device, schedule
        self.max_steps = int(goal.horizon)
        self.seed = derive_seed(seed, number if seeded_as is None else seeded_as)
        self.checkpoint_dir = checkpoint_dir
        self._reporter, self._goal, self._interrupted = reporter, goal, interrupted
        self._heard = heard  # called with every report's step and time, a replayed one's too
        self._attempts = Attempts(reported or {})
        self._before = frozenset(self._attempts.values)  # steps that an earlier process had reported
        self._here: set[int] = set()  # steps reported by this process
        self._ended: Stopped | None = None
        self._noted: dict[str, list[float]] = {}
        self._ahead = -1
        self._overtaken = False
        self._pause_at = pause_at  # its turn is over at its first report there or later
        self._drains = False  # the sweep does, and this trial may save before it leaves
        self._turn_over = turn_over  # asks who goes on: until which step this trial does, or None
        self._last: int | None = None  # the step that was reported last in this process
        self._asked: int | None = None  # the one at which was asked who goes on
        self._due = False

    @property
    def ahead(self) -> int | None:
        """The last step that was trained though its report came too late to be taken; None where there is none."""
        return self._ahead if self._ahead > max(self.reported, default=-1) else None

    def missed(self, step: int) -> None:
        """A report of `step` came after the end: training had gone on to there."""
        self._ahead = max(self._ahead, _whole(step, "ctx.missed(step=)"))

    @property
    def overtaken(self) -> bool:
        """Was there a stop that was taken back, because training had come to its end before it?"""
        return self._overtaken

    def overtake(self, late: Iterable[tuple[int, float, float]]) -> None:
        """Take back what `report` raised: training was over by then. From here on nothing stops the trial.

        Args:
            late: (step, value, when) of what was trained meanwhile, as :meth:`take` takes it; all of it counts.
        """
        self._overtaken = self._overtaken or (self._ended is not None and not isinstance(self._ended, Interrupted))
        self._ended = None
        for step, value, at in late:
            self._keep(value, step, at)

    def keep(self, late: Iterable[tuple[int, float, float]]) -> None:
        """Keep what was trained before an interruption could reach it, without a look: the trial goes on from there.

        Args:
            late: as :meth:`overtake` has it.
        """
        if isinstance(self._ended, Interrupted) and not isinstance(self._ended, Lost):
            for step, value, at in late:
                self._keep(value, step, at)

    @property
    def reported(self) -> Mapping[int, float]:
        """step -> value, all reports of this trial so far, those of an earlier process included that this one goes on
        from.
        """
        return MappingProxyType(self._attempts.values)

    @property
    def noted(self) -> Mapping[str, list[float]]:
        """What was odd about this process's reports, the first of each kind; told with the trial when it ends.

        "repeated": [step], "beyond" max_steps: [step], "descending": [step, the step before it], "unsaved": [step at
        which its turn was over and it did not save], "returned", other than what is judged: [value], and "replayed":
        [how many reports an earlier process had made already].
        """
        return MappingProxyType(self._noted)

    @property
    def all_beyond(self) -> str:
        """That there were reports, but none up to `max_steps`, and what to do; "" where that is not so."""
        if self.reported or "beyond" not in self._noted:
            return ""
        none = f"no report up to step {self.max_steps} (max_steps), the first was of step {self._noted['beyond'][0]:g}"
        return f"{none}: count from the trial's begin, or set max_steps to where it ends"

    def returned(self, value: object) -> None:
        """Note what the objective returned, where that is a number other than the one it is judged by.

        Steps that only an earlier process had reached, which was killed, are none of this trial's.
        """
        self._attempts.end()
        judged = self.judged()
        if isinstance(value, bool) or not isinstance(value, Real) or judged is None:
            return
        with suppress(OverflowError):
            number = float(value)
            if math.isfinite(number) and not math.isclose(number, judged, rel_tol=1e-6):
                self._note("returned", number)

    def _note(self, kind: str, *numbers: float) -> bool:
        """True the first time."""
        if kind in self._noted:
            return False
        self._noted[kind] = list(numbers)
        return True

    @property
    def ended(self) -> Stopped | None:
        """The exception `report` raised, if it did: it holds even where the objective swallowed it."""
        return self._ended

    def report(self, value: float, step: int) -> None:
        """Report the metric at `step` (0 <= step <= max_steps). Any float: NaN and inf are kept as they are.

        What an earlier process had reported, which was killed, is harmless to say again; another value takes its place,
        and what came after that is of this trial no more.

        Raises:
            Stopped: the pruner stopped this trial; let it pass.
            InvalidValue: the value is not a number or the step not a whole number >= 0.
        """
        self.take(value, step, time.monotonic())

    def take(self, value: float, step: int, at: float) -> None:
        """As `report`, of what came at `at` by this process's monotonic clock and may have waited since."""
        if self._drains:
            self._drain()
        if self._ended is not None:
            raise self._ended
        if self._last is not None and self._is_over(self._last) and self._note("unsaved", self._last):
            text = f"its turn was over at step {self._last}, and it did not save: it runs on until it does. Call"
            print(f"{text} ctx.save(state, step) after ctx.report where ctx.checkpoint_due", file=sys.stderr)
        new = self._keep(value, step, at)
        # nothing is left to save at the horizon
        if new and step < self.max_steps and not self._overtaken and self._reporter.should_prune():
            self._ended = Stopped(f"stopped at step {step}")
        self.check()

    def _keep(self, value: float, step: int, at: float) -> bool:
        """True for a report that says something new."""
        value, step = _number(value), _whole(step, "ctx.report(step=)", "the value comes first, then the step")
        self._heard(step, at)
        new = False
        if step > self.max_steps:
            if self._note("beyond", step):
                print(f"report at step {step} ignored: max_steps is {self.max_steps}", file=sys.stderr)
        elif step in self._here:
            if self._note("repeated", step):
                print(f"report at step {step} ignored: it was reported before", file=sys.stderr)
        else:
            if step in self._before:
                self._noted["replayed"] = [self._noted.get("replayed", [0])[0] + 1]
            elif self._last is not None and step < self._last:
                self._note("descending", step, self._last)
            new = not self._attempts.repeats(step, value)
            if new:
                try:
                    self._reporter.report(value, step)
                except Stopped as ended:
                    self._ended = ended
                    raise
            self._attempts.take(step, value)
        self._here.add(step)
        self._last = step
        return new

    @property
    def checkpoint_due(self) -> bool:
        """Is this trial's turn over, so that it must save now? Ask after `report`; always False without `pause: true`.
        True, too, where the sweep drains: what is saved then is not trained again.

        Whoever gives the turns is asked here: a trial that gets the next one, too, goes on without saving.
        """
        if self._last is None or self._ended is not None:
            return False
        if self._drains:
            return True
        if self._asked == self._last or self._due:
            return self._due  # where another trial was given the turn, this one is due until it saves
        if self._is_over(self._last):
            self._asked = self._last
            until = self._turn_over()
            self._due = until is None
            self._pause_at = self._pause_at if until is None else until
        return self._due

    def _is_over(self, step: int) -> bool:
        at_end = trained_by(step, min(self.reported, default=step)) >= self._goal.horizon
        return not at_end and verdict_at(Verdict.CONTINUE, step, self._pause_at, self._goal.horizon) is Verdict.PAUSE

    def _pause(self, due: bool, step: int) -> None:
        """Called when a checkpoint is whole.

        Raises:
            Paused: the turn is over.
        """
        if self._drains:
            self._drain()
        if due:
            self._ended = Paused(f"paused at step {step}")
            raise self._ended

    def check(self) -> None:
        """Raise what the next `report` would raise, if that is known already: for one who waits long between reports.

        Raises:
            Stopped: this trial ends here; let it pass.
        """
        if self._ended is None and self._interrupted():
            if math.isfinite(self._pause_at) and self._last is not None and not self._drains:
                self._drains = True  # it leaves when it has saved, or at its next report
                return
            self._drain()
        if self._ended is not None:
            raise self._ended

    def _drain(self) -> None:
        """Leave.

        Raises:
            Interrupted: always.
        """
        self._ended = Interrupted(f"the sweep is draining; left at step {max(self.reported, default=0)}")
        raise self._ended

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Save nested state atomically, in place of what was saved before; call it after `report(..., step)`.

        A dict of tensors, NumPy arrays, bytes, numbers, text, None, and dicts, lists and tuples of these; a model of
        another kind is written to files, see `saving`. Nothing is pickled.

        >>> ctx.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, step)  # doctest: +SKIP
        >>> ctx.save({"booster": booster.save_raw()}, step)  # doctest: +SKIP

        Raises:
            Paused: with `pause: true`, when it is saved and this trial's turn is over; let it pass.
            InvalidValue: something in `state` is not taken, or `step` is no whole number >= 0.
            EnvironmentProblem: the folder cannot be written.
        """
        due = self.checkpoint_due
        checkpoint.save(self.checkpoint_dir, state, _whole(step, "ctx.save(step=)"))
        self._pause(due, step)

    @contextmanager
    def saving(self, step: int, state: Mapping[str, Any] | None = None) -> Iterator[Path]:
        """Save files of any kind, and `state` with them: the block fills an empty folder, and is kept when it ends.

        Step, files and state take the place of what was saved before in one move, whenever the process dies; nothing is
        kept of a block that raises. `load` tells where the files are. What is in them, and whether it is safe to
        load, is the objective's own affair.

        >>> with ctx.saving(step) as folder:  # doctest: +SKIP
        ...     joblib.dump(model, folder / "model.joblib")

        Raises:
            Paused, InvalidValue, EnvironmentProblem: as `save`.
        """
        due = self.checkpoint_due
        with checkpoint.saving(self.checkpoint_dir, state or {}, _whole(step, "ctx.saving(step=)")) as folder:
            yield folder
        self._pause(due, step)

    def load(self) -> Checkpoint | None:
        """What was saved last (its `step`, `state` and `files`), or None on a fresh start; go on at `step + 1`."""
        return checkpoint.load(self.checkpoint_dir)

    def judged(self) -> float | None:
        """The judged value so far, see `judged_value`."""
        return judged_value(self.reported, self._goal)


def judged_value(reported: Mapping[int, float], goal: Goal) -> float | None:
    """What `reported` (step -> value) is worth; None without a report.

    A trial whose judged value is not a finite number is worth the worst there is: +inf when minimizing.
    """
    if not reported:
        return None
    found = judged_at_end(Curve.of(reported), goal)
    return goal.sign * math.inf if found is None else found[0]


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError as error:  # a whole number beyond every float
        raise InvalidValue("a number", "a whole number beyond every float", "ctx.report(value=)") from error
    except (TypeError, ValueError) as error:
        got = f"{value!r:.60} ({type(value).__name__})"
        raise InvalidValue("a number", got, "ctx.report(value=)", "a tensor needs .item()") from error


def _whole(step: Any, where: str, advice: str = "") -> int:
    try:
        whole = int(step)
        if whole > sys.maxsize:  # Python will not even print some of these
            raise InvalidValue("a whole number >= 0", "one of more than 63 bits", where)
        if whole == step and whole >= 0:
            return int(whole)
    except InvalidValue:
        raise
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidValue("a whole number >= 0", step, where, advice)


def load_objective(spec: str, folder: Path) -> Callable[[Context], object]:
    """Import the module beside the sweep file and return its function.

    It keeps its own name, so that what it defines can be pickled, unless that name is another module's already.

    Raises:
        FileProblem: the file is missing, does not import, or has no such function.
    """
    path, function = locate(spec, folder)
    name = spec.partition(":")[0]
    if not path.is_file():
        raise FileProblem(f"{path}: expected the objective's module, got no such file.")
    # at the end of the path: a helper beside the file can be imported, but shadows nothing installed
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name) if _is_ours(name, folder) else _import_privately(name, folder)
    except (Exception, SystemExit) as error:
        text = f"{path}: expected a module that imports, got {type(error).__name__}: {error}."
        raise FileProblem(text) from error
    found = getattr(module, function, None)
    if not callable(found):
        raise FileProblem(f"{path}: expected a function {function!r}, got {found!r}.")
    return found  # type: ignore[no-any-return]  # what it takes shows when it is called


def _is_ours(name: str, folder: Path) -> bool:
    """Does `import name` find what stands in `folder`, and nothing that is installed or imported already?"""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = list(spec.submodule_search_locations or ())
    wanted = folder / top if rest else folder / f"{top}.py"
    # of several folders of one name without __init__.py, Python takes the first that has the module: leave that game
    found = places if rest else [spec.origin or ""]
    return len(found) == 1 and Path(found[0]).resolve() == wanted.resolve()


def _import_privately(name: str, folder: Path) -> ModuleType:
    """Import module `name` of `folder`, and the packages around it, as `lcsearch_objective_<name>`.

    Relative imports work; what stands in `sys.modules` under `name` stays.
    """
    *packages, _ = parts = name.split(".")
    module = None
    for depth in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:depth])
        private = "lcsearch_objective_" + ".".join(parts[:depth])
        if depth > len(packages):
            spec = importlib.util.spec_from_file_location(private, place.with_suffix(".py"))
        elif (place / "__init__.py").is_file():
            spec = importlib.util.spec_from_file_location(
                private, place / "__init__.py", submodule_search_locations=[str(place)]
            )
        else:
            spec = ModuleSpec(private, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[private] = module
        if spec.loader is not None:
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[private]
                raise
    assert module is not None  # a name has at least one part
    return module
