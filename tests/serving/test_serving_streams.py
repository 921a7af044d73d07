"""HTTP/2's waits on a clock set by hand: each has its end, on one stream where it is a stream's."""

from __future__ import annotations

import pytest
from tests.support.apps import answer
from tests.support.clock import station
from tests.support.http2_frames import (
    HEADERS,
    INITIAL_WINDOW,
    PREFACE,
    Code,
    continuation,
    data,
    get,
    headers,
    post,
    settings,
    window_update,
)
from tests.support.http2_station import LARGEST, Client, Gated, ok, reader

# ---------------------------------------------------------------------------------- the connection


@pytest.mark.parametrize("raw", [b"", PREFACE[:11], PREFACE, PREFACE + settings()[:4]])
def test_a_client_that_does_not_come_to_its_first_request(raw: bytes):
    with station(ok, timeout_head=10) as server:
        client = Client(server, hello=False).send(raw)
        server.advance(9)
        assert client.alive
        server.advance(4)
        assert not client.alive or client.goaways
        server.advance(4)
        assert not client.alive


def test_settings_that_are_not_acknowledged():
    with station(ok, timeout_head=10) as server:
        client = Client(server, hello=False).send(PREFACE + settings())
        assert client.served(1)
        server.advance(9)
        assert client.goaways == []
        server.advance(2)
        assert client.goaways == [(1, Code.SETTINGS_TIMEOUT)]
        server.advance(3)
        assert not client.alive


def test_settings_that_are_not_acknowledged_while_a_request_is_open():
    with station(Gated(), timeout_head=10) as server:
        client = Client(server, hello=False).send(PREFACE + settings(), get(1))
        server.advance(16)
        assert client.goaways == [(1, Code.SETTINGS_TIMEOUT)]


@pytest.mark.parametrize("trickle", [False, True])
def test_half_a_header_block(trickle: bool):
    with station(ok, timeout_head=10) as server:
        client = Client(server)
        assert client.served(1)
        client.send(headers(3, b"\x82", done=False))

        def crumb() -> None:
            if trickle and client.alive:
                client.send(continuation(3, b"\x82", done=False))

        server.advance(9, crumb)
        assert client.goaways == []
        server.advance(3, crumb)
        assert client.goaways == [(1, Code.ENHANCE_YOUR_CALM)]
        assert server.fired["timeout_head"] == 1


def test_half_a_frame_on_an_idle_connection():
    with station(ok, timeout_head=10) as server:
        client = Client(server)
        assert client.served(1)
        client.send(get(3)[:12])
        server.advance(12)
        assert client.goaways


def test_an_idle_connection_is_told_and_closed():
    with station(ok, timeout_keep_alive=75) as server:
        client = Client(server)
        assert client.served(1)
        server.advance(74)
        assert client.goaways == []
        server.advance(1.5)
        assert client.goaways == [(LARGEST, 0)]
        server.advance(2)
        assert client.goaways == [(LARGEST, 0), (1, 0)]
        server.advance(3)
        assert not client.alive
        assert server.fired["timeout_keep_alive"] == 1


def test_a_request_that_crosses_the_goaway_of_an_idle_connection_is_served():
    with station(ok, timeout_keep_alive=75) as server:
        client = Client(server)
        assert client.served(1)
        server.advance(75.5)
        assert client.goaways == [(LARGEST, 0)]
        assert client.served(3)
        server.advance(2)
        assert client.goaways[-1] == (3, 0)


def test_each_request_and_each_hour_of_an_open_one_keeps_the_connection():
    app = Gated()
    with station(app, timeout_keep_alive=75) as server:
        client = Client(server)
        for stream in (1, 3, 5):
            assert client.served(stream)
            server.advance(70)
        client.send(get(7))
        server.advance(3600)
        assert client.alive
        app.gate.set()
        server.until(lambda: client.ended(7))
        server.advance(74)
        assert client.alive
        assert client.goaways == []


# ---------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("trickle", [0, 1])
def test_a_body_that_does_not_come_ends_its_stream_alone(trickle: int):
    with station(reader, min_body_rate=240, grace_body=5) as server:
        client = Client(server).send(post(1), data(1, b"x"))
        server.advance(4)
        assert client.reset(1) is None
        server.advance(
            9, lambda: trickle and client.reset(1) is None and client.send(data(1, b"y"))
        )
        assert client.reset(1) == Code.CANCEL
        assert client.served(3)
        assert server.fired == {"min_body_rate": 1}
        assert client.goaways == []


def test_a_body_at_the_least_rate_is_taken_however_long_it_is():
    with station(reader, min_body_rate=240, grace_body=5) as server:
        client = Client(server).send(post(1))
        server.advance(120, lambda: client.send(data(1, bytes(320))))
        client.send(data(1, b"", end=True))
        server.until(lambda: client.ended(1))
        assert server.fired == {}


def test_one_slow_body_beside_a_quick_one():
    """A client may send its bodies one after the other, over a line that has room for one."""
    with station(reader, min_body_rate=240, grace_body=5) as server:
        client = Client(server).send(post(1), post(3))
        server.advance(15, lambda: client.send(data(3, bytes(500))))
        assert client.reset(1) is None
        client.send(data(3, b"", end=True))
        server.until(lambda: client.ended(3))
        server.advance(12)
        assert client.reset(1) == Code.CANCEL


def test_the_rest_of_a_body_that_nobody_reads():
    with station(ok, timeout_linger=2) as server:
        client = Client(server).send(post(1), data(1, b"x"))
        server.until(lambda: client.ended(1))
        assert client.reset(1) is None
        server.advance(5)
        assert client.reset(1) == Code.NO_ERROR
        assert client.served(3)
        assert server.fired == {}


def test_an_application_that_does_not_read_is_not_the_clients_fault():
    app = Gated(reader)
    with station(app, grace_body=5) as server:
        client = Client(server).send(post(1), *[data(1, bytes(13107))] * 5)
        server.advance(600)
        assert client.reset(1) is None
        app.gate.set()
        server.turn()
        client.send(data(1, b"", end=True))
        server.until(lambda: client.ended(1))
        assert server.fired == {}


def test_a_client_that_awaits_our_100_owes_nothing():
    app = Gated(reader)
    with station(app, grace_body=5) as server:
        client = Client(server).send(post(1, b"/", (b"expect", b"100-continue")))
        server.advance(60)
        assert client.of(HEADERS, 1) == []
        app.gate.set()
        server.until(lambda: len(client.of(HEADERS, 1)) == 1)
        server.advance(13)
        assert client.reset(1) == Code.CANCEL


def test_uploads_that_nobody_reads_leave_the_connection_its_window():
    """The application answers without reading; the thousandth upload is as good as the first."""
    with station(ok) as server:
        client = Client(server)
        for stream in range(1, 1200, 2):
            client.send(post(stream, b"/quick") + data(stream, bytes(8000), end=True))
            assert client.goaways == []
        engine = client.peer.connection.engine
        assert engine._receive_window + engine._credit == engine._receive_size


# ---------------------------------------------------------------------------------- windows


async def long(scope, receive, send):
    body = bytes(2 if scope["path"] == "/quick" else 100_000)
    await answer(send, 200, [(b"content-length", b"%d" % len(body))], body)


@pytest.mark.parametrize("step", [0, 1])
def test_a_window_that_stays_shut_or_opens_by_a_byte_ends_its_stream_alone(step: int):
    with station(long, min_send_rate=240, grace_send=10) as server:
        client = Client(server, (INITIAL_WINDOW, 0)).send(get(1), get(3))

        def each() -> None:
            client.send(window_update(3, 1000))
            if step and client.reset(1) is None:
                client.send(window_update(1, step))

        server.advance(9, each)
        assert client.reset(1) is None
        server.advance(20, each)
        assert client.reset(1) == Code.CANCEL
        assert client.reset(3) is None
        assert server.fired == {"min_send_rate": 1}
        assert client.goaways == []


def test_a_window_that_opens_at_the_least_rate_is_waited_for():
    with station(long, min_send_rate=240, grace_send=10) as server:
        client = Client(server, (INITIAL_WINDOW, 0)).send(window_update(0, 100_000), get(1))

        def each() -> None:
            client.send(window_update(1, 400)).frames()

        server.advance(300, each)
        assert client.ended(1)
        assert len(client.body(1)) == 100_000


def test_a_window_of_the_connection_that_stays_shut():
    with station(long, min_send_rate=240, grace_send=10) as server:
        client = Client(server, (INITIAL_WINDOW, 1 << 20)).send(get(1), get(3))
        server.advance(30)
        assert {client.reset(1), client.reset(3)} == {Code.CANCEL}
        assert client.alive


def test_min_send_rate_0_is_off_for_streams_too():
    with station(long, min_send_rate=0) as server:
        client = Client(server, (INITIAL_WINDOW, 0)).send(get(1))
        server.advance(3600)
        client.send(window_update(1, 100_000), window_update(0, 100_000))
        server.until(lambda: client.ended(1))


def test_a_peer_that_does_not_read_is_given_up_as_one():
    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(4096), "more_body": True})

    with station(endless, min_send_rate=240, grace_send=10) as server:
        client = Client(server, (INITIAL_WINDOW, LARGEST))
        client.send(window_update(0, LARGEST - 65535), get(1))
        server.until(lambda: client.peer.connection.unsent > 0)
        server.advance(12)
        assert not client.alive
        assert server.fired == {"min_send_rate": 1}
