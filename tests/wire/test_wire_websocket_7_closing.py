"""RFC 6455 section 7 and 5.5.1: the closing handshake, its codes and reasons, and the TCP end."""

from __future__ import annotations

import pytest
from tests.support.socket_client import handshake
from tests.support.websocket_frames import (
    CLOSE,
    binary,
    close,
    cont,
    frame,
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
    understood,
    upgraded,
)
from tests.wire.served import PATIENCE, Served, get, served

TRAP = get("/trap")
OURS = b"\x88\x08" + (3001).to_bytes(2, "big") + b"enough"


def ends_so_far(server: Served[SocketEcho]) -> None:
    """Forget how the sockets before this one ended."""
    while not server.app.ends.empty():
        server.app.ends.get()


# 7.4.1, 7.4.2 and the registry of 11.7: who may be on the wire. 1004 to 1006 and 1015 may not.
ALLOWED = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3001, 3500, 3999, 4000, 4500, 4999]
NEVER = [0, 1, 2, 255, 256, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999]
BEYOND = [5000, 5001, 10000, 32767, 32768, 65535]  # 7.4.2 gives them no meaning
SAMPLE = range(7, 5000, 41)


class TestCodes:
    def test_those_allowed_come_back(self, server: Served[SocketEcho]) -> None:
        ends_so_far(server)
        codes = sorted({*ALLOWED, *(code for code in SAMPLE if code >= 3000)})
        assert [hold(server, close(code)) for code in codes] == [says(code=code) for code in codes]
        assert [server.app.ends.get(timeout=PATIENCE) for _ in codes] == codes

    def test_the_others_are_a_protocol_error(self, server: Served[SocketEcho]) -> None:
        ends_so_far(server)
        codes = sorted({*NEVER, *BEYOND, *(code for code in SAMPLE if code < 3000)} - {*ALLOWED})
        wrong = {code: talk for code in codes if (talk := hold(server, close(code))).code != 1002}
        assert not wrong
        assert {server.app.ends.get(timeout=PATIENCE) for _ in codes} == {1002}

    def test_none_is_1005_and_answered_with_none(self, server: Served[SocketEcho]) -> None:
        ends_so_far(server)
        with server.connect() as client:
            client.send(handshake() + close())
            upgraded(client)
            assert client.read_eof() == b"\x88\x00"
        assert server.app.ends.get(timeout=PATIENCE) == 1005

    def test_none_at_all_is_1006_and_never_on_the_wire(self, server: Served[SocketEcho]) -> None:
        ends_so_far(server)
        with server.connect() as client:
            client.send(handshake() + text("a"))
            upgraded(client)
            client.half_close()
            talk = understood(client.read_eof())
        assert talk.code is None
        assert server.app.ends.get(timeout=PATIENCE) == 1006


FRAMES: dict[str, tuple[bytes, Talk]] = {
    "reason": (close(1000, "good bye"), says()),
    "reason-utf-8": (close(1000, "Grüße €𝄞"), says()),
    "reason-at-most": (close(1000, "é" * 61 + "a"), says()),
    "reason-nul": (close(1000, b"\0"), says()),
    "reason-too-long": (frame(CLOSE, b"\x03\xe8" + b"a" * 124), says(code=1002)),
    "reason-of-bad-code": (close(1005, "a"), says(code=1002)),
    "one-byte": (frame(CLOSE, b"\x03"), says(code=1002)),
    "reason-ff": (close(1000, b"\xff"), says(code=1007)),
    "reason-broken-off": (close(1000, b"abc\xc3"), says(code=1007)),
    "reason-overlong": (close(1000, b"\xc0\xaf"), says(code=1007)),
    "reason-surrogate": (close(1000, b"\xed\xa0\x80"), says(code=1007)),
    "reason-after-110000": (close(1000, b"\xf4\x90\x80\x80"), says(code=1007)),
    "twice": (close(1001) + BYE, says(code=1001)),
    "data-after": (BYE + text("a") + binary(b"b") + cont(b"c"), says()),
    "ping-after": (BYE + ping(b"p") + pong(), says()),
    "nonsense-after": (BYE + b"\xff" * 50, says()),
    "request-after": (BYE + TRAP, says()),
    "after-message": (text("a") + close(3000) + text("b"), says("a", code=3000)),
    "after-open-message": (text("a", fin=False) + BYE, says()),
    "after-ping": (ping(b"p") + close(1001, "away"), says(code=1001, pongs=[b"p"])),
    "unmasked": (frame(CLOSE, b"\x03\xe8", mask=None), says(code=1002)),
    "in-fragments": (frame(CLOSE, b"\x03", fin=False) + cont(b"\xe8"), says(code=1002)),
}
rows = pytest.mark.parametrize(("raw", "said"), FRAMES.values(), ids=FRAMES.keys())


@rows
def test_close_frame(server: Served[SocketEcho], raw: bytes, said: Talk) -> None:
    """The server ends TCP itself (7.1.1), without a reset, and this client does not have to."""
    server.app.calls.clear()
    server.app.heard.clear()
    assert hold(server, raw) == said
    assert server.app.heard == said.messages
    assert server.app.calls == [("websocket", "/")], "what follows a socket is no request"


@rows
def test_close_frame_byte_by_byte(local: Served[SocketEcho], raw: bytes, said: Talk) -> None:
    assert hold_bytewise(local, raw) == said


def test_megabytes_behind_a_close_do_not_reset_its_answer(server: Served[SocketEcho]) -> None:
    assert hold(server, BYE + binary(bytes(5_000_000)) * 2) == says()


class TestOurClose:
    """The application closes: its frame goes out once, and the peer's answer is waited for."""

    def test_the_peer_answers(self, server: Served[SocketEcho]) -> None:
        with server.connect() as client:
            client.send(handshake("/close"))
            upgraded(client)
            assert client._exactly(len(OURS), b"") == OURS
            client.send(close(3001, "enough"))
            assert client.read_eof() == b""

    @pytest.mark.parametrize(
        "late",
        [
            text("a") + binary(b"b"),
            binary(bytes(300_000)),
            text("a", fin=False) + cont(b"b"),
            pong(b"p"),
            TRAP[:0],
        ],
        ids=["messages", "large", "open", "pong", "nothing"],
    )
    def test_what_was_on_its_way_is_read_over(
        self, server: Served[SocketEcho], late: bytes
    ) -> None:
        server.app.heard.clear()
        with server.connect() as client:
            client.send(handshake("/close"))
            upgraded(client)
            assert client._exactly(len(OURS), b"") == OURS
            client.send(late)
            client.send(close(3001))
            assert client.read_eof() == b""
        assert server.app.heard == []

    def test_both_close_at_once(self, server: Served[SocketEcho]) -> None:
        """7.1.5: each has sent its code; there is no third frame."""
        with server.connect() as client:
            client.send(handshake("/close") + close(4000, "mine"))
            upgraded(client)
            assert understood(client.read_eof()).code in (3001, 4000)

    @pytest.mark.parametrize(
        "bad", [b"\xff\xff", frame(3), close(1005), text(b"\xff"), frame(1, b"a", mask=None), TRAP]
    )
    def test_a_fault_behind_it_ends_the_wait(self, server: Served[SocketEcho], bad: bytes) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(handshake("/close"))
            upgraded(client)
            assert client._exactly(len(OURS), b"") == OURS
            client.send(bad)
            assert client.read_eof() == b"", "one close frame, never two"
        assert server.app.calls == [("websocket", "/close")]

    def test_a_peer_that_leaves_instead(self, server: Served[SocketEcho]) -> None:
        with server.connect() as client:
            client.send(handshake("/close"))
            upgraded(client)
            assert client._exactly(len(OURS), b"") == OURS
            client.half_close()
            assert client.read_eof() == b""


def test_a_server_that_stops_says_1012() -> None:
    """The registry of 11.7: "service restart"."""
    with served(SocketEcho(), ws_ping_interval=None) as server, server.connect() as client:
        client.send(handshake() + text("a"))
        upgraded(client)
        assert client._exactly(3, b"") == b"\x81\x01a"
        server.server.call(server.server.server.stop)
        client.read_until(b"\x88")
        client.send(close(1012))
        assert understood(client.read_eof()) == says(code=1012)
