"""How much the engine takes and keeps, whatever comes; and that each limit means one thing."""

from __future__ import annotations

import tracemalloc

import pytest
from tests.support.http1_drive import (
    GET,
    HOST,
    Drive,
    answer,
    begun,
    chunked,
    drive,
    each_byte,
    get,
    held,
    post,
    silent,
)

from tidegate.protocol.engine import Ending, Limits, Waiting
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1.engine import DISCARD_BOUND, PIPELINE_BOUND, UNREAD_BOUND, Http1Engine

PIECE = 1000


def endless(start: bytes, piece: bytes) -> tuple[Http1Engine, int, int]:
    """The engine, what it took before it refused, and the most that it held in between."""
    engine = Http1Engine(Limits(), Defaults())
    engine.receive(start)
    taken_in = most = 0
    while engine.ending is Ending.NO:
        assert taken_in < 1 << 22, "never refused"
        engine.receive(piece)
        taken_in += len(piece)
        most = max(most, held(engine))
    return engine, taken_in, most


HEAD_START = b"GET / HTTP/1.1\r\n" + HOST
CHUNKS = chunked(b"")


@pytest.mark.parametrize(
    ("start", "piece", "bound"),
    [
        pytest.param(b"", b"G" * PIECE, 0, id="method"),
        pytest.param(b"GET /", b"a" * PIECE, 8192, id="target"),
        pytest.param(b"", b"\r\n" * 500, 0, id="blank-lines"),
        pytest.param(HEAD_START, b"a" * PIECE, 65536, id="name"),
        pytest.param(HEAD_START + b"X: ", b"a" * PIECE, 65536, id="value"),
        pytest.param(HEAD_START, b"X: " + b"a" * (PIECE - 5) + b"\r\n", 65536, id="fields"),
        pytest.param(HEAD_START, b"a:\r\n", 400, id="small-fields"),
        pytest.param(CHUNKS, b"0" * PIECE, 4096, id="chunk-size"),
        pytest.param(CHUNKS + b"1;a=", b"b" * PIECE, 4096, id="extension"),
        pytest.param(CHUNKS + b'1;a="', b";" * PIECE, 4096, id="quoted-extension"),
        pytest.param(CHUNKS + b"1", b";a" * 500, 4096, id="extensions-in-a-line"),
        pytest.param(CHUNKS, b"1;a=" + b"b" * 200 + b"\r\nx\r\n", 18000, id="extensions-over-all"),
        pytest.param(CHUNKS + b"1\r\na", b"\r", 1, id="chunk-end"),
        pytest.param(CHUNKS + b"0\r\n", b"a" * PIECE, 65536, id="trailer-name"),
        pytest.param(CHUNKS + b"0\r\nX: ", b"a" * PIECE, 65536, id="trailer-value"),
        pytest.param(CHUNKS + b"0\r\n", b"a:\r\n", 400, id="small-trailers"),
        pytest.param(CHUNKS + b"0\r\n", b"X: " + b"a" * (PIECE - 5) + b"\r\n", 65536, id="trailers"),
    ],
)  # fmt: skip
def test_what_never_ends_is_refused_within_its_bound(
    start: bytes, piece: bytes, bound: int
) -> None:
    engine, taken_in, most = endless(start, piece)
    assert taken_in <= bound + 2 * len(piece)
    assert most <= 2 * (bound + PIECE) + 2000
    kept = held(engine)
    assert engine.receive(piece) == []
    assert held(engine) == kept <= most + 2000


def test_a_body_that_is_too_large_is_refused_when_it_is_announced() -> None:
    limits = Limits(body_size=10)
    connection = drive(post(b"Content-Length: 11\r\n"), limits)
    assert connection.statuses == [413]
    assert connection.asked == []
    assert drive(post(b"Content-Length: 10\r\n", b"a" * 10), limits).bodies == [b"a" * 10]
    assert drive(chunked(b"b\r\n"), limits).statuses == [413]
    assert drive(chunked(b"5\r\nhello\r\n6\r\n"), limits).statuses == [413]
    assert drive(chunked(b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n"), limits).bodies == [
        b"hellohello"
    ]


def test_no_bound_on_the_body_where_none_is_set() -> None:
    connection = drive(post(b"Content-Length: 999999999999999999\r\n"), Limits(body_size=0))
    assert connection.faults == []


def test_a_reader_that_lags_behind_makes_it_stop_reading() -> None:
    engine = Http1Engine(Limits(), Defaults())
    engine.receive(post(b"Content-Length: 10000000\r\n"))
    unread = 0
    while engine.hungry:
        engine.receive(b"a" * PIECE)
        unread += PIECE
    assert UNREAD_BOUND <= unread <= UNREAD_BOUND + PIECE
    assert held(engine) < 2000, "what was handed out is not kept"
    engine.take_body(1, PIECE)
    engine.take_body(1, PIECE)
    assert engine.hungry


def test_who_pipelines_too_much_waits() -> None:
    engine = begun(GET)
    taken_in = 0
    while engine.hungry:
        engine.receive(GET * 20)
        taken_in += len(GET) * 20
    assert taken_in <= PIPELINE_BOUND + len(GET) * 20
    assert held(engine) <= taken_in + 2000


def test_who_pipelines_too_much_waits_while_a_body_is_being_read() -> None:
    connection = Drive(whole=silent)
    engine = connection.engine
    engine.receive(post(b"Content-Length: 2000\r\n"))
    for _ in range(2000):
        engine.receive(b"a")
    while engine.hungry:
        engine.receive(GET * 20)
    engine.take_body(1, 1)
    assert not engine.hungry


def test_a_full_pipeline_drains() -> None:
    connection = Drive(whole=silent).feed(GET)
    while connection.engine.hungry:
        connection.feed(GET * 20)
    count = 0
    while connection.engine.waiting is Waiting.NOTHING:
        count += 1
        answer(connection, connection.asked[-1])
        connection.handle([])
    assert len(connection.asked) == count
    assert count * len(GET) > PIPELINE_BOUND
    assert connection.engine.hungry
    assert connection.engine.ending is Ending.NO


def test_a_body_nobody_wanted_is_read_up_to_a_bound() -> None:
    connection = drive(chunked(b""), whole=silent, early=answer)
    read = 0
    while connection.engine.ending is Ending.NO:
        connection.feed(b"3e8\r\n" + b"a" * PIECE + b"\r\n")
        read += PIECE
    assert DISCARD_BOUND < read <= DISCARD_BOUND + 2 * PIECE
    assert connection.engine.ending is Ending.STAGED
    assert connection.bodies == [b""]
    assert held(connection.engine) < 2000


@pytest.mark.parametrize("size", [1, DISCARD_BOUND])
def test_a_short_body_nobody_wanted_does_not_end_the_connection(size: int) -> None:
    connection = drive(post(b"Content-Length: %d\r\n" % size), whole=silent, early=answer)
    assert b"close" not in connection.output
    connection.feed(b"a" * (size - 1), b"a" + get("/2"))
    assert connection.paths == ["/", "/2"]
    assert connection.bodies == [b"", b""]


def test_a_long_body_nobody_wanted_ends_the_connection_at_once() -> None:
    connection = drive(
        post(b"Content-Length: %d\r\n" % (DISCARD_BOUND + 1)), whole=silent, early=answer
    )
    assert b"connection: close\r\n" in connection.output
    assert connection.engine.ending is Ending.STAGED


def test_what_is_remembered_of_heads_is_bounded() -> None:
    def run(begin: int) -> int:
        for at in range(begin, begin + 1500):
            lines = b"".join(b"X-%d-%d: %b\r\n" % (n, at, b"v" * 250) for n in range(7))
            assert drive(get(f"/{at}", lines)).paths == [f"/{at}"]
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = run(0)
        assert run(1500) - before < 2 << 20
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------------- limits, exactly


def head_of(size: int) -> bytes:
    """A head of so many bytes, its empty line among them."""
    start = b"GET / HTTP/1.1\r\n" + HOST + b"X: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("size", range(197, 208))
def test_the_size_of_a_head_is_judged_alike_however_it_comes(size: int) -> None:
    limits = Limits(header_size=200)
    raw = head_of(size)
    whole = drive(raw, limits)
    assert whole.statuses == ([] if size <= 200 else [431])
    for pieces in (each_byte(raw), [raw[:-1], raw[-1:]], [raw[:-3], raw[-3:]], [b"\r\n" + raw]):
        assert drive(pieces, limits).story() == whole.story()


@pytest.mark.parametrize("size", [99, 100, 101, 102, 103, 120])
def test_the_size_of_a_request_line_is_judged_alike_however_it_comes(size: int) -> None:
    limits = Limits(request_line=100)
    raw = b"GET /" + b"a" * (size - 14) + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    whole = drive(raw, limits)
    assert whole.statuses == ([] if size <= 100 else [414])
    assert drive(each_byte(raw), limits).story() == whole.story()


def test_an_endless_method_under_a_very_small_limit_is_judged_alike() -> None:
    limits = Limits(request_line=20)
    raw = b"G" * 40
    assert drive(each_byte(raw), limits).story() == drive(raw, limits).story()


@pytest.mark.parametrize("count", [4, 5, 6])
def test_the_number_of_fields_is_judged_alike_however_it_comes(count: int) -> None:
    limits = Limits(header_count=5)
    raw = get("/", b"X: y\r\n" * (count - 1))
    whole = drive(raw, limits)
    assert whole.statuses == ([] if count <= 5 else [431])
    assert drive(each_byte(raw), limits).story() == whole.story()


@pytest.mark.parametrize("count", [4, 5])
def test_blank_lines_before_a_request_are_tolerated_up_to_four(count: int) -> None:
    raw = b"\r\n" * count + GET
    whole = drive(raw)
    assert whole.statuses == ([] if count == 4 else [400])
    assert drive(each_byte(raw)).story() == whole.story()


@pytest.mark.parametrize("extra", [b"X", b" ", b"\r", b""])
def test_a_bare_lf_takes_nothing_with_it(extra: bytes) -> None:
    raw = b"GET / HTTP/1.1" + extra + b"\n" + HOST + b"\r\n"
    whole = drive(raw)
    assert len(whole.statuses) == (extra != b"\r")
    assert drive(each_byte(raw)).story() == whole.story()
