"""Where HTTP ends and the tunnel begins, to the byte: nobody gets a request through the seam.

RFC 9110 7.8: what follows the 101 is the new protocol and nothing else; RFC 9112 9.3.2 and 11.2:
what follows a refused handshake must not be read as a request, since whoever sent it may have
meant frames, or may be a proxy that believes in a tunnel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from tests.support.apps import lifespan
from tests.support.raw import RawClient
from tests.support.socket_client import handshake
from tests.support.websocket_frames import cut, each_byte, frame, ping, text
from tests.wire.dialogue import (
    BYE,
    SocketEcho,
    hold,
    says,
    understood,
    upgraded,
)
from tests.wire.served import HOST, PATIENCE, Served, closes, get, post, served

from tidegate.types import Receive, Scope, Send

TRAP = get("/trap")


class TestBehindTheHandshake:
    def test_frames_in_the_same_packet_are_the_first(self, server: Served[SocketEcho]) -> None:
        """4.1 has a client wait, but the bytes are the tunnel's from the first on."""
        assert hold(server, text("a") + ping(b"p") + BYE) == says("a", pongs=[b"p"])

    def test_the_seam_may_be_anywhere_in_a_packet(self, local: Served[SocketEcho]) -> None:
        raw = handshake() + text("a") + BYE
        for at in range(1, len(raw)):
            with local.connect() as client:
                client.send_pieces([raw[:at]])
                client.send(raw[at:])
                upgraded(client)
                assert understood(client.read_eof()) == says("a"), at

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
    def test_in_packets_of_any_size(self, local: Served[SocketEcho], size: int) -> None:
        with local.connect() as client:
            client.send_pieces(cut(handshake() + text("a") + text("b") * 3 + BYE, size))
            upgraded(client)
            assert understood(client.read_eof()) == says("a", "b", "b", "b")

    @pytest.mark.parametrize(
        "request_",
        [
            TRAP,
            post("/trap", b"a"),
            handshake("/trap"),
            b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
            b"\r\n" + TRAP,
            b"0\r\n\r\n" + TRAP,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
        ids=["get", "post", "handshake", "options", "blank-line", "last-chunk", "http-2"],
    )
    @pytest.mark.parametrize("before", [b"", text("a"), ping()], ids=["first", "text", "ping"])
    def test_a_request_there_is_no_request(
        self, server: Served[SocketEcho], request_: bytes, before: bytes
    ) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(handshake() + before + request_)
            upgraded(client)
            talk = understood(client.read_eof())
        assert talk.code == 1002
        assert server.app.calls == [("websocket", "/")]

    def test_nor_is_it_inside_a_message(self, server: Served[SocketEcho]) -> None:
        server.app.calls.clear()
        request = TRAP.decode()
        assert hold(server, text(request) + frame(2, TRAP, mask=bytes(4)) + BYE) == says(
            request, TRAP
        )
        assert server.app.calls == [("websocket", "/")]

    @pytest.mark.parametrize("end", [BYE, b"\xff\xff", frame(3), text(b"\xff")])
    def test_nor_behind_the_end(self, server: Served[SocketEcho], end: bytes) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(handshake() + end + TRAP * 3)
            upgraded(client)
            assert b"HTTP/1.1" not in client.read_eof()
        assert server.app.calls == [("websocket", "/")]

    def test_a_body_that_was_said_is_not_the_tunnel(self, server: Served[SocketEcho]) -> None:
        """Frames as the body of a handshake, or a handshake as the body of a request."""
        server.app.calls.clear()
        frames = text("a") + BYE
        with server.connect() as client:
            client.send(handshake(lines=b"Content-Length: %d\r\n" % len(frames)) + frames + TRAP)
            assert client.read_response().status == 400
            assert client.read_eof() == b""
        assert server.app.calls == []
        with server.connect() as client:
            client.send(post("/a", handshake()) + get("/b"))
            assert client.read_response().body == b"http /a"
            assert client.read_response().body == b"http /b"
        assert server.app.calls == [("http", "/a"), ("http", "/b")]

    def test_a_body_that_never_comes_is_not_waited_for_as_one(
        self, server: Served[SocketEcho]
    ) -> None:
        with server.connect() as client:
            client.send(handshake(lines=b"Content-Length: 500\r\n") + TRAP)
            assert client.read_response().status == 400
            assert client.read_eof() == b""

    def test_continue_is_not_a_way_around(self, server: Served[SocketEcho]) -> None:
        server.app.calls.clear()
        lines = b"Expect: 100-continue\r\nContent-Length: 5\r\n"
        with server.connect() as client:
            client.send(handshake(lines=lines) + b"hello" + TRAP)
            assert client.read_response().status in (400, 417)
            assert client.read_eof() == b""
        assert server.app.calls == []


class TestBeforeIt:
    def test_requests_ahead_of_it_are_answered_in_order(self, server: Served[SocketEcho]) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(get("/a") + post("/b", b"x" * 100) + handshake("/c") + text("d") + BYE)
            assert client.read_response().body == b"http /a"
            assert client.read_response().body == b"http /b"
            upgraded(client)
            assert understood(client.read_eof()) == says("d")
        assert server.app.calls == [("http", "/a"), ("http", "/b"), ("websocket", "/c")]

    def test_byte_by_byte(self, local: Served[SocketEcho]) -> None:
        with local.connect() as client:
            client.send_pieces(each_byte(get("/a") + handshake("/c") + text("d") + BYE))
            assert client.read_response().body == b"http /a"
            upgraded(client)
            assert understood(client.read_eof()) == says("d")

    def test_not_behind_a_request_that_was_the_last(self, server: Served[SocketEcho]) -> None:
        """RFC 9112 9.6: after `Connection: close` nothing that follows is processed."""
        server.app.calls.clear()
        with server.connect() as client:
            client.send(get("/a", b"Connection: close\r\n") + handshake("/c") + text("d"))
            assert client.read_response().body == b"http /a"
            assert client.read_eof() == b""
        assert server.app.calls == [("http", "/a")]


REFUSALS: dict[str, tuple[bytes, int]] = {
    "by-the-application": (handshake("/refuse"), 403),
    "version": (handshake(version=b"8"), 426),
    "key": (handshake(lines=b"Sec-WebSocket-Key: a\r\n"), 400),
    "method": (handshake().replace(b"GET", b"POST"), 400),
    "extension": (handshake(lines=b"Sec-WebSocket-Extensions: ;\r\n"), 400),
    "protocol": (handshake(lines=b"Sec-WebSocket-Protocol: a b\r\n"), 400),
}


@pytest.mark.parametrize("behind", [TRAP, text("a") + BYE, handshake("/trap"), b"\x81"])
@pytest.mark.parametrize(("raw", "status"), REFUSALS.values(), ids=REFUSALS.keys())
class TestRefused:
    """The peer may have thought itself in a tunnel: what it sent there is not read as HTTP."""

    def test_at_once(
        self, server: Served[SocketEcho], raw: bytes, status: int, behind: bytes
    ) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(raw + behind)
            response = client.read_response()
            assert (response.status, closes(response)) == (status, True)
            assert client.read_eof() == b""
        assert [path for _, path in server.app.calls] in ([], ["/refuse"])

    def test_once_the_answer_is_there(
        self, server: Served[SocketEcho], raw: bytes, status: int, behind: bytes
    ) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(raw)
            assert client.read_response().status == status
            client.send(behind)
            assert client.read_eof() == b""
        assert [path for _, path in server.app.calls] in ([], ["/refuse"])


@pytest.mark.parametrize("behind", [TRAP, text("a") + BYE, b"\x81"])
def test_an_answer_of_the_application_s_own_is_the_last_too(
    server: Served[SocketEcho], behind: bytes
) -> None:
    server.app.calls.clear()
    with server.connect() as client:
        client.send(handshake("/own") + behind)
        response = client.read_response()
        assert (response.status, response.body) == (401, b"no")
        assert closes(response)
        assert client.read_eof() == b""
    assert server.app.calls == [("websocket", "/own")]


class Slow:
    """Answers the handshake when it is told to, and with what."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.asked: SimpleQueue[Any] = SimpleQueue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        self.calls.append(scope["path"])
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.asked.put(answer)
        await send({"type": await answer})
        if answer.result() == "websocket.accept":
            await receive()
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
        return None


@pytest.fixture
def slow() -> Iterator[Served[Slow]]:
    with served(Slow(), ws_ping_interval=None) as running:
        yield running


def asked(server: Served[Slow], client: RawClient, behind: bytes) -> Any:
    """A handshake the application holds, and bytes the server has behind it."""
    client.send(handshake())
    future = server.app.asked.get(timeout=PATIENCE)
    client.send_pieces([behind])
    return future


@pytest.mark.parametrize("behind", [TRAP, handshake("/trap"), text("a") + TRAP])
class TestWhileTheApplicationThinks:
    def test_accepted(self, slow: Served[Slow], behind: bytes) -> None:
        with slow.connect() as client:
            future = asked(slow, client, behind)
            assert client.received == b""
            slow.server.call(future.set_result, "websocket.accept")
            upgraded(client)
            assert understood(client.read_eof()).code == 1002
        assert slow.app.calls == ["/"]

    def test_refused(self, slow: Served[Slow], behind: bytes) -> None:
        with slow.connect() as client:
            future = asked(slow, client, behind)
            slow.server.call(future.set_result, "websocket.close")
            response = client.read_response()
            assert (response.status, closes(response)) == (403, True)
            assert client.read_eof() == b""
        assert slow.app.calls == ["/"]


def test_a_tunnel_that_waits_does_not_lose_what_came_early(slow: Served[Slow]) -> None:
    with slow.connect() as client:
        client.send(handshake() + text("a") + text("b" * 100_000) + BYE)
        future = slow.app.asked.get(timeout=PATIENCE)
        slow.server.call(future.set_result, "websocket.accept")
        upgraded(client)
        assert understood(client.read_eof()) == says("a", "b" * 100_000)
