"""RFC 6455 5.4 and 5.5: messages in fragments, and the control frames that may come between them."""

from __future__ import annotations

from queue import Empty

import pytest
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
    close,
    cont,
    fragments,
    frame,
    head,
    parse_sent,
    ping,
    pong,
    text,
)
from tests.wire.dialogue import (
    BYE,
    SocketEcho,
    Talk,
    hold,
    hold_bytewise,
    says,
    upgraded,
)
from tests.wire.served import PATIENCE, Served

P = ping(b"p")
START = text("a", fin=False)


def message(*pieces: bytes, opcode: int = TEXT, between: bytes = b"") -> bytes:
    return between.join(fragments(opcode, pieces))


GOOD: dict[str, tuple[bytes, Talk]] = {
    "two": (message(b"a", b"b"), says("ab")),
    "three-binary": (message(b"a", b"", b"\xff", opcode=BINARY), says(b"a\xff")),
    "first-empty": (message(b"", b"a", b"b"), says("ab")),
    "last-empty": (message(b"a", b"b", b""), says("ab")),
    "all-empty": (message(b"", b"", b""), says("")),
    "all-empty-binary": (message(b"", b"", opcode=BINARY), says(b"")),
    "bytes": (message(*[b"%d" % (at % 10) for at in range(50)]), says("0123456789" * 5)),
    "two-messages": (message(b"a", b"b") + message(b"c", b"d", opcode=BINARY), says("ab", b"cd")),
    "whole-after": (message(b"a", b"b") + text("c"), says("ab", "c")),
    "ping-between": (message(b"a", b"b", between=P), says("ab", pongs=[b"p"])),
    "pings-between": (message(b"a", b"b", b"c", between=P * 2), says("abc", pongs=[b"p"] * 4)),
    "pong-between": (message(b"a", b"b", between=pong(b"q")), says("ab")),
    "ping-in-character": (message(b"\xc3", b"\xa9", between=P), says("é", pongs=[b"p"])),
    "ping-before-and-after": (P + message(b"a", b"b") + P, says("ab", pongs=[b"p"] * 2)),
    "16-bit-piece": (message(b"a" * 126, b"b" * 300), says("a" * 126 + "b" * 300)),
}

BAD: dict[str, tuple[bytes, Talk]] = {
    "continuation-of-nothing": (cont(b"b", fin=True), says(code=1002)),
    "continuation-of-nothing-open": (cont(b"b"), says(code=1002)),
    "continuation-of-nothing-empty": (cont(fin=True), says(code=1002)),
    "continuation-after-whole": (text("a") + cont(b"b", fin=True), says("a", code=1002)),
    "continuation-after-last": (
        message(b"a", b"b") + cont(b"c", fin=True),
        says("ab", code=1002),
    ),
    "continuation-after-ping": (P + cont(b"b", fin=True), says(code=1002, pongs=[b"p"])),
    "text-inside": (START + text("b"), says(code=1002)),
    "binary-inside": (START + binary(b"b"), says(code=1002)),
    "open-text-inside": (START + text("b", fin=False), says(code=1002)),
    "text-inside-binary": (frame(BINARY, b"a", fin=False) + text("b"), says(code=1002)),
    "text-inside-empty": (text("", fin=False) + text("b"), says(code=1002)),
    "text-inside-after-ping": (START + P + text("b"), says(code=1002, pongs=[b"p"])),
    "after-a-good-one": (message(b"a", b"b") + START + text("c"), says("ab", code=1002)),
    "open-ping": (frame(PING, b"p", fin=False), says(code=1002)),
    "open-pong": (frame(PONG, b"p", fin=False), says(code=1002)),
    "open-close": (frame(CLOSE, b"\x03\xe8", fin=False), says(code=1002)),
    "ping-in-fragments": (frame(PING, b"p", fin=False) + cont(b"q", fin=True), says(code=1002)),
    "open-ping-inside": (START + frame(PING, fin=False) + cont(fin=True), says(code=1002)),
    "rsv-on-continuation": (START + frame(CONT, b"b", rsv=4), says(code=1002)),
    "reserved-inside": (START + frame(5), says(code=1002)),
    "long-ping": (frame(PING, b"p" * 126), says(code=1002)),
    "long-pong": (frame(PONG, b"p" * 126), says(code=1002)),
    "long-close": (frame(CLOSE, b"\x03\xe8" + b"p" * 124), says(code=1002)),
    "longer-ping": (frame(PING, b"p" * 65536), says(code=1002)),
    "long-ping-inside": (START + frame(PING, b"p" * 126), says(code=1002)),
    "ping-in-16-bits": (frame(PING, b"p" * 125, length_form=16), says(code=1002)),
    "ping-in-64-bits": (frame(PING, b"p", length_form=64), says(code=1002)),
    "long-ping-announced": (head(PING, 126), says(code=1002)),
}

# A close ends the message that it comes into: 5.4 lets control frames in, 5.5.1 makes it the last.
ENDED: dict[str, tuple[bytes, Talk]] = {
    "close-inside": (START + close(1001) + cont(b"b", fin=True), says(code=1001)),
    "close-inside-empty": (START + close() + cont(b"b", fin=True), says(code=1005)),
    "close-after-ping": (START + P + close(1001), says(code=1001, pongs=[b"p"])),
    "nothing-after": (BYE + message(b"a", b"b", between=P), says()),
}

TABLE = {name: (raw + BYE, talk) for name, (raw, talk) in (GOOD | BAD).items()} | ENDED
rows = pytest.mark.parametrize(("raw", "said"), TABLE.values(), ids=TABLE.keys())


@rows
def test_dialogue(server: Served[SocketEcho], raw: bytes, said: Talk) -> None:
    server.app.heard.clear()
    assert hold(server, raw) == said
    assert server.app.heard == said.messages, "what is not whole is not delivered"


@rows
def test_behind_a_good_message(server: Served[SocketEcho], raw: bytes, said: Talk) -> None:
    """Strictly read: what was whole before a fault in the same packet is echoed all the same."""
    expected = Talk(["before", *said.messages], said.code, [b"0", *said.pongs])
    assert hold(server, text("before") + ping(b"0") + raw) == expected


@pytest.mark.parametrize(
    ("raw", "said"),
    [row for row in TABLE.values() if len(row[0]) < 1000],
    ids=[name for name, row in TABLE.items() if len(row[0]) < 1000],
)
def test_byte_by_byte(local: Served[SocketEcho], raw: bytes, said: Talk) -> None:
    assert hold_bytewise(local, raw) == said


def test_thousands_of_fragments(server: Served[SocketEcho]) -> None:
    pieces = [b"%d" % (at % 10) for at in range(5000)]
    expected = b"".join(pieces).decode()
    assert hold(server, message(*pieces) + BYE) == says(expected)
    assert hold(server, message(b"", *[b""] * 5000, b"a") + BYE) == says("a")


class TestPing:
    """5.5.2 and 5.5.3"""

    def test_any_payload_comes_back(self, server: Served[SocketEcho]) -> None:
        payloads = [bytes((size + at) % 256 for at in range(size)) for size in range(126)]
        with server.connect() as client:
            client.send(handshake())
            upgraded(client)
            for payload in payloads:  # one after the other: no pong may stand for two pings
                client.send(ping(payload))
                first, size = client._exactly(2, b"")
                assert (first, size) == (0x80 | PONG, len(payload))
                assert client._exactly(size, b"") == payload
            client.send(BYE)
            assert client.read_eof() == b"\x88\x02\x03\xe8"

    def test_ten_in_one_packet_are_answered_in_order(self, server: Served[SocketEcho]) -> None:
        payloads = [b"%d" % at for at in range(10)]
        raw = b"".join(map(ping, payloads))
        assert hold(server, raw + BYE) == says(pongs=payloads)

    def test_it_need_not_wait_for_the_end_of_a_message(self, server: Served[SocketEcho]) -> None:
        with server.connect() as client:
            client.send(handshake() + START)
            upgraded(client)
            for payload in (b"", b"one", b"\xff" * 125):
                client.send(ping(payload) + cont(b"."))
                pong = bytes((0x80 | PONG, len(payload))) + payload
                assert client._exactly(len(pong), b"") == pong
            client.send(cont(b"b", fin=True) + BYE)
            assert client.read_eof() == b"\x81\x05a...b" + b"\x88\x02\x03\xe8"

    def test_pongs_are_never_answered_nor_told(self, server: Served[SocketEcho]) -> None:
        server.app.heard.clear()
        raw = pong() + pong(b"\xff" * 125) + text("a") + pong(b"tide") * 100
        assert hold(server, raw + BYE) == says("a")
        assert server.app.heard == ["a"]

    def test_none_is_answered_behind_a_close(self, server: Served[SocketEcho]) -> None:
        assert hold(server, ping(b"1") + BYE + ping(b"2")) == says(pongs=[b"1"])

    def test_ours_while_a_close_of_ours_is_unanswered(self, server: Served[SocketEcho]) -> None:
        """5.5.2: a ping is answered "unless it already received a Close frame"; ours is no such."""
        with server.connect() as client:
            client.send(handshake("/close"))
            upgraded(client)
            said = b"\x88\x08" + (3001).to_bytes(2, "big") + b"enough"
            assert client._exactly(len(said), b"") == said
            client.send(ping(b"p") + text("not read") + close(3001))
            assert parse_sent(client.read_eof()) == [Sent(PONG, b"p")]


def test_a_message_without_an_end_is_not_delivered(server: Served[SocketEcho]) -> None:
    server.app.heard.clear()
    while not server.app.ends.empty():
        server.app.ends.get()
    with server.connect() as client:
        client.send(handshake() + START + cont(b"b") * 10)
        upgraded(client)
        client.half_close()
        assert client.read_eof() == b"", "1006 is never sent (7.4.1)"
    try:
        assert server.app.ends.get(timeout=PATIENCE) == 1006
    except Empty:
        pytest.fail("the application was not told of the end")
    assert server.app.heard == []
