"""The HTTP/2 engine under damaged input: `make fuzz`, or `python -m tests.fuzz.http2 60`.

The first byte of an input says what comes before the rest of it: the client's preface and SETTINGS,
or nothing. Whatever follows, the engine must not raise and must come to rest, must tell the same
however the stream was cut, must put out nothing but whole frames that a server may send (hyperframe
and hpack judge), no more of them than the input can account for, and must keep its tables within
their bounds. It is driven twice: without an application, for what it tells, and with one that
answers, pushes and reads.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

from tests.fuzz.drive import LONGEST, Target, main
from tests.support import http2_frames as h2
from tests.support.http2_drive import Asked, Drive, silent

from tidegate.protocol.engine import Ending, Limits, StreamTerms
from tidegate.protocol.http2.frames import MAX_FRAME

LIMITS = Limits(header_size=2000, header_count=12, body_size=3000)
TERMS = StreamTerms(streams=5, window=2000, resets=20, idle_frames=40)
BARE = 0xFF  # the first byte of an input without a preface
HELLO = h2.PREFACE + h2.settings() + h2.settings(ack=True)
BOUNDS = {
    "streams": 10, "blocks": 64, "heads": 64, "resets": 1024, "priorities": 6,
    "rest": MAX_FRAME + 9, "pieces": MAX_FRAME, "promised": 0, "entries": 128, "table": 62 + 128,
}  # fmt: skip
# An answer to a request of a few indexed fields is this many times as long, a refusal more so.
GAIN, FIXED = 24, 1500

INDEXED = b"\x82\x86\x84\x41\x01a"  # GET http / and an authority that enters the table
FRAGMENTS = (
    h2.ping(), h2.settings(), h2.settings((4, 0)), h2.settings((4, 70000), (1, 0)), h2.settings((2, 0)),
    h2.settings(ack=True), h2.rst(1), h2.rst(3, 0), h2.window_update(0, 1), h2.window_update(1, h2.LARGEST),
    h2.data(1, b"x"), h2.data(1, b"", end=True), h2.data(3, b"xyz", pad=2), h2.headers(1, INDEXED),
    h2.headers(3, INDEXED, end=False), h2.headers(5, INDEXED, done=False), h2.continuation(5, b""),
    h2.priority(1), h2.priority_update(1, b"u=1, i"), h2.priority_update(9, b"u=0"), h2.goaway(),
    b"\0\0\0", b"\xff\xff\xff", b"\0\0\4", b"\0\0\0\1", b"\x82\x84\x86", b"\x40\x01x", b"\x3f\xe1\x1f", b"\xbe",
)  # fmt: skip


def respond(drive: Drive, asked: Asked) -> None:
    """Every shape of an answer, by the stream."""
    engine, number = drive.engine, asked.stream
    match number // 2 % 4:
        case 0:
            drive.respond(number, b"ok")
        case 1:
            engine.send_informational(number, 103, [(b"link", b"</x>")])
            engine.send_head(number, 200, [])
            engine.send_body(number, b"a" * 30, False)
            engine.send_trailers(number, [(b"x-sum", b"1")])
        case 2:
            engine.push(number, "/pushed", [])
            drive.respond(number, b"", status=204)
        case _:
            engine.reset(number)


def early(drive: Drive, asked: Asked) -> None:
    """A few are answered before they are whole."""
    if asked.head.tunnel and asked.stream & 2:
        drive.engine.open_tunnel(asked.stream, b"websocket")
    elif asked.stream % 10 == 1 and not asked.whole:
        drive.respond(asked.stream, b"early")


def check(stream: bytes, cuts: Iterable[int]) -> None:
    """Hold the engine to its promises for one input; raises AssertionError."""
    mode, stream = stream[:1] or b"\0", stream[1:]
    if mode[0] != BARE:
        stream = HELLO + stream
    edges = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]
    whole, cut = (
        Drive(limits=LIMITS, terms=TERMS, whole=silent, reads=False, hello=False) for _ in "12"
    )
    whole.feed(stream)
    for piece in pieces:
        check_tables(cut.feed(piece), len(stream))
    same(whole, cut)
    busy = Drive(limits=LIMITS, terms=TERMS, whole=respond, early=early, hello=False)
    for piece in pieces:
        check_tables(busy.feed(piece), len(stream))
    for drive in (whole, cut, busy):
        check_end(drive, len(stream))


def same(whole: Drive, cut: Drive) -> None:
    """What is told does not depend on the pieces; nor what is answered, as long as it may be.

    A refusal's answer leaves when its turn comes, and its stream is closed from then on.
    """
    one, other = before_refusals(whole), before_refusals(cut)
    assert one == other
    if len(one) < len(whole.events):
        return
    assert whole.goaways == cut.goaways
    if not whole.goaways:
        assert (whole.acks, whole.pongs) == (cut.acks, cut.pongs)
        assert {n: each.told for n, each in whole.answers.items()} == {
            n: each.told for n, each in cut.answers.items()
        }


def before_refusals(drive: Drive) -> list[tuple[object, ...]]:
    return [*itertools.takewhile(lambda e: e[0] != "fault" or e[2] < 400, drive.events)]


def check_tables(drive: Drive, size: int) -> None:
    for name, count in drive.tables().items():
        assert count <= BOUNDS[name], (name, count)
    assert len(drive.output) <= GAIN * size + FIXED


def check_end(drive: Drive, size: int) -> None:
    check_tables(drive, size)
    faults = [fault for fault in drive.faults if not fault.stream]
    assert len(faults) == len(drive.goaways) <= 1
    if faults:
        assert drive.engine.ending is Ending.STAGED
        assert not drive.engine._streams
    drive.eof()
    assert drive.engine.ending is not Ending.NO or drive.engine._streams
    drive.engine.drop_output()
    assert not drive.engine._streams
    if not faults:
        assert drive.credit() == drive.engine._receive_size, "credit was lost, or given twice"


def structured(chance: random.Random) -> bytes:
    """Frames of every type, most of them in order, on a few streams; now and then a bad one."""
    out = bytearray()
    begun: list[int] = []
    for _ in range(chance.randrange(1, 40)):
        if chance.random() < 0.02:
            flags = chance.choice((0, 1, 4, 8, 0x2D))
            out += h2.frame(
                chance.randrange(20), chance.randbytes(8), flags=flags, stream=chance.randrange(9)
            )
        elif not begun or chance.random() < 0.3:
            begun.append(begun[-1] + 2 if begun else 1)
            block = chance.choice((INDEXED, *BLOCKS))
            if chance.random() < 0.2:
                out += h2.headers(begun[-1], block[:3], end=False, done=False)
                out += h2.continuation(begun[-1], block[3:])
            else:
                pad = chance.choice((None, None, 5))
                out += h2.headers(begun[-1], block, end=chance.random() < 0.5, pad=pad)
        else:
            out += _on_stream(chance, chance.choice(begun[-3:]))
    return bytes(out)


def _on_stream(chance: random.Random, stream: int) -> bytes:
    """Something that a client may say of a request, or of the connection."""
    end = chance.random() < 0.2
    return chance.choice(
        (
            h2.data(stream, bytes(chance.choice((0, 1, 10, 900))), end=end),
            h2.data(stream, b"0123456789", end=end, pad=chance.choice((None, 0, 30))),
            h2.headers(stream, h2.block([(b"x-sum", b"1")])),
            h2.rst(stream, chance.randrange(20)),
            h2.window_update(stream, chance.choice((1, 200, 70000))),
            h2.window_update(0, chance.choice((1, 200, 70000))),
            h2.settings((chance.choice((1, 2, 3, 6, 99)), chance.randrange(2))),
            h2.settings((4, chance.choice((0, 3, 65535, 100000)))),
            h2.settings((5, 16384 + chance.randrange(5000)), (1, chance.choice((0, 50, 4096)))),
            h2.ping(ack=end),
            h2.priority(stream),
            h2.priority_update(
                stream + chance.choice((0, 2)), chance.choice((b"u=1", b"u=7,i", b"i=?0"))
            ),
            h2.frame(99, b"unknown", stream=stream),
        )
    )


TUNNEL = h2.block(
    [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http"), (b":path", b"/"),
     (b":authority", b"a")]
)  # fmt: skip
LARGE = h2.block(h2.request(b"/", (b"te", b"trailers"), (b"content-length", b"10"), method=b"POST"))
BLOCKS = (
    b"\x83\x86\x84\x41\x01b", h2.block(h2.request()), h2.block(h2.request(b"/", (b"priority", b"u=0, i"))), TUNNEL,
    LARGE, h2.block(h2.request(b"/", (b"expect", b"100-continue"), method=b"PUT")), h2.block(h2.request(method=b"HEAD")),
    h2.block(h2.request(b"/", (b"content-length", b"9999"), method=b"PUT")), h2.block(h2.request(b"/", (b"Bad", b""))),
)  # fmt: skip


def corpus() -> list[bytes]:
    """Conversations that end well, and some that do not."""
    rows = [
        h2.get(1) + h2.get(3, b"/x") + h2.ping(),
        h2.post(1) + h2.data(1, b"abc") + h2.data(1, b"def", end=True),
        h2.post(1, b"/", (b"content-length", b"3")) + h2.data(1, b"abc", end=True, pad=9),
        h2.post(1) + h2.data(1, bytes(1500)) + h2.headers(1, h2.block([(b"x-t", b"1")])),
        h2.headers(1, INDEXED[:2], done=False) + h2.continuation(1, INDEXED[2:]),
        h2.headers(1, INDEXED, pad=20, depends=(0, 3)) + h2.headers(3, b"\x82\x86\x84\xbe"),
        h2.headers(1, TUNNEL, end=False) + h2.data(1, b"\x81\x80abcd") + h2.data(1, b"", end=True),
        h2.settings((1, 0), (4, 5)) + h2.get(1) + h2.window_update(1, 10) + h2.settings((1, 4096)),
        h2.get(1) + h2.rst(1) + h2.window_update(1, 5) + h2.data(1, b"late"),
        b"".join(h2.get(number) for number in range(1, 20, 2)),
        b"".join(h2.priority_update(number, b"u=2") for number in range(1, 12, 2)),
        h2.get(1, b"/", (b"connection", b"close")) + h2.get(3, b"/", (b"X", b"y")) + h2.get(5),
        h2.post(1, b"/", (b"expect", b"100-continue"), (b"content-length", b"4000")) + h2.ping(),
        h2.get(1, b"/", *[(b"x-%d" % number, b"y") for number in range(20)]) + h2.get(3),
        h2.ping() * 60,
    ]
    chance = random.Random(7540)
    rows += [structured(chance) for _ in range(60)]
    return [b"\0" + row[: LONGEST - 1] for row in rows] + [
        bytes((BARE,)) + HELLO + rows[0],
        bytes((BARE,)) + h2.PREFACE + h2.get(1),
    ]


TARGET = Target("http2", "tidegate.protocol.http2.", check, corpus, FRAGMENTS)

if __name__ == "__main__":
    main(TARGET)
