"""RFC 9113 section 4: the form of frames, their sizes, and blocks of fields."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
    block,
    connection_error,
    continuation,
    data,
    frame,
    get,
    goaway,
    headers,
    ping,
    post,
    request,
    rst,
    settings,
    stream_error,
    string,
    window_update,
)
from tests.support.http2_peer import connect
from tests.wire.served import Served, served

UNKNOWN = [0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x11, 0x42, 0x80, 0xFE, 0xFF]
LIMIT = 16384


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


class TestFormat:
    """4.1"""

    @pytest.mark.parametrize("kind", UNKNOWN)
    def test_unknown_types_are_discarded(self, server: Served[Echo], kind: int) -> None:
        """In every state of a stream (5.1, last paragraph), whatever their flags."""
        with connect(server) as client:
            client.send(post(1, b"/kept"))
            for stream in (0, 1, 2, 3, 101, 0x7FFFFFFF):
                for flags in (0, 1, 0x28, 0xFF):
                    client.send(frame(kind, b"\xff" * 9, flags=flags, stream=stream))
            client.send(frame(kind) + frame(kind, bytes(LIMIT), stream=1))
            client.send(data(1, b"x") + frame(kind, stream=1) + data(1, b"y", end=True))
            assert json.loads(client.answer(1).body)["body"] == "xy"
            client.send(frame(kind, b"z", stream=1))
            client.expect_ignored()

    def test_altsvc_and_origin_mean_nothing_to_a_server(self, server: Served[Echo]) -> None:
        """RFC 7838 4 and RFC 8336 2.1."""
        with connect(server) as client:
            client.send(frame(0x0A, b"\0\x01ah2") + frame(0x0A, b"", stream=1))
            client.send(frame(0x0C, b"\0\x0fhttps://a.example"))
            client.expect_ignored()

    def test_flags_without_meaning_are_ignored(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            name = block(request(b"/flags", method=b"POST"))
            client.send(frame(HEADERS, name[:9], flags=0x40 | 0x10 | 0x80 | 0x02, stream=1))
            client.send(frame(CONTINUATION, name[9:], flags=0xFB | END_HEADERS, stream=1))
            client.send(frame(DATA, b"\0a", flags=0xFE, stream=1))  # PADDED, and no END_STREAM
            client.send(frame(WINDOW_UPDATE, b"\0\0\0\1", flags=0xFF, stream=1))
            client.send(frame(PRIORITY, bytes(5), flags=0xFF, stream=1))
            client.send(frame(DATA, b"b", flags=0xF7, stream=1))
            client.send(frame(SETTINGS, flags=0xFE) + frame(PING, b"flagged!", flags=0xFE))
            told = json.loads(client.answer(1).body)
            assert (told["path"], told["body"]) == ("/flags", "ab")
            client.pump(lambda: b"flagged!" in client.pongs and client.acks == 2)
            client.send(post(3) + frame(RST_STREAM, bytes(4), flags=0xFF, stream=3))
            client.expect_ignored(3)

    def test_the_reserved_bit_is_ignored(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            flags = END_STREAM | END_HEADERS
            client.streams.clear()
            raw = block(request(b"/reserved"))
            client.send(frame(HEADERS, raw, flags=flags, stream=1, reserved=True))
            assert json.loads(client.answer(1).body)["path"] == "/reserved"
            client.send(frame(SETTINGS, reserved=True))
            client.send(frame(PING, b"reserved", reserved=True))
            client.send(frame(WINDOW_UPDATE, b"\x80\0\0\1", reserved=True))
            client.send(post(3) + frame(DATA, b"x", flags=1, stream=3, reserved=True))
            assert json.loads(client.answer(3).body)["body"] == "x"
            assert client.pongs == [b"reserved"]
            client.expect_ignored()


class TestSize:
    """4.2"""

    def test_the_largest_are_taken(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            filler = LIMIT - len(block(request(b"/", (b"x-long", b""), method=b"POST"))) - 2
            raw = block(request(b"/", (b"x-long", b"v" * filler), method=b"POST"))
            assert len(raw) == LIMIT
            client.send(headers(1, raw, end=False) + data(1, b"a" * LIMIT))
            client.send(data(1, b"b" * (LIMIT - 256), pad=255, end=True))
            told = json.loads(client.answer(1).body)
            assert told["body"] == "a" * LIMIT + "b" * (LIMIT - 256)
            assert ["x-long", "v" * filler] in told["headers"]
            client.send(settings(*[(0x4000 + at, at) for at in range(LIMIT // 6)]))
            client.send(post(3) + goaway(debug=bytes(LIMIT - 8)) + data(3, end=True))
            assert client.answer(3).status == 200

    @pytest.mark.parametrize("size", [LIMIT + 1, LIMIT * 2, (1 << 24) - 1])
    @pytest.mark.parametrize(
        ("kind", "stream", "flags"),
        [
            (HEADERS, 3, END_HEADERS),
            (SETTINGS, 0, 0),
            (SETTINGS, 0, ACK),
            (PING, 0, 0),
            (GOAWAY, 0, 0),
            (WINDOW_UPDATE, 0, 0),
            (DATA, 0, 0),
            (0x77, 0, 0),
        ],
    )
    def test_one_more_is_a_connection_error(
        self, server: Served[Echo], kind: int, stream: int, flags: int, size: int
    ) -> None:
        """Nobody waits for so much: the head of the frame is enough."""
        with connect(server) as client:
            client.send(post(1) + frame(kind, length=size, flags=flags, stream=stream))
            client.push(bytes(20))
            codes = (Code.FRAME_SIZE_ERROR,)
            client.expect_connection_error(*codes, *([Code.PROTOCOL_ERROR] if kind == DATA else []))

    def test_one_more_in_a_continuation(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, block(request()), done=False))
            client.send(frame(CONTINUATION, length=LIMIT + 1, stream=1, flags=END_HEADERS))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)

    @pytest.mark.parametrize("kind", [DATA, PRIORITY, RST_STREAM, WINDOW_UPDATE, 0x77])
    def test_one_more_on_a_stream(self, server: Served[Echo], kind: int) -> None:
        """The stream's error may be made the connection's (5.4.1)."""
        with connect(server) as client:
            client.send(post(1))
            client.push(frame(kind, bytes(LIMIT + 1), stream=1))
            code = Code.FRAME_SIZE_ERROR
            assert client.reaction(1) in (stream_error(code), connection_error(code))

    @pytest.mark.parametrize(
        "raw",
        [
            frame(PING, bytes(7)),
            frame(PING, bytes(9)),
            frame(PING),
            frame(RST_STREAM, bytes(3), stream=1),
            frame(RST_STREAM, bytes(5), stream=1),
            frame(RST_STREAM, stream=1),
            frame(GOAWAY, bytes(7)),
            frame(GOAWAY),
            frame(WINDOW_UPDATE, bytes(3)),
            frame(WINDOW_UPDATE, bytes(5)),
            frame(WINDOW_UPDATE),
            frame(WINDOW_UPDATE, b"\0\0\1", stream=1),
            frame(WINDOW_UPDATE, b"\0\0\0\0\1", stream=1),
            frame(SETTINGS, bytes(5)),
            frame(SETTINGS, bytes(7)),
            frame(SETTINGS, bytes(1)),
        ],
        ids=str,
    )
    def test_too_small_or_too_large_for_its_type(self, server: Served[Echo], raw: bytes) -> None:
        """6.4, 6.5, 6.7, 6.8, 6.9"""
        with connect(server) as client:
            client.send(post(1))
            client.push(raw)
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)

    @pytest.mark.parametrize("size", [0, 1, 4])
    def test_headers_too_small_for_their_priority(self, server: Served[Echo], size: int) -> None:
        with connect(server) as client:
            client.send(frame(HEADERS, bytes(size), flags=0x25, stream=1))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)

    def test_headers_too_small_for_their_padding(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(frame(HEADERS, flags=0x0D, stream=1))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)

    def test_data_too_small_for_its_padding(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + frame(DATA, flags=0x08, stream=1))
            assert client.reaction(1).code in (Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


class TestBlocks:
    """4.3"""

    @pytest.mark.parametrize(
        "bad",
        [
            b"\x80",
            b"\xbf",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x82\x86\x84\x41",
            b"\x00\x05ab",
            b"\x3f\xe2\x1f",
        ],
        ids=["index-0", "index-63", "overflow", "cut", "cut-string", "table"],
    )
    def test_what_cannot_be_decoded(self, server: Served[Echo], bad: bytes) -> None:
        """Whatever comes with it, and wherever it comes: also in trailers."""
        with connect(server) as client:
            client.send(headers(1, bad) + get(3))
            client.expect_connection_error(Code.COMPRESSION_ERROR)
        with connect(server) as client:
            client.send(post(1) + data(1, b"x") + headers(1, bad))
            client.expect_connection_error(Code.COMPRESSION_ERROR)
        with connect(server) as client:
            client.send(headers(1, bad[:1], done=False) + continuation(1, bad[1:]))
            client.expect_connection_error(Code.COMPRESSION_ERROR)

    # A name put into the dynamic table by a block that is refused, and used by a later one: a
    # server that does not decode what it discards answers nothing sensible any more.
    INDEXED = b"\x40" + string(b"x-kept") + string(b"value")
    GOOD = b"\x82\x86\x84\x41\x0bexample.com"

    def used(self, stream: int, *, swapped: bool = False) -> bytes:
        """After `GOOD` and `INDEXED`, in this order or `swapped`, each has left an entry."""
        return headers(stream, b"\x82\x86\x84" + (b"\xbe\xbf" if swapped else b"\xbf\xbe"))

    @pytest.mark.parametrize(
        ("first", "code"),
        [
            (GOOD + b"\x00\x01A\x01b", Code.PROTOCOL_ERROR),
            (GOOD + b"\x00\x0aconnection\x05close", Code.PROTOCOL_ERROR),
            (b"\x82" + GOOD, Code.PROTOCOL_ERROR),
        ],
        ids=["name", "connection", "twice"],
    )
    def test_a_malformed_request_is_decoded_to_its_end(
        self, server: Served[Echo], first: bytes, code: Code
    ) -> None:
        with connect(server) as client:
            client.send(headers(1, first + self.INDEXED))
            assert client.reset_of(1) == code
            client.send(self.used(3))
            assert ["x-kept", "value"] in json.loads(client.answer(3).body)["headers"]

    def test_a_block_on_a_stream_that_we_have_reset(self, server: Served[Echo]) -> None:
        """5.1, closed: trailers in flight are decoded, though nobody wants them."""
        with connect(server) as client:
            client.send(post(1) + window_update(1, LARGEST))
            assert client.reset_of(1) == Code.FLOW_CONTROL_ERROR
            client.send(headers(1, self.INDEXED))
            client.send(headers(3, self.GOOD) + self.used(5, swapped=True))
            assert ["x-kept", "value"] in json.loads(client.answer(5).body)["headers"]

    def test_a_block_of_a_stream_beyond_the_limit(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            limit = client.settings[3]
            client.send(b"".join(post(2 * at + 1) for at in range(limit)))
            refused = 2 * limit + 1
            client.send(headers(refused, self.GOOD + self.INDEXED))
            assert client.reset_of(refused) == Code.REFUSED_STREAM
            client.send(rst(1))
            client.barrier()
            client.send(self.used(refused + 2))
            told = json.loads(client.answer(refused + 2).body)
            assert ["x-kept", "value"] in told["headers"]

    def test_a_block_of_too_many_fields(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            many = b"\x00\x01a\x01b" * 500
            client.send(headers(1, self.GOOD + many + self.INDEXED))
            assert client.answer(1).status == 431
            client.send(self.used(3))
            assert ["x-kept", "value"] in json.loads(client.answer(3).body)["headers"]

    def test_trailers_go_through_the_same_table(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"x") + headers(1, self.INDEXED))
            assert client.answer(1).status == 200
            client.send(headers(3, self.GOOD) + self.used(5, swapped=True))
            assert ["x-kept", "value"] in json.loads(client.answer(5).body)["headers"]

    def test_in_fragments_of_one_octet(self, server: Served[Echo]) -> None:
        raw = self.GOOD + b"\x00\x03x-a\x01b"
        with connect(server) as client:
            client.send(headers(1, done=False))
            for at in range(len(raw)):
                client.send(continuation(1, raw[at : at + 1], done=at + 1 == len(raw)))
            assert ["x-a", "b"] in json.loads(client.answer(1).body)["headers"]
            client.send(ping())
            client.expect_alive()

    def test_cut_in_two_fragments_anywhere(self, server: Served[Echo]) -> None:
        raw = self.GOOD + b"\x00\x03x-a\x01b"
        with connect(server) as client:
            for at in range(len(raw) + 1):
                stream = client.next_stream()
                client.send(headers(stream, raw[:at], done=False) + continuation(stream, raw[at:]))
                assert ["x-a", "b"] in json.loads(client.answer(stream).body)["headers"]
