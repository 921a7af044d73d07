"""Where processes are forked, and where their ends are noticed.

A worker is forked before the application is imported, so that every one of them has the code of
its own moment, and nothing that the application starts (threads, connections) exists when a fork
happens. With `--preload` an importer is forked first, imports the application once, and forks the
workers: it is the only process that forks with an application inside, and it does nothing else. A
restart makes a new importer; the old one stays as long as it has children, whose ends only it sees.

In a child the supervisor's loop returns the `Birth`, its stack unwinds, and whoever started the
supervisor makes of the process what it was born for.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from tidegate.process.board import Board, Seat
from tidegate.process.channel import Channel
from tidegate.process.handle import Failure, Handle, send_signal
from tidegate.process.last_words import flush_streams
from tidegate.process.signals import forget_signals_in_children

_PATIENCE = 2.0  # seconds for importers to end
_HELD = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
MEANT_FOR_THE_SUPERVISOR = (
    signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip


class Role(Enum):
    WORKER = "worker"
    IMPORTER = "importer"
    WATCHER = "watcher"
    WARMER = "warmer"


class Birth(NamedTuple):
    """What a new process was forked for. Only a worker has a seat and a place for its stack."""

    role: Role
    channel: Channel
    seat: Seat | None = None
    stack_fd: int = -1


class Importer:
    """The process that has imported the application, as the supervisor sees it."""

    def __init__(self, pid: int, channel: Channel, generation: int, round_: int) -> None:
        self.pid = pid
        self.channel = channel
        self.generation = generation
        self.round = round_
        self.since = self.told_slow = time.monotonic()
        self.ready = False
        self.dismissed = False
        self.failure: Failure | None = None

    def dismiss(self) -> None:
        """Tell it to end, once."""
        if not self.dismissed:
            self.dismissed = True
            self.channel.send("end")
            if not self.ready:
                send_signal(self.pid, signal.SIGTERM)  # it imports, and hears nothing


NO_GENERATION = -1  # of an importer that has none of the application's code (warming.py)
_NOBODY_S = -2  # of one that nobody asks any more: it may go once its children have ended


def fork() -> int:
    """`os.fork`, with nothing half-said in a buffer.

    In the child the signals that end or change a process are held: it still has its parent's
    handlers, which would swallow them. `release_signals` lets them in.
    """
    flush_streams()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def deaf_to_terminal() -> None:
    """What a terminal, or whoever signals a whole group, says to all is the supervisor's business.

    A handler that does nothing, since SIG_IGN would pass on to programs that are started.
    """
    for number in MEANT_FOR_THE_SUPERVISOR:
        signal.signal(number, _ignore)
    forget_signals_in_children(MEANT_FOR_THE_SUPERVISOR)


def _ignore(_number: int, _frame: object) -> None:
    pass


def release_signals() -> None:
    """In a child that has its own handlers by now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


class Births:
    """All children of the supervisor. `forget` is called in a child, to close what is not its."""

    def __init__(self, board: Board, *, preload: bool, forget: Callable[[], None]) -> None:
        self.board = board
        self.importers: list[Importer] = []
        self._preload = preload
        self._forget = forget
        self._pids: set[int] = set()  # of our own children, until they are reaped

    # ------------------------------------------------------------------------ beginnings

    def bear(self, seat: Seat, generation: int, round_: int) -> Handle | Birth | None:
        """A new worker: its handle; in the child its birth; None while its importer imports."""
        wanted = generation if self._preload else NO_GENERATION
        # the newest last
        importer = next((one for one in self.importers[::-1] if one.generation == wanted), None)
        if importer is not None and importer.ready:
            return self._ask(importer, seat, generation)
        if not self._preload:
            return self._fork_worker(seat, generation)
        return None if importer is not None else self._fork_importer(generation, round_)

    def _fork_worker(self, seat: Seat, generation: int) -> Handle | Birth:
        ours, theirs = Channel.pair()
        stack, stack_in = os.pipe()
        os.set_blocking(stack_in, False)  # a crash does not wait for us: its stack is cut instead
        try:
            pid = self._fork()
        except OSError:  # sockets close themselves
            os.close(stack)
            os.close(stack_in)
            raise
        if not pid:
            ours.close()
            os.close(stack)
            return Birth(Role.WORKER, theirs, seat, stack_in)
        theirs.close()
        os.close(stack_in)
        os.set_blocking(stack, False)
        handle = Handle(ours, stack, seat, generation=generation)
        handle.pid = pid
        return handle

    def _fork_importer(self, generation: int, round_: int) -> Birth | None:
        role = Role.WARMER if generation == NO_GENERATION else Role.IMPORTER
        born = self.fork_aside(role)
        if isinstance(born, Birth):
            return born
        self.importers.append(Importer(*born, generation, round_))
        return None

    def fork_warmer(self) -> Birth | None:
        """An importer of what is not the application's, in place of the one before."""
        self.end_warmers()
        return self._fork_importer(NO_GENERATION, 0)

    def end_warmers(self) -> None:
        """What they have imported is not what is wanted any more."""
        for importer in self.importers:
            if importer.generation == NO_GENERATION:
                importer.generation = _NOBODY_S

    def settle_for_the_old(self, generation: int) -> None:
        """The newest importer's code does not start: the one before bears whoever comes next."""
        for importer in self.importers:
            if importer.generation == generation:
                importer.generation = _NOBODY_S
        old = [
            one
            for one in self.importers
            if one.ready and not one.dismissed and one.generation > NO_GENERATION
        ]
        if old:
            old[-1].generation = generation

    def fork_aside(self, role: Role) -> Birth | tuple[int, Channel]:
        """A process that serves nobody: its id and our end of its channel."""
        ours, theirs = Channel.pair()
        pid = self._fork()
        if not pid:
            ours.close()
            return Birth(role, theirs)
        theirs.close()
        return pid, ours

    def _ask(self, importer: Importer, seat: Seat, generation: int) -> Handle:
        ours, theirs = Channel.pair()
        stack, stack_in = os.pipe()
        os.set_blocking(stack_in, False)
        rights = theirs.fileno(), stack_in
        heard = importer.channel.send_with(f"fork {seat.number}", rights)
        theirs.close()
        os.close(stack_in)
        os.set_blocking(stack, False)
        if not heard:  # what can be done for it is done when it has ended
            send_signal(importer.pid, signal.SIGKILL)
        handle = Handle(ours, stack, seat, generation=generation)
        handle.importer = importer.pid
        return handle

    def _fork(self) -> int:
        gc.freeze()  # pages that nobody's collector visits stay shared
        pid = fork()
        if pid:
            self._pids.add(pid)
        else:
            self._forget()
        return pid

    @staticmethod
    def name(handle: Handle, pid: int) -> None:
        """Take down the process that an importer has forked. It says so itself, and does not run as
        root where we do: what is not its child must not get our signals."""
        if parent_of(pid) in (None, handle.importer):
            handle.name(pid)

    # ------------------------------------------------------------------------ ends

    def reap(self, handles: Iterable[Handle]) -> list[Handle]:
        """Workers that have ended, with their status, where somebody knows it."""
        ended = []
        there = {one.pid for one in self.importers}
        for handle in handles:
            if handle.status is None and not handle.importer:
                handle.status = self.wait_for(handle.pid)
            if handle.status is not None or handle.unborn:
                ended.append(handle)
            elif handle.importer and handle.importer not in there:
                if _is_gone(handle):
                    ended.append(handle)
            elif handle.importer and handle.kills > bool(handle.pid):
                # killed in vain: its importer does not fork, or does not tell of ends
                send_signal(handle.importer, signal.SIGKILL)
        if os.getpid() == 1:
            self._reap_strangers()
        return ended

    def reap_importers(self) -> list[Importer]:
        """Importers that have ended, whatever way."""
        ended = [one for one in self.importers if self.wait_for(one.pid) is not None]
        for importer in ended:
            self.importers.remove(importer)
        return ended

    def end_importers(self) -> None:
        """At the very end: all of them, within bounds."""
        for importer in self.importers:
            importer.channel.send("end")
        until = time.monotonic() + _PATIENCE
        for importer in self.importers:
            while self.wait_for(importer.pid) is None:
                if not importer.ready or time.monotonic() > until:
                    if send_signal(importer.pid, signal.SIGKILL):
                        os.waitpid(importer.pid, 0)
                    break
                time.sleep(0.005)  # nothing else is left to do in this process

    def dismiss_idle_importers(self, handles: Iterable[Handle], generation: int) -> None:
        """An importer without children, whose code is not the newest, may go."""
        used = {handle.importer for handle in handles}
        for importer in self.importers:
            if importer.pid not in used and importer.generation not in (generation, NO_GENERATION):
                importer.dismiss()

    def wait_for(self, pid: int) -> int | None:
        """The status of a child that has ended, or None."""
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return None
        self._pids.discard(pid)
        return status

    def _reap_strangers(self) -> None:
        """As process 1 of a container we inherit what others leave behind."""
        with contextlib.suppress(ChildProcessError):
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid in self._pids:
                    return
                os.waitpid(found.si_pid, 0)


def _is_gone(handle: Handle) -> bool:
    """Whether a worker whose importer is gone has ended. Its own children may hold its channel.

    One that nobody can name is given up: it ends when its channel does.
    """
    return not handle.pid or handle.channel.ended or parent_of(handle.pid) == 0


def parent_of(pid: int) -> int | None:
    """Who has forked this process; 0 where there is none; None where nobody can tell (macOS)."""
    if not os.path.isdir("/proc/self"):
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc_pid_stat(5): the name in brackets may hold anything, also brackets
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def adopt(descriptor: int) -> Channel:
    """The channel whose end has come as a descriptor."""
    return Channel(socket.socket(fileno=descriptor), takes_descriptors=True)
