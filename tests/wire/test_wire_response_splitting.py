"""RFC 9112 11.1: whatever an application hands out, the wire carries one well-formed answer or a cut one.

`MARK` stands in everything an application smuggles; it must not be found among the bytes that came.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.apps import Replies, body, start
from tests.support.raw import RawClient, RawResponse, ResponseError
from tests.wire.served import Served, closes, get, served

from tidegate.types import Message

MARK = b"smuggled"
INJECTION = b"\r\n\r\nHTTP/1.1 200 OK\r\nX-Smuggled: smuggled\r\n\r\n"
FIVE = (b"content-length", b"5")


class Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()

BAD_HEADERS: dict[str, Any] = {
    "value-crlf": [(b"x", b"a\r\nx-smuggled: smuggled")],
    "value-answer": [(b"x", b"a" + INJECTION)],
    "value-lf": [(b"x", b"a\nx-smuggled: smuggled")],
    "value-cr": [(b"x", b"a\rx-smuggled: smuggled")],
    "value-nul": [(b"x", b"a\x00smuggled")],
    "value-ends-in-crlf": [(b"x", b"smuggled\r\n")],
    "value-begins-with-crlf": [(b"x", b"\r\n smuggled")],
    "value-fold": [(b"x", b"a\r\n smuggled")],
    "location-crlf": [(b"location", b"/\r\nset-cookie: smuggled")],
    "set-cookie-crlf": [(b"set-cookie", b"a=b\r\nset-cookie: smuggled")],
    "content-type-crlf": [(b"content-type", b"text/html\r\nx-smuggled: smuggled")],
    "last-of-many": [(b"x-a", b"b"), (b"x-c", b"d"), (b"x", b"\r\nsmuggled: a")],
    "name-crlf": [(b"x: a\r\nsmuggled", b"b")],
    "name-lf": [(b"x: a\nsmuggled", b"b")],
    "name-cr": [(b"x\rsmuggled", b"b")],
    "name-nul": [(b"x\x00smuggled", b"b")],
    "name-colon": [(b"smuggled: a", b"b")],
    "name-ends-in-colon": [(b"smuggled:", b"b")],
    "name-space": [(b"x smuggled", b"b")],
    "name-ends-in-space": [(b"smuggled ", b"b")],
    "name-begins-with-space": [(b" smuggled", b"b")],
    "name-tab": [(b"x\tsmuggled", b"b")],
    "name-empty": [(b"", b"smuggled")],
    "name-delimiter": [(b"(smuggled)", b"b")],
    "name-not-ascii": [(b"smuggl\xe9d", b"b")],
    "name-pseudo": [(b":status", b"200"), (b":smuggled", b"b")],
    "name-text": [("x-smuggled", b"b")],
    "name-none": [(None, b"smuggled")],
    "value-text": [(b"x", "smuggled")],
    "value-number": [(b"x-smuggled", 5)],
    "value-none": [(b"x-smuggled", None)],
    "value-list": [(b"x", [b"smuggled"])],
    "pair-of-one": [(b"x-smuggled",)],
    "pair-of-three": [(b"x-smuggled", b"b", b"c")],
    "pair-is-bytes": [b"smuggled"],
    "headers-number": 5,
    "length-word": [(b"content-length", b"five")],
    "length-plus": [(b"content-length", b"+5")],
    "length-minus": [(b"content-length", b"-5")],
    "length-empty": [(b"content-length", b"")],
    "length-list": [(b"content-length", b"5, 5")],
    "length-underscore": [(b"content-length", b"0_5")],
    "length-hexadecimal": [(b"content-length", b"0x5")],
    "lengths-differ": [FIVE, (b"content-length", b"6")],
    "lengths-differ-last-right": [(b"content-length", b"6"), FIVE],
    "lengths-differ-in-case-of-name": [FIVE, (b"Content-Length", b"6")],
    "length-crlf": [(b"content-length", b"5\r\nx-smuggled: smuggled")],
    "coding-crlf": [(b"transfer-encoding", b"chunked\r\nx-smuggled: smuggled")],
    "connection-crlf": [(b"connection", b"close\r\nx-smuggled: smuggled")],
    "date-crlf": [(b"date", b"now\r\nx-smuggled: smuggled")],
}
BAD_STATUSES: list[Any] = [
    *(99, 1000, 0, -1, -200, 20, 2000, 100, 101, 103, 199),
    *("200", b"200", 200.5, None, [200], "200 OK\r\nx-smuggled: smuggled"),
    ABSENT,
]
BAD_BODIES: list[Any] = ["smuggled", 5, None, [b"smuggled"], {}]


@pytest.fixture(scope="module")
def splitting() -> Iterator[Served[Replies]]:
    with served(Replies({})) as running:
        yield running


def play(
    running: Served[Replies], script: list[Message], raw: bytes | None = None
) -> tuple[RawClient, RawResponse | None]:
    """The answer to one request that runs this script, or None where it was cut; then the check.

    A connection that lives must answer the next request as if nothing had been; an application
    that failed may cost it the connection, but then there is not one byte more.
    """
    running.app.scripts["/"] = script
    running.app.errors.clear()
    raw = raw or get("/")
    with running.connect() as client:
        client.send(raw)
        try:
            response = client.read_response(raw.split(b" ")[0].decode())
        except (ResponseError, ConnectionResetError):
            assert client.received.count(b"HTTP/1.") <= 1
            assert MARK not in client.received.lower()
            return client, None
        if closes(response):
            assert client.read_eof() == b""
        else:
            go_on(client, failed=running.app.errors != [])
        assert MARK not in client.received.lower()
        return client, response


def go_on(client: RawClient, failed: bool) -> None:
    try:
        client.send(get("/after"))
        assert client.read_response().body == b"ok"
    except (ResponseError, ConnectionResetError, BrokenPipeError):
        assert failed
        assert client.unread == b""


def start_with(status: Any) -> Message:
    message = start(status)
    if status is ABSENT:
        del message["status"]
    return message


class TestHeads:
    """A head that cannot be sent is refused out of send(), and the client gets a plain 500."""

    @pytest.mark.parametrize("headers", BAD_HEADERS.values(), ids=BAD_HEADERS)
    def test_bad_header(self, splitting: Served[Replies], headers: Any) -> None:
        _, response = play(splitting, [start(200, headers), body(b"hello")])
        assert response is not None
        assert response.status == 500
        assert len(splitting.app.errors) == 1

    @pytest.mark.parametrize("headers", BAD_HEADERS.values(), ids=BAD_HEADERS)
    def test_bad_header_under_an_application_that_goes_on(self, headers: Any) -> None:
        """Catching the error must not get the head through, nor leave half a one behind."""

        async def stubborn(scope, receive, send):  # type: ignore[no-untyped-def]
            try:
                await send(start(200, headers))
            except Exception:
                await send(start(200, [(b"content-length", b"2")]))
                await send(body(b"ok"))

        with served(stubborn, lifespan="off") as running, running.connect() as client:
            client.send(get("/"))
            response = client.read_response()
            assert (response.status, response.body) in [(200, b"ok")] or response.status == 500
            assert MARK not in client.received.lower()

    @pytest.mark.parametrize("status", BAD_STATUSES, ids=repr)
    def test_bad_status(self, splitting: Served[Replies], status: Any) -> None:
        _, response = play(splitting, [start_with(status), body(b"hello")])
        assert response is not None
        assert response.status == 500
        assert len(splitting.app.errors) == 1

    @pytest.mark.parametrize("status", [200, 299, 404, 418, 451, 499, 599])
    def test_any_other_status_passes(self, splitting: Served[Replies], status: int) -> None:
        _, response = play(splitting, [start(status, [FIVE]), body(b"hello")])
        assert response is not None
        assert (response.status, response.body) == (status, b"hello")

    def test_good_unusual_headers_pass(self, splitting: Served[Replies]) -> None:
        headers = [(b"X-Upper", b""), (b"x!#$%&'*+-.^_`|~9", b"a\tb \xe9 \x80"), FIVE]
        _, response = play(splitting, [start(200, headers), body(b"hello")])
        assert response is not None
        assert response.all(b"x-upper") == [b""]
        assert response.all(b"x!#$%&'*+-.^_`|~9") == [b"a\tb \xe9 \x80"]

    @pytest.mark.parametrize("link", [b"</a>; x=\r\nx-smuggled: smuggled", b"a" + INJECTION])
    def test_bad_early_hint(self, splitting: Served[Replies], link: bytes) -> None:
        hint = {"type": "http.response.early_hint", "links": [link]}
        _, response = play(splitting, [hint, start(200, [FIVE]), body(b"hello")])
        assert response is not None
        assert response.status == 500
        assert response.informational == []

    @pytest.mark.parametrize("headers", [[(b"transfer-encoding", b"chunked")]], ids=repr)
    def test_coding_is_the_servers_to_choose(
        self, splitting: Served[Replies], headers: list[tuple[bytes, bytes]]
    ) -> None:
        """The application's own field is dropped: data is coded once, and announced once."""
        _, response = play(splitting, [start(200, headers), body(b"hello")])
        assert response is not None
        assert (response.status, response.body) == (200, b"hello")

    @pytest.mark.parametrize("coding", [b"gzip", b"identity", b"gzip, chunked", b"smuggled"])
    def test_other_codings_are_not_announced(
        self, splitting: Served[Replies], coding: bytes
    ) -> None:
        _, response = play(
            splitting, [start(200, [(b"transfer-encoding", coding)]), body(b"hello")]
        )
        assert response is not None
        assert response.tokens(b"transfer-encoding") <= {b"chunked"}
        assert response.body == b"hello" or response.status == 500

    def test_coding_beside_a_length_is_dropped(self, splitting: Served[Replies]) -> None:
        headers = [(b"transfer-encoding", b"chunked"), FIVE]
        _, response = play(splitting, [start(200, headers), body(b"hello")])
        assert response is not None
        assert response.all(b"transfer-encoding") == []
        assert (response.all(b"content-length"), response.body) == ([b"5"], b"hello")

    def test_two_equal_lengths_are_never_two_on_the_wire(self, splitting: Served[Replies]) -> None:
        _, response = play(splitting, [start(200, [FIVE, FIVE]), body(b"hello")])
        assert response is not None
        assert response.status == 500 or response.all(b"content-length") == [b"5"]


class TestBodies:
    """Content-Length is a promise; what breaks it never becomes part of another answer."""

    @pytest.mark.parametrize(
        "parts",
        [
            [body(b"hello" + INJECTION)],
            [body(b"hello", True), body(INJECTION)],
            [body(b"hello", True), body(INJECTION, True), body()],
            [body(b"hel", True), body(b"lo" + INJECTION)],
            [body(b"", True), body(b"hello" + INJECTION)],
        ],
        ids=["at-once", "next", "next-more", "half-way", "empty-first"],
    )
    def test_too_much(self, splitting: Served[Replies], parts: list[Message]) -> None:
        """What was promised may have left already; what is beyond it never does."""
        client, response = play(splitting, [start(200, [FIVE]), *parts])
        assert splitting.app.errors != []
        if response is not None and response.status != 500:
            assert response.body == b"hello"
        assert client.received.count(b"HTTP/1.1 ") <= 2  # this one, and the one to /after

    @pytest.mark.parametrize(
        "parts",
        [
            [body(b"he")],
            [body(b"he", True), body(b"l")],
            [body()],
            [body(b"he", True)],
            [body(b"he", True), body(b"ll", True)],
            [],
        ],
        ids=["at-once", "two-parts", "nothing", "returns", "returns-later", "only-start"],
    )
    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    def test_too_little_is_no_whole_answer(
        self, splitting: Served[Replies], parts: list[Message], version: str
    ) -> None:
        """42: either nothing had left and it is a 500, or the answer is cut short and seen so."""
        raw = get("/", b"Connection: keep-alive\r\n", version)
        _, response = play(splitting, [start(200, [FIVE]), *parts], raw)
        assert response is None or response.status == 500

    @pytest.mark.parametrize("parts", [[body(b"hel", True)], [body(b"hel", True), body("lo")]])
    def test_unfinished_chunks_have_no_last_chunk(
        self, splitting: Served[Replies], parts: list[Message]
    ) -> None:
        client, response = play(splitting, [start(), *parts])
        assert response is None
        assert not client.received.endswith(b"0\r\n\r\n")

    def test_unfinished_answer_that_ends_at_the_close_is_reset(
        self, splitting: Served[Replies]
    ) -> None:
        """8: an orderly close would be this answer's good end, so it must not be orderly."""
        _, response = play(splitting, [start(), body(b"hel", True)], get(version="1.0"))
        assert response is None

    @pytest.mark.parametrize("data", BAD_BODIES, ids=repr)
    def test_body_of_a_wrong_type(self, splitting: Served[Replies], data: Any) -> None:
        _, response = play(splitting, [start(200, [FIVE]), body(data)])
        assert response is None or response.status == 500
        assert splitting.app.errors != []

    @pytest.mark.parametrize("status", [204, 304])
    @pytest.mark.parametrize("headers", [[], [(b"content-length", b"8")]], ids=["plain", "length"])
    def test_body_where_none_may_be(
        self, splitting: Served[Replies], status: int, headers: list[tuple[bytes, bytes]]
    ) -> None:
        _, response = play(splitting, [start(status, headers), body(MARK)])
        if response is not None and response.status != 500:
            assert response.all(b"transfer-encoding") == []
            if status == 204:
                assert response.all(b"content-length") == []

    @pytest.mark.parametrize("headers", [[], [(b"content-length", b"8")]], ids=["plain", "length"])
    def test_body_of_an_answer_to_head(
        self, splitting: Served[Replies], headers: list[tuple[bytes, bytes]]
    ) -> None:
        raw = get("/").replace(b"GET", b"HEAD")
        _, response = play(splitting, [start(200, headers), body(MARK, True), body()], raw)
        assert response is not None
        assert response.status == 200

    @pytest.mark.parametrize("data", [b"", b"he", b"hello" + INJECTION])
    def test_head_need_not_keep_the_promise(self, splitting: Served[Replies], data: bytes) -> None:
        """9110 9.3.2: Content-Length tells GET's size; an application may send no body at all."""
        raw = get("/").replace(b"GET", b"HEAD")
        play(splitting, [start(200, [FIVE]), body(data)], raw)

    def test_zero_size_parts_are_not_the_last_chunk(self, splitting: Served[Replies]) -> None:
        script = [start(), body(b"", True), body(b"hel", True), body(b"", True), body(b"lo")]
        _, response = play(splitting, script)
        assert response is not None
        assert response.body == b"hello"

    def test_data_that_looks_like_chunks_is_data(self, splitting: Served[Replies]) -> None:
        data = b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
        _, response = play(splitting, [start(), body(data, True), body()])
        assert response is not None
        assert response.body == data


class TestOrder:
    @pytest.mark.parametrize(
        "script",
        [
            [body(MARK)],
            [body(MARK, True), start(), body(b"hello")],
            [{"type": "http.response.smuggled"}],
            [{"type": "websocket.accept"}],
            [{}],
        ],
        ids=["body-first", "body-then-start", "unknown-type", "websocket", "no-type"],
    )
    def test_nothing_left_yet_so_it_is_a_500(
        self, splitting: Served[Replies], script: list[Message]
    ) -> None:
        _, response = play(splitting, script)
        assert response is not None
        assert response.status == 500
        assert splitting.app.errors != []

    def test_application_that_sends_nothing_is_a_500(self, splitting: Served[Replies]) -> None:
        _, response = play(splitting, [])
        assert response is not None
        assert response.status == 500

    def test_second_start_is_not_a_second_answer(self, splitting: Served[Replies]) -> None:
        second = start(200, [(b"x-smuggled", b"smuggled")])
        _, response = play(splitting, [start(200, [FIVE]), body(b"he", True), second])
        assert response is None or response.status == 500
        assert splitting.app.errors != []

    @pytest.mark.parametrize(
        "late", [body(MARK), start(200, [(b"x", MARK)])], ids=["body", "start"]
    )
    def test_what_follows_the_end_is_not_sent(
        self, splitting: Served[Replies], late: Message
    ) -> None:
        _, response = play(splitting, [start(200, [FIVE]), body(b"hello"), late])
        assert response is not None
        assert (response.status, response.body) == (200, b"hello")

    def test_the_operator_is_told(self) -> None:
        with served(Replies({"/": [start(200, [FIVE]), body(b"he")]})) as running:
            before = len(running.server.logged())
            with running.connect() as client:
                client.send(get("/"))
                client.read_until(b"HTTP/1.1")
        assert len(running.server.logged()) > before
