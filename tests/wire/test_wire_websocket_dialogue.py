"""The dialogues of RFC 6455 as it prints them, and how the other WebSocket tests hold one.

A test lays down all a client sends, ending in a close or in a fault, and reads all the server says
until it ends the connection: `Talk`. What is not ended by the server fails the test, and so does a
frame a server may not send. Messages and pongs are compared apart, since a pong need not wait for
the application (RFC 6455 5.5.2).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
from tests.support.apps import answer, lifespan
from tests.support.raw import RawClient, RawResponse
from tests.support.socket_client import handshake
from tests.support.websocket_frames import (
    CLOSE,
    MASK,
    PING,
    PONG,
    TEXT,
    Sent,
    binary,
    close,
    cont,
    each_byte,
    frame,
    join_sent,
    parse_sent,
    ping,
    pong,
    text,
)
from tests.wire.served import Served, served

from tidegate.types import Receive, Scope, Send

BYE = close(1000)


@dataclass(slots=True)
class SocketEcho:
    """Sends back every message, and tells what reached it: calls, messages, ends.

    Its paths: /refuse closes before accept, /own answers the handshake itself, /close closes at
    once with 3001, /first takes the first subprotocol.
    """

    calls: list[tuple[str, str]] = field(default_factory=list)
    heard: list[str | bytes] = field(default_factory=list)
    offered: list[list[str]] = field(default_factory=list)
    ends: SimpleQueue[int] = field(default_factory=SimpleQueue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        self.calls.append((scope["type"], scope["path"]))
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            body = b"http " + scope["path"].encode()
            return await answer(send, 200, [(b"content-length", b"%d" % len(body))], body)
        await receive()
        return await self._websocket(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, protocols = scope["path"], scope["subprotocols"]
        self.offered.append(protocols)
        if path == "/refuse":
            return await send({"type": "websocket.close"})
        if path == "/own":
            start: Any = {"type": "websocket.http.response.start", "status": 401}
            await send({**start, "headers": [(b"content-length", b"2")]})
            return await send({"type": "websocket.http.response.body", "body": b"no"})
        chosen = protocols[0] if path == "/first" and protocols else None
        await send({"type": "websocket.accept", "subprotocol": chosen})
        if path == "/close":
            await send({"type": "websocket.close", "code": 3001, "reason": "enough"})
        while (message := await receive())["type"] == "websocket.receive":
            data = message["bytes"] if message["text"] is None else message["text"]
            self.heard.append(data)
            await send({**message, "type": "websocket.send"})
        self.ends.put(message["code"])
        return None


class Talk(NamedTuple):
    """All a server said on an open socket until it ended the connection."""

    messages: list[str | bytes]
    code: int | None  # of its close frame; 1005: an empty one, None: there was none
    pongs: list[bytes]


def says(*messages: str | bytes, code: int | None = 1000, pongs: list[bytes] | None = None) -> Talk:
    return Talk(list(messages), code, pongs or [])


def understood(raw: bytes) -> Talk:
    """The server's frames, which must all be whole, well-formed, and end with its close."""
    frames = parse_sent(raw)
    closes = [at for at, one in enumerate(frames) if one.opcode == CLOSE]
    code = None
    if closes:
        assert closes == [len(frames) - 1], "something came after the close frame"
        payload = frames[-1].payload
        assert len(payload) != 1
        payload[2:].decode()
        code = int.from_bytes(payload[:2], "big") if payload else 1005
    assert all(one.rsv == 0 for one in frames), "an extension nobody agreed on"
    pongs = [one.payload for one in frames if one.opcode == PONG]
    return Talk(join_sent(one for one in frames if one.opcode < 8), code, pongs)


def upgraded(client: RawClient) -> RawResponse:
    """The answer to a handshake, which must be the 101 of RFC 6455 4.2.2."""
    response = client.read_head()
    assert response.status == 101, response
    assert response.version == b"HTTP/1.1"
    assert response.tokens(b"connection") == {b"upgrade"}
    assert [value.lower() for value in response.all(b"upgrade")] == [b"websocket"]
    assert len(response.all(b"sec-websocket-accept")) == 1
    assert not response.all(b"content-length"), "RFC 9110 8.6: never in a 1xx"
    assert not response.all(b"transfer-encoding"), "RFC 9112 6.1: never in a 1xx"
    return response


def hold(server: Served[Any], raw: bytes, *, path: str = "/", lines: bytes = b"") -> Talk:
    """All of it at once, in one packet with the handshake if it is small."""
    with server.connect() as client:
        client.send(handshake(path, lines) + raw)
        upgraded(client)
        return understood(client.read_eof())


def hold_bytewise(server: Served[Any], raw: bytes) -> Talk:
    """Every byte in a packet of its own. A server that has failed the connection reads on, or at
    least lets its close frame arrive."""
    with server.connect() as client:
        client.send(handshake())
        upgraded(client)
        try:
            client.send_pieces(each_byte(raw))
        except (BrokenPipeError, ConnectionResetError):
            pass  # what counts is that all it said can still be read
        return understood(client.read_eof())


def accept_of(key: bytes) -> bytes:
    """RFC 6455 4.2.2, point 5.4."""
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest)


@pytest.fixture(scope="module")
def server() -> Iterator[Served[SocketEcho]]:
    with served(SocketEcho(), ws_ping_interval=None) as running:
        yield running


def test_1_3_the_handshake_of_the_rfc(server: Served[SocketEcho]) -> None:
    with server.connect() as client:
        client.send(
            b"GET /first HTTP/1.1\r\n"
            b"Host: server.example.com\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Origin: http://example.com\r\n"
            b"Sec-WebSocket-Protocol: chat, superchat\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        response = upgraded(client)
        assert response.all(b"sec-websocket-accept") == [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
        assert response.all(b"sec-websocket-protocol") == [b"chat"]
        assert not response.all(b"sec-websocket-extensions")


# Section 5.7, byte for byte, as a client would send it, and the answer of an echo.
EXAMPLES = [
    ("818537fa213d7f9f4d5158", "810548656c6c6f"),  # "Hello", masked
    ("018337fa213d7f9f4d" + "808237fa213d5b95", "810548656c6c6f"),  # in two fragments
    ("898537fa213d7f9f4d5158", "8a0548656c6c6f"),  # a ping, and its pong
    ("8a8537fa213d7f9f4d5158", ""),  # a pong nobody asked for
]


@pytest.mark.parametrize(("sent", "said"), EXAMPLES)
def test_5_7_the_examples_of_the_rfc(server: Served[SocketEcho], sent: str, said: str) -> None:
    with server.connect() as client:
        client.send(handshake() + bytes.fromhex(sent) + BYE)
        upgraded(client)
        assert client.read_eof() == bytes.fromhex(said) + b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(("size", "head"), [(256, "827e0100"), (65536, "827f0000000000010000")])
def test_5_7_the_examples_with_a_length(server: Served[SocketEcho], size: int, head: str) -> None:
    with server.connect() as client:
        client.send(handshake() + binary(bytes(size)) + BYE)
        upgraded(client)
        assert client.read_eof() == bytes.fromhex(head) + bytes(size) + b"\x88\x02\x03\xe8"


def test_the_application_and_the_peer_agree_on_the_end(server: Served[SocketEcho]) -> None:
    while not server.app.ends.empty():
        server.app.ends.get()
    for code in (1000, 1001, 3000, 4999):
        assert hold(server, close(code)) == says(code=code)
        assert server.app.ends.get(timeout=5) == code


class TestTheJudge:
    """What reads the server's frames: a judge that sees nothing would acquit every server."""

    def test_a_good_dialogue(self) -> None:
        raw = bytes.fromhex("01014b8a0170800142880203e9")
        assert understood(raw) == Talk(["KB"], 1001, [b"p"])
        assert understood(b"") == Talk([], None, [])
        assert understood(b"\x88\x00") == Talk([], 1005, [])

    @pytest.mark.parametrize(
        "raw",
        [
            text("a"),  # masked
            b"\x81\x02a",  # broken off
            b"\x81\x7e\x00\x01a",  # a length not in its shortest form
            b"\xc1\x01a",  # RSV1
            b"\x83\x00",  # reserved
            b"\x80\x00",  # a continuation of nothing
            b"\x01\x00",  # a message without an end
            b"\x01\x00\x81\x00",
            b"\x09\x00",  # a ping in fragments
            b"\x88\x01\x03",
            b"\x88\x03\x03\xe8\xff",
            b"\x88\x00\x88\x00",
            b"\x88\x00\x81\x01a",
            b"\x81\x01\xff",
        ],
    )
    def test_a_bad_one(self, raw: bytes) -> None:
        with pytest.raises((AssertionError, UnicodeDecodeError)):
            understood(raw)

    def test_the_frames_we_send_are_those_of_5_7(self) -> None:
        assert text("Hello") == bytes.fromhex(EXAMPLES[0][0])
        assert text("Hel", fin=False) + cont(b"lo", fin=True) == bytes.fromhex(EXAMPLES[1][0])
        assert ping(b"Hello") == bytes.fromhex(EXAMPLES[2][0])
        assert pong(b"Hello") == bytes.fromhex(EXAMPLES[3][0])
        assert frame(TEXT, b"Hello", mask=None) == b"\x81\x05Hello"
        assert parse_sent(b"\x89\x00") == [Sent(PING, b"")]
        assert len(MASK) == 4
