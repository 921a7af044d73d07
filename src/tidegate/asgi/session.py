"""One WebSocket connection, as ASGI sees it: `receive` and `send` over every HTTP version.

Strategy: until the application answers the handshake this is an HTTP request; from `accept` on the
engine carries a tunnel, whose bytes go through a `WebSocketEngine` of our own. Messages are decoded
only as far ahead of the application as a short queue reaches: what lies behind stays as it came,
counts as unread, and stops the reading. A message wakes the application in the callback that
brought it, so that its answer leaves with the batch (waiter.py). As in the exchange, a table says
which message may come in which state, and whatever happens, `receive` ends in one
`websocket.disconnect`, again and again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from tidegate.asgi.handshaking import CLOSED, CONNECTING, OPEN, Handshaking, State
from tidegate.asgi.said import closing_of, content_of
from tidegate.asgi.scope import name_of
from tidegate.asgi.waiter import IDLE, Waiter
from tidegate.asgi.wire import HIGH_WATER, NEVER, Wire, comes_of_leaving
from tidegate.errors import ApplicationError, ClientDisconnected
from tidegate.protocol.engine import Engine
from tidegate.protocol.events import Body, Event, Request
from tidegate.protocol.websocket.engine import (
    ABNORMAL,
    INTERNAL_ERROR,
    NORMAL,
    RESTART,
    TOO_BIG,
    Closed,
    WebSocketEngine,
)
from tidegate.protocol.websocket.handshake import Offer
from tidegate.types import Message

if TYPE_CHECKING:
    from tidegate.asgi.service import Service

QUEUE_BOUND = 64 * 1024  # bytes of messages decoded ahead of the application
EACH = 64  # bytes that a message counts more than its content: empty ones take memory too
SEND_AHEAD = 2 * HIGH_WATER  # a message of 64 KiB shall not need a write of its own
CLOSE_WAIT = 10.0  # seconds for the peer to answer our close
END_WAIT = 5.0  # seconds for the application to answer what came ahead of the peer's close

_NO_QUEUE: deque[str | bytes] = deque()  # in place of one that an idle socket need not have: 0.7 KB


class Session(Handshaking):
    """Carries one WebSocket through the application. `task` is the application's."""

    # fmt: off
    __slots__ = (
        "_asked", "_behind", "_ending", "_going", "_held", "_left_over", "_most", "_others",
        "_ping_due", "_ping_sent", "_queue", "_queued", "_socket", "_stopping", "_timer", "_used",
        "_waiter",
    )
    # fmt: on

    def __init__(
        self, service: Service, wire: Wire, engine: Engine, request: Request, offer: Offer
    ) -> None:
        super().__init__(service, wire, engine, request, offer)
        self._used = False  # since somebody last looked
        self._stopping = False
        self._asked = False  # websocket.connect has been given out
        self._socket: WebSocketEngine | None = None
        self._queue = _NO_QUEUE
        self._most = 0  # messages in it; 0: no bound
        self._queued = 0  # bytes in the queue
        self._behind = False  # the queue was full: there may be more to decode
        self._going = False  # in line for the next share
        self._left_over = False  # the peer is gone, and what it sent is still being decoded
        self._held = 0  # bytes the engine counts as unread
        self._waiter: Waiter | None = None
        self._others: tuple[Waiter, ...] = ()  # of further tasks that receive
        self._ending: Closed | None = None  # has come, behind messages that are in the queue
        self._timer: asyncio.TimerHandle | None = None
        self._ping_due = 0.0
        self._ping_sent = 0.0  # 0: no pong is awaited

    # ------------------------------------------------------------------------ the application

    async def run(self) -> None:
        """Call the application; whatever it does, the peer learns how it ended."""
        try:
            await self.service.app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail("was cancelled", None)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except SystemExit as error:  # a socket must not end the server (checklist 8)
            self._fail("called sys.exit() in a WebSocket", error)
        except BaseException as error:
            if self._state is not CLOSED or not comes_of_leaving(error):
                self._fail("failed", error)
        else:
            if self._state is OPEN:
                self._close(NORMAL, "")
            elif self._state is not CLOSED:
                self._fail("returned without answering the WebSocket's handshake", None)
        finally:
            if self.task is not None:
                self.task = None
                self._wire.on_end(self)

    def _fail(self, what: str, error: BaseException | None) -> None:
        head = self.request.head
        self.service.log.error("The application %s: WebSocket %s", what, head.path, exc_info=error)
        if self._state is CONNECTING:
            self.answer(500, b"Internal Server Error\n")
        elif self._state is OPEN:
            self._close(INTERNAL_ERROR, "")
        elif self._state is State.RESPONDING:
            self._engine.reset(self.stream)
            self._leave(ABNORMAL, "")

    def stop(self) -> None:
        """The server stops: 1012 tells the client to come again, now or once it is let in."""
        self._stopping = True
        if self._state is OPEN:
            self._close(RESTART, "the server restarts")

    @property
    def closing(self) -> bool:
        """Our close is sent, theirs awaited: what comes in is still this session's."""
        return self._timer is not None

    # ------------------------------------------------------------------------ what comes in

    def feed(self, event: Event) -> None:
        """The engine's events for this stream."""
        if type(event) is not Body:
            self.lose()
            return
        self._held += len(event.data)
        socket = self._socket
        if socket is not None:
            self._used = True
            socket.feed(event.data)
            if self._going or (self._behind and self._queue):
                self._ping_sent = 0.0  # a sign of life, and its pong may lie there unread
            else:
                self._pull(socket)
                self._wake_now()

    def lose(self) -> None:
        """The peer is gone without a close."""
        if self._state is OPEN or self._timer is not None:
            self._engine.send_body(self.stream, b"", True)
        elif self._state is not CLOSED:
            self._engine.reset(self.stream)
        self._end_timer()
        if self._state is CLOSED:
            return
        if self._ending is None and (self._behind or self._going):
            self._state = CLOSED
            self._left_over = True
            self._wake()
        else:
            ending = self._ending or Closed(ABNORMAL, "")
            self._leave(ending.code, ending.reason)

    def _pull(self, socket: WebSocketEngine) -> None:
        """Decode as far ahead as the queue allows; send what the protocol itself has to say."""
        queue = self._queue
        self._behind = False
        told = socket.next()
        while told is not None:
            kind = type(told)
            if kind is str or kind is bytes:
                if self._state is OPEN or self._left_over:
                    if queue is _NO_QUEUE:
                        self._queue = queue = deque()
                    queue.append(told)  # type: ignore[arg-type]
                    self._queued = queued = self._queued + len(told) + EACH
                    if queued >= QUEUE_BOUND or len(queue) == self._most:
                        self._behind = True
                        break
            elif kind is Closed:
                self._take_end(told)  # type: ignore[arg-type]
                break
            else:  # a pong
                self._ping_sent = 0.0
            if not socket.unread:
                break
            told = socket.next()
        decoded = self._held - socket.unread
        if decoded >= self._engine.tunnel_report:
            self._engine.take_body(self.stream, decoded)
            self._held -= decoded
            self._wake_wire()  # which may read on
        if socket.due and self._ending is None:
            self._say()
        if socket.stalled:
            self._line_up(socket)
        elif self._left_over and not self._behind:
            self._leave(ABNORMAL, "")

    def _line_up(self, socket: WebSocketEngine) -> None:
        """The codec has used up its share of a turn."""
        if not self._going:
            self._going = True
            if socket.inflating:
                self.service.inflating.join(self)
            else:
                self.service.loop.call_soon(self.go_on)

    def go_on(self) -> None:
        """It is our turn again."""
        self._going = False
        socket = self._socket
        served = self._state is OPEN or self.closing or self._left_over
        if socket is not None and served and not self._behind:
            self._pull(socket)
            self._wake_wire()
            self._wake_now()

    def _say(self) -> None:
        """Pongs, pings and closes on their way."""
        assert self._socket is not None
        output = self._socket.take_output()
        if output:
            self._engine.send_body(self.stream, output, False)
            self._wake_wire()

    def _take_end(self, closed: Closed) -> None:
        """The peer's close, or its fault: not before what came ahead of it has been answered."""
        if self._queue and self._state is OPEN:
            self._ending = closed
            self._timer = self.service.loop.call_later(END_WAIT, self._end, closed)
        else:
            self._end(closed)

    def _end(self, closed: Closed) -> None:
        self._ending = None
        if closed.fault:
            option = " (--ws-max-size)" if closed.code == TOO_BIG else ""
            self.service.log.info(
                "WebSocket of %s closed with %d: %s%s",
                name_of(self.scope.get("client")),
                closed.code,
                closed.reason,
                option,
            )
        self._say()
        self._engine.send_body(self.stream, b"", True)
        self._end_timer()
        self._leave(closed.code, closed.reason)

    async def receive(self) -> Message:
        """connect, then messages, then disconnect for ever."""
        while True:
            if not self._asked:
                self._asked = True
                return {"type": "websocket.connect"}
            if self._queue:
                message = self._queue.popleft()
                self._queued -= len(message) + EACH
                if type(message) is str:
                    return {"type": "websocket.receive", "text": message, "bytes": None}
                return {"type": "websocket.receive", "text": None, "bytes": message}
            if self._behind:
                await self._catch_up()
            elif self._ending is not None:
                self._end(self._ending)
            elif self._disconnect is not None:
                return dict(self._disconnect)
            else:
                waiter = self._waiter
                if waiter is None:
                    self._waiter = waiter = Waiter(self.service.loop)
                if waiter.state is IDLE:
                    await waiter
                else:
                    await self._wait_as_well()

    async def _wait_as_well(self) -> None:
        """Several tasks receive: each has a waiter of its own."""
        waiter = Waiter(self.service.loop)
        self._others = (*self._others, waiter)
        try:
            await waiter
        finally:
            self._others = tuple(other for other in self._others if other is not waiter)

    async def _catch_up(self) -> None:
        """A queue's worth was taken without waiting: others have their turn before the next."""
        try:
            await asyncio.sleep(0)
        finally:  # cancelled or not: who polls with a timeout of nothing gets on as well
            if self._behind and not self._queue and self._socket is not None:
                self._pull(self._socket)

    def _wake(self) -> None:
        """From wherever: those who wait go on in the loop's next turn."""
        if self._waiter is not None and self._has_news():
            self._waiter.wake_soon()
            for waiter in self._others:
                waiter.wake_soon()

    def _wake_now(self) -> None:
        """From a callback, and its last act: the application goes on before this returns."""
        waiter = self._waiter
        if waiter is not None and (self._queue or self._has_news()):
            waiter.wake()
            for waiter in self._others:
                waiter.wake()

    def _has_news(self) -> bool:
        return bool(self._queue) or self._disconnect is not None or self._ending is not None

    # ------------------------------------------------------------------------ what goes out

    async def send(self, message: Message) -> None:
        """Take one message of the application's; waits while the peer does not read."""
        kind = message["type"]
        if kind == "websocket.send" and self._state is OPEN:
            queued = self._send(message)
        else:
            step = _TABLE[self._state].get(kind)
            if step is None:
                self._refuse(message)
            queued = step(self, message)
        if not self._wire.flush_due:
            self._wire.flush_soon()
        if queued > SEND_AHEAD:
            await self._relieve()

    async def _relieve(self) -> None:
        wire, engine = self._wire, self._engine
        wire.flush()
        while wire.backlog or engine.queued(self.stream) > HIGH_WATER:
            await wire.drained(self.stream, HIGH_WATER)
            if self._state is CLOSED:
                raise ClientDisconnected("the client left while a message was being sent")
            wire.flush()
        await asyncio.sleep(0)

    def _opened(self, socket: WebSocketEngine, rest: bytes) -> None:
        terms = self.service.sockets
        assert terms is not None
        self._socket = socket
        self._most = terms.max_queue
        if terms.ping_interval:
            self._ping_due = self.service.clock.now + terms.ping_interval
            self._wire.look_by(self._ping_due)
        if rest:
            self._held += len(rest)
            socket.feed(rest)
            self._pull(socket)
            self._wake()
        if self._stopping:
            self.stop()

    def _send(self, message: Message) -> int:
        content = message.get("bytes")
        if content is None:
            content = message.get("text")
            if type(content) is not str:
                content = content_of(message)
        elif type(content) is not bytes or message.get("text") is not None:
            content = content_of(message)
        queued = 0
        self._used = True
        for piece in self._socket.render(content):  # type: ignore[union-attr]
            queued = self._engine.send_body(self.stream, piece, False)
        return queued

    def _close_message(self, message: Message) -> int:
        self._close(*closing_of(message))
        return 0

    def _close(self, code: int, reason: str) -> None:
        """Our close goes first; theirs is awaited, but not for ever."""
        if self._ending is not None:
            self._end(self._ending)
            return
        assert self._socket is not None
        self._socket.send_close(code, reason)
        self._say()
        self._leave(code, reason)
        self._timer = self.service.loop.call_later(CLOSE_WAIT, self._give_up)
        if self._behind:
            self._pull(self._socket)  # theirs may be there already

    def _give_up(self) -> None:
        self._timer = None
        self._engine.send_body(self.stream, b"", True)
        self._wake_wire()

    def _ignore(self, message: Message) -> int:
        return 0

    def _gone(self, message: Message) -> int:
        raise ClientDisconnected("the WebSocket is closed, nobody reads this message")

    def _refuse(self, message: Message) -> NoReturn:
        kind = message["type"]
        expected = " or ".join(sorted(_TABLE[self._state]))
        raise ApplicationError(f"{kind!r} cannot be sent now, {expected} is expected")

    # ------------------------------------------------------------------------ time and ends

    def look(self, now: float) -> float:
        """Pings: send what is due, give up who does not answer; returns when to look again."""
        terms = self.service.sockets
        if self._state is not OPEN or self._socket is None or terms is None:
            return NEVER
        if self._ending is not None:
            return NEVER  # a ping would send what answers the peer's close ahead of our messages
        if not self._used:
            self._rest()
        self._used = False
        if not terms.ping_interval:
            return NEVER
        if self._ping_sent and terms.ping_timeout is not None:
            due = self._ping_sent + terms.ping_timeout
            if now < due:
                return due
            if self._wire.reads(self.stream):
                self._wire.give_up_peer(self.stream, "ws_ping_timeout", "does not answer pings")
                return NEVER
            self._ping_sent = now  # it was us who did not read
            return now + terms.ping_timeout
        if now >= self._ping_due:
            self._ping_due = now + terms.ping_interval
            self._ping_sent = now
            self._socket.send_ping(b"tide")
            self._say()
            wait = terms.ping_timeout
            return self._ping_due if wait is None else min(self._ping_due, now + wait)
        return self._ping_due

    def _rest(self) -> None:
        """A silent socket holds as little as it can."""
        if self.deflate is not None:
            self.deflate.rest()
        if not self._queue:
            self._queue = _NO_QUEUE

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_Step = Callable[[Session, Message], int]
_TABLE: tuple[dict[str, _Step], ...] = (
    {  # CONNECTING
        "websocket.accept": Session._accept,
        "websocket.close": Session._refuse_handshake,
        "websocket.http.response.start": Session._begin_response,
    },
    {  # RESPONDING
        "websocket.http.response.body": Session._respond,
    },
    {  # OPEN
        "websocket.send": Session._send,
        "websocket.close": Session._close_message,
    },
    {  # CLOSED: what would end it once more is ignored
        "websocket.send": Session._gone,
        "websocket.close": Session._ignore,
        "websocket.accept": Session._gone,
        "websocket.http.response.start": Session._gone,
        "websocket.http.response.body": Session._ignore,
    },
)
