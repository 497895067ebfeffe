"""A host of the model as a named, detached actor of a Ray cluster, and the way to it.

Whoever asks first begins it, and it outlives its driver: studies of many drivers share it. Each version of the weights
has an actor of its own. Trials are left their CPUs and GPUs: it takes none, unless a GPU is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    RayActorError,
    RuntimeEnvSetupError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lcsearch.errors import EnvironmentProblem, InvalidValue, in_words
from lcsearch.host import wire
from lcsearch.host.device import OnDevice
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import HostLate, HostTrouble
from lcsearch.host.service import MOST_PENDING, Host
from lcsearch.host.wire import Reply

NAMESPACE, PREFIX = "lcsearch", "lcsearch-host-"
"""Where the actor is found, and how its name begins; the version of the weights follows."""
DEVICE = "LCSEARCH_HOST_DEVICE"
"""Environment variable: where an actor that is begun computes: cpu (if unset), cuda, or auto: a GPU if there is one."""
DEVICES = ("cpu", "cuda", "auto")
GPUS = 0.1
"""The share of a GPU that it takes where it computes on one: no trial that wants all of that GPU is placed there."""
GPU_WAIT_S = 10.0
"""After so many seconds it takes the CPU, where all GPUs are held by others."""
AGAIN_S = 30.0
"""An actor that could not begin is tried again after so many seconds."""
_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.2

_log = logging.getLogger("lcsearch")
_forked = False


def _note_fork() -> None:
    global _forked
    _forked = ray.is_initialized()


os.register_at_fork(after_in_child=_note_fork)


class HostActor:
    """What runs in the cluster: a :class:`~lcsearch.host.service.Host`. Bodies are bytes; nothing else is taken in.

    Args:
        version: of the weights that must answer.
        weights: the weight file's bytes; None: those that ship in the node's package.
        device: "cpu" or "cuda"; "cuda" is the CPU where that fails.

    Raises:
        EnvironmentProblem: the weights of that version are not to be had on this node, or do not load.
    """

    def __init__(self, version: str, weights: bytes | None, device: str) -> None:
        self._starting: asyncio.Task[None] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="lcsearch-host-")  # as long as the actor lives
        file = None
        if weights is not None:
            file = Path(self._folder.name) / f"{version.rpartition('-')[0]}.safetensors"
            file.write_bytes(weights)
        held = OnDevice(lambda on: Pretrained(file=file, device=on), device)
        if held.version != version:
            text = f"expected the weights {version}, got {held.version}, those that its lcsearch ships."
            raise EnvironmentProblem(f"{text} Install the same lcsearch on every node.")
        held.prepare()
        self._host = Host(held)

    async def ping(self) -> bool:
        """True: it is there, however busy."""
        return True

    async def answer(self, body: bytes) -> tuple[int, bytes]:
        """A reply's status and body."""
        await self._started()
        status, said = await self._host.answer(body)
        return status, said

    async def about(self) -> tuple[int, bytes]:
        """What the host tells about itself."""
        await self._started()
        return wire.OK, json.dumps(
            {**self._host.about(), "node": _node(), "node_id": _node_id(), "pid": os.getpid()}
        ).encode()

    async def metrics(self) -> str:
        """As the endpoint's page: the text format of Prometheus."""
        return self._host.metrics()

    async def _started(self) -> None:
        if self._starting is None:  # an actor's constructor has no loop yet
            self._starting = asyncio.create_task(self._host.start())
        await asyncio.shield(self._starting)


def _node() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray is untyped, here and below


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


class RayLink:
    """The way to the actor that holds the weights of `local`, by its name; it is begun where there is none.

    A request is sent again, within its deadline, while the actor is restarted or moves; nothing that it does changes
    anything. A copy in another process looks for the actor there. No call connects this process to a cluster: that is
    `ray.init`'s, or Tune's.

    Args:
        local: the weights that must answer; None: those that ship.
        device: where an actor that is begun computes, one of DEVICES; None: what LCSEARCH_HOST_DEVICE says, else "cpu".
        gpus: the share of a GPU that it takes there, in (0, 1].

    Raises:
        InvalidValue: no such device or share.
    """

    def __init__(self, local: Pretrained | None = None, device: str | None = None, gpus: float = GPUS) -> None:
        said, where = (os.environ.get(DEVICE) or "cpu", DEVICE) if device is None else (device, "device")
        if said not in DEVICES:
            raise InvalidValue(f"one of {', '.join(DEVICES)}", said, where)
        if not 0 < gpus <= 1:
            raise InvalidValue("a share in (0, 1]", gpus, "gpus")
        self._given, self._device, self._gpus = local, said, gpus
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[str, Any] | None = None  # this process's id in its cluster, and the actor's handle there
        self._finding: Future[Any] | None = None
        self._refused, self._again = "", 0.0  # why the actor cannot begin, and when it is tried again

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_given", "_device", "_gpus")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @cached_property
    def _local(self) -> Pretrained:
        """Read where they are needed: whoever asks other forecasters needs none that are damaged."""
        return self._given or Pretrained()

    @property
    def name(self) -> str:
        """Of the actor, in NAMESPACE."""
        return PREFIX + self._local.version

    @property
    def where(self) -> str:
        """The actor's name."""
        return f"actor {self.name} of the Ray cluster"

    def send(self, body: bytes, seconds: float) -> Reply:
        """A request's reply."""
        return Reply(*self._call("answer", seconds, body))

    def about(self, seconds: float) -> Mapping[str, Any]:
        """What the host tells about itself."""
        return wire.as_facts(self._call("about", seconds)[1])

    def end(self) -> None:
        """End the actor, for every driver; the next one who asks begins another. Nothing where there is none."""
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(self.name, NAMESPACE))

    def _call(self, method: str, seconds: float, *args: bytes) -> tuple[int, bytes]:
        end, pause, trouble = time.monotonic() + seconds, _PAUSE_S, "no answer"
        while True:
            actor = self._actor(end, seconds)
            try:
                said: tuple[int, bytes] = ray.get(
                    getattr(actor, method).remote(*args), timeout=max(end - time.monotonic(), 0)
                )
                return said
            except GetTimeoutError:
                raise HostLate(f"{self.where}: {trouble} within {seconds:g} s") from None
            except ActorUnavailableError:
                trouble = "it is being restarted, no answer"
            except (RayActorError, ActorUnschedulableError, RuntimeEnvSetupError) as error:
                self._forget(actor)
                if isinstance(error, RuntimeEnvSetupError) or getattr(error, "actor_init_failed", False):
                    raise self._refuse(error) from None
                trouble = "it has died, no answer"
            except Exception as error:  # whatever Ray says of it
                self._forget(actor)
                raise HostTrouble(f"{self.where}: {in_words(error)[:300]}") from None
            time.sleep(max(min(pause, end - time.monotonic()), 0))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _actor(self, end: float, seconds: float) -> Any:
        """The actor's handle. It is looked for on a thread: a cluster that is away keeps a look-up for a minute."""
        if _forked:
            raise HostTrouble(f"{self.where}: a forked child has no connection to its parent's cluster. Spawn it")
        if not ray.is_initialized():
            text = 'this process is connected to no Ray cluster. Call ray.init(address="auto") before the study'
            raise HostTrouble(f"{self.where}: {text}, or name the URL of `lcsearch serve` as host")
        me = ray.get_runtime_context().get_worker_id()
        with self._lock:
            if self._known is not None and self._known[0] == me:
                return self._known[1]
            if self._finding is None:
                self._finding = Future()
                threading.Thread(
                    target=self._look, args=(me, self._finding), name="lcsearch finds its host", daemon=True
                ).start()
            finding = self._finding
        try:
            return finding.result(max(end - time.monotonic(), 0))
        except TimeoutError:
            raise HostLate(f"{self.where}: not found within {seconds:g} s") from None
        except Exception as error:
            said = str(error) if isinstance(error, EnvironmentProblem) else in_words(error)
            raise HostTrouble(f"{self.where}: {said[:500]}") from None

    def _look(self, me: str, found: Future[Any]) -> None:
        """The thread: find the actor, or begin it."""
        try:
            actor = self._found()
            with self._lock:
                self._known, self._finding = (me, actor), None
            found.set_result(actor)
        except BaseException as error:  # raised anew where it is waited for
            with self._lock:
                self._finding = None
            found.set_exception(error)

    def _forget(self, actor: Any) -> None:
        with self._lock:
            if self._known is not None and self._known[1] is actor:
                self._known = None

    def _refuse(self, error: Exception) -> HostTrouble:
        """Why the actor could not begin: what its node lacks."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        node = re.search(r"\bip=([^,)\s]+)", text)
        said = re.sub(r"^[\w.]+\.EnvironmentProblem\W+", "", text.strip().splitlines()[-1])  # as Ray writes it
        advice = ""
        if said.startswith(("ModuleNotFoundError", "ImportError")):
            advice = '. Install lcsearch on every node, or name it in ray.init(runtime_env={"pip": [...]})'
        self._refused = f"it cannot begin on node {node[1] if node else '?'}: {said.rstrip('.')}{advice}"
        self._again = time.monotonic() + AGAIN_S
        return HostTrouble(f"{self.where}: {self._refused}")

    def _found(self) -> Any:
        try:
            return ray.get_actor(self.name, NAMESPACE)
        except ValueError:
            pass
        if time.monotonic() < self._again:
            raise EnvironmentProblem(self._refused)
        gpu = self._device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0  # type: ignore[no-untyped-call]
        if gpu:
            actor = self._begun("cuda")
            try:
                with contextlib.suppress(RayActorError, RuntimeEnvSetupError):  # whoever asks it will hear that, too
                    ray.get(actor.ping.remote(), timeout=GPU_WAIT_S)
                return actor
            except GetTimeoutError:
                ray.kill(actor)
                _log.warning(
                    "lcsearch: no GPU of the Ray cluster was free within %g s, so the host of the model takes the CPU",
                    GPU_WAIT_S,
                )
        return self._begun("cpu")

    def _begun(self, device: str) -> Any:
        """The actor, begun unless another driver was faster."""
        own = self._local.own_bytes()
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0}
        if device == "cuda":  # one that is restarted would wait for a GPU for ever: whoever asks begins another
            options["num_gpus"] = self._gpus
        else:
            # Here is the package, surely, and nobody's request goes further than need be. (A soft wish is not heeded.)
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(_node_id(), soft=False)
            if own is None:  # what a driver sent may be gone with it
                options["max_restarts"] = -1
        return (
            ray.remote(HostActor)
            .options(
                name=self.name,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_concurrency=2 * MOST_PENDING,  # beyond what may wait it is the host who says that it is busy
                **options,
            )
            .remote(self._local.version, own, device)
        )
