"""However the input comes, whole or in pieces, new or known, it says the same.

Every row of the wire tests goes through an engine whole (the quick road, where it is good), cut in
two at every place, and byte by byte (line by line, through the scanner); with empty tables and with
tables that know it; under other limits and back.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.http1_drive import (
    Drive,
    answer,
    chunked,
    cold_engine,
    drive,
    each_byte,
    get,
    post,
    silent,
)
from tests.wire.corpus import CASES, Case, Seen
from tests.wire.good import GOOD, Good

from tidegate.protocol.engine import Ending, Limits
from tidegate.protocol.http1.engine import Http1Engine

LIMITS = Limits(body_size=1 << 30)
TIGHT = Limits(request_line=40, header_size=90, header_count=2, body_size=3)
LOOSE = Limits(request_line=1 << 20, header_size=1 << 20, header_count=100_000)
SHORT = 600

# Streams of several requests, and oddities that only show between them.
SEVERAL = {
    "pipeline": get("/1") + get("/2") + post(b"Content-Length: 5\r\n", b"hello") + get("/3"),
    "same-three-times": get() * 3,
    "chunked-between": get("/1") + chunked(b"3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\n") + get("/2"),
    "blank-lines-between": get("/1") + b"\r\n" + get("/2") + b"\r\n\r\n" + get("/3"),
    "close-in-the-middle": get("/1") + get("/2", b"Connection: close\r\n") + get("/3"),
    "old-in-the-middle": get("/1") + get("/2", version="1.0") + get("/3"),
    "old-kept-alive": get("/1", b"Connection: keep-alive\r\n", "1.0") + get("/2"),
    "fault-behind-good": get("/1") + get("/2") + b"GET / HTTP/1.1\r\n\r\n" + get("/3"),
    "fault-behind-body": post(b"Content-Length: 2\r\n", b"ab") + b"\0" + get("/3"),
    "bad-chunk-behind-good": get("/1") + chunked(b"1\r\na\r\nx\r\n") + get("/2"),
    "head": b"HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a b\r\n\r\n" + get(),
    "upgrade-unwanted": get("/1", b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + get("/2"),
    "te-trailers": get("/1", b"TE: trailers;q=1, gzip\r\nConnection: TE\r\n") + get("/2"),
}
ROWS: dict[str, bytes] = {
    **{case.id: case.raw for case in CASES},
    **{f"good-{row.id}": row.raw + get("/behind") for row in GOOD},
    **{f"several-{name}": raw for name, raw in SEVERAL.items()},
}
every_row = pytest.mark.parametrize("raw", ROWS.values(), ids=ROWS.keys())


def slowly(raw: bytes, limits: Limits = LIMITS, **options: Any) -> Drive:
    """Byte by byte; behind the end of the connection in larger pieces, which it must ignore."""
    connection = Drive(limits, **options)
    for at, piece in enumerate(each_byte(raw)):
        connection.feed(piece)
        if connection.engine.ending is not Ending.NO and at % 1000 == 999:
            connection.feed(raw[at + 1 :])
            break
    return connection


def same(one: Drive, other: Drive) -> None:
    assert one.story() == other.story()
    # What had come of a body that broke off: the more, the smaller the pieces.
    assert one.torn.startswith(other.torn)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_fault_is_refused_once_and_nothing_gets_through(case: Case) -> None:
    connection = drive(case.raw, LIMITS)
    assert len(connection.faults) == 1
    assert connection.statuses[0] in case.status
    assert connection.engine.ending is Ending.STAGED
    if case.seen is Seen.NOTHING:
        assert connection.asked == []
    else:
        assert [asked.whole for asked in connection.asked] in ([], [False])
    assert bytes(connection.output).startswith(b"HTTP/1.1 %d " % connection.statuses[0])
    assert connection.output.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_a_good_request_says_what_it_should(row: Good) -> None:
    connection = drive(row.raw + get("/behind"), LIMITS)
    assert connection.faults == []
    assert len(connection.asked) == 2
    first = connection.asked[0]
    assert first.whole
    decoded = {
        "method": first.head["method"],
        "path": first.head["path"],
        "raw_path": first.head["raw_path"].decode(),
        "query": first.head["query"].decode(),
        "http_version": first.head["version"],
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in
                    first.head["headers"]],
        "body": first.body.decode("latin-1"),
    }  # fmt: skip
    assert {name: decoded[name] for name in row.seen} == row.seen
    assert connection.engine.ending is Ending.NO


@every_row
def test_byte_by_byte_and_cut_in_two_anywhere(raw: bytes) -> None:
    if len(raw) > SHORT:
        # at the ends and in the middle, where it is too long for everywhere
        cuts = [*range(1, 40), *range(len(raw) - 40, len(raw)), len(raw) // 2]
    else:
        cuts = list(range(1, len(raw)))
    slow, whole = slowly(raw), drive(raw, LIMITS)
    same(slow, whole)
    for cut in cuts:
        halves = drive([raw[:cut], raw[cut:]], LIMITS)
        same(halves, whole)
        same(slow, halves)


@pytest.mark.parametrize("name", SEVERAL)
def test_cut_in_three_anywhere(name: str) -> None:
    raw = SEVERAL[name][:120]
    whole = drive(raw, LIMITS)
    for first in range(1, len(raw)):
        for second in range(first + 1, len(raw)):
            same(drive([raw[:first], raw[first:second], raw[second:]], LIMITS), whole)


@every_row
def test_cut_in_two_before_the_first_is_answered(raw: bytes) -> None:
    """What is pipelined waits: only the first request is told of, however it came."""
    raw = raw[:SHORT]
    whole = drive(raw, LIMITS, whole=silent)
    for cut in range(1, len(raw)):
        same(drive([raw[:cut], raw[cut:]], LIMITS, whole=silent), whole)


@every_row
def test_a_late_answer_finds_the_same_behind_it(raw: bytes) -> None:
    """Answered only after all has come, one after the other: as if each had been answered at
    once."""
    raw = raw[: 60 * 1024]
    late = drive(raw, LIMITS, whole=silent)
    while late.asked and late.asked[-1].whole and late.engine.ending is Ending.NO:
        before = len(late.asked)
        answer(late, late.asked[-1])
        late.handle([])
        if len(late.asked) == before:
            break
    same(late, drive(raw, LIMITS))


@every_row
def test_known_is_no_other_than_new(raw: bytes) -> None:
    """With empty tables; the second time; and when the scanner is the first to see it."""
    cold = cold_engine()
    first = drive(raw, LIMITS, kind=cold).story()
    assert drive(raw, LIMITS, kind=cold).story() == first
    assert drive([raw[:1], raw[1:]], LIMITS, kind=cold).story() == first
    cold = cold_engine()
    assert drive([raw[:1], raw[1:]], LIMITS, kind=cold).story() == first
    assert drive(raw, LIMITS, kind=cold).story() == first


@pytest.fixture(scope="module")
def engines() -> dict[Limits | None, type[Http1Engine]]:
    """One that each limit has to itself, and (None) one that they share."""
    return {limits: cold_engine() for limits in (TIGHT, LIMITS, LOOSE, None)}


@every_row
def test_limits_do_not_leak_into_each_other(
    raw: bytes, engines: dict[Limits | None, type[Http1Engine]]
) -> None:
    """Heads are remembered for all connections: what one limit allows, another may refuse."""
    for limits in (TIGHT, LIMITS, LOOSE, TIGHT, LOOSE, LIMITS, TIGHT):
        alone = drive(raw, limits, kind=engines[limits]).story()
        assert drive(raw, limits, kind=engines[None]).story() == alone


@every_row
def test_byte_by_byte_under_other_limits(raw: bytes) -> None:
    raw = raw[:2000]
    for limits in (TIGHT, TIGHT._replace(header_size=1 << 16), LOOSE):
        same(slowly(raw, limits), drive(raw, limits))


@every_row
def test_an_early_answer_changes_nothing_about_what_is_asked(raw: bytes) -> None:
    """An application that does not wait for the body is asked the same, and answers the same."""
    whole = drive(raw, LIMITS, whole=silent, early=answer)
    slow = slowly(raw, whole=silent, early=answer)
    if whole.faults and not whole.torn and len(whole.asked) and not whole.asked[-1].whole:
        # The fault came in the same piece as the head: it is the answer. Byte by byte, the
        # application was quicker.
        assert [asked.head for asked in slow.asked] == [asked.head for asked in whole.asked]
        return
    assert [asked.head for asked in slow.asked] == [asked.head for asked in whole.asked]
    assert slow.output.count(b"HTTP/1.1 200 ") == len(slow.asked)
    assert slow.output == whole.output
