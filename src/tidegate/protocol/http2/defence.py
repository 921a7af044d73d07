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


class Defence:
    """`finished` counts answers that were sent whole; the engine adds to it."""

    __slots__ = (
        "_idle",
        "_most_idle",
        "_most_resets",
        "_resets",
        "_seen",
        "_seen_idle",
        "finished",
    )

    def __init__(self, terms: StreamTerms) -> None:
        self._most_resets = float(terms.resets)
        self._most_idle = float(terms.idle_frames)
        self._resets, self._idle = self._most_resets, self._most_idle
        self._seen = self._seen_idle = 0
        self.finished = 0

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

    def idle_frame(self) -> None:
        """A frame that carries nothing; raises ConnectionFault when there were too many."""
        left = min(self._most_idle, self._idle + self.finished - self._seen_idle) - 1
        self._seen_idle = self.finished
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
