"""Frames, strictly: sizes, pings and pongs, reserved bits, opcodes, masks, lengths, fragmentation."""

from __future__ import annotations

import itertools

import pytest
from tests.support.websocket_frames import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    TEXT,
    ZERO_MASK,
    Drive,
    Sent,
    binary,
    close,
    cont,
    cut,
    drive,
    each_byte,
    expect_fault,
    fragments,
    frame,
    head,
    join_sent,
    parse_sent,
    ping,
    pong,
    text,
)

from tidegate.protocol.websocket.engine import Closed, Pong, State, WebSocketEngine

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 124, 125, 126, 127, 128, 129, 65534, 65535, 65536, 65537]


def letters(size: int) -> str:
    """Text whose every stretch differs, so that a piece out of place is seen."""
    return "".join(f"{at:x}," for at in range(size // 2 + 1))[:size]


def octets(size: int) -> bytes:
    return bytes(at * 7 + at // 256 & 255 for at in range(size))


# --- sizes


@pytest.mark.parametrize("size", SIZES)
def test_text_of_every_size(size: int) -> None:
    assert drive(text(letters(size))).told == [letters(size)]


@pytest.mark.parametrize("size", SIZES)
def test_binary_of_every_size(size: int) -> None:
    assert drive(binary(octets(size))).told == [octets(size)]


@pytest.mark.parametrize("size", [*SIZES[:16], 65536])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_sizes_in_one_byte_chops(size: int, kind: int) -> None:
    payload = letters(size).encode()
    found = drive(each_byte(frame(kind, payload)))
    assert found.told == [payload.decode() if kind == TEXT else payload]
    assert found.output == b""


@pytest.mark.parametrize("chop", [2, 3, 5, 997, 4096, 65535])
def test_a_long_frame_in_chops(chop: int) -> None:
    payload = octets(65536)
    assert drive(cut(binary(payload) + text("x"), chop)).told == [payload, "x"]


def test_text_is_str_and_binary_is_bytes() -> None:
    found = drive(text("a") + binary(b"a") + text("") + binary(b""))
    assert [type(one) for one in found.told] == [str, bytes, str, bytes]
    assert found.told == ["a", b"a", "", b""]


def test_many_messages_in_one_piece() -> None:
    messages = [letters(size) for size in range(300)]
    found = drive(b"".join(map(text, messages)))
    assert found.told == messages
    assert found.engine.state is State.OPEN


def test_nothing_is_told_before_the_last_byte() -> None:
    for raw in (text("hello"), binary(octets(300)), pong(b"p"), close(1000, "bye")):
        found = drive(raw[:-1])
        assert found.told == []
        assert found.output == b""
        found.feed(raw[-1:])
        assert len(found.told) == 1


def test_empty_input_is_nothing() -> None:
    found = drive([b"", b"", text("a")[:1], b"", text("a")[1:], b""])
    assert found.told == ["a"]


# --- masks


@pytest.mark.parametrize(
    "mask", [ZERO_MASK, b"\xff\xff\xff\xff", b"\x00\x00\x00\x01", b"\x80\x00\x00\x00", MASK]
)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 126, 1000])
def test_any_mask_at_any_length(mask: bytes, size: int) -> None:
    raw = frame(BINARY, octets(size), mask=mask)
    assert drive(raw).told == [octets(size)]
    assert drive(cut(raw, 3)).told == [octets(size)]


def test_each_frame_has_its_own_mask() -> None:
    masks = [bytes((at, 255 - at, at ^ 0x5A, 7)) for at in range(20)]
    raw = frame(BINARY, b"", fin=False, mask=masks[0]) + b"".join(
        frame(CONT, octets(at), fin=at == 19, mask=mask) for at, mask in enumerate(masks)
    )
    assert drive(raw).told == [b"".join(map(octets, range(20)))]


@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
def test_unmasked_frames_are_refused(opcode: int) -> None:
    expect_fault(text("a") + frame(opcode, b"", mask=None), 1002, ["a"])
    expect_fault(text("a") + frame(opcode, b"\x03\xe8", mask=None), 1002, ["a"])


def test_an_unmasked_continuation_is_refused() -> None:
    expect_fault(text("a", fin=False) + frame(CONT, b"b", mask=None), 1002)


# --- lengths


@pytest.mark.parametrize(
    ("length", "form"),
    [*((size, 16) for size in (0, 1, 125)), *((size, 64) for size in (0, 1, 125, 126, 65535))],
)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_longer_forms_of_a_length_are_refused(length: int, form: int, opcode: int) -> None:
    expect_fault(text("a") + frame(opcode, b"b" * length, length_form=form), 1002, ["a"])


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("form", [16, 64])
def test_control_frames_have_no_longer_form(opcode: int, form: int) -> None:
    expect_fault(frame(opcode, b"", length_form=form), 1002)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 63 | 5])
def test_top_bit_of_a_length_is_refused(length: int) -> None:
    expect_fault(head(BINARY, length), 1002)


@pytest.mark.parametrize("length", [1 << 40, (1 << 63) - 1])
def test_a_huge_length_reserves_nothing(length: int) -> None:
    found = drive([head(BINARY, length), b"abc"])
    assert found.told == []
    assert found.output == b""
    assert found.engine.state is State.OPEN


def test_long_form_where_it_is_the_shortest() -> None:
    assert drive(frame(TEXT, b"a" * 126, length_form=16)).told == ["a" * 126]
    assert drive(frame(TEXT, b"a" * 65536, length_form=64)).told == ["a" * 65536]


# --- pings and pongs


@pytest.mark.parametrize(
    "payload", [b"", b"hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"x" * 125]
)
def test_a_ping_is_answered_with_its_payload(payload: bytes) -> None:
    found = drive(ping(payload))
    assert found.told == []
    assert found.sent == [Sent(PONG, payload)]


@pytest.mark.parametrize("size", [126, 127, 65536])
@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_long_control_frames_are_refused(size: int, opcode: int) -> None:
    expect_fault(text("a") + frame(opcode, b"\x03\xe8" + b"x" * (size - 2)), 1002, ["a"])


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_long_control_frames_are_refused_by_their_head(opcode: int) -> None:
    expect_fault(head(opcode, 126), 1002)


def test_a_ping_of_125_in_one_byte_chops() -> None:
    assert drive(each_byte(ping(b"p" * 125))).sent == [Sent(PONG, b"p" * 125)]


@pytest.mark.parametrize("together", [True, False])
def test_ten_pings_are_answered_in_order(together: bool) -> None:
    payloads = [f"ping {at}".encode() for at in range(10)]
    pings = list(map(ping, payloads))
    for pieces in ([b"".join(pings)] if together else pings, each_byte(b"".join(pings))):
        assert drive(pieces).sent == [Sent(PONG, payload) for payload in payloads]


@pytest.mark.parametrize("payload", [b"", b"unasked", b"\xff" * 125])
def test_an_unsolicited_pong_is_told_and_not_answered(payload: bytes) -> None:
    found = drive(pong(payload) + ping(b"then") + text("a"))
    assert found.told == [Pong(payload), "a"]
    assert found.pongs == [payload]
    assert found.sent == [Sent(PONG, b"then")]


def test_our_ping_is_sent_and_its_pong_told() -> None:
    found = Drive()
    found.engine.send_ping(b"ours")
    assert found.feed(pong(b"ours")).told == [Pong(b"ours")]
    assert found.sent == [Sent(PING, b"ours")]
    assert found.engine.take_output() == b""


def test_pongs_and_pings_keep_their_order() -> None:
    engine = WebSocketEngine()
    engine.send_ping(b"1")
    engine.feed(ping(b"2"))
    assert engine.next() is None
    engine.send_ping(b"3")
    expected = [Sent(PING, b"1"), Sent(PONG, b"2"), Sent(PING, b"3")]
    assert parse_sent(engine.take_output()) == expected


def test_pongs_that_pile_up_stay_few_and_the_last_is_there() -> None:
    engine = WebSocketEngine()
    payloads = [f"{at:0>125}".encode() for at in range(1000)]
    for payload in payloads:
        engine.feed(ping(payload))
        assert engine.next() is None
    engine.send_ping(b"ours")
    answers = parse_sent(engine.take_output())
    assert answers[-1] == Sent(PING, b"ours")
    pongs = [one.payload for one in answers[:-1]]
    assert {one.opcode for one in answers[:-1]} == {PONG}
    assert sum(len(one) + 2 for one in pongs) <= 4096 + 127
    assert pongs == sorted(set(pongs)), "out of order, or twice"
    assert set(pongs) <= set(payloads)
    assert pongs[-1] == payloads[-1]


def test_pongs_that_are_taken_are_all_there() -> None:
    found = Drive()
    payloads = [f"{at:0>125}".encode() for at in range(150)]
    for some in range(0, 150, 30):
        found.feed(b"".join(map(ping, payloads[some : some + 30])))
    assert [one.payload for one in found.sent] == payloads


def test_our_ping_and_close_outlive_a_pile_of_pongs() -> None:
    engine = WebSocketEngine()
    many = b"".join(ping(f"{at:0>125}".encode()) for at in range(100))
    engine.send_ping(b"ours")
    found = Drive()
    found.engine = engine
    engine.feed(many + close(1001))
    found.drain()
    assert Sent(PING, b"ours") in found.sent
    assert found.sent[-2] == Sent(PONG, f"{99:0>125}".encode())
    assert found.close_code == 1001


# --- reserved bits and opcodes


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("payload", [b"", b"\x03\xe8"])
def test_reserved_bits_are_refused(rsv: int, opcode: int, payload: bytes) -> None:
    raw = text("a") + frame(opcode, payload, rsv=rsv) + ping(b"not read")
    for pieces in (raw, each_byte(raw)):
        assert [one.opcode for one in expect_fault(pieces, 1002, ["a"]).sent] == [CLOSE]


@pytest.mark.parametrize("rsv", range(1, 8))
def test_reserved_bits_on_a_continuation_are_refused(rsv: int) -> None:
    expect_fault(text("a", fin=False) + frame(CONT, b"b", rsv=rsv), 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 126])
@pytest.mark.parametrize("fin", [True, False])
def test_reserved_opcodes_are_refused(opcode: int, payload: bytes, fin: bool) -> None:
    raw = text("a") + frame(opcode, payload, fin=fin) + ping()
    for pieces in (raw, each_byte(raw)):
        assert [one.opcode for one in expect_fault(pieces, 1002, ["a"]).sent] == [CLOSE]


@pytest.mark.parametrize("opcode", [3, 7, 11, 15])
def test_reserved_opcodes_inside_a_message_are_refused(opcode: int) -> None:
    expect_fault(text("a", fin=False) + frame(opcode, b""), 1002)


# --- fragmentation


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    "pieces",
    [
        [b"one", b"two"],
        [b"", b""],
        [b"", b"", b""],
        [b"", b"middle", b""],
        [b"first", b""],
        [b"", b"last"],
        [b"x"] * 50,
        [b"a" * 125, b"b" * 126, b"c" * 65536],
    ],
)
def test_fragments_are_one_message(opcode: int, pieces: list[bytes]) -> None:
    raw = fragments(opcode, pieces)
    whole = b"".join(pieces)
    expected = [whole.decode() if opcode == TEXT else whole]
    assert drive(raw).told == expected
    assert drive(b"".join(raw)).told == expected
    assert drive(cut(b"".join(raw), 7)).told == expected


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_pings_and_pongs_between_fragments(opcode: int) -> None:
    one, two, three = fragments(opcode, [b"a", b"b", b"c"])
    raw = [one, ping(b"1"), pong(b"2"), two, ping(b"3"), three, ping(b"4")]
    for pieces in (raw, [b"".join(raw)], each_byte(b"".join(raw))):
        found = drive(pieces)
        assert found.told == [Pong(b"2"), "abc" if opcode == TEXT else b"abc"]
        assert found.sent == [Sent(PONG, b"1"), Sent(PONG, b"3"), Sent(PONG, b"4")]


def test_a_ping_between_fragments_is_answered_at_once() -> None:
    found = drive([text("a", fin=False), ping(b"now")])
    assert found.sent == [Sent(PONG, b"now")]
    assert found.told == []


def test_a_close_between_fragments_ends_the_message() -> None:
    found = drive([text("a", fin=False), close(1000), cont(b"b", fin=True)])
    assert found.told == [Closed(1000, "", False)]
    assert found.close_code == 1000


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("payload", [b"", b"\x03\xe8"])
def test_control_frames_are_not_fragmented(opcode: int, payload: bytes) -> None:
    raw = text("a") + frame(opcode, payload, fin=False) + cont(b"", fin=True)
    expect_fault(raw, 1002, ["a"])
    expect_fault(text("a", fin=False) + frame(opcode, payload, fin=False), 1002)


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("payload", [b"", b"x"])
def test_a_continuation_of_nothing_is_refused(fin: bool, payload: bytes) -> None:
    expect_fault(cont(payload, fin=fin) + text("a"), 1002)
    expect_fault(text("a") + cont(payload, fin=fin) + text("b"), 1002, ["a"])
    whole = b"".join(fragments(TEXT, [b"a", b"b"]))
    expect_fault(whole + cont(payload, fin=fin), 1002, ["ab"])
    expect_fault(ping() + cont(payload, fin=fin), 1002)


@pytest.mark.parametrize(("opened", "new"), [*itertools.product([TEXT, BINARY], repeat=2)])
@pytest.mark.parametrize("fin", [True, False])
def test_a_new_message_inside_a_message_is_refused(opened: int, new: int, fin: bool) -> None:
    start = frame(opened, b"a", fin=False)
    expect_fault(start + frame(new, b"b", fin=fin), 1002)
    expect_fault(start + cont(b"b") + frame(new, b"c", fin=fin), 1002)
    expect_fault(start + ping(b"") + frame(new, b"c", fin=fin), 1002)
    expect_fault(frame(opened, b"", fin=False) + frame(new, b"", fin=fin), 1002)


ORDERS = {"T": text("t"), "t": text("t", fin=False), "B": binary(b"b"), "b": binary(b"b", fin=False),
          "C": cont(b"c", fin=True), "c": cont(b"c"), "P": ping(b"p")}  # fmt: skip


@pytest.mark.parametrize("order", [*map("".join, itertools.product(ORDERS, repeat=3))])
def test_every_order_of_three_frames(order: str) -> None:
    found = drive(b"".join(ORDERS[letter] for letter in order))
    told: list[object] = []
    kind, held, pings, wrong = "", "", 0, False
    for letter in order:
        if letter == "P":
            pings += 1
            continue
        if wrong := (letter in "Cc") != bool(kind):
            break
        kind, held = kind or letter.lower(), held + letter.lower()
        if letter.isupper():
            told.append(held if kind == "t" else held.encode())
            kind, held = "", ""
    assert found.messages == told
    assert found.end == ((1002, True) if wrong else None)
    assert [one.opcode for one in found.sent] == [PONG] * pings + [CLOSE] * wrong


# --- what a server sends


@pytest.mark.parametrize("size", [*SIZES, 1 << 20])
def test_rendered_messages(size: int) -> None:
    engine = WebSocketEngine()
    for message in (letters(size), octets(size)):
        pieces = engine.render(message)
        assert join_sent(parse_sent(b"".join(pieces))) == [message]


def test_the_wire_of_short_messages() -> None:
    engine = WebSocketEngine()
    assert b"".join(engine.render("Hello")) == b"\x81\x05Hello"
    assert b"".join(engine.render(b"")) == b"\x82\x00"
    assert b"".join(engine.render("\u20ac")) == b"\x81\x03\xe2\x82\xac"


def test_half_a_surrogate_pair_is_never_sent() -> None:
    with pytest.raises(ValueError):
        WebSocketEngine().render("a\ud800b")


def test_rfc_samples() -> None:
    """RFC 6455 5.7."""
    hello = bytes.fromhex("818537fa213d7f9f4d5158")
    assert drive(hello).told == ["Hello"]
    assert drive(bytes.fromhex("898537fa213d7f9f4d5158")).sent == [Sent(PONG, b"Hello")]
    engine = WebSocketEngine()
    assert b"".join(engine.render(bytes(256))) == b"\x82\x7e\x01\x00" + bytes(256)
    assert b"".join(engine.render(bytes(65536))) == b"\x82\x7f" + (1 << 16).to_bytes(8, "big") + bytes(65536)  # fmt: skip


# --- echoes of large messages, however they are cut


@pytest.mark.parametrize("size", [65536, 262144, 1 << 20])
@pytest.mark.parametrize("piece", [1300, 4096, 65536])
def test_echo_of_a_message_in_fragments(size: int, piece: int) -> None:
    message = (b"0123456789abcde\n" * (size // 16))[:size]
    found = drive(fragments(TEXT, cut(message, piece)))
    assert found.told == [message.decode()]
    echo = parse_sent(b"".join(found.engine.render(found.messages[0])))
    assert join_sent(echo) == [message.decode()]


@pytest.mark.parametrize("chop", [64, 1300, 65537])
def test_echo_of_a_message_in_chops(chop: int) -> None:
    message = octets(65536) * 4
    found = drive(cut(binary(message), chop))
    assert found.told == [message]
    assert join_sent(parse_sent(b"".join(found.engine.render(message)))) == [message]
