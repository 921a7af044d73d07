"""A laboratory for one exchange: between an engine and a wire that only keep what they are told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from tidegate.asgi.exchange import Exchange
from tidegate.asgi.service import Clock, Service
from tidegate.protocol.events import Request, RequestHead

LOG = logging.getLogger("tests.exchange")
STREAM = 7


class Engine:
    """Keeps what it is told. What `send_body` reports as queued is `pending`."""

    supports_early_hints = True
    supports_push = False

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.pending = 0
        self.taken = 0

    def take_body(self, stream: int, size: int) -> None:
        self.calls.append(("take", size))

    def send_informational(self, stream: int, status: int, headers: Any) -> None:
        self.calls.append(("informational", status, list(headers)))

    def send_head(self, stream: int, status: int, headers: Any) -> None:
        assert stream == STREAM
        self.calls.append(("head", status, list(headers)))

    def send_body(self, stream: int, data: Any, end: bool) -> int:
        assert stream == STREAM
        self.calls.append(("body", data, end))
        return self.pending

    def send_trailers(self, stream: int, headers: Any, end: bool) -> None:
        self.calls.append(("trailers", list(headers), end))

    def push(self, stream: int, path: str, headers: Any) -> None:
        self.calls.append(("push", path, list(headers)))

    def queued(self, stream: int) -> int:
        return self.pending

    def reset(self, stream: int) -> None:
        self.calls.append(("reset", stream))

    def sent(self) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] != "take"]


class Wire:
    """A connection whose kernel takes everything, unless `stuck`."""

    flush_due = False

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stuck = False
        self.flushes = self.soon = self.finished = 0
        self.ended: list[Exchange] = []
        self.abandoned: list[str] = []
        self.waiting: list[asyncio.Future[None]] = []

    @property
    def backlog(self) -> int:
        return self.engine.pending if self.stuck else 0

    def flush(self) -> None:
        self.flushes += 1
        if not self.stuck:
            self.engine.pending = 0

    def flush_soon(self) -> None:
        self.soon += 1

    def finish(self) -> None:
        self.finished += 1

    def on_end(self, exchange: Exchange) -> None:
        self.ended.append(exchange)

    def drained(self, stream: int, least: int) -> asyncio.Future[None]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    def abandon(self, stream: int, reason: str) -> None:
        self.abandoned.append(reason)

    def release(self) -> None:
        """The client reads on."""
        self.stuck = False
        self.wake()

    def wake(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)


class Lab:
    """One exchange and everything around it."""

    def __init__(self, app: Any = None, end: bool = True) -> None:
        head = RequestHead()
        head.method, head.path, head.headers = "GET", "/there", ()
        self.engine = Engine()
        self.wire = Wire(self.engine)
        self.recorded: list[Exchange] = []
        loop = asyncio.get_running_loop()
        service = Service(app, loop, Clock(), LOG, record=self.recorded.append)
        request = Request(STREAM, head, end)
        self.exchange = Exchange(service, self.wire, self.engine, request, {})  # type: ignore[arg-type]
        self.send, self.receive = self.exchange.send, self.exchange.receive

    def run(self) -> asyncio.Task[None]:
        """The application's task, as a connection starts it."""
        task = asyncio.get_running_loop().create_task(self.exchange.run())
        self.exchange.task = task
        return task


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    async def guarded() -> Any:
        async with asyncio.timeout(20):  # a guard against hanging, never reached
            return await test()

    return asyncio.run(guarded())


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
