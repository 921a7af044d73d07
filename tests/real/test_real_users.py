"""Root binds and keeps the keys; whoever serves is somebody else."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.support import operations
from tests.support.operations import Client, ask, connect, exit_code, status, write_app
from tests.support.tls import Files, client_context
from tests.support.workers import Server

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="root alone may become another user"
    ),
]

NOBODY = ("--user", "nobody", "--group", "nogroup")
ID = 65534


@pytest.fixture(autouse=True)
def known() -> None:
    import grp
    import pwd

    try:
        found = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid
    except KeyError:
        pytest.skip("there is no nobody or nogroup here")
    if found != (ID, ID):
        pytest.skip("nobody has another number here")


def _open_to_all(path: str) -> bool:
    return all(os.stat(each).st_mode & 0o005 == 0o005 for each in (path, *Path(path).parents))


HIDDEN = not _open_to_all(os.path.dirname(os.__file__))


@functools.cache
def _python() -> str | None:
    """A Python that nobody may read: the one of the tests may be at home in root's folder."""
    if not HIDDEN:
        return sys.executable
    probe = "import os, sys; print(os.__file__) if sys.version_info >= (3, 11) else sys.exit(1)"
    for folder in ("/usr/bin", "/usr/local/bin"):
        if found := shutil.which("python3", path=folder):
            ran = subprocess.run([found, "-c", probe], capture_output=True, text=True, check=False)
            if ran.returncode == 0 and _open_to_all(os.path.dirname(ran.stdout.strip())):
                return found
    return None


def serving(folder: Path, *options: str | Path, **more: Any) -> AbstractContextManager[Server]:
    """As `operations.serving`, by a Python that nobody may read."""
    python = _python()
    if python is None:
        pytest.skip("no Python here is readable to all")
    wrapper = ("/bin/sh", "-c", f'shift; exec {python} "$@"', "sh")  # in place of the tests' own
    return operations.serving(folder, *options, wrapper=wrapper, **more)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Open to all, as root's and pytest's own folders are not."""
    with tempfile.TemporaryDirectory(prefix="tide-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def low_port() -> int:
    """One that only root may bind, and nobody has."""
    for port in random.sample(range(601, 1024), 423):  # other tests look for one as well
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def ids(pid: int) -> tuple[set[str], set[str], set[str]]:
    found = status(pid)
    return set(found["Uid"].split()), set(found["Gid"].split()), set(found["Groups"].split())


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_workers_are_that_user_and_the_supervisor_is_root(
    folder: Path, preload: tuple[str, ...]
) -> None:
    port = low_port()
    options = ("--bind", f"127.0.0.1:{port}", "--workers", "2", "--umask", "027", *preload)
    with serving(folder, *NOBODY, *options) as server:
        server.expect_line(r"2 workers: ")
        assert ids(server.pid)[0] == {"0"}
        for pid in server.descendants():
            assert ids(pid) == ({str(ID)}, {str(ID)}, {str(ID)}), pid
        facts = ask(port).facts
        assert facts["home"] == "/nonexistent" and facts["umask"] == 0o027
        server.signal(signal.SIGHUP)
        server.expect_line(r"Worker \d+ is ready", times=2)
        assert ask(port).facts["home"] == "/nonexistent"


def test_a_single_worker_as_well(folder: Path) -> None:
    with serving(folder, *NOBODY) as server:
        assert ids(server.ask().worker)[0] == {str(ID)}
        assert ids(server.pid)[0] == {"0"}


def test_the_files_are_that_user_s(folder: Path) -> None:
    """The access log, opened anew as well, and the Unix socket; the pid file stays root's."""
    log, unix, pid_file = folder / "access.log", folder / "tide", folder / "pid"
    options = ("--access-log", "--access-log-file", log, "--bind", f"unix:{unix}")
    with serving(folder, *NOBODY, *options, "--pid-file", pid_file) as server:
        assert ask(unix, "/one").status == 200
        owners = [path.stat().st_uid for path in (log, unix, pid_file)]
        assert owners == [ID, ID, 0]
        assert stat.S_IMODE(pid_file.stat().st_mode) == 0o644
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
        assert "/one" in log.read_text()
        assert not unix.exists() and not pid_file.exists()


def test_a_log_that_was_moved_away_is_begun_anew(folder: Path) -> None:
    """Where the folder is root's, as /var/log is, the user cannot make the file itself."""
    log = folder / "access.log"
    with serving(folder, *NOBODY, "--access-log", "--access-log-file", log) as server:
        assert server.ask("/one").status == 200
        client = Client(server.port)
        client.begin()
        server.expect("the request is here")
        log.rename(folder / "access.log.1")
        server.signal(signal.SIGUSR1)
        server.expect("SIGUSR1: opening the log files again.")
        server.signal(signal.SIGTERM)  # of which the worker hears after the other
        server.expect("waiting for POST /")
        assert client.finish().status == 200
        client.close()
        assert server.wait() == 0, server.output
        assert log.exists() and "POST /" in log.read_text(), server.output
        assert log.stat().st_uid == ID


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--user", "nobody-at-all"), "--user nobody-at-all: there is no such user."),
        (("--user", "nobody", "--group", "nogroup-at-all"), "there is no such group."),
        (("--user", "54321"), "the number has no entry"),
    ],
)
def test_a_wrong_user_is_a_sentence(folder: Path, options: tuple[str, ...], said: str) -> None:
    pid_file = folder / "pid"
    with serving(folder, *options, "--pid-file", pid_file, ready="") as server:
        assert server.wait() not in (0, 1, -signal.SIGKILL), server.output
        assert said in server.output and "Traceback" not in server.output
        assert not pid_file.exists()


@pytest.mark.skipif(not HIDDEN, reason="this Python is readable to all")
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_python_of_root_s_alone_is_a_sentence(folder: Path, preload: tuple[str, ...]) -> None:
    with operations.serving(folder, *NOBODY, *preload, ready="") as server:
        assert server.wait() > 0, server.output
    assert f"it may not read {os.path.dirname(os.__file__)}" in server.output
    assert "Traceback" not in server.output and "Trying again" not in server.output


# -- keys that only root may read ------------------------------------------------------------------


class Site:
    """A site whose key nobody but root can read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "keys"
        self.folder.mkdir(mode=0o700)
        self.authority = trustme.CA()
        self.files = Files(self.folder, "site")
        self.renew()

    def renew(self) -> None:
        self.issued = self.authority.issue_cert("localhost")
        before = os.umask(0o077)
        self.files.write(self.issued)
        os.umask(before)

    @property
    def options(self) -> tuple[str, ...]:
        return (
            "--ssl-certfile", self.files.cert, "--ssl-keyfile", self.files.key,
            "--ssl-reload-interval", "100ms",
        )  # fmt: skip

    def shown(self, port: int) -> bytes:
        """The certificate a newcomer is shown."""
        context = client_context(self.authority)
        with context.wrap_socket(connect(port), server_hostname="localhost") as client:
            shown = client.getpeercert(binary_form=True)
        assert shown
        return shown

    @property
    def current(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.issued.cert_chain_pems[0].bytes().decode())

    def worker(self, server: Server) -> int:
        pid: int = ask(server.port, tls=client_context(self.authority)).facts["pid"]
        return pid


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_key_of_root_s_alone(folder: Path, preload: tuple[str, ...]) -> None:
    """Replaced while running: newcomers are shown the new one, and what is open stays open."""
    site = Site(folder)
    with serving(folder, *NOBODY, *site.options, "--workers", "2", *preload) as server:
        assert site.shown(server.port) == site.current
        kept = Client(server.port, client_context(site.authority))
        assert kept.ask().status == 200
        site.renew()
        while site.shown(server.port) != site.current:  # until it was looked for
            assert kept.ask().status == 200
        kept.close()


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_worker_that_is_started_later_has_the_new_key(
    folder: Path, preload: tuple[str, ...]
) -> None:
    site = Site(folder)
    with serving(folder, *NOBODY, *site.options, "--supervise", *preload) as server:
        (first,) = server.pids
        site.renew()
        while site.shown(server.port) != site.current:
            pass
        os.kill(first, signal.SIGKILL)
        server.expect_line(r"Worker \d+ is ready")
        assert site.worker(server) != first
        assert site.shown(server.port) == site.current
        server.signal(signal.SIGHUP)
        server.expect_line(r"Worker \d+ is ready", times=2)
        assert site.shown(server.port) == site.current


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_restart_brings_the_renewed_key_along(folder: Path, preload: tuple[str, ...]) -> None:
    """As it does without another user: certbot's hook sends SIGHUP, and expects just that."""
    site = Site(folder)
    options = (*NOBODY, *site.options, "--supervise", "--ssl-reload-interval", "0", *preload)
    with serving(folder, *options) as server:
        assert site.shown(server.port) == site.current
        site.renew()
        server.signal(signal.SIGHUP)
        server.expect_line("All workers are new")
        assert site.shown(server.port) == site.current


def test_a_new_key_that_is_broken_changes_nothing(folder: Path) -> None:
    site = Site(folder)
    with serving(folder, *NOBODY, *site.options, "--supervise") as server:
        before = site.current
        draft = site.folder / "draft"
        draft.write_text("not a key\n")
        mark = server.mark()
        draft.replace(site.files.key)
        while not server.output[mark:].strip():  # it is said once it was seen
            assert site.shown(server.port) == before
        assert site.shown(server.port) == before


def test_an_upgrade_reads_the_keys_as_root_again(folder: Path) -> None:
    site = Site(folder)
    options = ("--supervise", "--drain-idle", "100ms")
    with serving(folder, *NOBODY, *site.options, *options) as server:
        site.renew()
        write_app(folder, "second")
        server.signal(signal.SIGUSR2)
        assert exit_code(server) == 0, server.output
        assert site.shown(server.port) == site.current
        assert ids(site.worker(server))[0] == {str(ID)}


# -- log files in a folder of root's alone ---------------------------------------------------------


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_log_file_in_a_folder_of_root_s_alone(folder: Path, preload: tuple[str, ...]) -> None:
    """It is opened before the user is changed, also for what the application says."""
    logs = folder / "logs"
    logs.mkdir(mode=0o700)
    config = folder / "logs.json"
    config.write_text(
        json.dumps(
            {
                "version": 1,
                "handlers": {
                    "file": {"class": "logging.FileHandler", "filename": str(logs / "tide.log")},
                    "console": {"class": "logging.StreamHandler"},
                },
                "root": {"handlers": ["file", "console"], "level": "INFO"},
            }
        )
    )
    write_app(folder, before="import logging\nlogging.getLogger('shop').info('the shop opens')\n")
    options = ("--workers", "2", "--log-config", config, *preload)
    with serving(folder, *NOBODY, *options, ready=r"2 workers: ") as server:
        assert server.ask().status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
    assert "the shop opens" in (logs / "tide.log").read_text()
