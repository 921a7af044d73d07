"""The half of a session that is still HTTP: a handshake waits for its answer, or is refused.

Strategy: the states of the whole session are here. `accept` turns the request into a tunnel, and
session.py goes on from there. A refusal, the server's own or the application's
(`websocket.http.response`), is an ordinary response that ends its connection.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, Any

from tidegate.asgi.wire import Wire
from tidegate.errors import ApplicationError
from tidegate.protocol.engine import Engine
from tidegate.protocol.events import Request
from tidegate.protocol.websocket.engine import ABNORMAL, Deflate, WebSocketEngine
from tidegate.protocol.websocket.handshake import Offer, response_fields
from tidegate.types import Message

if TYPE_CHECKING:
    from tidegate.asgi.service import Service


class State(enum.IntEnum):
    CONNECTING = 0  # the handshake is not answered
    RESPONDING = 1  # it is refused with a response of the application's, which is not complete
    OPEN = 2
    CLOSED = 3  # by us or by the peer: nothing more is sent


CONNECTING, OPEN, CLOSED = State.CONNECTING, State.OPEN, State.CLOSED


class Handshaking:
    """See the module. `disconnect` is what `receive` tells in the end."""

    # fmt: off
    __slots__ = (
        "_disconnect", "_engine", "_offer", "_state", "_wire", "deflate", "extensions", "request",
        "scope", "service", "since", "size", "status", "stream", "task",
    )
    # fmt: on

    def __init__(
        self, service: Service, wire: Wire, engine: Engine, request: Request, offer: Offer
    ) -> None:
        self._offer: Offer | None = offer  # until it is answered
        self.extensions = b""  # what is agreed on, as the response says it
        self.deflate: Deflate | None = None
        self.service = service
        self.request = request
        self.scope: dict[str, Any] = {}
        self.stream = request.stream
        self.since = service.clock.now
        self.status = 0
        self.size = 0
        self.task: asyncio.Task[None] | None = None
        self._wire = wire
        self._engine = engine
        self._state = CONNECTING
        self._disconnect: dict[str, Any] | None = None

    @property
    def answering(self) -> bool:
        """The handshake's answer is not complete yet."""
        return self._state < OPEN

    def answer(
        self, status: int, text: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """The server's own refusal of the handshake."""
        fields = (
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            (b"connection", b"close"),
            *headers,
        )
        self._engine.send_head(self.stream, status, fields)
        self._engine.send_body(self.stream, text, True)
        self.size = len(text)
        self._record(status)
        self._leave(ABNORMAL, "")

    def expire(self, seconds: float) -> None:
        """The deadline for a request has passed before the handshake was answered."""
        self.service.log.error(
            "The application took longer than %g s to answer the handshake: WebSocket %s",
            seconds,
            self.request.head.path,
        )
        if self._state is CONNECTING:
            self.answer(503, b"Service Unavailable\n", ((b"retry-after", b"1"),))
        if self.task is not None:
            self.task.cancel()

    def _accept(self, message: Message) -> int:
        offer, terms = self._offer, self.service.sockets
        assert offer is not None
        assert terms is not None
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in offer.subprotocols:
            self.service.log.warning(
                "websocket.accept chose the subprotocol %r, which the client did not offer: left "
                "out, since the client would have to fail (RFC 6455 4.1)",
                subprotocol,
            )
            subprotocol = None
        headers = message.get("headers", ())
        fields = response_fields(subprotocol, headers, self.extensions, offer.key)
        rest = self._engine.open_tunnel(self.stream, b"websocket", fields)
        self._state = OPEN
        self._offer = None
        self._record(self._engine.tunnel_status)
        self._opened(WebSocketEngine(terms.max_size, self.deflate), rest)
        return 0

    def _refuse_handshake(self, message: Message) -> int:
        self.answer(403, b"")
        return 0

    def _begin_response(self, message: Message) -> int:
        headers = [*message.get("headers", ()), (b"connection", b"close")]
        try:
            status = message["status"]
        except KeyError:
            raise ApplicationError("websocket.http.response.start needs a 'status'") from None
        self._engine.send_head(self.stream, status, headers)
        self.status = status
        self._state = State.RESPONDING
        return 0

    def _respond(self, message: Message) -> int:
        data = message.get("body", b"")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ApplicationError(f"a body must be bytes, not {type(data).__name__}")
        data = bytes(data)
        more = bool(message.get("more_body", False))
        queued = self._engine.send_body(self.stream, data, not more)
        self.size += len(data)
        if not more:
            self._record(self.status)
            self._leave(ABNORMAL, "")
        return queued

    def _record(self, status: int) -> None:
        self.status = status
        if self.service.record is not None:
            self.service.record(self)

    def _leave(self, code: int, reason: str) -> None:
        """Nothing more is sent; whoever receives is told why."""
        self._state = CLOSED
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._wake()
        self._wake_wire()

    def _wake_wire(self) -> None:
        if not self._wire.flush_due:
            self._wire.flush_soon()

    # ------------------------------------------------------------------------ the other half's

    def _opened(self, socket: WebSocketEngine, rest: bytes) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        raise NotImplementedError
