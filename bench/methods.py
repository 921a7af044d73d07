"""How one sample of one server is taken: a dict of figures, or `VoidError`, which ends its row."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench.figures import busiest
from bench.idle import IdleConnections
from bench.load import PATIENCE, Address, Meter, VoidError
from bench.processes import ServerProcess, family, resident_mb
from bench.reloading import Project
from bench.results import Sample
from bench.rows import Method, Row
from bench.websocket import Held
from bench.workers import Team

SOME_REQUESTS = 20_000
START_TIMEOUT = 30.0
SETTLE = 5.0
WARM = 64


@dataclass(slots=True)
class Contestant:
    """One server in one row: how to start it, and the process once it runs."""

    row: Row
    address: Address
    start: Callable[[], ServerProcess]
    process: ServerProcess | None = None
    answered: int = 0
    team: Team | None = None
    project: Project | None = None

    def running(self) -> ServerProcess:
        """The process; VoidError if it is no longer there."""
        if self.process is None:
            raise VoidError("was not started")
        if self.process.ended is not None:
            raise VoidError(f"ended by itself with status {self.process.ended}")
        return self.process


def first_answer(process: ServerProcess, address: Address) -> float:
    """Seconds from the start of the process to its first answer (any bytes at all)."""
    deadline = process.started + START_TIMEOUT
    request = f"GET {address.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    while time.perf_counter() < deadline:
        if process.ended is not None:
            raise VoidError(f"did not start: ended with status {process.ended}")
        try:
            with socket.create_connection(("127.0.0.1", address.port), PATIENCE) as client:
                if address.tls:
                    return time.perf_counter() - process.started
                client.sendall(request)
                if client.recv(65536):
                    return time.perf_counter() - process.started
        except OSError:
            pass
        time.sleep(0.001)
    raise VoidError(f"did not start: no answer within {START_TIMEOUT:.0f} s")


def take(method: Method, contestant: Contestant, seconds: float) -> Sample:
    """One sample by that method."""
    return _METHODS[method](contestant, seconds)


def _requests(
    contestant: Contestant, seconds: float, amid: Callable[[], None] = lambda: None
) -> Sample:
    process = contestant.running()
    load = contestant.row.load
    assert not isinstance(load, Held)
    meter = Meter(process.cpu, partial(process.settle, SETTLE), amid)
    report = load.run(contestant.address, seconds, meter)
    used = meter.used
    contestant.running()
    contestant.answered += report.requests
    return {
        "cpu_us": used / report.requests * 1e6,
        "rate": report.requests / report.seconds,
        "busy": used / report.seconds,
        "requests": report.requests,
        "seconds": report.seconds,
        "p50_us": report.p50_us,
        "p99_us": report.p99_us,
        **report.extra,
    }


def _memory(contestant: Contestant, seconds: float) -> Sample:
    sample = _requests(contestant, seconds)
    while contestant.answered < SOME_REQUESTS:
        sample = _requests(contestant, seconds)
    process = contestant.running()
    return {
        **sample,
        "worker_mb": resident_mb(process.worker()),
        "total_mb": process.total_mb(),
        "answered": contestant.answered,
    }


def _idle(contestant: Contestant, seconds: float) -> Sample:
    row = contestant.row
    # The same process with and without, a moment apart: no other copy to differ from.
    without = _requests(contestant, seconds)
    expect = getattr(row.load, "expect", b"")
    with IdleConnections(contestant.address, row.idle, expect) as crowd:
        contestant.running().settle(SETTLE)
        with_crowd = _requests(contestant, seconds)
        crowd.check_open()
    contestant.running().settle(SETTLE)
    return {
        **without,
        "factor": with_crowd["cpu_us"] / without["cpu_us"],
        "cpu_us_idle": with_crowd["cpu_us"],
    }


def _workers(contestant: Contestant, seconds: float) -> Sample:
    process, team = contestant.running(), contestant.team
    assert team is not None
    team.gather(process)
    before, overhead = team.requests(), team.overhead(process)
    strangers, held = team.sockets(), [0]

    def look() -> None:
        held[:] = [len(now - then) for now, then in zip(team.sockets(), strangers, strict=True)]

    sample = _requests(contestant, seconds, look)
    overhead = team.overhead(process) - overhead
    team.check()
    shares = [after - earlier for after, earlier in zip(team.requests(), before, strict=True)]
    if sum(shares) < sample["requests"]:
        raise VoidError(f"its workers know of {sum(shares):,} of {sample['requests']:,.0f} answers")
    if not any(held):
        raise VoidError("none of its workers held a connection while the load was on")
    return {
        **sample,
        "spread": busiest(shares),
        "spread_connections": busiest(held),
        "overhead_us": overhead / sample["requests"] * 1e6,
        **{f"requests_{number}": share for number, share in enumerate(shares, 1)},
        **{f"connections_{number}": count for number, count in enumerate(held, 1)},
    }


def _startup(contestant: Contestant, seconds: float) -> Sample:
    del seconds
    with contestant.start() as process:
        contestant.process = process
        taken = first_answer(process, contestant.address)
        cpu = process.cpu()
        contestant.row.load.check(contestant.address)
    return {"start_ms": taken * 1e3, "start_cpu_ms": cpu * 1e3}


def _reload(contestant: Contestant, seconds: float) -> Sample:
    del seconds
    assert contestant.project is not None
    contestant.running()
    return {"reload_ms": contestant.project.wait(contestant.address) * 1e3}


def _held(contestant: Contestant, seconds: float) -> Sample:
    del seconds
    load, address = contestant.row.load, contestant.address
    assert isinstance(load, Held)
    # A new process each time: one that held them before has kept the memory for the next.
    with contestant.start() as process:
        contestant.process = process
        first_answer(process, address)
        load.check(address)
        with load.hold(address, WARM):
            process.settle(SETTLE)
        process.settle(SETTLE)
        before = {pid: resident_mb(pid) for pid in family(process.pid)}
        with load.hold(address, load.connections) as crowd:
            process.settle(SETTLE)
            worker = process.worker()
            after = resident_mb(worker)
            told = crowd.play()
        contestant.running()
    if worker not in before:
        raise VoidError("another process took over while the connections were opened")
    return {
        "each_kb": (after - before[worker]) * 1e3 / load.connections,
        "before_mb": before[worker],
        "after_mb": after,
        "open_seconds": crowd.ready["seconds"],
        "open": told["open"],
        "pings": told["pings"],
    }


_METHODS: dict[Method, Callable[[Contestant, float], Sample]] = {
    Method.REQUESTS: _requests,
    Method.MEMORY: _memory,
    Method.IDLE: _idle,
    Method.WORKERS: _workers,
    Method.STARTUP: _startup,
    Method.RELOAD: _reload,
    Method.HELD: _held,
}
