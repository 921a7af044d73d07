"""Budgets against floods (RFC 9113 10.5): what costs the server and brings nobody anything.

Strategy: a reset, the peer's or one that its fault obliges us to, and a frame without content take
from a budget; finished requests and time fill it again, up to its first size. So who cancels half
of what it asks for may do so for ever, and who does nothing but cancel may not. Time comes from
outside, by `rest`: nothing here reads a clock.
"""

from __future__ import annotations

from tidegate.protocol.engine import StreamTerms
from tidegate.protocol.http2.frames import Code, ConnectionFault

RECOVERY = 0.1  # of a whole budget, a second
# Frames without content that go with an answer, or with a piece of a body: windows for what came,
# a ping to measure the way. Clients that send more of them than this are not known.
FRAMES_OF_AN_ANSWER = 8
FRAMES_OF_A_PIECE = 4


class Defence:
    """`finished` counts answers that were sent whole, `pieces` those of bodies; the engine adds."""

    __slots__ = (
        "_idle", "_most_idle", "_most_resets", "_resets", "_seen", "_seen_work", "finished",
        "pieces",
    )  # fmt: skip

    def __init__(self, terms: StreamTerms) -> None:
        self._most_resets = float(terms.resets)
        self._most_idle = float(terms.idle_frames)
        self._resets, self._idle = self._most_resets, self._most_idle
        self._seen = self._seen_work = 0
        self.finished = self.pieces = 0

    def reset(self) -> None:
        """A stream was reset before its end; raises ConnectionFault when there were too many."""
        left = min(self._most_resets, self._resets + self.finished - self._seen) - 1
        self._seen = self.finished
        self._resets = left
        if left < 0:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                f"more than {self._most_resets:.0f} streams reset (--http2-max-resets)",
                "10.5",
            )

    def idle_frame(self, cost: int = 1) -> None:
        """A frame that carries nothing; raises ConnectionFault when there were too many."""
        work = self.finished * FRAMES_OF_AN_ANSWER + self.pieces * FRAMES_OF_A_PIECE
        left = min(self._most_idle, self._idle + work - self._seen_work) - cost
        self._seen_work = work
        self._idle = left
        if left < 0:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                f"more than {self._most_idle:.0f} frames without content (--http2-max-idle-frames)",
                "10.5",
            )

    @property
    def spent(self) -> bool:
        """Something is to be earned by time."""
        return self._resets < self._most_resets or self._idle < self._most_idle

    def rest(self, seconds: float) -> None:
        """So much time has passed."""
        share = seconds * RECOVERY
        self._resets = min(self._most_resets, self._resets + share * self._most_resets)
        self._idle = min(self._most_idle, self._idle + share * self._most_idle)
