"""What the demo page stands on: six routes, each showing one thing a server has to do well.

`/`          the page                     `/facts`     the request, as the application saw it
`/events`    server-sent events, live     `/upload`    a body measured while it arrives
`/download`  a body made while it leaves  `/hints`     an early hint (103) before the answer

It keeps a little state (counters, uploads under way) and no lock: one event loop runs all of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MIB = 1024 * 1024
LARGEST_DOWNLOAD = 1024 * MIB
TICK = 1.0  # seconds between two ticks
BUSY_TICK = 0.25  # while an upload is under way, to show its rate as it goes
POLICY = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; " + (
    b"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
)


class Upload:
    """A body under way: how much came, and how fast."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.received = 0
        self.pieces = 0

    def take(self, body: bytes) -> None:
        self.received += len(body)
        self.pieces += 1

    def report(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self.began
        return {
            "bytes": self.received,
            "pieces": self.pieces,
            "seconds": round(seconds, 4),
            "bytes_per_second": round(self.received / seconds) if seconds else 0,
        }


class Demo:
    """The application: routes by path, and what all requests share."""

    def __init__(self) -> None:
        self.page = (Path(__file__).parent / "page.html").read_bytes()
        self.began = time.monotonic()
        self.requests = 0
        self.streams = 0
        self.uploads: set[Upload] = set()
        self.routes: dict[str, tuple[str, Callable[[Scope, Receive, Send], Awaitable[None]]]] = {
            "/": ("GET", self.show_page),
            "/facts": ("GET", self.show_facts),
            "/events": ("GET", self.stream_events),
            "/upload": ("POST", self.take_upload),
            "/download": ("GET", self.give_download),
            "/hints": ("GET", self.give_hint),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["type"] == "http":
            self.requests += 1
            await self.answer(scope, receive, send)
        else:
            raise NotImplementedError(f"the demo does not speak {scope['type']!r}")

    async def live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path not in self.routes:
            await send_json(send, {"error": "not here", "try": sorted(self.routes)}, status=404)
            return
        method, handler = self.routes[path]
        allowed = {"GET": ("GET", "HEAD"), "POST": ("POST", "PUT")}[method]
        if scope["method"] not in allowed:
            allow = (b"allow", ", ".join(allowed).encode())
            await send_json(send, {"error": "wrong method"}, status=405, headers=[allow])
            return
        await handler(scope, receive, send)

    async def show_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", str(len(self.page)).encode()),
            (b"content-security-policy", POLICY),
            (b"cache-control", b"no-cache"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.page})

    async def show_facts(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = type(asyncio.get_running_loop())
        facts = {
            "protocol": f"HTTP/{scope['http_version']}",
            "scheme": scope["scheme"],
            "method": scope["method"],
            "client": address(scope.get("client")),
            "server": address(scope.get("server")),
            "worker": os.getpid(),
            "asgi": scope["asgi"].get("spec_version", "2.0"),
            "extensions": sorted(scope.get("extensions") or {}),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "loop": f"{loop.__module__.partition('.')[0]} {loop.__name__}",
            "headers": [[k.decode("latin-1"), v.decode("latin-1")] for k, v in scope["headers"]],
        }
        await send_json(send, facts)

    async def stream_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tick until the client leaves; one that comes back goes on counting where it was."""
        number = last_event_id(scope)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        gone = asyncio.ensure_future(until_gone(receive))
        self.streams += 1
        try:
            await send_piece(send, b"retry: 1000\n\n")
            while not gone.done():
                number += 1
                await send_piece(send, self.tick(number))
                await asyncio.wait([gone], timeout=BUSY_TICK if self.uploads else TICK)
            await send({"type": "http.response.body"})
        except OSError:
            pass  # the client left while we wrote: that is how event streams end
        finally:
            self.streams -= 1
            gone.cancel()

    def tick(self, number: int) -> bytes:
        data = {
            "number": number,
            "time": time.time(),
            "worker": os.getpid(),
            "uptime": round(time.monotonic() - self.began, 1),
            "requests": self.requests,
            "streams": self.streams,
            "uploads": [upload.report() for upload in self.uploads],
        }
        return f"id: {number}\nevent: tick\ndata: {json.dumps(data)}\n\n".encode()

    async def take_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload = Upload()
        self.uploads.add(upload)
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                upload.take(message.get("body", b""))
                if not message.get("more_body", False):
                    break
        finally:
            self.uploads.discard(upload)
        await send_json(send, upload.report())

    async def give_download(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = wanted_bytes(scope)
        if size is None:
            problem = {"error": f"size is a number of bytes, up to {LARGEST_DOWNLOAD}"}
            await send_json(send, problem, status=400)
            return
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(size).encode()),
            (b"content-disposition", b'attachment; filename="tide.bin"'),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        piece = bytes(range(256)) * 256
        try:
            while size > len(piece) and scope["method"] != "HEAD":
                await send_piece(send, piece)
                size -= len(piece)
            await send({"type": "http.response.body", "body": piece[:size]})
        except OSError:
            pass  # the client had enough

    async def give_hint(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A 103 first, where the server offers it; the answer says whether it did."""
        offered = "http.response.early_hint" in (scope.get("extensions") or {})
        if offered:
            await send(
                {"type": "http.response.early_hint", "links": [b"</>; rel=preload; as=fetch"]}
            )
        await send_json(send, {"early_hint_sent": offered})


async def until_gone(receive: Receive) -> None:
    """Return once the client has left, or the server asks its handlers to end."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_piece(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def send_json(
    send: Send,
    value: object,
    *,
    status: int = 200,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    body = json.dumps(value).encode()
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *(headers or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def address(value: Any) -> str | None:
    """`host:port`, or the path of a Unix socket."""
    if not value:
        return None
    host, port = value
    if port is None:
        return str(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def last_event_id(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"last-event-id" and value.isdigit() and len(value) < 16:
            return int(value)
    return 0


def wanted_bytes(scope: Scope) -> int | None:
    """The `size` of the query; 16 MiB where there is none, None where it makes no sense."""
    text = parse_qs(scope["query_string"]).get(b"size", [b"%d" % (16 * MIB)])[-1]
    if not text.isdigit() or len(text) > 12 or int(text) > LARGEST_DOWNLOAD:
        return None
    return int(text)
