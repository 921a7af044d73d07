"""The WebSocket codec under damaged input: `make fuzz`, or `python -m tests.fuzz.websocket 60`.

The first byte of an input says what was agreed on: compression or none, a bound or none. Whatever
follows, the engine must not raise, must tell the same however the stream was cut, must tell nothing
after the end, must hold no message to less than its bound, and must put out nothing but whole
frames a server may send, with one close at most and nothing behind it.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable

from tests.fuzz.drive import Target, main
from tests.support import websocket_frames as ws
from tests.support.websocket_frames import Drive, Sent

from tidegate.protocol.websocket.deflate import Agreed, MessageDeflate, Terms
from tidegate.protocol.websocket.engine import CODES, Closed, State, WebSocketEngine

BOUNDS = (0, 5, 300, 100_000)
COMPRESSING = 4  # in the first byte
FORGETTING = 8
FRAGMENTS = (
    *(bytes((first, 0x80 | length)) for first in (0, 1, 2, 0x80, 0x81, 0x82, 0xC1, 0x41) for length in (0, 1, 126, 127)),
    b"\x88\x80", b"\x88\x82", b"\x89\x80", b"\x8a\x80", b"\x00" * 4, b"\xff" * 4, ws.MASK,
    b"\xed\xa0", b"\xf4\x90", b"\xc3", b"\x00\x00\xff\xff", b"\x03\x00", b"\x00\x7e", b"\x00" * 8,
)  # fmt: skip


def driven(mode: int) -> Drive:
    """An engine with what the first byte of an input says."""
    drive, bound = Drive(), BOUNDS[mode & 3]
    deflate = None
    if mode & COMPRESSING:
        forgets = bool(mode & FORGETTING)
        deflate = MessageDeflate(Agreed(forgets, forgets, 12, 12), Terms(threshold=0))
    drive.engine = WebSocketEngine(bound, deflate)
    return drive


def check(stream: bytes, cuts: Iterable[int]) -> None:
    """Hold the engine to its promises for one input; raises AssertionError."""
    mode, stream = stream[:1] or b"\0", stream[1:]
    edges = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    whole = driven(mode[0]).feed(stream)
    cut = driven(mode[0]).feed(*(stream[a:b] for a, b in itertools.pairwise(edges) if a < b))
    for drive in (whole, cut):
        check_told(drive, BOUNDS[mode[0] & 3])
        check_sent(drive.sent, drive.told[-1] if drive.closed else None)
    same(whole, cut, compressing=bool(mode[0] & COMPRESSING))


def check_told(drive: Drive, bound: int) -> None:
    for one in drive.messages:
        assert not bound or len(one.encode() if isinstance(one, str) else one) <= bound
    assert drive.closed == (drive.engine.state is State.ENDED)


def check_sent(frames: list[Sent], end: object) -> None:
    """Pongs, and a close as the last of all if there was an end."""
    if isinstance(end, Closed):
        close = frames.pop()
        assert close.opcode == ws.CLOSE
        code = int.from_bytes(close.payload[:2], "big") if close.payload else 1005
        assert code == end.code
        assert code in CODES or code == 1005
        close.payload[2:].decode()
    assert all(one.opcode == ws.PONG for one in frames)


def same(whole: Drive, cut: Drive, *, compressing: bool) -> None:
    if compressing and whole.told != cut.told:
        # Too long, not UTF-8, not to be decompressed: which is found first depends on how it came,
        # and zlib itself forgives a distance beyond the window where it still has the bytes.
        # So one may have ended where the other still waits for more.
        ended = [told for told in (whole.told, cut.told) if told and isinstance(told[-1], Closed)]
        assert ended
        first = min(ended, key=len)
        last = cut.told if first is whole.told else whole.told
        end = first[-1]
        assert isinstance(end, Closed)
        assert end.code in (1007, 1009)
        assert last[: len(first) - 1] == first[:-1]
        return
    assert whole.told == cut.told
    assert [one for one in whole.sent if one.opcode == ws.CLOSE] == [
        one for one in cut.sent if one.opcode == ws.CLOSE
    ]


def compressed(data: bytes) -> bytes:
    maker = zlib.compressobj(6, zlib.DEFLATED, -12)
    return (maker.compress(data) + maker.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


def corpus() -> list[bytes]:
    """One of everything, under everything that can be agreed on."""
    long = "ein längerer Text, 字 und 🌊, " * 12
    small = compressed(long.encode())
    streams = [
        ws.text("tide"),
        ws.text(long) + ws.binary(bytes(300)),
        b"".join(ws.fragments(ws.TEXT, [b"\xe5\xad", b"", b"\x97 ", b"gate"])),
        ws.text("a", fin=False) + ws.ping(b"p") + ws.cont(b"b", fin=True) + ws.pong(b"q"),
        ws.ping(bytes(125)) * 5 + ws.close(1000, "bye"),
        ws.close() + ws.text("too late"),
        ws.close(4999, "ü" * 60),
        ws.frame(ws.TEXT, small, rsv=4) * 2,
        ws.frame(ws.TEXT, small[:9], rsv=4, fin=False) + ws.cont(small[9:], fin=True),
        ws.frame(ws.BINARY, compressed(bytes(50_000)), rsv=4),
        ws.frame(ws.BINARY, b"x", mask=None),
        ws.text("x") + ws.frame(3),
        ws.frame(ws.BINARY, bytes(200), length_form=64),
    ]
    modes = [bound | extras for bound in range(4) for extras in (0, COMPRESSING, 12)]
    return [bytes((mode,)) + stream for mode in modes for stream in streams]


TARGET = Target("websocket", "tidegate.protocol.websocket.", check, corpus, FRAGMENTS)

if __name__ == "__main__":
    main(TARGET)
