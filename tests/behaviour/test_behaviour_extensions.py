"""Statements 77 to 80: files, early hints and trailers, over plain TCP and over TLS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from tests.support.apps import answer, body, start
from tests.support.behaviour import Gate, Http, IncompleteError, News, Transport, turns

CONTENT = bytes(range(256)) * 8192  # 2 MiB: more than one system call, or one TLS record
TE = [(b"TE", b"trailers")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def file(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        yield file


def zero_copy(file: Any, more_body: bool = False, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, "more_body": more_body, **more}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


LENGTHS = pytest.mark.parametrize("length", [True, False], ids=["length", "no length"])


def length_of(data: bytes, told: bool) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % len(data))] if told else []


# ---------------------------------------------------------------------------------- zerocopysend


@LENGTHS
def test_statement_77_whole_file(
    http: Http, transport: Transport, file: BinaryIO, length: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        file.seek(0)
        await send(start(200, length_of(CONTENT, length)))
        await send(zero_copy(file))

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == CONTENT
        assert not file.closed
        assert not site.log.lines()


@LENGTHS
def test_statement_77_mixed_with_body_repeated_and_cut(
    http: Http, transport: Transport, file: BinaryIO, length: bool
) -> None:
    expected = b"begin" + CONTENT[10:30] + b"middle" + CONTENT[5:] + CONTENT[:1] + b"end"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, length_of(expected, length)))
        await send(body(b"begin", more_body=True))
        await send(zero_copy(file, True, offset=10, count=20))
        await send(body(b"middle", more_body=True))
        await send(zero_copy(file, True, offset=5))
        await send(zero_copy(file.fileno(), True, offset=0, count=1))
        await send(zero_copy(file, True, offset=7, count=0))
        await send(body(b"end"))

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == expected


def test_statement_77_without_offset_from_the_files_position_on(
    http: Http, transport: Transport, file: BinaryIO
) -> None:
    positions = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        os.lseek(file.fileno(), 100, os.SEEK_SET)
        await send(start())
        await send(zero_copy(file, True, count=50))
        positions.put(os.lseek(file.fileno(), 0, os.SEEK_CUR))
        await send(zero_copy(file))
        positions.put(os.lseek(file.fileno(), 0, os.SEEK_CUR))

    with http.serve(app, transport) as site:
        assert site.request().body == CONTENT[100:]
        assert (positions.next(), positions.next()) == (150, len(CONTENT))


def test_statement_77_application_may_close_once_send_returned(
    http: Http, transport: Transport, path: Path
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        for more in (True, False):
            with path.open("rb") as file:
                await send(zero_copy(file, more))
                file.seek(0)
                file.read(1)  # still the application's

    with http.serve(app, transport) as site:
        assert site.request().body == CONTENT * 2


@pytest.mark.parametrize("kind", ["path", "file", "more"])
def test_statements_77_78_file_cut_short_while_it_is_sent_is_no_whole_answer(
    http: Http, transport: Transport, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    cut = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/good":
            return await answer(send, body=b"ok")
        await send(start(200, [(b"content-length", b"%d" % (64 * 1024 * 1024))]))
        with path.open("r+b") as file:
            message = zero_copy(file, kind == "more")
            if kind == "path":
                message = {"type": "http.response.pathsend", "path": str(path)}
            sending = asyncio.create_task(send(message))
            await turns()
            assert not sending.done()
            file.truncate(1000)
            cut.open()
            await asyncio.wait({sending})
        return None

    with http.serve(app, transport) as site:
        client = site.client()
        call = client.begin()
        cut.wait()
        with pytest.raises(IncompleteError):
            call.read()
        if http.failure_ends_connection:
            client.wait_closed()
            client = site.client()
        assert client.request(target="/good").body == b"ok"


WRONG = {
    "offset a str": {"offset": "0", "count": 5},
    "offset negative": {"offset": -1, "count": 5},
    "count negative": {"offset": 0, "count": -5},
    "more than there is": {"offset": 5, "count": len(CONTENT)},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_statement_77_impossible_part_raises(http: Http, file: BinaryIO, wrong: Any) -> None:
    raised = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            await send(zero_copy(file, **wrong))
        except Exception as error:
            raised.put(error)
        else:
            raised.put(None)
        await send(body(b"ok"))

    with http.serve(app) as site:
        call = site.client().begin()
        assert isinstance(raised.next(), RuntimeError)
        assert call.read().body == b"ok"


# ---------------------------------------------------------------------------------- pathsend


@LENGTHS
def test_statement_78_whole_file_and_the_applications_headers(
    http: Http, transport: Transport, path: Path, length: bool
) -> None:
    headers = [(b"content-type", b"application/x-tide"), (b"etag", b'"1"')]
    counts = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, headers + length_of(CONTENT, length)))
        before = open_files()
        await send({"type": "http.response.pathsend", "path": str(path)})
        counts.put(open_files() - before)

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(3):
            found = client.request()
            assert (found.body, found.own()) == (CONTENT, headers)
            assert counts.next() == 0


def test_statement_78_empty_file(http: Http, transport: Transport, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send({"type": "http.response.pathsend", "path": str(path)})

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == b""


def test_statement_78_is_the_whole_body(http: Http, path: Path) -> None:
    """What comes before it is refused, what comes after it is past the end."""
    raised = News()
    pathsend = {"type": "http.response.pathsend", "path": str(path)}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        if scope["path"] == "/after":
            await send(pathsend)
            await send(pathsend)
            return await send(body(b"after"))
        await send(body(b"before", more_body=True))
        try:
            await send(pathsend)
        except RuntimeError as error:
            raised.put(error)
        return await send(body())

    with http.serve(app) as site:
        assert site.request(target="/before").body == b"before"
        assert raised.next()
        assert site.request(target="/after").body == CONTENT


@pytest.mark.parametrize("what", ["missing", "folder", "pipe"])
def test_statement_78_no_file_raises_and_another_answer_is_possible(
    http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    wrong = tmp_path / "wrong"
    if what == "folder":
        wrong.mkdir()
    elif what == "pipe":
        os.mkfifo(wrong)
    would_block, counts = News(), News()
    really_open = os.open

    def careful_open(name: Any, flags: int, *more: Any, **named: Any) -> int:
        if what == "pipe" and name == str(wrong) and not flags & os.O_NONBLOCK:
            would_block.put(True)
            flags |= os.O_NONBLOCK
        return really_open(name, flags, *more, **named)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        before = open_files()
        try:
            await send({"type": "http.response.pathsend", "path": str(wrong)})
        except Exception:
            counts.put(open_files() - before)
            await send(body(b"no such file"))

    monkeypatch.setattr(os, "open", careful_open)
    with http.serve(app) as site:
        assert site.request().body == b"no such file"
        assert counts.next() == 0
    assert would_block.empty()


@pytest.mark.parametrize("kind", ["path", "file"])
def test_statements_77_78_client_that_leaves_ends_the_sending(
    http: Http, transport: Transport, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    over = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/other":
            return await answer(send, body=b"ok")
        await send(start())
        try:
            if kind == "path":
                await send({"type": "http.response.pathsend", "path": str(path)})
            else:
                with path.open("rb") as file:
                    await send(zero_copy(file))
        finally:
            over.put(True)
        return None

    with http.serve(app, transport) as site:
        client, other = site.client(), site.client()
        assert client.request(target="/other").body == other.request(target="/other").body == b"ok"
        before = open_files()  # with both ends of both connections
        call = client.begin()
        call.read_until(b"\0" * 100)
        # while it waits for its client, others are served
        assert other.request(target="/other").body == b"ok"
        call.leave()
        assert over.next()
        assert other.request(target="/other").body == b"ok"
        assert open_files() <= before
        assert not site.log.lines()


def test_statement_77_cancelled_while_a_file_is_sent_is_no_whole_answer(
    http: Http, transport: Transport, tmp_path: Path
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/good":
            return await answer(send, body=b"ok")
        await send(start())
        with path.open("rb") as file:
            sending = asyncio.create_task(send(zero_copy(file)))
            await turns()
            sending.cancel()
            seen.put(await asyncio.wait({sending}))
        return None

    with http.serve(app, transport) as site:
        client = site.client()
        call = client.begin()
        assert seen.next()
        with pytest.raises(IncompleteError):
            call.read()
        if http.failure_ends_connection:
            client.wait_closed()
            client = site.client()
        assert client.request(target="/good").body == b"ok"


# ---------------------------------------------------------------------------------- early hints


def hint(*links: bytes) -> dict[str, Any]:
    return {"type": "http.response.early_hint", "links": list(links)}


def links(informational: Any) -> list[tuple[int, list[bytes]]]:
    return [
        (status, [value for name, value in headers if name == b"link"])
        for status, headers in informational
    ]


def test_statement_79_early_hints_before_and_after_start(http: Http, transport: Transport) -> None:
    if not http.supports_early_hints:
        pytest.skip("this version has no early hints")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(hint(b"</a>; rel=preload", b"</b>; rel=preload"))
        await send(hint(b"</c>"))
        await send(start(200, [(b"link", b"</final>")]))
        await send(hint(b"</d>"))
        await send(body(b"ok"))

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            found = client.request()
            assert (found.status, found.body, found.all(b"link")) == (200, b"ok", [b"</final>"])
            assert links(found.informational) == [
                (103, [b"</a>; rel=preload", b"</b>; rel=preload"]),
                (103, [b"</c>"]),
                (103, [b"</d>"]),
            ]


def test_statement_79_early_hint_arrives_early(http: Http, transport: Transport) -> None:
    if not http.supports_early_hints:
        pytest.skip("this version has no early hints")
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(hint(b"</early>"))
        await gate.passed()
        await answer(send, body=b"ok")

    with http.serve(app, transport) as site:
        call = site.client().begin()
        assert links([call.read_informational()]) == [(103, [b"</early>"])]
        gate.open()
        assert call.read().body == b"ok"


def test_statement_79_no_early_hint_once_the_head_is_sent(http: Http) -> None:
    raised = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"o", more_body=True))
        try:
            await send(hint(b"</late>"))
        except RuntimeError as error:
            raised.put(error)
        await send(body(b"k"))

    with http.serve(app) as site:
        found = site.request()
        assert raised.next()
        assert (found.body, found.informational) == (b"ok", [])


# ---------------------------------------------------------------------------------- trailers


def trailers(more: bool, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": list(headers), "more_trailers": more}


@pytest.mark.parametrize("te", [True, False], ids=["te", "no te"])
def test_statement_80_trailers_for_who_reads_them(
    http: Http, transport: Transport, te: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert ("http.response.trailers" in scope["extensions"]) is te
        await send(start(trailers=True))
        await send(body(b"o", more_body=True))
        await send(body(b"k"))
        await send(trailers(True, (b"x-one", b"1"), (b"x-two", b"2")))
        await send(trailers(True))
        await send(trailers(False, (b"x-one", b"3")))

    expected = [(b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"3")]
    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            found = client.request("GET", "/", TE if te else [])
            assert (found.body, found.trailers) == (b"ok", expected if te else [])
        assert not site.log.lines()


def test_statement_80_trailers_after_a_file(http: Http, transport: Transport, path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(trailers=True))
        await send({"type": "http.response.pathsend", "path": str(path)})
        await send(trailers(False, (b"x-sum", b"1")))

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            found = client.request("GET", "/", TE)
            assert (found.body, found.trailers) == (CONTENT, [(b"x-sum", b"1")])


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
def test_statement_80_no_trailers_without_a_body(http: Http, method: str, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(status, trailers=True))
        await send(body())
        await send(trailers(False, (b"x-sum", b"1")))

    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):
            found = client.request(method, "/", TE)
            assert (found.status, found.body) == (status, b"")
