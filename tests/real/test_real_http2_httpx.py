"""httpx over HTTP/2, sync and async: many requests on one connection, streams, cancelled ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import trustme
from examples.demo.application import Demo
from tests.support.apps import answer
from tests.support.serve import Running, serve
from tests.support.tls import Files, client_context

pytest.importorskip("h2")
pytestmark = pytest.mark.real

PIECE = bytes(range(256)) * 256  # what the demo's downloads are made of
PATIENCE = 30


class Site:
    """The demo, and clients of it that speak HTTP/2 and nothing else."""

    def __init__(self, server: Running, app: Demo, url: str, context: Any) -> None:
        self.server, self.app = server, app
        self._options = {
            "base_url": url,
            "http1": False,
            "http2": True,
            "verify": context or False,
            "trust_env": False,
            "timeout": PATIENCE,
        }

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(**self._options, **options)

    def run(self, test: Callable[[httpx.AsyncClient], Awaitable[None]], **options: Any) -> None:
        async def main() -> None:
            async with httpx.AsyncClient(**self._options, **options) as client:
                await asyncio.wait_for(test(client), PATIENCE)

        asyncio.run(main())


@pytest.fixture(scope="module", params=["clear", "tls"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    app, options, context = Demo(), {}, None
    if request.param == "tls":
        authority = trustme.CA()
        own = Files(tmp_path_factory.mktemp("tls"), "own").write(authority.issue_cert("127.0.0.1"))
        options = {"ssl_certfile": own.cert, "ssl_keyfile": own.key}
        context = client_context(authority)
    with serve(app, **options) as server:
        scheme = "http" if context is None else "https"
        yield Site(server, app, f"{scheme}://127.0.0.1:{server.port}", context)
        assert server.logged() == []


def test_one_connection_serves_many(site: Site) -> None:
    with site.client() as client:
        answers = [client.get("/facts") for _ in range(50)]
    assert {one.http_version for one in answers} == {"HTTP/2"}
    assert {one.json()["protocol"] for one in answers} == {"HTTP/2"}
    assert len({one.json()["client"] for one in answers}) == 1


def test_head(site: Site) -> None:
    with site.client() as client:
        head = client.head("/download?size=123")
        assert (head.headers["content-length"], head.content) == ("123", b"")
        assert client.get("/facts").status_code == 200  # the same connection goes on


def test_uploads(site: Site) -> None:
    with site.client() as client:
        known = client.post("/upload", content=b"a" * 5_000_001)
        unknown = client.put("/upload", content=iter([b"a" * 70_000] * 60))
        form = client.post("/upload", files={"file": ("tide.bin", PIECE)}, data={"a": "b"})
    assert (known.json()["bytes"], unknown.json()["bytes"]) == (5_000_001, 4_200_000)
    assert form.json()["bytes"] == int(form.request.headers["content-length"])


def test_streamed_download(site: Site) -> None:
    with site.client() as client, client.stream("GET", "/download?size=20000003") as got:
        assert b"".join(got.iter_raw()) == (PIECE * 306)[:20_000_003]


def test_fields_arrive_as_they_were_sent(site: Site) -> None:
    """Long, repeated, empty and non-ASCII ones, again and again: the tables of HPACK at work."""
    fields = [
        ("x-long", "y" * 10_000),
        ("x-twice", "one"),
        ("x-twice", "two"),
        ("x-empty", ""),
        ("x-latin", "M\xf6we".encode("latin-1")),
        ("cookie", "a=b; c=d"),
        ("authorization", "Bearer secret"),
    ]
    wanted = sorted([n, v.decode("latin-1") if isinstance(v, bytes) else v] for n, v in fields)
    with site.client() as client:
        for turn in range(30):
            seen = client.get("/facts", headers=[*fields, (f"x-turn-{turn}", str(turn))]).json()
            names = {name for name, _ in fields}
            assert sorted(pair for pair in seen["headers"] if pair[0] in names) == wanted
            assert [f"x-turn-{turn}", str(turn)] in seen["headers"]


def test_events_beside_requests(site: Site) -> None:
    """A stream that does not end, and others on the same connection that do."""
    with site.client(limits=httpx.Limits(max_connections=1)) as client:
        with client.stream("GET", "/events") as events:
            lines = events.iter_lines()
            first = next(line for line in lines if line.startswith("data: "))
            assert json.loads(first.removeprefix("data: "))["number"] == 1
            assert client.post("/upload", content=b"b" * 300_000).json()["bytes"] == 300_000
            second = next(line for line in lines if line.startswith("data: "))
            assert json.loads(second.removeprefix("data: "))["number"] == 2
        assert client.get("/facts").status_code == 200


def test_refusals(site: Site) -> None:
    with site.client() as client:
        assert client.get("/nothing").status_code == 404
        assert client.get("/upload").status_code == 405
        assert client.get("/facts", headers={"big": "x" * 70_000}).status_code == 431
        assert client.post("/upload", headers={"expect": "a miracle"}).status_code == 417
        assert client.get("/facts").status_code == 200


def test_many_at_once(site: Site) -> None:
    """Uploads and downloads in turns, all on one connection; each gets what is its own."""

    async def test(client: httpx.AsyncClient) -> None:
        async def up(size: int) -> None:
            got = await client.post("/upload", content=b"z" * size)
            assert got.json()["bytes"] == size

        async def down(size: int) -> None:
            got = await client.get(f"/download?size={size}")
            assert got.content == (PIECE * 8)[:size]

        clients = {(await client.get("/facts")).json()["client"]}
        await asyncio.gather(*(each for n in range(150) for each in (up(40 * n), down(977 * n))))
        clients.add((await client.get("/facts")).json()["client"])
        assert len(clients) == 1

    site.run(test, limits=httpx.Limits(max_connections=1))


def test_large_downloads_at_once(site: Site) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(client.get("/download?size=3000000") for _ in range(6)))
        assert {one.content for one in answers} == {(PIECE * 46)[:3_000_000]}

    site.run(test)


def test_uploads_that_wait_for_each_other(site: Site) -> None:
    """Each sends a piece when the one before has sent its own: none may keep the others back.

    They stay below a stream's first window: httpcore waits for ever where another task has read
    the WINDOW_UPDATE it waits for.
    """

    async def test(client: httpx.AsyncClient) -> None:
        await client.get("/facts")  # httpx asks for one thing at a time until it has our SETTINGS
        turns = [asyncio.Event() for _ in range(8 * 20 + 1)]
        turns[0].set()

        async def pieces(number: int) -> AsyncIterator[bytes]:
            for step in range(20):
                mine = step * 8 + number
                await turns[mine].wait()
                yield b"p" * 3000
                turns[mine + 1].set()

        answers = await asyncio.gather(
            *(client.post("/upload", content=pieces(number)) for number in range(8))
        )
        assert [one.json()["bytes"] for one in answers] == [60_000] * 8

    site.run(test)


def test_cancelled_requests_leave_the_others(site: Site) -> None:
    """httpx sends no RST_STREAM for what it leaves, nor opens windows: the rest must not mind."""

    async def test(client: httpx.AsyncClient) -> None:
        await client.get("/facts")
        reading = asyncio.Semaphore(0)

        async def leave(path: str) -> None:
            async with client.stream("GET", path) as got:
                pieces = got.aiter_raw()
                while True:
                    await anext(pieces)
                    reading.release()

        async def stay(size: int) -> None:
            assert (await client.get(f"/download?size={size}")).content == (PIECE * 8)[:size]

        paths = ["/events", "/download?size=900000"] * 5
        left = [asyncio.create_task(leave(path)) for path in paths]
        stays = [asyncio.create_task(stay(50_000 * n)) for n in range(10)]
        for _ in left:
            await reading.acquire()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.gather(*stays)
        await asyncio.gather(*(stay(1000 * n) for n in range(100)))

    site.run(test, limits=httpx.Limits(max_connections=1))
    with site.client() as client, client.stream("GET", "/events") as events:
        # The applications of what was left ended with the connection, at the latest.
        for line in events.iter_lines():
            if (
                line.startswith("data: ")
                and json.loads(line.removeprefix("data: "))["streams"] == 1
            ):
                break


def test_answer_before_the_upload_is_over() -> None:
    """An application that does not want the body says so at once, and its answer arrives."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 403, [(b"content-length", b"2")], b"no")

    with (
        serve(app, lifespan="off") as server,
        httpx.Client(http1=False, http2=True, trust_env=False, timeout=PATIENCE) as client,
    ):
        for size in (0, 10, 60_000):  # httpx waits for a window before it looks for answers
            refused = client.post(server.url, content=b"u" * size)
            assert (refused.status_code, refused.content) == (403, b"no"), size
        assert server.logged() == []
