"""The opening handshake, each rule of RFC 6455 4.1 and 4.2 that a server has to hold."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.support.http1_drive import drive, silent

from tidegate.errors import ApplicationError
from tidegate.protocol.events import RequestHead
from tidegate.protocol.websocket.handshake import (
    Offer,
    Refused,
    accept_key,
    read_offer,
    response_fields,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
VERSION = (b"sec-websocket-version", b"13")
USUAL = ((b"sec-websocket-key", KEY), VERSION)
NAME = b"sec-websocket-protocol"


def head(*headers: tuple[bytes, bytes], method: str = "GET", **more: Any) -> RequestHead:
    made = RequestHead()
    made.method, made.version = method, "1.1"
    made.path, made.raw_path, made.query = "/chat", b"/chat", b""
    made.headers = (
        (b"host", b"a"),
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        *headers,
    )
    made.trailers, made.upgrade, made.forwarded = False, b"websocket", None
    for name, value in more.items():
        setattr(made, name, value)
    return made


def offer(*headers: tuple[bytes, bytes]) -> Offer:
    return read_offer(head(*USUAL, *headers))


def refused(*headers: tuple[bytes, bytes], **more: Any) -> Refused:
    with pytest.raises(Refused) as found:
        read_offer(head(*headers, **more))
    assert found.value.reason
    assert found.value.section.startswith("RFC ")
    return found.value


def with_key(*keys: bytes) -> list[tuple[bytes, bytes]]:
    return [VERSION, *((b"sec-websocket-key", key) for key in keys)]


def with_version(*versions: bytes) -> list[tuple[bytes, bytes]]:
    return [USUAL[0], *((b"sec-websocket-version", version) for version in versions)]


# --- the request: 4.1, 4.2.1


def test_a_plain_offer() -> None:
    found = offer()
    assert (found.key, found.subprotocols, found.extensions) == (KEY, [], [])


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "get"])
def test_only_get(method: str) -> None:
    assert refused(*USUAL, method=method).status == 400


@pytest.mark.parametrize(
    "nonce", [bytes(16), b"\xff" * 16, bytes(range(240, 256)), b"the sample nonce"]
)
def test_keys_of_sixteen_bytes(nonce: bytes) -> None:
    key = base64.b64encode(nonce)
    assert read_offer(head(*with_key(key))).key == key


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"=",
        b"==",
        *(base64.b64encode(bytes(size)) for size in (1, 15, 17, 18, 32)),
        b"dGhlIHNhbXBsZSBub25jZQ",
        b"dGhlIHNhbXBsZSBub25jZQ=",
        b"dGhlIHNhbXBsZSBub25jZQ===",
        b"dGhlIHNhbXBsZSBub25jZQ====",
        b"==dGhlIHNhbXBsZSBub25jZQ==",
        b"dGhlIHNhbXBsZSBub25jZQ==A",
        b"dGhlIHNhbXBsZSBub25jZQ==, x",
        b"dGhlIHNhbXBsZSB ub25jZQ==",
        b" dGhlIHNhbXBsZSBub25jZQ==",
        b"dGhlIHNhbXBsZSBub25jZQ== ",
        b"dGhlIHNhbXBsZSB\tub25jZQ==",
        b"dGhlIHNhbXBsZSB!ub25jZQ==",
        b"dGhlIHNhbXBsZSB-_25jZQ==",
        b"dGhl=IHNhbXBsZSBub25jZQ=",
        b"the sample nonce",
        b"\xff" * 24,
    ],
)  # fmt: skip
def test_keys_that_are_none(key: bytes) -> None:
    assert refused(*with_key(key)).status == 400


def test_one_key_exactly() -> None:
    """11.3.1: the field must not appear more than once."""
    assert refused(VERSION).status == 400
    assert refused(*with_key(KEY, KEY)).status == 400
    assert refused(*with_key(KEY, base64.b64encode(bytes(16)))).status == 400


def test_no_version() -> None:
    assert refused(USUAL[0]).status in (400, 426)


@pytest.mark.parametrize(
    "version",
    [b"", b"0", b"7", b"8", b"12", b"14", b"25", b"113", b"130", b"013", b"13.0", b"+13", b"x",
     b"13, 8", b"8, 13", b"13,", b"13;", b"1 3"],
)  # fmt: skip
def test_other_versions_are_told_ours(version: bytes) -> None:
    """4.2.2 step 4, 4.4: an error such as 426, with the version that there is."""
    found = refused(*with_version(version))
    assert found.status == 426
    assert VERSION in found.headers


@pytest.mark.parametrize("versions", [(b"13", b"13"), (b"13", b"8"), (b"8", b"13")])
def test_the_version_is_said_once(versions: tuple[bytes, bytes]) -> None:
    assert refused(*with_version(*versions)).status in (400, 426)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"chat"], ["chat"]),
        ([b"chat, superchat"], ["chat", "superchat"]),
        ([b"superchat,chat"], ["superchat", "chat"]),
        ([b"b , \ta\t,c"], ["b", "a", "c"]),
        ([b"b", b"a"], ["b", "a"]),
        ([b"b, c", b"a, d"], ["b", "c", "a", "d"]),
        ([b"Chat, chat"], ["Chat", "chat"]),
        ([b"v10.stomp, graphql-transport-ws, !#$%&'*+-.^_`|~"], ["v10.stomp", "graphql-transport-ws", "!#$%&'*+-.^_`|~"]),
    ],
)  # fmt: skip
def test_subprotocols_in_the_clients_order(values: list[bytes], expected: list[str]) -> None:
    assert offer(*((NAME, value) for value in values)).subprotocols == expected


@pytest.mark.parametrize("value", [b"a,,b", b",a,b", b"a,b,", b" , a, b", b"a, \t ,b"])
def test_empty_elements_of_a_list_are_ignored(value: bytes) -> None:
    """RFC 2616 2.1, RFC 9110 5.6.1.2."""
    assert offer((NAME, value)).subprotocols == ["a", "b"]


@pytest.mark.parametrize("value", [b"", b" ", b",", b" , ,"])
def test_a_list_of_nothing_is_refused(value: bytes) -> None:
    """4.3: 1#token wants one element at least; 4.2.1: what breaks the grammar gets an error."""
    assert refused(*USUAL, (NAME, value)).status == 400


SEPARATORS = b'()<>@;:\\"/[]?={} \t'


@pytest.mark.parametrize(
    "value",
    [
        *(b"a" + bytes((byte,)) + b"b" for byte in SEPARATORS),
        b'"chat"',
        b"chat, super chat",
        b"a\x00b",
        b"a\x7fb",
        b"a\x80b",
        "caf\u00e9".encode(),
        b"a;q=1",
    ],
)
def test_a_subprotocol_is_a_token(value: bytes) -> None:
    assert refused(*USUAL, (NAME, value)).status == 400


@pytest.mark.parametrize("values", [[b"a, a"], [b"a,b,a"], [b"a", b"a"], [b"a,b", b"c,a"]])
def test_subprotocols_are_unique(values: list[bytes]) -> None:
    assert refused(*USUAL, *((NAME, value) for value in values)).status == 400


def test_extensions_are_kept_as_they_came() -> None:
    values = [b"permessage-deflate; client_max_window_bits", b"foo, bar; baz=2"]
    assert offer(*((b"sec-websocket-extensions", value) for value in values)).extensions == values


def test_origin_is_the_applications_affair() -> None:
    assert offer((b"origin", b"http://evil.test")).key == KEY
    assert offer((b"origin", b"null")).key == KEY


def test_order_of_fields_does_not_matter() -> None:
    """4.2.1: the order of the header fields is not important."""
    made = head(*USUAL, (NAME, b"a"))
    made.headers = tuple(reversed(tuple(made.headers)))
    found = read_offer(made)
    assert (found.key, found.subprotocols) == (KEY, ["a"])


# --- from the wire: what HTTP/1.1 makes of an upgrade

RFC_REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


def read_wire(raw: bytes) -> RequestHead:
    (asked,) = drive(raw, whole=silent).asked
    made = RequestHead()
    for name, value in asked.head.items():
        setattr(made, name, value)
    return made


def test_the_rfcs_own_request() -> None:
    made = read_wire(RFC_REQUEST)
    assert made.upgrade == b"websocket"
    found = read_offer(made)
    assert (found.key, found.subprotocols) == (KEY, ["chat", "superchat"])


@pytest.mark.parametrize("upgrade", [b"WebSocket", b"WEBSOCKET", b"websocket"])
@pytest.mark.parametrize(
    "connection", [b"upgrade", b"UPGRADE", b"keep-alive, Upgrade", b"foo,upgrade"]
)
def test_upgrade_and_connection_have_no_case(upgrade: bytes, connection: bytes) -> None:
    raw = RFC_REQUEST.replace(b"websocket", upgrade, 1).replace(
        b"Upgrade\r\nSec", connection + b"\r\nSec"
    )
    assert read_wire(raw).upgrade == b"websocket"


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Connection: Upgrade", b"Connection: keep-alive"),
        (b"Connection: Upgrade\r\n", b""),
        (b"Upgrade: websocket\r\n", b""),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
    ],
)
def test_what_is_no_upgrade_to_websocket(what: bytes, instead: bytes) -> None:
    assert read_wire(RFC_REQUEST.replace(what, instead)).upgrade != b"websocket"


# --- the response: 4.2.2


def test_the_rfcs_sample_key() -> None:
    assert accept_key(KEY) == ACCEPT


def test_the_key_is_not_decoded() -> None:
    """4.2.2 step 5.4: the value as it came, not the 16 bytes."""
    assert accept_key(b"x3JJHMbDL1EzLkh9GBhXDw==") == b"HSmrc0sMlYUkAGmm5OPpG2HaGWk="


def test_fields_of_a_plain_answer() -> None:
    assert response_fields(None, [], b"", KEY) == [(b"sec-websocket-accept", ACCEPT)]
    assert response_fields(None, None, b"", KEY) == [(b"sec-websocket-accept", ACCEPT)]


def test_no_accept_without_a_key() -> None:
    """RFC 8441 5: over HTTP/2 there is neither."""
    assert response_fields(None, [], b"", b"") == []


def test_fields_with_everything() -> None:
    fields = response_fields(
        "chat", [(b"x-a", b"1"), (b"set-cookie", b"b=c")], b"permessage-deflate", KEY
    )
    assert sorted(fields) == [
        (b"sec-websocket-accept", ACCEPT),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (NAME, b"chat"),
        (b"set-cookie", b"b=c"),
        (b"x-a", b"1"),
    ]


@pytest.mark.parametrize(
    "chosen",
    ["", " ", "a b", "a,b", "a\r\nx: y", "caf\u00e9", "a;b", '"a"', b"chat", 1, "\ud800", "a\n"],
)
def test_a_chosen_subprotocol_is_a_token(chosen: object) -> None:
    with pytest.raises(ApplicationError):
        response_fields(chosen, [], b"", KEY)


@pytest.mark.parametrize("name", [NAME, b"Sec-WebSocket-Protocol"])
def test_the_subprotocol_is_not_named_in_the_headers(name: bytes) -> None:
    with pytest.raises(ApplicationError):
        response_fields(None, [(name, b"chat")], b"", KEY)


@pytest.mark.parametrize(
    "name",
    [b"Sec-WebSocket-Accept", b"sec-websocket-extensions", b"Connection", b"UPGRADE",
     b"transfer-encoding", b"Content-Length"],
)  # fmt: skip
def test_fields_that_are_the_servers_own(name: bytes) -> None:
    """11.3.2: once at most; and framing has no place in a 101 (RFC 9110 8.6, RFC 9112 6.1)."""
    fields = response_fields(None, [(name, b"5")], b"", KEY)
    assert fields == [(b"sec-websocket-accept", ACCEPT)]


@pytest.mark.parametrize(
    "pair",
    [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"\x00"), (b"x y", b"a"), (b"x:", b"a"), (b"", b"a"),
     ("x", b"a"), (b"x", "a"), (b"x\r\n", b"a")],
)  # fmt: skip
def test_headers_that_would_break_the_answer(pair: Any) -> None:
    with pytest.raises(ApplicationError):
        response_fields(None, [pair], b"", KEY)
