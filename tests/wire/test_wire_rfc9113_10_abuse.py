"""RFC 9113 section 10.5: what is legal one by one and an attack in numbers, and what never is.

An attack ends in a connection error ENHANCE_YOUR_CALM. A client that works, however much, lives.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.support.apps import Echo, Replies, answer, body, lifespan, start
from tests.support.http2_frames import (
    IGNORED,
    INITIAL_WINDOW,
    LARGEST,
    MAX_STREAMS,
    Code,
    block,
    continuation,
    data,
    frame,
    get,
    goaway,
    headers,
    literal,
    ping,
    post,
    priority,
    priority_update,
    request,
    rst,
    settings,
    stream_error,
    window_update,
)
from tests.support.http2_peer import Http2Client, connect
from tests.wire.served import Served, served

from tidegate.types import Receive, Scope, Send

BLOCK = block(request())
PIECE = bytes(10_000)
TIMES = 4000


@dataclass(slots=True)
class Endless:
    """Sends for ever to who asks for /endless, and counts it."""

    sent: int = 0
    running: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        if scope["path"] != "/endless":
            return await answer(send, 200, [], b"ok")
        self.running += 1
        try:
            await send(start())
            while True:
                await send(body(PIECE, True))
                self.sent += len(PIECE)
                await asyncio.sleep(0)
        finally:
            self.running -= 1


@pytest.fixture
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.fixture(scope="module")
def replies() -> Iterator[Served[Replies]]:
    with served(Replies({})) as running:
        yield running


def calmed(client: Http2Client) -> None:
    """The connection was ended for it. What was sent after that may have reset it."""
    client.pump(lambda: client.failed)
    assert client.goaways[-1][1] == Code.ENHANCE_YOUR_CALM, client.goaways


def flood(client: Http2Client, each: Callable[[int], bytes], times: int = TIMES) -> None:
    """Something for each of so many streams, while another thread reads what is said to it."""
    raw = b"".join(each(2 * number + 1) for number in range(times))
    client._note(raw)
    pushing = threading.Thread(target=client.push, args=(raw,), daemon=True)
    pushing.start()


class TestResets:
    """10.5: streams that are opened and cancelled cost the server more than the client."""

    def test_rapid_reset(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            flood(client, lambda stream: get(stream) + rst(stream))
            calmed(client)
        assert len(server.app.calls) < TIMES
        with connect(server) as client:
            client.expect_alive()

    def test_rapid_reset_of_open_streams(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            flood(client, lambda stream: post(stream) + data(stream, b"x") + rst(stream))
            calmed(client)

    @pytest.mark.parametrize(
        "fault",
        [
            lambda stream: post(stream) + window_update(stream, 0),
            lambda stream: post(stream) + window_update(stream, LARGEST),
            lambda stream: post(stream, b"/", (b"content-length", b"1")) + data(stream, b"xy"),
            lambda stream: post(stream) + headers(stream, literal(b"a", b"b"), end=False),
            lambda stream: get(stream) + data(stream, b"x"),
            lambda stream: headers(stream, BLOCK + literal(b"A", b"b")),
            lambda stream: post(stream) + frame(2, b"four", stream=stream),
        ],
        ids=["zero", "overflow", "length", "headers", "closed", "malformed", "priority"],
    )
    def test_made_you_reset(self, server: Served[Echo], fault: Callable[[int], bytes]) -> None:
        """The client never says RST_STREAM: it makes the server say it."""
        with connect(server) as client:
            flood(client, fault)
            client.pump(lambda: client.failed)
            code = client.goaways[-1][1]
            allowed = {Code.ENHANCE_YOUR_CALM, Code.STREAM_CLOSED, Code.FRAME_SIZE_ERROR}
            assert code in allowed, client.goaways

    def test_streams_beyond_the_limit(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            flood(client, post)
            calmed(client)
        assert len(server.app.calls) <= client.settings[MAX_STREAMS]

    def test_a_thousand_cancelled_among_a_thousand_completed(self, server: Served[Echo]) -> None:
        """A browser that is clicked through: it lives."""
        with connect(server) as client:
            client.send(window_update(0, 1 << 30))
            for _ in range(1000):
                stream = client.next_stream()
                client.send(post(stream) + rst(stream) + get(stream + 2))
                assert client.answer(stream + 2).status == 200
            client.expect_alive()

    def test_its_option(self) -> None:
        with served(Echo(), http2_max_resets=5) as strict, connect(strict) as client:
            for _ in range(5):
                stream = client.next_stream()
                client.send(post(stream) + rst(stream))
            client.barrier()
            flood(client, lambda stream: post(stream + 100) + rst(stream + 100), 200)
            calmed(client)


class TestBlocks:
    """10.5.1"""

    def test_a_block_without_end(self, server: Served[Echo]) -> None:
        """CONTINUATION after CONTINUATION: it is given up long before 20 MB."""
        with connect(server) as client:
            client.send(headers(1, BLOCK, done=False))
            piece = literal(b"x-a", b"v" * 4000) * 4
            for _ in range(1200):
                client.push(continuation(1, piece, done=False))
            calmed(client)
        assert server.app.calls == []

    def test_empty_continuations_without_end(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, BLOCK, done=False))
            client.push(continuation(1, done=False) * 10_000)
            calmed(client)

    def test_small_continuations_without_end(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, BLOCK, done=False))
            for _ in range(20):
                client.push(continuation(1, literal(b"a", b"b"), done=False) * 1000)
            calmed(client)

    def test_an_ordinary_number_of_continuations(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            raw = block(request(b"/", *[(b"x-%d" % at, b"v" * 400) for at in range(90)]))
            client.send(headers(1, raw[:100], done=False))
            for at in range(100, len(raw), 4000):
                last = at + 4000 >= len(raw)
                client.send(continuation(1, raw[at : at + 4000], done=last))
            assert client.answer(1).status == 200

    def test_a_bomb(self, server: Served[Echo]) -> None:
        """One entry of 4 KB, and fifteen thousand octets that each stand for it: 60 MB."""
        entry = literal(b"x", b"v" * 4000, pattern=0x40)
        with connect(server) as client:
            for _ in range(5):
                stream = client.next_stream()
                client.send(headers(stream, BLOCK + entry + b"\xbe" * 10_000))
                client.pump(lambda stream=stream: client.streams[stream].over or client.failed)
                if client.failed:
                    break
                assert client.streams[stream].status == 431
        if client.failed:
            assert client.goaways[-1][1] == Code.ENHANCE_YOUR_CALM
        assert server.app.calls == []

    def test_a_bomb_in_trailers(self, server: Served[Echo]) -> None:
        entry = literal(b"x", b"v" * 4000, pattern=0x40)
        with connect(server) as client:
            client.send(post(1) + data(1, b"x") + headers(1, entry + b"\xbe" * 10_000))
            client.pump(lambda: client.streams[1].over or client.failed)
            found = client.streams[1]
            if client.failed:
                assert client.goaways[-1][1] == Code.ENHANCE_YOUR_CALM
            else:
                assert found.reset is not None or found.status in (200, 431)
                client.expect_alive()

    def test_a_bomb_of_cookies(self, server: Served[Echo]) -> None:
        """8.2.3 joins them: many short ones are a long one."""
        entry = literal(b"cookie", b"v" * 4000, pattern=0x40)
        with connect(server) as client:
            client.send(headers(1, BLOCK + entry + b"\xbe" * 5000))
            assert client.answer(1).status == 431
            client.expect_alive()


class TestFloods:
    """10.5: frames that carry nothing."""

    @pytest.mark.parametrize(
        "each",
        [
            settings(),
            settings((MAX_STREAMS, 1)),
            settings(*[(0x4444, at) for at in range(100)]),
            ping(),
            data(1),
            data(1, pad=0),
            data(1, pad=9),
        ],
        ids=["settings", "value", "values", "ping", "data", "padded", "padding"],
    )
    def test_is_calmed(self, server: Served[Echo], each: bytes) -> None:
        with connect(server) as client:
            client.send(post(1))
            for _ in range(20):
                client.send(each * (TIMES // 20))
            calmed(client)

    def test_empty_requests(self, server: Served[Echo]) -> None:
        """h2spec's empty HEADERS: malformed each, and reset each."""
        with connect(server) as client:
            flood(client, headers)
            calmed(client)

    @pytest.mark.parametrize(
        "each",
        [
            priority(1, 3),
            priority(9, 7),
            priority_update(1, b"u=1"),
            window_update(0, 1),
            window_update(1, 1),
            frame(0x99, b"unknown"),
            frame(0x99, stream=1),
            settings(ack=True),
            ping(ack=True),
            goaway(),
            rst(3),
            window_update(3, 1),
        ],
        ids=[
            *("priority", "idle", "update", "window", "stream", "unknown", "unknown-stream"),
            *("ack", "pong", "goaway", "rst-closed", "window-closed"),
        ],
    )
    def test_is_calmed_or_borne(self, server: Served[Echo], each: bytes) -> None:
        """They cost the server little. Either way it goes on, and for others too."""
        with connect(server) as client:
            client.send(post(1) + get(3))
            client.answer(3)
            for _ in range(20):
                client.push(each * (TIMES // 20))
            found = client.reaction_or_reset()
            allowed = (Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR)
            assert found == IGNORED or found.code in allowed
        with connect(server) as client:
            client.expect_alive()

    def test_its_option(self) -> None:
        with served(Echo(), http2_max_idle_frames=10) as strict, connect(strict) as client:
            client.expect_alive()
            client.push(ping() * 200)
            calmed(client)

    def test_a_client_that_reads_nothing(self, server: Served[Echo]) -> None:
        """What it makes the server say is bounded."""
        with connect(server) as client:
            for _ in range(100):
                client.push(ping() * 1000)
            calmed(client)


class TestWindows:
    """10.5: windows held shut, or opened by crumbs."""

    def test_the_application_waits(self) -> None:
        """What is not read is not produced; and it ends with its client."""
        with served(Endless()) as endless:
            with connect(endless, (INITIAL_WINDOW, 0)) as client:
                client.send(b"".join(get(2 * at + 1, b"/endless") for at in range(50)))
                for at in range(50):
                    client.pump(lambda at=at: client.streams[2 * at + 1].status == 200)
                for _ in range(20):
                    client.barrier()
                assert endless.app.sent <= 50 * (1 << 20), "nothing holds the application back"
                sent = endless.app.sent
                for _ in range(20):
                    client.barrier()
                assert endless.app.sent == sent
            with connect(endless) as client:
                client.expect_alive()
                while endless.app.running:
                    client.barrier()

    def test_the_connections_window(self) -> None:
        with served(Endless()) as endless, connect(endless, (INITIAL_WINDOW, LARGEST)) as client:
            client.send(get(1, b"/endless") + get(3, b"/endless"))
            client.pump(lambda: client.window == 0)
            for _ in range(50):
                client.barrier()
            assert endless.app.sent <= 4 << 20, "nothing holds the application back"
            client.send(rst(1) + rst(3))
            while endless.app.running:
                client.barrier()

    def test_cancelled_answers_leave_nothing(self) -> None:
        with served(Endless()) as endless, connect(endless, (INITIAL_WINDOW, 100)) as client:
            client.send(window_update(0, 1 << 24))
            for _ in range(200):
                stream = client.next_stream()
                client.send(get(stream, b"/endless"))
                client.pump(lambda stream=stream: len(client.streams[stream].body) == 100)
                client.send(rst(stream))
            while endless.app.running:
                client.barrier()
            client.expect_alive()


class TestLongLives:
    """What a good client does, it may do for ever."""

    def test_ten_thousand_requests(self, replies: Served[Replies]) -> None:
        with connect(replies) as client:
            client.send(window_update(0, 1 << 30))
            for _ in range(100):
                first = client.next_stream()
                client.send(b"".join(get(first + 2 * at) for at in range(100)))
                for at in range(100):
                    assert client.answer(first + 2 * at).status == 200
                    del client.streams[first + 2 * at]
            client.expect_alive()

    @pytest.mark.parametrize(
        "each",
        [
            lambda stream, size: window_update(0, size),
            lambda stream, size: window_update(stream, size) + window_update(0, size),
            lambda stream, size: ping(b"%08d" % stream),
            lambda stream, size: ping(b"%08d" % stream) + window_update(0, size),
            lambda stream, size: priority(stream),
            lambda stream, size: rst(stream, Code.NO_ERROR),
            lambda stream, size: frame(0x99, stream=stream),
        ],
        ids=["window", "windows", "ping", "ping-window", "priority", "rst", "unknown"],
    )
    def test_requests_with_all_that_clients_send(
        self, replies: Served[Replies], each: Callable[[int, int], bytes]
    ) -> None:
        """Windows are opened for each answer, round trips measured for each request."""
        with connect(replies) as client:
            client.send(window_update(0, 1 << 20))
            for _ in range(2500):
                stream = client.next_stream()
                client.send(get(stream))
                client.send(each(stream, len(client.answer(stream).body)))
            client.expect_alive()

    def test_a_long_answer_through_a_small_window(self) -> None:
        """What is read is given back in small pieces, for the stream and for the connection."""
        size, step = 3_000_000, 1000
        with (
            served(Replies({"/long": [start(), body(bytes(size))]})) as long,
            connect(long, (INITIAL_WINDOW, 2 * step)) as client,
        ):
            client.send(get(1, b"/long"))
            given = 0
            while not client.streams[1].over:
                client.file(client.read_frame())
                while len(client.streams[1].body) - given >= step:
                    client.send(window_update(1, step) + window_update(0, step))
                    given += step
            assert len(client.answer(1).body) == size
            client.send(settings((INITIAL_WINDOW, 65535)))
            client.expect_alive()

    def test_uploads_that_end_in_empty_data(self, server: Served[Echo]) -> None:
        """One empty frame a request is how many clients say the end."""
        with connect(server) as client:
            client.send(window_update(0, 1 << 30))
            for _ in range(2000):
                stream = client.next_stream()
                client.send(post(stream) + data(stream, b"x") + data(stream, end=True))
                assert client.answer(stream).status == 200

    def test_errors_of_the_peer_are_forgiven_among_work(self, replies: Served[Replies]) -> None:
        with connect(replies) as client:
            client.send(window_update(0, 1 << 30))
            for _ in range(300):
                stream = client.next_stream()
                client.send(headers(stream, BLOCK + literal(b"A", b"b")) + get(stream + 2))
                assert client.answer(stream + 2).status == 200
                assert client.reaction(stream) == stream_error(Code.PROTOCOL_ERROR)
            client.expect_alive()
