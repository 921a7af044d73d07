"""How a connection ends: GOAWAY both ways, half-closes, faults, deadlines (RFC 9113 5.4, 6.8)."""

from __future__ import annotations

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import Drive, silent
from tests.support.http2_frames import Code, block, data, get, headers, post, settings

from tidegate.protocol.engine import Ending, Waiting
from tidegate.protocol.events import RequestHead
from tidegate.protocol.http2.frames import LARGEST_STREAM


def left(drive: Drive) -> Drive:
    """The final GOAWAY is out."""
    drive.engine.stop()
    drive.engine.stop()
    return drive.take()


def test_a_stop_says_goaway_twice() -> None:
    drive = Drive(whole=silent).feed(get(1))
    drive.engine.stop()
    assert drive.take().goaways == [(LARGEST_STREAM, 0)]
    assert drive.engine.warned
    drive.feed(get(3))  # it was under way
    assert 3 in drive.asked
    drive.feed(h2.ping(drive.pings[0], ack=True))
    assert drive.goaways[1:] == [(3, 0)]
    assert not drive.engine.warned
    for number in (1, 3):
        assert drive.engine.ending is Ending.NO
        drive.respond(number, b"x")
    assert drive.take().answers[3].ended
    assert drive.engine.ending is Ending.STAGED


def test_an_idle_connection_ends_with_the_second_goaway() -> None:
    drive = Drive()
    drive.engine.stop()
    assert drive.take().engine.ending is Ending.NO
    drive.feed(h2.ping(b"another!", ack=True))
    assert len(drive.goaways) == 1
    drive.engine.stop()
    assert drive.take().goaways[-1] == (0, 0)
    assert drive.engine.ending is Ending.STAGED


def test_stop_again_and_again_says_no_more() -> None:
    drive = left(Drive(whole=silent).feed(get(1)))
    drive.engine.stop()
    assert len(drive.take().goaways) == 2


@pytest.mark.parametrize("kind", ["request", "body", "trailers", "window", "reset", "refused"])
def test_a_request_behind_the_last_goaway_is_ignored_and_so_is_all_of_it(kind: str) -> None:
    """6.8: but for the tables and windows that all streams share."""
    drive = left(Drive(whole=silent).feed(get(1)))
    frames = {
        "request": get(3),
        "body": post(3) + data(3, b"abc") + data(3, b"def", end=True),
        "trailers": post(3) + data(3, b"abc") + headers(3, block([(b"a", b"b")])),
        "window": post(3) + h2.window_update(3, 100),
        "reset": post(3) + h2.rst(3),
        "refused": get(3, b"/", (b"expect", b"x")),
    }
    drive.feed(frames[kind])
    assert not drive.faults
    assert [*drive.asked] == [1]
    assert 3 not in drive.answers
    drive.respond(1, b"still")
    assert drive.take().answers[1].body == b"still"
    drive.assert_empty()


def test_the_last_stream_of_a_goaway_never_grows() -> None:
    """6.8."""
    drive = left(Drive(whole=silent).feed(get(1))).feed(get(3), h2.ping(bytes(3)))
    assert drive.goaways == [(LARGEST_STREAM, 0), (1, 0), (1, Code.FRAME_SIZE_ERROR)]


def test_a_fault_tells_its_code_and_ends_all_streams() -> None:
    drive = Drive(whole=silent).feed(get(1), post(3), data(3, b"x"), data(0, b"x"))
    assert drive.goaways == [(3, Code.PROTOCOL_ERROR)]
    assert drive.engine.ending is Ending.STAGED
    assert drive.faults[0].stream == 0
    drive.respond(1, b"too late")
    drive.engine.take_body(3, 1)
    drive.engine.reset(3)
    assert len(drive.take().answers) == 0
    assert not drive.engine._streams


def test_a_client_that_closes_its_side_gets_what_it_has_asked_for() -> None:
    drive = Drive(whole=silent).feed(get(1), post(3), data(3, b"x")).eof()
    assert drive.engine.ending is Ending.NO  # the first is still to be answered
    assert ("reset", 1, "the client closed its side", False) in drive.events
    assert drive.asked[3].reset  # the second cannot be whole any more
    assert not drive.asked[1].reset
    drive.respond(1, b"answer")
    assert drive.take().answers[1].body == b"answer"
    assert drive.engine.ending is not Ending.NO
    assert not drive.engine._streams


@pytest.mark.parametrize("raw", [b"", h2.PREFACE[:10], h2.PREFACE, h2.PREFACE + settings()[:5]])
def test_a_client_that_closes_before_it_asks(raw: bytes) -> None:
    drive = Drive(hello=False).feed(raw).eof()
    assert drive.engine.ending is Ending.CLOSE
    assert not drive.faults


def test_a_half_close_behind_more_than_a_share() -> None:
    drive = Drive(whole=silent)
    events = drive.engine.receive(b"".join(get(number) for number in range(1, 200, 2)))
    assert drive.engine.receive_eof() == []
    drive.handle(events)
    assert len(drive.asked) == 100
    assert len([event for event in drive.events if event[0] == "reset"]) == 100


def test_output_that_nobody_takes_is_dropped() -> None:
    drive = Drive((4, 10), whole=silent).feed(get(1), post(3), data(3, b"x"))
    drive.respond(1, b"x" * 100)
    drive.engine.drop_output()
    assert drive.engine.queued(1) == 0
    drive.respond(3, b"x")
    assert drive.engine.take_output() == []
    drive.assert_empty()


# What is waited for


@pytest.mark.parametrize(
    ("raw", "waiting"),
    [
        (b"", Waiting.HEAD), (h2.PREFACE[:9], Waiting.HEAD), (h2.PREFACE + settings(), Waiting.IDLE),
        (h2.PREFACE + settings() + b"\0\0", Waiting.HEAD), (h2.PREFACE + settings() + get(1), Waiting.NOTHING),
        (h2.PREFACE + settings() + headers(1, b"\x82", done=False), Waiting.HEAD),
    ],
)  # fmt: skip
def test_what_the_connection_waits_for(raw: bytes, waiting: Waiting) -> None:
    assert Drive(whole=silent, hello=False).feed(raw).engine.waiting is waiting


def test_settings_that_are_not_acknowledged() -> None:
    drive = Drive(hello=False).greet()
    assert drive.engine.unacknowledged
    drive.handle(drive.engine.receive_timeout())
    assert drive.code == Code.SETTINGS_TIMEOUT


def test_half_a_header_block() -> None:
    drive = Drive(hello=False).greet().feed(headers(1, b"\x82", done=False))
    drive.handle(drive.engine.receive_timeout())
    assert drive.code == Code.ENHANCE_YOUR_CALM


# Upgrade: h2c


def upgraded(payload: bytes = b"") -> Drive:
    head = RequestHead()
    head.method, head.raw_path, head.path, head.query = "GET", b"/a", "/a", b"q"
    head.version, head.trailers, head.upgrade, head.forwarded = "1.1", False, None, None
    head.headers = ((b"host", b"a"), (b"connection", b"x"), (b"http2-settings", b""), (b"x", b"y"))
    drive = Drive(hello=False, whole=silent)
    return drive.handle(drive.engine.begin_upgraded(head, payload))


def test_the_request_that_asked_for_it_is_the_first_stream() -> None:
    drive = upgraded()
    assert drive.asked[1].head.headers == ((b"host", b"a"), (b"x", b"y"))
    drive.respond(1, b"first")
    drive.take().feed(h2.PREFACE + settings(), get(3))
    assert drive.answers[1].body == b"first"
    drive.respond(3, b"second")
    assert drive.take().answers[3].body == b"second"
    drive.assert_empty()


def test_its_settings_hold_at_once() -> None:
    drive = upgraded(settings((4, 2))[9:])
    drive.respond(1, b"first")
    assert drive.take().answers[1].body == b""  # it waits for the preface: see the next
    assert drive.feed(h2.PREFACE + settings()).answers[1].body == b"fi"


def test_settings_that_are_none() -> None:
    assert upgraded(b"\0").code == Code.FRAME_SIZE_ERROR


def test_a_stop_before_the_preface_lets_the_upgraded_request_finish() -> None:
    drive = upgraded()
    drive.engine.stop()
    drive.take().feed(h2.PREFACE + settings())
    assert not drive.faults
    drive.respond(1, b"whole")
    assert drive.take().answers[1].body == b"whole"
    assert drive.engine.ending is not Ending.NO or drive.engine.warned
