"""The sweep: who is looked at, when, and that nothing stops it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tidegate.net.deadlines import NEVER, PERIOD, Deadlines


class Loop:
    """Timers that a test lets ring."""

    def __init__(self):
        self.timers = []

    def call_later(self, delay, callback):
        timer = SimpleNamespace(delay=delay, callback=callback, cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    @property
    def pending(self):
        return [timer for timer in self.timers if not timer.cancelled]

    def ring(self):
        (timer,) = self.pending
        self.timers.clear()
        timer.callback()


class Member:
    def __init__(self, deadline):
        self.deadline = deadline
        self.looks = []
        self.errors = []
        self.then = lambda now: NEVER

    def on_deadline(self, now):
        self.looks.append(now)
        self.deadline = self.then(now)

    def on_error(self, error):
        self.errors.append(error)


class Sweep:
    def __init__(self):
        self.loop = Loop()
        self.now = 100.0
        self.deadlines = Deadlines(self.loop, lambda: self.now)

    def add(self, deadline):
        member = Member(deadline)
        self.deadlines.add(member)
        return member

    def ring(self, seconds=PERIOD):
        self.now += seconds
        self.loop.ring()


@pytest.fixture
def sweep():
    return Sweep()


def test_a_member_is_looked_at_once_its_deadline_has_passed(sweep):
    member = sweep.add(101.0)
    sweep.ring()
    assert member.looks == []
    sweep.ring()
    assert member.looks == [101.0]
    sweep.ring()
    assert member.looks == [101.0]


def test_a_member_says_itself_when_it_is_looked_at_next(sweep):
    member = sweep.add(100.5)
    member.then = lambda now: now + 1
    for _ in range(6):
        sweep.ring()
    assert member.looks == [100.5, 101.5, 102.5]


def test_a_deadline_moved_later_is_kept(sweep):
    member = sweep.add(100.5)
    member.deadline = 200.0
    sweep.ring(50)
    assert member.looks == []


def test_only_those_who_are_due_are_looked_at(sweep):
    members = [sweep.add(100.0 + at) for at in (0.2, 0.5, 0.8, NEVER)]
    sweep.ring()
    assert [len(member.looks) for member in members] == [1, 1, 0, 0]


def test_who_has_left_is_not_looked_at(sweep):
    member, other = sweep.add(100.2), sweep.add(NEVER)
    sweep.deadlines.discard(member)
    sweep.deadlines.discard(member)
    sweep.ring()
    assert (member.looks, other.looks) == ([], [])


def test_members_come_and_go_during_a_sweep(sweep):
    first, second = sweep.add(100.1), sweep.add(100.1)
    added = []

    def close_both(now):
        sweep.deadlines.discard(first)
        sweep.deadlines.discard(second)
        added.append(sweep.add(100.0))
        return NEVER

    first.then = second.then = close_both
    sweep.ring()
    assert first.looks or second.looks
    sweep.ring()
    assert all(member.looks for member in added)


def test_one_timer_serves_all(sweep):
    for _ in range(1000):
        sweep.add(500.0)
    assert [timer.delay for timer in sweep.loop.timers] == [PERIOD]
    sweep.ring()
    assert [timer.delay for timer in sweep.loop.timers] == [PERIOD]


def test_without_members_there_is_no_timer(sweep):
    assert sweep.loop.pending == []
    member = sweep.add(NEVER)
    sweep.deadlines.discard(member)
    sweep.ring()
    assert sweep.loop.pending == []
    sweep.add(NEVER)
    assert len(sweep.loop.pending) == 1


def test_the_first_member_finds_the_clock_set():
    """After a rest without connections the worker's clock and date are old."""
    ticks = []
    deadlines = Deadlines(Loop(), lambda: ticks.append(1) or 0.0)
    deadlines.add(Member(NEVER))
    assert ticks == [1]


def test_a_bug_in_one_member_is_its_own_affair(sweep):
    bad, good = sweep.add(100.1), sweep.add(100.1)

    def bug(now):
        raise RuntimeError("a bug")

    bad.then = bug
    sweep.ring()
    assert [str(error) for error in bad.errors] == ["a bug"]
    assert good.looks == [100.5]
    assert good.errors == []
    assert len(sweep.loop.pending) == 1


def test_a_bug_in_the_tick_does_not_end_the_sweep(sweep):
    member = sweep.add(200.0)

    def bug():
        raise RuntimeError("a bug")

    good, sweep.deadlines._tick = sweep.deadlines._tick, bug
    with pytest.raises(RuntimeError):
        sweep.ring()
    sweep.deadlines._tick = good
    sweep.now = 300.0
    sweep.loop.ring()
    assert member.looks == [300.0]


def test_close_ends_the_sweep(sweep):
    member = sweep.add(100.1)
    sweep.deadlines.close()
    sweep.deadlines.close()
    assert sweep.loop.pending == []
    sweep.deadlines.sweep(500.0)
    assert member.looks == []
