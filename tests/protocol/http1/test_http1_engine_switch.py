"""The first bytes of a connection may be those of HTTP/2 (RFC 9113 3.3, 3.4)."""

from __future__ import annotations

import pytest
from tests.support.http1_drive import GET, USUAL

from tidegate.protocol.engine import Waiting
from tidegate.protocol.events import Event, Fault, Request, Switch
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1.engine import Http1Engine

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAMES = b"\0\0\0\x04\0\0\0\0\0"


def engine(*, switches: bool = True) -> Http1Engine:
    made = Http1Engine(USUAL, Defaults())
    made.switches = switches
    return made


def fed(to: Http1Engine, *pieces: bytes) -> list[Event]:
    return [event for piece in pieces for event in to.receive(piece)]


def test_every_split() -> None:
    whole = PREFACE + FRAMES
    for at in range(1, len(whole)):
        events = fed(engine(), whole[:at], whole[at:]) if at < 18 else fed(engine(), whole[:at])
        (event,) = events
        assert type(event) is Switch
        assert event.data == (whole if at < 18 else whole[:at])


def test_byte_by_byte() -> None:
    to = engine()
    for at in range(17):
        assert not to.receive(PREFACE[at : at + 1])
        assert to.waiting is Waiting.HEAD
    (event,) = to.receive(PREFACE[17:18])
    assert type(event) is Switch and event.data == PREFACE[:18]


def test_nothing_is_read_behind_it() -> None:
    to = engine()
    to.receive(PREFACE)
    assert to.receive(GET) == [] and not to.stalled


@pytest.mark.parametrize("pieces", [(GET,), (b"G", GET[1:]), (b"PR", b"OPFIND" + GET[3:])])
def test_a_request_of_http1_is_one(pieces: tuple[bytes, ...]) -> None:
    to = engine()
    assert [type(event) for event in fed(to, *pieces)] == [Request]
    assert not to.switches


def test_not_behind_a_request() -> None:
    to = engine()
    (request,) = to.receive(GET)
    to.send_head(request.stream, 200, [(b"content-length", b"0")])
    to.send_body(request.stream, b"", True)
    assert [type(event) for event in to.receive(PREFACE)] == [Fault]


@pytest.mark.parametrize("blank", [b"\r\n", b" "])
def test_not_behind_anything(blank: bytes) -> None:
    assert [type(event) for event in engine().receive(blank + PREFACE)] == [Fault]


def test_not_where_it_was_not_asked_for() -> None:
    (event,) = engine(switches=False).receive(PREFACE)
    assert type(event) is Fault and event.status == 505
