"""How Gunicorn's workers share newcomers: each has a seat on a board that all of them see.

Gunicorn's master makes a worker's object before it forks, and lets go of it once the worker has
ended. So the seat is taken there, with the object, and is free again when that goes. The master
itself sees to nothing else, so the workers do: whoever's heart stands still is passed over by all.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable

from tidegate.process.board import SEATS, Board, Seat, Seated

SILENT = 3.0  # seconds without a beat: nobody leaves newcomers to this one any longer


class Seats:
    """Gunicorn's own process has one of these; its workers have their seats from it."""

    def __init__(self) -> None:
        self._board: Board | None = None
        self._master = 0
        self._taken: set[int] = set()

    def take(self, worker: object) -> Seat:
        """A seat for as long as this object lives; where none is free, one of its own."""
        if self._board is None or self._master != os.getpid():
            self._board, self._master, self._taken = Board(), os.getpid(), set()
        number = next((each for each in range(SEATS) if each not in self._taken), None)
        if number is None:
            return lone_seat()
        self._taken.add(number)
        seat = self._board.seat(number)
        weakref.finalize(worker, self._give_back, seat).atexit = False
        return seat

    def _give_back(self, seat: Seat) -> None:
        if os.getpid() == self._master:  # a worker has copies of the other objects
            seat.leave()
            self._taken.discard(seat.number)


def lone_seat() -> Seat:
    """For one that leaves nobody anything."""
    return Board(1).seat(0)


class Place(Seated):
    """A worker's place beside the others."""

    patient = False  # --graceful-timeout is all there is

    def __init__(self, seat: Seat, on_last_request: Callable[[], None]) -> None:
        super().__init__(seat)
        self._on_last_request = on_last_request

    def beat(self) -> None:
        """The loop turns: now and then, and more often than SILENT."""
        self.seat.beat(0)
        self.seat.pass_over(time.monotonic() - SILENT)

    def ask_for_successor(self, why: str) -> None:
        self._on_last_request()  # Gunicorn has one once this worker is gone
