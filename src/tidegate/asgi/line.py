"""Where sessions stand in line whose peers sent something small that inflates to a lot.

Strategy: one step of one message in each turn of the loop, and the same message until it is done,
or refused for its size: so others are served between the steps, and what fifty such messages
inflate to is in memory one after the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol


class Member(Protocol):
    def go_on(self) -> None: ...


class Line:
    """See the module. Who joins while it is its turn keeps its place."""

    __slots__ = ("_current", "_due", "_loop", "_members")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._members: deque[Member] = deque()
        self._current: Member | None = None
        self._due = False

    def join(self, member: Member) -> None:
        if member is self._current:
            self._members.appendleft(member)
        else:
            self._members.append(member)
        self._schedule()

    def _schedule(self) -> None:
        if self._members and not self._due:
            self._due = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._due = False
        self._current = member = self._members.popleft()
        try:
            member.go_on()
        finally:
            self._current = None
            self._schedule()
