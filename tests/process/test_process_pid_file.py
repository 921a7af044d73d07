"""The pid file: whole, never another living server's, and removed only by the process it names."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tidegate.errors import ConfigurationError
from tidegate.process.pid_file import PidFile

# Tests that run side by side have a second thread, which waits for orders; the children need none of
# what it may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

WAIT = 20
ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    return tmp_path / "server.pid"


@pytest.fixture
def public():
    """A folder that other users can reach; those above tmp_path are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def other():
    """A living process that is not ours, nor our parent."""
    process = subprocess.Popen([sys.executable, "-ISc", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.stdin.close()
    process.wait(WAIT)


def in_child(function, uid=None):
    """What a forked child's call gives, as text: `fine`, or the error's message."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            function()
            os.write(writing, b"fine")
        except BaseException as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], WAIT)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with open(reading, "rb") as file:
        return file.read().decode()


def refusal(path, **how):
    with pytest.raises(ConfigurationError) as caught:
        PidFile(str(path)).write(**how)
    assert caught.value.hint
    return caught.value


def test_it_names_this_process(path):
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


def test_who_sends_signals_may_read_it_whatever_the_umask(path):
    before = os.umask(0o077)
    try:
        PidFile(str(path)).write()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_nothing_else_is_left_in_the_folder(path):
    file = PidFile(str(path))
    file.write()
    file.write()
    assert list(path.parent.iterdir()) == [path]
    file.remove()
    assert list(path.parent.iterdir()) == []


def test_it_appears_whole(path, monkeypatch):
    replaced = []

    def replace(draft, final):
        with open(draft) as file:
            replaced.append((os.path.dirname(draft), file.read(), final))

    monkeypatch.setattr(os, "replace", replace)
    PidFile(str(path)).write()
    assert replaced == [(str(path.parent), f"{os.getpid()}\n", str(path))]


def test_a_failure_leaves_nothing_behind(path, monkeypatch):
    def replace(draft, final):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    assert "No space left" in refusal(path).message
    assert list(path.parent.iterdir()) == []


def test_a_change_of_folder_changes_nothing(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    file = PidFile("server.pid")
    file.write()
    monkeypatch.chdir("/")
    file.remove()
    assert not path.exists()


class TestSomebodyElse:
    def test_a_living_process_is_not_overwritten(self, path, other):
        path.write_text(f"{other}\n")
        error = refusal(path)
        assert str(other) in error.message
        assert f"kill -TERM {other}" in error.hint
        assert path.read_text() == f"{other}\n"

    @pytest.mark.skipif(not ROOT, reason="another user's process is needed: only root has one")
    def test_nor_one_of_another_user(self, public):
        public.chmod(0o777)
        path = public / "server.pid"
        path.write_text(f"{os.getppid()}\n")
        text = in_child(PidFile(str(path)).write, uid=NOBODY)
        assert f"names process {os.getppid()}" in text

    def test_our_parent_is_refused_unless_we_take_over(self, path):
        path.write_text(f"{os.getppid()}\n")
        assert str(os.getppid()) in refusal(path).message
        PidFile(str(path)).write(taking_over=True)
        assert path.read_text() == f"{os.getpid()}\n"

    def test_who_takes_over_takes_from_the_parent_only(self, path, other):
        path.write_text(f"{other}\n")
        assert str(other) in refusal(path, taking_over=True).message

    def test_ourselves_may_write_again(self, path):
        path.write_text(f"{os.getpid()}\n")
        PidFile(str(path)).write()
        assert path.read_text() == f"{os.getpid()}\n"

    def test_a_dead_process_is_overwritten(self, path):
        process = subprocess.Popen([sys.executable, "-ISc", ""])
        process.wait(WAIT)
        path.write_text(f"{process.pid}\n")
        PidFile(str(path)).write()
        assert path.read_text() == f"{os.getpid()}\n"

    @pytest.mark.parametrize(
        "text", ["", "\n", "nonsense\n", "0\n", "-1\n", "1 2\n", "9" * 30, "9" * 5000, "\0\xff"]
    )
    def test_so_is_nonsense(self, path, text):
        path.write_text(text)
        PidFile(str(path)).write()
        assert path.read_text() == f"{os.getpid()}\n"


class TestPlaces:
    def test_no_folder(self, tmp_path):
        folder = tmp_path / "missing"
        error = refusal(folder / "server.pid")
        assert f"there is no folder {folder}" in error.message
        assert f"mkdir -p {folder}" in error.hint

    def test_a_file_for_a_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        assert "there is no folder" in refusal(tmp_path / "file" / "server.pid").message

    @pytest.mark.skipif(not ROOT, reason="only root can become somebody who may not write")
    def test_a_folder_that_is_not_ours(self, public):
        public.chmod(0o755)
        path = public / "server.pid"
        text = in_child(PidFile(str(path)).write, uid=NOBODY)
        assert text.startswith(f"Cannot write the pid file {path}: permission denied.")
        assert not path.exists()

    def test_a_folder_is_no_file(self, tmp_path):
        assert "is not a file" in refusal(tmp_path).message

    def test_a_device_is_not_replaced(self, path):
        os.mkfifo(path)
        assert "is not a file" in refusal(path).message
        assert stat.S_ISFIFO(path.stat().st_mode)

    def test_a_link_is_replaced_and_what_it_leads_to_is_left(self, path, tmp_path):
        target = tmp_path / "precious"
        target.write_text("precious")
        path.symlink_to(target)
        PidFile(str(path)).write()
        assert not path.is_symlink()
        assert path.read_text() == f"{os.getpid()}\n"
        assert target.read_text() == "precious"

    def test_a_link_to_a_pipe_is_not_waited_for(self, path, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
        PidFile(str(path)).write()
        assert path.read_text() == f"{os.getpid()}\n"


class TestRemove:
    def test_a_child_leaves_its_parents_file(self, path):
        file = PidFile(str(path))
        file.write()
        assert in_child(file.remove) == "fine"
        assert path.read_text() == f"{os.getpid()}\n"
        file.remove()
        assert not path.exists()

    def test_who_has_handed_over_leaves_it_to_the_successor(self, path):
        file = PidFile(str(path))
        file.write()
        assert in_child(lambda: PidFile(str(path)).write(taking_over=True)) == "fine"
        successor = path.read_text()
        assert successor != f"{os.getpid()}\n"
        file.remove()
        assert path.read_text() == successor

    def test_a_child_may_have_one_of_its_own(self, path):
        def child():
            file = PidFile(str(path))
            file.write()
            file.remove()

        assert in_child(child) == "fine"
        assert not path.exists()

    def test_what_may_not_be_removed_is_left(self, path, monkeypatch):
        def refuse(path):
            raise PermissionError(13, "Permission denied")

        file = PidFile(str(path))
        file.write()
        monkeypatch.setattr(os, "unlink", refuse)
        file.remove()
        assert path.exists()

    def test_a_file_that_is_gone(self, path):
        file = PidFile(str(path))
        file.write()
        path.unlink()
        file.remove()
