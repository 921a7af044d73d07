"""The same connections through the `hpack` library, in both directions.

Deliberate differences, each with its test below: `hpack` ends with an error where a list is too long,
and leaves its table as it then is; our decoder says so and reads on. Both take integers of up to five
octets behind the prefix. Nothing else that one of them refuses is taken by the other.
"""

from __future__ import annotations

import pytest
from hpack import Decoder as JudgeDecoder
from hpack import Encoder as JudgeEncoder
from hpack import HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.protocol.http2.hpack import encoder as encoder_module
from tidegate.protocol.http2.hpack.decoder import Decoder, HpackError
from tidegate.protocol.http2.hpack.encoder import Encoder

WIDE = 1 << 30
SECRET = {b"set-cookie", b"authorization", b"proxy-authorization", b"cookie"}

NAMES = st.sampled_from(
    [
        b":status",
        b":path",
        b":method",
        b"cookie",
        b"set-cookie",
        b"content-length",
        b"content-type",
        b"date",
        b"etag",
        b"vary",
        b"x-request-id",
        b"x-a",
    ]
) | st.binary(max_size=20)
VALUES = (
    st.sampled_from([b"", b"200", b"GET", b"/", b"text/html", b"a" * 40, b"v" * 400, b"w" * 2030])
    | st.binary(max_size=60)
    | st.text("abcdefghijklmnopqrstuvwxyz0123456789-/=; {}\\", max_size=60).map(str.encode)
)
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=12)
SIZES = st.sampled_from([0, 1, 33, 64, 100, 500, 4095, 4096, 4097, 65536]) | st.integers(0, 6000)
# What a connection goes through: lists of fields, and sizes that are set in between.
STEPS = st.lists(LISTS | SIZES, max_size=10)


def pairs(fields: object) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in fields]  # type: ignore[attr-defined]


@settings(max_examples=400)
@given(STEPS, st.sampled_from([0, 100, 4096, 8000]), st.booleans())
def test_hpack_decodes_what_we_encode(steps: list[object], bound: int, known: bool) -> None:
    """Where the fields are `known`, the process has sent them before, by other connections."""
    encoder_module._sent.clear()
    for step in steps:
        if known and isinstance(step, list):
            Encoder().encode(step)
    encoder, judge = Encoder(bound), JudgeDecoder(WIDE)
    ours = Decoder(WIDE, 65536)
    ours.decode(b"\x3f\xe1\x1f")  # 4,096, from where every connection begins
    for step in steps:
        if isinstance(step, int):
            encoder.resize(step)
            judge.max_allowed_table_size = step
            continue
        assert isinstance(step, list)
        block = encoder.encode(step)
        fields = list(judge.decode(block, raw=True))
        assert pairs(fields) == step
        assert list(ours.decode(block)) == step
        for field in fields:
            secret = isinstance(field, NeverIndexedHeaderTuple)
            assert secret == (field[0] in SECRET and field[1] != b"")
        table = [tuple(entry) for entry in judge.header_table.dynamic_entries]
        assert list(reversed(encoder._entries)) == table == ours._table[62:]
        assert judge.header_table_size == encoder._capacity


@settings(max_examples=400)
@given(STEPS, st.lists(st.booleans(), min_size=1))
def test_we_decode_what_hpack_encodes(steps: list[object], choices: list[bool]) -> None:
    decoder, judge = Decoder(WIDE, 6000), JudgeEncoder()
    decoder.decode(b"\x3f\xe1\x1f")
    for number, step in enumerate(steps):
        if isinstance(step, int):
            size = min(step, 6000)
            if size != judge.header_table_size:  # told twice, it would not say it at all
                judge.header_table_size = size
            continue
        assert isinstance(step, list)
        flags = [choices[(number + at) % len(choices)] for at in range(len(step))]
        said = [(*field, secret) for field, secret in zip(step, flags, strict=True)]
        block = judge.encode(said, huffman=choices[number % len(choices)])
        assert list(decoder.decode(block)) == step
        assert decoder._table[62:] == [tuple(entry) for entry in judge.header_table.dynamic_entries]


def alike(blocks: list[bytes], size: int = 4096) -> int:
    """Through both decoders until one refuses: then both do. How many blocks were good."""
    ours, judge = Decoder(WIDE, size), JudgeDecoder(WIDE)
    judge.max_allowed_table_size = judge.header_table_size = size
    for number, block in enumerate(blocks):
        try:
            expected = pairs(judge.decode(block, raw=True))
        except HPACKError:
            with pytest.raises(HpackError):
                ours.decode(block)
            return number
        before = ours.changes, ours._table[62:]
        assert list(ours.decode(block)) == expected
        assert ours._table[62:] == [tuple(entry) for entry in judge.header_table.dynamic_entries]
        if ours.changes == before[0]:
            assert ours._table[62:] == before[1]
    return len(blocks)


# Octets that begin something: random ones would hardly ever come to a second field.
OCTETS = st.sampled_from(
    [
        *(b"\x82", b"\xbe", b"\xbf", b"\xc0", b"\x40", b"\x41", b"\x7f", b"\x00", b"\x0f", b"\x10"),
        *(
            b"\x01a",
            b"\x81\x1f",
            b"\x82\x1f\xff",
            b"\x01\x01\x80",
            b"\x20",
            b"\x3f",
            b"\xff",
            b"\x80",
        ),
        *(
            b"\x7e\x02hi",
            b"\x40\x01n\x01v",
            b"\x00\x81\x1f\x00",
            b"\x84\xff\xff\xff\xff",
            b"\x3f\x05",
        ),
    ]
) | st.binary(max_size=3)


@settings(max_examples=1500)
@given(st.lists(st.lists(OCTETS, max_size=12).map(b"".join), max_size=4), SIZES)
@example([b"\x82\x20"], 4096)
@example([b"\x20\x20\x3f\xe1\x1f\x82"], 4096)
@example([b"\x0f\x80\x80\x80\x80\x00\x00"], 4096)
@example([b"\x0f\x80\x80\x80\x80\x80\x00\x00"], 4096)
def test_any_octets(blocks: list[bytes], size: int) -> None:
    alike(blocks, size)


@settings(max_examples=600)
@given(st.lists(LISTS, min_size=1, max_size=4), st.data())
def test_good_blocks_with_an_octet_changed(lists: list[object], data: st.DataObject) -> None:
    judge = JudgeEncoder()
    blocks = [bytearray(judge.encode(fields)) for fields in lists]
    at = data.draw(st.integers(0, len(blocks) - 1))
    if blocks[at]:
        where = data.draw(st.integers(0, len(blocks[at]) - 1))
        blocks[at][where] = data.draw(st.integers(0, 255))
    alike(list(map(bytes, blocks)))


def test_good_blocks_are_all_good() -> None:
    """The comparison above is not one of two refusals."""
    judge = JudgeEncoder()
    blocks = [judge.encode([(b"n%d" % number, b"v"), (b"x", b"y")]) for number in range(20)]
    assert alike(blocks) == 20


def test_difference_a_list_that_is_too_long() -> None:
    ours, judge = Decoder(100), JudgeDecoder(100)
    block = JudgeEncoder().encode([(b"n", b"v" * 100), (b"m", b"w")])
    with pytest.raises(OversizedHeaderListError):
        judge.decode(block)
    assert ours.decode(block) == () and ours.too_long
    assert [tuple(entry) for entry in judge.header_table.dynamic_entries] == [(b"n", b"v" * 100)]
    assert ours.decode(b"\xbe") == ((b"m", b"w"),)
