"""However the input is cut, what is told and what is sent stay the same, in the same order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.websocket_frames import (
    BINARY,
    CONT,
    MASK,
    PONG,
    TEXT,
    Drive,
    binary,
    close,
    cont,
    cut,
    drive,
    each_byte,
    fragments,
    frame,
    head,
    masked,
    ping,
    pong,
    text,
)

EURO = "\u20ac".encode()

SCRIPTS: dict[str, bytes] = {
    "messages": text("one") + binary(b"two") + text("") + binary(b"") + close(1000, "bye"),
    "fragments": b"".join(fragments(TEXT, [b"a", EURO[:1], EURO[1:], b""])) + close(),
    "between": b"".join(
        [
            text("a", fin=False),
            ping(b"1"),
            cont(b"b"),
            pong(b"2"),
            cont(b"c", fin=True),
            close(4000),
        ]
    ),
    "torn characters": text(EURO[:2], fin=False) + ping(EURO) + cont(EURO[2:], fin=True),
    "sixteen bits": binary(bytes(range(130))) + text("x" * 126) + ping(b"p" * 125),
    "after a close": text("a") + close(1001, "away") + text("b") + ping(b"c"),
    "half a close": text("a") + close(1001, "away")[:-1],
    "unmasked": text("a") + frame(TEXT, b"b", mask=None) + text("c"),
    "reserved bits": text("a") + frame(TEXT, b"b", rsv=4) + text("c"),
    "reserved opcode": ping(b"a") + frame(5, b"b") + ping(b"c"),
    "everything wrong in one head": text("a") + frame(0x3, b"b" * 200, fin=False, rsv=7, mask=None),
    "wrong control frame": frame(9, b"p" * 126, fin=False, rsv=2),
    "wrong mask and order": frame(CONT, b"x", mask=None, rsv=1),
    "orphan": text("a") + cont(b"b", fin=True),
    "new inside": text("a", fin=False) + text("b"),
    "longer form": text("a") + frame(TEXT, b"b" * 10, length_form=16),
    "longest form": binary(b"a") + frame(TEXT, b"b" * 10, length_form=64),
    "top bit": text("a") + head(BINARY, 1 << 63) + b"rest",
    "not UTF-8": text("a") + text(b"ok\xc3\x28 and more") + text("b"),
    "surrogate": text(b"ok\xed\xa0\x80 and more") + ping(),
    "torn at the end": text(b"ok\xe2\x82") + text("b"),
    "not UTF-8 over fragments": b"".join(fragments(TEXT, [b"a\xf4", b"\x90", b"\x80\x80"])),
    "bad close code": text("a") + close(1005, "x"),
    "bad reason": text("a") + close(1000, b"\xff"),
    "one byte": frame(8, b"\x03") + text("a"),
    "too long": text("a") + binary(b"x" * 251) + text("b"),
    "too long together": b"".join(fragments(BINARY, [b"x" * 200, b"y" * 51])) + text("b"),
    "too long and wrong": text("a") + head(TEXT, 1 << 20, rsv=4) + b"\xff" * 9,
    "too long and no text": text(b"\xff", fin=False) + cont(b"x" * 300),
    "too long in text": text(b"a" * 200, fin=False) + cont(b"\xff" * 51),
}
SIZE = 250


def story(pieces: Any, size: int = SIZE) -> dict[str, Any]:
    return drive(pieces, size).story()


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_byte_alone(name: str) -> None:
    raw = SCRIPTS[name]
    assert story(each_byte(raw)) == story(raw)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_cut_in_two(name: str) -> None:
    raw = SCRIPTS[name]
    whole = story(raw)
    for at in range(len(raw) + 1):
        assert story([raw[:at], raw[at:]]) == whole, at


@pytest.mark.parametrize("name", [name for name in SCRIPTS if len(SCRIPTS[name]) < 60])
def test_every_cut_in_three(name: str) -> None:
    raw = SCRIPTS[name]
    whole = story(raw)
    for one in range(len(raw)):
        for two in range(one, len(raw)):
            assert story([raw[:one], raw[one:two], raw[two:]]) == whole, (one, two)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8, 14, 64])
def test_pieces_of_one_size(name: str, size: int) -> None:
    raw = SCRIPTS[name]
    assert story(cut(raw, size)) == story(raw)


@pytest.mark.parametrize("name", SCRIPTS)
def test_more_input_never_changes_what_was_told(name: str) -> None:
    """What a part of the input gives is the beginning of what all of it gives."""
    raw = SCRIPTS[name]
    whole = drive(raw, SIZE)
    for at in range(len(raw)):
        part = drive(raw[:at], SIZE)
        assert part.told == whole.told[: len(part.told)]
        assert whole.output.startswith(part.output)


@pytest.mark.parametrize("name", SCRIPTS)
def test_fed_in_pieces_and_asked_only_at_the_end(name: str) -> None:
    raw = SCRIPTS[name]
    late = Drive(SIZE)
    for piece in cut(raw, 3):
        late.engine.feed(piece)
    late.drain()
    assert late.story() == story(raw)


def test_asking_without_input_changes_nothing() -> None:
    for raw in SCRIPTS.values():
        found = Drive(SIZE)
        for piece in each_byte(raw):
            found.feed(piece, b"")
            assert found.engine.next() is None
        assert found.story() == story(raw)


def test_much_in_one_piece_is_as_much_in_many() -> None:
    """More than one call's share of work: `stalled` must neither lose nor repeat anything."""
    messages = [f"message {at} " + "x" * (at % 50) for at in range(3000)]
    raw = b"".join(
        text(message) + (ping(message[:30].encode()) if at % 100 == 0 else b"")
        for at, message in enumerate(messages)
    )
    found = drive(raw)
    assert found.told == messages
    assert [one.opcode for one in found.sent] == [PONG] * 30
    assert found.story() == story(cut(raw, 4093), 0)
    tiny = b"".join(fragments(TEXT, [b"x"] * 20_000))
    assert drive(tiny + text("next")).told == ["x" * 20_000, "next"]


def test_input_may_come_while_it_is_stalled() -> None:
    raw = b"".join(fragments(BINARY, [b"x"] * 20_000)) + b"".join(map(text, "abcdefgh" * 1000))
    slow = Drive()
    for piece in cut(raw, 10_000):
        slow.engine.feed(piece)
        one = slow.engine.next()
        slow.told += [] if one is None else [one]
    slow.drain()
    assert slow.story() == story(raw, 0)


# --- hypothesis

MASKS = st.binary(min_size=4, max_size=4)
PAYLOADS = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.binary(max_size=40),
    st.sampled_from(
        [b"x" * 125, b"y" * 126, b"z" * 249, b"z" * 251, EURO[:1], EURO[1:], b"\xed\xa0"]
    ),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Mostly right, in any order; sometimes broken in one way."""
    opcode = draw(st.sampled_from([0, 0, 1, 1, 2, 2, 8, 9, 9, 10, 3, 15]))
    payload = draw(PAYLOADS)
    if opcode == 8:
        payload = draw(st.sampled_from([b"\x03\xe8", b"", b"\x03", b"\x03\xedx"])) + payload[:123]
    elif opcode > 8:
        payload = payload[:125]
    odd = draw(st.integers(0, 30))
    return frame(
        opcode,
        payload,
        fin=draw(st.booleans()) if opcode < 8 else odd != 1,
        rsv=1 if odd == 2 else 0,
        mask=None if odd == 3 else draw(MASKS),
        length_form=64 if odd == 4 else None,
    )


def pieces_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(raw)) for place in cuts), len(raw)]
    return [raw[one:two] for one, two in pairwise(places)]


@settings(max_examples=200)
@given(st.lists(frames(), max_size=8).map(b"".join), st.lists(st.integers(0, 600), max_size=8))
def test_any_frames_cut_anywhere(raw: bytes, cuts: list[int]) -> None:
    whole = story(raw)
    assert story(pieces_of(raw, cuts)) == whole
    assert story(each_byte(raw)) == whole


@settings(max_examples=150)
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_any_bytes_cut_anywhere(raw: bytes, cuts: list[int]) -> None:
    whole = drive(raw, SIZE)
    assert story(pieces_of(raw, cuts)) == whole.story()
    if whole.end is not None and whole.end[1]:
        assert whole.end[0] == whole.engine.close_sent
        assert whole.end[0] in (1002, 1007, 1009)


@settings(max_examples=150)
@given(
    st.text(max_size=60),
    st.lists(st.integers(0, 200), max_size=6),
    MASKS,
    st.lists(st.integers(0, 300), max_size=6),
)
def test_text_in_any_fragments(
    message: str, parts: list[int], mask: bytes, cuts: list[int]
) -> None:
    raw = b"".join(fragments(TEXT, pieces_of(message.encode(), parts)))
    assert drive(pieces_of(raw, cuts)).told == [message]
    one = head(TEXT, len(message.encode()), mask=mask) + masked(message.encode(), mask)
    assert drive(pieces_of(one, cuts)).told == [message]
    assert masked(masked(message.encode(), MASK), MASK) == message.encode()
