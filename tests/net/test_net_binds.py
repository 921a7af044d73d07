"""What `--bind` and its relatives mean, and the sockets that come of it."""

from __future__ import annotations

import errno
import gc
import os
import socket
import stat
import threading

import pytest

from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.net import binds
from tidegate.net.binds import (
    Bind,
    BindKind,
    binds_of,
    open_listener,
    open_listeners,
    parse_bind,
    passed_descriptors,
)

BACKLOG, MODE = 16, 0o660


def tcp(host, port):
    return Bind(BindKind.TCP, host, port)


def opened(text):
    return open_listener(parse_bind(text), BACKLOG, MODE)


def close_all(listeners):
    for listener in listeners:
        listener.close()


has_ipv6 = True
try:
    socket.create_server(("::1", 0), family=socket.AF_INET6).close()
except OSError:
    has_ipv6 = False
needs_ipv6 = pytest.mark.skipif(not has_ipv6, reason="no IPv6 on this machine")


# -- the words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bind", "shown"),
    [
        ("127.0.0.1:8000", tcp("127.0.0.1", 8000), "127.0.0.1:8000"),
        (" localhost:0 ", tcp("localhost", 0), "localhost:0"),
        ("localhost", tcp("localhost", 8000), "localhost:8000"),
        (":9000", tcp("", 9000), ":9000"),
        ("*:9000", tcp("", 9000), ":9000"),
        ("9000", tcp("127.0.0.1", 9000), "127.0.0.1:9000"),
        ("[::1]:65535", tcp("::1", 65535), "[::1]:65535"),
        ("[::]", tcp("::", 8000), "[::]:8000"),
        ("unix:/run/a.sock", Bind(BindKind.UNIX, path="/run/a.sock"), "unix:/run/a.sock"),
        ("unix:///run/a.sock", Bind(BindKind.UNIX, path="/run/a.sock"), "unix:/run/a.sock"),
        ("unix:a.sock?mode=0600", Bind(BindKind.UNIX, path="a.sock", mode=0o600), "unix:a.sock"),
        ("unix:/a?mode=0o777", Bind(BindKind.UNIX, path="/a", mode=0o777), "unix:/a"),
        ("fd://3", Bind(BindKind.FD, fd=3), "fd://3"),
        ("systemd", Bind(BindKind.SYSTEMD), "systemd"),
        ("systemd:web", Bind(BindKind.SYSTEMD, name="web"), "systemd:web"),
    ],
)
def test_a_bind_is_understood(text, bind, shown):
    assert parse_bind(text) == bind
    assert str(bind) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("::1", r"brackets: \[::1\]:8000"),
        ("::1:8000", "brackets"),
        ("[::1", "brackets"),
        ("[]:1", "brackets"),
        ("[::1]8000", "brackets"),
        ("localhost:", "port"),
        ("localhost:http", "'http'"),
        ("localhost:65536", "65535"),
        ("65536", "65535"),
        ("localhost:-1", "'-1'"),
        ("localhost:٣", "port"),
        ("http://localhost:80", "URL"),
        ("/run/a.sock", "unix:/run/a.sock"),
        ("unix:", "path"),
        ("unix:?mode=600", "path"),
        ("unix:/a?mode=", "octal"),
        ("unix:/a?mode=888", "octal"),
        ("unix:/a?mode=-1", "octal"),
        ("unix:/a?mode=1777", "octal"),
        ("unix:/a?user=www", "'user'"),
        ("unix:/a?x", "'x'"),
        ("unix:/a?&", "mode="),
        ("fd://", "number"),
        ("fd://-1", "number"),
        ("fd://three", "number"),
    ],
)
def test_what_is_no_bind_is_refused_with_the_reason(text, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        parse_bind(text)
    assert "unix:/path" in caught.value.hint


def test_binds_of_takes_bind_before_fd_before_uds_before_host():
    everything = {"bind": ("9001", "[::1]:9002"), "fd": 5, "uds": "/run/u.sock", "host": "::"}
    assert binds_of(Config(**everything)) == (tcp("127.0.0.1", 9001), tcp("::1", 9002))
    del everything["bind"]
    assert binds_of(Config(**everything)) == (Bind(BindKind.FD, fd=5),)
    del everything["fd"]
    assert binds_of(Config(**everything)) == (Bind(BindKind.UNIX, path="/run/u.sock"),)
    assert binds_of(Config(host="::", port=80)) == (tcp("::", 80),)
    assert binds_of(Config(host="[::1]")) == (tcp("::1", 8000),)


@pytest.mark.parametrize(
    "bind", [("9000", "127.0.0.1:9000"), ("fd://3", "fd://3"), ("systemd", "systemd:web")]
)
def test_nothing_is_listened_on_twice(bind):
    with pytest.raises(ConfigurationError, match="twice"):
        binds_of(Config(bind=bind))


def test_port_0_may_stand_twice():
    assert len(binds_of(Config(bind=("127.0.0.1:0", "127.0.0.1:0")))) == 2


# -- TCP -------------------------------------------------------------------------------------------


def test_tcp_listens_and_knows_its_name():
    (listener,) = opened("127.0.0.1:0")
    host, port = listener.server
    assert host == "127.0.0.1"
    assert isinstance(port, int) and port > 0
    assert listener.address == f"127.0.0.1:{port}"
    assert not listener.is_unix
    assert listener.sock.gettimeout() == 0.0
    assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert not listener.sock.get_inheritable()
    with socket.create_connection(listener.server):
        pass
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_accepted_connections_inherit_nodelay_from_the_listener():
    (listener,) = opened("127.0.0.1:0")
    with socket.create_connection(listener.server):
        listener.sock.setblocking(True)
        accepted, _ = listener.sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    listener.close()


@needs_ipv6
def test_ipv6_is_shown_in_brackets_and_serves_ipv6_only():
    (listener,) = opened("[::]:0")
    host, port = listener.server
    assert (host, listener.address) == ("::", f"[::]:{port}")
    assert listener.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    listener.close()


@needs_ipv6
def test_no_host_means_every_address_of_both_families_on_one_port():
    listeners = opened(":0")
    assert {listener.server[0] for listener in listeners} == {"0.0.0.0", "::"}
    assert len({listener.server[1] for listener in listeners}) == 1
    close_all(listeners)


@needs_ipv6
def test_a_name_opens_every_address_it_has_once(monkeypatch):
    v4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [v6, v4, v4])
    listeners = opened("both.example:0")
    assert [listener.server[0] for listener in listeners] == ["::1", "127.0.0.1"]
    assert listeners[0].server[1] == listeners[1].server[1]
    close_all(listeners)


@needs_ipv6
def test_a_port_that_is_taken_at_the_second_address_is_chosen_again(monkeypatch):
    v4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [v6, v4])
    real, taken = binds._tcp_socket, []

    def busy(family, address, backlog):
        if family == socket.AF_INET and len(taken) < 3:
            taken.append(address[1])
            raise OSError(errno.EADDRINUSE, "in use")
        return real(family, address, backlog)

    monkeypatch.setattr(binds, "_tcp_socket", busy)
    listeners = opened("both.example:0")
    assert len(taken) == 3
    assert listeners[0].server[1] == listeners[1].server[1]
    close_all(listeners)
    taken.clear()
    monkeypatch.setattr(binds, "CHOICES", 2)
    with pytest.raises(ConfigurationError, match="in use"):
        opened("both.example:0")


def test_an_address_of_a_name_that_is_not_here_is_left_out(monkeypatch):
    away = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.1", 0))
    here = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [away, here])
    (listener,) = opened("half.example:0")
    assert listener.server[0] == "127.0.0.1"
    listener.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [away, away])
    with pytest.raises(ConfigurationError, match="not an address of this machine"):
        opened("half.example:0")


def test_a_port_in_use_names_its_holder_and_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            opened(f"127.0.0.1:{port}")
    assert f"port {port} is already in use" in caught.value.message
    if os.path.exists("/proc/net/tcp"):
        assert f"(process {os.getpid()})" in caught.value.message
    assert caught.value.hint == (
        "Stop the program that listens there, or choose another port with --port or --bind."
    )


@needs_ipv6
def test_when_one_address_fails_the_others_are_closed(monkeypatch):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        v4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [v4, v6])
        with pytest.raises(ConfigurationError, match="in use") as caught:
            opened(f"both.example:{port}")
        monkeypatch.undo()
        assert caught.tb  # keeps every frame alive: closing must not be left to a collector
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_low_port_without_the_right_says_how_to_get_it(monkeypatch):
    def refuse(self, address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ConfigurationError, match="may not open port 80") as caught:
        opened("127.0.0.1:80")
    assert "CAP_NET_BIND_SERVICE" in caught.value.hint


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".com", "1.2.3.4.5"])
def test_a_bad_host_is_named(host):
    with pytest.raises(ConfigurationError, match="no address and no name") as caught:
        open_listener(tcp(host, 0), BACKLOG, MODE)
    assert host in caught.value.message
    assert "0.0.0.0" in caught.value.hint


def test_another_machine_s_address_is_refused():
    with pytest.raises(ConfigurationError, match="not an address of this machine"):
        opened("203.0.113.1:0")


def test_open_listeners_opens_all_or_none():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
        pair = (tcp("127.0.0.1", free), tcp("127.0.0.1", taken.getsockname()[1]))
        with pytest.raises(ConfigurationError) as caught:
            open_listeners(pair, BACKLOG, MODE)
        assert caught.tb  # keeps every frame alive, as above
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free))
    listeners = open_listeners(pair, BACKLOG, MODE)
    assert [listener.server[1] for listener in listeners] == [bind.port for bind in pair]
    close_all(listeners)


# -- Unix ------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s")


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_unix_listens_with_its_mode_whatever_the_umask(path):
    before = os.umask(0o077)
    try:
        (listener,) = opened(f"unix:{path}")
        assert os.umask(0o077) == 0o077  # left as it was
    finally:
        os.umask(before)
    assert mode_of(path) == MODE
    assert listener.is_unix
    assert listener.address == f"unix:{path}"
    assert listener.server == (path, None)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listener.close()
    assert not os.path.exists(path)


def test_a_mode_of_its_own_goes_before_the_general_one(path):
    (listener,) = opened(f"unix:{path}?mode=0606")
    assert mode_of(path) == 0o606
    listener.close()


def test_the_file_is_never_wider_than_its_mode(path, monkeypatch):
    seen = []
    bind = socket.socket.bind

    def look(self, address):
        bind(self, address)
        seen.append(mode_of(address))

    monkeypatch.setattr(socket.socket, "bind", look)
    (listener,) = open_listener(Bind(BindKind.UNIX, path=path), BACKLOG, 0o600)
    listener.close()
    assert seen == [0o600]


def test_a_stale_socket_file_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    (listener,) = opened(f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listener.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_somebody_answers_on_is_left_alone(path, kind):
    with socket.socket(socket.AF_UNIX, kind) as alive:
        alive.bind(path)
        if kind == socket.SOCK_STREAM:
            alive.listen()
        inode = os.lstat(path).st_ino
        with pytest.raises(ConfigurationError, match="another server answers"):
            opened(f"unix:{path}")
        assert os.lstat(path).st_ino == inode


def test_a_busy_server_with_a_full_backlog_is_alive(path):
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(path)
        busy.listen(0)
        waiting.connect(path)
        with pytest.raises(ConfigurationError, match="another server answers"):
            opened(f"unix:{path}")
        assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_never_removed(path):
    with open(path, "w", encoding="utf-8") as file:
        file.write("precious")
    with pytest.raises(ConfigurationError, match="it is no socket"):
        opened(f"unix:{path}")
    with open(path, encoding="utf-8") as file:
        assert file.read() == "precious"


def test_close_leaves_a_file_that_is_another_s_by_now(path):
    (first,) = opened(f"unix:{path}")
    os.rename(path, path + ".old")
    (second,) = opened(f"unix:{path}")
    first.close()
    assert os.path.exists(path)
    second.close()
    assert not os.path.exists(path)
    second.close()  # twice does no harm


def test_a_forked_child_leaves_its_parent_s_file(path):
    (listener,) = opened(f"unix:{path}")
    child = os.fork()
    if child == 0:
        listener.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.path.exists(path)
    listener.close()
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("tail", "why"), [("missing/s", "no directory"), ("x" * 200, "longer than the system allows")]
)
def test_a_path_that_cannot_be_is_explained(tmp_path, tail, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        opened(f"unix:{tmp_path}/{tail}")
    assert caught.value.hint


def test_a_directory_that_is_not_ours_is_explained(path, monkeypatch):
    def refuse(self, address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ConfigurationError, match="may not create a file in"):
        opened(f"unix:{path}")


# -- inherited -------------------------------------------------------------------------------------


def test_fd_takes_over_a_listening_socket():
    parent = socket.create_server(("127.0.0.1", 0))
    name = parent.getsockname()
    fd = parent.detach()
    os.set_inheritable(fd, True)
    (listener,) = opened(f"fd://{fd}")
    assert listener.server == name
    assert listener.sock.gettimeout() == 0.0
    assert not os.get_inheritable(fd)
    assert listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    listener.close()


def test_fd_listens_on_a_socket_that_is_only_bound():
    with socket.socket() as parent:
        parent.bind(("127.0.0.1", 0))
        (listener,) = opened(f"fd://{os.dup(parent.fileno())}")
    with socket.create_connection(listener.server):
        pass
    listener.close()


def test_fd_of_a_unix_socket_keeps_its_file(path):
    with socket.socket(socket.AF_UNIX) as parent:
        parent.bind(path)
        parent.listen()
        (listener,) = opened(f"fd://{os.dup(parent.fileno())}")
    assert (listener.address, listener.server) == (f"unix:{path}", (path, None))
    listener.close()
    assert os.path.exists(path)


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="abstract sockets are Linux's")
def test_fd_of_an_abstract_socket_is_shown_with_an_at_sign():
    name = f"tidegate-test-{os.getpid()}-{threading.get_ident()}"
    with socket.socket(socket.AF_UNIX) as parent:
        parent.bind("\0" + name)
        parent.listen()
        (listener,) = opened(f"fd://{os.dup(parent.fileno())}")
    assert listener.address == f"unix:@{name}"
    listener.close()


def closed_fd():
    fd = os.dup(0)
    os.close(fd)
    return fd


def connected_fd():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()).detach()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (closed_fd, "is not open"),
        (lambda: os.open(os.devnull, os.O_RDONLY), "is not a socket"),
        (lambda: socket.socket(type=socket.SOCK_DGRAM).detach(), "not a TCP or Unix stream"),
        (lambda: socket.socket().detach(), "not bound"),
        (lambda: socket.socket(socket.AF_UNIX).detach(), "not bound"),
        (connected_fd, "cannot be listened on"),
    ],
)
def test_fd_that_cannot_serve_is_refused_and_left_open(make, why):
    fd = make()
    with pytest.raises(ConfigurationError, match=why) as caught:
        opened(f"fd://{fd}")
    assert f"descriptor {fd}" in caught.value.message
    del caught
    gc.collect()
    if why != "is not open":
        os.close(fd)


def environ(**more):
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", **more}


def test_systemd_takes_all_or_the_named():
    names = environ(LISTEN_FDNAMES="web:admin:web")
    assert passed_descriptors("", names) == [3, 4, 5]
    assert passed_descriptors("web", names) == [3, 5]
    assert passed_descriptors("admin", names) == [4]
    assert passed_descriptors("", environ()) == [3, 4, 5]


@pytest.mark.parametrize(
    ("env", "name", "why"),
    [
        ({}, "", "no sockets were passed"),
        (environ(LISTEN_FDS="0"), "", "no sockets were passed"),
        (environ(LISTEN_FDS="x"), "", "no sockets were passed"),
        (environ(LISTEN_PID="1"), "", "passed to process 1"),
        (environ(LISTEN_FDNAMES="a:b:c"), "web", "only a, b, c"),
        (environ(), "web", "only unnamed ones"),
    ],
)
def test_systemd_says_what_is_missing(env, name, why):
    with pytest.raises(ConfigurationError, match=why) as caught:
        passed_descriptors(name, env)
    assert caught.value.hint


def test_systemd_opens_what_was_passed(monkeypatch):
    parent = socket.create_server(("127.0.0.1", 0))
    name, fd = parent.getsockname(), parent.detach()
    monkeypatch.setattr(binds, "FIRST_PASSED", fd)
    for key, value in environ(LISTEN_FDS="1", LISTEN_FDNAMES="web").items():
        monkeypatch.setenv(key, value)
    (listener,) = opened("systemd:web")
    assert listener.server == name
    listener.close()
