"""HTTP/2 on a clock set by hand: whole requests, budgets, tunnels, and how connections end."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.clock import Station, station
from tests.support.http2_frames import (
    ENABLE_PUSH,
    HEADERS,
    PING,
    SETTINGS,
    Code,
    block,
    data,
    get,
    headers,
    ping,
    post,
)
from tests.support.http2_station import LARGEST, Client, Gated, ok

CONNECT = block(
    [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/"),
     (b":authority", b"tide.test"), (b"sec-websocket-version", b"13")]
)  # fmt: skip


# ---------------------------------------------------------------------------------- whole requests


def test_timeout_request_ends_one_stream_and_no_other():
    app = Gated()
    with station(app, timeout_request=30) as server:
        client = Client(server).send(get(1))
        server.advance(20)
        client.send(get(3))
        server.advance(11)
        assert client.ended(1)
        assert not client.ended(3)
        assert server.fired == {"timeout_request": 1}
        assert client.served(5)
        app.gate.set()
        server.until(lambda: client.ended(3))


def test_timeout_request_cuts_an_answer_that_has_begun():
    async def stuck(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        if scope["path"] != "/quick":
            await asyncio.Event().wait()
        await send({"type": "http.response.body", "body": b"end"})

    with station(stuck, timeout_request=30) as server:
        client = Client(server).send(get(1))
        server.advance(31)
        assert client.body(1) == b"begun"
        assert client.reset(1) == Code.INTERNAL_ERROR
        assert client.served(3)


# ---------------------------------------------------------------------------------- budgets


def test_budgets_fill_again_with_time():
    with station(ok, http2_max_idle_frames=20) as server:
        client = Client(server)
        for _ in range(50):
            client.send(ping() * 15)
            server.advance(10)
        assert client.goaways == []
        client.send(ping() * 22)
        assert client.goaways[0][1] == Code.ENHANCE_YOUR_CALM


def test_budgets_fill_again_while_requests_are_open():
    app = Gated()
    with station(app, http2_max_idle_frames=20) as server:
        client = Client(server).send(get(1))
        for _ in range(50):
            client.send(ping() * 15)
            server.advance(20)
        assert client.goaways == []
        app.gate.set()
        server.until(lambda: client.ended(1))


# ---------------------------------------------------------------------------------- tunnels


async def hangs_up(scope, receive, send):
    if scope["type"] == "http":
        await ok(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close"})


def test_a_tunnel_whose_client_never_ends_its_side():
    with station(hangs_up, timeout_linger=2) as server:
        client = Client(server).send(headers(1, CONNECT, end=False))
        server.until(lambda: client.body(1) == b"\x88\x02\x03\xe8")
        client.send(data(1, b"\x88\x82\0\0\0\0\x03\xe8"))  # it answers the close, and that is all
        server.until(lambda: client.ended(1))
        assert client.reset(1) is None
        server.advance(20)
        assert client.reset(1) == Code.CANCEL
        assert server.fired == {"timeout_linger": 1}
        assert client.served(3)
        assert not client.peer.connection.engine._streams


# ---------------------------------------------------------------------------------- ends


def stop(server: Station) -> None:
    for connection in [*server.floor.connections]:
        connection.stop()
    server.turn()


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "silent"])
def test_two_goaways_at_a_stop_with_and_without_the_pings_answer(answered: bool):
    app = Gated()
    with station(app) as server:
        client = Client(server).send(get(1))
        stop(server)
        assert client.goaways == [(LARGEST, 0)]
        client.send(get(3))  # it crosses the first
        if answered:
            client.send(ping(client.of(PING)[0], ack=True))
        else:
            assert len(client.goaways) == 1
            server.advance(1.5)
        assert client.goaways == [(LARGEST, 0), (3, 0)]
        client.send(get(5))  # it crosses the second: not served
        assert client.alive
        app.gate.set()
        server.until(lambda: client.ended(1) and client.ended(3))
        assert client.of(HEADERS, 5) == []
        server.advance(5)  # it has taken what was said, and may still speak
        assert not client.alive


def test_a_stop_of_an_idle_connection_ends_after_a_round_trip():
    with station(ok) as server:
        client = Client(server)
        assert client.served(1)
        stop(server)
        client.send(ping(client.of(PING)[0], ack=True))
        assert client.goaways == [(LARGEST, 0), (1, 0)]
        server.advance(5)  # it has taken what was said, and may still speak
        assert not client.alive


def test_an_upload_that_crosses_the_last_goaway_ends_nobody_elses_request():
    app = Gated()
    with station(app) as server:
        client = Client(server).send(get(1))
        stop(server)
        server.advance(1.5)
        client.send(post(3), data(3, bytes(1000)), data(3, b"", end=True))
        assert client.goaways == [(LARGEST, 0), (1, 0)]
        app.gate.set()
        server.until(lambda: client.ended(1))


def test_a_client_that_closes_its_side_still_gets_its_answer():
    app = Gated()
    with station(app) as server:
        client = Client(server).send(get(1))
        client.peer.half_close()
        server.advance(5)
        assert client.alive
        app.gate.set()
        server.until(lambda: client.ended(1) or not client.alive)
        assert client.ended(1)


def test_what_was_announced():
    with station(ok, http2_max_streams=7, limit_header_size=3000) as server:
        client = Client(server, (ENABLE_PUSH, 0))
        said = client.of(SETTINGS)[0]
        pairs = {
            int.from_bytes(said[at : at + 2], "big"): int.from_bytes(said[at + 2 : at + 6], "big")
            for at in range(0, len(said), 6)
        }
        assert pairs == {3: 7, 4: 65535, 6: 3000, 8: 1, 9: 1}


@pytest.mark.parametrize("window", [1024, 32768, 65536, 1 << 20])
def test_no_window_is_opened_by_nothing(window: int):
    """6.9: whatever --http2-max-window says."""
    with station(ok, http2_max_window=window) as server:
        client = Client(server)
        assert client.served(1)
        assert all(int.from_bytes(one, "big") > 0 for one in client.of(8))
