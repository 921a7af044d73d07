"""What leaves the engine for what an application sends, judged by h11."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.http1_client import Pairs, read, sent
from tests.support.http1_drive import (
    GET,
    Drive,
    answer,
    begun,
    drive,
    get,
    post,
    silent,
    taken,
)

from tidegate.errors import ApplicationError
from tidegate.protocol.engine import Ending
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1.answering import HEADS, JOINED

KEEP = b"Connection: keep-alive\r\n"
CLOSE = b"Connection: close\r\n"
REQUESTS = {
    "1.1": (get(), False),
    "1.1-close": (get("/", CLOSE), True),
    "1.1-keep-alive": (get("/", KEEP), False),
    "1.0": (get("/", b"", "1.0"), True),
    "1.0-keep-alive": (get("/", KEEP, "1.0"), False),
    "1.0-both": (get("/", b"Connection: keep-alive, close\r\n", "1.0"), True),
    "body": (post(b"Content-Length: 2\r\n", b"ab"), False),
    "body-close": (post(CLOSE + b"Content-Length: 2\r\n", b"ab"), True),
    "chunks": (post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"), False),
    "upgrade": (get("/", b"Connection: upgrade\r\nUpgrade: h2c\r\n"), False),
}
LENGTH: Pairs = [(b"content-length", b"6")]
PIECES = {"one": (b"foobar",), "two": (b"foo", b"bar"), "three": (b"foo", b"bar", b""), "late": (b"", b"foobar")}  # fmt: skip


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("says_close", [False, True], ids=["", "app-closes"])
@pytest.mark.parametrize("headers", [LENGTH, []], ids=["length", "unknown"])
@pytest.mark.parametrize("status", [200, 204, 205, 304, 404, 500, 599])
@pytest.mark.parametrize("method", ["as-is", "HEAD"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_every_framing(
    kind: str,
    method: str,
    status: int,
    headers: Pairs,
    says_close: bool,
    pieces: tuple[bytes, ...],
) -> None:
    raw, closes = REQUESTS[kind]
    is_head = method == "HEAD"
    if is_head:
        raw = b"HEAD" + raw[raw.index(b" ") :]
    engine = begun(raw)
    output = sent(
        engine,
        [*headers, *([(b"connection", b"close")] if says_close else [])],
        *pieces,
        status=status,
    )
    old, bodiless = kind.startswith("1.0"), is_head or status in (204, 304)
    until_close = old and not headers and not bodiless
    closes = closes or until_close or says_close
    found = read(output, b"HEAD" if is_head else b"GET", eof=until_close)
    assert found.status == status
    assert found.whole
    assert found.body == (b"" if bodiless else b"foobar")
    assert found[b"content-length"] == (b"6" if headers and status != 204 else None)
    chunks = not old and not bodiless and not headers
    assert found[b"transfer-encoding"] == (b"chunked" if chunks else None)
    assert found[b"connection"] == (b"close" if closes else b"keep-alive" if old else None)
    assert (engine.ending is not Ending.NO) == closes
    if not closes:
        [*_] = engine.receive(GET)
        engine.send_head(2, 200, LENGTH)
        engine.send_body(2, b"second", True)
        assert read(taken(engine)).body == b"second"


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_closing_client_is_closed_on_and_a_pipelining_one_lingered_on(kind: str) -> None:
    raw, closes = REQUESTS[kind]
    assert drive(raw).engine.ending is (Ending.CLOSE if closes else Ending.NO)
    if closes:
        connection = drive(raw + GET)
        assert connection.engine.ending is Ending.STAGED, "a reset could eat the answer"
        assert len(connection.asked) == 1


def test_nothing_leaves_before_the_first_body() -> None:
    engine = begun()
    engine.send_head(1, 200, [])
    assert engine.queued(1) == 0
    assert taken(engine) == b""


def test_a_held_head_is_replaced() -> None:
    engine = begun()
    engine.send_head(1, 200, [(b"content-length", b"99"), (b"x", b"y"), (b"date", b"never")])
    engine.send_head(1, 500, LENGTH)
    engine.send_body(1, b"foobar", True)
    found = read(taken(engine))
    assert (found.status, found.body, found[b"x"], found[b"date"]) == (500, b"foobar", None, None)


@pytest.mark.parametrize("first", [[], LENGTH, [(b"content-length", b"0")]])
@pytest.mark.parametrize("second", [[], LENGTH])
def test_a_held_head_is_replaced_framing_and_all(first: Pairs, second: Pairs) -> None:
    engine = begun()
    engine.send_head(1, 204, first)
    engine.send_head(1, 200, first)
    engine.send_head(1, 200, second)
    engine.send_body(1, b"foobar", True)
    found = read(taken(engine))
    assert (found.body, found[b"content-length"]) == (b"foobar", b"6" if second else None)


def test_a_refused_head_leaves_the_answer_open() -> None:
    engine = begun()
    with pytest.raises(ApplicationError):
        engine.send_head(1, 200, [(b"x", b"a\nb")])
    assert taken(engine) == b""
    assert read(sent(engine, LENGTH, b"foobar", status=500)).status == 500


# ---------------------------------------------------------------------------- trailers and hints

TE = b"TE: trailers\r\n"


@pytest.mark.parametrize("pieces", [(), (b"foo",), (b"foo", b"bar")])
def test_trailers(pieces: tuple[bytes, ...]) -> None:
    connection = drive(get("/", TE), whole=silent)
    engine = connection.engine
    engine.send_head(1, 200, [])
    for piece in pieces:
        engine.send_body(1, piece, False)
    engine.send_trailers(1, [(b"x-a", b"1"), (b"X-B", b"2")], True)
    found = read(taken(engine))
    assert found.body == b"".join(pieces)
    assert found.trailers == [(b"x-a", b"1"), (b"x-b", b"2")]
    assert drive(GET).engine.ending is engine.ending is Ending.NO
    assert engine.waiting is drive(GET).engine.waiting


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (GET, []),
        (get("/", TE), LENGTH),
        (get("/", TE + KEEP, "1.0"), []),
        (b"HEAD" + get("/", TE)[3:], []),
    ],
)
def test_trailers_are_dropped_where_they_cannot_be_sent(raw: bytes, headers: Pairs) -> None:
    engine = begun(raw)
    engine.send_head(1, 200, headers)
    engine.send_body(1, b"foobar", False)
    engine.send_trailers(1, [(b"x-a", b"1")], True)
    output = taken(engine)
    found = read(output, raw[: raw.index(b" ")], eof=b"1.0" in raw)
    assert (found.whole, found.trailers) == (True, [])
    assert b"x-a" not in output


def test_trailers_in_several_messages() -> None:
    engine = begun(get("/", TE))
    engine.send_head(1, 200, [])
    engine.send_body(1, b"foo", False)
    engine.send_trailers(1, [(b"x-a", b"1")], False)
    with pytest.raises(ApplicationError):
        engine.send_trailers(1, [(b"x", b"a\nb")], False)
    engine.send_trailers(1, [], False)
    engine.send_trailers(1, [(b"x-b", b"2")], True)
    found = read(taken(engine))
    assert (found.body, found.trailers) == (b"foo", [(b"x-a", b"1"), (b"x-b", b"2")])
    engine.receive(get("/", TE))
    engine.send_head(2, 200, [])
    engine.send_trailers(2, [(b"x-c", b"3")], True)
    assert read(taken(engine)).trailers == [(b"x-c", b"3")], "nothing is left of the first"


def test_trailers_that_were_begun_are_not_the_next_answers() -> None:
    engine = begun(get("/", TE))
    engine.send_head(1, 200, LENGTH)
    engine.send_body(1, b"foobar", False)
    engine.send_trailers(1, [(b"x-a", b"1")], False)
    engine.reset(1)  # all that was promised is out: it counts as whole
    assert engine.ending is Ending.NO
    taken(engine)
    engine.receive(get("/", TE))
    engine.send_head(2, 200, [])
    engine.send_trailers(2, [], True)
    assert read(taken(engine)).trailers == []


def test_trailers_do_not_hide_a_broken_promise() -> None:
    engine = begun(get("/", TE))
    engine.send_head(1, 200, LENGTH)
    engine.send_body(1, b"foo", False)
    with pytest.raises(ApplicationError):
        engine.send_trailers(1, [], True)


def test_early_hints_go_before_the_answer() -> None:
    engine = begun()
    engine.send_informational(1, 103, [(b"link", b"</a>")])
    engine.send_head(1, 200, LENGTH)
    engine.send_informational(1, 103, [(b"link", b"</b>")])
    engine.send_body(1, b"foobar", False)
    engine.send_informational(1, 103, [(b"link", b"</c>")])
    engine.send_body(1, b"", True)
    engine.send_informational(1, 103, [(b"link", b"</d>")])
    found = read(taken(engine))
    assert found.hints == [(103, [(b"link", b"</a>")]), (103, [(b"link", b"</b>")])]
    assert found.body == b"foobar"


def test_early_hints_are_not_for_http_1_0() -> None:
    engine = begun(get("/", KEEP, "1.0"))
    assert not engine.supports_early_hints
    engine.send_informational(1, 103, [(b"link", b"</a>")])
    assert taken(engine) == b""


def test_an_early_hint_is_checked_even_where_it_is_dropped() -> None:
    with pytest.raises(ApplicationError):
        begun(get("/", b"", "1.0")).send_informational(1, 103, [(b"link", b"a\r\nb: c")])


@pytest.mark.parametrize("way", ["informational", "tunnel"])
def test_an_informational_answer_has_no_length(way: str) -> None:
    engine = begun(get("/", b"Connection: upgrade\r\nUpgrade: websocket\r\n"))
    if way == "tunnel":
        engine.open_tunnel(1, b"websocket", LENGTH)
    else:
        engine.send_informational(1, 103, LENGTH)
    assert b"content-length" not in taken(engine)


# ---------------------------------------------------------------------------- other streams


def test_what_is_sent_for_another_stream_goes_nowhere() -> None:
    engine = begun(GET + GET)
    for stream in (0, 2, 99):
        engine.send_informational(stream, 103, [])
        engine.send_head(stream, 200, [])
        engine.send_body(stream, b"no", True)
        engine.send_trailers(stream, [], True)
        engine.reset(stream)
    assert taken(engine) == b""
    assert read(sent(engine, LENGTH, b"foobar")).body == b"foobar"


def test_what_is_sent_after_the_end_goes_nowhere() -> None:
    engine = begun()
    whole = sent(engine, LENGTH, b"foobar")
    engine.send_body(1, b"more", True)
    engine.send_trailers(1, [], True)
    engine.reset(1)
    assert taken(engine) == b""
    assert engine.ending is Ending.NO
    assert read(whole).whole


# ---------------------------------------------------------------------------- default fields


def test_default_fields_and_the_applications_own() -> None:
    defaults = Defaults(b"tidegate", ((b"x-frame", b"deny"),))
    defaults.set_date(b"today")

    def fields(*own: tuple[bytes, bytes]) -> Pairs:
        output = sent(begun(defaults=defaults), [*LENGTH, *own], b"foobar")
        return [pair for pair in read(output).fields if pair[0] != b"content-length"]

    date, server, extra = (b"date", b"today"), (b"server", b"tidegate"), (b"x-frame", b"deny")
    assert fields() == [date, server, extra]
    assert fields((b"Date", b"mine")) == [server, extra, (b"date", b"mine")]
    assert fields((b"SERVER", b"mine")) == [date, extra, (b"server", b"mine")]
    own = ((b"server", b"a"), (b"date", b"b"))
    assert fields(*own) == [extra, *own]
    closing = (b"connection", b"close")
    assert fields(closing) == [date, server, extra, closing]
    assert fields(closing, *own) == [extra, *own, closing]
    assert fields() == [date, server, extra], "one answer's fields are not the next one's"
    defaults.set_date(b"tomorrow")
    assert fields()[0] == (b"date", b"tomorrow")


@pytest.mark.parametrize("headers", [LENGTH, [], [list(LENGTH[0])]], ids=["length", "no", "lists"])
@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("method", ["as-is", "HEAD"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_a_head_that_another_request_was_given_before(
    kind: str, method: str, status: int, headers: Pairs
) -> None:
    raw = REQUESTS[kind][0]
    if method == "HEAD":
        raw = b"HEAD" + raw[raw.index(b" ") :]
    warm = Defaults(b"tidegate")
    for known in (get(), b"HEAD" + get()[3:], get("/", b"", "1.0")):
        sent(begun(known, defaults=warm), headers, b"foobar", status=status)
    fresh = sent(begun(raw, defaults=Defaults(b"tidegate")), headers, b"foobar", status=status)
    assert sent(begun(raw, defaults=warm), headers, b"foobar", status=status) == fresh


def test_a_head_is_known_by_what_it_holds_and_not_by_its_list() -> None:
    defaults = Defaults()
    headers = [*LENGTH, (b"x-a", b"1")]
    assert b"x-a: 1\r\n" in sent(begun(defaults=defaults), headers, b"foobar")
    headers[1] = (b"x-a", b"2")
    assert b"x-a: 2\r\n" in sent(begun(defaults=defaults), headers, b"foobar")
    with pytest.raises(ApplicationError, match="line break"):
        sent(begun(defaults=defaults), [*headers, (b"x-a", b"1\r\n")], b"foobar")
    with pytest.raises(ApplicationError, match="must be an int"):
        sent(begun(defaults=defaults), headers, b"foobar", status=200.0)  # type: ignore[arg-type]


def test_heads_that_are_long_or_too_many_are_not_kept() -> None:
    defaults = Defaults()
    sent(begun(defaults=defaults), [*LENGTH, (b"x-long", b"a" * JOINED)], b"foobar")
    assert not defaults.rendered
    for number in range(HEADS + 9):
        output = sent(begun(defaults=defaults), [*LENGTH, (b"x", b"%d" % number)], b"foobar")
        assert b"x: %d\r\n" % number in output
    assert len(defaults.rendered) == HEADS
    defaults.set_date(b"today")
    assert not defaults.rendered


@pytest.mark.parametrize(
    "pair",
    [
        (b"transfer-encoding", b"chunked"),
        (b"Transfer-Encoding", b"gzip, chunked"),
        (b"keep-alive", b"timeout=5"),
        (b"connection", b"keep-alive"),
        (b"connection", b"upgrade"),
        (b"upgrade", b"h2c"),
        (b"proxy-connection", b"close"),
    ],
)
@pytest.mark.parametrize("headers", [LENGTH, []])
def test_what_is_between_the_peers_is_not_the_applications_to_say(
    headers: Pairs, pair: tuple[bytes, bytes]
) -> None:
    engine = begun()
    found = read(sent(engine, [*headers, pair], b"foobar"))
    assert found.body == b"foobar"
    own = b"chunked" if not headers and pair[0].lower() == b"transfer-encoding" else None
    assert found[pair[0].lower()] == own
    assert engine.ending is Ending.NO


@pytest.mark.parametrize("status", [426, 400])
@pytest.mark.parametrize("pair", [(b"upgrade", b"a/1, b"), [b"Upgrade", b"a/1, b"]])
def test_only_a_426_asks_for_an_upgrade(status: int, pair: Any) -> None:
    """RFC 9110 15.5.22: it has to; 7.8: and the connection field names it."""
    engine = begun()
    engine.send_head(1, status, [*LENGTH, pair])
    engine.send_body(1, b"foobar", True)
    found = read(b"".join(engine.take_output()))  # type: ignore[arg-type]
    assert found[b"upgrade"] == (b"a/1, b" if status == 426 else None)
    assert found[b"connection"] == (b"upgrade" if status == 426 else None)
    assert engine.ending is Ending.NO


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close", b"close , x"])
def test_an_application_may_end_the_connection(value: bytes) -> None:
    connection = Drive(whole=silent).feed(GET)
    found = read(sent(connection.engine, [*LENGTH, (b"Connection", value)], b"foobar"))
    assert found[b"connection"] == b"close"
    assert connection.engine.ending is Ending.STAGED
    assert connection.feed(GET).paths == ["/"]


def test_answers_come_in_the_order_of_the_requests() -> None:
    connection = drive(get("/1") + get("/2") + get("/3"), whole=silent)
    for number in range(3):
        answer(connection, connection.asked[number])
        connection.handle([])
    assert connection.paths == ["/1", "/2", "/3"]
    assert connection.output == drive(GET * 3).output
