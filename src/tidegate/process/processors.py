"""How many processors this process may really use: what `--workers auto` starts.

The scheduler's mask says which processors are open to us. A container's limit is another thing: a
quota of processor time on a cgroup, which no mask shows, and it may be set on ours or on any one
above it. Four workers on a quota of one would take turns at being throttled.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

PROC = "/proc"
CGROUPS = "/sys/fs/cgroup"


def usable_processors(*, proc: str = PROC, cgroups: str = CGROUPS) -> int:
    """The processors open to this process, or fewer where a cgroup's quota is less; at least 1.

    A part of a processor counts as a whole one: a quota of 1.5 is best used by two workers.
    """
    processors = _scheduled()
    for folder in cgroup_folders("cpu", proc=proc, cgroups=cgroups):
        quota = _quota(folder)
        if quota is not None:
            processors = min(processors, math.ceil(quota))
    return processors


def cgroup_folders(controller: str, *, proc: str = PROC, cgroups: str = CGROUPS) -> Iterator[str]:
    """The folders of our cgroups that may hold a controller's files, ours first, then its parents.

    Version 1 has a tree for each controller, version 2 one for all; a machine may have both.
    """
    for line in read_text(f"{proc}/self/cgroup").splitlines():
        _, _, names_and_path = line.partition(":")
        names, _, path = names_and_path.partition(":")
        if not names:
            # Next to trees of version 1, systemd mounts that of version 2 below them.
            yield from _upwards(_first_folder(f"{cgroups}/unified", cgroups), path)
        elif controller in names.split(","):
            mount = _first_folder(f"{cgroups}/{names}", f"{cgroups}/{controller}")
            yield from _upwards(mount, path)


def read_text(path: str) -> str:
    """What one of the kernel's files says; nothing where it is not there or not for us."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _scheduled() -> int:
    # Python 3.13 also knows what -X cpu_count and PYTHON_CPU_COUNT say.
    count = getattr(os, "process_cpu_count", None)
    if count is not None:
        return count() or 1
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows have no mask
        return os.cpu_count() or 1


def _first_folder(*folders: str) -> str:
    return next((each for each in folders if os.path.isdir(each)), folders[-1])


def _upwards(mount: str, path: str) -> Iterator[str]:
    """From a cgroup up to the root of its mount.

    A container that has no namespace for cgroups reads its path as the machine sees it, and what is
    mounted begins at the container's own. Who was moved out of its namespace reads `/../`.
    """
    parts = [part for part in path.split("/") if part]
    if ".." not in parts and os.path.isdir("/".join((mount, *parts))):
        while parts:
            yield "/".join((mount, *parts))
            parts.pop()
    yield mount


def _quota(folder: str) -> float | None:
    """The processors' worth of time a cgroup may take; None is no limit."""
    words = read_text(f"{folder}/cpu.max").split()  # version 2: "150000 100000", "max 100000"
    if not words:
        words = read_text(f"{folder}/cpu.cfs_quota_us").split()  # version 1: -1 is no limit
        words += read_text(f"{folder}/cpu.cfs_period_us").split()
    try:
        quota, period = map(int, words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None
