"""RFC 9113 section 8.5 CONNECT and RFC 8441 extended CONNECT, by which WebSocket comes.

A server that is no proxy has nothing to do with plain CONNECT: 501.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.http2_frames import (
    CONNECT_PROTOCOL,
    END_STREAM,
    IGNORED,
    INITIAL_WINDOW,
    Code,
    Fields,
    block,
    connection_error,
    data,
    frame,
    get,
    headers,
    priority,
    rst,
    settings,
    stream_error,
    window_update,
)
from tests.support.http2_peer import Http2Client, connect
from tests.support.websocket_frames import binary, cont, parse_sent, text
from tests.support.websocket_frames import close as closing
from tests.support.websocket_frames import ping as websocket_ping
from tests.wire.dialogue import SocketEcho, says, understood
from tests.wire.served import PATIENCE, Served, served

CONNECT, AUTHORITY = (b":method", b"CONNECT"), (b":authority", b"example.com:443")
PROTOCOL, SCHEME, PATH = (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/")
VERSION = (b"sec-websocket-version", b"13")
EXTENDED = [CONNECT, PROTOCOL, SCHEME, PATH, AUTHORITY, VERSION]
BYE = closing(1000)


@pytest.fixture(scope="module")
def server() -> Iterator[Served[SocketEcho]]:
    with served(SocketEcho(), ws_ping_interval=None) as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[Served[SocketEcho]]:
    """Where no socket of another test can end."""
    with served(SocketEcho(), ws_ping_interval=None) as running:
        yield running


def swapped(name: bytes, value: bytes) -> Fields:
    return [(key, value if key == name else was) for key, was in EXTENDED]


def opened(
    client: Http2Client, path: bytes = b"/", *more: tuple[bytes, bytes], raw: bytes = b""
) -> int:
    """A socket that was accepted; `raw` goes in the packet of its handshake."""
    stream = client.next_stream()
    fields = [*swapped(b":path", path), *more]
    client.send(headers(stream, block(fields), end=False) + raw)
    client.pump(lambda: client.streams[stream].status is not None or client.streams[stream].over)
    assert client.streams[stream].status == 200, client.streams[stream]
    return stream


def refused(client: Http2Client, fields: Fields, *, end: bool = False) -> int:
    """The status that is said to it, or 0 for a reset with PROTOCOL_ERROR."""
    stream = client.next_stream()
    client.send(headers(stream, block(fields), end=end))
    client.pump(lambda: client.streams[stream].over)
    found = client.streams[stream]
    if found.status is None:
        assert found.reset == Code.PROTOCOL_ERROR, found
    client.expect_alive()
    return found.status or 0


class TestPlainConnect:
    """8.5"""

    @pytest.mark.parametrize("end", [False, True])
    def test_is_not_offered(self, server: Served[SocketEcho], end: bool) -> None:
        server.app.calls.clear()
        with connect(server) as client:
            assert refused(client, [CONNECT, AUTHORITY], end=end) == 501
        assert ("http", "") not in server.app.calls

    @pytest.mark.parametrize(
        "fields",
        [
            [CONNECT],
            [CONNECT, SCHEME, AUTHORITY],
            [CONNECT, PATH, AUTHORITY],
            [CONNECT, SCHEME, PATH, AUTHORITY],
            [CONNECT, (b":authority", b"")],
            [CONNECT, AUTHORITY, AUTHORITY],
            [CONNECT, (b"host", b"example.com:443")],
        ],
    )
    def test_malformed(self, server: Served[SocketEcho], fields: Fields) -> None:
        with connect(server) as client:
            assert refused(client, fields) in (0, 400)

    def test_its_data_disturbs_nobody(self, server: Served[SocketEcho]) -> None:
        with connect(server) as client:
            client.send(headers(1, block([CONNECT, AUTHORITY]), end=False))
            client.send(data(1, b"x" * 1000) + data(1, end=True))
            client.pump(lambda: client.streams[1].status == 501)
            client.expect_alive()


class TestExtendedConnect:
    """RFC 8441 3 to 5"""

    def test_is_announced(self, server: Served[SocketEcho]) -> None:
        with connect(server) as client:
            assert client.settings[CONNECT_PROTOCOL] == 1

    def test_opens_a_socket(self, server: Served[SocketEcho]) -> None:
        """5: nothing of the key and its hash; the stream is the connection."""
        with connect(server) as client:
            stream = opened(client)
            found = client.streams[stream]
            names = {name for name, _ in found.headers}
            assert not names & {b"sec-websocket-accept", b"content-length", b"sec-websocket-key"}
            client.send(data(stream, text("Grüße") + binary(b"\0\1") + BYE))
            client.pump(lambda: found.over)
            assert understood(bytes(found.body)) == says("Grüße", b"\0\1")
            assert found.ended, "RFC 8441 5: the end of the connection is END_STREAM"
            client.expect_alive()

    def test_several_beside_requests(self, server: Served[SocketEcho]) -> None:
        with connect(server) as client:
            streams = [opened(client) for _ in range(10)]
            for at, stream in enumerate(streams):
                client.send(data(stream, text(f"number {at}")))
            assert client.get(b"/request").status == 200
            client.send(b"".join(data(stream, BYE) for stream in streams))
            for at, stream in enumerate(streams):
                client.pump(lambda stream=stream: client.streams[stream].over)
                assert understood(bytes(client.streams[stream].body)) == says(f"number {at}")

    def test_messages_right_behind_the_handshake(self, server: Served[SocketEcho]) -> None:
        """They may not wait for the answer, but they may have come."""
        with connect(server) as client:
            stream = client.next_stream()
            stream = opened(client, raw=data(stream, text("early") + BYE))
            client.pump(lambda: client.streams[stream].over)
            assert understood(bytes(client.streams[stream].body)) == says("early")

    def test_frames_know_nothing_of_frames(self, server: Served[SocketEcho]) -> None:
        """Cut anywhere into DATA, empty and padded ones between."""
        raw = text("a" * 130, fin=False) + websocket_ping(b"p") + cont(b"b", fin=True) + BYE
        with connect(server) as client:
            for size in (1, 2, 3, 7):
                stream = opened(client)
                for at in range(0, len(raw), size):
                    client.send(data(stream, raw[at : at + size], pad=at % 5) + data(stream))
                client.pump(lambda stream=stream: client.streams[stream].over)
                found = understood(bytes(client.streams[stream].body))
                assert found == says("a" * 130 + "b", pongs=[b"p"])

    def test_subprotocols(self, server: Served[SocketEcho]) -> None:
        with connect(server) as client:
            stream = opened(client, b"/first", (b"sec-websocket-protocol", b"chat, super"))
            assert client.streams[stream].all(b"sec-websocket-protocol") == [b"chat"]
            assert server.app.offered[-1] == ["chat", "super"]

    def test_a_refusal_of_the_application(self, server: Served[SocketEcho]) -> None:
        with connect(server) as client:
            assert refused(client, swapped(b":path", b"/refuse")) == 403
            assert refused(client, swapped(b":path", b"/own")) == 401

    @pytest.mark.parametrize("missing", [SCHEME, PATH, AUTHORITY])
    def test_it_has_all_pseudo_headers(
        self, server: Served[SocketEcho], missing: tuple[bytes, bytes]
    ) -> None:
        """RFC 8441 4: unlike plain CONNECT."""
        with connect(server) as client:
            assert refused(client, [one for one in EXTENDED if one != missing]) in (0, 400)

    @pytest.mark.parametrize(
        "fields",
        [
            [*EXTENDED[:5], PROTOCOL, VERSION],
            [CONNECT, SCHEME, PATH, AUTHORITY, VERSION, PROTOCOL],
            [(b":method", b"GET"), *EXTENDED[1:]],
            [(b":method", b"POST"), *EXTENDED[1:]],
            [*EXTENDED, (b"connection", b"upgrade")],
            [*EXTENDED, (b"upgrade", b"websocket")],
            swapped(b":path", b""),
            swapped(b":authority", b""),
            swapped(b":protocol", b"web\0socket"),
        ],
    )
    def test_malformed(self, server: Served[SocketEcho], fields: Fields) -> None:
        with connect(server) as client:
            assert refused(client, fields) in (0, 400)

    @pytest.mark.parametrize("name", [b"connect-udp", b"webtransport", b"x", b"WebSocket/2"])
    def test_another_protocol(self, server: Served[SocketEcho], name: bytes) -> None:
        """RFC 9220 3 says 501 for what is not spoken."""
        with connect(server) as client:
            assert refused(client, swapped(b":protocol", name)) == 501

    @pytest.mark.parametrize("version", [b"8", b"14", b"", b"13, 8"])
    def test_another_version(self, server: Served[SocketEcho], version: bytes) -> None:
        with connect(server) as client:
            assert refused(client, swapped(b"sec-websocket-version", version)) in (400, 426)

    def test_a_socket_that_says_nothing(self, server: Served[SocketEcho]) -> None:
        """END_STREAM with its handshake: the TCP connection's end right away."""
        with connect(server) as client:
            client.send(headers(1, block(EXTENDED)))
            client.pump(lambda: client.streams[1].over)
            client.expect_alive()

    def test_the_end_of_a_stream_is_the_end_of_a_socket(self, fresh: Served[SocketEcho]) -> None:
        with connect(fresh) as client:
            stream = opened(client)
            client.send(data(stream, text("last"), end=True))
            client.pump(lambda: client.streams[stream].over)
            sent = parse_sent(bytes(client.streams[stream].body))
            assert sent[0].payload == b"last"
            assert fresh.app.ends.get(timeout=PATIENCE) == 1006
            client.expect_alive()

    def test_a_reset_is_a_reset(self, fresh: Served[SocketEcho]) -> None:
        with connect(fresh) as client:
            stream = opened(client)
            client.send(rst(stream, Code.CANCEL))
            client.expect_alive()
            assert fresh.app.ends.get(timeout=PATIENCE) == 1006

    def test_frames_that_are_no_data(self, server: Served[SocketEcho]) -> None:
        """8.5: HEADERS on a tunnel are a stream error, trailers as well."""
        for end in (False, True):
            with connect(server) as client:
                stream = opened(client)
                client.send(headers(stream, block([(b"x-a", b"b")]), end=end))
                found = client.reaction(stream)
                assert found == stream_error(Code.PROTOCOL_ERROR)
                client.expect_alive()

    def test_stream_management_goes_on(self, server: Served[SocketEcho]) -> None:
        with connect(server) as client:
            stream = opened(client)
            client.send(priority(stream, 0) + window_update(stream, 10))
            client.send(frame(0x77, b"?", stream=stream) + data(stream, BYE))
            client.pump(lambda: client.streams[stream].over)
            assert understood(bytes(client.streams[stream].body)) == says()

    def test_windows_hold_sockets_too(self, server: Served[SocketEcho]) -> None:
        with connect(server, (INITIAL_WINDOW, 10)) as client:
            stream = opened(client)
            client.send(data(stream, text("a" * 100)))
            client.pump(lambda: len(client.streams[stream].body) == 10)
            client.barrier()
            assert len(client.streams[stream].body) == 10
            client.send(window_update(stream, 1000) + data(stream, BYE))
            client.pump(lambda: client.streams[stream].over)
            assert understood(bytes(client.streams[stream].body)) == says("a" * 100)
            client.send(settings((INITIAL_WINDOW, 65535)))
            client.expect_alive()

    def test_a_fault_in_a_socket_is_its_own(self, server: Served[SocketEcho]) -> None:
        """An unmasked frame: 1002 in its stream, and nothing to the others."""
        with connect(server) as client:
            bad, good = opened(client), opened(client)
            client.send(data(bad, b"\x81\x01a") + data(good, text("b")))
            client.pump(lambda: client.streams[bad].body)
            assert parse_sent(bytes(client.streams[bad].body))[0].payload[:2] == b"\x03\xea"
            client.send(data(good, BYE))
            client.pump(lambda: client.streams[good].over)
            assert understood(bytes(client.streams[good].body)) == says("b")

    def test_a_socket_in_a_connection_that_fails(self, fresh: Served[SocketEcho]) -> None:
        with connect(fresh) as client:
            opened(client)
            client.push(window_update(0, 0))
            client.expect_connection_error(Code.PROTOCOL_ERROR)
        assert fresh.app.ends.get(timeout=PATIENCE) == 1006

    def test_data_after_the_close(self, server: Served[SocketEcho]) -> None:
        with connect(server) as client:
            stream = opened(client)
            client.send(data(stream, BYE))
            client.pump(lambda: client.streams[stream].over)
            client.send(frame(0, text("more"), flags=END_STREAM, stream=stream))
            found = client.reaction()
            assert found in (IGNORED, connection_error(Code.STREAM_CLOSED))

    def test_a_request_is_no_socket(self, server: Served[SocketEcho]) -> None:
        """The fields of an HTTP/1.1 handshake are just fields."""
        key = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
        with connect(server) as client:
            client.send(get(1, b"/plain", VERSION, key))
            assert bytes(client.answer(1).body) == b"http /plain"
