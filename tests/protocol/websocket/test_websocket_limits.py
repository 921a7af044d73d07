"""The longest message: exactly `size` bytes pass, one more is 1009, as early as a head says so."""

from __future__ import annotations

import tracemalloc

import pytest
from tests.support.websocket_frames import (
    BINARY,
    CLOSE,
    CONT,
    PONG,
    TEXT,
    Drive,
    Sent,
    binary,
    close,
    cut,
    drive,
    each_byte,
    expect_fault,
    fragments,
    frame,
    head,
    ping,
    pong,
    text,
)

from tidegate.protocol.websocket.engine import Closed, Pong, State, WebSocketEngine

BOUNDS = [1, 2, 100, 125, 126, 65535, 65536, 100_000]


@pytest.mark.parametrize("size", BOUNDS)
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_exactly_the_bound_passes(size: int, kind: int) -> None:
    expected = ["x" * size] if kind == TEXT else [b"x" * size]
    assert drive(frame(kind, b"x" * size), size).told == expected
    assert drive(cut(frame(kind, b"x" * size), 1009), size).told == expected


@pytest.mark.parametrize("size", BOUNDS)
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_one_more_does_not(size: int, kind: int) -> None:
    expect_fault(text("a") + frame(kind, b"x" * (size + 1)), 1009, ["a"], size)
    expect_fault(cut(frame(kind, b"x" * (size + 1)), 1009), 1009, size=size)


@pytest.mark.parametrize("size", BOUNDS)
@pytest.mark.parametrize("fin", [True, False])
def test_the_head_is_enough(size: int, fin: bool) -> None:
    expect_fault(head(BINARY, size + 1, fin=fin), 1009, size=size)
    expect_fault(each_byte(head(TEXT, size + 1, fin=fin)), 1009, size=size)


@pytest.mark.parametrize("length", [1 << 32, (1 << 63) - 1])
def test_the_head_of_something_huge(length: int) -> None:
    expect_fault(head(BINARY, length), 1009, size=1 << 24)


@pytest.mark.parametrize("size", BOUNDS[1:])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_the_bound_is_of_all_fragments_together(size: int, kind: int) -> None:
    payload = b"x" * size
    for pieces in ([payload[:1], payload[1:]], [payload[1:], payload[:1]], [b"", payload, b""]):
        found = drive(fragments(kind, pieces), size)
        assert found.told == [payload.decode() if kind == TEXT else payload]
        for at in range(len(pieces)):
            longer = [piece + b"y" * (at == place) for place, piece in enumerate(pieces)]
            expect_fault(fragments(kind, longer), 1009, size=size)


@pytest.mark.parametrize("fin", [True, False])
def test_the_head_of_a_fragment_is_enough(fin: bool) -> None:
    start = b"".join(fragments(BINARY, [b"x" * 40, b"x" * 40, b""])[:2])
    found = drive(start, 100)
    assert found.told == []
    assert drive(start + head(CONT, 20, fin=fin), 100).told == []
    expect_fault(start + head(CONT, 21, fin=fin), 1009, size=100)


def test_many_small_fragments() -> None:
    pieces = [b"x"] * 1000
    assert drive(fragments(TEXT, pieces), 1000).told == ["x" * 1000]
    expect_fault(fragments(TEXT, pieces), 1009, size=999)


def test_empty_fragments_count_nothing() -> None:
    assert drive(fragments(TEXT, [b"ab", *[b""] * 500, b"c"]), 3).told == ["abc"]


def test_each_message_counts_for_itself() -> None:
    raw = b"".join([binary(b"x" * 100), *fragments(TEXT, [b"y" * 50] * 2), text("z" * 100)] * 20)
    found = drive(raw, 100)
    assert found.told == [b"x" * 100, "y" * 100, "z" * 100] * 20
    assert found.engine.state is State.OPEN


def test_the_bound_counts_bytes_not_characters() -> None:
    assert drive(text("\u20ac" * 33), 99).told == ["\u20ac" * 33]
    expect_fault(text("\u20ac" * 34), 1009, size=100)


def test_control_frames_have_their_own_bound() -> None:
    raw = [ping(b"p" * 125), pong(b"q" * 125), text("a"), close(1000, "r" * 123)]
    found = drive(raw, 1)
    assert found.told == [Pong(b"q" * 125), "a", Closed(1000, "r" * 123, False)]
    assert found.sent[0] == Sent(PONG, b"p" * 125)


def test_control_frames_between_fragments_do_not_count() -> None:
    one, two = fragments(BINARY, [b"x" * 50, b"y" * 50])
    found = drive([one, ping(b"p" * 125), two], 100)
    assert found.told == [b"x" * 50 + b"y" * 50]


def test_no_bound() -> None:
    message = b"x" * (3 << 20)
    assert drive(binary(message)).told == [message]


def test_whatever_came_before_is_told_and_answered() -> None:
    raw = text("a") + ping(b"p") + binary(b"b") + head(BINARY, 11)
    found = drive(raw, 10)
    assert found.told[:-1] == ["a", b"b"]
    assert [one.opcode for one in found.sent] == [PONG, CLOSE]
    assert found.close_code == 1009


def test_what_is_sent_has_no_bound() -> None:
    found = Drive(10)
    assert b"".join(found.engine.render("x" * 100)) == b"\x81\x64" + b"x" * 100


def test_a_wrong_head_is_worse_than_its_length() -> None:
    expect_fault(head(BINARY, 1 << 20, rsv=1), 1002, size=10)
    expect_fault(head(BINARY, 1 << 20, mask=None), 1002, size=10)
    expect_fault(head(BINARY, 1 << 63), 1002, size=10)
    expect_fault(head(3, 1 << 20), 1002, size=10)
    expect_fault(head(CONT, 1 << 20), 1002, size=10)
    expect_fault(frame(TEXT, b"x" * 20, length_form=16), 1002, size=10)


def test_text_that_is_too_long_and_no_text() -> None:
    expect_fault(frame(TEXT, b"\xff" * 11), 1009, size=10)
    expect_fault([frame(TEXT, b"\xff", fin=False), head(CONT, 100)], 1007, size=10)


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("each", [0, 1, 2, 3])
def test_a_message_in_very_many_fragments_takes_little_more_than_its_bytes(
    kind: int, each: int
) -> None:
    piece = b"abc"[:each]
    engine = WebSocketEngine(0)
    engine.feed(frame(kind, b"", fin=False))
    assert engine.next() is None
    wire = frame(CONT, piece, fin=False) * 512
    tracemalloc.start()
    for _ in range(200):
        engine.feed(wire)
        assert engine.next() is None
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 200 * 512 * each * 1.5 + 30_000
    engine.feed(frame(CONT, piece))
    message = engine.next()
    expected = piece * (200 * 512 + 1)
    assert message == (expected.decode() if kind == TEXT else expected)
