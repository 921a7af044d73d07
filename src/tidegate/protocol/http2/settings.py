"""SETTINGS (RFC 9113 6.5): what we announce, what the peer may say, and what follows from it.

A value takes effect in the order of its frame, and each frame is acknowledged at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from tidegate.protocol.engine import StreamTerms
from tidegate.protocol.http2.frames import (
    LARGEST_WINDOW,
    MAX_FRAME,
    SETTINGS,
    WINDOW,
    Code,
    ConnectionFault,
    frame,
)

# 6.5.2, RFC 8441 3, RFC 9218 2.1
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 5, 6
ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES = 8, 9

ENTRY = Struct(">HL")


class Peer:
    """What the peer has told: its defaults until then (6.5.2)."""

    __slots__ = ("frame", "push", "pushes", "table", "window")

    def __init__(self) -> None:
        self.table = 4096
        self.push = True
        self.pushes = LARGEST_WINDOW  # streams of ours it allows at once: no bound
        self.window = WINDOW
        self.frame = MAX_FRAME


def announced(terms: StreamTerms, list_size: int) -> bytes:
    """Our first frame (3.4)."""
    pairs = (
        (MAX_CONCURRENT_STREAMS, terms.streams),
        (INITIAL_WINDOW_SIZE, min(WINDOW, terms.window)),
        (MAX_HEADER_LIST_SIZE, list_size),
        (NO_RFC7540_PRIORITIES, 1),
        *([(ENABLE_CONNECT_PROTOCOL, 1)] if terms.tunnels else []),
    )
    return frame(SETTINGS, 0, 0, b"".join(ENTRY.pack(*pair) for pair in pairs))


def read(payload: bytes) -> Iterator[tuple[int, int]]:
    """Identifiers and values in their order, each found good; raises ConnectionFault."""
    if len(payload) % ENTRY.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS of a broken length", "6.5")
    for name, value in ENTRY.iter_unpack(payload):
        check(name, value)
        yield name, value


def check(name: int, value: int) -> None:
    """6.5.2; what has no name yet is anything."""
    if name in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES) and value > 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a switch that is neither 0 nor 1", "6.5.2")
    if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
        raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window beyond 2^31-1", "6.5.2")
    if name == MAX_FRAME_SIZE and not MAX_FRAME <= value <= 2**24 - 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a frame size out of its bounds", "6.5.2")
