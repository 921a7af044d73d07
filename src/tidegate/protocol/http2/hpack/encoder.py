"""Fields to header blocks (RFC 7541 3), and the table that our blocks build up at the peer.

What goes in the table: a field that this process has sent before, unless its name says that it
varies or is a secret. So what comes once does not push out what repeats.

Names of dynamic entries are not referred to: a literal is then a value of its field alone, and can
be remembered for every connection. The price is a few octets for a field whose value always
differs and whose name is the application's own.

Measured (Python 3.13): six fields 1.2 us, 3.6 on a new connection, 13 if none was ever sent; a
value of 31 octets that never came before takes 5 of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tidegate.protocol.headers import MEMORY
from tidegate.protocol.http2.hpack import huffman
from tidegate.protocol.http2.hpack.tables import (
    DEFAULT_SIZE,
    FIRST_DYNAMIC,
    STATIC,
    Field,
    size_of,
)

# RFC 7541 7.1.3: neither we nor a proxy put them in a table, where they could be guessed.
_SECRET = frozenset((b"set-cookie", b"authorization", b"proxy-authorization", b"cookie"))
_VARYING = frozenset(
    b"content-length etag location content-range age last-modified :path".split(),
)

# The first octet of a literal, and the prefix of its name's index (RFC 7541 6.2.1 to 6.2.3).
_INSERTED = (0x40, 0x3F)
_NOT_INSERTED = (0x00, 0x0F)
_NEVER_INDEXED = (0x10, 0x0F)

_LONGEST = 512  # octets of a literal that is remembered
_SIGHTS = 4096  # fields that are known to have been sent


class _Literals(dict[Field, bytes]):
    """Rendered literals of one kind; like `Memory`, it forgets everything when full."""

    def __init__(self, kind: tuple[int, int]) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, field: Field) -> bytes:
        octets = _render(field, self._kind)
        if len(octets) <= _LONGEST:
            if len(self) >= MEMORY:
                self.clear()
            self[field] = octets
        return octets


_inserted = _Literals(_INSERTED)
_not_inserted = _Literals(_NOT_INSERTED)
# Hashes of fields that were sent. If two share one, the second is inserted at its first sight.
_sent: set[int] = set()


class Encoder:
    """One connection's encoder.

    `changes` grows with every change of the table, and with a size update: as long as it stays, a
    block that was made without changing it may be sent again, octet for octet. `settled` says that
    the last block would come out the same again: it changed nothing, and held nothing new that the
    next one would insert.
    """

    __slots__ = (
        "_bound",
        "_capacity",
        "_entries",
        "_inserted",
        "_least",
        "_places",
        "_size",
        "_told",
        "changes",
        "settled",
    )

    def __init__(self, table_size: int = DEFAULT_SIZE) -> None:
        self.changes = 0
        self.settled = False
        self._bound = table_size
        self._told = DEFAULT_SIZE  # what the peer's decoder takes for the table's size
        self._least = self._capacity = min(table_size, DEFAULT_SIZE)
        self._size = 0
        self._inserted = 0  # entries ever made
        self._places: dict[Field, int] = {}  # by entry: which one ever made it is, from 1
        self._entries: deque[Field] = deque()  # the oldest first

    def resize(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE: the next block begins by saying what we use."""
        self.changes += 1
        self._capacity = min(self._bound, size)
        self._least = min(self._least, self._capacity)
        self._evict(self._capacity)

    def encode(self, fields: Iterable[Field]) -> bytes:
        """The block of fields whose names are in lower case already, pseudo-header fields first."""
        self.settled = True
        parts: list[bytes] = []
        if self._capacity != self._told or self._least != self._told:
            self._tell_sizes(parts)
        places = self._places
        for field in fields:
            part = _STATIC_FIELDS.get(field)
            if part is None:
                place = places.get(field)
                if place is None:
                    part = self._literal(field)
                else:
                    part = _integer(FIRST_DYNAMIC + self._inserted - place, 0x80, 0x7F)
            parts.append(part)
        return b"".join(parts)

    def _tell_sizes(self, parts: list[bytes]) -> None:
        """RFC 7541 4.2, 6.3: the smallest size since the last block, then the one that holds."""
        if self._least < min(self._told, self._capacity):
            parts.append(_integer(self._least, 0x20, 0x1F))
        parts.append(_integer(self._capacity, 0x20, 0x1F))
        self._told = self._least = self._capacity
        self._changed()

    def _literal(self, field: Field) -> bytes:
        name = field[0]
        if name in _SECRET:
            return _render(field, _NEVER_INDEXED)
        size = size_of(field)
        may_enter = name not in _VARYING and size <= self._capacity >> 1
        if not _seen(field):
            if may_enter:
                self.settled = False
            return _render(field, _NOT_INSERTED)
        if not may_enter:
            return _not_inserted[field]
        self._evict(self._capacity - size)
        self._size += size
        self._inserted += 1
        self._places[field] = self._inserted
        self._entries.append(field)
        self._changed()
        return _inserted[field]

    def _evict(self, room: int) -> None:
        """The oldest go, until the rest takes no more than `room`."""
        while self._size > room:
            field = self._entries.popleft()
            del self._places[field]
            self._size -= size_of(field)

    def _changed(self) -> None:
        self.changes += 1
        self.settled = False


def _seen(field: Field) -> bool:
    """Whether this process has sent the field before; from now on it has."""
    mark = hash(field)
    if mark in _sent:
        return True
    if len(_sent) >= _SIGHTS:
        _sent.clear()
    _sent.add(mark)
    return False


def _render(field: Field, kind: tuple[int, int]) -> bytes:
    """A literal; its name by index, if the static table has it (RFC 7541 6.2)."""
    name, value = field
    index = _STATIC_NAMES.get(name, 0)
    return _integer(index, *kind) + (b"" if index else _string(name)) + _string(value)


def _integer(value: int, pattern: int, prefix: int) -> bytes:
    """RFC 7541 5.1, in an octet whose bits beside the prefix are `pattern`'s."""
    if value < prefix:
        return _OCTETS[pattern | value]
    octets = bytearray((pattern | prefix,))
    value -= prefix
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _string(text: bytes) -> bytes:
    """RFC 7541 5.2: Huffman-coded where that is shorter."""
    size = huffman.length(text)
    if size < len(text):
        return _integer(size, 0x80, 0x7F) + huffman.encode(text)
    return _integer(len(text), 0x00, 0x7F) + text


_OCTETS = tuple(bytes((octet,)) for octet in range(256))
_STATIC_FIELDS = {field: _OCTETS[0x80 | index] for index, field in enumerate(STATIC, 1)}
_STATIC_NAMES = {name: index for index, (name, _) in reversed([*enumerate(STATIC, 1)])}
