"""The host of the model over HTTP: four pages, each within bounds on time, size and who may ask.

::

    POST /v1/forecast    a body of `wire`, an answer or a refusal of `wire`
    GET  /version        what the host says about itself, JSON
    GET  /metrics        what it has done, in the text format of Prometheus
    GET  /health         200 once the model is loaded, 503 before; asks for no token
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lcsearch.host import wire
from lcsearch.host.link import ABOUT, PATH
from lcsearch.host.service import Host
from lcsearch.host.wire import Refused, Reply

HEALTH, METRICS = "/health", "/metrics"
HEAD_S, BODY_S = 10.0, 10.0
"""Seconds within which a request's head, and then its body, must have come."""
KEEP_ALIVE_S = 75
"""How long a connection without a request is kept."""
MOST_HEAD = 64 * 2**10
"""Bytes of a request's head."""
AT_ONCE = 8
"""Bodies of the largest size that are held at once, in bytes; beyond, the host is busy."""

NO_TOKEN, SLOW, GONE = 401, 408, 499
"""What the endpoint itself answers, beside what the host does; 499 reaches nobody and is counted."""


def application(host: Host, token: str = "") -> ASGIApp:
    """The pages of a host.

    Args:
        token: what must be shown as `Authorization: Bearer TOKEN`; empty: nothing.
    """
    pages = _Pages(host)
    made = Starlette(
        routes=[
            Route(PATH, pages.forecast, methods=["POST"]),
            Route(ABOUT, pages.about),
            Route(METRICS, pages.metrics),
            Route(HEALTH, pages.health),
        ],
        middleware=[Middleware(_Token, host=host, token=token)] if token else [],
        exception_handlers={HTTPException: _plainly},
    )
    made.router.redirect_slashes = False  # nobody is sent where his own Host header says
    return made


async def _plainly(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)


class _Token:
    """Lets pass who shows the token, and whoever asks whether the host is well."""

    def __init__(self, app: ASGIApp, host: Host, token: str) -> None:
        self._app, self._host, self._wanted = app, host, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != HEALTH:
            shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(shown, self._wanted):
                self._host.counts.replies[NO_TOKEN] += 1
                text = "expected the host's token, as Authorization: Bearer TOKEN: set LCSEARCH_HOST_TOKEN to it"
                await PlainTextResponse(text, NO_TOKEN, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Pages:
    def __init__(self, host: Host) -> None:
        self._host, self._held = host, 0  # bytes of bodies that are being read or answered

    async def about(self, request: Request) -> Response:
        return JSONResponse(self._host.about())

    async def metrics(self, request: Request) -> Response:
        return Response(self._host.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def health(self, request: Request) -> Response:
        ready = bool(self._host.about()["ready"])
        return PlainTextResponse("ready" if ready else "the model is being loaded", wire.OK if ready else wire.BUSY)

    async def forecast(self, request: Request) -> Response:
        held = _Held()
        try:
            reply = await self._while_there(request, await self._body(request, held))
        except Refused as refused:
            reply = Reply(refused.status, str(refused).encode())
            self._host.counts.replies[reply.status] += 1
        except asyncio.CancelledError:  # the drain has an end
            reply = Reply(wire.BUSY, b"the host is being shut down")
        finally:
            self._held -= held.bytes
        kind = "application/octet-stream" if reply.status == wire.OK else "text/plain; charset=utf-8"
        return Response(reply.body, reply.status, media_type=kind)

    async def _body(self, request: Request, held: _Held) -> bytes:
        """All of it; of one that is too large no more is held than is taken, and twice that is read, so that whoever
        sends a little too much hears of it.
        """
        most, size = self._host.most_bytes, 0
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_S):
                more = True
                while more and size <= 2 * most:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(GONE, "nobody waits for the answer any more")
                    part, more = message.get("body", b""), message.get("more_body", False)
                    size += len(part)
                    if size <= most:
                        held.bytes += len(part)
                        self._held += len(part)
                        parts.append(part)
                    if self._held > AT_ONCE * most:
                        raise Refused(wire.BUSY, "too many large requests at once")
        except TimeoutError:
            raise Refused(SLOW, f"expected the whole body within {BODY_S:g} s") from None
        if size > most:
            raise Refused(wire.TOO_LARGE, f"expected a body of at most {most} bytes, got more")
        return b"".join(parts)

    async def _while_there(self, request: Request, body: bytes) -> Reply:
        """The host's reply; who leaves takes his questions along."""
        answer = asyncio.ensure_future(self._host.answer(body))
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise Refused(GONE, "nobody waits for the answer any more")
            return answer.result()
        finally:
            answer.cancel()
            gone.cancel()


@dataclass
class _Held:
    bytes: int = 0


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol, with bounds where it has none: on the time and the size of a request's head, on the size of
    all that follows, and on answers that nobody reads.
    """

    most = 4 * wire.MOST_BYTES
    """Bytes of a request with all its framing; what is longer has been refused long before. See :func:`protocol`."""

    _timer: asyncio.TimerHandle | None = None
    _size, _heads, _head = 0, 0, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A head is awaited."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count them."""
        before = self._heads, self._head
        super().data_received(data)
        if before == (self._heads, self._head):  # else something ended in this part, and counting has begun anew
            self._size += len(data)
            if self._size > (MOST_HEAD if self._head else self.most):
                self.transport.abort()

    def on_message_begin(self) -> None:
        """One more head."""
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A body may follow."""
        self._head_came()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """What was refused before it had come is not waited for."""
        super().on_response_complete()
        if self.cycle.more_body:
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """Close, whether or not the last answer was read."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Close, after the answer where one is made; with TLS `close` would wait for the other end to agree."""
        super().shutdown()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _await_head(self) -> None:
        self._head_came()
        self._heads, self._head = self._heads + 1, True
        self._timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def _head_came(self) -> None:
        self._size, self._head = 0, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol(most_bytes: int) -> type[Bounded]:
    """For bodies of at most so many bytes."""
    return type("Bounded", (Bounded,), {"most": 4 * most_bytes + MOST_HEAD})
