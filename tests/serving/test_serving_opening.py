"""What comes before HTTP: a PROXY header, a TLS handshake, and those who speak something else."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import struct

import pytest
import trustme
from tests.support.apps import answer
from tests.support.clock import station
from tests.support.tls import Files, client_context

from tidegate.net.tasks import EAGER
from tidegate.protocol.http1 import engine as http1
from tidegate.serving import tcp
from tidegate.serving.lingering import LINGER_BOUND

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 12)
    + bytes([192, 0, 2, 1, 198, 51, 100, 2])
    + struct.pack("!HH", 4711, 443)
)
V2_LONG = (
    V2[:14] + struct.pack("!H", 12 + 67) + V2[16:] + b"\x04" + struct.pack("!H", 64) + bytes(64)
)
BEHIND = {"client": ["192.0.2.1", 4711], "server": ["198.51.100.2", 443]}


async def who(scope, receive, send):
    """Answers who asked, and how."""
    seen = {name: scope[name] for name in ("client", "server", "scheme")}
    await answer(send, 200, [], json.dumps(seen).encode() + b"\n")


def seen(answered: bytes) -> dict:
    assert answered.startswith(b"HTTP/1.1 200 "), answered
    return json.loads(answered[answered.index(b"{") : answered.index(b"}") + 1])


def pieces(data: bytes, at: int):
    return [piece for piece in (data[:at], data[at:]) if piece]


# ---------------------------------------------------------------------------------- PROXY, HTTP


@pytest.mark.parametrize("header", [V1, V2, V2_LONG], ids=["v1", "v2", "v2 with TLVs"])
def test_a_proxy_header_is_split_anywhere_and_nothing_changes(header):
    with station(who, proxy_protocol="127.0.0.1") as server:
        for at in range(len(header + GET) + 1):
            peer = server.accept()
            for piece in pieces(header + GET, at):
                peer.send(piece)
            assert seen(peer.expect(b"}")) == {**BEHIND, "scheme": "http"}
            peer.sock.close()


@pytest.mark.parametrize("header", [V1, V2])
def test_a_proxy_header_byte_by_byte(header):
    with station(who, proxy_protocol="127.0.0.1") as server:
        peer = server.accept()
        for byte in header + GET:
            peer.send(bytes([byte]))
        assert seen(peer.expect(b"}")) == {**BEHIND, "scheme": "http"}
        peer.send(GET)  # the address is the connection's, not the first request's
        assert seen(peer.expect(b"}")) == {**BEHIND, "scheme": "http"}


@pytest.mark.parametrize(
    "header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"], ids=["unknown", "local"]
)
def test_a_balancers_own_connection_keeps_its_address(header):
    with station(who, proxy_protocol="127.0.0.1") as server:
        peer = server.accept()
        peer.send(header + GET)
        client = list(peer.sock.getsockname())
        assert seen(peer.expect(b"}")) == {
            "client": client,
            "server": ["127.0.0.1", 80],
            "scheme": "http",
        }


@pytest.mark.parametrize("proxy_protocol", ["", "192.0.2.0/24"])
@pytest.mark.parametrize("header", [V1, V2])
def test_a_proxy_header_from_somebody_else_is_no_http(header, proxy_protocol):
    with station(who, proxy_protocol=proxy_protocol) as server:
        peer = server.accept()
        peer.send(header + GET)
        answered = peer.finish()
        assert answered.startswith(b"HTTP/1.1 400 ")
        assert answered.count(b"HTTP/1.1 ") == 1
        assert b"192.0.2.1" not in answered


@pytest.mark.parametrize(
    "data", [GET, V1.replace(b"192", b"x"), V2.replace(b"\x21", b"\x31"), b"\0"]
)
def test_a_trusted_peer_that_does_not_keep_to_it_is_closed_and_told_of(data):
    with station(who, proxy_protocol="127.0.0.1") as server:
        peer = server.accept()
        peer.send(data)
        server.until(lambda: not peer.alive)
        peer.finish()
        assert peer.received == b""
        assert server.fired == {"proxy_protocol": 1}
        (line,) = server.logged(logging.WARNING)
        assert "is trusted to speak the PROXY protocol and did not" in line
        assert "127.0.0.1" in line


@pytest.mark.parametrize("at", [0, 1, len(V1) - 1])
def test_a_proxy_header_that_ends_early_ends_the_connection(at):
    with station(who, proxy_protocol="127.0.0.1") as server:
        peer = server.accept()
        peer.send(V1[:at])
        peer.half_close()
        server.until(lambda: not peer.alive)
        assert server.logged() == []


def test_who_is_announced_is_who_is_judged_as_a_forwarder():
    """A balancer may be trusted, the client it announces is not: its X-Forwarded-For is hearsay."""
    forged = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
    with station(who, proxy_protocol="127.0.0.1", forwarded_allow_ips="127.0.0.1") as server:
        peer = server.accept()
        peer.send(V1 + forged)
        assert seen(peer.expect(b"}"))["client"] == BEHIND["client"]


# ---------------------------------------------------------------------------------- PROXY, TLS


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def context(ca):
    return client_context(ca)


@pytest.fixture(scope="module")
def tls(ca, tmp_path_factory):
    files = Files(tmp_path_factory.mktemp("tls"), "server").write(ca.issue_cert("localhost"))
    return {"ssl_certfile": files.cert, "ssl_keyfile": files.key}


class Talker:
    """A TLS client over a `Peer`, by memory, so that what it sends can be cut anywhere."""

    def __init__(self, server, peer, context) -> None:
        self.server = server
        self.peer = peer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def begin(self) -> bytes:
        """The client's first flight."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def handshake(self) -> None:
        self._until(self.tls.do_handshake)

    def ask(self, data: bytes) -> bytes:
        self.tls.write(data)
        self.peer.send(self.outgoing.read())
        answered = bytearray()
        while b"}" not in answered:
            answered += self._until(lambda: self.tls.read(65536))
        return bytes(answered)

    def _until(self, step):
        result = None

        def done() -> bool:
            nonlocal result
            self.peer.look()
            self.incoming.write(bytes(self.peer.received))
            self.peer.received.clear()
            try:
                result = step()
            except ssl.SSLWantReadError:
                if waiting := self.outgoing.read():
                    self.peer.send(waiting)
                assert not self.peer.end
                return False
            return True

        self.server.until(done)
        if waiting := self.outgoing.read():
            self.peer.send(waiting)
        return result


@pytest.mark.parametrize("header", [b"", V1, V2], ids=["none", "v1", "v2"])
def test_header_and_handshake_are_split_anywhere_and_nothing_changes(header, tls, context):
    trusted = "127.0.0.1" if header else ""
    with station(who, proxy_protocol=trusted, **tls) as server:
        length = len(header) + 400  # into the ClientHello and, with small ones, to its end
        for at in [*range(len(header) + 12), *range(len(header) + 12, length, 37)]:
            peer = server.accept()
            talker = Talker(server, peer, context)
            for piece in pieces(header + talker.begin(), at):
                peer.send(piece)
            talker.handshake()
            found = seen(talker.ask(GET))
            assert found["scheme"] == "https"
            if header:
                assert found == {**BEHIND, "scheme": "https"}
            peer.sock.close()
        assert server.logged() == []


def test_a_request_that_comes_with_the_handshakes_end_is_answered(tls, context):
    with station(who, **tls) as server:
        peer = server.accept()
        talker = Talker(server, peer, context)
        peer.send(talker.begin())
        server.until(lambda: bool(peer.look()))
        server.turn()
        talker.incoming.write(peer.look())
        peer.received.clear()
        talker.tls.do_handshake()
        assert seen(talker.ask(GET))["scheme"] == "https"  # Finished and request in one piece


def test_what_tls_holds_is_read_on_once_the_application_goes_on(tls, context, monkeypatch):
    """It has left the socket, so no poller will tell of it."""
    monkeypatch.setattr(tcp, "READ_SIZE", 4096)
    monkeypatch.setattr(tcp, "BODY_READ_SIZE", 4096)
    monkeypatch.setattr(http1, "UNREAD_BOUND", 8192)
    gate = asyncio.Event()

    async def waits(scope, receive, send):
        await gate.wait()
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await answer(send, 200, [], b"{%d}" % size)

    with station(waits, **tls) as server:
        peer = server.accept()
        talker = Talker(server, peer, context)
        peer.send(talker.begin())
        talker.handshake()
        lines = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n"
        talker.tls.write(lines + bytes(40000))
        peer.send(talker.outgoing.read())
        server.until(lambda: not peer.connection.reading)
        assert peer.connection._tls.more
        assert peer.unread == 0
        gate.set()
        assert b"{40000}" in talker.ask(b"")


def test_requests_that_tls_holds_are_read_once_the_answers_before_them_are_taken(
    tls, context, monkeypatch
):
    monkeypatch.setattr(tcp, "READ_SIZE", 4096)
    size, asked = 1 << 20, []

    async def large(scope, receive, send):
        asked.append(scope["path"])
        await answer(send, 200, [(b"content-length", b"%d" % size)], bytes(size))

    with station(large, **tls) as server:
        peer = server.accept(small=True)
        talker = Talker(server, peer, context)
        peer.send(talker.begin())
        talker.handshake()
        request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Pad: %b\r\n\r\n"
        talker.tls.write(request % bytes(b"a" * (4096 - len(request) + 2)) * 3)
        peer.send(talker.outgoing.read())
        server.until(lambda: not peer.connection.reading)
        if EAGER:  # otherwise all three are read before the first is answered
            assert asked == ["/"]
            assert peer.connection._tls.more
        assert peer.unread == 0
        got = 0
        while got < 3 * size:
            got += len(talker._until(lambda: talker.tls.read(65536)))
        assert asked == ["/"] * 3


def test_nobody_is_left_behind_by_a_handshake_that_fails(tls, context):
    with station(who, **tls) as server:
        for data in (b"\0" * 600, b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n"):
            peer = server.accept()
            peer.send(data)
            peer.half_close()
            server.until(lambda peer=peer: not peer.alive)
        assert server.fired["tls_handshake"] >= 2
        assert server.logged() == []  # scanners are daily bread
        assert not server.floor.connections


# ---------------------------------------------------------------------------------- plain HTTP to TLS


def test_plain_http_to_a_tls_port_is_told_so_however_it_is_split(tls):
    with station(who, timeout_linger=60, **tls) as server:
        for at in range(len(GET) + 1):
            peer = server.accept()
            for piece in pieces(GET, at):
                if not peer.alive:
                    break
                peer.send(piece)
            answered = peer.finish()
            assert answered.startswith(b"HTTP/1.1 400 "), (at, answered)
            assert b"https://" in answered
            assert b"connection: close\r\n" in answered
            assert peer.end == "closed"
            peer.sock.close()
            server.turn()
        assert not server.floor.connections


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"DELETE", b"OPTIONS"])
def test_plain_http_with_any_method_is_told_so(method, tls):
    with station(who, **tls) as server:
        peer = server.accept()
        peer.send(GET.replace(b"GET", method))
        assert peer.finish().startswith(b"HTTP/1.1 400 ")


def test_who_spoke_plain_http_is_counted_and_bound_in_time_and_bytes(tls):
    with station(who, timeout_linger=2, **tls) as server:
        patient, busy = server.accept(), server.accept()
        patient.send(GET)
        patient.expect(b"connection: close\r\n")
        busy.send(GET)
        busy.expect(b"connection: close\r\n")
        assert len(server.floor.connections) == 2
        assert busy.stuff(bytes(2 * LINGER_BOUND)) < 2 * LINGER_BOUND
        assert server.floor.connections == {patient.connection}
        server.advance(3)
        assert not server.floor.connections
        assert "timeout_tls_handshake" not in server.fired


def test_plain_http_behind_a_proxy_header_is_told_so(tls):
    with station(who, proxy_protocol="127.0.0.1", **tls) as server:
        peer = server.accept()
        peer.send(V1 + GET)
        assert peer.finish().startswith(b"HTTP/1.1 400 ")


def test_the_rest_of_a_plain_upload_does_not_eat_the_400(tls):
    with station(who, **tls) as server:
        peer = server.accept()
        peer.stuff(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000))
        assert peer.finish().startswith(b"HTTP/1.1 400 ")
        assert peer.end == "closed"
