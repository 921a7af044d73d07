"""Masked client frames, a driver for a WebSocket engine, and a parser for what the engine sends.

Nothing here uses the server's own frame code: frames are built and read from RFC 6455 5.2 alone, so
that a mistake in that code cannot hide itself. The driver does what a connection does: it takes
everything the engine has to tell after each piece of input, goes on while it is `stalled`, and
takes the output.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from tidegate.protocol.websocket.engine import Closed, Pong, State, WebSocketEngine

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"
ZERO_MASK = bytes(4)
ROUNDS = 100_000  # of next() without an end: an engine that never rests


def masked(payload: bytes, mask: bytes) -> bytes:
    """RFC 6455 5.3, octet by octet in effect."""
    if not payload:
        return b""
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    whole = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return whole.to_bytes(len(payload), "big")


def head(
    opcode: int,
    length: int,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_form: int | None = None,
) -> bytes:
    """A frame's head; `length_form` 7, 16 or 64 bits (the shortest if None), `rsv` 4, 2, 1."""
    if length_form is None:
        length_form = 7 if length < 126 else 16 if length < 1 << 16 else 64
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0 if mask is None else 0x80
    if length_form == 7:
        start = bytes((first, bit | length))
    elif length_form == 16:
        start = struct.pack("!BBH", first, bit | 126, length)
    else:
        start = struct.pack("!BBQ", first, bit | 127, length)
    return start + (mask or b"")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_form: int | None = None,
) -> bytes:
    """A whole frame, as a client sends it; not masked if `mask` is None."""
    start = head(opcode, len(payload), fin=fin, rsv=rsv, mask=mask, length_form=length_form)
    return start + (payload if mask is None else masked(payload, mask))


def text(message: str | bytes, *, fin: bool = True) -> bytes:
    return frame(TEXT, message.encode() if isinstance(message, str) else message, fin=fin)


def binary(message: bytes, *, fin: bool = True) -> bytes:
    return frame(BINARY, message, fin=fin)


def cont(piece: bytes = b"", *, fin: bool = False) -> bytes:
    return frame(CONT, piece, fin=fin)


def ping(payload: bytes = b"") -> bytes:
    return frame(PING, payload)


def pong(payload: bytes = b"") -> bytes:
    return frame(PONG, payload)


def close(code: int | None = None, reason: str | bytes = b"") -> bytes:
    reason = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def fragments(opcode: int, pieces: Iterable[bytes]) -> list[bytes]:
    """One message in as many frames as there are pieces."""
    pieces = list(pieces)
    return [
        frame(CONT if at else opcode, piece, fin=at == len(pieces) - 1)
        for at, piece in enumerate(pieces)
    ]


def cut(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


class Sent(NamedTuple):
    """A frame of the server's, as it is on the wire."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0


def parse_sent(raw: bytes) -> list[Sent]:
    """All frames of a server's output, held to what a server may send (RFC 6455 5.1, 5.2, 5.5)."""
    found, at = [], 0
    while at < len(raw):
        first, second = raw[at], raw[at + 1]
        assert not second & 0x80, "a server must not mask"
        length, at = second, at + 2
        if length == 126:
            length, at = int.from_bytes(raw[at : at + 2], "big"), at + 2
            assert length > 125, "not the shortest length"
        elif length == 127:
            length, at = int.from_bytes(raw[at : at + 8], "big"), at + 8
            assert 65535 < length < 1 << 63, "not the shortest length"
        assert at + length <= len(raw), "a frame broke off"
        one = Sent(first & 15, raw[at : at + length], bool(first & 0x80), first >> 4 & 7)
        assert one.opcode in (CONT, TEXT, BINARY, CLOSE, PING, PONG)
        assert one.opcode < 8 or (one.fin and length < 126), "a bad control frame"
        found.append(one)
        at += length
    return found


def join_sent(frames: Iterable[Sent]) -> list[str | bytes]:
    """The messages in data frames, which must be whole and in a right order."""
    messages: list[str | bytes] = []
    kind, held = 0, b""
    for one in frames:
        assert one.opcode < 8 and one.rsv == 0
        assert (one.opcode == CONT) == bool(kind), "wrong order"
        kind, held = kind or one.opcode, held + one.payload
        if one.fin:
            messages.append(held.decode() if kind == TEXT else held)
            kind, held = 0, b""
    assert not kind, "a message was not ended"
    return messages


class Drive:
    """One connection: `feed` it, then read what it was told and what it sent."""

    def __init__(self, size: int = 0) -> None:
        self.engine = WebSocketEngine(size=size)
        self.told: list[str | bytes | Closed | Pong] = []
        self.output = bytearray()

    def feed(self, *pieces: bytes) -> Drive:
        for piece in pieces:
            self.engine.feed(piece)
            self.drain()
        return self

    def drain(self) -> None:
        for _ in range(ROUNDS):
            one = self.engine.next()
            if one is not None:
                assert not self.closed, "something was told after the end"
                self.told.append(one)
            elif not self.engine.stalled:
                self.output += self.engine.take_output()
                return
        raise AssertionError("the engine never rests")

    @property
    def closed(self) -> bool:
        return bool(self.told) and isinstance(self.told[-1], Closed)

    @property
    def end(self) -> tuple[int, bool] | None:
        """The code, and whether it was the peer's fault; None while nothing has ended."""
        last = self.told[-1] if self.told else None
        return (last.code, last.fault) if isinstance(last, Closed) else None

    @property
    def messages(self) -> list[str | bytes]:
        return [one for one in self.told if isinstance(one, str | bytes)]

    @property
    def pongs(self) -> list[bytes]:
        """Payloads of the pongs that came."""
        return [one.payload for one in self.told if isinstance(one, Pong)]

    @property
    def sent(self) -> list[Sent]:
        return parse_sent(bytes(self.output))

    @property
    def close_code(self) -> int | None:
        """The code in the one close frame that was sent; 1005 if it was empty, None if none was."""
        closes = [one.payload for one in self.sent if one.opcode == CLOSE]
        assert len(closes) < 2, "two close frames"
        if not closes:
            return None
        assert self.sent[-1].opcode == CLOSE, "something was sent after the close frame"
        closes[0][2:].decode()
        return int.from_bytes(closes[0][:2], "big") if closes[0] else 1005

    def story(self) -> dict[str, Any]:
        """All there is to compare."""
        return {
            "told": [(type(one).__name__, one) for one in self.told],
            "output": bytes(self.output),
            "state": self.engine.state,
            "close_sent": self.engine.close_sent,
        }


def drive(raw: bytes | Iterable[bytes], size: int = 0) -> Drive:
    """A new connection that has been fed `raw`, whole or in the pieces it is given in."""
    return Drive(size).feed(*([raw] if isinstance(raw, bytes) else raw))


def each_byte(raw: bytes) -> list[bytes]:
    return cut(raw, 1)


def expect_fault(
    raw: bytes | Iterable[bytes], code: int, before: Iterable[Any] = (), size: int = 0
) -> Drive:
    """What was whole is told, then the fault; the close frame has its code; nothing more is read."""
    found = drive(raw, size)
    assert found.told[:-1] == list(before)
    assert found.end == (code, True)
    assert found.close_code == code == found.engine.close_sent
    assert_ended(found)
    return found


def assert_ended(found: Drive) -> None:
    """Nothing that comes later is told or answered."""
    assert found.engine.state is State.ENDED
    told, output = list(found.told), bytes(found.output)
    found.feed(text("later"), ping(b"later"), close(1000), b"\xff" * 20)
    assert found.told == told
    assert bytes(found.output) == output
