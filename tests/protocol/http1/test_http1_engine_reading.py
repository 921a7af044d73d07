"""What the engine tells of what it reads, what it asks for next, and how much it keeps."""

from __future__ import annotations

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
    post,
    rests_truly,
    silent,
    taken,
)

from tidegate.protocol.engine import Ending, Limits, Waiting
from tidegate.protocol.events import Body, Fault, Request
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1.engine import Http1Engine

# ---------------------------------------------------------------------------- requests


def test_a_request_without_a_body() -> None:
    [event] = Http1Engine(Limits(), Defaults()).receive(get("/a%20b?c=d", b"X-A: \t1 \r\n"))
    assert isinstance(event, Request)
    assert (event.stream, event.end) == (1, True)
    head = event.head
    assert (head.method, head.raw_path, head.path, head.query) == ("GET", b"/a%20b", "/a b", b"c=d")
    assert (head.version, head.trailers, head.upgrade) == ("1.1", False, None)
    assert head.headers == ((b"host", b"tide.test"), (b"x-a", b"1"))


def test_a_body_of_known_length_comes_as_it_comes() -> None:
    engine = Http1Engine(Limits(), Defaults())
    [request] = engine.receive(post(b"Content-Length: 6\r\n"))
    assert isinstance(request, Request)
    assert not request.end
    pieces = [engine.receive(piece) for piece in (b"ab", b"c", b"def")]
    assert [(event.data, event.end) for [event] in pieces if isinstance(event, Body)] == [
        (b"ab", False),
        (b"c", False),
        (b"def", True),
    ]


def test_a_chunked_body_comes_without_its_framing_and_trailers() -> None:
    connection = drive(chunked(b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n") + get("/2"))
    assert connection.bodies == [b"abcde", b""]
    assert (b"t", b"u") not in connection.asked[0].head["headers"]
    assert connection.paths == ["/", "/2"]


def test_streams_count_from_one() -> None:
    connection = drive(GET * 3)
    assert [asked.stream for asked in connection.asked] == [1, 2, 3]
    assert connection.output.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_what_comes_while_requests_wait_goes_behind_them() -> None:
    connection = drive(get("/1") + get("/2") + get("/3")[:9], whole=silent)
    answer(connection, connection.asked[0])
    assert connection.engine.stalled
    connection.handle(connection.engine.receive(get("/3")[9:] + get("/4")))
    for number in (1, 2, 3):
        answer(connection, connection.asked[number])
        connection.handle([])
    assert connection.paths == ["/1", "/2", "/3", "/4"]


def test_the_targets_authority_replaces_host() -> None:
    connection = drive(b"GET http://other.test:81/a HTTP/1.1\r\nX: 1\r\n" + HOST + b"\r\n")
    assert connection.asked[0].head["headers"] == ((b"host", b"other.test:81"), (b"x", b"1"))


@pytest.mark.parametrize(
    ("lines", "protocol"),
    [
        (b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n", b"websocket"),
        (b"Connection: keep-alive, upgrade\r\nUpgrade: a/1, b\r\nUpgrade: c\r\n", b"a/1, b,c"),
        (b"Upgrade: websocket\r\n", None),
        (b"Connection: upgrade\r\n", None),
    ],
)
def test_an_upgrade_is_named_where_connection_names_it(
    lines: bytes, protocol: bytes | None
) -> None:
    connection = drive(get("/", lines))
    assert connection.asked[0].head["upgrade"] == protocol


def test_http_1_0_upgrades_to_nothing() -> None:
    lines = b"Connection: upgrade, keep-alive\r\nUpgrade: websocket\r\n"
    assert drive(get("/", lines, "1.0")).asked[0].head["upgrade"] is None


@pytest.mark.parametrize(
    ("lines", "version", "wanted"),
    [
        (b"TE: trailers\r\n", "1.1", True),
        (b"TE: gzip, Trailers;q=0.5\r\n", "1.1", True),
        (b"TE: gzip\r\n", "1.1", False),
        (b"TE: trailers\r\n", "1.0", False),
        (b"", "1.1", False),
    ],
)
def test_trailers_are_for_who_reads_them(lines: bytes, version: str, wanted: bool) -> None:
    assert drive(get("/", lines, version)).asked[0].head["trailers"] is wanted


def test_early_hints_come_back_after_an_http_1_0_request() -> None:
    connection = drive(get("/1", b"Connection: keep-alive\r\n", "1.0"))
    assert not connection.engine.supports_early_hints
    connection.feed(get("/2"))
    assert connection.engine.supports_early_hints


# ---------------------------------------------------------------------------- what is awaited


def test_what_is_awaited_at_each_step() -> None:
    connection = Drive(whole=silent)
    engine = connection.engine
    steps = [(b"", Waiting.IDLE)]
    for at, piece in enumerate(each_byte(post(b"Content-Length: 2\r\n"))):
        steps.append(
            (piece, Waiting.HEAD if at < len(post(b"Content-Length: 2\r\n")) - 1 else Waiting.BODY)
        )
    steps += [(b"a", Waiting.BODY), (b"b", Waiting.NOTHING), (GET[:9], Waiting.NOTHING)]
    for piece, waiting in steps:
        connection.feed(piece)
        assert engine.waiting is waiting
    answer(connection, connection.asked[0])
    assert engine.stalled
    connection.handle([])
    assert engine.waiting is Waiting.HEAD
    connection.feed(GET[9:])
    assert engine.waiting is Waiting.NOTHING


@pytest.mark.parametrize(
    "first", [GET, post(b"Content-Length: 1\r\n", b"a"), chunked(b"0\r\n\r\n")]
)
def test_idle_between_requests(first: bytes) -> None:
    engine = drive(first).engine
    assert engine.waiting is Waiting.IDLE
    assert not engine.stalled
    assert engine.hungry


def test_at_rest_after_a_plain_request_and_at_work_in_the_next() -> None:
    connection = Drive(whole=silent).feed(GET)
    assert not connection.engine.resting
    answer(connection, connection.asked[0])
    assert connection.engine.resting
    connection.feed(GET)
    assert not connection.engine.resting


@pytest.mark.parametrize(
    "raw",
    [get("/", b"Connection: keep-alive\r\n", "1.0"), post(b"Content-Length: 1\r\n", b"a"),
     chunked(b"0\r\n\r\n")],
)  # fmt: skip
def test_at_rest_after_any_request_that_leaves_the_connection_open(raw: bytes) -> None:
    connection = drive(raw)
    assert connection.engine.resting
    assert rests_truly(connection.engine)
    assert not connection.feed(raw[:9]).engine.resting


def test_not_at_rest_once_the_next_head_has_begun() -> None:
    connection = drive(GET).feed(b"GET / HT")
    assert connection.engine.waiting is Waiting.HEAD
    assert rests_truly(connection.engine)


def test_not_at_rest_after_a_fault() -> None:
    connection = drive(GET).feed(b"GET / HTTP/1.1\r\n\r\n")
    assert connection.engine.ending is Ending.STAGED
    assert rests_truly(connection.engine)


@pytest.mark.parametrize("behind", [b"GET / HT", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"\0"])
def test_not_at_rest_when_more_comes_with_the_end_of_a_body_nobody_wanted(behind: bytes) -> None:
    connection = drive(post(b"Content-Length: 5\r\n"), whole=silent, early=answer)
    connection.engine.receive(b"hello" + behind)
    assert rests_truly(connection.engine)


@pytest.mark.parametrize("end", ["eof", "stop", "timeout"])
def test_not_at_rest_once_it_ends(end: str) -> None:
    engine = drive(GET).engine
    assert engine.resting
    if end == "eof":
        engine.receive_eof()
    elif end == "stop":
        engine.stop()
    else:
        engine.receive(post(b"Content-Length: 1\r\n"))
        engine.receive_timeout()
    assert engine.ending is not Ending.NO
    assert not engine.resting


# ---------------------------------------------------------------------------- 100 Continue

EXPECT = b"Expect: 100-continue\r\nContent-Length: 2\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_100_is_sent_when_the_body_is_asked_for_and_once() -> None:
    engine = begun(post(EXPECT))
    assert taken(engine) == b""
    engine.take_body(1, 0)
    engine.take_body(1, 0)
    assert taken(engine) == CONTINUE


@pytest.mark.parametrize(
    "lines", [EXPECT, EXPECT.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked")]
)
def test_100_is_not_sent_to_who_has_begun_already(lines: bytes) -> None:
    connection = drive(post(lines, b"2\r\n"), whole=silent)
    connection.engine.take_body(1, 0)
    assert connection.output + taken(connection.engine) == b""


def test_100_is_not_sent_behind_the_answers_head() -> None:
    engine = begun(post(EXPECT))
    engine.send_head(1, 200, [(b"content-length", b"4")])
    engine.send_body(1, b"ab", False)
    engine.take_body(1, 0)
    engine.send_body(1, b"cd", True)
    sent = taken(engine)
    assert CONTINUE not in sent
    assert b"connection: close\r\n" in sent, "the client may or may not send the body now"


def test_100_is_sent_while_the_head_is_held() -> None:
    engine = begun(post(EXPECT))
    engine.send_head(1, 200, [(b"content-length", b"0")])
    engine.take_body(1, 0)
    assert taken(engine) == CONTINUE


def test_100_is_not_owed_for_an_earlier_or_later_request() -> None:
    engine = begun(post(EXPECT))
    engine.take_body(2, 0)
    engine.take_body(0, 0)
    assert taken(engine) == b""


@pytest.mark.parametrize(
    "raw",
    [
        get("/", b"Expect: 100-continue\r\n"),
        post(b"Expect: 100-continue\r\nContent-Length: 0\r\n"),
        post(EXPECT, version="1.0"),
    ],
)
def test_100_is_not_sent_where_there_is_nothing_to_continue(raw: bytes) -> None:
    engine = begun(raw)
    engine.take_body(1, 0)
    assert taken(engine) == b""


def test_an_expectation_once_met_is_forgotten() -> None:
    connection = Drive().feed(post(EXPECT))
    connection.engine.take_body(1, 0)
    connection.feed(b"ab", post(b"Content-Length: 1\r\n"))
    connection.output.clear()
    connection.engine.take_body(2, 0)
    assert taken(connection.engine) == b""
    assert connection.feed(b"a").output.count(b"close") == 0


# ---------------------------------------------------------------------------- faults


def test_a_fault_says_all_that_is_known_of_it() -> None:
    [event] = Http1Engine(Limits(), Defaults()).receive(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(event, Fault)
    assert (event.stream, event.status, event.answered) == (0, 400, True)
    assert (event.reason, event.section) == ("no Host field", "RFC 9112 3.2")


def test_a_fault_in_a_body_names_its_request() -> None:
    connection = drive(chunked(b"x\r\n"))
    assert connection.faults == [(1, 400, "not a chunk size", "RFC 9112 7.1", True)]


def test_the_refusal_of_a_head_request_has_no_body() -> None:
    raw = b"HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n"
    for connection in (drive(raw), drive(each_byte(raw)), drive(GET + raw)):
        answers = bytes(connection.output)
        assert answers.endswith(b"\r\n\r\n")
        assert b"HTTP/1.1 400 Bad Request\r\n" in answers
    assert drive(raw.replace(b"HEAD", b"GET")).output.endswith(b"(RFC 9112 3.2)\n")


def test_the_refusal_of_a_head_requests_body_has_none_either() -> None:
    raw = b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
    for connection in (drive(raw, Limits(body_size=8)), drive(each_byte(raw), Limits(body_size=8))):
        assert connection.statuses == [413]
        assert connection.output.endswith(b"\r\n\r\n")


def test_the_refusal_behind_a_head_request_has_a_body() -> None:
    head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
    connection = drive([head, b"GET / HTTP/1.1\r\n\r\n"])
    assert connection.output.endswith(b"(RFC 9112 3.2)\n")


def test_what_the_application_sends_after_a_fault_belongs_to_nobody() -> None:
    connection = drive(chunked(b"1\r\na\r\n"), whole=silent).feed(b"x\r\n")
    refused = bytes(connection.output)
    engine = connection.engine
    engine.send_informational(1, 103, [(b"link", b"a")])
    engine.send_head(1, 200, [])
    engine.send_body(1, b"ok", False)
    engine.send_trailers(1, [], True)
    engine.reset(1)
    engine.take_body(1, 1)
    assert taken(engine) == b""
    assert refused.startswith(b"HTTP/1.1 400 ")


def test_a_fault_takes_the_place_of_a_head_that_is_held() -> None:
    connection = drive(chunked(b""), whole=silent)
    connection.engine.send_head(1, 200, [(b"x", b"y")])
    connection.feed(b"x\r\n")
    assert connection.faults[0][4]
    assert connection.output.startswith(b"HTTP/1.1 400 ")
    assert b"x: y" not in connection.output


def test_a_fault_under_an_answer_lets_the_answer_finish() -> None:
    connection = drive(chunked(b""), whole=silent)
    engine = connection.engine
    engine.send_head(1, 200, [])
    engine.send_body(1, b"ab", False)
    connection.feed(b"x\r\n", GET)
    assert not connection.faults[0][4]
    assert engine.ending is Ending.NO
    engine.send_body(1, b"cd", True)
    connection.handle([])
    assert b"HTTP/1.1 400" not in connection.output
    assert connection.output.endswith(b"\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")
    assert engine.ending is Ending.STAGED


def test_a_fault_behind_a_whole_answer_only_ends_the_connection() -> None:
    connection = drive(chunked(b""), whole=silent, early=answer)
    whole = bytes(connection.output)
    connection.feed(b"x\r\n", GET)
    assert not connection.faults[0][4]
    assert connection.output == whole
    assert connection.engine.ending is Ending.STAGED
