"""Rendering a response's head (RFC 9112 4, 6): the application's fields in, checked bytes out.

Strategy: an application sends the same few fields over and over, so a field found good is
remembered with its rendered line (within bounds), and a head is one lookup a field and one `join`.
How the body is framed is the server's affair: the application's Transfer-Encoding is dropped, its
Content-Length is a promise the engine will hold it to.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tidegate.errors import ApplicationError
from tidegate.protocol.headers import (
    MEMORY,
    SPECIAL,
    Defaults,
    check_name,
    check_status,
    check_trailer,
    check_value,
    read_length,
)
from tidegate.protocol.target import Refusal


class Framing(enum.Enum):
    """How a response's body is delimited (RFC 9112 6.3)."""

    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    UNTIL_CLOSE = enum.auto()
    NO_BODY = enum.auto()
    DONE = enum.auto()  # the whole answer has been handed over


# RFC 9110 15 and the registry's others in use; http.HTTPStatus would cost a start 1 ms, and its
# phrases change with the version of Python
_PHRASES = """\
100 Continue, 101 Switching Protocols, 102 Processing, 103 Early Hints,
200 OK, 201 Created, 202 Accepted, 203 Non-Authoritative Information, 204 No Content,
205 Reset Content, 206 Partial Content, 207 Multi-Status, 208 Already Reported, 226 IM Used,
300 Multiple Choices, 301 Moved Permanently, 302 Found, 303 See Other, 304 Not Modified,
305 Use Proxy, 307 Temporary Redirect, 308 Permanent Redirect,
400 Bad Request, 401 Unauthorized, 402 Payment Required, 403 Forbidden, 404 Not Found,
405 Method Not Allowed, 406 Not Acceptable, 407 Proxy Authentication Required, 408 Request Timeout,
409 Conflict, 410 Gone, 411 Length Required, 412 Precondition Failed, 413 Content Too Large,
414 URI Too Long, 415 Unsupported Media Type, 416 Range Not Satisfiable, 417 Expectation Failed,
418 I'm a Teapot, 421 Misdirected Request, 422 Unprocessable Content, 423 Locked,
424 Failed Dependency, 425 Too Early, 426 Upgrade Required, 428 Precondition Required,
429 Too Many Requests, 431 Request Header Fields Too Large, 451 Unavailable For Legal Reasons,
500 Internal Server Error, 501 Not Implemented, 502 Bad Gateway, 503 Service Unavailable,
504 Gateway Timeout, 505 HTTP Version Not Supported, 506 Variant Also Negotiates,
507 Insufficient Storage, 508 Loop Detected, 510 Not Extended,
511 Network Authentication Required"""
PHRASES = {int(entry[:3]): entry[4:] for entry in _PHRASES.replace("\n", " ").split(", ")}


def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\n".encode()


class StatusLines(dict[int, bytes]):
    """Status lines of final responses, each rendered when it is first sent."""

    def __missing__(self, status: object) -> bytes:
        status = check_status(status)
        line = self[status] = _status_line(status)
        return line


FINAL = StatusLines()


class Flag(enum.IntFlag):
    """What a field of the application's means to the connection."""

    CLOSE = 1
    DATE = 2
    SERVER = 4


class Meaning(NamedTuple):
    """A field that is more than a line: a Content-Length (-1: none), a flag, what is sent of it."""

    length: int
    flag: int
    line: bytes


_LONGEST = 256  # longer fields are rendered each time: memory stays bounded
_known: dict[tuple[bytes, bytes], bytes | Meaning] = {}


def read_fields(headers: Iterable[tuple[bytes, bytes]], lines: list[bytes]) -> tuple[int, int]:
    """Append an application's fields, checked and rendered, to `lines`.

    Returns the Content-Length (-1: none) and the flags of the others; raises ApplicationError.
    """
    if type(headers) is not list and type(headers) is not tuple:
        headers = list(headers)
    length, flags, begin = -1, 0, len(lines)
    known = _known.get
    try:
        for pair in headers:
            line = known(pair)
            if line is None:
                line = _learn(pair)
            if isinstance(line, bytes):
                lines.append(line)
                continue
            flags |= line.flag
            if line.length >= 0:
                if length >= 0:
                    raise ApplicationError("two Content-Length headers in one response")
                length = line.length
            if line.line:
                lines.append(line.line)
    except TypeError:  # a pair that is a list cannot be looked up
        if headers and all(isinstance(pair, tuple) for pair in headers):
            raise ApplicationError(_NO_PAIRS) from None
        del lines[begin:]
        return read_fields(_as_tuples(headers), lines)
    return length, flags


_NO_PAIRS = "response headers must be an iterable of (name, value) pairs of bytes"


def _as_tuples(headers: Iterable[Iterable[bytes]]) -> list[tuple[bytes, bytes]]:
    try:
        pairs = [tuple(pair) for pair in headers]
    except TypeError:
        raise ApplicationError(_NO_PAIRS) from None
    return pairs  # type: ignore[return-value]


def _learn(pair: tuple[bytes, bytes]) -> bytes | Meaning:
    """Check and render a field that was not seen before; it is remembered if it is short."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError
    name = check_name(pair[0])
    value = check_value(name, pair[1])
    line: bytes | Meaning = b"%b: %b\r\n" % pair
    if name.lower() in SPECIAL:
        line = _meaning(name.lower(), value, b"%b: %b\r\n" % pair)
    if len(name) + len(value) <= _LONGEST:
        if len(_known) >= MEMORY:
            _known.clear()
        _known[pair] = line
    return line


def _meaning(name: bytes, value: bytes, line: bytes) -> Meaning:
    if name == b"content-length":
        return Meaning(read_length(value), 0, line)
    if name == b"connection":
        close = b"close" in (option.strip() for option in value.lower().split(b","))
        return Meaning(-1, Flag.CLOSE if close else 0, b"")
    if name == b"date":
        return Meaning(-1, Flag.DATE, line)
    if name == b"server":
        return Meaning(-1, Flag.SERVER, line)
    # Transfer-Encoding, Keep-Alive, Upgrade and their kin are hop-by-hop: ours to say
    return Meaning(-1, 0, b"")


def upgrade_lines(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """What a 426 asks the client to upgrade to (RFC 9110 15.5.22); fields that are checked."""
    for name, value in headers:
        if name.lower() == b"upgrade":
            yield b"upgrade: %b\r\nconnection: upgrade\r\n" % value


def render_trailers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Trailer fields, checked; those of framing and routing are refused."""
    lines = []
    for name, value in headers:
        check_name(name)
        check_value(name, value)
        check_trailer(name)
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def render_informational(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A 1xx response, whole."""
    lines = [_status_line(status)]
    read_fields(headers, lines)
    return b"".join(without_length(lines)) + b"\r\n"


def without_length(lines: list[bytes]) -> list[bytes]:
    """A head's lines for a 1xx or 204 response, which has no Content-Length (RFC 9110 8.6)."""
    return [line for line in lines if line[:15].lower() != b"content-length:"]


def render_refusal(refusal: Refusal, defaults: Defaults, *, bodiless: bool = False) -> bytes:
    """The whole answer to a request at fault; it tells the reason, which is public knowledge."""
    status = refusal.status
    text = f"{status} {PHRASES.get(status, '')}: {refusal.reason} ({refusal.section})\n".encode()
    return b"".join(
        (
            FINAL[status],
            defaults.block,
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(text),
            b"connection: close\r\n\r\n",
            b"" if bodiless else text,
        )
    )
