"""The end of a loop turn: one callback for all who have something to write, cut when it is long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tidegate.asgi.service import Clock
from tidegate.serving.turn import LONGEST, STEP, Turn


class Loop:
    """What `call_soon` was given, until it is run."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def run(self) -> None:
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()


class Member:
    def __init__(self, lab: Lab, name: int, takes: float = 0.0, again: bool = False) -> None:
        self.lab, self.name, self.takes, self.again = lab, name, takes, again

    def on_turn_end(self) -> None:
        self.lab.served.append(self.name)
        self.lab.now += self.takes
        if self.again:
            self.again = False
            self.lab.turn.add(self)


class Lab:
    def __init__(self) -> None:
        self.now = 100.0
        self.served: list[int] = []
        self.loop = Loop()
        self.clock = Clock(lambda: self.now)
        self.turn = Turn(self.loop, self.clock)  # type: ignore[arg-type]


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_one_callback_serves_all_in_their_order(lab: Lab) -> None:
    for name in range(5000):
        lab.turn.add(Member(lab, name))
    assert len(lab.loop.ready) == 1
    lab.loop.run()
    assert lab.served == list(range(5000))
    assert not lab.loop.ready
    lab.turn.add(Member(lab, -1))
    lab.loop.run()
    assert lab.served[-1] == -1


def test_the_time_of_the_batch_is_that_of_the_turn(lab: Lab) -> None:
    lab.turn.add(Member(lab, 1))
    lab.now += 7
    lab.loop.run()
    assert lab.clock.now == lab.now


def test_who_asks_again_comes_in_the_next_turn(lab: Lab) -> None:
    lab.turn.add(Member(lab, 1, again=True))
    lab.turn.add(Member(lab, 2))
    lab.loop.run()
    assert lab.served == [1, 2]
    assert len(lab.loop.ready) == 1
    lab.loop.run()
    assert lab.served == [1, 2, 1]


def test_a_long_turn_is_cut_and_goes_on_in_its_order(lab: Lab) -> None:
    slow = LONGEST / STEP * 1.01
    for name in range(3 * STEP + 1):
        lab.turn.add(Member(lab, name, takes=slow, again=name == 0))
    for piece in (1, 2, 3):
        lab.loop.run()
        assert lab.served == list(range(piece * STEP))
        assert len(lab.loop.ready) == 1
    lab.loop.run()
    assert lab.served == [*range(3 * STEP + 1), 0]  # who asked again is last
    assert not lab.loop.ready


def test_it_is_the_loops_own_turn() -> None:
    """What is ready now goes first: an application's task that runs in this turn still joins."""
    loop = asyncio.new_event_loop()
    order: list[str] = []
    turn = Turn(loop, Clock())

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def on_turn_end(self) -> None:
            order.append(self.name)

    def speak(name: str) -> None:
        order.append("says " + name)
        turn.add(Named(name))

    for name in "abc":
        loop.call_soon(speak, name)
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    loop.close()
    assert order == ["says a", "says b", "says c", "a", "b", "c"]
