"""A worker leaves: with a successor each client is told so; without one what has come is answered."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from tests.support.apps import answer
from tests.support.clock import Station, station
from tests.support.http2_frames import PREFACE, get, settings
from tests.support.http2_station import LARGEST, Client
from tests.support.websocket_frames import CLOSE

from tidegate.config import Config
from tidegate.serving.drain import Drain, Farewell

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK = b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n"
BYE = b"connection: close\r\n"
OK = b"\r\n\r\nok"
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def ok(scope, receive, send):
    await answer(send, 200, [(b"content-length", b"2")], b"ok")


class Gated:
    def __init__(self):
        self.gate = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["path"] != "/quick":
            await self.gate.wait()
        await ok(scope, receive, send)


class Begun(Gated):
    """An answer that has begun, and ends when the gate opens."""

    async def __call__(self, scope, receive, send):
        if scope["path"] == "/quick":
            return await ok(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await self.gate.wait()
        return await send({"type": "http.response.body", "body": b"end"})


async def chat(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


class Leave:
    """A drain of a station's worker, turned by hand."""

    def __init__(self, server: Station, farewell: Farewell, *, tail: bool = True) -> None:
        self.server = server
        self.worker = server.worker
        self.task = server.loop.create_task(self._run(farewell, tail))
        server.turn()

    async def _run(self, farewell: Farewell, tail: bool) -> bool:
        worker = self.worker
        self.drain = Drain(
            worker._floor, worker.clock, worker._config, self.server.log, worker._forced
        )
        return await self.drain.run(farewell, tail=tail)

    @property
    def over(self) -> bool:
        return self.task.done()

    def result(self) -> bool:
        """Whether it ended in good order, once it has ended."""
        self.server.until(self.task.done)
        return self.task.result()

    def end(self) -> None:
        """Leave nothing behind."""
        if not self.task.done():
            self.worker._forced.set_result(None)
            self.server.until(self.task.done)


@pytest.fixture
def leave():
    made = []

    def begin(server, farewell, **more):
        made.append(one := Leave(server, farewell, **more))
        return one

    yield begin
    assert all(one.over for one in made), "the test ends its drains itself"


def served(peer, request=GET):
    peer.send(request)
    return peer.expect(OK)


def reloads(server):
    """As with --reload, whose application is a name and not, as here, an object."""
    server.worker._config = Config(app="main:app", reload=True)


def parted(peer):
    """What came until the server ended the connection; then the client ends its side too."""
    got = peer.finish()
    assert peer.end == "closed"
    peer.sock.close()
    return got


RETIRE, STOP = Farewell.RETIRE, Farewell.STOP


@pytest.mark.parametrize("farewell", Farewell)
def test_with_nobody_there_it_is_over_at_once(leave, farewell):
    with station(ok) as server:
        assert leave(server, farewell).result() is True


# ---------------------------------------------------------------------------------- HTTP/1


def test_with_a_successor_an_idle_connection_has_one_more_request(leave):
    with station(ok) as server:
        peer = server.accept()
        assert BYE not in served(peer)
        leaving = leave(server, RETIRE)
        assert peer.alive
        assert BYE in served(peer)
        assert parted(peer) == b""
        assert leaving.result() is True


def test_with_a_successor_one_that_never_asked_has_its_request_too(leave):
    with station(ok) as server:
        peer = server.accept()
        leaving = leave(server, RETIRE)
        assert BYE in served(peer)
        parted(peer)
        assert leaving.result() is True


def test_with_a_successor_a_request_under_way_is_the_last(leave):
    app = Gated()
    with station(app) as server:
        peer = server.accept()
        peer.send(GET)
        leaving = leave(server, RETIRE)
        assert not leaving.over
        app.gate.set()
        assert BYE in parted(peer)
        assert leaving.result() is True


@pytest.mark.parametrize("farewell", Farewell)
def test_half_a_head_may_become_a_whole_one(leave, farewell):
    with station(ok) as server:
        peer = server.accept()
        peer.send(GET[:20])
        leaving = leave(server, farewell)
        assert peer.alive
        peer.send(GET[20:])
        assert BYE in parted(peer)
        assert leaving.result() is True


def test_with_a_successor_one_that_has_only_just_come_is_served(leave):
    with station(ok) as server:
        keeps = server.accept()
        leaving = leave(server, RETIRE)
        peer = server.accept()
        assert BYE in served(peer)
        parted(peer)
        assert not leaving.over
        served(keeps)
        parted(keeps)
        assert leaving.result() is True


def test_with_a_successor_one_that_has_only_just_come_has_its_own_time_to_ask(leave):
    with station(ok, drain_idle=5, timeout_head=60) as server:
        keeps = server.accept()
        leaving = leave(server, RETIRE)
        server.advance(4.5)
        peer = server.accept()
        server.advance(4.5)
        assert not keeps.alive
        assert peer.alive
        server.advance(0.5)
        assert parted(peer) == b""
        assert leaving.result() is True


def test_without_one_an_idle_connection_is_closed_at_once(leave):
    with station(ok) as server:
        peer = server.accept()
        served(peer)
        leaving = leave(server, STOP)
        assert parted(peer) == b""
        assert leaving.result() is True


def test_without_one_a_request_that_lies_in_the_kernel_is_answered(leave):
    with station(ok) as server:
        peer = server.accept()
        served(peer)
        peer.sock.sendall(GET)  # nothing has been read of it
        leaving = leave(server, STOP)
        answered = parted(peer)
        assert answered.endswith(OK)
        assert BYE in answered
        assert leaving.result() is True


def test_a_second_request_behind_the_last_is_not_answered(leave):
    with station(ok) as server:
        peer = server.accept()
        served(peer)
        leaving = leave(server, RETIRE)
        peer.send(GET + GET)
        answered = parted(peer)
        assert answered.count(b"HTTP/1.1 200 ") == 1
        assert BYE in answered
        assert leaving.result() is True


def test_who_still_says_nothing_after_drain_idle_is_closed(leave):
    with station(ok, drain_idle=5) as server:
        peer, silent = server.accept(), server.accept()
        served(peer)
        server.advance(8)
        leaving = leave(server, RETIRE)
        server.advance(4.5)
        assert peer.alive
        assert silent.alive
        server.advance(0.5)
        assert parted(peer) == parted(silent) == b""
        assert leaving.result() is True


def test_an_answer_that_had_promised_a_next_request_leaves_it_its_time(leave):
    """Its head went out before there was a successor, its end comes after --drain-idle."""
    app = Begun()
    with station(app, drain_idle=5) as server:
        peer = server.accept()
        peer.send(GET)
        assert BYE not in peer.expect(b"begun")
        leaving = leave(server, RETIRE)
        server.advance(20)
        app.gate.set()
        peer.expect(b"end")
        server.advance(4.5)
        assert BYE in served(peer, QUICK)
        assert parted(peer) == b""
        assert leaving.result() is True


def test_and_no_more_than_that(leave):
    app = Begun()
    with station(app, drain_idle=5, timeout_head=60) as server:
        peer = server.accept()
        peer.send(GET)
        peer.expect(b"begun")
        leaving = leave(server, RETIRE)
        server.advance(7)
        app.gate.set()
        peer.expect(b"end")
        server.advance(4.5)
        assert peer.alive
        server.advance(1)
        assert parted(peer) == b""
        assert leaving.result() is True


@pytest.mark.parametrize("path", [b"/", b"/quick"], ids=["running", "answered"])
@pytest.mark.parametrize("tail", [True, False])
def test_the_last_answer_has_the_grace_and_its_client_drain_idle_behind_it(
    leave, monkeypatch, path, tail
):
    """But for Gunicorn, which kills: the application is still to be ended."""
    with station(Gated(), drain_idle=5, timeout_graceful_shutdown=30) as server:
        waits = []

        async def wait(ends, timeout, return_when):
            waits.append(timeout)
            return set(), ends

        server.accept().send(GET.replace(b"/", path, 1))
        monkeypatch.setattr(asyncio, "wait", wait)
        leaving = leave(server, RETIRE, tail=tail)
        assert leaving.result() is (path == b"/quick")
        assert sum(waits) == pytest.approx(30 + 5 * (tail and path == b"/quick"))
        monkeypatch.undo()


def reader_of(server, size, *, kernel):
    """A client with next to no room for an answer of so many bytes: where they wait."""
    peer = server.accept(small=True)
    if kernel:
        peer.connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * size)
    peer.send(GET)
    server.turn(50)
    assert peer.connection.untaken
    assert bool(peer.connection.unsent) is not kernel
    return peer


@pytest.mark.parametrize("kernel", [True, False], ids=["the kernel", "the outbox"])
def test_who_still_reads_the_last_answer_may_ask_when_it_has(leave, kernel):
    """A close would reach it with the answer's last byte, just when it asks again."""
    size = 200_000

    async def large(scope, receive, send):
        if scope["path"] == "/quick":
            return await ok(scope, receive, send)
        return await answer(send, 200, [(b"content-length", b"%d" % size)], bytes(size))

    with station(large, drain_idle=5) as server:
        peer = reader_of(server, size, kernel=kernel)
        leaving = leave(server, RETIRE)
        for _ in range(15):
            server.advance(2)
            peer.read(8000)
            server.turn()
        assert peer.alive
        assert peer.connection.untaken
        server.until(lambda: peer.look().endswith(bytes(1000)) and not peer.connection.untaken)
        server.advance(4.5)
        peer.received.clear()
        assert BYE in served(peer, QUICK)
        parted(peer)
        assert leaving.result() is True


def test_who_reads_nothing_of_the_last_answer_is_waited_for_no_longer(leave):
    async def large(scope, receive, send):
        await answer(send, 200, [(b"content-length", b"60000")], bytes(60_000))

    with station(large, drain_idle=5) as server:
        peer = reader_of(server, 60_000, kernel=True)
        leaving = leave(server, RETIRE)
        server.advance(11)
        assert not peer.alive
        assert leaving.result() is True


def test_at_a_reload_who_has_only_just_connected_is_answered(leave, monkeypatch):
    """Its request may be on the way. Who has asked before, and is idle, is closed at once."""
    monkeypatch.setattr("tidegate.serving.drain.NEW", 600)
    with station(ok) as server:
        reloads(server)
        new, idle = server.accept(), server.accept()
        served(idle)
        one = leave(server, STOP)
        parted(idle)
        assert not one.over
        assert BYE in served(new)
        parted(new)
        assert one.result() is True


def test_at_a_reload_who_has_only_just_connected_and_is_silent_is_not_waited_for(
    leave, monkeypatch
):
    monkeypatch.setattr("tidegate.serving.drain.NEW", 0.01)
    with station(ok) as server:
        reloads(server)
        new = server.accept()
        one = leave(server, STOP)
        server.until(lambda: one.over)
        parted(new)
        assert one.result() is True


def test_told_to_stop_while_it_drains_it_waits_for_the_idle_no_longer(leave):
    with station(ok, drain_idle=600, timeout_graceful_shutdown=600) as server:
        peer = server.accept()
        served(peer)
        leaving = leave(server, RETIRE)
        assert peer.alive
        leaving.drain.end_idle()
        assert parted(peer) == b""
        assert leaving.result() is True


def test_at_the_end_of_drain_idle_a_request_under_way_goes_on(leave):
    app = Gated()
    with station(app, drain_idle=600) as server:
        peer = server.accept()
        peer.send(GET)
        leaving = leave(server, RETIRE)
        leaving.drain.end_idle()
        assert peer.alive
        app.gate.set()
        assert BYE in parted(peer)
        assert leaving.result() is True


def test_an_upload_that_nobody_reads_is_taken_before_the_end(leave):
    """The application has answered before the body was there: a reset would eat its answer."""
    with station(ok, timeout_linger=2, grace_body=5) as server:
        peer = server.accept()
        leaving = leave(server, RETIRE)
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n")
        assert BYE in peer.expect(OK)
        for _ in range(9):
            server.advance(2)
            assert peer.alive
            peer.send(bytes(1000))
        assert parted(peer) == b""
        assert leaving.result() is True


@pytest.mark.parametrize("farewell", Farewell)
def test_what_is_still_being_opened_is_left_alone_where_a_successor_serves(leave, farewell):
    with station(ok, proxy_protocol="127.0.0.1", timeout_tls_handshake=10) as server:
        slow, silent = server.accept(), server.accept()
        slow.send(b"PROXY TCP4 1.2.3.4")
        leaving = leave(server, farewell)
        server.advance(9)
        assert slow.alive is silent.alive is (farewell is RETIRE)
        if slow.alive:
            slow.send(b" 5.6.7.8 1 2\r\n")
            server.advance(4.5)  # of the five that it has for its request
            assert not silent.alive
            assert BYE in served(slow)
            parted(slow)
        assert leaving.result() is True


@pytest.mark.parametrize("farewell", Farewell)
def test_forced_it_waits_for_nobody(leave, farewell):
    with station(Gated()) as server:
        peer = server.accept()
        peer.send(GET)
        leaving = leave(server, farewell)
        assert not leaving.over
        leaving.end()
        assert leaving.result() is False
        assert (
            "Forced to stop; ended while still running: GET /" in server.logged(logging.WARNING)[0]
        )


def test_beyond_its_grace_it_names_what_still_runs(leave):
    with station(Gated(), timeout_graceful_shutdown=0.05) as server:
        server.accept().send(GET)
        assert leave(server, STOP).result() is False
        assert "Not done within 0.05 s; ended while still running: GET /" in server.logged()[0]


# ---------------------------------------------------------------------------------- HTTP/2


@pytest.mark.parametrize("farewell", Farewell)
def test_a_goaway_is_sent_at_once_and_what_is_open_is_finished(leave, farewell):
    app = Gated()
    with station(app) as server:
        client = Client(server)
        client.send(get(1))
        leaving = leave(server, farewell)
        server.until(lambda: client.goaways)
        assert client.goaways == [(LARGEST, 0)]
        client.send(get(3, b"/quick"))  # on its way when the first GOAWAY was
        server.until(lambda: client.ended(3))
        server.advance(5)
        assert client.goaways[1:] == [(3, 0)]
        assert client.alive
        app.gate.set()
        server.until(lambda: client.ended(1))
        client.peer.sock.close()
        assert leaving.result() is True


@pytest.mark.parametrize("farewell", Farewell)
def test_an_idle_connection_ends_after_its_two_goaways(leave, farewell):
    with station(ok) as server:
        client = Client(server)
        assert client.served(1)
        leaving = leave(server, farewell)
        server.until(lambda: client.goaways)
        server.advance(5)
        server.until(lambda: not client.alive)
        assert client.goaways == [(LARGEST, 0), (1, 0)]
        assert leaving.result() is True


def test_with_a_successor_http2_that_begins_late_is_told_when_it_has_begun(leave):
    with station(ok) as server:
        client = Client(server, hello=False)
        leaving = leave(server, RETIRE)
        client.send(PREFACE + settings() + settings(ack=True))
        server.until(lambda: client.goaways or not client.alive)
        assert client.goaways[0] == (LARGEST, 0)
        client.send(get(1))
        server.until(lambda: client.ended(1))
        server.advance(5)
        server.until(lambda: not client.alive)
        assert leaving.result() is True


# ---------------------------------------------------------------------------------- WebSocket


@pytest.mark.parametrize("farewell", Farewell)
def test_a_websocket_is_closed_with_1012(leave, farewell):
    with station(chat) as server:
        peer = server.accept()
        peer.send(UPGRADE)
        assert b" 101 " in peer.expect(b"\r\n\r\n")
        leaving = leave(server, farewell)
        got = peer.expect(bytes([0x80 | CLOSE]))
        assert got[2:4] == (1012).to_bytes(2, "big")
        # answer with a masked close of the same code
        peer.send(bytes([0x80 | CLOSE, 0x82, 0, 0, 0, 0]) + (1012).to_bytes(2, "big"))
        parted(peer)
        assert leaving.result() is True
