"""launch.py: from a configuration to a running server, and what comes back to its caller."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.serve import serve

import tidegate
from tidegate.config import Config
from tidegate.launch import find


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    """`run` sets up the logger of this process, which other tests listen to."""
    logger = logging.getLogger("tidegate")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1:]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


def test_the_version_is_said_once() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert tidegate.__version__ == project["version"]


def test_public_names_are_there() -> None:
    for name in tidegate.__all__:
        assert getattr(tidegate, name) is not None
    with pytest.raises(AttributeError):
        _ = tidegate.nothing  # type: ignore[attr-defined]


def test_public_names_stay_what_they_are() -> None:
    """A module of a name's own name would take its place once it is imported."""
    code = """
import tidegate, tidegate.cli, tidegate.launch
assert callable(tidegate.Server) and callable(tidegate.run) and callable(tidegate.run)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_env_file_is_exported_before_the_application_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDE_SEEN", "outside")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    env_file = tmp_path / ".env"
    env_file.write_text("TIDE_NEW=1\nTIDE_SEEN=file\n")
    find(Config(app=hello, env_file=str(env_file)))
    assert os.environ["TIDE_NEW"] == "1"
    assert os.environ["TIDE_SEEN"] == "outside"


def test_server_ends_in_good_order() -> None:
    with serve(hello) as running:
        pass
    assert running.clean is True
    assert running.records[-1] == "Stopped."


def test_banner_tells_what_is_served_and_where() -> None:
    with serve(hello) as running:
        said = "\n".join(running.records)
    assert f"Listening on {running.url} (HTTP/1.1, HTTP/2)" in said
    assert "ASGI 3" in said
    assert f"Tidegate {tidegate.__version__} on " in said


def test_notes_on_options_without_effect_are_logged() -> None:
    with serve(hello, http="h11") as running:
        assert any("--http h11 has no effect" in text for text in running.records)


def test_address_in_use_is_a_configuration_error() -> None:
    with serve(hello) as running, pytest.raises(tidegate.ConfigurationError, match="in use"):
        asyncio.run(tidegate.Server(Config(app=hello, port=running.port)).serve())


def test_a_wrong_access_log_format_is_told_before_anything_is_bound() -> None:
    server = tidegate.Server(Config(app=hello, port=0, access_log_format="{nothing}"))
    with pytest.raises(tidegate.ConfigurationError, match="nothing"):
        asyncio.run(server.serve())
    assert server.listeners == []


@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_stop_before_serve_starts_nothing(lifespan: str, caplog: pytest.LogCaptureFixture) -> None:
    """The listeners may be somebody else's by now: an orphan of a failed upgrade takes nobody."""
    asked = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)

    server = tidegate.Server(Config(app=app, port=0, lifespan=lifespan))
    server.stop()
    with caplog.at_level(logging.INFO, "tidegate"):
        assert asyncio.run(server.serve()) is True
    assert asked == []
    assert "Listening" not in caplog.text


def test_a_supervisor_is_refused_where_nothing_can_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    monkeypatch.setitem(sys.modules, "tidegate.supervised", None)  # importing it would fail
    with pytest.raises(tidegate.ConfigurationError, match="fork"):
        tidegate.run("main:app", workers=2)


@pytest.mark.parametrize("option", [{"workers": 2}, {"reload": True}, {"supervise": True}])
def test_a_server_in_a_loop_refuses_what_needs_a_supervisor(option: dict[str, Any]) -> None:
    server = tidegate.Server(Config(app="main:app", port=0, **option))
    with pytest.raises(tidegate.ConfigurationError, match="one process"):
        asyncio.run(server.serve())


ELSEWHERE = """
import asyncio, asyncio.selector_events, logging, os, select, signal, socket, sys, threading

for module, names in (
    (os, "fork forkpty register_at_fork O_CLOEXEC O_NOFOLLOW O_NONBLOCK fchown getppid waitid "
         "memfd_create sched_getaffinity geteuid getuid setuid pread"),
    (signal, "SIGUSR1 SIGUSR2 SIGHUP SIGQUIT SIGTTIN SIGTTOU SIGCHLD SIGRTMAX pthread_sigmask"),
    (select, "epoll poll"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("pwd", "grp", "resource", "fcntl"):
    sys.modules[name] = None

import tidegate
import tidegate.cli
from tidegate.process import lone, pid_file, signals  # what one process needs

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})

async def main():
    config = tidegate.Config(app=app, port=0, lifespan="off", loop="asyncio",
                             access_log_file=sys.argv[1], pid_file=sys.argv[2])
    server = tidegate.Server(config, on_started=lambda: asked.set_result(None))
    asked = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(server.serve(handle_signals=True))
    await asked
    reader, writer = await asyncio.open_connection(*server.listeners[0].sock.getsockname())
    writer.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 204")
    server.stop()
    assert await serving

asyncio.run(main())
"""


def test_one_process_needs_nothing_that_only_posix_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, tmp_path / "access.log", tmp_path / "pid"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "204" in (tmp_path / "access.log").read_text()
