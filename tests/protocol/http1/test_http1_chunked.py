"""The chunked coding's reader: what it gives out, where it ends, and what it refuses."""

from __future__ import annotations

import pytest

from tidegate.protocol.engine import Limits
from tidegate.protocol.http1.chunked import (
    EXTENSIONS_BOUND,
    LINE_BOUND,
    SIZES,
    ChunkedBody,
    Stage,
    _sizes,
)
from tidegate.protocol.target import Refusal

SMALL = Limits(header_size=50, header_count=3, body_size=20)


def decoded(raw: bytes, step: int, limits: Limits = SMALL) -> tuple[bytes, bytes, bool]:
    """(body, what follows it, whether it has ended), fed `step` bytes at a time."""
    body, reader, rest = b"", ChunkedBody(limits), b""
    for at in range(0, len(raw), step):
        piece, left = reader.receive(rest + raw[at : at + step])
        body += piece
        if reader.stage is Stage.DONE:
            return body, left + raw[at + step :], True
        assert left == b""
    return body, b"", False


def refusal(raw: bytes, step: int, limits: Limits = SMALL) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        decoded(raw, step, limits)
    return caught.value.status, caught.value.reason


steps = pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
LAST = b"0\r\n\r\n"


@steps
@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (LAST, b""),
        (b"00000\r\n\r\n", b""),
        (b"5\r\nhello\r\n" + LAST, b"hello"),
        (b"5\r\n\r\n0\r\n\r\n" + LAST, b"\r\n0\r\n"),
        (b"0000000000000005\r\nhello\r\n" + LAST, b"hello"),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n" + LAST, b"0123456789" * 2),
        (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x"),
        (b'1 ;a="\\"\\\\;\t\xff" ; b = c;d\r\nx\r\n' + LAST, b"x"),
        (b"1;a;a;a\r\nx\r\n" + LAST, b"x"),
        (b"0\r\nX-A: b\r\nY:\r\n\r\n", b""),
        (b"0\r\nContent-Length: 5\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"G", b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", LAST])
def test_good(raw: bytes, body: bytes, behind: bytes, step: int) -> None:
    assert decoded(raw + behind, step) == (body, behind, True)


@steps
@pytest.mark.parametrize(
    "raw", [b"5\r\nhello\r\n0;a=b\r\nX: y\r\n\r\n", b"1\r\nx\r\n1\r\ny\r\n" + LAST]
)
def test_it_ends_with_its_last_byte_and_no_earlier(raw: bytes, step: int) -> None:
    for end in range(len(raw)):
        assert decoded(raw[:end], step)[1:] == (b"", False)


@steps
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\r\n", 400),
        (b"x\r\n", 400),
        (b"5\n", 400),
        (b"00000000000000005\r\n", 400),
        (b"-1\r\n", 400),
        (b"5\r\nhello!\r\n", 400),
        (b"5\r\nhello\rX", 400),
        (b"5\r\nhello\n", 400),
        (b"5\r\nhello\r\r\n", 400),
        (b"5;\r\n", 400),
        (b"5 \r\n", 400),
        (b'5;a="b\r\n', 400),
        (b'5;a="\\\x00"\r\n', 400),
        (b'5;"a"=b\r\n', 400),
        (b"0\r\n X: y\r\n", 400),
        (b"0\r\nX\r\n", 400),
        (b"0\r\nX: y\n", 400),
        (b"0\r\n\n", 400),
        (b"15\r\n", 413),
        (b"14\r\n" + b"a" * 20 + b"\r\n1\r\n", 413),
        (b"ffffffffffffffff\r\n", 413),
        (b"0\r\nX: " + b"y" * 60, 431),
        (b"0\r\n" + b"X: y\r\n" * 4, 431),
    ],
)
def test_bad(raw: bytes, status: int, step: int) -> None:
    assert refusal(raw, step) == refusal(raw, 1)
    assert refusal(raw, step)[0] == status


@steps
def test_at_the_bounds(step: int) -> None:
    assert decoded(b"14\r\n" + b"a" * 20 + b"\r\n" + LAST, step)[0] == b"a" * 20
    assert decoded(b"0\r\n" + b"X: y\r\n" * 3 + b"\r\n", step) == (b"", b"", True)
    longest = b"1;" + b"a" * (LINE_BOUND - 4) + b"\r\nx\r\n"
    assert len(longest) == LINE_BOUND + 3
    assert decoded(longest + LAST, step)[0] == b"x"
    assert refusal(b"1;a" + longest[2:], step)[0] == 400


@steps
def test_extensions_are_counted_over_the_whole_body(step: int) -> None:
    chunk = b"1;" + b"a" * 1023 + b"\r\nx\r\n"
    count = EXTENSIONS_BOUND // 1024
    assert decoded(chunk * count + LAST, step)[0] == b"x" * count
    assert refusal(chunk * count + b"0;a\r\n", step)[0] == 400


def test_data_passes_through_without_a_copy() -> None:
    reader = ChunkedBody(Limits())
    reader.receive(b"100000\r\n")
    data = b"a" * 1000
    assert reader.receive(data)[0] is data


# ---------------------------------------------------------------------------------- the quick road


def known(*sizes: bytes) -> None:
    """Let the reader meet these sizes, so that it knows them from here on."""
    for size in sizes:
        decoded(size + b"\r\n", 1 << 20, Limits())


@pytest.mark.parametrize("length", [1, 2, 15, 16, 300])
def test_sizes_met_before_give_the_same_body_however_it_is_cut(length: int) -> None:
    body = b"0123456789abcdef\r\n" * 40
    size = b"%x" % length
    known(size)
    pieces = [body[at : at + length] for at in range(0, len(body) - length + 1, length)]
    raw = b"".join(b"%b\r\n%b\r\n" % (size, piece) for piece in pieces) + LAST + b"GET"
    for step in (1, 2, 3, 5, 7, 11, 64, len(raw)):
        assert decoded(raw, step, Limits()) == (b"".join(pieces), b"GET", True)


@steps
@pytest.mark.parametrize("end", [b"\n", b"\r", b"x\r\n", b"\r\r\n", b" \r\n"])
def test_a_known_size_does_not_excuse_what_follows_the_data(step: int, end: bytes) -> None:
    known(b"3")
    raw = b"3\r\nabc" + end + b"3\r\nabc\r\n" + LAST
    assert refusal(raw, step) == (400, "chunk data is not followed by CRLF")


@steps
def test_known_sizes_add_up_to_the_limit(step: int) -> None:
    known(b"5")
    assert decoded(b"5\r\nhello\r\n" * 4 + LAST, step)[0] == b"hello" * 4
    assert refusal(b"5\r\nhello\r\n" * 5 + LAST, step)[0] == 413


def test_few_sizes_are_remembered() -> None:
    for size in range(1, 3 * SIZES):
        known(b"%x" % size, b"%09x" % size, b"%x;a" % size)
    assert len(_sizes) <= SIZES
    assert all(len(size) <= 8 and b";" not in size for size in _sizes)
