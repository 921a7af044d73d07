"""Workers that come and go for a minute, under load, with the figures: `make soak`.

Restarts lose no request at all. Of killed workers only what they had in hand is lost: the killer
stops a worker first, counts its connections, and so knows how much that can be.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.real.test_real_zero_loss import ROADS, restart, server_on
from tests.support.mixed_load import APP, Mixed
from tests.support.steady_http1 import Kind
from tests.support.workers import Server, is_free, serving, wait_for_end

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

SECONDS = float(os.environ.get("TIDEGATE_SOAK_SECONDS", "60"))
WORKERS = 4
STREAMS = 4  # at a time on one connection, at most
ENDS = {Kind.CLOSED, Kind.RESET, Kind.TRUNCATED}  # what the end of a process does to a request
RESTARTS = 50
GROWTH = 1 << 20  # bytes the supervisor may grow by in so many restarts


def descriptors(pid: int, pattern: str = "") -> list[str]:
    """What the process has open."""
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(entry.path))
    return [name for name in found if re.search(pattern, name)]


def memory(pid: int) -> int:
    """Bytes that are this process's own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"Private_\w+:\s+(\d+) kB", text)) << 10


def stops_cleanly(server: Server) -> None:
    """Nobody is left, and nothing is held."""
    everybody = server.descendants()
    server.signal(signal.SIGTERM)
    server.wait()
    wait_for_end(*everybody)
    assert is_free(server.port)


# -- restarts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
def test_restarts_lose_nothing(road: str, tmp_path: Path) -> None:
    with server_on(tmp_path, road) as (server, authority):
        workers, restarts = set(server.pids), 0
        began = time.monotonic()
        with Mixed(server.port, authority) as load:
            while time.monotonic() < began + SECONDS:
                workers = restart(server, workers)
                load.wait_until_only(workers)
                restarts += 1
        took = time.monotonic() - began
        print(
            f"\n{road}: {restarts} restarts of 2 workers in {took:.0f} s, {load.answers} requests, "
            f"{load.failed} failed"
        )
        assert load.failed == 0, str(load)
        stops_cleanly(server)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_the_supervisor_does_not_grow(options: tuple[str, ...], tmp_path: Path) -> None:
    with serving(tmp_path, APP, "--workers", "2", "--drain-idle", "0.5", *options) as server:
        workers = set(server.pids)
        for _ in range(5):
            workers = restart(server, workers)
        held, before = len(descriptors(server.pid)), memory(server.pid)
        for _ in range(RESTARTS):
            workers = restart(server, workers)
        grown = memory(server.pid) - before
        print(f"\n{RESTARTS} restarts {options}: the supervisor grew by {grown >> 10} KiB")
        # give or take those of a worker that has just ended; a leak would be one each time
        assert len(descriptors(server.pid)) < held + RESTARTS // 2, descriptors(server.pid)
        assert grown < GROWTH
        stops_cleanly(server)


# -- chaos -----------------------------------------------------------------------------------------


class Killer:
    """Ends workers at random. `risk` is the number of requests that may have been lost so."""

    def __init__(self, server: Server) -> None:
        self.risk = 0
        self.done: Counter[str] = Counter()
        self._server = server

    def strike(self) -> None:
        """One worker, if two others are there."""
        workers = self._server.children()
        if len(workers) < 3:
            return
        victim = random.choice(workers)
        way = random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
        self.done[way.name] += 1
        if way is signal.SIGTERM:
            os.kill(victim, way)
            return
        os.kill(victim, signal.SIGSTOP)
        with contextlib.suppress(OSError):  # it may be on its way out
            self.risk += STREAMS * len(descriptors(victim, "^socket:"))
        if way is signal.SIGKILL:
            os.kill(victim, way)


@pytest.mark.parametrize("road", ROADS)
def test_killed_workers_lose_only_what_they_have_in_hand(road: str, tmp_path: Path) -> None:
    options = ("--timeout-worker-healthcheck", "2")
    with server_on(tmp_path, road, *options, workers=WORKERS) as (server, authority):
        held = len(descriptors(server.pid))
        killer = Killer(server)
        with Mixed(server.port, authority) as load:
            any_load = next(iter(load.loads.values()))
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                killer.strike()
                pause = time.monotonic() + random.uniform(0.3, 2.0)
                any_load.wait_until(lambda _, pause=pause: time.monotonic() >= pause)
            any_load.wait_until(lambda _: whole(server, held), 90, f"{WORKERS} workers")
            load.wait_for_more()
        kinds = sum((one.report.failures for one in load.loads.values()), Counter())
        print(
            f"\n{road}: {dict(killer.done)} in {SECONDS:.0f} s, {load.answers} requests, "
            f"{load.failed} failed, {killer.risk} might have: "
            f"{ ({str(kind): times for kind, times in kinds.items()}) }"
        )
        assert set(kinds) <= ENDS, f"{load}\n{server.output}"
        assert load.failed <= killer.risk, f"{load}\n{server.output}"
        stops_cleanly(server)


def whole(server: Server, held: int) -> bool:
    """As many workers as asked for, none of them stopped; the supervisor holds what it did."""
    workers = server.children()
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
              for pid in workers if Path(f"/proc/{pid}").exists()]  # fmt: skip
    return len(states) == WORKERS and "T" not in states and len(descriptors(server.pid)) == held
