"""The answers for health checks, on listeners of their own (`--health-bind`).

They come from the event loop that serves the application, so a loop that hangs fails its check.
"ready" is for whoever sends requests: not before the application is started, and no longer once
the end is announced. "live" is for whoever restarts: it holds until the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

READY = "/ready"
LIVE = "/live"


def health_app(leaving: Callable[[], bool]) -> Any:
    """An ASGI application that answers the two checks."""

    async def health(scope: dict[str, Any], _receive: Any, send: Any) -> None:
        path = scope["path"].rstrip("/")
        if path == READY:
            status, text = (503, "leaving") if leaving() else (200, "ready")
        elif path == LIVE:
            status, text = 200, "live"
        else:
            status, text = 404, f"{READY} and {LIVE} are answered here"
        body = f"{text}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return health
