"""RFC 9113 sections 6.1 DATA and 6.2 HEADERS: padding, states and flags."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    IGNORED,
    PADDED,
    PRIORITIZED,
    Code,
    block,
    connection_error,
    continuation,
    data,
    frame,
    get,
    headers,
    padded,
    ping,
    post,
    request,
    rst,
    settings,
    stream_error,
)
from tests.support.http2_peer import connect
from tests.wire.served import Served, served

BLOCK = block(request())


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


class TestData:
    """6.1"""

    def test_on_the_connection(self, server: Served[Echo]) -> None:
        for raw in (data(0, b"x"), data(0), data(0, end=True), data(0, b"x", pad=1)):
            with connect(server) as client:
                client.send(post(1))
                client.push(raw)
                client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("pad", [0, 1, 2, 254, 255])
    @pytest.mark.parametrize("size", [0, 1, 1000])
    def test_padding_is_no_content(self, server: Served[Echo], pad: int, size: int) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"<" * size, pad=pad) + data(1, b">", pad=pad, end=True))
            assert json.loads(client.answer(1).body)["body"] == "<" * size + ">"
            client.expect_alive()

    @pytest.mark.parametrize(
        ("told", "rest"),
        [(1, 0), (2, 1), (5, 4), (6, 5), (255, 0), (255, 254), (7, 6), (100, 50)],
    )
    def test_padding_longer_than_the_frame(
        self, server: Served[Echo], told: int, rest: int
    ) -> None:
        """`rest` octets follow the pad length. As long as the payload, or longer: an error."""
        with connect(server) as client:
            client.send(post(1))
            client.push(frame(DATA, bytes((told,)) + bytes(rest), flags=PADDED, stream=1))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_padding_as_long_as_it_may_be(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + frame(DATA, b"\x05" + bytes(5), flags=PADDED, stream=1))
            client.send(data(1, b"x", end=True))
            assert json.loads(client.answer(1).body)["body"] == "x"

    def test_padding_that_is_not_zero(self, server: Served[Echo]) -> None:
        """It need not be looked at; if it is, it is a connection error."""
        with connect(server) as client:
            client.send(post(1) + frame(DATA, b"\x03abc", flags=PADDED, stream=1))
            assert client.reaction(1) in (IGNORED, connection_error(Code.PROTOCOL_ERROR))

    def test_empty_frames(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1) + data(1, b"a") + data(1) + data(1, pad=0) + data(1))
            client.send(data(1, end=True))
            assert json.loads(client.answer(1).body)["body"] == "a"

    @pytest.mark.parametrize("size", [1, 16383, 16384])
    def test_an_end_with_content(self, server: Served[Echo], size: int) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"x" * size, end=True))
            assert len(json.loads(client.answer(1).body)["body"]) == size

    def test_after_the_end(self, server: Served[Echo]) -> None:
        """STREAM_CLOSED; the answer may have come before, so that the stream is closed (5.1)."""
        with connect(server) as client:
            client.send(post(1) + data(1, b"a", end=True) + data(1, b"b"))
            found = client.reaction(1)
            assert found in (
                IGNORED,
                stream_error(Code.STREAM_CLOSED),
                connection_error(Code.STREAM_CLOSED),
            )

    def test_of_many_streams_side_by_side(self, server: Served[Echo]) -> None:
        streams = range(1, 101, 2)
        with connect(server) as client:
            client.send(b"".join(post(stream, b"/%d" % stream) for stream in streams))
            for part in range(20):
                client.send(b"".join(data(stream, b"%d." % part) for stream in streams))
            client.send(b"".join(data(stream, end=True) for stream in reversed(streams)))
            for stream in streams:
                told = json.loads(client.answer(stream).body)
                assert told["path"] == f"/{stream}"
                assert told["body"] == "".join(f"{part}." for part in range(20))


class TestHeaders:
    """6.2"""

    def test_on_the_connection(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.push(headers(0, BLOCK))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    @pytest.mark.parametrize("pad", [0, 1, 255])
    @pytest.mark.parametrize("depends", [None, (0, 0), (3, 255), (0x80000000, 15)])
    def test_padding_and_priority(
        self, server: Served[Echo], pad: int, depends: tuple[int, int] | None
    ) -> None:
        with connect(server) as client:
            client.send(headers(1, BLOCK, pad=pad, depends=depends))
            assert client.answer(1).status == 200
            client.expect_alive()

    @pytest.mark.parametrize("more", [0, 1, 100])
    def test_padding_longer_than_the_frame(self, server: Served[Echo], more: int) -> None:
        """6.2: of the payload's length or greater."""
        raw = BLOCK[:20]
        told = len(raw) + 1 + more
        for flags in (PADDED | END_HEADERS, PADDED | END_HEADERS | PRIORITIZED, PADDED):
            with connect(server) as client:
                client.push(frame(HEADERS, padded(raw, 0, told=told), flags=flags, stream=1))
                client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_padding_that_reaches_into_the_priority(self, server: Served[Echo]) -> None:
        """Longer than what remains for block and padding (6.2); too small for its fields (4.2)."""
        flags = PADDED | PRIORITIZED | END_HEADERS
        with connect(server) as client:
            client.push(frame(HEADERS, b"\x08" + bytes(10), flags=flags, stream=1))
            client.expect_connection_error(Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR)

    def test_nothing_but_padding(self, server: Served[Echo]) -> None:
        """An empty block: well-formed as a frame, malformed as a request."""
        with connect(server) as client:
            client.send(frame(HEADERS, b"\x05" + bytes(5), flags=PADDED | 5, stream=1))
            client.expect_malformed(1)

    def test_padding_before_a_continuation(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, BLOCK[:7], done=False, pad=33, depends=(0, 1)))
            client.send(continuation(1, BLOCK[7:]))
            assert client.answer(1).status == 200

    def test_the_end_belongs_to_headers(self, server: Served[Echo]) -> None:
        """END_STREAM on HEADERS, END_HEADERS later: nothing but CONTINUATION may follow."""
        with connect(server) as client:
            client.send(headers(1, BLOCK[:5], end=True, done=False))
            client.send(frame(9, BLOCK[5:], flags=END_HEADERS | END_STREAM, stream=1))
            assert client.answer(1).status == 200
        with connect(server) as client:
            client.send(headers(1, BLOCK[:5], end=False, done=False))
            client.send(frame(9, BLOCK[5:], flags=END_HEADERS | END_STREAM, stream=1))
            client.barrier()
            assert not client.streams[1].over, "CONTINUATION has no END_STREAM"
            client.send(data(1, b"x", end=True))
            assert json.loads(client.answer(1).body)["body"] == "x"

    @pytest.mark.parametrize("end", [True, False])
    @pytest.mark.parametrize(
        "raw",
        [
            data(1, b"x"),
            data(3, b"x"),
            headers(1, BLOCK),
            get(3),
            frame(2, bytes(5), stream=1),
            rst(1),
            rst(3),
            settings(),
            settings(ack=True),
            frame(5, b"\0\0\0\2", stream=1, flags=4),
            ping(),
            ping(ack=True),
            frame(7, bytes(8)),
            frame(8, b"\0\0\0\1"),
            frame(8, b"\0\0\0\1", stream=1),
            continuation(3, BLOCK),
            continuation(0, BLOCK),
            frame(0x10, b"\0\0\0\1"),
            frame(0x99),
        ],
        ids=str,
    )
    def test_nothing_may_interrupt_a_block(
        self, server: Served[Echo], raw: bytes, end: bool
    ) -> None:
        """6.2, 6.10: any other frame, or one on another stream."""
        with connect(server) as client:
            client.send(post(3) + headers(5, BLOCK[:10], end=end, done=False))
            client.push(raw.replace(b"\0\0\0\1", b"\0\0\0\5", 1) + continuation(5, BLOCK[10:]))
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_a_second_block_may_be_interrupted_no_more(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"x"))
            client.send(headers(1, block([(b"a", b"b")]), done=False))
            client.push(data(1, b"y"))
            client.expect_connection_error(Code.PROTOCOL_ERROR)
