"""The signals a server is ended by: the first one asks, the second one insists."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)


class EndingSignals:
    """While entered, SIGINT and SIGTERM call `stop`, and from the second one on `force`.

    `received` is the first of them. Outside the main thread, where Python handles no signals,
    nothing is changed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[signal.Signals], None],
        force: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._stop = stop
        self._force = force
        self._installed = False
        self.received: signal.Signals | None = None

    def __enter__(self) -> EndingSignals:
        if threading.current_thread() is threading.main_thread():
            self._installed = True
            for number in ENDING:
                self._loop.add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._installed:
            for number in ENDING:
                self._loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.received is None:
            self.received = number
            self._stop(number)
        else:
            self._force()
