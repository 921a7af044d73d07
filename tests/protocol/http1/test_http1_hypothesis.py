"""Requests that are made up: what was made is what is delivered, and what is damaged does no harm.

A made request is bytes and what an application must see of them, worked out beside the engine. Then
bytes are deleted, inserted, replaced, repeated and swapped: whatever that makes of it, the engine
must not raise, must refuse at most once, and may change nothing about what came before the damage.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from tests.support.http1_drive import GET, Asked, Drive, answer, chunked, drive, each_byte, post

from tidegate.errors import ApplicationError
from tidegate.protocol.engine import Ending, Limits

LIMITS = Limits(body_size=100_000)
SMALL = Limits(request_line=60, header_size=160, header_count=4, body_size=20)
tried = settings(
    max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@dataclass(frozen=True)
class Made:
    raw: bytes
    method: str
    raw_path: bytes
    query: bytes
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def check(self, asked: Asked) -> None:
        head = asked.head
        assert asked.whole
        assert (head["method"], head["version"]) == (self.method, self.version)
        assert (head["raw_path"], head["query"]) == (self.raw_path, self.query)
        assert head["path"] == unquote(self.raw_path.decode(), "utf-8", "replace")
        assert head["headers"] == self.headers
        assert bytes(asked.body) == self.body


# ---------------------------------------------------------------------------- parts

TCHAR = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
tokens = st.text(TCHAR + TCHAR[25:].lower(), min_size=1, max_size=12).map(str.encode)
methods = st.one_of(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    st.text(TCHAR, min_size=1, max_size=32).filter(lambda method: method != "CONNECT"),
)
visible = bytes(code for code in range(0x21, 0x7F) if code != 0x23)  # no fragment
in_paths = st.lists(
    st.one_of(
        st.sampled_from(visible.replace(b"?", b"")).map(lambda code: bytes([code])),
        st.integers(0, 255).map(lambda code: b"%%%02X" % code),
    ),
    max_size=15,
).map(b"".join)
in_queries = st.lists(st.sampled_from(visible), max_size=15).map(bytes)
authorities = st.sampled_from([b"a", b"a.test:80", b"a:", b"127.0.0.1", b"[::1]:8", b"%41", b"x_y"])
values = st.lists(st.sampled_from([9, *range(0x20, 0x7F), *range(0x80, 0x100)]), max_size=25).map(
    lambda codes: bytes(codes).strip(b" \t")
)
white = st.text(" \t", max_size=3).map(str.encode)
MEANINGFUL = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"}


@st.composite
def lines(draw: DrawFn) -> tuple[bytes, bytes, bytes]:
    """A field line that frames nothing; its name in lower case; its value."""
    name = draw(tokens.filter(lambda name: name.lower() not in MEANINGFUL))
    value = draw(values)
    return name + b":" + draw(white) + value + draw(white) + b"\r\n", name.lower(), value


@st.composite
def targets(draw: DrawFn, method: str) -> tuple[bytes, bytes, bytes, bytes | None]:
    """(as it is sent, raw path, query, authority)"""
    form = draw(st.sampled_from(["origin", "origin", "absolute", "asterisk"]))
    if form == "asterisk" and method == "OPTIONS":
        return b"*", b"*", b"", None
    path, query = b"/" + draw(in_paths), draw(st.none() | in_queries)
    behind = b"" if query is None else b"?" + query
    if form != "absolute":
        return path + behind, path, query or b"", None
    authority = draw(authorities)
    start = draw(st.sampled_from([b"http://", b"https://", b"HTTP://"])) + authority
    if draw(st.booleans()):
        return start + path + behind, path, query or b"", authority
    bare = b"*" if method == "OPTIONS" and not behind else b"/"
    return start + behind, bare, query or b"", authority


extensions = st.lists(
    st.tuples(white, white, tokens, st.none() | tokens | st.just(b'"a;\\"b\xff"')), max_size=2
).map(
    lambda found: b"".join(
        before + b";" + after + name + (b"" if value is None else b"=" + value)
        for before, after, name, value in found
    )
)


@st.composite
def chunks(draw: DrawFn) -> tuple[bytes, bytes]:
    """(as it is sent, the body)"""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    raw = b""
    for piece in pieces:
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x"])) % len(piece)
        raw += size + draw(extensions) + b"\r\n" + piece + b"\r\n"
    raw += draw(st.sampled_from([b"0", b"000"])) + draw(extensions) + b"\r\n"
    trailers = [line for line, _, _ in draw(st.lists(lines(), max_size=2))]
    return raw + b"".join(trailers) + b"\r\n", b"".join(pieces)


@st.composite
def requests(draw: DrawFn) -> Made:
    method = draw(methods)
    target, raw_path, query, authority = draw(targets(method))
    minor = draw(st.sampled_from([1, 1, 1, 0, 2, 9]))
    fields = draw(st.lists(lines(), max_size=4))
    host = draw(authorities)
    fields.insert(draw(st.integers(0, len(fields))), (b"HoSt: " + host + b"\r\n", b"host", host))
    if minor == 0:
        fields.append((b"Connection: keep-alive\r\n", b"connection", b"keep-alive"))
    kind = draw(st.sampled_from(["none", "length", "chunked"] if minor else ["none", "length"]))
    sent = body = b""
    if kind == "length":
        sent = body = draw(st.binary(max_size=60))
        number = b"%d" % len(body)
        fields.append((b"Content-length:" + number + b"\r\n", b"content-length", number))
    elif kind == "chunked":
        sent, body = draw(chunks())
        fields.append((b"transfer-encoding: Chunked\r\n", b"transfer-encoding", b"Chunked"))
    raw = method.encode() + b" " + target + b" HTTP/1.%d\r\n" % minor
    raw = draw(st.sampled_from([b"", b"", b"\r\n"])) + raw
    headers = tuple((name, value) for _, name, value in fields)
    if authority is not None:
        headers = ((b"host", authority), *(pair for pair in headers if pair[0] != b"host"))
    return Made(
        raw + b"".join(line for line, _, _ in fields) + b"\r\n" + sent,
        method, raw_path, query, "1.1" if minor else "1.0", headers, body,
    )  # fmt: skip


@st.composite
def cuts(draw: DrawFn, size: int) -> list[tuple[int, int]]:
    edges = draw(st.lists(st.integers(0, size), max_size=6))
    return list(itertools.pairwise([0, *sorted(edges), size]))


# ---------------------------------------------------------------------------- what is good


@tried
@given(st.lists(requests(), min_size=1, max_size=4), st.data())
def test_what_was_made_is_what_is_delivered(made: list[Made], data: st.DataObject) -> None:
    raw = b"".join(one.raw for one in made)
    ways = [[raw], [one.raw for one in made], each_byte(raw)]
    ways.append([raw[a:b] for a, b in data.draw(cuts(len(raw))) if a < b])
    stories = []
    for pieces in ways:
        connection = drive(pieces, LIMITS)
        assert connection.faults == []
        assert len(connection.asked) == len(made)
        for one, asked in zip(made, connection.asked, strict=True):
            one.check(asked)
        assert connection.output.count(b"HTTP/1.1 200 OK\r\n") == len(made)
        assert connection.engine.ending is Ending.NO
        stories.append(connection.story())
    assert all(story == stories[0] for story in stories)


@tried
@given(requests())
def test_each_is_nothing_until_it_is_whole(made: Made) -> None:
    connection = Drive(LIMITS)
    for at, byte in enumerate(each_byte(made.raw), 1):
        connection.feed(byte)
        assert [asked.whole for asked in connection.asked].count(True) == (at == len(made.raw))


# ---------------------------------------------------------------------------- what is damaged


@st.composite
def damaged(draw: DrawFn) -> tuple[bytes, bytes, int]:
    """(undamaged, damaged, how many bytes at the beginning are the same)"""
    raw = b"".join(one.raw for one in draw(st.lists(requests(), min_size=1, max_size=3))) + GET
    other = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(other) - 1, 0)))
        match draw(st.sampled_from(["delete", "insert", "replace", "repeat", "swap"])):
            case "delete":
                del other[at : at + draw(st.integers(1, 6))]
            case "insert":
                nasty = [
                    b"\r",
                    b"\n",
                    b"\r\n",
                    b"\r\n\r\n",
                    b" ",
                    b":",
                    b"\0",
                    b"0\r\n\r\n",
                    b"\xff",
                ]
                other[at:at] = draw(st.sampled_from(nasty) | st.binary(min_size=1, max_size=3))
            case "replace":
                other[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "repeat":
                other[at:at] = other[at : at + draw(st.integers(1, 40))]
            case _:
                other[at : at + 2] = other[at : at + 2][::-1]
    same = next(
        (at for at, (a, b) in enumerate(zip(raw, other, strict=False)) if a != b),
        min(len(raw), len(other)),
    )
    return raw, bytes(other), same


def goes_on_from(whole: Drive, prefix: Drive) -> None:
    """What was told of the beginning is what is told of it when more follows."""
    assert len(whole.asked) >= len(prefix.asked)
    for now, then in zip(whole.asked, prefix.asked, strict=False):
        assert (now.stream, now.head) == (then.stream, then.head)
        if then.whole:
            assert (now.whole, now.body) == (True, then.body)
        else:  # of a body that broke off, the smaller pieces tell the more
            assert now.body.startswith(then.body) or then.body.startswith(now.body)
    if not prefix.faults:
        answers = bytes(prefix.output)
        assert bytes(whole.output).startswith(answers)


@tried
@given(damaged())
@example((GET, GET[:-2] + b"\n", len(GET) - 2))
def test_damage_does_no_harm(found: tuple[bytes, bytes, int]) -> None:
    raw, other, same = found
    for limits in (LIMITS, SMALL):
        whole = drive(other, limits)  # raises if anything is told after a fault
        assert len(whole.faults) <= 1
        assert (whole.engine.ending is not Ending.NO) >= bool(whole.faults)
        assert whole.output.count(b"HTTP/1.1 200 OK\r\n") == sum(a.whole for a in whole.asked)
        goes_on_from(whole, drive(raw[:same], limits))
        whole.feed(GET).eof().feed(b"")
        assert len(whole.faults) <= 1


@tried
@given(damaged(), st.data())
def test_damage_is_judged_alike_however_it_comes(
    found: tuple[bytes, bytes, int], data: st.DataObject
) -> None:
    _, other, _ = found
    whole = drive(other, LIMITS)
    slow = drive(each_byte(other), LIMITS)
    assert slow.story() == whole.story()
    assert slow.torn.startswith(whole.torn)
    pieces = [other[a:b] for a, b in data.draw(cuts(len(other))) if a < b]
    assert drive(pieces, LIMITS).story() == whole.story()


@tried
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", GET, chunked(b""), post(b"Content-Length: 9\r\n")]),
)
def test_bytes_of_no_sense(noise: bytes, before: bytes) -> None:
    whole, slow = drive(before + noise, SMALL), drive([before, *each_byte(noise)], SMALL)
    assert slow.faults == whole.faults
    assert len(whole.asked) == len(slow.asked)
    slow.eof()


# ---------------------------------------------------------------------------- calls in any order

actions = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), st.sampled_from(
            [GET, GET[:20], GET[20:], b"", post(b"Content-Length: 3\r\n", b"a"), b"bc", b"\0",
             chunked(b"1\r\nx\r\n"), b"0\r\n\r\n", b"HEAD" + GET[3:], b"GET / HTTP/1.0\r\n\r\n"])),
        st.tuples(st.just("head"), st.sampled_from([(), ((b"content-length", b"2"),)])),
        st.tuples(st.just("body"), st.sampled_from([b"", b"o", b"ok"])),
        st.tuples(st.just("end"), st.sampled_from([b"", b"ok"])),
        st.tuples(st.sampled_from(["take", "hint", "trailers", "reset", "stop", "eof", "timeout",
                                   "output"]), st.none()),
    ),
    max_size=25,
)  # fmt: skip


@pytest.mark.parametrize("greedy", [False, True])
@settings(tried, max_examples=300)
@given(actions)
def test_calls_in_any_order_that_is_allowed(greedy: bool, steps: list[tuple[str, Any]]) -> None:
    """As an exchange and a connection may call; a head is sent once a request, before bodies."""
    connection = Drive(LIMITS, whole=lambda *_: None)
    engine = connection.engine
    headed: set[int] = set()
    over = False
    for action, with_what in steps:
        stream = connection.asked[-1].stream if connection.asked else 0
        if greedy:
            connection.handle([])
        try:
            if action == "receive" and not over:
                connection.feed(with_what)
            elif action == "eof":
                over = True
                connection.eof()
            elif action == "timeout" and engine.waiting.name in ("HEAD", "BODY"):
                connection.handle(engine.receive_timeout())
            elif action == "stop":
                engine.stop()
            elif action == "reset":
                engine.reset(stream or 99)
                headed.add(stream)
            elif action == "head" and stream and stream not in headed:
                headed.add(stream)
                engine.send_head(stream, 200, with_what)
            elif action in ("body", "end") and stream in headed:
                engine.send_body(stream, with_what, action == "end")
            elif action == "trailers" and stream in headed:
                engine.send_trailers(stream, [(b"x", b"y")], True)
            elif action == "hint":
                engine.send_informational(stream, 103, [(b"link", b"a")])
            elif action == "take":
                engine.take_body(stream, 0)
            elif action == "output":
                connection.handle([])
        except ApplicationError:  # a broken promise
            engine.reset(stream)
        assert engine.queued(stream) >= 0
    connection.eof()
    assert len(connection.faults) <= 1
    if not engine.stalled and engine.waiting.name != "NOTHING":
        assert engine.ending is not Ending.NO


@settings(tried, max_examples=100)
@given(st.lists(st.binary(max_size=2000), max_size=6), st.booleans(), st.integers(0, 5))
def test_a_body_comes_out_as_it_went_in(pieces: list[bytes], length: bool, taken: int) -> None:
    total = b"".join(pieces)
    connection = Drive(whole=lambda *_: None).feed(GET)
    engine = connection.engine
    engine.send_head(1, 200, [(b"content-length", b"%d" % len(total))] if length else [])
    for at, piece in enumerate(pieces):
        engine.send_body(1, piece, False)
        if at % 6 == taken:
            connection.handle([])
    engine.send_body(1, b"", True)
    connection.handle([])
    _, _, body = bytes(connection.output).partition(b"\r\n\r\n")
    if length:
        assert body == total
    else:
        again = drive(chunked(body), Limits(), whole=answer)
        assert again.faults == []
        assert again.bodies == [total]
        assert len(again.asked) == 1
