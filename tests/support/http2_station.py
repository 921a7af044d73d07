"""A raw HTTP/2 client of a server whose clock is moved by hand (clock.py), and a few applications."""

from __future__ import annotations

import asyncio

from tests.support.apps import answer
from tests.support.clock import Peer, Station
from tests.support.http2_drive import raw_frames
from tests.support.http2_frames import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    get,
    settings,
)

LARGEST = (1 << 31) - 1


async def ok(scope, receive, send):
    await answer(send, 200, [(b"content-length", b"2")], b"ok")


async def reader(scope, receive, send):
    """Takes the whole body, then answers."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await ok(scope, receive, send)


class Gated:
    """Waits for `gate`, but for paths that are quick."""

    def __init__(self, then=ok):
        self.gate = asyncio.Event()
        self.then = then

    async def __call__(self, scope, receive, send):
        if scope["path"] != "/quick":
            await self.gate.wait()
        await self.then(scope, receive, send)


class Client:
    """The client's side of a connection: sends what it is told, and files what comes."""

    def __init__(self, server: Station, *pairs: tuple[int, int], hello: bool = True):
        self.server = server
        # not TCP, where Nagle and a late acknowledgement hold small frames back
        self.peer: Peer = server.accept_unix()
        if hello:
            self.peer.send(PREFACE + settings(*pairs) + settings(ack=True))

    def send(self, *raw: bytes) -> Client:
        for piece in raw:
            self.peer.send(piece)
        self.server.turn()
        return self

    @property
    def alive(self) -> bool:
        return self.peer.alive

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Every whole frame so far."""
        got = self.peer.look()
        whole = 0
        while len(got) >= whole + 9 and len(got) >= (
            after := whole + 9 + int.from_bytes(got[whole : whole + 3], "big")
        ):
            whole = after
        return raw_frames(got[:whole])

    def of(self, kind: int, stream: int | None = None) -> list[bytes]:
        return [f[3] for f in self.frames() if f[0] == kind and stream in (None, f[2])]

    def body(self, stream: int) -> bytes:
        return b"".join(self.of(DATA, stream))

    def ended(self, stream: int) -> bool:
        return any(
            kind in (DATA, HEADERS) and flags & END_STREAM and number == stream
            for kind, flags, number, _ in self.frames()
        )

    def reset(self, stream: int) -> int | None:
        """The code of its RST_STREAM."""
        found = self.of(RST_STREAM, stream)
        return int.from_bytes(found[0], "big") if found else None

    @property
    def goaways(self) -> list[tuple[int, int]]:
        return [
            (int.from_bytes(one[:4], "big"), int.from_bytes(one[4:8], "big"))
            for one in self.of(GOAWAY)
        ]

    def served(self, stream: int) -> bool:
        self.send(get(stream, b"/quick"))
        self.server.until(lambda: self.ended(stream) or not self.alive)
        return self.ended(stream)
