"""RFC 7692: what is offered and what may be agreed on (7.1), compressed messages (7.2), and abuse.

The server's answer is judged by what the RFC lets it say to an offer, not by one wished for.
"""

from __future__ import annotations

import itertools
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.support.raw import RawClient
from tests.support.socket_client import handshake
from tests.support.websocket_frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Sent,
    binary,
    cut,
    each_byte,
    frame,
    parse_sent,
    ping,
    text,
)
from tests.wire.dialogue import BYE, SocketEcho, hold, says, upgraded
from tests.wire.served import Served, served

OFFER = b"permessage-deflate"
LETTERS = ("the tide comes in, the tide goes out; " * 20).encode()


def offer(value: bytes) -> bytes:
    return b"Sec-WebSocket-Extensions: " + value + b"\r\n"


def agreed(server: Served[Any], value: bytes) -> dict[str, str | None] | None:
    """The parameters the server answers an offer with; None: it declines."""
    with server.connect() as client:
        client.send(handshake(lines=offer(value)) + BYE)
        return parameters(upgraded(client).all(b"sec-websocket-extensions"))


def parameters(lines: list[bytes]) -> dict[str, str | None] | None:
    if not lines:
        return None
    [line] = lines
    name, *rest = (part.strip() for part in line.decode().split(";"))
    assert name == "permessage-deflate", "one extension, and only the one that was offered"
    found: dict[str, str | None] = {}
    for part in rest:
        key, _, value = part.partition("=")
        assert key not in found
        found[key] = value or None
    return found


def legal(answer: dict[str, str | None], *, bits: int, silent: bool, hint: int | None) -> None:
    """7.1.1 and 7.1.2: an answer takes what was asked for, and asks for nothing not offered.

    `bits` is the server_max_window_bits that was asked for (16: none was), `silent` whether
    server_no_context_takeover was, `hint` client_max_window_bits (None: was not offered).
    """
    bare = {"server_no_context_takeover", "client_no_context_takeover"}
    sized = {"server_max_window_bits", "client_max_window_bits"}
    assert set(answer) <= bare | sized
    for key, value in answer.items():
        assert (value is None) if key in bare else re.fullmatch("8|9|1[0-5]", value or "")
    if silent:
        assert "server_no_context_takeover" in answer
    if bits < 16:
        assert int(answer["server_max_window_bits"] or 0) <= bits
    if hint is None:
        assert "client_max_window_bits" not in answer
    elif "client_max_window_bits" in answer:
        assert int(answer["client_max_window_bits"] or 99) <= hint


class TestNegotiation:
    def test_every_good_offer_is_answered_legally(self, server: Served[SocketEcho]) -> None:
        wrong = {}
        for bits, hint, silent, mute in itertools.product(
            (16, 8, 9, 12, 15), (None, 8, 9, 15, 16), (False, True), (False, True)
        ):
            value = OFFER
            value += b"; server_max_window_bits=%d" % bits if bits < 16 else b""
            if hint is not None:
                value += b"; client_max_window_bits" + (b"=%d" % hint if hint < 16 else b"")
            value += b"; server_no_context_takeover" if silent else b""
            value += b"; client_no_context_takeover" if mute else b""
            answer = agreed(server, value)
            try:
                if answer is None:
                    assert bits == 8 or hint == 8, "nothing in it that zlib cannot do"
                else:
                    legal(answer, bits=bits, silent=silent, hint=hint)
            except AssertionError as error:
                wrong[value] = (answer, str(error))
        assert not wrong

    @pytest.mark.parametrize(
        "value",
        [
            OFFER + b'; server_max_window_bits="10"',  # 9.1: quoted or not is the same
            OFFER + b" ;\tserver_max_window_bits = 10",
            b"foo, " + OFFER + b"; server_max_window_bits=10",
            b"foo\r\nSec-WebSocket-Extensions: " + OFFER + b"; server_max_window_bits=10",
            OFFER + b"; server_max_window_bits=10, " + OFFER,  # 5.: the first has preference
            OFFER + b"; server_max_window_bits=7, " + OFFER + b"; server_max_window_bits=10",
            OFFER + b"; unheard_of, " + OFFER + b"; server_max_window_bits=10",
            b"x-webkit-deflate-frame, " + OFFER + b"; server_max_window_bits=10",
        ],
    )
    def test_the_first_good_one_counts(self, server: Served[SocketEcho], value: bytes) -> None:
        answer = agreed(server, value)
        assert answer is not None
        legal(answer, bits=10, silent=False, hint=None)

    @pytest.mark.parametrize(
        "parameter",
        [
            b"unheard_of",
            b"unheard_of=1",
            b"server_no_context_takeover=1",
            b'server_no_context_takeover="1"',
            b"client_no_context_takeover=1",
            b"server_no_context_takeover; server_no_context_takeover",
            b"client_no_context_takeover; client_no_context_takeover",
            b"server_max_window_bits",
            b"server_max_window_bits=7",
            b"server_max_window_bits=16",
            b"server_max_window_bits=0",
            b"server_max_window_bits=010",
            b"server_max_window_bits=08",
            b"server_max_window_bits=+10",
            b"server_max_window_bits=-10",
            b"server_max_window_bits=1e1",
            b"server_max_window_bits=ten",
            b"server_max_window_bits=10; server_max_window_bits=10",
            b"server_max_window_bits=10; server_max_window_bits=11",
            b"client_max_window_bits=7",
            b"client_max_window_bits=16",
            b"client_max_window_bits=015",
            b"client_max_window_bits=x",
            b"client_max_window_bits; client_max_window_bits",
            b"client_max_window_bits; client_max_window_bits=10",
        ],
    )
    def test_a_parameter_that_is_none_declines_the_offer(
        self, server: Served[SocketEcho], parameter: bytes
    ) -> None:
        """7.1: "a server MUST decline", which is not to refuse: the socket opens without it."""
        assert agreed(server, OFFER + b"; " + parameter) is None

    def test_who_does_not_offer_gets_none(self, server: Served[SocketEcho]) -> None:
        assert agreed(server, b"permessage-bzip2; server_max_window_bits=10") is None
        assert agreed(server, b"x-webkit-deflate-frame") is None

    def test_switched_off_it_is_declined(self) -> None:
        options: Any = {"ws_ping_interval": None, "ws_per_message_deflate": False}
        with served(SocketEcho(), **options) as plain:
            assert agreed(plain, OFFER) is None
            assert hold(plain, frame(TEXT, b"a", rsv=4), lines=offer(OFFER)) == says(code=1002)

    @pytest.mark.parametrize("deflates", [True, False])
    def test_what_is_no_list_of_extensions_fails(self, deflates: bool) -> None:
        """RFC 6455 9.1: "MUST immediately fail", whichever extensions the server has."""
        options: Any = {"ws_ping_interval": None, "ws_per_message_deflate": deflates}
        with served(SocketEcho(), **options) as either, either.connect() as client:
            client.send(handshake(lines=offer(OFFER + b"; =1")))
            assert client.read_response().status == 400
            assert client.read_eof() == b""


class Deflating:
    """A client's side of the extension, made of nothing but zlib."""

    def __init__(self, client: RawClient, value: bytes = OFFER) -> None:
        self.client = client
        client.send(handshake(lines=offer(value)))
        answer = parameters(upgraded(client).all(b"sec-websocket-extensions"))
        assert answer is not None
        self.answer = answer
        self.bits = int(answer.get("client_max_window_bits") or 15)
        self.server_bits = int(answer.get("server_max_window_bits") or 15)
        self._forgets = "server_no_context_takeover" in answer
        self._inflate = zlib.decompressobj(-self.server_bits)
        self._deflate = zlib.compressobj(wbits=-self.bits)

    def packed(self, data: bytes) -> bytes:
        """7.2.1: compressed, flushed, and without the tail."""
        if "client_no_context_takeover" in self.answer:
            self._deflate = zlib.compressobj(wbits=-self.bits)
        raw = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        assert raw.endswith(b"\0\0\xff\xff")
        return raw[:-4]

    def read(self) -> tuple[int, bytes]:
        """The next message (or control frame), inflated if it says so; in one frame."""
        first, size = self.client._exactly(2, b"")
        if size == 126:
            size = int.from_bytes(self.client._exactly(2, b""), "big")
        elif size == 127:
            size = int.from_bytes(self.client._exactly(8, b""), "big")
        data = self.client._exactly(size, b"")
        assert first & 0xB0 == 0x80
        if first & 0x40:
            if self._forgets:
                self._inflate = zlib.decompressobj(-self.server_bits)
            data = self._inflate.decompress(data + b"\0\0\xff\xff")
            assert not self._inflate.unconsumed_tail and not self._inflate.unused_data
        return first & 15, data

    def ask(self, raw: bytes, expected: bytes, opcode: int = TEXT) -> None:
        self.client.send(raw)
        assert self.read() == (opcode, expected)


WAYS = [
    OFFER,
    OFFER + b"; server_no_context_takeover",
    OFFER + b"; client_no_context_takeover",
    OFFER + b"; server_no_context_takeover; client_no_context_takeover",
    OFFER + b"; server_max_window_bits=9",
    OFFER + b"; server_max_window_bits=9; server_no_context_takeover",
    OFFER + b"; client_max_window_bits=9",
    OFFER + b"; client_max_window_bits; server_max_window_bits=10",
]


class TestMessages:
    @pytest.mark.parametrize("value", WAYS, ids=bytes.decode)
    def test_back_and_forth(self, server: Served[SocketEcho], value: bytes) -> None:
        """Twice the same, so that a context is used where there is one; beyond any window."""
        noise = b"".join(b"%d:%x;" % (at * 7919, at * at * 31337) for at in range(9000))
        with server.connect() as client:
            socket = Deflating(client, value)
            for data in (LETTERS, LETTERS, b"", b"a", noise, LETTERS, noise, bytes(100_000)):
                socket.ask(frame(TEXT, socket.packed(data), rsv=4), data)
                socket.ask(frame(BINARY, socket.packed(data), rsv=4), data, BINARY)
                socket.ask(binary(data), data, BINARY)  # 6: not every message need be compressed

    def test_the_server_does_compress(self, server: Served[SocketEcho]) -> None:
        with server.connect() as client:
            socket = Deflating(client)
            client.send(frame(TEXT, socket.packed(LETTERS * 10), rsv=4))
            assert socket.read() == (TEXT, LETTERS * 10)
            assert len(client.received) < 1000

    @pytest.mark.parametrize("size", [1, 2, 7, 60])
    def test_in_fragments_with_pings_between(self, local: Served[SocketEcho], size: int) -> None:
        """6.1: RSV1 on the first fragment alone; 7.2.1 lets them be cut anywhere."""
        with local.connect() as client:
            socket = Deflating(client)
            pieces = cut(socket.packed(LETTERS), size)
            for at, piece in enumerate(pieces):
                fin, first = at == len(pieces) - 1, at == 0
                client.send(frame(CONT if at else TEXT, piece, fin=fin, rsv=4 if first else 0))
                if not fin:
                    socket.ask(ping(b"p"), b"p", PONG)
            assert socket.read() == (TEXT, LETTERS)

    def test_byte_by_byte(self, local: Served[SocketEcho]) -> None:
        with local.connect() as client:
            socket = Deflating(client)
            client.send_pieces(each_byte(frame(TEXT, socket.packed(LETTERS), rsv=4)))
            assert socket.read() == (TEXT, LETTERS)

    def test_the_examples_of_7_2_3(self, server: Served[SocketEcho]) -> None:
        """ "Hello" as the RFC prints it; each is its own message, contexts carry on."""
        rows = [
            ["f248cdc9c90700"],  # 7.2.3.1
            ["f248cd", "c9c90700"],
            ["f200110000"],  # 7.2.3.2: of the window
            ["000500faff48656c6c6f00"],  # 7.2.3.3: no compression
            ["f348cdc9c9070000"],  # 7.2.3.4: BFINAL
            ["f248050000 00ffff cac9c90700"],  # 7.2.3.5: two blocks
        ]
        with server.connect() as client:
            socket = Deflating(client)
            for row in rows:
                for at, piece in enumerate(row):
                    raw = bytes.fromhex(piece)
                    last = at == len(row) - 1
                    client.send(frame(CONT if at else TEXT, raw, fin=last, rsv=0 if at else 4))
                assert socket.read() == (TEXT, b"Hello"), row

    def test_nothing_is_one_byte(self, server: Served[SocketEcho]) -> None:
        """7.2.3.6"""
        with server.connect() as client:
            socket = Deflating(client)
            socket.ask(frame(TEXT, b"\0", rsv=4), b"")
            socket.ask(frame(BINARY, b"\0", rsv=4), b"", BINARY)

    def test_empty_blocks_and_empty_fragments(self, server: Served[SocketEcho]) -> None:
        with server.connect() as client:
            socket = Deflating(client)
            raw = socket.packed(LETTERS) + b"\0\0\xff\xff" + socket.packed(b"") + b"\0\0\xff\xff\0"
            client.send(frame(TEXT, fin=False, rsv=4) + frame(CONT, fin=False) + frame(CONT, raw))
            assert socket.read() == (TEXT, LETTERS)

    def test_utf_8_is_asked_of_what_was_inflated(self, server: Served[SocketEcho]) -> None:
        with server.connect() as client:
            socket = Deflating(client)
            packed = socket.packed("Grüße €𝄞".encode())
            client.send(b"".join(frame(CONT if at else TEXT, byte, fin=at == len(packed) - 1, rsv=0 if at else 4) for at, byte in enumerate(each_byte(packed))))  # fmt: skip
            assert socket.read() == (TEXT, "Grüße €𝄞".encode())


def packed(data: bytes) -> bytes:
    """A message of its own, for a connection's first."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def fails(server: Served[SocketEcho], raw: bytes, value: bytes = OFFER) -> tuple[list[bytes], int]:
    """What a deflating server echoes of this before it fails the connection, and with what code."""
    with server.connect() as client:
        client.send(handshake(lines=offer(value)) + raw)
        response = upgraded(client)
        assert (parameters(response.all(b"sec-websocket-extensions")) is not None) or value != OFFER
        frames: list[Sent] = parse_sent(client.read_eof())
        last = frames.pop()
        assert last.opcode == CLOSE and last.rsv == 0
        return [one.payload for one in frames], int.from_bytes(last.payload[:2], "big")


HELLO = packed(b"Hello")
BROKEN: dict[str, tuple[bytes, set[int]]] = {
    "rsv1-on-continuation": (
        frame(TEXT, HELLO[:3], fin=False, rsv=4) + frame(CONT, HELLO[3:], rsv=4),
        {1002},
    ),
    "rsv1-on-continuation-of-plain": (text("a", fin=False) + frame(CONT, HELLO, rsv=4), {1002}),
    "rsv1-on-middle": (
        text("a", fin=False) + frame(CONT, b"b", fin=False, rsv=4) + frame(CONT),
        {1002},
    ),
    "rsv1-on-ping": (frame(PING, HELLO, rsv=4), {1002}),
    "rsv1-on-empty-ping": (frame(PING, rsv=4), {1002}),
    "rsv1-on-pong": (frame(PONG, HELLO, rsv=4), {1002}),
    "rsv1-on-close": (frame(CLOSE, b"\x03\xe8", rsv=4), {1002}),
    "rsv2": (frame(TEXT, HELLO, rsv=2), {1002}),
    "rsv3": (frame(TEXT, HELLO, rsv=1), {1002}),
    "rsv1-and-2": (frame(TEXT, HELLO, rsv=6), {1002}),
    "rsv1-and-3": (frame(BINARY, HELLO, rsv=5), {1002}),
    "rsv1-on-reserved": (frame(3, HELLO, rsv=4), {1002}),
    "rsv1-unmasked": (frame(TEXT, HELLO, rsv=4, mask=None), {1002}),
    # 7.2.2 leaves the code open: data that is none (1007) or a broken protocol (1002).
    "no-such-block": (frame(BINARY, b"\x07\x00", rsv=4), {1002, 1007}),
    "all-ones": (frame(BINARY, b"\xff" * 30, rsv=4), {1002, 1007}),
    "bad-stored-length": (frame(BINARY, b"\x00\x05\x00\x00\x00Hello", rsv=4), {1002, 1007}),
    "before-the-window": (frame(BINARY, bytes.fromhex("f200110000"), rsv=4), {1002, 1007}),
    "behind-good-data": (frame(BINARY, HELLO + b"\xff\xff\xff", rsv=4), {1002, 1007}),
    "bad-in-fragment": (
        frame(BINARY, HELLO, fin=False, rsv=4) + frame(CONT, b"\xff" * 9, fin=False),
        {1002, 1007},
    ),
    "gzip": (frame(BINARY, bytes.fromhex("1f8b0800000000000003"), rsv=4), {1002, 1007}),
    "zlib-head": (frame(BINARY, zlib.compress(b"Hello"), rsv=4), {1002, 1007}),
    "utf-8": (frame(TEXT, packed(b"a\xff"), rsv=4), {1007}),
    "utf-8-broken-off": (frame(TEXT, packed(b"a\xe2\x82"), rsv=4), {1007}),
    "utf-8-in-fragment": (frame(TEXT, packed(b"a\xff") + b"\0\0\xff\xff", fin=False, rsv=4), {1007}),
    "utf-8-across": (frame(TEXT, packed(b"\xe2"), rsv=4) + frame(TEXT, packed(b"\x82"), rsv=4), {1007}),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "codes"), BROKEN.values(), ids=BROKEN.keys())
def test_broken(server: Served[SocketEcho], raw: bytes, codes: set[int]) -> None:
    echoed, code = fails(server, text("a") + raw + BYE)
    assert (echoed, code in codes) == ([b"a"], True), code


@pytest.mark.parametrize(
    "raw",
    [packed(LETTERS)[:-9], b"\x00\xff\x00\x00\xffHell", HELLO[:2]],
    ids=["block", "stored", "h"],
)
def test_broken_off_in_a_block(server: Served[SocketEcho], raw: bytes) -> None:
    """7.2.2 says how to inflate and not what is left over: garbage may come of it, or a failure.

    What must not: an answer to anything but this message, or to it and a failure as well.
    """
    echoed, code = fails(server, text("a") + frame(BINARY, raw, rsv=4) + BYE)
    assert (len(echoed), code) in [(2, 1000), (1, 1002), (1, 1007)]
    assert echoed[0] == b"a"


class TestTooMuch:
    def test_the_bound_is_on_what_was_inflated(self) -> None:
        with served(SocketEcho(), ws_ping_interval=None, ws_max_size=10_000) as server:
            with server.connect() as client:
                socket = Deflating(client)
                socket.ask(frame(TEXT, socket.packed(b"a" * 10_000), rsv=4), b"a" * 10_000)
            for size in (10_001, 20_000, 1 << 20):
                assert fails(server, text("a") + frame(TEXT, packed(b"b" * size), rsv=4) + BYE) == ([b"a"], 1009)  # fmt: skip
            pieces = cut(packed(b"b" * 1_000_000), 3)
            raw = b"".join(
                frame(CONT if at else TEXT, piece, fin=False, rsv=0 if at else 4)
                for at, piece in enumerate(pieces)
            )
            assert fails(server, raw) == ([], 1009)
            assert len([line for line in server.server.records if "--ws-max-size" in line]) == 4

    def test_a_megabyte_that_would_be_a_gigabyte(self) -> None:
        """The server's process is ours: its peak is what the bomb made of it."""
        deflate = zlib.compressobj(wbits=-15)
        unit = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
        bomb = frame(BINARY, unit * 1024, rsv=4)
        assert len(bomb) < 1_200_000
        with served(SocketEcho(), ws_ping_interval=None) as server:
            before = peak()
            assert fails(server, text("a") + bomb + BYE) == ([b"a"], 1009)
            assert peak() - before < 64 << 20
            assert [line for line in server.server.records if "--ws-max-size" in line]


def peak() -> int:
    """The most memory this process ever had."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) * 1024
