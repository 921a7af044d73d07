"""RFC 9112 section 2: message format, parsing and version; good requests arrive, however cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.wire.good import GOOD, Good
from tests.wire.served import Served, closes, get, post, seen, served

SHORT = [good for good in GOOD if len(good.raw) <= 300]
NAMES = [good.id for good in GOOD]
SHORT_NAMES = [good.id for good in SHORT]


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served[Echo]]:
    """Over a Unix socket, where the kernel tells cheaply when the server has read a piece."""
    with served(Echo(), uds=str(tmp_path_factory.mktemp("wire") / "s")) as running:
        yield running


@pytest.mark.parametrize("good", GOOD, ids=NAMES)
def test_good_request_is_seen_as_sent_and_connection_lives(
    good: Good, server: Served[Echo]
) -> None:
    with server.connect() as client:
        client.send(good.raw)
        response = client.read_response()
        told = seen(response)
        assert {key: told[key] for key in good.seen} == good.seen, good.section
        assert not closes(response)
        client.send(get("/next"))
        assert seen(client.read_response())["path"] == "/next"


@pytest.mark.parametrize("good", SHORT, ids=SHORT_NAMES)
def test_split_in_two_at_every_byte_gives_the_same_answer(good: Good, local: Served[Echo]) -> None:
    with local.connect() as client:
        client.send(good.raw)
        whole = client.read_response().body
        for cut in range(1, len(good.raw)):
            client.send_pieces([good.raw[:cut], good.raw[cut:]])
            response = client.read_response()
            assert (response.status, response.body) == (200, whole), f"cut at {cut}"


@pytest.mark.parametrize("good", SHORT, ids=SHORT_NAMES)
def test_byte_by_byte_gives_the_same_answer(good: Good, local: Served[Echo]) -> None:
    with local.connect() as client:
        client.send(good.raw)
        whole = client.read_response().body
        client.send_pieces(bytes([code]) for code in good.raw)
        response = client.read_response()
        assert (response.status, response.body) == (200, whole)


def test_all_good_requests_in_one_segment_are_answered_in_order(server: Served[Echo]) -> None:
    with server.connect() as client:
        client.send(b"".join(good.raw for good in SHORT))
        for good in SHORT:
            told = seen(client.read_response())
            assert {key: told[key] for key in good.seen} == good.seen, good.id


class TestParsing:
    """2.2"""

    def test_blank_line_between_requests_is_ignored(self, server: Served[Echo]) -> None:
        """Old clients put a CRLF behind the body of a POST that Content-Length does not count."""
        with server.connect() as client:
            client.send(post("/a", b"hello") + b"\r\n" + get("/b"))
            assert seen(client.read_response())["body"] == "hello"
            assert seen(client.read_response())["path"] == "/b"

    def test_blank_line_that_arrives_late_is_ignored(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send_pieces([post("/a", b"hello"), b"\r", b"\n"])
            assert seen(client.read_response())["path"] == "/a"
            client.send(get("/b"))
            assert seen(client.read_response())["path"] == "/b"


class TestVersion:
    """2.3"""

    def test_answer_to_http_1_0_speaks_our_own_version(self, server: Served[Echo]) -> None:
        response = server.ask(get(version="1.0"))
        assert response.version == b"HTTP/1.1"
        assert seen(response)["http_version"] == "1.0"

    def test_http_1_0_needs_no_host(self, server: Served[Echo]) -> None:
        assert seen(server.ask(b"GET /a HTTP/1.0\r\n\r\n"))["path"] == "/a"

    def test_higher_minor_version_is_kept_alive_as_1_1(self, server: Served[Echo]) -> None:
        with server.connect() as client:
            client.send(get("/a", version="1.2") + get("/b", version="1.7"))
            assert seen(client.read_response())["path"] == "/a"
            assert seen(client.read_response())["path"] == "/b"

    def test_higher_minor_version_may_be_chunked(self, server: Served[Echo]) -> None:
        head = b"POST / HTTP/1.2\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert seen(server.ask(head + b"5\r\nhello\r\n0\r\n\r\n"))["body"] == "hello"
