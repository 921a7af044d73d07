"""One worker as its supervisor sees it: where it stands, and what has been heard from it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from enum import Enum
from typing import NamedTuple

from tidegate.process.board import Seat
from tidegate.process.channel import Channel

# What a worker writes its stack to when it is asked, or when it crashes.
# No application uses the last real-time signal; where there are none (macOS), one has to be shared.
STACK_SIGNAL: int = getattr(signal, "SIGRTMAX", getattr(signal, "SIGUSR2", 0))
_STACK_BOUND = 16384  # bytes of it that are kept
_STACK_READS = 4


class State(Enum):
    """The table `NEXT` says what may follow; a death may follow anything."""

    STARTING = "imports the application and waits for its startup"
    READY = "serves"
    LEAVING = "finishes its requests, accepts no more"
    HANGING = "was asked for its stack; will be killed"
    GONE = "has ended"


NEXT = {
    State.STARTING: {State.READY, State.LEAVING, State.HANGING, State.GONE},
    State.READY: {State.LEAVING, State.HANGING, State.GONE},
    State.LEAVING: {State.HANGING, State.GONE},
    State.HANGING: {State.GONE},
    State.GONE: set[State](),
}


class Failure(NamedTuple):
    """Why a start failed, in the child's words; `final`: trying again would be no use."""

    text: str
    final: bool

    @classmethod
    def read(cls, said: str) -> Failure:
        failure = json.loads(said)
        return cls(str(failure["text"]), failure["final"] is True)


class Handle:
    """`since` is when it came into its state; `due` says why it is to be replaced, if it is."""

    # fmt: off
    __slots__ = (
        "_stack", "born", "channel", "closed", "done_at", "due", "failure", "generation",
        "importer", "kills", "oom_before", "owed", "pid", "ready_at", "round", "seat", "seen",
        "since", "stack_fd", "state", "status", "told_deaf", "told_slow", "unborn", "was_ready",
    )
    # fmt: on

    def __init__(self, channel: Channel, stack_fd: int, seat: Seat, *, generation: int) -> None:
        self.pid = 0  # until its importer has said it
        self.importer = 0  # the process that forked it, where that was not the supervisor
        self.unborn = False  # its importer could not fork
        self.kills = 0  # how often we have killed it
        self.owed = 0  # the signal it gets once it has a name
        self.channel = channel
        self.stack_fd = stack_fd  # the reading end, non-blocking
        self.seat = seat
        self.generation = generation
        self.state = State.STARTING
        self.born = self.since = self.ready_at = 0.0
        self.closed = False  # it accepts no more
        self.done_at = 0.0  # since then it has let go of everything, and has only to end
        self.due = ""
        self.failure: Failure | None = None  # why it could not start, if it said so
        self.was_ready = False
        self.told_slow = 0.0
        self.told_deaf = False
        self.seen = 0.0  # its last beat that was looked at
        self.oom_before: int | None = None  # kills for memory up to then
        self.round = 0
        self.status: int | None = None  # as waitpid gives it; None: nobody knows
        self._stack = b""

    def enter(self, state: State, now: float) -> None:
        """Go on to a state that may follow."""
        if state not in NEXT[self.state]:
            raise RuntimeError(f"a worker cannot go from {self.state.name} to {state.name}")
        self.state = state
        self.since = now
        if state is State.READY:
            self.was_ready, self.ready_at = True, now

    @property
    def active(self) -> bool:
        """It serves, or will: it counts as one of the workers asked for."""
        return self.state is State.STARTING or self.state is State.READY

    def read_stack(self) -> None:
        """Take what faulthandler has written."""
        with contextlib.suppress(OSError):
            for _ in range(_STACK_READS):
                data = os.read(self.stack_fd, 65536)
                self._stack = (self._stack + data)[:_STACK_BOUND]

    @property
    def stack(self) -> str:
        return self._stack.decode("utf-8", "replace").strip()

    def kill(self, number: int) -> None:
        """Send it a signal, if it is there; to one without a name yet, as soon as it has one."""
        self.kills += number == signal.SIGKILL
        if not self.pid:
            self.owed = number
        elif self.state is not State.GONE:
            send_signal(self.pid, number)

    def name(self, pid: int) -> None:
        """Its importer says which process it is."""
        self.pid = pid
        owed, self.owed = self.owed, 0
        if owed and self.state is not State.GONE:
            send_signal(pid, owed)

    def let_go(self) -> None:
        """Close what we hold of it; its seat may be given to the next."""
        self.channel.close()
        os.close(self.stack_fd)


def send_signal(pid: int, number: int) -> bool:
    """False where it is gone, or another user's that we may not signal (without CAP_KILL)."""
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True
