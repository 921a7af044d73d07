"""The dialogues of RFC 6455 as it prints them."""

from __future__ import annotations

import pytest
from tests.support.socket_client import handshake
from tests.support.websocket_frames import (
    MASK,
    PING,
    TEXT,
    Sent,
    binary,
    close,
    cont,
    frame,
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
    says,
    understood,
    upgraded,
)
from tests.wire.served import PATIENCE, Served


def test_1_3_the_handshake_of_the_rfc(server: Served[SocketEcho]) -> None:
    with server.connect() as client:
        client.send(
            b"GET /first HTTP/1.1\r\n"
            b"Host: server.example.com\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Origin: http://example.com\r\n"
            b"Sec-WebSocket-Protocol: chat, superchat\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        response = upgraded(client)
        assert response.all(b"sec-websocket-accept") == [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
        assert response.all(b"sec-websocket-protocol") == [b"chat"]
        assert not response.all(b"sec-websocket-extensions")


# Section 5.7, byte for byte, as a client would send it, and the answer of an echo.
EXAMPLES = [
    ("818537fa213d7f9f4d5158", "810548656c6c6f"),  # "Hello", masked
    ("018337fa213d7f9f4d" + "808237fa213d5b95", "810548656c6c6f"),  # in two fragments
    ("898537fa213d7f9f4d5158", "8a0548656c6c6f"),  # a ping, and its pong
    ("8a8537fa213d7f9f4d5158", ""),  # a pong nobody asked for
]


@pytest.mark.parametrize(("sent", "said"), EXAMPLES)
def test_5_7_the_examples_of_the_rfc(server: Served[SocketEcho], sent: str, said: str) -> None:
    with server.connect() as client:
        client.send(handshake() + bytes.fromhex(sent) + BYE)
        upgraded(client)
        assert client.read_eof() == bytes.fromhex(said) + b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(("size", "head"), [(256, "827e0100"), (65536, "827f0000000000010000")])
def test_5_7_the_examples_with_a_length(server: Served[SocketEcho], size: int, head: str) -> None:
    with server.connect() as client:
        client.send(handshake() + binary(bytes(size)) + BYE)
        upgraded(client)
        assert client.read_eof() == bytes.fromhex(head) + bytes(size) + b"\x88\x02\x03\xe8"


def test_the_application_and_the_peer_agree_on_the_end(server: Served[SocketEcho]) -> None:
    while not server.app.ends.empty():
        server.app.ends.get()
    for code in (1000, 1001, 3000, 4999):
        assert hold(server, close(code)) == says(code=code)
        assert server.app.ends.get(timeout=PATIENCE) == code


class TestTheJudge:
    """What reads the server's frames: a judge that sees nothing would acquit every server."""

    def test_a_good_dialogue(self) -> None:
        raw = bytes.fromhex("01014b8a0170800142880203e9")
        assert understood(raw) == Talk(["KB"], 1001, [b"p"])
        assert understood(b"") == Talk([], None, [])
        assert understood(b"\x88\x00") == Talk([], 1005, [])

    @pytest.mark.parametrize(
        "raw",
        [
            text("a"),  # masked
            b"\x81\x02a",  # broken off
            b"\x81\x7e\x00\x01a",  # a length not in its shortest form
            b"\xc1\x01a",  # RSV1
            b"\x83\x00",  # reserved
            b"\x80\x00",  # a continuation of nothing
            b"\x01\x00",  # a message without an end
            b"\x01\x00\x81\x00",
            b"\x09\x00",  # a ping in fragments
            b"\x88\x01\x03",
            b"\x88\x03\x03\xe8\xff",
            b"\x88\x00\x88\x00",
            b"\x88\x00\x81\x01a",
            b"\x81\x01\xff",
        ],
    )
    def test_a_bad_one(self, raw: bytes) -> None:
        with pytest.raises((AssertionError, UnicodeDecodeError)):
            understood(raw)

    def test_the_frames_we_send_are_those_of_5_7(self) -> None:
        assert text("Hello") == bytes.fromhex(EXAMPLES[0][0])
        assert text("Hel", fin=False) + cont(b"lo", fin=True) == bytes.fromhex(EXAMPLES[1][0])
        assert ping(b"Hello") == bytes.fromhex(EXAMPLES[2][0])
        assert pong(b"Hello") == bytes.fromhex(EXAMPLES[3][0])
        assert frame(TEXT, b"Hello", mask=None) == b"\x81\x05Hello"
        assert parse_sent(b"\x89\x00") == [Sent(PING, b"")]
        assert len(MASK) == 4
