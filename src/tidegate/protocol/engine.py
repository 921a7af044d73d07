"""The seam between HTTP versions: what every engine offers to those who drive it.

An engine is called synchronously, holds no socket and knows no clock. `receive` takes bytes and
gives events; the `send_*` methods take what the application wants and render it; `take_output`
hands the rendered bytes to whoever writes them. What differs between versions is data on the
engine (`supports_*`), never a test for the version in the layers above.

`stream` is a request's number: HTTP/1 counts them, HTTP/2 has its own. `send_head` holds the head
back until the first body (one packet), `take_body` asks for the 100 and opens windows, `send_body`
returns what nobody has taken yet (behind a window, or in the output), `reset` ends a stream, or the
connection where there is but one, `stop` says `Connection: close` or GOAWAY. `open_tunnel` is
a 101, or a 200 to an extended CONNECT (RFC 8441): from then on `Body` events and `send_body` carry
the bytes of another protocol, of which it returns those that have come already.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

from tidegate.protocol.events import Event


class Limits(NamedTuple):
    """Bounds on what a peer may send. `body_size` 0: no bound."""

    request_line: int = 8192
    header_size: int = 65536
    header_count: int = 100
    body_size: int = 0


class StreamTerms(NamedTuple):
    """Where a connection carries many requests at once. `window`: of all their bodies.

    `upgrade`: a request of HTTP/1.1 may ask to go on like that. `tunnels`: WebSocket is served.
    """

    streams: int = 128
    window: int = 1024 * 1024
    resets: int = 1000
    idle_frames: int = 1000
    upgrade: bool = False
    tunnels: bool = True


class FileSlice:
    """`count` bytes of an open file from `offset` on: the kernel may copy them by itself."""

    __slots__ = ("count", "fd", "offset")

    def __init__(self, fd: int, offset: int, count: int) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count

    def __len__(self) -> int:
        return self.count


Output: TypeAlias = bytes | memoryview | FileSlice


class Waiting(enum.Enum):
    """What an engine needs next from its peer: the deadlines depend on it."""

    IDLE = enum.auto()  # nothing has begun
    HEAD = enum.auto()  # a head has begun
    BODY = enum.auto()  # a body has begun
    NOTHING = enum.auto()  # it is our turn


class Ending(enum.Enum):
    """Whether the connection ends once the output is written."""

    NO = enum.auto()
    CLOSE = enum.auto()  # close once all is written
    STAGED = enum.auto()  # shut the write side, discard input, close (RFC 9112 9.6)
    ABORT = enum.auto()  # reset: a plain close would pass for the end of a whole answer


class Engine(Protocol):
    supports_trailers: bool
    supports_early_hints: bool
    tunnel_status: int  # of the answer that opens a tunnel
    tunnel_report: int  # bytes taken of one that are worth a `take_body`
    ending: Ending
    stalled: bool  # input is buffered that `receive(b"")` may go on with

    @property
    def supports_push(self) -> bool: ...
    @property
    def hungry(self) -> bool: ...  # False: stop reading, the application is behind
    @property
    def resting(self) -> bool: ...  # between requests, with nothing to do, to send or to end
    @property
    def waiting(self) -> Waiting: ...
    def receive(self, data: bytes) -> list[Event]: ...
    def receive_eof(self) -> list[Event]: ...
    def receive_timeout(self) -> list[Event]: ...
    def take_body(self, stream: int, size: int) -> None: ...
    def send_informational(
        self, stream: int, status: int, headers: Iterable[tuple[bytes, bytes]]
    ) -> None: ...
    def send_head(
        self, stream: int, status: int, headers: Iterable[tuple[bytes, bytes]]
    ) -> None: ...
    def send_body(self, stream: int, data: bytes | FileSlice, end: bool) -> int: ...
    def send_trailers(
        self, stream: int, headers: Iterable[tuple[bytes, bytes]], end: bool = True
    ) -> None: ...
    def push(self, stream: int, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None: ...
    def open_tunnel(
        self, stream: int, protocol: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> bytes: ...
    def queued(self, stream: int) -> int: ...
    def reset(self, stream: int) -> None: ...
    def retire(self) -> None: ...
    def stop(self) -> None: ...
    def take_output(self) -> list[Output]: ...
    def drop_output(self) -> None: ...  # nobody will take it: nothing is queued any more
