"""RFC 9112 section 9: persistence, pipelining and how a connection ends. 9.7 and 9.8 are TLS's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from tests.support.apps import Call, Echo, Replies, answer, body, lifespan, start
from tests.support.raw import RawClient
from tests.wire.served import HOST, PATIENCE, Served, closes, get, post, seen, served

from tidegate.types import Receive, Scope, Send

LARGE = b"0123456789abcdef" * 40_000


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at length, and never looks at the body."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    length = (b"content-length", b"%d" % len(LARGE))
    return await answer(send, 413, [length], LARGE)


async def unhurried(scope: Scope, receive: Receive, send: Send) -> None:
    """The first requests of a connection take longest: what is pipelined behind them must wait."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await Call(scope["method"], scope["path"]).read(receive)
    for _ in range(max(0, 50 - int(scope["path"][1:]))):
        await asyncio.sleep(0)
    await send(start())
    await send(body(scope["path"].encode(), True))
    await asyncio.sleep(0)
    return await send(body())


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


class TestPersistence:
    """9.3"""

    def test_http_1_1_stays_open(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            for number in range(20):
                client.send(get(f"/{number}"))
                response = client.read_response()
                assert seen(response)["path"] == f"/{number}"
                assert not closes(response)

    @pytest.mark.parametrize(
        "lines",
        [
            b"Connection: close\r\n",
            b"connection: CLOSE\r\n",
            b"Connection:close\r\n",
            b"Connection: keep-alive, close\r\n",
            b"Connection: close, keep-alive\r\n",
            b"Connection: x ,\tclose ,y\r\n",
            b"Connection: ,close,\r\n",
            b"Connection: x\r\nConnection: close\r\n",
            b"Connection: close\r\nConnection: keep-alive\r\n",
        ],
    )
    @pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
    def test_close_is_obeyed_in_every_spelling(
        self, server: Served[Echo], lines: bytes, version: str
    ) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(get("/a", lines, version) + get("/b"))
            response = client.read_response()
            assert seen(response)["path"] == "/a"
            assert closes(response)
            assert client.read_eof() == b"", "9.6: nothing more after close"
        assert [call.path for call in server.app.calls] == ["/a"]

    @pytest.mark.parametrize(
        "lines",
        [
            b"Connection: closed\r\n",
            b"Connection: not-close\r\n",
            b'Connection: "close"\r\n',
            b"Connection: x close\r\n",
            b"Connection:\r\n",
            b"X-Connection: close\r\n",
            b"Proxy-Connection: close\r\n",
            b"Keep-Alive: timeout=0\r\n",
        ],
    )
    def test_what_only_looks_like_close_is_not(self, server: Served[Echo], lines: bytes) -> None:
        with server.connect() as client:
            client.send(get("/a", lines) + get("/b"))
            assert not closes(client.read_response())
            assert seen(client.read_response())["path"] == "/b"

    def test_http_1_0_closes(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send(get("/a", version="1.0") + get("/b"))
            assert seen(client.read_response())["path"] == "/a"
            assert client.read_eof() == b""

    @pytest.mark.parametrize("value", [b"keep-alive", b"Keep-Alive", b"x, KEEP-ALIVE"])
    def test_http_1_0_stays_open_where_it_asks(self, server: Served[Echo], value: bytes) -> None:
        lines = b"Connection: " + value + b"\r\n"
        with server.connect() as client:
            for path in ("/a", "/b"):
                client.send(get(path, lines, "1.0"))
                response = client.read_response()
                assert seen(response)["path"] == path
                assert b"keep-alive" in response.tokens(b"connection")
            client.send(get("/c", version="1.0"))
            assert seen(client.read_response())["path"] == "/c"
            assert client.read_eof() == b""

    @pytest.mark.parametrize("lines", [b"Proxy-Connection: keep-alive\r\n", b"Keep-Alive: 9\r\n"])
    def test_http_1_0_does_not_ask_with_other_fields(
        self, server: Served[Echo], lines: bytes
    ) -> None:
        with server.connect() as client:
            client.send(get("/a", lines, "1.0"))
            assert seen(client.read_response())["path"] == "/a"
            assert client.read_eof() == b""

    def test_close_that_the_application_says_is_kept(self) -> None:
        close = [(b"connection", b"close"), (b"content-length", b"5")]
        with served(Replies({"/bye": [start(200, close), body(b"hello")]})) as replies:
            with replies.connect() as client:
                client.send(get("/bye") + get("/after"))
                response = client.read_response()
                assert response.body == b"hello"
                assert response.all(b"connection") == [b"close"]
                assert client.read_eof() == b""
            assert replies.app.calls == ["/bye"]

    def test_close_by_request_is_said_once_even_if_the_application_says_keep_alive(self) -> None:
        keep = [(b"connection", b"keep-alive"), (b"content-length", b"5")]
        with (
            served(Replies({"/": [start(200, keep), body(b"hello")]})) as replies,
            replies.connect() as client,
        ):
            client.send(get("/", b"Connection: close\r\n"))
            assert closes(client.read_response())
            assert client.read_eof() == b""


class TestPipelining:
    """9.3.2"""

    def test_answers_come_in_the_order_of_the_requests(self) -> None:
        paths = [f"/{number}" for number in range(100)]
        with served(unhurried) as running, running.connect() as client:
            client.send(b"".join(get(path) for path in paths))
            assert [client.read_response().body.decode() for _ in paths] == paths

    def test_a_long_pipeline_with_bodies(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send_beside(b"".join(post(f"/{n}", b"a" * n) for n in range(500)))
            for number in range(500):
                told = seen(client.read_response())
                assert (told["path"], len(told["body"])) == (f"/{number}", number)

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
            (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
            (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n", 414),
            (b"\x16\x03\x01\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ],
    )
    def test_good_requests_before_a_fault_are_answered_first(
        self, server: Served[Echo], fault: bytes, status: int
    ) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(get("/a") + post("/b", b"hello") + get("/c") + fault + get("/d"))
            assert seen(client.read_response())["path"] == "/a"
            assert seen(client.read_response())["body"] == "hello"
            assert seen(client.read_response())["path"] == "/c"
            response = client.read_response()
            assert (response.status, closes(response)) == (status, True)
            assert client.read_eof() == b""
        assert "/d" not in [call.path for call in server.app.calls]

    def test_fault_waits_behind_an_answer_that_takes_its_time(self) -> None:
        with served(unhurried) as running, running.connect() as client:
            client.send(get("/0") + get("/1") + b"nonsense\r\n\r\n")
            assert [client.read_response().body for _ in range(2)] == [b"/0", b"/1"]
            assert client.read_response().status == 400
            assert client.read_eof() == b""

    def test_head_in_a_pipeline_shifts_nothing(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send(get("/a").replace(b"GET", b"HEAD") + get("/b"))
            assert client.read_response("HEAD").status == 200
            assert seen(client.read_response())["path"] == "/b"


class TestTearDown:
    """9.6: shut the write side, go on reading within bounds, then close; else a reset eats the answer."""

    def test_large_answer_arrives_though_the_client_still_sends(self) -> None:
        with served(large) as running, running.connect() as client:
            head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 500000000\r\n\r\n"
            client.send_beside(head + b"a" * 8_000_000)
            response = client.read_response()
            assert response.status == 413
            assert response.body == LARGE
            assert client.read_eof() == b""

    def test_answer_before_a_huge_body_says_that_it_closes(self) -> None:
        """SHOULD: nobody will read half a gigabyte only to keep a connection."""
        with served(Replies({})) as running, running.connect() as client:
            client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 500000000\r\n\r\n")
            response = client.read_response()
            assert (response.body, closes(response)) == (b"ok", True)
            assert client.read_eof() == b""

    def test_answer_to_a_fault_arrives_though_the_client_still_sends(
        self, server: Served[Echo]
    ) -> None:
        with server.connect() as client:
            client.send(b"GET / HTTP/2.0\r\n\r\n" + b"a" * 500_000)
            assert client.read_response().status == 505
            assert client.read_eof() == b""

    def test_answer_is_there_for_those_who_read_only_after_sending(self) -> None:
        with served(Echo(), timeout_linger=PATIENCE) as running, running.connect() as client:
            head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1099511627776\r\n\r\n"
            client.send_pieces([head, *[b"a" * 1_000] * 50])
            assert client.read_response().status == 413
            assert client.read_eof() == b""

    def test_discarded_input_is_not_parsed(self) -> None:
        with served(Echo(), timeout_linger=PATIENCE) as running, running.connect() as client:
            client.send_pieces([b"GET / HTTP/2.0\r\n\r\n", get("/smuggled"), get("/smuggled")])
            assert client.read_response().status == 505
            assert client.read_eof() == b""
            assert running.app.calls == []

    def test_lingering_has_an_end(self) -> None:
        """A client that neither reads nor leaves is cut off after timeout_linger."""
        with served(Echo(), timeout_linger=0.2) as running, running.connect() as client:
            client.send(b"nonsense\r\n\r\n")
            assert client.read_response().status == 400
            assert client.read_eof() == b""
            assert cut_off(client)

    def test_endless_input_behind_a_fault_has_an_end(self) -> None:
        with served(Echo(), timeout_linger=0.2) as running, running.connect() as client:
            client.send(b"nonsense\r\n\r\n")
            assert cut_off(client, b"a" * 65_536)


def cut_off(client: RawClient, data: bytes = b"a") -> bool:
    """Send until the server refuses to take more; False if it never does."""
    deadline = time.monotonic() + client.timeout
    while time.monotonic() < deadline:
        try:
            client.send(data)
        except (BrokenPipeError, ConnectionResetError):
            return True
    return False
