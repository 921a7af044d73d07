"""One connection: when it reads and writes, and the ends it can come to."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from unittest import mock

import pytest
from tests.support.apps import answer
from tests.support.clock import station

from tidegate.serving.outbox import Outbox
from tidegate.serving.tcp import TcpConnection

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"content-length: 2\r\n\r\nok"


async def ok(scope, receive, send):
    await answer(send, 200, [(b"content-length", b"2")], b"ok")


class Recorder:
    """Waits for `gate`, answers, and keeps what it learns on the way."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.received = []
        self.error = None

    async def __call__(self, scope, receive, send):
        self.received.append((await receive())["type"])
        await self.gate.wait()
        try:
            await answer(send, 200, [(b"content-length", b"2")], b"ok")
        except OSError as error:
            self.error = error
            raise


async def listener(scope, receive, send):
    """Answers nothing, and returns once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


# ---------------------------------------------------------------------------------- writing


def test_answers_of_one_batch_leave_together():
    seen = []

    async def looks(scope, receive, send):
        seen.append([bytes(peer.look()) for peer in peers])
        await ok(scope, receive, send)

    with station(looks, poller="epoll") as server:
        server.site.poller._read = lambda: server.now
        peers = [server.accept() for _ in range(3)]
        for peer in peers:
            peer.sock.send(GET)
        for peer in peers:
            peer.expect(OK)
        assert seen == [[b""] * 3] * 3


def test_an_answer_leaves_in_one_write():
    async def pieces(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with (
        station(pieces) as server,
        mock.patch.object(Outbox, "write", autospec=True, side_effect=Outbox.write) as writes,
    ):
        peer = server.accept()
        peer.send(GET)
        peer.expect(b"\r\n0\r\n\r\n")
        assert writes.call_count == 1


def test_pipelined_answers_come_in_order_and_leave_together():
    async def echo(scope, receive, send):
        path = scope["path"].encode()
        await answer(send, 200, [(b"content-length", b"%d" % len(path))], path)

    with station(echo) as server:
        peer = server.accept()
        peer.send(b"".join(GET.replace(b"/ ", b"/%02d " % n) for n in range(20)))
        answers = peer.expect(b"/19")
        assert [answers.index(b"/%02d" % n) for n in range(20)] == sorted(
            answers.index(b"/%02d" % n) for n in range(20)
        )


def test_a_request_leaves_no_context_variable_behind():
    seen = []
    variable = contextvars.ContextVar("variable", default="clean")

    async def app(scope, receive, send):
        seen.append(variable.get())
        variable.set("dirty")
        await receive()
        await ok(scope, receive, send)

    with station(app) as server:
        peer = server.accept()
        peer.send(GET * 3)
        server.until(lambda: peer.look().count(OK) == 3)
        peer.send(GET)
        server.until(lambda: peer.look().count(OK) == 4)
        assert seen == ["clean"] * 4


def test_a_file_that_ends_short_resets_the_connection(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(8 << 20))

    async def app(scope, receive, send):
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % (8 << 20))],
            }
        )
        await send({"type": "http.response.pathsend", "path": str(path)})

    with station(app) as server:
        peer = server.accept(small=True)
        peer.send(GET)
        server.until(lambda: peer.connection.backlog > 0)
        os.truncate(path, 100)
        server.until(lambda: peer.look() is not None and not peer.alive)
        peer.finish()
        assert peer.end == "reset"
        assert server.logged() == [
            "A file could not be sent to its end: it became shorter while it was being sent"
        ]
        server.turn()
        assert not server.floor.running


def test_drained_is_done_where_there_is_nothing_to_wait_for():
    with station(ok) as server:
        peer = server.accept()
        assert peer.connection.drained(1, 0).done()
        peer.connection.close()
        assert peer.connection.drained(1, 0).done()


# ---------------------------------------------------------------------------------- the peer's end


def test_a_half_closed_client_is_still_answered():
    app = Recorder()
    with station(app) as server:
        peer = server.accept()
        peer.send(GET)
        peer.half_close()
        server.turn()
        app.gate.set()
        assert peer.finish().endswith(OK)
        assert peer.end == "closed"
        assert app.error is None


def test_an_application_learns_that_its_client_has_left():
    with station(listener) as server:
        peer = server.accept()
        peer.send(GET)
        assert len(server.floor.running) == 1
        peer.sock.close()
        server.until(lambda: not server.floor.running)


def test_sending_to_a_client_who_is_gone_raises_oserror_and_logs_nothing():
    error = None

    async def app(scope, receive, send):
        nonlocal error
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(9999), "more_body": True})
                await asyncio.sleep(0)
        except OSError as raised:
            error = raised
            raise

    with station(app) as server:
        peer = server.accept()
        peer.send(GET)
        peer.expect(b"\r\n\r\n")
        peer.sock.close()
        server.until(lambda: error is not None)
        server.turn()
        assert server.logged() == []
        assert not server.floor.running
        assert not server.floor.connections


def test_a_connection_that_asks_nothing_ends_with_its_client():
    with station(ok) as server:
        for peer in (server.accept(), server.accept_unix()):
            peer.sock.close()
            server.until(lambda peer=peer: not peer.alive)


@pytest.mark.parametrize(
    "rest", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"]
)
def test_a_request_cut_short_ends_with_its_client(rest):
    with station(listener) as server:
        peer = server.accept()
        peer.send(rest)
        peer.half_close()
        peer.finish()
        server.until(lambda: not server.floor.connections and not server.floor.running)


@pytest.mark.parametrize(
    ("kind", "poller"),
    [
        ("tcp", "reader"),
        ("tcp", "epoll"),
        ("unix", "reader"),
        ("unix", "epoll"),
    ],
)
def test_a_client_who_leaves_during_a_long_request_costs_no_turns(kind, poller):
    async def stubborn(scope, receive, send):
        await asyncio.Event().wait()

    with (
        station(stubborn, poller=poller) as server,
        mock.patch.object(
            TcpConnection, "on_readable", autospec=True, side_effect=TcpConnection.on_readable
        ) as reads,
    ):
        peer = server.accept() if kind == "tcp" else server.accept_unix()
        peer.send(GET)
        peer.sock.close()
        server.turn(10)
        before = reads.call_count
        server.turn(200)
        assert reads.call_count <= before + 2


def test_the_rest_of_a_refused_upload_does_not_eat_the_answer():
    """RFC 9112 9.6: a close with input unread would be a reset, and the answer lost with it."""
    with station(ok) as server:
        peer = server.accept()
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
        assert peer.stuff(bytes(4_000_000)) == 4_000_000
        assert peer.finish().endswith(b"connection: close\r\n\r\nok")
        assert peer.end == "closed"
        peer.half_close()
        server.until(lambda: not peer.alive)


# ---------------------------------------------------------------------------------- our end


def test_stop_ends_idle_connections_at_once_and_busy_ones_after_their_answer():
    app = Recorder()
    with station(app) as server:
        silent, busy = server.accept(), server.accept()
        busy.send(GET)
        for connection in list(server.floor.connections):
            connection.stop()
        assert silent.finish() == b""
        assert busy.alive
        app.gate.set()
        answered = busy.finish()
        assert b"connection: close\r\n" in answered
        assert answered.endswith(b"ok")


def test_stop_ends_a_connection_that_is_still_opening():
    with station(ok, proxy_protocol="127.0.0.1") as server:
        peer = server.accept()
        peer.send(b"PROXY ")
        peer.connection.stop()
        assert not peer.alive


def test_an_answer_without_framing_that_fails_is_reset():
    """An HTTP/1.0 client takes a plain close for the end of the whole answer."""

    async def fails(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.sleep(0)
        raise RuntimeError("no more")

    with station(fails) as server:
        peer = server.accept()
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        peer.finish()
        assert peer.end == "reset"


def test_close_twice_is_close_once():
    with station(ok) as server:
        peer = server.accept()
        peer.connection.close()
        peer.connection.close()
        peer.connection.abort("again")
        assert peer.finish() == b""
        assert not server.floor.connections


def test_what_a_closed_connection_held_is_let_go():
    with station(ok) as server:
        fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(20):
            peer = server.accept()
            peer.send(GET)
            peer.expect(OK)
            peer.sock.close()
            server.until(lambda peer=peer: not peer.alive)
        assert not server.worker._deadlines._members
        assert not server.floor.running
        if fds:
            assert len(os.listdir("/proc/self/fd")) == fds


def test_a_reset_from_the_client_is_nobodys_error():
    with station(listener) as server:
        peer = server.accept()
        peer.send(GET)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.sock.close()
        server.until(lambda: not server.floor.connections and not server.floor.running)
        assert server.logged() == []
        assert server.loop_errors == []
