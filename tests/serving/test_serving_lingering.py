"""Our side is shut: how long the peer's end is waited for, on a clock set by hand."""

from __future__ import annotations

import socket
import ssl

import pytest
import trustme
from tests.support.apps import answer
from tests.support.clock import station
from tests.support.http2_frames import ping, window_update
from tests.support.http2_station import Client, ok
from tests.support.tls import Files, client_context, wrap_client

from tidegate.serving.lingering import SENDING
from tidegate.serving.outbox import Outbox

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SIZE = 200_000
LINGER = 2


async def last(scope, receive, send):
    """An answer that ends its connection, and is more than its client has room for."""
    fields = [(b"content-length", b"%d" % SIZE), (b"connection", b"close")]
    await answer(send, 200, fields, bytes(SIZE))


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(params=["clear", "TLS"])
def options(request, ca, tmp_path):
    """Of a station, for either road."""
    words = {"timeout_linger": LINGER}
    if request.param == "TLS":
        files = Files(tmp_path, "server").write(ca.issue_cert("localhost"))
        words |= {"ssl_certfile": files.cert, "ssl_keyfile": files.key}
    return words


class Reader:
    """A client that has next to no room for its answer, all of which the server's kernel has."""

    def __init__(self, server, ca):
        self.server = server
        self.peer = server.accept(small=True)
        with socket.socket(fileno=socket.dup(self.peer.connection._fd)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * SIZE)
        self.sock = self.peer.sock
        if server.worker._config.ssl_certfile:
            self.sock = wrap_client(self.peer.sock, client_context(ca), "localhost")
            server.until(lambda: self._try(self.sock.do_handshake) is not None)
        self.sock.send(GET)
        server.until(lambda: not self.peer.alive or self.peer.connection.untaken)
        server.turn(50)
        assert not self.peer.connection.unsent
        assert self.peer.connection.untaken > SIZE / 2
        self.got = 0

    def _try(self, step):
        try:
            return step() or b""
        except (ssl.SSLWantReadError, BlockingIOError):
            return None

    def read(self, most: int = 8000) -> None:
        self.server.until(lambda: self._read(most))
        self.server.turn()

    def _read(self, most: int) -> bool:
        data = self._try(lambda: self.sock.recv(most))
        self.got += len(data or b"")
        return data is not None

    def say(self) -> None:
        self.sock.send(b"more")
        self.server.turn()

    @property
    def alive(self) -> bool:
        return self.peer.alive


def test_who_reads_slowly_and_speaks_is_waited_for(options, ca):
    """What it says would be answered with a reset, and the rest of its answer be lost."""
    with station(last, **options) as server:
        reader = Reader(server, ca)
        for _ in range(12):
            server.advance(LINGER - 0.5)
            reader.read()
            reader.say()
        assert reader.alive
        while reader.got < SIZE:
            reader.read()
        reader.say()
        server.advance(2 * LINGER + 1)
        assert not reader.alive


def test_who_neither_reads_nor_speaks_is_not(options, ca):
    with station(last, **options) as server:
        reader = Reader(server, ca)
        server.advance(LINGER - 0.5)
        assert reader.alive
        server.advance(1)
        assert not reader.alive


def test_who_speaks_and_never_reads_is_waited_for_a_while(options, ca):
    with station(last, **options) as server:
        reader = Reader(server, ca)
        server.advance(SENDING * LINGER - 1, reader.say)
        assert reader.alive
        server.advance(SENDING * LINGER, lambda: reader.alive and reader.say())
        assert not reader.alive


def test_who_reads_more_slowly_than_it_must_is_not_waited_for(options, ca):
    with station(last, min_send_rate=100_000, **options) as server:
        reader = Reader(server, ca)
        server.advance(LINGER + 0.5, reader.read)
        assert not reader.alive


def test_0_waits_for_nobody(options, ca):
    with station(last, **options | {"timeout_linger": 0}) as server:
        reader = Reader(server, ca)
        reader.read()
        server.advance(0.5)
        assert not reader.alive


def leaving(server):
    """An HTTP/2 client that has taken all there was, and the last GOAWAY."""
    client = Client(server)
    assert client.served(1)
    for _ in range(2):
        client.peer.connection.stop()
    server.turn()
    assert client.goaways[-1] == (1, 0)
    assert not client.peer.connection.untaken
    return client


@pytest.mark.parametrize("said", [window_update(0, 9), ping()], ids=["window", "ping"])
def test_http2_is_waited_for_while_it_speaks_for_it_may_be_reading(said):
    with station(ok, timeout_linger=LINGER) as server:
        client = leaving(server)
        server.advance(SENDING * LINGER - 1, lambda: client.send(said))
        assert client.alive
        server.advance(LINGER + 2, lambda: client.send(said))
        assert not client.alive


def test_http2_that_says_nothing_is_not():
    with station(ok, timeout_linger=LINGER) as server:
        client = leaving(server)
        server.advance(2 * LINGER)
        assert not client.alive


@pytest.mark.parametrize("speaks", [True, False])
def test_where_the_system_cannot_tell_who_reads_it_counts_who_speaks(speaks, monkeypatch):
    monkeypatch.setattr(Outbox, "in_kernel", lambda self: None)
    with station(last, timeout_linger=LINGER) as server:
        peer = server.accept()
        peer.send(GET)
        assert peer.expect(bytes(SIZE))
        server.advance(10, (lambda: peer.sock.send(b"more")) if speaks else None)
        assert peer.alive is speaks
        server.advance(SENDING * LINGER - 8, lambda: peer.alive and peer.sock.send(b"more"))
        assert not peer.alive
