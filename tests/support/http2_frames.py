"""HTTP/2 frames, byte by byte, well or badly formed, and blocks of fields for them.

Built from RFC 9113 section 4 and RFC 7541 alone, so that a mistake in the server's own code cannot
hide itself. Blocks of fields are literals without indexing: a test says each octet, and no block
depends on those before it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
PRIORITY_UPDATE = 0x10  # RFC 9218 7.1
NAMES = "DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY WINDOW_UPDATE"
NAMES += " CONTINUATION"

END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20
FLAGS = {
    DATA: END_STREAM | PADDED,
    HEADERS: END_STREAM | END_HEADERS | PADDED | PRIORITIZED,
    SETTINGS: ACK,
    PUSH_PROMISE: END_HEADERS | PADDED,
    PING: ACK,
    CONTINUATION: END_HEADERS,
}

TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_LIST = 1, 2, 3, 4, 5, 6
CONNECT_PROTOCOL, NO_PRIORITIES = 8, 9

WINDOW = 65535
LARGEST = (1 << 31) - 1

Fields = list[tuple[bytes, bytes]]


class Code(enum.IntEnum):
    """RFC 9113 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    def __repr__(self) -> str:
        name = NAMES.split()[self.kind] if self.kind < 10 else hex(self.kind)
        return f"{name}(flags={self.flags:#x}, stream={self.stream}, {self.payload[:40].hex(' ')})"


class Reaction(NamedTuple):
    """What the server did about something: nothing at all, a reset, or the end."""

    scope: str  # "", "stream" or "connection"
    code: int = 0


IGNORED = Reaction("")


def stream_error(code: Code) -> Reaction:
    return Reaction("stream", code)


def connection_error(code: Code) -> Reaction:
    return Reaction("connection", code)


# Frames, well or badly formed.


def frame(
    kind: int,
    payload: bytes = b"",
    *,
    flags: int = 0,
    stream: int = 0,
    length: int | None = None,
    reserved: bool = False,
) -> bytes:
    size = len(payload) if length is None else length
    where = stream | (0x80000000 if reserved else 0)
    return struct.pack("!HBBBI", size >> 8, size & 0xFF, kind, flags, where) + payload


def padded(payload: bytes, pad: int | None, *, told: int | None = None) -> bytes:
    """`pad` octets of padding; `told` is the length the frame claims for them."""
    if pad is None:
        return payload
    return bytes((pad if told is None else told,)) + payload + bytes(pad)


def data(stream: int, payload: bytes = b"", *, end: bool = False, pad: int | None = None) -> bytes:
    flags = (END_STREAM if end else 0) | (0 if pad is None else PADDED)
    return frame(DATA, padded(payload, pad), flags=flags, stream=stream)


def headers(
    stream: int,
    fields: bytes = b"",
    *,
    end: bool = True,
    done: bool = True,
    pad: int | None = None,
    depends: tuple[int, int] | None = None,
) -> bytes:
    """`fields` is an encoded block; `done` is END_HEADERS, `depends` a stream and a weight."""
    flags = (END_STREAM if end else 0) | (END_HEADERS if done else 0)
    if depends is not None:
        flags |= PRIORITIZED
        fields = struct.pack("!IB", *depends) + fields
    if pad is not None:
        flags |= PADDED
    return frame(HEADERS, padded(fields, pad), flags=flags, stream=stream)


def continuation(stream: int, fields: bytes = b"", *, done: bool = True) -> bytes:
    return frame(CONTINUATION, fields, flags=END_HEADERS if done else 0, stream=stream)


def rst(stream: int, code: int = Code.CANCEL) -> bytes:
    return frame(RST_STREAM, struct.pack("!I", code), stream=stream)


def settings(*pairs: tuple[int, int], ack: bool = False) -> bytes:
    payload = b"".join(struct.pack("!HI", *pair) for pair in pairs)
    return frame(SETTINGS, payload, flags=ACK if ack else 0)


def ping(payload: bytes = b"tidegate", *, ack: bool = False) -> bytes:
    return frame(PING, payload, flags=ACK if ack else 0)


def goaway(last: int = 0, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, struct.pack("!II", last, code) + debug)


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, struct.pack("!I", increment), stream=stream)


def priority(stream: int, depends: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, struct.pack("!IB", depends, weight), stream=stream)


def priority_update(stream: int, value: bytes) -> bytes:
    return frame(PRIORITY_UPDATE, struct.pack("!I", stream) + value)


# Blocks of fields.


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """RFC 7541 5.1, with the pattern `first` above the prefix."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out = bytearray((first | most,))
    value -= most
    while value > 127:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


def string(raw: bytes) -> bytes:
    return integer(len(raw), 7) + raw


def literal(name: bytes, value: bytes, *, pattern: int = 0) -> bytes:
    """A new name: without indexing (pattern 0), never indexed (0x10), indexed (0x40)."""
    return bytes((pattern,)) + string(name) + string(value)


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def request(path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET") -> Fields:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"example.com"),
        *more,
    ]


def get(stream: int, path: bytes = b"/", *more: tuple[bytes, bytes]) -> bytes:
    """A whole request in one frame."""
    return headers(stream, block(request(path, *more)))


def post(stream: int, path: bytes = b"/", *more: tuple[bytes, bytes]) -> bytes:
    """A request whose content is yet to come: its stream stays open."""
    return headers(stream, block(request(path, *more, method=b"POST")), end=False)
