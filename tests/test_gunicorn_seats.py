"""Gunicorn's workers have seats from its own process, and give them back with their end."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("gunicorn")

from tidegate.gunicorn import seats as module
from tidegate.gunicorn.seats import Place, Seats


class Worker:
    """What Gunicorn makes before the fork, and lets go of after the end."""


def place(seats: Seats, worker: Worker) -> Place:
    return Place(seats.take(worker), lambda: None)


def test_everybody_sees_everybody():
    seats, one, other = Seats(), Worker(), Worker()
    first, second = place(seats, one), place(seats, other)
    assert not first.is_fuller(0, 0)
    assert not second.is_fuller(0, 0)
    first.show(5)
    assert not second.is_fuller(0, 0)
    assert first.is_fuller(5, 5)
    assert not second.is_fuller(0, 7)
    assert first.progress() == 7


def test_who_does_not_accept_yet_or_any_more_holds_nobody_back():
    seats, one, other = Seats(), Worker(), Worker()
    first, second = place(seats, one), place(seats, other)
    second.show(0)
    assert not first.is_fuller(5, 5)
    second.is_fuller(0, 0)
    assert first.is_fuller(5, 5)
    second.leave()
    second.show(0)  # a connection that ends now
    assert not first.is_fuller(5, 5)


def test_the_seat_of_a_worker_that_was_killed_is_free_and_holds_nobody_back():
    seats, one, other = Seats(), Worker(), Worker()
    first, second = place(seats, one), place(seats, other)
    second.is_fuller(0, 0)
    assert first.is_fuller(5, 5)
    del other
    assert not first.is_fuller(5, 5)
    successor = Worker()
    assert seats.take(successor).number == 1


def test_a_worker_lets_go_of_its_copies_of_the_others_without_harm(monkeypatch):
    seats, one, other = Seats(), Worker(), Worker()
    first, second = place(seats, one), place(seats, other)
    second.is_fuller(0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        del other
    assert first.is_fuller(5, 5)
    third = Worker()
    assert seats.take(third).number == 2


def test_more_workers_than_seats(monkeypatch):
    monkeypatch.setattr(module, "SEATS", 1)
    seats, one, other = Seats(), Worker(), Worker()
    first, second = place(seats, one), place(seats, other)
    second.is_fuller(0, 0)
    assert not first.is_fuller(5, 5)


def test_a_worker_that_hangs_is_passed_over_until_it_turns_again(monkeypatch):
    seats, one, other = Seats(), Worker(), Worker()
    first, second = place(seats, one), place(seats, other)
    for each in (first, second):
        each.is_fuller(0, 0)
        each.beat()
    first.show(5)
    assert first.is_fuller(5, 5)
    monkeypatch.setattr(module, "SILENT", 0.0)
    first.beat()
    assert not first.is_fuller(5, 5)
    monkeypatch.undo()
    second.beat()
    assert first.is_fuller(5, 5)
    second.leave()
    second.beat()
    assert not first.is_fuller(5, 5)


def test_a_master_that_is_the_child_of_one_has_a_board_of_its_own(monkeypatch):
    seats, one, other = Seats(), Worker(), Worker()
    assert seats.take(one).number == 0
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert seats.take(other).number == 0


def test_the_last_request_is_told():
    told = []
    Place(Seats().take(Worker()), lambda: told.append(True)).ask_for_successor("why")
    assert told == [True]
