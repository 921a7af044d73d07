"""An application that is behind, and what its peer must not suffer for it; on a clock set by hand."""

from __future__ import annotations

import asyncio
import zlib

import anyio
import pytest
from tests.support import websocket_frames as ws
from tests.support.clock import station
from tests.support.socket_client import PONG, TEXT, closing, handshake, masked
from tests.support.websocket_frames import parse_sent

from tidegate.protocol.websocket.engine import STEP

OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


class Held:
    """Accepts, waits for the gate, then takes all there is, and perhaps answers it."""

    def __init__(self, *, answers: bool = False) -> None:
        self.gate = asyncio.Event()
        self.got = []
        self.answers = answers

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await self.gate.wait()
        while True:
            message = await receive()
            self.got.append(message)
            if message["type"] == "websocket.disconnect":
                return
            if self.answers:
                await send({"type": "websocket.send", "text": "answer"})

    @property
    def texts(self):
        return [each["text"] for each in self.got[:-1]]


def opened(server, peer, lines=b""):
    peer.send(handshake(lines=lines))
    assert peer.expect(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    return peer


def deflated(data, flush=zlib.Z_SYNC_FLUSH, *, fin=True):
    maker = zlib.compressobj(6, zlib.DEFLATED, -15)
    payload = maker.compress(data) + maker.flush(flush)
    if flush == zlib.Z_SYNC_FLUSH:
        payload = payload[:-4]
    return ws.frame(ws.BINARY, payload, rsv=4, fin=fin)


@pytest.mark.parametrize("count", [31, 32, 33, 50])
def test_what_came_before_a_close_and_the_end_of_tcp_is_given_out(count):
    app = Held()
    with station(app) as server:
        peer = opened(server, server.accept())
        frames = (masked(TEXT, b"%d" % number) for number in range(count))
        peer.send(b"".join(frames) + closing(1000, "bye"))
        peer.sock.close()
        server.until(lambda: not peer.alive)
        app.gate.set()
        server.until(lambda: not server.floor.running)
        assert app.texts == [str(number) for number in range(count)]
        assert app.got[-1] == {"type": "websocket.disconnect", "code": 1000, "reason": "bye"}


def test_what_came_before_the_end_of_tcp_alone_is_given_out():
    app = Held()
    with station(app) as server:
        peer = opened(server, server.accept())
        peer.send(masked(TEXT, b"x") * 50 + masked(TEXT, b"torn")[:-1])
        peer.sock.close()
        server.until(lambda: not peer.alive)
        app.gate.set()
        server.until(lambda: not server.floor.running)
        assert app.texts == ["x"] * 50
        assert app.got[-1]["code"] == 1006


def test_what_was_being_inflated_when_tcp_ended_is_given_out():
    app = Held()
    with station(app) as server:
        peer = opened(server, server.accept(), OFFER)
        app.gate.set()
        peer.send(deflated(bytes(4 * STEP)) + closing(1001))
        peer.sock.close()
        server.until(lambda: not server.floor.running)
        assert [len(each["bytes"]) for each in app.got[:-1]] == [4 * STEP]
        assert app.got[-1]["code"] == 1001


@pytest.mark.parametrize("size", [STEP - 1, STEP, STEP + 1, 2 * STEP])
def test_a_stream_that_ends_at_a_step_lets_others_go_on(size):
    """A fragment whose stream is over is not inflated for ever, nor does anybody wait for it."""
    app = Held()
    with station(app) as server:
        first = opened(server, server.accept(), OFFER)
        second = opened(server, server.accept(), OFFER)
        app.gate.set()
        first.send(deflated(bytes(size), zlib.Z_FINISH, fin=False))
        second.send(deflated(bytes(3 * STEP)))
        server.until(lambda: app.got)
        assert len(app.got[0]["bytes"]) == 3 * STEP
        server.until(lambda: not server.worker._service.inflating._members)


@pytest.mark.parametrize("cut", [20, 300, 500])
def test_the_rest_of_a_frame_comes_while_its_beginning_is_inflated(cut):
    app = Held()
    with station(app) as server:
        peer = opened(server, server.accept_unix(), OFFER)
        app.gate.set()
        frame = deflated(bytes(600_000))
        for piece in (frame[:cut], frame[cut:]):
            peer.sock.send(piece)
            peer.connection.on_readable()
        peer.connection.on_batch_end()
        server.until(lambda: app.got)
        assert len(app.got[0]["bytes"]) == 600_000


@pytest.mark.parametrize(("count", "options"), [(40, {}), (1, {"ws_max_queue": 1})])
def test_who_answers_pings_lives_though_the_application_is_behind(count, options):
    app = Held()
    with station(app, ws_ping_interval=20, ws_ping_timeout=10, **options) as server:
        peer = opened(server, server.accept())
        peer.send(masked(TEXT, b"x") * count)
        for _ in range(5):
            server.advance(21)
            assert peer.alive
            peer.look()
            peer.send(masked(PONG, b"tide"))
        server.advance(60)  # and who does not, does not
        assert not peer.alive
        assert server.fired == {"ws_ping_timeout": 1}


def test_a_ping_is_answered_while_the_application_works_on_what_it_took():
    async def works(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await asyncio.Event().wait()

    with station(works, ws_max_queue=1) as server:
        peer = opened(server, server.accept_unix())
        peer.send(masked(TEXT, b"it filled the queue"))
        server.turn()
        peer.send(ws.ping(b"hi"))
        server.until(lambda: peer.look() == b"\x8a\x02hi")


def test_no_ping_sends_our_close_ahead_of_the_answers():
    app = Held(answers=True)
    with station(app, ws_ping_interval=1, ws_ping_timeout=1) as server:
        peer = opened(server, server.accept())
        peer.send(masked(TEXT, b"x") * 2 + closing(1000))
        server.advance(4)
        assert peer.alive
        app.gate.set()
        sent = parse_sent(peer.finish())
        assert [one.opcode for one in sent] == [TEXT, TEXT, ws.CLOSE]


async def by_asyncio(receive):
    async with asyncio.timeout(0):
        return await receive()


async def by_anyio(receive):
    with anyio.move_on_after(0):
        return await receive()
    raise TimeoutError


@pytest.mark.parametrize("poll", [by_asyncio, by_anyio])
def test_who_polls_gets_every_message_and_the_end(poll):
    got = []

    async def game(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while not got or got[-1] is not None:
            try:
                message = await poll(receive)
            except TimeoutError:
                await asyncio.sleep(0)
            else:
                got.append(message.get("text"))

    with station(game) as server:
        peer = opened(server, server.accept())
        peer.send(b"".join(masked(TEXT, b"%d" % number) for number in range(100)))
        server.until(lambda: len(got) == 100)
        peer.sock.close()
        server.until(lambda: not server.floor.running)
        assert got == [*map(str, range(100)), None]


@pytest.mark.parametrize("most", [0, 32])
def test_empty_messages_are_bounded_too(most):
    app = Held()
    with station(app, ws_max_queue=most) as server:
        peer = opened(server, server.accept())
        sent = peer.stuff(masked(TEXT) * 500_000)
        assert not peer.connection.reading
        queue = peer.connection._exchange._queue
        assert len(queue) <= (most or 2000)
        app.gate.set()
        server.until(lambda: len(app.got) >= sent // 6 - 1)
