"""RFC 9112 section 5: field lines, their bounds, and what of them reaches the application."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.wire.served import HOST, Served, closes, get, seen, served

from tidegate.types import Receive, Scope, Send


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


def test_names_are_lower_cased_values_are_not(server: Served[Echo]) -> None:
    told = seen(server.ask(get("/", b"X-MiXeD: VaLuE\r\n")))
    assert ["x-mixed", "VaLuE"] in told["headers"]


def test_repeated_cookies_stay_apart_and_in_order(server: Served[Echo]) -> None:
    told = seen(server.ask(get("/", b"Cookie: a=b\r\nX: y\r\nCookie: c=d\r\n")))
    assert [value for name, value in told["headers"] if name == "cookie"] == ["a=b", "c=d"]


def test_underscore_name_is_not_the_dashed_name(server: Served[Echo]) -> None:
    """A proxy that strips X-Forwarded-For must not be circumvented; nor may framing be imitated."""
    told = seen(server.ask(get("/", b"Content_Length: 5\r\nTransfer_Encoding: chunked\r\n")))
    names = {name for name, _ in told["headers"]}
    assert not names & {"content-length", "transfer-encoding"}
    assert told["body"] == ""


def test_same_fields_under_other_targets_mean_what_each_target_says(server: Served[Echo]) -> None:
    """What a server remembers of one head must not colour the next one with the same fields."""
    absolute = get("/").replace(b" / ", b" http://a.example/ ")
    wanted = [(get(), "example.com"), (absolute, "a.example"), (get(), "example.com")] * 3
    with server.connect() as client:
        for raw, host in wanted:
            client.send(raw)
            assert ["host", host] in seen(client.read_response())["headers"]


def test_same_fields_under_other_versions_mean_what_each_version_says(server: Served[Echo]) -> None:
    lines = b"Transfer-Encoding: chunked\r\n"
    assert server.ask(get("/", lines) + b"0\r\n\r\n").status == 200
    assert server.ask(get("/", lines, "1.0") + b"0\r\n\r\n").status == 400
    assert server.ask(get("/", lines) + b"0\r\n\r\n").status == 200
    assert server.ask(b"GET / HTTP/1.0\r\nX-A: b\r\n\r\n").status == 200
    assert server.ask(b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n").status == 400


def test_what_an_application_does_to_its_headers_is_not_seen_by_the_next_request() -> None:
    echo = Echo()

    async def scribbling(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        if scope["type"] == "http":
            scope["headers"].append((b"x-scribble", b"1"))
            scope["extensions"]["x-scribble"] = {}

    with served(scribbling) as running, running.connect() as client:
        for _ in range(3):
            client.send(get())
            assert seen(client.read_response())["headers"] == [["host", "example.com"]]


@pytest.fixture(scope="module")
def narrow() -> Iterator[Served[Echo]]:
    with served(Echo(), limit_header_size=1_000, limit_header_count=5) as running:
        yield running


class TestLimits:
    def test_fields_within_the_options_pass(self, narrow: Served[Echo]) -> None:
        assert narrow.ask(get("/", b"X-A: b\r\n" * 4)).status == 200
        assert narrow.ask(get("/", b"X-A: " + b"b" * 900 + b"\r\n")).status == 200

    @pytest.mark.parametrize(
        "lines",
        [
            b"X-A: b\r\n" * 5,
            b"X-A:\r\n" * 50,
            b"X-A: " + b"b" * 1_000 + b"\r\n",
            b"X" * 1_000 + b": b\r\n",
            b"X-A: " + b" " * 1_000 + b"b\r\n",
            b"X-A: b" + b" " * 1_000 + b"\r\n",
            (b"X-A: " + b"b" * 400 + b"\r\n") * 3,
        ],
        ids=["count", "count-of-empty", "value", "name", "space-before", "space-after", "together"],
    )
    def test_fields_beyond_the_options_are_431(self, narrow: Served[Echo], lines: bytes) -> None:
        response = narrow.ask(get("/", lines))
        assert response.status == 431
        assert closes(response)

    def test_limit_holds_for_each_request_of_a_connection_anew(self, narrow: Served[Echo]) -> None:
        with narrow.connect() as client:
            for _ in range(5):
                client.send(get("/", b"X-A: " + b"b" * 800 + b"\r\n"))
                assert client.read_response().status == 200

    def test_head_that_never_ends_is_refused_before_its_end(self, narrow: Served[Echo]) -> None:
        with narrow.connect() as client:
            client.send_pieces(
                [b"GET / HTTP/1.1\r\n" + HOST, *[b"X-A: b" + b"b" * 200 + b"\r\n"] * 5]
            )
            assert client.read_response().status == 431
            assert client.read_eof() == b""
