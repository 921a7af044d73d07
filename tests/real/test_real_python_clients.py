"""httpx and the aiohttp client: the two Python clients most people use, with connection pools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import aiohttp
import httpx
import pytest
from examples.demo.application import Demo
from tests.support.serve import serve

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve(Demo()) as server:
        yield server.url


async def pieces(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"p" * size
        await asyncio.sleep(0)


class TestHttpx:
    def test_one_connection_serves_many(self, url: str) -> None:
        with httpx.Client(trust_env=False) as client:
            clients = {client.get(f"{url}/facts").json()["client"] for _ in range(20)}
        assert len(clients) == 1

    def test_head(self, url: str) -> None:
        with httpx.Client(trust_env=False) as client:
            answer = client.head(f"{url}/download?size=123")
            assert (answer.headers["content-length"], answer.content) == ("123", b"")
            assert client.get(f"{url}/facts").status_code == 200  # the same connection goes on

    def test_chunked_upload(self, url: str) -> None:
        answer = httpx.post(f"{url}/upload", content=iter([b"a" * 70_000] * 30), trust_env=False)
        assert answer.json()["bytes"] == 2_100_000

    def test_streamed_download(self, url: str) -> None:
        with httpx.stream("GET", f"{url}/download?size=4000003", trust_env=False) as answer:
            assert sum(len(piece) for piece in answer.iter_raw()) == 4_000_003

    def test_events(self, url: str) -> None:
        with httpx.stream("GET", f"{url}/events", trust_env=False) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            first = next(line for line in answer.iter_lines() if line.startswith("data: "))
        assert json.loads(first.removeprefix("data: "))["number"] == 1

    def test_many_at_once(self, url: str) -> None:
        async def all_of_them() -> list[int]:
            limits = httpx.Limits(max_connections=20)
            async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:
                answers = await asyncio.gather(
                    *(client.post(f"{url}/upload", content=b"z" * n) for n in range(200))
                )
            return [answer.json()["bytes"] for answer in answers]

        assert asyncio.run(all_of_them()) == list(range(200))


class TestAiohttp:
    def test_one_connection_serves_many(self, url: str) -> None:
        async def clients() -> set[str]:
            async with aiohttp.ClientSession() as session:
                seen = set()
                for _ in range(20):
                    async with session.get(f"{url}/facts") as answer:
                        seen.add((await answer.json())["client"])
                return seen

        assert len(asyncio.run(clients())) == 1

    def test_chunked_upload(self, url: str) -> None:
        async def size() -> int:
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{url}/upload", data=pieces(40, 50_000)) as answer,
            ):
                return int((await answer.json())["bytes"])

        assert asyncio.run(size()) == 2_000_000

    def test_expect_100(self, url: str) -> None:
        async def size() -> int:
            async with (
                aiohttp.ClientSession() as session,
                session.put(f"{url}/upload", data=b"e" * 100_000, expect100=True) as answer,
            ):
                return int((await answer.json())["bytes"])

        assert asyncio.run(size()) == 100_000

    def test_a_client_that_leaves_in_the_middle(self, url: str) -> None:
        """It takes a little of a large answer and goes; the server serves on."""

        async def leave_and_return() -> int:
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{url}/download?size=500000000") as answer:
                    await answer.content.readexactly(1000)
                async with session.get(f"{url}/facts") as answer:
                    return answer.status

        assert asyncio.run(leave_and_return()) == 200

    def test_many_at_once(self, url: str) -> None:
        async def sizes() -> list[int]:
            async with aiohttp.ClientSession() as session:

                async def one(size: int) -> int:
                    async with session.get(f"{url}/download?size={size}") as answer:
                        return len(await answer.read())

                return await asyncio.gather(*(one(1000 * n) for n in range(150)))

        assert asyncio.run(sizes()) == [1000 * n for n in range(150)]
