"""Workers that hang, start slowly, cannot start, or end again and again."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest
from tests.support.steady import Steady
from tests.support.workers import APP, serving, starting, wait_for_end

pytestmark = pytest.mark.real

QUICK = ("--timeout-graceful-shutdown", "10", "--drain-idle", "0.5")
IMPATIENT = ("--timeout-worker-healthcheck", "3", *QUICK)

# The import waits until the test has opened the other end of the pipe beside the module.
WAITING = (
    APP
    + """
say("imports")
open("gate").read()
"""
)

# Every process waits in its application's startup for a line of its own.
WAITING_IN_STARTUP = APP.replace(
    "    while True:\n        message = await receive()\n",
    "    while True:\n"
    "        message = await receive()\n"
    "        if message['type'] == 'lifespan.startup':\n"
    "            say('starts up')\n"
    "            await asyncio.to_thread(lambda: open('gate').read())\n",
)

FAILING_STARTUP = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database does not answer"})
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_worker_that_hangs_is_shown_and_replaced(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    """The log has the function it hangs in; the other one serves meanwhile."""
    with serving(tmp_path, APP, "--workers", "2", *IMPATIENT, *preload) as server:
        stuck, other = server.pids
        with server.client_of(stuck) as client, server.client_of(other) as fine:
            client.begin("/hang")
            server.expect_line(f"{stuck} hangs now")
            assert fine.ask().worker == other
            with Steady(server.port, connections=4, think=0.01, fresh=True) as load:
                server.expect_line(f"Worker {stuck} hangs: its event loop has not turned")
                server.expect_line(f"Worker {stuck} is gone: ended by us with SIGKILL")
                load.wait_for(answers=20)
            assert not load.report.failures, load.report
            assert fine.ask().worker == other
        server.expect_line(r"in fetch_the_report")
        successor = int(server.expect_line(r"Worker (\d+) is ready")[0])
        with server.client_of(successor) as client:
            assert client.ask().status == 200
        wait_for_end(stuck)
        assert len(server.lines("hangs: ")) == 1


def test_a_worker_that_hangs_while_it_leaves(tmp_path: Path) -> None:
    """It is ended too, and the server with it."""
    with serving(tmp_path, APP, "--workers", "2", *IMPATIENT) as server:
        stuck, _ = server.pids
        with server.client_of(stuck) as first, server.client_of(stuck) as second:
            first.begin("/upload")
            server.expect_line(f"{stuck} has /upload")
            second.begin("/hang")
            server.expect_line(f"{stuck} hangs now")
            server.signal(signal.SIGTERM)
            server.expect_line(f"Worker {stuck} hangs: ")
            assert server.wait() == 1, server.output
        assert "in fetch_the_report" in server.output
        assert not server.lines("is ready")


def test_a_worker_that_hangs_while_its_successor_serves(tmp_path: Path) -> None:
    """A rolling restart goes on behind it."""
    with serving(tmp_path, APP, "--workers", "2", *IMPATIENT) as server:
        stuck, other = server.pids
        with server.client_of(stuck) as client:
            client.begin("/hang")
            server.expect_line(f"{stuck} hangs now")
            server.signal(signal.SIGHUP)
            server.expect_line(f"Worker {stuck} hangs: ")
            server.expect_line(r"Worker \d+ is ready", times=2)
            wait_for_end(stuck, other)
        assert len(server.children()) == 2
        server.signal(signal.SIGTERM)
        server.wait()


@pytest.mark.parametrize("source", [WAITING, WAITING_IN_STARTUP])
def test_a_slow_start_is_waited_for(source: str, tmp_path: Path) -> None:
    """Longer than the health check's patience; nobody is told that it hangs, or killed."""
    os.mkfifo(tmp_path / "gate")
    with starting(tmp_path, source, "--workers", "2", *IMPATIENT) as server:
        server.expect_line("imports|starts up", times=2)
        starters = server.children()
        # Longer than the limit, by the supervisor's own clock.
        assert not _ended_within(starters, 4.5)
        (tmp_path / "gate").open("w").close()
        server.expect_line("2 workers: ")
        assert sorted(server.pids) == starters
        assert server.ask().status == 200
        assert not server.lines("ERROR")


def _ended_within(pids: list[int], seconds: float) -> bool:
    try:
        wait_for_end(*pids, timeout=seconds)
    except AssertionError:
        return False
    return True


BROKEN = [
    ("import nowhere_to_be_found\n", "nowhere_to_be_found"),
    ("def app(:\n", "app.py"),
    ("raise RuntimeError('no such table: tides')\n", "no such table: tides"),
    ("pass\n", "app"),
]


@pytest.mark.parametrize(("source", "said"), BROKEN)
@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_what_cannot_be_imported_ends_the_start_at_once(
    preload: tuple[str, ...], source: str, said: str, tmp_path: Path
) -> None:
    """Once, not once for each worker, and without a second try."""
    with starting(tmp_path, source, "--workers", "4", *preload) as server:
        assert server.wait() == 2, server.output
        assert said in server.output
        assert len(server.lines("ERROR")) == 1
        assert not server.lines("Trying again|times in a row|Listening on")


def test_a_start_that_is_given_up_leaves_nobody_behind(tmp_path: Path) -> None:
    """One fails while the other is still at its import: it would hold the port for as long."""
    os.mkfifo(tmp_path / "nobody opens this")
    source = """
import os
try:
    os.symlink(str(os.getpid()), "first")  # there and readable at once
except FileExistsError:
    raise RuntimeError("no such table: tides")
open("nobody opens this").read()
"""
    with starting(tmp_path, source, "--workers", "2") as server:
        assert server.wait() == 2, server.output
        assert "no such table: tides" in server.output
        wait_for_end(int(os.readlink(tmp_path / "first")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_forced_end_does_not_wait_for_a_loop_that_stands_still(
    number: int, tmp_path: Path
) -> None:
    """The second signal shows what it hangs in, whatever grace there is."""
    with serving(tmp_path, APP, "--workers", "2", "--timeout-graceful-shutdown", "600") as server:
        stuck, other = server.pids
        with server.client_of(stuck) as client:
            client.begin("/hang")
            server.expect_line(f"{stuck} hangs now")
            server.signal(number)
            server.expect_line(f"Worker {stuck} does not answer")
            server.signal(number)
            assert server.wait() == 1, server.output
        assert server.lines("in fetch_the_report")
        assert not server.lines(f"Worker {other} (hangs|does not)")


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_startup_that_fails_is_tried_a_few_times(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    with starting(tmp_path, FAILING_STARTUP, "--workers", "2", *preload) as server:
        assert server.wait() == 1, server.output
        assert len(server.lines(r"ERROR (?!\[).*the database does not answer")) == 4
        # four starts side by side are one round; a worker says it for itself, too
        pauses = [
            float(each) for each in server.expect_line(r"Trying again in ([\d.]+) s", times=3)
        ]
        assert pauses == sorted(set(pauses)) and len(pauses) == 3
        assert len(server.lines("4 times in a row: giving up")) == 1
        assert "Traceback" not in server.output


def test_a_worker_that_ends_in_its_start_is_tried_a_few_times(tmp_path: Path) -> None:
    """It says nothing itself, so the supervisor says how it ended."""
    source = "import os\nos._exit(5)\n"
    with starting(tmp_path, source, "--workers", "2") as server:
        assert server.wait() == 1, server.output
        assert len(server.lines(r"ended before it was ready: exit code 5")) == 4
        assert len(server.lines("giving up")) == 1


def test_a_database_that_comes_back_is_enough(tmp_path: Path) -> None:
    """The second try succeeds: the server is up, with all its workers."""
    source = APP.replace(
        "    while True:\n        message = await receive()\n",
        "    if not os.path.exists('database'):\n"
        "        await receive()\n"
        "        return await send({'type': 'lifespan.startup.failed', 'message': 'not there'})\n"
        "    while True:\n        message = await receive()\n",
    )
    with starting(tmp_path, source, "--workers", "2") as server:
        server.expect_line("Trying again")
        (tmp_path / "database").touch()
        server.expect_line("2 workers: ")
        assert {server.client_of(pid).ask().worker for pid in server.pids} == set(server.pids)


@pytest.mark.parametrize(("source", "said"), [*BROKEN, (FAILING_STARTUP, "does not answer")])
@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_broken_code_at_a_restart_leaves_the_old_workers(
    preload: tuple[str, ...], source: str, said: str, tmp_path: Path
) -> None:
    with serving(tmp_path, APP, "--workers", "2", *QUICK, *preload) as server:
        old = server.pids
        with Steady(server.port, connections=4, think=0.01) as load:
            load.wait_for(answers=20)
            (tmp_path / "app.py").write_text(source)
            server.signal(signal.SIGHUP)
            server.expect_line("The restart is given up: the workers from before serve on")
            load.mark()
            load.wait_until(lambda report: report.seen, what="an answer")
            assert load.report.seen <= set(old), load.report
            for pid in old:
                server.client_of(pid).close()
        assert not load.report.failures, load.report
        restart = server.output.partition("SIGHUP")[2]
        assert said in restart and "Trying again" not in restart, restart
        assert len(re.findall(r"ERROR (?!\[)", restart)) == 2, restart
        # and the next one, with code that is whole, succeeds
        (tmp_path / "app.py").write_text(APP)
        server.signal(signal.SIGHUP)
        new = [int(pid) for pid in server.expect_line(r"Worker (\d+) is ready", times=2)]
        wait_for_end(*old)
        assert {server.client_of(pid).ask().worker for pid in new} == set(new)


def test_a_crash_after_a_restart_was_given_up_is_replaced_slowly(tmp_path: Path) -> None:
    """The code is broken, and a worker with the old one dies: tried again, not hot, and not given
    up as long as another one serves."""
    with serving(tmp_path, APP, "--workers", "2", *QUICK) as server:
        lost, other = server.pids
        (tmp_path / "app.py").write_text("import nowhere_to_be_found\n")
        mark = server.mark()
        os.kill(lost, signal.SIGKILL)
        server.expect_line(r"Trying again in", times=3, after=mark)
        assert server.ask().worker == other
        (tmp_path / "app.py").write_text(APP)
        successor = int(server.expect_line(r"Worker (\d+) is ready", after=mark)[0])
        assert set(server.children()) == {other, successor}


def test_workers_that_end_as_soon_as_they_serve_do_not_loop_hot(tmp_path: Path) -> None:
    """Each is ready, and dies: after some of them in a row there are pauses that grow."""
    source = APP + "\nimport atexit\n"
    source = source.replace(
        '        await send({"type": message["type"] + ".complete"})\n',
        '        await send({"type": message["type"] + ".complete"})\n'
        "        say('is started')\n"
        "        asyncio.get_running_loop().call_later(0.05, os._exit, 9)\n",
    )
    with starting(tmp_path, source, "--workers", "2") as server:
        server.expect_line("is gone: exit code 9", times=5)
        pause = threading.Event()
        mark = server.mark()
        pause.wait(3.0)  # an observation of so long, not a wait for something
        starts = server.output[mark:].count("is started")
        assert starts <= 8, server.output
        server.signal(signal.SIGTERM)
        server.wait()
