"""Every wait has an end, and none ends too early: each deadline and rate on a clock set by hand.

Limits that are off, or that must not act, are tested by an hour in which they could have.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from types import SimpleNamespace

import pytest
import trustme
from tests.support.apps import answer
from tests.support.clock import Peer, station
from tests.support.tls import Files, client_context, wrap_client

from tidegate.config import Config
from tidegate.protocol.engine import Waiting
from tidegate.serving.patience import Patience
from tidegate.serving.site import Terms

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"content-length: 2\r\n\r\nok"


def post(length: int, lines: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n" % (length, lines)


async def ok(scope, receive, send):
    await answer(send, 200, [(b"content-length", b"2")], b"ok")


async def reader(scope, receive, send):
    """Takes the whole body, then answers."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await ok(scope, receive, send)


class Gated:
    """Waits for `gate`, then does as `then`."""

    def __init__(self, then=ok):
        self.gate = asyncio.Event()
        self.then = then
        self.calls = 0

    async def __call__(self, scope, receive, send):
        self.calls += 1
        await self.gate.wait()
        await self.then(scope, receive, send)


def served(peer: Peer) -> bool:
    """The connection still does what it is for."""
    peer.send(GET)
    return peer.expect(OK).startswith(b"HTTP/1.1 200 ")


# ---------------------------------------------------------------------------------- heads


def test_a_silent_connection_is_closed_without_a_word_after_timeout_head():
    with station(ok, timeout_head=10) as server:
        peer = server.accept()
        server.advance(9.5)
        assert peer.alive
        server.advance(1)
        assert (peer.finish(), peer.end) == (b"", "closed")
        assert server.fired == {"timeout_head": 1}


def test_a_connection_that_asks_in_time_is_served():
    with station(ok, timeout_head=10) as server:
        peer = server.accept()
        server.advance(9.5)
        assert served(peer)
        assert server.fired == {}


@pytest.mark.parametrize("first", [b"G", b"\r\n", GET[:-2]])
def test_a_head_that_comes_slowly_is_answered_408(first):
    with station(ok, timeout_head=10) as server:
        peer = server.accept()
        peer.send(first)
        server.advance(9.5)
        assert peer.alive
        assert peer.look() == b""
        server.advance(1)
        answered = peer.finish()
        assert answered.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close\r\n" in answered
        assert server.fired == {"timeout_head": 1, "408": 1}


def test_a_head_that_trickles_is_no_better_than_one_that_stops():
    with station(ok, timeout_head=10) as server:
        peer = server.accept()
        peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        server.advance(11, lambda: peer.alive and peer.send(b"x"))
        assert peer.finish().startswith(b"HTTP/1.1 408 ")


def test_a_silence_before_the_first_byte_of_a_head_counts_once():
    """The head's time begins with its first byte: a late start is not a slow head."""
    with station(ok, timeout_head=10) as server:
        peer = server.accept()
        server.advance(9)
        peer.send(GET[:5])
        server.advance(9)
        peer.send(GET[5:])
        assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("trickle", [b"", b"x"], ids=["stops", "trickles"])
def test_a_slow_head_behind_an_answered_request_is_answered_408(trickle):
    with station(ok, timeout_head=10, timeout_keep_alive=75) as server:
        peer = server.accept()
        assert served(peer)
        server.advance(3)
        peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        server.advance(9)
        assert peer.alive
        server.advance(2, lambda: peer.alive and peer.send(trickle))
        assert server.fired == {"timeout_head": 1, "408": 1}
        assert peer.finish().startswith(b"HTTP/1.1 408 ")


def test_a_refusal_behind_an_answered_request_ends_the_connection():
    with station(ok) as server:
        peer = server.accept()
        assert served(peer)
        peer.send(b"GET / HTTP/1.1\r\nno field\r\n\r\n")
        server.advance(5)
        assert not peer.alive
        assert peer.finish().startswith(b"HTTP/1.1 400 ")


def test_a_second_head_is_not_blamed_for_a_slow_first_request():
    app = Gated()
    with station(app, timeout_head=10) as server:
        peer = server.accept()
        peer.send(GET[:5])
        peer.send(GET[5:])
        server.advance(30)  # the application's time, not the client's
        peer.send(GET[:5])
        app.gate.set()
        peer.expect(OK)
        server.advance(5)
        peer.send(GET[5:])
        assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")


def test_pipelined_heads_cut_by_packets_are_each_timed_alone():
    with station(ok, timeout_head=10) as server:
        peer = server.accept()
        peer.send(GET + GET[:5])
        server.advance(30, lambda: peer.send(GET[5:] + GET[:5]))
        peer.send(GET[5:])
        server.turn()
        assert peer.look().count(b"HTTP/1.1 200 ") == 32
        assert server.fired == {}


# ---------------------------------------------------------------------------------- bodies


def test_a_body_that_does_not_come_is_answered_408():
    with station(reader, min_body_rate=240, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(100))
        server.advance(4.5)
        assert peer.alive
        assert peer.look() == b""
        server.advance(1)
        assert peer.finish().startswith(b"HTTP/1.1 408 ")
        assert server.fired == {"min_body_rate": 1, "408": 1}


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_one_byte_a_second_is_no_progress(kind):
    lines, piece = b"Content-Length: 5000\r\n", b"x"
    if kind == "chunked":
        lines, piece = b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n"
    with station(reader, min_body_rate=240, grace_body=5) as server:
        peer = server.accept()
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
        server.advance(6, lambda: peer.alive and peer.send(piece))
        assert peer.finish().startswith(b"HTTP/1.1 408 ")


def test_a_fast_start_buys_no_later_pause():
    with station(reader, min_body_rate=240, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(200_000))
        peer.send(b"x" * 100_000)
        server.advance(12)
        assert peer.finish().startswith(b"HTTP/1.1 408 ")


def test_a_body_at_the_least_rate_is_taken_however_long_it_is():
    with station(reader, min_body_rate=240, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(320 * 600))
        server.advance(600, lambda: peer.send(b"x" * 320))
        assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")
        assert server.fired == {}


def test_a_slow_body_cuts_an_answer_that_has_begun():
    async def early(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await reader(scope, receive, send)

    with station(early, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(100))
        peer.expect(b"begun")
        server.advance(6)
        assert (
            peer.finish() == b""
        )  # no second answer, and no last chunk: nobody takes it for whole
        assert server.fired["min_body_rate"] == 1


def test_a_slow_body_behind_its_whole_answer_ends_the_connection():
    with station(ok, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(100))
        peer.expect(OK)
        server.advance(6)
        assert peer.finish() == b""


def test_no_408_while_the_application_is_behind():
    app = Gated(reader)
    with station(app, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(8 << 20))
        sent = peer.stuff(bytes(8 << 20))
        assert sent < 8 << 20  # the application's turn
        assert not peer.connection.reading
        server.advance(3600)
        assert peer.alive
        app.gate.set()
        while sent < 8 << 20:
            sent += peer.stuff(bytes((8 << 20) - sent))
        assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")
        assert server.fired == {}


def test_after_a_pause_of_ours_the_grace_begins_anew():
    app = Gated(reader)
    with station(app, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(8 << 20))
        peer.stuff(bytes(8 << 20))
        server.advance(3600)
        app.gate.set()
        server.until(lambda: peer.connection.reading and not peer.unread)
        server.advance(4)
        assert peer.alive
        server.advance(8)  # what lay in the kernel's buffers passes one window
        assert peer.finish().startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("came", "given_up"), [(100, ["min_body_rate"]), (1300, [])])
def test_a_window_counts_neither_the_time_nor_the_bytes_before_our_pause(came, given_up):
    told = []
    connection = SimpleNamespace(
        unsent=0,
        begun=1,
        received=0,
        reading=True,
        engine=SimpleNamespace(waiting=Waiting.BODY),
        give_up_request=told.append,
    )
    patience = Patience(Terms.of(Config(app="none", min_body_rate=240, grace_body=5)), 0.0)
    patience.on_body(0.0, connection)
    connection.received = 300_000
    patience.on_resume(3600.0, connection.received)
    patience.check(3604.5, connection)
    assert told == []
    connection.received += came
    patience.check(3605.0, connection)
    assert told == given_up


def test_no_408_while_the_client_waits_for_our_100():
    app = Gated(reader)
    with station(app, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(5, b"Expect: 100-continue\r\n"))
        server.advance(60)
        assert peer.look() == b""
        app.gate.set()
        peer.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.send(b"12345")
        assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")


def test_once_told_100_the_body_has_to_come():
    with station(reader, grace_body=5) as server:
        peer = server.accept()
        peer.send(post(5, b"Expect: 100-continue\r\n"))
        peer.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
        server.advance(6)
        assert peer.finish().startswith(b"HTTP/1.1 408 ")


def test_min_body_rate_0_is_off():
    with station(reader, min_body_rate=0) as server:
        peer = server.accept()
        peer.send(post(2))
        server.advance(3600)
        peer.send(b"12")
        assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")


# ---------------------------------------------------------------------------------- answers


async def long(scope, receive, send):
    body = bytes(8 << 20)
    await answer(send, 200, [(b"content-length", b"%d" % len(body))], body)


async def endless(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(4096), "more_body": True})


@pytest.mark.parametrize("app", [long, endless])
def test_a_peer_that_does_not_read_is_given_up_with_a_reset(app):
    with station(app, min_send_rate=240, grace_send=10) as server:
        peer = server.accept()
        peer.send(GET)
        server.until(lambda: peer.connection.backlog > 0)
        server.advance(9.5)
        assert peer.alive
        server.advance(1)
        assert not peer.alive
        assert server.fired == {"min_send_rate": 1}
        peer.finish()
        assert peer.end == "reset"
        server.turn()
        assert not server.floor.running
        assert server.logged() == []


def test_a_peer_that_stops_reading_half_way_is_given_up():
    with station(endless, grace_send=10) as server:
        peer = server.accept(small=True)
        peer.send(GET)
        server.advance(60, peer.look)
        assert peer.alive
        server.advance(30)
        assert not peer.alive


def test_a_peer_that_reads_slowly_but_fast_enough_lives():
    with station(endless, min_send_rate=240, grace_send=10) as server:
        peer = server.accept(small=True)
        peer.send(GET)
        server.until(lambda: peer.connection.backlog > 0)
        server.advance(300, lambda: peer.read(1000))
        assert peer.alive
        assert server.fired == {}


def test_a_peer_of_ordinary_speed_lives_behind_a_large_send_buffer():
    with station(long, min_send_rate=240, grace_send=10) as server:
        sock, client, address = _tcp(rcvbuf=131072)
        peer = server.take(sock, client, address)
        peer.send(GET)
        server.until(lambda: peer.connection.backlog > 0)
        server.advance(60, lambda: peer.read(40_000))
        assert server.fired == {}
        assert peer.alive


def _tcp(rcvbuf: int):
    """A loopback connection whose client has so much room, and the server what the kernel likes."""
    with socket.socket() as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        sock, address = listener.accept()
        return sock, client, address


def test_min_send_rate_0_is_off():
    with station(long, min_send_rate=0) as server:
        peer = server.accept()
        peer.send(GET)
        server.until(lambda: peer.connection.backlog > 0)
        server.advance(3600)
        server.until(lambda: peer.read(1 << 20) >= 0 and len(peer.received) > 8 << 20)
        assert peer.alive


# ---------------------------------------------------------------------------------- idleness


def test_an_idle_connection_is_closed_after_timeout_keep_alive():
    with station(ok, timeout_keep_alive=75) as server:
        peer = server.accept()
        assert served(peer)
        server.advance(74.5)
        assert peer.alive
        server.advance(1)
        assert (peer.finish(), peer.end) == (b"", "closed")
        assert server.fired == {"timeout_keep_alive": 1}


def test_each_request_renews_the_idle_time():
    with station(ok, timeout_keep_alive=75) as server:
        peer = server.accept()
        for _ in range(10):
            assert served(peer)
            server.advance(70)
        assert peer.alive


def test_the_idle_time_begins_with_the_end_of_the_answer():
    app = Gated()
    with station(app, timeout_keep_alive=75) as server:
        peer = server.accept()
        peer.send(GET)
        server.advance(300)
        app.gate.set()
        peer.expect(OK)
        server.advance(74)
        assert peer.alive
        server.advance(2)
        assert not peer.alive


def test_the_idle_time_begins_once_the_client_has_the_answer():
    with station(long, timeout_keep_alive=20, min_send_rate=0) as server:
        peer = server.accept()
        peer.send(GET)
        server.until(lambda: peer.connection.backlog > 0)
        server.advance(300)
        assert peer.alive
        server.until(lambda: peer.read(1 << 20) >= 0 and len(peer.received) > 8 << 20)
        server.advance(19)
        assert peer.alive
        server.advance(2)
        assert not peer.alive


def test_timeout_keep_alive_0_ends_a_connection_at_the_first_sweep():
    with station(ok, timeout_keep_alive=0) as server:
        peer = server.accept()
        assert served(peer)
        server.advance(1)
        assert not peer.alive


# ---------------------------------------------------------------------------------- before HTTP


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(ca, tmp_path_factory):
    files = Files(tmp_path_factory.mktemp("tls"), "server").write(ca.issue_cert("localhost"))
    return {"ssl_certfile": files.cert, "ssl_keyfile": files.key}


def client_hello(ca) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talker = client_context(ca).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        talker.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("kind", ["silent", "half", "trickling"])
def test_a_tls_handshake_has_a_deadline(kind, tls, ca):
    hello = client_hello(ca)
    rest = iter(hello[20:])
    with station(ok, timeout_tls_handshake=10, timeout_head=60, **tls) as server:
        peer = server.accept()
        if kind != "silent":
            peer.send(hello[:20])
        server.advance(9, (lambda: peer.send(bytes([next(rest)]))) if kind == "trickling" else None)
        assert peer.alive
        server.advance(1.5)
        assert not peer.alive
        assert server.fired == {"timeout_tls_handshake": 1}


def test_after_the_handshake_the_head_has_its_own_time(tls, ca):
    with station(ok, timeout_tls_handshake=10, timeout_head=20, **tls) as server:
        peer = server.accept()
        server.advance(9)
        client = wrap_client(peer.sock, client_context(ca), "localhost")

        def shaken() -> bool:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                return False
            return True

        server.until(shaken)
        server.until(lambda: peer.connection.opening is None)
        server.advance(19)
        assert peer.alive
        server.advance(2)
        assert not peer.alive
        client.close()


@pytest.mark.parametrize("start", [b"", b"PROXY TCP4 192.0.2.1"])
def test_a_proxy_header_has_a_deadline(start):
    with station(ok, proxy_protocol="127.0.0.1", timeout_tls_handshake=10) as server:
        peer = server.accept()
        peer.send(start)
        server.advance(9.5)
        assert peer.alive
        server.advance(1)
        assert not peer.alive


# ---------------------------------------------------------------------------------- lingering

REFUSED = b"GET / HTTP/1.1\r\nno field\r\n\r\n"


def test_lingering_is_bound_in_time():
    with station(ok, timeout_linger=2) as server:
        peer = server.accept()
        peer.send(REFUSED)
        assert peer.finish().startswith(b"HTTP/1.1 400 ")  # our side is shut,
        server.advance(1.5, lambda: peer.sock.send(b"more"))
        assert peer.alive  # theirs is not,
        server.advance(1)
        assert not peer.alive  # and that only for a while


def test_lingering_is_bound_in_bytes():
    with station(ok, timeout_linger=3600) as server:
        peer = server.accept()
        peer.send(REFUSED)
        peer.finish()
        sent = peer.stuff(bytes(64 << 20))
        assert not peer.alive
        assert 15 << 20 < sent < 32 << 20


def test_lingering_ends_with_the_client():
    with station(ok, timeout_linger=3600) as server:
        peer = server.accept()
        peer.send(REFUSED)
        peer.finish()
        peer.sock.close()
        server.until(lambda: not peer.alive)


@pytest.mark.parametrize("start", [GET[:5], post(5)], ids=["head", "body"])
def test_a_408_lingers_as_long_as_any_other_refusal(start):
    with station(reader, timeout_linger=2, timeout_head=5, grace_body=5) as server:
        peer = server.accept()
        peer.send(start)
        server.advance(5.0)
        assert peer.finish().startswith(b"HTTP/1.1 408 ")
        server.advance(1.5)
        assert peer.alive
        server.advance(1)
        assert not peer.alive


# ---------------------------------------------------------------------------------- whole requests


def test_timeout_request_answers_503_and_ends_the_task():
    app = Gated()
    with station(app, timeout_request=30) as server:
        peer = server.accept()
        peer.send(GET)
        server.advance(29.5)
        assert peer.look() == b""
        assert len(server.floor.running) == 1
        server.advance(1)
        answered = peer.expect(b"Unavailable\n")
        assert answered.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in answered
        assert not server.floor.running
        assert server.fired == {"timeout_request": 1}
        app.gate.set()
        assert served(peer)  # the answer was whole, so the connection lives


def test_timeout_request_cuts_an_answer_that_has_begun():
    async def stuck(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.Event().wait()

    with station(stuck, timeout_request=30) as server:
        peer = server.accept()
        peer.send(GET)
        peer.expect(b"begun")
        server.advance(31)
        assert peer.finish() == b""
        assert not server.floor.running


def test_timeout_request_counts_for_each_request_alone():
    app = Gated()
    with station(app, timeout_request=30) as server:
        peer = server.accept()
        for _ in range(4):
            app.gate.clear()
            peer.send(GET)
            server.advance(20)
            app.gate.set()
            assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")
        assert server.fired == {}


def test_timeout_request_leaves_work_after_the_answer_alone():
    done = []

    async def afterwards(scope, receive, send):
        await ok(scope, receive, send)
        await gate.wait()
        done.append(True)

    with station(afterwards, timeout_request=30) as server:
        gate = asyncio.Event()
        peer = server.accept()
        peer.send(GET)
        peer.expect(OK)
        server.advance(60)
        gate.set()
        server.until(lambda: bool(done))


def test_timeout_request_0_is_off():
    app = Gated()
    with station(app, timeout_request=0) as server:
        peer = server.accept()
        peer.send(GET)
        server.advance(3600)
        app.gate.set()
        assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")


def test_an_application_may_take_its_time_and_its_client_may_wait():
    """None of the client's limits is for the time in which it is not its turn."""
    app = Gated()
    with station(app, timeout_head=1, timeout_keep_alive=1, grace_body=1, grace_send=1) as server:
        peer = server.accept()
        peer.send(GET)
        server.advance(3600)
        app.gate.set()
        assert peer.expect(OK).startswith(b"HTTP/1.1 200 ")
        assert server.fired == {}
