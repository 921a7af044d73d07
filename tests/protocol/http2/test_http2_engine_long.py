"""A connection lives for ever: nothing that is kept grows with what has passed."""

from __future__ import annotations

import gc
import sys

import pytest
from tests.support import http2_frames as h2
from tests.support.http2_drive import Drive, silent
from tests.support.http2_frames import data, frame, headers

from tidegate.protocol.engine import Limits, StreamTerms
from tidegate.protocol.events import Body, Request
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http2.engine import Http2Engine

REQUESTS = 100_000
GET = b"\x82\x86\x84\x41\x09tide.test"
AGAIN = b"\x82\x86\x84\xbe"
BATCH = 20


def weight(engine: Http2Engine) -> int:
    """Objects that hang on an engine, by their size."""
    seen: set[int] = set()
    total = 0
    todo: list[object] = [
        getattr(engine, name)
        for kind in type(engine).__mro__
        for name in getattr(kind, "__slots__", ())
        if name not in ("_answers", "_defaults", "_read_file")
    ]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type) or callable(one):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        todo += gc.get_referents(one)
    return total


def batch(first: int, kind: str) -> bytes:
    """Twenty requests; every other one cancelled, or with a body, where it is that kind's."""
    out = bytearray()
    for number in range(first, first + 2 * BATCH, 2):
        if kind == "bodies" and number % 4 == 1:
            out += headers(number, AGAIN, end=False) + data(number, b"x" * 500, end=True)
        elif kind == "varied":
            path = b"/%d" % number
            out += headers(number, b"\x82\x86\x41\x09tide.test\x04" + bytes((len(path),)) + path)
        else:
            out += headers(number, AGAIN)
        if kind == "cancelled" and number % 4 == 3:
            out += h2.rst(number)
    return bytes(out)


@pytest.mark.parametrize("kind", ["bare", "bodies", "varied", "cancelled"])
def test_a_hundred_thousand_requests_on_one_connection(kind: str) -> None:
    engine = Http2Engine(Limits(), StreamTerms(), Defaults(b"tide"), None)  # type: ignore[arg-type]
    engine.receive(h2.PREFACE + h2.settings() + h2.settings(ack=True))
    engine.receive(headers(1, GET))
    engine.send_head(1, 200, [])
    engine.send_body(1, b"ok", True)
    weights = []
    answered = 1
    for number in range(3, 2 * REQUESTS, 2 * BATCH):
        answered += answer_all(engine, batch(number, kind))
        if number % (2 * BATCH * 500) < 2 * BATCH:
            # what the client gives back: five bytes an answer
            engine.receive(h2.window_update(0, 100_000))
            weights.append(weight(engine))
    expected = REQUESTS // 2 if kind == "cancelled" else REQUESTS
    assert abs(answered - expected) <= 2 * BATCH
    assert not engine._streams
    assert max(weights[2:]) < weights[1] + 20_000
    assert engine._receive_window + engine._credit == engine._receive_size


def answer_all(engine: Http2Engine, raw: bytes) -> int:
    """The number of requests that were answered whole."""
    events = engine.receive(raw)
    done = 0
    while True:
        for event in events:
            if isinstance(event, Request | Body) and event.end and event.stream in engine._streams:
                engine.send_head(event.stream, 200, [(b"content-type", b"text/plain")])
                engine.send_body(event.stream, b"hello", True)
                done += 1
        engine.take_output()
        if not engine.stalled:
            return done
        events = engine.receive(b"")


def test_tables_are_bounded_whatever_a_client_says() -> None:
    drive = Drive(whole=silent)
    for number in range(1, 20_000, 2):
        path = b"/%d" % number
        block = b"\x82\x86\x41\x01a\x44" + bytes((len(path),)) + path  # a new entry for each
        drive.feed(headers(number, block), frame(0x42, b"?"))
        drive.respond(number, b"x", (b"x-id", path))
        drive.take()
        drive.engine.rest(1)
    tables = drive.tables()
    assert tables["heads"] <= 64
    assert tables["blocks"] <= 64
    assert tables["table"] <= 62 + 4096 // 32
    assert tables["entries"] <= 4096 // 32
    assert tables["streams"] == tables["priorities"] == tables["resets"] == 0


def test_streams_that_we_have_reset_are_not_remembered_for_ever() -> None:
    drive = Drive(whole=silent)
    for number in range(1, 10_000, 2):
        drive.feed(headers(number, GET))
        drive.engine.reset(number)
        drive.take()
    assert drive.tables()["resets"] <= 1024
    assert not drive.faults
