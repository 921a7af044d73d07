"""RFC 9113 section 8.2: which fields make a request malformed.

A malformed request is a stream error PROTOCOL_ERROR, before which 400 may be said (8.1.1, 8.2.1);
the application hears nothing of it, and the connection lives on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.http2_frames import (
    IGNORED,
    Code,
    block,
    continuation,
    get,
    headers,
    literal,
    request,
    stream_error,
    string,
)
from tests.support.http2_peer import Http2Client, connect
from tests.wire.served import Served, served

FORBIDDEN = [*range(0x21), *range(0x41, 0x5B), *range(0x7F, 0x100)]


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


def refused(client: Http2Client, *fields: tuple[bytes, bytes]) -> None:
    """Each of them makes the request malformed."""
    stream = client.next_stream()
    client.send(get(stream, b"/refused", *fields))
    assert client.reset_of(stream) == Code.PROTOCOL_ERROR, fields
    assert client.streams[stream].status in (None, 400), fields


def seen(client: Http2Client, *fields: tuple[bytes, bytes]) -> list[list[str]]:
    told: list[list[str]] = json.loads(client.get(b"/", *fields).body)["headers"]
    return told


@pytest.fixture
def calls(server: Served[Echo]) -> Iterator[list[str]]:
    """The paths that reached the application while a test ran."""
    server.app.calls.clear()
    paths: list[str] = []
    yield paths
    assert "/refused" not in [call.path for call in server.app.calls]


@pytest.mark.usefixtures("calls")
class TestNames:
    """8.2.1"""

    def test_forbidden_octets_anywhere(self, server: Served[Echo]) -> None:
        """Few at a time: a client with nothing but errors is an attacker."""
        for at in range(0, len(FORBIDDEN), 10):
            with connect(server) as client:
                for octet in FORBIDDEN[at : at + 10]:
                    refused(client, (b"x-" + bytes((octet,)), b"1"))
                    refused(client, (bytes((octet,)) + b"x", b"1"))
                    refused(client, (b"x" + bytes((octet,)) + b"y", b"1"))
                    client.get()
                client.expect_alive()

    @pytest.mark.parametrize("name", [b"X-Upper", b"x-uppeR", b"HOST", b"Content-Length", b"Te"])
    def test_upper_case(self, server: Served[Echo], name: bytes) -> None:
        with connect(server) as client:
            refused(client, (name, b"1"))
            client.expect_alive()

    @pytest.mark.parametrize("name", [b"a:b", b"a:", b"x:y:z", b"host:"])
    def test_colons(self, server: Served[Echo], name: bytes) -> None:
        with connect(server) as client:
            refused(client, (name, b"1"))
            client.expect_alive()

    def test_no_name(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            refused(client, (b"", b"1"))
            refused(client, (b"", b""))
            client.expect_alive()

    @pytest.mark.parametrize("name", [b"a b", b"a(b", b'a"', b"a/b", b"a[", b"{a}", b"a=b", b"a,b"])
    def test_no_tokens(self, server: Served[Echo], name: bytes) -> None:
        """RFC 9110 5.1: SHOULD; what HTTP/1.1 could not carry is not let in."""
        with connect(server) as client:
            refused(client, (name, b"1"))
            client.expect_alive()

    def test_all_that_a_token_may_have(self, server: Served[Echo]) -> None:
        name = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
        with connect(server) as client:
            assert [name.decode(), "1"] in seen(client, (name, b"1"))

    @pytest.mark.parametrize("pattern", [0x00, 0x10, 0x40])
    def test_in_every_representation(self, server: Served[Echo], pattern: int) -> None:
        """An indexed name is judged as well, each time it is used."""
        with connect(server) as client:
            for _ in range(2):
                stream = client.next_stream()
                raw = block(request(b"/refused")) + literal(b"Upper", b"1", pattern=pattern)
                client.send(headers(stream, raw))
                assert client.reset_of(stream) == Code.PROTOCOL_ERROR
            if pattern == 0x40:
                stream = client.next_stream()
                client.send(headers(stream, block(request(b"/refused")) + b"\xbe"))
                assert client.reset_of(stream) == Code.PROTOCOL_ERROR
                stream = client.next_stream()
                raw = block(request(b"/refused")) + b"\x7e" + string(b"2")
                client.send(headers(stream, raw))
                assert client.reset_of(stream) == Code.PROTOCOL_ERROR
            client.expect_alive()


@pytest.mark.usefixtures("calls")
class TestValues:
    """8.2.1"""

    @pytest.mark.parametrize("octet", [b"\0", b"\r", b"\n"])
    @pytest.mark.parametrize("where", [b"%bx", b"x%b", b"x%by", b"%b", b"a\r\n%bb: c"])
    def test_nul_cr_and_lf(self, server: Served[Echo], octet: bytes, where: bytes) -> None:
        with connect(server) as client:
            refused(client, (b"x-a", where % octet))
            refused(client, (b"cookie", where % octet))
            client.expect_alive()

    @pytest.mark.parametrize("value", [b" x", b"x ", b"\tx", b"x\t", b" ", b"\t", b"  "])
    def test_white_space_at_its_ends(self, server: Served[Echo], value: bytes) -> None:
        with connect(server) as client:
            refused(client, (b"x-a", value))
            client.expect_alive()

    @pytest.mark.parametrize("value", [b"\x01", b"a\x1fb", b"\x7f", b"a\x0bb", b"a\x1b[0m"])
    def test_other_controls(self, server: Served[Echo], value: bytes) -> None:
        """RFC 9110 5.5: SHOULD be refused; a MUST for the three above alone."""
        with connect(server) as client:
            client.send(get(1, b"/", (b"x-a", value)))
            assert client.reaction(1) in (IGNORED, stream_error(Code.PROTOCOL_ERROR))
            client.expect_alive()

    @pytest.mark.parametrize("value", [b"", b"a b", b"a\tb", b"\x80\xff", b"gr\xc3\xbc\xc3\x9fe"])
    def test_what_they_may_have(self, server: Served[Echo], value: bytes) -> None:
        with connect(server) as client:
            assert ["x-a", value.decode("latin-1")] in seen(client, (b"x-a", value))

    def test_smuggling_in_a_well_known_field(self, server: Served[Echo]) -> None:
        """10.3: none of these reaches anybody who would take it for two fields."""
        with connect(server) as client:
            for name in (b"user-agent", b"referer", b"x-forwarded-for", b"host", b"accept"):
                refused(client, (name, b"x\r\ntransfer-encoding: chunked"))
            client.expect_alive()


@pytest.mark.usefixtures("calls")
class TestConnectionSpecific:
    """8.2.2"""

    @pytest.mark.parametrize(
        "field",
        [
            (b"connection", b"keep-alive"),
            (b"connection", b"close"),
            (b"connection", b""),
            (b"connection", b"x-a"),
            (b"proxy-connection", b"keep-alive"),
            (b"keep-alive", b"timeout=5"),
            (b"transfer-encoding", b"chunked"),
            (b"transfer-encoding", b"identity"),
            (b"transfer-encoding", b""),
            (b"upgrade", b"websocket"),
            (b"upgrade", b"h2c"),
            (b"te", b"gzip"),
            (b"te", b"trailers, deflate"),
            (b"te", b"deflate;q=0.5"),
            (b"te", b""),
        ],
    )
    def test_is_malformed(self, server: Served[Echo], field: tuple[bytes, bytes]) -> None:
        with connect(server) as client:
            refused(client, field)
            refused(client, (b"x-a", b"b"), field, (b"x-c", b"d"))
            client.expect_alive()

    def test_te_trailers(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            assert ["te", "trailers"] in seen(client, (b"te", b"trailers"))

    @pytest.mark.parametrize("name", [b"proxy-authorization", b"via", b"trailer"])
    def test_what_is_not(self, server: Served[Echo], name: bytes) -> None:
        with connect(server) as client:
            assert client.get(b"/", (name, b"x")).status == 200


class TestCookies:
    """8.2.3: crumbs are joined with `; ` before a generic application sees them."""

    def test_are_joined(self, server: Served[Echo]) -> None:
        crumbs = [(b"cookie", b"a=1"), (b"x-a", b"b"), (b"cookie", b"c=2; d=3"), (b"cookie", b"e")]
        with connect(server) as client:
            told = seen(client, *crumbs)
            assert [value for name, value in told if name == "cookie"] == ["a=1; c=2; d=3; e"]
            assert ["x-a", "b"] in told

    def test_one_is_left_alone(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            assert ["cookie", "a=1;b"] in seen(client, (b"cookie", b"a=1;b"))


class TestSize:
    """6.5.2, 10.5.1: a list too long is answered 431, and the connection lives."""

    @pytest.mark.parametrize(
        "fields",
        [
            [(b"x-long", b"v" * 70_000)],
            [(b"x-%d" % at, b"v" * 2000) for at in range(40)],
            [(b"x", b"")] * 101,
            [(b"x-%d" % at, b"1") for at in range(300)],
            [(b"n" * 70_000, b"")],
        ],
        ids=["value", "values", "count", "names", "name"],
    )
    def test_too_much(self, server: Served[Echo], fields: list[tuple[bytes, bytes]]) -> None:
        """Small enough as a block to be read, too much as a list."""
        raw = block(request(b"/", *fields))
        with connect(server) as client:
            pieces = [raw[at : at + 16384] for at in range(0, len(raw), 16384)]
            client.send(headers(1, pieces[0], done=len(pieces) == 1))
            for at, piece in enumerate(pieces[1:], 2):
                client.send(continuation(1, piece, done=at == len(pieces)))
            client.pump(lambda: client.streams[1].status or client.failed)
            if len(raw) <= 65536:
                assert client.streams[1].status == 431
                client.expect_alive()
            elif client.failed:
                assert client.goaways[-1][1] == Code.ENHANCE_YOUR_CALM
            else:
                assert client.streams[1].status == 431
                client.expect_alive()

    def test_just_enough(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            told = seen(client, *[(b"x-%d" % at, b"1") for at in range(90)])
            assert len([name for name, _ in told if name.startswith("x-")]) == 90
            assert ["x-long", "v" * 15000] in seen(client, (b"x-long", b"v" * 15000))
