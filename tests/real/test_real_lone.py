"""One process, no supervisor: what signals and a pid file mean to it."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.support.operations import ask
from tests.support.programs import REPOSITORY, run, short_folder
from tests.support.workers import APP, children, is_free, serving, starting

pytestmark = pytest.mark.real


def test_it_is_one_process(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "1") as server:
        assert children(server.pid) == []
        assert server.ask().worker == server.pid


def test_hangup_ends_it_gracefully(tmp_path: Path) -> None:
    with serving(tmp_path, APP) as server, server.client() as client:
        client.begin("/upload")
        server.expect_line("has /upload")
        server.signal(signal.SIGHUP)
        server.expect_line("SIGHUP: stopping")
        server.expect_line("waiting for POST /upload")
        assert client.finish().status == 200
        assert server.wait() == 0, server.output
        assert "--supervise" in server.output


def test_nohup_is_heeded(tmp_path: Path) -> None:
    wrapper = ("/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with serving(tmp_path, APP, wrapper=wrapper) as server:
        server.signal(signal.SIGHUP)
        assert server.ask().status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
        assert "SIGHUP" not in server.output


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU])
def test_what_needs_a_supervisor_is_refused(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path, APP) as server:
        server.signal(number)
        server.expect_line(f"{number.name} needs a supervisor.*--supervise")
        assert server.ask().status == 200


def test_quit_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, APP) as server, server.client() as client:
        client.begin("/forever")
        server.expect_line("has /forever")
        server.signal(signal.SIGQUIT)
        server.expect_line("SIGQUIT: stopping at once")
        assert server.wait() == 1, server.output
        assert is_free(server.port)
    assert "Traceback" not in server.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_log_files_are_opened_again(workers: str, tmp_path: Path) -> None:
    """What was moved away gets no more lines; the new file gets them."""
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    options = ("--access-log", "--access-log-file", log, "--workers", workers)
    with serving(tmp_path, APP, *options) as server:
        os.rename(log, moved)
        server.signal(signal.SIGUSR1)
        server.expect_line("SIGUSR1: opening the log files again")
        pids = [server.pid] if workers == "1" else server.pids
        for pid in pids:
            with server.client_of(pid) as client:
                assert client.ask("/after").status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
    assert log.read_text().count("/after") == len(pids)
    assert "/after" not in moved.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_pid_file_is_there_while_it_serves(workers: str, tmp_path: Path) -> None:
    file = tmp_path / "tide.pid"
    with serving(tmp_path, APP, "--workers", workers, "--pid-file", file) as server:
        assert int(file.read_text()) == server.pid
        with starting(tmp_path, APP, "--pid-file", file) as second:
            assert second.wait() not in (0, -signal.SIGKILL)
            assert str(server.pid) in second.output and "Traceback" not in second.output
        assert int(file.read_text()) == server.pid
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
    assert not file.exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stale_pid_file_is_nobody(workers: str, tmp_path: Path) -> None:
    """Whoever wrote it was killed."""
    file = tmp_path / "tide.pid"
    with serving(tmp_path, APP, "--workers", workers, "--pid-file", file) as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert file.exists()
    with serving(tmp_path, APP, "--workers", workers, "--pid-file", file) as server:
        assert int(file.read_text()) == server.pid


# What blocks the loop, each in its way: in a system call that Python begins anew, in one that the
# kernel would, and in none.
BLOCKING = (
    APP
    + """
import socket

def sleeps():
    time.sleep(600)

def reads():
    ours, theirs = socket.socketpair()
    ours.recv(1)

def spins():
    while True:
        pass

usual = app

async def app(scope, receive, send):
    if scope["type"] == "http" and (block := globals().get(scope["path"][1:])):
        say("blocks now")
        block()
    await usual(scope, receive, send)
"""
)
LOOPS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("blocks", ["sleeps", "reads", "spins"])
@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGQUIT,)], ids=["twice", "quit"]
)
def test_a_blocked_loop_does_not_keep_it(
    numbers: tuple[int, ...], blocks: str, loop: str, tmp_path: Path
) -> None:
    """Whoever insists learns where it is blocked, and is rid of it; nothing is left behind."""
    pid_file, log = tmp_path / "pid", tmp_path / "access.log"
    options = ("--loop", loop, "--pid-file", pid_file, "--access-log", "--access-log-file", log)
    with short_folder() as folder:
        unix = folder / "tide"
        bind = ("--bind", f"unix:{unix}", "--bind", "127.0.0.1:0")
        with serving(tmp_path, BLOCKING, *options, *bind) as server:
            port = int(server.expect_line(r"Listening on http://127\.0\.0\.1:(\d+)")[0])
            server.port = port
            with server.client() as client:
                assert client.ask("/before").status == 200
                client.begin(f"/{blocks}")
                server.expect_line("blocks now")
                for number in numbers:
                    server.signal(number)
                assert server.wait() == 1, server.output
            (said,) = server.lines("is blocked in")
            assert f"{tmp_path / 'app.py'}, line " in said
            assert f"in {blocks}\n" in server.output
            assert "/asgi/" not in server.output and "Traceback" not in server.output
            assert not pid_file.exists() and not unix.exists() and is_free(port)
    assert "/before" in log.read_text()


def test_its_last_request_is_told_of(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--limit-max-requests", "1") as server:
        assert server.ask().status == 200
        assert server.wait() == 0, server.output
        (said,) = server.lines("has served its requests")
        assert "--limit-max-requests" in said and "--supervise" in said


@pytest.mark.parametrize("mode", [(), ("--supervise",)], ids=["", "supervised"])
def test_a_port_of_the_kernel_s_choice_for_both(mode: tuple[str, ...], tmp_path: Path) -> None:
    """One for the application and one for health checks, though they are written alike."""
    options = ("--bind", "127.0.0.1:0", "--health-bind", "127.0.0.1:0", *mode)
    with serving(tmp_path, APP, *options) as server:
        health = server.expect_line(r"Health checks on http://127\.0\.0\.1:(\d+) \(/ready, /live\)")
        (port,) = server.expect_line(r"Listening on http://127\.0\.0\.1:(\d+)")
        assert ask(int(health[0]), "/ready").text == "ready\n"
        assert ask(int(port), "/ready").text == "ok"


@pytest.mark.parametrize("mode", [(), ("--supervise",)], ids=["", "supervised"])
def test_a_unix_socket_for_health_checks_is_told_of(mode: tuple[str, ...], tmp_path: Path) -> None:
    with short_folder() as folder:
        unix = folder / "health"
        with serving(tmp_path, APP, "--health-bind", f"unix:{unix}", *mode) as server:
            server.expect(f"Health checks on unix:{unix} (/ready, /live)")


EDGES = """
import os, signal, sys
import tidegate
from tidegate.net import sockets
from tidegate.process import pid_file

def at(moment, owner, name):
    usual = getattr(owner, name)
    def then_signal(self, *args):
        usual(self, *args)
        if moment == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGTERM)
    setattr(owner, name, then_signal)

at("named", pid_file.PidFile, "write")
at("bound", sockets.Sockets, "__init__")
at("closed", sockets.Sockets, "close")

async def app(scope, receive, send):
    raise RuntimeError("no lifespan here")

end = lambda: os.kill(os.getpid(), signal.SIGTERM) if sys.argv[1] == "closed" else None
from tidegate.launch import serve_config
serve_config(tidegate.Config(app=app, uds="tide", pid_file="pid"), on_started=end)
print("left", os.listdir())
"""


@pytest.mark.parametrize("moment", ["named", "bound", "closed"])
def test_a_signal_at_the_edge_leaves_nothing_behind(moment: str, tmp_path: Path) -> None:
    """When the pid file or the socket is just there, and when the socket has just gone."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    with short_folder() as folder:
        ran = run(sys.executable, "-c", EDGES, moment, cwd=folder, env=environment)
    assert (ran.code, ran.text.splitlines()[-1:]) == (0, ["left []"]), ran
