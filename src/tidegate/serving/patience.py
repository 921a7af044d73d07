"""How long a connection is waited for, and when it is given up.

Strategy: nothing is timed on the way of a request. The connection notes when a wait began (one
store); when the sweep finds that `deadline` has passed, `check` works out from the engine's state
what is being waited for, whether that is overdue, and when to look again. Looking too early costs
nothing, so a deadline is never moved later on the hot path.

Rates are measured over windows of one grace time each, so that a fast start buys no later pause,
and a window begins anew whenever we ourselves had stopped reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.protocol.engine import Waiting
from tidegate.serving.site import Terms

if TYPE_CHECKING:
    from tidegate.serving.tcp import TcpConnection

LONGEST_LOOK = 60.0  # look at a busy connection at least this often


class Patience:
    """One connection's waits; times are the worker's monotonic seconds."""

    __slots__ = ("_body_mark", "_body_since", "_head_since", "_idle_until", "_sent_mark",
                 "_sent_since", "_terms", "first_deadline")  # fmt: skip

    def __init__(self, terms: Terms, now: float) -> None:
        self._terms = terms
        self.first_deadline = now + terms.handshake
        self._idle_until = 0.0
        self._head_since = 0.0  # 0: no head has begun
        self._body_since = 0.0
        self._body_mark = 0
        self._sent_since = 0.0
        self._sent_mark = 0

    def on_open(self, now: float) -> None:
        """A new connection owes its first head at once: it has no reason to idle."""
        self._idle_until = self.first_deadline = now + self._terms.head

    def on_idle(self, now: float) -> None:
        """An answer was given: the next request may take its time."""
        self._idle_until = now + self._terms.keep_alive
        self._head_since = 0.0

    def on_head(self, now: float) -> float:
        """Part of a head has come; returns when the rest is due."""
        if not self._head_since:
            self._head_since = now
        return self._head_since + self._terms.head

    def on_body(self, now: float, connection: TcpConnection) -> float:
        """A body begins; returns when to look at its rate."""
        self._head_since = 0.0
        self._body_since = now
        self._body_mark = connection.received
        return min(connection.deadline, now + self._terms.body_grace)

    def on_resume(self, now: float, received: int) -> None:
        """Reading goes on after a pause of ours: what the peer did meanwhile does not count."""
        self._body_since = now
        self._body_mark = received

    def on_backlog(self, now: float, sent: int) -> float:
        """The peer has bytes to take; returns when to look how many it took."""
        self._sent_since = now
        self._sent_mark = sent
        return now + self._terms.send_grace

    def check(self, now: float, connection: TcpConnection) -> float:
        """Give up what is overdue; returns when to look again."""
        looks = [now + LONGEST_LOOK]
        if connection.backlog and self._terms.send_rate:
            looks.append(self._check_sending(now, connection))
        waiting = connection.engine.waiting
        if waiting is Waiting.IDLE:
            if connection.backlog == 0 and now >= self._idle_until:
                fresh = self._idle_until == self.first_deadline
                connection.give_up_idle("timeout_head" if fresh else "timeout_keep_alive")
            looks.append(max(self._idle_until, now))
        elif waiting is Waiting.HEAD:
            if now >= self.on_head(now) and connection.reading:
                connection.give_up_request("timeout_head")
            looks.append(self._head_since + self._terms.head)
        elif waiting is Waiting.BODY and self._terms.body_rate:
            looks.append(self._check_body(now, connection))
        else:
            looks.append(now + min(self._terms.keep_alive, self._terms.head))
        return min(looks)

    def _check_body(self, now: float, connection: TcpConnection) -> float:
        grace = self._terms.body_grace
        if not connection.reading:
            self._body_since = now
        elapsed = now - self._body_since
        if elapsed >= grace:
            if connection.received - self._body_mark < self._terms.body_rate * elapsed:
                connection.give_up_request("min_body_rate")
                return now + grace
            self._body_since = now
            self._body_mark = connection.received
        return self._body_since + grace

    def _check_sending(self, now: float, connection: TcpConnection) -> float:
        grace = self._terms.send_grace
        elapsed = now - self._sent_since
        if elapsed >= grace:
            if connection.sent - self._sent_mark < self._terms.send_rate * elapsed:
                connection.give_up_peer("min_send_rate")
                return now + grace
            self._sent_since = now
            self._sent_mark = connection.sent
        return self._sent_since + grace
