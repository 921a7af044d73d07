"""RFC 9113 sections 6.3, 6.4 and 6.6 to 6.10: the frames that carry no message."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.http2_frames import (
    GOAWAY,
    INITIAL_WINDOW,
    LARGEST,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    WINDOW_UPDATE,
    Code,
    block,
    continuation,
    data,
    frame,
    get,
    goaway,
    headers,
    ping,
    post,
    priority,
    request,
    rst,
    settings,
    window_update,
)
from tests.support.http2_peer import Http2Client, connect
from tests.wire.served import Served, served

BLOCK = block(request())


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


class TestResetStream:
    """6.4 (6.3 is with the priorities, its sizes and those of the others with 4.2)"""

    def test_on_the_connection(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.push(rst(0))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("stream", [1, 2, 99, LARGEST])
    def test_of_an_idle_stream(self, server: Served[Echo], stream: int) -> None:
        with connect(server) as client:
            client.push(rst(stream))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_nothing_more_comes_of_it(self, server: Served[Echo]) -> None:
        with connect(server, (INITIAL_WINDOW, 5)) as client:
            client.send(get(1))
            client.pump(lambda: len(client.streams[1].body) == 5)
            client.send(rst(1))
            client.barrier()
            client.send(window_update(1, 1000) + settings((INITIAL_WINDOW, 65535)))
            client.expect_alive()
            assert len(client.streams[1].body) == 5 and not client.streams[1].over

    def test_of_a_stream_that_was_answered(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.get()
            client.send(rst(1) + rst(1))
            client.expect_ignored(1)


class TestPushPromise:
    """6.6, 8.4: a client cannot push."""

    @pytest.mark.parametrize("stream", [0, 1, 3, 2])
    @pytest.mark.parametrize("promised", [2, 3, 5, 0])
    def test_from_a_client(self, server: Served[Echo], stream: int, promised: int) -> None:
        with connect(server) as client:
            client.send(post(1))
            payload = struct.pack("!I", promised) + BLOCK
            client.push(frame(PUSH_PROMISE, payload, flags=4, stream=stream))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_unfinished(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1))
            client.push(frame(PUSH_PROMISE, b"\0\0\0\2", stream=1) + continuation(1, BLOCK))
            client.expect_connection_error(Code.PROTOCOL_ERROR)


class TestPing:
    """6.7"""

    @pytest.mark.parametrize("payload", [bytes(8), b"\xff" * 8, b"abcdefgh"])
    def test_is_echoed(self, server: Served[Echo], payload: bytes) -> None:
        with connect(server) as client:
            client.send(ping(payload))
            client.pump(lambda: client.pongs)
            assert client.pongs == [payload]

    def test_in_order_and_once(self, server: Served[Echo]) -> None:
        payloads = [struct.pack("!Q", at) for at in range(50)]
        with connect(server) as client:
            client.send(b"".join(map(ping, payloads)))
            client.pump(lambda: len(client.pongs) == 50)
            assert client.pongs == payloads
            client.expect_alive()

    def test_an_answer_nobody_waits_for(self, server: Served[Echo]) -> None:
        """It is never answered."""
        with connect(server) as client:
            client.send(ping(b"an echo!", ack=True) * 3)
            client.expect_alive()
            assert b"an echo!" not in client.pongs

    @pytest.mark.parametrize("stream", [1, 2, 7])
    @pytest.mark.parametrize("flags", [0, 1])
    def test_on_a_stream(self, server: Served[Echo], stream: int, flags: int) -> None:
        with connect(server) as client:
            client.send(post(1))
            client.push(frame(PING, bytes(8), stream=stream, flags=flags))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("size", [0, 7, 9, 16])
    @pytest.mark.parametrize("flags", [0, 1])
    def test_length(self, server: Served[Echo], size: int, flags: int) -> None:
        with connect(server) as client:
            client.push(frame(PING, bytes(size), flags=flags))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)

    def test_while_answers_are_blocked(self, server: Served[Echo]) -> None:
        with connect(server, (INITIAL_WINDOW, 0)) as client:
            client.send(get(1) + get(3) + ping(b"between."))
            client.pump(lambda: b"between." in client.pongs)
            client.send(settings((INITIAL_WINDOW, 65535)))
            assert client.answer(1).status == client.answer(3).status == 200


class TestGoAway:
    """6.8"""

    @pytest.mark.parametrize("stream", [1, 2, 5])
    def test_on_a_stream(self, server: Served[Echo], stream: int) -> None:
        with connect(server) as client:
            client.send(post(1))
            client.push(frame(GOAWAY, bytes(8), stream=stream))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("size", [0, 4, 7])
    def test_length(self, server: Served[Echo], size: int) -> None:
        with connect(server) as client:
            client.push(frame(GOAWAY, bytes(size)))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)

    @pytest.mark.parametrize("code", [0, 2, 11, 0xFFFFFFFF])
    @pytest.mark.parametrize("debug", [b"", b"leaving\0\xff", bytes(5000)])
    def test_requests_in_flight_are_finished(
        self, server: Served[Echo], code: int, debug: bytes
    ) -> None:
        """It speaks of the server's streams, of which there are none; then the server may end."""
        with connect(server, (INITIAL_WINDOW, 0)) as client:
            client.send(get(1, b"/one") + post(3, b"/three") + data(3, b"half"))
            client.send(goaway(0, code, debug))
            client.barrier()
            assert not client.streams[1].over and not client.streams[3].over
            client.send(data(3, b" and half", end=True) + settings((INITIAL_WINDOW, 65535)))
            assert json.loads(client.answer(1).body)["path"] == "/one"
            assert json.loads(client.answer(3).body)["body"] == "half and half"

    def test_twice(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + goaway(LARGEST) + goaway(0) + data(1, end=True))
            assert client.answer(1).status == 200

    def test_it_does_not_fail_with_nothing_in_flight(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.get()
            client.push(goaway())
            client.socket.shutdown(1)
            client.read_eof()
            assert not client.failed


class TestGracefulStop:
    """6.8: two GOAWAYs, the first of which names the largest stream there can be."""

    def stopping(self, client: Http2Client, running: Served[Echo]) -> None:
        running.server.call(running.server.server.stop)
        client.pump(lambda: client.goaways)
        assert client.goaways[0] == (LARGEST, Code.NO_ERROR)
        client.pump(lambda: len(client.goaways) == 2)

    def test_requests_in_flight_are_finished(self) -> None:
        with served(Echo()) as running, connect(running) as client:
            client.send(post(1, b"/held") + data(1, b"a"))
            client.barrier()
            self.stopping(client, running)
            assert client.goaways[1] == (1, Code.NO_ERROR)
            client.send(data(1, b"b", end=True))
            assert json.loads(client.answer(1).body)["body"] == "ab"
            client.read_eof()

    def test_a_request_on_its_way_is_still_taken(self) -> None:
        """Sent before the first GOAWAY could be seen: that is what the two are for."""
        with served(Echo()) as running, connect(running) as client:
            client.send(post(1, b"/held"))
            client.barrier()
            client.held = []
            running.server.call(running.server.server.stop)
            client.pump(lambda: client.held)
            client.send(get(3, b"/crossing"))
            client.release()
            client.pump(lambda: len(client.goaways) == 2)
            assert client.goaways == [(LARGEST, 0), (3, 0)]
            assert client.answer(3).status == 200
            client.send(data(1, end=True))
            assert client.answer(1).status == 200
            client.read_eof()

    def test_a_request_after_the_second_is_not(self) -> None:
        running_echo = Echo()
        with served(running_echo) as running, connect(running) as client:
            client.send(post(1, b"/held"))
            client.barrier()
            self.stopping(client, running)
            client.send(get(3, b"/late"))
            client.barrier()
            assert client.streams[3].reset in (None, Code.REFUSED_STREAM)
            client.send(data(1, end=True))
            assert client.answer(1).status == 200
            client.read_eof()
            assert "/late" not in [call.path for call in running_echo.calls]

    def test_an_idle_connection_is_ended(self) -> None:
        with served(Echo()) as running, connect(running) as client:
            client.get()
            running.server.call(running.server.server.stop)
            client.read_eof()
            assert client.goaways[-1] == (1, Code.NO_ERROR)


class TestWindowUpdate:
    """6.9"""

    def test_nothing_for_a_stream(self, server: Served[Echo]) -> None:
        for raw in (window_update(1, 0), window_update(1, 0x80000000)):
            with connect(server) as client:
                client.send(post(1) + raw)
                client.expect_stream_error(1, Code.PROTOCOL_ERROR)

    def test_nothing_for_the_connection(self, server: Served[Echo]) -> None:
        for raw in (window_update(0, 0), window_update(0, 0x80000000)):
            with connect(server) as client:
                client.push(raw)
                client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("stream", [0, 1])
    @pytest.mark.parametrize("size", [0, 1, 3, 5, 8])
    def test_length(self, server: Served[Echo], stream: int, size: int) -> None:
        with connect(server) as client:
            client.send(post(1))
            client.push(frame(WINDOW_UPDATE, b"\1" * size, stream=stream))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)

    def test_overflow_of_a_stream(self, server: Served[Echo]) -> None:
        """6.9.1: a stream error FLOW_CONTROL_ERROR."""
        for steps in ((LARGEST,), (LARGEST - 65535, 1), (LARGEST // 2, LARGEST // 2, 2)):
            with connect(server) as client:
                client.send(post(1) + b"".join(window_update(1, step) for step in steps))
                client.expect_stream_error(1, Code.FLOW_CONTROL_ERROR)

    def test_overflow_of_the_connection(self, server: Served[Echo]) -> None:
        for steps in ((LARGEST,), (LARGEST - 65535, 1)):
            with connect(server) as client:
                client.push(b"".join(window_update(0, step) for step in steps))
                client.expect_connection_error(Code.FLOW_CONTROL_ERROR)

    def test_the_largest_there_may_be(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + window_update(1, LARGEST - 65535))
            client.send(window_update(0, LARGEST - 65535) + data(1, end=True))
            assert client.answer(1).status == 200
            client.send(window_update(0, LARGEST - client.window))
            client.expect_alive()

    @pytest.mark.parametrize("stream", [1, 2, 9])
    def test_of_an_idle_stream(self, server: Served[Echo], stream: int) -> None:
        with connect(server) as client:
            client.push(window_update(stream, 1))
            client.expect_connection_error(Code.PROTOCOL_ERROR)


class TestContinuation:
    """6.10 (what may not come between is with 6.2)"""

    @pytest.mark.parametrize("done", [True, False])
    def test_after_nothing(self, server: Served[Echo], done: bool) -> None:
        """On any stream, whatever its state."""
        for stream in (0, 1, 2, 5):
            with connect(server) as client:
                client.send(post(1) if stream == 1 else b"")
                client.push(continuation(stream, BLOCK, done=done))
                client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize(
        "before",
        [
            headers(1, BLOCK, end=False),
            headers(1, BLOCK[:5], end=False, done=False) + continuation(1, BLOCK[5:]),
            post(1) + data(1, b"x"),
            post(1) + priority(1),
        ],
        ids=["headers", "continuation", "data", "priority"],
    )
    def test_after_the_end_of_a_block(self, server: Served[Echo], before: bytes) -> None:
        with connect(server) as client:
            client.send(before)
            client.push(continuation(1, block([(b"a", b"b")])))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_on_another_stream(self, server: Served[Echo]) -> None:
        for stream in (0, 2, 3, 5):
            with connect(server) as client:
                client.send(post(1) + headers(3, BLOCK[:5], done=False))
                raw = continuation(stream if stream != 3 else 1, BLOCK[5:])
                client.push(raw)
                client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("pieces", [1, 2, 3, 6])
    def test_several(self, server: Served[Echo], pieces: int) -> None:
        size = -(-len(BLOCK) // pieces)
        with connect(server) as client:
            client.send(headers(1, done=False))
            for at in range(0, len(BLOCK), size):
                client.send(continuation(1, BLOCK[at : at + size], done=False))
            client.send(continuation(1))
            assert client.answer(1).status == 200

    def test_trailers_in_several(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"x") + headers(1, b"\x00\x01", done=False))
            client.send(continuation(1, b"a\x01", done=False) + continuation(1, b"b"))
            assert json.loads(client.answer(1).body)["body"] == "x"

    def test_reset_streams_too(self, server: Served[Echo]) -> None:
        """A block cut by RST_STREAM is an interrupted block."""
        with connect(server) as client:
            client.send(headers(1, BLOCK[:5], done=False))
            client.push(frame(RST_STREAM, bytes(4), stream=1))
            client.expect_connection_error(Code.PROTOCOL_ERROR)
