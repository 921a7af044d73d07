"""`python -m bench`: choose rows and servers, measure, print, keep."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from bench import certificate, machine, websocket
from bench.arena import ROOT, Plan, pin_to, run_row
from bench.chart import draw, panel
from bench.http2 import H2load
from bench.load import Wrk
from bench.results import RowResult
from bench.rows import ROWS, Row
from bench.servers import SERVERS, Server
from bench.table import render

T = TypeVar("T")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """The exit status: 0 if Tidegate (or whoever comes first) has a figure in every row."""
    given = _parse(arguments)
    rows = _chosen(given.only, {row.name: row for row in ROWS}, "row")
    asked = _chosen(given.servers, SERVERS, "server") if given.servers else []
    _have_tools(rows)
    _let_in_many()
    for number in ENDING:
        signal.signal(number, _interrupt)
    cores = _cores()
    pin_to(cores[1])
    os.chdir(ROOT)
    try:
        results = _measure(rows, asked, given, cores)
    except KeyboardInterrupt:
        _say("")
        print("interrupted; every server was ended, rows that were finished are kept")
        return 130
    return 0 if all(result.subject() for result in results) else 1


def _measure(
    rows: list[Row], asked: list[Server], given: argparse.Namespace, cores: tuple[int, int]
) -> list[RowResult]:
    results = []
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(given.results)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pair = certificate.make(Path(scratch)) if any(row.tls for row in rows) else None
        plan = Plan(given.rounds, given.seconds, cores[0], pair, _say)
        for row in rows:
            servers = asked or [SERVERS[name] for name in row.servers]
            about = machine.describe(servers, cores)
            result = run_row(row, servers, plan)
            print(render(result), end="\n\n", flush=True)
            _keep(folder / f"{stamp}-{row.name}", result, about, plan)
            results.append(result)
    chart = folder / f"{stamp}.svg"
    footer = (
        f"{about['date']} · {about['cpu']}, {about['cpus']} cores · Linux {about['kernel']} · "
        f"Python {about['python']} · median of {given.rounds} rounds, whiskers: quartiles"
    )
    chart.write_text(draw([panel(result) for result in results], footer))
    print(f"kept in {folder}/{stamp}-*.json, drawn in {chart}")
    return results


def _keep(place: Path, result: RowResult, about: dict[str, object], plan: Plan) -> None:
    """Everything that is needed to judge the row again."""
    row = result.row
    told = {
        "row": row.name,
        "title": row.title,
        "figure": row.figure.key,
        "unit": row.figure.unit,
        "better": row.figure.better.name.lower(),
        "rounds": plan.rounds,
        "round_seconds": plan.seconds,
        "machine": about,
        "subject": subject.server if (subject := result.subject()) else None,
        "servers": [asdict(outcome) for outcome in result.outcomes],
        "comparisons": [
            {
                **asdict(compared),
                "verdict": compared.verdict.value if compared.verdict else None,
            }
            for compared in result.comparisons().values()
        ],
    }
    Path(f"{place}.json").write_text(json.dumps(told, indent=1) + "\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help="rows, with spaces or commas; default: all")
    parser.add_argument("--servers", default="", help="servers; default: those of each row")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (default 1)")
    parser.add_argument("--results", default=str(ROOT / "bench" / "results"), help="where to keep")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("there must be at least one round, and it must last")
    return given


def _chosen(text: str, known: dict[str, T], what: str) -> list[T]:
    names = text.replace(",", " ").split() or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no such {what}: {', '.join(unknown)}. There are: {', '.join(known)}")
    return [known[name] for name in names]


def _have_tools(rows: list[Row]) -> None:
    """The load generators that these rows need."""
    loads = [row.load for row in rows]
    if any(isinstance(load, Wrk) for load in loads) and not shutil.which("wrk"):
        sys.exit("wrk, a load generator, is missing. Install it (Debian: apt-get install wrk).")
    if any(isinstance(load, H2load) for load in loads):
        for program, package in (("h2load", "nghttp2-client"), ("curl", "curl")):
            if not shutil.which(program):
                sys.exit(f"{program} is missing. Install it (Debian: apt-get install {package}).")
    if not all(isinstance(load, Wrk | H2load) for load in loads):
        try:
            websocket.generator()
        except websocket.NoCompilerError as error:
            sys.exit(str(error))


def _cores() -> tuple[int, int]:
    """The servers' core and the load's."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        print("only one core: the load generator takes its time from the servers' core")
    return usable[0], usable[-1]


def _let_in_many() -> None:
    """Ten thousand idle connections need as many descriptors, in the servers too (inherited)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interrupt(*_: object) -> None:
    """Every signal that ends us takes the same way out, and a second one does not cut it short."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(text: str) -> None:
    """Progress, on a line of its own that is overwritten; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
