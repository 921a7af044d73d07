"""The same bytes to the engine and to an `h2` server: the same requests, bodies, and faults.

Where they differ it is on purpose, and `DELIBERATE` says why. What h2 cannot say as a server (it has
no answers of its own) is left out of the comparison.
"""

from __future__ import annotations

import random
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
from tests.support import http2_frames as frames
from tests.support.http2_drive import Drive, silent
from tests.support.http2_frames import Code, block, data, get, headers, post, request

HELLO = frames.PREFACE + frames.settings() + frames.settings(ack=True)
INDEXED = b"\x82\x86\x84\x41\x09tide.test"


class Judge:
    """An `h2` server that takes all bodies, and files what it was told as the engine's driver does."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 128}
        )
        self.connection.initiate_connection()
        self.requests: dict[int, list[tuple[bytes, bytes]]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.whole: set[int] = set()
        self.resets: set[int] = set()
        self.code: int | None = None

    def feed(self, raw: bytes) -> Judge:
        """Frame by frame: h2 forgets the events of a call that ends in a fault."""
        pieces = [raw[:24]]
        raw = raw[24:]
        while raw:
            size = 9 + int.from_bytes(raw[:3], "big")
            pieces.append(raw[:size])
            raw = raw[size:]
        for piece in pieces:
            try:
                for event in self.connection.receive_data(piece):
                    self.on_event(event)
            except h2.exceptions.ProtocolError as fault:
                self.code = int(fault.error_code)
                return self
        return self

    def on_event(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.requests[event.stream_id] = [*event.headers]
            self.bodies[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if event.flow_controlled_length:
                self.connection.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
        elif isinstance(event, h2.events.StreamEnded):
            self.whole.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets.add(event.stream_id)


def plain(fields: list[tuple[bytes, bytes]]) -> tuple[Any, ...]:
    """An h2 request as the engine tells it."""
    pseudo = {name: value for name, value in fields if name.startswith(b":")}
    path, _, query = pseudo[b":path"].partition(b"?")
    rest = [pair for pair in fields if pair[0][:1] != b":" and pair[0] not in (b"host", b"cookie")]
    cookies = [value for name, value in fields if name == b"cookie"]
    host = pseudo.get(b":authority") or dict(fields)[b"host"]
    joined = [(b"cookie", b"; ".join(cookies))] if cookies else []
    return pseudo[b":method"].decode(), path, query, ((b"host", host), *rest, *joined)


def compare(raw: bytes) -> tuple[Drive, Judge]:
    drive = Drive(whole=silent, hello=False).feed(HELLO + raw)
    judge = Judge().feed(HELLO + raw)
    asked = {
        number: (one.head.method, one.head.raw_path, one.head.query, one.head.headers)
        for number, one in drive.asked.items()
    }
    assert asked == {number: plain(fields) for number, fields in judge.requests.items()}
    assert {n: one.body for n, one in drive.asked.items()} == judge.bodies
    assert {n for n, one in drive.asked.items() if one.whole} == judge.whole
    return drive, judge


AGREED = {
    "requests": get(1) + get(3, b"/b?c=d") + get(5, b"/", (b"cookie", b"a"), (b"cookie", b"b")),
    "bodies": post(1) + data(1, b"abc") + post(3) + data(3, b"x", end=True, pad=4) + data(1, b"", end=True),
    "trailers": post(1) + data(1, b"abc") + headers(1, block([(b"x", b"y")])),
    "length": post(1, b"/", (b"content-length", b"3")) + data(1, b"abc", end=True),
    "continuations": headers(1, INDEXED[:3], done=False) + frames.continuation(1, INDEXED[3:]) + get(3),
    "priorities": headers(1, INDEXED, depends=(0, 9)) + frames.priority(3, 1) + frames.priority_update(1, b"u=1"),
    "padding": headers(1, INDEXED, pad=200) + headers(3, b"\x82\x86\x84\xbe", pad=0),
    "cancels": post(1) + frames.rst(1) + frames.rst(1) + get(3) + frames.rst(3, 99),
    "settings": frames.settings((1, 0), (2, 0), (3, 7), (4, 1), (5, 20000), (6, 9), (99, 9)) + get(1),
    "pings": frames.ping() + frames.ping(ack=True) + get(1),
    "windows": get(1) + frames.window_update(1, 5) + frames.window_update(0, 7),
    "skipped streams": get(7) + get(99),
    "unknown frames": frames.frame(0x4F, b"abc", stream=3) + get(3),
    "reserved bits": frames.frame(frames.HEADERS, INDEXED, flags=5, stream=1, reserved=True),
    "unknown flags": frames.frame(frames.HEADERS, INDEXED, flags=0xC5 - 0x80, stream=1),
    "options": headers(1, block(request(b"*", method=b"OPTIONS"))),
}  # fmt: skip


@pytest.mark.parametrize("name", AGREED)
def test_what_both_take(name: str) -> None:
    drive, judge = compare(AGREED[name])
    assert judge.code is None
    assert not drive.goaways
    assert judge.resets == {n for n, one in drive.asked.items() if one.reset}


BOTH_END = {
    "data of nobody": data(1, b"x"),
    "data on 0": data(0, b"x"),
    "headers on 0": headers(0, INDEXED),
    "even stream": get(2),
    "a lower stream": get(5) + get(3),
    "ping of a wrong size": frames.frame(frames.PING, bytes(7)),
    "ping on a stream": frames.frame(frames.PING, bytes(8), stream=1),
    "settings on a stream": frames.frame(frames.SETTINGS, b"", stream=1),
    "settings of a broken length": frames.frame(frames.SETTINGS, bytes(7)),
    "settings: push": frames.settings((2, 2)),
    "settings: window": frames.settings((4, 1 << 31)),
    "settings: frame": frames.settings((5, 16383)),
    "reset of nobody": frames.rst(1),
    "reset of a wrong size": get(1) + frames.frame(frames.RST_STREAM, bytes(3), stream=1),
    "window of a wrong size": frames.frame(frames.WINDOW_UPDATE, bytes(3)),
    "window of nothing": frames.window_update(0, 0),
    "window too wide": frames.window_update(0, frames.LARGEST),
    "goaway of a wrong size": frames.frame(frames.GOAWAY, bytes(7)),
    "an interrupted block": headers(1, INDEXED, done=False) + frames.ping(),
    "a block of two streams": headers(1, INDEXED, done=False) + frames.continuation(3, b""),
    "continuation of nothing": frames.continuation(1, INDEXED),
    "a broken block": headers(1, b"\xff\xff\xff"),
    "an index of nothing": headers(1, b"\x80"),
    "a large table": headers(1, b"\x3f\xff\xff\x01" + INDEXED),
    "too much padding": headers(1, INDEXED, pad=None) + frames.frame(0, b"\x09abc", flags=8, stream=1),
    "a frame that is too large": frames.frame(frames.DATA, bytes(16385), stream=1),
    "push of a client": frames.frame(frames.PUSH_PROMISE, bytes(4) + INDEXED, flags=4, stream=1),
}  # fmt: skip
# where our code is another: what the section says comes first
OTHER_CODE = {
    "goaway of a wrong size": Code.FRAME_SIZE_ERROR,  # 4.2
    "window of a wrong size": Code.FRAME_SIZE_ERROR,  # 6.9
    "a broken block": Code.COMPRESSION_ERROR,  # 4.3
    "an index of nothing": Code.COMPRESSION_ERROR,
    "a large table": Code.COMPRESSION_ERROR,
}


@pytest.mark.parametrize("name", BOTH_END)
def test_what_ends_the_connection_for_both(name: str) -> None:
    drive, judge = compare(BOTH_END[name])
    assert judge.code is not None
    assert drive.code == OTHER_CODE.get(name, judge.code)


# our answer where h2, a library, takes it otherwise; `None`: we go on
DELIBERATE = {
    "upper case": (get(1, b"/", (b"X", b"y")), "reset", "8.1.1: a stream error, h2 ends all"),
    "connection": (get(1, b"/", (b"connection", b"x")), "reset", "8.2.2, the same"),
    "no path": (headers(1, block(request()[:2])), "reset", "8.3.1, the same"),
    "too much body": (
        post(1, b"/", (b"content-length", b"1")) + data(1, b"ab"),
        "reset",
        "8.1.1, the same",
    ),
    "window of nothing": (get(1) + frames.window_update(1, 0), "reset", "6.9: of a stream"),
    "data behind the end": (get(1) + data(1, b"x"), "reset", "5.1 half-closed (remote)"),
    "CONNECT": (
        headers(1, block([(b":method", b"CONNECT"), (b":authority", b"a:1")])),
        "answer",
        "a proxy's, so 501",
    ),
    "expectation": (get(1, b"/", (b"expect", b"x")), "answer", "417"),
    "a space in the path": (get(1, b"/a b"), "reset", "RFC 3986, h2 does not look"),
    "another host": (get(1, b"/", (b"host", b"b")), "reset", "8.3.1"),
    "priority update on a stream": (
        frames.frame(16, bytes(8), stream=1),
        "goaway",
        "RFC 9218 7.1, h2 knows none",
    ),
}


@pytest.mark.parametrize("name", DELIBERATE)
def test_where_we_differ_on_purpose(name: str) -> None:
    raw, ours, _why = DELIBERATE[name]
    drive = Drive(whole=silent, hello=False).feed(HELLO + raw)
    if ours == "goaway":
        assert drive.goaways
        return
    assert not drive.goaways
    assert drive.answers[1].reset if ours == "reset" else drive.answers[1].status >= 400
    assert 3 in drive.feed(get(3)).asked


def test_random_conversations_are_taken_the_same() -> None:
    chance = random.Random(9113)
    for _ in range(300):
        compare(conversation(chance))


def conversation(chance: random.Random) -> bytes:
    """What a client may send, in a random order: requests, bodies, cancels, frames of the connection."""
    out = bytearray(headers(1, INDEXED))
    number, open_, sent = 1, [], 0
    for _ in range(chance.randrange(30)):
        what = chance.randrange(8)
        if what < 2 or not open_:
            number += 2 * chance.randrange(1, 3)
            method = chance.choice((b"\x82", b"\x83"))
            path = chance.choice((b"\x84", b"\x44\x02/a", b"\x04\x05/x?y="))
            end = chance.random() < 0.3
            out += headers(number, method + b"\x86" + path + b"\x01\x01a", end=end)
            open_ += [] if end else [number]
            continue
        stream = chance.choice(open_)
        if what < 5 and sent < 60_000:
            end, body = chance.random() < 0.3, bytes(chance.randrange(900))
            out += data(stream, body, end=end, pad=chance.choice((None, None, 0, 50)))
            sent += len(body) + 51
            if end:
                open_.remove(stream)
        elif what == 5:
            out += headers(stream, block([(b"x-sum", b"1")]))
            open_.remove(stream)
        elif what == 6:
            out += frames.rst(stream)
            open_.remove(stream)
        else:
            out += chance.choice(
                (
                    frames.ping(),
                    frames.settings((4, chance.randrange(70000))),
                    frames.window_update(0, 9),
                )
            )
    return bytes(out)
