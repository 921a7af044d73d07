"""How signals reach a process: through its event loop, or through a poll of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def forget_signals_in_children(numbers: Iterable[int]) -> None:
    """Processes that the application forks shall end by a signal like any other.

    Else they keep our handlers, and on Python 3.11 also the wakeup descriptor: what is sent to a
    child (`multiprocessing.Process.terminate`) would arrive in this process.
    """
    if not hasattr(os, "register_at_fork"):
        return
    owner, kept = os.getpid(), tuple(numbers)
    masks: dict[int, set[int]] = {}  # by thread

    def hold() -> None:
        """A signal that came in between would still go our way."""
        if os.getpid() == owner:
            masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, kept)

    def release() -> None:
        if (mask := masks.pop(threading.get_ident(), None)) is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def forget() -> None:
        if os.getppid() == owner and threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
            for number in kept:
                signal.signal(number, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=forget)


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
        self._before: dict[signal.Signals, Any] = {}
        self.received: signal.Signals | None = None

    def __enter__(self) -> EndingSignals:
        if threading.current_thread() is threading.main_thread():
            self._installed = True
            for number in ENDING:
                self._handle(number)
            forget_signals_in_children(ENDING)
        return self

    def _handle(self, number: signal.Signals) -> None:
        if os.name == "posix":
            self._loop.add_signal_handler(number, self._on_signal, number)
        else:  # where loops know no signals, and Python calls handlers between two bytecodes
            tell = self._loop.call_soon_threadsafe
            self._before[number] = signal.signal(
                number, lambda _number, _frame: tell(self._on_signal, number) and None
            )

    def __exit__(self, *exc: object) -> None:
        if self._installed:
            for number in ENDING:
                if number in self._before:
                    signal.signal(number, self._before.pop(number))
                else:
                    self._loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.received is None:
            self.received = number
            self._stop(number)
        else:
            self._force()


class Insistence:
    """Notices that somebody insists on the end, and that the event loop does not hear it.

    A loop hears of a signal when it turns. What Python itself calls runs as soon as the main thread
    is at Python code, also in the midst of a callback that blocks the loop. `on_blocked` is called
    in a thread, with the signal and the place where the main thread stands.
    """

    PATIENCE = 1.0  # seconds for a loop that is merely busy

    def __init__(self, on_blocked: Callable[[signal.Signals, FrameType | None], None]) -> None:
        self._on_blocked = on_blocked
        self._before: dict[int, Any] = {}
        self._asked = False  # the end, once; from the second time on it is insisted on
        self._heard: threading.Event | None = None  # while it is waited for

    def cover(self, *numbers: signal.Signals) -> None:
        """Call this in the main thread, once the loop handles the signals; it still does.

        From here on a signal also interrupts what the main thread waits for in the kernel: else it
        would sit out a `recv`, and nobody would see that the loop is blocked.
        """
        for number in numbers:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._on_signal)

    def heard(self) -> None:
        """The loop turns: called by what it calls for a signal, and at the end."""
        if self._heard is not None:
            self._heard.set()
            self._heard = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        asked, self._asked = self._asked, True
        if (asked or number == signal.SIGQUIT) and self._heard is None:
            self._heard = threading.Event()
            with contextlib.suppress(RuntimeError):  # there may be no room for a thread
                threading.Thread(
                    target=self._wait, args=(signal.Signals(number), self._heard), daemon=True
                ).start()
        if callable(before := self._before[number]):
            before(number, frame)

    def _wait(self, number: signal.Signals, heard: threading.Event) -> None:
        if not heard.wait(self.PATIENCE):
            main = threading.main_thread().ident
            self._on_blocked(number, sys._current_frames().get(main or 0))


class Inbox:
    """While entered, the given signals wake whoever polls `fileno()`, and are kept for `take()`.

    For a process without an event loop. Leaving puts back what was there before, also in a child
    that was forked meanwhile and leaves on its own way.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._come: list[signal.Signals] = []
        self._before: dict[int, Any] = {}
        self._reader, self._writer = socket.socketpair()
        self._wakeup_before = -1

    def __enter__(self) -> Inbox:
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)  # None: set in C
        signal.set_wakeup_fd(self._wakeup_before)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        return self._reader.fileno()

    def was_ignored(self, number: int) -> bool:
        """Before: whoever has started us wanted it so."""
        return self._before[number] is signal.SIG_IGN

    def take(self) -> list[signal.Signals]:
        """What has come since, in order; the same one may have come more than once."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        come, self._come = self._come, []
        return come

    def _on_signal(self, number: int, _frame: object) -> None:
        self._come.append(signal.Signals(number))
