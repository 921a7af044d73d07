"""Abuse at full size against a real server process, with the figures: `make soak`.

A swarm of hostile clients works on the server while one well-behaved client, in a process of its
own, goes on asking. It has to be answered within 250 ms all the while, and the server must not
grow by 64 MB. Loopback only; every attack is over in less than 20 seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import soak
from tests.support.raw import RawClient
from tests.support.soak import Good, Server, Swarm

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not hasattr(select, "epoll"), reason="the swarm needs epoll, and /proc"),
]

LONG = 13.0  # seconds: long enough for the limits of 10 s to act on the first wave
SHORT = 6.0
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

APP = """
LARGE = b"x" * (100 << 20)
PIECE = b"x" * 65536


async def app(scope, receive, send):
    path = scope["path"]
    if path == "/upload":
        while (await receive()).get("more_body"):
            pass
    body = LARGE if path == "/large" else b"fine"
    headers = [] if path == "/endless" else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while path == "/endless":
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": body})
"""

# The well-behaved client: asks on a connection it keeps, and every fifth time on a new one, until
# its input ends; then tells how long each answer took.
GOOD = """
import json, select, socket, sys, time
host, port, fresh = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fresh"
request = b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"

def connect():
    sock = socket.create_connection((host, port), 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock

def ask(sock):
    sock.sendall(request)
    data = b""
    while not data.endswith(b"fine"):
        more = sock.recv(65536)
        assert more, "the well-behaved client was cut off"
        data += more

kept, took = connect(), []
ask(kept)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    begun = time.perf_counter()
    if fresh and len(took) % 5 == 4:
        with connect() as sock:
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
    with RawClient(address, 20) as client:
        for _ in range(200):
            client.send(GET)
            assert client.read_response().status == 200


@contextlib.contextmanager
def serving(folder: Path, descriptors: int = 0) -> Iterator[Server]:
    with soak.running(Server(folder, APP, warm, descriptors=descriptors)) as server:
        yield server


def withstands(
    name: str, server: Server, swarm: Swarm, seconds: float, *, fresh: bool = True
) -> None:
    soak.withstands(name, server, swarm, seconds, Good(GOOD, fresh))


def fields() -> Iterator[bytes]:
    return (b"X-%06d: %s\r\n" % (n, b"y" * 50) for n in itertools.count())


def test_slow_heads(tmp_path):
    swarm = Swarm(500, b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x")
    with serving(tmp_path) as server:
        withstands("500 slow heads", server, swarm, LONG)
    assert swarm.statuses[408] >= 500


def test_slow_bodies(tmp_path):
    first = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    swarm = Swarm(500, first, b"x")
    with serving(tmp_path) as server:
        withstands("500 slow bodies", server, swarm, LONG)
    assert swarm.statuses[408] >= 500


@pytest.mark.parametrize("path", ["large", "endless"])
def test_answers_nobody_reads(path, tmp_path):
    request = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode()
    swarm = Swarm(50, request, reads=False, receive_buffer=4096)
    with serving(tmp_path) as server:
        withstands(f"50 never read /{path}", server, swarm, LONG)
    assert swarm.ended >= 50


def test_silent_connections(tmp_path):
    size = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    swarm = Swarm(size)
    with serving(tmp_path) as server:
        withstands(f"{size} silent", server, swarm, LONG)
    assert swarm.ended >= size


@pytest.mark.parametrize("kind", ["many", "long"])
def test_header_bombs(kind, tmp_path):
    head = b"GET / HTTP/1.1\r\nHost: a\r\n"
    bomb = b"".join(itertools.islice(fields(), 1000)) if kind == "many" else b"x" * 65536
    swarm = Swarm(50, head, bomb, flood=True)
    with serving(tmp_path) as server:
        withstands(f"50 header bombs, {kind}", server, swarm, SHORT)
    assert set(swarm.statuses) == {431}


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
def test_endless_pipelines(reads, tmp_path):
    swarm = Swarm(8, drip=GET * 500, flood=True, reads=reads)
    with serving(tmp_path) as server:
        name = "8 endless pipelines" + ("" if reads else ", unread")
        withstands(name, server, swarm, SHORT)


def test_used_up_descriptors(tmp_path):
    swarm = Swarm(400, GET)
    with serving(tmp_path, descriptors=128) as server:
        withstands("descriptors used up", server, swarm, SHORT, fresh=False)
        with RawClient(server.address, 10) as late:  # and afterwards newcomers are served again
            late.send(GET)
            assert late.read_response().status == 200
        assert server.log.read_text().count("Cannot accept") == 1
