"""What a service manager sees: messages on its socket, and sockets it has opened itself."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.operations import Notified, ask, exit_code, serving, write_app
from tests.support.programs import short_folder
from tests.support.workers import wait_for_end

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's"),
]

SUPERVISED = [pytest.param(("--supervise",), id="supervised"), pytest.param((), id="single")]


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def systemd(folder: Path) -> Iterator[Notified]:
    notified = Notified(folder / "notify")
    yield notified
    notified.close()


def told(systemd: Notified, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(systemd.path), **more}


def test_ready_once_all_workers_serve(folder: Path, systemd: Notified) -> None:
    """The first worker passes, the second is held back at its import: nothing is said yet."""
    gate, first = folder / "gate", folder / "first"
    os.mkfifo(gate)
    before = (
        f"import os\ntry:\n    os.close(os.open({str(first)!r}, os.O_CREAT | os.O_EXCL))\n"
        f"except FileExistsError:\n    open({str(gate)!r}).read()\n"
    )
    write_app(folder, before=before)
    with serving(folder, "--workers", "2", env=told(systemd)) as server:
        with open(gate, "w"):  # opens once the second reads it
            assert server.ask().status == 200
            early = systemd.drain()
            assert not [message for message in early if "READY=1" in message]
        assert systemd.expect("READY=1") == ("READY=1", "STATUS=2 workers serving")


@pytest.mark.parametrize("options", SUPERVISED)
def test_ready_and_stopping(
    folder: Path, systemd: Notified, options: tuple[str, ...]
) -> None:  # fmt: skip
    with serving(folder, *options, env=told(systemd)) as server:
        systemd.expect("READY=1")
        assert server.ask().status == 200
        server.signal(signal.SIGTERM)
        systemd.expect("STOPPING=1")
        assert server.wait() == 0, server.output


@pytest.mark.parametrize("options", SUPERVISED)
def test_stopping_is_said_before_the_drain(
    folder: Path, systemd: Notified, options: tuple[str, ...]
) -> None:
    from tests.support.operations import Client

    with serving(folder, *options, env=told(systemd)) as server:
        systemd.expect("READY=1")
        client = Client(server.port)
        client.begin()
        server.expect("the request is here")
        server.signal(signal.SIGTERM)
        systemd.expect("STOPPING=1")
        assert client.finish().status == 200
        client.close()
        assert server.wait() == 0, server.output


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_reload_has_a_begin_and_an_end(
    folder: Path, systemd: Notified, workers: str, preload: tuple[str, ...]
) -> None:
    """Type=notify-reload: RELOADING with the time, which must be later than the request's."""
    options = ("--supervise", "--workers", workers, "--drain-idle", "100ms", *preload)
    with serving(folder, *options, env=told(systemd)) as server:
        systemd.expect("READY=1")
        write_app(folder, "second")
        asked = time.monotonic_ns() // 1000
        server.signal(signal.SIGHUP)
        message = systemd.expect("RELOADING=1")
        at = int(message[1].removeprefix("MONOTONIC_USEC="))
        assert asked <= at <= time.monotonic_ns() // 1000
        systemd.expect("READY=1")
        server.expect("All workers are new.")
        assert {ask(server.port).facts["code"] for _ in range(8)} == {"second"}


def test_a_reload_that_fails_ends_as_well(folder: Path, systemd: Notified) -> None:
    with serving(folder, "--workers", "2", env=told(systemd)) as server:
        systemd.expect("READY=1")
        write_app(folder, before="raise RuntimeError('not yet')\n")
        server.signal(signal.SIGHUP)
        systemd.expect("RELOADING=1")
        systemd.expect("READY=1")
        server.expect("The restart is given up: the workers from before serve on.")
        assert "RuntimeError: not yet" in server.output
        assert ask(server.port).facts["code"] == "first"


@pytest.mark.parametrize("options", SUPERVISED)
def test_watchdog(folder: Path, systemd: Notified, options: tuple[str, ...]) -> None:
    """Again and again, as long as all is well. Nothing before READY: nobody waits for it then."""
    environment = told(systemd, WATCHDOG_USEC="400000")
    with serving(folder, *options, env=environment) as server:
        systemd.expect("WATCHDOG=1")
        assert any("READY=1" in message for message in systemd.messages)
        for _ in range(3):
            systemd.expect("WATCHDOG=1")
        assert server.ask().status == 200


def test_a_loop_that_hangs_is_silent(folder: Path, systemd: Notified) -> None:
    """One process: what hangs does not pet the watchdog, and goes on once it turns again."""
    gate = folder / "gate"
    os.mkfifo(gate)
    with serving(folder, env=told(systemd, WATCHDOG_USEC="100000")) as server:
        systemd.expect("WATCHDOG=1")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(f"GET /hang?{gate} HTTP/1.0\r\n\r\n".encode())
            with open(gate, "w"):  # opens once the loop stands still
                systemd.drain()
                # another process's clock: what it would have sent meanwhile is not there
                assert not systemd.comes_within(0.4)
            systemd.expect("WATCHDOG=1")
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_a_watchdog_of_another_process_is_left_alone(folder: Path, systemd: Notified) -> None:
    environment = told(systemd, WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    with serving(folder, env=environment) as server:
        server.signal(signal.SIGTERM)
        systemd.expect("STOPPING=1")
        assert not [message for message in systemd.messages if "WATCHDOG=1" in message]


@pytest.mark.parametrize("workers", ["--supervise", "--no-supervise"])
def test_a_slow_start_asks_for_patience(folder: Path, systemd: Notified, workers: str) -> None:
    """Before READY the start limit of the unit counts; each message moves it."""
    gate = folder / "gate"
    os.mkfifo(gate)
    write_app(folder, before=f"open({str(gate)!r}).read()\n")
    with serving(folder, workers, env=told(systemd), ready="") as server:
        with open(gate, "w"):
            message = systemd.expect("EXTEND_TIMEOUT_USEC=")
            assert int(message[0].partition("=")[2]) >= 10_000_000
        systemd.expect("READY=1")
        assert server.ask().status == 200


@pytest.mark.parametrize("workers", ["--supervise", "--no-supervise"])
def test_a_slow_startup_of_the_application_asks_for_patience(
    folder: Path, systemd: Notified, workers: str
) -> None:
    """Also where it holds the loop up. The import was over before: its request has been heard."""
    imported, gate = folder / "imported", folder / "gate"
    os.mkfifo(imported)
    os.mkfifo(gate)
    app = write_app(folder, before=f"open({str(imported)!r}).read()\n")
    with app.open("a") as more:
        more.write(f"""
served = app
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        open({str(gate)!r}).read()
    await served(scope, receive, send)
""")
    with serving(folder, workers, env=told(systemd), ready="") as server:
        with open(imported, "w"):
            systemd.expect("EXTEND_TIMEOUT_USEC=")
        with open(gate, "w"):
            if workers == "--no-supervise":  # a supervisor does not ask again that soon
                systemd.expect("EXTEND_TIMEOUT_USEC=")
        systemd.expect("READY=1")
        assert server.ask().status == 200


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "2000000"}], ids=["", "watchdog"])
def test_an_upgrade_names_the_new_main_process(
    folder: Path, systemd: Notified, watchdog: dict[str, str]
) -> None:
    """And the old one is silent from then on: STOPPING would end the whole unit."""
    with serving(
        folder, "--supervise", "--drain-idle", "100ms", env=told(systemd, **watchdog)
    ) as server:  # fmt: skip
        systemd.expect("READY=1")
        server.signal(signal.SIGUSR2)
        new = int(server.expect_line(r"a new binary starts, process (\d+)")[0])
        assert systemd.expect("MAINPID=") == (f"MAINPID={new}",)
        assert exit_code(server) == 0
        assert not [one for one in systemd.drain() if "STOPPING=1" in one], systemd.messages
        if watchdog:
            systemd.expect("WATCHDOG=1")
        os.kill(new, signal.SIGTERM)
        systemd.expect("STOPPING=1")
        wait_for_end(new)


# -- socket activation -----------------------------------------------------------------------------

# What systemd does: descriptors from 3 on, and the number of the process that they are for.
ACTIVATE = """
import os, socket, sys
names = sys.argv[1].split(",")
socks = [socket.create_server(("127.0.0.1", 0)) for _ in names]
high = [os.dup2(sock.fileno(), 50 + index) for index, sock in enumerate(socks)]
print("ports", *(sock.getsockname()[1] for sock in socks), flush=True)
for index, fd in enumerate(high):
    os.dup2(fd, 3 + index)
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_PID=str(os.getpid()),
                  LISTEN_FDNAMES=":".join(names))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def activated(names: str) -> tuple[str, ...]:
    return (sys.executable, "-c", ACTIVATE, names)


@pytest.mark.parametrize(
    "options",
    [(), ("--workers", "2"), ("--workers", "2", "--preload")],
    ids=["single", "workers", "preload"],
)
def test_sockets_of_systemd(folder: Path, options: tuple[str, ...]) -> None:
    wrapper = activated("web,more")
    with serving(folder, "--bind", "systemd", *options, wrapper=wrapper) as server:
        ports = [int(port) for port in re.findall(r"\d+", server.expect_line("^ports (.*)$")[0])]
        assert [ask(port).status for port in ports] == [200, 200]
        for port in ports:
            server.expect(f"http://127.0.0.1:{port}")


def test_named_sockets_one_for_health(folder: Path) -> None:
    wrapper = activated("web,health")
    options = ("--bind", "systemd:web", "--health-bind", "systemd:health", "--workers", "2")
    with serving(folder, *options, wrapper=wrapper) as server:
        web, health = map(int, server.expect_line("^ports (.*)$")[0].split())
        assert ask(web).facts["code"] == "first"
        assert ask(health, "/ready").text == "ready\n"


def test_sockets_of_systemd_are_taken_over(folder: Path) -> None:
    """LISTEN_PID names the old process only: the new one has them from it."""
    wrapper = activated("web,more")
    options = ("--bind", "systemd", "--workers", "2", "--drain-idle", "100ms")
    with serving(folder, *options, wrapper=wrapper) as server:
        ports = [int(port) for port in re.findall(r"\d+", server.expect_line("^ports (.*)$")[0])]
        new, old = 0, server.pid
        for times in (1, 2):
            os.kill(old, signal.SIGUSR2)
            new = int(server.expect_line(r"new binary starts, process (\d+)", times=times)[-1])
            wait_for_end(old)
            assert [ask(port).facts["parent"] for port in ports] == [new, new]
            old = new
