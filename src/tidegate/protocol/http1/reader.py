"""The grammar of a request's head (RFC 9112 2 to 5): pure functions from bytes to values.

Strategy: a head that has arrived whole is split and looked up: field lines repeat from request to
request, and what a line means depends on nothing but its bytes, so lines found good are remembered
within bounds (0.08 us a line instead of 0.5). Whatever is not good on this quick road is read again
line by line by `HeadScanner`, which alone decides what is wrong: so the first fault in the order of
the bytes is the one reported, however the input was cut into pieces.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, NoReturn

from tidegate.protocol.engine import Limits
from tidegate.protocol.events import RequestHead
from tidegate.protocol.headers import MEMORY, TOKEN, Memory, is_authority
from tidegate.protocol.target import (
    LONGEST_METHOD,
    Refusal,
    check_expectation,
    check_head_size,
    decoded,
)
from tidegate.types import Header, Headers

REMEMBERED_LINE = 256  # longer lines are parsed each time: memory stays bounded
BLANK_LINES = 4  # tolerated before a request line (RFC 9112 2.2)


# ---------------------------------------------------------------------------- the request line

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([^#]*)")
_METHOD_START = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,33}")


class RequestLine(NamedTuple):
    method: str
    raw_path: bytes
    query: bytes
    version: str
    path: str
    authority: bytes | None  # of a target in absolute-form


def parse_request_line(line: bytes) -> RequestLine:
    """A request line without its CRLF; raises Refusal."""
    match = _LINE.fullmatch(line)
    if match is None:
        _refuse_line(line)
    method, target, major, minor = match.groups()
    if len(method) > LONGEST_METHOD:
        check_method_start(method)
    if major != b"1":
        raise Refusal(505, f"HTTP/{major.decode()} is not spoken here", "RFC 9110 15.6.6")
    version = "1.0" if minor == b"0" else "1.1"
    if not method.isupper() and method != method.upper():
        raise Refusal(501, "methods are case-sensitive, and this one is unknown", "RFC 9110 9.1")
    if b"#" in target:
        raise Refusal(400, "a fragment in the target", "RFC 9112 3.2")
    if method == b"CONNECT":
        raise Refusal(501, "CONNECT is for proxies", "RFC 9110 9.3.6")
    authority = None
    if target[0] != 0x2F:
        target, authority = _other_form(method, target)
    raw_path, _, query = target.partition(b"?")
    return RequestLine(method.decode(), raw_path, query, version, decoded(raw_path), authority)


_remembered_line = lru_cache(maxsize=512)(parse_request_line)


def _line_of(line: bytes) -> RequestLine:
    return _remembered_line(line) if len(line) <= REMEMBERED_LINE else parse_request_line(line)


def _other_form(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """Absolute-form and asterisk-form (RFC 9112 3.2.2, 3.2.4) as (origin-form, authority)."""
    if target == b"*":
        if method != b"OPTIONS":
            raise Refusal(400, "'*' is a target for OPTIONS only", "RFC 9112 3.2.4")
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Refusal(400, "the target has none of the four forms", "RFC 9112 3.2")
    authority, rest = match.groups()
    if not authority or authority[0] == 0x3A or not is_authority(authority):
        raise Refusal(400, "the target's authority is not host[:port]", "RFC 9112 3.2.2")
    if rest[:1] != b"/":
        rest = b"*" if not rest and method == b"OPTIONS" else b"/" + rest
    return rest, authority


def _refuse_line(line: bytes) -> NoReturn:
    parts = line.split(b" ")
    if TOKEN.fullmatch(parts[0]) is None:
        raise Refusal(400, "the request line does not begin with a method", "RFC 9112 3.1")
    if len(parts) == 2 and b"HTTP/" not in line:
        raise Refusal(400, "no HTTP version: HTTP/0.9 is not spoken here", "RFC 9112 2.3")
    if len(parts) != 3 or not parts[1]:
        raise Refusal(400, "the request line is not 'method target version'", "RFC 9112 3")
    if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", parts[2]) is None:
        raise Refusal(400, "the version is not 'HTTP/digit.digit'", "RFC 9112 2.3")
    raise Refusal(400, "the target holds a character that a URI cannot", "RFC 9112 3.2")


# ---------------------------------------------------------------------------- the fields


class Framing(NamedTuple):
    """What the fields of a head mean for its body and its connection."""

    length: int = 0
    chunked: bool = False
    closes: bool = False  # the client ends the connection after this exchange
    continues: bool = False  # it awaits 100 before it sends the body
    trailers: bool = False
    upgrade: bytes | None = None


_SPECIAL = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te")
)
_FIELD_BYTES = bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"\t"
_DIGITS = re.compile(rb"[0-9]{1,18}")
_names = Memory()
_lines: dict[bytes, Header] = {}


def split_fields(block: bytes) -> Headers:
    """Field lines and the empty line as lower-cased names and trimmed values; raises Refusal."""
    known = _lines.get
    lines = block.split(b"\r\n")
    del lines[-2:]
    return tuple([known(line) or _learn_line(line) for line in lines])


def _learn_line(line: bytes) -> Header:
    """A field line that was not seen before; it is remembered if it is short."""
    pair = parse_field_line(line + b"\r\n")
    if len(line) <= REMEMBERED_LINE:
        if len(_lines) >= MEMORY:
            _lines.clear()
        _lines[line] = pair
    return pair


def parse_field_line(line: bytes) -> Header:
    """One field line with its line end; raises Refusal (RFC 9112 5)."""
    if not line.endswith(b"\r\n"):
        raise Refusal(400, "a line ends in a bare CR or LF", "RFC 9112 2.2")
    name, colon, value = line[:-2].partition(b":")
    lowered = _names.get(name)
    if lowered is None or not colon:
        if name[:1] in (b" ", b"\t"):
            raise Refusal(400, "a field line begins with white space (obs-fold)", "RFC 9112 5.2")
        if not colon:
            raise Refusal(400, "a field line without a colon", "RFC 9112 5")
        if name[-1:] in (b" ", b"\t"):
            raise Refusal(400, "white space between field name and colon", "RFC 9112 5.1")
        if TOKEN.fullmatch(name) is None:
            raise Refusal(400, "not a field name", "RFC 9112 5.1")
        lowered = _names.keep(name, name.lower())
    if value.translate(None, _FIELD_BYTES):
        raise Refusal(400, "a control character in a field value", "RFC 9110 5.5")
    return lowered, value.strip(b" \t")


def interpret(headers: Headers, version: str) -> Framing:
    """What the fields mean for framing and for the connection; raises Refusal."""
    special = tuple([pair for pair in headers if pair[0] in _SPECIAL])
    if sum([len(value) for _, value in special]) > REMEMBERED_LINE:
        return _interpret.__wrapped__(special, version)  # not worth the memory
    return _interpret(special, version)


@lru_cache(maxsize=512)
def _interpret(special: Headers, version: str) -> Framing:
    found: dict[bytes, list[bytes]] = {}
    for name, value in special:
        found.setdefault(name, []).append(value)
    old = version == "1.0"
    _check_host(found.get(b"host", []), version)
    length, chunked = _body(found.get(b"transfer-encoding"), found.get(b"content-length"), version)
    options = _tokens(found.get(b"connection"))
    upgrade = None
    if not old and b"upgrade" in found and b"upgrade" in options:  # RFC 9110 7.8
        upgrade = b",".join(found[b"upgrade"]).lower()
        if b"websocket" in _tokens([upgrade]):
            upgrade = b"websocket"  # of a list, in the client's order, we may choose (RFC 9110 7.8)
    continues = False
    for value in () if old else found.get(b"expect", ()):
        check_expectation(value)
        continues = bool(length or chunked)
    return Framing(
        length,
        chunked,
        closes=b"close" in options or (old and b"keep-alive" not in options),
        continues=continues,
        # RFC 9110 10.1.4 wants TE named in Connection; clients that forget it still mean it
        trailers=not old
        and any(
            token.partition(b";")[0].strip() == b"trailers" for token in _tokens(found.get(b"te"))
        ),
        upgrade=upgrade,
    )


def _tokens(values: list[bytes] | None) -> list[bytes]:
    if not values:
        return []
    return [token.strip(b" \t") for value in values for token in value.lower().split(b",")]


def _check_host(hosts: list[bytes], version: str) -> None:
    if len(hosts) > 1:
        raise Refusal(400, "more than one Host field", "RFC 9112 3.2")
    if not hosts:
        if version != "1.0":
            raise Refusal(400, "no Host field", "RFC 9112 3.2")
    elif not is_authority(hosts[0]):
        raise Refusal(400, "Host is not host[:port]", "RFC 9112 3.2")


def _body(
    codings: list[bytes] | None, lengths: list[bytes] | None, version: str
) -> tuple[int, bool]:
    """RFC 9112 6: one way, and only one, to say where the body ends: (length, chunked)."""
    if codings is not None:
        if version == "1.0":
            raise Refusal(400, "Transfer-Encoding in HTTP/1.0", "RFC 9112 6.1")
        if lengths is not None:
            raise Refusal(400, "both Transfer-Encoding and Content-Length", "RFC 9112 6.1")
        names = _tokens(codings)
        if names[-1] != b"chunked":
            raise Refusal(400, "Transfer-Encoding does not end in chunked", "RFC 9112 6.3")
        if b"chunked" in names[:-1]:
            raise Refusal(400, "chunked applied more than once", "RFC 9112 7")
        if len(names) > 1:
            raise Refusal(501, "a transfer coding other than chunked", "RFC 9112 6.1")
        return 0, True
    if lengths is None:
        return 0, False
    if len(lengths) > 1:
        raise Refusal(400, "more than one Content-Length", "RFC 9112 6.3")
    if _DIGITS.fullmatch(lengths[0]) is None:
        raise Refusal(400, "Content-Length is not a number", "RFC 9112 6.3")
    return int(lengths[0]), False


# ---------------------------------------------------------------------------- the whole head


class Parsed(RequestHead):
    """A head and how its request is framed.

    `plain`: 1.1, kept alive, no body. `usual`: neither 1.0 nor HEAD.
    """

    __slots__ = ("end", "framing", "is_head", "old", "plain", "usual")

    def __init__(self, line: RequestLine, headers: Headers, framing: Framing) -> None:
        self.method, self.raw_path, self.query, self.version, self.path, authority = line
        if authority is not None:
            # RFC 9112 3.2.2: the target's authority replaces whatever Host said
            others = [pair for pair in headers if pair[0] != b"host"]
            headers = ((b"host", authority), *others)
        self.headers = headers
        self.trailers = framing.trailers
        self.upgrade = framing.upgrade
        self.forwarded = None
        self.framing = framing
        self.is_head = self.method == "HEAD"
        self.old = self.version == "1.0"
        self.usual = not self.is_head and not self.old
        self.end = not (framing.length or framing.chunked)
        self.plain = self.end and not self.old and not framing.closes


NO_REQUEST = Parsed(RequestLine("", b"", b"", "1.1", "", None), (), Framing())
"""Stands for the request before the first one has come."""


def parse_head(head: bytes, limits: Limits) -> Parsed | None:
    """A head with its empty line, if it is good; None: the scanner shall say what is wrong."""
    line, _, block = head.partition(b"\r\n")
    if len(line) > limits.request_line or len(head) > limits.header_size:
        return None
    try:
        request_line = _line_of(line)
        headers = split_fields(block)
        framing = interpret(headers, request_line.version)
    except Refusal:
        return None
    if len(headers) > limits.header_count:
        return None
    return Parsed(request_line, headers, framing)


def insist_on_head(head: bytes) -> Parsed:
    """A head with its empty line that the scanner has found good so far; raises Refusal."""
    line, _, block = head.partition(b"\r\n")
    request_line = parse_request_line(line)
    headers = split_fields(block)
    return Parsed(request_line, headers, interpret(headers, request_line.version))


# ---------------------------------------------------------------------------- line by line


class HeadScanner:
    """Reads a head that is arriving in pieces (or has a fault), one complete line at a time.

    Holds only offsets into the caller's buffer: nothing is scanned twice, so a head that drips in
    byte by byte costs no more than its length.
    """

    __slots__ = (
        "_blank",
        "_fields",
        "_limits",
        "_line_seen",
        "_scanned",
        "_start",
        "asks_head",
        "begin",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.begin = 0  # where the request line begins, behind the blank lines
        self._start = 0  # where the line not yet complete begins
        self._scanned = 0
        self._line_seen = False
        self._fields = 0
        self._blank = 0
        self.asks_head = False  # whose refusal has no body, though its line be the fault

    def scan(self, buffer: bytearray) -> int | None:
        """The offset behind the head's empty line, None while it has not come; raises Refusal."""
        while True:
            newline = buffer.find(b"\n", self._scanned)
            if newline < 0:
                self._scanned = len(buffer)
                self._check_partial(buffer)
                return None
            self._scanned = newline + 1
            line = bytes(buffer[self._start : newline + 1])
            self._start = newline + 1
            if line == b"\r\n" and self._line_seen:
                self._check_size(self._start, self._fields)
                return self._start
            self._check_line(line)

    def _check_line(self, line: bytes) -> None:
        if self._line_seen:
            self._check_size(self._start, self._fields)
            parse_field_line(line)
            self._fields += 1
            self._check_size(self._start, self._fields)
        elif line == b"\r\n":
            self._blank += 1
            if self._blank > BLANK_LINES:
                raise Refusal(400, "blank lines without end", "RFC 9112 2.2")
            self.begin = self._start
        else:
            self._see_method(line)
            check_method_start(line)
            check_line_size(len(line), self._limits)
            if not line.endswith(b"\r\n"):
                raise Refusal(400, "a line ends in a bare CR or LF", "RFC 9112 2.2")
            parse_request_line(line[:-2])
            self._line_seen = True

    def _check_partial(self, buffer: bytearray) -> None:
        partial = len(buffer) - self._start
        if self._line_seen:
            self._check_size(len(buffer), self._fields)
        elif partial:
            start = bytes(buffer[self._start : self._start + LONGEST_METHOD + 1])
            self._see_method(start)
            if start != b"\r":  # the first half of a blank line, it may be
                check_method_start(start)
            if partial > LONGEST_METHOD or b" " in start:  # before, it may be the method's fault
                check_line_size(partial, self._limits)

    def _see_method(self, line: bytes) -> None:
        self.asks_head = line.startswith(b"HEAD ")

    def _check_size(self, end: int, fields: int) -> None:
        check_head_size(end - self.begin, fields, self._limits)


def check_method_start(line: bytes) -> None:
    """Known from the first bytes on: TLS spoken to a plain port need not wait for a line's end."""
    match = _METHOD_START.match(line)
    if match is None:
        raise Refusal(400, "the request line does not begin with a method", "RFC 9112 3.1")
    if match.end() > LONGEST_METHOD:
        raise Refusal(501, "a method longer than any there is", "RFC 9112 3")


def check_line_size(size: int, limits: Limits) -> None:
    """`size` counts the CRLF as far as it has come."""
    if size > limits.request_line + 2:
        raise Refusal(
            414, f"the request line is longer than {limits.request_line} bytes", "RFC 9112 3"
        )
