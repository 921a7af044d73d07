"""Whose bytes leave first (RFC 9218), as a client sees it: the order of DATA frames."""

from __future__ import annotations

import itertools

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import Asked, Drive, silent
from tests.support.http2_frames import get, priority_update

from tidegate.protocol.http2.priority import DEFAULT, read_priority

SIZE = 50_000  # of each answer: four frames


def large(drive: Drive, asked: Asked) -> None:
    drive.respond(asked.stream, bytes([asked.stream]) * SIZE)


def order(drive: Drive) -> list[int]:
    """The streams of DATA frames, in their order."""
    return [frame.stream_id for frame in drive.frames if type(frame).__name__ == "DataFrame"]


def runs(drive: Drive) -> list[int]:
    return [stream for stream, _ in itertools.groupby(order(drive))]


def asked(*said: bytes | None, behind: bytes = b"") -> Drive:
    """A request each, saying such priorities, all answered before any byte may leave; then it may."""
    drive = Drive((h2.INITIAL_WINDOW, 1 << 20), whole=large)
    drive.engine._window -= h2.WINDOW  # the connection's window is shut
    raw = b"".join(
        get(number, b"/", *([(b"priority", value)] if value is not None else []))
        for number, value in zip(itertools.count(1, 2), said)
    )
    drive.feed(raw + behind)
    assert not order(drive)
    drive.engine._window += h2.WINDOW
    drive.take()
    return drive.open(0, 1 << 20)


def test_the_more_urgent_leaves_first() -> None:
    drive = asked(b"u=5, i", b"u=1", b"u=3", b"u=0")
    assert runs(drive) == [7, 3, 5, 1]
    assert all(len(answer.body) == SIZE for answer in drive.answers.values())


def test_of_the_same_urgency_one_after_the_other() -> None:
    assert runs(asked(b"u=2", b"u=2", b"u=2")) == [1, 3, 5]


def test_the_incremental_take_turns() -> None:
    assert order(asked(b"i", b"i", b"i"))[:6] == [1, 3, 5, 1, 3, 5]


def test_who_says_nothing_takes_turns() -> None:
    assert order(asked(None, None))[:4] == [1, 3, 1, 3]


def test_the_whole_is_not_interrupted_by_the_incremental_behind_it() -> None:
    assert runs(asked(b"u=3, i=?0", b"u=3, i"))[:2] == [1, 3]


def test_a_priority_update_says_it_anew() -> None:
    behind = priority_update(1, b"u=7") + priority_update(5, b"u=0")
    assert runs(asked(b"u=1", b"u=2", b"u=3", behind=behind)) == [5, 3, 1]


def test_a_priority_update_says_all_of_it() -> None:
    """RFC 9218 7: a parameter that is left out has its default again."""
    assert runs(asked(b"u=0, i", b"u=2", behind=priority_update(1, b"i"))) == [3, 1]


def test_a_priority_update_in_the_middle_of_a_body() -> None:
    drive = Drive((h2.INITIAL_WINDOW, 1 << 20), whole=large).feed(get(1) + get(3))
    sent = len(order(drive))
    drive.feed(priority_update(3, b"u=1")).open(0, 1 << 20)
    assert runs_of(order(drive)[sent:]) == [3, 1]


def runs_of(numbers: list[int]) -> list[int]:
    return [number for number, _ in itertools.groupby(numbers)]


def test_a_priority_may_come_before_its_request_and_counts_more_than_the_field() -> None:
    drive = Drive((h2.INITIAL_WINDOW, 1 << 20), whole=large)
    drive.engine._window -= h2.WINDOW
    drive.feed(priority_update(3, b"u=0") + get(1) + get(3, b"/", (b"priority", b"u=6")))
    drive.engine._window += h2.WINDOW
    drive.take().open(0, 1 << 20)
    assert runs(drive) == [3, 1]
    assert not drive.engine._priorities


def test_a_shut_window_lets_the_less_urgent_pass() -> None:
    drive = Drive((h2.INITIAL_WINDOW, 0), whole=large)
    drive.feed(get(1, b"/", (b"priority", b"u=0")) + get(3, b"/", (b"priority", b"u=7")))
    assert order(drive.open(3, 1000)) == [3]
    assert order(drive.open(1, 1000)) == [3, 1]


def test_windows_that_open_together_keep_the_order() -> None:
    drive = Drive((h2.INITIAL_WINDOW, 0), whole=large)
    drive.open(0, 1 << 20)
    drive.feed(get(1, b"/", (b"priority", b"u=6")) + get(3, b"/", (b"priority", b"u=2")))
    drive.allow((h2.INITIAL_WINDOW, SIZE))
    drive.feed(h2.settings((h2.INITIAL_WINDOW, SIZE)))
    assert runs(drive) == [3, 1]


def test_a_cancelled_stream_leaves_the_queue() -> None:
    drive = asked(b"u=1", b"u=2", behind=h2.rst(1))
    assert runs(drive) == [3]
    drive.assert_empty()


@pytest.mark.parametrize("others", [1, 20])
def test_priorities_of_streams_that_never_come_are_forgotten(others: int) -> None:
    drive = Drive()
    for number in range(1, 2 * others, 2):
        drive.feed(priority_update(number, b"u=1"))
    drive.feed(get(2 * others + 1))
    assert not drive.engine._priorities


def test_more_priorities_than_streams_may_be() -> None:
    """RFC 9218 7.1."""
    drive = Drive(whole=silent, terms=Drive().engine._terms._replace(streams=3)).feed(get(1))
    drive.feed(priority_update(3, b"u=1") + priority_update(5, b"u=1"))
    assert not drive.faults
    assert drive.feed(priority_update(7, b"u=1")).code == h2.Code.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("value", "urgency", "incremental"),
    [
        (b"u=0", 0, False), (b"u=7,i", 7, True), (b"i", 3, True), (b"i=?1, u=4", 4, True),
        (b"i=?0", 3, False), (b"u=5;x=1", 5, False), (b"u=8", 3, False), (b"u=-1", 3, False),
        (b"u=1, u=2", 2, False), (b"other=1, u=2", 2, False), (b"u=1,i=?0, i", 1, True),
    ],
)  # fmt: skip
def test_what_a_field_says(value: bytes, urgency: int, incremental: bool) -> None:
    assert divmod(read_priority(value, DEFAULT), 2) == (urgency, incremental)
