"""RFC 9113 section 5.2 and 6.9.1 to 6.9.3: windows, both ways.

That the server stays within the windows it is given is judged in the client at each frame; here it
is brought into every situation in which it might not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from tests.support.apps import Call, Echo, Replies, answer, body, describe, lifespan, start
from tests.support.http2_frames import (
    INITIAL_WINDOW,
    LARGEST,
    MAX_FRAME,
    Code,
    data,
    get,
    headers,
    post,
    rst,
    settings,
    window_update,
)
from tests.support.http2_peer import Http2Client, connect
from tests.wire.served import Served, served

from tidegate.types import Receive, Scope, Send

SIZE = 300_000
CONTENT = bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256)


@dataclass(slots=True)
class Gate:
    """Reads nothing of a request until the gate opens."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        call = Call(scope["method"], scope["path"])
        if scope["path"] != "/":
            await self.opened.wait()
        await call.read(receive)
        return await answer(send, 200, [], describe(scope, call))


@pytest.fixture(scope="module")
def large() -> Iterator[Served[Replies]]:
    parts = [body(CONTENT[at : at + 1000], True) for at in range(0, SIZE, 1000)]
    scripts = {
        "/large": [start(200, [(b"content-length", b"%d" % SIZE)]), body(CONTENT)],
        "/parts": [start(200), *parts, body()],
        "/empty": [start(200), body()],
        "/204": [start(204), body()],
        "/late": [start(200), body(b"0123456789", True), body()],
    }
    with served(Replies(scripts)) as running:
        yield running


@pytest.fixture(scope="module")
def echo() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.fixture
def gate() -> Iterator[Served[Gate]]:
    with served(Gate()) as running:
        yield running
        running.server.call(running.app.opened.set)


def reads(client: Http2Client, stream: int, count: int) -> None:
    """So many octets of the answer come, and not one more."""
    client.pump(lambda: len(client.streams[stream].body) >= count)
    client.barrier()
    assert len(client.streams[stream].body) == count
    assert not client.streams[stream].over


class TestTheirWindows:
    """6.9.1: a sender never exceeds a window."""

    @pytest.mark.parametrize("path", [b"/large", b"/parts"])
    def test_the_default_window_is_used_up(self, large: Served[Replies], path: bytes) -> None:
        with connect(large) as client:
            client.send(get(1, path))
            reads(client, 1, 65535)
            client.send(window_update(1, SIZE))
            client.barrier()
            assert len(client.streams[1].body) == 65535, "the connection's window is shut"
            client.send(window_update(0, SIZE))
            assert client.answer(1).body == CONTENT

    @pytest.mark.parametrize("path", [b"/large", b"/parts"])
    @pytest.mark.parametrize("size", [1, 2, 9, 1000, 16384, 16385])
    def test_a_small_stream_window(self, large: Served[Replies], path: bytes, size: int) -> None:
        """h2spec: a window of 1 brings DATA of 1 octet."""
        with connect(large, (INITIAL_WINDOW, size)) as client:
            client.send(window_update(0, 2 * SIZE) + get(1, path))
            reads(client, 1, size)
            for more in range(1, 5):
                client.send(window_update(1, more))
            reads(client, 1, size + 10)
            client.send(window_update(1, LARGEST - 65535))
            assert client.answer(1).body == CONTENT

    def test_the_connections_window_is_shared(self, large: Served[Replies]) -> None:
        with connect(large) as client:
            client.send(get(1, b"/large") + get(3, b"/large") + get(5, b"/large"))
            streams = client.streams
            client.pump(lambda: client.window == 0)
            client.barrier()
            assert sum(len(one.body) for one in streams.values()) == 65535
            for stream in (1, 3, 5):
                client.send(window_update(stream, SIZE))
            client.send(window_update(0, 100))
            client.pump(lambda: sum(len(one.body) for one in streams.values()) == 65635)
            client.send(window_update(0, 3 * SIZE))
            for stream in (1, 3, 5):
                assert client.answer(stream).body == CONTENT

    def test_a_blocked_stream_blocks_no_other(self, large: Served[Replies]) -> None:
        with connect(large, (INITIAL_WINDOW, 10)) as client:
            client.send(get(1, b"/large"))
            reads(client, 1, 10)
            for path in (b"/empty", b"/204", b"/late", b"/"):
                assert client.get(path).status in (200, 204)
            stream = client.next_stream()
            client.send(get(stream, b"/large"))
            reads(client, stream, 10)
            client.send(window_update(0, 2 * SIZE) + window_update(stream, SIZE))
            assert client.answer(stream).body == CONTENT
            client.send(window_update(1, SIZE))
            assert client.answer(1).body == CONTENT

    @pytest.mark.parametrize("path", [b"/empty", b"/204"])
    def test_what_is_empty_needs_no_window(self, large: Served[Replies], path: bytes) -> None:
        """6.9.1: an empty DATA frame that ends the stream may be sent without one."""
        with connect(large, (INITIAL_WINDOW, 0)) as client:
            client.send(get(1, path))
            assert client.answer(1).status in (200, 204)

    def test_the_end_needs_no_window(self, large: Served[Replies]) -> None:
        with connect(large, (INITIAL_WINDOW, 10)) as client:
            client.send(get(1, b"/late"))
            assert client.answer(1).body == b"0123456789"

    def test_heads_go_where_no_data_can(self, large: Served[Replies]) -> None:
        """Only DATA is subject to flow control (5.2.1, point 5)."""
        with connect(large) as client:
            client.send(get(1, b"/large"))
            client.pump(lambda: client.window == 0)
            client.send(get(3, b"/large") + get(5, b"/empty") + get(7, b"/204"))
            client.pump(lambda: client.streams[3].status == 200)
            assert client.answer(5).status == 200
            assert client.answer(7).status == 204
            client.barrier()
            client.send(rst(1) + window_update(0, SIZE) + window_update(3, SIZE))
            assert client.answer(3).body == CONTENT

    def test_one_octet_at_a_time(self, large: Served[Replies]) -> None:
        with connect(large, (INITIAL_WINDOW, 0)) as client:
            client.send(get(1, b"/large"))
            for count in range(1, 200):
                client.send(window_update(1, 1))
                client.pump(lambda count=count: len(client.streams[1].body) == count)
            client.send(rst(1) + settings((INITIAL_WINDOW, 65535)))
            client.expect_ignored(1)

    def test_a_cancelled_stream_leaves_the_connections_window(self, large: Served[Replies]) -> None:
        """What it did not use is there for the others."""
        with connect(large, (INITIAL_WINDOW, 100)) as client:
            for _ in range(100):
                stream = client.next_stream()
                client.send(get(stream, b"/large"))
                reads(client, stream, 100)
                client.send(rst(stream))
            stream = client.next_stream()
            client.send(window_update(0, SIZE) + get(stream, b"/large"))
            client.send(window_update(stream, SIZE))
            assert client.answer(stream).body == CONTENT

    def test_larger_frames_where_they_are_allowed(self, large: Served[Replies]) -> None:
        """4.2: may, not must; the judge sees that none is larger."""
        with connect(large, (MAX_FRAME, 20000), (INITIAL_WINDOW, LARGEST)) as client:
            client.send(window_update(0, SIZE) + get(1, b"/large"))
            assert client.answer(1).body == CONTENT

    def test_the_largest_windows(self, large: Served[Replies]) -> None:
        with connect(large, (INITIAL_WINDOW, LARGEST)) as client:
            client.send(window_update(0, LARGEST - 65535) + get(1, b"/parts"))
            assert client.answer(1).body == CONTENT
            client.send(window_update(0, SIZE))
            client.expect_alive()


class TestInitialWindow:
    """6.9.2: a change of SETTINGS_INITIAL_WINDOW_SIZE moves the windows of all open streams."""

    def test_more_for_open_streams(self, large: Served[Replies]) -> None:
        with connect(large, (INITIAL_WINDOW, 0)) as client:
            client.send(window_update(0, 2 * SIZE) + get(1, b"/large") + get(3, b"/large"))
            client.pump(lambda: client.streams[3].status == 200)
            client.barrier()
            client.send(settings((INITIAL_WINDOW, 1)))
            reads(client, 1, 1)
            reads(client, 3, 1)
            client.send(settings((INITIAL_WINDOW, SIZE)))
            assert client.answer(1).body == client.answer(3).body == CONTENT

    def test_negative_windows(self, large: Served[Replies]) -> None:
        """h2spec 6.9.2: nothing is sent until WINDOW_UPDATE has made it positive again."""
        with connect(large, (INITIAL_WINDOW, 1000)) as client:
            client.send(window_update(0, 2 * SIZE) + get(1, b"/large"))
            reads(client, 1, 1000)
            client.send(settings((INITIAL_WINDOW, 300)))  # -700
            client.send(window_update(1, 699))  # -1
            client.send(window_update(1, 1))  # 0
            client.barrier()
            assert len(client.streams[1].body) == 1000
            client.send(window_update(1, 1))
            reads(client, 1, 1001)
            client.send(settings((INITIAL_WINDOW, 0)))  # -300
            client.send(settings((INITIAL_WINDOW, 299)))  # -1
            client.send(settings((INITIAL_WINDOW, 301)))  # 1
            reads(client, 1, 1002)
            client.send(window_update(1, SIZE))
            assert client.answer(1).body == CONTENT

    def test_down_and_up_in_one_frame(self, large: Served[Replies]) -> None:
        """6.5.3: in order, with nothing between; the last one counts."""
        with connect(large, (INITIAL_WINDOW, 100)) as client:
            client.send(get(1, b"/large"))
            reads(client, 1, 100)
            client.send(
                settings((INITIAL_WINDOW, 0), (INITIAL_WINDOW, 5000), (INITIAL_WINDOW, 150))
            )
            reads(client, 1, 150)
            stream = client.next_stream()
            client.send(get(stream, b"/large"))
            reads(client, stream, 150)

    def test_the_connections_window_is_not_moved(self, large: Served[Replies]) -> None:
        with connect(large, (INITIAL_WINDOW, LARGEST)) as client:
            client.send(get(1, b"/large"))
            reads(client, 1, 65535)
            client.send(settings((INITIAL_WINDOW, 0)) + settings((INITIAL_WINDOW, LARGEST)))
            client.barrier()
            assert len(client.streams[1].body) == 65535
            client.send(window_update(0, SIZE))
            assert client.answer(1).body == CONTENT

    def test_new_streams_begin_with_it(self, large: Served[Replies]) -> None:
        with connect(large) as client:
            client.send(settings((INITIAL_WINDOW, 7)) + get(1, b"/large"))
            reads(client, 1, 7)

    def test_overflow_is_a_connection_error(self, large: Served[Replies]) -> None:
        """6.9.2: a change that brings any stream beyond 2^31-1."""
        with connect(large, (INITIAL_WINDOW, 0)) as client:
            client.send(get(1, b"/large"))
            client.pump(lambda: client.streams[1].status == 200)
            client.barrier()
            client.send(window_update(1, 100) + settings((INITIAL_WINDOW, LARGEST)))
            client.expect_connection_error(Code.FLOW_CONTROL_ERROR)

    def test_closed_streams_overflow_nothing(self, large: Served[Replies]) -> None:
        with connect(large, (INITIAL_WINDOW, 1000)) as client:
            client.get()
            client.send(window_update(1, LARGEST - 1000) + get(3, b"/large"))
            client.send(window_update(3, LARGEST - 1000) + rst(3))
            client.send(settings((INITIAL_WINDOW, LARGEST)))
            client.barrier()
            client.send(window_update(0, SIZE))
            client.expect_alive()


class TestOurWindows:
    """6.9.1: what comes beyond the window that the server gave is FLOW_CONTROL_ERROR."""

    def fill(self, client: Http2Client, stream: int) -> int:
        """Send what the windows allow to one who does not read; returns how much that was."""
        sent = 0
        while room := min(client.room, client.streams[stream].room, 16384):
            client.send(data(stream, bytes(room)))
            sent += room
            client.barrier()
            assert sent <= 8 << 20, "there is no backpressure: an unread body is taken without end"
        return sent

    def test_an_unread_body_is_held_back(self, gate: Served[Gate]) -> None:
        with connect(gate) as client:
            client.send(post(1, b"/held"))
            sent = self.fill(client, 1)
            assert sent >= 65535
            client.expect_alive() if client.room else client.barrier()
            gate.server.call(gate.app.opened.set)
            client.pump(lambda: client.room and client.streams[1].room)
            client.send(data(1, b"end", end=True))
            client.send(window_update(0, 1 << 24) + window_update(1, 1 << 24))
            assert len(json.loads(client.answer(1).body)["body"]) == sent + 3

    @pytest.mark.parametrize("pad", [None, 0, 100])
    def test_one_octet_more(self, gate: Served[Gate], pad: int | None) -> None:
        """The stream's error, or the connection's if it is its window (both are full at first)."""
        with connect(gate) as client:
            client.send(post(1, b"/held"))
            self.fill(client, 1)
            client.push(data(1, b"x" if pad is None else b"", pad=pad))
            assert client.reaction(1).code == Code.FLOW_CONTROL_ERROR

    def test_padding_counts(self, gate: Served[Gate]) -> None:
        """6.1: the whole payload; here padding alone fills the window and overflows it."""
        with connect(gate) as client:
            client.send(post(1, b"/held"))
            self.fill(client, 1)
            client.push(data(1, b"", pad=255))
            assert client.reaction(1).code == Code.FLOW_CONTROL_ERROR

    def test_empty_frames_need_no_window(self, gate: Served[Gate]) -> None:
        with connect(gate) as client:
            client.send(post(1, b"/held"))
            self.fill(client, 1)
            client.send(data(1) + data(1))
            client.barrier()
            client.send(data(1, end=True))
            assert client.reaction(1).scope == ""

    def test_an_unread_body_starves_no_other_stream(self, gate: Served[Gate]) -> None:
        """Its stream's window is what holds it back; requests without content always go."""
        with connect(gate) as client:
            client.send(post(1, b"/held"))
            self.fill(client, 1)
            client.expect_alive()
            client.send(rst(1))
            client.pump(lambda: client.room > 0)
            stream = client.next_stream()
            client.send(post(stream) + data(stream, b"after", end=True))
            assert json.loads(client.answer(stream).body)["body"] == "after"

    def test_an_unread_body_leaves_uploads_room(self, gate: Served[Gate]) -> None:
        """5.2.2: the connection's window is wider than what one stream can keep."""
        with connect(gate) as client:
            client.send(post(1, b"/held"))
            self.fill(client, 1)
            stream = client.next_stream()
            client.send(post(stream))
            for _ in range(20):
                client.pump(lambda: min(client.room, client.streams[stream].room) >= 10_000)
                client.send(data(stream, bytes(10_000)))
            client.send(data(stream, end=True) + window_update(0, 1 << 21))
            client.send(window_update(stream, 1 << 21))
            assert len(json.loads(client.answer(stream).body)["body"]) == 200_000

    def test_a_long_upload_goes_on(self, echo: Served[Echo]) -> None:
        """Windows are given back as the application reads; padding too."""
        content = b"0123456789abcdef" * 20_000
        with connect(echo) as client:
            client.send(window_update(0, 1 << 20) + post(1) + window_update(1, 1 << 20))
            at = 0
            while at < len(content):
                client.pump(lambda: client.room > 256 and client.streams[1].room > 256)
                size = min(client.room - 256, client.streams[1].room - 256, 10_000)
                client.send(data(1, content[at : at + size], pad=255))
                at += size
            client.send(headers(1))
            assert json.loads(client.answer(1).body)["body"] == content.decode()

    @pytest.mark.parametrize("content", [b"", b"x"])
    def test_padding_is_given_back(self, echo: Served[Echo], content: bytes) -> None:
        """Nobody reads it: the server alone must think of it, or the stream stands still."""
        with connect(echo) as client:
            client.send(post(1))
            for _ in range(600):
                client.pump(lambda: client.room > 256 and client.streams[1].room > 256)
                client.send(data(1, content, pad=255))
            client.send(headers(1))
            assert json.loads(client.answer(1).body)["body"] == content.decode() * 600

    def test_no_tiny_updates(self, echo: Served[Echo]) -> None:
        """6.9: advised against; a thousand octets one by one are not answered a thousand times."""
        with connect(echo) as client:
            client.send(post(1) + b"".join(data(1, b"x") for _ in range(1000)))
            client.send(data(1, end=True))
            client.answer(1)
            assert client.frames < 500
