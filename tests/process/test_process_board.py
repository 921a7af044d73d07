"""What workers see of each other, also across processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import tidegate
from tidegate.process.board import Board

PATIENCE = 30
SOURCE = str(Path(tidegate.__file__).parents[1])


def seats(*loads):
    """Seats of one board with so many connections open; None: accepts nothing."""
    board = Board(8)
    made = [board.seat(number) for number in range(len(loads))]
    for seat, load in zip(made, loads, strict=True):
        if load is not None:
            seat.is_fuller(load, 0)
    return made


def test_a_new_seat_is_empty_and_accepts_nothing():
    board = Board(4)
    first = board.seat(0)
    first.beat(7)
    first.is_fuller(3, 3)
    assert (board.row(0).requests, board.row(0).beaten > 0) == (7, True)
    again = board.seat(0)
    assert (again.requests, again.beaten) == (0, 0)
    other = board.seat(1)
    assert not other.is_fuller(1000, 0)  # nobody else accepts


def test_a_row_is_found_as_it_stands():
    board = Board(4)
    board.seat(2).beat(5)
    assert board.row(2).requests == 5


def test_a_beat_says_when():
    seat = Board(4).seat(0)
    before = time.monotonic_ns() / 1e9
    seat.beat(1)
    assert before <= seat.beaten <= time.monotonic_ns() / 1e9


@pytest.mark.parametrize(
    ("mine", "least", "fuller"),
    [
        (0, 0, False),
        (1, 0, True),
        (1, 1, False),
        (2, 1, True),
        (8, 7, True),
        (9, 8, False),  # an eighth more is as good as the same
        (10, 8, True),
        (112, 100, False),
        (113, 100, True),
        (100, 113, False),
    ],
)
def test_a_worker_is_fuller_with_more_than_an_eighth_above_the_least(mine, least, fuller):
    _, here = seats(least, 0)
    assert here.is_fuller(mine, 0) is fuller


def test_the_least_of_all_counts():
    *_, here = seats(50, 3, 70, 0)
    assert here.is_fuller(4, 0)


def test_who_accepts_nothing_is_no_measure():
    away, other, here = seats(0, 20, 0)
    assert here.is_fuller(20, 0)
    away.leave()
    assert not here.is_fuller(20, 0)
    other.clear()
    assert not here.is_fuller(20, 0)


def test_a_worker_beside_nobody_is_never_fuller():
    (here,) = seats(0)
    assert not here.is_fuller(10_000, 0)


def test_progress_moves_when_the_emptiest_accepts():
    """Not with what others take, oneself included: so it is seen that the emptiest is stuck."""
    full, middle, empty = seats(20, 5, 0)
    before = full.progress()
    full.is_fuller(21, 9)
    middle.is_fuller(6, 3)
    assert full.progress() == middle.progress() == before
    empty.is_fuller(1, 1)
    assert full.progress() == middle.progress() != before


def test_who_is_silent_is_passed_over_until_it_shows_itself():
    here, silent, new = seats(20, 0, 20)
    for seat in (here, silent):
        seat.beat(0)
    here.pass_over(silent.beaten)
    assert here.is_fuller(20, 0)
    here.beat(0)
    here.pass_over(here.beaten)
    assert not here.is_fuller(20, 0)
    assert new.beaten == 0  # it has not begun to beat, which is no silence
    new.show(0)
    assert here.is_fuller(20, 0)
    new.show(20)
    silent.show(0)
    assert here.is_fuller(20, 0)


def test_the_last_seat_is_within_the_memory():
    board = Board(4)
    *_, last = (board.seat(number) for number in range(4))
    last.beat(1 << 40)
    assert last.requests == 1 << 40
    assert not last.is_fuller(5, 5)


def test_the_end_of_the_server_is_seen_from_every_seat():
    board = Board(4)
    seat = board.seat(1)
    assert (board.leaving, seat.leaving) == (False, False)
    board.announce_leaving()
    assert (board.leaving, seat.leaving) == (True, True)
    board.seat(1)
    assert seat.leaving


SHARED = """
import os
from tidegate.process.board import Board
board = Board(4)
mine, theirs = board.seat(0), board.seat(1)
wrote, go = os.pipe(), os.pipe()
if not os.fork():
    theirs.beat(41)
    theirs.is_fuller(3, 9)
    os.write(wrote[1], b"x")
    os.read(go[0], 1)
    os._exit(10 + mine.requests if board.leaving else 1)
os.read(wrote[0], 1)
assert theirs.requests == 41 and theirs.beaten > 0
assert mine.progress() == 9
assert mine.is_fuller(4, 0) and not mine.is_fuller(3, 0)
mine.beat(5)
board.announce_leaving()
os.write(go[1], b"x")
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_two_processes_see_the_same():
    ran = subprocess.run(
        [sys.executable, "-c", SHARED],
        capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=SOURCE,
    )  # fmt: skip
    assert (ran.stdout.strip(), ran.stderr) == ("15", "")
