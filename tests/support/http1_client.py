"""Reads what an engine has written as a client would: with h11, another project's parser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import h11
from tests.support.http1_drive import taken

from tidegate.protocol.http1.engine import Http1Engine

Pairs = list[tuple[bytes, bytes]]


@dataclass
class Answer:
    status: int = 0
    fields: Pairs = field(default_factory=list)
    body: bytes = b""
    trailers: Pairs = field(default_factory=list)
    hints: list[tuple[int, Pairs]] = field(default_factory=list)
    whole: bool = False
    closes: bool = False  # as the client has to understand it

    def __getitem__(self, name: bytes) -> bytes | None:
        values = [value for key, value in self.fields if key == name]
        assert len(values) < 2, f"{name!r} twice"
        return values[0] if values else None


def read(output: bytes, method: bytes = b"GET", *, eof: bool = False) -> Answer:
    """One answer as a client reads it; more behind it is an error."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(output)
    if eof:
        client.receive_data(b"")
    found = Answer()
    while (event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        if isinstance(event, h11.InformationalResponse):
            found.hints.append((event.status_code, list(event.headers)))
        elif isinstance(event, h11.Response):
            found.status, found.fields = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            found.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            found.whole, found.trailers = True, list(event.headers)
            assert client.trailing_data[0] == b"", "something follows the answer"
            break
        elif isinstance(event, h11.ConnectionClosed):
            break
    found.closes = client.their_state is h11.MUST_CLOSE or b"close" in (found[b"connection"] or b"")
    return found


def sent(
    engine: Http1Engine, headers: Iterable[tuple[bytes, bytes]], *pieces: bytes, status: int = 200
) -> bytes:
    """The answer to the first request, its pieces written one after the other."""
    engine.send_head(1, status, headers)
    output = b""
    for at, piece in enumerate(pieces, 1):
        engine.send_body(1, piece, at == len(pieces))
        output += taken(engine)
    return output
