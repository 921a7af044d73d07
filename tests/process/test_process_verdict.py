"""How a child ended: real children that exit, crash and are killed; the kernel's counts are made up."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import select
import signal

import pytest

from tidegate.process.verdict import OomCounter, verdict

# Tests that run side by side have a second thread, which waits for orders; the children need none of
# what it may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

WAIT = 20  # seconds a child may take to end before the test fails


def status_of(child, *arguments):
    """What `waitpid` says of a child that does this."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            child(*arguments)
        finally:
            os._exit(99)
    os.close(writing)
    ended, _, _ = select.select([reading], [], [], WAIT)  # the end of the pipe goes with the child
    os.close(reading)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert ended, "the child did not end"
    return status


def killed_by(number):
    def child():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pause()

    return status_of(child)


def by_kill():
    os.kill(os.getpid(), signal.SIGKILL)


def said(status, *, before=0, now=0, hung=False):
    return verdict(status, oom_before=before, oom_now=now, hung=hung)


class TestExitCodes:
    @pytest.mark.parametrize("code", [2, 3, 99, 255])
    def test_the_code_and_who_gives_one(self, code):
        text = said(status_of(os._exit, code))
        assert text == f"exit code {code}: os._exit or sys.exit was called with it"

    def test_one_may_be_an_exception(self):
        text = said(status_of(os._exit, 1))
        assert text.startswith("exit code 1: ")
        assert "exception" in text

    def test_none_is_no_reason_to_end(self):
        assert said(status_of(os._exit, 0)).startswith("exit code 0, though nobody had asked")

    def test_a_pipe_that_is_gone(self):
        assert "could not write" in said(status_of(os._exit, 120))

    def test_an_exit_is_no_matter_of_memory(self):
        assert "memory" not in said(status_of(os._exit, 3), before=0, now=1)


class TestCrashes:
    def test_a_real_fault_in_c(self):
        text = said(status_of(ctypes.string_at, 0))
        assert text.startswith("crashed with SIGSEGV: a fault in an extension module written in C")

    def test_the_interpreter_gives_up(self):
        assert said(status_of(os.abort)).startswith("aborted with SIGABRT")

    @pytest.mark.parametrize(
        ("name", "word"),
        [
            ("SIGBUS", "/dev/shm"),
            ("SIGILL", "another processor"),
            ("SIGFPE", "arithmetic"),
            ("SIGSYS", "seccomp"),
            ("SIGXCPU", "ulimit -t"),
            ("SIGXFSZ", "ulimit -f"),
        ],
    )
    def test_each_signal_has_its_reason(self, name, word):
        text = said(killed_by(getattr(signal, name)))
        assert f"{name}: " in text
        assert word in text

    def test_a_crash_is_no_matter_of_memory(self):
        assert "memory" not in said(killed_by(signal.SIGSEGV), before=0, now=1)

    def test_a_core_is_mentioned(self):
        status = signal.SIGSEGV | 0x80
        assert said(status).endswith(" (a core was dumped)")
        assert "core" not in said(int(signal.SIGSEGV))


class TestSigkill:
    def test_the_kernel_for_want_of_memory(self):
        text = said(status_of(by_kill), before=4, now=5)
        assert text.startswith("killed by SIGKILL: the kernel was out of memory")
        assert "fewer workers" in text

    def test_somebody(self):
        assert (
            said(status_of(by_kill), before=5, now=5)
            == "killed by SIGKILL, not by us: somebody sent it"
        )

    @pytest.mark.parametrize(("before", "now"), [(None, None), (None, 1), (1, None)])
    def test_where_nobody_counts_it_may_be_either(self, before, now):
        text = said(status_of(by_kill), before=before, now=now)
        assert text.startswith("killed by SIGKILL, not by us: memory ran out, or somebody sent it")

    def test_we_ended_what_hung(self):
        text = said(status_of(by_kill), before=4, now=5, hung=True)
        assert text.startswith("ended by us with SIGKILL: its event loop hung")

    def test_what_hung_may_still_end_by_itself(self):
        assert said(status_of(os._exit, 3), hung=True).startswith("exit code 3")
        assert said(killed_by(signal.SIGSEGV), hung=True).startswith("crashed with SIGSEGV")


class TestOtherSignals:
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGALRM"])
    def test_somebody_sent_it(self, name):
        text = said(killed_by(getattr(signal, name)))
        assert text == f"killed by {name}, not by us: somebody sent it"

    @pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no real-time signals here")
    def test_one_without_a_name(self):
        number = signal.SIGRTMIN + 3
        assert said(killed_by(number)) == f"killed by signal {number}, not by us: somebody sent it"


class Tree:
    """A /proc and a /sys/fs/cgroup of our own."""

    def __init__(self, folder):
        self.folder = folder

    def put(self, path, text):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def counter(self):
        return OomCounter(proc=str(self.folder / "proc"), cgroups=str(self.folder / "cgroup"))


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


EVENTS = "low 0\nhigh 0\nmax 31\noom 9\noom_kill {}\noom_group_kill 8\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
VMSTAT = "nr_free_pages 100\noom_kill {}\npswpin 3\n"


class TestOomCounter:
    def test_our_own_cgroup_of_version_2(self, tree):
        tree.put("proc/self/cgroup", "0::/app/web\n")
        tree.put("proc/vmstat", VMSTAT.format(70))
        tree.put("cgroup/app/memory.events", EVENTS.format(50))
        tree.put("cgroup/app/web/memory.events", EVENTS.format(2))
        counter = tree.counter()
        assert counter.read() == 2
        tree.put("cgroup/app/web/memory.events", EVENTS.format(3))
        assert counter.read() == 3

    def test_without_the_controller_the_next_above_counts(self, tree):
        tree.put("proc/self/cgroup", "0::/app/web\n")
        tree.put("proc/vmstat", VMSTAT.format(70))
        tree.put("cgroup/app/memory.events", EVENTS.format(50))
        tree.put("cgroup/app/web/cgroup.procs", "")
        assert tree.counter().read() == 50

    def test_our_own_cgroup_of_version_1(self, tree):
        tree.put("proc/self/cgroup", "4:memory:/web\n1:cpu:/\n0::/\n")
        tree.put("proc/vmstat", VMSTAT.format(70))
        tree.put("cgroup/memory/memory.oom_control", CONTROL.format(60))
        tree.put("cgroup/memory/web/memory.oom_control", CONTROL.format(6))
        assert tree.counter().read() == 6

    def test_a_container_without_a_namespace(self, tree):
        tree.put("proc/self/cgroup", "4:memory:/docker/0123abcd\n")
        tree.put("cgroup/memory/memory.oom_control", CONTROL.format(6))
        assert tree.counter().read() == 6

    def test_else_the_whole_machine(self, tree):
        tree.put("proc/self/cgroup", "0::/\n")
        tree.put("proc/vmstat", VMSTAT.format(70))
        assert tree.counter().read() == 70

    def test_an_old_kernel_that_counts_only_on_the_machine(self, tree):
        tree.put("proc/self/cgroup", "4:memory:/\n")
        tree.put("proc/vmstat", VMSTAT.format(70))
        tree.put("cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")
        assert tree.counter().read() == 70

    def test_where_nothing_is_counted(self, tree):
        assert tree.counter().read() is None
        tree.put("proc/vmstat", "nr_free_pages 100\noom_kill\n")
        assert tree.counter().read() is None

    def test_a_file_that_goes_away(self, tree):
        tree.put("proc/vmstat", VMSTAT.format(70))
        counter = tree.counter()
        (tree.folder / "proc" / "vmstat").unlink()
        assert counter.read() is None

    @pytest.mark.skipif(not os.path.exists("/proc/vmstat"), reason="no /proc here")
    def test_this_machine(self):
        with open("/proc/vmstat") as file:
            counts = "\noom_kill " in file.read()
        assert (OomCounter().read() is not None) >= counts
