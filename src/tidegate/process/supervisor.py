"""The supervisor: holds the listeners, starts the workers, watches them, replaces them.

Strategy: one thread, one `poll`, no event loop and not a line of the application. Every turn asks
the crew who is missing and who may leave, waits for a signal, a line from a child or the time of
the next look, and takes down what happened. What to do about it follows in the next turn from how
things stand, so nothing depends on the order in which they came.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tidegate.config import Config
from tidegate.net.sockets import Sockets
from tidegate.process.births import Birth, Births, Importer
from tidegate.process.board import SEATS, Board
from tidegate.process.channel import Channel
from tidegate.process.crew import Crew
from tidegate.process.handle import Failure, Handle, State
from tidegate.process.keys import Keys
from tidegate.process.report import Report
from tidegate.process.signals import Inbox, has_terminal
from tidegate.process.systemd import Notifier
from tidegate.process.upgrade import Upgrade
from tidegate.process.watchman import KILL_AFTER, Watchman

if TYPE_CHECKING:
    from tidegate.process.reloading import Reloading

HANDLED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
)  # fmt: skip


HANGUP = 5.0  # seconds in which a shell passes on that the terminal is closed, if it does (disown)
REFUSED = 2  # the exit code where a start is no use, as the command has it for wrong options


class Phase(Enum):
    """Only forwards, in this order; a phase may be left out."""

    SERVING = 0
    UNREADY = 1  # serves, but says that it will not for long
    STOPPING = 2
    FORCED = 3


class Owner(Protocol):
    """Who has made the supervisor."""

    def on_ready(self, facts: dict[str, Any]) -> None:
        """The first worker serves, and has told this of itself."""

    def on_complete(self) -> None:
        """All of them serve for the first time."""

    def reopen_logs(self) -> None:
        """Begin new log files in this process."""


Told = TypeVar("Told", Handle, Importer)


class Supervisor:
    """See the module. `run` returns twice or more often: here, and in every child.

    `inbox` has been entered, with the signals of HANDLED.
    """

    def __init__(  # noqa: PLR0913 - what it is made of is named
        self,
        config: Config,
        sockets: Sockets,
        workers: int,
        log: logging.Logger,
        *,
        inbox: Inbox,
        upgrade: Upgrade,
        reloading: Reloading | None,
        keys: Keys,
        owner: Owner,
    ) -> None:
        self.config = config
        self.log = log
        self.crew = Crew(workers)
        self.phase = Phase.SERVING
        self.sockets = sockets
        self.board = Board()
        self.births = Births(self.board, preload=config.preload, forget=self._forget)
        self.report = Report(log, self.crew, Notifier(os.environ), reload=config.reload)
        self.upgrade = upgrade
        self.reloading = reloading
        self.keys = keys
        self._owner = owner
        self._inbox = inbox
        self._terminal = has_terminal()  # we belong to one, and it is there
        self._closed_at = -HANGUP
        self._stop_at = float("inf")
        self._kill_at = float("inf")
        self._watchman = Watchman(config, self.report)
        self._given_up = False
        self._code: int | None = None

    def run(self) -> Birth | int:
        """Until the end: the exit code. In a child that was forked meanwhile: its birth."""
        while self._code is None:
            birth = self._start_missing()
            if birth is not None:
                return birth
            self._let_surplus_go()
            self._see_complete()
            self._look_for_the_end()
            if self._code is None:
                self._wait()
        self.report.notifier.stopping()
        if not self._given_up:
            self.log.info("Stopped.")
        return self._code

    @property
    def _stopping(self) -> bool:
        """Workers were told to leave, and none is started any more."""
        return self.phase.value >= Phase.STOPPING.value

    # ------------------------------------------------------------------------ one turn

    def _start_missing(self) -> Birth | None:
        if self._stopping:
            return None
        try:
            return self._bear_missing()
        except OSError as error:
            self.crew.on_failed_start(self.crew.round, time.monotonic())
            self.report.on_no_fork(error)
            return None

    def _bear_missing(self) -> Birth | None:
        crew = self.crew
        if self.reloading is not None:
            birth = self.reloading.start(self.births)
            if birth is not None or not self.reloading.watching:
                return birth  # no code is imported whose changes would go unnoticed
        for _ in range(crew.missing(time.monotonic())):
            number = crew.lowest_seat()
            if number >= SEATS:
                return None
            born = self.births.bear(self.board.seat(number), crew.generation, crew.round)
            if isinstance(born, Birth):
                return born
            if born is None:
                return None
            born.since = born.told_slow = born.born = time.monotonic()
            born.round = crew.round
            born.oom_before = self.report.kills_for_memory()
            crew.handles.append(born)
        return None

    def _let_surplus_go(self) -> None:
        if self._stopping:
            return
        while (handle := self.crew.surplus()) is not None:
            self.report.on_leaving(handle)
            self._dismiss(handle, "retire")

    def _see_complete(self) -> None:
        """As many serve as were asked for, and none of them is to be replaced for its code."""
        if self.phase is Phase.SERVING and self.crew.count(State.READY) >= self.crew.wanted:
            if not self.report.complete:
                self._owner.on_complete()
                self.upgrade.announce_ready()
            self.report.on_complete()

    def _dismiss(self, handle: Handle, how: str) -> None:
        handle.enter(State.LEAVING, time.monotonic())
        handle.channel.send(how)
        if not handle.was_ready:
            handle.kill(signal.SIGTERM)  # it may be importing still, and hear nothing

    def _wait(self) -> None:
        """Until something happens or is due, and take it down."""
        poll = select.poll()
        poll.register(self._inbox.fileno(), select.POLLIN)
        for channel in self._channels():
            wanted = select.POLLIN | (select.POLLOUT if channel.unsent else 0)
            poll.register(channel.fileno(), wanted)
        now = time.monotonic()
        until = min(self._watchman.due, self.report.watchdog_due, self._stop_at, self._kill_at)
        if self.crew.not_before > now and self.phase is Phase.SERVING:
            until = min(until, self.crew.not_before)
        poll.poll(max(0.0, until - now) * 1000 + 1)
        for number in self._inbox.take():
            self._on_signal(number)
        self._hear()
        self._reap()
        self._on_time(time.monotonic())

    def _channels(self) -> list[Channel]:
        """Whom to listen to. Who has nothing to say any more is only waited for."""
        channels = [handle.channel for handle in self.crew.handles]
        channels += [importer.channel for importer in self.births.importers]
        channels += self.upgrade.channels
        channels += self.reloading.channels if self.reloading is not None else []
        return [channel for channel in channels if not channel.ended]

    # ------------------------------------------------------------------------ signals

    def _on_signal(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._on_ending_signal(number)
        elif number is signal.SIGQUIT:
            self.log.info("SIGQUIT: stopping at once.")
            self._force()
        elif number is signal.SIGUSR1:
            self.reopen_logs()
        elif self.phase is not Phase.SERVING:
            return
        elif number is signal.SIGHUP:
            self._on_hangup()
        elif number is signal.SIGTTIN:
            self.resize(self.crew.wanted + 1, "SIGTTIN")
        elif number is signal.SIGTTOU:
            self.resize(self.crew.wanted - 1, "SIGTTOU")
        elif number is signal.SIGUSR2:
            self._begin_upgrade()

    def _on_ending_signal(self, number: signal.Signals) -> None:
        if self.phase is Phase.SERVING:
            self.stop(f"{number.name}: stopping. Once more ends at once.")
        else:
            self.log.info("%s: stopping at once.", number.name)
            self._force()

    def _on_hangup(self) -> None:
        """From somebody who wants new code, or from the kernel: our terminal has been closed."""
        self._look_for_terminal()
        closed = time.monotonic() < self._closed_at + HANGUP
        self._closed_at = -HANGUP
        if not closed:
            self.restart("SIGHUP")
        elif not self._inbox.was_ignored(signal.SIGHUP):  # as nohup has it
            self.stop("SIGHUP: the terminal is gone; stopping.")

    def _look_for_terminal(self) -> None:
        if self._terminal and not has_terminal():
            self._terminal, self._closed_at = False, time.monotonic()

    def _begin_upgrade(self) -> None:
        nohup = self._inbox.was_ignored(signal.SIGHUP)
        try:
            self.upgrade.begin(self.sockets.all, self.log, nohup=nohup)
        except OSError as error:
            self.report.on_no_fork(error, again=False)

    def reopen_logs(self) -> None:
        self.log.info("SIGUSR1: opening the log files again.")
        self._owner.reopen_logs()
        for handle in self.crew.handles:
            handle.channel.send("reopen")

    def resize(self, workers: int, why: str) -> None:
        workers = min(max(workers, 1), SEATS // 2)
        if workers == self.crew.wanted:
            self.log.info("%s: it stays at %d worker%s.", why, workers, "s" * (workers != 1))
            return
        self.crew.wanted = workers
        self.log.info("%s: %d worker%s from now on.", why, workers, "s" * (workers != 1))

    def restart(self, why: str) -> None:
        """Replace all workers, one at a time, by ones with new code."""
        self.crew.renew()
        self.report.on_restart(why)
        self.keys.renew(self._pupils())

    def _reload(self, changed: str) -> None:
        """Files have changed: the old code answers nothing any more."""
        if self.phase is Phase.SERVING:
            self.crew.renew()
            for handle in self.crew.handles:
                if handle.active:
                    self._dismiss(handle, "stop")
            self.log.info("Changed: %s. Reloading.", changed)

    # ------------------------------------------------------------------------ the end

    def stop(self, why: str) -> None:
        """Begin the graceful end; with --drain-delay, say so to the balancer first."""
        self.log.info("%s", why)
        self.board.announce_leaving()
        self.report.notifier.stopping()
        self.upgrade.stop()
        delay = self.config.drain_delay
        if delay and self.crew.count(State.READY):
            self.phase = Phase.UNREADY
            self._stop_at = time.monotonic() + delay
            self.log.info("Not ready any more; draining begins in %g s.", delay)
        else:
            self._begin_stop("stop")

    def leave_to_successor(self, pid: int) -> None:
        """A new binary serves on our sockets."""
        self.report.leave_to(pid)
        for listener in self.sockets.all:
            listener.disown()
        self._begin_stop("retire")

    def _begin_stop(self, how: str) -> None:
        self.phase = Phase.STOPPING
        self.report.clean = True  # what went wrong before is not this end's fault
        self._stop_at = float("inf")
        self.sockets.stop_serving()
        for importer in self.births.importers:
            importer.channel.send("shut")
            if not importer.ready:
                importer.dismiss()
        for handle in self.crew.handles:
            if handle.active:
                self._dismiss(handle, how)

    def _force(self) -> None:
        if not self._stopping:
            self.upgrade.stop()
            self._begin_stop("stop")
        self.phase = Phase.FORCED
        now = time.monotonic()
        self._kill_at = min(self._kill_at, now + KILL_AFTER)
        for handle in self.crew.handles:
            handle.channel.send("force")
            self._watchman.hurry(handle, now)

    def _look_for_the_end(self) -> None:
        hopeless = self.crew.hopeless or self.report.fatal
        # who repairs this with a new binary (SIGUSR2) must find our sockets
        if hopeless and not (self._stopping or self.upgrade.channels or self.reloading):
            self.report.on_hopeless()
            self._given_up = True
            self._begin_stop("stop")
        if self._stopping and not self.crew.handles:
            clean = self.report.clean and self.phase is not Phase.FORCED
            refused = self._given_up and self.report.fatal
            self._code = REFUSED if refused else int(self._given_up or not clean)
            self.births.end_importers()
            if self.reloading is not None:
                self.reloading.stop()

    # ------------------------------------------------------------------------ what is heard

    def _hear(self) -> None:
        for importer in self.births.importers:  # first: who is born is named before it speaks
            importer.channel.flush()
            self._listen(importer, self._on_importer_word)
        for handle in self.crew.handles:
            handle.channel.flush()
            self._listen(handle, self._on_word)
        if self.reloading is not None and (changed := self.reloading.hear()):
            self._reload(changed)
        if (pid := self.upgrade.taken_over(self.log)) and self.phase is Phase.SERVING:
            self.leave_to_successor(pid)

    def _listen(self, to: Told, on_word: Callable[[Told, str, str], None]) -> None:
        """Heed what has come. Workers run others' code, and may be under others' control: whatever
        one of them says, the others' supervisor lives on."""
        for line in to.channel.receive():
            word, _, rest = line.partition(" ")
            try:
                on_word(to, word, rest)
            except Exception:  # a list that is nested too deep, a number too long, ...
                self.log.error("Process %d says what makes no sense: %.80r", to.pid, line)

    def _on_word(self, handle: Handle, word: str, rest: str) -> None:
        if word == "ready" and handle.state is State.STARTING:
            first = not self.crew.ever_ready
            facts = json.loads(rest)
            self.crew.on_ready(handle, time.monotonic())
            self.report.on_ready(handle)
            if first:
                self._owner.on_ready(facts)
        elif word == "pid" and not handle.pid:
            self.births.name(handle, int(rest))
        elif word == "failed":
            handle.failure = Failure.read(rest)
        elif word == "limit":
            handle.due = rest
        elif word == "closed":
            handle.closed = True
        elif word == "done":
            handle.done_at = time.monotonic()
        elif word == "modules" and self.reloading is not None:
            self.reloading.warmth.learn(rest)

    def _on_importer_word(self, importer: Importer, word: str, rest: str) -> None:
        if word == "ready":
            importer.ready = True
        elif word == "failed":
            importer.failure = Failure.read(rest)
        elif word == "unfit" and self.reloading is not None:
            self.reloading.warmth.on_failed(rest)
        elif word in ("born", "unborn", "died"):
            seat, _, said = rest.partition(" ")
            for handle in self.crew.handles:
                if handle.seat.number == int(seat) and handle.importer == importer.pid:
                    self._on_child_of_importer(handle, word, said)

    def _on_child_of_importer(self, handle: Handle, word: str, said: str) -> None:
        if word == "born":
            self.births.name(handle, int(said))
        elif word == "died":
            handle.status = int(said)
        else:
            handle.unborn = True
            handle.failure = Failure(self.report.no_fork(said), final=False)

    def _reap(self) -> None:
        crew = self.crew
        for handle in self.births.reap(crew.handles):
            self._listen(handle, self._on_word)  # its last words
            handle.read_stack()
            self._on_end(handle, time.monotonic())
        for importer in self.births.reap_importers():
            self._listen(importer, self._on_importer_word)
            importer.channel.close()
            if importer.generation != crew.generation or self._stopping:
                continue
            if importer.ready:
                self.report.on_importer_lost(importer)
            else:
                first = crew.on_failed_start(importer.round, time.monotonic())
                self.report.on_importer_end(importer, first=first)
                self._give_up_restart()
        self.births.dismiss_idle_importers(crew.handles, crew.generation)
        if self.upgrade.reap(self.log) and self.report.complete and not self._stopping:
            self._owner.on_complete()  # the pid file may name the one that has failed
        if self.reloading is not None:
            self.reloading.reap(self.births, stopping=self.phase is not Phase.SERVING)

    def _on_end(self, handle: Handle, now: float) -> None:
        crew = self.crew
        crew.handles.remove(handle)
        before = handle.state
        handle.enter(State.GONE, now)
        handle.seat.clear()
        handle.let_go()
        if before is State.LEAVING:
            self.report.on_left(handle)
        elif handle.was_ready:
            self.report.on_lost(handle, hung=before is State.HANGING)
            crew.on_lost(now - handle.ready_at, now)
            self.report.on_early_ends(crew.not_before - now)
        else:
            first = crew.on_failed_start(handle.round, now)
            self.report.on_failed_start(handle, first=first)
            self._give_up_restart()
            if self.reloading is not None:
                crew.await_change()

    def _give_up_restart(self) -> None:
        """The new code does not start: those with the old one serve on."""
        crew = self.crew
        if crew.rolling and crew.tries and crew.count(State.READY):
            self.report.on_restart_given_up()
            self.births.settle_for_the_old(crew.generation)
            crew.settle_for_the_old()

    # ------------------------------------------------------------------------ what is due

    def _on_time(self, now: float) -> None:
        if now >= self._stop_at:
            self._begin_stop("stop")
        if now >= self._kill_at:
            self._kill_at = now + KILL_AFTER
            for handle in self.crew.handles:
                self._watchman.kill(handle)
        self.report.answer_watchdog(now)
        if self._watchman.look(self.crew.handles, self.births.importers, now):
            self.report.on_tick(now)
            self.keys.look(now, self._pupils())
            self._look_for_terminal()

    def _pupils(self) -> list[Channel]:
        """Who reads certificates, or will fork those who do."""
        channels = [handle.channel for handle in self.crew.handles if handle.active]
        return channels + [importer.channel for importer in self.births.importers]

    def _forget(self) -> None:
        """In a child: close what is the supervisor's, so that ends are seen as ends."""
        for handle in self.crew.handles:
            handle.let_go()
        for importer in self.births.importers:
            importer.channel.close()
        self.upgrade.forget()
        if self.reloading is not None:
            self.reloading.forget()
