"""The closing handshake: codes, reasons, who closes first, and what comes after (RFC 6455 5.5.1, 7)."""

from __future__ import annotations

from contextlib import suppress

import pytest
from tests.support.websocket_frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    Drive,
    Sent,
    assert_ended,
    binary,
    close,
    cont,
    drive,
    each_byte,
    expect_fault,
    fragments,
    frame,
    ping,
    text,
)

from tidegate.errors import ApplicationError
from tidegate.protocol.websocket.engine import Closed, State

GOOD = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3001, 3999, 4000, 4001, 4999]
BAD = [0, 1, 16, 100, 500, 998, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1099, 1100, 1999, 2000,
       2001, 2999, 5000, 5001, 10000, 32768, 65534, 65535]  # fmt: skip


@pytest.mark.parametrize("code", GOOD)
@pytest.mark.parametrize("reason", ["", "going home", "\u20ac\U0001f30a"])
def test_good_codes(code: int, reason: str) -> None:
    raw = text("a") + close(code, reason)
    for pieces in (raw, each_byte(raw)):
        found = drive(pieces)
        assert found.told == ["a", Closed(code, reason, False)]
        assert found.close_code == code == found.engine.close_sent
        assert_ended(found)


@pytest.mark.parametrize("code", BAD)
@pytest.mark.parametrize("reason", ["", "why"])
def test_bad_codes(code: int, reason: str) -> None:
    expect_fault(text("a") + close(code, reason), 1002, ["a"])
    expect_fault(each_byte(close(code, reason)), 1002)


def test_every_code_there_is() -> None:
    """RFC 6455 7.4 and what IANA has registered since, against all codes to 5100 and some beyond."""
    good = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    codes = {*range(5100), *range(5100, 1 << 16, 101)}
    assert {code for code in codes if drive(close(code)).end == (code, False)} == good
    assert {drive(close(code)).end for code in codes - good} == {(1002, True)}


def test_a_close_without_a_code() -> None:
    found = drive(close())
    assert found.told == [Closed(1005, "", False)]
    assert found.sent == [Sent(CLOSE, b"")]
    assert found.engine.close_sent == 1005
    assert_ended(found)


@pytest.mark.parametrize("payload", [b"\x03", b"\x00", b"\xff", b"a"])
def test_a_payload_of_one_byte(payload: bytes) -> None:
    expect_fault(text("a") + frame(CLOSE, payload), 1002, ["a"])


@pytest.mark.parametrize("size", range(124))
def test_reasons_up_to_123_bytes(size: int) -> None:
    reason = ("abcdefghij" * 13)[:size]
    assert drive(close(1000, reason)).told == [Closed(1000, reason, False)]


@pytest.mark.parametrize("size", [124, 125, 200])
def test_longer_reasons_are_refused(size: int) -> None:
    expect_fault(close(1000, "x" * size), 1002)


@pytest.mark.parametrize(
    "reason",
    [
        b"\xff",
        b"\x80",
        b"ok\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"torn \xe2\x82",
        b"\xc3",
    ],
)
def test_reasons_that_are_no_text(reason: bytes) -> None:
    expect_fault(text("a") + close(1000, reason), 1007, ["a"])
    expect_fault(close(4000, reason), 1007)


def test_a_bad_code_is_worse_than_a_bad_reason() -> None:
    found = drive(close(1005, b"\xff"))
    assert found.end in [(1002, True), (1007, True)]
    assert found.close_code in (1002, 1007)


def test_a_reason_may_hold_anything_that_is_text() -> None:
    for reason in ("\x00", "\ufeffBOM", "\ufffe", "\r\n", "\u20ac" * 41):
        assert drive(close(1000, reason)).told == [Closed(1000, reason, False)]


# --- nothing is read after a close


@pytest.mark.parametrize(
    "after",
    [text("b"), binary(b"b"), ping(b"b"), close(1001), close(), cont(b"b", fin=True), b"\xff" * 9],
)
def test_nothing_is_read_after_a_close(after: bytes) -> None:
    for pieces in (close(1000) + after, [close(1000), after], each_byte(close(1000) + after)):
        found = drive(pieces)
        assert found.told == [Closed(1000, "", False)]
        assert found.sent == [Sent(CLOSE, b"\x03\xe8")]


def test_a_ping_before_a_close_is_answered_first() -> None:
    found = drive(ping(b"1") + close(1000))
    assert [one.opcode for one in found.sent] == [PONG, CLOSE]


def test_a_message_is_told_before_a_close() -> None:
    raw = b"".join(fragments(TEXT, [b"a", b"b"])) + close(1000)
    assert drive(raw).told == ["ab", Closed(1000, "", False)]


def test_a_torn_message_is_not_told() -> None:
    assert drive([text("a", fin=False), close(1001)]).told == [Closed(1001, "", False)]


def test_a_large_message_before_a_close() -> None:
    message = "x" * 262_144
    found = drive(text(message) + close(1000, "done") + ping(b"late"))
    assert found.told == [message, Closed(1000, "done", False)]
    assert found.close_code == 1000


def test_nothing_is_sent_after_the_answer() -> None:
    found = drive(close(1000))
    found.engine.send_close(1001, "again")
    found.engine.send_ping(b"late")
    assert found.engine.take_output() == b""
    assert found.engine.close_sent == 1000


def test_next_stays_none_after_the_end() -> None:
    for raw in (close(1000), b"\xff\xff"):
        engine = drive(raw).engine
        assert [engine.next() for _ in range(5)] == [None] * 5
        assert engine.stalled is False


# --- we close first


def begun(code: int = 1001, reason: str = "later") -> Drive:
    found = Drive()
    found.engine.send_close(code, reason)
    return found


def test_a_new_engine_is_open() -> None:
    engine = Drive().engine
    assert (engine.state, engine.close_sent, engine.take_output()) == (State.OPEN, None, b"")
    assert engine.next() is None


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, "", b"\x03\xe8"),
        (1001, "later", b"\x03\xe9later"),
        (4999, "\u20ac", b"\x13\x87\xe2\x82\xac"),
        (1005, "", b""),
    ],
)
def test_our_close(code: int, reason: str, payload: bytes) -> None:
    found = begun(code, reason).feed()
    found.drain()
    assert found.sent == [Sent(CLOSE, payload)]
    assert found.engine.state is State.CLOSING
    assert found.engine.close_sent == code


def test_our_close_is_sent_once() -> None:
    found = begun(1001)
    found.engine.send_close(1011, "other")
    found.engine.send_close(1001, "later")
    found.drain()
    assert found.sent == [Sent(CLOSE, b"\x03\xe9later")]
    assert found.engine.close_sent == 1001


@pytest.mark.parametrize("answer", [1001, 1000, 4000])
def test_the_answer_to_our_close_ends_it(answer: int) -> None:
    found = begun().feed(close(answer, "fine"))
    assert found.told == [Closed(answer, "fine", False)]
    assert found.sent == [Sent(CLOSE, b"\x03\xe9later")]
    assert found.engine.close_sent == 1001
    assert_ended(found)


def test_an_empty_answer_to_our_close() -> None:
    found = begun().feed(close())
    assert found.told == [Closed(1005, "", False)]
    assert found.close_code == 1001


def test_a_ping_is_answered_until_the_peer_has_closed() -> None:
    """RFC 6455 5.5.2: a ping is answered unless a Close frame has already come."""
    found = begun().feed(ping(b"still here"), close(1001))
    assert found.told == [Closed(1001, "", False)]
    assert [one.opcode for one in found.sent] == [CLOSE, PONG]


def test_a_fault_after_our_close_sends_no_other() -> None:
    for raw in (frame(3, b""), text(b"\xff"), close(1005), frame(TEXT, b"", mask=None)):
        found = begun().feed(raw)
        assert found.end is not None
        assert found.end[1] is True
        assert found.close_code == 1001 == found.engine.close_sent
        assert_ended(found)


def test_a_message_on_its_way_does_not_disturb_our_close() -> None:
    found = begun().feed(text("crossed"), *fragments(TEXT, [b"a", b"b"]), close(1001))
    assert found.told[-1] == Closed(1001, "", False)
    assert found.close_code == 1001


@pytest.mark.parametrize(
    "reason",
    ["x" * 123, "x" * 124, "x" * 1000, "\u20ac" * 41, "\u20ac" * 42, "x" + "\U0001f30a" * 60],
)
def test_a_long_reason_of_ours_is_cut_between_characters(reason: str) -> None:
    found = begun(1000, reason)
    found.drain()
    (one,) = found.sent
    sent = one.payload[2:].decode()
    assert reason.startswith(sent)
    assert len(one.payload) <= 125
    assert sent == reason or len((sent + reason[len(sent)]).encode()) > 123


def test_a_ping_of_ours_goes_before_our_close() -> None:
    found = Drive()
    found.engine.send_ping(b"1")
    found.engine.send_close(1000, "")
    found.drain()
    assert [one.opcode for one in found.sent] == [PING, CLOSE]


def test_both_close_at_once() -> None:
    """Our close is queued while theirs is read: neither is answered a second time."""
    found = Drive()
    found.engine.feed(close(4000, "theirs"))
    found.engine.send_close(4001, "ours")
    found.drain()
    assert found.told == [Closed(4000, "theirs", False)]
    assert found.close_code == 4001
    assert found.engine.close_sent == 4001
    assert found.engine.state is State.ENDED


def test_a_fault_says_something_about_itself() -> None:
    found = drive(frame(3, b""))
    (told,) = found.told
    assert isinstance(told, Closed)
    assert told.reason
    assert found.sent[0].payload[2:].decode() == told.reason[: len(found.sent[0].payload) - 2]


# --- what must never be on the wire, whoever asks for it


@pytest.mark.parametrize("code", [-1, 0, 999, 1006, 1015, 5000, 65536])
def test_codes_that_are_never_sent(code: int) -> None:
    """7.4.1, 7.4.2: either they are refused, or another is sent."""
    found = Drive()
    with suppress(ValueError, OverflowError, ApplicationError):
        found.engine.send_close(code, "")
    found.drain()
    assert found.close_code is None or drive(close(found.close_code)).end == (
        found.close_code,
        False,
    )


@pytest.mark.parametrize(("code", "reason"), [(1000, "\ud800"), (70_000, ""), (-1, "")], ids=repr)
def test_a_close_that_cannot_be_said_leaves_another_to_be_said(code: int, reason: str) -> None:
    found = Drive()
    with suppress(ValueError, OverflowError, ApplicationError):
        found.engine.send_close(code, reason)
    found.engine.send_close(1011, "")
    found.drain()
    assert found.close_code is not None


@pytest.mark.parametrize("size", [126, 65536])
def test_a_ping_of_ours_is_never_too_long(size: int) -> None:
    """5.5: either it is refused, or it is cut."""
    found = Drive()
    with suppress(ValueError, OverflowError, ApplicationError):
        found.engine.send_ping(b"x" * size)
    found.drain()
    assert all(one.opcode == PING for one in found.sent)
