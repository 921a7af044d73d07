"""RFC 9113 section 5.3 and RFC 9218: the old priorities are read over, the new ones order answers.

A stream that depends on itself was an error in RFC 7540 5.3.1. RFC 9113 5.3.2 and 6.3 say nothing
of it any more: the field is ignored here, as everything of that scheme.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.apps import Replies, body, start
from tests.support.http2_frames import (
    IGNORED,
    INITIAL_WINDOW,
    NO_PRIORITIES,
    PRIORITY,
    PRIORITY_UPDATE,
    Code,
    block,
    connection_error,
    frame,
    get,
    headers,
    priority,
    priority_update,
    request,
    stream_error,
    window_update,
)
from tests.support.http2_peer import Http2Client, connect
from tests.wire.served import Served, served

SIZE = 200_000


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Replies]]:
    with served(Replies({"/large": [start(), body(bytes(SIZE))]})) as running:
        yield running


class TestOldScheme:
    """5.3.2, 6.3"""

    @pytest.mark.parametrize("depends", [0, 1, 3, 0x80000001, 0x7FFFFFFF])
    @pytest.mark.parametrize("weight", [0, 255])
    def test_in_headers(self, server: Served[Replies], depends: int, weight: int) -> None:
        """On itself (1), exclusive, on one that never was."""
        with connect(server) as client:
            client.send(headers(1, block(request()), depends=(depends, weight)))
            assert client.answer(1).status == 200
            client.expect_alive()

    @pytest.mark.parametrize("stream", [1, 2, 3, 5, 0x7FFFFFFF])
    @pytest.mark.parametrize("depends", [0, 3, 0x80000000, 0x80000005, 0x7FFFFFFF])
    def test_frames_in_any_state(self, server: Served[Replies], stream: int, depends: int) -> None:
        """Closed, idle, of the server's, open; `depends` may be the stream itself."""
        with connect(server, (INITIAL_WINDOW, 1)) as client:
            client.send(get(3, b"/large"))
            client.pump(lambda: client.streams[3].status == 200)
            client.send(priority(stream, depends, 200))
            assert client.reaction(stream) == IGNORED
            client.barrier()

    @pytest.mark.parametrize("size", [0, 1, 4, 6, 100])
    def test_length(self, server: Served[Replies], size: int) -> None:
        """6.3: a stream error FRAME_SIZE_ERROR."""
        with connect(server, (INITIAL_WINDOW, 1)) as client:
            client.send(get(1, b"/large"))
            client.pump(lambda: client.streams[1].status == 200)
            client.send(frame(PRIORITY, bytes(size), stream=1))
            code = Code.FRAME_SIZE_ERROR
            assert client.reaction(1) in (stream_error(code), connection_error(code))

    def test_on_the_connection(self, server: Served[Replies]) -> None:
        with connect(server) as client:
            client.push(priority(0))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_within_a_block(self, server: Served[Replies]) -> None:
        with connect(server) as client:
            client.send(headers(1, block(request()), done=False))
            client.push(priority(1))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_the_client_may_say_that_it_sends_none(self, server: Served[Replies]) -> None:
        with connect(server, (NO_PRIORITIES, 1)) as client:
            client.send(priority(1) + priority(3, 3))
            client.expect_alive()


class TestUpdateFrame:
    """RFC 9218 7.1"""

    @pytest.mark.parametrize(
        "value",
        [b"", b"u=0", b"u=7, i", b"i=?0", b"u=9", b"x=1", b"u=1;p=2", b"u=3,i,u=5", b"u=1.0"],
    )
    def test_is_taken(self, server: Served[Replies], value: bytes) -> None:
        """For open, idle and closed streams; what it does not know is left aside (4)."""
        with connect(server) as client:
            for stream in (1, 3, 1):
                client.send(priority_update(stream, value))
                client.expect_alive()
            client.send(priority_update(0x80000003, value))  # the reserved bit
            client.expect_alive()

    @pytest.mark.parametrize("value", [b"u", b"=", b"u=", b"\xff\0", b"u=1,", b"a" * 5000])
    def test_what_is_no_structured_field(self, server: Served[Replies], value: bytes) -> None:
        """4: priority signals that fail to parse are ignored, or PROTOCOL_ERROR where framed."""
        with connect(server) as client:
            client.send(priority_update(1, value))
            assert client.reaction() in (IGNORED, connection_error(Code.PROTOCOL_ERROR))

    def test_for_the_connection(self, server: Served[Replies]) -> None:
        with connect(server) as client:
            client.push(priority_update(0, b"u=1"))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_for_a_push_that_never_was(self, server: Served[Replies]) -> None:
        with connect(server) as client:
            client.push(priority_update(2, b"u=1"))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_on_a_stream(self, server: Served[Replies]) -> None:
        with connect(server) as client:
            client.push(frame(PRIORITY_UPDATE, b"\0\0\0\1u=1", stream=1))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("size", range(4))
    def test_too_short(self, server: Served[Replies], size: int) -> None:
        with connect(server) as client:
            client.push(frame(PRIORITY_UPDATE, bytes(size)))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)

    def test_for_more_idle_streams_than_there_may_be(self, server: Served[Replies]) -> None:
        """With the active ones they must not exceed the announced limit."""
        with connect(server) as client:
            limit = client.settings[3]
            client.send(b"".join(priority_update(2 * at + 1, b"u=1") for at in range(limit)))
            client.expect_alive()
        with connect(server) as client:
            client.push(b"".join(priority_update(2 * at + 1, b"u=1") for at in range(limit + 1)))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_within_a_block(self, server: Served[Replies]) -> None:
        with connect(server) as client:
            client.send(headers(1, block(request()), done=False))
            client.push(priority_update(1, b"u=1"))
            client.expect_connection_error(Code.PROTOCOL_ERROR)


class TestOrder:
    """RFC 9218 10: a more urgent answer first; within one urgency, those that are not incremental
    one after the other, and incremental ones side by side."""

    def waiting(self, server: Served[Replies], *priorities: bytes) -> Http2Client:
        """Streams 3, 5... with these priorities wait for the connection's window, which is shut."""
        client = connect(server, (INITIAL_WINDOW, SIZE))
        client.send(get(1, b"/large"))
        client.pump(lambda: client.window == 0)
        for at, value in enumerate(priorities):
            more = [(b"priority", value)] if value else []
            client.send(get(3 + 2 * at, b"/large", *more))
            client.pump(lambda at=at: client.streams[3 + 2 * at].status == 200)
        client.barrier()
        return client

    def sizes(self, client: Http2Client) -> list[int]:
        return [len(client.streams[stream].body) for stream in sorted(client.streams)[1:]]

    def opened(self, client: Http2Client, count: int) -> list[int]:
        """How much each stream has had after the window has opened so far."""
        before = self.total(client)
        client.send(window_update(0, count))
        client.pump(lambda: client.window == 0)
        client.barrier()
        assert self.total(client) == before + count
        return self.sizes(client)

    def total(self, client: Http2Client) -> int:
        return sum(len(answer.body) for answer in client.streams.values())

    def test_by_urgency(self, server: Served[Replies]) -> None:
        with self.waiting(server, b"u=7", b"u=0", b"u=1") as client:
            assert self.opened(client, 50_000) == [0, 50_000, 0]
            assert self.opened(client, 200_000) == [0, SIZE, 50_000]
            client.send(window_update(0, 1 << 20))
            for stream in (1, 3, 5, 7):
                assert len(client.answer(stream).body) == SIZE

    def test_three_is_the_default(self, server: Served[Replies]) -> None:
        """The first stream has no priority either, and came first."""
        with self.waiting(server, b"u=4", b"u=2", b"") as client:
            assert self.opened(client, SIZE + 10_000)[:2] == [0, SIZE]
            assert len(client.streams[1].body) > 65535

    def test_one_after_the_other(self, server: Served[Replies]) -> None:
        with self.waiting(server, b"u=1", b"u=1") as client:
            assert self.opened(client, 50_000) == [50_000, 0]
            assert self.opened(client, SIZE) == [SIZE, 50_000]

    def test_side_by_side(self, server: Served[Replies]) -> None:
        with self.waiting(server, b"u=1, i", b"u=1, i") as client:
            had = self.opened(client, 160_000)
            assert min(had) >= 40_000, had

    def test_priority_update_for_a_running_answer(self, server: Served[Replies]) -> None:
        with self.waiting(server, b"u=1", b"u=2") as client:
            assert self.opened(client, 1000) == [1000, 0]
            client.send(priority_update(5, b"u=0"))
            assert self.opened(client, 1000) == [1000, 1000]
            client.send(priority_update(5, b""))
            assert self.opened(client, 1000) == [2000, 1000]

    def test_priority_update_ahead_of_its_request(self, server: Served[Replies]) -> None:
        """7: it counts more than the header field."""
        with self.waiting(server, b"u=1") as client:
            client.send(priority_update(5, b"u=0") + get(5, b"/large", (b"priority", b"u=7")))
            client.pump(lambda: client.streams[5].status == 200)
            assert self.opened(client, 1000) == [0, 1000]
