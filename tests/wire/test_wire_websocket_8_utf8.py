"""RFC 6455 8.1: what is not UTF-8 fails the connection with 1007, at the first byte that shows it.

The decoder these tests judge by is the table of RFC 3629, section 4, written down once more here.
"""

from __future__ import annotations

import pytest
from tests.support.raw import RawClient
from tests.support.socket_client import connected, handshake
from tests.support.websocket_frames import (
    BINARY,
    CLOSE,
    MASK,
    PING,
    TEXT,
    binary,
    cont,
    each_byte,
    fragments,
    frame,
    head,
    masked,
    ping,
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

GOOD = {
    "ascii": bytes(range(128)),
    "nul": b"\0",
    "two-low": b"\xc2\x80",
    "two-high": b"\xdf\xbf",
    "three-low": b"\xe0\xa0\x80",
    "before-surrogates": b"\xed\x9f\xbf",
    "after-surrogates": b"\xee\x80\x80",
    "replacement": b"\xef\xbf\xbd",
    "noncharacter-fffe": b"\xef\xbf\xbe",
    "noncharacter-ffff": b"\xef\xbf\xbf",
    "four-low": b"\xf0\x90\x80\x80",
    "noncharacter-1fffe": b"\xf0\x9f\xbf\xbe",
    "four-high": b"\xf4\x8f\xbf\xbf",
    "byte-order-mark": b"\xef\xbb\xbfa",
    "mixed": "κόσμε, Grüße €𝄞 \u200d\u0301".encode(),
}

# Before each of these "κ" stands, behind it letters: the first byte that shows the fault is the
# one after the "|"; without one it shows only when the message ends.
BAD = {
    "continuation-80": "|80",
    "continuation-bf": "|bf",
    "overlong-c0": "|c0 80",
    "overlong-slash": "|c0 af",
    "overlong-c1": "|c1 bf",
    "two-then-ascii": "c2|41",
    "two-then-two": "c2|c2",
    "three-then-ascii": "e2|41",
    "three-one-then-ascii": "e2 82|41",
    "three-one-then-lead": "e2 82|e2",
    "overlong-e0-80": "e0|80 80",
    "overlong-e0-9f": "e0|9f bf",
    "surrogate-d800": "ed|a0 80",
    "surrogate-dfff": "ed|bf bf",
    "surrogate-pair": "ed|a0 80 ed b0 80",
    "overlong-f0-80": "f0|80 80 80",
    "overlong-f0-8f": "f0|8f bf bf",
    "beyond-f4-90": "f4|90 80 80",
    "beyond-f4-bf": "f4|bf bf bf",
    "beyond-f5": "|f5 80 80 80",
    "beyond-f7": "|f7 bf bf bf",
    "five": "|f8 88 80 80 80",
    "six": "|fc 84 80 80 80 80",
    "fe": "|fe",
    "ff": "|ff",
    "four-then-ascii": "f0|41",
    "four-one-then-ascii": "f0 90|41",
    "four-two-then-ascii": "f0 90 80|41",
    "continuation-after-two": "c3 a9|a9",
    "continuation-after-four": "f0 90 80 80|80",
    "latin-1": "47 72|fc df 65",
    "utf-16": "|ff fe 41 00",
}
BROKEN_OFF = ["c3", "e2", "e2 82", "ed 9f", "f0", "f0 90", "f0 90 80", "f4 8f bf"]

KAPPA = "κ".encode()


def halves(row: str) -> tuple[bytes, bytes]:
    """What may still become good, and what follows: its first byte is the fault."""
    before, after = row.split("|")
    return KAPPA + bytes.fromhex(before), bytes.fromhex(after)


def lives(client: RawClient) -> None:
    """A ping is answered: nothing that was sent before it has failed the connection."""
    client.send(ping(b"?"))
    assert client._exactly(3, b"") == b"\x8a\x01?"


bad_rows = pytest.mark.parametrize("row", BAD.values(), ids=BAD.keys())


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
class TestGood:
    def test_comes_back_as_it_was(self, server: Served[SocketEcho], data: bytes) -> None:
        assert hold(server, text(data) + text(data * 30) + BYE) == says(
            data.decode(), data.decode() * 30
        )

    def test_in_fragments_of_a_byte(self, server: Served[SocketEcho], data: bytes) -> None:
        raw = ping(b"p").join(fragments(TEXT, each_byte(data)))
        pongs = [b"p"] * (len(data) - 1)
        assert hold(server, raw + BYE) == says(data.decode(), pongs=pongs)

    def test_in_packets_of_a_byte(self, local: Served[SocketEcho], data: bytes) -> None:
        assert hold_bytewise(local, text(data) + BYE) == says(data.decode())


@bad_rows
class TestBad:
    def test_whole(self, server: Served[SocketEcho], row: str) -> None:
        server.app.heard.clear()
        data = b"".join(halves(row))
        assert hold(server, text("a") + text(data) + BYE) == says("a", code=1007)
        assert hold(server, text("a") + text(data + b"and so on") + BYE) == says("a", code=1007)
        assert server.app.heard == ["a", "a"]

    def test_a_frame_that_never_comes_whole(self, server: Served[SocketEcho], row: str) -> None:
        before, after = halves(row)
        with server.connect() as client:
            client.send(handshake() + text("a") + head(TEXT, 100))
            upgraded(client)
            payload = masked(before + after[:1], MASK)
            client.send(payload[:-1])
            assert client._exactly(3, b"") == b"\x81\x01a"
            client.send(payload[-1:])
            assert understood(client.read_eof()) == says(code=1007)

    def test_a_fragment_of_a_message_without_an_end(
        self, server: Served[SocketEcho], row: str
    ) -> None:
        before, after = halves(row)
        with server.connect() as client:
            client.send(handshake() + text(before, fin=False))
            upgraded(client)
            lives(client)
            client.send(cont(after[:1]))
            assert understood(client.read_eof()) == says(code=1007)

    def test_a_fragment_for_every_byte(self, server: Served[SocketEcho], row: str) -> None:
        before, after = halves(row)
        with server.connect() as client:
            client.send(handshake() + text("", fin=False))
            upgraded(client)
            for byte in each_byte(before):
                client.send(cont(byte))
                lives(client)
            client.send(cont(after[:1]))
            assert understood(client.read_eof()) == says(code=1007)

    def test_far_inside_a_large_frame(self, server: Served[SocketEcho], row: str) -> None:
        before, after = halves(row)
        data = b"x" * 100_000 + before + after[:1]
        with server.connect() as client:
            client.send(handshake() + head(TEXT, 200_000) + masked(data, MASK))
            upgraded(client)
            assert understood(client.read_eof()) == says(code=1007)

    def test_byte_by_byte(self, local: Served[SocketEcho], row: str) -> None:
        data = b"".join(halves(row))
        assert hold_bytewise(local, text("a") + text(data + b"b") + BYE) == says("a", code=1007)

    def test_is_nobody_s_business_elsewhere(self, server: Served[SocketEcho], row: str) -> None:
        """5.6 and 5.5.2: in binary messages and in pings there are only bytes."""
        data = b"".join(halves(row))
        raw = binary(data) + ping(data) + b"".join(fragments(BINARY, each_byte(data)))
        assert hold(server, raw + BYE) == says(data, data, pongs=[data])

    def test_in_the_reason_of_a_close(self, server: Served[SocketEcho], row: str) -> None:
        raw = frame(CLOSE, b"\x03\xe8" + b"".join(halves(row)))
        assert hold(server, text("a") + raw) == says("a", code=1007)


@pytest.mark.parametrize("row", BROKEN_OFF)
class TestBrokenOff:
    """A character without its end is a fault once the message is over, and not before."""

    def test_at_the_end_of_a_message(self, server: Served[SocketEcho], row: str) -> None:
        data = KAPPA + bytes.fromhex(row)
        assert hold(server, text("a") + text(data) + BYE) == says("a", code=1007)
        assert hold(server, text(data) + text("a") + BYE) == says(code=1007)

    @pytest.mark.parametrize("last", [b"", b"a"])
    def test_at_the_end_of_the_last_fragment(
        self, server: Served[SocketEcho], row: str, last: bytes
    ) -> None:
        with server.connect() as client:
            client.send(handshake() + text(KAPPA + bytes.fromhex(row), fin=False))
            upgraded(client)
            lives(client)
            client.send(cont(b""))
            lives(client)
            client.send(cont(last, fin=True) + BYE)
            assert understood(client.read_eof()) == says(code=1007)

    def test_a_new_message_does_not_mend_it(self, server: Served[SocketEcho], row: str) -> None:
        rest = b"\x80" * 3
        raw = text(bytes.fromhex(row)) + text(rest) + BYE
        assert hold(server, raw) == says(code=1007)

    def test_in_a_close(self, server: Served[SocketEcho], row: str) -> None:
        assert hold(server, frame(CLOSE, b"\x03\xe8" + bytes.fromhex(row))) == says(code=1007)


def test_no_message_s_fault_is_the_next_one_s(server: Served[SocketEcho]) -> None:
    """The decoder starts anew: after binaries, pings and open ends there is no state left."""
    raw = binary(b"\xc3") + frame(PING, b"\xe2\x82") + text("é") + binary(b"\xf0") + text("€")
    assert hold(server, raw + BYE) == says(b"\xc3", "é", b"\xf0", "€", pongs=[b"\xe2\x82"])


@pytest.mark.parametrize("size", [65_530, 131_072, 1 << 20])
def test_good_text_of_any_length_however_it_is_cut(server: Served[SocketEcho], size: int) -> None:
    """Characters across every edge a reader may have."""
    for shift in range(4):
        data = b"x" * shift + "𝄞".encode() * (size // 4)
        pieces = [data[at : at + 65_521] for at in range(0, len(data), 65_521)]
        with connected(server.server.address) as client:
            for piece in fragments(TEXT, pieces):
                client.send(piece)
            assert client.read() == (TEXT, data)
