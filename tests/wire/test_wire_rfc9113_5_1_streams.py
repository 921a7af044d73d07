"""RFC 9113 section 5.1: the states of a stream, its identifier, and how many there may be.

What an endpoint does with a frame on a stream that is closed is mostly left to it; the sets below
are what 5.1 allows. For the other states it names one error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.http2_frames import (
    IGNORED,
    INITIAL_WINDOW,
    LARGEST,
    MAX_STREAMS,
    Code,
    block,
    connection_error,
    continuation,
    data,
    get,
    headers,
    ping,
    post,
    priority,
    request,
    rst,
    settings,
    stream_error,
    window_update,
)
from tests.support.http2_peer import Http2Client, connect
from tests.wire.served import Served, served

CLOSED = [
    IGNORED,
    stream_error(Code.STREAM_CLOSED),
    connection_error(Code.STREAM_CLOSED),
    connection_error(Code.PROTOCOL_ERROR),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


def half_closed(server: Served[Echo]) -> Http2Client:
    """Stream 1 is half-closed (remote): asked whole, its answer waits for a window."""
    client = connect(server, (INITIAL_WINDOW, 0))
    client.send(get(1))
    client.pump(lambda: client.streams[1].status == 200)
    return client


class TestIdle:
    """5.1: anything but HEADERS and PRIORITY is a connection error PROTOCOL_ERROR."""

    @pytest.mark.parametrize("stream", [1, 2, 7, 8, LARGEST])
    @pytest.mark.parametrize("kind", ["data", "rst", "window", "continuation"])
    def test_a_frame_too_early(self, server: Served[Echo], kind: str, stream: int) -> None:
        raw = {
            "data": data(stream, b"x"),
            "rst": rst(stream),
            "window": window_update(stream, 1),
            "continuation": continuation(stream, block(request())),
        }[kind]
        for before in (b"", get(1) if stream > 1 else b""):
            with connect(server) as client:
                client.send(before)
                client.push(raw)
                client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_priority_is_no_opening(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(priority(1) + priority(9, 7) + priority(2) + priority(LARGEST))
            client.expect_ignored()
            client.push(data(9, b"x"))
            client.expect_connection_error(Code.PROTOCOL_ERROR)


class TestHalfClosedRemote:
    """5.1: what is not WINDOW_UPDATE, PRIORITY or RST_STREAM is a stream error STREAM_CLOSED."""

    @pytest.mark.parametrize(
        "raw",
        [
            data(1, b"x"),
            data(1),
            data(1, end=True),
            data(1, b"x", pad=9),
            headers(1, block(request())),
            headers(1, block([(b"a", b"b")])),
            headers(1, block([(b"a", b"b")]), end=False),
        ],
        ids=["data", "empty", "end", "padded", "request", "trailers", "more"],
    )
    def test_more_of_the_request(self, server: Served[Echo], raw: bytes) -> None:
        with half_closed(server) as client:
            client.send(raw)
            assert client.reaction(1) == stream_error(Code.STREAM_CLOSED)
            client.send(settings((INITIAL_WINDOW, 65535)))
            client.expect_alive()

    def test_a_continuation_follows_nothing(self, server: Served[Echo]) -> None:
        """6.10 makes it the connection's error."""
        with half_closed(server) as client:
            client.send(continuation(1, block([(b"a", b"b")])))
            client.expect_connection_error(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)

    def test_what_may_come(self, server: Served[Echo]) -> None:
        with half_closed(server) as client:
            client.send(priority(1, 3) + window_update(1, 10))
            client.pump(lambda: len(client.streams[1].body) == 10)
            assert not client.streams[1].over
            client.send(window_update(1, 65535))
            assert client.answer(1).status == 200

    def test_it_may_be_cancelled(self, server: Served[Echo]) -> None:
        with half_closed(server) as client:
            client.send(rst(1) + settings((INITIAL_WINDOW, 65535)))
            client.expect_ignored(1)
            assert client.streams[1].body == b""


class TestClosed:
    """5.1"""

    def test_late_frames_that_are_allowed(self, server: Served[Echo]) -> None:
        """The answer's end and these may have crossed."""
        with connect(server) as client:
            client.get()
            client.send(window_update(1, 1000) + rst(1) + window_update(1, 1) + priority(1))
            client.expect_ignored(1)

    @pytest.mark.parametrize(
        "raw",
        [data(1, b"x"), data(1, end=True), get(1, b"/again"), post(1, b"/again")],
        ids=["data", "end", "get", "post"],
    )
    def test_after_both_ends(self, server: Served[Echo], raw: bytes) -> None:
        """After our own END_STREAM it is an error, or at least nothing new begins."""
        with connect(server) as client:
            client.get(b"/once")
            client.push(raw)
            assert client.reaction(1) in CLOSED
        assert "/again" not in [call.path for call in server.app.calls]

    @pytest.mark.parametrize(
        "raw",
        [data(1, b"x"), headers(1, block([(b"a", b"b")])), get(1, b"/again")],
        ids=["data", "trailers", "get"],
    )
    def test_after_a_reset_of_ours(self, server: Served[Echo], raw: bytes) -> None:
        with connect(server) as client:
            client.send(post(1, b"/once") + rst(1))
            client.push(raw)
            assert client.reaction(1) in CLOSED
        assert "/again" not in [call.path for call in server.app.calls]

    @pytest.mark.parametrize(
        "raw",
        [
            data(1, b"x"),
            data(1, b"x", end=True),
            data(1, b"x", pad=200),
            headers(1, block([(b"a", b"b")])),
            headers(1, block([(b"a", b"b")]), done=False) + continuation(1),
            window_update(1, 1),
            window_update(1, LARGEST),
            window_update(1, 0),
            rst(1),
            priority(1),
        ],
        ids=["data", "end", "pad", "trailers", "cont", "window", "over", "zero", "rst", "priority"],
    )
    def test_after_a_reset_of_theirs(self, server: Served[Echo], raw: bytes) -> None:
        """All of it may have been on its way: discarded, without a second reset (5.4.2)."""
        with connect(server) as client:
            client.send(post(1) + window_update(1, LARGEST) + raw)
            assert client.reset_of(1) == Code.FLOW_CONTROL_ERROR
            client.expect_ignored_more(1)
            client.push(raw)
            client.expect_ignored_more(1)

    def test_data_for_a_reset_stream_counts_and_is_given_back(self, server: Served[Echo]) -> None:
        """The connection's window would be gone for ever (5.1, 6.9)."""
        with connect(server) as client:
            for _ in range(12):
                stream = client.next_stream()
                client.send(post(stream) + window_update(stream, LARGEST))
                assert client.reset_of(stream) == Code.FLOW_CONTROL_ERROR
                client.barrier()
                assert client.room >= 15000, "the connection's window was not given back"
                client.send(data(stream, bytes(14000), pad=200))
            stream = client.next_stream()
            client.send(post(stream) + data(stream, b"alive", end=True))
            assert json.loads(client.answer(stream).body)["body"] == "alive"

    def test_a_cancelled_request_gives_its_window_back(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            for _ in range(12):
                stream = client.next_stream()
                client.send(post(stream) + data(stream, bytes(14000)) + rst(stream))
                client.barrier()
                assert client.room >= 14000, "the connection's window was not given back"
            client.expect_alive()


class TestIdentifiers:
    """5.1.1: an unexpected one is a connection error PROTOCOL_ERROR."""

    @pytest.mark.parametrize("stream", [2, 4, 100, LARGEST - 1])
    def test_even_ones_are_the_servers(self, server: Served[Echo], stream: int) -> None:
        for before in (b"", get(1)):
            with connect(server) as client:
                client.send(before)
                client.push(get(stream))
                client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("stream", [1, 3, 5])
    def test_they_only_grow(self, server: Served[Echo], stream: int) -> None:
        """A skipped one is closed, which is the other way to read it."""
        server.app.calls.clear()
        with connect(server) as client:
            client.send(post(7, b"/seven"))
            client.push(get(stream, b"/late"))
            client.expect_connection_error(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)
        assert "/late" not in [call.path for call in server.app.calls]

    def test_zero(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.push(get(0))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_they_may_skip(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            for stream in (1, 3, 9, 101, 103, 0x10001, 0x1000001, LARGEST - 2):
                client.send(get(stream, b"/%d" % stream))
                assert json.loads(client.answer(stream).body)["path"] == f"/{stream}"
            client.expect_alive()  # on the last one there is
            client.barrier()

    def test_after_the_last_one(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(get(LARGEST))
            assert client.answer(LARGEST).status == 200
            client.push(get(LARGEST - 2))
            client.expect_connection_error(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)


class TestConcurrency:
    """5.1.2: beyond the limit, REFUSED_STREAM (PROTOCOL_ERROR would forbid to try again)."""

    def fill(self, client: Http2Client) -> int:
        limit = client.settings[MAX_STREAMS]
        first = client.next_stream()
        client.send(b"".join(post(first + 2 * at) for at in range(limit)))
        client.barrier()
        assert not any(answer.over for answer in client.streams.values())
        return first

    def test_one_more_is_refused(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            first = self.fill(client)
            for _ in range(3):
                stream = client.next_stream()
                client.send(get(stream))
                assert client.reaction(stream) == stream_error(Code.REFUSED_STREAM)
            client.send(data(first, b"done", end=True))
            assert json.loads(client.answer(first).body)["body"] == "done"
            client.expect_alive()

    def test_the_application_hears_nothing_of_it(self, server: Served[Echo]) -> None:
        """8.7: so says REFUSED_STREAM."""
        server.app.calls.clear()
        with connect(server) as client:
            self.fill(client)
            stream = client.next_stream()
            client.send(get(stream, b"/refused"))
            assert client.reset_of(stream) == Code.REFUSED_STREAM
        assert "/refused" not in [call.path for call in server.app.calls]

    def test_what_a_refused_stream_still_sends(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            self.fill(client)
            stream = client.next_stream()
            client.send(post(stream) + data(stream, b"x" * 1000) + data(stream, end=True))
            assert client.reaction(stream) == stream_error(Code.REFUSED_STREAM)
            client.send(rst(1))
            client.expect_alive()

    def test_a_cancelled_stream_makes_room(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            first = self.fill(client)
            for at in range(20):
                client.send(rst(first + 2 * at))
                client.expect_alive()

    def test_half_closed_streams_count(self, server: Served[Echo]) -> None:
        with connect(server, (INITIAL_WINDOW, 0)) as client:
            limit = client.settings[MAX_STREAMS]
            client.send(b"".join(get(2 * at + 1) for at in range(limit)))
            client.pump(lambda: all(one.status == 200 for one in client.streams.values()))
            stream = client.next_stream()
            client.send(get(stream))
            assert client.reaction(stream) == stream_error(Code.REFUSED_STREAM)
            client.send(window_update(1, 10_000))
            assert client.answer(1).status == 200
            client.send(settings((INITIAL_WINDOW, 65535)))
            for at in range(limit):
                assert client.answer(2 * at + 1).status == 200
            client.expect_alive()

    def test_prioritized_idle_streams_do_not(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(b"".join(priority(2 * at + 1) for at in range(500)) + ping())
            client.expect_alive()

    def test_another_limit(self) -> None:
        with served(Echo(), http2_max_streams=2) as running, connect(running) as client:
            assert client.settings[MAX_STREAMS] == 2
            first = self.fill(client)
            client.send(get(5))
            assert client.reaction(5) == stream_error(Code.REFUSED_STREAM)
            client.send(data(first, end=True))
            client.answer(first)
            client.expect_alive()
