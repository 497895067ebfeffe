"""What a client and a host of the model send each other: arrays and a little JSON in one body, no pickle.

A body is in safetensors' format: a header that says where each array stands, and the arrays. Everything is in loss
units (`sign * value`, lower is better), parameters are flattened to numbers and words, so that a host never sees an
object of the user's.

A study's finished trials travel once. A set of them is named by the sum of its trials' digests (an incremental hash,
Bellare and Micciancio 1997): equal digests mean equal trials of an equal study, whoever sent them and in whatever order
they ended, for no answer hangs on it. A request names the digest of all finished trials and that of those that the host
had at the last answer; the trials between them come along, and a host that knows neither says so and is sent them all.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from lcsearch.curves import Curve, Floats
from lcsearch.errors import InvalidValue
from lcsearch.forecast.contract import Absent, Forecasts, Kind, Query
from lcsearch.forecast.network.begun import CONTEXT
from lcsearch.forecast.network.columns import plain
from lcsearch.goal import Goal, Judged
from lcsearch.schedule import Schedule
from lcsearch.study import FinishedTrials, Snapshot, Status, Trial

WIRE = 2
"""Version of the format; a host answers its own only."""
KINDS: tuple[Kind, ...] = ("value", "latent", "best_by")
MOST_QUERIES = 256
"""In one request; more travel in several."""
MOST_SENT = 2**20
"""Bytes of finished trials in one request, about; more travel in several."""
MOST_TEXT = 4 * 2**20
"""Bytes of one piece of JSON, which takes twenty times as many once it is read."""
MOST_BYTES = 16 * 2**20
"""Of one body, unless a host says otherwise."""

OK, MALFORMED, UNKNOWN_TRIALS, OTHER_MODEL, TOO_LARGE, FAILED, BUSY, LATE = 200, 400, 409, 412, 413, 500, 503, 504
"""How a host answers, as HTTP counts."""

_REASONS = tuple(Absent)  # their places are what travels
_SIZES, _POINTS, _EVENTS, _FACTS = "sizes", "points", "events", "facts"
Arrays = dict[str, NDArray[Any]]


class Reply(NamedTuple):
    """What a host says: a status, and a body: an answer, or why there is none in UTF-8."""

    status: int
    body: bytes


class Refused(Exception):
    """Why a request has no answer; `status` is one of this module's."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Request:
    """One study's question, as it travels.

    Attributes:
        model: version of the weights that must answer.
        study: its name; studies of one name share what is kept, never an answer.
        horizon, judged: of its goal.
        ahead: the furthest step of a live trial; -inf without one.
        base: digest of the finished trials that `trials` are to be added to.
        bank: digest of all of them.
        trials: those that the host may not have.
        queries: what is asked, of trials as they travel.
        within: seconds after which nobody waits for the answer.
        live: the live trials that are context; of the others nothing but `ahead` is read.
    """

    model: str
    study: str
    horizon: float
    judged: Judged
    ahead: float
    base: str
    bank: str
    trials: tuple[Trial, ...]
    queries: tuple[Query, ...]
    within: float
    live: tuple[Trial, ...] = ()

    @property
    def goal(self) -> Goal:
        """Of losses."""
        return Goal("loss", "minimize", self.horizon, self.judged)

    def snapshot(self, bank: FinishedTrials) -> Snapshot:
        """What the forecaster is asked about."""
        # no value: it is no context
        ahead = (Trial("ahead", Curve.of([self.ahead], [math.nan])),) if math.isfinite(self.ahead) else ()
        return Snapshot(self.study, bank.goal, bank, (*self.live, *ahead))


def travelling(trial: Trial, sign: float, study: str = "") -> Trial:
    """A trial as it travels: losses, flat parameters, and what the forecaster reads, nothing else.

    Its uid bears the study's name, so that two studies' trials of one number are two for a host.
    """
    curve = trial.curve
    losses = Curve(curve.steps, sign * curve.values, curve.event_steps, np.full(curve.event_steps.shape, np.nan))
    params = {str(name): value for name, value in plain(trial.params).items()}
    uid = f"{study}/{trial.uid}"
    return Trial(uid, losses, params, trial.status, trial.schedule, feasible=trial.counts)


def first_digest(study: str, goal: Goal) -> str:
    """Of no finished trial of a study at all."""
    return _hex(_digest(_json([WIRE, study, float(goal.horizon), goal.judged])))


def next_digest(before: str, trial: Trial) -> str:
    """Of the trials that `before` is of and one more, as it travels."""
    curve = trial.curve
    parts = (curve.steps, curve.values, curve.event_steps)
    mine = _digest(_json(_facts(trial)), *(part.tobytes() for part in parts))
    return _hex((int(before, 16) + mine) % _MODULUS)


_MODULUS = 2**256


def _digest(*parts: bytes) -> int:
    made = hashlib.blake2b(digest_size=32)
    for part in parts:
        made.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(made.digest(), "little")


def _hex(digest: int) -> str:
    return f"{digest:064x}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _plan(schedule: Schedule) -> dict[str, Any]:
    """Its numbers may be of any kind, numpy's too."""
    return {name: value if name == "shape" else float(value) for name, value in asdict(schedule).items()}


def _facts(trial: Trial) -> list[Any]:
    plan = None if trial.schedule is None else _plan(trial.schedule)
    return [trial.uid, trial.status.value, dict(trial.params), plan, trial.feasible]


# Trials and requests.


def _pack_trials(name: str, trials: Sequence[Trial]) -> Arrays:
    curves = [trial.curve for trial in trials]
    nothing = np.zeros(0)
    return {
        f"{name}.{_SIZES}": np.array([[len(c), c.event_steps.size] for c in curves], np.int64).reshape(-1, 2),
        f"{name}.{_POINTS}": np.stack(
            [
                np.concatenate([nothing, *(c.steps for c in curves)]),
                np.concatenate([nothing, *(c.values for c in curves)]),
            ]
        ),
        f"{name}.{_EVENTS}": np.concatenate([nothing, *(c.event_steps for c in curves)]),
        f"{name}.{_FACTS}": _text([_facts(trial) for trial in trials]),
    }


def _text(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(_json(value), np.uint8)


def _array(arrays: Arrays, name: str, dtype: type[np.generic], *shape: int | None) -> NDArray[Any]:
    """Of that type and shape, None: any size."""
    found = arrays.get(name)
    fits = found is not None and found.dtype == dtype and found.ndim == len(shape)
    if found is None or not fits or any(w not in (None, h) for w, h in zip(shape, found.shape, strict=True)):
        got = None if found is None else f"{found.dtype} {found.shape}"
        raise InvalidValue(f"{np.dtype(dtype)} {shape}", got, f"body[{name}]")
    return found


def _read(arrays: Arrays, name: str) -> Any:
    text = _array(arrays, name, np.uint8, None).tobytes()
    if len(text) > MOST_TEXT:
        raise InvalidValue(f"at most {MOST_TEXT} bytes of JSON", len(text), f"body[{name}]")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValue("JSON", type(error).__name__, f"body[{name}]") from None


def _unpack_trials(arrays: Arrays, name: str) -> tuple[Trial, ...]:
    sizes = _array(arrays, f"{name}.{_SIZES}", np.int64, None, 2)
    points = _array(arrays, f"{name}.{_POINTS}", np.float64, 2, None)
    events = _array(arrays, f"{name}.{_EVENTS}", np.float64, None)
    facts = _read(arrays, f"{name}.{_FACTS}")
    n_points, n_events = points.shape[1], events.size
    if ((sizes < 0) | (sizes > [n_points, n_events])).any() or sizes.sum(0).tolist() != [n_points, n_events]:
        raise InvalidValue(f"sizes that add up to {n_points} and {n_events}", sizes.sum(0).tolist(), f"body[{name}]")
    if not isinstance(facts, list) or len(facts) != len(sizes):
        raise InvalidValue(f"facts of {len(sizes)} trials", type(facts).__name__, f"body[{name}.{_FACTS}]")
    stops = np.cumsum(sizes, axis=0)
    _must_rise(points[0], stops[:, 0], f"body[{name}.{_POINTS}]")
    _must_rise(events, stops[:, 1], f"body[{name}.{_EVENTS}]")
    if not np.isfinite(points[1]).all():
        raise InvalidValue("finite losses", "others", f"body[{name}.{_POINTS}]")
    found = []
    for fact, (n, m), (end, last) in zip(facts, sizes.tolist(), stops.tolist(), strict=True):
        steps, losses = points[:, end - n : end].copy()  # what is kept of one trial must not keep all of the body
        at = events[last - m : last].copy()
        found.append(_trial(fact, Curve(steps, losses, at, np.full(m, np.nan)), f"body[{name}.{_FACTS}]"))
    return tuple(found)


def _must_rise(steps: Floats, stops: NDArray[np.int64], where: str) -> None:
    """Every trial's steps are finite and rise."""
    rises = steps[1:] > steps[:-1]
    rises[stops[(stops > 0) & (stops < steps.size)] - 1] = True  # from one trial to the next
    if not (rises.all() and np.isfinite(steps).all()):
        raise InvalidValue("finite steps that rise within each trial", "others", where)


def _trial(fact: object, curve: Curve, where: str) -> Trial:
    match fact:
        case [str(uid), str(status), dict(params), None | dict() as plan, bool(feasible)] if all(
            isinstance(value, str | float | int) for value in params.values()
        ):
            try:
                schedule = None if plan is None else Schedule(**plan)
                return Trial(uid, curve, params, Status(status), schedule, feasible=feasible)
            except (TypeError, ValueError) as error:
                raise InvalidValue("a trial's facts", str(error)[:200], where) from None
    raise InvalidValue("[uid, status, {name: number or word}, schedule or null, feasible]", str(fact)[:200], where)


def size_of(trial: Trial) -> int:
    """Bytes that it travels in, about; at least those of its JSON."""
    words = sum(len(str(name)) + (len(value) if isinstance(value, str) else 24) for name, value in trial.params.items())
    return 300 + 16 * trial.curve.n_reports + 6 * (words + len(trial.uid)) + 6 * len(trial.params)


def some(trials: Sequence[Trial]) -> Sequence[Trial]:
    """The first of them, as many as one request takes."""
    size = 0
    for n, trial in enumerate(trials):
        size += size_of(trial)
        if size > MOST_SENT and n:
            return trials[:n]
    return trials


def pack(request: Request) -> bytes:
    """A request's body."""
    asked = list({id(query.trial): query.trial for query in request.queries}.values())
    place = {id(trial): i for i, trial in enumerate(asked)}
    head = {name: getattr(request, name) for name in _HEAD} | {"wire": WIRE}
    return save(
        {
            "head": _text(head),
            **(_pack_trials("finished", request.trials) if request.trials else {}),
            **(_pack_trials("live", request.live) if request.live else {}),
            **_pack_trials("asked", asked),
            "which": np.array([place[id(query.trial)] for query in request.queries], np.int64),
            "kind": np.array([KINDS.index(query.kind) for query in request.queries], np.int64),
            "step": np.array([query.step for query in request.queries], np.float64),
        }
    )


_HEAD = {
    "model": str,
    "study": str,
    "horizon": float,
    "judged": str,
    "ahead": float,
    "base": str,
    "bank": str,
    "within": float,
}


def unpack(body: bytes) -> Request:
    """The request of a body.

    Raises:
        Refused: it is none; or of another version of the format.
    """
    try:
        arrays = load(body)
    except Exception as error:  # whatever the format's reader makes of it
        raise Refused(MALFORMED, f"expected a body in safetensors' format, got {type(error).__name__}") from None
    try:
        head = _read(arrays, "head")
        if not isinstance(head, dict):
            raise InvalidValue("an object", type(head).__name__, "body[head]")
        if head.get("wire") != WIRE:
            raise Refused(OTHER_MODEL, f"expected wire version {WIRE}, got {str(head.get('wire'))[:20]}")
        for name, wanted in _HEAD.items():
            if not isinstance(head.get(name), wanted):
                raise InvalidValue(wanted.__name__, str(head.get(name))[:100], f"body[head].{name}")
        asked = _unpack_trials(arrays, "asked")
        which = _array(arrays, "which", np.int64, None)
        n = which.size
        kind, step = _array(arrays, "kind", np.int64, n), _array(arrays, "step", np.float64, n)
        if n > MOST_QUERIES or (n and (which.min() < 0 or which.max() >= len(asked))):
            raise InvalidValue(f"at most {MOST_QUERIES} queries, of trials that came along", n, "body[which]")
        if n and (kind.min() < 0 or kind.max() >= len(KINDS)):
            raise InvalidValue(f"kinds from 0 to {len(KINDS) - 1}", int(kind.max()), "body[kind]")
        queries = tuple(
            Query(asked[i], KINDS[k], s) for i, k, s in zip(which.tolist(), kind.tolist(), step.tolist(), strict=True)
        )
        trials = _unpack_trials(arrays, "finished") if f"finished.{_SIZES}" in arrays else ()
        live = _unpack_trials(arrays, "live") if f"live.{_SIZES}" in arrays else ()
        if len(live) > CONTEXT or any(trial.status.finished for trial in live):
            raise InvalidValue(f"at most {CONTEXT} trials, none of them finished", len(live), "body[live]")
        request = Request(**{name: head[name] for name in _HEAD}, live=live, trials=trials, queries=queries)
        request.goal  # noqa: B018 (of an impossible goal it raises)
        if not all(trial.status.finished for trial in request.trials):
            raise InvalidValue("finished trials", "others", "body[finished]")
    except InvalidValue as error:
        raise Refused(MALFORMED, str(error)[:500]) from None
    return request


# Answers.


def pack_answer(forecasts: Forecasts, model: str, bank: str) -> bytes:
    """An answer's body."""
    return save(
        {
            "head": _text({"model": model, "bank": bank}),
            "knots": np.ascontiguousarray(forecasts.knots),
            "levels": np.ascontiguousarray(forecasts.levels),
            "tails": np.ascontiguousarray(forecasts.tails),
            "absent": np.array([0 if a is None else 1 + _REASONS.index(a) for a in forecasts.absent], np.int64),
        }
    )


def unpack_answer(body: bytes, n: int, sign: float, model: str, bank: str | None = None, source: str = "") -> Forecasts:
    """The forecasts of an answer to n queries, in the direction of `sign`.

    Raises:
        InvalidValue: it is no answer to n queries, of other weights, or about other finished trials.
    """
    try:
        arrays = load(body)
    except Exception as error:
        raise InvalidValue("an answer in safetensors' format", type(error).__name__, "answer") from None
    head = _read(arrays, "head")
    if not isinstance(head, dict) or head.get("model") != model or (bank is not None and head.get("bank") != bank):
        raise InvalidValue(f"an answer of {model} about {bank or 'a study'}", str(head)[:200], "answer[head]")
    knots = _array(arrays, "knots", np.float64, n, None)
    levels = _array(arrays, "levels", np.float64, *knots.shape)
    tails = _array(arrays, "tails", np.float64, n, 2)
    codes = _array(arrays, "absent", np.int64, n)
    if n and (codes.min() < 0 or codes.max() > len(_REASONS)):
        raise InvalidValue("known reasons", codes.tolist(), "answer[absent]")
    if knots.shape[1] < 2:
        raise InvalidValue("two knots or more", knots.shape[1], "answer[knots]")
    absent = [None if code == 0 else _REASONS[code - 1] for code in codes.tolist()]
    return Forecasts.of(knots, levels, tails, sign=sign, source=source, absent=absent)


def digests(before: str, trials: Iterable[Trial]) -> list[str]:
    """Of `before` and one more trial each, as they travel."""
    found = []
    for trial in trials:
        before = next_digest(before, trial)
        found.append(before)
    return found


def as_facts(text: bytes) -> Mapping[str, Any]:
    """A host's page about itself, read with care; empty where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
