"""RFC 6455 10.4 and 7.4.1: what is too much for the server ends with 1009, as early as it shows.

And what an operator reads of it: whoever is cut off for being hostile, the log names the limit.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from tests.support.apps import lifespan
from tests.support.raw import RawClient
from tests.support.socket_client import handshake
from tests.support.websocket_frames import (
    BINARY,
    PING,
    TEXT,
    binary,
    close,
    cont,
    fragments,
    frame,
    head,
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
from tests.wire.served import PATIENCE, Served, served

from tidegate.types import Receive, Scope, Send

MOST = 1000
P = ping(b"p")


@pytest.fixture(scope="module")
def server() -> Iterator[Served[SocketEcho]]:
    with served(SocketEcho(), ws_ping_interval=None, ws_max_size=MOST) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served[SocketEcho]]:
    path = str(tmp_path_factory.mktemp("wire") / "s")
    with served(SocketEcho(), ws_ping_interval=None, ws_max_size=MOST, uds=path) as running:
        yield running


def pieces(*sizes: int, between: bytes = b"", last: bool = True) -> bytes:
    """One binary message in fragments of these sizes; without an end if not `last`."""
    frames = fragments(BINARY, [b"a" * size for size in sizes])
    return between.join(frames if last else frames[:-1])


FULL = b"a" * MOST
TABLE: dict[str, tuple[bytes, Talk]] = {
    "exactly": (binary(FULL) + BYE, says(FULL)),
    "exactly-text": (text(FULL) + BYE, says(FULL.decode())),
    "exactly-in-two": (pieces(999, 1) + BYE, says(FULL)),
    "exactly-in-pings": (pieces(500, 500, between=ping(b"a" * 125)) + BYE, says(FULL, pongs=[b"a" * 125])),
    "exactly-and-nothing": (pieces(1000, 0, 0) + BYE, says(FULL)),
    "exactly-three-times": (binary(FULL) * 3 + BYE, says(FULL, FULL, FULL)),
    "one-more": (binary(FULL + b"a") + BYE, says(code=1009)),
    "one-more-text": (text("a" * 1001) + BYE, says(code=1009)),
    "bytes-not-characters": (text("é" * 501) + BYE, says(code=1009)),
    "one-more-in-two": (pieces(1000, 1) + BYE, says(code=1009)),
    "one-more-in-many": (pieces(*[1] * 1001) + BYE, says(code=1009)),
    "one-more-between-pings": (pieces(999, 2, between=P) + BYE, says(code=1009, pongs=[b"p"])),
    "one-more-without-end": (pieces(600, 401, 0, last=False), says(code=1009)),
    "announced": (head(BINARY, 1001), says(code=1009)),
    "announced-in-64-bits": (head(BINARY, 1 << 40), says(code=1009)),
    "announced-in-continuation": (pieces(500, 0, last=False) + head(0, 501), says(code=1009)),
    "announced-in-last": (pieces(500, 0, last=False) + head(0, 501, fin=False), says(code=1009)),
    "announced-behind-good": (text("a") + head(TEXT, 1001), says("a", code=1009)),
    "behind-good": (text("a") + binary(FULL + b"a") + text("b"), says("a", code=1009)),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "said"), TABLE.values(), ids=TABLE.keys())
def test_size(server: Served[SocketEcho], raw: bytes, said: Talk) -> None:
    server.app.heard.clear()
    assert hold(server, raw) == said
    assert server.app.heard == said.messages


@pytest.mark.parametrize("name", [name for name in TABLE if "announced" in name])
def test_an_announcement_byte_by_byte(local: Served[SocketEcho], name: str) -> None:
    assert hold_bytewise(local, TABLE[name][0]) == TABLE[name][1]


def test_fragments_of_nothing_are_no_size(server: Served[SocketEcho]) -> None:
    raw = text("", fin=False) + cont() * 20_000 + cont(b"a", fin=True)
    assert hold(server, raw + BYE) == says("a")


FLOODS = {
    "fragments-of-nothing": (text("", fin=False) + cont() * 80_000 + cont(b"a", fin=True), ["a"]),
    "fragments": (text("", fin=False) + cont(b"") * 79_000 + cont(b"b") * MOST, []),
    "pings": (ping(b"p" * 125) * 10_000, []),
    "small-pings": (ping() * 80_000, []),
    "pongs": (pong(b"p") * 80_000, []),
    "messages": (text("a") * 80_000, ["a"] * 80_000),
}


@pytest.mark.parametrize(("raw", "messages"), FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_is_worked_off_to_its_end(
    server: Served[SocketEcho], raw: bytes, messages: list[str | bytes]
) -> None:
    """Where reading had to stop it goes on again: half a megabyte and more, then the close."""
    with server.connect() as client:
        client.send(handshake())
        upgraded(client)
        client.send_beside(raw + BYE)
        talk = understood(client.read_eof())
    assert (talk.messages, talk.code) == (messages, 1000)


def test_more_messages_than_are_read_ahead(server: Served[SocketEcho]) -> None:
    messages = [b"%d" % at * 20 for at in range(500)]
    assert hold(server, b"".join(map(binary, messages)) + BYE) == says(*messages)


@pytest.mark.parametrize("queue", [0, 1, 2, 32])
@pytest.mark.parametrize(
    ("last", "code"),
    [(BYE, 1000), (b"\xff\xff", 1002), (text(b"\xff"), 1007)],
    ids=["close", "bad", "utf-8"],
)
def test_what_was_whole_is_echoed_before_the_end_however_short_the_queue(
    last: bytes, code: int, queue: int
) -> None:
    """An earlier message has its answer, wherever it waited when the end came behind it."""
    wrong = []
    with served(SocketEcho(), ws_ping_interval=None, ws_max_queue=queue) as server:
        for size, times in itertools.product((1, 999, 65_535, 65_536, 200_000), (1, 2, 3)):
            message = bytes(size)
            if hold(server, binary(message) * times + last) != says(*[message] * times, code=code):
                wrong.append(f"{times} of {size} bytes")
    assert not wrong


# ---------------------------------------------------------------------------- in the log

HOSTILE: dict[str, tuple[bytes, str, str]] = {
    "unmasked": (frame(TEXT, b"a", mask=None), "1002", "mask"),
    "oversized": (binary(FULL + b"a"), "1009", "--ws-max-size"),
    "announced": (head(BINARY, 1 << 30), "1009", "--ws-max-size"),
    "fragments": (pieces(*[100] * 11), "1009", "--ws-max-size"),
    "reserved-bits": (frame(TEXT, b"a", rsv=2), "1002", "reserved"),
    "reserved-opcode": (frame(3), "1002", "unknown"),
    "utf-8": (text(b"\xff"), "1007", "UTF-8"),
    "length-form": (frame(TEXT, b"a", length_form=64), "1002", "length"),
    "long-ping": (frame(PING, b"a" * 126), "1002", "control"),
    "open-ping": (frame(PING, fin=False), "1002", "control"),
    "continuation": (cont(fin=True), "1002", "continuation"),
    "new-message": (text("a", fin=False) + text("b"), "1002", "message"),
    "close-code": (close(1005), "1002", "code"),
    "close-reason": (close(1000, b"\xff"), "1007", "UTF-8"),
}


@pytest.mark.parametrize(("raw", "code", "word"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_fault_is_named_once(
    server: Served[SocketEcho], raw: bytes, code: str, word: str
) -> None:
    before = len(server.server.logged(logging.INFO))
    with server.connect() as client:
        host, port = client.socket.getsockname()[:2]
        client.send(handshake() + raw)
        upgraded(client)
        client.read_eof()
    lines = server.server.logged(logging.INFO)[before:]  # it is told before the close frame leaves
    assert len(lines) == 1, lines
    assert f"{host}:{port} " in lines[0]
    assert code in lines[0] and word.lower() in lines[0].lower(), lines


@pytest.mark.parametrize("raw", [BYE, close(), close(3000, "bye"), text("a") + BYE])
def test_who_does_nothing_wrong_is_not_in_the_log(server: Served[SocketEcho], raw: bytes) -> None:
    before = len(server.server.logged(logging.INFO))
    hold(server, raw)
    assert server.server.logged(logging.INFO)[before:] == []


def named(server: Served[Any], word: str) -> list[str]:
    return [line for line in server.server.logged(logging.INFO) if word in line]


class TestPingTimeout:
    """A half-open peer is found: nothing is heard of it, and that is what the log says."""

    def test_a_silent_peer_is_reset(self) -> None:
        app = SocketEcho()
        with served(app, ws_ping_interval=0.2, ws_ping_timeout=0.2) as server:
            with server.connect() as client:
                client.send(handshake())
                upgraded(client)
                with pytest.raises(ConnectionResetError):
                    client.read_eof()
                assert client.unread[:1] == b"\x89", "it has been asked"
            assert app.ends.get(timeout=PATIENCE) == 1006
            assert len(named(server, "--ws-ping-timeout")) == 1

    def test_a_peer_that_answers_lives(self) -> None:
        app = SocketEcho()
        with served(app, ws_ping_interval=0.2, ws_ping_timeout=5) as server:
            with server.connect() as client:
                client.send(handshake() + pong(b"unasked") + text("a", fin=False))
                upgraded(client)
                for _ in range(2):
                    first, size = client._exactly(2, b"")
                    assert first == 0x89
                    client.send(pong(client._exactly(size, b"")))
            assert app.ends.get(timeout=PATIENCE) == 1006
            assert named(server, "--ws-ping-timeout") == []


class Floods:
    """Sends for ever, and tells what ended it."""

    def __init__(self) -> None:
        self.ends: SimpleQueue[BaseException] = SimpleQueue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(50_000)})
                await asyncio.sleep(0)
        except OSError as error:
            self.ends.put(error)
        return None


def narrow(address: tuple[str, int]) -> RawClient:
    """A client with a receive buffer as small as there is."""
    client = RawClient.__new__(RawClient)
    client.socket = socket.socket()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.socket.settimeout(5)
    client.socket.connect(address)
    client.unread, client.received, client.timeout = bytearray(), bytearray(), 5
    return client


def test_a_peer_that_does_not_read_is_cut_off() -> None:
    app = Floods()
    options: Any = {"min_send_rate": 1_000_000, "grace_send": 1, "ws_ping_interval": None}
    with served(app, **options) as server, narrow(server.server.address) as client:
        client.send(handshake())
        assert isinstance(app.ends.get(timeout=20), OSError)
        assert len(named(server, "--min-send-rate")) == 1
