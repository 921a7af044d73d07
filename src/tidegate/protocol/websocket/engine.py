"""One WebSocket connection's messages: frames in, messages out, and the other way round.

Strategy: pull, not push. `feed` takes bytes from whatever stream carries the socket (an upgraded
HTTP/1.1 connection, an HTTP/2 or HTTP/3 stream); `next` decodes up to the next thing to tell and
stops there, so that an application that is behind leaves the rest as it came. A frame that is whole
in the input takes a short road; the payload of any other is unmasked and, if it is text, checked as
it arrives. What is to be sent back by the protocol itself (pongs, the answer to a close) is queued
by `next` and taken with `take_output`.

A peer's fault closes with the code of RFC 6455 7.4.1: messages that were whole before it are still
told, nothing after it is.
"""

from __future__ import annotations

import codecs
import enum
from typing import Any, NamedTuple, Protocol, TypeAlias

from tidegate.protocol.websocket.frames import (
    BINARY_HEADS,
    COMPRESSED,
    CONTROL_BOUND,
    FIN,
    LENGTH_16,
    MASKED,
    RESERVED,
    TEXT_HEADS,
    Opcode,
    render_frame,
    render_head,
    unmasker,
)

NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_CODE, ABNORMAL = 1000, 1001, 1002, 1005, 1006
BAD_DATA, TOO_BIG, INTERNAL_ERROR, RESTART = 1007, 1009, 1011, 1012
REASON_BOUND = CONTROL_BOUND - 2  # bytes
PONGS_BOUND = 4096  # bytes of pongs nobody takes: a flood of pings is answered by its last
COMPRESSED_SLACK = 1024  # bytes a small message may grow by when it is "compressed"
SHARE = 512  # frames one call of `next` goes through: a message may come in millions of them
STEP = 256 * 1024  # bytes inflated by one call of `next`, 0.7 ms
LONG = 4096  # a view of so many bytes costs less than a copy
PARTS = 256  # parts of a message that are kept apart
JOIN_BOUND = 16 * 1024  # copying up to here costs less than a second piece of output

_DATA = (1, 2)  # the opcodes that begin a message, plain: enum members compare slowly
_WHOLE = _WHOLE_TEXT, _WHOLE_BINARY = (FIN | 1, FIN | 2)
_NO_BLOCKS: list[Any] = []  # in place of a list that few messages need
_NONE = -1  # no frame is coming in
# RFC 6455 7.4, and 1012 to 1014 of the registry
CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))


class Closed(NamedTuple):
    """The end of what comes in. `reason` is the peer's, or what was wrong with what it sent."""

    code: int
    reason: str
    fault: bool = False


class Pong(NamedTuple):
    """The peer answered a ping."""

    payload: bytes


Told: TypeAlias = str | bytes | Closed | Pong


class Deflate(Protocol):
    """permessage-deflate as negotiated (protocol/websocket/deflate.py)."""

    def compress(self, data: bytes) -> bytes | None: ...
    @property
    def pending(self) -> bool: ...
    def decompress(self, data: bytes, end: bool, bound: int) -> bytes: ...
    def more(self, bound: int) -> bytes: ...
    def rest(self) -> None: ...


class Overfull(Exception):
    """What was compressed is longer than a message may be."""


class Corrupt(Exception):
    """What was compressed cannot be decompressed."""


class _Broken(Exception):
    """The peer's fault: the code to close with, and what was wrong."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class State(enum.IntEnum):
    OPEN = 0
    CLOSING = 1  # our close is sent, theirs is awaited
    ENDED = 2  # their close has come, or a fault: nothing more is read


ENDED = State.ENDED


class WebSocketEngine:
    """See the module. `size` bounds a message, 0: no bound."""

    # fmt: off
    __slots__ = (
        "_at", "_blocks", "_compressed", "_data", "_deflate", "_first", "_gathered", "_left",
        "_mask", "_opcode", "_parts", "_pongs", "_received", "_size", "_torn", "_unmask",
        "close_sent", "due", "inflating", "stalled", "state", "unread",
    )
    # fmt: on

    def __init__(self, size: int = 0, deflate: Deflate | None = None) -> None:
        self._size = size
        self._deflate = deflate
        self._unmask = unmasker()
        self._data = b""
        self._at = 0
        self.unread = 0  # bytes that `next` has not looked at
        # the frame whose payload is coming in: bytes still to come of it
        self._left = _NONE
        self._first = 0
        self._mask = b""
        # the message that is coming in, in one frame or several; CONTINUATION: none is
        self._opcode = Opcode.CONTINUATION
        self._compressed = False
        self._parts: list[Any] | None = None  # of its content: str or bytes
        self._blocks: list[Any] = _NO_BLOCKS  # of parts, where there are many
        self._gathered = 0  # bytes of content
        self._received = 0  # bytes of payload
        self._torn = b""  # the beginning of a character
        self.due: list[bytes] = []  # pings, pongs and closes: `take_output`
        self._pongs = 0  # bytes of pongs among the output
        self.close_sent: int | None = None
        self.inflating = False  # a part that inflates to a lot is only begun
        self.stalled = False
        self.state = State.OPEN

    # ------------------------------------------------------------------------ what comes in

    def feed(self, data: bytes) -> None:
        """Bytes from the peer, cut anywhere; `next` looks at them."""
        if self.state is ENDED:
            return
        if self.unread:
            data = self._data[self._at :] + data
        self._data = data
        self._at = 0
        self.unread = len(data)

    def next(self) -> Told | None:
        """The next thing to tell; None: more has to come, or (`stalled`) others have their turn."""
        if self._left == _NONE and not self._opcode:
            data, at = self._data, self._at
            have = self.unread
            if have > 5:
                first = data[at]
                size = data[at + 1] - MASKED
                begin = at + 6
                if size >= LENGTH_16:
                    size, begin = _long(data, at, size)
                end = begin + size
                if (
                    size >= 0
                    and end <= len(data)
                    and first in _WHOLE
                    and (size <= self._size or not self._size)
                ):
                    self._at = end
                    self.unread = len(data) - end
                    self.stalled = False
                    masked = data[begin:end] if size < LONG else memoryview(data)[begin:end]
                    payload = self._unmask(masked, data[begin - 4 : begin])
                    if first == _WHOLE_BINARY:
                        return payload
                    try:
                        return payload.decode()
                    except UnicodeDecodeError:
                        return self._fail(BAD_DATA, "a text is not UTF-8")
        told = self._next_slowly()
        self.unread = len(self._data) - self._at
        return told

    def _next_slowly(self) -> Told | None:
        self.stalled = False
        if self.state is ENDED:
            return None
        before = self._gathered
        try:
            told: Told | None
            for _ in range(SHARE):
                more = self.inflating
                if more:
                    told = self._gather_more()
                elif self._left == _NONE and not self._take_head():
                    return None
                else:
                    told = self._take_payload()
                if told is not None:
                    return told
                if self.inflating or self._gathered - before >= STEP:
                    self.stalled = True
                    return None
                if self._left != _NONE and not (more and self._at < len(self._data)):
                    return None  # and not: its rest has come while its beginning was inflated
        except _Broken as broken:
            return self._fail(broken.code, broken.reason)
        self.stalled = self._at < len(self._data)
        return None

    def _take_head(self) -> bool:
        """A frame's head, checked as early as its bytes are there; False: it is not whole yet."""
        data, at = self._data, self._at
        have = len(data) - at
        if have:
            self._check_first(data[at])
        if have < 2:
            return False
        length = data[at + 1] - MASKED
        if length < 0:
            raise _Broken(PROTOCOL_ERROR, "a frame without a mask (RFC 6455 5.1)")
        if data[at] & Opcode.CLOSE and length > CONTROL_BOUND:
            raise _Broken(PROTOCOL_ERROR, "a control frame of more than 125 bytes (RFC 6455 5.5)")
        at += 2
        if length >= LENGTH_16:
            width = 2 if length == LENGTH_16 else 8
            if have < 2 + width:
                return False
            length = int.from_bytes(data[at : at + width], "big")
            if length < (LENGTH_16 if width == 2 else 1 << 16) or length >> 63:
                raise _Broken(PROTOCOL_ERROR, "not a length in its shortest form (RFC 6455 5.2)")
            at += width
        self._check_size(length, data[self._at])
        if len(data) < at + 4:
            return False
        self._begin_frame(data[self._at], length, data[at : at + 4])
        self._at = at + 4
        return True

    def _check_first(self, first: int) -> None:
        opcode = first & 0x0F
        if first & RESERVED and (
            first & RESERVED != COMPRESSED or self._deflate is None or opcode not in _DATA
        ):
            raise _Broken(PROTOCOL_ERROR, "a reserved bit is set (RFC 6455 5.2)")
        if opcode >= Opcode.CLOSE:
            if opcode > Opcode.PONG:
                raise _Broken(PROTOCOL_ERROR, "an unknown control frame (RFC 6455 5.2)")
            if not first & FIN:
                raise _Broken(PROTOCOL_ERROR, "a fragmented control frame (RFC 6455 5.5)")
        elif opcode > Opcode.BINARY:
            raise _Broken(PROTOCOL_ERROR, "an unknown data frame (RFC 6455 5.2)")
        elif opcode and self._opcode:
            raise _Broken(PROTOCOL_ERROR, "a message inside another one (RFC 6455 5.4)")
        elif not opcode and not self._opcode:
            raise _Broken(PROTOCOL_ERROR, "a continuation of nothing (RFC 6455 5.4)")

    def _check_size(self, length: int, first: int) -> None:
        if not self._size or first & Opcode.CLOSE:
            return
        bound = self._size
        if first & COMPRESSED or self._compressed:
            # what it inflates to is bounded as it comes; this is for what inflates to nothing
            bound = 2 * bound + COMPRESSED_SLACK
        if self._received + length > bound:
            raise _Broken(TOO_BIG, f"a message of more than {self._size} bytes")

    def _begin_frame(self, first: int, length: int, mask: bytes) -> None:
        self._first = first
        self._left = length
        self._mask = mask
        opcode = first & 0x0F
        if opcode in _DATA:
            self._opcode = Opcode(opcode)
            self._compressed = bool(first & COMPRESSED)

    def _take_payload(self) -> Told | None:
        """What is there of a frame's payload; a message, once it is whole."""
        data, at, left = self._data, self._at, self._left
        if self._first & Opcode.CLOSE:
            if len(data) - at < left:
                return None
            self._at = at + left
            self._left = _NONE
            payload = self._unmask(data[at : at + left], self._mask)
            return self._control(self._first & 0x0F, payload)
        piece: bytes | memoryview = data
        if at or len(data) > left:
            piece = memoryview(data)[at : at + left]
        size = len(piece)
        self._at = at + size
        self._left = left - size
        self._received += size
        plain = self._unmask(piece, self._mask) if size else b""
        if self._left:
            turn = size % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
            return self._gather(plain, end=False)
        self._left = _NONE
        return self._gather(plain, end=bool(self._first & FIN))

    def _gather(self, piece: bytes, *, end: bool) -> str | bytes | None:
        """A part of a message, or the whole, which is given back."""
        if not self._compressed:
            return self._add(piece, end)
        return self._inflate(piece, end)

    def _gather_more(self) -> str | bytes | None:
        """The next step of a part that inflates to a lot."""
        return self._inflate(None, self._left == _NONE and bool(self._first & FIN))

    def _inflate(self, piece: bytes | None, end: bool) -> str | bytes | None:
        deflate = self._deflate
        assert deflate is not None
        bound = self._size - self._gathered if self._size else -1
        try:
            piece = deflate.more(bound) if piece is None else deflate.decompress(piece, end, bound)
        except Overfull:
            raise _Broken(TOO_BIG, f"a message of more than {self._size} bytes") from None
        except Corrupt:
            raise _Broken(BAD_DATA, "a compressed message cannot be read (RFC 7692)") from None
        self.inflating = deflate.pending
        return self._add(piece, end and not self.inflating)

    def _add(self, piece: bytes, end: bool) -> str | bytes | None:
        """Text is decoded as it comes, so that it fails where it is wrong."""
        self._gathered += len(piece)
        part: str | bytes = piece
        if self._opcode is Opcode.TEXT:
            part = self._decoded(piece, end)
        parts = self._parts
        if parts is None:
            self._parts = [part]
        elif part:
            parts.append(part)
            if len(parts) == PARTS:
                # a million parts of two bytes would take fifty
                if self._blocks is _NO_BLOCKS:
                    self._blocks = []
                self._blocks.append(part[:0].join(parts))
                parts.clear()
        return self._whole() if end else None

    def _decoded(self, piece: bytes, end: bool) -> str:
        if self._torn:
            piece = self._torn + piece
        try:
            text, size = codecs.utf_8_decode(piece, "strict", end)
        except UnicodeDecodeError:
            raise _Broken(BAD_DATA, "a text is not UTF-8") from None
        self._torn = torn = piece[size:]
        # half a surrogate, whose third byte CPython waits for before it says no
        if torn and torn[:1] == b"\xed" and torn[1:] >= b"\xa0":
            raise _Broken(BAD_DATA, "a text is not UTF-8")
        return text

    def _whole(self) -> str | bytes:
        parts = self._parts
        assert parts is not None
        message: str | bytes
        if len(parts) == 1 and not self._blocks:
            message = parts[0]
        else:
            nothing: Any = "" if self._opcode is Opcode.TEXT else b""
            message = nothing.join((*self._blocks, *parts))
        self._opcode = Opcode.CONTINUATION
        self._compressed = False
        self._received = 0
        self._forget()
        return message

    def _forget(self) -> None:
        """Nothing of a message is kept."""
        self._parts = None
        self._blocks = _NO_BLOCKS
        self._gathered = 0
        self._torn = b""

    # ------------------------------------------------------------------------ control frames

    def _control(self, opcode: int, payload: bytes) -> Told | None:
        if opcode == Opcode.CLOSE:
            return self._take_close(payload)
        if opcode == Opcode.PONG:
            return Pong(payload)
        pong = render_frame(Opcode.PONG, payload)  # after our close too (RFC 6455 5.5.2)
        if self._pongs + len(pong) > PONGS_BOUND:
            # RFC 6455 5.5.3: the most recent ping may be the only one that is answered
            self.due = [frame for frame in self.due if frame[0] != FIN | Opcode.PONG]
            self._pongs = 0
        self.due.append(pong)
        self._pongs += len(pong)
        return None

    def _take_close(self, payload: bytes) -> Closed:
        code, reason = NO_CODE, ""
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if code not in CODES:  # one byte is never among them
                raise _Broken(PROTOCOL_ERROR, "not a code to close with (RFC 6455 7.4)")
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                raise _Broken(BAD_DATA, "the reason of a close is not UTF-8") from None
        self.send_close(code, reason)  # both: a browser shows the reason that comes back
        self._end()
        return Closed(code, reason)

    def _fail(self, code: int, reason: str) -> Closed:
        """Nothing more is read; the peer is told why (RFC 6455 7.1.7)."""
        self.send_close(code, reason)
        self._end()
        return Closed(code, reason, True)

    def _end(self) -> None:
        self.state = ENDED
        self._data = b""
        self._at = self.unread = 0
        self._forget()

    # ------------------------------------------------------------------------ what goes out

    def render(self, message: str | bytes) -> list[bytes]:
        """A message's frame, in one piece or, if it is long, with its head apart."""
        if type(message) is str:
            payload, first, heads = message.encode(), _WHOLE_TEXT, TEXT_HEADS
        else:
            payload, first, heads = message, _WHOLE_BINARY, BINARY_HEADS  # type: ignore[assignment]
        if self._deflate is not None:
            shorter = self._deflate.compress(payload)
            if shorter is not None:
                size = len(shorter)
                head = render_head(first | COMPRESSED, size)
                return [head + shorter] if size <= JOIN_BOUND else [head, shorter]
        size = len(payload)
        if size < LENGTH_16:
            return [heads[size] + payload]
        head = render_head(first, size)
        return [head + payload] if size <= JOIN_BOUND else [head, payload]

    def send_ping(self, payload: bytes) -> None:
        """Up to 125 bytes that the peer sends back; ValueError for more."""
        if len(payload) > CONTROL_BOUND:
            raise ValueError("a ping of more than 125 bytes (RFC 6455 5.5)")
        if self.close_sent is None:
            self.due.append(render_frame(Opcode.PING, payload))

    def send_close(self, code: int, reason: str) -> None:
        """Say that nothing more comes from us; only the first time counts. 1005: without a code.

        ValueError for a code or a reason that cannot be sent.
        """
        if self.close_sent is not None:
            return
        payload = b""
        if code != NO_CODE:
            if code not in CODES:
                raise ValueError(f"{code} is not a code to close with (RFC 6455 7.4)")
            payload = code.to_bytes(2, "big") + _cut(reason)
        self.close_sent = code
        self.due.append(render_frame(Opcode.CLOSE, payload))
        if self.state is State.OPEN:
            self.state = State.CLOSING

    def take_output(self) -> bytes:
        """Pings, pongs and closes that are due."""
        if not self.due:
            return b""
        output = b"".join(self.due)
        self.due.clear()
        self._pongs = 0
        return output


def _long(data: bytes, at: int, length: int) -> tuple[int, int]:
    """The length of a frame that says it in more than seven bits, and where its payload begins.

    (-1, ...): not in its shortest form, or not whole; the slow road finds out.
    """
    if length == LENGTH_16:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        return size if size >= LENGTH_16 else _NONE, at + 8
    size = int.from_bytes(data[at + 2 : at + 10], "big")
    return size if size >= 1 << 16 else _NONE, at + 14


def _cut(reason: str) -> bytes:
    """As much of a reason as a close frame has room for, in whole characters."""
    return reason.encode()[:REASON_BOUND].decode(errors="ignore").encode()
