"""Priorities (RFC 9218): what a client says of a stream, and whose bytes leave first.

Strategy: an urgency and whether the answer is of use piece by piece, in one small number. Streams
that have something to send stand in one queue an urgency; the first of the most urgent has its
turn, and who wants to be served piece by piece goes to the end of its queue after it. So does who
has said nothing: a client that knows no priorities shall not wait for a page behind a download.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.protocol.http2.streams import Stream

IN_TURNS = 1
# urgency times two (4.1: from 0, the most urgent, to 7), and whether in turns: nothing was said
DEFAULT = 3 * 2 + IN_TURNS

_URGENCY = re.compile(rb"u[ \t]*=[ \t]*([0-7])")
_INCREMENTAL = re.compile(rb"i(?:=\?([01]))?")


def read_priority(value: bytes, before: int) -> int:
    """A Priority field's dictionary (RFC 8941 3.2); what is not understood changes nothing (4)."""
    urgency, turns = before >> 1, 0
    if before != DEFAULT:
        turns = before & 1
    for element in value.split(b","):
        member = element.partition(b";")[0].strip(b" \t")
        if (match := _URGENCY.fullmatch(member)) is not None:
            urgency = int(match[1])
        elif (match := _INCREMENTAL.fullmatch(member)) is not None:
            turns = 0 if match[1] == b"0" else 1
    return urgency * 2 + turns


class Schedule:
    """The streams that have bytes to send and may."""

    __slots__ = ("_queues", "count")

    def __init__(self) -> None:
        self._queues: dict[int, deque[Stream]] = {}
        self.count = 0

    def add(self, stream: Stream) -> None:
        """It has something to send; not twice."""
        urgency = stream.priority >> 1
        queue = self._queues.get(urgency)
        if queue is None:
            queue = self._queues[urgency] = deque()
        queue.append(stream)
        self.count += 1

    def first(self) -> Stream:
        """Whose turn it is; only with a `count`."""
        return self._queues[min(self._queues)][0]

    def turn(self, stream: Stream) -> None:
        """The first has had its turn, and has more to send."""
        if stream.priority & IN_TURNS:
            self._queues[stream.priority >> 1].rotate(-1)

    def remove(self, stream: Stream) -> None:
        """It has nothing to send, or may not."""
        urgency = stream.priority >> 1
        queue = self._queues[urgency]
        if queue[0] is stream:
            queue.popleft()
        else:
            queue.remove(stream)
        if not queue:
            del self._queues[urgency]
        self.count -= 1
