"""A raw HTTP/2 client that can send nonsense, and a strict judge of all a server sends back.

The client files every frame that comes under its stream and holds it to the rules for a sender:
sizes, flags, the state of the stream, the windows it was given, the form of a response. Answers are
decoded by `hpack`. Every wait has a deadline.

`reaction` is how most tests look: a PING is the barrier behind which an answer to the fault cannot
hide. Nothing sleeps.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import hpack
from tests.support.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FLAGS,
    GOAWAY,
    HEADERS,
    IGNORED,
    INITIAL_WINDOW,
    LARGEST,
    MAX_FRAME,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    TABLE_SIZE,
    WINDOW,
    WINDOW_UPDATE,
    Code,
    Fields,
    Frame,
    Reaction,
    get,
    ping,
    settings,
    stream_error,
)
from tests.support.unread import unread_by_peer

HOP_BY_HOP = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}


@dataclass(slots=True)
class Answer:
    """All that came on a stream so far."""

    window: int
    room: int
    status: int | None = None
    headers: Fields = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields | None = None
    informational: list[tuple[int, Fields]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    cancelled: bool = False  # by us

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Ended(AssertionError):
    """The server ended the connection where more was expected."""


class Http2Client:
    """With `hello`, both prefaces are exchanged and acknowledged before the test begins."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        *pairs: tuple[int, int],
        hello: bool = True,
        timeout: float = 30.0,
    ) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = hpack.Decoder(1 << 24)
        self.streams: dict[int, Answer] = {}
        self.settings: dict[int, int] = {}  # the server's
        self.acks = 0  # of our SETTINGS
        self.pongs: list[bytes] = []
        self.held: list[bytes] | None = None  # the server's pings, where a test answers them late
        self.goaways: list[tuple[int, int]] = []
        self.frames = 0
        self.highest = -1
        self.window = self.room = WINDOW  # the server may send so much, and we
        self._initial, self._max_frame = WINDOW, 16384
        self._unread = bytearray()
        self._sent = bytearray()
        self._offered: list[list[tuple[int, int]]] = []  # our SETTINGS, not yet acknowledged
        self._block: tuple[int, int, bytes] | None = None
        self._greeted = False
        if hello:
            self.send(PREFACE + settings(*pairs))
            self.pump(lambda: self._greeted and self.acks == 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # Sending.

    def send(self, raw: bytes) -> None:
        """A server that has ended the connection need not take it all."""
        self._note(raw)
        self.push(raw)

    def push(self, raw: bytes) -> None:
        """Send what the judge need not know of: nothing that opens streams or windows."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(raw)

    def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Each piece alone: the next leaves once the server has read the last (on Linux)."""
        for piece in pieces:
            self.send(piece)
            deadline = time.monotonic() + (self.socket.gettimeout() or 30)
            with contextlib.suppress(OSError):  # it has ended the connection: to be read later
                while unread_by_peer(self.socket):
                    assert time.monotonic() < deadline, "the server does not read what was sent"
                    time.sleep(0)  # hands the interpreter to a server in another thread

    def next_stream(self) -> int:
        return self.highest + 2

    def _note(self, raw: bytes) -> None:
        self._sent += raw
        if self._sent[:24] == PREFACE:
            del self._sent[:24]
        while len(self._sent) >= 9:
            size = int.from_bytes(self._sent[:3], "big")
            if len(self._sent) < 9 + size:
                return
            payload = bytes(self._sent[9 : 9 + size])
            kind, flags, stream = struct.unpack_from("!BBI", self._sent, 3)
            del self._sent[: 9 + size]
            self._note_frame(Frame(kind, flags, stream & LARGEST, payload))

    def _note_frame(self, one: Frame) -> None:
        known = self.streams.get(one.stream)
        if one.kind == HEADERS and known is None and one.stream:
            room = self.settings.get(INITIAL_WINDOW, WINDOW)
            self.streams[one.stream] = Answer(self._initial, room)
            self.highest = max(self.highest, one.stream)
        elif one.kind == DATA:
            self.room -= len(one.payload)
            if known is not None:
                known.room -= len(one.payload)
        elif one.kind == RST_STREAM and known is not None:
            known.cancelled = True
        elif one.kind == SETTINGS and not one.flags & ACK and not len(one.payload) % 6:
            self._offered.append(list(struct.iter_unpack("!HI", one.payload)))
        elif one.kind == WINDOW_UPDATE and len(one.payload) == 4:
            increment = int.from_bytes(one.payload, "big") & LARGEST
            if not one.stream:
                self.window += increment
            elif known is not None:
                known.window += increment

    # Receiving.

    def pump(self, until: Any) -> None:
        """Read frames until the condition holds."""
        while not until():
            self.file(self.read_frame())

    def read_frame(self) -> Frame:
        head = self._exactly(9)
        kind, flags, stream = struct.unpack_from("!BBI", head, 3)
        assert stream <= LARGEST, "4.1: the reserved bit is set"
        return Frame(kind, flags, stream, self._exactly(int.from_bytes(head[:3], "big")))

    def _exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                raise AssertionError(f"the server is silent: {self}") from None
            except ConnectionResetError:
                raise AssertionError(f"a reset, where an end was due: {self}") from None
            if not more:
                assert not self._unread, f"ended within a frame: {bytes(self._unread)!r}"
                raise Ended(f"the server ended the connection: {self}")
            self._unread += more
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    def __str__(self) -> str:
        return f"streams {self.streams}, goaway {self.goaways}, pongs {self.pongs[-3:]}"

    def file(self, one: Frame) -> None:
        """Judge a frame of the server's and keep what it says."""
        self.frames += 1
        assert self.frames > 1 or (one.kind == SETTINGS and not one.flags), f"3.4: first came {one}"
        assert len(one.payload) <= self._max_frame, f"4.2: too long, {one}"
        if one.kind <= CONTINUATION:
            assert not one.flags & ~FLAGS.get(one.kind, 0), f"4.1: a flag without meaning, {one}"
        assert one.kind not in (PUSH_PROMISE, PRIORITY_UPDATE), f"from a server, {one}"
        open_block = self._block is not None
        assert open_block == (one.kind == CONTINUATION), f"4.3: interrupted or not begun, {one}"
        if one.kind in (SETTINGS, PING, GOAWAY):
            assert one.stream == 0, f"6.5, 6.7, 6.8: never on a stream, {one}"
        elif one.kind != WINDOW_UPDATE or one.stream:
            assert one.stream in self.streams, f"5.1: on an idle stream, {one}"
        handler = _HANDLERS.get(one.kind)
        if handler is not None:
            handler(self, one)

    def _on_settings(self, one: Frame) -> None:
        if one.flags & ACK:
            assert not one.payload
            assert self._offered, "6.5.3: more acknowledgements than SETTINGS"
            self.acks += 1
            for key, value in self._offered.pop(0):
                self._apply(key, value)
            return
        self._greeted = True
        before = self.settings.get(INITIAL_WINDOW, WINDOW)
        for key, value in struct.iter_unpack("!HI", one.payload):
            assert key != ENABLE_PUSH or value == 0, "6.5.2: a server never enables push"
            assert key != INITIAL_WINDOW or value <= LARGEST
            assert key != MAX_FRAME or 16384 <= value < 1 << 24
            self.settings[key] = value
        for answer in self.streams.values():
            answer.room += self.settings.get(INITIAL_WINDOW, WINDOW) - before
        self.push(settings(ack=True))

    def _apply(self, key: int, value: int) -> None:
        if key == INITIAL_WINDOW:
            for answer in self.streams.values():
                answer.window += value - self._initial
            self._initial = value
        elif key == MAX_FRAME:
            self._max_frame = value
        elif key == TABLE_SIZE:
            self.decoder.max_allowed_table_size = value

    def _on_ping(self, one: Frame) -> None:
        assert len(one.payload) == 8
        if one.flags & ACK:
            self.pongs.append(one.payload)
        elif self.held is not None:
            self.held.append(one.payload)
        else:
            self.push(ping(one.payload, ack=True))

    def release(self) -> None:
        """Answer the server's pings that were held."""
        for payload in self.held or ():
            self.push(ping(payload, ack=True))
        self.held = None

    def _on_goaway(self, one: Frame) -> None:
        last, code = struct.unpack_from("!II", one.payload)
        if self.goaways:
            assert last <= self.goaways[-1][0], "6.8: the last stream must not increase"
        self.goaways.append((last, code))

    def _on_window_update(self, one: Frame) -> None:
        increment = int.from_bytes(one.payload, "big")
        assert 0 < increment <= LARGEST, f"6.9: {one}"
        if one.stream:
            self.streams[one.stream].room += increment
            assert self.streams[one.stream].room <= LARGEST, "6.9.1: window beyond 2^31-1"
        else:
            self.room += increment
            assert self.room <= LARGEST, "6.9.1: window beyond 2^31-1"

    def _sendable(self, one: Frame) -> Answer:
        answer = self.streams[one.stream]
        assert answer.reset is None, f"5.1: after its RST_STREAM, {one}"
        assert not answer.ended or one.kind == RST_STREAM, f"5.1: after its END_STREAM, {one}"
        return answer

    def _on_rst(self, one: Frame) -> None:
        assert len(one.payload) == 4
        answer = self.streams[one.stream]
        assert answer.reset is None, f"5.4.2: a second {one}"
        answer.reset = int.from_bytes(one.payload, "big")

    def _on_data(self, one: Frame) -> None:
        answer = self._sendable(one)
        assert answer.status is not None, f"8.1: content before a final status, {one}"
        size, content = len(one.payload), one.payload
        if size:
            assert size <= self.window, f"6.9.1: {one} breaks the connection's window {self.window}"
            assert size <= answer.window, f"6.9.1: {one} breaks the window {answer.window}"
        self.window -= size
        answer.window -= size
        if one.flags & PADDED:
            assert content[0] < len(content)
            content = content[1 : len(content) - content[0]]
        answer.body += content
        answer.ended = bool(one.flags & END_STREAM)

    def _on_headers(self, one: Frame) -> None:
        self._sendable(one)
        content = one.payload
        if one.flags & PADDED:
            content = content[1 : len(content) - content[0]]
        if one.flags & PRIORITIZED:
            content = content[5:]
        self._block = (one.stream, one.flags & END_STREAM, content)
        self._end_block(one)

    def _on_continuation(self, one: Frame) -> None:
        assert self._block is not None
        stream, flags, content = self._block
        assert stream == one.stream, f"6.10: another stream's block is open, {one}"
        self._block = (stream, flags, content + one.payload)
        self._end_block(one)

    def _end_block(self, one: Frame) -> None:
        if not one.flags & END_HEADERS:
            return
        assert self._block is not None
        stream, end, content = self._block
        self._block = None
        fields = [(bytes(n), bytes(v)) for n, v in self.decoder.decode(content, raw=True)]
        answer = self.streams[stream]
        answer.ended = bool(end)
        _judge_fields(fields)
        pseudo = [name for name, _ in fields if name.startswith(b":")]
        if answer.status is not None:
            assert not pseudo and end, f"8.1: trailers end the stream, {fields}"
            answer.trailers = fields
            return
        assert pseudo == [b":status"] and fields[0][0] == b":status", f"8.3.2: {fields}"
        status = int(fields[0][1])
        if status < 200:
            assert not end and status != 101, f"8.1, 8.6: {fields}"
            answer.informational.append((status, fields[1:]))
        else:
            answer.status, answer.headers = status, fields[1:]

    # Expecting.

    def answer(self, stream: int, *, head: bool = False) -> Answer:
        """The whole answer on a stream, which must come to its end."""
        self.pump(lambda: stream in self.streams and self.streams[stream].over)
        found = self.streams[stream]
        assert found.ended, f"reset with {found.reset}: {found}"
        lengths = found.all(b"content-length")
        assert len(lengths) < 2
        if lengths and not head and found.status != 304:
            assert int(lengths[0]) == len(found.body), "8.1.1: content-length disagrees"
        return found

    def get(self, path: bytes = b"/", *more: tuple[bytes, bytes]) -> Answer:
        stream = self.next_stream()
        self.send(get(stream, path, *more))
        return self.answer(stream)

    def reset_of(self, stream: int) -> int:
        """The code a stream is reset with."""
        self.pump(lambda: self.streams[stream].over)
        found = self.streams[stream].reset
        assert found is not None, f"ended without a reset: {self.streams[stream]}"
        return found

    def barrier(self) -> None:
        """Everything before this has been seen by the server, and what it said has come."""
        mark = struct.pack("!Q", len(self.pongs) + (1 << 40))
        self.send(ping(mark))
        self.pump(lambda: mark in self.pongs)

    def reaction(self, stream: int = 0) -> Reaction:
        """What the server made of all that was sent, on this stream or to the connection."""
        for _ in range(2):  # a PING's answer may overtake what was queued (6.7), but only once
            mark = struct.pack("!Q", len(self.pongs) + (1 << 41))
            self.send(ping(mark))
            self.pump(lambda mark=mark: mark in self.pongs or self.failed)
            if self.failed:
                self.read_eof()
                return Reaction("connection", self.goaways[-1][1])
            code = self.streams[stream].reset if stream in self.streams else None
            if code is not None:
                return Reaction("stream", code)
        return IGNORED

    def reaction_or_reset(self) -> Reaction:
        """As `reaction`, where so much was sent that the server's end may have become a reset."""
        try:
            return self.reaction()
        except AssertionError:
            if not self.failed:
                raise
            return Reaction("connection", self.goaways[-1][1])

    @property
    def failed(self) -> bool:
        return bool(self.goaways) and self.goaways[-1][1] != Code.NO_ERROR

    def read_eof(self) -> None:
        """The rest, to an orderly end; a reset or silence fails the test."""
        with contextlib.suppress(Ended):
            while True:
                self.file(self.read_frame())

    def expect_stream_error(self, stream: int, *codes: Code) -> None:
        """The stream is reset with this code, and the connection lives on."""
        assert self.reaction(stream) in [stream_error(code) for code in codes]
        self.expect_alive()

    def expect_connection_error(self, *codes: Code) -> None:
        """GOAWAY with this code, naming no stream that never was, and an orderly end."""
        self.pump(lambda: self.failed)
        assert self.goaways[-1][1] in codes, self
        assert self.goaways[-1][0] <= max(self.highest, 0), self
        self.read_eof()

    def expect_malformed(self, stream: int) -> None:
        """8.1.1: a stream error, before which the server may answer 400; the connection lives."""
        assert self.reaction(stream) == stream_error(Code.PROTOCOL_ERROR)
        assert self.streams[stream].status in (None, 400)
        self.expect_alive()

    def expect_ignored(self, stream: int = 0) -> None:
        assert self.reaction(stream) == IGNORED
        self.expect_alive()

    def expect_ignored_more(self, stream: int) -> None:
        """A stream that was reset already: nothing more comes of it, and the connection lives."""
        before = self.streams[stream].reset
        assert self.reaction(stream) == stream_error(Code(before or 0))
        self.expect_alive()

    def expect_alive(self) -> None:
        """A PING is answered, and so is a request."""
        self.barrier()
        assert self.get().status == 200


def _judge_fields(fields: Fields) -> None:
    for name, value in fields:
        assert name == name.lower() and name, f"8.2: {fields}"
        assert name not in HOP_BY_HOP, f"8.2.2: {fields}"
        assert not set(value) & {0, 10, 13}, f"8.2.1: {fields}"
        assert value == value.strip(b" \t"), f"8.2.1: {fields}"


_HANDLERS = {
    DATA: Http2Client._on_data,
    HEADERS: Http2Client._on_headers,
    RST_STREAM: Http2Client._on_rst,
    SETTINGS: Http2Client._on_settings,
    PING: Http2Client._on_ping,
    GOAWAY: Http2Client._on_goaway,
    WINDOW_UPDATE: Http2Client._on_window_update,
    CONTINUATION: Http2Client._on_continuation,
}


def connect(server: Any, *pairs: tuple[int, int], hello: bool = True) -> Http2Client:
    """To what `served` runs; `pairs` are the settings of the client's preface."""
    return Http2Client(server.server.path or server.server.address, *pairs, hello=hello)
