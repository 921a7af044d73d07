"""What an engine tells: the events of a request, the same for every HTTP version.

Events are small slotted objects, written once and never changed, so that what was parsed once may
be shared between requests. A peer's fault is an event too (`Fault`), never an exception.
"""

from __future__ import annotations

from typing import TypeAlias

from tidegate.types import Headers


class RequestLine:
    """Method, target and version. Immutable: the same line parsed again may be the same object."""

    __slots__ = ("authority", "method", "path", "query", "raw_path", "version")

    def __init__(
        self,
        method: str,
        raw_path: bytes,
        query: bytes,
        version: str,
        *,
        path: str,
        authority: bytes | None = None,
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.query = query
        self.version = version
        self.path = path
        self.authority = authority


class Request:
    """A request's head is complete. `end`: no body follows. `trailers`: the client reads them.

    `upgrade` is the lower-cased protocol the client would like to switch to, or None.
    """

    __slots__ = ("end", "headers", "line", "stream", "trailers", "upgrade")

    def __init__(
        self,
        stream: int,
        line: RequestLine,
        headers: Headers,
        end: bool,
        trailers: bool,
        *,
        upgrade: bytes | None = None,
    ) -> None:
        self.stream = stream
        self.line = line
        self.headers = headers
        self.end = end
        self.trailers = trailers
        self.upgrade = upgrade


class Body:
    """A piece of a request's body, framing removed. `end`: nothing follows."""

    __slots__ = ("data", "end", "stream")

    def __init__(self, stream: int, data: bytes, end: bool) -> None:
        self.stream = stream
        self.data = data
        self.end = end


class Reset:
    """The peer gave a stream up (or left): nothing more comes from it, nobody may be reading."""

    __slots__ = ("reason", "stream")

    def __init__(self, stream: int, reason: str) -> None:
        self.stream = stream
        self.reason = reason


class Fault:
    """The peer broke the protocol: nothing more is read from this connection.

    `answered`: the engine has queued the error answer, and no other may follow it.
    `stream` is the request it broke, 0 where none had begun.
    """

    __slots__ = ("answered", "reason", "section", "status", "stream")

    def __init__(
        self, stream: int, status: int, reason: str, section: str, *, answered: bool
    ) -> None:
        self.stream = stream
        self.status = status
        self.reason = reason
        self.section = section
        self.answered = answered


Event: TypeAlias = Request | Body | Reset | Fault
