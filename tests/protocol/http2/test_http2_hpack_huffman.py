"""The Huffman code: against `hpack`'s table, both roads of decoding, and what RFC 7541 5.2 forbids."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.http2.hpack import huffman

judge = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

EOS = "1" * 30
ASCII = bytes(range(0x20, 0x7F))


def code(octet: int) -> str:
    return f"{REQUEST_CODES[octet]:0{REQUEST_CODES_LENGTH[octet]}b}"


def packed(bits: str) -> bytes:
    """Bits that fill whole octets."""
    assert len(bits) % 8 == 0
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def padded(bits: str) -> bytes:
    return packed(bits + "1" * (-len(bits) % 8))


@pytest.mark.parametrize("octet", range(256))
def test_appendix_B_each_octet(octet: int) -> None:
    """Alone, and between others: a code begins at any bit."""
    for text in (bytes((octet,)), b"a" + bytes((octet,)) * 3, bytes((octet,)) + b"0Z~"):
        assert huffman.encode(text) == judge.encode(text)
        assert huffman.decode(judge.encode(text)) == text
        assert huffman.length(text) == len(judge.encode(text))


def test_empty() -> None:
    assert huffman.encode(b"") == b""
    assert huffman.decode(b"") == b""
    assert huffman.length(b"") == 0


@given(st.binary(max_size=200) | st.lists(st.sampled_from(ASCII)).map(bytes))
def test_there_and_back(text: bytes) -> None:
    coded = huffman.encode(text)
    assert coded == judge.encode(text)
    assert len(coded) == huffman.length(text)
    assert huffman.decode(coded) == text


@given(st.lists(st.sampled_from(ASCII.replace(b"\\", b""))).map(bytes))
def test_both_roads_read_the_same(text: bytes) -> None:
    assert huffman._decode_any(huffman.encode(text)) == text


def test_text_takes_the_short_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every character but the backslash has a code of at most 15 bits."""
    monkeypatch.delattr(huffman, "_decode_any")
    text = ASCII.replace(b"\\", b"")
    for start in range(len(text)):
        assert huffman.decode(judge.encode(text[start:] + text)) == text[start:] + text


def test_long_strings() -> None:
    """As long as a block may be: the inflater's window, of 512 octets, goes round many times."""
    dice = random.Random(7)
    for alphabet in (ASCII, bytes(range(256)), b"0"):
        text = bytes(dice.choices(alphabet, k=100_000))
        assert huffman.decode(huffman.encode(text)) == text


def test_strings_leave_no_trace_for_the_next() -> None:
    for text in (b"first", b"\xff rare", b"second" * 200, b"x"):
        assert huffman.decode(judge.encode(text)) == text


@pytest.mark.parametrize("text", [b"", b"W", b"WWWWWWWW", b"\xe9"])
@pytest.mark.parametrize("ones", range(8, 30))
def test_5_2_padding_longer_than_7_bits(text: bytes, ones: int) -> None:
    bits = "".join(map(code, text))
    bits += code(ord("0")) * ((len(bits) + ones) * 3 % 8)  # five bits each, up to whole octets
    with pytest.raises(ValueError, match="longer than 7 bits"):
        huffman.decode(packed(bits + "1" * ones))


@pytest.mark.parametrize("text", [b"a", b"ab", b"abb", b"abcde", b"abcdef0", b"\xe9", b"a&"])
def test_5_2_padding_that_is_not_the_beginning_of_EOS(text: bytes) -> None:
    """Each of the padding's bits in turn is not a one, unless that makes it another character."""
    bits = "".join(map(code, text))
    padding = -len(bits) % 8
    assert padding
    assert huffman.decode(padded(bits)) == text
    for at in range(padding):
        tail = "1" * at + "0" + "1" * (padding - at - 1)
        if any(tail.startswith(code(octet)) for octet in range(256)):
            continue
        with pytest.raises(ValueError, match="not the beginning of EOS"):
            huffman.decode(packed(bits + tail))


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc", b"abcd", b"\x00"])
@pytest.mark.parametrize("after", [b"", b"a", b"text behind it"])
def test_5_2_EOS_in_a_string(before: bytes, after: bytes) -> None:
    bits = "".join(map(code, before)) + EOS + "".join(map(code, after))
    with pytest.raises(ValueError, match="holds the EOS symbol"):
        huffman.decode(padded(bits))


@pytest.mark.parametrize("octet", [0x00, 0x5C, 0x80, 0xFF, 0x7A, 0x20])
def test_5_2_a_code_that_is_cut(octet: int) -> None:
    """Every beginning of a code is refused, but for up to seven ones, which are padding."""
    for size in range(1, len(code(octet))):
        head = code(octet)[:size]
        lead = "00000" * (-size * 5 % 8)  # five bits, the code of 0: fills up to whole octets
        assert (len(lead) + size) % 8 == 0
        if size < 8 and "0" not in head:
            assert huffman.decode(packed(lead + head)) == b"0" * (len(lead) // 5)
        elif any(head.startswith(code(each)) for each in range(256)):
            pytest.fail("a code begins another")
        else:
            with pytest.raises(ValueError):
                huffman.decode(packed(lead + head))


@given(st.binary(max_size=40))
def test_any_octets_are_read_alike_by_both_roads(data: bytes) -> None:
    """What is accepted is what encodes to the same octets: there is one form of a string."""
    try:
        text = huffman._decode_any(data)
    except ValueError as fault:
        with pytest.raises(ValueError, match=str(fault)):
            huffman.decode(data)
    else:
        assert huffman.decode(data) == text
        assert huffman.encode(text) == data


def test_two_octets_of_every_kind() -> None:
    """All 65,536 of them, by both roads, against the definition: a string's own encoding."""
    accepted = 0
    for number in range(65536):
        data = number.to_bytes(2, "big")
        try:
            text = huffman.decode(data)
        except ValueError:
            with pytest.raises(ValueError):
                huffman._decode_any(data)
        else:
            assert judge.encode(text) == data
            assert huffman._decode_any(data) == text
            accepted += 1
    texts = sum(1 for _ in strings_of_bits(9, 16))
    assert accepted == texts


def strings_of_bits(least: int, most: int, bits: int = 0) -> Iterator[int]:
    """One item for each string whose code has between `least` and `most` bits."""
    if least <= bits:
        yield bits
    for octet in range(256):
        if bits + REQUEST_CODES_LENGTH[octet] <= most:
            yield from strings_of_bits(least, most, bits + REQUEST_CODES_LENGTH[octet])
