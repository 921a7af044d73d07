"""Hostile WebSocket peers at full size against a real server process, with figures: `make soak`.

While a swarm works on the server, one well-behaved client echoes a message every few milliseconds,
and has to have it back within 250 ms; the server must not grow by 64 MB. Loopback only.
"""

from __future__ import annotations

import contextlib
import resource
import select
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import soak
from tests.support.soak import Good, Server, Swarm
from tests.support.socket_client import connected, handshake
from tests.support.websocket_frames import BINARY, TEXT, binary, close, cont, frame, ping, text

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not hasattr(select, "epoll"), reason="the swarm needs epoll, and /proc"),
]

LONG = 13.0  # seconds: long enough for the limits of 10 s to act on the first wave
SHORT = 6.0
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
OPEN = handshake()
BIND = ("--ws-max-size", "262144")

APP = """
import asyncio

PIECE = b"x" * 65536


async def app(scope, receive, send):
    path = scope["path"]
    await receive()
    await send({"type": "websocket.accept"})
    if path == "/deaf":
        await asyncio.sleep(60)
    while path == "/endless":
        await send({"type": "websocket.send", "bytes": PIECE})
    if path == "/close":
        await send({"type": "websocket.close", "code": 3001})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
"""

# The well-behaved client: echoes on a socket it keeps, and every fifth time on a new one, until its
# input ends; then tells how long each echo took. It answers pings, as it must.
GOOD = """
import json, select, socket, sys, time
host, port, fresh = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fresh"
opening = (
    b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n"
)
question = b"\\x81\\x84" + bytes(4) + b"well"
answer = b"\\x81\\x04well"

def connect():
    sock = socket.create_connection((host, port), 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock

def take(sock, mark):
    data = b""
    while mark not in data:
        more = sock.recv(65536)
        assert more, "the well-behaved client was cut off"
        data += more
    if b"\\x89\\x04" in data:
        sock.sendall(b"\\x8a\\x84" + bytes(4) + data.split(b"\\x89\\x04")[1][:4])

def ask(sock):
    sock.sendall(question)
    take(sock, answer)

def opened():
    sock = connect()
    sock.sendall(opening)
    take(sock, b"\\r\\n\\r\\n")
    return sock

kept, took = opened(), []
ask(kept)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    begun = time.perf_counter()
    if fresh and len(took) % 5 == 4:
        with opened() as sock:
            ask(sock)
    else:
        ask(kept)
    took.append(time.perf_counter() - begun)
print(json.dumps(took))
"""


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    with soak.table():
        yield


def warm(address: tuple[str, int]) -> None:
    for lines in (b"", OFFER) * 50:
        with connected(address, lines=lines) as client:
            for _ in range(4):
                client.ask("warm")


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    words = ("--lifespan", "off", *options)
    with soak.running(Server(folder, APP, warm, words)) as server:
        yield server


def withstands(name: str, server: Server, swarm: Swarm, seconds: float = SHORT) -> None:
    soak.withstands(name, server, swarm, seconds, Good(GOOD))


def descriptors(most: int) -> int:
    return min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)


def bomb(size: int) -> bytes:
    """A compressed message of so many MiB of nothing, a thousandth of that on the wire."""
    deflate = zlib.compressobj(wbits=-15)
    unit = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return frame(BINARY, unit * size, rsv=4)


def test_unmasked_floods(tmp_path):
    swarm = Swarm(100, OPEN, frame(TEXT, b"a" * 100, mask=None) * 100, flood=True)
    with serving(tmp_path) as server:
        withstands("100 unmasked floods", server, swarm)
        assert "closed with 1002: a frame without a mask" in server.log.read_text()
    assert swarm.codes[1002] > 100
    assert set(swarm.codes) == {1002}


def test_oversized_messages(tmp_path):
    swarm = Swarm(50, OPEN + text("a"), binary(b"a" * (20 << 20)), flood=True)
    with serving(tmp_path) as server:
        withstands("50 oversized messages", server, swarm)
        assert "--ws-max-size" in server.log.read_text()
    assert set(swarm.codes) == {1009}


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_endless_fragments(size, tmp_path):
    """Those of nothing go on for ever; the others are too much one day."""
    drip = cont(b"a" * size) * (200_000 // (6 + size))
    swarm = Swarm(8 if size < 2 else 50, OPEN + text("", fin=False), drip, flood=True)
    with serving(tmp_path, *BIND) as server:
        withstands(f"{swarm.size} endless fragments of {size}", server, swarm)
        assert ("--ws-max-size" in server.log.read_text()) is (size > 0)
    assert set(swarm.codes) == ({1009} if size else set())
    assert swarm.sent > 10 << 20, "a flood that is not read proves nothing"


def test_messages_that_are_never_ended(tmp_path):
    """Just under the bound, and then silence: what they hold is all they ever hold."""
    swarm = Swarm(100, OPEN + text(b"a" * 262_000, fin=False), cont(b""))
    with serving(tmp_path, *BIND) as server:
        withstands("100 just under --ws-max-size", server, swarm)
    assert swarm.ended == 0


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
def test_ping_floods(reads, tmp_path):
    drip = ping(b"p" * 125) * 500
    swarm = Swarm(20, OPEN, drip, flood=True, reads=reads, receive_buffer=0 if reads else 4096)
    with serving(tmp_path) as server:
        withstands("20 ping floods" + ("" if reads else ", unread"), server, swarm)
    assert swarm.codes == {}
    assert swarm.sent > 100 << 20, "a flood that is not read proves nothing"


@pytest.mark.parametrize("most", [1 << 20, 1 << 24], ids=["1 MiB", "the default"])
def test_deflate_bombs(most, tmp_path):
    swarm = Swarm(50, handshake(lines=OFFER), bomb(1024), flood=True)
    with serving(tmp_path, "--ws-max-size", str(most)) as server:
        withstands(f"50 bombs of 1 GiB, max {most >> 20} MiB", server, swarm)
        assert "--ws-max-size" in server.log.read_text()
    assert set(swarm.codes) == {1009}


def test_bombs_just_under_the_bound(tmp_path):
    """Each is a message that may be, of 1 KB on the wire, and the next one is there already."""
    swarm = Swarm(20, handshake("/deaf", OFFER), bomb(1) * 100, flood=True)
    with serving(tmp_path, "--ws-max-size", str(1 << 20)) as server:
        withstands("20 bombs of 1 MiB, app is deaf", server, swarm)
    assert swarm.ended == 0


def test_half_open_peers(tmp_path):
    swarm = Swarm(500, OPEN)
    options = ("--ws-ping-interval", "1", "--ws-ping-timeout", "1")
    with serving(tmp_path, *options) as server:
        withstands("500 half-open, pinged", server, swarm)
        assert server.log.read_text().count("--ws-ping-timeout") >= 500
    assert swarm.ended >= 500


def test_silent_sockets(tmp_path):
    swarm = Swarm(descriptors(2000), OPEN)
    with serving(tmp_path) as server:
        withstands(f"{swarm.size} silent sockets", server, swarm)
    assert (swarm.opened, swarm.ended) == (swarm.size, 0)
    assert swarm.statuses == {101: swarm.size}


def test_peers_that_stop_reading(tmp_path):
    swarm = Swarm(200, handshake("/endless"), reads=False, receive_buffer=4096)
    with serving(tmp_path) as server:
        withstands("200 never read an endless app", server, swarm, LONG)
        assert server.log.read_text().count("--min-send-rate") >= 200
    assert swarm.ended >= 200


def test_peers_that_never_stop_sending(tmp_path):
    """The application never receives: what it does not take is not read either."""
    swarm = Swarm(100, handshake("/deaf"), text("a" * 50_000), flood=True)
    with serving(tmp_path) as server:
        withstands("100 send to a deaf app", server, swarm)
    assert swarm.ended == 0


def test_echoes_nobody_reads(tmp_path):
    swarm = Swarm(100, OPEN, text("a" * 50_000), flood=True, reads=False, receive_buffer=4096)
    with serving(tmp_path) as server:
        withstands("100 never read their echo", server, swarm, LONG)
    assert swarm.ended >= 100


def test_handshakes_cut_half_way(tmp_path):
    swarm = Swarm(200, OPEN[: len(OPEN) // 2], leaves="sent")
    with serving(tmp_path) as server:
        withstands("200 cut half way, over and over", server, swarm)
        assert server.kept() < soak.GROWTH // 4
    assert swarm.opened > 2000


def test_slow_handshakes(tmp_path):
    swarm = Swarm(500, OPEN[:-2] + b"X: ", b"x")
    with serving(tmp_path) as server:
        withstands("500 slow handshakes", server, swarm, LONG)
    assert swarm.statuses[408] >= 500


@pytest.mark.parametrize("how", ["closing", "leaving"])
def test_churn(how, tmp_path):
    """What is over must be gone: sockets opened, echoed on and closed as fast as they can be."""
    raw = handshake(lines=OFFER) + text("a" * 200) + (close(1000) if how == "closing" else b"")
    swarm = Swarm(100, raw, leaves="answered" if how == "leaving" else "")
    with serving(tmp_path) as server:
        withstands(f"100 come and go, {how}", server, swarm, 10.0)
        kept = server.kept()
        print(f"    {swarm.opened} sockets later it holds {kept / 1e6:.1f} MB more")
        assert kept < soak.GROWTH // 4
    assert swarm.opened > 1000


def test_closes_nobody_answers(tmp_path):
    swarm = Swarm(300, handshake("/close"))
    with serving(tmp_path) as server:
        withstands("300 leave our close unanswered", server, swarm, LONG)
    assert swarm.codes[3001] >= 300
    assert swarm.ended >= 300


def test_a_flood_of_tiny_messages(tmp_path):
    """One stream that is never empty, and everybody else's turn."""
    swarm = Swarm(1, OPEN, text("a") * 10_000, flood=True)
    with serving(tmp_path) as server:
        withstands("1 stream of tiny messages", server, swarm)
    assert swarm.ended == 0
    assert swarm.sent > 4 << 20, "a flood that is not read proves nothing"
