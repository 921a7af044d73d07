"""Floods (RFC 9113 10.5): each is told to calm down at its budget, and not a frame before."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import TERMS, Drive, silent
from tests.support.http2_frames import Code, block, data, get, headers, post, request

from tidegate.protocol.engine import Ending, Limits

BUDGET = 50
SMALL = TERMS._replace(resets=BUDGET, idle_frames=BUDGET, streams=8)

# One more of a flood; streams are counted from 101 on.
IDLE: dict[str, Callable[[int], bytes]] = {
    "pings": lambda _: h2.ping(),
    "answers to pings of nobody": lambda _: h2.ping(ack=True),
    "settings": lambda _: h2.settings(),
    "priorities": lambda _: h2.priority(1),
    "priority updates": lambda _: h2.priority_update(1, b"u=1"),
    "empty data": lambda _: data(1),
    "nothing but padding": lambda _: data(1, pad=3),
    "tiny windows of a stream": lambda _: h2.window_update(1, 1),
    "tiny windows of all": lambda _: h2.window_update(0, 1),
    "frames of no type": lambda _: h2.frame(0x77, b"x"),
    "goaway": lambda _: h2.goaway(),
    "resets of nothing": lambda _: h2.rst(3),
    "windows of closed streams": lambda _: h2.window_update(3, 1000),
}
RESETS: dict[str, Callable[[int], bytes]] = {
    "rapid reset": lambda n: get(99 + 2 * n) + h2.rst(99 + 2 * n),
    "malformed requests": lambda n: get(99 + 2 * n, b"/", (b"X", b"")),
    "made you reset: window": lambda n: post(99 + 2 * n) + h2.window_update(99 + 2 * n, 0),
    "made you reset: overflow": lambda n: post(99 + 2 * n) + h2.window_update(99 + 2 * n, h2.LARGEST),
    "made you reset: data behind the end": lambda n: get(99 + 2 * n) + data(99 + 2 * n, b"x"),
    "made you reset: length": lambda n: post(99 + 2 * n, b"/", (b"content-length", b"1")) + data(99 + 2 * n, b"ab"),
    "made you reset: priority": lambda n: post(99 + 2 * n) + h2.frame(h2.PRIORITY, b"x", stream=99 + 2 * n),
}  # fmt: skip


def rested() -> Drive:
    """A connection whose budgets are full: its first frames have cost a little."""
    drive = Drive(terms=SMALL, whole=silent)
    drive.engine.rest(100)
    return drive


def open_drive() -> Drive:
    drive = rested().feed(post(1), get(3), h2.rst(3))
    drive.engine.rest(100)
    return drive


@pytest.mark.parametrize("name", IDLE)
def test_frames_that_carry_nothing(name: str) -> None:
    drive = open_drive()
    drive.feed(*[IDLE[name](count) for count in range(1, BUDGET + 1)])
    assert not drive.goaways, drive.faults[-1].reason
    drive.feed(IDLE[name](BUDGET + 1))
    assert drive.code == Code.ENHANCE_YOUR_CALM
    assert drive.engine.ending is Ending.STAGED
    assert "--http2-max-idle-frames" in drive.faults[-1].reason


@pytest.mark.parametrize("name", RESETS)
def test_streams_that_are_reset(name: str) -> None:
    drive = open_drive()
    drive.feed(*[RESETS[name](count) for count in range(1, BUDGET + 1)])
    assert not drive.goaways, drive.faults[-1].reason
    drive.feed(RESETS[name](BUDGET + 1))
    assert drive.code == Code.ENHANCE_YOUR_CALM
    option = "idle-frames" if name == "made you reset: window" else "resets"  # it costs both
    assert f"--http2-max-{option}" in drive.faults[-1].reason


def test_requests_beyond_the_limit_are_paid_for() -> None:
    drive = Drive(terms=SMALL, whole=silent)
    for number in itertools.islice(itertools.count(1, 2), 8 + BUDGET):
        drive.feed(get(number))
    assert not drive.goaways
    assert len(drive.asked) == 8
    assert drive.feed(get(2001)).code == Code.ENHANCE_YOUR_CALM


def test_refused_requests_are_answers_like_others() -> None:
    drive = rested()
    for number in range(1, 20 * BUDGET, 2):
        drive.feed(get(number, b"/", (b"expect", b"x")))
    assert not drive.goaways
    assert all(answer.status == 417 for answer in drive.answers.values())


def test_half_cancelled_is_no_flood() -> None:
    drive = Drive(terms=SMALL, early=silent, whole=silent)
    for number in range(1, 8001, 4):
        drive.feed(get(number) + get(number + 2) + h2.rst(number))
        drive.respond(number + 2, b"ok")
        drive.take()
    assert not drive.faults
    drive.assert_empty()


def test_a_day_of_pings() -> None:
    drive = Drive(terms=SMALL)
    for _ in range(24 * 60):
        drive.feed(h2.ping(), h2.ping())
        drive.engine.rest(60)
    assert len(drive.pongs) == 2 * 24 * 60
    assert not drive.faults


def test_time_fills_a_tenth_of_a_budget_a_second() -> None:
    drive = rested().feed(*[h2.ping()] * BUDGET)
    assert drive.engine.spent
    drive.engine.rest(1.0)
    drive.feed(*[h2.ping()] * (BUDGET // 10))
    assert not drive.faults
    assert drive.feed(h2.ping()).code == Code.ENHANCE_YOUR_CALM


def test_time_fills_no_more_than_a_budget() -> None:
    drive = Drive(terms=SMALL)
    drive.engine.rest(1e9)
    assert not drive.engine.spent
    drive.feed(*[h2.ping()] * BUDGET)
    assert not drive.faults
    assert drive.feed(h2.ping()).code == Code.ENHANCE_YOUR_CALM


def test_many_settings_in_one_frame_count_as_many() -> None:
    drive = Drive(terms=SMALL)
    many = h2.settings(*[(6, 1)] * 2700)
    assert drive.feed(many).acks == 2
    assert drive.feed(many).code == Code.ENHANCE_YOUR_CALM


def test_a_header_block_without_end() -> None:
    """CONTINUATION until the bound: 10.5.1."""
    drive = Drive(limits=Limits(header_size=20_000))
    drive.feed(
        headers(1, bytes(16000), end=False, done=False), h2.continuation(1, bytes(4000), done=False)
    )
    assert not drive.faults
    assert drive.feed(h2.continuation(1, b"x", done=False)).code == Code.ENHANCE_YOUR_CALM
    assert "--limit-header-size" in drive.faults[0].reason


@pytest.mark.parametrize("piece", [b"", b"x"])
def test_a_header_block_in_crumbs(piece: bytes) -> None:
    drive = rested().feed(headers(1, b"\x82", done=False))
    drive.feed(*[h2.continuation(1, piece, done=False)] * BUDGET)
    assert not drive.faults
    drive.feed(h2.continuation(1, piece, done=False))
    assert drive.code == Code.ENHANCE_YOUR_CALM


def test_a_bomb_of_references_is_not_kept() -> None:
    """One large field in the table, and thousands of references to it."""
    bomb = block(request()) + h2.literal(b"x", b"y" * 4000, pattern=0x40) + b"\xbe" * 15_000
    drive = Drive(limits=Limits(header_size=20_000)).feed(
        headers(1, bomb[:16000], done=False), h2.continuation(1, bomb[16000:]), get(3)
    )
    assert drive.answers[1].status == 431
    assert drive.answers[3].status == 200


@pytest.mark.parametrize("size", [16385, 1 << 20, (1 << 24) - 1])
def test_a_frame_larger_than_was_allowed_is_refused_by_its_head(size: int) -> None:
    drive = Drive().feed(h2.frame(h2.DATA, stream=1, length=size))
    assert drive.code == Code.FRAME_SIZE_ERROR


def test_nothing_is_read_behind_the_end() -> None:
    drive = Drive().feed(h2.ping(bytes(7)) + get(1))
    assert drive.code == Code.FRAME_SIZE_ERROR
    frames = len(drive.frames)
    drive.feed(get(1), h2.ping(), h2.PREFACE)
    assert len(drive.frames) == frames
    assert not drive.asked


def test_who_does_not_read_is_not_read() -> None:
    drive = Drive(whole=silent)
    engine = drive.engine
    for _ in range(200_000):
        if not engine.hungry:
            break
        engine.receive(h2.ping())
        engine.rest(10)
    assert not engine.hungry
    assert engine._out_size < 300 * 1024
    assert drive.take().engine.hungry
