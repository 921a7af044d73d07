"""What all exchanges of a worker share: the application, loop, clock, and who keeps the record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from tidegate.asgi.line import Line
from tidegate.types import Application

if TYPE_CHECKING:
    from tidegate.asgi.exchange import Exchange
    from tidegate.asgi.handshaking import Handshaking


class Clock:
    """Monotonic seconds, read once per batch of events and not once per use."""

    __slots__ = ("now", "read")

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self.read = read
        self.now = read()

    def tick(self) -> float:
        self.now = now = self.read()
        return now


class SocketTerms(NamedTuple):
    """What holds for every WebSocket of a worker; None: no pings."""

    max_size: int
    max_queue: int
    ping_interval: float | None
    ping_timeout: float | None
    deflate: bool


class Service:
    """One worker's application and what serving it needs.

    `record` is None where nobody listens, `sockets` where WebSocket is off.
    """

    __slots__ = ("app", "clock", "inflating", "log", "loop", "record", "sockets")

    def __init__(
        self,
        app: Application,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        log: logging.Logger,
        *,
        record: Callable[[Exchange | Handshaking], None] | None = None,
        sockets: SocketTerms | None = None,
    ) -> None:
        self.app = app
        self.loop = loop
        self.clock = clock
        self.log = log
        self.record = record
        self.sockets = sockets
        self.inflating = Line(loop)
