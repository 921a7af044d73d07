"""The probe applications of the wire tests: they tell what reached them, or misbehave on order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from tidegate.types import Message, Receive, Scope, Send


async def lifespan(receive: Receive, send: Send) -> None:
    """The whole life of an application that has nothing to start and nothing to stop."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def answer(
    send: Send,
    status: int = 200,
    headers: Iterable[tuple[bytes, bytes]] = (),
    body: bytes = b"",
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


@dataclass(slots=True)
class Call:
    """One request as the application saw it, and how its body ended."""

    method: str
    path: str
    body: bytes = b""
    ended: bool = False
    disconnected: bool = False

    async def read(self, receive: Receive) -> None:
        """Take the body in, to its clean end or to the disconnect."""
        while not (self.ended or self.disconnected):
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected = True
                return
            self.body += message.get("body", b"")
            self.ended = not message.get("more_body", False)


def describe(scope: Scope, call: Call) -> bytes:
    """The request as JSON; bytes become latin-1 text, so that nothing is lost."""

    def text(value: bytes | None) -> str | None:
        return None if value is None else value.decode("latin-1")

    seen: dict[str, Any] = {
        "method": scope["method"],
        "http_version": scope["http_version"],
        "scheme": scope.get("scheme"),
        "path": scope["path"],
        "raw_path": text(scope.get("raw_path")),
        "query": text(scope["query_string"]),
        "headers": [[text(name), text(value)] for name, value in scope["headers"]],
        "body": text(call.body),
    }
    return json.dumps(seen).encode()


@dataclass(slots=True)
class Echo:
    """Reads the whole body, then answers what it saw as JSON; keeps a record of every call.

    `over` receives each call whose body ended, cleanly or not: tests wait there.
    """

    calls: list[Call] = field(default_factory=list)
    over: SimpleQueue[Call] = field(default_factory=SimpleQueue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        call = Call(scope["method"], scope["path"])
        self.calls.append(call)
        await call.read(receive)
        self.over.put(call)
        if call.disconnected:
            return None
        body = describe(scope, call)
        length = (b"content-length", str(len(body)).encode())
        return await answer(send, 200, [(b"content-type", b"application/json"), length], body)


@dataclass(slots=True)
class Replies:
    """Answers by path with the messages laid down for it, never reading the body.

    A path nobody laid down gets `200 ok`. Errors that come out of `send` are kept, and raised on.
    """

    scripts: dict[str, list[Message]]
    calls: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        self.calls.append(scope["path"])
        script = self.scripts.get(scope["path"])
        if script is None:
            return await answer(send, 200, [(b"content-length", b"2")], b"ok")
        for message in script:
            try:
                # A copy: what the server does to a message must not change the next request's.
                await send(dict(message))
            except Exception as error:
                self.errors.append(error)
                raise
        return None


def start(status: Any = 200, headers: Any = (), **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers, **more}


def body(data: Any = b"", more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more_body}
