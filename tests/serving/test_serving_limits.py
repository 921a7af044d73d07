"""Every buffer has a bound, nobody holds the batch, and whatever one connection does, others live."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest
from tests.support.apps import answer
from tests.support.clock import PATIENCE, station
from tests.support.raw import RawClient

from tidegate.protocol.http1.engine import PIPELINE_BOUND, UNREAD_BOUND
from tidegate.serving.site import TURN
from tidegate.serving.tcp import (
    BODY_READ_SIZE,
    LATE_READ_SIZE,
    READ_SIZE,
    SHARE,
    TcpConnection,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"content-length: 2\r\n\r\nok"


async def ok(scope, receive, send):
    await answer(send, 200, [(b"content-length", b"2")], b"ok")


class Paths:
    """Answers at once, and keeps what was asked for in order."""

    def __init__(self):
        self.asked = []

    async def __call__(self, scope, receive, send):
        self.asked.append(scope["path"])
        await ok(scope, receive, send)


async def never(scope, receive, send):
    await asyncio.Event().wait()


def served(peer):
    peer.send(GET)
    return peer.expect(OK).startswith(b"HTTP/1.1 200 ")


# ---------------------------------------------------------------------------------- input


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_an_unread_body_stops_the_reading(coding):
    lines, data = b"Content-Length: %d\r\n" % (64 << 20), bytes(64 << 20)
    if coding == "chunked":
        lines, data = b"Transfer-Encoding: chunked\r\n", b"1000\r\n%b\r\n" % bytes(4096) * 16384
    with station(never) as server:
        peer, other = server.accept(small=True), server.accept()
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
        assert peer.stuff(data) < 2 << 20  # the client's send blocks
        (exchange,) = server.floor.running
        assert UNREAD_BOUND <= sum(map(len, exchange._body)) <= UNREAD_BOUND + BODY_READ_SIZE
        other.send(GET)
        server.turn()
        assert len(server.floor.running) == 2


def test_requests_pipelined_behind_a_slow_one_are_bounded():
    with station(never) as server:
        peer = server.accept(small=True)
        assert peer.stuff(GET * 100_000) < 1 << 20
        assert len(server.floor.running) == 1
        assert len(peer.connection.engine._buffer) <= PIPELINE_BOUND + READ_SIZE


def test_requests_pipelined_faster_than_they_are_served_are_bounded():
    with station(ok) as server:
        peer = server.accept()
        sent = 0
        for _ in range(150):
            try:
                sent += peer.sock.send((GET * 4096)[sent % len(GET) :])
            except BlockingIOError:
                pass
            server.turn(1)
            peer.look()
            peer.received.clear()
            assert len(peer.connection.engine._buffer) <= PIPELINE_BOUND + READ_SIZE
        assert sent > PIPELINE_BOUND


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_application_that_sends_without_end_leaves_others_their_turn(method):
    async def app(scope, receive, send):
        if scope["path"] == "/other":
            await answer(send, 200, [], b"ok")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(50_000), "more_body": True})

    with station(app) as server:
        greedy, other = server.accept(), server.accept()
        greedy.sock.send(GET.replace(b"GET", method))
        other.sock.send(GET.replace(b"/ ", b"/other "))

        def answered() -> bool:
            greedy.read(1 << 20)
            greedy.received.clear()
            return other.look().endswith(b"ok\r\n0\r\n\r\n")

        server.until(answered)
        greedy.connection.abort("the test is over")
        server.turn()


def test_who_pipelines_without_end_leaves_others_their_turn():
    app = Paths()
    with station(app) as server:
        greedy, other = server.accept(), server.accept()
        greedy.sock.send(GET.replace(b"/ ", b"/greedy ") * 4000)
        other.sock.send(GET.replace(b"/ ", b"/other "))
        server.until(lambda: OK in other.look())
        assert app.asked.index("/other") <= 4 * SHARE
        assert app.asked.count("/greedy") < 4000


def come_late(server, peer):
    """Serve it as the last of a long batch; returns how many requests and bytes that was."""
    connection = peer.connection

    async def batch():
        server.worker.clock.now = server.now - 2 * TURN  # when it began
        begun, received = connection.begun, connection.received
        connection.on_readable()
        if server.site.poller.batch is not None:
            server.site.poller._end_batch()
        return connection.begun - begun, connection.received - received

    return server.loop.run_until_complete(batch())


def test_who_comes_late_in_a_long_batch_begins_one_request():
    app = Paths()
    with station(app) as server:
        late = server.accept()
        late.sock.send(GET * 9)
        assert come_late(server, late)[0] == 1
        server.until(lambda: late.look().count(OK) == 9)
        assert len(app.asked) == 9


def test_who_comes_late_in_a_long_batch_reads_less_of_a_body():
    async def reads(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await ok(scope, receive, send)

    with station(reads) as server:
        late = server.accept()
        late.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        late.sock.send(bytes(100_000))
        assert come_late(server, late)[1] == LATE_READ_SIZE
        late.expect(OK)


def test_a_client_who_reads_gets_all_its_pipelined_answers():
    app = Paths()
    with station(app) as server:
        peer = server.accept()
        peer.send(GET * 3000)
        server.until(lambda: peer.look().count(OK) == 3000)


@pytest.mark.parametrize(
    "bomb",
    [b"X: y\r\n", b"X: " + b"y" * 8000 + b"\r\n", b"x" * 65536],
    ids=["many", "long", "endless line"],
)
def test_a_header_bomb_is_refused_within_its_bound(bomb):
    with station(ok) as server:
        peer = server.accept(small=True)
        peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        most = 0
        for _ in range(1000):
            if not peer.alive or peer.connection.engine.ending.name != "NO":
                break
            peer.send(bomb)
            most = max(most, len(peer.connection.engine._buffer))
        assert most <= 65536 + READ_SIZE
        assert peer.expect(b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


# ---------------------------------------------------------------------------------- output

BODY = bytes(100 << 20)


async def large(scope, receive, send):
    await answer(send, 200, [(b"content-length", b"%d" % len(BODY))], BODY)


async def large_chunked(scope, receive, send):
    await answer(send, 200, [], BODY)


@pytest.mark.parametrize("app", [large, large_chunked])
def test_a_large_answer_nobody_reads_is_not_copied(app):
    with station(app) as server:
        peers = [server.accept() for _ in range(20)]
        tracemalloc.start()
        try:
            for peer in peers:
                peer.send(GET)
            server.until(lambda: all(peer.connection.backlog for peer in peers))
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 1000, 65536, 1 << 20])
def test_an_endless_stream_nobody_reads_makes_its_application_wait(size):
    sent = 0

    async def endless(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
            sent += size

    with station(endless) as server:
        peer = server.accept(small=True)
        peer.send(GET)
        server.until(lambda: peer.connection.backlog > 0)
        server.turn(50)
        before = sent
        server.turn(50)
        assert sent == before  # it waits,
        connection = peer.connection
        assert connection.backlog + connection.engine.queued(1) <= 256 * 1024 + size
        server.until(lambda: peer.read(1 << 20) >= 0 and sent > before)  # and goes on


@pytest.mark.parametrize("size", [2, 100_000])
def test_answers_nobody_reads_stop_the_reading_of_requests(size):
    async def app(scope, receive, send):
        await answer(send, 200, [], bytes(size))

    with station(app) as server:
        peer = server.accept(small=True)
        sent = 0
        connection = peer.connection
        for _ in range(3000):
            try:
                sent += peer.sock.send((GET * 200)[sent % len(GET) :])
            except BlockingIOError:
                pass
            server.turn(1)
            assert len(server.floor.running) <= SHARE
            queued = connection.backlog + connection.engine.queued(0)
            assert queued <= (1 << 20) + size
            if connection.backlog and not connection.reading:
                break
        else:
            pytest.fail("requests are read on and on")

        # and the answers all come once the client reads
        def all_read() -> bool:
            while peer.read(1 << 20):
                peer.received.clear()
            return connection.reading and connection.begun == sent // len(GET)

        server.until(all_read)


def test_a_client_who_leaves_behind_two_unread_answers_does_not_hang_the_worker():
    async def app(scope, receive, send):
        await answer(send, 200, [], bytes(8 << 20))

    waits = 0
    plain = TcpConnection.drained

    def counted(self):
        nonlocal waits
        waits += 1
        if waits > 1000:
            raise SystemExit("send() waits without end for a connection that is closed")
        return plain(self)

    with station(app) as server, mock.patch.object(TcpConnection, "drained", counted):
        peer = server.accept(small=True)
        peer.send(GET * 2)
        server.until(lambda: peer.connection.backlog > 0)
        server.turn(20)
        peer.sock.close()
        server.turn(20)
        assert waits < 1000
        assert not server.floor.running


# ---------------------------------------------------------------------------------- connections


def test_past_limit_concurrency_there_is_a_503_and_afterwards_none():
    gate = asyncio.Event()

    async def waits(scope, receive, send):
        await gate.wait()
        await ok(scope, receive, send)

    with station(waits, limit_concurrency=3) as server:
        peers = [server.accept() for _ in range(3)]
        for peer in peers:
            peer.send(GET)
        late = server.accept()
        late.send(GET)
        refused = late.expect(b"Unavailable\n")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in refused
        late.sock.close()
        server.until(lambda: not late.alive)
        gate.set()
        for peer in peers:
            peer.expect(OK)
            assert served(peer)


def test_a_socket_that_the_poller_refuses_leaves_nothing_behind():
    """epoll has bounds of its own (ENOSPC: max_user_watches); the acceptor closes the socket."""
    with station(ok) as server:
        sock, client = socket.socketpair()
        refused = OSError(errno.ENOSPC, "No space left on device")
        with (
            mock.patch.object(server.site.poller, "add", side_effect=refused),
            pytest.raises(OSError, match="No space"),
        ):
            server.take(sock, client, ("127.0.0.1", 1))
        assert not server.floor.connections
        assert server.worker.counters.connections == 0
        server.advance(20)
        sock.close()
        client.close()


@pytest.mark.parametrize("where", ["_handle", "_settle", "flush"])
def test_a_bug_in_a_handler_ends_that_connection_alone(where):
    with station(ok) as server:
        first, second = server.accept(), server.accept()
        assert served(first)
        assert served(second)
        with mock.patch.object(TcpConnection, where, side_effect=RuntimeError("a bug")):
            first.sock.send(b"GET / HTTP/1.0\r\n\r\n")  # one that ends its connection: _settle
            server.until(lambda: not first.alive)
        assert server.logged() == ["Internal error on a connection"]
        assert served(second)


def test_a_bug_at_the_end_of_a_turn_ends_that_connection_alone():
    gate = asyncio.Event()

    async def waits(scope, receive, send):
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    with station(waits) as server:
        peer = server.accept()
        peer.send(GET)
        with mock.patch.object(TcpConnection, "on_batch_end", side_effect=RuntimeError("a bug")):
            gate.set()
            server.turn(10)
        assert "Internal error on a connection" in server.logged()
        assert not peer.alive
        assert server.loop_errors == []


def test_a_bug_in_a_deadline_ends_that_connection_alone():
    with station(ok, timeout_head=5) as server:
        first, second = server.accept(), server.accept()
        second.send(GET)
        with mock.patch.object(TcpConnection, "give_up_idle", side_effect=RuntimeError("a bug")):
            server.advance(6)
        assert not first.alive
        assert server.logged() == ["Internal error on a connection"]
        second.expect(OK)
        assert served(second)


# ---------------------------------------------------------------------------------- descriptors

# A server with room for few descriptors, which tells over HTTP how often it has called accept().
CHILD = """
import resource, socket, sys
import tidegate
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
calls, accept = 0, socket.socket.accept

def counted(self):
    global calls
    calls += 1
    return accept(self)

socket.socket.accept = counted

async def app(scope, receive, send):
    body = b"%d" % calls
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

tidegate.run(app, fd=int(sys.argv[1]), lifespan="off", access_log=False, poller=sys.argv[2])
"""


@pytest.mark.parametrize("poller", ["epoll", "reader"])
def test_used_up_descriptors_are_said_once_waited_for_and_recovered_from(poller, tmp_path):
    source = Path(__file__).resolve().parents[2] / "src"
    crowd = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        address = listener.getsockname()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(listener.fileno()), poller],
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        try:
            with RawClient(address, PATIENCE) as good:
                assert accepts(good) > 0
                crowd = [socket.create_connection(address, PATIENCE) for _ in range(100)]
                lines = []
                while b"Cannot accept" not in (line := child.stderr.readline()):
                    assert line, lines
                    lines.append(line)
                # who is connected is answered as ever, and nobody polls in vain meanwhile
                before = accepts(good)
                for _ in range(300):
                    after = accepts(good)
                assert after - before < 50
                for sock in crowd:
                    sock.close()
                with RawClient(address, PATIENCE) as late:
                    assert accepts(late) >= after
        finally:
            child.send_signal(signal.SIGTERM)
            _, rest = child.communicate(timeout=PATIENCE)
            for sock in crowd:
                sock.close()
    assert b"Cannot accept" not in rest
    assert b"Traceback" not in rest
    assert child.returncode == 0


def accepts(client: RawClient) -> int:
    client.send(GET)
    response = client.read_response()
    assert response.status == 200
    return int(response.body)
