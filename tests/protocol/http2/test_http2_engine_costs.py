"""What one client can make the engine do, hold or withhold: each was once too much."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.http2_drive import Drive, silent
from tests.support.http2_frames import (
    INITIAL_WINDOW,
    Code,
    block,
    data,
    frame,
    get,
    headers,
    post,
    request,
    rst,
    settings,
)

from tidegate.protocol.engine import FileSlice
from tidegate.protocol.http2.engine import Http2Engine


def test_credit_is_given_though_others_hold_the_rest_of_the_window() -> None:
    """What lies unread on some streams must not stop one whose application keeps up."""
    drive = Drive(reads=False, whole=silent)
    held = drive.engine._receive_window
    for number in range(3, 3 + 2 * (held // 65535), 2):
        drive.feed(post(number))
        room = 65535
        while room:
            size = min(room, 16384)
            drive.feed(data(number, bytes(size)))
            room -= size
    left = drive.engine._receive_window
    number = 101
    drive.feed(post(number))
    for _ in range(20):
        size = min(left, 4096, drive.engine._receive_window)
        assert size > 0, "the connection's window stays shut"
        drive.feed(data(number, bytes(size)))
        drive.engine.take_body(number, size)
        drive.take()


def test_a_frame_of_settings_moves_each_window_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    widen = Http2Engine._widen

    def counted(self: Http2Engine, *arguments: Any) -> None:
        moved.append(arguments)
        widen(self, *arguments)

    drive = Drive(whole=silent).feed(*[get(number) for number in range(1, 201, 2)])
    monkeypatch.setattr(Http2Engine, "_widen", counted)
    drive.feed(settings(*[(INITIAL_WINDOW, at) for at in range(2000)]))
    assert len(moved) == 100
    assert {stream.window for stream in drive.engine._streams.values()} == {1999}


@pytest.mark.parametrize(
    "each",
    [
        headers(1, block(request()) + b"\x82" * 15_000),
        data(1),
        data(1, b"x"),
    ],
    ids=["block", "empty", "byte"],
)
def test_a_stream_that_we_have_reset_is_not_free_for_ever(each: bytes) -> None:
    drive = Drive().feed(headers(1, block(request()[:2])))
    assert drive.answers[1].reset == Code.PROTOCOL_ERROR
    for _ in range(2000):
        if drive.goaways:
            break
        drive.feed(each)
    assert drive.code == Code.ENHANCE_YOUR_CALM


def test_a_long_block_is_a_turns_work() -> None:
    """16 KB may take 10 ms to decode: what follows waits, and others have their turn."""
    engine = Drive().engine
    long = block([*request(), (b"x", b"y" * 8000)])
    events = engine.receive(headers(1, long) + headers(3, long))
    assert [event.stream for event in events] == [1]
    assert engine.stalled
    assert [event.stream for event in engine.receive(b"")] == [3]


def test_no_more_of_a_file_is_read_than_leaves() -> None:
    asked = []

    def read(piece: FileSlice, size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    drive = Drive((INITIAL_WINDOW, 10), whole=silent, read_file=read)
    for number in range(1, 101, 2):
        drive.feed(get(number))
        drive.engine.send_head(number, 200, [])
        drive.engine.send_body(number, FileSlice(0, 0, 1 << 20), True)
    drive.take()
    assert sum(asked) == 50 * 10


def test_a_file_that_fails_is_told_of() -> None:
    drive = Drive(whole=silent, read_file=lambda piece, size: b"").feed(get(1), get(3))
    drive.engine.send_head(1, 200, [])
    drive.engine.send_body(1, FileSlice(0, 0, 100), False)
    assert drive.take().answers[1].reset == Code.INTERNAL_ERROR
    assert drive.engine.lost == [1]


def test_nothing_is_said_twice_of_a_connection_that_is_over() -> None:
    drive = Drive().feed(frame(0x6, b"short"))
    assert len(drive.goaways) == 1
    assert drive.engine.receive_timeout() == []
    drive.engine.stop()
    assert len(drive.take().goaways) == 1


def test_cancelled_streams_are_not_in_the_way_of_a_stuck_one() -> None:
    drive = Drive((INITIAL_WINDOW, 0), whole=silent).feed(get(1), get(3))
    drive.respond(1, b"waits")
    drive.respond(3, b"waits")
    drive.take()
    assert drive.engine.stuck() == [1, 3]
    drive.feed(rst(1))
    assert drive.engine.stuck() == [3]
