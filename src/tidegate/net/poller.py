"""Who tells a connection that its socket can be read or written.

Two pollers behind one interface: `ReaderPoller` asks the loop's `add_reader` for every descriptor
and works everywhere; `EpollPoller` (net/epoll.py, Linux) keeps the client sockets in an epoll
instance of its own, of which the loop watches the one descriptor. `choose` picks.

A handler that raises is a bug of ours; it is reported, its connection ends, the batch goes on.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from tidegate.errors import ConfigurationError


class Handler(Protocol):
    """One descriptor's owner."""

    def on_readable(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_error(self, error: Exception) -> None: ...


class Corked(Protocol):
    """A handler with something left to write when the others of its batch have had their turn."""

    def on_batch_end(self) -> None: ...
    def on_error(self, error: Exception) -> None: ...


class Poller(Protocol):
    """Level-triggered: a handler is told again until it has read what is there.

    `batch`: who is told of the end of the batch under way; None where there are no batches.
    """

    name: str
    batch: list[Corked] | None

    def add(self, fd: int, handler: Handler) -> None: ...
    def watch(self, fd: int, read: bool, write: bool) -> None: ...
    def remove(self, fd: int) -> None: ...
    def close(self) -> None: ...


class ReaderPoller:
    """One `add_reader` per descriptor; `tick` is called before a handler is."""

    name = "reader"
    batch: list[Corked] | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: Callable[[], object]) -> None:
        self._loop = loop
        self._tick = tick
        self._handlers: dict[int, Handler] = {}
        self._writing: set[int] = set()

    def add(self, fd: int, handler: Handler) -> None:
        self._handlers[fd] = handler
        self._loop.add_reader(fd, self._on_readable, handler)

    def watch(self, fd: int, read: bool, write: bool) -> None:
        handler = self._handlers[fd]
        if read:
            self._loop.add_reader(fd, self._on_readable, handler)
        else:
            self._loop.remove_reader(fd)
        if write:
            self._writing.add(fd)
            self._loop.add_writer(fd, self._on_writable, handler)
        elif fd in self._writing:
            self._writing.discard(fd)
            self._loop.remove_writer(fd)

    def remove(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
            if fd in self._writing:
                self._writing.discard(fd)
                self._loop.remove_writer(fd)

    def close(self) -> None:
        for fd in list(self._handlers):
            self.remove(fd)

    def _on_readable(self, handler: Handler) -> None:
        self._tick()
        try:
            handler.on_readable()
        except Exception as error:
            handler.on_error(error)

    def _on_writable(self, handler: Handler) -> None:
        self._tick()
        try:
            handler.on_writable()
        except Exception as error:
            handler.on_error(error)


def choose(
    kind: str,
    loop: asyncio.AbstractEventLoop,
    tick: Callable[[], object],
    read: Callable[[], float] = monotonic,
) -> Poller:
    """The poller for `--poller`: "auto" takes epoll where the kernel has it.

    `tick` is called before the handlers are; `read` tells the time.
    """
    if kind != "reader" and hasattr(select, "epoll"):
        from tidegate.net.epoll import EpollPoller

        return EpollPoller(loop, tick, read)
    if kind == "epoll":
        raise ConfigurationError(
            "--poller epoll needs Linux: this system has no epoll", "Use --poller auto."
        )
    return ReaderPoller(loop, tick)
