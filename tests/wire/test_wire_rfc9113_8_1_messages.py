"""RFC 9113 section 8.1: how frames make messages, and which messages are malformed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo, Replies, body, start
from tests.support.http2_frames import (
    IGNORED,
    Code,
    block,
    connection_error,
    data,
    get,
    headers,
    post,
    request,
    rst,
    stream_error,
)
from tests.support.http2_peer import connect
from tests.wire.served import PATIENCE, Served, served

LENGTH = b"content-length"
TRAILERS = block([(b"x-check", b"1")])


@pytest.fixture
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.fixture(scope="module")
def replies() -> Iterator[Served[Replies]]:
    hop = [(b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5"), (b"upgrade", b"x")]
    scripts = {
        "/hop": [start(200, [*hop, (b"transfer-encoding", b"chunked"), (b"x-a", b"b")]), body()],
        "/names": [start(200, [(b"X-Upper", b"A"), (b"x-Two", b"b")]), body(b"ok")],
        "/204": [start(204, [(b"x-a", b"b")]), body()],
        "/304": [start(304, [(LENGTH, b"5")]), body()],
        "/205": [start(205, [(LENGTH, b"0")]), body()],
        "/parts": [start(), body(b"a", True), body(b"", True), body(b"b", True), body()],
        "/less": [start(200, [(LENGTH, b"5")]), body(b"ab", True), body(b"c")],
        "/head": [start(200, [(LENGTH, b"5")]), body(b"abcde")],
        "/trailers": [
            start(200, [], trailers=True),
            body(b"content"),
            {"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]},
        ],
    }
    with served(Replies(scripts)) as running:
        yield running


class TestRequests:
    """8.1: one HEADERS, any DATA, and one HEADERS of trailers, which ends the stream."""

    def test_the_shortest(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            told = json.loads(client.get(b"/").body)
            assert (told["method"], told["body"], told["http_version"]) == ("GET", "", "2")

    def test_trailers_end_the_content(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"content") + headers(1, TRAILERS))
            assert json.loads(client.answer(1).body)["body"] == "content"
            client.send(post(3) + headers(3, TRAILERS))
            assert json.loads(client.answer(3).body)["body"] == ""
            client.expect_alive()

    def test_trailers_are_not_headers(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"x") + headers(1, block([(b"host", b"evil.example")])))
            found = client.reaction(1)
            assert found in (IGNORED, stream_error(Code.PROTOCOL_ERROR))
            if found == IGNORED:
                told = json.loads(client.answer(1).body)
                assert "evil.example" not in str(told["headers"])

    def test_headers_in_the_middle(self, server: Served[Echo]) -> None:
        """Without END_STREAM they are no trailers (h2spec 8.1)."""
        for between in (b"", data(1, b"x")):
            with connect(server) as client:
                client.send(post(1) + between + headers(1, TRAILERS, end=False))
                client.expect_malformed(1)
        for call in [server.app.over.get(timeout=PATIENCE) for _ in range(2)]:
            if call.path == "/" and call.method == "POST":
                assert not call.ended

    @pytest.mark.parametrize(
        "fields",
        [
            [(b":method", b"GET")],
            [(b":path", b"/")],
            [(b":status", b"200")],
            [(b":authority", b"example.com")],
            [(b":unknown", b"1")],
            [(b"x-a", b"b"), (b":path", b"/")],
            request(),
        ],
    )
    def test_pseudo_headers_in_trailers(
        self, server: Served[Echo], fields: list[tuple[bytes, bytes]]
    ) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"x") + headers(1, block(fields)))
            client.expect_malformed(1)

    @pytest.mark.parametrize(
        "field",
        [
            (b"Upper", b"1"),
            (b"connection", b"close"),
            (b"transfer-encoding", b"chunked"),
            (b"te", b"gzip"),
            (b"a b", b"1"),
            (b"", b"1"),
            (b"a", b"1\r\nb: 2"),
            (b"a", b"\0"),
            (b"a", b" 1"),
            (b"a:b", b"1"),
        ],
    )
    def test_malformed_trailers(self, server: Served[Echo], field: tuple[bytes, bytes]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"x") + headers(1, block([(b"good", b"1"), field])))
            client.expect_malformed(1)
        call = server.app.over.get(timeout=PATIENCE)
        assert call.method != "POST" or not call.ended

    def test_content_after_trailers(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + headers(1, TRAILERS) + data(1, b"x"))
            found = client.reaction(1)
            codes = (stream_error(Code.STREAM_CLOSED), connection_error(Code.STREAM_CLOSED))
            assert found in (IGNORED, *codes)

    def test_empty_trailers(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"x") + headers(1))
            assert json.loads(client.answer(1).body)["body"] == "x"

    def test_a_get_with_content(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, block(request()), end=False) + data(1, b"x", end=True))
            assert json.loads(client.answer(1).body)["body"] == "x"

    @pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"X-OWN", b"M~1"])
    def test_any_method(self, server: Served[Echo], method: bytes) -> None:
        with connect(server) as client:
            client.send(headers(1, block(request(method=method))))
            assert client.answer(1, head=method == b"HEAD").status == 200
            assert server.app.calls[-1].method == method.decode()


class TestContentLength:
    """8.1.1: it must be the sum of all DATA, padding not counted."""

    @pytest.mark.parametrize(
        ("length", "parts"),
        [
            (b"0", []),
            (b"5", [b"hello"]),
            (b"5", [b"he", b"", b"llo"]),
            (b"005", [b"hello"]),
            (b"0", [b"", b""]),
        ],
    )
    def test_that_agrees(self, server: Served[Echo], length: bytes, parts: list[bytes]) -> None:
        with connect(server) as client:
            if not parts:
                client.send(get(1, b"/", (LENGTH, length)))
            else:
                client.send(post(1, b"/", (LENGTH, length)))
                client.send(b"".join(data(1, part, pad=7) for part in parts) + data(1, end=True))
            assert json.loads(client.answer(1).body)["body"] == b"".join(parts).decode()

    @pytest.mark.parametrize("parts", [[], [b""], [b"hell"], [b"he", b"ll"]])
    @pytest.mark.parametrize("trailers", [False, True])
    def test_that_is_longer(self, server: Served[Echo], parts: list[bytes], trailers: bool) -> None:
        """Also where there is no DATA at all, also before trailers."""
        with connect(server) as client:
            client.send(post(1, b"/", (LENGTH, b"5")) + b"".join(data(1, one) for one in parts))
            client.send(headers(1, TRAILERS) if trailers else data(1, end=True))
            client.expect_malformed(1)
        call = server.app.over.get(timeout=PATIENCE)
        assert call.method != "POST" or (call.disconnected and not call.ended)

    def test_where_the_head_is_the_end(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(get(1, b"/head-only", (LENGTH, b"5")))
            client.expect_malformed(1)
        assert "/head-only" not in [call.path for call in server.app.calls]

    @pytest.mark.parametrize(
        ("length", "parts"),
        [
            (b"0", [b"x"]),
            (b"4", [b"hello"]),
            (b"4", [b"hell", b"o"]),
            (b"4", [b"h", b"ello"]),
        ],
    )
    @pytest.mark.parametrize("end", [False, True])
    def test_that_is_shorter(
        self, server: Served[Echo], length: bytes, parts: list[bytes], end: bool
    ) -> None:
        """Known with the frame that is too much: no end need come."""
        with connect(server) as client:
            client.send(post(1, b"/", (LENGTH, length)))
            client.send(b"".join(data(1, part) for part in parts[:-1]))
            client.send(data(1, parts[-1], end=end))
            client.expect_malformed(1)
        call = server.app.over.get(timeout=PATIENCE)
        assert call.method != "POST" or not call.ended or length == b"0"

    @pytest.mark.parametrize(
        "values",
        [
            [b"5", b"6"],
            [b"5, 6"],
            [b"-5"],
            [b"+5"],
            [b"5x"],
            [b"0x5"],
            [b""],
            [b"5 5"],
            [b"5.0"],
            [b"\xb2"],
            [b"1_0"],
            [b"five"],
        ],
    )
    def test_that_is_none(self, server: Served[Echo], values: list[bytes]) -> None:
        with connect(server) as client:
            fields = [(LENGTH, value) for value in values]
            client.send(post(1, b"/none", *fields) + data(1, b"hello", end=True))
            client.expect_malformed(1)
        assert "/none" not in [call.path for call in server.app.calls]

    @pytest.mark.parametrize("values", [[b"5", b"5"], [b"5, 5"]])
    def test_that_is_said_twice(self, server: Served[Echo], values: list[bytes]) -> None:
        """RFC 9110 8.6: taken as one, or refused."""
        with connect(server) as client:
            fields = [(LENGTH, value) for value in values]
            client.send(post(1, b"/", *fields) + data(1, b"hello", end=True))
            found = client.reaction(1)
            assert found in (IGNORED, stream_error(Code.PROTOCOL_ERROR))
            client.expect_alive()

    def test_beyond_the_limit(self) -> None:
        with served(Echo(), limit_body_size=10) as small, connect(small) as client:
            client.send(post(1, b"/large", (LENGTH, b"11")))
            client.pump(lambda: client.streams[1].status == 413)
            client.send(post(3, b"/", (LENGTH, b"10")) + data(3, b"0123456789", end=True))
            assert client.answer(3).status == 200
            client.send(post(5) + data(5, b"01234567890"))
            client.pump(lambda: client.streams[5].over)
            assert client.streams[5].status == 413
            huge = b"9" * 30
            client.send(post(7, b"/", (LENGTH, huge)))
            client.pump(lambda: client.streams[7].over)
            assert client.streams[7].status == 413 or client.streams[7].reset == 1
            client.expect_alive()
            assert "/large" not in [call.path for call in small.app.calls]


class TestResponses:
    """8.1, 8.2.2, 8.3.2: the judge looks at every field and frame."""

    def test_no_connection_specific_fields(self, replies: Served[Replies]) -> None:
        with connect(replies) as client:
            found = client.get(b"/hop")
            assert found.status in (200, 500)
            if found.status == 200:
                assert found.all(b"x-a") == [b"b"]

    def test_names_are_lower_case(self, replies: Served[Replies]) -> None:
        with connect(replies) as client:
            found = client.get(b"/names")
            assert found.status == 200
            assert (found.all(b"x-upper"), found.all(b"x-two")) == ([b"A"], [b"b"])

    @pytest.mark.parametrize("path", [b"/204", b"/304", b"/205"])
    def test_without_content(self, replies: Served[Replies], path: bytes) -> None:
        with connect(replies) as client:
            found = client.get(path)
            assert found.status == int(path[1:])
            assert found.body == b""
            if path == b"/204":
                assert not found.all(LENGTH), "RFC 9110 8.6"
            client.expect_alive()

    @pytest.mark.parametrize("path", [b"/head", b"/parts", b"/names", b"/204"])
    def test_to_head(self, replies: Served[Replies], path: bytes) -> None:
        with connect(replies) as client:
            client.send(headers(1, block(request(path, method=b"HEAD"))))
            assert client.answer(1, head=True).body == b""
            client.expect_alive()

    def test_in_parts(self, replies: Served[Replies]) -> None:
        with connect(replies) as client:
            found = client.get(b"/parts")
            assert found.body == b"ab"
            assert not found.all(b"transfer-encoding")

    def test_trailers(self, replies: Served[Replies]) -> None:
        with connect(replies) as client:
            found = client.get(b"/trailers", (b"te", b"trailers"))
            assert found.body == b"content"
            assert found.trailers == [(b"x-sum", b"7")]

    def test_an_answer_that_is_cut_is_reset(self, replies: Served[Replies]) -> None:
        """Its content-length does not agree: it must not end as if it were whole."""
        with connect(replies) as client:
            client.send(get(1, b"/less"))
            assert client.reset_of(1) in (Code.INTERNAL_ERROR, Code.PROTOCOL_ERROR, Code.CANCEL)
            client.expect_alive()

    def test_before_the_request_has_ended(self, replies: Served[Replies]) -> None:
        """8.1: the rest may be asked for no more, with NO_ERROR, after the whole answer."""
        with connect(replies) as client:
            client.send(post(1) + data(1, b"some"))
            client.pump(lambda: client.streams[1].reset is not None)
            found = client.streams[1]
            assert found.ended and found.status == 200 and found.reset == Code.NO_ERROR
            client.send(data(1, b"more", end=True))
            client.expect_ignored_more(1)

    def test_the_client_is_first_to_stop(self, replies: Served[Replies]) -> None:
        with connect(replies) as client:
            client.send(post(1) + rst(1, Code.NO_ERROR))
            client.expect_alive()


class TestExpect:
    """RFC 9110 10.1.1"""

    def test_continue(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1, b"/", (b"expect", b"100-continue")))
            client.pump(lambda: client.streams[1].informational)
            assert client.streams[1].informational == [(100, [])]
            client.send(data(1, b"x", end=True))
            assert json.loads(client.answer(1).body)["body"] == "x"
            assert len(client.streams[1].informational) == 1

    def test_no_continue_where_the_content_has_come(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(get(1, b"/", (b"expect", b"100-continue")))
            assert client.answer(1).informational == []

    def test_something_else(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1, b"/else", (b"expect", b"200-ok")))
            client.pump(lambda: client.streams[1].status)
            assert client.streams[1].status == 417
            client.expect_alive()
        assert "/else" not in [call.path for call in server.app.calls]
