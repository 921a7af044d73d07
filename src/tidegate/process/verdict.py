"""How a child ended, in words: what the kernel says, the likely reason, and what to do next.

`waitpid` gives an exit code or a signal, and SIGKILL is both what the kernel sends for want of
memory and what anybody may send. The kernel counts the first kind, before it sends the signal; so a
count that rose since the child was last seen alive tells the two apart.
"""

from __future__ import annotations

import os
import signal

from tidegate.process.processors import CGROUPS, PROC, cgroup_folders, read_text

# Version 2, then version 1. Both count kills of our own processes for any limit, the machine's too.
_COUNTED_IN = ("memory.events", "memory.oom_control")


class OomCounter:
    """How many processes the kernel has killed for memory: of our cgroup, or else of all."""

    def __init__(self, *, proc: str = PROC, cgroups: str = CGROUPS) -> None:
        # A cgroup without the memory controller is accounted to the next one above that has it.
        folders = cgroup_folders("memory", proc=proc, cgroups=cgroups)
        files = [f"{folder}/{name}" for folder in folders for name in _COUNTED_IN]
        files.append(f"{proc}/vmstat")
        self._file = next((each for each in files if _count(each) is not None), "")

    def read(self) -> int | None:
        """The count so far; None where the system keeps none (macOS, some sandboxes)."""
        return _count(self._file) if self._file else None


def _count(path: str) -> int | None:
    for line in read_text(path).splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.strip().isdigit():
            return int(count)
    return None


_SENT_FOR_HANGING = {"SIGKILL", "SIGABRT", "SIGTERM"}

_SIGNALS = {
    "SIGSEGV": "crashed with SIGSEGV: a fault in an extension module written in C, or a recursion "
    "without end. The stack, where one was logged, shows which",
    "SIGBUS": "crashed with SIGBUS: a file mapped into memory was cut short, or its disk is full "
    "(/dev/shm is small in containers)",
    "SIGILL": "crashed with SIGILL: an extension module was built for another processor. "
    "Install one that was built for this machine",
    "SIGFPE": "crashed with SIGFPE: a fault in arithmetic in an extension module written in C",
    "SIGABRT": "aborted with SIGABRT: the interpreter or a library written in C gave up. "
    "It says why on stderr",
    "SIGSYS": "killed by SIGSYS: a sandbox (seccomp) forbids a system call it made. "
    "Allow that call, or update the container's runtime",
    "SIGXCPU": "killed by SIGXCPU: its limit of processor time is used up. Raise it (ulimit -t)",
    "SIGXFSZ": "killed by SIGXFSZ: a file grew beyond the limit. Raise it (ulimit -f)",
}

_EXITS = {
    0: "exit code 0, though nobody had asked it to end: sys.exit() or os._exit() was called",
    1: "exit code 1: an exception ended it, which stderr shows, or os._exit or sys.exit was called",
    120: "exit code 120: Python could not write what was left for stdout or stderr. "
    "The other end of a pipe is gone, or a disk is full",
}


def verdict(status: int, *, oom_before: int | None, oom_now: int | None, hung: bool = False) -> str:
    """Say how a child ended that nobody had asked to end, beginning with "killed by" or the like.

    `status` is what `waitpid` gave. `oom_before` is what `OomCounter` read when the child was last
    seen alive, `oom_now` what it reads after the death; `hung`: we ended it since it hung.
    """
    if not os.WIFSIGNALED(status):
        code = os.WEXITSTATUS(status)
        return _EXITS.get(code, f"exit code {code}: os._exit or sys.exit was called with it")
    name = _name(os.WTERMSIG(status))
    if hung and name in _SENT_FOR_HANGING:
        return (
            f"ended by us with {name}: its event loop hung. Look in the stack for what blocks, "
            "and await it or move it to a thread"
        )
    if name == "SIGKILL":
        return _killed(oom_before, oom_now)
    said = _SIGNALS.get(name, f"killed by {name}, not by us: somebody sent it")
    return f"{said} (a core was dumped)" if os.WCOREDUMP(status) else said


def _killed(oom_before: int | None, oom_now: int | None) -> str:
    if oom_before is None or oom_now is None:
        return (
            "killed by SIGKILL, not by us: memory ran out, or somebody sent it; "
            "this system does not say which"
        )
    if oom_now > oom_before:
        return (
            "killed by SIGKILL: the kernel was out of memory (a limit of the container or of the "
            "machine). Give it more memory or fewer workers, or set --limit-max-memory"
        )
    return "killed by SIGKILL, not by us: somebody sent it"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
