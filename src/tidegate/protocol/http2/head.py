"""A request's field section (RFC 9113 8.2, 8.3): from a list of fields to a head, or what is wrong.

Strategy: one pass over the fields, with a table for those that mean something to the protocol. A
malformed request raises `StreamFault`; one that is well-formed and cannot be served as it is raises
`Refusal`, which is an answer. Heads are values of their fields, and clients repeat themselves, so
those found good are kept within bounds, for all connections of the process together.
"""

from __future__ import annotations

import re

from tidegate.protocol.engine import Limits
from tidegate.protocol.events import RequestHead
from tidegate.protocol.headers import BAD_VALUE, OF_THE_CONNECTION, TOKEN, Memory, is_authority
from tidegate.protocol.http2.frames import Code, StreamFault
from tidegate.protocol.http2.priority import DEFAULT, read_priority
from tidegate.protocol.target import LONGEST_METHOD, Refusal, check_expectation, decoded
from tidegate.types import Header, Headers

HEADS = 512  # heads remembered
REMEMBERED_HEAD = 2048  # bytes of fields that are worth remembering

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 5.6.2 without capitals (8.2)
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority", b":protocol"))
# 8.2.2: what HTTP/1.1 says of its connection
OF_HTTP1 = OF_THE_CONNECTION | {b"http2-settings"}
_DIGITS = re.compile(rb"[0-9]{1,18}")
_TARGET = re.compile(rb"/[!\"$-~]*")  # no '#': a fragment is never sent
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*")

_names = Memory()


class Head(RequestHead):
    """A request head of HTTP/2. `length`: its Content-Length, -1 without one.

    `tunnel`: an extended CONNECT (RFC 8441). `continues`: it awaits a 100. `priority`: RFC 9218.
    """

    __slots__ = ("continues", "is_head", "length", "priority", "scheme", "tunnel")

    def __init__(self) -> None:
        self.version = "2"
        self.trailers = False
        self.forwarded = None
        self.upgrade = None
        self.query = b""
        self.length = -1
        self.continues = self.tunnel = self.is_head = False
        self.priority = DEFAULT
        self.scheme = b"https"


def _malformed(reason: str, section: str) -> StreamFault:
    return StreamFault(Code.PROTOCOL_ERROR, reason, section)


def read_head(fields: Headers) -> Head:
    """The head that a field section stands for; raises StreamFault or Refusal."""
    pseudo: dict[bytes, bytes] = {}
    plain: list[Header] = []
    cookies: list[bytes] = []
    head = Head()
    for pair in fields:
        name, value = pair
        if name[:1] == b":":
            if plain or cookies:
                raise _malformed("a pseudo-header field behind an ordinary one", "8.3")
            if name not in _PSEUDO:
                raise _malformed(f"the pseudo-header field {name!r} is unknown here", "8.3")
            if name in pseudo:
                raise _malformed(f"{name.decode()} twice", "8.3")
            pseudo[name] = value
        elif name == b"cookie":
            cookies.append(value)
        else:
            check_field(name, value)
            plain.append(pair)
    _check_values(pseudo, cookies)
    _read_target(head, pseudo)
    _read_fields(head, plain)
    authority = _authority(pseudo.get(b":authority"), plain)
    if cookies:
        plain.append((b"cookie", b"; ".join(cookies)))  # 8.2.3
    head.headers = tuple([authority, *plain] if authority is not None else plain)
    return head


def _check_values(pseudo: dict[bytes, bytes], cookies: list[bytes]) -> None:
    for value in (*pseudo.values(), *cookies):
        check_field(b"cookie", value)


def check_field(name: bytes, value: bytes) -> None:
    """8.2.1, 8.2.2; raises StreamFault."""
    if name not in _names:
        if _NAME.fullmatch(name) is None:
            raise _malformed(f"not a field name in lower case: {name!r}", "8.2.1")
        if name in OF_HTTP1:
            raise _malformed(f"{name.decode()} is HTTP/1.1's", "8.2.2")
        _names.keep(name, name)
    if BAD_VALUE.search(value) is not None:
        raise _malformed(f"a control character in the value of {name!r}", "8.2.1")
    if value and (value[0] in b" \t" or value[-1] in b" \t"):
        raise _malformed(f"white space around the value of {name!r}", "8.2.1")
    if name == b"te" and value.lower() != b"trailers":
        raise _malformed("TE says something else than trailers", "8.2.2")


def _read_target(head: Head, pseudo: dict[bytes, bytes]) -> None:
    """Method, scheme and path, all three there and each once (8.3.1)."""
    method = pseudo.get(b":method")
    if method is None:
        raise _malformed("no :method", "8.3.1")
    if TOKEN.fullmatch(method) is None:
        raise _malformed("the method is not a token", "8.3.1")
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT" and protocol is None:
        if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
            raise _malformed("CONNECT has an :authority, no :scheme and no :path", "8.5")
        raise Refusal(501, "CONNECT is for proxies", "RFC 9110 9.3.6")
    scheme, path = pseudo.get(b":scheme"), pseudo.get(b":path")
    if scheme is None or path is None:
        raise _malformed("no :scheme or no :path", "8.3.1")
    if _SCHEME.fullmatch(scheme) is None:
        raise _malformed("the :scheme is none", "8.3.1")
    if path == b"*":
        if method != b"OPTIONS":
            raise _malformed("'*' is a :path for OPTIONS only", "8.3.1")
    elif _TARGET.fullmatch(path) is None:
        raise _malformed("the :path is not one", "8.3.1")
    if protocol is not None:
        _read_protocol(head, method, protocol, pseudo)
    if method != method.upper() or len(method) > LONGEST_METHOD:
        raise Refusal(501, "methods are case-sensitive, and this one is unknown", "RFC 9110 9.1")
    head.scheme = scheme
    head.method = method.decode()
    head.is_head = method == b"HEAD"
    head.raw_path, _, head.query = path.partition(b"?")
    head.path = decoded(head.raw_path)


def _read_protocol(head: Head, method: bytes, protocol: bytes, pseudo: dict[bytes, bytes]) -> None:
    """Extended CONNECT (RFC 8441 4)."""
    if method != b"CONNECT":
        raise StreamFault(Code.PROTOCOL_ERROR, ":protocol without CONNECT", "RFC 8441 4")
    if b":authority" not in pseudo:
        raise StreamFault(Code.PROTOCOL_ERROR, "no :authority", "RFC 8441 4")
    if protocol.lower() != b"websocket":
        raise Refusal(501, "a :protocol other than websocket", "RFC 8441 4")
    head.upgrade = b"websocket"
    head.tunnel = True


def _authority(authority: bytes | None, plain: list[Header]) -> Header | None:
    """The host field, first of all; where both are there they have to agree (8.3.1)."""
    hosts = [value for name, value in plain if name == b"host"]
    if len(hosts) > 1:
        raise _malformed("more than one Host field", "8.3.1")
    if authority is None:
        if not hosts:
            raise _malformed("neither :authority nor Host", "8.3.1")
        authority = hosts[0]
    elif hosts and hosts[0].lower() != authority.lower():
        raise _malformed("Host is not what :authority is", "8.3.1")
    if not authority or not is_authority(authority):
        raise _malformed("the authority is not host[:port]", "8.3.1")
    if hosts:
        plain[:] = [pair for pair in plain if pair[0] != b"host"]
    return b"host", authority


def _read_fields(head: Head, plain: list[Header]) -> None:
    """What ordinary fields mean for the body and for what leaves first."""
    for name, value in plain:
        if name == b"content-length":
            if head.length >= 0:
                raise _malformed("more than one Content-Length", "8.1.1")
            if _DIGITS.fullmatch(value) is None:
                raise _malformed("Content-Length is not a number", "8.1.1")
            head.length = int(value)
        elif name == b"expect":
            check_expectation(value)
            head.continues = True
        elif name == b"te":
            head.trailers = True  # nothing else may be in it
        elif name == b"priority":
            head.priority = read_priority(value, head.priority)


def check_trailers(fields: Headers) -> None:
    """A trailer section has no pseudo-header fields (8.1); raises StreamFault."""
    for name, value in fields:
        check_field(name, value)


class Heads(dict[Headers, Head]):
    """Heads found good, by their fields; forgets everything when full."""

    def of(self, fields: Headers) -> Head:
        """The head of a field section; raises StreamFault or Refusal."""
        head = self.get(fields)
        if head is None:
            head = read_head(fields)
            if sum([len(name) + len(value) for name, value in fields]) <= REMEMBERED_HEAD:
                if len(self) >= HEADS:
                    self.clear()
                self[fields] = head
        return head


known_heads = Heads()


def check_target(head: Head, limits: Limits) -> None:
    """The bound on a request line holds for what stands in it; raises Refusal."""
    size = len(head.method) + len(head.raw_path) + len(head.query)
    if size > limits.request_line:
        raise Refusal(
            414, f"the request line is longer than {limits.request_line} bytes", "RFC 9110 15.5.15"
        )
