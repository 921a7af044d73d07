"""The chunked transfer coding, reading side (RFC 9112 7.1), one piece of input after the other.

Strategy: data passes through as slices of the input; only an unfinished line (a chunk's size, a
trailer field) is kept between calls, and every such line has a bound. Trailer fields are checked
and dropped: ASGI has no place for them, and merging them into the head is how requests are
smuggled (RFC 9110 6.5.1).
"""

from __future__ import annotations

import enum
import re

from tidegate.protocol.engine import Limits
from tidegate.protocol.http1.reader import parse_field_line
from tidegate.protocol.target import Refusal, check_body_size, check_head_size

# size, then extensions: BWS ";" BWS name [ BWS "=" BWS (token | quoted-string) ]
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*)\r\n"
    % (_TOKEN, _TOKEN, _QUOTED)
)
LINE_BOUND = 4096
EXTENSIONS_BOUND = 16384  # in one body; they carry nothing anybody here reads


class Stage(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    DONE = enum.auto()


SIZE, DONE = Stage.SIZE, Stage.DONE  # an Enum's members are looked up in Python
SIZES = 1024  # sizes remembered, as they were written
_sizes: dict[bytes, int] = {}


class ChunkedBody:
    """Decodes one body. `stage` is DONE once the last chunk and its trailers have come."""

    __slots__ = ("_extensions", "_limits", "_line", "_remaining",
        "_total", "_trailer_size", "_trailers",
                 "stage")  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self.stage = Stage.SIZE
        self._limits = limits
        self._line = bytearray()
        self._remaining = 0
        self._total = 0  # as announced by the chunks so far
        self._extensions = 0
        self._trailers = 0
        self._trailer_size = 0

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """The body bytes in `data`, and what follows the body's end; raises Refusal."""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size and self.stage is not DONE:
            if self.stage is SIZE and not self._line:
                at = self._take_whole_chunks(data, at, pieces)
                if at == size:
                    break
            if self.stage is Stage.DATA:
                piece = data[at : at + self._remaining]
                pieces.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self.stage = Stage.DATA_END
            else:
                at = self._take_line(data, at)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), data[at:]

    def _take_whole_chunks(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """The quick road, for chunks that are here to their end and whose size is a plain number.

        0.4 us each instead of 2.3: a body sent byte by byte must not hold up the others.
        """
        total, known = self._total, _sizes.get
        while True:
            line_end = data.find(b"\r\n", at, at + 10)
            length = known(data[at:line_end]) if line_end > 0 else None
            if length is None:
                break
            begin = line_end + 2
            end = begin + length
            if data[end : end + 2] != b"\r\n":
                break
            pieces.append(data[begin:end])
            total += length
            at = end + 2
        self._total = total
        check_body_size(total, self._limits)
        return at

    def _take_line(self, data: bytes, at: int) -> int:
        newline = data.find(b"\n", at)
        end = newline + 1 if newline >= 0 else len(data)
        line = self._line
        line += data[at:end]
        if self.stage is Stage.DATA_END and not b"\r\n".startswith(line[:2]):
            raise Refusal(400, "chunk data is not followed by CRLF", "RFC 9112 7.1")
        if len(line) > LINE_BOUND and self.stage is Stage.SIZE:
            raise Refusal(400, "a chunk extension without end", "RFC 9112 7.1.1")
        if self.stage is Stage.TRAILERS:
            check_head_size(self._trailer_size + len(line), self._trailers, self._limits)
        if newline >= 0:
            self._line = bytearray()
            self._end_line(bytes(line))
        return end

    def _end_line(self, line: bytes) -> None:
        if self.stage is Stage.SIZE:
            self._begin_chunk(line)
        elif self.stage is Stage.DATA_END:
            self.stage = Stage.SIZE
        elif line == b"\r\n":
            self.stage = Stage.DONE
        else:
            parse_field_line(line)
            self._trailers += 1
            self._trailer_size += len(line)
            check_head_size(self._trailer_size, self._trailers, self._limits)

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise Refusal(400, "not a chunk size", "RFC 9112 7.1")
        self._extensions += len(match[2])
        if self._extensions > EXTENSIONS_BOUND:
            raise Refusal(400, "more chunk extensions than anybody needs", "RFC 9112 7.1.1")
        self._remaining = int(match[1], 16)
        if self._remaining and len(match[1]) <= 8 and not match[2]:
            if len(_sizes) >= SIZES:
                _sizes.clear()
            _sizes[match[1]] = self._remaining
        self._total += self._remaining
        check_body_size(self._total, self._limits)
        self.stage = Stage.DATA if self._remaining else Stage.TRAILERS
