"""SIGUSR2: a new binary takes over the sockets, and nobody who asks meanwhile notices."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.operations import Client, ask, exit_code, serving, status, write_app
from tests.support.programs import free_port, short_folder
from tests.support.workers import Server, wait_for_end

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="ends are seen through pidfds"),
]

STARTS = r"a new binary starts, process (\d+)"
OVER = "has taken over"
QUICK = ("--drain-idle", "100ms")


def begin(server: Server, pid: int, *, times: int = 1) -> int:
    """SIGUSR2 to the process that serves; the number of the one that is to follow."""
    os.kill(pid, signal.SIGUSR2)
    return int(server.expect_line(STARTS, times=times)[-1])


def taken_over(server: Server, *, times: int = 1) -> None:
    server.expect_line(OVER, times=times)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


def test_every_socket_is_taken_over(folder: Path) -> None:
    """TCP, Unix and health sockets; the file of a Unix socket stays the same file."""
    port, health = free_port(), folder / "health"
    unix, pid_file = folder / "tide", folder / "pid"
    with serving(
        folder, "--supervise", *QUICK, "--bind", f"127.0.0.1:{port}", "--bind", f"unix:{unix}",
        "--health-bind", f"unix:{health}", "--pid-file", pid_file,
    ) as server:  # fmt: skip
        files = [path.stat().st_ino for path in (unix, health)]
        assert ask(port).facts["parent"] == server.pid
        assert pid_file.read_text() == f"{server.pid}\n"
        new = begin(server, server.pid)
        assert exit_code(server) == 0, server.output
        assert [ask(where).facts["parent"] for where in (port, unix)] == [new, new]
        assert ask(health, "/ready").status == 200
        assert [path.stat().st_ino for path in (unix, health)] == files
        assert pid_file.read_text() == f"{new}\n"
        os.kill(new, signal.SIGTERM)
        wait_for_end(new)
        assert sorted(path.name for path in folder.iterdir()) == ["app.py", "tide.py"]


def test_the_old_one_leaves_only_after_the_new_one_is_ready(folder: Path) -> None:
    """While the new one starts the old one answers, and is named in the pid file."""
    gate = folder / "gate"
    pid_file = folder / "pid"
    os.mkfifo(gate)
    with serving(folder, "--supervise", *QUICK, "--pid-file", pid_file) as server:
        write_app(folder, "second", before=f"open({str(gate)!r}).read()\n")
        new = begin(server, server.pid)
        with open(gate, "w"):  # opens once the new worker reads it: it is being imported
            assert server.ask().status == 200
            assert ask(server.port).facts["code"] == "first"
            assert pid_file.read_text() == f"{server.pid}\n"
            assert OVER not in server.output
        taken_over(server)
        assert exit_code(server) == 0, server.output
        assert ask(server.port).facts["code"] == "second"
        assert ask(server.port).facts["parent"] == new


def test_a_request_under_way_and_an_idle_connection_are_served(folder: Path) -> None:
    with serving(folder, "--supervise", "--drain-idle", "20s") as server:
        busy, idle = Client(server.port), Client(server.port)
        assert idle.ask().facts["parent"] == server.pid
        busy.begin()
        server.expect_line("the request is here")
        begin(server, server.pid)
        taken_over(server)
        # until its worker has heard that it is to leave, the answers say nothing of it
        while (answer := idle.ask()).headers.get("connection") != "close":
            assert answer.facts["parent"] == server.pid
        answer = busy.finish()
        assert answer.facts["parent"] == server.pid and answer.facts["body"] == "ab"
        idle.close()
        busy.close()
        assert exit_code(server) == 0, server.output


def test_a_new_binary_that_fails_changes_nothing(folder: Path) -> None:
    """By then the code is broken: the old one serves on, on all sockets, and says so."""
    unix, pid_file = folder / "tide", folder / "pid"
    with serving(
        folder, "--supervise", "--bind", f"unix:{unix}", "--pid-file", pid_file
    ) as server:  # fmt: skip
        write_app(folder, before="raise RuntimeError('not yet')\n")
        new = begin(server, server.pid)
        server.expect("The new binary ended before it took over: this one serves on.")
        assert "RuntimeError: not yet" in server.output
        wait_for_end(new)
        assert pid_file.read_text() == f"{server.pid}\n"
        assert unix.exists(), "the one that failed has removed the socket of the one that serves"
        assert ask(unix).facts["parent"] == server.pid

        write_app(folder, "second")
        newer = begin(server, server.pid, times=2)
        assert exit_code(server) == 0, server.output
        assert ask(unix).facts["parent"] == newer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_new_binary_that_is_ended_leaves_the_sockets(folder: Path, number: int) -> None:
    """Whoever ends the new one while it starts: the old one has lost nothing."""
    gate, unix = folder / "gate", folder / "tide"
    os.mkfifo(gate)
    with serving(folder, "--supervise", "--bind", f"unix:{unix}") as server:
        write_app(folder, before=f"open({str(gate)!r}).read()\n")
        new = begin(server, server.pid)
        with open(gate, "w"):
            os.kill(new, number)
            server.expect("this one serves on")
        assert unix.exists()
        assert ask(unix).facts["parent"] == server.pid


def test_twice_in_a_row(folder: Path) -> None:
    unix, pid_file = folder / "tide", folder / "pid"
    with serving(
        folder, "--supervise", *QUICK, "--bind", f"unix:{unix}", "--pid-file", pid_file
    ) as server:  # fmt: skip
        inode = unix.stat().st_ino
        second = begin(server, server.pid)
        assert exit_code(server) == 0
        third = begin(server, second, times=2)
        wait_for_end(second)
        assert ask(unix).facts["parent"] == third
        assert pid_file.read_text() == f"{third}\n"
        assert unix.stat().st_ino == inode
        os.kill(third, signal.SIGTERM)
        wait_for_end(third)
        assert not unix.exists() and not pid_file.exists()


def test_a_second_signal_while_one_starts_is_refused(folder: Path) -> None:
    gate = folder / "gate"
    os.mkfifo(gate)
    with serving(folder, "--supervise", *QUICK) as server:
        write_app(folder, before=f"open({str(gate)!r}).read()\n")
        new = begin(server, server.pid)
        with open(gate, "w"):
            server.signal(signal.SIGUSR2)
            server.expect("a new binary is starting already")
        assert exit_code(server) == 0
        assert ask(server.port).facts["parent"] == new


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_an_end_during_an_upgrade_ends_both(folder: Path, number: int) -> None:
    gate, unix, pid_file = folder / "gate", folder / "tide", folder / "pid"
    os.mkfifo(gate)
    with serving(
        folder, "--supervise", "--bind", f"unix:{unix}", "--pid-file", pid_file
    ) as server:  # fmt: skip
        write_app(folder, before=f"open({str(gate)!r}).read()\n")
        new = begin(server, server.pid)
        with open(gate, "w"):
            server.signal(number)
            wait_for_end(server.pid, new)
        assert exit_code(server) == (1 if number == signal.SIGQUIT else 0), server.output
        assert not unix.exists() and not pid_file.exists()


def test_the_signal_right_behind_ends_both(folder: Path) -> None:
    """Sent as one breath: the new one may not even be another program yet."""
    with serving(folder, "--supervise") as server:
        server.signal(signal.SIGUSR2)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
        if found := re.search(STARTS, server.output):
            wait_for_end(int(found[1]))


def test_the_old_code_stays_with_preload(folder: Path) -> None:
    with serving(folder, "--preload", "--workers", "2", *QUICK) as server:
        write_app(folder, "second")
        begin(server, server.pid)
        taken_over(server)
        assert exit_code(server) == 0, server.output
        assert {ask(server.port).facts["code"] for _ in range(10)} == {"second"}


def test_one_process_says_how_to_have_it(folder: Path) -> None:
    with serving(folder) as server:
        server.signal(signal.SIGUSR2)
        server.expect("SIGUSR2 needs a supervisor")
        assert "--supervise" in server.output
        assert server.ask().worker == server.pid


def can_be_process_1() -> bool:
    from tests.support.programs import find, run

    unshare = find("unshare")
    return unshare is not None and not run(
        unshare, "--pid", "--fork", "--mount-proc", sys.executable, "-c", ""
    ).code  # fmt: skip


@pytest.mark.skipif(not can_be_process_1(), reason="needs root and unshare")
def test_process_1_refuses(folder: Path) -> None:
    """Its container would end with it. Nothing starts, and it serves on."""
    wrapper = ("unshare", "--pid", "--fork", "--mount-proc")
    with serving(folder, "--supervise", wrapper=wrapper) as server:
        assert ask(server.port).facts["parent"] == 1
        inside = int(next(pid for pid in server.children() if status(pid)["NSpid"].endswith("\t1")))
        os.kill(inside, signal.SIGUSR2)
        server.expect("SIGUSR2: this is process 1")
        assert "SIGHUP" in server.output
        assert ask(server.port).facts["parent"] == 1
        os.kill(inside, signal.SIGTERM)
        assert exit_code(server) == 0, server.output


@contextlib.contextmanager
def deployed(folder: Path, *options: str | Path) -> Iterator[Server]:
    """A server started in `current`, a link to the release `one`, beside which lies `two`."""
    for name in ("one", "two"):
        (folder / name).mkdir()
        write_app(folder / name, name)
        (folder / name / "sibling.py").write_text(f"NAME = {name!r}\n")
        source = (folder / name / "tide.py").read_text()
        source = source.replace(f"CODE = {name!r}", "from sibling import NAME as CODE")
        (folder / name / "tide.py").write_text(source)
    current = folder / "current"
    current.symlink_to("one")
    with serving(current, "--supervise", *QUICK, *options) as server:
        facts = ask(server.port).facts
        assert facts["code"] == "one" and facts["here"] == str((folder / "one").resolve())
        (folder / "next").symlink_to("two")
        (folder / "next").rename(current)
        yield server
        facts = ask(server.port).facts
        assert facts["code"] == "two" and facts["here"] == str((folder / "two").resolve())


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_restart_serves_the_release_that_the_link_leads_to(
    folder: Path, preload: tuple[str, ...]
) -> None:
    with deployed(folder, *preload) as server:
        server.signal(signal.SIGHUP)
        server.expect("All workers are new.")


def test_an_upgrade_serves_the_release_that_the_link_leads_to(folder: Path) -> None:
    with deployed(folder) as server:
        begin(server, server.pid)
        assert exit_code(server) == 0, server.output


def test_what_the_new_configuration_drops_turns_clients_away(folder: Path) -> None:
    """In no process of the new server it stays open: nobody would ever accept there."""
    kept, dropped = free_port(), free_port()

    def configure(*ports: int) -> None:
        binds = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        (folder / "tidegate.toml").write_text(f"workers = 2\nbind = [{binds}]\n")

    configure(kept, dropped)
    with serving(folder, *QUICK) as server:
        assert [ask(port).status for port in (kept, dropped)] == [200, 200]
        configure(kept)
        new = begin(server, server.pid)
        assert exit_code(server) == 0, server.output
        assert ask(kept).facts["parent"] == new
        with pytest.raises(ConnectionRefusedError):
            ask(dropped)


def test_ports_of_the_kernel_s_choice_stay_whose_they_are(folder: Path) -> None:
    """Written alike, they are told apart by their order, and none is served twice."""
    any_port = "127.0.0.1:0"
    binds = ("--bind", any_port, "--bind", any_port, "--health-bind", any_port)
    with serving(folder, "--supervise", *QUICK, *binds) as server:
        where = r"(?:Listening|Health checks) on (\S+)"
        first = server.expect_line(where, times=3)
        assert len(set(first)) == 3
        new = begin(server, server.pid)
        assert exit_code(server) == 0, server.output
        assert server.expect_line(where, times=6) == first * 2
        one, two, health = (int(url.rpartition(":")[2]) for url in first)
        assert [ask(port).facts["parent"] for port in (one, two)] == [new, new]
        assert ask(health, "/ready").text == "ready\n"
