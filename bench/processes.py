"""A server under measurement: started on its core, its CPU time and memory read, surely ended.

CPU time is user + system of the process and all its descendants: the kernel's clock of each
living process (the same sum as in /proc/<pid>/stat, in nanoseconds instead of ticks of 10 ms),
plus what its children that are gone had used (cutime and cstime of that file).
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
GRACE = 2.0
TAIL_LINES = 12
TAIL_BYTES = 64 * 1024


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from `state` on; the name before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(root: int) -> list[int]:
    """The process and its descendants, parents first."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children[int(stat_of(int(entry))[1])].append(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def birth(pid: int) -> str:
    """When it started, which tells it from a later process of the same number; "" if gone."""
    try:
        return stat_of(pid)[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int, born: str) -> bool:
    """Whether it is still that process, and not merely waiting to be collected."""
    try:
        fields = stat_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[19] == born and fields[0] not in "ZX"


def cpu_seconds(pid: int) -> float:
    """User + system of one process, all its threads, and its children that are gone."""
    try:
        fields = stat_of(pid)
        # The process clock of another process: what clock_getcpuclockid(3) computes.
        own = time.clock_gettime((~pid << 3) | 2)
    except (FileNotFoundError, ProcessLookupError, OSError):
        return 0.0
    return own + (int(fields[13]) + int(fields[14])) / TICK


def resident_mb(pid: int) -> float:
    """Resident memory of one process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * PAGE / 1e6


class ServerProcess:
    """One server on one core. Use as a context manager: leaving ends it, whatever happened."""

    def __init__(self, command: list[str], environment: Mapping[str, str], core: int) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._tail = ""
        home = os.sched_getaffinity(0)
        # The child inherits its core from here: nothing of it, no thread, ever runs elsewhere.
        os.sched_setaffinity(0, {core})
        try:
            self.started = time.perf_counter()
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, home)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """The tail of what it wrote, also once it is over."""
        if not self._log.closed:
            # pread: the server writes at an offset that it shares with us, a seek would move it too
            descriptor = self._log.fileno()
            size = os.fstat(descriptor).st_size
            begin = max(0, size - TAIL_BYTES)
            text = os.pread(descriptor, size - begin, begin).decode(errors="replace")
            self._tail = "\n".join(text.strip().splitlines()[-TAIL_LINES:])
        return self._tail

    def cpu(self) -> float:
        """CPU seconds so far, with all descendants."""
        return sum(cpu_seconds(pid) for pid in family(self._process.pid))

    def freeze(self) -> None:
        """Keep it off the core while another is measured: some servers poll even when idle."""
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        self._signal_group(signal.SIGCONT)

    def settle(self, patience: float) -> None:
        """Wait until it has dealt with a crowd that came or went."""
        deadline = time.perf_counter() + patience
        before = self.cpu()
        while time.perf_counter() < deadline:
            time.sleep(0.02)
            now = self.cpu()
            if now - before < 0.001:
                return
            before = now

    def worker(self) -> int:
        """The process that did the work: the one with the most CPU time."""
        return max(family(self._process.pid), key=cpu_seconds)

    def total_mb(self) -> float:
        """Resident memory of the whole family; shared pages count in each."""
        return sum(resident_mb(pid) for pid in family(self._process.pid))

    def stop(self) -> None:
        """TERM to its group, then KILL to whatever is left of the family."""
        if self._log.closed:
            return
        members = [(pid, birth(pid)) for pid in family(self._process.pid)]
        self._signal_group(signal.SIGTERM)
        self.thaw()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The session was made for this server alone, so its group holds nothing else.
            self._signal_group(signal.SIGKILL)
            self._process.wait()
            _end(members[1:])
            self.output()
            self._log.close()

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def _end(members: list[tuple[int, str]]) -> None:
    """Descendants may have left the group, and one that is killed takes a moment to go."""
    for pid, born in members:
        deadline = time.perf_counter() + GRACE
        while alive(pid, born) and time.perf_counter() < deadline:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                break
            time.sleep(0.001)
