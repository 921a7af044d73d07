"""Abuse of HTTP/2 at full size against a real server process, with the figures: `make soak`.

As in test_soak_abuse.py: a well-behaved client is answered within 250 ms all the while, and the
server does not grow by 64 MB. What an attack runs into is told by the GOAWAY it gets.
"""

from __future__ import annotations

import contextlib
import re
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.soak.test_soak_abuse import GOOD, LONG, SHORT, warm
from tests.support import soak
from tests.support.http2_frames import (
    INITIAL_WINDOW,
    PREFACE,
    block,
    continuation,
    data,
    frame,
    get,
    headers,
    literal,
    ping,
    post,
    priority,
    request,
    rst,
    settings,
    window_update,
)
from tests.support.soak import Good, Server, Swarm

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not hasattr(select, "epoll"), reason="the swarm needs epoll, and /proc"),
]

CALM = 11
GOAWAYS = re.compile(rb"\x07\0\0\0\0\0.{4}(\0\0\0.)", re.DOTALL)
HELLO = PREFACE + settings()

APP = """
import asyncio

LARGE = b"x" * (100 << 20)


async def app(scope, receive, send):
    path = scope["path"]
    if path == "/slow":
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(0.1)
    if path == "/ignore":
        await asyncio.sleep(60)
    while (await receive()).get("more_body"):
        pass
    body = LARGE if path == "/large" else b"fine"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    with soak.table():
        yield


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    with soak.running(Server(folder, APP, warm)) as server:
        yield server


def withstands(name: str, server: Server, swarm: Swarm, seconds: float) -> None:
    soak.withstands(name, server, swarm, seconds, Good(GOOD))


def swarm(size: int, first: bytes, drip: bytes = b"", **more: object) -> Swarm:
    return Swarm(size, HELLO + first, drip, marks=GOAWAYS, **more)  # type: ignore[arg-type]


def requests(
    count: int, path: bytes, after: Callable[[int], bytes] = lambda stream: b"", *, end: bool = True
) -> bytes:
    """So many requests on their streams, each followed by what `after` makes of its number."""
    make = get if end else post
    return b"".join(make(stream, path) + after(stream) for stream in range(1, 2 * count, 2))


@pytest.mark.parametrize("path", [b"/", b"/slow"], ids=["quick", "slow"])
def test_rapid_reset(path: bytes, tmp_path: Path) -> None:
    many = swarm(20, requests(20_000, path, rst))
    with serving(tmp_path) as server:
        withstands(f"20 rapid resets of {path.decode()}", server, many, SHORT)
    assert set(many.codes) == {CALM}


def test_made_you_reset(tmp_path: Path) -> None:
    many = swarm(20, requests(20_000, b"/slow", lambda stream: window_update(stream, 0)))
    with serving(tmp_path) as server:
        withstands("20 make us reset", server, many, SHORT)
    assert set(many.codes) == {CALM}


def test_refused_streams(tmp_path: Path) -> None:
    many = swarm(20, requests(20_000, b"/slow"))
    with serving(tmp_path) as server:
        withstands("20 open streams without end", server, many, SHORT)
    assert set(many.codes) == {CALM}


def test_continuations(tmp_path: Path) -> None:
    many = swarm(
        20,
        headers(1, block(request()), done=False),
        continuation(1, literal(b"a", b"x" * 255), done=False) * 50,
        flood=True,
    )
    with serving(tmp_path) as server:
        withstands("20 floods of CONTINUATION", server, many, SHORT)
    assert set(many.codes) == {CALM}


FLOODS = {
    "SETTINGS": (b"", settings()),
    "SETTINGS full": (b"", settings(*[(3, 100)] * 2730)),
    "PING": (b"", ping()),
    "PRIORITY": (b"", priority(1)),
    "unknown": (b"", frame(0xEE)),
    "WINDOW_UPDATE": (b"", window_update(0, 1)),
    "empty CONTINUATION": (headers(1, done=False), continuation(1, done=False)),
    "empty DATA": (post(1, b"/slow"), data(1)),
}


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
@pytest.mark.parametrize("kind", FLOODS)
def test_floods(kind: str, reads: bool, tmp_path: Path) -> None:
    first, one = FLOODS[kind]
    drip = one * max(1, 8000 // len(one))
    many = swarm(20, first, drip, flood=True, reads=reads)
    with serving(tmp_path) as server:
        name = f"20 floods of {kind}" + ("" if reads else ", unread")
        withstands(name, server, many, SHORT)
    assert set(many.codes) <= {CALM}
    assert many.codes or not reads


def test_tiny_pieces_of_a_body(tmp_path: Path) -> None:
    """Bytes one by one, to an application that does not read: they may not cost what they could."""
    ones = data(1, b"x") * 60_000
    many = swarm(20, requests(1, b"/ignore", end=False) + ones)
    with serving(tmp_path) as server:
        withstands("20 send single bytes", server, many, SHORT)


def test_bombs(tmp_path: Path) -> None:
    """One long field into the table, then blocks of nothing but references to it."""
    first = headers(1, block(request()) + literal(b"a", b"x" * 4000, pattern=0x40))
    bomb = headers(3, block(request()) + b"\xbe" * 16_000)
    more = b"".join(bomb[:5] + stream.to_bytes(4, "big") + bomb[9:] for stream in range(3, 2001, 2))
    many = swarm(20, first + more)
    with serving(tmp_path) as server:
        withstands("20 HPACK bombs", server, many, SHORT)
    assert set(many.codes) <= {CALM}


@pytest.mark.parametrize("opened", [0, 1], ids=["shut", "a byte at a time"])
def test_windows(opened: int, tmp_path: Path) -> None:
    """128 answers of 100 MB each on each of 50 connections, and no window for them."""
    drip = b"".join(window_update(stream, 1) for stream in range(1, 257, 2)) if opened else b""
    many = Swarm(
        50,
        PREFACE + settings((INITIAL_WINDOW, 0)) + settings(ack=True) + requests(128, b"/large"),
        drip,
        marks=GOAWAYS,
    )
    with serving(tmp_path) as server:
        withstands("50 x 128 windows " + ("by a byte" if opened else "shut"), server, many, LONG)
        assert "min-send-rate" in server.log.read_text()


def test_never_reading(tmp_path: Path) -> None:
    """Windows wide open, and nobody takes anything from the socket."""
    wide = settings((INITIAL_WINDOW, 2**31 - 1)) + window_update(0, 2**30)
    many = Swarm(
        50, PREFACE + wide + requests(100, b"/large"), reads=False, receive_buffer=4096,
        marks=GOAWAYS,
    )  # fmt: skip
    with serving(tmp_path) as server:
        withstands("50 x 100 never read /large", server, many, LONG)
    assert many.ended >= 50


def test_uploads_nobody_reads(tmp_path: Path) -> None:
    """As much as the windows take, on as many streams as there may be."""
    full = b"".join(data(stream, bytes(16384)) for stream in range(1, 31, 2))
    many = swarm(50, requests(100, b"/ignore", end=False) + full)
    with serving(tmp_path) as server:
        withstands("50 x 15 uploads unread", server, many, SHORT)


def test_slow_bodies(tmp_path: Path) -> None:
    drip = b"".join(data(stream, b"x") for stream in range(1, 201, 2))
    many = swarm(50, settings(ack=True) + requests(100, b"/", end=False), drip)
    with serving(tmp_path) as server:
        withstands("50 x 100 slow bodies", server, many, LONG)
        assert "min-body-rate" in server.log.read_text()


@pytest.mark.parametrize("first", [b"", headers(1, b"\x82", done=False)], ids=["silent", "half"])
def test_half_a_beginning(first: bytes, tmp_path: Path) -> None:
    many = swarm(1000, first)
    with serving(tmp_path) as server:
        withstands("1000 " + ("half blocks" if first else "silent"), server, many, LONG)
    assert many.ended >= 1000
