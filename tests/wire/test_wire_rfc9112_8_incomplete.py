"""RFC 9112 section 8: messages that stop half way are never taken for whole ones."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.raw import RawClient
from tests.wire.served import HOST, PATIENCE, Served, closes, get, post, seen, served

from tidegate.types import Receive, Scope, Send

CHUNKED = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
CUT_HEADS = [
    b"G",
    b"GET",
    b"GET / HTTP/1.1",
    b"GET / HTTP/1.1\r",
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\nHost: exam",
    b"GET / HTTP/1.1\r\nHost: example.com\r\n",
    b"GET / HTTP/1.1\r\nHost: example.com\r\n\r",
]
CUT_BODIES = [
    post(body=b"hello")[:-1],
    post(body=b"hello")[:-5],
    CHUNKED,
    CHUNKED + b"5",
    CHUNKED + b"5\r\n",
    CHUNKED + b"5\r\nhel",
    CHUNKED + b"5\r\nhello",
    CHUNKED + b"5\r\nhello\r",
    CHUNKED + b"5\r\nhello\r\n",
    CHUNKED + b"5\r\nhello\r\n0",
    CHUNKED + b"5\r\nhello\r\n0\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r",
    CHUNKED + b"5\r\nhello\r\n0\r\nX-A: b\r\n",
]


def reset(client: RawClient) -> None:
    """Leave as a crashed client does: with a reset instead of an orderly end."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


@pytest.fixture
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.fixture(scope="module")
def lasting() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.mark.parametrize("raw", CUT_HEADS)
def test_head_cut_by_the_end_calls_nobody(lasting: Served[Echo], raw: bytes) -> None:
    """An error answer is allowed (MAY); a success is not."""
    lasting.app.calls.clear()
    with lasting.connect() as client:
        client.send(raw)
        client.half_close()
        answer = client.read_eof()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert lasting.app.calls == []


@pytest.mark.parametrize("raw", CUT_BODIES)
def test_body_cut_by_the_end_is_a_disconnect(lasting: Served[Echo], raw: bytes) -> None:
    lasting.app.calls.clear()
    with lasting.connect() as client:
        client.send(raw)
        client.half_close()
        answer = client.read_eof()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    for _ in lasting.app.calls:
        call = lasting.app.over.get(timeout=PATIENCE)
        assert (call.ended, call.disconnected) == (False, True)


def test_reset_in_a_body_is_a_disconnect(server: Served[Echo]) -> None:
    with server.connect() as client:
        client.send_pieces([post("/a", b"hello")[:-2]])
        reset(client)
    call = server.app.over.get(timeout=PATIENCE)
    assert (call.ended, call.disconnected) == (False, True)


def test_reset_between_requests_harms_nobody(server: Served[Echo]) -> None:
    with server.connect() as client:
        client.send(get("/a"))
        assert client.read_response().status == 200
        reset(client)
    assert server.ask(get("/b")).status == 200


def test_connection_without_a_request_is_no_request(server: Served[Echo]) -> None:
    with server.connect() as client:
        client.half_close()
        assert client.read_eof() == b""
    assert server.app.calls == []


def test_blank_lines_alone_are_no_request(server: Served[Echo]) -> None:
    with server.connect() as client:
        client.send(b"\r\n")
        client.half_close()
        assert client.read_eof() == b""
    assert server.app.calls == []


def test_half_closed_client_still_gets_its_answer(server: Served[Echo]) -> None:
    with server.connect() as client:
        client.send(post("/a", b"hello"))
        client.half_close()
        assert seen(client.read_response())["body"] == "hello"
        assert client.read_eof() == b""


def test_half_closed_client_gets_all_its_pipelined_answers(server: Served[Echo]) -> None:
    with server.connect() as client:
        client.send(get("/a") + post("/b", b"hello") + get("/c"))
        client.half_close()
        assert [seen(client.read_response())["path"] for _ in range(3)] == ["/a", "/b", "/c"]
        assert client.read_eof() == b""


def test_half_closed_client_gets_answers_that_take_their_time() -> None:
    """The end of the input arrives while the first request is at work; the others are no less whole."""
    echo = Echo()

    async def unhurried(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        await echo(scope, receive, send)

    with served(unhurried) as running, running.connect() as client:
        client.send(get("/a") + post("/b", b"hello") + get("/c"))
        client.half_close()
        assert [seen(client.read_response())["path"] for _ in range(3)] == ["/a", "/b", "/c"]
        assert client.read_eof() == b""


def test_good_request_before_the_cut_one_is_answered(server: Served[Echo]) -> None:
    with server.connect() as client:
        client.send(get("/a") + b"GET /b HTTP/1.1\r\nHo")
        client.half_close()
        assert seen(client.read_response())["path"] == "/a"
        answer = client.read_eof()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert [call.path for call in server.app.calls] == ["/a"]


@pytest.fixture(scope="module")
def hasty() -> Iterator[Served[Echo]]:
    options = {"timeout_head": 0.2, "timeout_keep_alive": 0.2, "grace_body": 0.2}
    with served(Echo(), **options, min_body_rate=1_000_000) as running:
        yield running


class TestTooSlow:
    """9110 15.5.9: 408 for a message that does not come to its end in time."""

    @pytest.mark.parametrize("raw", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n" + HOST])
    def test_head_that_stops_is_408(self, hasty: Served[Echo], raw: bytes) -> None:
        hasty.app.calls.clear()
        with hasty.begun(raw) as client:
            response = client.read_response()
            assert (response.status, closes(response)) == (408, True)
            assert client.read_eof() == b""
        assert hasty.app.calls == []

    @pytest.mark.parametrize(
        "raw", [post(body=b"hello")[:-1], CHUNKED, CHUNKED + b"5\r\nhello\r\n"]
    )
    def test_body_that_stops_is_408(self, hasty: Served[Echo], raw: bytes) -> None:
        hasty.app.calls.clear()
        with hasty.begun(raw) as client:
            response = client.read_response()
            assert (response.status, closes(response)) == (408, True)
            assert client.read_eof() == b""
        assert [call for call in hasty.app.calls if call.ended] == []

    def test_second_head_that_stops_is_408(self, hasty: Served[Echo]) -> None:
        with hasty.begun(get("/a") + b"GET /b HTTP/1.1\r\n") as client:
            assert client.read_response().status == 200
            assert client.read_response().status == 408

    def test_idle_connection_ends_without_a_word(self, hasty: Served[Echo]) -> None:
        """9.5: an answer nobody asked for could be taken for the next request's."""
        with hasty.begun(get("/a")) as client:
            assert client.read_response().status == 200
            assert client.read_eof() == b""

    def test_silent_connection_ends(self, hasty: Served[Echo]) -> None:
        with hasty.connect() as client:
            answer = client.read_eof()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
