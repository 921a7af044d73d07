"""A worker that has reached a limit: its successor serves first, and no request is lost."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.support.steady import Steady
from tests.support.workers import APP, serving, wait_for_end

pytestmark = pytest.mark.real

QUICK = ("--timeout-graceful-shutdown", "3", "--drain-idle", "0.5")


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_after_so_many_requests(preload: tuple[str, ...], tmp_path: Path) -> None:
    limit = ("--limit-max-requests", "150", "--limit-max-requests-jitter", "50")
    with serving(tmp_path, APP, "--workers", "2", *limit, *QUICK, *preload) as server:
        first = set(server.pids)
        with Steady(server.port, connections=8, think=0.004) as load:
            left = server.expect_line(r"Worker (\d+) leaves: .*\(--limit-max-requests\)", times=4)
            load.wait_for(answers=50)
        report = load.report
        assert not report.failures, report
        assert first <= {int(pid) for pid in left}
        for pid in left:
            wait_for_end(int(pid))
        # The first to leave went after somebody was ready, and so did every other one.
        events = [
            line for line in server.output.splitlines() if " ready " in line or "leaves" in line
        ]
        ready = 0
        for line in events:
            ready += 1 if " ready " in line else -1
            assert ready >= 0, server.output
        # Jitter, and requests that came while a successor was started, are on top of the limit.
        assert all(report.workers[pid] >= 150 for pid in first), report
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


def test_of_its_memory(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2", "--limit-max-memory", "150MiB", *QUICK) as server:
        grown, other = server.pids
        with Steady(server.port, connections=8, think=0.004) as load:
            load.wait_for(answers=20)
            with server.client_of(grown) as client:
                client.ask("/grow?200")
            successor = int(server.expect_line(r"Worker (\d+) is ready")[0])
            said = server.expect_line(rf"Worker {grown} leaves: it has grown to (\d+) MiB")
            wait_for_end(grown)
            load.mark()
            load.wait_until(lambda report: report.seen)
            assert grown not in load.report.seen, load.report
            server.client_of(successor).close()
        assert not load.report.failures, load.report
        assert int(said[0]) > 150
        assert set(server.children()) == {other, successor}
        assert server.output.index(f"Worker {successor} is ready") < server.output.index("leaves")


def test_of_its_age(tmp_path: Path) -> None:
    """Both of them, one after the other."""
    with serving(tmp_path, APP, "--workers", "2", "--limit-max-lifetime", "1", *QUICK) as server:
        first = server.pids
        with Steady(server.port, connections=8, think=0.004) as load:
            left = server.expect_line(
                r"Worker (\d+) leaves: its time is up \(--limit-max-lifetime\)", times=2
            )
            wait_for_end(*first)
            load.mark()
            load.wait_until(lambda report: report.seen and not report.seen & set(first))
        assert not load.report.failures, load.report
        assert {int(pid) for pid in left[:2]} == set(first)


def test_a_long_request_is_waited_for(tmp_path: Path) -> None:
    """The successor serves while it goes on; the number of those that serve stays the same."""
    options = ("--limit-max-requests", "20", "--supervise", *QUICK)
    with serving(tmp_path, APP, "--timeout-graceful-shutdown", "20", *options[:3]) as server:
        (first,) = server.pids
        with server.client() as slow:
            slow.begin("/upload")
            server.expect_line(f"{first} has /upload")
            with server.client() as client:
                while not client.ask().closes:
                    pass
            server.expect_line(f"Worker {first} leaves")
            successor = int(server.expect_line(r"Worker (\d+) is ready")[0])
            assert server.ask().worker == successor
            answer = slow.finish()
            assert (answer.status, answer.worker) == (200, first)
        wait_for_end(first)


def test_an_idle_connection_may_ask_once_more(tmp_path: Path) -> None:
    """It is told of the end with its next answer, not by a closed socket."""
    options = ("--supervise", "--drain-idle", "20")
    with serving(tmp_path, APP, *options) as server, server.client() as idle:
        (first,) = server.pids
        assert not idle.ask().closes
        with server.client() as other:
            other.ask()
            server.signal(signal.SIGHUP)
            server.expect_line(r"Worker (\d+) is ready")
            for _ in range(10_000):  # until the old one has heard that it may leave
                if other.ask().closes:
                    break
        answer = idle.ask()
        assert (answer.status, answer.worker, answer.closes) == (200, first, True)
        idle.close()
        wait_for_end(first)
