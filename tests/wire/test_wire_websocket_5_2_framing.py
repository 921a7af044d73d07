"""RFC 6455 5.1 to 5.3: every head a frame can have, every form of its length, every mask."""

from __future__ import annotations

import itertools

import pytest
from tests.support.socket_client import handshake
from tests.support.websocket_frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    binary,
    cont,
    frame,
    head,
    ping,
    pong,
    text,
)
from tests.wire.dialogue import (
    BYE,
    SocketEcho,
    hold,
    hold_bytewise,
    says,
    understood,
    upgraded,
)
from tests.wire.served import Served

MASKED = b"\x37\xfa\x21\x3d"


class TestReservedBits:
    """5.2: what is reserved fails the connection, whatever else is right about the frame."""

    @pytest.mark.parametrize("payload", [b"", b"\x03\xe8a"], ids=["empty", "payload"])
    @pytest.mark.parametrize("opcode", range(16))
    def test_every_first_byte_masked_or_not(
        self, server: Served[SocketEcho], opcode: int, payload: bytes
    ) -> None:
        right = {CONT: "", TEXT: "01", BINARY: "01", CLOSE: "1", PING: "1", PONG: "1"}
        wrong = {}
        for fin, rsv, mask in itertools.product((False, True), range(8), (None, MASKED)):
            if mask and not rsv and str(int(fin)) in right.get(opcode, ""):
                continue
            bad = frame(opcode, payload, fin=fin, rsv=rsv, mask=mask)
            talk = hold(server, text("before") + bad + text("after") + BYE)
            if talk != says("before", code=1002):
                wrong[fin, rsv, mask] = talk
        assert not wrong

    @pytest.mark.parametrize("payload", [b"", b"a" * 20, b"a" * 300], ids=len)
    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    def test_the_head_of_a_reserved_opcode_is_enough(
        self, server: Served[SocketEcho], opcode: int, payload: bytes
    ) -> None:
        assert hold(server, head(opcode, len(payload))) == says(code=1002)

    @pytest.mark.parametrize(
        "raw",
        [frame(TEXT, rsv=rsv) for rsv in (1, 2, 4)]
        + [frame(3), frame(11), frame(TEXT, mask=None), frame(PING, fin=False), cont(fin=True)],
    )
    def test_after_which_nothing_is_done_with_what_comes(
        self, server: Served[SocketEcho], raw: bytes
    ) -> None:
        """7.1.7: not even a close, or megabytes, which must not reset what was said."""
        assert hold(server, raw + ping(b"p") + text("a") + BYE) == says(code=1002)
        assert hold(server, raw + binary(bytes(3_000_000)) + BYE) == says(code=1002)


class TestMasking:
    """5.1 and 5.3: a client must mask, with any key; a server never does (`understood` watches)."""

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_no_length_goes_unmasked(
        self, server: Served[SocketEcho], opcode: int, size: int
    ) -> None:
        bad = frame(opcode, b"a" * size, mask=None)
        assert hold(server, text("before") + bad + BYE) == says("before", code=1002)

    @pytest.mark.parametrize("at", range(1, 4))
    def test_nor_does_a_later_frame_or_fragment(self, server: Served[SocketEcho], at: int) -> None:
        pieces = [("a", TEXT, False), ("b", CONT, False), ("c", CONT, False), ("d", CONT, True)]
        raw = b"".join(
            frame(opcode, piece.encode(), fin=fin, mask=None if number == at else MASKED)
            for number, (piece, opcode, fin) in enumerate(pieces)
        )
        assert hold(server, raw + BYE) == says(code=1002)

    def test_any_key_at_any_length(self, server: Served[SocketEcho]) -> None:
        keys = [
            bytes(4),
            b"\xff" * 4,
            b"\x01\x00\x00\x00",
            b"\x00\x00\x00\x01",
            b"\xa5\x5a\x0f\xf0",
        ]
        messages = [bytes((size + at) % 256 for at in range(size)) for size in range(140)]
        raw = b"".join(
            frame(BINARY, message, mask=keys[at % len(keys)]) for at, message in enumerate(messages)
        )
        assert hold(server, raw + BYE) == says(*messages)

    def test_the_key_begins_anew_with_every_fragment(self, server: Served[SocketEcho]) -> None:
        raw = frame(TEXT, b"abcde", fin=False) + frame(CONT, b"fgh", mask=b"\x01\x02\x03\x04")
        assert hold(server, raw + BYE) == says("abcdefgh")


class TestLength:
    """5.2: the shortest form, always; at most 63 bits."""

    SIZES = (0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 4096, 65534, 65535, 65536, 65537, 1 << 20)

    @pytest.mark.parametrize("size", SIZES)
    def test_messages_come_back(self, server: Served[SocketEcho], size: int) -> None:
        data = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
        with server.connect() as client:
            client.send(handshake())
            upgraded(client)
            client.send(binary(data) + text("é" * (size // 2)))
            client.send(BYE)
            assert understood(client.read_eof()) == says(data, "é" * (size // 2))

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize(
        ("size", "form"),
        [
            *((size, 16) for size in (0, 1, 124, 125)),
            *((size, 64) for size in (0, 1, 125, 126, 127, 65534, 65535)),
        ],
    )
    def test_a_length_not_in_its_shortest_form(
        self, server: Served[SocketEcho], opcode: int, size: int, form: int
    ) -> None:
        bad = frame(opcode, b"a" * size, length_form=form)
        assert hold(server, text("before") + bad + BYE) == says("before", code=1002)
        unfinished = head(opcode, size, length_form=form)
        assert hold(server, unfinished) == says(code=1002)

    @pytest.mark.parametrize("size", [1 << 63, (1 << 63) + 5, (1 << 64) - 1])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, CONT])
    def test_the_top_bit_of_64_must_be_0(
        self, server: Served[SocketEcho], opcode: int, size: int
    ) -> None:
        first = text("a", fin=False) if opcode == CONT else b""
        assert hold(server, first + head(opcode, size)) == says(code=1002)

    @pytest.mark.parametrize("size", [1 << 25, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1])
    def test_a_length_nobody_can_send_is_too_big(
        self, server: Served[SocketEcho], size: int
    ) -> None:
        assert hold(server, text("before") + head(BINARY, size)) == says("before", code=1009)


SHORT = [
    ("text", text("Grüße") + BYE, says("Grüße")),
    ("several", text("a") + binary(b"b") + text("") + binary(b"") + BYE, says("a", b"b", "", b"")),
    ("16-bit-length", text("a" * 126) + BYE, says("a" * 126)),
    ("unmasked", text("a") + frame(TEXT, b"b", mask=None), says("a", code=1002)),
    ("unmasked-close", text("a") + frame(CLOSE, mask=None), says("a", code=1002)),
    ("rsv1", text("a") + frame(TEXT, b"b", rsv=4), says("a", code=1002)),
    ("rsv2", text("a") + frame(TEXT, b"b", rsv=2), says("a", code=1002)),
    ("rsv3", text("a") + frame(TEXT, b"b", rsv=1), says("a", code=1002)),
    ("reserved-3", text("a") + frame(3, b"b"), says("a", code=1002)),
    ("reserved-11", text("a") + frame(11, b"b"), says("a", code=1002)),
    ("16-bit-of-125", text("a") + frame(TEXT, b"b" * 125, length_form=16), says("a", code=1002)),
    ("64-bit-of-126", text("a") + frame(TEXT, b"b" * 126, length_form=64), says("a", code=1002)),
    ("64-bit-top", text("a") + head(BINARY, 1 << 63), says("a", code=1002)),
    ("ping", ping(b"p") + pong(b"q") + text("a") + BYE, says("a", pongs=[b"p"])),
    ("unsolicited-pong", pong(b"q") + pong() + BYE, says()),
    ("after-close", text("a") + BYE + text("b") + ping(b"p") + BYE, says("a")),
    ("http", text("a") + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", says("a", code=1002)),
    ("tls", text("a") + b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", says("a", code=1002)),
]


@pytest.mark.parametrize(("raw", "said"), [row[1:] for row in SHORT], ids=[row[0] for row in SHORT])
def test_byte_by_byte(local: Served[SocketEcho], raw: bytes, said: object) -> None:
    """A fault cut in two is the same fault; what comes after it must not reset its answer."""
    assert hold(local, raw) == said
    assert hold_bytewise(local, raw) == said


@pytest.mark.parametrize(("raw", "said"), [row[1:] for row in SHORT], ids=[row[0] for row in SHORT])
def test_cut_in_two_anywhere(local: Served[SocketEcho], raw: bytes, said: object) -> None:
    for at in range(0, len(raw), 1 + len(raw) // 60):
        with local.connect() as client:
            client.send_pieces([handshake() + raw[:at]])
            try:
                client.send(raw[at:])
            except (BrokenPipeError, ConnectionResetError):
                pass  # it had said all it had to say
            upgraded(client)
            assert understood(client.read_eof()) == said, at
