"""What systemd is told (sd_notify(3)): we are ready, we reload, we stop, we are alive.

A datagram of lines to the Unix socket that the environment names. It is opened for each message:
they are few, and no descriptor is left for workers and new binaries to inherit.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping

EXTENSION = 10.0  # seconds between two requests for patience while the application starts


class Notifier:
    """Made from the environment; where nobody listens, every method returns at once.

    No method raises or waits: a service manager that is gone or slow must not stop a server.
    """

    __slots__ = ("_address", "watchdog_interval")

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        # How often, in seconds, `watchdog` is to be called: twice in the time that is allowed, as
        # sd_watchdog_enabled(3) advises. None: nobody waits for it, or not from this process.
        self.watchdog_interval: float | None = _interval(environment) if self._address else None

    def __bool__(self) -> bool:
        """Somebody listens."""
        return bool(self._address)

    def ready(self, status: str = "") -> None:
        """The start, or a reload, is over."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # Type=notify-reload takes only what is newer than its own request: hence the time.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """Still alive."""
        self._send("WATCHDOG=1")

    def extend(self) -> None:
        """The start goes on; to be said every EXTENSION seconds."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(2 * EXTENSION * 1_000_000)}")

    def main_pid(self, pid: int) -> None:
        """Another process is the service from now on."""
        self._send(f"MAINPID={pid}")

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        message = "\n".join(lines).encode("utf-8", "replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message, self._address)
        except OSError:
            pass  # gone, full or not for us: there is nobody else to tell


class Extension:
    """From `begin` to `end` a slow start is waited for, whatever this thread is busy with."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="tidegate-patience", daemon=True)

    def begin(self) -> None:
        if self._notifier:
            self._thread.start()

    def end(self) -> None:
        """May be called again."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *exc: object) -> None:
        self.end()

    def _ask(self) -> None:
        self._notifier.extend()
        while not self._over.wait(EXTENSION):
            self._notifier.extend()


def _address(name: str) -> bytes:
    """A path or, after `@`, an abstract name. (`vsock:` is for the init of a virtual machine.)"""
    if not hasattr(socket, "AF_UNIX"):
        return b""
    if name.startswith("/"):
        return os.fsencode(name)
    return b"\0" + os.fsencode(name[1:]) if name.startswith("@") and len(name) > 1 else b""


def _interval(environment: Mapping[str, str]) -> float | None:
    try:
        allowed = int(environment.get("WATCHDOG_USEC", ""))
        watched = int(environment.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    return allowed / 2_000_000 if allowed > 0 and watched == os.getpid() else None


def _status(text: str) -> tuple[str, ...]:
    # A line break would begin another assignment.
    line = " ".join(text.split())
    return (f"STATUS={line}",) if line else ()
