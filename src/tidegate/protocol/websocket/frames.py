"""WebSocket frames: their grammar, the mask, and rendering what a server sends (RFC 6455 5).

Strategy: a server's frames carry no mask, so sending one is a header in front of the payload, and
the headers of short frames are made once. A client's mask is undone by the C routine of the
`websockets` library, or by one big XOR of integers where that is not built.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import cache
from importlib.machinery import ExtensionFileLoader, PathFinder
from importlib.util import module_from_spec


class Opcode(enum.IntEnum):
    """RFC 6455 5.2; 3 to 7 and 11 to 15 are reserved."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


FIN = 0x80
COMPRESSED = 0x40  # RSV1 (RFC 7692 6)
RESERVED = 0x70
MASKED = 0x80
CONTROL_BOUND = 125  # bytes a control frame may carry (5.5)
LENGTH_16 = 126  # in the seven bits of a length: two bytes of it follow
LENGTH_64 = 127  # eight bytes follow

_SHORT = [bytes((length,)) for length in range(LENGTH_16)]
_FIRST = [bytes((first,)) for first in range(256)]
# in front of a whole short message, uncompressed, by its length
TEXT_HEADS = [bytes((FIN | Opcode.TEXT, length)) for length in range(LENGTH_16)]
BINARY_HEADS = [bytes((FIN | Opcode.BINARY, length)) for length in range(LENGTH_16)]


def render_head(first: int, size: int) -> bytes:
    """A frame's head: `first` is FIN, RSV1 and opcode; the length in its shortest form (5.2)."""
    if size < LENGTH_16:
        return _FIRST[first] + _SHORT[size]
    if size < 1 << 16:
        return bytes((first, LENGTH_16)) + size.to_bytes(2, "big")
    return bytes((first, LENGTH_64)) + size.to_bytes(8, "big")


def render_frame(opcode: Opcode, payload: bytes) -> bytes:
    """A whole frame in one piece: control frames, mostly."""
    return render_head(FIN | opcode, len(payload)) + payload


def xor_mask(data: bytes | memoryview, mask: bytes) -> bytes:
    """`data` with the four bytes of `mask` applied over and over, in pure Python."""
    size = len(data)
    repeated = mask * (size // 4) + mask[: size % 4]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(
        size, "little"
    )


@cache
def unmasker() -> Callable[[bytes | memoryview, bytes], bytes]:
    """The quickest way to undo a mask that is installed; asked for when the first socket opens."""
    # The module alone: its package reads its own version from the metadata, 17 ms and 1 MB of it.
    package = PathFinder.find_spec("websockets")
    places = package and package.submodule_search_locations
    spec = PathFinder.find_spec("speedups", places) if places else None
    if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
        return xor_mask
    speedups = module_from_spec(spec)
    spec.loader.exec_module(speedups)
    return speedups.apply_mask  # type: ignore[no-any-return]
