"""The last of a connection: our side is shut, and what its peer still sends is thrown away.

A close would have the kernel answer such input with a reset, which drops what of the last answer
is still on its way (RFC 9112 9.6). So the peer's end is waited for, for `--timeout-linger`, and for
longer while it takes what the kernel holds for it (a slow reader may be megabytes behind), or sends
as readers do (HTTP/2 opens windows; the last bytes may all be on its side by then).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.serving.site import Terms

LINGER_BOUND = 16 * 1024 * 1024  # bytes thrown away
READ_SIZE = 256 * 1024
SENDING = 15  # times --timeout-linger, for who sends and takes too little (--min-send-rate)


class Lingering:
    """One connection's. `left`: what its peer has not acknowledged, if the system can tell."""

    __slots__ = ("_heard", "_left", "_looked", "_received", "_talks", "_terms", "_until")

    def __init__(self, terms: Terms, now: float, left: int | None, *, talks: bool) -> None:
        self._terms = terms
        self._talks = talks
        self._left = left
        self._looked = now
        self._until = now + SENDING * terms.linger
        self._received = 0
        self._heard = 0  # of it, by the last look

    def discard(self, recv: Callable[[int], bytes]) -> bool:
        """Throw away what has come; False: that was the peer's end, or too much."""
        try:
            size = len(recv(READ_SIZE))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        self._received += size
        return size > 0 and self._received <= LINGER_BOUND

    def look(self, now: float, left: int | None) -> float:
        """See what the peer has done since the last look; returns when to look again, or `now`."""
        linger, rate = self._terms.linger, self._terms.send_rate
        taken = 0 if left is None or self._left is None else self._left - left
        takes = taken > 0 and taken >= rate * (now - self._looked)
        sends = self._received > self._heard and (self._talks or left != 0)
        self._left, self._looked, self._heard = left, now, self._received
        if takes:
            self._until = now + SENDING * linger
        return min(now + linger, self._until) if takes or sends else now
