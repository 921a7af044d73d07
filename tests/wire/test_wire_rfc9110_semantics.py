"""RFC 9110, where it shows on the wire: Expect, methods, Upgrade, Date, informational answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo, Replies, answer, body, lifespan, start
from tests.wire.served import HOST, Served, closes, get, post, seen, served

from tidegate.types import Receive, Scope, Send

EXPECT = b"Expect: 100-continue\r\n"
TRAP = get("/trap")


def expecting(lines: bytes = EXPECT, length: int = 5, version: bytes = b"1.1") -> bytes:
    """The head of a POST that waits to be told to go on."""
    size = b"Content-Length: %d\r\n" % length
    return b"POST /a HTTP/" + version + b"\r\n" + HOST + size + lines + b"\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.fixture(scope="module")
def deaf() -> Iterator[Served[Replies]]:
    with served(Replies({})) as running:
        yield running


class TestExpect:
    """10.1.1"""

    @pytest.mark.parametrize(
        "lines", [EXPECT, b"expect:100-Continue\r\n", b"EXPECT: \t100-CONTINUE \r\n"]
    )
    def test_100_is_sent_when_the_application_first_receives(
        self, server: Served[Echo], lines: bytes
    ) -> None:
        with server.connect() as client:
            client.send(expecting(lines))
            interim = client.read_head()
            assert (interim.status, interim.all(b"content-length")) == (100, [])
            client.send(b"hello" + get("/b"))
            response = client.read_response()
            assert seen(response)["body"] == "hello"
            assert response.informational == [], "100 is said once"
            assert seen(client.read_response())["path"] == "/b"

    def test_100_is_sent_for_chunks_too(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            lines = b"Transfer-Encoding: chunked\r\n" + EXPECT
            client.send(b"POST /a HTTP/1.1\r\n" + HOST + lines + b"\r\n")
            assert client.read_head().status == 100
            client.send_pieces([b"5\r\nhello\r\n", b"0\r\n\r\n"])
            response = client.read_response()
            assert seen(response)["body"] == "hello"
            assert response.informational == []

    def test_each_request_of_a_connection_has_its_own_100(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            for _ in range(3):
                client.send(expecting())
                assert client.read_head().status == 100
                client.send(b"hello")
                assert seen(client.read_response())["body"] == "hello"

    def test_no_100_where_nobody_receives(self, deaf: Served[Replies]) -> None:
        """The client may send its body or not: either way it must not be read as a request."""
        deaf.app.calls.clear()
        with deaf.connect() as client:
            client.send(expecting(length=len(TRAP)))
            response = client.read_response()
            assert (response.status, response.informational) == (200, [])
            client.send_beside(TRAP + get("/b"))
            if closes(response):
                assert client.read_eof() == b""
            else:
                assert client.read_response().body == b"ok"
        assert "/trap" not in deaf.app.calls

    def test_no_100_after_the_answer_began(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                return await lifespan(receive, send)
            await send(start(200, [(b"content-length", b"2")]))
            await send(body(b"o", True))
            await receive()
            return await send(body(b"k"))

        with served(app) as running, running.connect() as client:
            client.send(expecting())
            client.read_until(b"\r\n\r\no")
            client.send(b"hello")
            response = client.read_response()
            assert (response.status, response.body, response.informational) == (200, b"ok", [])

    def test_http_1_0_is_never_sent_100(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send_pieces([expecting(version=b"1.0"), b"hello"])
            response = client.read_response()
            assert seen(response)["body"] == "hello"
            assert response.informational == []

    def test_body_that_came_along_needs_no_permission(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send(expecting() + b"hello" + get("/b"))
            assert seen(client.read_response())["body"] == "hello"
            assert seen(client.read_response())["path"] == "/b"

    def test_expectation_without_a_body_is_satisfied(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send(get("/a", EXPECT) + get("/b"))
            assert seen(client.read_response())["path"] == "/a"
            assert seen(client.read_response())["path"] == "/b"

    @pytest.mark.parametrize(
        "lines",
        [
            b"Expect: 200-ok\r\n",
            b"Expect: 100-continued\r\n",
            b"Expect: 100 continue\r\n",
            b"Expect: 100-continue, tea\r\n",
            b"Expect: 100-continue\r\nExpect: tea\r\n",
        ],
    )
    def test_other_expectations_are_417(self, server: Served[Echo], lines: bytes) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(expecting(lines))
            response = client.read_response()
            assert (response.status, response.informational) == (417, [])
            assert closes(response), "the body may come or not"
            assert client.read_eof() == b""
        assert server.app.calls == []

    def test_length_beyond_the_limit_is_refused_instead_of_asked_for(
        self, server: Served[Echo]
    ) -> None:
        response = server.ask(expecting(length=10**12))
        assert (response.status, response.informational) == (413, [])


class TestMethods:
    """9"""

    def test_head_is_get_without_content(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send(get("/a").replace(b"GET", b"HEAD") + get("/b"))
            response = client.read_response("HEAD")
            assert int(response.all(b"content-length")[0]) > 0
            assert seen(client.read_response())["path"] == "/b"

    def test_trace_is_the_applications_to_answer_not_reflected_unasked(self) -> None:
        """9.3.8: reflecting would hand cookies to scripts; this server has no TRACE of its own."""
        with served(Replies({})) as running:
            response = running.ask(get("/a", b"Cookie: secret\r\n").replace(b"GET", b"TRACE"))
            assert response.status in (200, 405, 501)
            assert b"secret" not in response.body

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "PROPFIND"])
    def test_other_methods_arrive_with_their_body(self, server: Served[Echo], method: str) -> None:
        told = seen(server.ask(post("/a", b"hello").replace(b"POST", method.encode())))
        assert (told["method"], told["body"]) == (method, "hello")


class TestUpgrade:
    """7.8: a server may ignore what it does not want."""

    @pytest.mark.parametrize(
        "lines",
        [
            b"Upgrade: tea/1\r\nConnection: Upgrade\r\n",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
            b"Upgrade: TLS/1.0, HTTP/2.0\r\nConnection: upgrade\r\n",
            b"Connection: Upgrade\r\n",
            b"Upgrade:\r\nConnection: Upgrade\r\n",
        ],
    )
    def test_unwanted_upgrade_is_ignored(self, server: Served[Echo], lines: bytes) -> None:
        with server.connect() as client:
            client.send(get("/a", lines) + get("/b"))
            response = client.read_response()
            assert seen(response)["path"] == "/a"
            assert response.all(b"upgrade") == []
            assert seen(client.read_response())["path"] == "/b"

    def test_unwanted_upgrade_with_a_body(self, server: Served[Echo]) -> None:
        lines = b"Upgrade: tea/1\r\nConnection: Upgrade\r\n"
        with server.connect() as client:
            client.send(post("/a", b"hello", lines) + get("/b"))
            assert seen(client.read_response())["body"] == "hello"
            assert seen(client.read_response())["path"] == "/b"

    def test_http_1_0_cannot_upgrade(self, server: Served[Echo]) -> None:
        lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        assert server.ask(get("/a", lines, "1.0")).status == 200


class TestAnswers:
    @pytest.mark.parametrize("raw", [get(), b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n"])
    def test_date_is_there_once_and_in_the_fixed_form(
        self, server: Served[Echo], raw: bytes
    ) -> None:
        """6.6.1, 5.6.7: MUST in 2xx, 3xx and 4xx."""
        dates = server.ask(raw).all(b"date")
        assert len(dates) == 1
        assert re.fullmatch(
            rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-3]\d [JFMASOND][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
            dates[0],
        )

    def test_what_the_application_says_of_date_and_server_is_not_doubled(self) -> None:
        own = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"mine")]
        with served(Replies({"/": [start(200, own), body()]})) as running:
            response = running.ask(get())
            assert response.all(b"date") == [b"Thu, 01 Jan 1970 00:00:00 GMT"]
            assert response.all(b"server") == [b"mine"]

    def test_error_answers_tell_nothing_of_the_request(self, server: Served[Echo]) -> None:
        response = server.ask(b"GET /<script>secret HTTP/1.1\r\nHost: <script>\r\n\r\n")
        assert response.status == 400
        assert b"script" not in response.body

    def test_early_hints_come_before_the_answer(self) -> None:
        """15.2: and never to HTTP/1.0."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                return await lifespan(receive, send)
            if "http.response.early_hint" in scope["extensions"]:
                links = [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]
                await send({"type": "http.response.early_hint", "links": links})
            return await answer(send, 200, [(b"content-length", b"2")], b"ok")

        with served(app) as running:
            response = running.ask(get())
            assert [early.status for early in response.informational] == [103]
            links = b", ".join(response.informational[0].all(b"link"))
            assert links == b"</a.css>; rel=preload, </b.js>; rel=preload"
            assert response.body == b"ok"
            old = running.ask(get(version="1.0"))
            assert (old.informational, old.body) == ([], b"ok")
