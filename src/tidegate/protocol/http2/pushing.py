"""Server push (RFC 9113 8.4), as the extension `http.response.push` asks for it.

Strategy: a promise is a request that we make up; it is checked like any other, becomes a stream and
an event, and is answered by the application. Where the client takes no pushes nothing is promised:
it asks by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.errors import ApplicationError
from tidegate.protocol.engine import Limits, StreamTerms
from tidegate.protocol.events import Event, Request
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http2.fields import read_fields
from tidegate.protocol.http2.frames import LARGEST_STREAM, PUSH_PROMISE, StreamFault
from tidegate.protocol.http2.head import Head, read_head
from tidegate.protocol.http2.receiving import Receiving
from tidegate.protocol.http2.states import State
from tidegate.protocol.http2.streams import ReadFile, Stream
from tidegate.protocol.target import Refusal
from tidegate.types import Header


class Pushing(Receiving):
    """`_promised`: requests that are to be begun, once nobody's `send` is in the way."""

    __slots__ = ("_last_push", "_promised", "stalled")

    def __init__(
        self, limits: Limits, terms: StreamTerms, defaults: Defaults, read_file: ReadFile
    ) -> None:
        super().__init__(limits, terms, defaults, read_file)
        self.stalled = False
        self._last_push = 0
        self._promised: list[Event] = []

    @property
    def supports_push(self) -> bool:
        """The client has not said that it wants none, and may still be promised something."""
        return self._peer.push and not self._leaving and self._pushes < self._peer.pushes

    def push(self, stream: int, path: str, headers: Iterable[Header]) -> None:
        """Promise a request on the stream of another; nothing where the client takes none."""
        head, fields = _promise(path, read_fields(headers), self._streams.get(stream))
        parent = self._streams.get(stream)
        if parent is None or not stream & 1 or parent.state is State.HALF_LOCAL:
            return
        number = self._last_push + 2
        if not self.supports_push or number > LARGEST_STREAM:
            return
        self._last_push = number
        self._pushes += 1
        block = number.to_bytes(4, "big") + self._encode(fields)
        self._put_block(stream, block, 0, PUSH_PROMISE)
        self._streams[number] = Stream(number, head, State.RESERVED, self._peer.window)
        self._promised.append(Request(number, head, True))
        self.stalled = True


def _promise(path: str, headers: list[Header], parent: Stream | None) -> tuple[Head, list[Header]]:
    """The request that is promised, checked as if it had come; raises ApplicationError."""
    scheme, authority = b"https", b"localhost"
    if parent is not None:
        scheme, authority = parent.head.scheme, parent.head.headers[0][1]
    fields: list[Header] = [
        (b":method", b"GET"),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", path.encode("utf-8", "surrogatepass")),
        *headers,
    ]
    try:
        head = read_head(tuple(fields))
    except (StreamFault, Refusal) as fault:
        raise ApplicationError(
            f"http.response.push of {path!r}: {fault.reason} ({fault.section})"
        ) from None
    return head, fields
