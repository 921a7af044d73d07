"""Drives an HTTP/2 engine without a socket, and files what it says under its streams.

The driver does what a connection does: it hands events to an application, goes on while the engine
is `stalled`, and takes all of the output. What comes out is judged on its way by `hyperframe` and
`hpack`, and by the rules for a sender that they leave out: blocks in one piece, states, windows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import hpack
from hyperframe import frame as hf
from tests.support.http2_frames import PREFACE, WINDOW, Code, Fields, settings

from tidegate.protocol.engine import Ending, FileSlice, Limits, StreamTerms
from tidegate.protocol.events import Body, Event, Fault, Request, Reset
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http2.engine import Http2Engine
from tidegate.protocol.http2.streams import ReadFile

TERMS = StreamTerms()
TURNS = 100_000  # of one `feed`: more is an engine that never comes to an end


@dataclass(slots=True)
class Answer:
    """All that came on a stream so far."""

    window: int
    status: int | None = None
    headers: Fields = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields | None = None
    informational: list[int] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    widened: int = 0  # by WINDOW_UPDATE, for us

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def told(self) -> tuple[Any, ...]:
        """What the client has got, as plain data."""
        return (
            self.status, tuple(self.headers), bytes(self.body), self.trailers, self.ended, self.reset,
        )  # fmt: skip


@dataclass(slots=True)
class Asked:
    """A request as an application would have got it."""

    stream: int
    head: Any
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    reset: bool = False


App = Callable[["Drive", Asked], None]


def answer(drive: Drive, asked: Asked) -> None:
    """Two bytes."""
    drive.respond(asked.stream, b"ok")


def silent(drive: Drive, asked: Asked) -> None:
    """An application that takes its time."""


def no_file(piece: FileSlice, size: int) -> bytes:
    raise AssertionError("a file is read where none is sent")


class Drive:
    """One connection: `feed` it, then read what it has recorded.

    `whole` is called for each request that is complete, `early` as soon as its head is. `reads`:
    whether the application takes bodies as they come. `hello`: the client's preface comes first.
    """

    def __init__(
        self,
        *pairs: tuple[int, int],
        limits: Limits = Limits(),  # noqa: B008
        terms: StreamTerms = TERMS,
        whole: App = answer,
        early: App = silent,
        hello: bool = True,
        reads: bool = True,
        read_file: ReadFile = no_file,
        defaults: Defaults | None = None,
    ) -> None:
        self.engine = Http2Engine(limits, terms, defaults or Defaults(), read_file)
        self.reads = reads
        self.asked: dict[int, Asked] = {}
        self.events: list[tuple[Any, ...]] = []
        self.faults: list[Fault] = []
        self.frames: list[hf.Frame] = []
        self.output = bytearray()
        self.answers: dict[int, Answer] = {}
        self.promises: dict[int, tuple[int, Fields]] = {}
        self.goaways: list[tuple[int, int]] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.acks = 0
        self.widened = 0
        self.window = WINDOW  # what the engine may send us
        self._initial = WINDOW
        self._most = 16384
        self._whole, self._early = whole, early
        self._decoder = hpack.Decoder(1 << 24)
        self._unread = b""
        self._block: tuple[hf.Frame, bytes] | None = None
        self._ours: dict[int, int] = {}  # our settings
        if hello:
            self.greet(*pairs)
            self.feed(settings(ack=True))

    # ------------------------------------------------------------------------ input

    def greet(self, *pairs: tuple[int, int]) -> Drive:
        self.allow(*pairs)
        return self.feed(PREFACE + settings(*pairs))

    def allow(self, *pairs: tuple[int, int]) -> None:
        """What our SETTINGS let the engine do, once it has read them."""
        for name, value in pairs:
            if name == 4:
                for one in self.answers.values():
                    one.window += value - self._initial
                self._initial = value
            elif name == 5:
                self._most = max(self._most, value)
            elif name == 1:
                self._decoder.max_allowed_table_size = max(
                    self._decoder.max_allowed_table_size, value
                )

    def open(self, stream: int, increment: int) -> Drive:
        """WINDOW_UPDATE."""
        if stream and stream in self.answers:
            self.answers[stream].window += increment
        elif not stream:
            self.window += increment
        return self.feed(hf.WindowUpdateFrame(stream, increment).serialize())

    def feed(self, *pieces: bytes) -> Drive:
        for piece in pieces:
            self.handle(self.engine.receive(piece))
        return self

    def eof(self) -> Drive:
        self.handle(self.engine.receive_eof())
        return self

    def handle(self, events: Iterable[Event] = ()) -> Drive:
        """Events to the application, and what it says to us; until there is no more of either."""
        for _ in range(TURNS):
            for event in events:
                self._on_event(event)
            self.take()
            if not self.engine.stalled:
                return self
            events = self.engine.receive(b"")
        raise AssertionError("it is stalled for ever")

    def take(self) -> Drive:
        for _ in range(TURNS):
            output = self.engine.take_output()
            self._read(b"".join(bytes(part) for part in output))  # type: ignore[arg-type]
            if not self.engine.more:
                return self
        raise AssertionError("it has more for ever")

    # ------------------------------------------------------------------------ the application

    def respond(
        self, stream: int, body: bytes = b"", *fields: tuple[bytes, bytes], status: int = 200
    ) -> None:
        self.engine.send_head(stream, status, fields)
        self.engine.send_body(stream, body, True)

    def _on_event(self, event: Event) -> None:
        assert self.engine.ending is not Ending.NO or not any(
            fault.stream == 0 for fault in self.faults
        ), "the connection is at fault, and goes on"
        if isinstance(event, Request):
            head = event.head
            said = (head.method, head.raw_path, head.query, head.headers, head.upgrade)
            self.events.append(("request", event.stream, said, event.end))
            assert event.stream not in self.asked, "a stream begins twice"
            asked = self.asked[event.stream] = Asked(event.stream, head, whole=event.end)
            self._early(self, asked)
            if event.end:
                self._whole(self, asked)
        elif isinstance(event, Body):
            self.events.append(("body", event.stream, event.data, event.end))
            self._on_body(event)
        elif isinstance(event, Reset):
            self.events.append(("reset", event.stream, event.reason, event.final))
            if event.stream in self.asked:
                self.asked[event.stream].reset = event.final
        elif isinstance(event, Fault):
            self.events.append(("fault", event.stream, event.status, event.reason, event.section))
            self.faults.append(event)

    def _on_body(self, event: Body) -> None:
        asked = self.asked.get(event.stream)
        if asked is None:
            refused = [fault.stream for fault in self.faults]
            assert event.stream in refused, "a body without a request"
            return
        assert not asked.whole or asked.head.tunnel, "a body behind its end"
        asked.body += event.data
        if self.reads:
            self.engine.take_body(event.stream, len(event.data))
        if event.end:
            asked.whole = True
            self._whole(self, asked)

    # ------------------------------------------------------------------------ output

    def _read(self, data: bytes) -> None:
        self.output += data
        data = self._unread + data
        while len(data) >= 9:
            one, size = hf.Frame.parse_frame_header(memoryview(data[:9]))
            assert size <= self._most, f"a frame of {size} bytes"
            if len(data) < 9 + size:
                break
            one.parse_body(memoryview(data[9 : 9 + size]))
            data = data[9 + size :]
            self.frames.append(one)
            self._file(one)
        self._unread = data
        assert not data, "output that is not whole frames"

    def _file(self, one: hf.Frame) -> None:
        if self._block is not None:
            first, block = self._block
            assert isinstance(one, hf.ContinuationFrame) and one.stream_id == first.stream_id
            self._end_block(first, block + one.data, "END_HEADERS" in one.flags)
        elif isinstance(one, hf.HeadersFrame | hf.PushPromiseFrame):
            self._end_block(one, one.data, "END_HEADERS" in one.flags)
        elif isinstance(one, hf.DataFrame):
            self._file_data(one)
        elif isinstance(one, hf.RstStreamFrame):
            answer = self.answers.setdefault(one.stream_id, Answer(self._initial))
            assert answer.reset is None, "reset twice"
            answer.reset = one.error_code
        elif isinstance(one, hf.WindowUpdateFrame):
            if one.stream_id:
                self._answer(one.stream_id).widened += one.window_increment
            else:
                self.widened += one.window_increment
        elif isinstance(one, hf.SettingsFrame):
            self.acks += "ACK" in one.flags
        elif isinstance(one, hf.PingFrame):
            (self.pongs if "ACK" in one.flags else self.pings).append(one.opaque_data)
        else:
            assert isinstance(one, hf.GoAwayFrame), one
            self.goaways.append((one.last_stream_id, one.error_code))

    def _answer(self, stream: int) -> Answer:
        answer = self.answers.setdefault(stream, Answer(self._initial))
        assert not answer.over, f"a frame on stream {stream} behind its end"
        return answer

    def _file_data(self, one: hf.DataFrame) -> None:
        answer = self._answer(one.stream_id)
        assert answer.status is not None and answer.trailers is None, "DATA out of its place"
        answer.window -= one.flow_controlled_length
        self.window -= one.flow_controlled_length
        assert not one.flow_controlled_length or answer.window >= 0 <= self.window, "a window"
        answer.body += one.data
        answer.ended = "END_STREAM" in one.flags

    def _end_block(self, first: hf.Frame, block: bytes, done: bool) -> None:
        self._block = None if done else (first, block)
        if not done:
            return
        found: Fields = [(bytes(n), bytes(v)) for n, v in self._decoder.decode(block, raw=True)]
        if isinstance(first, hf.PushPromiseFrame):
            assert not self._answer(first.stream_id).over
            self.promises[first.promised_stream_id] = first.stream_id, found
            self.answers[first.promised_stream_id] = Answer(self._initial)
            return
        answer = self._answer(first.stream_id)
        if answer.status is not None:
            assert "END_STREAM" in first.flags, "trailers that end nothing"
            assert not any(name.startswith(b":") for name, _ in found)
            answer.trailers = found
        else:
            assert found[0][0] == b":status"
            status = int(found[0][1])
            if status < 200:
                assert "END_STREAM" not in first.flags
                answer.informational.append(status)
                return
            answer.status, answer.headers = status, found[1:]
        answer.ended = "END_STREAM" in first.flags

    # ------------------------------------------------------------------------ what is left

    @property
    def code(self) -> int | None:
        """Of the connection's end, None while there is none."""
        return self.goaways[-1][1] if self.goaways else None

    def credit(self) -> int:
        """What a client may still send on the connection, as the engine sees it, and we do."""
        engine = self.engine
        assert engine._receive_window >= 0
        return engine._receive_window + engine._credit

    def give_up_rests(self) -> Drive:
        """What the patience of a connection does with bodies that nobody reads, after a while."""
        for number in [*self.engine.lingering]:
            self.engine.cancel(number, Code.NO_ERROR)
        return self.take()

    def assert_empty(self) -> None:
        """Nothing of any stream is left in the engine's tables, and all credit is given back."""
        engine = self.engine
        assert not engine._streams
        assert engine._pushes == 0
        assert engine._schedule.count == 0
        assert not engine._schedule._queues
        assert not engine._out
        assert engine._out_size == 0
        assert not engine._promised
        assert self.credit() == engine._receive_size, "the connection's window has a leak"
        assert engine._window == self.window

    def tables(self) -> dict[str, int]:
        """How much is in whatever grows with the peer's doing."""
        engine = self.engine
        return {
            "streams": len(engine._streams),
            "blocks": len(engine._blocks),
            "heads": len(engine._heads),
            "resets": len(engine._reset_by_us),
            "priorities": len(engine._priorities),
            "rest": len(engine._rest),
            "pieces": len(engine._pieces),
            "promised": len(engine._promised),
            "entries": len(engine._encoder._entries),
            "table": len(engine._decoder._table),
        }


def raw_frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of whole frames."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        kind, flags, stream = struct.unpack_from("!BBI", data, 3)
        found.append((kind, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found
