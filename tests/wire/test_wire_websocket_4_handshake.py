"""RFC 6455 section 4: the opening handshake, one oddity at a time, and what each must get.

Three outcomes: 101; an answer to an ordinary request, where the RFCs have the upgrade ignored
(RFC 9110 7.8); or a refusal, after which nothing on this connection is read as anything.
"""

from __future__ import annotations

import base64

import pytest
from tests.support.raw import RawResponse
from tests.support.socket_client import ACCEPT, KEY
from tests.support.websocket_frames import text
from tests.wire.dialogue import (
    BYE,
    SocketEcho,
    accept_of,
    says,
    understood,
    upgraded,
)
from tests.wire.served import Served, closes, get

LINES = {
    "host": b"Host: example.com",
    "upgrade": b"Upgrade: websocket",
    "connection": b"Connection: Upgrade",
    "key": b"Sec-WebSocket-Key: " + KEY,
    "version": b"Sec-WebSocket-Version: 13",
}


def request(line: bytes = b"GET /a HTTP/1.1", *more: bytes, **other: bytes | None) -> bytes:
    """A good handshake, but for these lines: None takes one away, `more` are behind them all."""
    lines = [value for value in {**LINES, **other}.values() if value is not None]
    return b"\r\n".join([line, *lines, *more]) + b"\r\n\r\n"


def with_line(*lines: bytes) -> bytes:
    return request(b"GET /a HTTP/1.1", *lines)


def key(value: bytes) -> bytes:
    return request(key=b"Sec-WebSocket-Key: " + value)


def version(value: bytes) -> bytes:
    return request(version=b"Sec-WebSocket-Version: " + value)


def upgrade(value: bytes) -> bytes:
    return request(upgrade=b"Upgrade: " + value)


def connection(value: bytes) -> bytes:
    return request(connection=b"Connection: " + value)


def protocols(value: bytes) -> bytes:
    return with_line(b"Sec-WebSocket-Protocol: " + value)


def extensions(value: bytes) -> bytes:
    return with_line(b"Sec-WebSocket-Extensions: " + value)


GOOD = {
    "plain": request(),
    "absolute-form": request(b"GET http://example.com/a HTTP/1.1"),  # 4.1, point 3
    "absolute-form-https": request(b"GET https://example.com/a HTTP/1.1"),
    "query": request(b"GET /a?b=c&d HTTP/1.1"),
    "later-minor-version": request(b"GET /a HTTP/1.2"),  # RFC 9112 2.3: as 1.1
    "upgrade-case": upgrade(b"WebSocket"),
    "upgrade-upper": upgrade(b"WEBSOCKET"),
    "upgrade-list-first": upgrade(b"websocket, foo/2"),
    "upgrade-list-last": upgrade(b"foo/2 ,\twebsocket"),
    "upgrade-list-empty-members": upgrade(b", ,websocket,"),
    "upgrade-two-lines": request(upgrade=b"Upgrade: foo\r\nUpgrade: websocket"),
    "upgrade-twice": upgrade(b"websocket, websocket"),
    "connection-case": connection(b"upgrade"),
    "connection-upper": connection(b"UPGRADE"),
    "connection-list": connection(b"keep-alive, Upgrade"),
    "connection-list-tight": connection(b"Upgrade,x-a"),
    "connection-two-lines": request(connection=b"Connection: keep-alive\r\nConnection: Upgrade"),
    "spaces-around-values": request(
        upgrade=b"Upgrade: \twebsocket \t",
        connection=b"Connection:Upgrade",
        key=b"Sec-WebSocket-Key:\t " + KEY + b" ",
        version=b"Sec-WebSocket-Version:13\t",
    ),
    "names-in-lower-case": request().replace(b"Sec-WebSocket", b"sec-websocket"),
    "names-in-upper-case": request().replace(b"Sec-WebSocket", b"SEC-WEBSOCKET"),
    "origin": with_line(b"Origin: null"),
    "cookie-and-authorization": with_line(b"Cookie: a=b", b"Authorization: Basic eDp5"),
    "unknown-sec-field": with_line(b"Sec-WebSocket-Foo: bar", b"Sec-WebSocket-Accept: x"),
    "empty-body-said": with_line(b"Content-Length: 0"),
    "unknown-extension": extensions(b'foo; bar=1; baz="quoted", x-b'),
    "extensions-two-lines": with_line(
        b"Sec-WebSocket-Extensions: foo", b"Sec-WebSocket-Extensions: bar; a"
    ),
    "extensions-empty-members": extensions(b"foo, , bar,"),
    "extensions-spaces": extensions(b"foo ; a = 1 ;b"),
    "ninety-headers": with_line(*[b"X-%d: y" % at for at in range(90)]),
}

# RFC 9110 7.8: what asks for no upgrade (9.6.1: of this hop), or is HTTP/1.0, is a request.
PLAIN = {
    "no-upgrade": request(upgrade=None),
    "no-connection": request(connection=None),
    "neither": request(upgrade=None, connection=None),
    "connection-of-another": connection(b"keep-alive"),
    "connection-upgrade-in-a-word": connection(b"upgraded"),
    "connection-two-words": connection(b"not upgrade"),
    "connection-empty": connection(b""),
    "connection-quoted": connection(b'"upgrade"'),
    "upgrade-to-another": upgrade(b"h2c"),
    "upgrade-in-a-word": upgrade(b"websockets"),
    "upgrade-part-of-a-word": upgrade(b"web socket"),
    "upgrade-of-a-version": upgrade(b"websocket/13"),
    "upgrade-empty": upgrade(b""),
    "upgrade-quoted": upgrade(b'"websocket"'),
    "http-1.0": request(b"GET /a HTTP/1.0"),
    "http-1.0-keep-alive": request(b"GET /a HTTP/1.0", connection=b"Connection: Upgrade, keep-alive"),
}  # fmt: skip

# 4.2.1: "stop processing the client's handshake and return an HTTP response with an appropriate
# error code". Where a table has two, the RFCs leave the choice.
WRONG: dict[str, tuple[bytes, set[int]]] = {
    "host-missing": (request(host=None), {400}),
    "host-twice": (with_line(b"Host: example.com"), {400}),
    "host-bad": (request(host=b"Host: a b"), {400}),
    "post": (request(b"POST /a HTTP/1.1"), {400, 405}),
    "post-with-length": (request(b"POST /a HTTP/1.1", b"Content-Length: 0"), {400, 405}),
    "head": (request(b"HEAD /a HTTP/1.1"), {400, 405}),
    "options": (request(b"OPTIONS /a HTTP/1.1"), {400, 405}),
    "put": (request(b"PUT /a HTTP/1.1"), {400, 405}),
    "get-in-lower-case": (request(b"get /a HTTP/1.1"), {400, 405, 501}),
    "connect": (request(b"CONNECT example.com:80 HTTP/1.1"), {400, 405, 501}),
    "asterisk": (request(b"OPTIONS * HTTP/1.1"), {400, 405}),
    "get-asterisk": (request(b"GET * HTTP/1.1"), {400}),
    "get-authority": (request(b"GET example.com:80 HTTP/1.1"), {400}),
    "ws-scheme": (request(b"GET ws://example.com/a HTTP/1.1"), {400}),  # 4.1: http or https
    "fragment": (request(b"GET /a#b HTTP/1.1"), {400}),  # section 3
    "http-2.0": (request(b"GET /a HTTP/2.0"), {400, 505}),
    "http-0.9": (request(b"GET /a"), {400, 505}),
    "body": (with_line(b"Content-Length: 5") + b"hello", {400, 413}),
    "body-chunked": (with_line(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", {400}),
    "body-two-lengths": (with_line(b"Content-Length: 0", b"Content-Length: 5"), {400}),
    "body-length-and-chunked": (
        with_line(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        {400},
    ),
    "key-missing": (request(key=None), {400}),
    "key-empty": (key(b""), {400}),
    "key-of-15": (key(base64.b64encode(bytes(15))), {400}),
    "key-of-17": (key(base64.b64encode(bytes(17))), {400}),
    "key-of-32": (key(base64.b64encode(bytes(32))), {400}),
    "key-without-padding": (key(KEY.rstrip(b"=")), {400}),
    "key-half-padding": (key(KEY[:-1]), {400}),
    "key-over-padded": (key(KEY + b"="), {400}),
    "key-of-url-alphabet": (key(b"-_" + KEY[2:]), {400}),
    "key-with-space": (key(KEY[:5] + b" " + KEY[5:]), {400}),
    "key-with-sign": (key(b"!" + KEY[1:]), {400}),
    "key-obs-text": (key(b"\xe9" + KEY[1:]), {400}),
    "key-quoted": (key(b'"' + KEY + b'"'), {400}),
    "key-list": (key(KEY + b", " + KEY), {400}),
    "key-twice": (with_line(b"Sec-WebSocket-Key: " + KEY), {400}),  # 11.3.1
    "key-twice-different": (with_line(b"sec-websocket-key: AQIDBAUGBwgJCgsMDQ4PEA=="), {400}),
    "key-twice-empty": (with_line(b"Sec-WebSocket-Key:"), {400}),
    "key-long": (key(b"A" * 20_000), {400, 431}),
    "version-missing": (request(version=None), {400, 426}),
    "version-twice": (with_line(b"Sec-WebSocket-Version: 13"), {400, 426}),  # 11.3.5
    "version-twice-different": (with_line(b"Sec-WebSocket-Version: 8"), {400, 426}),
    "protocol-space": (protocols(b"chat room"), {400}),
    "protocol-at": (protocols(b"ch@t"), {400}),
    "protocol-quoted": (protocols(b'"chat"'), {400}),
    "protocol-slash": (protocols(b"a, b/1"), {400}),
    "protocol-obs-text": (protocols(b"caf\xe9"), {400}),
    "protocol-parameter": (protocols(b"a;b"), {400}),
    "protocol-second-line": (protocols(b"a\r\nSec-WebSocket-Protocol: b c"), {400}),
    "extension-no-name": (extensions(b"; a"), {400}),  # 9.1: what is no extension-list fails
    "extension-no-parameter": (extensions(b"foo;"), {400}),
    "extension-no-parameter-name": (extensions(b"foo; =1"), {400}),
    "extension-no-value": (extensions(b"foo; a="), {400}),
    "extension-two-equals": (extensions(b"foo; a=1=2"), {400}),
    "extension-two-words": (extensions(b"foo bar"), {400}),
    "extension-value-two-words": (extensions(b"foo; a=1 2"), {400}),
    "extension-open-quote": (extensions(b'foo; a="1'), {400}),
    "extension-quoted-no-token": (extensions(b'foo; a="b c"'), {400}),
    "extension-quoted-nothing": (extensions(b'foo; a=""'), {400}),
    "extension-quoted-comma": (extensions(b'foo; a="b,c"'), {400}),
    "extension-obs-text": (extensions(b"f\xf6\xf6"), {400}),
    "extension-behind-good": (extensions(b"permessage-deflate, foo;;"), {400}),
    "extension-second-line": (extensions(b"foo\r\nSec-WebSocket-Extensions: ;"), {400}),
    "space-before-colon": (with_line().replace(b"Key:", b"Key :"), {400}),
    "folded": (request(key=b"Sec-WebSocket-Key:\r\n " + KEY), {400}),
    "nul": (key(KEY + b"\0"), {400}),
    "bare-cr": (upgrade(b"websocket\rX-A: b"), {400}),
}

# 4.2.2 and 4.4: refused with the version that is spoken. 11.3.5: a version is 0 to 255, without
# leading zeros; what is no version at all may be a bad request instead.
VERSIONS = [b"0", b"1", b"7", b"8", b"9", b"12", b"14", b"25", b"113", b"131", b"255"]
NO_VERSIONS = [
    b"", b"13, 8", b"8, 13", b"13, 13", b"013", b"+13", b"-13", b"13.0", b"0xd", b"1 3", b"13;",
    b'"13"', b"256", b"xiii", b"\xb2", b"9" * 5000,
]  # fmt: skip


def refused(server: Served[SocketEcho], raw: bytes) -> RawResponse:
    """The one answer to a bad handshake; what comes behind it is not read as anything."""
    server.app.calls.clear()
    with server.connect() as client:
        client.send(raw + get("/trap"))
        response = client.read_response(raw.split(b" ", 1)[0].decode("latin-1"))
        assert response.status >= 400, response
        assert closes(response), "RFC 9112 9.6: the last answer says so"
        assert not response.all(b"sec-websocket-accept")
        assert client.read_eof() == b""
    assert server.app.calls == []
    return response


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD.keys())
def test_is_101(server: Served[SocketEcho], raw: bytes) -> None:
    server.app.calls.clear()
    with server.connect() as client:
        client.send(raw + text("a") + BYE)
        response = upgraded(client)
        assert response.all(b"sec-websocket-accept") == [ACCEPT]
        assert response.all(b"sec-websocket-protocol") == []
        assert response.all(b"sec-websocket-extensions") == []
        assert understood(client.read_eof()) == says("a")
    assert server.app.calls == [("websocket", "/a")]


@pytest.mark.parametrize("name", [name for name, raw in GOOD.items() if len(raw) < 400])
def test_byte_by_byte(local: Served[SocketEcho], name: str) -> None:
    with local.connect() as client:
        client.send_pieces(bytes([code]) for code in GOOD[name] + text("a") + BYE)
        upgraded(client)
        assert understood(client.read_eof()) == says("a")


@pytest.mark.parametrize("raw", PLAIN.values(), ids=PLAIN.keys())
def test_asks_for_no_socket(server: Served[SocketEcho], raw: bytes) -> None:
    server.app.calls.clear()
    with server.connect() as client:
        client.send(raw)
        response = client.read_response()
        assert (response.status, response.body) == (200, b"http /a")
        assert not response.all(b"sec-websocket-accept")
        if not closes(response) and b"HTTP/1.1" in raw:
            client.send(get("/b"))
            assert client.read_response().body == b"http /b"
    assert ("websocket", "/a") not in server.app.calls


@pytest.mark.parametrize(("raw", "status"), WRONG.values(), ids=WRONG.keys())
def test_is_refused(server: Served[SocketEcho], raw: bytes, status: set[int]) -> None:
    assert refused(server, raw).status in status


@pytest.mark.parametrize("value", [*VERSIONS, *NO_VERSIONS], ids=lambda value: str(value[:9]))
def test_another_version(server: Served[SocketEcho], value: bytes) -> None:
    response = refused(server, version(value))
    assert response.status in ({426} if value in VERSIONS else {400, 426})
    assert response.all(b"sec-websocket-version") == [b"13"]
    if response.status == 426:
        assert response.tokens(b"upgrade") == {b"websocket"}, "RFC 9110 15.5.22: it MUST say so"
        assert b"upgrade" in response.tokens(b"connection"), "RFC 9110 7.8: and so the hop"


def test_the_accept_of_any_key(server: Served[SocketEcho]) -> None:
    for at in range(64):
        value = base64.b64encode(bytes((at * 7 + each * at) % 256 for each in range(16)))
        with server.connect() as client:
            client.send(key(value) + BYE)
            assert upgraded(client).all(b"sec-websocket-accept") == [accept_of(value)]


# RFC 9110 5.6.1.2: empty members of a list are read over; several lines are one list (5.2).
OFFERS: dict[bytes, list[str]] = {
    b"chat": ["chat"],
    b"superchat, chat": ["superchat", "chat"],
    b"a,b,c": ["a", "b", "c"],
    b"a ,\tb": ["a", "b"],
    b"a,,b, ,": ["a", "b"],
    b",a": ["a"],
    b"a\r\nSec-WebSocket-Protocol: b, c": ["a", "b", "c"],
    b"Chat, chat": ["Chat", "chat"],  # 4.1: compared as they are
    b"!#$%&'*+-.^_`|~09": ["!#$%&'*+-.^_`|~09"],
    b"a" * 5000: ["a" * 5000],
}


@pytest.mark.parametrize(("value", "offered"), OFFERS.items(), ids=str)
def test_subprotocols_are_offered_in_order(
    server: Served[SocketEcho], value: bytes, offered: list[str]
) -> None:
    server.app.offered.clear()
    with server.connect() as client:
        client.send(protocols(value).replace(b"GET /a", b"GET /first") + BYE)
        response = upgraded(client)
        assert response.all(b"sec-websocket-protocol") == [offered[0].encode()]
    assert server.app.offered == [offered]


@pytest.mark.parametrize("value", [b"", b",", b" , ,", b"a, b, a"])
def test_a_list_of_nothing_or_of_one_twice(server: Served[SocketEcho], value: bytes) -> None:
    """4.1, point 10: neither may be sent. Refused, or read as what is left: never told twice."""
    server.app.offered.clear()
    with server.connect() as client:
        client.send(protocols(value) + BYE)
        response = client.read_response()
        assert response.status in (101, 400)
        assert not response.all(b"sec-websocket-protocol")
    for offered in server.app.offered:
        assert len(set(offered)) == len(offered)
