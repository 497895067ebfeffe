"""The certificate of the weights that ship: how often sweeps lost their winner on tasks that were not trained on.

`NAME.certificate.json` beside the weights is written by `experiments/e6_certificate`, which says how each number comes
about. It speaks of these weights, asked alone, behind these gates, at these thresholds, and of nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources.abc import Traversable
from typing import Any

from lcsearch.errors import EnvironmentProblem
from lcsearch.files import loads
from lcsearch.stopping.decision import percent
from lcsearch.stopping.policy import Policy
from lcsearch.weights.shipped import INDEX, REINSTALL, package

FORMAT = 1
TRAINING = "training"
"""The tasks in which a trial is trained on step by step; in others it is fitted anew to more data at each."""


@dataclass(frozen=True)
class Line:
    """What is certified at one threshold, of tasks from one source or of all. All but counts are shares in [0, 1].

    Attributes:
        source: of the tasks; "" for all of them pooled, TRAINING for those of all sources whose steps are training.
        threshold: P(beat) below which a trial was stopped.
        tasks: how many were kept aside: the units.
        lost: of a task's sweeps those whose best trial was stopped before its best value, the mean over tasks.
        at_most: with the certificate's confidence, the most that `lost` comes to over tasks drawn alike.
        tasks_lost: tasks in which any sweep lost it.
        tasks_at_most: with that confidence, the largest share of such tasks.
        expected: the bound of the mean loss on one more task, by conformal risk control.
        stopped: trials that were stopped; who stops so many at random loses the winner as often.
        spent: of what all trials cost to their ends.
        missed: sweeps in which nothing as good as the best was kept, epsilon apart.
        early: of the horizon -> sweeps whose best was stopped before that.
    """

    source: str
    threshold: float
    tasks: int
    lost: float
    at_most: float
    tasks_lost: int
    tasks_at_most: float
    expected: float
    stopped: float
    spent: float
    missed: float
    early: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Certificate:
    """What ships with weights.

    Attributes:
        version: of the forecaster that has the weights: their name and hash.
        gates: the knobs of the policy beside its threshold.
        confidence: that a line's bounds hold; each line alone.
        trials: of a sweep, at most.
        orders: sweeps of every task.
        lines: thresholds from strict to loose, all tasks pooled first, then by source.
    """

    version: str
    gates: Mapping[str, Any]
    confidence: float
    trials: int
    orders: int
    lines: tuple[Line, ...]

    def line(self, threshold: float, source: str = "") -> Line | None:
        """What it says of a threshold; None where that is not among its own."""
        return next((line for line in self.lines if (line.threshold, line.source) == (threshold, source)), None)

    def differs(self, policy: Policy) -> str:
        """Why it says nothing of a policy, in a few words; "" where it does."""
        for field in fields(Policy):
            mine, theirs = self.gates.get(field.name, field.default), getattr(policy, field.name)
            if field.name == "n_warmup_steps" and mine == 0 and theirs <= 1:
                continue  # a first step, of which no look is made anyway
            if field.name == "audit":
                continue  # stops that are not carried out lose nothing
            if field.name != "threshold" and mine != theirs:
                return f"it is for {field.name}={mine}, here it is {theirs}"
        known = [line.threshold for line in self.lines if not line.source]
        if policy.threshold not in known:
            return f"it is for thresholds of {', '.join(f'{t:g}' for t in known)}, here it is {policy.threshold:g}"
        return ""

    def text(self, threshold: float) -> str:
        """The pooled line of one of its thresholds, and its scope, in two sentences."""
        line, trained = self.line(threshold), self.line(threshold, TRAINING)
        assert line is not None
        own = ""
        if trained is not None:
            own = f"; of the {trained.tasks} whose steps are training in {percent(trained.lost)}, "
            own += f"in at most {_up(trained.at_most)}"
        return (
            f"at threshold {threshold:g}, sweeps of {line.tasks} tasks kept aside lost their best trial in "
            f"{percent(line.lost)}, with {percent(self.confidence)} confidence in at most {_up(line.at_most)} "
            f"({percent(line.stopped)} of all trials were stopped){own}. {SCOPE.format(trials=self.trials)}"
        )


def _up(bound: float) -> str:
    """A bound for people: two digits, and none of them too small."""
    digit = 10.0 ** (math.floor(math.log10(bound)) - 1)
    return percent(math.ceil(bound / digit - 1e-9) * digit)


SCOPE = (
    "It is an average over such tasks, of sweeps up to {trials} trials one after the other, not a bound for this one"
)


def read(name: str, where: Traversable | None = None) -> Certificate | None:
    """The certificate of the weights `name`; None where none ships.

    Args:
        where: a folder in place of the package's.

    Raises:
        EnvironmentProblem: it cannot be read, or is of other weights than those beside it.
    """
    where = where or package()
    path = where / f"{name}.certificate.json"
    try:
        said = loads(path.read_bytes())
        if said["format"] != FORMAT:
            raise ValueError(f"format {said['format']!r:.20}, not {FORMAT}")
        if loads((where / INDEX).read_bytes()).get(name) != said["weights"]:
            raise ValueError(f"that of other weights ({said['weights']:.12}...)")
        lines = tuple(Line(**{**line, "early": tuple(map(tuple, line["early"]))}) for line in said["lines"])
        numbers = float(said["confidence"]), int(said["trials"]), int(said["orders"])
        return Certificate(f"{name}-{said['weights'][:12]}", dict(said["gates"]), *numbers, lines)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
        raise EnvironmentProblem(f"{path}: expected the certificate of weights, got {got}. {REINSTALL}") from error


def record(certificate: Certificate, sha256: str) -> dict[str, Any]:
    """As :func:`read` reads it: plain values for a JSON file."""
    found = asdict(certificate)
    del found["version"]
    return {"format": FORMAT, "weights": sha256, **found}


@cache
def _shipped(name: str) -> Certificate | None:
    try:
        return read(name)
    except EnvironmentProblem:
        return None  # what is shown beside a sweep is no reason to fail it; the tests of the package read the file


def certificate_for(versions: Mapping[str, str], policy: Policy) -> Certificate | None:
    """The certificate that speaks of sweeps decided so; None where none does.

    Args:
        versions: of every forecaster that is asked, by name.
        policy: gates and threshold.
    """
    found = _of(versions)
    return None if found is None or found.differs(policy) else found


def quoted(versions: Mapping[str, str], policy: Policy) -> str:
    """What is shown of it where a sweep's risk is: its line, or why it says nothing; "" for forecasters without one.

    Args:
        versions: of every forecaster that is asked, by name.
        policy: gates and threshold.
    """
    found = _of(versions)
    if found is None:
        return ""
    why = found.differs(policy)
    return f"certificate: {f'says nothing of this policy, {why}' if why else found.text(policy.threshold)}"


def _of(versions: Mapping[str, str]) -> Certificate | None:
    """That of the one forecaster that is asked."""
    if len(versions) != 1:
        return None
    (version,) = versions.values()
    found = _shipped(version.rpartition("-")[0])
    return found if found is not None and found.version == version else None
