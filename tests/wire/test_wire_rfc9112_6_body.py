"""RFC 9112 section 6: the message body, and how its length is told on both ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.apps import Echo, Replies, body, start
from tests.support.raw import ResponseError
from tests.wire.served import HOST, Served, closes, get, post, seen, served

CHUNKED = b"POST /chunked HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
TRAP = get("/trap")


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


class TestRequestLength:
    """6.3: where one request ends, the next one begins, to the byte."""

    def test_bodies_and_requests_back_to_back(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send(post("/a", TRAP) + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + get("/b"))
            assert seen(client.read_response())["body"] == TRAP.decode()
            assert seen(client.read_response())["body"] == "abc"
            assert seen(client.read_response())["path"] == "/b"

    def test_post_without_length_has_no_body(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send(b"POST /a HTTP/1.1\r\n" + HOST + b"\r\n" + get("/b"))
            assert seen(client.read_response())["body"] == ""
            assert seen(client.read_response())["path"] == "/b"

    def test_connection_close_does_not_make_a_body_end_at_the_close(
        self, server: Served[Echo]
    ) -> None:
        with server.connect() as client:
            client.send(b"POST /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\nhello")
            assert seen(client.read_response())["body"] == ""
            assert client.read_eof() == b""

    @pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"BREW"])
    def test_framing_does_not_depend_on_the_method(
        self, server: Served[Echo], method: bytes
    ) -> None:
        head = method + b" /a HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(TRAP)
        with server.connect() as client:
            client.send(head + TRAP + get("/b"))
            assert client.read_response(method.decode()).status == 200
            assert seen(client.read_response())["path"] == "/b"

    def test_large_body_arrives_whole(self, server: Served[Echo]) -> None:
        data = bytes(range(256)) * 4_096
        assert seen(server.ask(post("/", data)))["body"] == data.decode("latin-1")


@pytest.fixture(scope="module")
def narrow() -> Iterator[Served[Echo]]:
    with served(Echo(), limit_body_size=10) as running:
        yield running


class TestBodyLimit:
    """limit_body_size, by 9110 15.5.14"""

    def test_body_at_the_limit_passes(self, narrow: Served[Echo]) -> None:
        assert narrow.ask(post("/", b"a" * 10)).status == 200
        assert narrow.ask(CHUNKED + b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n").status == 200

    def test_length_beyond_it_is_413_and_the_application_is_not_called(
        self, narrow: Served[Echo]
    ) -> None:
        narrow.app.calls.clear()
        with narrow.connect() as client:
            client.send(post("/", b"a" * 11))
            response = client.read_response()
            assert (response.status, closes(response)) == (413, True)
            assert client.read_eof() == b""
        assert narrow.app.calls == []

    @pytest.mark.parametrize(
        "chunks", [b"b\r\nhello world\r\n0\r\n\r\n", b"1\r\na\r\n" * 11 + b"0\r\n\r\n"]
    )
    def test_chunks_beyond_it_are_413_and_never_end(
        self, narrow: Served[Echo], chunks: bytes
    ) -> None:
        narrow.app.calls.clear()
        with narrow.connect() as client:
            client.send(CHUNKED + chunks)
            response = client.read_response()
            assert (response.status, closes(response)) == (413, True)
            assert client.read_eof() == b""
        assert [call for call in narrow.app.calls if call.ended] == []

    def test_chunk_size_alone_is_enough(self, narrow: Served[Echo]) -> None:
        """No need to wait for bytes that will be refused."""
        with narrow.connect() as client:
            client.send(CHUNKED + b"b\r\n")
            assert client.read_response().status == 413

    def test_zero_means_no_limit(self) -> None:
        with served(Echo(), limit_body_size=0) as free:
            assert len(seen(free.ask(post("/", b"a" * 100_000)))["body"]) == 100_000


@pytest.fixture(scope="module")
def deaf() -> Iterator[Served[Replies]]:
    with served(Replies({})) as running:
        yield running


class TestUnreadBody:
    """A body that the application leaves lying is no request (11.2), and blocks no answer."""

    @pytest.mark.parametrize("copies", [1, 100, 20_000])
    def test_unread_body_is_discarded_or_the_connection_ends(
        self, deaf: Served[Replies], copies: int
    ) -> None:
        deaf.app.calls.clear()
        with deaf.connect() as client:
            client.send_beside(post("/a", TRAP * copies) + get("/b"))
            response = client.read_response()
            assert (response.status, response.body) == (200, b"ok")
            if closes(response):
                assert client.read_eof() == b""
            else:
                assert client.read_response().body == b"ok"
        assert "/trap" not in deaf.app.calls
        assert deaf.app.calls in (["/a"], ["/a", "/b"])

    def test_unread_chunks_are_discarded_or_the_connection_ends(
        self, deaf: Served[Replies]
    ) -> None:
        deaf.app.calls.clear()
        with deaf.connect() as client:
            client.send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(TRAP), TRAP) + get("/b"))
            response = client.read_response()
            if closes(response):
                assert client.read_eof() == b""
            else:
                assert client.read_response().body == b"ok"
        assert "/trap" not in deaf.app.calls

    def test_fault_in_a_body_nobody_reads_ends_the_connection(self, deaf: Served[Replies]) -> None:
        deaf.app.calls.clear()
        with deaf.connect() as client:
            client.send(CHUNKED + b"zz\r\n" + TRAP)
            assert client.read_response().status in (200, 400)
            client.read_eof()
        assert "/trap" not in deaf.app.calls


@pytest.fixture(scope="module")
def replies() -> Iterator[Served[Replies]]:
    scripts = {
        "/parts": [start(), body(b"hel", True), body(b"", True), body(b"lo", True), body()],
        "/one": [start(), body(b"hello")],
        "/empty": [start(), body()],
        "/length": [start(200, [(b"content-length", b"5")]), body(b"he", True), body(b"llo")],
        "/no-content": [start(204), body()],
        "/not-modified": [start(304, [(b"content-length", b"5")]), body()],
    }
    with served(Replies(scripts)) as running:
        yield running


class TestResponseLength:
    """6.1, 6.2 and 6.3, seen from the answers' side"""

    @pytest.mark.parametrize("path", ["/parts", "/one"])
    def test_unknown_length_is_chunked_and_kept_alive(
        self, replies: Served[Replies], path: str
    ) -> None:
        with replies.connect() as client:
            client.send(get(path) + get("/after"))
            response = client.read_response()
            assert response.body == b"hello"
            assert not closes(response)
            assert client.read_response().body == b"ok"

    def test_empty_part_does_not_end_a_chunked_answer(self, replies: Served[Replies]) -> None:
        response = replies.ask(get("/parts"))
        assert response.tokens(b"transfer-encoding") == {b"chunked"}
        assert response.body == b"hello"

    def test_known_length_is_not_chunked(self, replies: Served[Replies]) -> None:
        response = replies.ask(get("/length"))
        assert response.all(b"content-length") == [b"5"]
        assert response.all(b"transfer-encoding") == []
        assert response.body == b"hello"

    @pytest.mark.parametrize("lines", [b"", b"Connection: keep-alive\r\n", b"TE: chunked\r\n"])
    def test_http_1_0_gets_no_coding_but_a_close(
        self, replies: Served[Replies], lines: bytes
    ) -> None:
        """6.1: no Transfer-Encoding unless the request indicates HTTP/1.1."""
        with replies.connect() as client:
            client.send(get("/parts", lines, version="1.0"))
            response = client.read_response()
            assert response.all(b"transfer-encoding") == []
            assert b"keep-alive" not in response.tokens(b"connection")
            assert response.body == b"hello"
            assert client.read_eof() == b""

    @pytest.mark.parametrize("path", ["/no-content", "/not-modified"])
    def test_204_and_304_end_with_their_head(self, replies: Served[Replies], path: str) -> None:
        with replies.connect() as client:
            client.send(get(path) + get("/after"))
            response = client.read_response()
            assert response.all(b"transfer-encoding") == []
            if response.status == 204:
                assert response.all(b"content-length") == []
            assert client.read_response().body == b"ok"

    @pytest.mark.parametrize("path", ["/parts", "/one", "/length", "/empty", "/no-content"])
    def test_head_ends_with_its_head(self, replies: Served[Replies], path: str) -> None:
        """9110 9.3.2"""
        with replies.connect() as client:
            client.send(get(path).replace(b"GET", b"HEAD") + get("/after"))
            client.read_response("HEAD")
            assert client.read_response().body == b"ok"

    def test_head_keeps_the_length_that_get_would_have(self, replies: Served[Replies]) -> None:
        response = replies.ask(get("/length").replace(b"GET", b"HEAD"))
        assert response.all(b"content-length") == [b"5"]

    def test_head_to_http_1_0_is_no_reason_to_close(self, replies: Served[Replies]) -> None:
        with replies.connect() as client:
            head = get("/length", b"Connection: keep-alive\r\n", version="1.0")
            client.send(head.replace(b"GET", b"HEAD") + get("/after"))
            assert b"keep-alive" in client.read_response("HEAD").tokens(b"connection")
            assert client.read_response().body == b"ok"

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"HEAD / HTTP/1.1\r\n\r\n", 400),  # no Host
            (b"HEAD /a b HTTP/1.1\r\n\r\n", 400),
            (b"HEAD /\x01 HTTP/1.1\r\n\r\n", 400),
            (b"HEAD / HTTP/1.1\nHost: a\n\n", 400),
            (b"HEAD / HTTP/3.0\r\n\r\n", 505),
            (b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
            (b"HEAD /" + b"a" * 9000, 414),
        ],
    )
    def test_refused_head_has_no_body_either(
        self, replies: Served[Replies], raw: bytes, status: int
    ) -> None:
        with replies.connect() as client:
            client.send(raw)
            assert client.read_response("HEAD").status == status
            assert client.read_eof() == b""

    @pytest.mark.parametrize("method", [b"HEADS", b"GET"])
    def test_whoever_else_is_refused_is_told_why(
        self, replies: Served[Replies], method: bytes
    ) -> None:
        assert replies.ask(method + b" /a b HTTP/1.1\r\n\r\n").body != b""

    def test_strict_reader_sees_a_cut_answer(self, replies: Served[Replies]) -> None:
        """The judge must be able to condemn: half an answer is no answer."""
        with replies.connect() as client:
            client.send(get("/length", b"Connection: close\r\n"))
            whole = client.read_eof()
            client.unread += whole[:-1]
            with pytest.raises(ResponseError):
                client.read_response()
