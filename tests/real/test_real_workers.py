"""A supervisor and its workers: start, signals, ends, and who takes the place of whom."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from tests.support.programs import REPOSITORY, run, short_folder
from tests.support.steady import Steady
from tests.support.workers import APP, Server, is_free, serving, starting, wait_for_end

pytestmark = pytest.mark.real

NEVER_THERE = """
import os, threading
os.write(1, b"importing\\n")
threading.Event().wait(600)
"""

QUICK = ("--timeout-graceful-shutdown", "2", "--drain-idle", "0.5")


def test_banner_and_workers(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "3") as server:
        pids = server.pids
        assert sorted(pids) == server.children()
        assert server.pid not in pids
        assert server.ask().worker in pids
        assert len(server.lines("Listening on ")) == len(server.lines("Serving app:app")) == 1
        order = [server.output.index(text) for text in ("Tidegate ", "Serving", "Listening")]
        assert order == sorted(order) and order[-1] < server.output.index("3 workers: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2") as server:
        pids = server.pids
        with server.client() as idle:
            idle.ask()
            server.signal(number)
            assert idle.hangs_up()
        assert server.wait() == 0, server.output
        wait_for_end(*pids)
        assert is_free(server.port)
        assert len(server.lines(number.name)) == 1
        assert server.output.endswith("Stopped.\n")
    assert "Traceback" not in server.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_finished(number: signal.Signals, tmp_path: Path) -> None:
    """One in each worker."""
    with serving(tmp_path, APP, "--workers", "2") as server:
        clients = [server.client_of(pid) for pid in server.pids]
        for client in clients:
            client.begin("/upload")
        server.expect_line(r"has /upload", times=2)
        server.signal(number)
        server.expect_line("waiting for POST /upload", times=2)
        answers = [client.finish() for client in clients]
        assert [answer.status for answer in answers] == [200, 200]
        assert all(answer.closes for answer in answers)
        assert server.wait() == 0, server.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2") as server:
        with server.client() as client:
            client.begin("/forever")
            server.expect_line("has /forever")
            server.signal(number)
            server.expect_line("waiting for POST /forever")
            server.signal(number)
            assert server.wait() == 1, server.output
        assert "/forever" in server.output.partition("at once.\n")[2]
    assert "Traceback" not in server.output


def test_sigquit_ends_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2") as server:
        with server.client() as client:
            client.begin("/forever")
            server.expect_line("has /forever")
            server.signal(signal.SIGQUIT)
            assert server.wait() == 1, server.output
        wait_for_end(*server.pids)
    assert "Traceback" not in server.output


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_control_c_reaches_everybody_and_nobody_complains(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    """A terminal sends SIGINT to the whole process group; only the supervisor acts on it."""
    with serving(tmp_path, APP, "--workers", "2", *preload) as server:
        clients = [server.client_of(pid) for pid in server.pids]
        for client in clients:
            client.begin("/upload")
        server.expect_line("has /upload", times=2)
        server.signal_group(signal.SIGINT)
        server.expect_line("waiting for POST /upload", times=2)
        assert [client.finish().status for client in clients] == [200, 200]
        assert server.wait() == 0, server.output
    assert "Traceback" not in server.output and "KeyboardInterrupt" not in server.output


def test_control_c_twice(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2") as server, server.client() as client:
        client.begin("/forever")
        server.expect_line("has /forever")
        server.signal_group(signal.SIGINT)
        server.expect_line("waiting for POST /forever")
        server.signal_group(signal.SIGINT)
        assert server.wait() == 1, server.output
    assert "Traceback" not in server.output and "KeyboardInterrupt" not in server.output


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_control_c_during_the_start(preload: tuple[str, ...], tmp_path: Path) -> None:
    """The application is being imported: whoever does it ends without a traceback."""
    with starting(tmp_path, NEVER_THERE, "--workers", "2", *QUICK, *preload) as server:
        server.expect_line("^importing$", times=1 if preload else 2)
        server.signal_group(signal.SIGINT)
        server.wait()
    assert "Traceback" not in server.output and "KeyboardInterrupt" not in server.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_an_end_during_the_start(
    preload: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    """The import may take for ever; the end does not wait for it."""
    with starting(tmp_path, NEVER_THERE, "--workers", "2", *QUICK, *preload) as server:
        server.expect_line("^importing$", times=1 if preload else 2)
        server.signal(number)
        server.wait(20.0)
    assert "Traceback" not in server.output and "KeyboardInterrupt" not in server.output


def test_one_more_and_one_less(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2", *QUICK) as server:
        first = set(server.pids)
        server.signal(signal.SIGTTIN)
        server.expect_line("SIGTTIN: 3 workers")
        third = int(server.expect_line(r"Worker (\d+) is ready")[0])
        assert set(server.children()) == first | {third}
        with server.client_of(third) as client:
            assert client.ask().worker == third
        server.signal(signal.SIGTTOU)
        server.expect_line("SIGTTOU: 2 workers")
        wait_for_end(third)
        assert set(server.children()) == first
        server.signal(signal.SIGTTOU)
        server.expect_line("SIGTTOU: 1 worker from")
        server.signal(signal.SIGTTOU)
        server.expect_line("SIGTTOU: it stays at 1 worker")
        assert server.ask().worker in first
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_workers_without_a_supervisor_finish_and_leave(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    with serving(tmp_path, APP, "--workers", "2", *preload) as server:
        pids = server.descendants()
        assert set(server.pids) <= set(pids)
        clients = [server.client_of(pid) for pid in server.pids]
        for client in clients:
            client.begin("/upload")
        server.expect_line("has /upload", times=2)
        os.kill(server.pid, signal.SIGKILL)
        server.expect_line("waiting for POST /upload", times=2)
        assert [client.finish().status for client in clients] == [200, 200]
        wait_for_end(*pids)
        assert is_free(server.port)
    assert "Traceback" not in server.output


def replaced(server: Server, lost: int) -> int:
    """The worker that came for another; both are looked for in the log and among the processes."""
    after = server.output.index(f"Worker {lost} is gone")
    successor = int(server.expect_line(r"Worker (\d+) is ready", after=after)[0])
    wait_for_end(lost)
    assert successor in server.descendants() and lost not in server.descendants()
    return successor


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/exit?7", "exit code 7"),
        ("/exit?0", "exit code 0, though nobody had asked"),
        ("/kill?9", "killed by SIGKILL"),
        ("/kill?6", "aborted with SIGABRT"),
        ("/crash", "crashed with SIGSEGV"),
    ],
)
@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_lost_worker_is_replaced_and_the_log_says_why(
    preload: tuple[str, ...], path: str, said: str, tmp_path: Path
) -> None:
    with serving(tmp_path, APP, "--workers", "2", *preload) as server:
        lost, other = server.pids
        with server.client_of(lost) as doomed, server.client_of(other) as fine:
            with pytest.raises(OSError):
                doomed.ask(path)
            server.expect_line(rf"Worker {lost} is gone: {said}")
            assert fine.ask().worker == other
        successor = replaced(server, lost)
        with server.client_of(successor) as client:
            assert client.ask().status == 200
        if path in ("/crash", "/kill?6"):
            stack = server.output.partition(f"Worker {lost} is gone")[2]
            assert "Fatal Python error" in stack and 'app.py", line' in stack
            assert path != "/crash" or "in decode_the_picture" in stack


def test_a_worker_that_is_told_to_go_has_a_successor_first(tmp_path: Path) -> None:
    """SIGTERM to one of them, under load on keep-alive connections."""
    with serving(tmp_path, APP, "--workers", "2", *QUICK) as server:
        gone, other = server.pids
        with Steady(server.port, connections=8, think=0.002) as load:
            load.wait_for(answers=20)
            os.kill(gone, signal.SIGTERM)
            successor = int(server.expect_line(r"Worker (\d+) is ready")[0])
            server.expect_line(f"Worker {gone} leaves: it was sent SIGTERM")
            wait_for_end(gone)
            load.mark()
            load.wait_for(answers=100)
            assert load.report.seen <= {successor, other}, load.report
            server.client_of(successor).close()
        assert not load.report.failures, load.report
        assert server.output.index(f"Worker {successor} is ready") < server.output.index("leaves")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


def test_a_rolling_restart_says_when_it_is_over(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2", *QUICK) as server:
        old = server.pids
        server.signal(signal.SIGHUP)
        server.expect_line("SIGHUP: restarting 2 workers")
        new = [int(pid) for pid in server.expect_line(r"Worker (\d+) is ready", times=2)]
        wait_for_end(*old)
        assert sorted(new) == server.children()
        server.expect_line("All workers are new")


# -- signals at the very beginning and the very end ------------------------------------------------

AT = """
import os, signal, sys
import tidegate, tidegate.supervised as supervised

def handlers():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    return [signal.getsignal(number) for number in numbers] + [signal.set_wakeup_fd(-1)]

class Sockets(supervised.Sockets):
    def __init__(self, *args):
        super().__init__(*args)
        if "begin" in sys.argv:
            os.kill(os.getpid(), signal.SIGTERM)

class Supervisor(supervised.Supervisor):
    def run(self):
        outcome = super().run()
        if "end" in sys.argv and isinstance(outcome, int):
            os.kill(os.getpid(), signal.SIGINT)
        return outcome

def end():
    if "end" in sys.argv and os.getpid() == first:
        os.kill(first, signal.SIGTERM)

supervised.Sockets, supervised.Supervisor = Sockets, Supervisor
first, before = os.getpid(), handlers()
config = tidegate.Config(app="app:app", uds="tide", pid_file="pid", supervise=True)
code = supervised.supervise(config, on_started=end)
print("left", sorted(os.listdir()), handlers() == before, code)
"""
TOLD = """
import signal
found = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD), signal.set_wakeup_fd(-1)
assert found == (signal.SIG_DFL, signal.SIG_DFL, -1), found
say("has its own signals")
"""


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_a_signal_at_the_edge_leaves_nothing_behind(moment: str, tmp_path: Path) -> None:
    """Between the pid file and the first look at signals, and between the last and the end."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with short_folder() as folder:
        (folder / "app.py").write_text(APP + TOLD)
        ran = run(sys.executable, "-c", AT, moment, cwd=folder, env=environment)
    assert ran.code == 0, ran
    assert "left ['app.py'] True 0" in ran.text, ran
    if moment == "end":  # at the beginning it may not have come so far
        assert "has its own signals" in ran.text, ran


def test_a_certificate_that_cannot_be_loaded_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("not a certificate\n")
    options = ("--workers", "2", "--ssl-certfile", tmp_path / "cert.pem")
    with starting(tmp_path, APP, *options) as server:
        assert server.wait() > 0, server.output
    assert "cert.pem" in server.output
    assert "Trying again" not in server.output and "Traceback" not in server.output


def test_a_startup_that_fails_is_tried_again(tmp_path: Path) -> None:
    """What it waits for may be there in a second."""
    failing = APP.replace(
        'await send({"type": message["type"] + ".complete"})',
        'await send({"type": "lifespan.startup.failed", "message": "the database is away"})',
    )
    with starting(tmp_path, failing, "--workers", "2") as server:
        server.expect_line("the database is away")
        server.expect_line("Trying again")
