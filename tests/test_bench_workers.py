"""Several workers in the benchmark: how they are counted, found and missed, and how they are asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench import arena
from bench.figures import busiest
from bench.load import Address, Meter, Report, VoidError, _for_a_while
from bench.methods import Contestant, take
from bench.processes import ServerProcess, alive, birth, family
from bench.results import Outcome
from bench.rows import ROWS, Method
from bench.servers import SERVERS, Place
from bench.workers import Team

WORKER_ROWS = [row for row in ROWS if row.workers]
ADDRESS = Address(4711, "/", tls=False)


# --- the spread


@pytest.mark.parametrize(
    ("counts", "share"),
    [([500], 1.0), ([500, 500], 1.0), ([45, 19], 1.40625), ([64, 0], 2.0), ([0, 9, 0, 0], 4.0)],
)
def test_the_busiest_over_the_mean_of_all(counts, share):
    assert busiest(counts) == share


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_of_nothing_there_is_no_spread(counts):
    with pytest.raises(ValueError, match="nothing"):
        busiest(counts)


# --- a round


class Process:
    """A server that does nothing; says what was done to it."""

    ended = None
    pid = 1

    def __init__(self) -> None:
        self.calls: list[str] = []

    def cpu(self) -> float:
        return 0.0

    def settle(self, patience: float) -> None: ...

    def thaw(self) -> None:
        self.calls.append("thaw")

    def freeze(self) -> None:
        self.calls.append("freeze")

    def stop(self) -> None:
        self.calls.append("stop")

    def output(self) -> str:
        return ""


class FakeTeam:
    """Two workers with these numbers before and after a round."""

    def __init__(self, *tallies: list[int], held: list[int], lost: bool = False) -> None:
        self._tallies = iter(tallies)
        self._overheads = iter([1.0, 1.5])
        self._held = held
        self._looked = 0
        self._lost = lost

    def gather(self, process: object) -> None: ...

    def check(self) -> None:
        if self._lost:
            raise VoidError("lost 1 of its 2 workers")

    def requests(self) -> list[int]:
        return next(self._tallies)

    def overhead(self, process: object) -> float:
        return next(self._overheads)

    def sockets(self) -> list[set[str]]:
        self._looked += 1
        extra = self._held if self._looked > 1 else [0, 0]
        return [{"listener", *map(str, range(count))} for count in extra]


class Load:
    """A round of a hundred answers."""

    def check(self, address: Address) -> str:
        return ""

    def run(self, address: Address, seconds: float, meter: Meter) -> Report:
        meter.amid()
        return Report(100, 1.0)


def played(team: FakeTeam) -> dict[str, float]:
    row = replace(WORKER_ROWS[1], load=Load())
    contestant = Contestant(row, ADDRESS, Process, process=Process(), team=team)
    return dict(take(Method.WORKERS, contestant, 0.0))


def test_a_round_counts_what_came_in_it_alone():
    sample = played(FakeTeam([1000, 10], [1030, 80], held=[16, 48]))
    assert (sample["requests_1"], sample["requests_2"]) == (30, 70)
    assert sample["spread"] == 1.4
    assert (sample["connections_1"], sample["spread_connections"]) == (16, 1.5)
    assert sample["overhead_us"] == 5000  # half a second for a hundred


@pytest.mark.parametrize(
    ("team", "why"),
    [
        (FakeTeam([0, 0], [49, 50], held=[32, 32]), "know of 99 of 100 answers"),
        (FakeTeam([0, 0], [50, 50], held=[0, 0]), "held a connection"),
        (FakeTeam([0, 0], [100, 0], held=[64, 0], lost=True), "lost 1 of its 2"),
    ],
)
def test_a_round_that_the_workers_cannot_account_for_is_void(team, why):
    with pytest.raises(VoidError, match=why):
        played(team)


@pytest.mark.parametrize(
    ("workers", "calls"), [(0, ["thaw", "freeze"]), (2, ["thaw"])], ids=["one", "several"]
)
def test_who_has_workers_to_watch_over_is_not_frozen_between_its_turns(workers, calls):
    process = Process()
    row = replace(WORKER_ROWS[0], workers=workers)
    seat = arena._Seat(
        Contestant(row, ADDRESS, Process, process=process), Outcome("tidegate", ours=True)
    )
    arena._guarded(seat, lambda _: None)
    assert process.calls == calls


def test_the_look_at_a_round_comes_while_the_load_is_on():
    running = []
    _for_a_while(["sleep", "60"], 0.0, lambda: running.append(len(family(os.getpid()))))
    assert running == [len(family(os.getpid())) + 1]


# --- the workers themselves

FORKS = """
import asyncio, os, time
from bench.tally_app import plaintext

async def work(requests):
    async def receive():
        return messages.pop(0) if messages else await asyncio.sleep(60)
    async def send(message): pass
    messages = [{"type": "lifespan.startup"}]
    life = asyncio.create_task(plaintext({"type": "lifespan"}, receive, send))
    await asyncio.sleep(0)
    for _ in range(requests):
        await plaintext({"type": "http"}, receive, send)
    print("worked", flush=True)
    await life

for number in (1, 2):
    if os.fork() == 0:
        asyncio.run(work(number * 10))
time.sleep(60)
"""


@pytest.fixture
def forked(tmp_path):
    core = min(os.sched_getaffinity(0))
    environment = {"PYTHONPATH": str(arena.ROOT), "BENCH_TALLY": str(tmp_path)}
    with ServerProcess([sys.executable, "-c", FORKS], environment, core) as process:
        yield process


def worked(process: ServerProcess) -> None:
    deadline = time.monotonic() + 20
    while process.output().count("worked") < 2 and time.monotonic() < deadline:
        os.sched_yield()


def test_workers_make_themselves_known_and_the_supervisor_does_not(forked, tmp_path):
    team = Team(tmp_path, 2)
    team.gather(forked)
    worked(forked)
    assert forked.pid not in team.members
    assert sorted(team.requests()) == [10, 20]
    assert 0 < team.overhead(forked) < forked.cpu()


def test_one_that_is_gone_voids_the_row(forked, tmp_path):
    team = Team(tmp_path, 2)
    team.gather(forked)
    pid = team.members[0]
    born = birth(pid)
    # Nobody collects it: one that is dead and still has its number is gone, too.
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive(pid, born) and time.monotonic() < deadline:
        os.sched_yield()
    with pytest.raises(VoidError, match="lost 1 of its 2 workers"):
        team.check()


def test_one_more_voids_the_row(forked, tmp_path):
    team = Team(tmp_path, 2)
    team.gather(forked)
    (tmp_path / "1").write_bytes(bytes(8))
    with pytest.raises(VoidError, match="started 3 workers"):
        team.gather(forked)


def test_a_server_that_ends_before_all_are_there_is_not_waited_for(tmp_path):
    with pytest.raises(VoidError, match="ended by itself with status 3"):
        Team(tmp_path, 2).gather(SimpleNamespace(pid=1, ended=3))


def test_a_process_of_another_family_is_no_worker(forked, tmp_path):
    (tmp_path / str(os.getpid())).write_bytes(bytes(8))
    with pytest.raises(VoidError, match="1 workers are not its descendants"):
        Team(tmp_path, 3).gather(forked)


def test_the_sockets_of_a_worker_are_its_listeners_and_what_it_has_accepted(tmp_path):
    (tmp_path / str(os.getpid())).write_bytes(bytes(8))
    team = Team(tmp_path, 1)
    team.gather(SimpleNamespace(pid=os.getpid(), ended=None))
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        for client in clients:
            opened.enter_context(client)
        (before,) = team.sockets()
        opened.enter_context(Path(__file__).open())
        accepted = [opened.enter_context(listener.accept()[0]) for _ in range(2)]
        (after,) = team.sockets()
        inodes = [os.fstat(one.fileno()).st_ino for one in accepted]
    assert after - before == {f"socket:[{one}]" for one in inodes}


def test_those_that_are_gone_have_no_sockets_but_a_reason(forked, tmp_path):
    team = Team(tmp_path, 2)
    team.gather(forked)
    forked.stop()
    with pytest.raises(VoidError, match="lost 2 of its 2 workers"):
        team.sockets()


# --- the command lines


@pytest.mark.parametrize("row", WORKER_ROWS, ids=lambda row: row.name)
def test_every_server_is_asked_for_as_many_workers_as_are_expected(row):
    assert row.method is Method.WORKERS
    for name in row.servers:
        server = SERVERS[name]
        place = Place(row.app, 4711, None, row.options[server.family])
        command = server.command(place)
        last = len(command) - 1 - command[::-1].index("--workers")
        assert command[last + 1] == str(row.workers), name


def test_the_rows_are_about_one_two_and_four_workers_and_two_of_each_peer():
    rows = {row.name: row for row in WORKER_ROWS}
    assert {name: row.workers for name, row in rows.items()} == {
        "workers-1": 1,
        "workers-2": 2,
        "workers-4": 4,
        "workers-peers": 2,
    }
    peers = {"uvicorn", "granian", "gunicorn", "gunicorn-uvicorn", "gunicorn-tidegate"}
    assert peers < set(rows["workers-peers"].servers)


def test_gunicorn_is_asked_for_its_own_worker_for_uvicorns_and_for_ours():
    place = Place("bench.apps:plaintext", 4711, None)
    kinds = {
        "gunicorn": "asgi",
        "gunicorn-uvicorn": "uvicorn_worker.UvicornWorker",
        "gunicorn-tidegate": "tidegate.gunicorn.Worker",
    }
    for name, kind in kinds.items():
        command = SERVERS[name].command(place)
        assert command[command.index("--worker-class") + 1] == kind


def test_what_gunicorn_needs_is_installed_by_make():
    peers = (Path(arena.__file__).parent / "bench.mk").read_text()
    assert {"gunicorn", "uvicorn-worker"} <= set(peers.split())
