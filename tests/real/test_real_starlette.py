"""The Starlette example, served whole: state, streams that end, files, background work, mounts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples import starlette_app
from tests.support.serve import Running, serve

pytestmark = pytest.mark.real


@pytest.fixture
def server() -> Iterator[Running]:
    with serve(starlette_app.app) as server:
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


def eventually(look: Callable[[], Any], wanted: Any) -> None:
    """Ask until the answer is the wanted one: what we wait for happens after an answer."""
    deadline = time.monotonic() + 20
    while (seen := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen == wanted


def test_state_from_the_lifespan(client: httpx.Client) -> None:
    assert client.get("/", params={"name": "Möwe"}).text == "Good tide, Möwe"


def test_a_stream_ends_when_its_client_leaves(server: Running, client: httpx.Client) -> None:
    """Starlette turns the OSError of `send` into a ClientDisconnect of its own and raises that.

    Nobody did anything wrong, so the log must not call it an error; and a log that kept the
    traceback would keep the generator from ending.
    """
    with client.stream("GET", "/count") as answer:
        numbers = answer.iter_lines()
        assert [next(numbers) for _ in range(3)] == ["0", "1", "2"]
        assert client.get("/status").json()["open_streams"] == 1
    eventually(lambda: client.get("/status").json()["open_streams"], 0)
    assert server.logged() == []


def test_upload(client: httpx.Client) -> None:
    body = (b"s" * 65_536 for _ in range(32))
    assert client.post("/upload", content=body).json() == {"bytes": 2_097_152}


def test_file(client: httpx.Client) -> None:
    answer = client.get("/source")
    assert answer.content == Path(starlette_app.__file__).read_bytes()
    assert int(answer.headers["content-length"]) == len(answer.content)
    part = client.get("/source", headers={"range": "bytes=3-12"})
    assert (part.status_code, part.content) == (206, answer.content[3:13])
    same = client.get("/source", headers={"if-none-match": answer.headers["etag"]})
    assert same.status_code in (200, 304)  # 304 needs a Starlette that looks; either must be clean
    assert client.head("/source").content == b""


def test_the_file_goes_by_pathsend() -> None:
    """What Starlette hands over is the path: the bytes never pass through Python."""
    sent: list[str] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def watch(message: Any) -> None:
            sent.append(message["type"])
            await send(message)

        await starlette_app.app(scope, receive, watch)

    with serve(watched) as server:
        answer = httpx.get(f"{server.url}/source", trust_env=False)
    assert answer.content == Path(starlette_app.__file__).read_bytes()
    assert "http.response.pathsend" in sent


def test_background_work_is_done_after_the_answer(client: httpx.Client) -> None:
    assert client.post("/later/paint").status_code == 202
    eventually(lambda: "paint" in client.get("/status").json()["done_later"], True)


def test_mounted_application(client: httpx.Client) -> None:
    base = str(client.base_url).rstrip("/")
    assert client.get("/inner/where").json() == {
        "path": "/inner/where",
        "root_path": "/inner",
        "url": f"{base}/inner/where",
    }


def test_root_path_of_the_server() -> None:
    """Behind a proxy that cuts the prefix off: the application sees it as root_path again."""
    with serve(starlette_app.app, root_path="/api") as server:
        base = server.url
        seen = httpx.get(f"{base}/inner/where", trust_env=False).json()
    assert seen == {
        "path": "/api/inner/where",
        "root_path": "/api/inner",
        "url": f"{base}/api/inner/where",
    }


def test_routing_errors(client: httpx.Client) -> None:
    assert client.get("/nowhere").status_code == 404
    assert client.delete("/upload").status_code == 405
