"""What a new binary is given by the old: its environment, the listeners, a channel."""

from __future__ import annotations

import json
import logging
import os
import socket

import pytest
from tests.support.forks import run

from tidegate.net.binds import open_listeners, parse_bind
from tidegate.net.listener import Listener
from tidegate.process.channel import Channel
from tidegate.process.upgrade import PREDECESSOR, Upgrade, environment_of_successor

LOG = logging.getLogger("tidegate.test")


def test_what_systemd_meant_for_this_process_alone_is_not_passed_on():
    environ = {"A": "1", "LISTEN_FDS": "2", "LISTEN_PID": "7", "LISTEN_FDNAMES": "x", "Z": ""}
    assert environment_of_successor(environ) == {"A": "1", "Z": ""}


def test_the_watchdog_follows():
    kept = environment_of_successor(
        {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "5", "NOTIFY_SOCKET": "n"}
    )
    assert kept == {
        "WATCHDOG_PID": str(os.getpid()), "WATCHDOG_USEC": "5", "NOTIFY_SOCKET": "n",
    }  # fmt: skip


def test_a_first_binary_has_no_predecessor():
    environ = {"A": "1"}
    upgrade = Upgrade(environ, ".")
    assert not upgrade.taking_over
    assert upgrade.channels == []
    upgrade.announce_ready()
    assert environ == {"A": "1"}


def test_a_successor_says_once_that_it_serves():
    ours, theirs = Channel.pair()
    descriptor = os.dup(theirs.fileno())
    theirs.close()
    os.set_inheritable(descriptor, True)
    environ = {PREDECESSOR: str(descriptor)}
    upgrade = Upgrade(environ, ".")
    assert environ == {}  # not for the workers' children
    assert upgrade.taking_over
    assert not os.get_inheritable(descriptor)
    upgrade.announce_ready()
    upgrade.announce_ready()
    assert (ours.receive(), ours.ended) == (["ready"], True)
    assert not upgrade.taking_over
    ours.close()


NEW = """
import logging
from tidegate.process.upgrade import Upgrade
log = logging.getLogger("x")
log.propagate = False
logged = []
log.handlers = [logging.Handler()]
log.handlers[0].emit = lambda record: logged.append(record.getMessage())
upgrade = Upgrade({}, ".")
upgrade._successor, theirs = Channel.pair()
upgrade._successor_pid = child = os.fork()
if not child:
    upgrade._successor.close()
    signal.pause()
"""


def test_the_old_binary_leaves_when_the_new_one_serves_and_not_before():
    told = run(
        NEW
        + """
tell(watched=len(upgrade.channels), pid=upgrade.taken_over(log))
theirs.send("ready")
tell(that=upgrade.taken_over(log) == child, watched=len(upgrade.channels))
tell(pid=upgrade.taken_over(log))
os.kill(child, signal.SIGKILL)
"""
    )
    assert told == [{"watched": 1, "pid": 0}, {"that": True, "watched": 0}, {"pid": 0}]


def test_a_new_binary_that_dies_right_after_it_was_ready_has_not_taken_over():
    told = run(
        NEW
        + """
theirs.send("ready")
os.kill(child, signal.SIGKILL)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
tell(pid=upgrade.taken_over(log), failed=upgrade.reap(log), again=upgrade.reap(log))
upgrade.stop()
tell(watched=len(upgrade.channels), logged=logged)
"""
    )
    assert told[0] == {"pid": 0, "failed": True, "again": False}
    assert told[1]["watched"] == 0
    (line,) = told[1]["logged"]
    assert "this one serves on" in line


def test_what_nohup_has_said_is_passed_on():
    told = run(
        """
import logging
from tidegate.process.upgrade import Upgrade
signal.signal(signal.SIGHUP, lambda *_: None)
code = "import os, signal, sys; os.write(1, (sys.argv[1] % (signal.getsignal(1) == signal.SIG_IGN)).encode())"
sys.orig_argv[1:] = ["-c", code, '{"ignored": "%s"}\\n']
for nohup in (True, False):
    upgrade = Upgrade({}, ".")
    upgrade.begin((), logging.getLogger("x"), nohup=nohup)
    os.wait()
"""
    )
    assert told == [{"ignored": "True"}, {"ignored": "False"}]


def test_a_new_binary_that_starts_yet_is_followed_by_nobody(caplog):
    """Else the first would never hear that it may leave."""
    ours, theirs = Channel.pair()
    upgrade = Upgrade({PREDECESSOR: str(os.dup(theirs.fileno()))}, ".")
    with caplog.at_level(logging.WARNING, LOG.name):
        upgrade.begin((), LOG)
    assert "has not taken over yet" in caplog.text
    assert upgrade.channels == []
    upgrade.forget()
    ours.close()
    theirs.close()


@pytest.fixture
def binds(tmp_path):
    spaced = tmp_path / "a path with spaces"
    spaced.mkdir()
    return [
        "127.0.0.1:0",
        "[::1]:0",
        f"unix:{spaced}/the socket",
        f"unix:{spaced}/a\tsocket",
        f"unix:{spaced}/@name",
    ]


def heirs(listeners):
    """The same listeners as another program would have them, by descriptors of its own."""
    made = []
    for listener in listeners:
        _, *rest = json.loads(listener.heritage)
        made.append(Listener.inherit(json.dumps([os.dup(listener.sock.fileno()), *rest])))
    return made


def open_all(binds, inherited=()):
    return open_listeners([parse_bind(text) for text in binds], 16, 0o600, inherited)


def test_listeners_are_inherited_as_they_are(binds):
    before = open_all(binds)
    after = heirs(before)
    try:
        for old, new in zip(before, after, strict=True):
            assert new.sock.getsockname() == old.sock.getsockname()
            assert (new.bind, new.address, new.made_path) == (old.bind, old.address, old.made_path)
            assert (new.server, new.is_unix) == (old.server, old.is_unix)
            assert not new.sock.get_inheritable()
            assert not new.sock.getblocking()
    finally:
        for listener in [*before, *after]:
            listener.close()


def test_the_new_binary_finds_its_binds_among_the_inherited(binds):
    before = open_all(binds)
    after = heirs(before)
    found = open_all(binds, after)
    try:
        assert found == after
    finally:
        for listener in [*before, *found]:
            listener.close()


def test_the_file_of_a_socket_is_the_last_owners_to_remove(binds, tmp_path):
    before = open_all(binds[2:3])
    after = heirs(before)
    (path,) = [one.made_path for one in after]
    before[0].disown()
    before[0].close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    after[0].take_over()
    after[0].close()
    assert not os.path.exists(path)


def test_who_has_not_taken_over_removes_nothing(binds):
    """A new binary that fails."""
    before = open_all(binds[2:3])
    after = heirs(before)
    after[0].close()
    assert os.path.exists(before[0].made_path)
    before[0].close()


def test_an_inherited_socket_is_inherited_once_more(binds):
    before = open_all(binds[2:3])
    between = heirs(before)
    last = heirs(between)
    last[0].take_over()
    path = last[0].made_path
    assert path is not None
    for listener in [*before, *between]:
        listener.disown()
        listener.close()
    assert os.path.exists(path)
    last[0].close()
    assert not os.path.exists(path)


def test_a_new_binary_is_started_in_the_folder_with_listeners_and_environment(tmp_path):
    """By the real fork and exec; what it was given comes back through the channel."""
    told = run(
        f"""
import logging
from tidegate.net.binds import open_listeners, parse_bind
from tidegate.process.upgrade import Upgrade
folder = {str(tmp_path)!r}
binds = [parse_bind(text) for text in ("127.0.0.1:0", f"unix:{{folder}}/so cket")]
listeners = open_listeners(binds, 16, 0o600, ())
os.environ["LISTEN_FDS"] = "9"
sys.orig_argv[1:] = ["-c", '''
import os, signal, sys, json
from tidegate.net.listener import Listener
from tidegate.process.upgrade import LISTENERS, Upgrade
upgrade = Upgrade(os.environ, ".")
inherited = [Listener.inherit(line) for line in os.environ.pop(LISTENERS).splitlines()]
names = [one.address for one in inherited]
print(json.dumps([os.getcwd(), names, "LISTEN_FDS" in os.environ]), flush=True)
upgrade.announce_ready()
signal.pause()
''']
upgrade = Upgrade({{}}, folder)
upgrade.begin(listeners, logging.getLogger("x"))
tell(expected=[one.address for one in listeners])
select.select(upgrade.channels, [], [])
pid = upgrade.taken_over(logging.getLogger("x"))
tell(taken_over=pid > 0)
os.kill(pid, signal.SIGKILL)
os.wait()
""",
    )
    (given,) = [one for one in told if isinstance(one, list)]
    (expected,) = [one["expected"] for one in told if "expected" in one]
    assert given == [os.path.realpath(tmp_path), expected, False]
    assert {"taken_over": True} in told


def test_a_new_binary_that_fails_changes_nothing(caplog):
    told = run(
        """
import logging
from tidegate.process.upgrade import Upgrade
logged = []
log = logging.getLogger("x")
log.propagate = False
log.handlers = [logging.Handler()]
log.handlers[0].emit = lambda record: logged.append(record.levelname)
sys.orig_argv[1:] = ["-c", "raise SystemExit(1)"]
upgrade = Upgrade({}, ".")
upgrade.begin((), log)
upgrade.begin((), log)  # one at a time
tell(logged=logged)
while upgrade.channels:
    upgrade.reap(log)
    select.select([], [], [], 0.01)
tell(logged=logged[1:], taken_over=upgrade.taken_over(log))
"""
    )
    assert told == [{"logged": ["WARNING"]}, {"logged": ["ERROR"], "taken_over": 0}]
