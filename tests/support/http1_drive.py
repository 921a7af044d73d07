"""Drives an HTTP/1 engine without a socket, and tells what came of it as plain comparable data.

The driver does what a connection does: it hands events to an application, goes on while the engine
is `stalled`, and takes the output. What it records has no trace of how the input was cut.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tidegate.protocol.engine import Ending, FileSlice, Limits, Waiting
from tidegate.protocol.events import Body, Event, Fault, Request, RequestHead, Reset
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1.engine import Http1Engine

HOST = b"Host: tide.test\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
USUAL = Limits()
# what the bytes say; `forwarded` is what somebody found out about them, perhaps long ago
SAID = [name for name in RequestHead.__slots__ if name != "forwarded"]
HEAD_OF = {name: getattr(RequestHead, name) for name in SAID}


def get(path: str = "/", lines: bytes = b"", version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\n".encode() + HOST + lines + b"\r\n"


def post(lines: bytes, body: bytes = b"", version: str = "1.1") -> bytes:
    return b"POST / HTTP/%b\r\n" % version.encode() + HOST + lines + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


def facts(head: RequestHead) -> dict[str, Any]:
    """All that a head says, as plain data."""
    return {name: getattr(head, name) for name in HEAD_OF}


@dataclass
class Asked:
    """A request as an application would have got it."""

    stream: int
    head: dict[str, Any]
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False


# Whether input must be discarded before the close depends on how much of it was there.
_ENDINGS = {
    Ending.NO: "none",
    Ending.CLOSE: "close",
    Ending.STAGED: "close",
    Ending.ABORT: "abort",
}

Answerer = Callable[["Drive", Asked], None]


def answer(drive: Drive, asked: Asked) -> None:
    """Two bytes, of known length."""
    drive.engine.send_head(asked.stream, 200, [(b"content-length", b"2")])
    drive.engine.send_body(asked.stream, b"ok", True)


def silent(drive: Drive, asked: Asked) -> None:
    """An application that takes its time."""


class Drive:
    """One connection: `feed` it, then read what it has recorded.

    `whole` is called for each request that is complete, `early` as soon as its head is.
    """

    def __init__(
        self,
        limits: Limits = USUAL,
        whole: Answerer = answer,
        early: Answerer = silent,
        *,
        kind: type[Http1Engine] = Http1Engine,
        defaults: Defaults | None = None,
    ) -> None:
        self.engine = kind(limits, defaults or Defaults())
        self.asked: list[Asked] = []
        self.faults: list[tuple[int, int, str, str, bool]] = []
        self.resets: list[int] = []
        self.output = bytearray()
        self._whole = whole
        self._early = early

    def feed(self, *pieces: bytes) -> Drive:
        for piece in pieces:
            self.handle(self.engine.receive(piece))
        return self

    def eof(self) -> Drive:
        self.handle(self.engine.receive_eof())
        return self

    def handle(self, events: list[Event]) -> None:
        while True:
            for event in events:
                self._on_event(event)
            self.output += taken(self.engine)
            assert rests_truly(self.engine)
            if not self.engine.stalled or self.engine.ending is not Ending.NO:
                return
            events = self.engine.receive(b"")

    def _on_event(self, event: Event) -> None:
        assert not self.faults or isinstance(event, Reset), "something came after the fault"
        if isinstance(event, Request):
            asked = Asked(event.stream, facts(event.head), whole=event.end)
            self.asked.append(asked)
            self._early(self, asked)
            if event.end:
                self._whole(self, asked)
        elif isinstance(event, Body):
            asked = self.asked[-1]
            assert event.stream == asked.stream
            assert not asked.whole, "a body after its end"
            asked.body += event.data
            asked.whole = event.end
            self.engine.take_body(event.stream, len(event.data))
            if event.end:
                self._whole(self, asked)
        elif isinstance(event, Fault):
            self.faults.append(
                (event.stream, event.status, event.reason, event.section, event.answered)
            )
        else:
            self.resets.append(event.stream)

    @property
    def paths(self) -> list[str]:
        return [asked.head["path"] for asked in self.asked]

    @property
    def bodies(self) -> list[bytes]:
        return [bytes(asked.body) for asked in self.asked]

    @property
    def statuses(self) -> list[int]:
        return [fault[1] for fault in self.faults]

    def story(self) -> dict[str, Any]:
        """What must not depend on how the input was cut.

        How much came of a body that broke off does: that is in `torn`.
        """
        return {
            "asked": [
                (asked.stream, asked.head, bytes(asked.body) if asked.whole else None)
                for asked in self.asked
            ],
            "faults": self.faults,
            "output": bytes(self.output),
            "ending": _ENDINGS[self.engine.ending],
        }

    @property
    def torn(self) -> bytes:
        return b"".join(bytes(asked.body) for asked in self.asked if not asked.whole)


def rests_truly(engine: Http1Engine) -> bool:
    """If it says that it rests, then it does."""
    return not engine.resting or (
        engine.waiting is Waiting.IDLE and engine.ending is Ending.NO and not engine.stalled
    )


def taken(engine: Http1Engine) -> bytes:
    """The output so far; a file slice is rendered as its length, in sign."""
    return b"".join(
        b"<%d>" % part.count if isinstance(part, FileSlice) else bytes(part)
        for part in engine.take_output()
    )


def drive(raw: bytes | Iterable[bytes], limits: Limits = USUAL, **options: Any) -> Drive:
    """A new connection that has been fed `raw`, whole or in the pieces it is given in."""
    return Drive(limits, **options).feed(*([raw] if isinstance(raw, bytes) else raw))


def each_byte(raw: bytes) -> list[bytes]:
    return [raw[at : at + 1] for at in range(len(raw))]


def begun(raw: bytes = GET, **options: Any) -> Http1Engine:
    """An engine whose last request awaits its answer."""
    return drive(raw, whole=silent, **options).engine


_COLD = ("headers", "http1.reader", "http1.chunked", "http1.writer", "http1.answering",
         "http1.engine")  # fmt: skip


def cold_engine() -> type[Http1Engine]:
    """An engine that remembers nothing from earlier connections, beside the usual one."""
    names = [f"tidegate.protocol.{name}" for name in _COLD]
    usual = {name: sys.modules.pop(name) for name in names}
    places = [(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2]) for name in names]
    for package, name in places:
        delattr(package, name)  # or `from package import name` would find the usual one
    try:
        kind: type[Http1Engine] = importlib.import_module(names[-1]).Http1Engine
    finally:
        sys.modules.update(usual)
        for (package, name), module in zip(places, usual.values(), strict=True):
            setattr(package, name, module)
    return kind


def held(engine: Http1Engine) -> int:
    """Bytes that the engine itself keeps, wherever; tables shared by all engines do not count."""
    total, seen, todo = 0, set(), [engine]
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, bytes | bytearray | str):
            total += len(thing)
        elif isinstance(thing, list | tuple) or (
            type(thing).__module__.startswith("tidegate.protocol.http1")
        ):
            total += 8 * len(thing) if isinstance(thing, list) else 0
            todo += gc.get_referents(thing)
    return total
