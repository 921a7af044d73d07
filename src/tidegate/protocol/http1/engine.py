"""The HTTP/1 engine: one connection's requests and responses, one after the other (RFC 9112).

Strategy: two small state machines, one for what is read (`Reading`), one for how the answer is
framed (`Framing`), each with a table that says which method handles which state. Requests are
parsed lazily: while one is being answered, what the client pipelined behind it stays buffered,
within a bound. So answers are in order by construction, and a fault behind good requests is found
only once those are answered.

The reader is our own, not llhttp through `httptools`: see docs/architecture.md, "Two roads".
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from tidegate.protocol.engine import Ending, Limits, Waiting
from tidegate.protocol.events import Body, Event, Fault, Request, Reset, Switch
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1 import reader, writer
from tidegate.protocol.http1.answering import DONE, Answering
from tidegate.protocol.http1.chunked import ChunkedBody, Stage
from tidegate.protocol.http1.reader import (
    NO_REQUEST,
    HeadScanner,
    Parsed,
)
from tidegate.protocol.http1.reader import Framing as BodyFraming
from tidegate.protocol.http1.writer import Framing
from tidegate.protocol.target import Refusal, check_body_size

UNREAD_BOUND = 256 * 1024  # body bytes the application may be behind before reading stops
TUNNEL_BOUND = 128 * 1024  # the same for a tunnel, which carries messages and not uploads
TUNNEL_REPORT = 16 * 1024  # taken of a tunnel before we are told: a small part of that
PIPELINE_BOUND = 64 * 1024  # bytes of later requests that wait for their turn
REMEMBERED_HEAD = 2048  # bytes of a head that is worth remembering
PREFACE = b"PRI * HTTP/2.0\r\n\r\n"  # the part of HTTP/2's that looks like a head
DISCARD_BOUND = 64 * 1024  # body bytes nobody wanted, read for the sake of the connection


HEADS = 512  # heads remembered, by all connections of the process together
# what is good depends on the limits: one table for each set of them, in practice one
_heads: dict[Limits, dict[bytes, Parsed]] = {}


class Reading(enum.IntEnum):
    HEAD = 0  # a head is awaited, or has begun
    FIXED = 1  # a body of known length
    CHUNKED = 2
    COMPLETE = 3  # the request is whole, its answer is not
    SWITCHED = 4  # another protocol has taken over
    CLOSED = 5  # nothing more is read


HEAD, COMPLETE = Reading.HEAD, Reading.COMPLETE  # an Enum's members are looked up in Python


class Http1Engine(Answering):
    """See `protocol.engine.Engine`; `stream` counts the requests of the connection from 1."""

    tunnel_status = 101

    __slots__ = (
        "_buffer",
        "_chunked",
        "_discarded",
        "_known",
        "_last",
        "_limits",
        "_most_unread",
        "_over",
        "_reading",
        "_remaining",
        "_scanner",
        "_stopping",
        "_unread",
        "ending",
        "hungry",
        "resting",
        "stalled",
        "supports_early_hints",
        "supports_push",
        "supports_trailers",
        "switches",
        "tunnel_report",
    )

    def __init__(self, limits: Limits, defaults: Defaults) -> None:
        super().__init__(defaults)
        self.supports_trailers = True
        self.supports_early_hints = True
        self.supports_push = False
        self.tunnel_report = TUNNEL_REPORT
        self.hungry = True
        self.resting = False
        self.stalled = False
        self.switches = False  # to HTTP/2, if the client's first bytes say so
        self.ending = Ending.NO
        self._limits = limits
        self._known = _heads.setdefault(limits, {})
        self._reading = Reading.HEAD
        self._buffer = bytearray()
        self._scanner: HeadScanner | None = None
        self._remaining = 0
        self._chunked: ChunkedBody | None = None
        self._unread = 0
        self._most_unread = UNREAD_BOUND
        self._discarded = 0
        self._stopping = False  # what we answer next is the last
        self._last = False  # and this is it: the client has been told, or nothing is promised to it
        self._over = False  # the peer sends no more than what is buffered

    # ------------------------------------------------------------------------ what comes in

    @property
    def waiting(self) -> Waiting:
        if self._reading is Reading.HEAD:
            return Waiting.HEAD if self._buffer else Waiting.IDLE
        if self._reading is Reading.FIXED or self._reading is Reading.CHUNKED:
            # who asked for a 100 sends nothing before it: it is our turn
            return Waiting.NOTHING if self._continue else Waiting.BODY
        return Waiting.NOTHING

    def receive(self, data: bytes) -> list[Event]:
        """Bytes from the peer; with b"", go on with what is buffered (`stalled`)."""
        if self.resting:
            if self._reading is HEAD:
                parsed = self._known.get(data) if len(data) <= REMEMBERED_HEAD else None
                if parsed is not None:
                    return [self._begin_request(parsed)]
            elif self._unread + len(data) < self._most_unread:  # a tunnel
                self._unread += len(data)
                return [Body(self._stream, data, False)]
        return self._receive(data)

    def _receive(self, data: bytes) -> list[Event]:
        self.stalled = self.resting = False
        events: list[Event] = []
        try:
            while data or self._reading is HEAD:
                data = _RECEIVE[self._reading](self, data, events)
                if not data:
                    break
        except Refusal as refusal:
            events.append(self._refuse(refusal))
        if self._over:
            events.extend(self.receive_eof())
        if self._buffer or self._reading is not HEAD:
            self.resting = False  # it was, for a moment, between a body and what came behind it
        return events

    def receive_eof(self) -> list[Event]:
        """The peer sends no more; what it asked for in full is still answered (half-close)."""
        self._over = True
        self._plain = self.resting = False
        if self.stalled:
            return []  # there may be whole requests in what is buffered
        # RFC 9112 8: an incomplete request is never answered as if it were whole
        if self._reading in (HEAD, Reading.FIXED, Reading.CHUNKED):
            self._reading = Reading.CLOSED
            if self.ending is Ending.NO:
                cut = self._framing is Framing.UNTIL_CLOSE
                self.ending = Ending.ABORT if cut else Ending.CLOSE
        return [Reset(self._stream, "the client closed its side")] if self._stream else []

    def receive_timeout(self) -> list[Event]:
        """The head or body the peer owes did not come in time."""
        what = "head" if self._reading is Reading.HEAD else "body"
        reason = f"the request's {what} came too slowly"
        if what == "body" and self._head_left and not self._answered:
            self.reset(self._stream)
            return [Reset(self._stream, reason)]
        return [self._refuse(Refusal(408, reason, "RFC 9110 15.5.9"))]

    def _receive_head(self, data: bytes, events: list[Event]) -> bytes:
        if self.switches:
            data = self._see_preface(data, events)
            if not data:
                return b""
        if self._buffer or self._scanner is not None:
            self._buffer += data
            return self._receive_buffered(events)
        end = data.find(b"\r\n\r\n") + 4
        if end > 4:
            parsed = self._parse(data[:end])
            if parsed is not None:
                events.append(self._begin_request(parsed))
                return data[end:]
        self._buffer += data
        return self._receive_buffered(events) if data else b""

    def _see_preface(self, data: bytes, events: list[Event]) -> bytes:
        """The first bytes of a connection may be HTTP/2's; returns what is ours (RFC 9113 3.4)."""
        data = bytes(self._buffer) + data
        self._buffer.clear()
        if data.startswith(PREFACE):
            events.append(Switch(data))
            self._reading = Reading.CLOSED
            return b""
        if PREFACE.startswith(data):
            self._buffer += data
            return b""
        self.switches = False
        return data

    def _receive_buffered(self, events: list[Event]) -> bytes:
        """A head from the buffer, whose front is cut off cheaply: what is pipelined stays there."""
        buffer = self._buffer
        if self._scanner is None:
            end = buffer.find(b"\r\n\r\n") + 4
            parsed = self._parse(bytes(buffer[:end])) if end > 4 else None
            if parsed is not None:
                return self._begin_buffered(parsed, end, events)
            self._scanner = HeadScanner(self._limits)
        scanned = self._scanner.scan(buffer)
        if scanned is None:
            return b""
        head = bytes(buffer[self._scanner.begin : scanned])
        parsed = reader.insist_on_head(head)
        rest = self._begin_buffered(parsed, scanned, events)
        self._scanner = None
        return rest

    def _begin_buffered(self, parsed: Parsed, end: int, events: list[Event]) -> bytes:
        del self._buffer[:end]
        events.append(self._begin_request(parsed))
        if parsed.end:
            self._see_hunger()
            return b""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _parse(self, head: bytes) -> Parsed | None:
        """By the quick road, if it can be; a head that is long is not kept longer than needed."""
        parsed = self._known.get(head) if len(head) <= REMEMBERED_HEAD else None
        if parsed is None:
            parsed = reader.parse_head(head, self._limits)
            if parsed is not None and len(head) > REMEMBERED_HEAD:
                parsed.plain = False
            elif parsed is not None and parsed.end:
                self._remember(head, parsed)
        return parsed

    def _remember(self, head: bytes, parsed: Parsed) -> None:
        """Clients repeat themselves: a browser's or a balancer's next head is often the same."""
        if len(self._known) >= HEADS:
            self._known.clear()
        self._known[head] = parsed

    def _begin_request(self, parsed: Parsed) -> Request:
        self._stream += 1
        self._parsed = parsed
        self._framing = None
        self.resting = False
        self.supports_early_hints = not parsed.old
        if parsed.plain and not self._stopping and not self._over:
            self._plain = self._keep = True
            self._reading = COMPLETE
        else:
            self._plain = False
            self._begin_unusual(parsed)
        return Request(self._stream, parsed, parsed.end)

    def _begin_unusual(self, parsed: Parsed) -> None:
        """HTTP/1.0, a body, or the last request of its connection."""
        self._keep = not parsed.framing.closes
        self._last = self._stopping
        if parsed.end:
            self._reading = Reading.COMPLETE
        else:
            self._begin_body(parsed.framing)

    def _begin_body(self, fields: BodyFraming) -> None:
        check_body_size(fields.length, self._limits)
        self._continue = fields.continues
        self._unread = self._discarded = 0
        if fields.chunked:
            self._chunked = ChunkedBody(self._limits)
            self._reading = Reading.CHUNKED
        else:
            self._remaining = fields.length
            self._reading = Reading.FIXED

    def _receive_fixed(self, data: bytes, events: list[Event]) -> bytes:
        if not data:
            return b""
        rest = b""
        if len(data) > self._remaining:
            data, rest = data[: self._remaining], data[self._remaining :]
        self._remaining -= len(data)
        self._deliver(data, not self._remaining, events)
        return rest

    def _receive_chunked(self, data: bytes, events: list[Event]) -> bytes:
        chunked = self._chunked
        assert chunked is not None
        body, rest = chunked.receive(data)
        self._deliver(body, chunked.stage is Stage.DONE, events)
        return rest

    def _deliver(self, data: bytes, end: bool, events: list[Event]) -> None:
        """A piece of body to the application, or to nobody when the answer is already out."""
        self._continue = False
        if end:
            self._reading = Reading.COMPLETE
            self._chunked = None
        if self._answered:
            self._discarded += len(data)
            if end:
                self._end_exchange()
            elif self._discarded > DISCARD_BOUND:
                self._reading = Reading.CLOSED
                self.ending = Ending.STAGED
            return
        if data or end:
            self._unread += len(data)
            self._see_hunger()
            events.append(Body(self._stream, data, end))

    def _receive_early(self, data: bytes, events: list[Event]) -> bytes:
        """Pipelined: it waits for its turn."""
        self._buffer += data
        self._see_hunger()
        return b""

    def _see_hunger(self) -> None:
        self.hungry = self._unread < self._most_unread and len(self._buffer) < PIPELINE_BOUND

    def _receive_nothing(self, data: bytes, events: list[Event]) -> bytes:
        return b""

    def _receive_switched(self, data: bytes, events: list[Event]) -> bytes:
        self._unread += len(data)
        self._see_hunger()
        events.append(Body(self._stream, data, False))
        return b""

    def _refuse(self, refusal: Refusal) -> Fault:
        """Nothing more is read; the error is the answer, if none has begun to leave."""
        stream = self._stream if self._reading in (Reading.FIXED, Reading.CHUNKED) else 0
        bodiless = self._parsed.is_head if self._scanner is None else self._scanner.asks_head
        self._reading = Reading.CLOSED
        self._buffer.clear()
        self._scanner = None
        self._continue = self._plain = self._keep = False
        answered = stream == 0 or self._framing is None or bool(self._head)
        if answered:
            self._head = b""
            self._framing = Framing.NO_BODY
            self._stream += 1  # what the application still sends belongs to nobody
            self._put(writer.render_refusal(refusal, self._defaults, bodiless=bodiless))
            self.ending = Ending.STAGED
        elif self._answered:
            self.ending = Ending.STAGED
        return Fault(stream, refusal.status, refusal.reason, refusal.section, answered=answered)

    # ------------------------------------------------------------------------ between the halves

    def take_body(self, stream: int, size: int) -> None:
        """The application took `size` bytes, or (0) waits for the first: 100 (RFC 9110 10.1.1)."""
        if stream != self._stream:
            return
        self._unread -= size
        self._see_hunger()
        if self._reading is Reading.SWITCHED:
            self.resting = self.hungry and not self._over
        if self._continue and not self._head_left:
            self._continue = False
            self._put(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _may_keep(self, end: bool) -> bool:
        # a body that nobody will read: too long to be read for the sake of the connection?
        long = end and self._reading is Reading.FIXED and self._remaining > DISCARD_BOUND
        if long or self._continue:
            self._keep = False
        self._last = self._stopping
        return self._keep and not self._last

    def _end_answer(self) -> None:
        self._framing = DONE
        if self._plain:  # which says that all of the request is here, and another may come
            self._reading = HEAD
            if self._buffer:
                self.stalled = True
                self._see_hunger()
            else:
                self.resting = True
            return
        reading = self._reading
        self.resting = False
        if reading is Reading.COMPLETE:
            self._end_exchange()
        elif reading is Reading.CLOSED:
            self.ending = Ending.CLOSE if self._over else Ending.STAGED
        elif not self._keep:
            self._reading = Reading.CLOSED
            self.ending = Ending.CLOSE if self._over else Ending.STAGED
        self._unread = 0
        self._see_hunger()

    def _end_exchange(self) -> None:
        """Request and answer are both whole: the next one, or the end."""
        if self._keep and not self._last and not (self._over and not self._buffer):
            self._reading = Reading.HEAD
            self._parsed = NO_REQUEST
            self._unread = 0
            self._see_hunger()
            self.stalled = bool(self._buffer)
            self.resting = not self._buffer and not self._over
        else:
            # the client said so itself, and sent nothing more: it expects the end
            expected = self._parsed.framing.closes and not self._buffer
            self._reading = Reading.CLOSED
            self.ending = Ending.CLOSE if expected or self._over else Ending.STAGED

    # ------------------------------------------------------------------------ ends and switches

    def reset(self, stream: int) -> None:
        """The answer cannot be completed: end so that nobody takes it for whole."""
        if stream != self._stream or self._framing is Framing.DONE:
            return
        if self._framing is Framing.LENGTH and not self._to_send and not self._head:
            self._end_answer()  # all that was promised is out: the answer is whole
            return
        self._head = b""
        self._plain = self.resting = False
        self._reading = Reading.CLOSED
        # a close tells the truth where the framing shows the gap; where the close itself is
        # the framing, only a reset does
        self.ending = Ending.ABORT if self._framing is Framing.UNTIL_CLOSE else Ending.STAGED
        self._framing = Framing.DONE

    def retire(self) -> None:
        """`Connection: close` on the next answer whose head is not out yet: whatever was asked
        on the word of an earlier head is answered."""
        self._stopping = True
        self._plain = self.resting = False

    def stop(self) -> None:
        """No more requests: `Connection: close` on the answer under way, or the end at once."""
        self.retire()
        self._last = True
        if self.waiting is Waiting.IDLE:
            self._reading = Reading.CLOSED
            self.ending = Ending.CLOSE

    def push(self, stream: int, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Nothing can be promised here."""

    def open_tunnel(
        self, stream: int, protocol: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> bytes:
        """101: another protocol goes on with the bytes returned, which nobody has parsed."""
        line = b"HTTP/1.1 101 Switching Protocols\r\n"
        lines = [line, b"connection: upgrade\r\nupgrade: %b\r\n" % protocol, self._defaults.block]
        writer.read_fields(headers, lines)
        if stream != self._stream or self._reading is not Reading.COMPLETE:
            return b""  # the client has left meanwhile
        self._put(b"".join(writer.without_length(lines)) + b"\r\n")
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._reading = Reading.SWITCHED
        self._framing = Framing.UNTIL_CLOSE
        self._keep = self._plain = False
        self._unread = len(rest)
        self._most_unread = TUNNEL_BOUND
        self._see_hunger()
        self.resting = self.hungry and not self._over
        return rest


# by `Reading`
_RECEIVE: tuple[Callable[[Http1Engine, bytes, list[Event]], bytes], ...] = (
    Http1Engine._receive_head,
    Http1Engine._receive_fixed,
    Http1Engine._receive_chunked,
    Http1Engine._receive_early,
    Http1Engine._receive_switched,
    Http1Engine._receive_nothing,
)
