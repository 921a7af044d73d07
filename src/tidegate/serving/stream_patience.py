"""How long a connection with many streams is waited for, and each of its streams.

Strategy: that of patience.py, with a mark for each stream that waits for its peer: a body has to
come, and a window to open, at the same rates that hold for a whole connection of HTTP/1. A stream
that is too slow is reset alone. The connection's own debts are its first frames, the rest of a
header block, and the acknowledgement of our settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.protocol.engine import Ending, Waiting
from tidegate.protocol.http2.engine import Http2Engine, Wait
from tidegate.serving.patience import LONGEST_LOOK, Patience
from tidegate.serving.site import Terms

if TYPE_CHECKING:
    from tidegate.serving.streams import StreamsConnection
    from tidegate.serving.tcp import TcpConnection

ROUND_TRIP = 1.0  # seconds for the answer to the PING behind our first GOAWAY
PACE = 5.0  # seconds between two looks at a connection with open streams
PACE_OF_MANY = 1.0  # and while a budget is being spent, which is filled again by looking


class StreamPatience(Patience):
    """See the module. `_marks`: for each waiting stream, for what, since when and from where."""

    __slots__ = ("_looked", "_marks", "_received", "_stopped")

    def __init__(self, terms: Terms, now: float) -> None:
        super().__init__(terms, now)
        self._marks: dict[int, tuple[Wait, float, int]] = {}
        self._looked = now
        self._stopped = 0.0
        self._received = 0  # bytes, when the acknowledgement of our settings was looked for

    def pace(self, engine: Http2Engine) -> float:
        """Seconds until the next look at a connection in use."""
        return PACE_OF_MANY if engine.spent or engine.lingering else PACE

    def on_stop(self, now: float) -> float:
        """The first GOAWAY is out; returns when the final one has to follow."""
        self._stopped = now
        return now + ROUND_TRIP

    def check(self, now: float, connection: TcpConnection) -> float:
        """Give up what is overdue; returns when to look again."""
        engine: Http2Engine = connection.engine  # type: ignore[assignment]
        engine.rest(now - self._looked)
        self._looked = now
        looks = [now + (PACE_OF_MANY if engine.spent else LONGEST_LOOK)]
        if engine.warned and now >= self._stopped + ROUND_TRIP:
            connection.stop()
        elif engine.warned:
            looks.append(self._stopped + ROUND_TRIP)
        if connection.unsent and self._terms.send_rate:
            looks.append(self._check_sending(now, connection))
        waiting = engine.waiting
        if waiting is Waiting.HEAD:
            due = self.on_head(now, connection.begun)
            if now >= due and connection.reading:
                connection.give_up_request("timeout_head")
            looks.append(due)
        elif engine.unacknowledged and engine.ending is Ending.NO:
            if waiting is Waiting.NOTHING and connection.received != self._received:
                # it sends, and may not read before it has sent all: that is no reason to end it
                self._received, self._opened = connection.received, now
            due = self._opened + self._terms.head
            if now >= due:
                connection.give_up_request("timeout_head")
            looks.append(due)
        elif waiting is Waiting.IDLE and not engine.warned:
            looks.append(self._check_idle(now, connection))
        if waiting is Waiting.NOTHING:
            looks.append(self._check_streams(now, connection))  # type: ignore[arg-type]
            looks.append(now + self.pace(engine))
        return min(looks)

    def _check_streams(self, now: float, connection: StreamsConnection) -> float:
        """Each stream that waits for its peer; returns when to look again."""
        looks = [connection.look(now)]
        marks, self._marks = self._marks, {}
        for stream, wait, count in [*connection.engine.waits()]:
            grace, rate = self._grace(wait, connection)
            kind, since, begun = marks.get(stream, (wait, now, count))
            if kind is not wait or not grace:
                kind, since, begun = wait, now, count
            if now - since >= grace:
                if count - begun < rate * (now - since) or wait in (Wait.END, Wait.REST):
                    _give_up(connection, stream, wait)
                    continue
                since, begun = now, count
            self._marks[stream] = (kind, since, begun)
            looks.append(since + grace)
        return min(looks)

    def _grace(self, wait: Wait, connection: StreamsConnection) -> tuple[float, float]:
        """How long it may take, and how fast it has to be after that; 0: no matter."""
        terms = self._terms
        if wait is Wait.END or wait is Wait.REST:
            return terms.linger, 0.0
        if wait is Wait.BODY:
            return (terms.body_grace, terms.body_rate) if connection.reading else (0.0, 0.0)
        return terms.send_grace, terms.send_rate


def _give_up(connection: StreamsConnection, stream: int, wait: Wait) -> None:
    if wait is Wait.BODY:
        connection.give_up_peer(stream, "min_body_rate", "sends its body too slowly")
    elif wait is Wait.WINDOW:
        connection.give_up_peer(stream, "min_send_rate", "opens its window too slowly")
    elif wait is Wait.END:
        connection.give_up_peer(stream, "timeout_linger", "does not end its side")
    else:
        connection.give_up_rest(stream)
