"""RFC 9113 section 6.5: SETTINGS, their values and their acknowledgement."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.apps import Replies, body, start
from tests.support.http2_frames import (
    CONNECT_PROTOCOL,
    ENABLE_PUSH,
    IGNORED,
    INITIAL_WINDOW,
    LARGEST,
    MAX_FRAME,
    MAX_LIST,
    MAX_STREAMS,
    NO_PRIORITIES,
    PREFACE,
    SETTINGS,
    TABLE_SIZE,
    Code,
    connection_error,
    frame,
    get,
    ping,
    settings,
    window_update,
)
from tests.support.http2_peer import Http2Client, connect
from tests.wire.served import Served, served

FIELDS = [(b"x-%d" % at, b"value %d" % at) for at in range(30)]


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Replies]]:
    scripts = {"/fields": [start(200, FIELDS), body(b"x" * 100_000)]}
    with served(Replies(scripts)) as running:
        yield running


def offers(server: Served[Replies], raw: bytes) -> Http2Client:
    """The same, as the first SETTINGS of all and as later ones."""
    client = connect(server, hello=False)
    client.send(PREFACE + raw)
    return client


class TestForm:
    """6.5"""

    @pytest.mark.parametrize("stream", [1, 2, 3, LARGEST])
    @pytest.mark.parametrize("flags", [0, 1])
    def test_on_a_stream(self, server: Served[Replies], stream: int, flags: int) -> None:
        with connect(server) as client:
            client.send(get(1))
            client.push(frame(SETTINGS, flags=flags, stream=stream))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("size", [1, 5, 6, 12, 7])
    def test_an_acknowledgement_with_content(self, server: Served[Replies], size: int) -> None:
        with connect(server) as client:
            client.push(frame(SETTINGS, bytes(size), flags=1))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)

    @pytest.mark.parametrize("size", [1, 3, 5, 7, 11, 13, 605])
    def test_a_length_that_is_no_multiple_of_six(self, server: Served[Replies], size: int) -> None:
        raw = frame(SETTINGS, bytes(size))
        with connect(server) as client:
            client.push(raw)
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)
        with offers(server, raw) as client:
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)

    def test_an_acknowledgement_too_many(self, server: Served[Replies]) -> None:
        """Nothing is said about it."""
        with connect(server) as client:
            client.send(settings(ack=True) * 3)
            assert client.reaction() in (IGNORED, connection_error(Code.PROTOCOL_ERROR))


class TestValues:
    """6.5.2"""

    @pytest.mark.parametrize(
        ("key", "value", "code"),
        [
            (ENABLE_PUSH, 2, Code.PROTOCOL_ERROR),
            (ENABLE_PUSH, 0xFFFFFFFF, Code.PROTOCOL_ERROR),
            (INITIAL_WINDOW, 1 << 31, Code.FLOW_CONTROL_ERROR),
            (INITIAL_WINDOW, 0xFFFFFFFF, Code.FLOW_CONTROL_ERROR),
            (MAX_FRAME, 0, Code.PROTOCOL_ERROR),
            (MAX_FRAME, 16383, Code.PROTOCOL_ERROR),
            (MAX_FRAME, 1 << 24, Code.PROTOCOL_ERROR),
            (MAX_FRAME, 0xFFFFFFFF, Code.PROTOCOL_ERROR),
            (NO_PRIORITIES, 2, Code.PROTOCOL_ERROR),
        ],
    )
    def test_out_of_range(self, server: Served[Replies], key: int, value: int, code: Code) -> None:
        """NO_RFC7540_PRIORITIES: RFC 9218 2.1."""
        raw = settings((0x5555, 1), (key, value), (MAX_STREAMS, 1))
        with connect(server) as client:
            client.push(raw)
            client.expect_connection_error(code)
        with offers(server, raw) as client:
            client.expect_connection_error(code)
        with offers(server, settings((key, value))) as client:
            client.expect_connection_error(code)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            (TABLE_SIZE, 0),
            (TABLE_SIZE, 1),
            (TABLE_SIZE, 0xFFFFFFFF),
            (ENABLE_PUSH, 0),
            (ENABLE_PUSH, 1),
            (MAX_STREAMS, 0),
            (MAX_STREAMS, 0xFFFFFFFF),
            (INITIAL_WINDOW, 16),
            (INITIAL_WINDOW, LARGEST),
            (MAX_FRAME, 16384),
            (MAX_FRAME, (1 << 24) - 1),
            (MAX_LIST, 0xFFFFFFFF),
            (NO_PRIORITIES, 0),
            (NO_PRIORITIES, 1),
            (CONNECT_PROTOCOL, 0),
            (CONNECT_PROTOCOL, 1),
            (0, 0),
            (0xFFFF, 0xFFFFFFFF),
        ],
    )
    def test_the_ends_of_the_range(self, server: Served[Replies], key: int, value: int) -> None:
        with connect(server, (key, value)) as client:
            client.expect_alive()
            client.send(settings((key, value)))
            client.pump(lambda: client.acks == 2)
            client.expect_alive()

    def test_extended_connect_from_a_client(self, server: Served[Replies]) -> None:
        """RFC 8441 3: it has no effect on a server; a value that is no boolean may be an error."""
        with connect(server) as client:
            client.send(settings((CONNECT_PROTOCOL, 2)))
            assert client.reaction() in (IGNORED, connection_error(Code.PROTOCOL_ERROR))

    def test_priorities_do_not_change(self, server: Served[Replies]) -> None:
        """RFC 9218 2.1: the receiver may treat it as an error, or not."""
        with connect(server, (NO_PRIORITIES, 1)) as client:
            client.send(settings((NO_PRIORITIES, 0)))
            assert client.reaction() in (IGNORED, connection_error(Code.PROTOCOL_ERROR))

    def test_the_last_of_several_counts(self, server: Served[Replies]) -> None:
        pairs = [(INITIAL_WINDOW, size) for size in (5, 0, LARGEST, 1000, 9)]
        with connect(server, *pairs) as client:
            client.send(get(1, b"/fields"))
            client.pump(lambda: len(client.streams[1].body) == 9)
            client.barrier()
            assert len(client.streams[1].body) == 9

    @pytest.mark.parametrize("size", [0, 1, 31, 100, 4096, 65536])
    def test_the_table_of_a_small_client(self, server: Served[Replies], size: int) -> None:
        """RFC 7541 4.2: `hpack` accepts no entry beyond it, and wants the change announced."""
        with connect(server, (TABLE_SIZE, size)) as client:
            client.send(window_update(0, 1 << 20))
            for _ in range(3):
                stream = client.next_stream()
                client.send(get(stream, b"/fields") + window_update(stream, 1 << 20))
                got = dict(client.answer(stream).headers)
                assert all(got[name] == value for name, value in FIELDS)

    def test_a_table_that_changes(self, server: Served[Replies]) -> None:
        """Down to nothing and up again between two answers: both must be told (4.2)."""
        with connect(server) as client:
            client.send(window_update(0, 1 << 24))
            for sizes in ((0,), (4096,), (0, 4096), (100,), (50, 200), (65536,), (0, 0, 70)):
                for size in sizes:
                    client.send(settings((TABLE_SIZE, size)))
                stream = client.next_stream()
                client.send(get(stream, b"/fields") + window_update(stream, 1 << 20))
                got = dict(client.answer(stream).headers)
                assert all(got[name] == value for name, value in FIELDS)

    def test_a_list_limit_is_only_advice(self, server: Served[Replies]) -> None:
        with connect(server, (MAX_LIST, 0)) as client:
            client.barrier()

    def test_a_small_frame_size_is_kept_later(self, server: Served[Replies]) -> None:
        """Up and down again: the judge sees that no frame is larger than was acknowledged."""
        with connect(server, (MAX_FRAME, 1 << 20), (INITIAL_WINDOW, LARGEST)) as client:
            client.send(window_update(0, LARGEST - 65535))
            assert len(client.get(b"/fields").body) == 100_000
            client.send(settings((MAX_FRAME, 16384)))
            client.barrier()
            assert len(client.get(b"/fields").body) == 100_000


class TestAcknowledgement:
    """6.5.3: each one, in order, at once."""

    def test_each_once(self, server: Served[Replies]) -> None:
        with connect(server) as client:
            client.send(settings() + settings((MAX_STREAMS, 5)) + settings((0x7777, 1)) * 3)
            client.pump(lambda: client.acks == 6)
            client.expect_alive()
            assert client.acks == 6

    def test_before_what_comes_after(self, server: Served[Replies]) -> None:
        """The order of frames is the order of their effects: the ping is answered after it."""
        with connect(server) as client:
            client.send(settings() + ping(b"after it"))
            client.pump(lambda: client.pongs)
            assert client.acks == 2

    def test_while_everything_is_blocked(self, server: Served[Replies]) -> None:
        with connect(server, (INITIAL_WINDOW, 0)) as client:
            client.send(get(1, b"/fields") + settings((MAX_STREAMS, 9)))
            client.pump(lambda: client.acks == 2)
            client.barrier()
            assert client.streams[1].body == b""

    def test_many_settings_of_a_long_life(self, server: Served[Replies]) -> None:
        with connect(server) as client:
            for at in range(300):
                client.send(settings((MAX_STREAMS, at)))
                client.expect_alive()
            assert client.acks == 301
