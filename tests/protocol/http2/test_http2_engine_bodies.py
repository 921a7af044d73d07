"""Bodies on their way in, and the windows that are opened for them; tunnels."""

from __future__ import annotations

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import TERMS, Drive, answer, silent
from tests.support.http2_frames import Code, block, data, get, headers, post

from tidegate.protocol.engine import Limits
from tidegate.protocol.http2.engine import Wait

CONNECT = block(
    [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/chat"),
     (b":authority", b"tide.test")]
)  # fmt: skip


def upload(drive: Drive, size: int, number: int = 1) -> None:
    """As a client does that keeps to its windows."""
    stream = sent = 0
    while sent < size:
        room = min(
            65535 + (drive.answers[number].widened if number in drive.answers else 0) - stream,
            drive.credit() - drive.engine._credit,
            16384,
            size - sent,
        )
        assert room > 0, "the windows stay shut"
        drive.feed(data(number, bytes(room), end=sent + room == size))
        sent += room
        stream += room


def test_a_long_upload_never_stands_still() -> None:
    drive = Drive().feed(post(1))
    upload(drive, 8 << 20)
    assert len(drive.asked[1].body) == 8 << 20
    drive.assert_empty()


def test_the_window_of_a_reader_that_keeps_up_grows_to_its_bound() -> None:
    drive = Drive().feed(post(1))
    upload(drive, 4 << 20)
    sizes = [f.window_increment for f in drive.frames if type(f).__name__ == "WindowUpdateFrame"]
    assert max(sizes) > 128 * 1024
    widest = 0
    drive = Drive(whole=silent).feed(post(1))
    for _ in range(2000):
        drive.feed(data(1, bytes(10_000)))
        inflow = drive.engine._streams[1].inflow
        widest = max(widest, inflow.window + inflow.credit + inflow.unread)
    assert widest == TERMS.window // 2  # one stream leaves the others their share


@pytest.mark.parametrize("window", [1024, 20_000, 32_768, 65_535, 1 << 20])
def test_every_window_that_may_be_set(window: int) -> None:
    drive = Drive(terms=TERMS._replace(window=window)).feed(post(1))
    for _ in range(300):
        room = min(drive.engine._streams[1].inflow.window, drive.engine._receive_window, 5000)
        assert room > 0
        drive.feed(data(1, bytes(room)))
    drive.feed(data(1, end=True))
    drive.assert_empty()


def test_an_application_that_does_not_read_holds_the_client_back() -> None:
    drive = Drive(reads=False).feed(post(1))
    drive.feed(*[data(1, bytes(5000))] * 13)
    assert drive.answers.get(1) is None  # no WINDOW_UPDATE
    assert not drive.engine.reads(1) or drive.engine._streams[1].inflow.window == 535
    assert drive.feed(data(1, bytes(536))).answers[1].reset == Code.FLOW_CONTROL_ERROR
    drive.assert_empty()


@pytest.mark.parametrize(
    "end",
    ["answered", "answered early", "streamed", "reset", "cancelled", "fault", "413", "refused"],
)
def test_what_nobody_read_is_given_back_whatever_the_end(end: str) -> None:
    """Or a connection would come to a stand after some uploads that were not wanted."""
    drive = Drive(reads=False, whole=silent, limits=Limits(body_size=5000))
    for number in range(1, 2001, 2):
        drive.feed(post(number), data(number, bytes(2000), pad=50))
        _end(drive, number, end)
        drive.take()
        assert not drive.goaways
        drive.give_up_rests()
        assert not drive.engine._streams
        drive.engine.rest(10)
    drive.assert_empty()


def _end(drive: Drive, number: int, end: str) -> None:
    if end in ("answered", "streamed", "refused"):
        drive.feed(data(number, b"x", end=True))
    if end in ("answered", "answered early"):
        drive.respond(number, b"ok")
    elif end == "streamed":
        drive.engine.send_head(number, 200, [])
        drive.engine.send_body(number, b"o", False)
        drive.engine.send_body(number, b"k", True)
    elif end == "reset":
        drive.engine.reset(number)
    elif end == "refused":
        drive.engine.cancel(number, Code.REFUSED_STREAM)
    elif end == "cancelled":
        drive.feed(h2.rst(number))
    elif end == "fault":
        drive.feed(h2.window_update(number, h2.LARGEST))
    else:
        drive.feed(data(number, bytes(4000)))


def test_padding_is_given_back() -> None:
    drive = Drive().feed(post(1))
    for _ in range(3000):
        drive.feed(data(1, b"x", pad=255))
    assert not drive.faults
    drive.feed(data(1, end=True))
    drive.assert_empty()


def test_what_comes_for_a_stream_we_have_reset_is_given_back() -> None:
    drive = Drive(whole=silent).feed(post(1))
    drive.engine.reset(1)
    drive.feed(*[data(1, bytes(10_000))] * 1000)
    assert not drive.faults
    drive.assert_empty()


def test_more_than_the_window_of_the_connection() -> None:
    drive = Drive(reads=False, whole=silent, terms=TERMS._replace(window=65535, streams=5))
    drive.feed(post(1), post(3), post(5))
    for number in (1, 3, 5):
        drive.feed(*[data(number, bytes(13_000))] * 5)
    assert drive.code == Code.FLOW_CONTROL_ERROR


def test_a_body_larger_than_may_be() -> None:
    drive = Drive(limits=Limits(body_size=100)).feed(
        post(1), data(1, bytes(60)), data(1, bytes(60))
    )
    assert drive.answers[1].told[0] == 413
    assert drive.answers[1].told[4:] == (True, None)
    drive.feed(data(1, bytes(200)), get(3))
    assert len(drive.faults) == 1  # what comes of it is not refused once more
    assert drive.answers[3].status == 200
    drive.give_up_rests().assert_empty()


def test_a_length_larger_than_may_be_is_refused_before_the_body() -> None:
    drive = Drive(limits=Limits(body_size=100)).feed(post(1, b"/", (b"content-length", b"101")))
    assert drive.answers[1].status == 413
    assert not drive.asked


def test_the_413_reaches_a_client_whose_window_opens_late() -> None:
    drive = Drive((4, 0), limits=Limits(body_size=100))
    drive.feed(post(1, b"/", (b"content-length", b"101")), data(1, bytes(60)))
    assert drive.answers[1].status == 413
    assert drive.open(1, 1000).answers[1].ended
    drive.feed(data(1, b"", end=True)).assert_empty()


def test_100_continue_is_sent_when_the_body_is_wanted() -> None:
    drive = Drive(whole=answer).feed(post(1, b"/", (b"expect", b"100-continue")))
    assert 1 not in drive.answers
    assert [*drive.engine.waits()] == []  # the client waits for us
    drive.engine.take_body(1, 0)
    drive.engine.take_body(1, 0)
    assert drive.take().answers[1].informational == [100]
    assert [*drive.engine.waits()] == [(1, Wait.BODY, 0)]
    assert drive.feed(data(1, b"x", end=True)).answers[1].ended


def test_no_100_once_the_body_comes_or_the_answer_has_begun() -> None:
    raw = post(1, b"/", (b"expect", b"100-continue"))
    drive = Drive(whole=silent).feed(raw, data(1, b"x"))
    drive.engine.take_body(1, 0)
    assert 1 not in drive.take().answers
    drive = Drive(whole=silent).feed(raw)
    drive.engine.send_head(1, 200, [])
    drive.engine.take_body(1, 0)
    assert 1 not in drive.take().answers


# Tunnels (RFC 8441)


def test_a_tunnel_carries_bytes_both_ways_until_both_have_ended() -> None:
    drive = Drive(whole=silent).feed(headers(1, CONNECT, end=False), data(1, b"early"))
    head = drive.asked[1].head
    assert (head.upgrade, head.method, head.path) == (b"websocket", "CONNECT", "/chat")
    assert (
        drive.engine.open_tunnel(1, b"websocket", [(b"sec-websocket-protocol", b"chat")])
        == b"early"
    )
    drive.engine.take_body(1, 5)
    drive.take().feed(data(1, b"more"))
    assert drive.asked[1].body == b"more"
    drive.engine.send_body(1, b"back", False)
    assert drive.take().answers[1].status == 200
    drive.engine.send_body(1, b"", True)
    assert drive.take().answers[1].reset is None
    assert [*drive.engine.waits()] == [(1, Wait.END, 0)]
    drive.feed(data(1, end=True))
    assert not drive.faults
    drive.assert_empty()


def test_the_client_may_end_its_side_of_a_tunnel_first() -> None:
    drive = Drive(whole=silent).feed(headers(1, CONNECT, end=False))
    drive.engine.open_tunnel(1, b"websocket")
    drive.feed(data(1, b"bye", end=True))
    assert drive.events[-1] == ("reset", 1, "the client closed its side", False)
    drive.engine.send_body(1, b"bye", True)
    assert drive.take().answers[1].ended
    assert drive.answers[1].reset is None
    drive.assert_empty()


def test_an_unread_tunnel_is_bounded_and_given_back() -> None:
    drive = Drive(whole=silent, reads=False).feed(headers(1, CONNECT, end=False))
    drive.feed(*[data(1, bytes(13_107))] * 5)
    assert not drive.engine.reads(1)
    drive.feed(h2.rst(1))
    drive.assert_empty()


def test_headers_in_a_tunnel_reset_it() -> None:
    drive = Drive(whole=silent).feed(headers(1, CONNECT, end=False))
    drive.engine.open_tunnel(1, b"websocket")
    drive.feed(headers(1, block([(b"a", b"b")])))
    assert drive.answers[1].reset == Code.PROTOCOL_ERROR


def test_no_tunnel_where_none_was_offered() -> None:
    drive = Drive(terms=TERMS._replace(tunnels=False)).feed(headers(1, CONNECT, end=False), get(3))
    assert drive.answers[1].reset == Code.PROTOCOL_ERROR
    assert drive.answers[3].ended
