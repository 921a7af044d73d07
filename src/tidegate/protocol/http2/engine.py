"""The HTTP/2 engine: one connection's frames (RFC 9113), behind the same seam as HTTP/1.

Strategy: `receive` walks over whole frames; `_FRAMES` says which method takes which type. A fault
is an exception inside: a `StreamFault` resets its stream, a `ConnectionFault` says GOAWAY, and both
become events. No more than a share of events comes out of one call: the rest stays as bytes, and
`stalled` says so. The connection's own frames are in control.py, requests and bodies in
receiving.py, answers in sending.py.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

from tidegate.protocol.engine import Ending, Limits, StreamTerms, Waiting
from tidegate.protocol.events import Event, Fault, RequestHead, Reset
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http2 import frames, settings
from tidegate.protocol.http2.control import Control, Life
from tidegate.protocol.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEAD,
    HEAD_SIZE,
    HEADERS,
    LARGEST_STREAM,
    MAX_FRAME,
    PREFACE,
    SETTINGS,
    WINDOW,
    Code,
    ConnectionFault,
    StreamFault,
)
from tidegate.protocol.http2.head import OF_HTTP1, Head
from tidegate.protocol.http2.receiving import SMALL
from tidegate.protocol.http2.states import CLOSED, HALF_LOCAL, HALF_REMOTE, OPEN, Step, after
from tidegate.protocol.http2.streams import Inflow, ReadFile
from tidegate.protocol.target import Refusal

SHARE = 32  # events of one call, unless the connection has less to give
REPORT = 1024  # bytes taken of a tunnel that are worth being told of
HUNGER_BOUND = 256 * 1024  # bytes of answers to a peer that sends and does not read
_PLAIN = END_HEADERS | END_STREAM


class Wait(enum.Enum):
    """What a stream may wait for, of its peer."""

    BODY = enum.auto()
    WINDOW = enum.auto()
    END = enum.auto()  # of a tunnel that we have ended
    REST = enum.auto()  # of a body that nobody reads


class Http2Engine(Control):
    """See `protocol.engine.Engine`."""

    __slots__ = (
        "_block_end",
        "_block_of",
        "_eof",
        "_pieces",
        "_rest",
        "share",
        "supports_early_hints",
        "supports_trailers",
        "tunnel_report",
        "tunnel_status",
    )  # fmt: skip

    def __init__(
        self, limits: Limits, terms: StreamTerms, defaults: Defaults, read_file: ReadFile
    ) -> None:
        super().__init__(limits, terms, defaults, read_file)
        self.supports_trailers = True
        self.supports_early_hints = True
        self.tunnel_status = 200
        self.share = SHARE
        # what all tunnels together keep to themselves is less than the half of the connection's
        # window at which it is opened again: otherwise it might never be
        self.tunnel_report = min(REPORT, self._receive_size // (2 * terms.streams)) or 1
        self._eof = False
        self._rest = b""  # of a frame that is not whole, or that has to wait
        self._pieces = b""  # a header block in pieces (6.10)
        self._block_of = 0  # whose it is; 0: there is none
        self._block_end = False  # its HEADERS had END_STREAM

    @property
    def waiting(self) -> Waiting:
        if self._block_of or (self._rest and not self._streams):
            return Waiting.HEAD
        if self._life is Life.PREFACE:
            return Waiting.HEAD
        return Waiting.NOTHING if self._streams else Waiting.IDLE

    @property
    def resting(self) -> bool:
        return (
            not self._streams
            and not self._rest
            and self._life is Life.OPEN
            and not self._eof
            and not self._block_of
        )

    @property
    def hungry(self) -> bool:
        return not self.stalled and self._out_size < HUNGER_BOUND

    def waits(self) -> Iterator[tuple[int, Wait, int]]:
        """The streams that wait for the peer: for what, and how many bytes have passed so far.

        A client may send its bodies one after the other, or have us send so: there the bytes of all
        streams count. Only a stream whose own window is shut is measured by itself.
        """
        for stream in self._streams.values():
            inflow, outflow = stream.inflow, stream.outflow
            if stream.state is HALF_LOCAL:
                yield stream.id, Wait.END if stream.head.tunnel else Wait.REST, 0
            elif outflow is not None and outflow.queued:
                if stream.window <= 0:
                    yield stream.id, Wait.WINDOW, stream.sent
                elif self._window <= 0:
                    yield stream.id, Wait.WINDOW, self._sent
            elif stream.state is OPEN and inflow is not None and self._awaits(inflow):
                yield stream.id, Wait.BODY, self._received

    def _awaits(self, inflow: Inflow) -> bool:
        """The peer may send of a body, and owes it."""
        allowed = inflow.window > 0 and self._receive_window > 0
        return allowed and not inflow.continues and not inflow.tunnel

    @property
    def spent(self) -> bool:
        """A budget is to be filled again by time."""
        return self._defence.spent

    def rest(self, seconds: float) -> None:
        """So much time has passed."""
        self._defence.rest(seconds)

    # ------------------------------------------------------------------------ frames

    def receive(self, data: bytes) -> list[Event]:
        """Bytes from the peer; with b"", go on with what is buffered (`stalled`)."""
        events: list[Event] = [*self._promised]
        self._promised.clear()
        self.stalled = False
        if self._life is Life.OVER:
            return events
        if self._rest:
            data = self._rest + data
        try:
            at = self._receive_preface(data) if self._life is Life.PREFACE else 0
            self._rest = b"" if at < 0 else self._receive_frames(data, at, events)
            if at < 0:
                self._rest = data
        except ConnectionFault as fault:
            self._fail(fault, events)
        if self._eof and not self.stalled:
            events.extend(self.receive_eof())
        return events

    def begin_upgraded(self, asked: RequestHead, payload: bytes) -> list[Event]:
        """Stream 1 is the request that asked for HTTP/2, with the client's settings beside it."""
        events: list[Event] = []
        head = Head()
        head.method, head.raw_path, head.query, head.path = (
            asked.method, asked.raw_path, asked.query, asked.path,
        )  # fmt: skip
        head.is_head = head.method == "HEAD"
        head.scheme = b"http"
        head.headers = tuple(
            sorted(
                (pair for pair in asked.headers if pair[0] not in OF_HTTP1),
                key=lambda pair: pair[0] != b"host",  # as where it is an :authority, it comes first
            )
        )
        try:
            self._apply(settings.read(payload))
        except ConnectionFault as fault:
            self._fail(fault, events)
        else:
            self._window = 0  # what came with the 101 would have to fit a client's first buffer
            self._begin(1, head, True, events)
        return events

    def _receive_preface(self, data: bytes) -> int:
        """Where the frames begin; -1 while it is not known (3.4)."""
        if data.startswith(PREFACE):
            self._life = Life.GREETED
            self._window = WINDOW
            return len(PREFACE)
        if PREFACE.startswith(data):
            return -1
        raise ConnectionFault(Code.PROTOCOL_ERROR, "not the preface of HTTP/2", "3.4")

    def _receive_frames(self, data: bytes, at: int, events: list[Event]) -> bytes:
        """Every whole frame from an offset on; returns what is left."""
        end = len(data)
        unpack = HEAD.unpack_from
        self.stalled = self._tired = False
        while end - at >= HEAD_SIZE:
            high, low, kind, flags, number = unpack(data, at)
            size = high << 16 | low
            if size > MAX_FRAME:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes", "4.2")
            begin = at + HEAD_SIZE
            if begin + size > end:
                break
            if len(events) >= self.share or self._tired:
                self.stalled = True
                break
            at = begin + size
            number &= LARGEST_STREAM
            try:
                if kind == HEADERS and flags == _PLAIN and self._life >= Life.OPEN and number:
                    if self._block_of:
                        self._refuse_interruption()
                    self._receive_block(number, True, data[begin:at], events)
                else:
                    self._receive_frame(kind, flags, number, data[begin:at], events)
            except StreamFault as fault:
                self._fail_stream(number, fault, events)
        return data[at:]

    def _receive_frame(
        self, kind: int, flags: int, number: int, payload: bytes, events: list[Event]
    ) -> None:
        if self._block_of and kind != frames.CONTINUATION:
            self._refuse_interruption()
        if self._life is Life.GREETED:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS", "3.4")
            self._life = Life.OPEN
            if self._stopping:
                self.stop()
        take = _FRAMES.get(kind)
        if take is None:
            self._defence.idle_frame()  # 4.1: unknown types are ignored
            return
        try:
            take(self, number, flags, payload, events)
        except Refusal as refusal:
            self._answer_refused(self._streams[number], refusal, events)

    def _refuse_interruption(self) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block is interrupted", "4.3")

    def _receive_headers(
        self, number: int, flags: int, payload: bytes, events: list[Event]
    ) -> None:
        if not number:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "HEADERS on stream 0", "6.2")
        block = frames.unpadded(payload, flags)
        if flags & HAS_PRIORITY:
            if len(block) < 5:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "no room for a priority", "6.2")
            block = block[5:]  # 5.3.2: deprecated
        end = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._receive_block(number, end, block, events)
        else:
            self._block_of, self._block_end, self._pieces = number, end, block
            if not block:
                self._defence.idle_frame()

    def _receive_continuation(
        self, number: int, flags: int, payload: bytes, events: list[Event]
    ) -> None:
        if not number or number != self._block_of:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION of nothing", "6.10")
        block = self._pieces + payload
        if len(block) > self._limits.header_size:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                f"a header block longer than {self._limits.header_size} bytes "
                "(--limit-header-size)",
                "10.5.1",
            )
        if flags & END_HEADERS:
            self._block_of, self._pieces = 0, b""
            self._receive_block(number, self._block_end, block, events)
        else:
            self._pieces = block
            if len(payload) < SMALL:
                self._defence.idle_frame()

    # ------------------------------------------------------------------------ faults and ends

    def _fail_stream(self, number: int, fault: StreamFault, events: list[Event]) -> None:
        """RST_STREAM (5.4.2); it costs, or a peer could have us undo work for ever."""
        events.append(Fault(number, fault.code, fault.reason, fault.section, answered=False))
        stream = self._streams.get(number)
        if stream is not None:
            self._reset(stream, fault.code)
            events.append(Reset(number, fault.reason, final=True))
        else:
            self._remember_reset(number)
            self._put(frames.rst_stream(number, fault.code))
        self._defence.reset()

    def _fail(self, fault: ConnectionFault, events: list[Event]) -> None:
        """GOAWAY (5.4.1): nothing more is read, and nothing of what is open will be finished."""
        self._life = Life.OVER
        self._rest = self._pieces = b""
        self._promised.clear()
        self._block_of = 0
        self.stalled = False
        debug = f"{fault.reason} ({fault.section})".encode()
        self._put(frames.goaway(min(self._last, self._final), fault.code, debug))
        for stream in [*self._streams.values()]:
            self._drop(stream)
        self.ending = Ending.STAGED
        events.append(Fault(0, fault.code, fault.reason, fault.section, answered=True))

    def receive_eof(self) -> list[Event]:
        """The peer sends no more; what it asked for in full is still answered (half-close)."""
        self._eof = True
        if self.stalled:
            return []
        events: list[Event] = []
        for stream in [*self._streams.values()]:
            cut = stream.state is OPEN and not stream.head.tunnel
            events.append(Reset(stream.id, "the client closed its side", final=cut))
            if cut:
                self._drop(stream)
            elif stream.head.tunnel and stream.state is not HALF_REMOTE:
                stream.state = after(stream.state, Step.RECEIVE_END)
                if stream.state is CLOSED:
                    self._drop(stream)
        self._leaving = True
        self._life = Life.OVER
        if not self._streams:
            self.ending = Ending.CLOSE
        return events

    def receive_timeout(self) -> list[Event]:
        """What the peer owes the connection did not come in time."""
        events: list[Event] = []
        if self._life is Life.OVER:
            return events
        if self.unacknowledged and not self._block_of and not self._rest:
            reason = "SETTINGS were not acknowledged in time"
            self._fail(ConnectionFault(Code.SETTINGS_TIMEOUT, reason, "6.5.3"), events)
        else:
            reason = "the request's head came too slowly"
            self._fail(ConnectionFault(Code.ENHANCE_YOUR_CALM, reason, "RFC 9110 15.5.9"), events)
        return events


_Take = Callable[[Http2Engine, int, int, bytes, list[Event]], None]
_FRAMES: dict[int, _Take] = {
    frames.DATA: Http2Engine._receive_data,
    frames.HEADERS: Http2Engine._receive_headers,
    frames.PRIORITY: Http2Engine._receive_priority,
    frames.RST_STREAM: Http2Engine._receive_rst_stream,
    frames.SETTINGS: Http2Engine._receive_settings,
    frames.PUSH_PROMISE: Http2Engine._receive_push_promise,
    frames.PING: Http2Engine._receive_ping,
    frames.GOAWAY: Http2Engine._receive_goaway,
    frames.WINDOW_UPDATE: Http2Engine._receive_window_update,
    frames.CONTINUATION: Http2Engine._receive_continuation,
    frames.PRIORITY_UPDATE: Http2Engine._receive_priority_update,
}
