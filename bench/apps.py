"""The applications every server is given: the same objects for all.

One callable a job, no routing, as little work as ASGI allows: what is left to measure is the
server. Each answers the lifespan, so that no server pays for a failed startup.
"""

from __future__ import annotations

from typing import Any

HELLO = b"Hello, world!"
UPLOAD = 1 << 20
DOWNLOAD = bytes(10 << 20)
EVENT = b"data: 1\n\n"
EVENTS = 1000

_PLAIN = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
}
_PLAIN_BODY = {"type": "http.response.body", "body": HELLO}
_COUNTED = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"7")],
}
_BINARY = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % len(DOWNLOAD)),
    ],
}
_BINARY_BODY = {"type": "http.response.body", "body": DOWNLOAD}
_STREAM = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}
_STREAM_PART = {"type": "http.response.body", "body": EVENT, "more_body": True}
_STREAM_END = {"type": "http.response.body", "body": b""}
_ACCEPT = {"type": "websocket.accept"}
_members: dict[object, Any] = {}


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def plaintext(scope: Any, receive: Any, send: Any) -> None:
    """Thirteen bytes."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    await send(_PLAIN)
    await send(_PLAIN_BODY)


async def upload(scope: Any, receive: Any, send: Any) -> None:
    """Read to the end, answer how many bytes came."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    size = 0
    more = True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send(_COUNTED)
    await send({"type": "http.response.body", "body": b"%7d" % size})


async def download(scope: Any, receive: Any, send: Any) -> None:
    """Ten MiB in one body."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    await send(_BINARY)
    await send(_BINARY_BODY)


async def events(scope: Any, receive: Any, send: Any) -> None:
    """A thousand small events, one `send` each."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    await send(_STREAM)
    for _ in range(EVENTS):
        await send(_STREAM_PART)
    await send(_STREAM_END)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket that gives back what comes, text as text, until the client leaves."""
    if scope["type"] != "websocket":
        await plaintext(scope, receive, send)
        return
    await receive()
    await send(_ACCEPT)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes")
        if data is None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": data})


async def fanout(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket whose text goes to all the others: the plain loop that people write."""
    if scope["type"] != "websocket":
        await plaintext(scope, receive, send)
        return
    await receive()
    await send(_ACCEPT)
    me = object()
    _members[me] = send
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            news = {"type": "websocket.send", "text": message["text"]}
            for member, deliver in list(_members.items()):
                if member is not me:
                    await deliver(news)
    finally:
        del _members[me]
