"""The answering half of the HTTP/2 engine: heads, bodies and trailers on their way out.

Strategy: an answer whose head is held and whose body comes whole is two frames, made on the spot
where no window, no bound and no queue stands against it. Everything else goes through its stream's
queue; `take_output` frames as much of the queues as may leave now, in the order of the schedule.
Blocks are encoded in the order in which they leave: the peer's table depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tidegate.errors import ApplicationError
from tidegate.protocol.engine import Ending, FileSlice, Output, StreamTerms
from tidegate.protocol.headers import Defaults, broken_promise
from tidegate.protocol.http2 import fields
from tidegate.protocol.http2.defence import Defence
from tidegate.protocol.http2.fields import ANSWERS, NO_BODY, Answer
from tidegate.protocol.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    WINDOW,
    Code,
    frame,
    rst_stream,
    window_update,
)
from tidegate.protocol.http2.hpack.encoder import Encoder
from tidegate.protocol.http2.priority import Schedule
from tidegate.protocol.http2.settings import Peer
from tidegate.protocol.http2.states import CLOSED, HALF_LOCAL, HALF_REMOTE, Step, after
from tidegate.protocol.http2.streams import FileCut, Outflow, ReadFile, Stream
from tidegate.types import Header

OUT_BOUND = 128 * 1024  # framed ahead of the kernel by those who answer: beyond, they queue
OUT_SHARE = 512 * 1024  # framed in one `take_output`: what is in the outbox has no priority
JOIN_BOUND = 64 * 1024  # copying up to here costs less than a second buffer in the system call
BLOCKS = 64  # encoded heads kept for a connection
FIRST_WINDOW = 512 * 1024  # of a connection, until an application has kept up with its client
RESET_MEMORY = 1024  # streams that we have reset, whose frames may be on their way

_END_OF_HEAD = bytes((HEADERS, END_HEADERS))
_END_OF_BODY = bytes((DATA, END_STREAM))


class Sending:
    """The other half (engine.py) reads, and knows the rules of what comes in."""

    __slots__ = (
        "_answers", "_blocks", "_credit", "_defaults", "_defence", "_encoder", "_out", "_out_size",
        "_peer", "_pushes", "_read_file", "_receive_size", "_receive_window", "_reset_by_us",
        "_schedule", "_sent", "_streams", "_terms", "_window", "ending", "lingering", "lost",
    )  # fmt: skip

    def __init__(self, terms: StreamTerms, defaults: Defaults, read_file: ReadFile) -> None:
        self.ending = Ending.NO
        self._terms = terms
        self._defaults = defaults
        self._answers: dict[object, Answer] = defaults.answers
        self._read_file = read_file
        self._defence = Defence(terms)
        self._peer = Peer()
        self._encoder = Encoder()
        self._blocks: dict[Answer, bytes] = {}
        self._streams: dict[int, Stream] = {}
        self._reset_by_us: dict[int, None] = {}
        self._schedule = Schedule()
        self._window = WINDOW  # what the connection may send
        # how far the connection's window opens
        self._receive_size = max(WINDOW, min(terms.window, FIRST_WINDOW))
        self._receive_window = WINDOW  # what the peer may still send
        self._credit = 0  # taken of it, not yet given back to the peer
        self._sent = 0  # bytes of all bodies that had to wait, or belong to tunnels
        self.lingering: set[int] = set()  # streams that we have ended and the peer has not
        self.lost: list[int] = []  # streams that were reset while their output was taken
        self._pushes = 0  # streams of ours that are open
        self._out: list[Output] = []
        self._out_size = 0

    # ------------------------------------------------------------------------ heads

    def send_head(self, stream: int, status: int, headers: Iterable[Header]) -> None:
        """Check the head and hold it until the first body; a held one is replaced."""
        to = self._streams.get(stream)
        if to is None or to.began:
            return
        key = (status, *headers)
        try:
            answer = self._answers.get(key) if type(status) is int else None
        except TypeError:  # a pair that is a list
            answer = None
        if answer is None:
            answer = self._make_answer(key)
        to.held = answer
        to.dropped = 0
        to.owed = NO_BODY if to.head.is_head else answer.length

    def _make_answer(self, key: tuple[Any, ...]) -> Answer:
        """A head that was not sent within this second."""
        answer = fields.make_answer(key[0], key[1:], self._defaults)
        if len(self._answers) < ANSWERS and type(key[0]) is int:
            try:
                self._answers[key] = answer
            except TypeError:
                pass  # the pair that is a list
        return answer

    def _block(self, answer: Answer) -> bytes:
        """Its block as it has to be said now."""
        encoder = self._encoder
        before = encoder.changes
        block = encoder.encode(answer.fields)
        if encoder.changes != before or len(self._blocks) >= BLOCKS:
            self._blocks.clear()
        if encoder.settled:
            self._blocks[answer] = block
        return block

    def _put_block(self, stream: int, block: bytes, flags: int, kind: int = HEADERS) -> None:
        """HEADERS, and CONTINUATION where the peer's frames are too small for it (6.10)."""
        most = self._peer.frame
        first, rest = block[:most], block[most:]
        self._put(frame(kind, flags if rest else flags | END_HEADERS, stream, first))
        while rest:
            piece, rest = rest[:most], rest[most:]
            self._put(frame(CONTINUATION, 0 if rest else END_HEADERS, stream, piece))

    def _begin_answer(self, stream: Stream, *, end: bool) -> None:
        """The held head leaves. `end`: nothing follows it."""
        answer = stream.held
        if answer is None:
            return
        stream.held = None
        stream.began = True
        stream.state = after(stream.state, Step.SEND_HEADERS)
        block = self._blocks.get(answer) or self._block(answer)
        self._put_block(stream.id, block, END_STREAM if end else 0)

    def send_informational(self, stream: int, status: int, headers: Iterable[Header]) -> None:
        """103 and its kin, while the head is unsent."""
        found = fields.informational(status, headers)
        to = self._streams.get(stream)
        if to is not None and not to.began:
            to.state = after(to.state, Step.SEND_HEADERS)
            self._put_fields(stream, found, 0)

    def _put_fields(self, stream: int, found: list[Header], flags: int) -> None:
        self._put_block(stream, self._encode(found), flags)

    def _encode(self, found: list[Header]) -> bytes:
        """A block that is not kept."""
        before = self._encoder.changes
        block = self._encoder.encode(found)
        if self._encoder.changes != before:
            self._blocks.clear()
        return block

    # ------------------------------------------------------------------------ bodies

    def send_body(self, stream: int, data: bytes | FileSlice, end: bool) -> int:
        """The next piece of an answer; returns the bytes that nobody has taken yet."""
        to = self._streams.get(stream)
        if to is None or to.state is HALF_LOCAL:
            return self._out_size
        size = len(data)
        owed = to.owed
        if owed >= 0:
            if size != owed and (end or size > owed):
                raise ApplicationError(broken_promise(owed, size))
            to.owed = owed - size
        elif owed == NO_BODY:
            return self._send_nothing(to, size, end)
        if (
            0 < size <= to.window
            and size <= self._window
            and size <= self._peer.frame
            and self._out_size < OUT_BOUND
            and type(data) is bytes
        ):
            answer = to.held
            if answer is None:
                queued = to.outflow is not None and to.outflow.queued
                if to.head.tunnel and not end and not queued:
                    return self._send_piece(to, data)
            elif end:
                block = self._blocks.get(answer) or self._block(answer)
                if len(block) <= self._peer.frame and to.state is HALF_REMOTE:
                    return self._send_whole(to, block, data)
                self._put_encoded(to, block)
        return self._queue(to, data, end)

    def _send_whole(self, stream: Stream, block: bytes, data: bytes) -> int:
        """Nearly every answer: two frames, behind which HALF_REMOTE is CLOSED."""
        size = len(data)
        number = stream.id.to_bytes(4, "big")
        self._out += (
            len(block).to_bytes(3, "big"), _END_OF_HEAD, number, block,
            size.to_bytes(3, "big"), _END_OF_BODY, number, data,
        )  # fmt: skip
        self._out_size += len(block) + size + 18
        self._window -= size
        self._defence.finished += 1
        stream.state = CLOSED
        del self._streams[stream.id]
        if stream.inflow is not None:
            self._give_back(stream.inflow.unread)
        if not stream.id & 1:
            self._pushes -= 1
        if not self._streams:
            self._see_end()
        return self._out_size

    def _send_piece(self, stream: Stream, data: bytes) -> int:
        """A tunnel's message: a frame of its own, at once."""
        size = len(data)
        self._out += (HEAD.pack(size >> 16, size & 0xFFFF, DATA, 0, stream.id), data)
        self._out_size += size + 9
        self._window -= size
        stream.window -= size
        stream.sent += size
        self._sent += size
        self._defence.pieces += 1
        return self._out_size

    def _put_encoded(self, stream: Stream, block: bytes) -> None:
        """A head whose block was made already: it has to leave now."""
        stream.held = None
        stream.began = True
        stream.state = after(stream.state, Step.SEND_HEADERS)
        self._put_block(stream.id, block, 0)

    def _queue(self, stream: Stream, data: bytes | FileSlice, end: bool) -> int:
        """It waits for its turn, which comes with the next `take_output` where nothing hinders."""
        outflow = stream.outflow
        if end and not len(data) and (outflow is None or not outflow.queued):
            self._send_end(stream)
            return self._out_size
        self._begin_answer(stream, end=False)
        if outflow is None:
            outflow = stream.outflow = Outflow()
        outflow.put(data)
        outflow.end = end
        self._see_schedule(stream, outflow)
        return outflow.queued + self._out_size

    def _send_end(self, stream: Stream) -> None:
        """Nothing waits, and nothing follows."""
        if stream.held is not None:
            self._begin_answer(stream, end=True)
        else:
            self._put(HEAD.pack(0, 0, DATA, END_STREAM, stream.id))
        self._end_answer(stream)

    def _send_nothing(self, stream: Stream, size: int, end: bool) -> int:
        """The answer to a HEAD, a 204, a 304: what comes of a body is dropped."""
        if not end:
            # but whoever makes it shall yield now and then as if it were sent
            stream.dropped += size
            return stream.dropped
        self._send_end(stream)
        return self._out_size

    def send_trailers(self, stream: int, headers: Iterable[Header], end: bool = True) -> None:
        """Fields behind a body that is complete; dropped where the client reads none."""
        found = fields.trailer_fields(headers)
        to = self._streams.get(stream)
        if to is None or to.state is HALF_LOCAL:
            return
        if to.owed > 0:
            raise ApplicationError(broken_promise(to.owed, 0))
        outflow = to.outflow
        if outflow is None:
            outflow = to.outflow = Outflow()
        outflow.trailers = [*(outflow.trailers or ()), *found]
        if not end:
            return
        if to.owed == NO_BODY or not to.head.trailers or not outflow.trailers:
            outflow.trailers = None
            self._queue_end(to, outflow)
            return
        self._begin_answer(to, end=False)
        self._queue_end(to, outflow)

    def _queue_end(self, stream: Stream, outflow: Outflow) -> None:
        """The end, behind what is queued."""
        if outflow.queued:
            outflow.end = True
        elif outflow.trailers:
            self._send_trailing(stream, outflow.trailers)
        else:
            self._send_end(stream)

    def _send_trailing(self, stream: Stream, found: list[Header]) -> None:
        self._put_fields(stream.id, found, END_STREAM)
        self._end_answer(stream)

    def _end_answer(self, stream: Stream) -> None:
        """END_STREAM is out."""
        self._defence.finished += 1
        stream.state = after(stream.state, Step.SEND_END)
        if stream.state is CLOSED:
            self._drop(stream)
        else:
            self._discard(stream)

    def _discard(self, stream: Stream) -> None:
        """The answer is whole, and nobody will read the rest of the request.

        8.1 allows a reset at once, but some clients forget the answer over it: it comes later.
        """
        self.lingering.add(stream.id)
        inflow = stream.inflow
        if inflow is not None and not stream.head.tunnel:
            inflow.discard = True
            self._give_back(inflow.unread)
            inflow.unread = 0

    # ------------------------------------------------------------------------ turns

    def _see_schedule(self, stream: Stream, outflow: Outflow) -> None:
        """Whether it has something to send and may."""
        if not outflow.scheduled and outflow.queued and stream.window > 0:
            outflow.scheduled = True
            self._schedule.add(stream)

    def _unschedule(self, stream: Stream) -> None:
        if stream.outflow is not None and stream.outflow.scheduled:
            stream.outflow.scheduled = False
            self._schedule.remove(stream)

    @property
    def more(self) -> bool:
        """`take_output` has more to give at once."""
        return self._schedule.count > 0 and self._window > 0

    def _fill(self) -> None:
        """Frames from the queues, as far as windows and our share go."""
        schedule = self._schedule
        while schedule.count and self._window > 0 and self._out_size < OUT_SHARE:
            stream = schedule.first()
            outflow = stream.outflow
            assert outflow is not None
            try:
                self._send_frame(stream, outflow)
            except FileCut:
                self._reset(stream, Code.INTERNAL_ERROR)
                self.lost.append(stream.id)

    def _send_frame(self, stream: Stream, outflow: Outflow) -> None:
        pieces, size = outflow.take(
            min(self._peer.frame, stream.window, self._window), self._read_file
        )
        self._window -= size
        stream.window -= size
        stream.sent += size
        self._sent += size
        self._defence.pieces += 1
        whole = outflow.end and not outflow.queued
        last = whole and not outflow.trailers
        flags = END_STREAM if last else 0
        self._out.append(HEAD.pack(size >> 16, size & 0xFFFF, DATA, flags, stream.id))
        self._out += pieces
        self._out_size += size + 9
        if outflow.queued and stream.window > 0:
            self._schedule.turn(stream)
            return
        self._unschedule(stream)
        if last:
            self._end_answer(stream)
        elif whole and outflow.trailers:
            self._send_trailing(stream, outflow.trailers)

    def queued(self, stream: int) -> int:
        """Its own bytes: those that wait for their turn, or for a window."""
        to = self._streams.get(stream)
        return 0 if to is None or to.outflow is None else to.outflow.queued

    def stuck(self) -> list[int]:
        """The streams that have something to send and no window for it."""
        return [
            number
            for number, stream in self._streams.items()
            if stream.outflow is not None
            and stream.outflow.queued
            and (stream.window <= 0 or self._window <= 0)
        ]

    def take_output(self) -> list[Output]:
        if self._schedule.count:
            self._fill()
        out = self._out
        if not out:
            return out
        if self._out_size <= JOIN_BOUND:
            out = [b"".join(out)]  # type: ignore[arg-type]
        self._out = []
        self._out_size = 0
        return out

    def drop_output(self) -> None:
        for stream in [*self._streams.values()]:
            self._drop(stream)
        self._out = []
        self._out_size = 0

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size += len(data)

    # ------------------------------------------------------------------------ ends of streams

    def reset(self, stream: int) -> None:
        """The answer cannot be completed, unless all that was promised of it is there already."""
        to = self._streams.get(stream)
        if to is None:
            return
        if to.owed == 0 and to.began and to.state is not HALF_LOCAL:
            self._queue(to, b"", True)
        else:
            self._reset(to, Code.INTERNAL_ERROR)

    def cancel(self, stream: int, code: Code) -> None:
        """The stream ends now, and what waits in its queue is dropped."""
        to = self._streams.get(stream)
        if to is not None:
            self._reset(to, code)

    def _reset(self, stream: Stream, code: Code) -> None:
        self._remember_reset(stream.id)
        self._put(rst_stream(stream.id, code))
        stream.state = after(stream.state, Step.SEND_RESET)
        self._drop(stream)

    def _remember_reset(self, stream: int) -> None:
        """Frames of it may be on their way, and are no fault of the peer's (5.1 closed)."""
        forgotten = self._reset_by_us
        if len(forgotten) >= RESET_MEMORY:
            del forgotten[next(iter(forgotten))]
        forgotten[stream] = None

    def _drop(self, stream: Stream) -> None:
        """It is closed: nothing of it is sent or kept any more."""
        self._unschedule(stream)
        self._streams.pop(stream.id, None)
        self.lingering.discard(stream.id)
        if stream.outflow is not None:
            stream.outflow.pieces.clear()
            stream.outflow.queued = 0
        if not stream.id & 1:
            self._pushes -= 1
        if stream.inflow is not None:
            self._give_back(stream.inflow.unread)
            stream.inflow.unread = 0
        if not self._streams:
            self._see_end()

    def _give_back(self, size: int) -> None:
        """So many bytes of the connection's window have been taken by somebody."""
        self._credit += size
        # also when little of it is left: others may hold the rest for as long as they like
        if self._credit and self._credit >= min(self._receive_size // 2, self._receive_window):
            self._put(window_update(0, self._credit))
            self._receive_window += self._credit
            self._credit = 0

    def _see_end(self) -> None:
        """No stream is open: it may be the connection's end."""
        raise NotImplementedError
