"""`--user` and `--group`: looked up here; the change itself in a forked child that tells of it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import select
import signal

import pytest

from tidegate.errors import ConfigurationError
from tidegate.process.privileges import Identity, resolve

# Tests that run side by side have a second thread, which waits for orders; the children need none of
# what it may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

WAIT = 20
ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")

ME = pwd.getpwuid(os.geteuid())
NOBODY = pwd.getpwnam("nobody")
UNKNOWN = 61234  # a number without an entry


def test_the_number_has_no_entry():
    with pytest.raises(KeyError):
        pwd.getpwuid(UNKNOWN)


def told_by_child(function):
    """What a forked child's call returns."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                answer = function()
            except ConfigurationError as error:
                answer = [error.message, error.hint]
            os.write(writing, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], WAIT)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with open(reading, "rb") as file:
        return json.loads(file.read())


def assumed(identity):
    """Who a child is that has assumed an identity."""

    def child():
        os.environ.update(HOME="/before", USER="before", LOGNAME="before")
        identity.assume()
        return {
            "uid": [os.getuid(), os.geteuid()],
            "gid": [os.getgid(), os.getegid()],
            "groups": sorted(os.getgroups()),
            "environment": [os.environ[name] for name in ("HOME", "USER", "LOGNAME")],
        }

    return told_by_child(child)


def refusal(user, group):
    with pytest.raises(ConfigurationError) as caught:
        resolve(user, group)
    assert caught.value.hint
    return caught.value


class TestResolve:
    def test_neither_is_nobody_else(self):
        assert resolve(None, None) is None

    @as_root
    @pytest.mark.parametrize("user", ["nobody", str(NOBODY.pw_uid)])
    def test_a_user_by_name_or_number_brings_its_group(self, user):
        assert resolve(user, None) == Identity(
            NOBODY.pw_uid, NOBODY.pw_gid, "nobody", NOBODY.pw_dir
        )

    @as_root
    @pytest.mark.parametrize("group", ["daemon", str(grp.getgrnam("daemon").gr_gid)])
    def test_a_group_by_name_or_number(self, group):
        gid = grp.getgrnam("daemon").gr_gid
        assert resolve("nobody", group) == Identity(NOBODY.pw_uid, gid, "nobody", NOBODY.pw_dir)

    @as_root
    def test_a_group_alone_leaves_the_user(self):
        gid = grp.getgrnam("daemon").gr_gid
        assert resolve(None, "daemon") == Identity(os.geteuid(), gid, ME.pw_name, None)

    @as_root
    def test_numbers_need_no_entries(self):
        assert resolve(str(UNKNOWN), str(UNKNOWN)) == Identity(UNKNOWN, UNKNOWN, None, "/")

    def test_a_number_without_an_entry_has_no_group(self):
        error = refusal(str(UNKNOWN), None)
        assert f"--user {UNKNOWN}" in error.message
        assert f"--group {UNKNOWN}" in error.hint

    @pytest.mark.parametrize(
        "name", ["no-such-name", "", "-1", "4294967295", "99999999999999999999", "9" * 5000, "²"]
    )
    def test_unknown_ones(self, name):
        assert "there is no such user" in refusal(name, None).message
        assert "there is no such group" in refusal(None, name).message

    def test_who_we_are_already(self):
        identity = resolve(str(os.geteuid()), str(os.getegid()))
        assert identity is not None
        assert (identity.uid, identity.gid) == (os.geteuid(), os.getegid())


@as_root
class TestAssume:
    def test_nobody(self):
        who = assumed(resolve("nobody", None))
        assert who == {
            "uid": [NOBODY.pw_uid] * 2,
            "gid": [NOBODY.pw_gid] * 2,
            "groups": [NOBODY.pw_gid],
            "environment": [NOBODY.pw_dir, "nobody", "nobody"],
        }

    def test_the_groups_of_root_do_not_stay(self):
        def child():
            os.setgroups([0, 4, 6])
            identity = resolve(str(UNKNOWN), str(UNKNOWN))
            identity.assume()
            return [os.getgroups(), os.environ["HOME"], os.environ["USER"]]

        assert told_by_child(child) == [[UNKNOWN], "/", str(UNKNOWN)]

    def test_the_further_groups_of_the_user_come_along(self, monkeypatch):
        calls = []
        for name in ("initgroups", "setgroups", "setgid", "setuid"):
            monkeypatch.setattr(os, name, lambda *given, name=name: calls.append((name, *given)))
        with pytest.raises(ConfigurationError):  # it looks whether the change was made
            resolve("nobody", "daemon").assume()
        gid = grp.getgrnam("daemon").gr_gid
        assert calls == [
            ("initgroups", "nobody", gid),
            ("setgid", gid),
            ("setuid", NOBODY.pw_uid),
        ]

    def test_root_is_gone_for_good(self):
        def child():
            resolve("nobody", None).assume()
            attempts = []
            for attempt in (os.setuid, os.seteuid, os.setgid, os.setegid):
                try:
                    attempt(0)
                    attempts.append("root again")
                except PermissionError:
                    attempts.append("refused")
            try:
                os.setgroups([0])
                attempts.append("root again")
            except PermissionError:
                attempts.append("refused")
            return attempts

        assert told_by_child(child) == ["refused"] * 5

    def test_a_change_that_keeps_root_at_hand_is_an_error(self):
        def child():
            os.setuid = os.seteuid  # the real and the saved user stay root
            resolve("nobody", None).assume()

        message, hint = told_by_child(child)
        assert "root could be got back" in message
        assert hint

    def test_also_where_only_the_saved_user_is_root(self):
        def child():
            os.setuid = lambda uid: os.setresuid(uid, uid, 0)
            resolve("nobody", None).assume()

        assert "root could be got back" in told_by_child(child)[0]

    def test_a_group_alone(self):
        gid = grp.getgrnam("daemon").gr_gid
        who = assumed(resolve(None, "daemon"))
        assert (who["uid"], who["gid"]) == ([0, 0], [gid, gid])
        assert who["environment"] == ["/before", "before", "before"]

    def test_root_may_stay_root(self):
        who = assumed(resolve("root", None))
        assert (who["uid"], who["gid"]) == ([0, 0], [0, 0])
        assert who["environment"] == [ME.pw_dir, "root", "root"]

    def test_a_kernel_that_refuses(self, monkeypatch):
        def refuse(uid):
            raise PermissionError(1, "Operation not permitted")

        def child():
            os.setuid = refuse
            resolve("nobody", None).assume()

        message, hint = told_by_child(child)
        assert message.startswith("Cannot become user nobody (uid ")
        assert "SETUID" in hint


@as_root
class TestWithoutRoot:
    """Seen from a child that is nobody already."""

    @staticmethod
    def as_nobody(function):
        def child():
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            return function()

        return told_by_child(child)

    def test_another_user_is_an_error_at_the_start(self):
        message, hint = self.as_nobody(lambda: resolve("daemon", None))
        assert "only root may change its user" in message
        assert "Start as root" in hint

    def test_another_group_too(self):
        assert "only root may" in self.as_nobody(lambda: resolve(None, "daemon"))[0]

    def test_and_when_it_is_assumed(self):
        daemon = resolve("daemon", None)
        assert "only root may" in self.as_nobody(daemon.assume)[0]

    def test_the_present_user_is_fine(self):
        def child():
            os.environ["HOME"] = "/before"
            resolve("nobody", None).assume()
            return [os.getuid(), os.environ["HOME"]]

        assert self.as_nobody(child) == [NOBODY.pw_uid, NOBODY.pw_dir]


def test_its_name_says_who():
    assert str(Identity(7, 8, "web", "/")) == "user web (uid 7, gid 8)"
    assert str(Identity(7, 8, None, "/")) == "user 7 (uid 7, gid 8)"


@pytest.mark.parametrize(("held", "warned"), [
    ("000001ffffffffff", False),
    ("00000000000000c0", True),  # SETUID and SETGID
    ("00000000000000e0", False),
])  # fmt: skip
@as_root
def test_root_that_may_not_signal_others_is_told(held, warned, tmp_path, monkeypatch, caplog):
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython\nCapPrm:\t000001ffffffffff\nCapEff:\t{held}\n")
    monkeypatch.setattr("tidegate.process.privileges._CAPABILITIES", str(status))
    resolve("nobody", None)
    assert ("CAP_KILL is missing" in caplog.text) is warned


@as_root
def test_where_nobody_tells_of_capabilities_nothing_is_said(monkeypatch, caplog):
    monkeypatch.setattr("tidegate.process.privileges._CAPABILITIES", "/nowhere")
    resolve("nobody", None)
    assert not caplog.text
