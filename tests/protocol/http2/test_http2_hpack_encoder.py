"""The encoder: what it puts in the table, sizes that change, and what its counters promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hpack import Decoder as Judge
from hpack.table import HeaderTable

from tidegate.protocol.headers import MEMORY
from tidegate.protocol.http2.hpack import encoder as encoder_module
from tidegate.protocol.http2.hpack.decoder import Decoder
from tidegate.protocol.http2.hpack.encoder import Encoder
from tidegate.protocol.http2.hpack.tables import STATIC

Field = tuple[bytes, bytes]

SERVER = (b"server", b"tidegate")
OWN = (b"x-own", b"value")


@pytest.fixture(autouse=True)
def _a_process_that_has_sent_nothing() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    encoder_module._sent.clear()
    encoder_module._inserted.clear()
    encoder_module._not_inserted.clear()


def sent_before(*fields: Field) -> None:
    Encoder().encode(fields)


def judged(*blocks: bytes) -> list[list[Field]]:
    """What an independent decoder makes of a connection's blocks, one after the other."""
    judge = Judge()
    return [[tuple(field) for field in judge.decode(block, raw=True)] for block in blocks]


def kind(block: bytes) -> str:
    """Of a block's first representation (RFC 7541 6)."""
    octet = block[0]
    if octet & 0x80:
        return "indexed"
    if octet & 0x40:
        return "inserted"
    return {0x20: "size", 0x30: "size", 0x10: "never", 0x00: "literal"}[octet & 0xF0]


def kinds(field: Field, encoder: Encoder | None = None) -> list[str]:
    """How a field goes out the first three times."""
    encoder = encoder or Encoder()
    blocks = [encoder.encode([field]) for _ in range(3)]
    assert judged(*blocks) == [[field]] * 3
    return [kind(block) for block in blocks]


class TestStaticTable:
    def test_appendix_A(self) -> None:
        assert tuple(map(tuple, HeaderTable.STATIC_TABLE)) == STATIC

    @pytest.mark.parametrize(("index", "field"), list(enumerate(STATIC, 1)))
    def test_6_1_a_whole_match_is_one_octet(self, index: int, field: Field) -> None:
        assert Encoder().encode([field]) == bytes((0x80 | index,))

    @pytest.mark.parametrize("name", sorted({name for name, _ in STATIC}))
    def test_6_2_a_name_alone_is_an_index(self, name: bytes) -> None:
        """The lowest that has it; above 14 it takes two octets in a literal that is not inserted."""
        block = Encoder().encode([(name, b"@")])
        index = next(index for index, (known, _) in enumerate(STATIC, 1) if known == name)
        head = bytes((index,)) if index < 15 else bytes((0x0F, index - 15))
        assert block[0] & 0xE0 == 0
        assert bytes((block[0] & 0x0F,)) + block[1:] == head + b"\x01@"


class TestWhatEntersTheTable:
    def test_a_field_at_its_second_sight(self) -> None:
        assert kinds(OWN) == ["literal", "inserted", "indexed"]

    def test_sights_are_the_process_s(self) -> None:
        sent_before(OWN)
        assert kinds(OWN) == ["inserted", "indexed", "indexed"]

    def test_another_value_is_another_field(self) -> None:
        sent_before(OWN)
        assert kinds((OWN[0], b"other")) == ["literal", "inserted", "indexed"]

    @pytest.mark.parametrize(
        "name", [b"set-cookie", b"authorization", b"proxy-authorization", b"cookie"]
    )
    def test_7_1_3_secrets_are_never_indexed(self, name: bytes) -> None:
        encoder = Encoder()
        assert kinds((name, b"secret"), encoder) == ["never"] * 3
        assert encoder.changes == 0
        assert encoder.settled
        assert not (encoder_module._sent or encoder_module._not_inserted)

    @pytest.mark.parametrize(
        "name",
        [
            b"content-length",
            b"etag",
            b"location",
            b"content-range",
            b"age",
            b"last-modified",
            b":path",
        ],
    )
    def test_what_varies_stays_outside(self, name: bytes) -> None:
        encoder = Encoder()
        assert kinds((name, b"17"), encoder) == ["literal"] * 3
        assert encoder.changes == 0

    def test_an_entry_of_half_the_table_enters_and_a_larger_one_does_not(self) -> None:
        half = (b"n", b"v" * (2048 - 33))
        assert kinds(half) == ["literal", "inserted", "indexed"]
        assert kinds((b"n", half[1] + b"v")) == ["literal"] * 3

    def test_4_4_the_oldest_make_room(self) -> None:
        """Three of 1,500 octets do not fit: the first is gone, and comes again as new."""
        fields = [(b"n%d" % number, b"v" * (1500 - 34)) for number in range(3)]
        sent_before(*fields)
        encoder = Encoder()
        blocks = [encoder.encode([field]) for field in (*fields, *fields)]
        assert [kind(block) for block in blocks] == ["inserted"] * 6
        blocks += [encoder.encode([field]) for field in fields[1:]]
        assert [kind(block) for block in blocks[6:]] == ["indexed"] * 2
        assert judged(*blocks) == [[each] for each in (*fields, *fields, *fields[1:])]

    @pytest.mark.parametrize(("size", "again"), [(132, "indexed"), (131, "inserted")])
    def test_4_4_no_more_go_than_need_to(self, size: int, again: str) -> None:
        """Four entries of 33 octets fill a table of 132 to the last."""
        fields = [(name, b"") for name in (b"a", b"b", b"c", b"d")]
        sent_before(*fields)
        encoder = Encoder(size)
        blocks = [encoder.encode(fields), encoder.encode(fields[:1])]
        assert kind(blocks[1]) == again
        assert judged(*blocks) == [fields, fields[:1]]

    def test_2_3_3_indexes_of_two_octets(self) -> None:
        fields = [(b"n%d" % number, b"") for number in range(110)]
        sent_before(*fields)
        encoder = Encoder()
        first, again = encoder.encode(fields), encoder.encode(fields)
        assert judged(first, again) == [fields, fields]
        assert len(again) == 65 + 2 * (110 - 65)

    def test_set_cookie_between_fields_of_the_table(self) -> None:
        fields = [SERVER, (b"set-cookie", b"a=1"), OWN, (b"set-cookie", b"b=2"), SERVER]
        encoder = Encoder()
        blocks = [encoder.encode(fields) for _ in range(4)]
        assert judged(*blocks) == [fields] * 4


class TestStrings:
    def test_5_2_huffman_where_it_is_shorter(self) -> None:
        assert Encoder().encode([(b"n", b"000")]) == b"\x00\x01n\x82\x00\x01"

    @pytest.mark.parametrize("value", [b"", b"0", b"@", b"\x00" * 9, b"~~~", b"\\"])
    def test_5_2_as_it_is_where_not(self, value: bytes) -> None:
        block = Encoder().encode([(b"n", value)])
        assert block == b"\x00\x01n" + bytes((len(value),)) + value

    @pytest.mark.parametrize("size", [126, 127, 128, 200, 255, 5000])
    def test_5_1_lengths(self, size: int) -> None:
        fields = [(b"n", b"\x00" * size), (b"o", b"0" * size), (b"p" * size, b"")]
        assert judged(Encoder().encode(fields)) == [fields]


class TestSizes:
    @pytest.mark.parametrize(
        ("sizes", "said"),
        [
            ([4096], ""),
            ([65536], ""),
            ([2000, 4096], "3fb10f 3fe11f"),
            ([10], "2a"),
            ([10, 20], "2a 34"),
            ([20, 10], "2a"),
            ([20, 10, 20], "2a 34"),
            ([0, 65536], "20 3fe11f"),
            ([31], "3f00"),
            ([30, 5, 7, 6, 100], "25 3f45"),
        ],
    )
    def test_4_2_the_smallest_and_the_last(self, sizes: list[int], said: str) -> None:
        encoder = Encoder()
        for size in sizes:
            encoder.resize(size)
        assert encoder.encode([]).hex() == said.replace(" ", "")
        assert encoder.encode([]) == b""

    def test_4_2_said_at_the_beginning(self) -> None:
        encoder = Encoder()
        encoder.resize(10)
        assert encoder.encode([(b":status", b"200")]) == b"\x2a\x88"

    def test_4_2_it_counts_from_what_was_said_last(self) -> None:
        encoder = Encoder()
        encoder.resize(100)
        encoder.encode([])
        encoder.resize(200)
        assert encoder.encode([]) == b"\x3f\xa9\x01"
        encoder.resize(150)
        encoder.resize(200)
        assert encoder.encode([]) == b"\x3f\x77\x3f\xa9\x01"

    def test_6_3_our_own_bound(self) -> None:
        encoder = Encoder(100)
        assert encoder.encode([]) == b"\x3f\x45"  # below the 4,096 that a decoder begins with
        encoder.resize(50)
        assert encoder.encode([]) == b"\x3f\x13"
        encoder.resize(65536)
        assert encoder.encode([]) == b"\x3f\x45"

    def test_6_3_a_larger_bound_waits_for_the_peer(self) -> None:
        encoder = Encoder(10000)
        assert encoder.encode([]) == b""
        encoder.resize(8000)
        assert encoder.encode([]) == b"\x3f\xa1\x3e"

    def test_4_3_a_smaller_table_evicts(self) -> None:
        sent_before(SERVER, OWN)
        encoder = Encoder()
        blocks = [encoder.encode([SERVER, OWN])]
        encoder.resize(50)
        blocks.append(encoder.encode([OWN, SERVER]))
        encoder.resize(4096)
        blocks.append(encoder.encode([SERVER, OWN]))
        assert judged(*blocks) == [[SERVER, OWN], [OWN, SERVER], [SERVER, OWN]]
        assert kind(blocks[1][2:]) == "indexed"

    def test_4_3_the_smallest_size_in_between_evicts(self) -> None:
        """The peer's decoder empties its table at the smaller size: so must we."""
        sent_before(OWN)
        encoder = Encoder()
        blocks = [encoder.encode([OWN])]
        encoder.resize(0)
        encoder.resize(4096)
        blocks.append(encoder.encode([OWN]))
        assert kind(blocks[1][4:]) == "inserted"
        assert judged(*blocks) == [[OWN]] * 2

    def test_a_table_of_nothing(self) -> None:
        sent_before(OWN)
        encoder = Encoder()
        encoder.resize(0)
        assert encoder.encode([OWN, SERVER])[0] == 0x20
        assert kinds(OWN, encoder) == ["literal"] * 3
        assert kinds((b"", b""), encoder) == ["literal"] * 3


class TestPromises:
    def test_changes_grow_with_the_table_and_with_sizes(self) -> None:
        encoder = Encoder()
        assert encoder.changes == 0
        encoder.encode([OWN])
        assert encoder.changes == 0
        encoder.encode([OWN])
        inserted = encoder.changes
        assert inserted > 0
        encoder.encode([OWN, (b":status", b"200"), (b"etag", b"1"), (b"cookie", b"a")])
        assert encoder.changes == inserted
        encoder.resize(2000)
        resized = encoder.changes
        assert resized > inserted
        encoder.encode([OWN])  # says the size: this block is not one to send again
        assert encoder.changes > resized

    def test_a_block_made_without_a_change_may_be_sent_again(self) -> None:
        fields = [(b":status", b"200"), SERVER, OWN, (b"etag", b"x"), (b"set-cookie", b"a=b")]
        encoder, decoder, judge = Encoder(), Decoder(65536), Judge()
        for _ in range(4):
            before = encoder.changes
            block = encoder.encode(fields)
            for _ in range(1 if encoder.changes != before else 3):
                assert list(decoder.decode(block)) == fields
                assert [tuple(field) for field in judge.decode(block, raw=True)] == fields

    def test_settled_says_that_it_would_come_out_the_same(self) -> None:
        fields = [(b":status", b"200"), SERVER, OWN, (b"etag", b"x"), (b"set-cookie", b"a=b")]
        encoder = Encoder()
        said = []
        for _ in range(3):
            block = encoder.encode(fields)
            said.append(encoder.settled)
        assert said == [False, False, True]
        assert encoder.encode(fields) == block

    def test_what_varies_or_is_secret_or_large_leaves_a_block_settled(self) -> None:
        encoder = Encoder()
        for field in ((b"etag", b"new"), (b"cookie", b"new"), (b"n", b"v" * 3000)):
            block = encoder.encode([field])
            assert encoder.settled
            assert encoder.encode([field]) == block

    def test_a_size_update_is_not_settled(self) -> None:
        encoder = Encoder()
        encoder.resize(100)
        encoder.encode([])
        assert not encoder.settled
        encoder.encode([])
        assert encoder.settled


class TestBounds:
    def test_sights_are_bounded(self) -> None:
        encoder = Encoder()
        for number in range(encoder_module._SIGHTS + 10):
            encoder.encode([(b"x-id", b"%d" % number)])
            assert len(encoder_module._sent) <= encoder_module._SIGHTS
        assert encoder.changes == 0
        assert kind(encoder.encode([(b"x-id", b"%d" % number)])) == "inserted"

    def test_remembered_literals_are_bounded(self) -> None:
        encoder = Encoder()
        for number in range(MEMORY + 10):
            for name in (b"x-id", b"etag"):
                blocks = [encoder.encode([(name, b"%d" % number)]) for _ in range(2)]
            assert len(blocks[1]) == len(blocks[0])
            assert len(encoder_module._inserted) <= MEMORY
            assert len(encoder_module._not_inserted) <= MEMORY
        assert encoder_module._inserted and encoder_module._not_inserted

    def test_long_literals_are_not_remembered(self) -> None:
        encoder = Encoder()
        for _ in range(2):
            encoder.encode([(b"n", b"v" * 1000), (b"etag", b"v" * 1000)])
        assert not (encoder_module._inserted or encoder_module._not_inserted)

    def test_what_was_evicted_is_forgotten(self) -> None:
        encoder = Encoder()
        for number in range(500):
            for _ in range(2):
                encoder.encode([(b"x-id", b"%d" % number)])
        assert len(encoder._places) == len(encoder._entries) <= 4096 // 32
        assert encoder._size <= 4096
