"""Server push (RFC 9113 8.4), and where it is not allowed."""

from __future__ import annotations

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import Asked, Drive, silent
from tests.support.http2_frames import get, post, settings

from tidegate.errors import ApplicationError
from tidegate.protocol.events import RequestHead

HINT = [(b"accept", b"text/css")]


def pushing(drive: Drive, asked: Asked) -> None:
    if asked.stream & 1:
        drive.engine.push(asked.stream, "/style.css?v=1", HINT)
    drive.respond(asked.stream, b"of %d" % asked.stream)


def asking(*pairs: tuple[int, int]) -> Drive:
    """A request that is open, on a connection with such settings."""
    return Drive(*pairs, whole=silent).feed(get(1))


def test_a_promise_is_a_request_that_is_answered_on_its_own_stream() -> None:
    drive = Drive(whole=pushing).feed(get(1))
    parent, fields = drive.promises[2]
    assert parent == 1
    assert fields == [
        (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"example.com"),
        (b":path", b"/style.css?v=1"), (b"accept", b"text/css"),
    ]  # fmt: skip
    head = drive.asked[2].head
    assert (head.method, head.raw_path, head.query) == ("GET", b"/style.css", b"v=1")
    assert head.headers == ((b"host", b"example.com"), (b"accept", b"text/css"))
    assert drive.answers[1].body == b"of 1"
    assert drive.answers[2].body == b"of 2"
    drive.assert_empty()


def test_the_promise_is_made_before_the_answer_that_needs_it() -> None:
    drive = Drive(whole=pushing).feed(get(1))
    names = [type(frame).__name__ for frame in drive.frames if frame.stream_id]
    assert names.index("PushPromiseFrame") < names.index("HeadersFrame")


def test_promises_have_even_numbers_that_grow() -> None:
    drive = Drive(whole=pushing)
    for number in range(1, 200, 2):
        drive.feed(get(number))
    assert [*drive.promises] == [*range(2, 202, 2)]
    drive.assert_empty()


def test_a_large_promise_goes_on_in_continuations() -> None:
    drive = asking()
    drive.engine.push(1, "/x", [(b"x-large", bytes([33 + at % 90 for at in range(40000)]))])
    drive.take()
    assert len(dict(drive.promises[2][1])[b"x-large"]) == 40000


@pytest.mark.parametrize("when", ["at first", "later"])
def test_enable_push_0_is_obeyed(when: str) -> None:
    drive = Drive(*([(h2.ENABLE_PUSH, 0)] if when == "at first" else []), whole=silent)
    drive.feed(get(1), *([settings((h2.ENABLE_PUSH, 0))] if when == "later" else []))
    assert not drive.engine.supports_push
    drive.engine.push(1, "/x", [])
    drive.handle()
    assert not drive.promises
    assert [*drive.asked] == [1]


def test_push_may_be_allowed_again() -> None:
    drive = asking((h2.ENABLE_PUSH, 0)).feed(settings((h2.ENABLE_PUSH, 1)))
    drive.engine.push(1, "/x", [])
    assert 2 in drive.take().promises


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_no_more_streams_than_the_client_takes(bound: int) -> None:
    drive = asking((h2.MAX_STREAMS, bound))
    for _ in range(5):
        drive.engine.push(1, "/x", [])
    drive.handle()
    assert len(drive.promises) == bound
    assert drive.engine.supports_push is False
    for number in drive.promises:
        drive.respond(number, b"x")
    drive.take()
    assert drive.engine.supports_push is (bound > 0)


@pytest.mark.parametrize("shape", ["whole", "streamed", "hinted", "empty", "reset", "refused"])
def test_a_push_that_is_over_makes_room_for_the_next(shape: str) -> None:
    drive = asking((h2.MAX_STREAMS, 1))
    for number in range(2, 12, 2):
        drive.engine.push(1, "/x", [])
        assert not drive.engine.supports_push
        drive.handle(drive.engine.receive(b""))
        _answer_push(drive, number, shape)
        drive.take()
        assert drive.engine.supports_push
    assert len(drive.promises) == 5
    drive.respond(1, b"ok")
    drive.take().assert_empty()


def _answer_push(drive: Drive, number: int, shape: str) -> None:
    if shape == "hinted":
        drive.engine.send_informational(number, 103, [(b"link", b"</y>")])
    if shape == "reset":
        drive.engine.reset(number)
    elif shape == "refused":
        drive.feed(h2.rst(number, h2.Code.REFUSED_STREAM))
    elif shape == "streamed":
        drive.engine.send_head(number, 200, [])
        drive.engine.send_body(number, b"ab", False)
        drive.engine.send_body(number, b"c", True)
    else:
        drive.respond(number, b"" if shape == "empty" else b"abc")


def test_pushes_leave_the_clients_own_streams_their_number() -> None:
    terms = h2_terms(streams=2)
    drive = Drive(terms=terms, whole=silent).feed(get(1))
    for _ in range(10):
        drive.engine.push(1, "/x", [])
    drive.handle(drive.engine.receive(b"")).feed(get(3), get(5))
    assert 3 in drive.asked
    assert drive.answers[5].reset == h2.Code.REFUSED_STREAM


def h2_terms(**values: int):
    from tests.support.http2_drive import TERMS

    return TERMS._replace(**values)


def test_nothing_is_promised_after_the_last_goaway() -> None:
    drive = asking()
    drive.engine.stop()
    assert drive.engine.supports_push  # 6.8: the first names no stream
    drive.engine.stop()
    assert not drive.engine.supports_push
    drive.engine.push(1, "/x", [])
    assert not drive.handle().promises


def test_nothing_is_promised_to_a_client_that_leaves() -> None:
    drive = asking().feed(h2.goaway())
    drive.engine.push(1, "/x", [])
    assert not drive.handle().promises


@pytest.mark.parametrize("state", ["unknown", "answered", "reset", "promised"])
def test_a_promise_needs_a_request_that_is_open(state: str) -> None:
    drive = asking()
    number = 1
    if state == "unknown":
        number = 3
    elif state == "answered":
        drive.respond(1, b"x")
    elif state == "reset":
        drive.feed(h2.rst(1))
    else:
        drive.engine.push(1, "/x", [])
        drive.handle(drive.engine.receive(b""))
        number = 2
    before = len(drive.promises)
    drive.engine.push(number, "/y", [])
    assert len(drive.handle().promises) == before


@pytest.mark.parametrize(
    "path", ["", "relative", "//\n", "/a b", "/\x7f", "/ü", "*", "/a#b", "http://other/", "/\udc80"]
)
def test_a_path_that_is_none_is_the_applications_mistake(path: str) -> None:
    drive = asking()
    with pytest.raises(ApplicationError, match=r"http\.response\.push"):
        drive.engine.push(1, path, [])
    assert not drive.handle().promises
    drive.respond(1, b"ok")
    assert drive.take().answers[1].body == b"ok"


@pytest.mark.parametrize(
    "header",
    [(b"connection", b"close"), (b"te", b"gzip"), (b":path", b"/x"), (b"a b", b""), (b"a", b"\n")],
)
def test_a_field_that_no_request_may_have(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ApplicationError):
        asking().engine.push(1, "/x", [header])


def test_a_client_that_resets_a_promise_at_once() -> None:
    drive = asking()
    drive.engine.push(1, "/x", [])
    drive.take().feed(h2.rst(2, h2.Code.CANCEL))
    assert drive.asked[2].reset
    drive.respond(2, b"nobody")
    assert drive.take().answers[2].status is None


@pytest.mark.parametrize("raw", [h2.headers(2, b""), h2.data(2, b"x"), h2.data(4, b"x"), h2.rst(4)])
def test_a_client_sends_nothing_on_a_promised_stream(raw: bytes) -> None:
    drive = asking()
    drive.engine.push(1, "/x", [])
    assert drive.handle(drive.engine.receive(b"")).feed(raw).code == h2.Code.PROTOCOL_ERROR


def test_a_window_of_a_promised_stream_may_be_opened_before_its_answer() -> None:
    drive = asking((h2.INITIAL_WINDOW, 0))
    drive.engine.push(1, "/x", [])
    drive.handle(drive.engine.receive(b"")).open(2, 3)
    drive.respond(2, b"abcdef")
    assert drive.take().answers[2].body == b"abc"
    assert drive.open(2, 3).answers[2].body == b"abcdef"


def test_a_promised_stream_has_a_priority_like_any_other() -> None:
    """RFC 9218 7.1: a push stream that is not idle may be named."""
    drive = asking()
    drive.engine.push(1, "/x", [])
    drive.handle(drive.engine.receive(b"")).feed(h2.priority_update(2, b"u=0"))
    assert not drive.faults
    assert drive.feed(h2.priority_update(4, b"u=0")).code == h2.Code.PROTOCOL_ERROR


def test_a_request_with_a_body_may_be_pushed_for_before_its_end() -> None:
    drive = Drive(early=pushing, whole=silent).feed(post(1))
    assert drive.promises[2][0] == 1
    assert drive.answers[2].body == b"of 2"


# A connection that began with Upgrade: h2c


def upgraded() -> Drive:
    head = RequestHead()
    head.method, head.raw_path, head.path, head.query = "GET", b"/", "/", b""
    head.version, head.trailers, head.upgrade, head.forwarded = "1.1", False, None, None
    head.headers = ((b"user-agent", b"tide"), (b"host", b"tide.test"))
    drive = Drive(hello=False, whole=silent)
    return drive.handle(drive.engine.begin_upgraded(head, b""))


def test_a_push_for_an_upgraded_request_before_the_preface() -> None:
    drive = upgraded()
    drive.engine.push(1, "/x", [])
    events = drive.engine.receive(b"")
    assert [event.stream for event in events] == [2]
    assert not drive.engine.stalled  # or nobody would read on
    assert drive.engine.hungry


def test_a_push_for_an_upgraded_request_is_of_its_host_and_in_the_clear() -> None:
    drive = upgraded().feed(h2.PREFACE + settings())
    drive.engine.push(1, "/x", [])
    drive.handle(drive.engine.receive(b""))
    assert drive.promises[2][1][:3] == [
        (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"tide.test"),
    ]  # fmt: skip
