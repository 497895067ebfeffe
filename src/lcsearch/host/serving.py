"""`lcsearch serve`: an address, who may ask there, and the endpoint until somebody ends it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import signal
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lcsearch import files
from lcsearch.errors import EnvironmentProblem, FileProblem, InvalidValue
from lcsearch.extras import need_serve
from lcsearch.host.link import TOKEN
from lcsearch.host.service import Host

need_serve("lcsearch serve")

import uvicorn  # noqa: E402  # it was seen first that it is there

from lcsearch.host.endpoint import KEEP_ALIVE_S, application, protocol  # noqa: E402  # as above

DEFAULT = "127.0.0.1:8642"
DRAIN_S = 10
"""Seconds that requests on their way have when the host ends."""
LAST_S = 5.0
"""And a pass of the model, which may hang with its device."""
CONNECTIONS = 2048
"""Connections at once; one more is told that the host is busy."""
_SHORTEST, _LONGEST = 16, 4096


@dataclass(frozen=True)
class Address:
    """Where a host listens.

    Attributes:
        name: of a machine, or its number.
        port: 0: any that is free.
    """

    name: str
    port: int

    @classmethod
    def of(cls, text: str) -> Address:
        """HOST:PORT, an IPv6 number in brackets.

        Raises:
            InvalidValue: it is none.

        >>> Address.of("[::1]:0")
        Address(name='::1', port=0)
        """
        name, _, port = text.rpartition(":")
        bare = name.removeprefix("[").removesuffix("]") if name.startswith("[") else name
        if not bare or (":" in bare) != name.startswith("[") or not port.isdecimal() or int(port) > 65535:
            raise InvalidValue(f"HOST:PORT as in {DEFAULT}, port 0 for any", text, "--listen")
        return cls(bare, int(port))

    def bound(self) -> socket.socket:
        """A socket there.

        Raises:
            EnvironmentProblem: the name is not known, or the port is taken.
        """
        try:
            family, *_, where = socket.getaddrinfo(self.name, self.port, type=socket.SOCK_STREAM)[0]
            made = socket.socket(family, socket.SOCK_STREAM)
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(where)
            except BaseException:
                made.close()
                raise
            return made
        except OSError as error:
            text = f"--listen: expected an address that is free on this machine, got {self} ({error.strerror})."
            raise EnvironmentProblem(f"{text} Name another; port 0 is any free one.") from None

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def token(file: Path | None) -> str:
    """What clients must show, from a file or, without one, from the environment; empty: nothing.

    Raises:
        FileProblem, InvalidValue: the file cannot be read, or it is too short to be a secret or no word.
    """
    where, found = TOKEN, os.environ.get(TOKEN, "")
    if file is not None:
        try:
            where, found = str(file), files.read_text(file, _LONGEST).strip()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "no text"
            raise FileProblem(f"{file}: expected a file that holds the token, got {said}.") from None
    elif not found:
        return ""
    if len(found) < _SHORTEST or not (found.isascii() and found.isprintable()) or " " in found:
        got = f"{len(found)} characters"  # a secret is not shown
        how = 'make one: python -c "import secrets; print(secrets.token_urlsafe())"'
        raise InvalidValue(f"a token of at least {_SHORTEST} letters and digits", got, where, how)
    return found


def check_tls(cert: Path | None, key: Path | None) -> None:
    """Certificate and key fit together, or there are none.

    Raises:
        FileProblem: one is missing, or they do not.
    """
    if cert is None and key is None:
        return
    if cert is None or key is None:
        raise FileProblem(
            f"expected --tls-cert and --tls-key together, got {'--tls-key' if cert is None else '--tls-cert'} alone."
        )
    for path in (cert, key):
        if not path.is_file():
            raise FileProblem(f"{path}: expected a PEM file for TLS, got no such file.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        said = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        text = f"{cert}, {key}: expected a certificate and its key, unencrypted, in PEM files, got others ({said})."
        raise FileProblem(text) from None


def _no_password() -> str:
    raise ValueError("a key with a password")


def serve(
    host: Host,
    address: Address,
    *,
    token: str = "",
    cert: Path | None = None,
    key: Path | None = None,
    ready: Callable[[str], None] = lambda url: None,
    drain: int = DRAIN_S,
) -> None:
    """Answer until SIGTERM or SIGINT comes; requests on their way then are answered, within `drain` seconds.

    Args:
        token: what clients must show; demanded where others than this machine's programs can ask.
        cert, key: files in PEM format for TLS; None: without it.
        ready: called with the URL once the model is loaded and requests are answered.

    Raises:
        InvalidValue: the address can be reached from elsewhere, and there is no token.
        FileProblem: certificate and key are no pair.
        EnvironmentProblem: the address is not to be had, or the model does not load.
    """
    check_tls(cert, key)
    with address.bound() as listening:
        if not token and not ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback:
            how = f"name one in --token-file or {TOKEN}, or listen on 127.0.0.1"
            raise InvalidValue("a token where other machines can ask", f"--listen {address} without one", TOKEN, how)
        server = server_of(host, token, cert, key, drain)
        url = _url(address, listening, cert is not None)
        _more_files()
        with warnings.catch_warnings(), _ended_by_signals(server):
            # of a handshake that never ended: where warnings are errors uvloop hangs over it
            warnings.simplefilter("ignore", ResourceWarning)
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(run(server, listening, host, lambda: ready(url)))


def server_of(
    host: Host, token: str = "", cert: Path | None = None, key: Path | None = None, drain: int = DRAIN_S
) -> uvicorn.Server:
    """What answers for a host; arguments as in :func:`serve`."""
    return uvicorn.Server(
        uvicorn.Config(
            application(host, token),
            http=protocol(host.most_bytes),
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=drain,
            ssl_certfile=cert,
            ssl_keyfile=key,
        )
    )


async def run(server: uvicorn.Server, listening: socket.socket, host: Host, ready: Callable[[], None]) -> None:
    """Answer at a bound socket until the server is to exit.

    Raises:
        EnvironmentProblem: the model does not load.
    """
    serving = asyncio.create_task(server.serve([listening]))  # pages are there while the model is loaded
    loading = asyncio.create_task(host.start())
    try:
        await asyncio.wait((serving, loading), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            while not (server.started or serving.done()):
                await asyncio.sleep(0.01)
            if not serving.done():
                ready()
    finally:
        if loading.done() and loading.exception() is not None:
            server.should_exit = True
        loading.cancel()
        await serving
        for connection in list(server.server_state.connections):  # of those that would not end
            connection.transport.abort()
        await asyncio.wait((asyncio.create_task(host.stop()),), timeout=LAST_S)
        await asyncio.sleep(0)  # a loop may be closed only when all of it has ended


def _url(address: Address, listening: socket.socket, secure: bool) -> str:
    number, port = listening.getsockname()[:2]
    name = address.name
    if ipaddress.ip_address(number.partition("%")[0]).is_unspecified:  # of all its names, the one that others may know
        name = socket.gethostname()
    return f"{'https' if secure else 'http'}://{Address(name, port)}"


def _more_files() -> None:
    """As many open files as connections, where the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = CONNECTIONS + 256
    if soft != resource.RLIM_INFINITY and soft < want:
        with suppress(OSError, ValueError):
            most = want if hard == resource.RLIM_INFINITY else min(want, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """uvicorn listens to them while it runs, and raises them once more when it has ended: no reason to die of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
