"""The opening handshake, a server's side of it (RFC 6455 4.2; over HTTP/2 and 3: RFC 8441 5).

Strategy: what the client asks for is read once into an `Offer`; whatever is wrong with it raises a
`Refused`, which carries the answer. Origin is left to the application: who may connect is its
affair. The response's fields are made from the offer and from what the application chose.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from tidegate.errors import ApplicationError
from tidegate.protocol.events import RequestHead
from tidegate.protocol.headers import TOKEN, check_name, check_value
from tidegate.types import Header, Headers

VERSION = b"13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OURS = frozenset(
    (b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol",
     b"connection", b"upgrade", b"transfer-encoding", b"content-length", b"keep-alive")
)  # fmt: skip


class Refused(Exception):
    """The handshake cannot succeed: the status, the reason and more fields of the answer."""

    def __init__(self, status: int, reason: str, section: str, *headers: Header) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.section = section
        self.headers = headers


class Offer:
    """What a client wants: its key (HTTP/1.1 only), subprotocols and extensions in its order."""

    __slots__ = ("extensions", "key", "subprotocols")

    def __init__(self, key: bytes, subprotocols: list[str], extensions: list[bytes]) -> None:
        self.key = key
        self.subprotocols = subprotocols
        self.extensions = extensions


def read_offer(head: RequestHead) -> Offer:
    """What a handshake says; raises Refused (RFC 6455 4.2.1).

    An extended CONNECT (RFC 8441 5) is one by its method, and has no key.
    """
    extended = head.method == "CONNECT"
    if head.method != "GET" and not extended:
        raise Refused(400, "a WebSocket handshake is a GET", "RFC 6455 4.1")
    versions = _values(head.headers, b"sec-websocket-version")
    if versions != [VERSION]:
        # 426 with the versions there are; a list of several is no version either
        ours, asked = (b"sec-websocket-version", VERSION), (b"upgrade", b"websocket")
        if not versions:
            raise Refused(400, "no Sec-WebSocket-Version", "RFC 6455 4.2.1", ours)
        raise Refused(426, "this server speaks WebSocket version 13", "RFC 6455 4.4", asked, ours)
    return Offer(
        b"" if extended else _key(head.headers),
        _subprotocols(head.headers),
        _values(head.headers, b"sec-websocket-extensions"),
    )


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _key(headers: Headers) -> bytes:
    keys = _values(headers, b"sec-websocket-key")
    if len(keys) != 1:
        raise Refused(400, "not exactly one Sec-WebSocket-Key", "RFC 6455 4.2.1")
    try:
        nonce = base64.b64decode(keys[0], validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != 16:
        raise Refused(400, "Sec-WebSocket-Key is not 16 bytes in base64", "RFC 6455 4.2.1")
    return keys[0]


def _subprotocols(headers: Headers) -> list[str]:
    """Several fields are one list (4.1, 11.3.4); each element a token, none twice."""
    found: list[str] = []
    values = _values(headers, b"sec-websocket-protocol")
    for value in values:
        for element in value.split(b","):
            name = element.strip(b" \t")
            if not name:
                continue  # RFC 9110 5.6.1.2: empty elements are ignored
            if TOKEN.fullmatch(name) is None:
                raise Refused(400, "a subprotocol is not a token", "RFC 6455 4.1")
            if name.decode() in found:
                raise Refused(400, "a subprotocol is named twice", "RFC 6455 4.1")
            found.append(name.decode())
    if values and not found:
        raise Refused(400, "Sec-WebSocket-Protocol names nothing", "RFC 6455 4.3")
    return found


def accept_key(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a key (4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def response_fields(
    subprotocol: object, headers: object, extensions: bytes, key: bytes
) -> list[Header]:
    """The response's fields for what an application accepts; raises ApplicationError."""
    fields: list[Header] = []
    if key:
        fields.append((b"sec-websocket-accept", accept_key(key)))
    if subprotocol is not None:
        if not isinstance(subprotocol, str) or TOKEN.fullmatch(_encoded(subprotocol)) is None:
            raise ApplicationError(
                f"the subprotocol of websocket.accept must be a token as a str: {subprotocol!r}"
            )
        fields.append((b"sec-websocket-protocol", subprotocol.encode()))
    if extensions:
        fields.append((b"sec-websocket-extensions", extensions))
    for pair in headers or ():  # type: ignore[attr-defined]
        name, value = pair
        check_name(name)
        check_value(name, value)
        if name.lower() == b"sec-websocket-protocol":
            raise ApplicationError(
                "websocket.accept names the subprotocol in 'subprotocol', not in its headers"
            )
        if name.lower() not in _OURS:
            fields.append((name, value))
    return fields


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
