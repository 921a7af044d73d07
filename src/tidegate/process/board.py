"""What workers let each other and the supervisor see: numbers in shared memory, one row for each.

Nobody is asked and nobody answers. A worker writes its own row, whoever wants to know reads it;
a number is one aligned word, so it is never seen half-written. Three things live here: a
heartbeat, by which the supervisor tells a worker that hangs; the open connections, by which workers
share newcomers evenly; and how many requests there were.

A listener that several processes share is taken from by whoever is awake first, which may be the
busiest. So before it accepts, a worker looks whether another one has fewer connections.
"""

from __future__ import annotations

import mmap
from time import monotonic_ns

SEATS = 512
_ROW = 8  # words: a cache line, so that two workers do not write to the same one
_LOAD, _TAKEN, _BEAT, _REQUESTS = range(4)
_AWAY = 1 << 62  # the load of a row whose worker accepts nothing


class Board:
    """All the rows, and the word that all of them share: whether the server is leaving."""

    __slots__ = ("_memory", "words")

    def __init__(self, seats: int = SEATS) -> None:
        self._memory = mmap.mmap(-1, (seats + 1) * _ROW * 8)
        self.words = memoryview(self._memory).cast("q")

    def seat(self, number: int) -> Seat:
        """The row for a new worker, cleared; the first is number 0."""
        seat = self.row(number)
        seat.clear()
        self.words[0] = max(self.words[0], seat.at + _ROW)
        return seat

    def row(self, number: int) -> Seat:
        """The same row, as it stands."""
        return Seat(self, number)

    @property
    def leaving(self) -> bool:
        """The whole server is about to stop: no health check shall find it ready."""
        return bool(self.words[1])

    def announce_leaving(self) -> None:
        self.words[1] = 1


class Seat:
    """One worker's row."""

    __slots__ = ("_board", "_connections", "_words", "at", "number")

    def __init__(self, board: Board, number: int) -> None:
        self._board = board
        self._connections: int | None = None  # open here, while more are accepted
        self._words = board.words
        self.number = number
        self.at = (number + 1) * _ROW

    @property
    def leaving(self) -> bool:
        """The whole server is about to stop."""
        return self._board.leaving

    # ------------------------------------------------------------------------ the worker's

    def beat(self, requests: int) -> None:
        """The loop turns."""
        self._words[self.at + _REQUESTS] = requests
        self._words[self.at + _BEAT] = monotonic_ns()
        if self._connections is not None:
            self.show(self._connections)  # it may have been taken for one that hangs

    @property
    def accepts(self) -> bool:
        return self._connections is not None

    def is_fuller(self, connections: int, taken: int) -> bool:
        """Whether another worker should take the newcomer. Shows how many connections are open
        here, and how many there have been."""
        words = self._words
        self._connections = words[self.at + _LOAD] = connections
        words[self.at + _TAKEN] = taken
        least: int = min(words[_ROW + _LOAD : words[0] : _ROW])
        return connections - least > least >> 3

    def show(self, connections: int) -> None:
        """So many connections are open now, which is of interest where more are accepted."""
        if self._connections is not None:
            self._connections = self._words[self.at + _LOAD] = connections

    def progress(self) -> int:
        """A number that moves when one of the emptiest accepts. What others take says nothing: they
        do so, too, when those are stuck."""
        words = self._words
        least = min(words[_ROW + _LOAD : words[0] : _ROW])
        rows = range(_ROW, words[0], _ROW)
        return sum(words[row + _TAKEN] for row in rows if words[row + _LOAD] == least)

    def pass_over(self, silent_since: float) -> None:
        """Whoever has not beaten since then gets no newcomers, until it shows itself again. For
        workers without a supervisor that sees to this."""
        words, before = self._words, int(silent_since * 1e9)
        for row in range(_ROW, words[0], _ROW):
            if 0 < words[row + _BEAT] < before:
                words[row + _LOAD] = _AWAY

    def leave(self) -> None:
        """Nothing is accepted here any longer, or not yet."""
        self._connections = None
        self._words[self.at + _LOAD] = _AWAY

    # ------------------------------------------------------------------------ the supervisor's

    @property
    def beaten(self) -> float:
        """When the last beat was, in monotonic seconds; 0 before the first."""
        return self._words[self.at + _BEAT] / 1e9

    @property
    def requests(self) -> int:
        return self._words[self.at + _REQUESTS]

    def clear(self) -> None:
        """For the next worker."""
        self.leave()
        self._words[self.at + _BEAT] = self._words[self.at + _REQUESTS] = 0


class Seated:
    """What a worker's place among the others has of its seat; see `serving.worker.Post`."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat

    @property
    def leaving(self) -> bool:
        return self.seat.leaving

    def is_fuller(self, connections: int, taken: int) -> bool:
        return self.seat.is_fuller(connections, taken)

    def progress(self) -> int:
        return self.seat.progress()

    def show(self, connections: int) -> None:
        self.seat.show(connections)

    def leave(self) -> None:
        self.seat.leave()
