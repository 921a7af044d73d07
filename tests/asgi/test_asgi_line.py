"""Who has much to inflate stands in line: one step a turn, one member until it is done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tidegate.asgi.line import Line


class Loop:
    def __init__(self) -> None:
        self.ready: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def turn(self) -> int:
        """Run what is ready now; how much that was."""
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()
        return len(ready)


class Member:
    def __init__(self, lab: Lab, name: str, steps: int) -> None:
        self.lab, self.name, self.steps = lab, name, steps
        lab.line.join(self)

    def go_on(self) -> None:
        self.lab.done += self.name
        self.steps -= 1
        if self.steps < 0:
            raise LookupError("a bug")
        if self.steps:
            self.lab.line.join(self)


class Lab:
    def __init__(self) -> None:
        self.loop = Loop()
        self.line = Line(self.loop)  # type: ignore[arg-type]
        self.done = ""


def test_one_after_the_other_and_one_step_a_turn() -> None:
    lab = Lab()
    for name, steps in (("a", 3), ("b", 1), ("c", 2)):
        Member(lab, name, steps)
    for done in ("a", "aa", "aaa", "aaab", "aaabc", "aaabcc"):
        assert lab.loop.turn() == 1
        assert lab.done == done
    assert lab.loop.turn() == 0
    Member(lab, "d", 1)
    assert lab.loop.turn() == 1
    assert lab.done == "aaabccd"


def test_who_comes_later_goes_behind() -> None:
    lab = Lab()
    Member(lab, "a", 2)
    lab.loop.turn()
    Member(lab, "b", 1)
    while lab.loop.turn():
        pass
    assert lab.done == "aab"


def test_who_fails_does_not_stop_the_line() -> None:
    lab = Lab()
    Member(lab, "a", 0)
    Member(lab, "b", 1)
    with pytest.raises(LookupError):
        lab.loop.turn()
    lab.loop.turn()
    assert lab.done == "ab"
