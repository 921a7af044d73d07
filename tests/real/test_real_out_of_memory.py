"""A worker that the kernel kills for memory, in a cgroup of its own with a limit: told from a kill."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.workers import APP, serving

pytestmark = pytest.mark.real

LIMIT = 160 << 20  # two workers and a supervisor take half of it
# version 1, then version 2
MOUNTS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with the limit, and nobody in it."""
    for mount, name in MOUNTS:
        folder = mount / f"tidegate-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / name).write_text(str(LIMIT))
            swap = folder / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
        except OSError:
            folder.rmdir()
            continue
        yield folder
        with contextlib.suppress(OSError):  # its processes have ended; the kernel may lag behind
            folder.rmdir()
        return
    pytest.skip("no cgroup with a limit of memory can be made here")


def test_the_kernels_kill_is_told_from_anybody_elses(tmp_path: Path, cgroup: Path) -> None:
    inside = ("sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "sh")
    with serving(tmp_path, APP, "--workers", "2", wrapper=inside) as server:
        first, _ = server.pids
        os.kill(first, signal.SIGKILL)
        server.expect(f"Worker {first} is gone: killed by SIGKILL, not by us: somebody sent it.")
        (third,) = server.expect_line(r"Worker (\d+) is ready")
        with server.client_of(int(third)) as client, contextlib.suppress(OSError):
            client.ask("/grow?1000")
        server.expect(f"Worker {third} is gone: killed by SIGKILL: the kernel was out of memory")
        server.expect_line(r"Worker (\d+) is ready", times=2)
        assert server.ask().status == 200
