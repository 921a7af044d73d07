"""What a waiting `receive` awaits: the task goes on within the callback that brought the message.

Strategy: a future would have the loop call the task in its next turn, which costs two trips through
its queue (1.5 us a message), and then the answer has missed the batch it could have left with. So
this speaks the protocol that asyncio's tasks speak with futures (PEP 3156's, kept by every version
since), and `wake` calls the task back at once. That may happen only where no task is running: in a
callback of the poller's or the loop's. Everywhere else `wake_soon` does what a future does.

One task at a time waits on it; it can be awaited again once it is IDLE.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any


class State(enum.IntEnum):
    IDLE = 0  # nobody's
    RESERVED = 1  # somebody's, who has not told yet whom to wake
    AWAITED = 2
    WOKEN = 3  # or CANCELLED: the task has not gone on yet
    CANCELLED = 4


IDLE, RESERVED, AWAITED, WOKEN, CANCELLED = State


class Waiter:
    """See the module. `await waiter` returns once it is woken, or raises CancelledError."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_loop", "_message", "state")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False
        self._callback: Callable[[Any], object] | None = None  # the task's; while AWAITED
        self._context: Context
        self._message: object = None
        self.state: State = IDLE

    def wake(self) -> None:
        """The task goes on now, before this returns; only where no task is running."""
        if self.state is AWAITED:
            self.state = WOKEN
            callback = self._callback
            self._callback = None
            self._context.run(callback, self)  # type: ignore[arg-type]

    def wake_soon(self) -> None:
        """The task goes on in the loop's next turn."""
        if self.state is AWAITED:
            self.state = WOKEN
            self._schedule()

    def _schedule(self) -> None:
        callback = self._callback
        self._callback = None
        self._loop.call_soon(callback, self, context=self._context)  # type: ignore[arg-type]

    # ------------------------------------------------------------------------ what a task calls

    def __await__(self) -> Generator[Waiter, None, None]:
        self.state = RESERVED
        self._asyncio_future_blocking = True  # "this is how one waits for a future"
        try:
            yield self
        finally:
            self.state = IDLE

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        self._callback = callback
        self._context = context
        self.state = AWAITED

    def result(self) -> None:
        if self.state is CANCELLED:
            # with its message, by which anyio knows its own
            raise asyncio.CancelledError(*(() if self._message is None else (self._message,)))

    def cancel(self, msg: object = None) -> bool:
        """A task that waits is cancelled through this; False: it has been woken already."""
        if self.state is not AWAITED:
            return False
        self.state = CANCELLED
        self._message = msg
        self._schedule()
        return True
