"""The notify protocol, on real datagram sockets: a path and an abstract name."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tidegate.process.systemd import Extension, Notifier

WAIT = 20


class Manager:
    """The service manager's side."""

    def __init__(self, address, name):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(WAIT)
        self.socket.bind(address)

    def heard(self):
        return self.socket.recv(4096).decode().split("\n")

    def notifier(self, **more):
        return Notifier({"NOTIFY_SOCKET": self.name, **more})


def kinds():
    yield "path"
    if sys.platform == "linux":
        yield "abstract"


@pytest.fixture(params=kinds())
def manager(request):
    # tmp_path may be longer than the 107 octets that a socket's path may have.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "notify")
        if request.param == "path":
            manager = Manager(path, path)
        else:
            manager = Manager("\0" + path, "@" + path)
        with manager.socket:
            yield manager


def test_every_message(manager):
    notifier = manager.notifier()
    notifier.ready("4 workers serve")
    assert manager.heard() == ["READY=1", "STATUS=4 workers serve"]
    notifier.ready()
    assert manager.heard() == ["READY=1"]
    notifier.status("3 workers serve")
    assert manager.heard() == ["STATUS=3 workers serve"]
    notifier.watchdog()
    assert manager.heard() == ["WATCHDOG=1"]
    notifier.main_pid(4711)
    assert manager.heard() == ["MAINPID=4711"]
    notifier.stopping()
    assert manager.heard() == ["STOPPING=1"]


def test_a_reload_says_when(manager):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.notifier().reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    word, when = manager.heard()
    assert word == "RELOADING=1"
    name, _, value = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= after


def test_a_status_is_one_line_and_no_other_word(manager):
    notifier = manager.notifier()
    notifier.status("worker 1 ended:\nREADY=1\r\n")
    assert manager.heard() == ["STATUS=worker 1 ended: READY=1"]
    notifier.status("caf\u00e9 \udcff")
    assert manager.heard() == ["STATUS=café ?"]
    notifier.status("")
    notifier.stopping()
    assert manager.heard() == ["STOPPING=1"]


def test_a_full_queue_is_not_waited_for(manager):
    notifier = manager.notifier()
    for _ in range(5000):  # the kernel keeps some hundreds
        notifier.watchdog()
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_manager_that_is_gone(manager):
    notifier = manager.notifier()
    manager.socket.close()
    notifier.ready("nobody listens")


@pytest.mark.parametrize(
    "environment",
    [{}, *({"NOTIFY_SOCKET": name} for name in ("", "@", "relative", "vsock:2:1234"))],
)
def test_without_a_socket_nothing_is_done(environment, monkeypatch):
    def never(*arguments):
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", never)
    notifier = Notifier({**environment, "WATCHDOG_USEC": "20000000"})
    notifier.ready("x")
    notifier.reloading()
    notifier.stopping()
    notifier.status("x")
    notifier.watchdog()
    notifier.main_pid(1)
    assert notifier.watchdog_interval is None


def test_an_address_that_is_too_long():
    Notifier({"NOTIFY_SOCKET": "/" + "x" * 300}).ready("x")


def test_no_descriptor_is_kept(manager):
    folder = Path("/dev/fd")
    notifier = manager.notifier()
    before = len(list(folder.iterdir()))
    notifier.ready("x")
    assert len(list(folder.iterdir())) == before


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 10.0),
        ({"WATCHDOG_USEC": "500000"}, 0.25),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": ""}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "nonsense"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "nonsense"}, None),
    ],
)
def test_the_watchdog(environment, interval):
    notifier = Notifier({"NOTIFY_SOCKET": "/run/systemd/notify", **environment})
    assert notifier.watchdog_interval == interval


def test_the_environment_is_that_of_the_process(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert Notifier().watchdog_interval == 2.0


def test_patience_is_asked_for_at_once_and_again(manager, monkeypatch):
    monkeypatch.setattr("tidegate.process.systemd.EXTENSION", 0.01)
    with Extension(manager.notifier()):
        for _ in range(3):
            assert manager.heard() == ["EXTEND_TIMEOUT_USEC=20000"]


def test_patience_where_nobody_listens_starts_no_thread():
    with Extension(Notifier({})):
        assert not asking()


def test_patience_that_has_ended_leaves_no_thread(manager):
    patience = Extension(manager.notifier())
    patience.begin()
    assert manager.heard() == ["EXTEND_TIMEOUT_USEC=20000000"]
    assert asking()
    patience.end()
    patience.end()
    assert not asking()


def asking():
    return [thread for thread in threading.enumerate() if thread.name == "tidegate-patience"]
