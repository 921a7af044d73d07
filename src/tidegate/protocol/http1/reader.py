"""The grammar of a request's head (RFC 9112 2 to 5): pure functions from bytes to values.

Strategy: a head that has arrived whole is taken by the quick road, a few C-level passes over the
block (`translate`, `count`, `split`). Whatever the quick road does not recognise as good is read
again line by line by `HeadScanner`, which alone decides what is wrong: so the first fault in the
order of the bytes is the one reported, however the input was cut into pieces.

Both results are values that depend on nothing but the bytes, and clients repeat themselves (a
browser sends the same fields with every request of a page): they are memoised, within bounds.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from tidegate.protocol.engine import Limits
from tidegate.protocol.events import RequestLine
from tidegate.protocol.headers import TOKEN, Memory, is_authority
from tidegate.types import Headers

REMEMBERED_LINE = 256  # longer ones are parsed each time: memory stays bounded
REMEMBERED_FIELDS = 2048
BLANK_LINES = 4  # tolerated before a request line (RFC 9112 2.2)


class Refusal(Exception):
    """The peer's head or framing is at fault: what to answer, why, and the section that says so."""

    def __init__(self, status: int, reason: str, section: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.section = section


# ---------------------------------------------------------------------------- the request line

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([^#]*)")
_METHOD_START = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,33}")
LONGEST_METHOD = 32  # the registry's longest, UPDATEREDIRECTREF, has 17


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
    if method != method.upper():
        raise Refusal(501, "methods are case-sensitive, and this one is unknown", "RFC 9110 9.1")
    if b"#" in target:
        raise Refusal(400, "a fragment in the target", "RFC 9112 3.2")
    if method == b"CONNECT":
        raise Refusal(501, "CONNECT is for proxies", "RFC 9110 9.3.6")
    authority = None
    if target[0] != 0x2F:
        target, authority = _other_form(method, target)
    raw_path, _, query = target.partition(b"?")
    return RequestLine(
        method.decode(),
        raw_path,
        query,
        version,
        path=_decoded(raw_path),
        authority=authority,
    )


remembered_line = lru_cache(maxsize=1024)(parse_request_line)


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


def _decoded(raw_path: bytes) -> str:
    """Percent-decoded, then UTF-8; bytes that are not UTF-8 become U+FFFD."""
    if b"%" in raw_path:
        raw_path = unquote_to_bytes(raw_path)
    return raw_path.decode("utf-8", "replace")


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


class Fields:
    """A head's fields and all that framing needs to know of them."""

    __slots__ = (
        "chunked",
        "close",
        "continues",
        "headers",
        "keep_alive",
        "length",
        "trailers",
        "upgrade",
    )

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.length = 0
        self.chunked = False
        self.close = False
        self.keep_alive = False
        self.continues = False
        self.trailers = False
        self.upgrade: bytes | None = None


_SPECIAL = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te")
)
_FIELD_BYTES = bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"\t\r\n"
_DIGITS = re.compile(rb"[0-9]{1,18}")
_names = Memory()


def parse_fields(block: bytes, version: str) -> Fields:
    """The field lines of a head, each with its CRLF, without the empty line; raises Refusal."""
    return interpret(split_fields(block), version)


remembered_fields = lru_cache(maxsize=512)(parse_fields)


def split_fields(block: bytes) -> Headers:
    """Lower-cased names and trimmed values in order; raises Refusal."""
    lines = block.split(b"\r\n")
    lines.pop()
    ends = len(lines)
    if (
        block.translate(None, _FIELD_BYTES)
        or block.count(b"\r") != ends
        or block.count(b"\n") != ends
    ):
        for line in block.split(b"\n"):
            check_field_line(line + b"\n")
        raise AssertionError("the quick road refused what the slow road takes")
    headers = []
    known = _names.get
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            check_field_line(line + b"\r\n")
        headers.append((known(name) or field_name(name), value.strip(b" \t")))
    return tuple(headers)


def field_name(name: bytes) -> bytes:
    """Checked and lower-cased (RFC 9112 5.1: a token, nothing between it and the colon)."""
    if TOKEN.fullmatch(name) is None:
        if name[:1] in (b" ", b"\t"):
            raise Refusal(400, "a field line begins with white space (obs-fold)", "RFC 9112 5.2")
        if name[-1:] in (b" ", b"\t"):
            raise Refusal(400, "white space between field name and colon", "RFC 9112 5.1")
        raise Refusal(400, "not a field name", "RFC 9112 5.1")
    return _names.keep(name, name.lower())


def check_field_line(line: bytes) -> None:
    """One field line with its line end: raises the Refusal it deserves, if any."""
    if not line.endswith(b"\r\n"):
        raise Refusal(400, "a line ends in a bare CR or LF", "RFC 9112 2.2")
    name, colon, value = line[:-2].partition(b":")
    if not colon:
        if name[:1] in (b" ", b"\t"):
            raise Refusal(400, "a field line begins with white space (obs-fold)", "RFC 9112 5.2")
        raise Refusal(400, "a field line without a colon", "RFC 9112 5")
    field_name(name)
    if value.translate(None, _FIELD_BYTES) or b"\r" in value or b"\n" in value:
        raise Refusal(400, "a control character in a field value", "RFC 9110 5.5")


def interpret(headers: Headers, version: str) -> Fields:
    """What the fields mean for framing and for the connection; raises Refusal."""
    fields = Fields(headers)
    special: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _SPECIAL:
            special.setdefault(name, []).append(value)
    _host(special.get(b"host", []), version)
    _framing(fields, special, version)
    options = _tokens(special.get(b"connection"))
    if options:
        fields.close = b"close" in options
        fields.keep_alive = b"keep-alive" in options
    if b"upgrade" in special and b"upgrade" in options:
        fields.upgrade = b",".join(special[b"upgrade"]).lower()
    if b"te" in special:
        # RFC 9110 10.1.4 wants TE named in Connection; clients that forget it still mean it
        fields.trailers = any(
            token.partition(b";")[0].strip() == b"trailers" for token in _tokens(special[b"te"])
        )
    if version != "1.0":
        for value in special.get(b"expect", ()):
            if value.lower() != b"100-continue":
                raise Refusal(417, "an expectation other than 100-continue", "RFC 9110 10.1.1")
            fields.continues = True
    return fields


def _tokens(values: list[bytes] | None) -> list[bytes]:
    if not values:
        return []
    return [token.strip(b" \t") for value in values for token in value.lower().split(b",")]


def _host(hosts: list[bytes], version: str) -> None:
    if len(hosts) > 1:
        raise Refusal(400, "more than one Host field", "RFC 9112 3.2")
    if not hosts:
        if version != "1.0":
            raise Refusal(400, "no Host field", "RFC 9112 3.2")
    elif not is_authority(hosts[0]):
        raise Refusal(400, "Host is not host[:port]", "RFC 9112 3.2")


def _framing(fields: Fields, special: dict[bytes, list[bytes]], version: str) -> None:
    """RFC 9112 6: one way, and only one, to say where the body ends."""
    codings = special.get(b"transfer-encoding")
    lengths = special.get(b"content-length")
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
        fields.chunked = True
    elif lengths is not None:
        if len(lengths) > 1:
            raise Refusal(400, "more than one Content-Length", "RFC 9112 6.3")
        if _DIGITS.fullmatch(lengths[0]) is None:
            raise Refusal(400, "Content-Length is not a number", "RFC 9112 6.3")
        fields.length = int(lengths[0])


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
        "begin",
        "method",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.begin = 0  # where the request line begins, behind the blank lines
        self._start = 0  # where the line not yet complete begins
        self._scanned = 0
        self._line_seen = False
        self._fields = 0
        self._blank = 0
        self.method = ""  # known once the request line is: a refusal of HEAD has no body

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
                return self._start
            self._check_line(line)

    def _check_line(self, line: bytes) -> None:
        if self._line_seen:
            self._check_size(self._start, self._fields)
            check_field_line(line)
            self._fields += 1
            self._check_size(self._start, self._fields)
        elif line == b"\r\n":
            self._blank += 1
            if self._blank > BLANK_LINES:
                raise Refusal(400, "blank lines without end", "RFC 9112 2.2")
            self.begin = self._start
        else:
            check_method_start(line)
            check_line_size(len(line), self._limits)
            if not line.endswith(b"\r\n"):
                raise Refusal(400, "a line ends in a bare CR or LF", "RFC 9112 2.2")
            self.method = parse_request_line(line[:-2]).method
            self._line_seen = True

    def _check_partial(self, buffer: bytearray) -> None:
        partial = len(buffer) - self._start
        if self._line_seen:
            self._check_size(len(buffer), self._fields)
        elif partial:
            start = bytes(buffer[self._start : self._start + LONGEST_METHOD + 1])
            if start != b"\r":  # the first half of a blank line, it may be
                check_method_start(start)
            check_line_size(partial, self._limits)

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


def check_head_size(size: int, fields: int, limits: Limits) -> None:
    """`size` in bytes from the request line on, as far as the head has come."""
    if size > limits.header_size:
        raise Refusal(431, f"the head is larger than {limits.header_size} bytes", "RFC 6585 5")
    if fields > limits.header_count:
        raise Refusal(431, f"more than {limits.header_count} fields", "RFC 6585 5")


def check_body_size(size: int, limits: Limits) -> None:
    """`size` as announced or as far as it has come."""
    if limits.body_size and size > limits.body_size:
        raise Refusal(413, f"the body is larger than {limits.body_size} bytes", "RFC 9110 15.5.14")
