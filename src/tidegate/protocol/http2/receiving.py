"""The requesting half of the HTTP/2 engine: header blocks, bodies, tunnels, and windows for them.

Strategy: a block is decoded whatever becomes of its stream, since the table has to follow; what a
block meant is kept as long as the table has not moved (a lookup in place of 3 us). A malformed
request is a `StreamFault`; one that cannot be served is a `Refusal`, answered here. The peer's
windows open by what the application takes, and wider while it keeps up.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.protocol.engine import Ending, Limits, StreamTerms
from tidegate.protocol.events import Body, Event, Fault, Request, Reset
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http2 import fields, frames
from tidegate.protocol.http2.fields import UNMEASURED
from tidegate.protocol.http2.frames import (
    END_STREAM,
    WINDOW,
    Code,
    ConnectionFault,
    StreamFault,
)
from tidegate.protocol.http2.head import (
    Head,
    check_target,
    check_trailers,
    known_heads,
)
from tidegate.protocol.http2.hpack.decoder import Decoder, HpackError
from tidegate.protocol.http2.sending import Sending
from tidegate.protocol.http2.states import CLOSED, HALF_REMOTE, OPEN, Step, after
from tidegate.protocol.http2.streams import Inflow, ReadFile, Stream
from tidegate.protocol.target import Refusal, check_body_size, check_head_size
from tidegate.types import Header, Headers

BLOCKS = 64  # decoded blocks kept for a connection
TUNNEL_BOUND = 128 * 1024  # a tunnel carries messages and not uploads
COSTLY = 512  # bytes of a block, refused when decoded, that cost as much as an idle frame
SMALL = 128  # a piece of a body or a block, an increment: below, it is as good as none
SKIPPED = 64  # gaps between streams that are remembered
LONG_BLOCK = 4096  # a block that is decoded at the cost of a turn's work: 16 KB may take 10 ms
REMEMBERED_BLOCK = 1024  # bytes of a block that is worth remembering


class Receiving(Sending):
    """The last part (engine.py) walks over the frames and knows the connection's own."""

    __slots__ = (
        "_decoder", "_heads", "_last", "_leaving", "_limits", "_priorities", "_received",
        "_skipped",
        "_tired",
    )  # fmt: skip

    def __init__(
        self, limits: Limits, terms: StreamTerms, defaults: Defaults, read_file: ReadFile
    ) -> None:
        super().__init__(terms, defaults, read_file)
        self._limits = limits
        self._decoder = Decoder(limits.header_size)
        self._heads: dict[bytes, Head] = {}  # by their block
        self._last = 0  # the highest stream of the peer's
        self._leaving = False  # the final GOAWAY is out: streams above `_last` are ignored
        self._received = 0  # bytes of all bodies
        self._skipped: list[range] = []  # streams that were passed over
        self._tired = False  # a long block was decoded: the rest waits for its turn
        self._priorities: dict[int, int] = {}  # of streams that are to come (RFC 9218 7.1)

    # ------------------------------------------------------------------------ header blocks

    def _receive_block(self, number: int, end: bool, block: bytes, events: list[Event]) -> None:
        """A whole header block: a request, a trailer section, or a fault."""
        stream = self._streams.get(number)
        if stream is not None:
            self._receive_trailers(stream, end, self._decode(block), events)
        elif number > self._last and number & 1:
            head = self._heads.get(block)
            if head is None:
                self._begin_unknown(number, end, block, events)
            else:
                self._begin(number, head, end, events)
        else:
            self._decode(block)
            self._defence.idle_frame(1 + len(block) // COSTLY)
            self._for_closed(number, "HEADERS")

    def _decode(self, block: bytes) -> Headers:
        decoder = self._decoder
        before = decoder.changes
        self._tired = len(block) > LONG_BLOCK
        try:
            found = decoder.decode(block)
        except HpackError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, error.reason, error.section) from error
        if decoder.changes != before:
            self._heads.clear()  # whatever it was, a request or trailers: blocks mean others now
        return found

    def _begin_unknown(self, number: int, end: bool, block: bytes, events: list[Event]) -> None:
        """A request whose block has to be decoded."""
        decoder = self._decoder
        before = decoder.changes
        found = self._decode(block)
        try:
            size = self._limits.header_size + 1 if decoder.too_long else 0  # as far as it is known
            check_head_size(size, len(found), self._limits)
            head = known_heads.of(found)
            check_target(head, self._limits)
        except Refusal as refusal:
            self._last = number
            self._defence.idle_frame(1 + len(block) // COSTLY)
            if self._leaving:
                self._remember_reset(number)
            else:
                self._refuse_new(number, end, found, refusal, events)
            return
        except StreamFault:
            self._last = number
            raise
        if decoder.changes == before and len(block) <= REMEMBERED_BLOCK:
            if len(self._heads) >= BLOCKS:
                self._heads.clear()
            self._heads[block] = head
        self._begin(number, head, end, events)

    def _begin(self, number: int, head: Head, end: bool, events: list[Event]) -> None:
        if number != self._last + 2:
            self._skip(number)
        self._last = number
        if self._leaving:
            self._remember_reset(number)  # 6.8: ignored, it will be asked for again, elsewhere
            return
        if len(self._streams) - self._pushes >= self._terms.streams:
            self._refuse_stream(number)
            return
        if end and not head.tunnel:
            if head.length > 0:
                raise StreamFault(Code.PROTOCOL_ERROR, "a Content-Length and no body", "8.1.1")
            stream = Stream(number, head, HALF_REMOTE, self._peer.window)
            self._streams[number] = stream
            if self._priorities:
                self._take_priority(stream)
            events.append(Request(number, head, True))
        else:
            self._begin_body(number, head, end, events)

    def _skip(self, number: int) -> None:
        """The streams in between will never be (5.1.1)."""
        first = self._last + 2 if self._last else 1
        if number > first and len(self._skipped) < SKIPPED:
            self._skipped.append(range(first, number, 2))

    def _begin_body(self, number: int, head: Head, end: bool, events: list[Event]) -> None:
        """A request with a body, or a tunnel."""
        if head.tunnel and not self._terms.tunnels:
            raise StreamFault(Code.PROTOCOL_ERROR, ":protocol was not allowed", "RFC 8441 3")
        stream = Stream(number, head, OPEN, self._peer.window)
        self._take_priority(stream)
        self._streams[number] = stream
        stream.inflow = Inflow(min(WINDOW, self._terms.window), head)
        try:
            check_body_size(head.length, self._limits)
        except Refusal as refusal:
            self._answer_refused(stream, refusal, events)
            return
        events.append(Request(number, head, head.tunnel))
        if end:
            self._end_request(stream, events)

    def _take_priority(self, stream: Stream) -> None:
        """What was said of it before it began; what was said of skipped ones is forgotten."""
        said = self._priorities
        stream.priority = said.get(stream.id, stream.priority)
        self._priorities = {number: said[number] for number in said if number > stream.id}

    def _refuse_stream(self, number: int) -> None:
        """5.1.2: more than we allow at once; it can be asked for again (8.7)."""
        self._remember_reset(number)
        self._put(frames.rst_stream(number, Code.REFUSED_STREAM))
        self._defence.reset()

    def _refuse_new(
        self, number: int, end: bool, found: Headers, refusal: Refusal, events: list[Event]
    ) -> None:
        """A request whose head cannot be served: there is no more of it than its stream."""
        if len(self._streams) - self._pushes >= self._terms.streams:
            self._refuse_stream(number)
            return
        head = Head()
        head.is_head = (b":method", b"HEAD") in found
        stream = Stream(number, head, HALF_REMOTE if end else OPEN, self._peer.window)
        self._streams[number] = stream
        self._answer_refused(stream, refusal, events)

    def _answer_refused(self, stream: Stream, refusal: Refusal, events: list[Event]) -> None:
        """The error is the answer, if none has begun to leave."""
        number = stream.id
        reason, section = refusal.reason, refusal.section
        answered = not stream.began
        events.append(Fault(number, refusal.status, reason, section, answered=answered))
        self._defence.idle_frame()
        if not answered:
            self._reset(stream, Code.CANCEL)
            events.append(Reset(number, reason, final=True))
            return
        if stream.inflow is not None:  # what still comes of it is nobody's
            self._give_back(stream.inflow.unread)
            stream.inflow.unread = 0
            stream.inflow.discard = True
        text = f"{refusal.status}: {reason} ({section})\n".encode()
        if refusal.status == 431:
            text = b""  # fields that were too long to be kept may be those of a HEAD
        told = (b"content-type", b"text/plain; charset=utf-8")
        self.send_head(number, refusal.status, (told, (b"content-length", b"%d" % len(text))))
        self.send_body(number, text, True)

    def _receive_trailers(
        self, stream: Stream, end: bool, found: Headers, events: list[Event]
    ) -> None:
        """A second field section: it ends the request (8.1)."""
        stream.state = after(stream.state, Step.RECEIVE_HEADERS)
        if stream.head.tunnel:
            raise StreamFault(Code.PROTOCOL_ERROR, "HEADERS in a tunnel", "8.5")
        if not end:
            raise StreamFault(Code.PROTOCOL_ERROR, "a second HEADERS without END_STREAM", "8.1")
        if not self._decoder.too_long:
            check_trailers(found)
        self._end_request(stream, events)

    def _for_closed(self, number: int, kind: str) -> None:
        """A frame for a stream that is not open; raises ConnectionFault unless it may be (5.1)."""
        skipped = any(number in numbers for numbers in self._skipped)
        if number > self._last or not number & 1 or skipped:
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, f"{kind} for a stream that has not begun", "5.1"
            )
        if number not in self._reset_by_us:
            raise ConnectionFault(Code.STREAM_CLOSED, f"{kind} for a closed stream", "5.1")

    # ------------------------------------------------------------------------ bodies

    def _receive_data(self, number: int, flags: int, payload: bytes, events: list[Event]) -> None:
        size = len(payload)
        if not number:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on stream 0", "6.1")
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(
                Code.FLOW_CONTROL_ERROR, "more than the connection's window", "6.9.1"
            )
        stream = self._streams.get(number)
        data = frames.unpadded(payload, flags)
        if stream is None:
            self._give_back(size)
            self._for_closed(number, "DATA")
            if size < SMALL:
                self._defence.idle_frame()
            return
        inflow = stream.inflow
        if inflow is None or stream.state is HALF_REMOTE:
            self._give_back(size)
            after(stream.state, Step.RECEIVE_DATA)
            return
        try:
            self._take_data(stream, inflow, size, data)
        except (StreamFault, Refusal):
            self._give_back(size)
            raise
        if size != len(data):
            self._give_back(size - len(data))
            self._credit_stream(stream, inflow, size - len(data))
        inflow.unread += len(data)
        self._deliver(stream, inflow, data, bool(flags & END_STREAM), events)

    def _take_data(self, stream: Stream, inflow: Inflow, size: int, data: bytes) -> None:
        """What a piece of a body has to keep to; raises StreamFault or Refusal."""
        stream.state = after(stream.state, Step.RECEIVE_DATA)
        inflow.window -= size
        if inflow.window < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "more than the stream's window", "6.9.1")
        inflow.received += len(data)
        self._received += len(data)
        inflow.continues = False
        if inflow.expected >= 0 and not inflow.discard:
            inflow.expected -= len(data)
            if inflow.expected < 0:
                raise StreamFault(
                    Code.PROTOCOL_ERROR, "more body than Content-Length says", "8.1.1"
                )
        if not stream.head.tunnel and not inflow.discard:
            check_body_size(inflow.received, self._limits)

    def _deliver(
        self, stream: Stream, inflow: Inflow, data: bytes, end: bool, events: list[Event]
    ) -> None:
        if data:
            self._defence.pieces += 1
        elif not end:
            self._defence.idle_frame()
        if inflow.discard:
            self._give_back(len(data))
            inflow.unread -= len(data)
        elif inflow.early is not None:
            if data:
                inflow.early.append(data)
        elif stream.head.tunnel:
            if data:
                events.append(Body(stream.id, data, False))
        elif data and not end:
            events.append(Body(stream.id, data, False))
        elif data:
            self._check_length(inflow)
            events.append(Body(stream.id, data, True))
            stream.state = after(stream.state, Step.RECEIVE_END)
            return
        if end:
            self._end_request(stream, events)

    def _check_length(self, inflow: Inflow) -> None:
        if inflow.expected > 0:
            raise StreamFault(Code.PROTOCOL_ERROR, "less body than Content-Length says", "8.1.1")

    def _end_request(self, stream: Stream, events: list[Event]) -> None:
        """END_STREAM without a piece of body."""
        inflow = stream.inflow
        if inflow is not None and not inflow.discard:
            self._check_length(inflow)
        stream.state = after(stream.state, Step.RECEIVE_END)
        if inflow is not None and inflow.discard:
            pass
        elif not stream.head.tunnel:
            events.append(Body(stream.id, b"", True))
        else:
            events.append(Reset(stream.id, "the client closed its side"))
        if stream.state is CLOSED:
            self._drop(stream)

    def take_body(self, stream: int, size: int) -> None:
        """The application took `size` bytes, or (0) waits for the first: 100 (RFC 9110 10.1.1)."""
        to = self._streams.get(stream)
        if to is None or to.inflow is None:
            return
        inflow = to.inflow
        if inflow.continues and not to.began:
            inflow.continues = False
            if to.held is None and to.state is OPEN:
                self._put_fields(stream, [(b":status", b"100")], 0)
        if not size:
            return
        inflow.unread -= size
        self._give_back(size)
        self._credit_stream(to, inflow, size)

    def _credit_stream(self, stream: Stream, inflow: Inflow, size: int) -> None:
        """So many bytes of a stream's window have been taken; told when it is worth a frame."""
        inflow.credit += size
        if inflow.credit * 2 >= inflow.size and stream.state is not HALF_REMOTE:
            self._open_window(stream.id, inflow)

    def _open_window(self, stream: int, inflow: Inflow) -> None:
        """By what was taken; and wider, if the application has nothing left to read."""
        opened = inflow.credit
        # half of what the connection has: one application that is behind must not stop them all
        most = max(WINDOW, self._terms.window) // 2
        if inflow.tunnel:
            most = min(most, TUNNEL_BOUND)
        if not inflow.unread and inflow.size < most:
            wider = min(inflow.size, most - inflow.size)
            inflow.size += wider
            opened += wider
            self._widen_connection(wider)
        self._put(frames.window_update(stream, opened))
        inflow.window += opened
        inflow.credit = 0

    def _widen_connection(self, wider: int) -> None:
        """As its streams' windows grow, so does the window that they share."""
        wider = min(wider, self._terms.window - self._receive_size)
        if wider > 0:
            self._receive_size += wider
            self._receive_window += wider
            self._put(frames.window_update(0, wider))

    def reads(self, stream: int) -> bool:
        """Whether the peer may send on a stream."""
        to = self._streams.get(stream)
        inflow = None if to is None else to.inflow
        return inflow is None or (inflow.window > 0 and self._receive_window > 0)

    # ------------------------------------------------------------------------ tunnels

    def open_tunnel(self, stream: int, protocol: bytes, headers: Iterable[Header] = ()) -> bytes:
        """200 (RFC 8441 5): another protocol goes on with the bytes returned, which have come."""
        answer = fields.make_answer(200, list(headers), self._defaults)
        to = self._streams.get(stream)
        if to is None or to.began:
            return b""
        answer.fields[:] = [pair for pair in answer.fields if pair[0] != b"content-length"]
        to.held = answer
        to.owed = UNMEASURED
        self._begin_answer(to, end=False)
        inflow = to.inflow
        if inflow is None or inflow.early is None:
            return b""
        early = b"".join(inflow.early)
        inflow.early = None
        return early

    # ------------------------------------------------------------------------ the connection's end

    def _see_end(self) -> None:
        if self._leaving and self.ending is Ending.NO:
            self.ending = Ending.STAGED
