"""--reload: whoever has saved a file gets the next answer from it, and nothing is left hanging."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.operations import Client, ask, connect, save, serving, write_app
from tests.support.programs import short_folder
from tests.support.workers import Server, wait_for_end

pytest.importorskip("watchfiles")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork"),
]

CHANGED = "Reloading."
DELAY = ("--reload", "--reload-delay", "20ms")


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


def ready(server: Server, *, times: int = 1) -> None:
    """A worker has been started after the first ones."""
    server.expect_line(r"Worker \d+ is ready", times=times)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
def test_the_next_answer_comes_from_the_new_code(folder: Path, options: tuple[str, ...]) -> None:
    """Also the one that was asked for while nobody served: it waited."""
    with serving(folder, *DELAY, *options) as server:
        assert ask(server.port).facts["code"] == "first"
        old = server.pids
        for times, code in enumerate(("second", "third", "fourth"), 1):
            mark = server.mark()
            write_app(folder, code)
            server.expect_line(r"Changed: tide\.py\. Reloading\.", times=times)
            wait_for_end(*old)
            assert {ask(server.port).facts["code"] for _ in range(6)} == {code}
            new = server.expect_line(r"Worker (\d+) is ready", times=len(old), after=mark)
            old = list(map(int, new))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output


def test_nobody_is_turned_away_at_the_moment_of_a_reload(folder: Path) -> None:
    """Whoever asks right then is answered, by the old code or by the new."""
    with serving(folder, *DELAY) as server:
        for times in range(1, 6):
            write_app(folder, f"code {times}")
            server.expect_line(r"Reloading\.", times=times)
            while ask(server.port).facts["code"] != f"code {times}":
                pass


def test_a_syntax_error_is_shown_and_the_old_code_serves_on(folder: Path) -> None:
    with serving(folder, *DELAY) as server:
        old = server.pids
        save(folder / "tide.py", "def app(:\n")
        server.expect_line(r"tide\.py:1: SyntaxError: ")
        server.expect("Nothing is restarted until that is put right.")
        assert ask(server.port).facts["code"] == "first"
        assert CHANGED not in server.output
        write_app(folder, "second")
        server.expect(CHANGED)
        wait_for_end(*old)
        assert ask(server.port).facts["code"] == "second"


def test_another_file_saved_meanwhile_restarts_nothing(folder: Path) -> None:
    """As was said: nothing until that is put right."""
    save(folder / "other.py", "ONE = 1\n")
    with serving(folder, *DELAY) as server:
        save(folder / "tide.py", "def app(:\n")
        server.expect("Nothing is restarted until that is put right.")
        save(folder / "other.py", "ONE = 2\n")
        server.expect_line(r"other\.py|Nothing is restarted", times=2)
        assert ask(server.port).facts["code"] == "first"
        assert CHANGED not in server.output


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
def test_an_import_error_is_shown_once_and_waited_out(
    folder: Path, options: tuple[str, ...]
) -> None:
    with serving(folder, *DELAY, *options) as server:
        server.expect_line(r"\d workers?: ")  # one that still starts might read the new code
        old = server.pids
        write_app(folder, before="raise RuntimeError('not yet')\n")
        server.expect("Waiting for a change.")
        wait_for_end(*old)  # until then one of them may answer
        with connect(server.port) as waiting:
            waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
            # what would be tried again would have been, by the time of another process's start
            wait_for_end(*_another_start())
            assert server.output.count("RuntimeError: not yet") == 1
            assert server.output.count("Waiting for a change.") == 1
            write_app(folder, "second")
            data = b""
            while piece := waiting.recv(4096):
                data += piece
        assert b'"second"' in data
        server.signal(signal.SIGTERM)
        assert server.wait() in (0, 1), server.output


def _another_start() -> list[int]:
    """A server that fails the same way, four times in a row: longer than any first pause."""
    with short_folder() as broken:
        write_app(broken, before="1 / 0\n")
        with serving(broken, "--supervise", ready="") as server:
            server.wait()
            return [server.pid]


def test_a_first_start_that_fails_is_waited_out(folder: Path) -> None:
    write_app(folder, before="raise RuntimeError('not yet')\n")
    with serving(folder, *DELAY, ready="Waiting for a change.") as server:
        write_app(folder, "second")
        server.expect_line("Listening on ")
        assert ask(server.port).facts["code"] == "second"


def test_an_open_page_does_not_hold_the_reload_up(folder: Path) -> None:
    """Its event stream ends cleanly (EventSource comes again), its WebSocket with 1012."""
    from websockets.sync.client import connect as open_socket

    with serving(folder, *DELAY, "--timeout-graceful-shutdown", "600s") as server:
        with connect(server.port) as stream, open_socket(f"ws://127.0.0.1:{server.port}") as page:
            stream.sendall(b"GET /events HTTP/1.1\r\nHost: tide.test\r\n\r\n")
            data = b""
            while b"data: hello" not in data:
                data += stream.recv(4096)
            page.send("hello")
            assert page.recv(30) == "hello"
            write_app(folder, "second")
            while piece := stream.recv(4096):
                data += piece
            assert data.endswith(b"\r\n0\r\n\r\n")
            ended = pytest.importorskip("websockets.exceptions").ConnectionClosed
            with pytest.raises(ended) as closed:
                page.recv(30)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        assert ask(server.port).facts["code"] == "second"
        assert "Not done within" not in server.output


def test_a_request_under_way_has_its_grace(folder: Path) -> None:
    with serving(folder, *DELAY) as server:
        busy = Client(server.port)
        busy.begin()
        server.expect("the request is here")
        write_app(folder, "second")
        server.expect(CHANGED)
        answer = busy.finish()
        assert answer.facts["code"] == "first" and answer.facts["body"] == "ab"
        busy.close()
        wait_for_end(answer.facts["pid"])
        assert ask(server.port).facts["code"] == "second"


def test_a_request_that_never_ends_is_cut(folder: Path) -> None:
    """However long the grace of a stop is, whoever has saved a file waits two seconds."""
    with serving(folder, *DELAY, "--timeout-graceful-shutdown", "600s") as server:
        busy = Client(server.port)
        busy.begin()
        server.expect("the request is here")
        write_app(folder, "second")
        server.expect_line(r"Not done within 2 s; ended while still running: POST /")
        assert ask(server.port).facts["code"] == "second"
        busy.close()


def test_includes_and_excludes(folder: Path) -> None:
    (folder / "left").mkdir()
    options = ("--reload-include", "*.html", "--reload-exclude", "left")
    with serving(folder, *DELAY, *options) as server:
        save(folder / "left" / "some.py", "1\n")
        save(folder / "notes.txt", "nothing\n")
        save(folder / "page.html", "<p>hello</p>\n")
        server.expect_line(r"Changed: page\.html\. Reloading\.")
        ready(server)
        assert server.output.count(CHANGED) == 1


def test_only_the_named_folder(folder: Path) -> None:
    (folder / "code").mkdir()
    with serving(folder, *DELAY, "--reload-dir", "code") as server:
        save(folder / "beside.py", "1\n")
        save(folder / "code" / "some.py", "1\n")
        server.expect_line(r"Changed: code/some\.py\. Reloading\.")
        assert "beside.py" not in server.output


def test_control_c_during_a_reload(folder: Path) -> None:
    """To the whole group, as a terminal sends it, while the new code is being imported."""
    gate = folder / "gate"
    os.mkfifo(gate)
    with serving(folder, *DELAY) as server:
        write_app(folder, before=f"print('importing', flush=True)\nopen({str(gate)!r}).read()\n")
        with open(gate, "w"):  # opens once it is read
            family = server.descendants()
            server.signal_group(signal.SIGINT)
            code = server.wait()
            wait_for_end(*family)
        assert "Traceback" not in server.output
        assert code == 0, server.output


def test_nobody_outlives_a_supervisor_that_was_killed(folder: Path) -> None:
    with serving(folder, *DELAY, "--workers", "2") as server:
        family = server.descendants()
        assert len(family) >= 3
        os.kill(server.pid, signal.SIGKILL)
        wait_for_end(*family)


def test_no_watchfiles_is_a_sentence(folder: Path) -> None:
    hidden = folder / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.machinery as m\n"
        "found = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = classmethod(lambda cls, name, *more:\n"
        "    None if name.startswith('watchfiles') else found(name, *more))\n"
    )
    path = f"{hidden}:{Path(__file__).resolve().parents[2] / 'src'}"
    with serving(folder, *DELAY, env={"PYTHONPATH": path}, ready="") as server:
        assert server.wait() not in (0, 1), server.output
        assert "--reload needs watchfiles" in server.output
        assert "Traceback" not in server.output


def test_a_port_that_is_taken_is_said_before_anything_is_watched(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serving(folder, *DELAY, "--bind", f"127.0.0.1:{port}", ready="") as server:
            assert server.wait() not in (0, 1), server.output
        assert f"port {port} is already in use" in server.output


def test_libraries_that_were_loaded_before_are_heard(folder: Path) -> None:
    """A worker that finds them in memory does not have their loggers silenced either."""
    pytest.importorskip("httpx")
    config = folder / "logs.json"
    config.write_text('{"version": 1, "root": {"level": "INFO"}}')
    ask_it = "import httpx, logging\nsilent = logging.getLogger('httpx').disabled\n"
    before = ask_it + "print(f'a silent httpx: {silent}\\n', end='', flush=True)\n"
    write_app(folder, before=before)
    with serving(folder, *DELAY, "--log-config", config, ready="") as server:
        server.expect_line("a silent httpx: False")
        for times in range(50):  # until a worker is forked by the process that has loaded httpx
            write_app(folder, f"code {times}", before=before)
            while (facts := ask(server.port).facts)["code"] != f"code {times}":
                pass
            if facts["parent"] != server.pid:
                break
        assert facts["parent"] != server.pid
        server.expect_line("a silent httpx: ", times=times + 2)
        assert "a silent httpx: True" not in server.output
