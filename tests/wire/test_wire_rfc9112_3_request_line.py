"""RFC 9112 section 3: the request line, the four forms of its target, and Host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.apps import Echo
from tests.wire.served import HOST, Served, closes, get, seen, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


def hosts(told: dict[str, Any]) -> list[str]:
    return [value for name, value in told["headers"] if name == "host"]


@pytest.fixture(scope="module")
def narrow() -> Iterator[Served[Echo]]:
    with served(Echo(), limit_request_line=100) as running:
        yield running


class TestLimit:
    """3: a server refuses what is longer than it wishes to parse."""

    def test_line_within_the_option_passes(self, narrow: Served[Echo]) -> None:
        assert narrow.ask(get("/" + "a" * 80)).status == 200

    @pytest.mark.parametrize("length", [110, 200, 5_000])
    def test_line_beyond_the_option_is_414(self, narrow: Served[Echo], length: int) -> None:
        response = narrow.ask(get("/" + "a" * length))
        assert response.status == 414
        assert closes(response)

    def test_line_without_end_is_414_when_it_comes_in_pieces(self, narrow: Served[Echo]) -> None:
        with narrow.connect() as client:
            client.send_pieces([b"GET /", b"a" * 50, b"a" * 60])
            assert client.read_response().status == 414
            assert client.read_eof() == b""

    def test_long_fields_are_no_matter_of_the_line(self, narrow: Served[Echo]) -> None:
        assert narrow.ask(get("/", b"X-A: " + b"b" * 1_000 + b"\r\n")).status == 200


class TestAbsoluteForm:
    """3.2.2: its authority is the request's, whatever Host says."""

    @pytest.mark.parametrize("authority", ["a.example", "a.example:8000", "[::1]:80"])
    def test_target_replaces_host(self, server: Served[Echo], authority: str) -> None:
        raw = f"GET http://{authority}/x HTTP/1.1\r\nHost: b.example\r\nX-A: b\r\n\r\n"
        told = seen(server.ask(raw.encode()))
        assert hosts(told) == [authority]
        assert ["x-a", "b"] in told["headers"]
        assert (told["path"], told["raw_path"]) == ("/x", "/x")

    def test_target_gives_http_1_0_its_host(self, server: Served[Echo]) -> None:
        told = seen(server.ask(b"GET http://a.example/x HTTP/1.0\r\n\r\n"))
        assert hosts(told) == ["a.example"]
        assert told["path"] == "/x"

    def test_authority_does_not_leak_into_the_path(self, server: Served[Echo]) -> None:
        told = seen(
            server.ask(b"GET http://example.com//b.example?q HTTP/1.1\r\n" + HOST + b"\r\n")
        )
        assert (told["path"], told["query"]) == ("//b.example", "q")

    def test_scheme_of_target_does_not_make_a_plain_connection_secure(
        self, server: Served[Echo]
    ) -> None:
        """9110 7.4: scheme and authority are checked against the connection; 421 is the refusal."""
        response = server.ask(b"GET https://example.com/ HTTP/1.1\r\n" + HOST + b"\r\n")
        assert response.status in (200, 400, 421)
        if response.status == 200:
            assert seen(response)["scheme"] == "http"


class TestAsteriskForm:
    """3.2.4"""

    def test_options_of_the_server_as_a_whole(self, server: Served[Echo]) -> None:
        told = seen(server.ask(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"))
        assert (told["method"], told["path"], told["raw_path"]) == ("OPTIONS", "*", "*")
        assert told["query"] == ""


class TestAuthorityForm:
    """3.2.3"""

    def test_connect_opens_no_tunnel(self, server: Served[Echo]) -> None:
        """9110 9.3.6: a 2xx would turn all that follows into a tunnel's bytes."""
        with server.connect() as client:
            client.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
            response = client.read_response()
            assert response.status == 501
            assert response.tokens(b"transfer-encoding") <= {b"chunked"}
            assert client.read_eof() == b""


class TestHost:
    """3.2"""

    def test_host_reaches_the_application_once_and_as_sent(self, server: Served[Echo]) -> None:
        told = seen(server.ask(b"GET / HTTP/1.1\r\nX-A: b\r\nhOsT: Example.COM:80\r\n\r\n"))
        assert told["headers"] == [["x-a", "b"], ["host", "Example.COM:80"]]

    def test_empty_host_is_no_way_to_name_two_things(self, server: Served[Echo]) -> None:
        """The grammar allows an empty Host; a server may still miss the authority it needs."""
        response = server.ask(b"GET / HTTP/1.1\r\nHost:\r\n\r\n")
        assert response.status in (200, 400)
        if response.status == 200:
            assert hosts(seen(response)) == [""]
