"""The command line as a person uses it: start, banner, answers, signals, exit code."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.programs import (
    REPOSITORY,
    Running,
    find,
    free_port,
    run,
    running,
    short_folder,
    wait_for_port,
)

pytestmark = pytest.mark.real

ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
TIDEGATE = [sys.executable, "-m", "tidegate"]


@contextlib.contextmanager
def tidegate(*arguments: str | Path, cwd: Path = REPOSITORY) -> Iterator[tuple[Running, str]]:
    """A Tidegate process on a free port that answers by now, and its URL."""
    port = free_port()
    command = [*TIDEGATE, *arguments, "--port", str(port)]
    with running(*command, cwd=cwd, env=ENVIRONMENT) as program:
        wait_for_port(port, program)
        yield program, f"http://127.0.0.1:{port}"


def test_banner_answer_and_log() -> None:
    with tidegate("examples.demo:app") as (program, url):
        banner = program.expect(url)
        assert "examples.demo:app" in banner
        facts = httpx.get(f"{url}/facts?from=test", trust_env=False).json()
        program.expect("/facts?from=test")
        assert facts["worker"] == program.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: int) -> None:
    with tidegate("examples.demo:app") as (program, url):
        assert httpx.get(url, trust_env=False).status_code == 200
        program.signal(number)
        assert program.wait() == 0, program.output
    assert "Traceback" not in program.output


def test_an_event_stream_is_told_and_ends_cleanly() -> None:
    """A handler that never ends by itself gets http.disconnect, and its client a whole answer."""
    with tidegate("examples.demo:app") as (program, url):
        with httpx.stream("GET", f"{url}/events", trust_env=False) as answer:
            lines = answer.iter_lines()
            next(lines)
            program.signal(signal.SIGTERM)
            assert any(line.startswith("data: ") for line in lines)
        assert program.wait() == 0, program.output
    assert "Traceback" not in program.output


def test_an_answer_under_way_is_finished() -> None:
    """SIGTERM while a client is in the middle of a download: it gets all of it."""
    with tidegate("examples.demo:app") as (program, url):
        size = 30_000_000
        with httpx.stream("GET", f"{url}/download?size={size}", trust_env=False) as answer:
            pieces = answer.iter_raw()
            got = len(next(pieces))
            program.signal(signal.SIGTERM)
            got += sum(len(piece) for piece in pieces)
        assert got == size
        assert program.wait() == 0, program.output


SLOW = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    print("the request is here", flush=True)
    await asyncio.sleep(600)
"""


def test_a_second_signal_forces(tmp_path: Path) -> None:
    """What still ran is named in the log, and the exit code says that it was cut off."""
    (tmp_path / "slow.py").write_text(SLOW)
    with tidegate("slow:app", cwd=tmp_path) as (program, url):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /report HTTP/1.1\r\nHost: tide.test\r\n\r\n")
            program.expect("the request is here")
            program.signal(signal.SIGINT)
            program.expect("/report")
            program.signal(signal.SIGINT)
            program.wait()
    assert "Traceback" not in program.output


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_a_framework_object_beside_us_is_found(framework: str, tmp_path: Path) -> None:
    """`tidegate` in a folder with a main.py or app.py, and nothing else said."""
    source = (REPOSITORY / "examples" / f"{framework}_app.py").read_text()
    name = {"starlette": "app.py", "fastapi": "main.py"}[framework]
    (tmp_path / name).write_text(source)
    with tidegate(cwd=tmp_path) as (program, url):
        assert httpx.get(url, trust_env=False).status_code == 200
        assert name.removesuffix(".py") in program.output


def test_unix_socket_is_removed_at_the_end() -> None:
    with short_folder() as folder:
        path = folder / "tide.sock"
        command = [*TIDEGATE, "examples.demo:app", "--uds", path]
        with running(*command, env=ENVIRONMENT) as program:
            program.expect(str(path))
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, trust_env=False) as client:
                facts = client.get("http://tide.test/facts").json()
            program.signal(signal.SIGTERM)
            assert program.wait() == 0, program.output
        assert facts["server"] == str(path)
        assert not path.exists()


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(*TIDEGATE, "examples.demo:app", "--port", str(port), cwd=REPOSITORY,
                   env=environment())  # fmt: skip
    assert done.code not in (0, -signal.SIGKILL), done
    said = done.text + done.err
    assert str(port) in said and "Traceback" not in said, done


def test_a_module_that_is_not_there_is_a_sentence() -> None:
    done = run(*TIDEGATE, "examples.dmo:app", cwd=REPOSITORY, env=environment())
    said = done.text + done.err
    assert done.code not in (0, -signal.SIGKILL), done
    assert "examples.dmo" in said and "Traceback" not in said, done


def environment() -> dict[str, str]:
    import os

    return {**os.environ, **ENVIRONMENT}


def test_make_serve_is_what_the_readme_says(tmp_path: Path) -> None:
    """The recipe of `make serve`, read from make itself, starts the demo."""
    make = find("make")
    if make is None:
        pytest.skip("make is not installed")
    printed = run(make, "--dry-run", "--silent", "serve", cwd=REPOSITORY).text
    assert "-m tidegate examples.demo:app --port 8000" in printed
