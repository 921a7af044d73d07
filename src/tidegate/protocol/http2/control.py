"""The connection's own frames: settings, pings, windows, priorities, and how it is taken leave of.

Strategy: each method takes one type of frame and knows its section; engine.py has the table.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from tidegate.protocol.engine import Limits, StreamTerms
from tidegate.protocol.events import Event, Reset
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http2 import frames, settings
from tidegate.protocol.http2.frames import (
    ACK,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    PING,
    SETTINGS,
    WINDOW,
    Code,
    ConnectionFault,
    StreamFault,
)
from tidegate.protocol.http2.priority import DEFAULT, read_priority
from tidegate.protocol.http2.pushing import Pushing
from tidegate.protocol.http2.receiving import SMALL
from tidegate.protocol.http2.states import Step, after
from tidegate.protocol.http2.streams import ReadFile, Stream

FULL_SETTINGS = 384  # bytes of one frame that count as one: nine settings have a name
_LEAVING = b"tidegate"  # in the PING behind the first GOAWAY


class Life(enum.IntEnum):
    """How far the connection is."""

    PREFACE = 0  # the client's has not come whole (3.4)
    GREETED = 1  # its first frame has to be SETTINGS
    OPEN = 2
    WARNED = 3  # the first GOAWAY is out (6.8)
    LEFT = 4  # the final one is: what is open is finished
    OVER = 5  # nothing more is read


class Control(Pushing):
    """The last part (engine.py) cuts the bytes into frames."""

    __slots__ = ("_final", "_life", "_stopping", "unacknowledged")

    def __init__(
        self, limits: Limits, terms: StreamTerms, defaults: Defaults, read_file: ReadFile
    ) -> None:
        super().__init__(limits, terms, defaults, read_file)
        self.unacknowledged = True  # our SETTINGS
        self._life = Life.PREFACE
        self._stopping = False  # as soon as it has begun
        self._final = LARGEST_STREAM  # what the last GOAWAY has named: it never names a higher one
        self._put(settings.announced(terms, limits.header_size))
        if self._receive_size > WINDOW:
            self._put(frames.window_update(0, self._receive_size - WINDOW))
            self._receive_window = self._receive_size

    def _receive_priority(
        self, number: int, flags: int, payload: bytes, events: list[Event]
    ) -> None:
        """5.3.2: deprecated; what it says is ignored."""
        if not number:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY on stream 0", "6.3")
        if len(payload) != 5:
            fault = StreamFault if number in self._streams else ConnectionFault
            raise fault(Code.FRAME_SIZE_ERROR, "PRIORITY is 5 bytes long", "6.3")
        self._defence.idle_frame()

    def _receive_rst_stream(
        self, number: int, flags: int, payload: bytes, events: list[Event]
    ) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "RST_STREAM is 4 bytes long", "6.4")
        stream = self._streams.get(number)
        if stream is None:
            self._check_begun(number, "RST_STREAM")
            self._defence.idle_frame()
            return
        stream.state = after(stream.state, Step.RECEIVE_RESET)
        self._drop(stream)
        code = int.from_bytes(payload, "big")
        events.append(Reset(number, f"the client reset it ({name_of_code(code)})", final=True))
        self._defence.reset()

    def _check_begun(self, number: int, kind: str) -> None:
        """5.1: a stream that is idle takes only HEADERS and PRIORITY."""
        ours = not number & 1
        if not number or number > (self._last_push if ours else self._last):
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, f"{kind} for a stream that has not begun", "5.1"
            )

    def _receive_settings(
        self, number: int, flags: int, payload: bytes, events: list[Event]
    ) -> None:
        if number:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS on a stream", "6.5")
        if flags & ACK:
            if payload:
                raise ConnectionFault(
                    Code.FRAME_SIZE_ERROR, "an acknowledgement with settings", "6.5"
                )
            if not self.unacknowledged:
                self._defence.idle_frame()
            self.unacknowledged = False
            return
        self._defence.idle_frame(1 + len(payload) // FULL_SETTINGS)
        self._apply(settings.read(payload))
        self._put(frames.frame(SETTINGS, ACK, 0, b""))

    def _apply(self, told: Iterable[tuple[int, int]]) -> None:
        """What was said several times in one frame holds as it was said last (6.5)."""
        values: dict[int, int] = {}
        table = self._peer.table
        for name, value in told:
            values[name] = value
            if name == settings.HEADER_TABLE_SIZE:
                table = min(table, value)
        peer = self._peer
        peer.push = bool(values.get(settings.ENABLE_PUSH, peer.push))
        peer.pushes = values.get(settings.MAX_CONCURRENT_STREAMS, peer.pushes)
        peer.frame = values.get(settings.MAX_FRAME_SIZE, peer.frame)
        if settings.HEADER_TABLE_SIZE in values:
            peer.table = values[settings.HEADER_TABLE_SIZE]
            self._encoder.resize(table)  # RFC 7541 4.2: the smallest on the way counts
            self._encoder.resize(peer.table)
            self._blocks.clear()
        if settings.INITIAL_WINDOW_SIZE in values:
            window = values[settings.INITIAL_WINDOW_SIZE]
            change, peer.window = window - peer.window, window
            for stream in [*self._streams.values()]:
                self._widen(stream, change, ConnectionFault)

    def _widen(
        self, stream: Stream, change: int, fault: type[ConnectionFault | StreamFault]
    ) -> None:
        """A stream's window moves, below zero even (6.9.2)."""
        stream.window += change
        if stream.window > LARGEST_WINDOW:
            raise fault(Code.FLOW_CONTROL_ERROR, "a window beyond 2^31-1", "6.9.1")
        if stream.window <= 0:
            self._unschedule(stream)
        elif stream.outflow is not None:
            self._see_schedule(stream, stream.outflow)

    def _receive_push_promise(
        self, number: int, flags: int, payload: bytes, events: list[Event]
    ) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "PUSH_PROMISE of a client", "8.4")

    def _receive_ping(self, number: int, flags: int, payload: bytes, events: list[Event]) -> None:
        if number:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PING on a stream", "6.7")
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING is 8 bytes long", "6.7")
        if not flags & ACK:
            self._put(frames.frame(PING, ACK, 0, payload))
        elif payload == _LEAVING and self._life is Life.WARNED:
            self.stop()
            return
        self._defence.idle_frame()

    def _receive_goaway(self, number: int, flags: int, payload: bytes, events: list[Event]) -> None:
        """The client takes no more pushes; what it has asked for it still wants (6.8)."""
        if number:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "GOAWAY on a stream", "6.8")
        if len(payload) < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "GOAWAY is 8 bytes or more", "6.8")
        self._defence.idle_frame()
        self._peer.push = False

    def _receive_window_update(
        self, number: int, flags: int, payload: bytes, events: list[Event]
    ) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE is 4 bytes long", "6.9")
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        stream = self._streams.get(number)
        if number and stream is None:
            self._check_begun(number, "WINDOW_UPDATE")
            self._defence.idle_frame()
            return
        if increment < SMALL:
            self._defence.idle_frame()
        fault = StreamFault if number else ConnectionFault
        if not increment:
            raise fault(Code.PROTOCOL_ERROR, "a window that opens by nothing", "6.9")
        if stream is not None:
            self._widen(stream, increment, StreamFault)
            return
        self._window += increment
        if self._window > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window beyond 2^31-1", "6.9.1")

    def _receive_priority_update(
        self, number: int, flags: int, payload: bytes, events: list[Event]
    ) -> None:
        """RFC 9218 7.1: it says all of a stream's priority anew, also of one that is to come."""
        if number:
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream", "RFC 9218 7.1"
            )
        if len(payload) < 4:
            raise ConnectionFault(
                Code.FRAME_SIZE_ERROR, "PRIORITY_UPDATE is 4 bytes or more", "RFC 9218 7.1"
            )
        of = int.from_bytes(payload[:4], "big") & LARGEST_STREAM
        if not of or (not of & 1 and of > self._last_push):
            raise ConnectionFault(
                Code.PROTOCOL_ERROR, "a priority for a stream that is not a request", "RFC 9218 7.1"
            )
        self._defence.idle_frame()
        priority = read_priority(payload[4:], DEFAULT)
        stream = self._streams.get(of)
        if stream is not None:
            outflow = stream.outflow
            self._unschedule(stream)
            stream.priority = priority
            if outflow is not None:
                self._see_schedule(stream, outflow)
        elif of & 1 and of > self._last:
            self._priorities[of] = priority
            if len(self._priorities) + len(self._streams) > self._terms.streams:
                raise ConnectionFault(
                    Code.PROTOCOL_ERROR, "priorities for more streams than may be", "RFC 9218 7.1"
                )

    def retire(self) -> None:
        """Stop; who has only just come learns of it when it has begun."""
        if self._life < Life.OPEN:
            self._stopping = True
        elif self._life is Life.OPEN:
            self.stop()

    def stop(self) -> None:
        """A GOAWAY that names no stream, then, after a round trip or if asked again, the last."""
        if self._life < Life.OPEN and self._streams:
            self._stopping = True  # a request that asked for HTTP/2 goes on, and the preface comes
        elif self._life is Life.OPEN:
            self._life = Life.WARNED
            self._put(frames.goaway(LARGEST_STREAM, Code.NO_ERROR))
            self._put(frames.frame(PING, 0, 0, _LEAVING))
        elif self._life < Life.LEFT:
            self._life = Life.LEFT
            self._leaving = True
            self._final = self._last
            self._put(frames.goaway(self._last, Code.NO_ERROR))
            if not self._streams:
                self._see_end()

    @property
    def warned(self) -> bool:
        """The first GOAWAY is out, the final one is not."""
        return self._life is Life.WARNED


def name_of_code(code: int) -> str:
    """An error code as a log says it."""
    return Code(code).name if code <= max(Code) else f"0x{code:x}"
