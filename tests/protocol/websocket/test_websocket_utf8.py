"""Text is UTF-8, checked as it comes: RFC 3629's table, and the byte at which a fault must be seen.

`fault_at` below is that table written out, so that the engine is not measured by the decoder it may
use itself.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.websocket_frames import (
    CLOSE,
    CONT,
    MASK,
    PONG,
    TEXT,
    Drive,
    Sent,
    cont,
    drive,
    each_byte,
    expect_fault,
    fragments,
    frame,
    head,
    masked,
    ping,
    text,
)

# RFC 3629 4: a first byte, and the ranges of what follows it
TAIL = (0x80, 0xBF)
ROWS = [
    ((0x00, 0x7F),),
    ((0xC2, 0xDF), TAIL),
    ((0xE0, 0xE0), (0xA0, 0xBF), TAIL),
    ((0xE1, 0xEC), TAIL, TAIL),
    ((0xED, 0xED), (0x80, 0x9F), TAIL),
    ((0xEE, 0xEF), TAIL, TAIL),
    ((0xF0, 0xF0), (0x90, 0xBF), TAIL, TAIL),
    ((0xF1, 0xF3), TAIL, TAIL, TAIL),
    ((0xF4, 0xF4), (0x80, 0x8F), TAIL, TAIL),
]


def fault_at(data: bytes) -> int | None:
    """Where the byte is that no UTF-8 can have there; len(data) if it breaks off, None if valid."""
    awaited: list[tuple[int, int]] = []
    for at, byte in enumerate(data):
        if not awaited:
            rows = [row for row in ROWS if row[0][0] <= byte <= row[0][1]]
            if not rows:
                return at
            awaited = list(rows[0][1:])
        else:
            low, high = awaited.pop(0)
            if not low <= byte <= high:
                return at
    return len(data) if awaited else None


VALID = [
    b"", b"Hello", b"\x00", b"\x7f", b"\xc2\x80", b"\xdf\xbf", b"\xe0\xa0\x80", b"\xe1\x80\x80",
    b"\xec\xbf\xbf", b"\xed\x80\x80", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd",
    b"\xef\xbf\xbe", b"\xef\xbf\xbf", b"\xef\xb7\x90", b"\xef\xbb\xbf", b"\xef\xbb\xbfBOM first",
    b"\xf0\x90\x80\x80", b"\xf0\x9f\xbf\xbe", b"\xf0\x9f\xbf\xbf", b"\xf1\xbf\xbf\xbe",
    b"\xf3\xbf\xbf\xbf", b"\xf4\x80\x80\x80", b"\xf4\x8f\xbf\xbf",
    "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!".encode(),
    "\u03ba\u1f79\u03c3\u03bc\u03b5".encode(), "\U0001f30a\u200d\u0301".encode(),
]  # fmt: skip

# valid text first, so that the place of the fault is not always the frame's start
BROKEN = [
    # a tail byte with nothing before it, bytes that no UTF-8 has
    b"\x80", b"\xbf", b"\x80\xbf", b"\xc0", b"\xc1", *(bytes((at,)) for at in range(0xF5, 0x100)),
    # overlong
    b"\xc0\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf8\x80\x80\x80\xaf",
    b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x80\x80\x80\x80\xaf", b"\xfc\x83\xbf\xbf\xbf\xbf",
    # surrogates, single and in pairs
    b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80",
    b"\xed\xbe\x80", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf",
    # beyond U+10FFFF
    b"\xf4\x90\x80\x80", b"\xf4\xbf\xbf\xbf", b"\xf5\x80\x80\x80", b"\xf7\xbf\xbf\xbf",
    b"\xf8\x88\x80\x80\x80", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf",
    # a sequence that does not go on
    b"\xc2 ", b"\xc2\xc2\x80", b"\xe0\xa0 ", b"\xe1\x80\xe1", b"\xef\xbfA", b"\xf0\x90A",
    b"\xf0\x90\x80A", b"\xf1\x80\x80\xf1", b"\xf4\x8f\xbf\xc2", b"\xce\xce\xce",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", b"\xff\xfe\xfd\xfc",
]  # fmt: skip
TORN = [b"\xc2", b"\xdf", b"\xe0", b"\xe0\xa0", b"\xe1\x80", b"\xed\x9f", b"\xef\xbf", b"\xf0",
        b"\xf0\x90", b"\xf0\x90\x80", b"\xf4\x8f\xbf", b"ok\xce"]  # fmt: skip
AROUND = [(b"", b""), (b"ab\xc3\xa9", b"after"), (b"x" * 200, b"y" * 200)]


def identity(value: object) -> str:
    return value.hex() or "empty" if isinstance(value, bytes) else str(value)


def test_the_table_agrees_with_itself() -> None:
    assert all(fault_at(data) is None for data in VALID)
    assert all(fault_at(data) in range(len(data)) for data in BROKEN)
    assert all(fault_at(data) == len(data) for data in TORN)


@pytest.mark.parametrize("data", VALID, ids=identity)
def test_valid_sequences(data: bytes) -> None:
    for raw in (text(data), b"".join(fragments(TEXT, each_byte(data) or [b"", b""]))):
        assert drive(raw).told == [data.decode()]
        assert drive(each_byte(raw)).told == [data.decode()]


def test_every_code_point_that_is_a_character() -> None:
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    everything = "".join(map(chr, points))
    assert drive(text(everything)).told == [everything]


@pytest.mark.parametrize("around", AROUND, ids=["alone", "near", "far"])
@pytest.mark.parametrize("data", BROKEN, ids=identity)
def test_broken_sequences(data: bytes, around: tuple[bytes, bytes]) -> None:
    payload = around[0] + data + around[1]
    for raw in (text(payload), text(payload, fin=False)):
        expect_fault(text("ok") + raw, 1007, ["ok"])
        expect_fault(each_byte(text("ok") + raw), 1007, ["ok"])
    expect_fault(fragments(TEXT, each_byte(payload)), 1007)


@pytest.mark.parametrize("data", TORN, ids=identity)
def test_a_message_must_not_end_inside_a_character(data: bytes) -> None:
    expect_fault(text(data), 1007)
    expect_fault(each_byte(text(data)), 1007)
    expect_fault(fragments(TEXT, [data[:-1], data[-1:]]), 1007)
    expect_fault(fragments(TEXT, [data, b""]), 1007)
    expect_fault(fragments(TEXT, [b"a", data, b"", b""]), 1007)


@pytest.mark.parametrize("data", TORN, ids=identity)
def test_a_frame_may_end_inside_a_character(data: bytes) -> None:
    found = drive(text(data, fin=False))
    assert found.told == []
    assert found.output == b""


def test_a_character_does_not_go_on_in_the_next_message() -> None:
    expect_fault(text(b"a\xe2\x82") + text(b"\xac"), 1007)
    expect_fault(text("\u20ac") + text(b"\xac"), 1007, ["\u20ac"])


def test_a_torn_character_leaves_the_next_connection_alone() -> None:
    drive(text(b"a\xe2\x82", fin=False))
    assert drive(text("b")).told == ["b"]


def test_binary_is_anything() -> None:
    for data in BROKEN + TORN:
        assert drive(frame(2, data)).told == [data]
        assert drive(fragments(2, each_byte(data))).told == [data]


@pytest.mark.parametrize("message", ["\u20ac", "\U0001f30a", "\u00e9", "a\U0010ffffb\u20ac"])
def test_characters_split_at_every_place(message: str) -> None:
    data = message.encode()
    for at in range(len(data) + 1):
        one, two = fragments(TEXT, [data[:at], data[at:]])
        assert drive([one, two]).told == [message]
        assert drive([one, ping(b"between"), two]).told == [message]
        three = fragments(TEXT, [data[:at], b"", data[at:]])
        assert drive(three).told == [message]
        raw = text(data)
        start = len(raw) - len(data) + at
        assert drive([raw[:start], raw[start:]]).told == [message]


def test_a_ping_inside_a_character_has_its_own_payload() -> None:
    found = drive(
        [text(b"\xe2", fin=False), ping(b"\xff\xfe"), cont(b"\x82"), cont(b"\xac", fin=True)]
    )
    assert found.told == ["\u20ac"]
    assert found.sent == [Sent(PONG, b"\xff\xfe")]


# --- fail fast: at the first byte that cannot be there, though its frame has not come whole


def seen_at(payload: bytes, raw_head: bytes, before: bytes = b"") -> int | None:
    """How many bytes of a payload it takes for the fault to be told."""
    found = drive(before + raw_head)
    assert found.told == []
    for at, byte in enumerate(masked(payload, MASK)):
        found.feed(bytes((byte,)))
        if found.told:
            assert found.end == (1007, True)
            assert found.close_code == 1007
            return at
    return None


@pytest.mark.parametrize("around", AROUND, ids=["alone", "near", "far"])
@pytest.mark.parametrize("data", BROKEN, ids=identity)
def test_a_fault_is_seen_at_its_byte(data: bytes, around: tuple[bytes, bytes]) -> None:
    payload = around[0] + data + around[1] + b"more"
    for fin in (True, False):
        assert seen_at(payload, head(TEXT, len(payload) + 5, fin=fin)) == fault_at(payload)
        assert seen_at(
            payload, head(CONT, len(payload) + 5, fin=fin), text(b"before", fin=False)
        ) == fault_at(payload)


@pytest.mark.parametrize("data", BROKEN, ids=identity)
def test_a_fault_is_seen_though_a_fragment_tore_the_character(data: bytes) -> None:
    place = fault_at(data)
    assert place is not None
    found = Drive()
    for piece in fragments(TEXT, [*each_byte(data[:place]), b"", b""])[:place] if place else []:
        found.feed(piece)
        assert found.told == []
    opcode = CONT if place else TEXT
    found.feed(head(opcode, 1000) + masked(data[place : place + 1], MASK))
    assert found.end == (1007, True)


@pytest.mark.parametrize("data", BROKEN[:40:4], ids=identity)
def test_a_fault_is_seen_in_the_middle_of_one_large_piece(data: bytes) -> None:
    payload = b"x" * 70_000 + data + b"y" * 10_000
    place = fault_at(payload)
    assert place is not None
    raw = head(TEXT, 1 << 20) + masked(payload, MASK)
    expect_fault(raw, 1007)
    start = len(raw) - len(payload)
    assert drive(raw[: start + place]).told == []
    assert drive(raw[: start + place + 1]).end == (1007, True)


def test_a_torn_last_character_is_seen_with_the_last_byte() -> None:
    raw = text(b"abc\xe2\x82")
    assert drive(raw[:-1]).told == []
    assert drive(raw).end == (1007, True)


def test_a_fault_comes_before_what_follows_it_in_the_wire() -> None:
    expect_fault(text(b"\xff") + frame(3, b""), 1007)
    expect_fault(text(b"\xff") + b"".join([ping(b"not answered")] * 3), 1007)
    found = drive(ping(b"answered") + text(b"\xff") + ping(b"not answered"))
    assert [one.opcode for one in found.sent] == [PONG, CLOSE]


def test_a_fault_of_the_head_comes_before_its_payload() -> None:
    expect_fault(frame(TEXT, b"\xff", rsv=2), 1002)
    expect_fault(text("a", fin=False) + text(b"\xff"), 1002)


TELLING = st.lists(
    st.sampled_from([*b"a\x00\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef"
                     b"\xf0\xf1\xf3\xf4\xf5\xf8\xff"]), max_size=12).map(bytes)  # fmt: skip
PIECES = st.lists(
    st.one_of(TELLING, st.text(max_size=4).map(str.encode), st.sampled_from(TORN)), max_size=5
)


@settings(max_examples=150)
@given(PIECES, st.integers(1, 7))
@example([b"ok\xed", b"\xa0"], 1)
@example([b"\xf4\x90"], 1)
def test_any_bytes_are_judged_by_the_table(pieces: list[bytes], chop: int) -> None:
    data = b"".join(pieces)
    place = fault_at(data)
    parts = fragments(TEXT, pieces or [b""])
    for raw in (text(data), b"".join(parts)):
        for found in (drive(raw), drive([raw[at : at + chop] for at in range(0, len(raw), chop)])):
            if place is None:
                assert found.told == [data.decode()]
            else:
                assert found.end == (1007, True)
    if place is not None and place < len(data):
        assert seen_at(data, head(TEXT, len(data) + 1)) == place
