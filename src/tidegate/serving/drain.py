"""The graceful end of a worker's connections: what is under way is finished, nothing new is begun.

With a successor on the same listener an idle HTTP/1 connection stays for one more request: its
client cannot be told anything before it asks, and a request may be on its way at any moment. The
answer then says `Connection: close`. Each that says nothing for `--drain-idle` is closed by the
sweep (patience.py), counted from its last answer: one that is under way may have promised that the
connection lives on. Those that are still being opened have `--timeout-tls-handshake`.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from enum import Enum
from typing import TYPE_CHECKING

from tidegate.asgi.service import Clock
from tidegate.serving.site import Floor

if TYPE_CHECKING:
    from tidegate.asgi.exchange import Exchange
    from tidegate.asgi.session import Session
    from tidegate.config import Config

NEW = 0.5  # seconds for the first request of those who connect at the moment of a reload
RELOAD = 2.0  # seconds of grace at most where somebody waits for the new code
AGAIN = 0.25  # seconds until requests that have begun meanwhile are told of the end
NAMED = 10  # requests named in the log when they keep a stop waiting
QUIET = 0.1  # seconds a stop may take without a word about what it waits for


class Farewell(Enum):
    STOP = "nobody serves here afterwards"
    RETIRE = "a successor serves already"


class Drain:
    """One end of a floor; `forced` is done when it is to be over at once."""

    def __init__(
        self, floor: Floor, clock: Clock, config: Config, log: logging.Logger, forced: Future[None]
    ) -> None:
        self._floor = floor
        self._clock = clock
        self._config = config
        self._log = log
        self._forced = forced
        self._loop = asyncio.get_running_loop()
        self._empty: Future[None] = self._loop.create_future()
        self._exchanges_timer: asyncio.TimerHandle | None = None
        self._newcomers_timer: asyncio.TimerHandle | None = None

    async def run(self, farewell: Farewell, *, tail: bool = True) -> bool:
        """Wait until the floor is empty; False if requests were left when the grace was over.

        `tail`: after the grace there is time for those who may still ask (--drain-idle).
        """
        floor = self._floor
        floor.on_empty = self._on_empty
        self._clock.tick()
        self._stop_exchanges()
        if farewell is Farewell.RETIRE:
            floor.leaving = self._config.drain_idle
            for connection in list(floor.connections):
                connection.retire()
        else:
            self._end_reading(newcomers=not self._config.reload)
        if not floor.connections and not floor.running:
            self._on_empty()
        try:
            return await self._wait(farewell, tail)
        finally:
            floor.on_empty = None
            for timer in (self._exchanges_timer, self._newcomers_timer):
                if timer is not None:
                    timer.cancel()

    def _stop_exchanges(self) -> None:
        """Event streams and WebSockets would never end by themselves; nor would those that begin
        now, as the last request of their connection."""
        for exchange in list(self._floor.running):
            exchange.stop()
        self._exchanges_timer = self._loop.call_later(AGAIN, self._stop_exchanges)

    def end_idle(self) -> None:
        """Who says nothing is not waited for any longer."""
        self._clock.tick()
        self._end_reading(newcomers=True)

    def _end_reading(self, *, newcomers: bool) -> None:
        """`newcomers`: those, too, who have only just connected. Else they are about to ask, and
        are answered rather than sent away; in a moment they are not new any more."""
        for connection in list(self._floor.connections):
            if newcomers or connection.begun:
                connection.stop()
            else:
                connection.retire()
        if not newcomers:
            self._newcomers_timer = self._loop.call_later(NEW, self.end_idle)

    def _on_empty(self) -> None:
        if not self._empty.done():
            self._empty.set_result(None)

    async def _wait(self, farewell: Farewell, tail: bool) -> bool:
        floor = self._floor
        grace = self._config.timeout_graceful_shutdown
        if self._config.reload:
            grace = min(RELOAD, RELOAD if grace is None else grace)
        if grace is not None and farewell is Farewell.RETIRE:
            grace = max(grace, self._config.drain_idle + self._config.timeout_linger)
        quiet = QUIET if grace is None else min(grace, QUIET)
        ends = {self._empty, self._forced}
        done, _ = await asyncio.wait(ends, timeout=quiet, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            if farewell is Farewell.STOP or floor.running:
                self._log.info("Stopping: waiting for %s", self._awaited())
            rest = None if grace is None else grace - quiet
            done, _ = await asyncio.wait(ends, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        if not done and tail and farewell is Farewell.RETIRE and not floor.running:
            # the last answers are out, and their clients may still ask
            rest = self._config.drain_idle
            await asyncio.wait(ends, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        if self._empty.done():
            return True
        if floor.running:
            self._log.warning(
                "%s; ended while still running: %s",
                "Forced to stop" if self._forced.done() else f"Not done within {grace:g} s",
                _named(floor.running, self._clock.tick()),
            )
        return not floor.running

    def _awaited(self) -> str:
        floor = self._floor
        if floor.running:
            return _named(floor.running, self._clock.tick())
        count = len(floor.connections)
        return f"{count} connection{'s' * (count > 1)} whose peer has not closed yet"


def _named(running: set[Exchange | Session], now: float) -> str:
    """The requests that are under way, the longest first."""
    oldest = sorted(running, key=lambda exchange: exchange.since)
    names = [
        f"{_kind(one)} {one.request.head.path} ({now - one.since:.1f} s)" for one in oldest[:NAMED]
    ]
    if len(oldest) > NAMED:
        names.append(f"and {len(oldest) - NAMED} more")
    return ", ".join(names)


def _kind(one: Exchange | Session) -> str:
    return "WebSocket" if one.scope.get("type") == "websocket" else one.request.head.method
