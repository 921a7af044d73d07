"""RFC 9112 section 7: the chunked coding, its bounds, and trailers on both ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.apps import Echo, Replies, body, lifespan, start
from tests.support.raw import ResponseError
from tests.wire.served import HOST, Served, closes, get, seen, served

from tidegate.types import Receive, Scope, Send

HEAD = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
    """Says back each part of the body as it comes."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send(start())
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        more = message.get("more_body", False)
        await send(body(message.get("body", b""), more))
        if not more:
            return None


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


class TestRequestBody:
    """7.1"""

    @pytest.mark.parametrize("size", [1, 15, 16, 4_095, 65_536, 1_000_000])
    def test_chunk_of_any_size(self, server: Served[Echo], size: int) -> None:
        data = b"a" * size
        raw = HEAD + b"%X\r\n%b\r\n0\r\n\r\n" % (size, data)
        assert seen(server.ask(raw))["body"] == data.decode()

    def test_a_great_many_small_chunks(self, server: Served[Echo]) -> None:
        raw = HEAD + b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n"
        assert seen(server.ask(raw))["body"] == "a" * 50_000

    def test_small_extensions_in_few_chunks_pass(self, server: Served[Echo]) -> None:
        raw = HEAD + b"1;a=b\r\na\r\n" * 50 + b"0\r\n\r\n"
        assert seen(server.ask(raw))["body"] == "a" * 50

    def test_application_gets_the_first_chunk_before_the_second_is_sent(self) -> None:
        """A chunked upload may be a conversation: nothing waits for the end to deliver."""
        with served(conversation) as running, running.connect() as client:
            client.send(HEAD + b"5\r\nhello\r\n")
            assert client.read_head().status == 200
            client.read_until(b"hello\r\n")
            client.send(b"0\r\n\r\n")
            client.read_until(b"\r\n0\r\n\r\n")

    @pytest.mark.parametrize("fault", [b"zz\r\n", b"5\r\nhelloX\r\n", b"0\r\nX : y\r\n\r\n"])
    def test_fault_after_the_answer_began_cuts_it(self, fault: bytes) -> None:
        """A 400 inside another answer would be that answer's data; only an end that is none tells."""
        with served(conversation) as running, running.connect() as client:
            client.send(HEAD + b"5\r\nhello\r\n")
            client.read_until(b"hello\r\n")
            client.send(fault + get("/smuggled"))
            with pytest.raises((ResponseError, ConnectionResetError)):
                client.read_response()
        assert client.received.count(b"HTTP/1.1") == 1
        assert not client.received.endswith(b"0\r\n\r\n")

    def test_extensions_that_trickle_in_are_bounded_too(self, server: Served[Echo]) -> None:
        """7.1.1"""
        with server.connect() as client:
            client.send_pieces([HEAD + b"5", *[b";abcdefgh=ijklmnop" * 50] * 10])
            assert client.read_response().status == 400
            assert client.read_eof() == b""


@pytest.fixture(scope="module")
def trailing() -> Iterator[Served[Replies]]:
    trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]}
    evil = {"type": "http.response.trailers", "headers": [(b"x", b"a\r\n\r\nHTTP/1.1 200 OK")]}
    scripts = {
        "/t": [start(200, [(b"trailer", b"x-sum")], trailers=True), body(b"hello"), trailers],
        "/evil": [start(200, (), trailers=True), body(b"hello"), evil],
        "/never": [start(200, (), trailers=True), body(b"hello")],
    }
    with served(Replies(scripts)) as running:
        yield running


class TestTrailers:
    """7.1.2, 9110 6.5"""

    @pytest.mark.parametrize(
        "trailer",
        [b"Content-Length: 3\r\n", b"Connection: close\r\n", b"Host: b\r\n", b"X: y\r\n" * 20],
    )
    def test_trailers_change_nothing_about_the_message(
        self, server: Served[Echo], trailer: bytes
    ) -> None:
        with server.connect() as client:
            client.send(HEAD + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n" + get("/b"))
            first = client.read_response()
            told = seen(first)
            assert told["body"] == "hello"
            assert ["host", "example.com"] in told["headers"]
            assert not closes(first)
            assert seen(client.read_response())["path"] == "/b"

    def test_trailers_follow_the_last_chunk(self, trailing: Served[Replies]) -> None:
        with trailing.connect() as client:
            client.send(get("/t", b"TE: trailers\r\nConnection: TE\r\n") + get("/after"))
            response = client.read_response()
            assert response.body == b"hello"
            assert response.trailers == [(b"x-sum", b"42")]
            assert client.read_response().body == b"ok"

    def test_trailers_are_kept_from_those_who_did_not_ask(self, trailing: Served[Replies]) -> None:
        """9110 6.5.1: without `TE: trailers` they may be dropped on the way."""
        with trailing.connect() as client:
            client.send(get("/t") + get("/after"))
            response = client.read_response()
            assert (response.body, response.trailers) == (b"hello", [])
            assert client.read_response().body == b"ok"

    def test_http_1_0_gets_no_trailers(self, trailing: Served[Replies]) -> None:
        with trailing.connect() as client:
            client.send(get("/t", b"TE: trailers\r\n", version="1.0"))
            assert client.read_response().body == b"hello"
        assert b"x-sum: 42" not in client.received.lower()

    @pytest.mark.parametrize("path", ["/evil", "/never"])
    def test_answer_whose_trailers_fail_has_no_clean_end(
        self, trailing: Served[Replies], path: str
    ) -> None:
        with trailing.connect() as client:
            client.send(get(path, b"TE: trailers\r\n") + get("/after"))
            with pytest.raises((ResponseError, ConnectionResetError)):
                client.read_response()
        assert client.received.count(b"HTTP/1.1") == 1
