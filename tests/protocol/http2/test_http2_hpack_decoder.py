"""The decoder: each MUST of RFC 7541 that a decoder has, cuts and splits, and bounds under abuse."""

from __future__ import annotations

import random
import tracemalloc
from itertools import accumulate, pairwise

import pytest
from hpack import Encoder as Judge

from tidegate.protocol.headers import MEMORY
from tidegate.protocol.http2.hpack import decoder as decoder_module
from tidegate.protocol.http2.hpack import huffman
from tidegate.protocol.http2.hpack.decoder import Decoder, HpackError

WIDE = 1 << 30
INSERTED, NOT_INSERTED, NEVER = (0x40, 6), (0x00, 4), (0x10, 4)


def integer(value: int, pattern: int, bits: int) -> bytes:
    """RFC 7541 5.1."""
    full = (1 << bits) - 1
    if value < full:
        return bytes((pattern | value,))
    value -= full
    octets = [pattern | full]
    while value >= 128:
        octets.append(value % 128 + 128)
        value //= 128
    return bytes((*octets, value))


def indexed(index: int) -> bytes:
    return integer(index, 0x80, 7)


def resized(size: int) -> bytes:
    return integer(size, 0x20, 5)


def string(text: bytes) -> bytes:
    return integer(len(text), 0, 7) + text


def coded(text: bytes) -> bytes:
    return integer(huffman.length(text), 0x80, 7) + huffman.encode(text)


def literal(name: bytes | int, value: bytes, kind: tuple[int, int] = INSERTED) -> bytes:
    if isinstance(name, int):
        return integer(name, *kind) + string(value)
    return integer(0, *kind) + string(name) + string(value)


def entry(size: int, name: bytes = b"n") -> tuple[bytes, bytes]:
    """A field that counts as much in a table."""
    return name, b"v" * (size - 32 - len(name))


def refused(decoder: Decoder, block: bytes) -> HpackError:
    with pytest.raises(HpackError) as caught:
        decoder.decode(block)
    assert caught.value.reason and str(caught.value).endswith(f"({caught.value.section})")
    return caught.value


class TestIndexes:
    def test_6_1_index_0(self) -> None:
        fault = refused(Decoder(WIDE), b"\x80")
        assert (fault.reason, fault.section) == ("index 0 stands for no field", "RFC 7541 6.1")

    @pytest.mark.parametrize("index", [62, 63, 126, 127, 128, 255, 10**6, 2**31])
    def test_2_3_3_beyond_the_tables(self, index: int) -> None:
        assert refused(Decoder(WIDE), indexed(index)).section == "RFC 7541 2.3.3"
        for kind in (INSERTED, NOT_INSERTED, NEVER):
            fault = refused(Decoder(WIDE), literal(index, b"v", kind))
            assert fault.section == "RFC 7541 2.3.3"
            assert fault.reason == f"index {index}, where the tables end with 61"

    def test_2_3_3_each_index_of_a_full_table_and_the_one_behind(self) -> None:
        """33 octets an entry, the least with a name: 124 of them, so indexes of two octets too."""
        decoder = Decoder(WIDE)
        names = [bytes((33 + number % 90,)) for number in range(200)]
        decoder.decode(b"".join(literal(name, b"") for name in names))
        newest = names[:-125:-1]
        assert len(newest) == 124
        for number, name in enumerate(newest):
            assert decoder.decode(indexed(62 + number)) == ((name, b""),)
        for number, name in enumerate(newest):
            block = literal(62 + number, b"x", NOT_INSERTED)
            assert decoder.decode(block) == ((name, b"x"),)
        assert "185" in refused(decoder, indexed(62 + 124)).reason

    def test_2_3_3_an_evicted_entry_is_beyond(self) -> None:
        decoder = Decoder(WIDE, 100)
        decoder.decode(literal(b"a", b"1") + literal(b"b", b"2"))
        assert decoder.decode(indexed(63)) == ((b"a", b"1"),)
        decoder.decode(literal(b"c", b"x" * 20))
        assert decoder.decode(indexed(62)) == ((b"c", b"x" * 20),)
        refused(decoder, indexed(64))

    def test_2_3_2_duplicate_entries_are_no_error(self) -> None:
        decoder = Decoder(WIDE)
        decoder.decode(literal(b"a", b"1") * 2)
        assert decoder.decode(indexed(62) + indexed(63)) == ((b"a", b"1"),) * 2

    def test_6_2_index_0_says_that_a_name_follows(self) -> None:
        for kind in (INSERTED, NOT_INSERTED, NEVER):
            assert Decoder(WIDE).decode(literal(b"name", b"value", kind)) == ((b"name", b"value"),)


class TestIntegers:
    FORMS = (indexed(127)[:1], b"\x7f", b"\x0f", b"\x1f", b"\x00\x7f", b"\x00\xff", b"\x3f")

    @pytest.mark.parametrize("head", FORMS)
    @pytest.mark.parametrize("tail", [b"", b"\x00", b"\x7f", b"\x80" * 100])
    def test_5_1_more_octets_than_any_good_one_has(self, head: bytes, tail: bytes) -> None:
        """Also if they add nothing to the value: they would be read for ever."""
        for continuation in (b"\x80", b"\xff"):
            fault = refused(Decoder(WIDE), head + continuation * 5 + tail)
            assert (fault.reason, fault.section) == (
                "an integer of more than 6 octets",
                "RFC 7541 5.1",
            )

    @pytest.mark.parametrize("zeros", range(5))
    def test_5_1_a_longer_form_within_the_bound(self, zeros: int) -> None:
        tail = b"\x80" * zeros + b"\x00"
        fields = Decoder(WIDE).decode(b"\x0f" + tail + b"\x7f" + tail + b"v" * 127)
        assert fields == ((b"accept-charset", b"v" * 127),)

    @pytest.mark.parametrize("head", FORMS)
    def test_5_1_the_largest_value_within_the_bound(self, head: bytes) -> None:
        """No index, no length and no size is that large, whatever the machine's integers."""
        refused(Decoder(WIDE), head + b"\xff\xff\xff\xff\x7f" + b"v" * 50)

    @pytest.mark.parametrize("head", FORMS)
    @pytest.mark.parametrize("count", range(5))
    def test_5_1_cut(self, head: bytes, count: int) -> None:
        fault = refused(Decoder(WIDE), head + b"\x80" * count)
        assert (fault.reason, fault.section) == ("the block ends within an integer", "RFC 7541 5.1")

    @pytest.mark.parametrize("size", [0, 1, 30, 126, 127, 128, 254, 255, 256, 383, 16383, 16600])
    def test_5_1_lengths_around_each_form(self, size: int) -> None:
        text = b"v" * size
        for form in (string, coded):
            block = b"\x00" + string(b"n") + form(text) + indexed(2)
            assert Decoder(WIDE).decode(block) == ((b"n", text), (b":method", b"GET"))


class TestStrings:
    @pytest.mark.parametrize("huffman_coded", [0, 0x80])
    @pytest.mark.parametrize("kind", [INSERTED, NOT_INSERTED, NEVER])
    def test_5_2_longer_than_the_block(self, huffman_coded: int, kind: tuple[int, int]) -> None:
        for missing in (1, 2, 100):
            text = integer(4 + missing, huffman_coded, 7) + b"abcd"
            for block in (integer(1, *kind) + text, integer(0, *kind) + text):
                assert refused(Decoder(WIDE), block).reason == "the block ends within a string"

    @pytest.mark.parametrize(
        ("octets", "reason"),
        [
            (b"\xff", "longer than 7 bits"),
            (b"\x1f\xff", "longer than 7 bits"),
            (b"\x18", "not the beginning of EOS"),
            (b"\xff\xff\xff\xff", "holds the EOS symbol"),
            (b"\xff\xff\xff\xfc", "holds the EOS symbol"),
        ],
    )
    def test_5_2_huffman_faults(self, octets: bytes, reason: str) -> None:
        text = integer(len(octets), 0x80, 7) + octets
        for block in (b"\x01" + text, b"\x00" + text + b"\x00", b"\x00\x01n" + text):
            fault = refused(Decoder(WIDE), block)
            assert reason in fault.reason
            assert fault.section == "RFC 7541 5.2"

    def test_5_2_a_fault_is_not_remembered_as_good(self) -> None:
        for _ in range(3):
            refused(Decoder(WIDE), b"\x01\x81\xff")

    def test_5_2_both_forms_are_the_same_string(self) -> None:
        for text in (b"", b"/x", b"www.example.com", b"\x00\xff", b"x" * 300):
            for _ in range(2):  # decoded, then remembered
                block = b"\x41" + coded(text) + b"\x41" + string(text)
                assert Decoder(WIDE).decode(block) == ((b":authority", text),) * 2

    def test_6_2_cut_behind_a_name(self) -> None:
        for block in (b"\x41", b"\x01", b"\x11", b"\x40\x01n", b"\x00\x01n"):
            assert refused(Decoder(WIDE), block).reason in (
                "the block ends within a field",
                "the block ends within an integer",
            )


class TestSizeUpdates:
    def test_4_2_behind_a_field(self) -> None:
        for field in (indexed(2), literal(1, b"v"), literal(1, b"v", NEVER)):
            fault = refused(Decoder(WIDE), field + resized(100))
            assert (fault.reason, fault.section) == (
                "a table size update behind a field",
                "RFC 7541 4.2",
            )

    def test_4_2_several_begin_a_block(self) -> None:
        decoder = Decoder(WIDE)
        decoder.decode(literal(b"a", b"1"))
        assert decoder.decode(resized(0) + resized(4096) + indexed(2)) == ((b":method", b"GET"),)
        refused(decoder, indexed(62))

    def test_4_2_alone_in_a_block(self) -> None:
        decoder = Decoder(WIDE)
        assert decoder.decode(resized(0)) == ()
        assert decoder.decode(literal(b"a", b"1")) == ((b"a", b"1"),)
        refused(decoder, indexed(62))

    @pytest.mark.parametrize("limit", [0, 30, 31, 32, 1337, 4096])
    def test_6_3_above_what_we_announced(self, limit: int) -> None:
        assert Decoder(WIDE, limit).decode(resized(limit)) == ()
        fault = refused(Decoder(WIDE, limit), resized(limit + 1))
        assert fault.section == "RFC 7541 6.3"
        assert str(limit) in fault.reason

    def test_6_3_above_after_it_was_lowered(self) -> None:
        """The limit is ours: the peer's lower size in between does not move it."""
        decoder = Decoder(WIDE)
        decoder.decode(resized(10))
        decoder.decode(resized(4096))
        refused(decoder, resized(4097))

    def test_4_3_a_smaller_size_evicts_the_oldest(self) -> None:
        decoder = Decoder(WIDE)
        decoder.decode(b"".join(literal(name, b"") for name in (b"a", b"b", b"c", b"d")))
        decoder.decode(resized(66))
        assert decoder.decode(indexed(62) + indexed(63)) == ((b"d", b""), (b"c", b""))
        refused(decoder, indexed(64))

    def test_4_3_what_was_evicted_stays_away(self) -> None:
        decoder = Decoder(WIDE)
        decoder.decode(literal(b"a", b"1") + literal(b"b", b"2"))
        decoder.decode(resized(34) + resized(4096))
        assert decoder.decode(indexed(62)) == ((b"b", b"2"),)
        refused(decoder, indexed(63))


class TestInsertion:
    def test_4_1_an_entry_counts_32_octets_beside_its_own(self) -> None:
        for size, kept in ((99, 2), (100, 3)):
            decoder = Decoder(WIDE, size)
            fields = [entry(33, b"a"), entry(33, b"b"), entry(34, b"c")]
            decoder.decode(b"".join(literal(*field) for field in fields))
            assert decoder.decode(indexed(61 + kept)) == (fields[-kept],)
            refused(decoder, indexed(62 + kept))

    def test_4_4_as_many_go_as_need_to(self) -> None:
        decoder = Decoder(WIDE, 132)
        decoder.decode(b"".join(literal(name, b"") for name in (b"a", b"b", b"c", b"d")))
        decoder.decode(literal(*entry(66, b"e")))
        assert decoder.decode(indexed(63) + indexed(64)) == ((b"d", b""), (b"c", b""))
        refused(decoder, indexed(65))

    def test_4_4_an_entry_as_large_as_the_table(self) -> None:
        decoder = Decoder(WIDE, 100)
        decoder.decode(literal(b"a", b"") + literal(*entry(100)))
        assert decoder.decode(indexed(62)) == (entry(100),)
        refused(decoder, indexed(63))

    def test_4_4_an_entry_larger_than_the_table_empties_it(self) -> None:
        decoder = Decoder(WIDE, 100)
        block = literal(b"a", b"") + literal(*entry(101))
        assert decoder.decode(block) == ((b"a", b""), entry(101))
        assert decoder.decode(literal(b"b", b"")) == ((b"b", b""),)
        assert decoder.decode(indexed(62)) == ((b"b", b""),)
        refused(decoder, indexed(63))

    def test_4_4_a_name_of_the_entry_that_is_evicted_for_it(self) -> None:
        decoder = Decoder(WIDE, 100)
        decoder.decode(literal(*entry(60, b"name")))
        value = b"w" * 30
        assert decoder.decode(literal(62, value)) == ((b"name", value),)
        assert decoder.decode(indexed(62)) == ((b"name", value),)
        refused(decoder, indexed(63))

    @pytest.mark.parametrize("kind", [NOT_INSERTED, NEVER])
    def test_6_2_2_and_6_2_3_do_not_enter_the_table(self, kind: tuple[int, int]) -> None:
        decoder = Decoder(WIDE)
        decoder.decode(literal(b"a", b"1", kind) + literal(1, b"1", kind))
        assert decoder.changes == 0
        refused(decoder, indexed(62))

    def test_6_1_an_indexed_field_does_not_enter_it_again(self) -> None:
        decoder = Decoder(WIDE)
        decoder.decode(literal(b"a", b"1") + indexed(62) + indexed(2))
        refused(decoder, indexed(63))

    def test_a_table_of_nothing(self) -> None:
        decoder = Decoder(WIDE, 0)
        assert decoder.decode(literal(b"a", b"1") + indexed(61)) == (
            (b"a", b"1"),
            (b"www-authenticate", b""),
        )
        refused(decoder, indexed(62))


class TestChanges:
    def test_every_change_of_the_table_is_counted(self) -> None:
        decoder = Decoder(WIDE, 100)
        counts = [decoder.changes]
        for block in (
            literal(b"a", b"1"),
            literal(b"b", b"1") + literal(b"c", b"1"),
            literal(*entry(500)),  # empties it
            resized(50),
            resized(0) + resized(100) + indexed(2),
        ):
            decoder.decode(block)
            counts.append(decoder.changes)
        assert all(before < after for before, after in pairwise(counts))

    def test_nothing_else_is(self) -> None:
        decoder = Decoder(WIDE)
        decoder.decode(literal(b"a", b"1"))
        before = decoder.changes
        for block in (b"", indexed(62), literal(62, b"x", NEVER), literal(b"x", b"", NOT_INSERTED)):
            decoder.decode(block)
        assert decoder.changes == before


def judged_blocks(seed: int) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """Fields of every kind, each encoded alone: put together, they are one block."""
    dice = random.Random(seed)
    judge = Judge()
    names = [b":path", b"cookie", b"accept", b"x-" + b"n" * dice.randrange(140), b"etag", b"x-a"]
    pieces, fields = [], []
    for _ in range(dice.randrange(1, 12)):
        alphabet = dice.choice([b"abcxyz019/-", bytes(range(256)), b"{}\\^", b"a"])
        value = bytes(dice.choices(alphabet, k=dice.choice([0, 1, 3, 10, 40, 130, 260])))
        field = dice.choice(names), dice.choice([value, b"again", b"again"])
        huffman_coded, secret = dice.random() < 0.7, dice.random() < 0.2
        pieces.append(judge.encode([(*field, secret)], huffman=huffman_coded))
        fields.append(field)
    return pieces, fields


@pytest.mark.parametrize("seed", range(150))
def test_every_cut_and_every_split(seed: int) -> None:
    """A cut between fields leaves a good block, and the rest is another; any other cut is an error."""
    pieces, fields = judged_blocks(seed)
    block = b"".join(pieces)
    whole = Decoder(WIDE)
    assert list(whole.decode(block)) == fields
    ends = dict(zip(accumulate(map(len, pieces), initial=0), range(len(pieces) + 1), strict=True))
    for cut in range(len(block) + 1):
        decoder = Decoder(WIDE)
        if cut not in ends:
            assert "the block ends within" in refused(decoder, block[:cut]).reason
            continue
        assert list(decoder.decode(block[:cut])) == fields[: ends[cut]]
        assert list(decoder.decode(block[cut:])) == fields[ends[cut] :]
        assert decoder._table == whole._table and decoder._size == whole._size
        assert decoder.changes == whole.changes


class TestBounds:
    @pytest.mark.parametrize("table", [0, 4096])
    @pytest.mark.parametrize("count", [1, 10, 200, 3000])
    def test_9113_6_5_2_the_list_is_counted_to_the_octet(self, count: int, table: int) -> None:
        """Short blocks and those that are read in pieces; references, and literals of each kind."""
        for block, size in (
            (indexed(2), 32 + 7 + 3),
            (literal(1, b"v" * 9, NOT_INSERTED), 32 + 10 + 9),
            (literal(b"n", b"v" * 9, NEVER), 32 + 1 + 9),
            (literal(b"n", b"v" * 9), 32 + 1 + 9),
            (b"\x00\x01n" + coded(b"0" * 160), 32 + 1 + 160),
        ):
            decoder = Decoder(size * count, table)
            assert len(decoder.decode(block * count)) == count
            assert not decoder.too_long
            decoder = Decoder(size * count - 1, table)
            assert decoder.decode(block * count) == ()
            assert decoder.too_long

    @pytest.mark.parametrize("count", [1, 2000])
    def test_references_to_a_large_entry_count_as_what_they_stand_for(self, count: int) -> None:
        field = entry(4096)
        decoder = Decoder(4096 * (count + 1))
        assert len(decoder.decode(literal(*field) + indexed(62) * count)) == count + 1
        decoder = Decoder(4096 * (count + 1) - 1)
        assert decoder.decode(literal(*field) + indexed(62) * count) == ()
        assert decoder.too_long

    def test_it_is_said_of_the_last_block(self) -> None:
        decoder = Decoder(100)
        for _ in range(2):
            assert decoder.decode(literal(b"a", b"v" * 100)) == ()
            assert decoder.too_long
            assert decoder.decode(indexed(2)) == ((b":method", b"GET"),)
            assert not decoder.too_long
            assert decoder.decode(indexed(2) * 3000) == ()
            assert decoder.too_long

    def test_it_is_said_of_the_last_block_also_of_long_ones(self) -> None:
        decoder = Decoder(42 * 3000)
        for _ in range(2):
            assert decoder.decode(indexed(2) * 3001) == ()
            assert decoder.too_long
            assert len(decoder.decode(indexed(2) * 3000)) == 3000
            assert not decoder.too_long

    @pytest.mark.parametrize("pieces", [1, 2])
    def test_a_list_that_is_full_before_the_block_ends(self, pieces: int) -> None:
        decoder = Decoder(42 * 1024 * pieces)
        for more in (1, 500, 3000):
            assert decoder.decode(indexed(2) * (1024 * pieces + more)) == ()
            assert decoder.too_long

    @pytest.mark.parametrize("count", [1, 2000])
    def test_the_table_is_right_after_a_list_that_was_too_long(self, count: int) -> None:
        decoder, free = Decoder(1000), Decoder(WIDE)
        block = literal(b"a", b"v" * 2000) + indexed(62) * count + literal(62, b"behind")
        block += b"".join(literal(b"n%d" % number, b"") for number in range(80))
        assert decoder.decode(block) == () and decoder.too_long
        assert len(free.decode(block)) == count + 82
        assert decoder._table == free._table
        assert decoder._size == free._size
        assert decoder.changes == free.changes

    def test_faults_are_found_in_what_is_dropped(self) -> None:
        assert refused(Decoder(100), indexed(2) * 5000 + indexed(70)).section == "RFC 7541 2.3.3"

    def test_references_take_no_memory_once_the_list_is_too_long(self) -> None:
        """64 KiB of references to 4 KiB: 256 MiB for who copies, half a megabyte for who keeps all."""
        decoder = Decoder(65536)
        decoder.decode(literal(*entry(4096)))
        assert peak(decoder, indexed(62) * 65536) < 65536
        assert decoder.too_long

    def test_small_references_take_no_more_than_the_bound_either(self) -> None:
        decoder = Decoder(65536)
        assert peak(decoder, indexed(2) * 65536) < 65536
        assert decoder.too_long

    def test_literals_take_no_more_than_they_are(self) -> None:
        decoder = Decoder(65536)
        block = b"".join(literal(b"n", b"v" * 40 + b"%d" % number) for number in range(1500))
        assert len(block) > 65536
        assert peak(decoder, block) < 4 * 65536
        assert decoder.too_long

    def test_the_table_is_bounded_however_many_entries_come(self) -> None:
        decoder = Decoder(WIDE)
        decoder.decode(b"".join(literal(b"", b"%d" % number) for number in range(9000)))
        decoder.decode(b"\x40\x00\x00" * 9000)
        assert len(decoder._table) == 62 + 4096 // 32

    def test_strings_are_remembered_within_bounds(self) -> None:
        known = decoder_module._STRINGS
        for number in range(MEMORY + 50):
            Decoder(WIDE).decode(literal(b"n%d" % number, b"v" * 100, NOT_INSERTED))
            assert len(known) <= MEMORY
        assert string(b"n%d" % (MEMORY + 49)) in known
        Decoder(WIDE).decode(literal(b"n", b"v" * 128, NOT_INSERTED) + b"\x01" + coded(b"w" * 300))
        assert max(map(len, known)) <= 128

    def test_7_1_3_what_is_never_indexed_is_not_remembered(self) -> None:
        text = string(b"a secret of somebody")
        Decoder(WIDE).decode(b"\x11" + text)
        assert text not in decoder_module._STRINGS
        Decoder(WIDE).decode(b"\x01" + text)
        assert decoder_module._STRINGS[text] == b"a secret of somebody"

    def test_remembered_strings_are_checked_for_their_length_all_the_same(self) -> None:
        """What is looked up begins with a length, and a block that ends early has no such octets."""
        block = literal(b"name", b"value", NOT_INSERTED)
        Decoder(WIDE).decode(block)
        for cut in range(1, len(block)):
            refused(Decoder(WIDE), block[:cut])


def peak(decoder: Decoder, block: bytes) -> int:
    """The most octets that decoding a block takes at once."""
    tracemalloc.start()
    try:
        assert decoder.decode(block) == ()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
