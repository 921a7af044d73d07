"""One stream: its state, what of its request is still to come, what of its answer is still to go.

Strategy: most requests have no body and most answers leave at once, so what those need is on the
stream, and the rest is made when it is needed: an `Inflow` for a body, an `Outflow` for what waits
for a window or for its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tidegate.protocol.engine import FileSlice
from tidegate.protocol.http2.fields import UNMEASURED, Answer
from tidegate.protocol.http2.head import Head
from tidegate.protocol.http2.states import State
from tidegate.types import Header

ReadFile = Callable[[FileSlice, int], bytes]
"""Reads up to so many bytes of a file from its offset on; nothing: it cannot be read."""


class FileCut(Exception):
    """A file ended short of what was promised of it, or cannot be read."""


class Inflow:
    """A body on its way in.

    `window`: what the peer may still send. `size`: how far the window opens. `expected`: bytes that
    Content-Length still promises, -1 without one. `early`: of a tunnel that is not open yet.
    """

    __slots__ = (
        "continues",
        "credit",
        "discard",
        "early",
        "expected",
        "received",
        "size",
        "tunnel",
        "unread",
        "window",
    )

    def __init__(self, window: int, head: Head) -> None:
        self.window = self.size = window
        self.expected = head.length
        self.continues = head.continues
        self.credit = 0  # taken by the application, not yet given back to the peer
        self.received = 0
        self.unread = 0
        self.early: list[bytes] | None = [] if head.tunnel else None
        self.tunnel = head.tunnel
        self.discard = False  # nobody will read it


class Outflow:
    """What of an answer waits. `end`: nothing follows it but the trailers, if there are any."""

    __slots__ = ("end", "pieces", "queued", "scheduled", "trailers")

    def __init__(self) -> None:
        self.pieces: deque[bytes | memoryview | FileSlice] = deque()
        self.queued = 0
        self.scheduled = False
        self.end = False
        self.trailers: list[Header] | None = None

    def put(self, piece: bytes | FileSlice) -> None:
        size = len(piece)
        if size:
            self.pieces.append(piece)
            self.queued += size

    def take(self, most: int, read: ReadFile) -> tuple[list[bytes | memoryview], int]:
        """The next bytes, `most` at most, and how many; raises FileCut."""
        pieces = self.pieces
        taken: list[bytes | memoryview] = []
        size = 0
        while pieces and size < most:
            piece = pieces[0]
            if isinstance(piece, FileSlice):
                piece = self._read(piece, read, most - size)
            length = len(piece)
            if size + length <= most:
                taken.append(piece)
                pieces.popleft()
                size += length
            else:
                view = memoryview(piece)
                taken.append(view[: most - size])
                pieces[0] = view[most - size :]
                size = most
        self.queued -= size
        return taken, size

    def _read(self, piece: FileSlice, read: ReadFile, most: int) -> bytes:
        """The file's next bytes take its place; what is left of it stays behind them.

        No more than leaves at once: 128 streams that had each read ahead would hold 32 MiB.
        """
        data = read(piece, min(piece.count, most))
        if not data:
            raise FileCut
        piece.offset += len(data)
        piece.count -= len(data)
        if piece.count:
            self.pieces.appendleft(data)
        else:
            self.pieces[0] = data
        return data


class Stream:
    """`window`: what we may send. `held`: the answer's head until its first body.

    `owed`: bytes of the answer that are promised, UNMEASURED, or NO_BODY. `dropped`: bytes of a
    body that is not sent. `began`: the head has left.
    """

    __slots__ = (
        "began",
        "dropped",
        "head",
        "held",
        "id",
        "inflow",
        "outflow",
        "owed",
        "priority",
        "sent",
        "state",
        "window",
    )

    def __init__(self, number: int, head: Head, state: State, window: int) -> None:
        self.id = number
        self.head = head
        self.state = state
        self.window = window
        self.priority = head.priority
        self.held: Answer | None = None
        self.began = False
        self.owed = UNMEASURED
        self.dropped = 0
        self.sent = 0
        self.inflow: Inflow | None = None
        self.outflow: Outflow | None = None
