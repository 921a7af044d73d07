"""Header blocks to fields (RFC 7541 3), and the table that one peer's blocks build up.

Strings repeat for the life of a process, whatever connection they come by, so a string literal's
octets are looked up in a bounded memory first, its length among them: 0.1 us where decoding takes
1.7. A browser's first request, twelve Huffman-coded fields of fourteen, takes 7 us by it and 35
without; eight indexed fields 1.1 (Python 3.13).
"""

from __future__ import annotations

from tidegate.protocol.headers import Memory
from tidegate.protocol.http2.hpack import huffman
from tidegate.protocol.http2.hpack.tables import (
    DEFAULT_SIZE,
    FIRST_DYNAMIC,
    OVERHEAD,
    STATIC,
    Field,
    size_of,
)

_NONE: Field = (b"", b"")  # stands at index 0, which a field may not name
# RFC 7541 5.1 leaves the bound to us: what five octets after the prefix hold is more than 32 bits.
_CONTINUATIONS = 5
# So many octets of a block are read, then their fields are counted: a bound on what we keep of a
# block full of references, without a look at the sum for each of them.
_PIECE = 1024
# What a field may count beside its own octets and a dynamic entry: a static entry and OVERHEAD.
_BESIDE = 96

_STRINGS = Memory()


class HpackError(Exception):
    """The block cannot be decoded, nor any after it: COMPRESSION_ERROR (RFC 9113 4.3)."""

    def __init__(self, reason: str, section: str) -> None:
        super().__init__(f"{reason} ({section})")
        self.reason = reason
        self.section = section


class Decoder:
    """One connection's decoder. After an HpackError it is of no more use.

    `changes` grows with every change of the table: while it stays, a block means what it meant.
    `too_long` says that the last block's fields came to more than `list_bound`, counted as RFC 9113
    6.5.2 does; they are dropped then, but the table is right.
    """

    __slots__ = ("_bound", "_capacity", "_limit", "_size", "_table", "changes", "too_long")

    def __init__(self, list_bound: int, table_size: int = DEFAULT_SIZE) -> None:
        self.changes = 0
        self.too_long = False
        self._bound = list_bound
        self._limit = self._capacity = table_size
        self._size = 0
        # By index: the static table, the newest dynamic entry, and so on to the oldest.
        self._table: list[Field] = [_NONE, *STATIC]

    def decode(self, block: bytes) -> tuple[Field, ...]:
        """The fields of a whole block, or () if they are `too_long`."""
        pos = self._read_sizes(block)
        if len(block) > _PIECE:
            return self._decode_long(block, pos)
        fields: list[Field] = []
        self._read(block, pos, len(block), fields)
        # No code is shorter than five bits, so twice the block is more than its literals. This sum
        # is nearly always small enough, and spares the count.
        most = len(fields) * (self._limit + _BESIDE) + 2 * len(block)
        self.too_long = most > self._bound and sum(map(size_of, fields)) > self._bound
        return () if self.too_long else tuple(fields)

    def _decode_long(self, block: bytes, pos: int) -> tuple[Field, ...]:
        """As `decode`; keeps no more than the bound and what a piece brings."""
        fields: list[Field] = []
        room = self._bound
        while pos < len(block):
            piece: list[Field] = []
            pos = self._read(block, pos, min(pos + _PIECE, len(block)), piece)
            if room >= 0:
                room -= sum(map(size_of, piece))
                fields = fields + piece if room >= 0 else []
        self.too_long = room < 0
        return tuple(fields)

    def _read_sizes(self, block: bytes) -> int:
        """Obey the size updates that begin a block (RFC 7541 4.2, 6.3); where the rest begins."""
        pos = 0
        while pos < len(block) and block[pos] & 0xE0 == 0x20:
            size, pos = _integer(block, pos, 0x1F)
            if size > self._limit:
                raise HpackError(
                    f"a table size of {size}, more than our {self._limit}", "RFC 7541 6.3"
                )
            self._capacity = size
            self.changes += 1
            self._evict()
        return pos

    def _read(self, block: bytes, pos: int, stop: int, fields: list[Field]) -> int:
        """Add the fields that begin before `stop`; where the next one begins."""
        table, known = self._table, _STRINGS.get
        index = 0
        try:
            while pos < stop:
                octet = block[pos]
                pos += 1
                if octet > 0x80:  # RFC 7541 6.1: indexed
                    index = octet & 0x7F
                    if index == 0x7F:
                        index, pos = _integer(block, pos - 1, 0x7F)
                    fields.append(table[index])
                    continue
                prefix = 0x3F if octet & 0x40 else _literal_prefix(octet)
                index = octet & prefix
                if index == prefix:
                    index, pos = _integer(block, pos - 1, prefix)
                if index:
                    name = table[index][0]
                else:
                    name, pos = _string(block, pos, True)
                after = pos + 1 + (block[pos] & 0x7F)
                value = known(block[pos:after])
                if value is None:
                    value, after = _string(block, pos, octet & 0xF0 != 0x10)
                pos = after
                field = (name, value)
                fields.append(field)
                if octet & 0x40:  # RFC 7541 6.2.1: with incremental indexing
                    table.insert(FIRST_DYNAMIC, field)
                    self.changes += 1
                    self._size += len(name) + len(value) + OVERHEAD
                    if self._size > self._capacity:
                        self._evict()
        except IndexError:
            raise _out_of_range(index, len(table)) from None
        return pos

    def _evict(self) -> None:
        """RFC 7541 4.3, 4.4: the oldest go; all of them, if the newest is larger than the table."""
        while self._size > self._capacity:
            self._size -= size_of(self._table.pop())


def _literal_prefix(octet: int) -> int:
    """The bits of a name's index in a literal that is not inserted (RFC 7541 6.2.2, 6.2.3)."""
    if octet == 0x80:
        raise HpackError("index 0 stands for no field", "RFC 7541 6.1")
    if octet & 0x20:
        raise HpackError("a table size update behind a field", "RFC 7541 4.2")
    return 0x0F


def _integer(block: bytes, pos: int, prefix: int) -> tuple[int, int]:
    """The integer whose first octet, with `prefix` for its bits, is at `pos`; where it ends."""
    try:
        value = block[pos] & prefix
        pos += 1
        if value < prefix:
            return value, pos
        for shift in range(0, 7 * _CONTINUATIONS, 7):
            octet = block[pos]
            pos += 1
            value += (octet & 0x7F) << shift
            if octet < 0x80:
                return value, pos
    except IndexError:
        raise HpackError("the block ends within an integer", "RFC 7541 5.1") from None
    raise HpackError(f"an integer of more than {_CONTINUATIONS + 1} octets", "RFC 7541 5.1")


def _string(block: bytes, pos: int, keep: bool) -> tuple[bytes, int]:
    """The string literal at `pos`, remembered if it may be; and where it ends."""
    after = pos + 1 + (block[pos] & 0x7F)
    known = _STRINGS.get(block[pos:after])
    if known is not None:
        return known, after
    size, start = _integer(block, pos, 0x7F)
    after = start + size
    if after > len(block):
        raise HpackError("the block ends within a string", "RFC 7541 5.2")
    text = block[start:after]
    if block[pos] & 0x80:
        try:
            text = huffman.decode(text)
        except ValueError as fault:
            raise HpackError(str(fault), "RFC 7541 5.2") from None
    if keep:
        _STRINGS.keep(block[pos:after], text)
    return text, after


def _out_of_range(index: int, known: int) -> HpackError:
    if index >= known:
        return HpackError(f"index {index}, where the tables end with {known - 1}", "RFC 7541 2.3.3")
    return HpackError("the block ends within a field", "RFC 7541 6.2")
