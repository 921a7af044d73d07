"""Rendering a response's head (RFC 9112 4, 6): the application's fields in, checked bytes out.

Strategy: one loop over the fields, in which a name seen before costs one lookup and brings its
rendered form; only the few names that mean something to the connection take a detour. How the
body is framed is the server's affair: the application's Transfer-Encoding is dropped, its
Content-Length is a promise the engine will hold it to.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from http import HTTPStatus

from tidegate.errors import ApplicationError
from tidegate.protocol.headers import (
    GOOD_VALUES,
    Defaults,
    Memory,
    check_name,
    check_value,
)
from tidegate.protocol.http1.reader import Refusal


class Framing(enum.Enum):
    """How a response's body is delimited (RFC 9112 6.3)."""

    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    UNTIL_CLOSE = enum.auto()
    NO_BODY = enum.auto()
    DONE = enum.auto()  # the whole answer has been handed over


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_reason(status)}\r\n".encode() for status in range(100, 1000)
}

_rendered_names = Memory()
_SPECIAL = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"date", b"server",
     b"upgrade", b"proxy-connection")
)  # fmt: skip


class Head:
    """A response's head, rendered: everything but the fields that say how the body ends."""

    __slots__ = ("close", "dated", "length", "lines", "named")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.length: int | None = None
        self.close = False
        self.dated = False
        self.named = False

    def special(self, name: bytes, value: bytes) -> None:
        """A field that means something to the connection."""
        lowered = name.lower()
        if lowered == b"content-length":
            self._content_length(value)
        elif lowered == b"connection":
            self.close = self.close or b"close" in value.lower()
        elif lowered == b"date":
            self.dated = True
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif lowered == b"server":
            self.named = True
            self.lines.append(b"%b: %b\r\n" % (name, value))
        # Transfer-Encoding, Keep-Alive, Upgrade and their kin are hop-by-hop: ours to say

    def _content_length(self, value: bytes) -> None:
        if not value.isdigit() or len(value) > 18:
            raise ApplicationError(f"Content-Length must be a number, not {value!r}")
        if self.length is not None:
            raise ApplicationError("two Content-Length headers in one response (RFC 9110 8.6)")
        self.length = int(value)


def read_fields(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Check and render an application's response fields; raises ApplicationError."""
    head = Head()
    lines = head.lines
    known = _rendered_names.get
    try:
        for name, value in headers:
            rendered = known(name)
            if rendered is None:
                rendered = _learn(name)
            if value not in GOOD_VALUES:
                check_value(name, value)
            if rendered:
                lines.append(rendered)
                lines.append(value)
                lines.append(b"\r\n")
            else:
                head.special(name, value)
    except (TypeError, ValueError, AttributeError) as error:
        raise ApplicationError(
            "response headers must be an iterable of (name, value) pairs of bytes"
        ) from error
    return head


def _learn(name: bytes) -> bytes:
    """`name: `, or b"" for a special one."""
    check_name(name)
    if name.lower() in _SPECIAL:
        return _rendered_names.keep(name, b"")
    return _rendered_names.keep(name, name + b": ")


def render_trailers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The trailer section with its empty line; framing and routing fields are refused."""
    lines = []
    for name, value in headers:
        check_name(name)
        check_value(name, value)
        if name.lower() in _SPECIAL or name.lower() == b"host":
            raise ApplicationError(f"{name.decode()!r} cannot be a trailer (RFC 9110 6.5.1)")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines) + b"\r\n"


def render_informational(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A 1xx response, whole."""
    return STATUS_LINES[status] + b"".join(read_fields(headers).lines) + b"\r\n"


def render_refusal(refusal: Refusal, defaults: Defaults, *, bodiless: bool = False) -> bytes:
    """The whole answer to a request at fault; it tells the reason, which is public knowledge."""
    status = refusal.status
    text = f"{status} {_reason(status)}: {refusal.reason} ({refusal.section})\n".encode()
    return b"".join(
        (
            STATUS_LINES[status],
            defaults.block,
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(text),
            b"connection: close\r\n\r\n",
            b"" if bodiless else text,
        )
    )
