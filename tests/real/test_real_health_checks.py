"""/ready and /live on a listener of their own, from before the start to after the last request."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.operations import Client, ask, connect, serving, write_app
from tests.support.programs import free_port, short_folder

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets"),
]

KINDS = [
    pytest.param((), id="single"),
    pytest.param(("--supervise",), id="supervised"),
    pytest.param(("--workers", "2", "--preload"), id="preload"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture(params=["tcp", "unix"])
def health(request: pytest.FixtureRequest, folder: Path) -> int | Path:
    return free_port() if request.param == "tcp" else folder / "health"


def bound(health: int | Path) -> tuple[str, str]:
    where = f"127.0.0.1:{health}" if isinstance(health, int) else f"unix:{health}"
    return ("--health-bind", where)


@pytest.mark.parametrize("options", KINDS)
def test_what_is_answered(folder: Path, health: int | Path, options: tuple[str, ...]) -> None:
    with serving(folder, *bound(health), *options) as server:
        for path, status, text in (
            ("/ready", 200, "ready\n"), ("/live", 200, "live\n"), ("/live/", 200, "live\n"),
            ("/ready?verbose", 200, "ready\n"), ("/", 404, None), ("/readyz", 404, None),
        ):  # fmt: skip
            answer = ask(health, path)
            assert answer.status == status, path
            assert text is None or answer.text == text
            head = ask(health, path, "HEAD")
            assert (head.status, head.text) == (status, "")
            assert head.headers["content-length"] == answer.headers["content-length"]
        assert server.ask("/ready").worker, "on the application's listener it is the application's"


@pytest.mark.parametrize("options", KINDS)
def test_a_connection_is_kept(folder: Path, options: tuple[str, ...]) -> None:
    port = free_port()
    with serving(folder, *bound(port), *options), contextlib.closing(Client(port)) as client:
        assert [client.ask(path).status for path in ("/ready", "/live", "/ready")] == [200] * 3


@pytest.mark.parametrize("options", [(), ("--supervise",)], ids=["single", "supervised"])
def test_nothing_is_answered_before_the_start_is_complete(
    folder: Path, options: tuple[str, ...]
) -> None:
    """The application's startup takes its time: who asks waits, and then is told."""
    gate, port = folder / "gate", free_port()
    os.mkfifo(gate)
    path = write_app(folder)
    source = path.read_text().replace(
        "            await send({",
        "            message['type'].endswith('startup') and "
        f"(print('starting up', flush=True), open({str(gate)!r}).read())\n            await send({{",
        1,
    )
    path.write_text(source)
    with (
        serving(folder, *bound(port), *options, ready="starting up"),
        connect(port) as client,
        open(gate, "w") as opened,
    ):
        client.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
        assert not select.select([client], [], [], 0)[0]
        opened.close()
        assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("options", KINDS)
def test_unready_before_the_drain_begins(
    folder: Path, health: int | Path, options: tuple[str, ...]
) -> None:
    """During --drain-delay all is served as ever, only not on the balancer's list."""
    with serving(folder, *bound(health), "--drain-delay", "60s", *options) as server:
        kept = Client(server.port)
        assert kept.ask().status == 200
        server.signal(signal.SIGTERM)
        server.expect("Not ready any more; draining begins in 60 s.")
        unready = ask(health, "/ready")
        assert (unready.status, unready.text) == (503, "leaving\n")
        assert ask(health, "/live").status == 200
        assert server.ask().status == 200
        assert "connection" not in kept.ask().headers
        server.signal(signal.SIGTERM)
        server.wait()
        kept.close()


@pytest.mark.parametrize("options", KINDS)
def test_the_delay_ends_by_itself(folder: Path, options: tuple[str, ...]) -> None:
    port = free_port()
    with serving(folder, *bound(port), "--drain-delay", "200ms", *options) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


@pytest.mark.parametrize("options", KINDS)
def test_live_while_a_request_is_finished(
    folder: Path, health: int | Path, options: tuple[str, ...]
) -> None:
    """The drain takes its time. Who is killed meanwhile for being dead has lost that request."""
    with serving(folder, *bound(health), *options) as server:
        busy = Client(server.port)
        busy.begin()
        server.expect("the request is here")
        server.signal(signal.SIGTERM)
        server.expect_line(r"Stopping: waiting for POST /")
        assert ask(health, "/live").status == 200
        assert ask(health, "/ready").status == 503
        assert busy.finish().facts["body"] == "ab"
        busy.close()
        assert server.wait() == 0, server.output


def test_ready_all_through_a_restart(folder: Path, health: int | Path) -> None:
    """One leaves, another is there: the server as a whole was never unready."""
    options = ("--workers", "2", "--drain-idle", "100ms")
    with serving(folder, *bound(health), *options) as server:
        old = server.pids
        server.signal(signal.SIGHUP)
        while {server.ask().worker for _ in range(8)} & set(old):
            assert ask(health, "/ready").status == 200


def test_a_kept_connection_is_not_told_of_a_restart(folder: Path) -> None:
    """A worker that leaves has a successor: nobody is to take the server off a list for it."""
    port = free_port()
    with serving(folder, *bound(port), "--supervise", "--drain-idle", "60s") as server:
        (old,) = server.pids
        kept, busy = Client(port), Client(server.port)
        assert kept.ask("/ready").status == 200
        busy.begin()
        server.expect("the request is here")
        server.signal(signal.SIGHUP)
        server.expect_line(r"Stopping: waiting for POST /")  # it leaves by now
        assert kept.ask("/ready").status == 200
        assert busy.finish().facts["pid"] == old
        kept.close()
        busy.close()


def test_one_that_hangs_does_not_fail_all(folder: Path) -> None:
    gate, port = folder / "gate", free_port()
    os.mkfifo(gate)
    with (
        serving(folder, *bound(port), "--workers", "2") as server,
        connect(server.port) as client,
    ):
        client.sendall(f"GET /hang?{gate} HTTP/1.0\r\n\r\n".encode())
        with open(gate, "w"):  # opens once a loop stands still
            assert [ask(port, "/ready").status for _ in range(20)] == [200] * 20
        assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("options", [(), ("--supervise",)], ids=["single", "supervised"])
def test_checks_are_nobody_s_requests(folder: Path, options: tuple[str, ...]) -> None:
    """Not in the access log, and no step towards --limit-max-requests."""
    port = free_port()
    limit = ("--limit-max-requests", "3", "--limit-concurrency", "1", "--access-log")
    with serving(folder, *bound(port), *limit, *options) as server:
        for _ in range(10):
            assert ask(port, "/live").status == 200
        first = server.ask("/first").worker
        assert server.ask("/second").worker == first
        assert ask(port, "/ready").status == 200
        server.expect("/second")
        assert "GET /live" not in server.output and "GET /ready" not in server.output


def test_checks_are_plain_where_the_application_has_tls(folder: Path) -> None:
    trustme = pytest.importorskip("trustme")
    from tests.support.tls import Files, client_context

    authority = trustme.CA()
    files = Files(folder, "site").write(authority.issue_cert("localhost"))
    port = free_port()
    options = ("--ssl-certfile", files.cert, "--ssl-keyfile", files.key)
    with serving(folder, *bound(port), *options) as server:
        assert ask(port, "/ready").status == 200
        assert ask(server.port, tls=client_context(authority)).status == 200
