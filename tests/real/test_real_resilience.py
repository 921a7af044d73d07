"""Servers to which odd things happen: hostile workers, forked children, lost folders and terminals.

Every test is a fault that was there once, and was not to be seen by asking for a page.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support import operations
from tests.support.programs import wait_for_port
from tests.support.workers import APP, Server, serving, starting, wait_for_end

pytestmark = pytest.mark.real

QUICK = ("--drain-idle", "0.5")
WAITING = 700  # connections: many turns of a loop that takes a few in each


def ends_well(server: Server) -> None:
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.output
    assert "Traceback" not in server.output


# -- what a worker says ----------------------------------------------------------------------------

# A socketpair's peer is the process that has made it: the supervisor, for a worker's channel.
HOSTILE = (
    """
import os, pathlib, socket, struct, urllib.parse

def channels():
    for number in range(3, 64):
        try:
            found = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        with found:
            if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM:
                continue
            peer = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if struct.unpack("3i", peer)[0] == os.getppid():
                found.settimeout(10)
                yield found

def say(data):
    told = [channel.sendall(data) for channel in channels()]
    assert told, "there is no channel"

rubbish = pathlib.Path("rubbish")
if rubbish.exists():
    say(rubbish.read_bytes())
    os._exit(7)
"""
    + APP.replace("async def app(", "async def inner(").replace("def say(", "def tell(")
    + """
async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/say":
        say(urllib.parse.unquote_to_bytes(scope["query_string"]))
    if scope["type"] == "http" and scope["path"] == "/give":
        for channel in channels():
            for _ in range(20):
                socket.send_fds(channel, [b"x\\n"], [0, 0, 0, 0])
        say(b"limit that was all\\n")
    await inner(scope, receive, send)
"""
)

RUBBISH = [
    b"failed x",
    b'failed {"text":1}',
    b"failed " + b"[" * 20_000,
    b"ready " + b"[" * 20_000,
    b"pid 1",
    b"pid x",
    b"limit",
    b"modules [",
    b"born x",
    bytes([0, 255, 254, 128, 192, 32, 237, 160]),
]


def test_no_worker_ends_its_supervisor_by_what_it_says(tmp_path: Path) -> None:
    with serving(tmp_path, HOSTILE, "--workers", "2", *QUICK) as server:
        first, other = server.pids
        for times, line in enumerate(RUBBISH, 1):  # one that starts, and then one that serves
            (tmp_path / "rubbish").write_bytes(line + b"\n")
            server.signal(signal.SIGHUP)
            server.expect_line("restart is given up", times=times)
            (tmp_path / "rubbish").unlink()
            with server.client_of(first) as client:
                assert client.ask(f"/say?{quote(line[:2000])}%0A").status == 200
        assert server.children() == sorted((first, other))
        ends_well(server)


def test_descriptors_that_a_worker_sends_do_not_stay(tmp_path: Path) -> None:
    with serving(tmp_path, HOSTILE, "--workers", "1", "--supervise", *QUICK) as server:
        before = len(os.listdir(f"/proc/{server.pid}/fd"))
        assert server.ask("/give").status == 200
        server.expect_line("leaves: that was all")  # said after them
        assert len(os.listdir(f"/proc/{server.pid}/fd")) < before + 20
        ends_well(server)


# -- children and threads of the application -------------------------------------------------------

FORKING = (
    """
import multiprocessing
"""
    + APP.replace("async def app(", "async def inner(")
    + """
def work():
    time.sleep(600)

async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/child":
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.terminate()
        child.join(10)
        code = child.exitcode
        child.kill()
        return await answer(send, str(code).encode())
    if scope["type"] == "http" and scope["path"] == "/fork" and not os.fork():
        time.sleep(600)  # it holds whatever its parent holds
        os._exit(0)
    await inner(scope, receive, send)
"""
)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_a_forked_child_is_terminated_and_not_the_server(
    workers: str, loop: str, tmp_path: Path
) -> None:
    with serving(tmp_path, FORKING, "--workers", workers, "--loop", loop) as server:
        with server.client() as client:
            asked = client.ask("/child")
            assert asked.body == b"-15"
            assert client.ask().worker == asked.worker
        assert not server.lines("SIGTERM")
        ends_well(server)


THREAD = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"


def test_a_thread_of_the_import_does_not_keep_the_importer(tmp_path: Path) -> None:
    with serving(tmp_path, THREAD + APP, "--workers", "2", "--preload", *QUICK) as server:
        (old,) = server.children()
        server.signal(signal.SIGHUP)
        server.expect_line("All workers are new")
        wait_for_end(old)
        ends_well(server)


def test_a_thread_that_never_ends_keeps_a_worker_for_a_while_only(tmp_path: Path) -> None:
    with serving(tmp_path, THREAD + APP, "--workers", "1", "--supervise", *QUICK) as server:
        (old,) = server.pids
        server.signal(signal.SIGHUP)
        server.expect_line("All workers are new")
        server.expect_line(rf"Worker {old} does not end \(a thread.*killed")
        wait_for_end(old)
        assert server.ask().status == 200


def test_an_orphan_that_is_killed_is_replaced_though_its_child_holds_all(tmp_path: Path) -> None:
    with serving(tmp_path, FORKING, "--workers", "2", "--preload", *QUICK) as server:
        (importer,) = server.children()
        lost = server.pids[0]
        os.kill(importer, signal.SIGKILL)
        server.expect_line(rf"importer \(process {importer}\)")
        with server.client_of(lost) as client:
            assert client.ask("/fork").worker == lost
        os.kill(lost, signal.SIGKILL)
        server.expect_line(f"Worker {lost} is gone")
        server.expect_line(r"Worker (\d+) is ready")
        assert server.ask().status == 200


# -- signals ---------------------------------------------------------------------------------------


def test_what_is_meant_for_the_supervisor_changes_nothing_in_a_worker(tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2") as server:
        for worker in server.pids:
            with server.client_of(worker) as client:
                for name in ("USR2", "TTIN", "TTOU", "USR1", "HUP"):
                    os.kill(worker, signal.Signals[f"SIG{name}"])
                    assert client.ask().worker == worker, name
        assert server.children() == sorted(server.pids)
        ends_well(server)


def test_with_its_terminal_the_supervisor_ends(tmp_path: Path) -> None:
    """Only then: a hangup while the terminal is there is an operator's wish for a restart."""
    master, slave = pty.openpty()
    try:
        # whoever leads a session and opens a terminal gets it
        wrapper = ("/bin/sh", "-c", 'exec "$@" <"$0"', os.ttyname(slave))
        with serving(tmp_path, APP, "--workers", "2", *QUICK, wrapper=wrapper) as server:
            os.close(slave)
            slave = -1
            server.signal(signal.SIGHUP)
            server.expect_line("All workers are new")
            os.close(master)
            master = -1
            server.expect_line("the terminal is gone")
            assert server.wait() == 0, server.output
    finally:
        for descriptor in (master, slave):
            if descriptor >= 0:
                os.close(descriptor)


# -- a graceful end --------------------------------------------------------------------------------


def test_an_event_stream_that_begins_while_its_worker_leaves_is_ended(tmp_path: Path) -> None:
    options = ("--workers", "1", "--supervise", "--drain-idle", "60",
               "--timeout-graceful-shutdown", "600")  # fmt: skip
    with serving(tmp_path, operations.APP, *options) as server:
        (old,) = server.pids
        with server.client() as client, server.client() as busy:
            assert client.ask().worker == old
            busy.begin("/", b"a")
            server.expect_line("the request is here")
            server.signal(signal.SIGHUP)
            server.expect_line("waiting for POST /")  # it leaves by now
            answer = client.ask("/events")  # whole: an unfinished one would be an error
            assert (answer.status, answer.body) == (200, b"data: hello\n\n")
            assert busy.finish().worker == old
        wait_for_end(old)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_whoever_waits_in_the_backlog_at_the_end_is_answered(workers: str, tmp_path: Path) -> None:
    with serving(tmp_path, operations.APP, "--workers", workers) as server:
        serve = server.pids if workers == "2" else [server.pid]
        with contextlib.ExitStack() as held:
            for times, worker in enumerate(serve, 1):
                os.mkfifo(tmp_path / f"gate{worker}")
                client = held.enter_context(server.client_of(worker))
                client._http.request("GET", f"/hang?gate{worker}")
                server.expect_line("the loop stands still", times=times)
            waiting = [held.enter_context(operations.connect(server.port)) for _ in range(WAITING)]
            for sock in waiting:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: tide.test\r\n\r\n")
            server.signal(signal.SIGTERM)
            if workers == "2":
                server.expect_line("SIGTERM: stopping")
            for worker in serve:
                (tmp_path / f"gate{worker}").open("w").close()
            got = [sock.recv(65536)[:12] for sock in waiting]
        assert got == [b"HTTP/1.1 200"] * len(got)
        assert server.wait() == 0, server.output


# -- a script that serves --------------------------------------------------------------------------

SCRIPT = """
import sys, tempfile, tidegate

port = int(sys.argv[sys.argv.index("--port") + 1])
with tempfile.TemporaryDirectory() as folder:
    print("The folder is", folder)
    tidegate.run(%r, workers=2, port=port, drain_idle=0.5)
    print("This comes afterwards.")
print("This is the end.")
"""


@contextlib.contextmanager
def running_script(folder: Path, target: str) -> Iterator[Server]:
    """A server that a script has started. The command line is there for its port."""
    (folder / "script.py").write_text(SCRIPT % target)
    with starting(folder, APP, wrapper=(sys.executable, "script.py")) as server:
        yield server


def test_a_script_goes_on_once_and_keeps_its_folder(tmp_path: Path) -> None:
    with running_script(tmp_path, "app:app") as server:
        folder = Path(server.expect_line("The folder is (.*)")[0])
        old = server.pids
        server.signal(signal.SIGHUP)
        server.expect_line("All workers are new")
        wait_for_end(*old)
        assert folder.is_dir()
        assert "afterwards" not in server.output
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
        assert len(server.lines("This comes afterwards")) == 1
        assert len(server.lines("This is the end")) == 1
        assert not folder.exists()


def test_a_script_whose_application_is_not_there_ends_with_an_error(tmp_path: Path) -> None:
    with running_script(tmp_path, "no_such_module:app") as server:
        assert server.wait() != 0, server.output
        assert "no_such_module" in server.output
        assert not server.lines("This comes afterwards")


# -- where it is started ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_standard_streams_it_serves(workers: str, tmp_path: Path) -> None:
    wrapper = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with starting(tmp_path, APP, "--workers", workers, wrapper=wrapper) as server:
        wait_for_port(server.port, server)
        assert server.ask().status == 200
        assert all(os.readlink(f"/proc/{server.pid}/fd/{n}") == os.devnull for n in range(3))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_working_directory_that_is_gone_is_named_in_a_sentence(tmp_path: Path) -> None:
    wrapper = ("/bin/sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$@"', "sh")
    with starting(tmp_path, APP, "--workers", "2", wrapper=wrapper) as server:
        assert server.wait() != 0
        assert re.search("no working directory", server.output), server.output
        assert "Traceback" not in server.output


def test_the_application_does_not_know_the_socket_of_the_service_manager(tmp_path: Path) -> None:
    ear = operations.Notified(tmp_path / "notify")
    asked = (
        "import os\nos.write(1, b'told: %r\\n' % os.environ.get('NOTIFY_SOCKET', '').encode())\n"
    )
    operations.write_app(tmp_path, before=asked)
    told = {"NOTIFY_SOCKET": str(ear.path)}
    with operations.serving(tmp_path, "--workers", "2", env=told) as server:
        server.expect_line("2 workers: ")
        ear.expect("READY=1")
        assert server.lines("told: ") == ["told: b''"] * 2
    ear.close()


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_what_an_application_registers_for_the_exit_runs_in_each_worker(
    preload: tuple[str, ...], tmp_path: Path
) -> None:
    source = APP.replace(
        "        message = await receive()\n",
        "        message = await receive()\n"
        "        import atexit; atexit.register(say, 'ends in order')\n"
        "        if message['type'] == 'lifespan.shutdown': atexit.unregister(say);"
        " atexit.register(say, 'has ended in order')\n",
        1,
    )
    with serving(tmp_path, source, "--workers", "2", *preload) as server:
        pids = server.pids
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        said = server.lines("has ended in order")
        assert sorted(int(line.split()[0]) for line in said) == sorted(pids), server.output


def test_what_ends_a_child_at_its_start_is_shown(tmp_path: Path) -> None:
    """A child ends by itself, and must not take its traceback with it."""
    source = "import os\nos.chdir = None\nraise KeyboardInterrupt\n"
    with starting(tmp_path, source, "--workers", "2") as server:
        assert server.wait() != 0
        assert "KeyboardInterrupt" in server.output
