"""Frames (RFC 9113 4, 6): their names, their heads, and the small ones whole.

Strategy: plain integers, since an Enum's member costs a lookup in Python; the enums at hand are for
what a person reads. What is wrong with a frame is an exception inside this package, with the scope
that RFC 9113 5.4 knows: the stream or the connection.
"""

from __future__ import annotations

import enum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE = 9
MAX_FRAME = 16384  # what we take, and what the peer takes unless it says more (6.5.2)
WINDOW = 65535  # of every stream and connection at first (6.9.2)
LARGEST_WINDOW = 2**31 - 1
LARGEST_STREAM = 2**31 - 1

# 6: frame types
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
PRIORITY_UPDATE = 16  # RFC 9218 7.1

# flags
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEAD = Struct(">BHBBL")  # the length in two parts, type, flags, stream
_HEAD_LONG = Struct(">BHBBLL")
_HEAD_GOAWAY = Struct(">BHBBLLL")


class Code(enum.IntEnum):
    """Error codes (RFC 9113 7)."""

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


class ConnectionFault(Exception):
    """The connection cannot go on (5.4.1): GOAWAY with the code, then the end."""

    def __init__(self, code: Code, reason: str, section: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.section = _named(section)


class StreamFault(Exception):
    """One stream is at fault (5.4.2): RST_STREAM with the code, and the others go on."""

    def __init__(self, code: Code, reason: str, section: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.section = _named(section)


def _named(section: str) -> str:
    return section if section.startswith("RFC") else f"RFC 9113 {section}"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Any frame; the payload is within the peer's bound."""
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def rst_stream(stream: int, code: int) -> bytes:
    return _HEAD_LONG.pack(0, 4, RST_STREAM, 0, stream, code)


def window_update(stream: int, increment: int) -> bytes:
    return _HEAD_LONG.pack(0, 4, WINDOW_UPDATE, 0, stream, increment)


def goaway(last: int, code: int, debug: bytes = b"") -> bytes:
    return _HEAD_GOAWAY.pack(0, 8 + len(debug), GOAWAY, 0, 0, last, code) + debug


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of DATA or HEADERS without its padding (6.1, 6.2)."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "no room for the length of padding", "4.2")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "padding longer than the frame", "6.1")
    return payload[1 : len(payload) - padding]
