"""Where health checks are answered: what is wrong with that is said with the option's name."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.net.sockets import Sockets


def refused(**options):
    with pytest.raises(ConfigurationError) as caught:
        Sockets(Config(**options)).close()
    return caught.value


@pytest.fixture
def free():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("127.0.0.1", "--health-bind 127.0.0.1 has no port.", "own, such as 127.0.0.1:9000."),
        ("localhost", "--health-bind localhost has no port.", "such as localhost:9000."),
        ("[::1]", "--health-bind [::1] has no port.", "such as [::1]:9000."),
        ("*", "--health-bind * has no port.", "such as :9000."),
        (
            "127.0.0.1:99999",
            "--health-bind cannot listen on '127.0.0.1:99999': a port",
            "HOST:PORT",
        ),
        ("::1", "--health-bind cannot listen on '::1': an IPv6 address needs", "[IPV6]:PORT"),
        ("nowhere.invalid:9", "--health-bind cannot listen on nowhere.invalid:9: 'now", "address"),
        ("203.0.113.1:9", "--health-bind cannot listen on 203.0.113.1:9: 203", "127.0.0.1"),
        ("unix:no/such/h", "--health-bind cannot listen on unix:no/such/h: there is no", "mkdir"),
    ],
)
def test_what_is_no_address_for_it(text, message, hint):
    error = refused(port=0, health_bind=text)
    assert error.message.startswith(message)
    assert hint in error.hint


@pytest.mark.parametrize("text", ["0", ":0", "127.0.0.1:0", "localhost:0"])
def test_a_port_is_enough(text):
    sockets = Sockets(Config(port=0, health_bind=text))
    try:
        assert sockets.health and len(sockets.serving) == 1
    finally:
        sockets.close()


def test_a_unix_socket(tmp_path):
    path = tmp_path / "h"
    sockets = Sockets(Config(port=0, health_bind=f"unix:{path}"))
    assert [one.address for one in sockets.health] == [f"unix:{path}"]
    sockets.close()


@pytest.mark.parametrize(
    ("application", "health"),
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("127.0.0.1", "0.0.0.0"),
     ("0.0.0.0", "127.0.0.1")],
)  # fmt: skip
def test_where_the_application_listens_too(application, health, free):
    error = refused(host=application, port=free, health_bind=f"{health}:{free}")
    assert error.message == f"--health-bind {health}:{free} is where the application listens too."
    assert error.hint == f"Give it a port of its own, such as {health}:9000."


@pytest.mark.parametrize(
    ("bind", "health", "hint"),
    [
        ("unix:a.sock", "unix:a.sock", "such as unix:a.sock.health."),
        ("fd://3", "fd://3", "Pass a second socket"),
        ("systemd", "systemd:health", "--bind systemd:web, --health-bind systemd:health"),
        (":9000", ":9000", "such as :9001."),
    ],
)
def test_the_same_written_in_another_way(bind, health, hint):
    error = refused(bind=bind, health_bind=health)
    assert error.message == f"--health-bind {health} is where the application listens too."
    assert hint in error.hint


def test_twice():
    error = refused(port=0, health_bind="127.0.0.1:9,unix:h,127.0.0.1:9")
    assert error.message == "--health-bind 127.0.0.1:9 is given twice."
    assert error.hint


def test_a_port_that_somebody_else_has():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused(port=0, health_bind=f"127.0.0.1:{port}")
    assert error.message.startswith(
        f"--health-bind cannot listen on 127.0.0.1:{port}: port {port} is already in use"
    )
    assert error.hint == "Stop the program that listens there, or take 127.0.0.1:9000 for example."


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is there on Linux alone")
def test_another_address_with_the_port_of_the_application(free):
    with socket.create_server(("127.0.0.2", free)):
        error = refused(port=free, health_bind=f"127.0.0.2:{free}")
    assert f"port {free} is already in use" in error.message


def test_what_was_opened_before_it_is_closed(tmp_path):
    first, second = tmp_path / "a", tmp_path / "h"
    refused(bind=f"unix:{first}", health_bind=f"unix:{second},unix:{tmp_path}/no/such")
    assert not os.path.exists(first) and not os.path.exists(second)
