"""One row from start to end: start everybody, check everybody, rounds in turn, end everybody."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.load import Address, VoidError
from bench.methods import Contestant, first_answer, take
from bench.processes import ServerProcess
from bench.reloading import OPTIONS, Project
from bench.results import Outcome, RowResult
from bench.rows import Method, Row
from bench.servers import Certificate, Place, Server
from bench.workers import Team

ROOT = Path(__file__).parent.parent
# Methods after which no server runs any more, or none that answers what it did at first.
UNCHECKED = {Method.STARTUP, Method.HELD, Method.RELOAD}
EAGER = sys.version_info >= (3, 12)


@dataclass(frozen=True, slots=True)
class Plan:
    """How the rows are run; `say` shows progress."""

    rounds: int
    seconds: float
    server_core: int
    certificate: Certificate | None
    say: Callable[[str], None]


@dataclass(slots=True)
class _Seat:
    contestant: Contestant
    outcome: Outcome


def run_row(row: Row, servers: list[Server], plan: Plan) -> RowResult:
    """Measure; a server that fails in any way is in the result with the reason."""
    with ExitStack() as running:
        seats = []
        for server in servers:
            plan.say(f"{row.name}: starting {server.name}")
            seats.append(_seat(row, server, plan, running))
        for number in rounds_of(row, plan):
            kind = f"round {number} of {plan.rounds}" if number else "warm-up"
            for seat in seats:
                if not seat.outcome.void:
                    plan.say(f"{row.name}: {kind}, {seat.outcome.server}")
                    _play(seat, plan, counts=number > 0)
        # Once more at the end: a server that answers nonsense under load is caught here.
        for seat in seats:
            if not seat.outcome.void and row.method not in UNCHECKED:
                _guarded(seat, lambda one: one.row.load.check(one.address))
        plan.say("")
    return RowResult(row, [seat.outcome for seat in seats], EAGER)


def rounds_of(row: Row, plan: Plan) -> range:
    """Their numbers: the warm-up is 0. Memory that is read in a new process needs none."""
    most = plan.rounds if row.most_rounds is None else min(plan.rounds, row.most_rounds)
    return range(1 if row.method is Method.HELD else 0, most + 1)


def _seat(row: Row, server: Server, plan: Plan, running: ExitStack) -> _Seat:
    address = Address(free_port(), row.path, row.tls)
    options = row.options.get(server.family, ())
    certificate = plan.certificate if row.tls else None
    project = None
    if row.method is Method.RELOAD:
        folder = running.enter_context(tempfile.TemporaryDirectory(prefix="bench-reload-"))
        options = (*OPTIONS[server.family], folder)
        project = Project(Path(folder))
        project.save()
    command = server.command(Place(row.app, address.port, certificate, options))
    environment = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    if project is not None:
        environment["PYTHONPATH"] += f":{project.folder}"
    contestant = Contestant(
        row, address, lambda: ServerProcess(command, environment, plan.server_core)
    )
    if row.workers:
        tally = running.enter_context(tempfile.TemporaryDirectory(prefix="bench-tally-"))
        environment["BENCH_TALLY"] = tally
        contestant.team = Team(Path(tally), row.workers)
    contestant.project = project
    seat = _Seat(contestant, Outcome(server.name, server.ours))
    if not row.method.afresh:
        contestant.process = running.enter_context(contestant.start())
        _guarded(seat, _first_check(seat.outcome))
    return seat


def _first_check(outcome: Outcome) -> Callable[[Contestant], object]:
    def check(contestant: Contestant) -> None:
        first_answer(contestant.running(), contestant.address)
        outcome.negotiated = contestant.row.load.check(contestant.address)

    return check


def _play(seat: _Seat, plan: Plan, *, counts: bool) -> None:
    def sample(contestant: Contestant) -> None:
        taken = take(contestant.row.method, contestant, plan.seconds)
        if counts:
            seat.outcome.samples.append(taken)

    _guarded(seat, sample)


def _guarded(seat: _Seat, step: Callable[[Contestant], object]) -> None:
    """Run a step; whatever is wrong with the server voids its row, with the tail of its output.

    The server's family runs during the step only; but where there are workers to watch over, a
    supervisor that had stood still might take them for hung.
    """
    process = seat.contestant.process
    try:
        if process is not None:
            process.thaw()
        step(seat.contestant)
    except (VoidError, OSError) as error:
        seat.outcome.void = str(error) or type(error).__name__
        process = seat.contestant.process
        if process is not None:
            process.stop()
            seat.outcome.output = process.output()
    else:
        watches = seat.contestant.row.workers or seat.contestant.project
        if process is not None and not watches:
            process.freeze()


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def pin_to(core: int) -> None:
    """The harness, and with it the load generator, stay on this core."""
    os.sched_setaffinity(0, {core})
