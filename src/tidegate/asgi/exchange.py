"""One request and its answer, as ASGI sees them: `receive` and `send` for every HTTP version.

Strategy: the answer is a state machine. `_TABLE` says for each state which message may come and
which method takes it; a method hands the message to the engine and names the next state. The
engine frames, the wire carries: nothing here knows the version or the socket. `receive` reads from
a buffer that `feed` fills, so cancelling it loses nothing.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from tidegate.asgi import files
from tidegate.asgi.wire import HIGH_WATER, NEVER, Wire, comes_of_leaving
from tidegate.errors import ApplicationError, ClientDisconnected
from tidegate.protocol.engine import Engine, FileSlice
from tidegate.protocol.events import Body, Event, Fault, Request, Reset
from tidegate.types import Message

if TYPE_CHECKING:
    from tidegate.asgi.service import Service

FAIR_SHARE = 1024 * 1024  # bytes one `send` loop may write before others get their turn
# pieces below this are joined to the last one, up to a length that is copied in no time: a list of
# single bytes takes forty times as much as they do
SMALL, JOINED = 256, 4096
WHOLE_QUEUE = -1  # what a step returns for "wait until the kernel has all of it"


class State(enum.IntEnum):
    """How far the answer is."""

    WAITING = 0  # nothing sent
    STARTED = 1  # the head is known and held back: it can still become a 500
    STREAMING = 2  # part of it is out
    TRAILERS = 3  # the body is complete, the trailers are due
    COMPLETE = 4
    GONE = 5  # the client left, or was answered by the server itself


class Incoming(enum.IntEnum):
    """How far the request's body is."""

    OPEN = 0
    WHOLE = 1  # all here, the application has not been told
    TOLD = 2


# an Enum's members are looked up in Python: 0.05 us each, on the way of every message
OPEN, WHOLE = Incoming.OPEN, Incoming.WHOLE
WAITING, STARTED, STREAMING = State.WAITING, State.STARTED, State.STREAMING
COMPLETE, GONE = State.COMPLETE, State.GONE


class Exchange:
    """Carries one request through the application. `task` is the application's."""

    closing = False  # nothing comes in for it once its application is done

    # fmt: off
    __slots__ = (
        "_body", "_engine", "_file", "_headers", "_incoming", "_left", "_row", "_state",
        "_trailers", "_turn_ends", "_waiters", "_wire", "request", "scope", "service", "since",
        "size", "status", "stream", "task",
    )
    # fmt: on

    def __init__(
        self, service: Service, wire: Wire, engine: Engine, request: Request, scope: dict[str, Any]
    ) -> None:
        self.service = service
        self.request = request
        self.scope = scope
        self.stream = request.stream
        self.since = service.clock.now
        self.status = 0
        self.size = 0
        self.task: asyncio.Task[None] | None = None
        self._wire = wire
        self._engine = engine
        self._incoming = WHOLE if request.end else OPEN
        self._body: list[bytes] | None = None
        self._left = False  # the client sends no more, and may be gone
        self._waiters: list[asyncio.Future[None]] | None = None
        self._state = WAITING
        self._row = _WAITING_ROW  # the table's, for the state
        self._headers: Any = ()
        self._trailers = False  # they were promised
        self._turn_ends = FAIR_SHARE  # the size of the answer at which others get their turn
        self._file = -1  # opened by pathsend, closed once it is sent

    # ------------------------------------------------------------------------ the application

    async def run(self) -> None:
        """Call the application; whatever it does, the connection learns how the answer ended."""
        try:
            await self.service.app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail("was cancelled", None)
        except (Exception, BaseExceptionGroup) as error:
            if self._state is not State.GONE or not comes_of_leaving(error):
                self._fail("failed", error)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except SystemExit as error:  # a request must not end the server (checklist 8)
            self._fail("called sys.exit() in a request", error)
        except BaseException as error:
            self._fail("failed", error)
        else:
            if self._state is not COMPLETE and self._state is not GONE:
                self._fail(_RETURNED[self._state], None)
        finally:
            if self.task is not None:  # otherwise it has run at once, to its end
                self.task = None
                self._wire.on_end(self)

    def _fail(self, what: str, error: BaseException | None) -> None:
        """Tell the log what the application did, the client that there is no (whole) answer."""
        state = self._state
        line = self.request.head
        self.service.log.error(
            "The application %s: %s %s", what, line.method, line.path, exc_info=error
        )
        if state <= State.STARTED:
            self.answer(500, b"Internal Server Error\n")
        elif state < State.COMPLETE:
            self._engine.reset(self.stream)
            self._leave(State.GONE)
            self._wake_wire()

    def answer(
        self, status: int, text: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """The server's own answer in place of the application's, which gets no further say."""
        fields = (
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            *headers,
        )
        self.status = status
        self._engine.send_head(self.stream, status, fields)
        self._engine.send_body(self.stream, text, True)
        self.size = len(text)
        self._leave(State.GONE)
        self._wake_wire()

    def expire(self, seconds: float) -> None:
        """The deadline for a whole request has passed: answer for the application, end its task."""
        line = self.request.head
        self.service.log.error(
            "The application took longer than %g s: %s %s", seconds, line.method, line.path
        )
        if self._state <= State.STARTED:
            self.answer(503, b"Service Unavailable\n", ((b"retry-after", b"1"),))
        elif self._state < State.COMPLETE:
            self._engine.reset(self.stream)
            self._leave(State.GONE)
            self._wake_wire()
        if self.task is not None:
            self.task.cancel()

    def stop(self) -> None:
        """The server stops: an event stream, which would never end, ends here, cleanly.

        Its client connects again by itself (HTML 9.2), to whoever serves then.
        """
        if self._state not in (STARTED, STREAMING):
            return
        for name, value in self._headers:
            kind = value.lower() if name.lower() == b"content-type" else b""
            if kind.startswith(b"text/event-stream"):
                try:
                    self._engine.send_body(self.stream, b"", True)
                except ApplicationError:
                    return  # it promised a length: it will come to its end
                self._left = True
                self._leave(State.GONE)
                self._wake_wire()
                return

    def look(self, now: float) -> float:
        """When it wants to be looked at next: never."""
        return NEVER

    @property
    def answering(self) -> bool:
        """The answer is not complete yet."""
        return self._state < State.COMPLETE

    # ------------------------------------------------------------------------ receive

    def feed(self, event: Event) -> None:
        """The engine's events for this stream."""
        if type(event) is Body:
            if event.data:
                if not self._body:
                    self._body = [event.data]
                elif len(event.data) < SMALL and len(self._body[-1]) < JOINED:
                    self._body[-1] += event.data
                else:
                    self._body.append(event.data)
            if event.end:
                self._incoming = Incoming.WHOLE
        elif type(event) is Reset:
            self._left = True
            if event.final:
                self.lose()
        elif type(event) is Fault:
            self._left = True
            if event.answered and self._state < State.COMPLETE:
                self.status = event.status
                self._leave(State.GONE)
        self._wake()

    def lose(self) -> None:
        """The connection is gone."""
        self._left = True
        if self._state < State.COMPLETE:
            self._leave(State.GONE)
        else:
            self._wake()

    async def receive(self) -> Message:
        """The next piece of the request's body, or http.disconnect once there is no more use."""
        while True:
            message = self._next_message()
            if message is not None:
                return message
            waiter = self.service.loop.create_future()
            if self._waiters is None:
                self._waiters = []
            waiters = self._waiters
            waiters.append(waiter)
            try:
                await waiter
            finally:
                waiters.remove(waiter)

    def _next_message(self) -> Message | None:
        if self._state >= State.COMPLETE:
            return {"type": "http.disconnect"}
        incoming = self._incoming
        if incoming is Incoming.WHOLE:
            self._incoming = Incoming.TOLD
            return {"type": "http.request", "body": self._take(), "more_body": False}
        if self._left:
            return {"type": "http.disconnect"}
        if incoming is Incoming.OPEN:
            if self._body:
                return {"type": "http.request", "body": self._take(), "more_body": True}
            self._engine.take_body(self.stream, 0)
            self._wake_wire()
        return None

    def _take(self) -> bytes:
        body = self._body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._engine.take_body(self.stream, len(data))
        self._wake_wire()
        return data

    def _wake(self) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------------------ send

    async def send(self, message: Message) -> None:
        """Take one message of the answer; waits while the client does not read."""
        step = self._row.get(message["type"])
        if step is None:
            self._refuse(message)
        queued = step(self, message)
        wire = self._wire
        if not wire.flush_due:
            if self._state is COMPLETE:
                wire.finish()
            else:
                wire.flush_soon()
        if queued > HIGH_WATER:
            await self._relieve(HIGH_WATER)
        elif queued < 0:
            await self._relieve_file()

    async def _relieve_file(self) -> None:
        """Until the kernel has all of a file: then its owner may close it, and not before."""
        try:
            await self._relieve(0)
        except asyncio.CancelledError:
            self._wire.abandon(self.stream, "cancelled while a file was being sent")
            raise
        finally:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    async def _relieve(self, least: int) -> None:
        """Write now, wait for a slow peer, and let others have their turn after a fair share."""
        wire, engine = self._wire, self._engine
        wire.flush()
        while wire.backlog or engine.queued(self.stream) > least:
            await wire.drained(self.stream, least)
            if self._state is State.GONE:
                raise ClientDisconnected("the client left while the answer was being sent")
            wire.flush()
        if self.size > self._turn_ends:
            self._turn_ends = self.size + FAIR_SHARE
            await asyncio.sleep(0)

    def _start(self, message: Message) -> int:
        headers = message.get("headers", ())
        if type(headers) is not list and type(headers) is not tuple:
            headers = list(headers)
        self._headers = headers
        try:
            self.status = message["status"]
        except KeyError:
            raise ApplicationError("http.response.start needs a 'status'") from None
        self._engine.send_head(self.stream, self.status, headers)
        if message.get("trailers", False):
            self._trailers = True
        self._state = STARTED
        self._row = _STARTED_ROW
        return 0

    def _first_piece(self, message: Message) -> int:
        if not self._trailers and not message.get("more_body", False):
            data = message.get("body", b"")
            if type(data) is not bytes:
                data = _as_bytes(data)
            queued = self._engine.send_body(self.stream, data, True)
            self.size = len(data)
            self._leave(COMPLETE)
            return queued
        queued = self._next_piece(message)
        if self._state is STARTED:
            self._go(STREAMING)
        return queued

    def _next_piece(self, message: Message) -> int:
        data = message.get("body", b"")
        if type(data) is not bytes:
            data = _as_bytes(data)
        if message.get("more_body", False):
            self.size += len(data)
            return self._engine.send_body(self.stream, data, False)
        return self._last_piece(data, len(data))

    def _last_piece(self, data: bytes | FileSlice, size: int) -> int:
        if self._trailers:
            queued = self._engine.send_body(self.stream, data, False)
            self._go(State.TRAILERS)
            self.size += size
            return queued
        queued = self._engine.send_body(self.stream, data, True)
        self.size += size
        self._leave(COMPLETE)
        return queued

    def _trailer_fields(self, message: Message) -> int:
        end = not message.get("more_trailers", False)
        self._engine.send_trailers(self.stream, message.get("headers", ()), end)
        if end:
            self._leave(COMPLETE)
        return 0

    def _early_hint(self, message: Message) -> int:
        links = [(b"link", link) for link in message.get("links", ())]
        if self._engine.supports_early_hints:
            self._engine.send_informational(self.stream, 103, links)
        return 0

    def _push(self, message: Message) -> int:
        """http.response.push: another request is answered before it is asked."""
        path = message.get("path")
        if not isinstance(path, str):
            raise ApplicationError(f"http.response.push needs a 'path' as a str, not {path!r}")
        self._engine.push(self.stream, path, message.get("headers", ()))
        return 0

    def _path(self, message: Message) -> int:
        """http.response.pathsend: one whole file, opened and closed here."""
        fd, size = files.open_whole(message.get("path"))
        try:
            self._last_piece(FileSlice(fd, 0, size), size)
        except BaseException:
            os.close(fd)
            raise
        self._file = fd
        return WHOLE_QUEUE

    def _zero_copy(self, message: Message) -> int:
        """http.response.zerocopysend: part of a file that the application keeps."""
        fd, at, count = files.part(message)
        piece = FileSlice(fd, at, count)
        if message.get("more_body", False):
            self._engine.send_body(self.stream, piece, False)
            self._go(STREAMING)
            self.size += count
        else:
            self._last_piece(piece, count)
        return WHOLE_QUEUE

    def _ignore(self, message: Message) -> int:
        return 0

    def _gone(self, message: Message) -> int:
        raise ClientDisconnected("the client has left, nobody reads this answer")

    def _refuse(self, message: Message) -> NoReturn:
        kind = message["type"]
        if kind not in _KNOWN:
            raise ApplicationError(
                f"unknown message type {kind!r} in send(); HTTP knows {', '.join(sorted(_KNOWN))}"
            )
        expected = " or ".join(sorted(_TABLE[self._state]))
        raise ApplicationError(f"{kind} cannot be sent now, {expected} is expected")

    # ------------------------------------------------------------------------ ends

    def _go(self, state: State) -> None:
        self._state = state
        self._row = _TABLE[state]

    def _leave(self, state: State) -> None:
        """The answer has come to its end, one way or the other."""
        self._state = state
        self._row = _TABLE[state]
        if self.service.record is not None:
            self.service.record(self)
        if self._waiters:
            self._wake()

    def _wake_wire(self) -> None:
        if not self._wire.flush_due:
            self._wire.flush_soon()


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise ApplicationError(f"a response body must be bytes, not {type(data).__name__}")


_RETURNED = {
    State.WAITING: "returned without answering (no http.response.start was sent)",
    State.STARTED: "returned after http.response.start, without a body",
    State.STREAMING: "returned half way (more_body=True was the last it said)",
    State.TRAILERS: "returned before the trailers it had promised",
}

_Step = Callable[[Exchange, Message], int]
_TABLE: tuple[dict[str, _Step], ...] = (
    {  # WAITING
        "http.response.start": Exchange._start,
        "http.response.early_hint": Exchange._early_hint,
        "http.response.push": Exchange._push,
    },
    {  # STARTED
        "http.response.body": Exchange._first_piece,
        "http.response.pathsend": Exchange._path,
        "http.response.zerocopysend": Exchange._zero_copy,
        "http.response.early_hint": Exchange._early_hint,
        "http.response.push": Exchange._push,
    },
    {  # STREAMING
        "http.response.body": Exchange._next_piece,
        "http.response.zerocopysend": Exchange._zero_copy,
        "http.response.push": Exchange._push,
    },
    {  # TRAILERS
        "http.response.trailers": Exchange._trailer_fields,
    },
    {  # COMPLETE, filled below: what comes after the end is ignored
    },
    {  # GONE, filled below: whatever is sent, nobody reads it
    },
)
_KNOWN = frozenset(kind for row in _TABLE for kind in row)
for _kind in _KNOWN:
    _TABLE[State.COMPLETE][_kind] = Exchange._ignore
    _TABLE[State.GONE][_kind] = Exchange._gone
_WAITING_ROW = _TABLE[WAITING]
_STARTED_ROW = _TABLE[STARTED]
_COMPLETE_ROW = _TABLE[COMPLETE]
