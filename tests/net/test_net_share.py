"""Several processes on one listener: who has more connections stands back, and not for ever."""

from __future__ import annotations

import logging
import socket
from types import SimpleNamespace

import pytest

from tidegate.net.listener import BATCH, STEP, STEPS, Acceptor
from tidegate.process.board import Board


class Others:
    """What is known of the other processes: whether one is emptier, and what they took."""

    def __init__(self, *, fuller=True):
        self.fuller = fuller
        self.taken = 0
        self.asked = 0

    def is_fuller(self):
        self.asked += 1
        return self.fuller

    def progress(self):
        return self.taken


class Bench:
    """An acceptor with its poller, its loop and a backlog that never ends."""

    def __init__(self, share, backlog=1000):
        self.share = share
        self.backlog = backlog
        self.accepted = 0
        self.watching = False
        self.timers = []
        self.pauses_before = []  # of each newcomer it took
        sock = SimpleNamespace(family=socket.AF_INET, fileno=lambda: 9, accept=self._accept)
        listener = SimpleNamespace(sock=sock, address="192.0.2.9:80")
        self.acceptor = Acceptor(
            listener,
            SimpleNamespace(add=self._add, watch=self._watch, remove=self._remove),
            SimpleNamespace(call_later=self._call_later),
            lambda sock, peer: self.pauses_before.append(len(self.timers)),
            logging.getLogger("tidegate.test"),
            share=share,
        )
        self.acceptor.start()

    def _add(self, fd, handler):
        self.watching = True

    def _watch(self, fd, read, write):
        self.watching = read

    def _remove(self, fd):
        self.watching = False

    def _call_later(self, delay, callback):
        timer = SimpleNamespace(delay=delay, callback=callback, cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    def _accept(self):
        if not self.backlog:
            raise BlockingIOError
        self.backlog -= 1
        self.accepted += 1
        return SimpleNamespace(setblocking=lambda blocking: None), ("192.0.2.1", 5)

    def wake(self):
        """The listener is readable; or the pause is over, and it still is."""
        if not self.watching:
            self.timers[-1].callback()
        assert self.watching
        self.acceptor.on_readable()

    def steps_until_accepted(self):
        """How often it stood back before it took one."""
        before, steps = self.accepted, 0
        while self.accepted == before:
            self.wake()
            steps += self.accepted == before
            assert steps < 1000, "it stands back for ever"
        return steps


def test_alone_it_takes_what_comes():
    bench = Bench(None, backlog=5)
    bench.wake()
    assert (bench.accepted, bench.timers) == (5, [])


def test_who_is_no_fuller_takes_a_batch_and_asks_for_each():
    bench = Bench(Others(fuller=False))
    bench.wake()
    assert (bench.accepted, bench.share.asked) == (BATCH, BATCH)
    assert bench.watching


def test_who_is_fuller_leaves_it_to_others_for_a_moment():
    bench = Bench(Others())
    bench.wake()
    assert bench.accepted == 0
    assert not bench.watching  # polling on would spin
    assert [timer.delay for timer in bench.timers] == [STEP]
    bench.timers[0].callback()
    assert bench.watching


def test_it_takes_the_newcomer_itself_when_nobody_else_does():
    bench = Bench(Others())
    assert bench.steps_until_accepted() == STEPS


def test_standing_back_is_bounded_less_each_time_that_nobody_came():
    bench = Bench(Others())
    while bench.accepted < 6:
        bench.wake()
    assert bench.pauses_before[:6] == [16, 24, 28, 30, 31, 31]


class Stuck:
    """A real board, on which another one stands with fewer connections, and takes none."""

    def __init__(self):
        board = Board(2)
        self.here, stuck = board.seat(0), board.seat(1)
        stuck.is_fuller(0, 0)
        self.connections = 10

    def is_fuller(self):
        return self.here.is_fuller(self.connections, self.connections)

    def progress(self):
        return self.here.progress()


def test_one_that_is_stuck_is_waited_for_less_and_less():
    """What oneself takes meanwhile is no sign that others do."""
    stuck = Stuck()
    bench = Bench(stuck)
    while bench.accepted < 6:
        bench.wake()
        stuck.connections = 10 + bench.accepted
    assert bench.pauses_before[:6] == [16, 24, 28, 30, 31, 31]


def test_when_the_others_take_again_it_stands_back_as_long_as_at_first():
    bench = Bench(Others(), backlog=1)
    while bench.steps_until_accepted():
        bench.backlog = 1
    bench.share.taken += 1
    bench.backlog = 1
    bench.wake()
    assert not bench.watching
    assert bench.steps_until_accepted() == STEPS - 1


def test_as_long_as_others_take_it_stands_back():
    bench = Bench(Others())
    for _ in range(10 * STEPS):
        bench.share.taken += 1
        bench.wake()
    assert bench.accepted == 0


def test_it_stops_in_the_middle_of_a_batch_once_it_is_fuller():
    others = Others(fuller=False)
    bench = Bench(others)
    others.is_fuller = lambda: bench.accepted >= 3
    bench.wake()
    assert bench.accepted == 3
    assert not bench.watching


def test_one_that_is_emptier_again_goes_on_after_its_pause():
    bench = Bench(Others(), backlog=2)
    bench.wake()
    bench.share.fuller = False
    bench.wake()
    assert bench.accepted == 2


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_who_is_told_to_rest_while_it_stands_back_does_not_come_back(how):
    bench = Bench(Others())
    bench.wake()
    getattr(bench.acceptor, how)()
    assert bench.timers[0].cancelled
    assert not bench.watching
    bench.acceptor.on_readable()
    assert bench.accepted == 0
    bench.acceptor.start()
    assert bench.watching is (how == "pause")
