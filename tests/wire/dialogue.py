"""How the WebSocket wire tests hold a dialogue with a running server.

A test lays down all a client sends, ending in a close or in a fault, and reads all the server says
until it ends the connection: `Talk`. What is not ended by the server fails the test, and so does a
frame a server may not send. Messages and pongs are compared apart, since a pong need not wait for
the application (RFC 6455 5.5.2).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NamedTuple

from tests.support.apps import answer, lifespan
from tests.support.raw import RawClient, RawResponse
from tests.support.socket_client import handshake
from tests.support.websocket_frames import (
    CLOSE,
    PONG,
    close,
    each_byte,
    join_sent,
    parse_sent,
)
from tests.wire.served import Served

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
