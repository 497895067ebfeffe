"""How a client reaches a host: HTTP with connections that are kept open. Every wait has an end."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from lcsearch.errors import InvalidValue, in_words
from lcsearch.host import wire
from lcsearch.host.wire import Reply
from lcsearch.terminal import one_line

TOKEN, CA = "LCSEARCH_HOST_TOKEN", "LCSEARCH_HOST_CA"
"""Environment variables: what a host that is not on this machine demands, and a file of certificates to trust."""
PATH = "/v1/forecast"
"""Where requests go."""
ABOUT = "/version"
"""Where a host tells about itself."""
_LONGEST = 64 * 2**20  # bytes of an answer


class HostTrouble(Exception):
    """A host gave no answer, and why."""


class HostLate(HostTrouble):
    """It gave none within the deadline."""


class Link(Protocol):
    """A way to a host. Thread-safe, picklable, and safe to use after a fork."""

    @property
    def where(self) -> str:
        """The host's address, for messages; without secrets."""
        ...

    def send(self, body: bytes, seconds: float) -> Reply:
        """A request's reply, whatever its status.

        Raises:
            HostLate: none came within so many seconds.
            HostTrouble: none will.
        """
        ...

    def about(self, seconds: float) -> Mapping[str, Any]:
        """What the host tells about itself; empty for nonsense.

        Raises:
            HostLate, HostTrouble: as `send`.
        """
        ...


class HttpLink:
    """A way to `lcsearch serve`.

    Args:
        url: http://name:port, or https.
        token: what the host demands; None: of the environment.
        ca: a file of certificates to trust, for https; None: of the environment, else the system's.

    Raises:
        InvalidValue: no such URL, or no such file.
    """

    def __init__(self, url: str, token: str | None = None, ca: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
        if parts.scheme not in ("http", "https") or not parts.hostname or rest:
            raise InvalidValue("http://NAME:PORT of `lcsearch serve`", url.rpartition("@")[2], "host")
        self._secure, self._name = parts.scheme == "https", parts.hostname
        self._port = port or (443 if self._secure else 80)
        self._given = token
        self._ca = os.environ.get(CA) if ca is None else ca
        self._begin()

    def _begin(self) -> None:
        self._idle: list[http.client.HTTPConnection] = []
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._token = _checked(os.environ.get(TOKEN, "") if self._given is None else self._given)
        self._tls = self._context() if self._secure else None

    def __getstate__(self) -> dict[str, Any]:
        # a token of the environment is read there anew: what is pickled may be kept where others read
        return {name: self.__dict__[name] for name in ("_secure", "_name", "_port", "_given", "_ca")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def where(self) -> str:
        """The URL."""
        name = f"[{self._name}]" if ":" in self._name else self._name
        return f"{'https' if self._secure else 'http'}://{name}:{self._port}"

    def close(self) -> None:
        """Close the connections that are kept open."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def __del__(self) -> None:
        for connection in self.__dict__.get("_idle", ()):  # nobody else has it any more
            connection.close()

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca or None)
        except OSError as error:
            raise InvalidValue("a file of certificates", f"{self._ca} ({error})", CA) from None

    def send(self, body: bytes, seconds: float) -> Reply:
        """A request's reply."""
        return self._ask("POST", PATH, body, seconds)

    def about(self, seconds: float) -> Mapping[str, Any]:
        """What the host tells about itself."""
        reply = self._ask("GET", ABOUT, None, seconds)
        if reply.status != wire.OK:
            raise HostTrouble(f"{self.where} answers {reply.status}: {_said(reply.body)}")
        return wire.as_facts(reply.body)

    def _ask(self, method: str, path: str, body: bytes | None, seconds: float) -> Reply:
        end = time.monotonic() + seconds
        try:
            while True:
                connection, used = self._connection(end)
                try:
                    reply = self._round(connection, method, path, body, end)
                except (OSError, http.client.BadStatusLine) as error:
                    connection.close()
                    # one that was kept open may have been closed by a host that ended, was restarted or had enough
                    if not used or isinstance(error, TimeoutError):
                        raise
                    continue
                except BaseException:
                    connection.close()
                    raise
                if connection.sock is not None:  # else this answer was the connection's last
                    with self._lock:
                        self._idle.append(connection)
                return reply
        except TimeoutError:
            raise HostLate(f"no answer from {self.where} within {seconds:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HostTrouble(f"no answer from {self.where}: {one_line(in_words(error)[:200])}") from None

    def _connection(self, end: float) -> tuple[http.client.HTTPConnection, bool]:
        """One that is open, or a new one; and whether it was used before."""
        if self._pid != os.getpid():
            parents = self._idle
            self._begin()
            for connection in parents:  # closed here, they stay the parent's
                connection.close()
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        left = _left(end)
        made: http.client.HTTPConnection
        if self._tls is not None:
            made = http.client.HTTPSConnection(self._name, self._port, timeout=left, context=self._tls)
        else:
            made = http.client.HTTPConnection(self._name, self._port, timeout=left)
        made.connect()
        assert made.sock is not None
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made, False

    def _round(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, end: float
    ) -> Reply:
        headers = {"Content-Type": "application/octet-stream"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection.sock.settimeout(_left(end))
        connection.request(method, path, body, headers)
        connection.sock.settimeout(_left(end))
        with connection.getresponse() as response:
            parts, size = [], 0
            while True:
                if connection.sock is not None:  # None: the answer is the connection's last, and has been read
                    connection.sock.settimeout(_left(end))
                part = response.read1(2**20)
                if not part:
                    break
                parts.append(part)
                size += len(part)
                if size > _LONGEST:
                    raise ValueError(f"an answer of more than {_LONGEST} bytes")
            return Reply(response.status, b"".join(parts))


def _checked(token: str) -> str:
    """Without what a file's end has left on it.

    Raises:
        InvalidValue: it is none that a header can bear; it is not shown.
    """
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise InvalidValue("a token of printable characters", f"{len(token)} characters", TOKEN)
    return token


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _said(body: bytes) -> str:
    return one_line(body[:200].decode(errors="replace"))
