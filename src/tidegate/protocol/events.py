"""What an engine tells: the events of a request, the same for every HTTP version.

Events are small slotted objects, written once and never changed, so that what was parsed once may
be shared between requests. A peer's fault is an event too (`Fault`), never an exception.
"""

from __future__ import annotations

from typing import TypeAlias

from tidegate.types import Headers


class RequestHead:
    """What a request says before its body; each engine has its own kind, and fills it.

    Immutable: the same bytes may give the same object. `trailers`: the client reads them.
    `upgrade` is the lower-cased protocol it would like to switch to, or None. `forwarded`: its
    fields say what a proxy knows of the client; None until somebody has looked for them.
    """

    __slots__ = (
        "forwarded",
        "headers",
        "method",
        "path",
        "query",
        "raw_path",
        "trailers",
        "upgrade",
        "version",
    )

    method: str
    raw_path: bytes
    query: bytes
    version: str
    path: str
    headers: Headers
    trailers: bool
    upgrade: bytes | None
    forwarded: bool | None


class Request:
    """A request's head is complete. `end`: no body follows."""

    __slots__ = ("end", "head", "stream")

    def __init__(self, stream: int, head: RequestHead, end: bool) -> None:
        self.stream = stream
        self.head = head
        self.end = end


class Body:
    """A piece of a request's body, framing removed. `end`: nothing follows."""

    __slots__ = ("data", "end", "stream")

    def __init__(self, stream: int, data: bytes, end: bool) -> None:
        self.stream = stream
        self.data = data
        self.end = end


class Reset:
    """The peer gave a stream up (or left): nothing more comes from it, nobody may be reading.

    `final`: the stream is gone, and whatever is still said on it reaches nobody.
    """

    __slots__ = ("final", "reason", "stream")

    def __init__(self, stream: int, reason: str, *, final: bool = False) -> None:
        self.stream = stream
        self.reason = reason
        self.final = final


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


class Switch:
    """The client speaks HTTP/2 from here on (RFC 9113 3.3): `data` begins with its preface."""

    __slots__ = ("data", "stream")

    def __init__(self, data: bytes) -> None:
        self.stream = 0
        self.data = data


Event: TypeAlias = Request | Body | Reset | Fault | Switch
