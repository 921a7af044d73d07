"""`--preload`: the application is imported once, by a process that forks the workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.support.steady import Steady
from tests.support.workers import APP, children, serving, starting, wait_for_end

pytestmark = pytest.mark.real

QUICK = ("--preload", "--timeout-graceful-shutdown", "3", "--drain-idle", "0.5")

COUNTED = (
    APP
    + """
with open("imports", "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
)


def imports(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "imports").read_text().split()]


def test_imported_once_for_all(tmp_path: Path) -> None:
    with serving(tmp_path, COUNTED, "--workers", "3", *QUICK) as server:
        (importer,) = imports(tmp_path)
        assert server.children() == [importer]
        assert children(importer) == sorted(server.pids)
        assert server.ask().worker in server.pids
        server.signal(signal.SIGTTIN)
        server.expect_line(r"Worker (\d+) is ready")
        assert imports(tmp_path) == [importer]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
        wait_for_end(importer)


def test_the_log_names_workers_whose_importer_is_slow(tmp_path: Path) -> None:
    """A worker may be ready before the importer has said which process it is."""
    late = "os.register_at_fork(after_in_parent=lambda: threading.Event().wait(0.5))\n"
    with serving(tmp_path, COUNTED + late, "--workers", "2", *QUICK) as server:
        (importer,) = imports(tmp_path)
        assert children(importer) == sorted(server.pids)


def test_one_worker_is_enough_for_it(tmp_path: Path) -> None:
    with serving(tmp_path, COUNTED, *QUICK) as server:
        (importer,) = imports(tmp_path)
        assert server.ask().worker == children(importer)[0]


def test_a_restart_imports_anew_in_a_fresh_process(tmp_path: Path) -> None:
    """Never in the supervisor, and the importer of before goes with its last worker."""
    with serving(tmp_path, COUNTED, "--workers", "2", *QUICK) as server:
        old = server.pids
        with Steady(server.port, connections=8, think=0.004) as load:
            load.wait_for(answers=20)
            (tmp_path / "app.py").write_text(COUNTED.replace('b"ok"', 'b"new"'))
            server.signal(signal.SIGHUP)
            new = [int(pid) for pid in server.expect_line(r"Worker (\d+) is ready", times=2)]
            wait_for_end(*old)
            load.mark()
            load.wait_until(lambda report: report.seen == set(new))
        assert not load.report.failures, load.report
        before, after = imports(tmp_path)
        wait_for_end(before)
        assert before != after and server.pid not in (before, after)
        assert server.children() == [after] and children(after) == sorted(new)
        assert server.ask().body == b"new"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


def test_without_its_importer_the_workers_serve_on(tmp_path: Path) -> None:
    """A worker that ends then is missed all the same, and a new importer makes the next one."""
    with serving(tmp_path, COUNTED, "--workers", "2", *QUICK) as server:
        lost, other = server.pids
        (importer,) = imports(tmp_path)
        with server.client_of(other) as client:
            os.kill(importer, signal.SIGKILL)
            server.expect_line(rf"importer \(process {importer}\)")
            assert client.ask().worker == other
            mark = server.mark()
            os.kill(lost, signal.SIGKILL)
            server.expect_line(f"Worker {lost} is gone", after=mark)
            successor = int(server.expect_line(r"Worker (\d+) is ready", after=mark)[0])
            assert client.ask().worker == other
        assert len(imports(tmp_path)) == 2
        assert children(imports(tmp_path)[1]) == [successor]
        server.signal(signal.SIGTERM)
        server.wait()
        wait_for_end(other, successor)


def test_a_restart_without_the_old_importer(tmp_path: Path) -> None:
    """Nothing is lost, though nobody is there to say how the old workers ended."""
    with serving(tmp_path, COUNTED, "--workers", "2", *QUICK) as server:
        old = server.pids
        (importer,) = imports(tmp_path)
        os.kill(importer, signal.SIGKILL)
        server.expect_line(rf"importer \(process {importer}\)")
        with Steady(server.port, connections=4, think=0.004) as load:
            load.wait_for(answers=20)
            server.signal(signal.SIGHUP)
            server.expect_line(r"Worker (\d+) is ready", times=2)
            wait_for_end(*old)
            load.wait_for(answers=20)
        assert not load.report.failures, load.report
        assert not server.lines("is gone")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


def test_an_importer_that_is_killed_at_the_start_is_tried_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    source = COUNTED + 'open("gate").read()\n'
    with starting(tmp_path, source, "--workers", "2", *QUICK) as server:
        while not server.children():
            pass
        (importer,) = server.children()
        os.kill(importer, signal.SIGKILL)
        server.expect_line(rf"importer \(process {importer}\)")
        assert not server.lines("Listening on")
        server.expect_line("Trying again in")
        (tmp_path / "gate").open("w").close()
        server.expect_line("2 workers: ")
