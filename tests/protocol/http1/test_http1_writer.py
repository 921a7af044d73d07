"""Rendering: what an application may say in a head, and that nothing once remembered leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import pytest
from tests.support.http1_drive import begun, taken

from tidegate.errors import ApplicationError
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1.writer import (
    FINAL,
    PHRASES,
    Flag,
    read_fields,
    render_informational,
    render_refusal,
    render_trailers,
)
from tidegate.protocol.target import Refusal


def rendered(headers: Any) -> bytes:
    lines: list[bytes] = []
    read_fields(headers, lines)
    return b"".join(lines)


class OwnBytes(bytes):
    """As frameworks have them."""


PAIRS = [(b"x-a", b"1"), (b"X-B", b""), (b"x-a", b"caf\xe9 \t2")]
LINES = b"x-a: 1\r\nX-B: \r\nx-a: caf\xe9 \t2\r\n"
SHAPES: dict[str, Callable[[], Iterable[Any]]] = {
    "list": lambda: list(PAIRS),
    "tuple": lambda: tuple(PAIRS),
    "generator": lambda: (pair for pair in PAIRS),
    "lists": lambda: [list(pair) for pair in PAIRS],
    "generator-of-lists": lambda: (list(pair) for pair in PAIRS),
    "tuple-of-lists": lambda: tuple([*pair] for pair in PAIRS),
    "mixed": lambda: [PAIRS[0], list(PAIRS[1]), PAIRS[2]],
    "generators": lambda: [(part for part in pair) for pair in PAIRS],
    "own-bytes": lambda: [(OwnBytes(name), OwnBytes(value)) for name, value in PAIRS],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_in_every_shape(shape: str) -> None:
    assert rendered(SHAPES[shape]()) == LINES
    assert rendered(SHAPES[shape]()) == LINES, "known by now"


def test_what_stood_there_before_stays_and_is_not_doubled() -> None:
    lines = [b"before"]
    read_fields([PAIRS[0], list(PAIRS[1])], lines)  # type: ignore[list-item]
    assert lines == [b"before", b"x-a: 1\r\n", b"X-B: \r\n"]


BAD: dict[str, Any] = {
    "str-name": [("x-a", b"1")],
    "str-value": [(b"x-a", "1")],
    "strs": [("x-a", "1")],
    "bytearray-value": [(b"x-a", bytearray(b"1"))],
    "bytearray-name": [(bytearray(b"x-a"), b"1")],
    "bytearrays-in-a-list": [[bytearray(b"x-a"), bytearray(b"1")]],
    "int-value": [(b"x-a", 1)],
    "int-length": [(b"content-length", 1)],
    "none": [(b"x-a", None)],
    "one-part": [(b"x-a",)],
    "three-parts": [(b"x-a", b"1", b"2")],
    "three-in-a-list": [[b"x-a", b"1", b"2"]],
    "no-pairs": [b"x-a: 1"],
    "numbers": [1, 2],
    "a-dict": {b"x-a": b"1"},
    "a-dict-of-two-letters": {b"te": b"1"},
    "nested": [((b"x-a", b"1"), b"2")],
    "empty-name": [(b"", b"1")],
    "name-with-space": [(b"x a", b"1")],
    "name-with-colon": [(b"x:", b"1")],
    "name-with-line": [(b"x\r\ny", b"1")],
    "name-beyond-ascii": [(b"x\xe9", b"1")],
    "value-with-lf": [(b"x-a", b"1\n2")],
    "value-with-cr": [(b"x-a", b"1\r2")],
    "value-ends-in-lf": [(b"x-a", b"1\n")],
    "value-with-nul": [(b"x-a", b"1\x00")],
    "value-with-del": [(b"x-a", b"\x7f")],
    "length-of-a-word": [(b"content-length", b"five")],
    "length-below-zero": [(b"content-length", b"-1")],
    "length-empty": [(b"content-length", b"")],
    "length-with-space": [(b"content-length", b" 5")],
    "length-absurd": [(b"content-length", b"9" * 19)],
    "length-list": [(b"content-length", b"5, 5")],
    "date-with-line": [(b"date", b"a\r\nb: c")],
    "connection-with-line": [(b"connection", b"close\r\nb: c")],
    "two-lengths": [(b"content-length", b"5"), (b"Content-Length", b"5")],
    "two-lengths-zero": [(b"content-length", b"0"), (b"content-length", b"0")],
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("before", [[], [(b"x-z", b"1")]])
def test_what_is_refused_is_refused_each_time(bad: str, before: list[Any]) -> None:
    rendered([(b"x-a", b"1"), (b"te", b"1")])  # its good twin is known
    headers = BAD[bad] if isinstance(BAD[bad], dict) else [*before, *BAD[bad]]
    for _ in range(2):
        with pytest.raises(ApplicationError) as caught:
            rendered(headers)
        assert str(caught.value)
    assert rendered([(b"x-a", b"1")]) == b"x-a: 1\r\n"


@pytest.mark.parametrize(
    "pair",
    [
        ("x-memo", "1"),
        (b"x-memo", "1"),
        ("x-memo", b"1"),
        (b"x-memo", 1),
    ],
)
def test_a_known_pair_is_known_in_its_own_type_only(pair: Any) -> None:
    with pytest.raises(ApplicationError):
        rendered([pair])
    assert rendered([(b"x-memo", b"1")]) == b"x-memo: 1\r\n"
    with pytest.raises(ApplicationError):
        rendered([pair])


def test_a_view_of_known_bytes_is_sent_as_those_bytes() -> None:
    """It is equal to them, so it finds them; a check of each value's type would cost every answer."""
    assert rendered([(b"x-view", b"1")]) == b"x-view: 1\r\n"
    assert rendered([(b"x-view", memoryview(b"1"))]) == b"x-view: 1\r\n"  # type: ignore[list-item]


def test_names_that_differ_in_case_are_each_sent_as_they_are() -> None:
    for name in (b"x-case", b"X-Case", b"X-CASE"):
        assert rendered([(name, b"1")]) == name + b": 1\r\n"


def test_more_than_is_remembered_is_rendered_all_the_same() -> None:
    for _ in range(2):
        for number in range(3000):
            assert rendered([(b"x-%d" % number, b"1")]) == b"x-%d: 1\r\n" % number
    for size in (100, 250, 256, 257, 5000):
        for _ in range(2):
            assert rendered([(b"x", b"a" * size)]) == b"x: " + b"a" * size + b"\r\n"


@pytest.mark.parametrize(
    ("pair", "length", "flags", "line"),
    [
        ((b"Content-Length", b"5"), 5, 0, b"Content-Length: 5\r\n"),
        ((b"content-length", b"0"), 0, 0, b"content-length: 0\r\n"),
        ((b"connection", b"close"), -1, Flag.CLOSE, b""),
        ((b"Connection", b"keep-alive, CLOSE"), -1, Flag.CLOSE, b""),
        ((b"connection", b"closed"), -1, 0, b""),
        ((b"connection", b"keep-alive"), -1, 0, b""),
        ((b"date", b"d"), -1, Flag.DATE, b"date: d\r\n"),
        ((b"Server", b"s"), -1, Flag.SERVER, b"Server: s\r\n"),
        ((b"transfer-encoding", b"chunked"), -1, 0, b""),
        ((b"keep-alive", b"timeout=1"), -1, 0, b""),
        ((b"upgrade", b"h2c"), -1, 0, b""),
        ((b"proxy-connection", b"close"), -1, 0, b""),
        ((b"x-connection", b"close"), -1, 0, b"x-connection: close\r\n"),
    ],
)
def test_fields_that_mean_something(
    pair: tuple[bytes, bytes], length: int, flags: int, line: bytes
) -> None:
    for _ in range(2):
        lines: list[bytes] = []
        assert read_fields([pair], lines) == (length, flags)
        assert b"".join(lines) == line


def test_flags_of_several_fields_come_together() -> None:
    fields = [(b"date", b"d"), (b"server", b"s"), (b"connection", b"close")]
    assert read_fields(fields, []) == (-1, Flag.CLOSE | Flag.DATE | Flag.SERVER)


@pytest.mark.parametrize("status", range(200, 600))
def test_status_lines(status: int) -> None:
    line = FINAL[status]
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert line.endswith(b"\r\n")
    if status in set(HTTPStatus):
        assert line == f"HTTP/1.1 {status} {PHRASES[status]}\r\n".encode()
        assert PHRASES[status]
    else:
        assert line == b"HTTP/1.1 %d \r\n" % status, "the reason may be empty, its space may not"


def test_a_status_of_the_standard_librarys_own_kind() -> None:
    assert FINAL[HTTPStatus.NOT_FOUND] == FINAL[404] == b"HTTP/1.1 404 Not Found\r\n"


@pytest.mark.parametrize("status", [0, 99, 100, 101, 103, 199, 600, 999, -200, True, "200", None, 250.5])  # fmt: skip
def test_what_is_no_status_is_refused_each_time(status: Any) -> None:
    for _ in range(2):
        with pytest.raises(ApplicationError, match="status"):
            FINAL[status]


@pytest.mark.parametrize("status", [200.0, [200], "200", None, True, 600])
def test_a_status_is_refused_whatever_is_known(status: Any) -> None:
    engine = begun()
    assert FINAL[200]
    for _ in range(2):
        with pytest.raises(ApplicationError, match="status"):
            engine.send_head(1, status, [])
    engine.send_head(1, HTTPStatus.OK, [])
    engine.send_body(1, b"", True)
    assert taken(engine).startswith(b"HTTP/1.1 200 OK\r\n")


def test_trailers() -> None:
    assert render_trailers([]) == b""
    assert render_trailers([(b"X-A", b"1"), (b"x-b", b"")]) == b"X-A: 1\r\nx-b: \r\n"


@pytest.mark.parametrize(
    "pair",
    [(b"content-length", b"1"), (b"Transfer-Encoding", b"chunked"), (b"host", b"a"), (b"HOST", b""),
     (b"connection", b"close"), (b"date", b"d"), (b"x", b"a\r\nb"), (b"x y", b"1"), (b"x", "1"),
     (b"x\r\n", b"1"), ("x", b"1")],
)  # fmt: skip
def test_what_cannot_be_a_trailer(pair: Any) -> None:
    with pytest.raises(ApplicationError):
        render_trailers([(b"good", b"1"), pair])


def test_an_informational_answer() -> None:
    hint = render_informational(103, [(b"link", b"</a>"), (b"link", b"</b>")])
    assert hint == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n"
    with pytest.raises(ApplicationError):
        render_informational(103, [(b"link", b"a\nb")])


@pytest.mark.parametrize("status", [400, 408, 413, 414, 417, 431, 501, 505])
def test_a_refusal(status: int) -> None:
    defaults = Defaults(b"tidegate", ((b"x", b"y"),))
    defaults.set_date(b"today")
    refusal = Refusal(status, "because", "RFC 9112 2.2")
    head, empty, text = render_refusal(refusal, defaults).partition(b"\r\n\r\n")
    assert head.startswith(FINAL[status] + b"date: today\r\nserver: tidegate\r\nx: y\r\n")
    assert text.endswith(b": because (RFC 9112 2.2)\n")
    assert b"content-length: %d\r\nconnection: close" % len(text) in head
    assert render_refusal(refusal, defaults, bodiless=True) == head + empty
