"""What a field section has to be to be a request (RFC 9113 8.2, 8.3, 8.5), each rule alone."""

from __future__ import annotations

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import Drive
from tests.support.http2_frames import Code, block, data, get, headers, post, request

from tidegate.protocol.engine import Limits

METHOD, SCHEME, PATH, AUTHORITY = [[pair] for pair in request()]
PROTOCOL = [(b":protocol", b"websocket")]
CONNECT = [(b":method", b"CONNECT")]

MALFORMED = {
    "no method": SCHEME + PATH + AUTHORITY,
    "no scheme": METHOD + PATH + AUTHORITY,
    "no path": METHOD + SCHEME + AUTHORITY,
    "no authority and no host": METHOD + SCHEME + PATH,
    "nothing at all": [],
    "method twice": request() + METHOD,
    "path twice": request() + PATH,
    "authority twice": request() + AUTHORITY,
    "a pseudo field behind another": METHOD + SCHEME + PATH + [(b"a", b"b")] + AUTHORITY,
    "a pseudo field behind a cookie": METHOD + SCHEME + PATH + [(b"cookie", b"b")] + AUTHORITY,
    "an unknown pseudo field": request(b"/", (b":other", b"x")),
    "a pseudo field of answers": request(b"/", (b":status", b"200")),
    "empty path": METHOD + SCHEME + [(b":path", b"")] + AUTHORITY,
    "relative path": request(b"index"),
    "asterisk for a GET": request(b"*"),
    "absolute path": request(b"http://example.com/"),
    "fragment": request(b"/#a"),
    "space in the path": request(b"/a b"),
    "line break in the path": request(b"/a\r\nb"),
    "NUL in the path": request(b"/\0"),
    "space in the method": request(method=b"GE T"),
    "empty method": request(method=b""),
    "empty scheme": [*METHOD, (b":scheme", b""), *PATH, *AUTHORITY],
    "two words of a scheme": [*METHOD, (b":scheme", b"ht tp"), *PATH, *AUTHORITY],
    "empty authority": METHOD + SCHEME + PATH + [(b":authority", b"")],
    "userinfo": METHOD + SCHEME + PATH + [(b":authority", b"me@example.com")],
    "another host": request(b"/", (b"host", b"other.test")),
    "two hosts": request(b"/", (b"host", b"example.com"), (b"host", b"example.com")),
    "capitals": request(b"/", (b"Accept", b"x")),
    "a name with a space": request(b"/", (b"a b", b"x")),
    "a name with a colon": request(b"/", (b"a:b", b"x")),
    "an empty name": request(b"/", (b"", b"x")),
    "a name beyond ASCII": request(b"/", (b"\xc3\xbc", b"x")),
    "NUL in a value": request(b"/", (b"a", b"x\0")),
    "CR in a value": request(b"/", (b"a", b"x\ry")),
    "LF in a cookie": request(b"/", (b"cookie", b"x\ny")),
    "space before a value": request(b"/", (b"a", b" x")),
    "tab behind a value": request(b"/", (b"a", b"x\t")),
    "connection": request(b"/", (b"connection", b"close")),
    "keep-alive": request(b"/", (b"keep-alive", b"1")),
    "proxy-connection": request(b"/", (b"proxy-connection", b"x")),
    "transfer-encoding": request(b"/", (b"transfer-encoding", b"chunked")),
    "upgrade": request(b"/", (b"upgrade", b"h2c")),
    "te: gzip": request(b"/", (b"te", b"gzip")),
    "te: trailers and more": request(b"/", (b"te", b"trailers, gzip")),
    "two lengths": request(b"/", (b"content-length", b"0"), (b"content-length", b"0")),
    "a length with a sign": request(b"/", (b"content-length", b"+1")),
    "a length of nothing": request(b"/", (b"content-length", b"")),
    "a length without a body": request(b"/", (b"content-length", b"1")),
    "CONNECT with a path": CONNECT + PATH + AUTHORITY,
    "CONNECT with a scheme": CONNECT + SCHEME + AUTHORITY,
    "CONNECT without authority": CONNECT,
    "protocol without CONNECT": METHOD + PROTOCOL + SCHEME + PATH + AUTHORITY,
    "protocol without path": CONNECT + PROTOCOL + SCHEME + AUTHORITY,
    "protocol without authority": CONNECT + PROTOCOL + SCHEME + PATH,
}
REFUSED = {
    "CONNECT": (501, CONNECT + AUTHORITY),
    "another protocol": (501, [*CONNECT, (b":protocol", b"smtp"), *SCHEME, *PATH, *AUTHORITY]),
    "method in lower case": (501, request(method=b"get")),
    "a long method": (501, request(method=b"M" * 33)),
    "an expectation": (417, request(b"/", (b"expect", b"200-maybe"))),
    "too many fields": (431, request(b"/", *[(b"x-%d" % n, b"") for n in range(97)])),
}
GOOD = {
    "host alone": METHOD + SCHEME + PATH + [(b"host", b"example.com")],
    "host and authority": request(b"/", (b"host", b"EXAMPLE.com")),
    "asterisk for OPTIONS": request(b"*", method=b"OPTIONS"),
    "another scheme": [*METHOD, (b":scheme", b"svn+ssh"), *PATH, *AUTHORITY],
    "an empty value": request(b"/", (b"x", b"")),
    "obs-text": request(b"/", (b"x", b"\xff\x80")),
    "te: trailers": request(b"/", (b"te", b"Trailers")),
    "a length of 0": request(b"/", (b"content-length", b"0")),
    "as many fields as may be": request(b"/", *[(b"x-%d" % n, b"") for n in range(96)]),
    "an unknown method": request(method=b"BREW"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_a_stream_error(name: str) -> None:
    """8.1.1; and the connection lives on."""
    drive = Drive().feed(headers(1, block(MALFORMED[name])), get(3))
    assert drive.answers[1].reset == Code.PROTOCOL_ERROR
    assert drive.answers[1].status is None
    assert [*drive.asked] == [3]
    assert drive.answers[3].ended
    assert drive.faults[0].section.startswith("RFC ")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("end", [True, False])
def test_a_request_that_cannot_be_served_is_answered(name: str, end: bool) -> None:
    status, fields = REFUSED[name]
    drive = Drive().feed(headers(1, block(fields), end=end), get(3))
    answer = drive.answers[1]
    assert (answer.status, answer.ended) == (status, True)
    assert answer.reset is None
    assert bool(drive.engine.lingering) is not end
    drive.give_up_rests()
    assert int(dict(answer.headers)[b"content-length"]) == len(answer.body)
    assert [*drive.asked] == [3]
    drive.assert_empty()


@pytest.mark.parametrize("name", GOOD)
def test_a_request_that_is_unusual_and_good(name: str) -> None:
    drive = Drive().feed(headers(1, block(GOOD[name])))
    assert not drive.faults
    assert drive.asked[1].head.headers[0][0] == b"host"
    assert drive.answers[1].status == 200


def test_a_refusal_of_a_head_has_no_body() -> None:
    drive = Drive().feed(headers(1, block(request(b"/", (b"expect", b"x"), method=b"HEAD"))))
    assert drive.answers[1].status == 417
    assert drive.answers[1].body == b""
    assert drive.answers[1].ended


def test_cookies_are_joined_and_stand_last() -> None:
    """8.2.3."""
    drive = Drive().feed(get(1, b"/", (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")))
    assert drive.asked[1].head.headers == (
        (b"host", b"example.com"), (b"x", b"y"), (b"cookie", b"a=1; b=2"),
    )  # fmt: skip


def test_the_target_in_its_parts() -> None:
    head = Drive().feed(get(1, b"/a%20b%FF/c?q=%20&r?")).asked[1].head
    assert (head.raw_path, head.path, head.query) == (b"/a%20b%FF/c", "/a b\ufffd/c", b"q=%20&r?")


def test_a_list_of_fields_that_is_too_large_is_answered_431() -> None:
    drive = Drive(limits=Limits(header_size=500))
    drive.feed(get(1, b"/", (b"x", b"y" * 400)), get(3))
    assert drive.answers[1].status == 431
    assert drive.answers[3].status == 200


def test_the_same_bytes_after_the_table_has_moved_are_another_request() -> None:
    """What a block meant is remembered only as long as it means that."""
    first = b"\x82\x86\x41\x09tide.test\x44\x02/1"  # the path enters the table, at 62
    again = b"\x82\x86\xbf\xbe"
    moved = b"\x82\x86\x41\x09tide.test\x44\x02/2"
    drive = Drive()
    for number, raw in zip(
        range(1, 13, 2), [first, again, again, moved, again, again], strict=True
    ):
        drive.feed(headers(number, raw))
    assert [asked.head.raw_path for asked in drive.asked.values()] == [
        b"/1", b"/1", b"/1", b"/2", b"/2", b"/2",
    ]  # fmt: skip


# Trailers (8.1)


@pytest.mark.parametrize(
    "fields",
    [[(b":path", b"/")], [(b"Upper", b"")], [(b"connection", b"close")], [(b"a", b"\n")]],
)
def test_malformed_trailers(fields: list[tuple[bytes, bytes]]) -> None:
    drive = Drive().feed(post(1), data(1, b"x"), headers(1, block(fields)), get(3))
    assert drive.answers[1].reset == Code.PROTOCOL_ERROR
    assert drive.asked[1].reset
    assert drive.answers[3].ended
    drive.assert_empty()


def test_a_second_field_section_has_to_be_the_end() -> None:
    drive = Drive().feed(post(1), headers(1, block([(b"a", b"b")]), end=False))
    assert drive.answers[1].reset == Code.PROTOCOL_ERROR


def test_trailers_end_the_body() -> None:
    drive = Drive().feed(post(1), data(1, b"x"), headers(1, block([(b"a", b"b")])))
    assert drive.asked[1].body == b"x"
    assert drive.answers[1].ended
    drive.assert_empty()


# Content-Length (8.1.1)


@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab", b"cd"), (b"", b"abcd")])
def test_more_body_than_was_said(pieces: tuple[bytes, ...]) -> None:
    drive = Drive().feed(post(1, b"/", (b"content-length", b"3")))
    drive.feed(*[data(1, piece) for piece in pieces])
    assert drive.answers[1].reset == Code.PROTOCOL_ERROR
    drive.assert_empty()


@pytest.mark.parametrize("how", ["data", "empty", "trailers"])
def test_less_body_than_was_said(how: str) -> None:
    drive = Drive().feed(post(1, b"/", (b"content-length", b"3")), data(1, b"a"))
    end = {"data": data(1, b"b", end=True), "empty": data(1, end=True)}
    drive.feed(end.get(how, headers(1, block([(b"x", b"y")]))))
    assert drive.answers[1].reset == Code.PROTOCOL_ERROR
    assert not drive.asked[1].whole
    drive.assert_empty()


def test_as_much_body_as_was_said() -> None:
    drive = Drive().feed(post(1, b"/", (b"content-length", b"3")), data(1, b"abc", end=True, pad=7))
    assert drive.answers[1].ended
    assert h2.Code.PROTOCOL_ERROR not in {drive.answers[1].reset}
