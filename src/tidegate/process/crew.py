"""Which workers there are, and which there should be: the rules, without a process or a signal.

Strategy: nothing is scripted. Handles say how things stand; `missing` and `surplus` compare that
with what was asked for, and are asked again after every event. A rolling restart, a recycled
worker, one more worker and a crash are all the same to them: somebody is missing, or may leave.
One worker more than asked for is started to replace one, and nobody leaves before it serves.
"""

from __future__ import annotations

from tidegate.process.handle import Handle, State

TRIES = 4  # rounds of starts that fail before it is given up
FIRST_DELAY = 0.5  # seconds before the second try; each further one takes twice as long
LONGEST_DELAY = 30.0
YOUNG = 10.0  # seconds: a worker that ends sooner after its start did not end by chance
RECENT = 120.0  # seconds after which an early end does not count with the next


class Crew:
    """`wanted` is how many shall serve, `generation` the one whose code is the newest."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.generation = 0
        self.handles: list[Handle] = []
        self.not_before = 0.0  # no start before this moment
        self.tries = 0  # rounds in a row in which a start failed
        self.round = 0
        self.ever_ready = False
        self.early_ends = 0  # in a row: workers that ended by themselves soon after their start
        self._last_early_end = 0.0

    # ------------------------------------------------------------------------ who is there

    def count(self, *states: State) -> int:
        return sum(handle.state in states for handle in self.handles)

    @property
    def active(self) -> int:
        return self.count(State.STARTING, State.READY)

    def _replaceable(self) -> list[Handle]:
        """Those that serve and are to be replaced, the oldest first."""
        return [
            handle
            for handle in self.handles
            if handle.state is State.READY and (handle.due or handle.generation < self.generation)
        ]

    def _leaving(self) -> bool:
        """Somebody has requests to finish still, or may have."""
        return any(
            handle.state in (State.LEAVING, State.HANGING) and not handle.done_at
            for handle in self.handles
        )

    @property
    def rolling(self) -> bool:
        """Workers with old code still accept, or will."""
        return any(
            handle.generation < self.generation
            and (handle.active or (handle.state is State.LEAVING and not handle.closed))
            for handle in self.handles
        )

    def lowest_seat(self) -> int:
        taken = {handle.seat.number for handle in self.handles}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    # ------------------------------------------------------------------------ who should be

    def missing(self, now: float) -> int:
        """How many to start now."""
        if now < self.not_before:
            return 0
        short = self.wanted - self.active
        if short > 0:
            # after a failure one goes ahead, to see whether it works by now
            return 1 - min(1, self.count(State.STARTING)) if self.tries else short
        calm = not self.count(State.STARTING) and not self._leaving()
        return 1 if short == 0 and calm and self._replaceable() else 0

    def surplus(self) -> Handle | None:
        """Who may leave now, if anybody: with a successor that serves already, or because it
        starts with old code and serves nobody."""
        for handle in self.handles:
            if handle.state is State.STARTING and handle.generation < self.generation:
                return handle
        starting = [handle for handle in self.handles if handle.state is State.STARTING]
        if starting and self.count(State.READY) >= self.wanted and not self._replaceable():
            return starting[-1]  # fewer are wanted by now
        if self.count(State.READY) <= self.wanted or self._leaving():
            return None
        replaceable = self._replaceable()
        if replaceable:
            return replaceable[0]
        return max(
            (handle for handle in self.handles if handle.state is State.READY),
            key=lambda handle: handle.since,
        )

    def renew(self) -> None:
        """From here on workers are to be of a new generation."""
        self.generation += 1
        self.round += 1  # what is starting yet has the old code: its failures say nothing of this
        self.tries = 0
        self.not_before = 0.0

    def settle_for_the_old(self) -> None:
        """The new generation does not start: who serves goes on serving, and counts as new."""
        self.tries = 0
        self.not_before = 0.0
        for handle in self.handles:
            handle.generation = self.generation

    # ------------------------------------------------------------------------ what happened

    def on_ready(self, handle: Handle, now: float) -> None:
        handle.enter(State.READY, now)
        self.tries = 0
        self.ever_ready = True

    def on_failed_start(self, of_round: int, now: float) -> bool:
        """A start of this round failed; True if it is the first of its round."""
        if of_round != self.round:
            return False
        self.round += 1
        self.tries += 1
        self.not_before = now + min(FIRST_DELAY * 2 ** min(self.tries - 1, 10), LONGEST_DELAY)
        return True

    def await_change(self) -> None:
        """Until the code changes no start will do any better."""
        self.not_before = float("inf")

    def on_lost(self, served: float, now: float) -> None:
        """A worker that had served for so many seconds ended by itself: replace it, not in haste
        if this goes on."""
        recent = now - self._last_early_end < RECENT
        self.early_ends = (self.early_ends if recent else 0) + 1 if served < YOUNG else 0
        if self.early_ends:
            self._last_early_end = now
        if self.early_ends > self.wanted:
            delay = FIRST_DELAY * 2 ** min(self.early_ends - self.wanted - 1, 10)
            self.not_before = max(self.not_before, now + min(delay, LONGEST_DELAY))

    @property
    def hopeless(self) -> bool:
        """Nobody serves, and tries enough have failed."""
        serving = self.count(State.READY, State.LEAVING, State.HANGING)
        return self.tries >= TRIES and not serving
