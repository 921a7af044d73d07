"""A WebSocket's waits, on a clock that is turned by hand: pings, their answers, and a full peer."""

from __future__ import annotations

import asyncio
import logging
import zlib
from unittest import mock

import pytest
from tests.support.clock import station
from tests.support.socket_client import BINARY, PING, PONG, TEXT, closing, handshake, masked

from tidegate.protocol.http1.engine import TUNNEL_BOUND
from tidegate.protocol.websocket.engine import STEP
from tidegate.protocol.websocket.frames import COMPRESSED


async def listens(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def opened(server, peer, lines=b""):
    peer.send(handshake(lines=lines))
    assert peer.expect(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    return peer


def squeezed(data):
    maker = zlib.compressobj(9, zlib.DEFLATED, -12)
    return (maker.compress(data) + maker.flush(zlib.Z_SYNC_FLUSH))[:-4]


def pings(peer):
    """How many pings have come; nothing else has."""
    data = bytes(peer.look())
    peer.received.clear()
    ping = bytes((0x80 | PING, 4)) + b"tide"
    assert data == ping * (len(data) // len(ping))
    return len(data) // len(ping)


def test_a_silent_peer_is_pinged_and_lives_while_it_answers():
    with station(listens, ws_ping_interval=20, ws_ping_timeout=20) as server:
        peer = opened(server, server.accept())
        server.advance(19)
        assert pings(peer) == 0
        for _ in range(5):
            server.advance(20)
            assert pings(peer) == 1
            peer.send(masked(PONG, b"tide"))
        assert peer.alive
        assert not server.fired


def test_a_peer_that_does_not_answer_a_ping_is_given_up():
    told = []

    async def tells(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())

    with station(tells, ws_ping_interval=20, ws_ping_timeout=10) as server:
        peer = opened(server, server.accept())
        server.advance(21)
        assert pings(peer) == 1
        server.advance(8)
        assert peer.alive
        server.advance(3)
        assert not peer.alive
        assert server.fired == {"ws_ping_timeout": 1}
        assert any(
            "does not answer pings (--ws-ping-timeout)" in line
            for line in server.logged(logging.INFO)
        )
        server.turn()
        assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@pytest.mark.parametrize(
    "options", [{"ws_ping_interval": None}, {"ws_ping_interval": 20, "ws_ping_timeout": None}]
)
def test_without_an_interval_nobody_is_pinged_and_without_a_timeout_nobody_given_up(options):
    with station(listens, **options) as server:
        peer = opened(server, server.accept())
        server.advance(300)
        assert peer.alive
        assert (pings(peer) > 3) is (options["ws_ping_interval"] is not None)


def test_who_is_not_read_by_us_is_not_blamed_for_its_silence():
    gate = asyncio.Event()

    async def waits(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await gate.wait()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    with station(waits, ws_ping_interval=20, ws_ping_timeout=10) as server:
        peer = opened(server, server.accept(small=True))
        flood = masked(TEXT, b"x" * 1000) * 500
        sent = peer.stuff(flood)
        assert TUNNEL_BOUND < sent < len(flood)
        assert not peer.connection.reading
        server.advance(200)
        assert peer.alive
        gate.set()
        rest = flood[sent:] + masked(PONG, b"tide") + closing(1000)
        while rest:
            rest = rest[peer.stuff(rest) :]
        assert peer.finish().endswith(b"\x88\x02\x03\xe8")
        assert not server.fired


def test_a_peer_that_does_not_read_is_given_up_and_the_application_told():
    error = []

    async def floods(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(100_000)})
        except OSError as caught:
            error.append(caught)
            raise

    with station(floods, min_send_rate=240, grace_send=10) as server:
        peer = server.accept(small=True)
        peer.sock.send(handshake())
        server.until(lambda: peer.connection.backlog > 0)
        queued = peer.connection.backlog + peer.connection.engine.queued(1)
        assert queued < 1 << 20
        server.advance(30)
        assert not peer.alive
        assert server.fired == {"min_send_rate": 1}
        server.turn()
        assert len(error) == 1
        assert not server.logged()
        assert server.logged(logging.INFO)[-1].endswith("it reads too slowly (--min-send-rate)")


def test_a_handshake_that_is_never_answered_keeps_the_deadline_of_a_request():
    async def never(scope, receive, send):
        await asyncio.Event().wait()

    with station(never, timeout_request=5) as server:
        peer = server.accept()
        peer.send(handshake())
        server.advance(6)
        assert peer.finish().startswith(b"HTTP/1.1 503 ")


def test_an_open_socket_has_no_such_deadline():
    with station(listens, timeout_request=5, ws_ping_interval=None) as server:
        peer = opened(server, server.accept())
        server.advance(60)
        assert peer.alive


def test_sockets_count_for_the_limit_on_concurrency():
    with station(listens, limit_concurrency=1) as server:
        first = opened(server, server.accept())
        second = server.accept()
        second.send(handshake())
        assert second.expect(b"Unavailable\n").startswith(b"HTTP/1.1 503 ")
        assert first.alive


def test_the_answer_to_a_message_leaves_in_the_callback_that_read_it():
    async def echoes(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    with station(echoes) as server:
        peer = opened(server, server.accept_unix())
        peer.sock.send(masked(TEXT, b"now"))
        seen = []

        def read() -> None:
            peer.connection.on_readable()
            for member in server.site.poller.batch or ():
                member.on_batch_end()
            seen.append(peer.look())

        server.loop.call_soon(read)
        server.turn(1)
        assert seen == [bytes((0x80 | TEXT, 3)) + b"now"]


@pytest.mark.parametrize("most", [1, 8, 32])
def test_a_flood_of_messages_leaves_others_their_turn(most):
    turns, runs = [0], []

    async def counts(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            runs.append(turns[0])

    async def others():
        while len(runs) < 300:
            turns[0] += 1
            await asyncio.sleep(0)

    with station(counts, ws_max_queue=most) as server:
        peer = opened(server, server.accept_unix())
        task = server.loop.create_task(others())
        peer.send(masked(TEXT, b"x") * 300)
        server.until(task.done)
        assert max(runs.count(turn) for turn in set(runs)) == most


def test_a_silent_socket_keeps_no_queue():
    with station(listens, ws_ping_interval=20, ws_ping_timeout=None) as server:
        peer = opened(server, server.accept())
        session = peer.connection._exchange
        unused = session._queue
        peer.send(masked(TEXT, b"x"))
        server.turn()
        assert session._queue is not unused
        server.advance(70)
        assert session._queue is unused
        peer.send(masked(TEXT, b"x") + closing(1000))
        server.until(lambda: not peer.alive or peer.look().endswith(b"\x03\xe8"))
        assert session._queue is not unused


def test_a_close_of_ours_finds_the_peers_behind_messages_nobody_took():
    gate = asyncio.Event()

    async def closes(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await gate.wait()
        await send({"type": "websocket.close", "code": 3001})

    with station(closes, ws_max_queue=4) as server:
        peer = opened(server, server.accept_unix())
        peer.send(masked(TEXT, b"x") * 100 + closing(1000))
        gate.set()
        assert peer.finish() == b"\x88\x02\x0b\xb9"  # without a second of waiting


def test_a_stream_of_messages_is_read_for_as_long_as_it_is_taken():
    taken = []

    async def takes(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            taken.append(len(message["bytes"]))

    with station(takes) as server:
        peer = opened(server, server.accept())
        flood = masked(2, bytes(1000)) * (4 * TUNNEL_BOUND // 1000)
        peer.send(flood)
        server.until(lambda: sum(taken) >= 4 * TUNNEL_BOUND // 1000 * 1000)


def test_a_flood_of_fragments_goes_on_once_a_turn():
    """However many packets of it come while it waits for its next share."""
    with station(listens) as server:
        peer = opened(server, server.accept_unix())
        peer.send(masked(TEXT, b"", fin=False))
        waiting = []
        schedule = server.loop.call_soon

        def watch(callback, *arguments, **options):
            waiting.append(getattr(callback, "__name__", ""))
            return schedule(callback, *arguments, **options)

        with mock.patch.object(server.loop, "call_soon", watch):
            for _ in range(6):
                peer.sock.send(masked(0, b"", fin=False) * 1000)
                peer.connection.on_readable()
            assert waiting.count("go_on") == 1
            peer.connection.on_batch_end()


def test_bombs_are_inflated_one_after_the_other():
    bomb = squeezed(bytes(3 << 20))
    with station(listens, ws_max_size=2 << 20) as server:
        peers = [server.accept_unix() for _ in range(8)]
        for peer in peers:
            opened(server, peer, b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        line = server.worker._service.inflating
        sessions = [peer.connection._exchange for peer in peers]
        for peer in peers:
            peer.sock.send(masked(BINARY | COMPRESSED, bomb))
            peer.connection.on_readable()
            peer.connection.on_batch_end()
        most = 0
        while line._members:
            server.turn(1)
            held = [each._socket._gathered for each in sessions if each._socket is not None]
            most = max(most, sum(held))
        assert 2 << 20 < most < (2 << 20) + 9 * STEP
        for peer in peers:
            assert peer.finish().startswith(b"\x88")


@pytest.mark.parametrize("outside", [False, True])
def test_what_is_sent_in_one_turn_leaves_in_one_call(outside):
    """In the callback that brought a message, and from a task that something else has woken."""
    gate = asyncio.Event()

    async def speaks(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await (gate.wait() if outside else receive())
        for number in range(5):
            await send({"type": "websocket.send", "text": str(number) * 50})
        await send({"type": "websocket.close"})

    with station(speaks) as server:
        peer = opened(server, server.accept_unix())
        outbox, calls = peer.connection._outbox, []
        kernel = outbox._send

        def watched(data):
            calls.append(len(data))
            return kernel(data)

        outbox._send = watched
        if outside:
            gate.set()
        else:
            peer.send(masked(TEXT, b"go"))
        server.until(lambda: peer.look().endswith(b"\x88\x02\x03\xe8"))
        assert calls == [5 * 52 + 4]
