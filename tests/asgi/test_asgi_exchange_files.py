"""Files in an answer: waited for until the kernel has all of them, and closed by their owner."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.apps import start
from tests.support.exchange_lab import Lab, run, turns

from tidegate.asgi.exchange import State
from tidegate.errors import ApplicationError
from tidegate.protocol.engine import FileSlice


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def pathsend(path: Path) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(path)}


async def stuck_in_a_file(path: Path) -> tuple[Lab, asyncio.Task[None], FileSlice]:
    lab = Lab()
    lab.wire.stuck = True
    await lab.send(start())
    lab.engine.pending = 7
    sending = asyncio.create_task(lab.send(pathsend(path)))
    await turns()
    piece = lab.engine.calls[-1][1]
    assert isinstance(piece, FileSlice)
    assert (piece.offset, piece.count) == (0, 7)
    assert not sending.done()
    assert is_open(piece.fd)
    return lab, sending, piece


def test_pathsend_waits_until_all_is_written_and_closes(path: Path) -> None:
    async def test() -> None:
        lab, sending, piece = await stuck_in_a_file(path)
        lab.engine.pending = 1  # nearly
        lab.wire.wake()
        await turns()
        assert not sending.done()
        assert is_open(piece.fd)
        lab.wire.release()
        await sending
        assert not is_open(piece.fd)
        assert (lab.exchange.size, lab.exchange.answering) == (7, False)

    run(test)


def test_pathsend_that_is_cancelled_ends_the_connection_and_closes(path: Path) -> None:
    async def test() -> None:
        lab, sending, piece = await stuck_in_a_file(path)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert len(lab.wire.abandoned) == 1
        assert not is_open(piece.fd)

    run(test)


def test_pathsend_whose_client_leaves_closes(path: Path) -> None:
    async def test() -> None:
        lab, sending, piece = await stuck_in_a_file(path)
        lab.exchange.lose()
        lab.engine.pending = 0
        lab.wire.wake()
        await asyncio.wait({sending})
        assert not is_open(piece.fd)

    run(test)


def test_pathsend_the_engine_refuses_closes(path: Path) -> None:
    async def test() -> None:
        lab = Lab()
        await lab.send(start())
        seen: list[FileSlice] = []

        def refuse(stream: int, data: FileSlice, end: bool) -> int:
            seen.append(data)
            raise ApplicationError("more bytes than promised")

        lab.engine.send_body = refuse  # type: ignore[method-assign]
        with pytest.raises(ApplicationError):
            await lab.send(pathsend(path))
        assert not is_open(seen[0].fd)
        assert lab.exchange._state is State.STARTED

    run(test)


def test_zerocopysend_waits_until_all_is_written_and_does_not_close(path: Path) -> None:
    async def test() -> None:
        lab = Lab()
        lab.wire.stuck = True
        await lab.send(start())
        with path.open("rb") as file:
            lab.engine.pending = 3
            message = {"type": "http.response.zerocopysend", "file": file, "offset": 2, "count": 3}
            sending = asyncio.create_task(lab.send(message))
            await turns()
            assert not sending.done()
            lab.wire.release()
            await sending
            assert is_open(file.fileno())
        piece = lab.engine.calls[-1][1]
        assert (piece.offset, piece.count, lab.exchange.size) == (2, 3, 3)

    run(test)


def test_zerocopysend_that_is_cancelled_ends_the_connection(path: Path) -> None:
    """Its owner may close the file at once: nothing of it may be sent any more."""

    async def test() -> None:
        lab = Lab()
        lab.wire.stuck = True
        await lab.send(start())
        with path.open("rb") as file:
            lab.engine.pending = 7
            message = {"type": "http.response.zerocopysend", "file": file, "more_body": True}
            sending = asyncio.create_task(lab.send(message))
            await turns()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert len(lab.wire.abandoned) == 1
            assert is_open(file.fileno())

    run(test)
