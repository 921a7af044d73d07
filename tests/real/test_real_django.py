"""The Django example on the command line, found without being named: every kind of view.

A process of its own, because Django's settings belong to a process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.programs import REPOSITORY, Running, free_port, running, wait_for_port

pytestmark = pytest.mark.real

PROJECT = REPOSITORY / "examples" / "django_project"


@pytest.fixture(scope="module")
def project() -> Iterator[tuple[Running, httpx.Client]]:
    """`tidegate`, typed in the project's folder, with nothing but a port."""
    port = free_port()
    env = {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tidegate", "--port", str(port)]
    with running(*command, cwd=PROJECT, env=env) as program:
        wait_for_port(port, program)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield program, client


@pytest.fixture
def client(project: tuple[Running, httpx.Client]) -> httpx.Client:
    return project[1]


def test_the_project_is_found(project: tuple[Running, httpx.Client]) -> None:
    assert "harbour" in project[0].output
    assert "Django" in project[0].output


def test_plain_view(client: httpx.Client) -> None:
    assert client.get("/?a=b%20c").text == "GET /?a=b%20c"
    head = client.head("/")
    assert (head.status_code, head.content) == (200, b"")


def test_async_view(client: httpx.Client) -> None:
    seen = client.get("/async").json()
    port = client.base_url.port
    assert (seen["scheme"], seen["host"], seen["client"]) == (
        "http",
        f"127.0.0.1:{port}",
        "127.0.0.1",
    )


def test_a_trusted_proxy_is_believed(client: httpx.Client) -> None:
    headers = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}
    seen = client.get("/async", headers=headers).json()
    assert (seen["scheme"], seen["client"]) == ("https", "192.0.2.7")


@pytest.mark.parametrize("path", ["/stream", "/stream-sync"])
def test_streaming(client: httpx.Client, path: str) -> None:
    assert client.get(path).text == "".join(f"line {number}\n" for number in range(100))


def test_file(client: httpx.Client) -> None:
    answer = client.get("/source")
    assert answer.content == (PROJECT / "harbour" / "views.py").read_bytes()
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_upload(client: httpx.Client, tmp_path: Path) -> None:
    """Larger than what Django keeps in memory (2.5 MB), with a field beside it."""
    large = tmp_path / "chart.bin"
    large.write_bytes(os.urandom(1000) * 4000)
    with large.open("rb") as file:
        answer = client.post("/upload", data={"title": "Seekarte"}, files={"chart": file})
    assert answer.json() == {"fields": {"title": "Seekarte"}, "files": {"chart": 4_000_000}}


def test_an_event_stream_ends_when_its_client_leaves(client: httpx.Client) -> None:
    with client.stream("GET", "/tide") as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == ["data: 0", "", "data: 1"]
        assert client.get("/async").json()["watching"] == 1
    deadline = time.monotonic() + 20
    while (watching := client.get("/async").json()["watching"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watching == 0


def test_an_error_tells_strangers_nothing(client: httpx.Client) -> None:
    answer = client.get("/fail")
    assert answer.status_code == 500
    assert "RuntimeError" not in answer.text and "this view fails" not in answer.text
    assert client.get("/").status_code == 200


def test_found_even_where_asgi_py_is_gone(tmp_path: Path) -> None:
    """manage.py names the settings; that is enough."""
    import shutil

    copy = tmp_path / "project"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns("asgi.py", "__pycache__"))
    port = free_port()
    env = {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tidegate", "--port", str(port)]
    with running(*command, cwd=copy, env=env) as program:
        wait_for_port(port, program)
        answer = httpx.get(f"http://127.0.0.1:{port}/async", trust_env=False)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.output
    assert answer.status_code == 200, program.output
