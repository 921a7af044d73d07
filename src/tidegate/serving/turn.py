"""The end of a loop turn, at which those write whose application has spoken in the meantime.

Strategy: the first who asks has one callback scheduled; it comes behind everything that is ready
now, and writes for all who have asked by then. A message to thousands of connections costs one
callback instead of one each. Long turns are cut, so that others are served between the pieces.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tidegate.asgi.service import Clock

LONGEST = 0.005  # seconds of writing before others have their turn
STEP = 16  # members between two looks at the clock


class Member(Protocol):
    def on_turn_end(self) -> None: ...


class Turn:
    """See the module. A member does not fail: it sees to its own errors."""

    __slots__ = ("_clock", "_loop", "_members")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._members: list[Member] = []

    def add(self, member: Member) -> None:
        if not self._members:
            self._loop.call_soon(self._end)
        self._members.append(member)

    def _end(self) -> None:
        members, self._members = self._members, []
        clock = self._clock
        until = clock.tick() + LONGEST
        for begin in range(0, len(members), STEP):
            if begin and clock.read() > until:
                self._put_off(members[begin:])
                return
            for member in members[begin : begin + STEP]:
                member.on_turn_end()

    def _put_off(self, members: list[Member]) -> None:
        if not self._members:
            self._loop.call_soon(self._end)
        self._members[:0] = members
