"""However a conversation is cut into pieces, the requests and the answers are the same."""

from __future__ import annotations

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import Asked, Drive
from tests.support.http2_frames import (
    HEADERS,
    PREFACE,
    block,
    data,
    get,
    headers,
    literal,
    post,
    request,
)

from tidegate.protocol.http2.engine import SHARE

HELLO = PREFACE + h2.settings((h2.INITIAL_WINDOW, 70000)) + h2.settings(ack=True)
INDEXING = b"\x82\x86\x84\x41\x09tide.test\x40\x01x\x01y"
TUNNEL = [
    (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/"),
    (b":authority", b"tide.test"),
]  # fmt: skip

GOOD = {
    "two requests": get(1) + get(3, b"/two"),
    "the table grows": headers(1, INDEXING) + headers(3, b"\x82\x86\x84\xbf\xbe"),
    "a body in pieces": post(1) + data(1, b"ab") + data(1) + data(1, b"cd", pad=3) + data(1, b"e", end=True),
    "an empty body": post(1) + data(1, end=True),
    "trailers": post(1, b"/", (b"te", b"trailers")) + data(1, b"ab") + headers(1, block([(b"x-sum", b"1")])),
    "a block in pieces": headers(1, INDEXING[:2], done=False) + h2.continuation(1, INDEXING[2:9], done=False)
    + h2.continuation(1, INDEXING[9:]) + get(3),
    "padding and priority": headers(1, INDEXING, pad=9, depends=(0, 5)) + h2.priority(3) + get(3),
    "interleaved": post(1) + post(3) + data(3, b"three") + data(1, b"one", end=True) + data(3, b"!", end=True),
    "settings and pings": h2.ping(b"abcdefgh") + h2.settings((4, 10), (1, 0)) + get(1) + h2.window_update(1, 9),
    "cancelled": post(1) + data(1, b"abc") + h2.rst(1) + get(3),
    "malformed": get(1, b"/", (b"Upper", b"x")) + get(3, b"/", (b"connection", b"close")) + get(5),
    "refused": get(1, b"/", (b"expect", b"magic")) + get(3, b"/", (b"priority", b"u=1")),
    "unknown frames": h2.frame(0x55, b"whatever") + h2.priority_update(1, b"u=0, i") + get(1),
    "a tunnel": headers(1, block(TUNNEL), end=False) + data(1, b"abc") + data(1, end=True),
    "leaving": get(1) + h2.goaway() + get(3),
}  # fmt: skip
BAD = {
    "not the preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\r\r\r" + get(1),
    "a window of nothing": HELLO + get(1) + h2.window_update(0, 0) + get(3),
    "data of nobody": HELLO + post(1) + data(3, b"x"),
    "a broken block": HELLO + headers(1, b"\xff\xff\xff\xff\xff\xff\xff\xff") + get(3),
    "an interrupted block": HELLO + headers(1, INDEXING, done=False) + h2.ping(),
    "too large": HELLO + h2.frame(HEADERS, bytes(16385), flags=5, stream=1),
    "a wrong size": HELLO + post(1) + data(1, b"abc") + h2.frame(h2.PING, bytes(7)),
}


def respond(drive: Drive, asked: Asked) -> None:
    drive.engine.send_head(asked.stream, 200, [(b"x-path", asked.head.raw_path)])
    drive.engine.send_body(asked.stream, bytes(asked.body) + b"!", False)
    drive.engine.send_trailers(asked.stream, [(b"x-length", b"%d" % len(asked.body))])


def play(*pieces: bytes) -> Drive:
    return Drive(whole=respond, hello=False).feed(*pieces)


def answers(drive: Drive) -> dict[int, tuple[object, ...]]:
    return {number: answer.told for number, answer in drive.answers.items() if answer.told != NEVER}


NEVER = (None, (), b"", None, False, None)


@pytest.mark.parametrize("name", GOOD)
def test_every_cut_of_a_conversation(name: str) -> None:
    raw = HELLO + GOOD[name]
    whole = play(raw)
    assert not whole.goaways
    assert whole.asked or name == "refused"
    for at in range(1, len(raw)):
        cut = play(raw[:at], raw[at:])
        assert cut.events == whole.events, at
        assert answers(cut) == answers(whole), at
        assert (cut.acks, cut.pongs) == (whole.acks, whole.pongs), at


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_byte_by_byte(name: str) -> None:
    raw = HELLO + GOOD[name] if name in GOOD else BAD[name]
    whole, single = play(raw), play(*(raw[at : at + 1] for at in range(len(raw))))
    assert single.events == whole.events
    assert single.goaways == whole.goaways
    if name in GOOD:
        assert answers(single) == answers(whole)


@pytest.mark.parametrize("name", BAD)
def test_every_cut_of_a_conversation_that_ends_badly(name: str) -> None:
    raw = BAD[name]
    whole = play(raw)
    assert len(whole.goaways) == 1
    for at in range(1, len(raw)):
        cut = play(raw[:at], raw[at:])
        assert cut.events == whole.events, at
        assert cut.goaways == whole.goaways, at


def test_three_pieces_of_the_preface_and_settings() -> None:
    raw = HELLO + get(1)
    whole = play(raw)
    for first in range(1, len(HELLO)):
        for second in range(first + 1, len(HELLO), 5):
            cut = play(raw[:first], raw[first:second], raw[second:])
            assert cut.events == whole.events


def test_more_requests_than_a_share_come_in_their_order() -> None:
    raw = HELLO + b"".join(get(number, b"/%d" % number) for number in range(1, 6 * SHARE, 2))
    drive = play(raw)
    assert [*drive.asked] == [*range(1, 6 * SHARE, 2)]
    assert all(answer.ended for answer in drive.answers.values())
    first = Drive()
    assert len(first.engine.receive(raw[len(HELLO) :])) == SHARE
    assert first.engine.stalled
    assert not first.engine.hungry


@pytest.mark.parametrize("by", ["trailers", "a closed stream", "a malformed request"])
def test_a_block_means_something_else_once_the_table_has_moved(by: str) -> None:
    """What it meant is kept by its bytes, and whatever block it was may have moved the table."""
    plain = block(request())
    insert = literal(b"x-first", b"1", pattern=0x40)
    same = headers(0, plain + b"\xbe")  # the newest entry of the table
    moves = literal(b"x-second", b"2", pattern=0x40)

    def again(number: int) -> bytes:
        return same[:5] + number.to_bytes(4, "big") + same[9:]

    drive = Drive().feed(headers(1, plain + insert), again(3), again(5))
    if by == "trailers":
        drive.feed(post(7), headers(7, moves))
    elif by == "a closed stream":
        drive.feed(headers(7, block(request()[:2])), headers(7, moves))
    else:
        drive.feed(headers(7, block(request()[:2]) + moves))
    drive.feed(again(9))
    assert [drive.asked[number].head.headers[-1] for number in (3, 5, 9)] == [
        (b"x-first", b"1"), (b"x-first", b"1"), (b"x-second", b"2")
    ]  # fmt: skip
