"""Which workers start slowly, hang or do not leave; what is done about it is killing them.

The board shows when each worker's loop last turned. One that has not turned for too long is asked
for its stack, by a signal that faulthandler answers whatever the interpreter is doing, and killed a
moment later.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from tidegate.config import Config
from tidegate.process.births import Importer
from tidegate.process.handle import STACK_SIGNAL, Handle, State
from tidegate.process.report import Report
from tidegate.serving.drain import RELOAD

TICK = 1.0  # seconds between two looks at the heartbeats
STACK_WAIT = 0.5  # seconds a worker that hangs has to write its stack
SLOW_START = 30.0  # seconds after which a start is called slow in the log, and again
KILL_AFTER = 5.0  # seconds beyond all grace until a worker that does not leave is killed


class Watchman:
    """`look` is to be called at `due`, and may be called earlier."""

    def __init__(self, config: Config, report: Report) -> None:
        self._config = config
        self._report = report
        self._last_look = 0.0
        self._next_look = 0.0
        self._stack_due = float("inf")
        self._forced = False  # the end is

    @property
    def due(self) -> float:
        return min(self._next_look, self._stack_due)

    def look(self, handles: Sequence[Handle], importers: Sequence[Importer], now: float) -> bool:
        """See to all of them; True once a tick."""
        if now >= self._stack_due:
            self._stack_due = float("inf")
            for handle in handles:
                if handle.state is State.HANGING:
                    handle.read_stack()
                    handle.kill(signal.SIGKILL)
        if now < self._next_look:
            return False
        late = now - self._last_look > 2 * TICK  # we were kept from running: so were the others
        self._last_look, self._next_look = now, now + TICK
        for handle in handles:
            self._check(handle, now, late)
        for importer in importers:
            if not importer.ready and now - importer.told_slow >= SLOW_START:
                importer.told_slow = now
                self._report.on_slow_import(importer, now)
        return True

    def _check(self, handle: Handle, now: float, late: bool) -> None:
        if handle.state is State.STARTING:
            if now - handle.told_slow >= SLOW_START:
                handle.told_slow = now
                self._report.on_slow_start(handle, now)
            return
        beaten = max(handle.seat.beaten, handle.since)
        deaf = now - beaten > 2 * TICK and not late
        if handle.state is State.LEAVING and now > self._latest_end(handle, deaf=deaf):
            self.kill(handle)
            return
        if handle.done_at:
            return
        if deaf:
            handle.seat.leave()  # its share of the newcomers is for those who turn
            if handle.state is State.LEAVING and handle.was_ready:
                self._on_deaf(handle, now, now - beaten)
        limit = self._config.timeout_worker_healthcheck
        if not limit or late or self._config.reload or handle.state is State.HANGING:
            return
        if now - beaten > limit:
            self._report.on_hang(handle, now - beaten, limit)
            self._ask_for_stack(handle, now)

    def _on_deaf(self, handle: Handle, now: float, seconds: float) -> None:
        """It was told to leave, and does not hear it."""
        if self._forced:
            self._ask_for_stack(handle, now)
        elif not handle.told_deaf:
            handle.told_deaf = True
            self._report.on_deaf(handle, seconds)

    def _ask_for_stack(self, handle: Handle, now: float) -> None:
        handle.enter(State.HANGING, now)
        handle.kill(STACK_SIGNAL)
        self._stack_due = now + STACK_WAIT

    def hurry(self, handle: Handle, now: float) -> None:
        """The end is forced: who does not hear that is not waited for."""
        self._forced = True
        deaf = now - max(handle.seat.beaten, handle.ready_at) > 2 * TICK
        if deaf and handle.was_ready and not handle.done_at and handle.state is State.LEAVING:
            self._ask_for_stack(handle, now)

    def kill(self, handle: Handle) -> None:
        self._report.on_killed(handle, forced=self._forced)
        handle.kill(signal.SIGKILL)

    def _latest_end(self, handle: Handle, *, deaf: bool) -> float:
        """When a worker that was told to leave is killed."""
        if handle.done_at:
            return handle.done_at + KILL_AFTER
        config = self._config
        grace = config.timeout_graceful_shutdown
        if config.reload and deaf:  # somebody waits for the new code
            return handle.since + 2 * RELOAD + KILL_AFTER
        if grace is None:
            return float("inf")
        # both the requests and the application's shutdown have their grace
        idle = 2 * config.drain_idle + config.timeout_linger
        return handle.since + 2 * grace + idle + KILL_AFTER
