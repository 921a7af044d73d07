"""RFC 9113 section 8.3: pseudo-header fields, and what may be said in them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.http2_frames import (
    IGNORED,
    Code,
    Fields,
    block,
    continuation,
    headers,
    literal,
    stream_error,
)
from tests.support.http2_peer import connect
from tests.wire.served import Served, served

METHOD, SCHEME, PATH = (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/refused")
AUTHORITY, HOST = (b":authority", b"example.com"), (b"host", b"example.com")
GOOD = [METHOD, SCHEME, PATH, AUTHORITY]


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


def malformed(server: Served[Echo], fields: Fields, *, end: bool = True) -> None:
    server.app.calls.clear()
    with connect(server) as client:
        client.send(headers(1, block(fields), end=end))
        client.expect_malformed(1)
    assert [call.path for call in server.app.calls] == ["/"], "the application heard of it"


def told(server: Served[Echo], fields: Fields) -> dict[str, object]:
    with connect(server) as client:
        client.send(headers(1, block(fields)))
        found = client.answer(1)
        assert found.status == 200
        heard: dict[str, object] = json.loads(found.body)
        return heard


def swapped(name: bytes, value: bytes) -> Fields:
    return [(key, value if key == name else was) for key, was in GOOD]


class TestRules:
    """8.3"""

    @pytest.mark.parametrize("missing", [METHOD, SCHEME, PATH])
    @pytest.mark.parametrize("end", [True, False])
    def test_each_is_needed(
        self, server: Served[Echo], missing: tuple[bytes, bytes], end: bool
    ) -> None:
        malformed(server, [field for field in GOOD if field != missing], end=end)

    @pytest.mark.parametrize("twice", GOOD)
    @pytest.mark.parametrize("other", [True, False])
    def test_each_comes_once(
        self, server: Served[Echo], twice: tuple[bytes, bytes], other: bool
    ) -> None:
        malformed(server, [*GOOD, (twice[0], b"/other") if other else twice])
        malformed(server, [twice, *GOOD])

    @pytest.mark.parametrize("late", GOOD)
    def test_all_come_first(self, server: Served[Echo], late: tuple[bytes, bytes]) -> None:
        malformed(server, [*(one for one in GOOD if one != late), (b"x-a", b"b"), late])
        malformed(server, [(b"x-a", b"b"), *GOOD])
        malformed(server, [*GOOD, (b"x-a", b"b"), late])

    @pytest.mark.parametrize(
        "name",
        [
            b":status",
            b":unknown",
            b":",
            b"::",
            b":host",
            b":Method",
            b":PATH",
            b":path:",
            b": path",
        ],
    )
    def test_no_others(self, server: Served[Echo], name: bytes) -> None:
        malformed(server, [*GOOD, (name, b"200")])
        malformed(server, [(name, b"200"), *GOOD])

    def test_protocol_without_connect(self, server: Served[Echo]) -> None:
        """RFC 8441 4: only with CONNECT."""
        malformed(server, [*GOOD, (b":protocol", b"websocket")])

    def test_none_at_all(self, server: Served[Echo]) -> None:
        malformed(server, [])
        malformed(server, [(b"x-a", b"b")])
        malformed(server, [HOST])

    def test_any_order(self, server: Served[Echo]) -> None:
        for fields in ([AUTHORITY, PATH, SCHEME, METHOD], [PATH, METHOD, AUTHORITY, SCHEME]):
            assert told(server, fields)["path"] == "/refused"

    def test_in_continuations(self, server: Served[Echo]) -> None:
        """A regular field in the first frame, a pseudo-header in the second."""
        with connect(server) as client:
            first = block([METHOD, SCHEME, AUTHORITY, (b"x-a", b"b")])
            client.send(headers(1, first, done=False) + continuation(1, literal(*PATH)))
            client.expect_malformed(1)


class TestMethod:
    """8.3.1"""

    @pytest.mark.parametrize(
        "method",
        [b"", b"G T", b"GET ", b" GET", b"GE\0T", b"GET\r\n", b"G/T", b"G\xc3\x9cT", b"G:T"],
    )
    def test_no_token(self, server: Served[Echo], method: bytes) -> None:
        malformed(server, swapped(b":method", method))

    @pytest.mark.parametrize("method", [b"get", b"Post", b"pATCH"])
    def test_lower_case_is_nothing_we_have(self, server: Served[Echo], method: bytes) -> None:
        """RFC 9110 9.1: methods are case-sensitive. Nobody has a method `get`: 501."""
        with connect(server) as client:
            client.send(headers(1, block(swapped(b":method", method))))
            assert client.answer(1).status == 501
            client.expect_alive()

    def test_pri_is_the_prefaces(self, server: Served[Echo]) -> None:
        """11.6: a method that is never used; whatever is said, the connection lives."""
        with connect(server) as client:
            client.send(headers(1, block(swapped(b":method", b"PRI"))))
            client.pump(lambda: client.streams[1].over)
            client.expect_alive()


class TestScheme:
    """8.3.1"""

    @pytest.mark.parametrize("scheme", [b"", b"ht tp", b"http\0", b"http\r\n", b"://", b"h\xff"])
    def test_no_scheme(self, server: Served[Echo], scheme: bytes) -> None:
        malformed(server, swapped(b":scheme", scheme))

    @pytest.mark.parametrize("scheme", [b"http", b"https", b"HTTP"])
    def test_the_two_there_are(self, server: Served[Echo], scheme: bytes) -> None:
        """Over clear TCP `https` comes from proxies; the application is told the truth."""
        with connect(server) as client:
            client.send(headers(1, block(swapped(b":scheme", scheme))))
            found = client.answer(1)
            assert found.status in (200, 400, 421)
            if found.status == 200:
                assert json.loads(found.body)["scheme"] in ("http", "https")


class TestPath:
    """8.3.1"""

    @pytest.mark.parametrize(
        "path",
        [b"", b"refused", b"*", b"http://example.com/", b"?a=b", b"/a b", b"/a\0", b"/a\r\nb: c"],
    )
    def test_no_path(self, server: Served[Echo], path: bytes) -> None:
        """Never empty, and `*` for OPTIONS alone."""
        malformed(server, swapped(b":path", path))

    @pytest.mark.parametrize(
        "path", [b"/a#b", b"/\x7f", b"/\x01", b"/\x80", b"/\\", b"/<>", b"//x"]
    )
    def test_what_a_uri_does_not_have(self, server: Served[Echo], path: bytes) -> None:
        """RFC 3986: refused, or taken for what it is; never two requests."""
        with connect(server) as client:
            client.send(headers(1, block(swapped(b":path", path))))
            assert client.reaction(1) in (IGNORED, stream_error(Code.PROTOCOL_ERROR))
            client.expect_alive()

    def test_the_asterisk(self, server: Served[Echo]) -> None:
        fields = [(b":method", b"OPTIONS"), SCHEME, (b":path", b"*"), AUTHORITY]
        assert told(server, fields)["path"] == "*"

    def test_path_and_query(self, server: Served[Echo]) -> None:
        heard = told(server, swapped(b":path", b"/a%20b/%E4?c=d&e=%00?f"))
        assert heard["raw_path"] == "/a%20b/%E4"
        assert heard["query"] == "c=d&e=%00?f"


class TestAuthority:
    """8.3.1, and RFC 9110 7.2 for Host"""

    def test_it_is_the_host(self, server: Served[Echo]) -> None:
        heard = told(server, GOOD)
        assert ["host", "example.com"] in heard["headers"]  # type: ignore[operator]

    def test_host_alone_is_enough(self, server: Served[Echo]) -> None:
        heard = told(server, [METHOD, SCHEME, PATH, HOST])
        assert ["host", "example.com"] in heard["headers"]  # type: ignore[operator]

    @pytest.mark.parametrize("host", [b"example.com", b"EXAMPLE.com", b"example.com:80"])
    def test_both_are_the_same(self, server: Served[Echo], host: bytes) -> None:
        """In any spelling they may be; the application sees one."""
        with connect(server) as client:
            client.send(headers(1, block([*GOOD, (b"host", host)])))
            if host != b"example.com" and client.reaction(1) != IGNORED:
                return
            hosts = [
                one for one in json.loads(client.answer(1).body)["headers"] if one[0] == "host"
            ]
            assert len(hosts) == 1

    @pytest.mark.parametrize("host", [b"evil.example", b"", b"example.com:81", b"example.com.evil"])
    def test_both_differ(self, server: Served[Echo], host: bytes) -> None:
        malformed(server, [*GOOD, (b"host", host)])

    def test_host_twice(self, server: Served[Echo]) -> None:
        malformed(server, [*GOOD, HOST, HOST])
        malformed(server, [METHOD, SCHEME, PATH, HOST, HOST])
        malformed(server, [METHOD, SCHEME, PATH, HOST, (b"host", b"evil.example")])

    def test_neither(self, server: Served[Echo]) -> None:
        """http and https URIs have an authority: one of the two must say it."""
        malformed(server, [METHOD, SCHEME, PATH])
        malformed(server, [METHOD, SCHEME, PATH, (b":authority", b"")])

    @pytest.mark.parametrize("where", [b":authority", b"host"])
    @pytest.mark.parametrize(
        "value",
        [
            b"user@example.com",
            b"user:secret@example.com",
            b"@example.com",
            b"a b",
            b"exam/ple",
            b"example.com/",
            b"a?b",
            b"a#b",
            b"a\\b",
            b"example.com:port",
            b"[::1",
            b"a\0",
            b"a\r\nx: y",
        ],
    )
    def test_no_authority(self, server: Served[Echo], where: bytes, value: bytes) -> None:
        """Never with userinfo; nor with what separates the parts of a URI or of a head."""
        malformed(server, [METHOD, SCHEME, PATH, (where, value)])

    @pytest.mark.parametrize("value", [b"example.com:8000", b"[::1]:80", b"127.0.0.1", b"a-b.c_d"])
    def test_all_kinds_of_authority(self, server: Served[Echo], value: bytes) -> None:
        heard = told(server, swapped(b":authority", value))
        assert ["host", value.decode()] in heard["headers"]  # type: ignore[operator]
