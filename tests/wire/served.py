"""A Tidegate that runs for one module of wire tests, and the usual ways to ask it something."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tests.support.raw import RawClient, RawResponse
from tests.support.serve import Running, serve

from tidegate.types import Application

App = TypeVar("App", bound=Application)
HOST = b"Host: example.com\r\n"
PATIENCE = 30.0  # seconds until a test that waits in vain fails


@dataclass(slots=True)
class Served(Generic[App]):
    app: App
    server: Running

    def connect(self, timeout: float = PATIENCE) -> RawClient:
        return RawClient(self.server.path or self.server.address, timeout)

    def begun(self, raw: bytes) -> RawClient:
        """A connection that the server finds with this on it, however slow the client is."""
        with self.server.held():
            client = self.connect()
            client.send(raw)
        return client

    def ask(self, raw: bytes) -> RawResponse:
        """The answer to one request on a connection of its own."""
        with self.connect() as client:
            client.send(raw)
            return client.read_response(raw.split(b" ", 1)[0].decode("latin-1"))


@contextlib.contextmanager
def served(app: App, **options: Any) -> Iterator[Served[App]]:
    with serve(app, **options) as server:
        yield Served(app, server)


def get(path: str = "/", lines: bytes = b"", version: str = "1.1") -> bytes:
    """A good GET; `lines` are whole field lines, each with its CRLF."""
    return f"GET {path} HTTP/{version}\r\n".encode() + HOST + lines + b"\r\n"


def post(path: str = "/", body: bytes = b"", lines: bytes = b"", version: str = "1.1") -> bytes:
    """A good POST whose length is said by Content-Length."""
    length = b"Content-Length: %d\r\n" % len(body)
    return f"POST {path} HTTP/{version}\r\n".encode() + HOST + length + lines + b"\r\n" + body


def seen(response: RawResponse) -> dict[str, Any]:
    """What the echo application says it saw."""
    assert response.status == 200, response
    answer: dict[str, Any] = json.loads(response.body)
    return answer


def closes(response: RawResponse) -> bool:
    """Whether the answer says that it is the connection's last (9.3)."""
    return b"close" in response.tokens(b"connection")
