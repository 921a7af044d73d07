"""Stops and cancelled requests while real clients are at it: what is in flight finishes.

Nothing here waits for a clock: the applications stop the server themselves, at the point meant.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from examples.demo.application import Demo
from tests.support.apps import body, lifespan, start
from tests.support.programs import REPOSITORY, curl, free_port, need, run, running, wait_for_port
from tests.support.serve import Running, serve
from tests.support.tls import Files

pytestmark = pytest.mark.real

PIECE = bytes(range(256)) * 256
SIZE = 20_000_000


@pytest.fixture(scope="module", params=["clear", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if request.param == "clear":
        return {}
    own = Files(tmp_path_factory.mktemp("tls"), "own")
    own.write(trustme.CA().issue_cert("127.0.0.1"))
    return {"ssl_certfile": own.cert, "ssl_keyfile": own.key}


def base(server: Running, tls: dict[str, Any]) -> str:
    return f"{'https' if tls else 'http'}://127.0.0.1:{server.port}"


class Stopping(Demo):
    """The demo, over HTTP/2 alone; `stop` is called at the request that makes the count full."""

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.count = count
        self.stop: Callable[[], None] | None = None

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["http_version"] == "2"
        if self.requests == self.count and self.stop is not None:
            self.stop()
        await super().answer(scope, receive, send)


def known(tls: dict[str, Any]) -> list[str]:
    return ["-k", "--http2"] if tls else ["--http2-prior-knowledge"]


def test_downloads_are_finished(tls: dict[str, Any], tmp_path: Path) -> None:
    """Four curls in the middle of 20 MB when the server stops: each gets all of it."""
    app = Stopping(4)
    with serve(app, timeout_graceful_shutdown=30, **tls) as server:
        app.stop = server.server.stop

        def download(number: int) -> int:
            out = tmp_path / str(number)
            # Slow enough for the last to begin while the first is under way.
            pace = ["--limit-rate", "40M"]
            url = f"{base(server, tls)}/download?size={SIZE}"
            return curl(*known(tls), *pace, "-o", out, url).code

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(download, range(4))) == [0] * 4
        server.stop()
        assert server.clean is True
        assert server.logged() == []
    for number in range(4):
        assert (tmp_path / str(number)).read_bytes() == (PIECE * 306)[:SIZE]


def test_uploads_are_finished(tls: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(bytes(SIZE))
    app = Stopping(3)
    with serve(app, timeout_graceful_shutdown=30, **tls) as server:
        app.stop = server.server.stop

        def upload(_: int) -> str:
            pace = ["--limit-rate", "40M"]
            return curl(
                *known(tls), *pace, "-T", tmp_path / "body", f"{base(server, tls)}/upload"
            ).text

        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(upload, range(3)))
        server.stop()
        assert server.clean is True
        assert server.logged() == []
    assert all(f'"bytes": {SIZE}' in answer for answer in answers), answers


class Goodbye:
    """Stops the server between the two halves of its answer."""

    server: Running

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        await send(start())
        await send(body(b"first half, ", more_body=True))
        self.server.server.stop()
        await send(body(PIECE * 40, more_body=True))
        return await send(body(b"the end"))


def test_goaway_is_shown(tls: dict[str, Any]) -> None:
    """A warning at once, with the highest stream there is; the answer still comes whole."""
    app = Goodbye()
    with serve(app, **tls) as server:
        app.server = server
        done = run(need("nghttp"), "-nv", f"{base(server, tls)}/")
        server.stop()
        assert server.clean is True
    said = re.findall(r"recv GOAWAY .*\n +\(last_stream_id=(\d+), error_code=(\w+)", done.text)
    assert said[0] == ("2147483647", "NO_ERROR"), done.text
    assert said[1:] in ([], [("13", "NO_ERROR")]), done.text  # nghttp leaves when it has all
    assert "recv RST_STREAM" not in done.text
    assert done.text.rpartition("recv DATA frame")[2].count("END_STREAM") == 1, done.text
    sizes = re.findall(r"recv DATA frame <length=(\d+)", done.text)
    assert sum(map(int, sizes)) == len(b"first half, " + PIECE * 40 + b"the end")


def test_event_stream_ends_whole(tls: dict[str, Any]) -> None:
    """The handler is told, and curl gets a clean end of its stream."""
    command = [need("curl"), "-q", "-sS", "--noproxy", "*", "-N", *known(tls)]
    with (
        serve(Stopping(), **tls) as server,
        running(*command, f"{base(server, tls)}/events") as client,
    ):
        client.expect("event: tick")
        server.stop()
        assert server.clean is True
        assert client.wait() == 0, client.output
        assert server.logged() == []
    assert client.output.endswith("\n\n"), client.output


@pytest.fixture
def process() -> Iterator[tuple[Any, str]]:
    """The command line, as a process of its own that signals reach."""
    port = free_port()
    env = {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "tidegate", "examples.demo:app", "--port", str(port)]
    with running(*command, env=env) as program:
        wait_for_port(port, program)
        yield program, f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_curl_downloads(process: tuple[Any, str], number: int, tmp_path: Path) -> None:
    program, url = process
    out = tmp_path / "got"
    command = [need("curl"), "-q", "-sS", "--noproxy", "*", "--http2-prior-knowledge"]
    said = "%{http_version} %{http_code} %{size_download}"
    command += ["--limit-rate", "30M", "-w", said, "-o", str(out)]
    with running(*command, f"{url}/download?size={SIZE}") as client:
        while not out.exists() or not out.stat().st_size:
            assert not client.output, client.output
        os.kill(program.pid, number)
        assert client.wait() == 0, client.output
        assert client.output == f"2 200 {SIZE}"
    assert program.wait() == 0, program.output
    assert "Traceback" not in program.output
    assert out.read_bytes() == (PIECE * 306)[:SIZE]


# ---------------------------------------------------------------------- requests that are given up


def test_transfers_that_curl_gives_up(tmp_path: Path) -> None:
    """Two of a connection's streams are cut by curl itself; the others on it come whole."""
    own = Files(tmp_path, "own").write(trustme.CA().issue_cert("127.0.0.1"))
    tls = {"ssl_certfile": own.cert, "ssl_keyfile": own.key}
    with serve(Stopping(), **tls) as server:
        url = base(server, tls)
        common = ["-sS", "--noproxy", "*", "-k", "--http2"]
        common += ["-w", "%{url} %{exitcode} %{size_download}\n", "-o", "/dev/null"]
        done = curl(
            "--parallel", *common, "--max-time", "1", f"{url}/events?[1-3]",
            "--next", *common, f"{url}/download?size=[4000000-4000004]",
            "--next", *common, "--max-filesize", "1000", f"{url}/download?size=[4000005-4000009]",
        )  # fmt: skip
        after = curl("-k", "--http2", f"{url}/facts")
        assert server.logged() == []
    ends = sorted(line.removeprefix(url).split()[:2] for line in done.text.splitlines())
    assert ends == [
        *([f"/download?size={4000000 + n}", "0"] for n in range(5)),
        *([f"/download?size={4000005 + n}", "63"] for n in range(5)),
        *([f"/events?{n}", "28"] for n in range(1, 4)),
    ], done
    assert after.code == 0, after
