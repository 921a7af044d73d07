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

from tidegate.asgi.wire import NEVER
from tidegate.protocol.engine import Waiting
from tidegate.serving.site import Terms

if TYPE_CHECKING:
    from tidegate.serving.tcp import TcpConnection

LONGEST_LOOK = 60.0  # look at a busy connection at least this often


class Patience:
    """One connection's waits; times are the worker's monotonic seconds."""

    __slots__ = (
        "_body_mark",
        "_body_of",
        "_body_since",
        "_head_of",
        "_head_since",
        "_opened",
        "_rest",
        "_rest_left",
        "_rest_since",
        "_sent_since",
        "_taken_mark",
        "_terms",
        "first_deadline",
    )

    def __init__(self, terms: Terms, now: float) -> None:
        self._terms = terms
        self.first_deadline = now + terms.handshake
        self._opened = now
        self._rest: float | None = None  # once a successor serves: kept idle for so long
        self._head_since = 0.0
        self._head_of = -1  # how many requests had begun before this head
        self._body_of = -1  # the request whose body is being timed
        self._body_since = 0.0
        self._body_mark = 0
        self._sent_since = 0.0
        self._taken_mark = 0

    def on_open(self, now: float) -> float:
        """A new connection owes its first head at once; returns when to look for it."""
        self._opened = now
        return now + min(self._terms.head, self._terms.keep_alive)

    def on_head(self, now: float, begun: int) -> float:
        """Part of a head has come; returns when the rest is due."""
        if self._head_of != begun:
            self._head_of = begun
            self._head_since = now
        return self._head_since + self._terms.head

    def on_body(self, now: float, connection: TcpConnection) -> float:
        """A body is owed; returns when to look at its rate."""
        if self._body_of != connection.begun:
            self._body_of = connection.begun
            self._body_since = now
            self._body_mark = connection.received
        return self._body_since + self._terms.body_grace

    def on_resume(self, now: float, received: int) -> None:
        """Reading goes on after a pause of ours: what the peer did meanwhile does not count."""
        self._body_since = now
        self._body_mark = received

    def on_backlog(self, now: float, taken: int) -> float:
        """The peer has bytes to take; returns when to look how many it took."""
        self._sent_since = now
        self._taken_mark = taken
        return now + self._terms.send_grace

    def on_retire(self, now: float, rest: float | None) -> float:
        """It has one more request, and `rest` seconds to ask for it; returns when to look."""
        self._rest, self._rest_since = rest, now
        self._rest_left = 0  # bytes of answers that it had not taken at the last look
        return NEVER if rest is None else now + rest

    def check(self, now: float, connection: TcpConnection) -> float:
        """Give up what is overdue; returns when to look again."""
        looks = [now + (LONGEST_LOOK if self._rest is None else self._rest)]
        if connection.unsent and self._terms.send_rate:
            looks.append(self._check_sending(now, connection))
        waiting = connection.engine.waiting
        if waiting is Waiting.IDLE:
            looks.append(self._check_idle(now, connection))
        elif waiting is Waiting.HEAD:
            due = self.on_head(now, connection.begun)
            if now >= due and connection.reading:
                connection.give_up_request("timeout_head")
            looks.append(due)
        elif waiting is Waiting.BODY and self._terms.body_rate:
            looks.append(self._check_body(now, connection))
        else:
            looks.append(now + min(self._terms.keep_alive, self._terms.head))
            looks.append(connection.look(now))
        return min(looks)

    def _check_idle(self, now: float, connection: TcpConnection) -> float:
        if self._rest is not None:
            return self._check_rest(now, self._rest, connection)
        if connection.idle_since:
            until, option = connection.idle_since + self._terms.keep_alive, "timeout_keep_alive"
        else:
            until, option = self._opened + self._terms.head, "timeout_head"
        if now >= until and not connection.unsent:
            connection.give_up_idle(option)
        return max(until, now)

    def _check_rest(self, now: float, rest: float, connection: TcpConnection) -> float:
        """It may ask once more, on the word of an answer that it may still have to read."""
        left = connection.untaken
        if left != self._rest_left:
            self._rest_left, self._rest_since = left, now
        until = max(connection.idle_since, self._rest_since) + rest
        if now >= until and not connection.unsent:
            connection.stop()
        return max(until, now)

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
            if connection.taken - self._taken_mark < self._terms.send_rate * elapsed:
                connection.give_up_peer(0, "min_send_rate", "reads too slowly")
                return now + grace
            self._sent_since = now
            self._taken_mark = connection.taken
        return self._sent_since + grace
