"""Bodies on their way out: gathered chunks, files among them, and lengths that were promised."""

from __future__ import annotations

import os
from pathlib import Path

import h11
import pytest
from tests.support.http1_client import Pairs, read, sent
from tests.support.http1_drive import GET, HOST, begun, get, held, taken

from tidegate.errors import ApplicationError
from tidegate.protocol.engine import Ending, FileSlice
from tidegate.protocol.http1.engine import Http1Engine

LENGTH: Pairs = [(b"content-length", b"6")]


# ---------------------------------------------------------------------------- chunks and files


def test_small_pieces_leave_as_one_chunk() -> None:
    engine = begun()
    engine.send_head(1, 200, [])
    for piece in (b"ab", b"", b"c", b"d" * 20):
        engine.send_body(1, piece, False)
    output = taken(engine)
    assert output.endswith(b"\r\n\r\n17\r\nabc" + b"d" * 20 + b"\r\n")
    engine.send_body(1, b"", False)
    assert taken(engine) == b"", "an empty chunk would be the last one"
    engine.send_body(1, b"e", True)
    output += taken(engine)
    assert output.endswith(b"1\r\ne\r\n0\r\n\r\n")
    assert read(output).body == b"abc" + b"d" * 20 + b"e"


def test_queued_is_what_will_be_taken_but_for_framing() -> None:
    engine = begun()
    engine.send_head(1, 200, [])
    queued = [engine.send_body(1, b"a" * 1000, False) for _ in range(3)]
    assert queued == sorted(queued)
    assert queued[-1] == engine.queued(1) >= 3000
    assert len(taken(engine)) - queued[-1] in range(10)
    assert engine.queued(1) == 0


def test_large_output_is_not_copied() -> None:
    engine = begun()
    engine.send_head(1, 200, [(b"content-length", b"1000000")])
    large = b"a" * 1_000_000
    engine.send_body(1, large, True)
    assert any(part is large for part in engine.take_output())


@pytest.fixture
def file(tmp_path: Path) -> FileSlice:
    path = tmp_path / "file"
    path.write_bytes(b"--foobar--")
    fd = os.open(path, os.O_RDONLY)
    return FileSlice(fd, 2, 6)


def expanded(engine: Http1Engine) -> bytes:
    return b"".join(
        os.pread(part.fd, part.count, part.offset) if isinstance(part, FileSlice) else bytes(part)
        for part in engine.take_output()
    )


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize(
    ("raw", "length"), [(GET, True), (GET, False), (get("/", b"", "1.0"), False)]
)
def test_files_among_the_pieces(file: FileSlice, raw: bytes, length: bool, end: bool) -> None:
    engine = begun(raw)
    engine.send_head(1, 200, [(b"content-length", b"12")] if length else [])
    engine.send_body(1, b"abc", False)
    engine.send_body(1, file, False)
    assert engine.send_body(1, b"def", end) >= 12
    assert sum(isinstance(part, FileSlice) for part in engine.take_output()) == 1

    engine = begun(raw)
    engine.send_head(1, 200, [(b"content-length", b"12")] if length else [])
    engine.send_body(1, b"abc", False)
    engine.send_body(1, file, False)
    engine.send_body(1, b"def", end)
    output = expanded(engine)
    if not end:
        engine.send_body(1, b"", True)
        output += expanded(engine)
    found = read(output, eof=raw != GET)
    assert (found.body, found.whole) == (b"abcfoobardef", True)
    os.close(file.fd)


def test_a_file_alone(file: FileSlice) -> None:
    for headers in ([], LENGTH):
        engine = begun()
        engine.send_head(1, 200, headers)
        engine.send_body(1, file, True)
        assert read(expanded(engine)).body == b"foobar"
    os.close(file.fd)


def test_no_file_where_there_is_no_body() -> None:
    engine = begun(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
    engine.send_head(1, 200, LENGTH)
    engine.send_body(1, FileSlice(-1, 0, 6), True)
    assert not any(isinstance(part, FileSlice) for part in engine.take_output())


def test_empty_pieces_do_not_pile_up() -> None:
    engine = begun()
    engine.send_head(1, 200, [])
    for _ in range(1000):
        engine.send_body(1, b"", False)
        engine.take_output()
    assert held(engine) < 4000


@pytest.mark.parametrize("raw", [GET, get("/", b"", "1.0")])
def test_an_empty_piece_is_nothing_to_write(raw: bytes) -> None:
    engine = begun(raw)
    engine.send_head(1, 200, [])
    engine.send_body(1, b"abc", False)
    engine.take_output()
    assert engine.send_body(1, b"", False) == 0
    assert taken(engine) == b""


@pytest.mark.parametrize("raw", [GET, get("/", b"", "1.0")])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")]])
def test_an_empty_file_ends_the_answer(raw: bytes, headers: Pairs) -> None:
    engine = begun(raw)
    engine.send_head(1, 200, headers)
    engine.send_body(1, FileSlice(-1, 0, 0), True)
    output = engine.take_output()
    found = read(
        b"".join(bytes(part) for part in output if not isinstance(part, FileSlice)), eof=raw != GET
    )  # type: ignore[arg-type]
    assert (found.whole, found.body) == (True, b"")


def test_an_empty_file_is_no_last_chunk() -> None:
    engine = begun()
    engine.send_head(1, 200, [])
    engine.send_body(1, FileSlice(-1, 0, 0), False)
    engine.send_body(1, b"foobar", True)
    assert read(expanded(engine)).body == b"foobar"


# ---------------------------------------------------------------------------- promises


@pytest.mark.parametrize("pieces", [(b"foobar!",), (b"foo", b"bar!"), (b"foobar", b"!")])
@pytest.mark.parametrize("end", [True, False])
def test_more_than_promised_never_leaves(pieces: tuple[bytes, ...], end: bool) -> None:
    engine = begun()
    engine.send_head(1, 200, LENGTH)
    for piece in pieces[:-1]:
        engine.send_body(1, piece, False)
    with pytest.raises(ApplicationError, match="more body bytes"):
        engine.send_body(1, pieces[-1], end)
    engine.reset(1)
    assert b"!" not in taken(engine)


@pytest.mark.parametrize("pieces", [(b"fooba",), (b"",), (b"foo", b"")])
def test_less_than_promised_is_never_whole(pieces: tuple[bytes, ...]) -> None:
    engine = begun()
    engine.send_head(1, 200, LENGTH)
    for piece in pieces[:-1]:
        engine.send_body(1, piece, False)
    with pytest.raises(ApplicationError, match="fewer body bytes"):
        engine.send_body(1, pieces[-1], True)
    engine.reset(1)
    assert engine.ending is Ending.STAGED
    output = taken(engine)
    if output:
        with pytest.raises(h11.RemoteProtocolError):
            read(output, eof=True)


def test_a_broken_promise_can_still_become_a_500() -> None:
    engine = begun()
    engine.send_head(1, 200, LENGTH)
    with pytest.raises(ApplicationError):
        engine.send_body(1, b"foobar!", True)
    assert read(sent(engine, LENGTH, b"foobar", status=500)).status == 500
    assert engine.ending is Ending.NO


@pytest.mark.parametrize("status", [204, 304])
def test_there_is_no_promise_where_there_is_no_body(status: int) -> None:
    found = read(sent(begun(), LENGTH, b"foo", status=status))
    assert (found.whole, found.body) == (True, b"")


def test_a_body_that_is_dropped_is_counted_as_if_it_waited() -> None:
    """Whoever makes it is to yield now and then; nothing of it is there to be taken."""
    engine = begun(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
    engine.send_head(1, 200, [])
    assert [engine.send_body(1, b"x" * 10, False) for _ in range(3)] == [10, 20, 30]
    assert b"xxx" not in taken(engine)
    assert engine.queued(1) == 0
