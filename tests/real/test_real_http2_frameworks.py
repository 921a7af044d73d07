"""Starlette, FastAPI and Django over HTTP/2: what they answer is what they answer over HTTP/1.1."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.programs import REPOSITORY, free_port, running, wait_for_port
from tests.support.serve import serve

pytest.importorskip("h2")
pytestmark = pytest.mark.real

PROJECT = REPOSITORY / "examples" / "django_project"
OPTIONS: dict[str, Any] = {"http1": False, "http2": True, "trust_env": False, "timeout": 60}


def both(url: str, method: str, path: str, **options: Any) -> tuple[httpx.Response, httpx.Response]:
    """The same request over HTTP/1.1 and over HTTP/2."""
    with httpx.Client(trust_env=False) as old, httpx.Client(**OPTIONS) as new:
        answers = (
            old.request(method, url + path, **options),
            new.request(method, url + path, **options),
        )
    assert [one.http_version for one in answers] == ["HTTP/1.1", "HTTP/2"]
    return answers


CHANGING = {"date", "connection", "transfer-encoding"}  # by the version, or by the second


def same(url: str, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    """Answered alike over both; the second answer."""
    old, new = both(url, method, path, **options)
    assert (old.status_code, old.content) == (new.status_code, new.content)
    fields = [
        sorted((name, value) for name, value in one.headers.multi_items() if name not in CHANGING)
        for one in (old, new)
    ]
    assert fields[0] == fields[1]
    return new


# ---------------------------------------------------------------------------------- Starlette


@pytest.fixture(scope="module")
def starlette() -> Iterator[str]:
    pytest.importorskip("starlette")
    from examples import starlette_app

    with serve(starlette_app.app) as server:
        yield server.url
        assert server.logged() == []


def test_starlette(starlette: str) -> None:
    assert same(starlette, "/?name=M%C3%B6we").text == "Good tide, Möwe"
    assert same(starlette, "/inner/where").json()["root_path"] == "/inner"
    assert same(starlette, "/nowhere").status_code == 404
    assert same(starlette, "/upload", "DELETE").status_code == 405
    assert same(starlette, "/upload", "POST", content=b"s" * 2_000_000).json() == {
        "bytes": 2_000_000
    }


def test_starlette_file(starlette: str) -> None:
    whole = same(starlette, "/source")
    assert whole.content == (REPOSITORY / "examples" / "starlette_app.py").read_bytes()
    part = same(starlette, "/source", headers={"range": "bytes=3-12"})
    assert (part.status_code, part.content) == (206, whole.content[3:13])
    several = both(starlette, "GET", "/source", headers={"range": "bytes=0-9,20-29"})[1]
    assert several.status_code == 206
    assert same(starlette, "/source", "HEAD").content == b""


def test_starlette_stream(starlette: str) -> None:
    with httpx.Client(**OPTIONS) as client:
        with client.stream("GET", f"{starlette}/count") as answer:
            numbers = answer.iter_lines()
            assert [next(numbers) for _ in range(3)] == ["0", "1", "2"]
            assert client.get(f"{starlette}/status").json()["open_streams"] == 1
        assert client.post(f"{starlette}/later/paint").status_code == 202


# ---------------------------------------------------------------------------------- FastAPI


@pytest.fixture(scope="module")
def fastapi() -> Iterator[str]:
    pytest.importorskip("fastapi")
    from examples.fastapi_app import app

    with serve(app) as server:
        yield server.url
        assert server.logged() == []


def test_fastapi(fastapi: str) -> None:
    boat = {"name": "Albatros", "draught": 1.8}
    assert same(fastapi, "/boats/h2", "PUT", json=boat).json() == boat
    assert same(fastapi, "/boats/h2").json() == boat
    assert same(fastapi, "/boats/h3", "PUT", json={"name": ""}).status_code == 422
    assert same(fastapi, "/openapi.json").json()["paths"]
    assert "swagger" in same(fastapi, "/docs").text
    stream = same(fastapi, "/tide?steps=50")
    assert stream.text == "".join(f"data: {step}\n\n" for step in range(50))
    assert "transfer-encoding" not in stream.headers


def test_fastapi_functions_side_by_side(fastapi: str) -> None:
    """Plain functions in threads, all on one connection."""

    async def names() -> set[str]:
        async with httpx.AsyncClient(base_url=fastapi, **OPTIONS) as client:
            await client.put("/boats/b1", json={"name": "Mole", "draught": 1})
            answers = await asyncio.gather(*(client.get("/boats/b1") for _ in range(200)))
        return {answer.json()["name"] for answer in answers}

    assert asyncio.run(names()) == {"Mole"}


# ---------------------------------------------------------------------------------- Django


@pytest.fixture(scope="module")
def django() -> Iterator[str]:
    """A process of its own, because Django's settings belong to a process."""
    pytest.importorskip("django")
    port = free_port()
    env = {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tidegate", "--port", str(port)]
    with running(*command, cwd=PROJECT, env=env) as program:
        wait_for_port(port, program)
        yield f"http://127.0.0.1:{port}"
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.output


def test_django(django: str) -> None:
    assert same(django, "/?a=b%20c").text == "GET /?a=b%20c"
    assert same(django, "/", "HEAD").content == b""
    lines = "".join(f"line {number}\n" for number in range(100))
    assert same(django, "/stream").text == same(django, "/stream-sync").text == lines
    assert same(django, "/source").content == (PROJECT / "harbour" / "views.py").read_bytes()
    seen = same(django, "/async").json()
    assert (seen["scheme"], seen["host"]) == ("http", django.removeprefix("http://"))
    proxied = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}
    assert same(django, "/async", headers=proxied).json()["client"] == "192.0.2.7"
    assert same(django, "/fail").status_code == 500


def test_django_upload(django: str, tmp_path: Path) -> None:
    content = os.urandom(1000) * 4000
    answer = same(django, "/upload", "POST", data={"title": "Seekarte"}, files={"chart": content})
    assert answer.json() == {"fields": {"title": "Seekarte"}, "files": {"chart": 4_000_000}}


def test_django_events(django: str) -> None:
    with httpx.Client(**OPTIONS) as client, client.stream("GET", f"{django}/tide") as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == ["data: 0", "", "data: 1"]
        assert client.get(f"{django}/async").json()["watching"] == 1
    with httpx.Client(**OPTIONS) as client:
        while json.loads(client.get(f"{django}/async").text)["watching"]:
            pass  # the view ends with its connection, some callbacks later
