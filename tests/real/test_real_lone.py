"""One process, no supervisor: what signals and a pid file mean to it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
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
