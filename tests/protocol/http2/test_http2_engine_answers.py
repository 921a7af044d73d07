"""Answers of every shape, and the windows and files they wait for."""

from __future__ import annotations

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import Drive, silent
from tests.support.http2_frames import Code, data, get, headers, post, request, settings

from tidegate.errors import ApplicationError
from tidegate.protocol.engine import FileSlice
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http2.engine import Wait
from tidegate.protocol.http2.sending import OUT_SHARE

TRAILERS = (b"te", b"trailers")
FILE = bytes(range(256)) * 4096


def asking(*pairs: tuple[int, int], method: bytes = b"GET", **options) -> Drive:
    """A connection with one open request that reads trailers."""
    drive = Drive(*pairs, whole=silent, **options)
    return drive.feed(headers(1, h2.block(request(b"/", TRAILERS, method=method))))


def names(drive: Drive) -> list[str]:
    return [type(frame).__name__ for frame in drive.frames if frame.stream_id]


def test_most_answers_are_two_frames() -> None:
    drive = asking()
    drive.respond(1, b"hello", (b"Content-Type", b"text/plain"))
    assert names(drive.take()) == ["HeadersFrame", "DataFrame"]
    assert drive.answers[1].headers == [(b"content-type", b"text/plain")]
    assert drive.answers[1].body == b"hello"
    drive.assert_empty()


def test_an_empty_answer_is_one_frame() -> None:
    drive = asking()
    drive.respond(1, b"", (b"content-length", b"0"))
    assert names(drive.take()) == ["HeadersFrame"]
    assert drive.answers[1].ended


@pytest.mark.parametrize("pieces", [[b"a", b"b", b""], [b"", b"", b"x"], [b"x" * 70000, b"y"]])
def test_a_streamed_answer(pieces: list[bytes]) -> None:
    drive = asking((4, 1 << 20))
    drive.open(0, 1 << 20)
    drive.engine.send_head(1, 200, [])
    for at, piece in enumerate(pieces):
        drive.engine.send_body(1, piece, at == len(pieces) - 1)
        drive.take()
    assert drive.answers[1].body == b"".join(pieces)
    assert drive.answers[1].ended
    drive.assert_empty()


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body(status: int) -> None:
    drive = asking()
    drive.respond(1, b"dropped", status=status)
    assert names(drive.take()) == ["HeadersFrame"]
    drive.assert_empty()


def test_the_answer_to_a_head_has_the_length_and_no_body() -> None:
    drive = asking(method=b"HEAD")
    drive.engine.send_head(1, 200, [(b"content-length", b"10")])
    assert drive.engine.send_body(1, b"12345", False) == 5  # whoever makes it shall yield
    drive.engine.send_body(1, b"67890", True)
    assert names(drive.take()) == ["HeadersFrame"]
    assert drive.answers[1].headers == [(b"content-length", b"10")]
    drive.assert_empty()


@pytest.mark.parametrize("length", [None, b"3"])
@pytest.mark.parametrize("window", [65535, 1])
def test_trailers(length: bytes | None, window: int) -> None:
    drive = asking((4, window))
    drive.engine.send_head(1, 200, [(b"content-length", length)] if length else [])
    drive.engine.send_body(1, b"abc", False)
    drive.engine.send_trailers(1, [(b"X-Sum", b"1")], end=False)
    drive.engine.send_trailers(1, [(b"x-more", b"2")])
    drive.take().open(1, 10)
    assert drive.answers[1].told[2:] == (b"abc", [(b"x-sum", b"1"), (b"x-more", b"2")], True, None)
    drive.assert_empty()


def test_trailers_without_a_body() -> None:
    """As gRPC answers with an error."""
    drive = asking()
    drive.engine.send_head(1, 200, [])
    drive.engine.send_trailers(1, [(b"grpc-status", b"5")])
    assert names(drive.take()) == ["HeadersFrame", "HeadersFrame"]
    assert drive.answers[1].trailers == [(b"grpc-status", b"5")]
    drive.assert_empty()


def test_trailers_are_dropped_where_nobody_reads_them() -> None:
    drive = Drive(whole=silent).feed(get(1))
    drive.engine.send_head(1, 200, [])
    drive.engine.send_body(1, b"abc", False)
    drive.engine.send_trailers(1, [(b"x-sum", b"1")])
    assert drive.take().answers[1].told[2:] == (b"abc", None, True, None)
    drive.assert_empty()


def test_hints_come_before_the_head_and_never_behind() -> None:
    drive = asking()
    drive.engine.send_informational(1, 103, [(b"link", b"</a>")])
    drive.engine.send_informational(1, 103, [(b"link", b"</b>")])
    drive.respond(1, b"x")
    drive.engine.send_informational(1, 103, [(b"link", b"</c>")])
    assert drive.take().answers[1].informational == [103, 103]
    drive.assert_empty()


def test_a_held_head_is_replaced() -> None:
    drive = asking()
    drive.engine.send_head(1, 200, [(b"content-length", b"100")])
    drive.respond(1, b"oops", status=500)
    assert drive.take().answers[1].status == 500


def test_the_servers_own_fields_and_what_belongs_to_http_1() -> None:
    defaults = Defaults(b"tide", ((b"X-All", b"1"),))
    defaults.set_date(b"today")
    drive = asking(defaults=defaults)
    drive.respond(
        1, b"x", (b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"Server", b"me")
    )
    assert drive.take().answers[1].headers == [
        (b"server", b"me"), (b"date", b"today"), (b"x-all", b"1"),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [16384, 16385, 100_000])
def test_a_head_larger_than_a_frame(size: int) -> None:
    drive = asking()
    drive.respond(1, b"body", (b"x-large", bytes([33 + at % 93 for at in range(size)])))
    assert len(drive.take().answers[1].headers[0][1]) == size
    assert drive.answers[1].body == b"body"
    drive.assert_empty()


def test_the_same_answer_after_the_table_has_moved() -> None:
    """Blocks are kept only as long as they mean the same: hpack judges each."""
    drive = Drive(whole=silent)
    for number in range(1, 400, 2):
        drive.feed(get(number))
        field = b"%d" % (number % 7)
        drive.respond(number, b"x", (b"x-seven", field), (b"x-always", b"same"))
        drive.take()
        if number % 50 == 1:
            size = number * 3 % 200
            drive.allow((1, size))
            drive.feed(settings((1, 0), (1, size)))
        assert drive.answers[number].headers == [(b"x-seven", field), (b"x-always", b"same")]


@pytest.mark.parametrize(("told", "pieces"), [(3, [b"ab"]), (3, [b"abcd"]), (3, [b"ab", b"cd"])])
def test_a_body_that_is_not_what_was_promised(told: int, pieces: list[bytes]) -> None:
    drive = asking()
    drive.engine.send_head(1, 200, [(b"content-length", b"%d" % told)])
    for piece in pieces[:-1]:
        drive.engine.send_body(1, piece, False)
    with pytest.raises(ApplicationError, match="Content-Length"):
        drive.engine.send_body(1, pieces[-1], True)
    drive.engine.reset(1)
    assert drive.take().answers[1].reset == Code.INTERNAL_ERROR
    drive.assert_empty()


def test_a_reset_of_what_is_complete_completes_it() -> None:
    drive = asking()
    drive.engine.send_head(1, 200, [(b"content-length", b"3")])
    drive.engine.send_body(1, b"abc", False)
    drive.engine.reset(1)
    assert drive.take().answers[1].told[2:] == (b"abc", None, True, None)


def test_an_answer_before_the_end_of_the_request() -> None:
    """8.1: the rest is read for nobody, and what is under way does no harm."""
    drive = Drive(whole=silent).feed(post(1), data(1, b"abc"))
    drive.respond(1, b"enough")
    assert drive.take().answers[1].told[2:] == (b"enough", None, True, None)
    drive.feed(data(1, b"more"), data(1, b"end", end=True), get(3))
    assert not drive.faults
    assert 3 in drive.asked
    assert [*drive.engine._streams] == [3]


def test_a_rest_that_does_not_end_is_given_up_with_no_error() -> None:
    """8.1; not at once, because some clients forget the answer over it."""
    drive = Drive(whole=silent).feed(post(1), data(1, b"abc"))
    drive.respond(1, b"enough")
    drive.take()
    assert [*drive.engine.waits()] == [(1, Wait.REST, 0)]
    assert drive.give_up_rests().answers[1].reset == Code.NO_ERROR
    drive.feed(data(1, b"more"), get(3))
    assert not drive.faults


# Windows


def test_a_window_of_a_stream_holds_its_body() -> None:
    drive = asking((4, 10))
    drive.respond(1, b"0123456789abcdef")
    assert drive.take().answers[1].body == b"0123456789"
    assert drive.engine.queued(1) == 6
    assert drive.open(1, 1).answers[1].body == b"0123456789a"
    assert drive.open(1, 5).answers[1].ended
    drive.assert_empty()


def test_the_window_of_the_connection_holds_all() -> None:
    drive = Drive((4, 1 << 20), whole=silent).feed(get(1), get(3))
    drive.respond(1, b"a" * 65535)
    drive.take()
    drive.respond(3, b"b")
    drive.take()
    assert drive.answers[3].body == b""
    assert drive.engine.queued(3) == 1
    assert drive.open(0, 1).answers[3].ended


def test_a_window_made_smaller_falls_below_zero() -> None:
    """6.9.2."""
    drive = asking((4, 10))
    drive.respond(1, b"x" * 30)
    drive.take()
    drive.allow((4, 0))
    drive.feed(settings((4, 0))).open(1, 10)
    assert len(drive.answers[1].body) == 10  # it was at -10
    drive.open(1, 5)
    assert len(drive.answers[1].body) == 15
    drive.allow((4, 15))
    assert drive.feed(settings((4, 15))).answers[1].ended


def test_an_empty_end_needs_no_window() -> None:
    drive = asking((4, 3))
    drive.engine.send_head(1, 200, [])
    drive.engine.send_body(1, b"abc", False)
    drive.take()
    drive.engine.send_body(1, b"", True)
    assert drive.take().answers[1].ended


@pytest.mark.parametrize("most", [16384, 16385, 100_000, (1 << 24) - 1])
def test_frames_are_as_large_as_the_client_takes(most: int) -> None:
    drive = asking((4, 1 << 20), (5, most))
    drive.open(0, 1 << 20)
    drive.respond(1, b"x" * 250_000)
    drive.take()
    sizes = [len(frame.data) for frame in drive.frames if type(frame).__name__ == "DataFrame"]
    assert sum(sizes) == 250_000
    assert max(sizes) == min(most, 250_000)


def test_one_share_of_output_is_bounded() -> None:
    drive = asking((4, 1 << 24))
    drive.open(0, 1 << 24)
    drive.respond(1, b"x" * (4 << 20))
    out = drive.engine.take_output()
    assert sum(map(len, out)) < OUT_SHARE + 20_000
    assert drive.engine.more


def test_a_window_made_smaller_while_the_connections_is_shut() -> None:
    """It is in the queue of those that may send, and may not any more."""
    drive = Drive((4, 100_000), whole=silent).feed(get(1), get(3))
    drive.respond(1, b"a" * 70_000)
    drive.respond(3, b"b" * 40_000)
    drive.take()
    sent = {number: len(drive.answers[number].body) for number in (1, 3)}
    assert sum(sent.values()) == 65535
    drive.allow((4, 0))
    drive.feed(settings((4, 0))).open(0, 100_000)
    assert {number: len(drive.answers[number].body) for number in (1, 3)} == sent
    assert all(len(one.data) for one in drive.frames if type(one).__name__ == "DataFrame")
    drive.allow((4, 100_000))
    drive.feed(settings((4, 100_000)))
    assert drive.answers[1].ended and drive.answers[3].ended
    drive.assert_empty()


# Files


def reader(piece: FileSlice, size: int) -> bytes:
    return FILE[piece.offset : piece.offset + min(size, 5000)]


@pytest.mark.parametrize(("offset", "count"), [(0, 1), (7, 5000), (100, 300_000), (0, len(FILE))])
def test_a_file_is_read_when_its_turn_comes(offset: int, count: int) -> None:
    drive = asking((4, 1 << 21), read_file=reader)
    drive.open(0, 1 << 21)
    drive.engine.send_head(1, 200, [])
    drive.engine.send_body(1, b"before", False)
    drive.engine.send_body(1, FileSlice(9, offset, count), False)
    drive.engine.send_body(1, b"behind", True)
    assert drive.take().answers[1].body == b"before" + FILE[offset : offset + count] + b"behind"
    drive.assert_empty()


def test_a_file_is_not_read_beyond_the_window() -> None:
    reads: list[tuple[int, int]] = []

    def count(piece: FileSlice, size: int) -> bytes:
        reads.append((piece.offset, size))
        return reader(piece, size)

    drive = asking((4, 0), read_file=count)
    drive.engine.send_head(1, 200, [])
    drive.engine.send_body(1, FileSlice(9, 0, 100_000), True)
    drive.take().open(0, 1 << 20)
    assert reads == []
    drive.open(1, 1)
    assert len(reads) == 1
    assert drive.answers[1].body == FILE[:1]


@pytest.mark.parametrize("rest", [0, 4999, 20_000])
def test_a_file_that_is_too_short_resets_its_stream_alone(rest: int) -> None:
    """Never a whole-looking answer."""

    def cut(piece: FileSlice, size: int) -> bytes:
        return FILE[piece.offset : min(piece.offset + min(size, 5000), rest)]

    drive = asking((4, 1 << 20), read_file=cut).feed(get(3))
    drive.engine.send_head(1, 200, [(b"content-length", b"50000")])
    drive.engine.send_body(1, FileSlice(9, 0, 50_000), True)
    drive.respond(3, b"whole")
    drive.take()
    assert drive.answers[1].reset == Code.INTERNAL_ERROR
    assert not drive.answers[1].ended
    assert FILE.startswith(drive.answers[1].body)
    assert drive.answers[3].told[2:] == (b"whole", None, True, None)
    drive.assert_empty()


def test_a_file_of_nothing() -> None:
    drive = asking()
    drive.engine.send_head(1, 200, [])
    drive.engine.send_body(1, FileSlice(9, 0, 0), True)
    assert drive.take().answers[1].ended
