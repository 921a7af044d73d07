"""How a connection ends, or passes to another protocol: in every state it can be in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.http1_drive import (
    GET,
    Asked,
    Drive,
    answer,
    chunked,
    drive,
    get,
    post,
    silent,
    taken,
)

from tidegate.protocol.engine import Ending, Waiting
from tidegate.protocol.events import Body, Fault, Reset
from tidegate.protocol.http1.engine import TUNNEL_BOUND, Http1Engine

UPGRADE = get("/", b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
HEAD_REQUEST = b"HEAD" + GET[3:]
OLD = get("/", b"", "1.0")


def begin(*headers: tuple[bytes, bytes]) -> Callable[[Drive, Asked], None]:
    """Half of an answer."""

    def half(connection: Drive, asked: Asked) -> None:
        connection.engine.send_head(asked.stream, 200, headers)
        connection.engine.send_body(asked.stream, b"half", False)

    return half


def hold(connection: Drive, asked: Asked) -> None:
    connection.engine.send_head(asked.stream, 200, [])


LENGTH_8 = begin((b"content-length", b"8"))

# Every state there is, by how it comes about.
STATES: dict[str, Callable[[], Drive]] = {
    "new": Drive,
    "blank-line": lambda: drive(b"\r\n"),
    "head": lambda: drive(b"GET / HTTP/1.1\r\nHo"),
    "asked": lambda: drive(GET, whole=silent),
    "asked-pipelined": lambda: drive(GET * 2, whole=silent),
    "asked-pipelined-half": lambda: drive(GET + GET[:9], whole=silent),
    "asked-old": lambda: drive(OLD, whole=silent),
    "asked-head": lambda: drive(HEAD_REQUEST, whole=silent),
    "held": lambda: drive(GET, whole=hold),
    "half-length": lambda: drive(GET, whole=LENGTH_8),
    "half-chunked": lambda: drive(GET, whole=begin()),
    "half-old": lambda: drive(OLD, whole=begin()),
    "half-head": lambda: drive(HEAD_REQUEST, whole=begin()),
    "body-none-yet": lambda: drive(post(b"Content-Length: 5\r\n"), whole=silent),
    "body-half": lambda: drive(post(b"Content-Length: 5\r\n", b"ab"), whole=silent),
    "body-chunk": lambda: drive(chunked(b"5\r\nab"), whole=silent),
    "body-trailers": lambda: drive(chunked(b"0\r\nX: "), whole=silent),
    "body-half-answered": lambda: drive(post(b"Content-Length: 5\r\n", b"ab"), early=answer),
    "body-half-half-answered": lambda: drive(post(b"Content-Length: 5\r\n", b"ab"), early=begin()),
    "body-whole": lambda: drive(post(b"Content-Length: 2\r\n", b"ab"), whole=silent),
    "idle": lambda: drive(GET),
    "idle-after-body": lambda: drive(post(b"Content-Length: 2\r\n", b"ab")),
    "second-head": lambda: drive([GET, GET[:9]]),
    "refused": lambda: drive(b"GET / HTTP/1.1\r\n\r\n"),
    "closed-by-client": lambda: drive(get("/", b"Connection: close\r\n")),
}
every_state = pytest.mark.parametrize("state", STATES)
INCOMPLETE = {"new", "blank-line", "head", "idle", "idle-after-body", "second-head"} | {
    name for name in STATES if name.startswith("body-") and name != "body-whole"
}


def quiet(connection: Drive) -> None:
    """Whatever else comes, nothing is told any more and nothing raised."""
    asked = len(connection.asked)
    events = connection.engine.receive(GET)
    assert [event for event in events if not isinstance(event, Reset)] == []
    assert len(connection.asked) == asked


# ---------------------------------------------------------------------------- stop


@every_state
def test_stop(state: str) -> None:
    connection = STATES[state]()
    engine = connection.engine
    before, waiting = engine.ending, engine.waiting
    engine.stop()
    engine.stop()
    if before is not Ending.NO:
        assert engine.ending is before
    elif waiting is Waiting.IDLE:
        assert engine.ending is Ending.CLOSE
        quiet(connection)
    else:
        assert engine.ending is Ending.NO, "what is under way is finished first"


@pytest.mark.parametrize("rest", [b"", GET])
@pytest.mark.parametrize("state", ["asked", "asked-old", "asked-head", "held", "body-whole"])
def test_an_answer_under_way_at_the_stop_says_that_it_is_the_last(state: str, rest: bytes) -> None:
    connection = STATES[state]()
    connection.engine.stop()
    connection.feed(rest)
    answer(connection, connection.asked[0])
    connection.handle([])
    assert connection.output.count(b"connection: close\r\n") == 1
    assert connection.engine.ending in (Ending.CLOSE, Ending.STAGED)
    assert len(connection.asked) == 1
    if rest:
        assert connection.engine.ending is Ending.STAGED


def test_a_head_under_way_at_the_stop_is_still_answered() -> None:
    connection = drive(GET[:9])
    connection.engine.stop()
    connection.feed(GET[9:] + GET)
    assert connection.output.count(b"connection: close\r\n") == 1
    assert len(connection.asked) == 1
    assert connection.engine.ending is Ending.STAGED


def test_a_body_under_way_at_the_stop_is_still_read() -> None:
    connection = drive(post(b"Content-Length: 4\r\n", b"ab"))
    connection.engine.stop()
    connection.feed(b"cd")
    assert connection.bodies == [b"abcd"]
    assert b"connection: close\r\n" in connection.output


def test_an_answer_whose_head_is_out_at_the_stop_is_finished() -> None:
    connection = STATES["half-chunked"]()
    connection.engine.stop()
    connection.engine.send_body(1, b"end", True)
    connection.handle([])
    assert connection.output.endswith(b"3\r\nend\r\n0\r\n\r\n")
    assert connection.engine.ending is Ending.STAGED


# ---------------------------------------------------------------------------- bodies nobody reads


def retire(connection: Drive) -> None:
    connection.engine.retire()


def stop(connection: Drive) -> None:
    connection.engine.stop()


@pytest.mark.parametrize("end", [retire, stop])
@pytest.mark.parametrize("when", ["before", "within", "promised"])
@pytest.mark.parametrize("raw", [post(b"Content-Length: 9\r\n", b"ab"), chunked(b"9\r\nab")])
def test_the_rest_of_a_body_that_nobody_reads_is_taken_before_our_end(
    end: Callable[[Drive], None], when: str, raw: bytes
) -> None:
    """What is on its way would have the kernel reset the connection, and the answer with it."""
    connection = Drive(early=begin() if when == "promised" else silent)
    if when == "before":
        end(connection.feed(raw[:20]))
        connection.feed(raw[20:])
    else:
        end(connection.feed(raw))
    engine = connection.engine
    if when == "promised":
        engine.send_body(1, b"end", True)
    else:
        answer(connection, connection.asked[0])
    connection.handle([])
    assert (b"connection: close\r\n" in connection.output) is (when != "promised")
    assert (engine.ending, engine.waiting) == (Ending.NO, Waiting.BODY)
    connection.feed(b"cdefghi\r\n0\r\n\r\n" if b"chunked" in raw else b"cdefghi")
    if end is retire and when == "promised":
        assert engine.waiting is Waiting.IDLE, "it may ask once more"
    else:
        assert engine.ending is Ending.STAGED
        quiet(connection)


@pytest.mark.parametrize(
    "lines",
    [b"Content-Length: 9\r\nConnection: close\r\n", b"Content-Length: 70000\r\n",
     b"Content-Length: 9\r\nExpect: 100-continue\r\n"],
)  # fmt: skip
def test_one_that_would_not_be_read_for_the_sake_of_the_connection_is_not(lines: bytes) -> None:
    connection = drive(post(lines), whole=silent)
    connection.engine.retire()
    answer(connection, connection.asked[0])
    assert connection.engine.ending is Ending.STAGED


def test_one_of_unknown_length_is_taken_up_to_a_bound() -> None:
    connection = drive(chunked(b"fffff\r\n"), whole=silent)
    connection.engine.retire()
    answer(connection, connection.asked[0])
    connection.feed(bytes(60_000))
    assert connection.engine.ending is Ending.NO
    connection.feed(bytes(60_000))
    assert connection.engine.ending is Ending.STAGED


# ---------------------------------------------------------------------------- the client's end


@every_state
def test_eof(state: str) -> None:
    connection = STATES[state]()
    engine = connection.engine
    before, asked = engine.ending, len(connection.asked)
    connection.eof()
    assert connection.faults == [] or state == "refused"
    assert len(connection.asked) == asked, "what is incomplete is nothing"
    assert [asked.whole for asked in connection.asked].count(False) == (
        state.startswith("body-") and state != "body-whole"
    )
    if before is not Ending.NO:
        assert engine.ending is before
    elif state in INCOMPLETE:
        assert engine.ending is Ending.CLOSE
    else:
        assert engine.ending is Ending.NO, "what it asked for is still answered"
        assert connection.resets == [1]


@every_state
def test_eof_twice_and_input_behind_it_do_no_harm(state: str) -> None:
    connection = STATES[state]().eof().eof()
    if state == "refused" or connection.engine.ending is not Ending.NO:
        quiet(connection)


@pytest.mark.parametrize(
    "state",
    ["asked", "asked-old", "asked-head", "held", "half-length", "half-chunked", "half-old",
     "half-head", "body-whole", "asked-pipelined-half"],
)  # fmt: skip
def test_a_whole_request_is_answered_behind_the_clients_end(state: str) -> None:
    connection = STATES[state]().eof()
    if state.startswith("half"):
        connection.engine.send_body(1, b"half", True)
    else:
        answer(connection, connection.asked[0])
    connection.handle([])
    assert connection.output.startswith(b"HTTP/1.1 200 OK\r\n")
    assert connection.output.count(b"HTTP/1.1") == 1
    assert connection.engine.ending is Ending.CLOSE


@pytest.mark.parametrize("tail", [b"", GET[:-1], b"\r\n", post(b"Content-Length: 5\r\n", b"ab")])
@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_half_closed_pipeline_is_answered_to_its_end(when: int, tail: bytes) -> None:
    """The client's end is seen while its first, second or third request is being answered."""
    connection = drive(get("/1") + get("/2") + get("/3") + tail, whole=silent)
    for number in (1, 2, 3):
        if number == when:
            connection.eof()
        answer(connection, connection.asked[number - 1])
        connection.handle([])
    assert [asked.head["path"] for asked in connection.asked if asked.whole] == ["/1", "/2", "/3"]
    assert connection.output.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert connection.faults == []
    assert connection.engine.ending is Ending.CLOSE


def test_a_fault_in_a_half_closed_pipeline_is_still_refused() -> None:
    connection = drive(GET + b"GET / HTTP/1.1\r\n\r\n", whole=silent).eof()
    answer(connection, connection.asked[0])
    connection.handle([])
    assert connection.statuses == [400]
    assert connection.output.count(b"HTTP/1.1 ") == 2
    assert connection.engine.ending is not Ending.NO


def test_eof_while_requests_are_stalled_takes_none_of_them_away() -> None:
    connection = drive(GET * 3, whole=silent)
    answer(connection, connection.asked[0])
    assert connection.engine.stalled
    assert connection.engine.receive_eof() == []
    connection._whole = answer
    connection.handle([])
    assert len(connection.asked) == 3
    assert connection.engine.ending is Ending.CLOSE


# ---------------------------------------------------------------------------- too slow


@pytest.mark.parametrize(
    "state", ["head", "blank-line", "body-none-yet", "body-half", "body-chunk"]
)
def test_a_slow_request_is_told_so(state: str) -> None:
    connection = STATES[state]()
    connection.handle(connection.engine.receive_timeout())
    assert connection.statuses == [408]
    assert connection.faults[0][0] == (1 if state.startswith("body") else 0)
    assert connection.output.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close\r\n" in connection.output
    assert connection.engine.ending is Ending.STAGED
    quiet(connection)


def test_a_slow_body_under_an_answer_is_cut_off() -> None:
    connection = STATES["body-half-half-answered"]()
    before = bytes(connection.output)
    [event] = connection.engine.receive_timeout()
    assert isinstance(event, Reset)
    assert (event.stream, event.reason) == (1, "the request's body came too slowly")
    assert connection.engine.ending is Ending.STAGED
    assert taken(connection.engine) == b""
    assert b"0\r\n\r\n" not in before


def test_a_slow_body_behind_its_answer_only_ends_the_connection() -> None:
    connection = STATES["body-half-answered"]()
    [event] = connection.engine.receive_timeout()
    assert isinstance(event, Fault)
    assert not event.answered
    assert taken(connection.engine) == b""
    assert connection.engine.ending is Ending.STAGED


# ---------------------------------------------------------------------------- reset


@every_state
def test_reset(state: str) -> None:
    connection = STATES[state]()
    engine = connection.engine
    before, waiting = engine.ending, engine.waiting
    left = bytes(connection.output)
    unanswered = bool(connection.asked) and state not in {
        "idle", "idle-after-body", "second-head", "closed-by-client", "body-half-answered"
    }  # fmt: skip
    engine.reset(1)
    engine.reset(1)
    assert taken(engine) == b""
    if not unanswered:
        assert (engine.ending, engine.waiting) == (before, waiting)
        return
    assert engine.ending is (Ending.ABORT if state == "half-old" else Ending.STAGED)
    assert not left.endswith(b"0\r\n\r\n"), "nobody may take it for whole"
    engine.send_informational(1, 103, [])
    engine.send_body(1, b"more", True)
    engine.send_trailers(1, [], True)
    assert taken(engine) == b""
    quiet(connection)


def test_reset_leaves_a_gathered_chunk_but_no_last_one() -> None:
    connection = drive(GET, whole=silent)
    connection.engine.send_head(1, 200, [])
    connection.engine.send_body(1, b"half", False)
    connection.engine.reset(1)
    assert taken(connection.engine).endswith(b"\r\n\r\n4\r\nhalf\r\n")
    assert connection.engine.ending is Ending.STAGED


def test_reset_of_an_answer_that_is_whole_but_for_its_end_ends_it() -> None:
    """All that was promised is out: there is no gap to show."""
    connection = drive(GET, whole=begin((b"content-length", b"4")))
    connection.engine.reset(1)
    assert connection.engine.ending is Ending.NO
    connection.feed(GET)
    assert len(connection.asked) == 2


def test_reset_of_a_held_head_of_no_length_shows_the_gap() -> None:
    connection = drive(GET, whole=silent)
    connection.engine.send_head(1, 200, [(b"content-length", b"0")])
    connection.engine.reset(1)
    assert taken(connection.engine) == b""
    assert connection.engine.ending is Ending.STAGED


# ---------------------------------------------------------------------------- another protocol


@pytest.mark.parametrize("rest", [b"", b"\x81\x05hello", b"\0" * 5000])
@pytest.mark.parametrize("cut", [0, 2])
def test_a_tunnel_begins_with_what_nobody_has_parsed(rest: bytes, cut: int) -> None:
    connection = Drive(whole=silent).feed(UPGRADE + rest[:cut], rest[cut:])
    engine = connection.engine
    assert connection.asked[0].head["upgrade"] == b"websocket"
    assert engine.open_tunnel(1, b"websocket", [(b"sec-websocket-accept", b"x")]) == rest
    output = taken(engine)
    status, *fields = output.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert status == b"HTTP/1.1 101 Switching Protocols"
    assert sorted(fields) == [
        b"connection: upgrade",
        b"sec-websocket-accept: x",
        b"upgrade: websocket",
    ]
    assert engine.ending is Ending.NO
    assert engine.waiting is Waiting.NOTHING
    assert engine.open_tunnel(1, b"websocket") == b"", "opened once"
    assert taken(engine) == b""


def tunnel() -> Http1Engine:
    engine = drive(UPGRADE, whole=silent).engine
    engine.open_tunnel(1, b"websocket")
    taken(engine)
    return engine


@pytest.mark.parametrize("data", [GET, b"\x81\x80abcd", b"x"])
def test_what_comes_through_a_tunnel_is_passed_on_as_it_is(data: bytes) -> None:
    engine = tunnel()
    for _ in range(2):
        [event] = engine.receive(data)
        assert isinstance(event, Body)
        assert (event.stream, event.data, event.end) == (1, data, False)


def test_what_goes_through_a_tunnel_is_framed_by_nothing() -> None:
    engine = tunnel()
    engine.send_body(1, b"abc", False)
    engine.send_body(1, b"def", False)
    assert taken(engine) == b"abcdef"
    engine.send_body(1, b"", True)
    assert taken(engine) == b""
    assert engine.ending is Ending.STAGED
    assert not engine.resting


def test_a_tunnel_that_is_not_read_stops_the_reading() -> None:
    engine = tunnel()
    engine.receive(bytes(TUNNEL_BOUND - 1))
    assert engine.hungry
    assert engine.resting
    engine.receive(b"x")
    assert not engine.hungry
    assert not engine.resting
    engine.take_body(1, 1)
    assert engine.hungry
    assert engine.resting
    [event] = engine.receive(GET)
    assert isinstance(event, Body)


def test_what_had_come_before_a_tunnel_counts_as_unread() -> None:
    engine = Drive(whole=silent).feed(UPGRADE + b"abc").engine
    assert engine.open_tunnel(1, b"websocket") == b"abc"
    engine.receive(bytes(TUNNEL_BOUND - 3))
    assert not engine.hungry


def test_the_peer_s_end_of_a_tunnel_is_told_and_ends_it() -> None:
    engine = tunnel()
    [event] = engine.receive_eof()
    assert isinstance(event, Reset)
    assert not engine.resting
    engine.send_body(1, b"", True)
    assert engine.ending is Ending.CLOSE


def test_no_tunnel_is_opened_for_a_client_that_has_left_or_another_request() -> None:
    engine = drive(UPGRADE, whole=silent).engine
    assert engine.open_tunnel(2, b"websocket") == b""
    engine.reset(1)
    assert engine.open_tunnel(1, b"websocket") == b""
    assert taken(engine) == b""


def test_an_upgrade_that_is_not_wanted_changes_nothing() -> None:
    connection = drive(UPGRADE + GET)
    assert connection.paths == ["/", "/"]
    assert b"101" not in connection.output
