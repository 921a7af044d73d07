"""A worker's side of its supervision: what it is told, what it tells, and its heartbeat.

The heart beats from a timer of the event loop, so it stops when the loop does. With every beat the
worker looks whether it has grown too large or too old; then it asks for a successor, and serves on
until it is told to leave.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from tidegate.config import Config
from tidegate.process.births import Birth
from tidegate.process.board import Seated
from tidegate.process.handle import STACK_SIGNAL
from tidegate.process.keys import Keys
from tidegate.process.signals import forget_signals_in_children

log = logging.getLogger("tidegate")

BEAT = 0.5  # seconds; half of what the supervisor looks in
LONGEST_REASON = 16384  # characters of why a start failed
_JITTER = 0.1  # of the lifetime: workers that were started together need not end together


class Served(Protocol):
    """What is told to leave: a `serving.worker.Worker`."""

    def stop(self) -> None: ...
    def retire(self) -> None: ...
    def force(self) -> None: ...
    @property
    def requests(self) -> int: ...


class Post(Seated):
    """One worker's place."""

    patient = True  # see Watchman

    def __init__(self, birth: Birth, config: Config, keys: Keys) -> None:
        assert birth.seat is not None
        super().__init__(birth.seat)
        self._channel = birth.channel
        self._config = config
        self._keys = keys
        self._until = float("inf")
        self._most: int | None = None  # bytes of memory
        self._due = False
        self._worker: Served | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        if birth.stack_fd >= 0:
            faulthandler.enable(birth.stack_fd)
            if STACK_SIGNAL:
                faulthandler.register(STACK_SIGNAL, birth.stack_fd, chain=False)
        self._channel.send(f"pid {os.getpid()}")

    def attach(self, worker: Served, reopen_logs: Callable[[], None]) -> None:
        """Obey from here on, in the running loop."""
        self._worker = worker
        self._reopen_logs = reopen_logs
        self._loop = loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._on_line)
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        loop.add_signal_handler(signal.SIGQUIT, worker.force)
        forget_signals_in_children((signal.SIGTERM, signal.SIGQUIT))
        self._on_line()

    def detach(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_signal_handler(signal.SIGTERM)
            self._loop.remove_signal_handler(signal.SIGQUIT)
            self._channel.send("done")
        if self._timer is not None:
            self._timer.cancel()

    # ------------------------------------------------------------------------ what it tells

    def leave(self) -> None:
        """Nothing is accepted any longer."""
        super().leave()
        self._channel.send("closed")

    def ready(self, facts: dict[str, Any]) -> None:
        """The application is started and connections are accepted."""
        lifetime = self._config.limit_max_lifetime
        if lifetime:
            self._until = time.monotonic() + lifetime * (1 + random.uniform(0, _JITTER))
        most = self._config.limit_max_memory
        if most and (used := resident_memory()) > most:
            log.warning(
                "A fresh worker takes %d MiB already: --limit-max-memory %d MiB is not heeded.",
                used >> 20,
                most >> 20,
            )
        else:
            self._most = most
        self._beat()
        self._channel.send(f"ready {json.dumps(facts)}")

    def tell_modules(self, names: list[str]) -> None:
        """What the next worker could have loaded before it is needed (warming.py)."""
        self._channel.send(f"modules {json.dumps(names)}")

    def failed(self, text: str, *, final: bool) -> None:
        """The start has failed; `final`: trying again would be no use."""
        said = {"text": text[:LONGEST_REASON], "final": final}
        self._channel.send(f"failed {json.dumps(said)}")

    def ask_for_successor(self, why: str) -> None:
        """Serve on until there is one."""
        if not self._due:
            self._due = True
            self._channel.send(f"limit {why}")

    def _beat(self) -> None:
        assert self._loop is not None and self._worker is not None
        self._channel.flush()  # what was too long to be taken at once
        self.seat.beat(self._worker.requests)
        self._timer = self._loop.call_later(BEAT, self._beat)
        if self._due:
            return
        if time.monotonic() >= self._until:
            self.ask_for_successor("its time is up (--limit-max-lifetime)")
        elif self._most and (used := resident_memory()) > self._most:
            self.ask_for_successor(
                f"it has grown to {used >> 20} MiB (--limit-max-memory {self._most >> 20} MiB)"
            )

    # ------------------------------------------------------------------------ what it is told

    def _on_sigterm(self) -> None:
        """From whoever wants this one worker gone. The supervisor sends it, too, after a word to
        one that was not ready yet: that word is heard first."""
        assert self._worker is not None
        self._on_line()
        if not self.seat.accepts:
            self._worker.stop()
        elif self._due:
            self._worker.retire()  # at once; who connects waits for the successor
        else:
            self.ask_for_successor("it was sent SIGTERM")

    def _on_line(self) -> None:
        worker = self._worker
        assert worker is not None and self._loop is not None
        for line in self._channel.receive():
            if line == "retire":
                worker.retire()
            elif line == "stop":
                worker.stop()
            elif line == "force":
                worker.force()
            elif line == "reopen":
                self._reopen_logs()
            elif line == "files":
                self._keys.receive(self._channel)
        if self._channel.ended:  # the supervisor is gone, and nobody will replace us
            self._loop.remove_reader(self._channel.fileno())
            worker.stop()


def resident_memory() -> int:
    """Bytes of this process that are in memory; where only the most so far is known, that."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
