"""The habits of operations for a server that is one process, without a supervisor.

Signals, systemd and the watchdog, all through the running loop. What needs a second process is
refused in a sentence that says how to have one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.process.pid_file import PidFile
from tidegate.process.signals import (
    ENDING,
    EndingSignals,
    Insistence,
    forget_signals_in_children,
)
from tidegate.process.systemd import Extension, Notifier

_NEEDING = ("SIGUSR2", "SIGTTIN", "SIGTTOU")
_LAST_WORDS = 2.0  # seconds; whoever reads our output may be stuck, too


class Served(Protocol):
    def stop(self) -> None: ...
    def force(self) -> None: ...


class LogFiles(Protocol):
    def reopen(self) -> None: ...
    def flush(self) -> None: ...


class Closing(Protocol):
    def close(self) -> None: ...


class Lone:
    """While entered, signals reach `worker`; `ready` tells systemd.

    To be entered before there is anything to leave behind, and left after. `sockets` are closed
    where the loop is blocked and cannot do that itself.
    """

    sockets: Closing | None = None

    def __init__(
        self,
        worker: Served,
        config: Config,
        log: logging.Logger,
        access: LogFiles,
    ) -> None:
        self._pid_file = PidFile(config.pid_file) if config.pid_file else None
        self._umask = config.umask
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._log = log
        self._access = access
        self._notifier = Notifier(os.environ)
        self._extension = Extension(self._notifier)
        self._ending = EndingSignals(self._loop, self._on_ending, self._on_insisted)
        self._insistence = Insistence(self._on_blocked)
        self._handlers: dict[int, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Lone:
        if self._umask is not None:
            os.umask(self._umask)
        self._ending.__enter__()
        if threading.current_thread() is threading.main_thread():
            self._handle("SIGQUIT", self._on_quit)
            self._handle("SIGUSR1", self._on_reopen)
            for name in _NEEDING:
                self._handle(name, self._explain, name)
            # nohup has it ignored, and then it stays so
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                self._handle("SIGHUP", self._on_hangup)
            forget_signals_in_children(self._handlers)
            if hasattr(signal, "SIGQUIT"):  # not on Windows, where the loop has no handlers
                self._insistence.cover(*ENDING, signal.SIGQUIT)
        if self._pid_file is not None:
            try:
                self._pid_file.write()
            except ConfigurationError:
                self.__exit__()
                raise
        self._extension.begin()
        return self

    def __exit__(self, *exc: object) -> None:
        self._extension.end()
        self._insistence.heard()
        if self._pid_file is not None:
            self._pid_file.remove()
        self._ending.__exit__(*exc)
        for number in self._handlers:
            self._loop.remove_signal_handler(number)
        if self._timer is not None:
            self._timer.cancel()
        self._notifier.stopping()

    def _handle(self, name: str, on_signal: Callable[..., None], *told: str) -> None:
        number = getattr(signal, name, None)
        if number is not None and os.name == "posix":
            self._handlers[number] = on_signal
            self._loop.add_signal_handler(number, on_signal, *told)

    def ready(self) -> None:
        """Connections are accepted."""
        self._extension.end()
        self._notifier.ready("serving")
        self._pet()

    def _pet(self) -> None:
        """As long as the loop turns, the watchdog is told so."""
        interval = self._notifier.watchdog_interval
        if interval is not None:
            self._notifier.watchdog()
            self._timer = self._loop.call_later(interval, self._pet)

    # ------------------------------------------------------------------------ signals

    def _on_ending(self, number: signal.Signals) -> None:
        self._insistence.heard()
        self._log.info("%s: stopping. Once more ends at once.", number.name)
        self._notifier.stopping()
        self._worker.stop()

    def _on_insisted(self) -> None:
        self._insistence.heard()
        self._worker.force()

    def _on_quit(self) -> None:
        self._insistence.heard()
        self._log.info("SIGQUIT: stopping at once.")
        self._worker.force()

    def _on_hangup(self) -> None:
        self._log.info(
            "SIGHUP: stopping. (To restart with new code instead: --supervise, or several workers.)"
        )
        self._worker.stop()

    def _on_reopen(self) -> None:
        self._log.info("SIGUSR1: opening the log files again.")
        self._access.reopen()

    def _explain(self, name: str) -> None:
        self._log.warning(
            "%s needs a supervisor, and this server is one process: start it with --supervise.",
            name,
        )

    # ------------------------------------------------------------------------ a blocked loop

    def _on_blocked(self, number: signal.Signals, frame: FrameType | None) -> None:
        """In a thread: nothing of the usual end can happen. Leave nothing behind, and go."""
        try:
            self._notifier.stopping()
            if self._pid_file is not None:
                self._pid_file.remove()
            if self.sockets is not None:
                self.sockets.close()
            speaker = threading.Thread(target=self._tell_place, args=(number, frame), daemon=True)
            speaker.start()
            speaker.join(_LAST_WORDS)
        finally:
            os._exit(1)

    def _tell_place(self, number: signal.Signals, frame: FrameType | None) -> None:
        from tidegate.process.last_words import last_words
        from tidegate.process.stacks import of_application

        stack = of_application(frame)
        place = f"{stack[-1].filename}, line {stack[-1].lineno}" if stack else "an unknown place"
        self._log.error(
            "%s: the event loop does not hear it, since it is blocked in %s. Ending at once.\n%s",
            number.name,
            place,
            "".join(stack.format()).rstrip(),
        )
        self._access.flush()
        last_words()
