"""The grammar of a head, function by function: what is remembered, and both roads to it."""

from __future__ import annotations

import pytest
from tests.support.http1_drive import facts

from tidegate.protocol.engine import Limits
from tidegate.protocol.http1.reader import (
    LONGEST_METHOD,
    HeadScanner,
    Refusal,
    RequestLine,
    insist_on_head,
    interpret,
    parse_field_line,
    parse_head,
    parse_request_line,
    split_fields,
)
from tidegate.types import Header

HOST = (b"host", b"a")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", ("GET", b"/", b"", "1.1", "/", None)),
        (b"GET /a?b?c HTTP/1.0", ("GET", b"/a", b"b?c", "1.0", "/a", None)),
        (b"GET /%c3%A9%2F%ff HTTP/1.1", ("GET", b"/%c3%A9%2F%ff", b"", "1.1", "/é/\ufffd", None)),
        (b"GET /%zz%4 HTTP/1.1", ("GET", b"/%zz%4", b"", "1.1", "/%zz%4", None)),
        (b"GET //a HTTP/1.1", ("GET", b"//a", b"", "1.1", "//a", None)),
        (b"GET ? HTTP/1.1", 400),
        (b"OPTIONS * HTTP/1.1", ("OPTIONS", b"*", b"", "1.1", "*", None)),
        (b"OPTIONS http://a HTTP/1.1", ("OPTIONS", b"*", b"", "1.1", "*", b"a")),
        (b"OPTIONS http://a?b HTTP/1.1", ("OPTIONS", b"/", b"b", "1.1", "/", b"a")),
        (b"GET http://a HTTP/1.1", ("GET", b"/", b"", "1.1", "/", b"a")),
        (b"GET hTTps://a:1/b?c HTTP/1.1", ("GET", b"/b", b"c", "1.1", "/b", b"a:1")),
        (b"GET http://[::1]:80 HTTP/1.1", ("GET", b"/", b"", "1.1", "/", b"[::1]:80")),
        (b"%b / HTTP/1.1" % (b"M" * LONGEST_METHOD), ("M" * 32, b"/", b"", "1.1", "/", None)),
        (b"%b / HTTP/1.1" % (b"M" * (LONGEST_METHOD + 1)), 501),
        (b"get / HTTP/1.1", 501),
        (b"Get / HTTP/1.1", 501),
        (b"GET /#a HTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r", 400),
        (b"", 400),
    ],
)
def test_request_lines(line: bytes, expected: tuple[object, ...] | int) -> None:
    if isinstance(expected, int):
        with pytest.raises(Refusal) as caught:
            parse_request_line(line)
        assert caught.value.status == expected
    else:
        assert tuple(parse_request_line(line)) == expected
        assert isinstance(parse_request_line(line), RequestLine)


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        (b"Host: a\r\n", (b"host", b"a")),
        (b"X-A:\t b:c \t\r\n", (b"x-a", b"b:c")),
        (b"X:\r\n", (b"x", b"")),
        (b"X: \xff\x80\r\n", (b"x", b"\xff\x80")),
    ],
)
def test_field_lines(line: bytes, pair: Header) -> None:
    assert parse_field_line(line) == pair
    assert parse_field_line(line) == pair


@pytest.mark.parametrize(
    "line",
    [b"X: y\n", b"X: y\r", b"X: y", b"X\r\n", b"\r\n", b": y\r\n", b"X : y\r\n", b" X: y\r\n",
     b"\tX: y\r\n", b"X Y: z\r\n", b"X: a\rb\r\n", b"X: a\nb\r\n", b"X: \x00\r\n", b"X\r\nY: z\r\n",
     b"X: \x7f\r\n", b"X\xe9: y\r\n"],
)  # fmt: skip
def test_bad_field_lines_are_refused_each_time(line: bytes) -> None:
    parse_field_line(b"X: y\r\n")
    for _ in range(2):
        with pytest.raises(Refusal):
            parse_field_line(line)


def test_a_known_name_without_a_colon_is_still_no_field() -> None:
    parse_field_line(b"X-Known: 1\r\n")
    with pytest.raises(Refusal, match="colon"):
        parse_field_line(b"X-Known\r\n")
    with pytest.raises(Refusal, match="colon"):
        split_fields(b"X-Known\r\n\r\n")


def test_more_lines_than_are_remembered_are_read_all_the_same() -> None:
    for _ in range(2):
        for number in range(3000):
            assert split_fields(b"X-%d: y\r\n\r\n" % number) == ((b"x-%d" % number, b"y"),)
    for size in (200, 252, 253, 254, 5000):
        for _ in range(2):
            assert split_fields(b"X: %b\r\n\r\n" % (b"a" * size)) == ((b"x", b"a" * size),)


@pytest.mark.parametrize(
    ("version", "connection", "closes"),
    [
        ("1.1", None, False),
        ("1.1", b"close", True),
        ("1.1", b"Keep-Alive , CLOSE", True),
        ("1.1", b"closed", False),
        ("1.1", b"keep-alive", False),
        ("1.0", None, True),
        ("1.0", b"keep-alive", False),
        ("1.0", b"Keep-Alive", False),
        ("1.0", b"keep-alive, close", True),
    ],
)
def test_who_ends_the_connection(version: str, connection: bytes | None, closes: bool) -> None:
    fields = (HOST,) if connection is None else (HOST, (b"connection", connection))
    assert interpret(fields, version).closes is closes


@pytest.mark.parametrize(
    ("fields", "version", "status"),
    [
        (((b"expect", b"100-Continue"),), "1.1", 0),
        (((b"expect", b"200-ok"),), "1.1", 417),
        (((b"expect", b"100-continue"), (b"expect", b"x")), "1.1", 417),
        (((b"expect", b"x"),), "1.0", 0),
        (((b"transfer-encoding", b"chunked"),), "1.0", 400),
        (((b"transfer-encoding", b"chunked"), (b"content-length", b"0")), "1.1", 400),
        (((b"transfer-encoding", b"gzip, chunked"),), "1.1", 501),
        (((b"transfer-encoding", b"chunked, gzip"),), "1.1", 400),
        (((b"content-length", b"0"), (b"content-length", b"0")), "1.1", 400),
        (((b"content-length", b"9" * 18),), "1.1", 0),
        (((b"content-length", b"9" * 19),), "1.1", 400),
        ((HOST,), "1.1", 400),
    ],
)
def test_what_fields_mean_together(fields: tuple[Header, ...], version: str, status: int) -> None:
    for _ in range(2):
        if status:
            with pytest.raises(Refusal) as caught:
                interpret((HOST, *fields), version)
            assert caught.value.status == status
        else:
            interpret((HOST, *fields), version)


def test_the_same_fields_mean_other_things_in_other_versions() -> None:
    fields = (HOST, (b"te", b"trailers"), (b"connection", b"keep-alive"))
    assert interpret(fields, "1.1").trailers
    assert not interpret(fields, "1.0").trailers
    assert interpret(fields, "1.1").trailers
    assert interpret((), "1.0").length == 0
    with pytest.raises(Refusal):
        interpret((), "1.1")


HEADS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST http://b/?c HTTP/1.1\r\nX: y\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost:\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n",
]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("blank", [0, 1, 4])
def test_both_roads_lead_to_the_same_head(head: bytes, blank: int) -> None:
    quick = parse_head(head, Limits())
    assert quick is not None
    scanner, buffer = HeadScanner(Limits()), bytearray()
    for at, byte in enumerate(b"\r\n" * blank + head, 1):
        buffer.append(byte)
        end = scanner.scan(buffer)
        assert (end is not None) == (at == 2 * blank + len(head))
    assert scanner.begin == 2 * blank
    assert scanner.asks_head == (quick.method == "HEAD")
    slow = insist_on_head(head)
    assert facts(slow) == facts(quick)
    assert (slow.framing, slow.plain, slow.end) == (quick.framing, quick.plain, quick.end)


@pytest.mark.parametrize(
    "head",
    [
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 8192),
        b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 65536),
        b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"X: y\r\n" * 100),
    ],
)
def test_the_quick_road_leaves_the_rest_to_the_scanner(head: bytes) -> None:
    assert parse_head(head, Limits()) is None


def test_the_bytes_behind_a_head_are_not_looked_at() -> None:
    scanner = HeadScanner(Limits())
    buffer = bytearray(HEADS[0] + b"\0\n\0")
    assert scanner.scan(buffer) == len(HEADS[0])
