"""SIGUSR2: a new binary takes over the sockets while the old one serves.

The new one is started with our own command line, so it is whatever Python and Tidegate stand there
by now, with its configuration read anew. It inherits the listeners, says over a socket when all of
its workers serve, and only then do ours leave. If it fails, nothing has changed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence

from tidegate.net.listener import Listener
from tidegate.process.births import adopt, fork
from tidegate.process.channel import Channel
from tidegate.process.handle import send_signal

PREDECESSOR = "TIDEGATE_PREDECESSOR"  # the descriptor of the channel to the process before
LISTENERS = "TIDEGATE_LISTENERS"  # what Listener.heritage says, one a line


class Upgrade:
    """Both sides of it: our predecessor's channel, if there is one, and our successor's."""

    def __init__(self, environ: MutableMapping[str, str], folder: str) -> None:
        """Takes from the environment what a predecessor left there; `folder`: where to start."""
        self._folder = folder
        self._predecessor: Channel | None = None
        self._successor: Channel | None = None
        self._successor_pid = 0
        self._stopped = False
        descriptor = environ.pop(PREDECESSOR, "")
        if descriptor:
            self._predecessor = adopt(int(descriptor))
            os.set_inheritable(int(descriptor), False)

    @property
    def channels(self) -> list[Channel]:
        return [self._successor] if self._successor is not None else []

    @property
    def taking_over(self) -> bool:
        return self._predecessor is not None

    def announce_ready(self) -> None:
        """We serve: our predecessor may leave."""
        if self._predecessor is not None:
            self._predecessor.send("ready")
            self._predecessor.close()
            self._predecessor = None

    def begin(
        self, listeners: Sequence[Listener], log: logging.Logger, *, nohup: bool = False
    ) -> None:
        """Start the new binary. `nohup`: the end of a terminal is not to be heeded."""
        if os.getpid() == 1:
            log.error(
                "SIGUSR2: this is process 1 of its container, which ends with it, whoever took "
                "over. Start a new container instead; SIGHUP restarts the workers with new code."
            )
            return
        if self._successor is not None:
            log.warning("SIGUSR2: a new binary is starting already.")
            return
        if self._predecessor is not None:
            log.warning("SIGUSR2: this process is a new binary itself, and has not taken over yet.")
            return
        ours, theirs = Channel.pair()
        self._successor_pid = fork()
        if not self._successor_pid:
            self._become_new(listeners, theirs, nohup=nohup)
        theirs.close()
        self._successor = ours
        log.info("SIGUSR2: a new binary starts, process %d.", self._successor_pid)

    def _become_new(self, listeners: Sequence[Listener], channel: Channel, *, nohup: bool) -> None:
        """In the child. Never returns."""
        try:
            for descriptor in (channel.fileno(), *(one.sock.fileno() for one in listeners)):
                os.set_inheritable(descriptor, True)
            environ = {
                **environment_of_successor(os.environ),
                PREDECESSOR: str(channel.fileno()),
                LISTENERS: "\n".join(one.heritage for one in listeners),
            }
            with contextlib.suppress(OSError):
                os.chdir(self._folder)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)  # our parent's handler would lose it
            if nohup:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(2, f"tidegate: the new binary cannot be started: {error}\n".encode())
        os._exit(127)

    def taken_over(self, log: logging.Logger) -> int:
        """The process that has taken over, if one has said so by now."""
        successor = self._successor
        if successor is None or "ready" not in successor.receive():
            return 0
        if self._has_ended():
            return 0  # right after it had said so
        pid, self._successor_pid = self._successor_pid, 0
        self._successor = None
        successor.close()
        log.info("Process %d has taken over; this one leaves.", pid)
        return pid

    def _has_ended(self) -> bool:
        if self._successor_pid and os.waitpid(self._successor_pid, os.WNOHANG)[0]:
            self._successor_pid = 0
        return not self._successor_pid

    def reap(self, log: logging.Logger) -> bool:
        """See whether the new binary has failed."""
        if self._successor is None or not self._has_ended():
            return False
        self._successor.close()
        self._successor = None
        if not self._stopped:
            log.error("The new binary ended before it took over: this one serves on.")
        return True

    def stop(self) -> None:
        """We are told to end: so is who was to follow us."""
        self._stopped = True
        if self._successor_pid:
            send_signal(self._successor_pid, signal.SIGTERM)

    def forget(self) -> None:
        """In a child that has nothing to do with either."""
        for channel in (self._predecessor, self._successor):
            if channel is not None:
                channel.close()


def environment_of_successor(environ: Mapping[str, str]) -> dict[str, str]:
    """What the new binary finds: nothing that was meant for this process alone."""
    kept = {name: value for name, value in environ.items() if not name.startswith("LISTEN_")}
    if "WATCHDOG_PID" in kept:
        kept["WATCHDOG_PID"] = str(os.getpid())  # we are the child already, and stay it
    return kept
