"""What a supervisor says of its workers, to the log and to systemd; nothing is decided here.

A failure that several workers share is said once.
"""

from __future__ import annotations

import logging
import os
import signal
import time

from tidegate.process.births import Importer
from tidegate.process.crew import Crew
from tidegate.process.handle import Failure, Handle, State
from tidegate.process.stacks import indented
from tidegate.process.systemd import EXTENSION, Notifier
from tidegate.process.verdict import OomCounter, verdict


class Report:
    """`complete`: all workers of the start were ready once. `clean`: whatever ended did so in good
    order. `fatal`: it is no use to try again."""

    def __init__(
        self, log: logging.Logger, crew: Crew, notifier: Notifier, *, reload: bool
    ) -> None:
        self.notifier = notifier
        self.clean = True
        self.fatal = False
        self._log = log
        self._crew = crew
        self._reload = reload
        self._oom = OomCounter()
        self._restarting = False
        self._told = ""  # the last status
        self.complete = False
        self._extended = 0.0
        self.watchdog_due = float("inf")

    def kills_for_memory(self) -> int | None:
        return self._oom.read()

    # ------------------------------------------------------------------------ beginnings

    def on_ready(self, handle: Handle) -> None:
        """A worker serves."""
        self.fatal = False
        if self.complete:
            took = 1000 * (time.monotonic() - handle.born)
            self._log.info("Worker %d is ready (%.0f ms).", handle.pid, took)

    def on_complete(self) -> None:
        """As many serve as were asked for; called as long as that is so."""
        crew = self._crew
        if not self.complete:
            self.complete = True
            pids = [str(handle.pid) for handle in crew.handles if handle.state is State.READY]
            self._log.info("%d worker%s: %s", len(pids), "s" * (len(pids) != 1), ", ".join(pids))
            self._tell_ready()
            if self.notifier.watchdog_interval is not None:
                self.watchdog_due = 0.0
        if self._restarting and not crew.rolling:
            self._restarting = False
            self._log.info("All workers are new.")
            self._tell_ready()
        elif not self._restarting and self._told != self._status():
            self._told = self._status()
            self.notifier.status(self._told)

    def _tell_ready(self) -> None:
        self._told = self._status()
        self.notifier.ready(self._told)

    def on_slow_start(self, handle: Handle, now: float) -> None:
        self._log.warning(
            "Worker %d has been starting for %.0f s. It is waited for: the import of the "
            "application, or its startup, takes that long.",
            handle.pid,
            now - handle.since,
        )

    def on_slow_import(self, importer: Importer, now: float) -> None:
        self._log.warning(
            "The importer (process %d) has been importing the application for %.0f s. It is "
            "waited for.",
            importer.pid,
            now - importer.since,
        )

    def on_failed_start(self, handle: Handle, *, first: bool) -> None:
        if not first:
            return
        if handle.failure:
            self._say_failure(handle.failure)
        else:
            self._log.error(
                "Worker %d ended before it was ready: %s.%s",
                handle.pid,
                self._verdict(handle),
                indented(handle.stack),
            )
        self._say_next_try()

    def on_importer_end(self, importer: Importer, *, first: bool) -> None:
        if importer.failure:
            self._say_failure(importer.failure)
        elif first:
            self._log.error("The importer (process %d) has ended by itself.", importer.pid)
        self._say_next_try()

    def on_no_fork(self, error: OSError, *, again: bool = True) -> None:
        self._log.error("%s", self.no_fork(str(error.strerror)))
        if again:
            self._say_next_try()

    @staticmethod
    def no_fork(why: str) -> str:
        return (
            f"No process can be started: {why}. Is a limit reached (ulimit -u, TasksMax=, "
            "pids.max, open files)?"
        )

    def on_importer_lost(self, importer: Importer) -> None:
        """Nobody waits for it."""
        self._log.warning(
            "The importer (process %d) has ended by itself. The next worker gets a new one.",
            importer.pid,
        )

    def _say_failure(self, failure: Failure) -> None:
        self._log.error("%s", failure.text)
        # what cannot be found or read today will not be found in a second
        self.fatal = failure.final and not self._crew.ever_ready

    def _say_next_try(self) -> None:
        wait = self._crew.not_before - time.monotonic()
        if self._reload:
            self._log.info("Waiting for a change.")
        elif not self.fatal and wait > 0 and not self._crew.hopeless and not self._crew.rolling:
            self._log.info("Trying again in %.1f s.", wait)

    def on_hopeless(self) -> None:
        if not self.fatal:
            self._log.error(
                "No worker could be started, %d times in a row: giving up. The reason stands "
                "above; put it right and start again.",
                self._crew.tries,
            )

    # ------------------------------------------------------------------------ restarts

    def on_restart(self, why: str) -> None:
        self._restarting = True
        self._log.info(
            "%s: restarting %d worker%s, one at a time.",
            why,
            self._crew.wanted,
            "s" * (self._crew.wanted != 1),
        )
        self.notifier.reloading()

    def on_restart_given_up(self) -> None:
        self._restarting = False
        self._log.error("The restart is given up: the workers from before serve on.")
        self._tell_ready()

    def on_leaving(self, handle: Handle) -> None:
        if not handle.was_ready:
            return
        outdated = handle.generation < self._crew.generation
        usual = "a new one serves" if outdated else "one less is wanted"
        self._log.info("Worker %d leaves: %s.", handle.pid, handle.due or usual)

    # ------------------------------------------------------------------------ ends

    def on_left(self, handle: Handle) -> None:
        """It was asked to go."""
        status = handle.status or 0
        if not status or (not handle.was_ready and status == signal.SIGTERM):
            self._log.debug("Worker %d has left.", handle.pid)
        elif os.WIFSIGNALED(status) and not handle.kills:
            self.on_lost(handle, hung=False)
        else:
            self.clean = False  # it has said itself what it could not finish, or was killed for it

    def on_lost(self, handle: Handle, *, hung: bool) -> None:
        self.clean = False
        self._log.error(
            "Worker %d is gone: %s.%s",
            handle.pid,
            self._verdict(handle, hung=hung),
            indented(handle.stack),
        )

    def on_hang(self, handle: Handle, seconds: float, limit: float) -> None:
        self._log.error(
            "Worker %d hangs: its event loop has not turned for %.1f s "
            "(--timeout-worker-healthcheck is %g s). It is replaced; its stack is logged when it "
            "has ended.",
            handle.pid,
            seconds,
            limit,
        )

    def on_early_ends(self, wait: float) -> None:
        """Workers end by themselves soon after they were ready, one after the other."""
        count = self._crew.early_ends
        if count > self._crew.wanted and not self._reload:
            self._log.warning(
                "%d workers in a row have ended within seconds of their start. The next one starts "
                "in %.1f s.",
                count,
                wait,
            )

    def on_deaf(self, handle: Handle, seconds: float) -> None:
        self._log.warning(
            "Worker %d does not answer: its event loop has not turned for %.0f s. It is waited "
            "for; where the server is being stopped, a second signal ends it and shows its stack.",
            handle.pid,
            seconds,
        )

    def on_killed(self, handle: Handle, *, forced: bool) -> None:
        self.clean = False
        if handle.done_at:
            why = "a thread that is no daemon, or what runs at exit, keeps it"
        else:
            why = "it was told to end at once" if forced else "its grace is over"
        self._log.warning("Worker %d does not end (%s): killed.", handle.pid, why)

    def _verdict(self, handle: Handle, *, hung: bool = False) -> str:
        if handle.status is None:
            return "it is not known how, since its importer had ended before"
        return verdict(
            handle.status, oom_before=handle.oom_before, oom_now=self._oom.read(), hung=hung
        )

    # ------------------------------------------------------------------------ now and then

    def on_tick(self, now: float) -> None:
        kills = self._oom.read()
        for handle in self._crew.handles:
            if handle.seat.beaten != handle.seen:  # alive after whatever the count counts so far
                handle.seen, handle.oom_before = handle.seat.beaten, kills
        if not self.complete and now >= self._extended + EXTENSION:
            self.notifier.extend()
            self._extended = now

    def answer_watchdog(self, now: float) -> None:
        interval = self.notifier.watchdog_interval
        if interval is not None and now >= self.watchdog_due:
            self.watchdog_due = now + interval
            self.notifier.watchdog()

    def leave_to(self, pid: int) -> None:
        """Another process is the service; what is said here no longer concerns it."""
        if self._restarting:
            self._tell_ready()  # a reload that has not ended would be waited for
        self.notifier.main_pid(pid)
        self.notifier = Notifier({})
        self.watchdog_due = float("inf")

    def _status(self) -> str:
        serving = self._crew.count(State.READY)
        return f"{serving} worker{'s' * (serving != 1)} serving"
