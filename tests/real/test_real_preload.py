"""`--preload`: the application is imported once, by a process that forks the workers."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
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
            load.wait_until(lambda report: report.seen)
            assert load.report.seen <= set(new), load.report
            for pid in new:
                with server.client_of(pid) as client:
                    assert client.ask().body == b"new"
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


# -- a log configuration of the user's -------------------------------------------------------------

BOTH = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
SHOP = (
    APP.replace("import asyncio", "import logging, asyncio", 1)
    + """
shop = logging.getLogger("shop")
shop.info("the shop opens")
usual = app

async def app(scope, receive, send):
    if scope["type"] == "http":
        shop.info("the shop speaks")
    await usual(scope, receive, send)
"""
)


def write_log_config(folder: Path, word: str) -> Path:
    """With `word` before every line; loggers that exist are silenced, as is usual."""
    path = folder / "logs.json"
    draft = folder / "draft"
    draft.write_text(
        json.dumps(
            {
                "version": 1,
                "formatters": {"marked": {"format": word + " %(message)s"}},
                "handlers": {"on": {"class": "logging.StreamHandler", "formatter": "marked"}},
                "root": {"handlers": ["on"], "level": "INFO"},
            }
        )
    )
    draft.replace(path)
    return path


@BOTH
def test_the_application_s_loggers_are_heard(preload: tuple[str, ...], tmp_path: Path) -> None:
    """The configuration comes first and the loggers second, as in any program."""
    config = write_log_config(tmp_path, "first")
    with serving(tmp_path, SHOP, "--workers", "2", "--log-config", config, *preload) as server:
        for pid in server.pids:
            mark = server.mark()
            with server.client_of(pid):
                server.expect_line("^first the shop speaks", after=mark)


@BOTH
def test_a_restart_heeds_a_changed_log_configuration(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    config = write_log_config(tmp_path, "first")
    with serving(tmp_path, SHOP, "--workers", "2", "--log-config", config, *preload) as server:
        server.expect_line("^first the shop opens")
        write_log_config(tmp_path, "second")
        server.signal(signal.SIGHUP)
        server.expect_line("All workers are new")
        assert server.lines("^second the shop opens")
        mark = server.mark()
        assert server.ask().status == 200
        server.expect_line("^second the shop speaks", after=mark)


@BOTH
def test_a_log_configuration_that_is_broken_later_is_a_sentence(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    config = write_log_config(tmp_path, "first")
    with serving(tmp_path, SHOP, "--workers", "2", "--log-config", config, *preload) as server:
        config.write_text("{")
        server.signal(signal.SIGHUP)
        server.expect_line("log config: .*logs.json cannot be used")
        server.expect_line("The restart is given up")
        assert server.ask().worker in server.pids
        assert "Traceback" not in server.output
        write_log_config(tmp_path, "third")
        server.signal(signal.SIGHUP)
        server.expect_line("All workers are new")


def test_the_code_before_replaces_who_dies_after_a_restart_was_given_up(tmp_path: Path) -> None:
    """Its importer is still there: it would be a pity to have the code and not to use it."""
    with serving(tmp_path, COUNTED, "--workers", "2", *QUICK) as server:
        lost, other = server.pids
        (importer,) = imports(tmp_path)
        (tmp_path / "app.py").write_text("import nowhere_to_be_found\n")
        server.signal(signal.SIGHUP)
        server.expect_line("The restart is given up")
        mark = server.mark()
        for worker in (lost, other):
            os.kill(worker, signal.SIGKILL)
            server.expect_line(f"Worker {worker} is gone", after=mark)
        new = [
            int(pid) for pid in server.expect_line(r"Worker (\d+) is ready", times=2, after=mark)
        ]
        assert sorted(children(importer)) == sorted(new)
        assert server.ask().worker in new
        (tmp_path / "app.py").write_text(COUNTED)
        server.signal(signal.SIGHUP)
        server.expect_line("All workers are new")
        wait_for_end(importer, *new)


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
def test_an_importer_without_room_for_descriptors(tmp_path: Path) -> None:
    """Nobody is born, which is said, tried again, and does not keep the server from ending."""
    with serving(tmp_path, COUNTED, "--supervise", *QUICK) as server:
        (importer,) = imports(tmp_path)
        limits = resource.prlimit(importer, resource.RLIMIT_NOFILE)
        held = len(os.listdir(f"/proc/{importer}/fd"))
        # it may still hold the two of its first child
        resource.prlimit(importer, resource.RLIMIT_NOFILE, (held - 2, limits[1]))
        server.signal(signal.SIGTTIN)
        server.expect_line("No process can be started: no descriptor is free in the importer")
        resource.prlimit(importer, resource.RLIMIT_NOFILE, limits)
        server.expect_line(r"Worker \d+ is ready")
        assert len(children(importer)) == 2
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
