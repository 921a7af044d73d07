"""permessage-deflate (RFC 7692), a server's side of it: what is agreed on, and doing it.

Strategy: the header is read by one grammar before anything is decided, then the first offer that
can be kept to the letter is taken. A message is inflated piece by piece as it arrives, never past
what its reader still allows. zlib's objects are made when a message first needs them; on a side
without context takeover they live as long as that message, and the compressor, whose context is
ours to forget at any time, only until the socket rests. A few KB may inflate to megabytes, which
takes its time: it is done in steps.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from tidegate.protocol.headers import TOKEN
from tidegate.protocol.websocket.engine import STEP, Corrupt, Overfull

NAME = b"permessage-deflate"
UNLIMITED = -1

_TAIL = b"\x00\x00\xff\xff"  # a sync flush ends with it, a message leaves it out (7.2.1)
_LARGEST = 15  # the bits of a window nobody spoke of (7.1.2)
# What follows the end of a stream is a copy: a payload of thousands of two-byte streams would be
# copied thousands of times. In steps of this size the work stays in proportion to the payload.
_STEP = 512

# RFC 6455 9.1, with RFC 9110 5.6.1.2: elements may be empty. A quoted value must be a token once
# its backslashes are gone. Everything is possessive: no byte is tried twice.
_WORD = TOKEN.pattern + b"+"
_CHAR = TOKEN.pattern.removesuffix(b"+")
_EXTENSION = re.compile(rb"[ \t]*+(%b)?+" % _WORD)
_PARAM = re.compile(
    rb'[ \t]*+;[ \t]*+(%b)(?:[ \t]*+=[ \t]*+(?:(%b)|"((?:\\?%b)++)"))?+' % (_WORD, _WORD, _CHAR)
)
_GAP = re.compile(rb"[ \t]*+(?:,|\Z)")

_BITS = frozenset(b"%d" % bits for bits in range(8, 16))
_VALUES: dict[bytes, frozenset[bytes | None]] = {
    b"server_no_context_takeover": frozenset((None,)),
    b"client_no_context_takeover": frozenset((None,)),
    # zlib makes no raw stream with a window of 8 bits. That its window of 9 reaches back 250 bytes
    # at most is nowhere promised, so 8 is declined (7.1.2.1), and the client's next offer counts.
    b"server_max_window_bits": _BITS - {b"8"},
    # inflating 8 bits is possible
    b"client_max_window_bits": _BITS | {None},
}


class BadOffer(Exception):
    """Sec-WebSocket-Extensions breaks its grammar: the handshake has failed (RFC 6455 9.1)."""


class Terms(NamedTuple):
    """What the server wants. A server's window has 9 to 15 bits, so has a client's.

    A compressor takes (1 << bits + 2) + (1 << mem_level + 9) bytes and 6 KB: 38 KB as it is here,
    268 KB with zlib's defaults; a decompressor takes 12 KB instead of 40. Chat messages of 200
    bytes shrink to 28 % instead of 24 %, tables of 4 KB to 24 % instead of 22 %.
    """

    server_max_window_bits: int = 12
    client_max_window_bits: int = 12  # only where the client says that it can limit it
    level: int = 3  # two thirds of the time of 6, a tenth more bytes
    mem_level: int = 5  # 4 is slower and makes more, 6 saves 1 % at the most
    threshold: int = 64  # bytes; what is shorter goes in one packet either way
    # Chat of 200 bytes shrinks to 28 % with its context and to 71 % without, in half the time.
    keep_context: bool = True


class Agreed(NamedTuple):
    """The parameters of the response; those it leaves out have the values they stand for."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int
    client_max_window_bits: int


def negotiate(offers: list[bytes], terms: Terms) -> tuple[bytes, Agreed] | None:
    """The response's Sec-WebSocket-Extensions and its meaning; None: nothing to agree on.

    `offers` are the values of the request's fields, in order. Raises BadOffer.
    """
    extensions = [extension for value in offers for extension in _read(value)]
    if offers and not extensions:
        raise BadOffer("Sec-WebSocket-Extensions is empty")
    for name, params in extensions:
        asked = dict(params)
        if (
            name == NAME
            and len(asked) == len(params)
            and all(value in _VALUES.get(param, ()) for param, value in params)
        ):
            return _agree(asked, terms)
    return None


def _read(value: bytes) -> Iterator[tuple[bytes, list[tuple[bytes, bytes | None]]]]:
    at = 0
    while at < len(value):
        extension = _EXTENSION.match(value, at)
        assert extension is not None
        at = extension.end()
        params = []
        while extension[1] and (param := _PARAM.match(value, at)):
            quoted = param[3] and param[3].replace(b"\\", b"")
            params.append((param[1], param[2] or quoted))
            at = param.end()
        gap = _GAP.match(value, at)
        if gap is None:
            raise BadOffer("Sec-WebSocket-Extensions is not a list of extensions")
        at = gap.end()
        if extension[1]:
            yield extension[1], params


def _agree(asked: dict[bytes, bytes | None], terms: Terms) -> tuple[bytes, Agreed]:
    """The answer to an offer that is acceptable."""
    no_server = not terms.keep_context or b"server_no_context_takeover" in asked
    no_client = not terms.keep_context or b"client_no_context_takeover" in asked
    server = min(terms.server_max_window_bits, int(asked.get(b"server_max_window_bits") or 15))
    client = _LARGEST
    if b"client_max_window_bits" in asked:  # else we may not limit it (7.1.2.2)
        client = min(terms.client_max_window_bits, int(asked[b"client_max_window_bits"] or 15))
    answer = NAME
    if no_server:
        answer += b"; server_no_context_takeover"
    if no_client:
        answer += b"; client_no_context_takeover"
    if server < _LARGEST or b"server_max_window_bits" in asked:
        answer += b"; server_max_window_bits=%d" % server
    if client < _LARGEST:
        answer += b"; client_max_window_bits=%d" % client
    return answer, Agreed(no_server, no_client, server, client)


class MessageDeflate:
    """One connection's messages, each direction in order: `Deflate` of the engine.

    What `compress` gives back has to be sent: the messages after it lean on it. After an exception
    nothing more can be decompressed.
    """

    __slots__ = (
        "_agreed", "_begun", "_deflater", "_end", "_inflater", "_input", "_step", "_terms",
        "pending",
    )  # fmt: skip

    def __init__(self, agreed: Agreed, terms: Terms) -> None:
        self._agreed = agreed
        self._terms = terms
        self._begun = False  # a message is coming in
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None
        self._input = b""  # not inflated yet
        self._end = False  # nothing of the message follows the input
        self._step = 0  # bytes of it that zlib gets at a time
        self.pending = False

    def compress(self, data: bytes) -> bytes | None:
        """A message's payload; None: it goes as it is, it is too short or would not shrink."""
        size = len(data)
        if size < self._terms.threshold or not size:
            return None
        deflater = self._deflater
        if deflater is None:
            bits = self._agreed.server_max_window_bits
            deflater = zlib.compressobj(
                self._terms.level, zlib.DEFLATED, -bits, self._terms.mem_level
            )
        shorter = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)[: -len(_TAIL)]
        if not self._agreed.server_no_context_takeover:
            # sent even if it is longer (by 5 bytes in some thousand): it is in the context now
            self._deflater = deflater
            return shorter
        return shorter if len(shorter) < size else None

    def decompress(self, data: bytes, end: bool, bound: int) -> bytes:
        """A piece of a message, `end` with its last; at most `bound` bytes, UNLIMITED: any number.

        Where that is a lot it comes in steps: while `pending`, `more` has the next. Raises Overfull
        and Corrupt.
        """
        if not data and not self._begun:
            # A message without a byte is no DEFLATE at all, and can only be meant to be empty;
            # with the tail put to it, it would spoil the message after it.
            return b""
        self._begun = not end
        self._input = data + _TAIL if end else data
        self._end = end
        self._step = len(self._input)
        return self.more(bound)

    def more(self, bound: int) -> bytes:
        """The next STEP of what `decompress` was given; `pending` says whether there is more."""
        data = memoryview(self._input)
        at, room, outputs = 0, STEP, []
        inflater, self._inflater = self._inflater, None  # gone if anything is wrong
        if bound < UNLIMITED:
            bound = 0
        while True:
            if inflater is None or inflater.eof:
                if inflater is not None:
                    # another stream, which begins at a byte (7.2.3.4)
                    self._step = _STEP
                    if self._end and len(data) - at <= len(_TAIL):
                        raise Corrupt("no block follows the one with BFINAL (RFC 7692 7.2.3.4)")
                    if at == len(data):
                        self.pending = False
                        break  # the message goes on, or its stream does not: what comes shows it
                inflater = self._make_inflater()
            elif at == len(data) and not self.pending:
                break
            # one byte too many tells Overfull from just full; 0 would be no bound to zlib
            limit = room if bound < 0 else min(room, bound + 1)
            step = data[at : at + self._step]
            output = _inflate(inflater, step, limit)
            outputs.append(output)
            at += len(step) - len(inflater.unused_data) - len(inflater.unconsumed_tail)
            room -= len(output)
            if bound >= 0:
                bound -= len(output)
                if bound < 0:
                    raise Overfull
            # zlib may hold more than it has given, though it has read everything
            self.pending = len(output) == limit
            if not room:
                break
        self._input = bytes(data[at:])
        if self.pending or not self._end or not self._agreed.client_no_context_takeover:
            self._inflater = inflater
        return b"".join(outputs)

    def _make_inflater(self) -> zlib._Decompress:
        return zlib.decompressobj(-self._agreed.client_max_window_bits)

    def rest(self) -> None:
        """Give memory back, the socket has been silent for a while: the next message costs more.

        A client keeps its window for ours whether or not we refer to it, so the compressor goes
        even where its context was kept. The decompressor stays where the client may refer to what
        it sent before; anywhere else it is gone with its message.
        """
        self._deflater = None


def _inflate(inflater: zlib._Decompress, data: memoryview, limit: int) -> bytes:
    try:
        return inflater.decompress(data, limit)
    except zlib.error as error:
        raise Corrupt(str(error)) from None
