"""A load that runs beside a test and misses nothing: was there one failed request, or none?

    with Steady(port, connections=16) as load:
        load.wait_for(answers=200)
        server.signal(signal.SIGHUP)
        load.wait_until(lambda report: report.seen - {old})
    assert not load.report.failures, load.report

It is a correct client, and no kinder than one. It heeds `Connection: close`, GOAWAY and
REFUSED_STREAM, and looks whether a connection that rested has been closed before it asks again. What
was surely not processed (RFC 9113 6.8, 8.7) is sent again; nothing else is, and every request that
got no good answer is counted by its kind. Redirects and bodies of requests are no part of it.

One thread, non-blocking sockets, one selector. A request costs it some 30 us over HTTP/1.1 and 100
over HTTP/2, a new connection 60 and with TLS a millisecond: it takes a processor to itself unless it
rests a little (`think`), which also makes connections that are idle.

`Wrk` runs wrk for more connections than this can drive. h2load is of no use here: version 1.52 opens
no connection after a GOAWAY, and counts the requests that are left as failed (with -D, it idles).
"""

from __future__ import annotations

import contextlib
import heapq
import random
import re
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import trustme
from tests.support.programs import need, running
from tests.support.steady_http1 import Http1Lane, Kind, Lane, Line
from tests.support.tls import client_context

TICK = 0.1  # seconds between two looks at what is overdue, and at whether the block has ended
AFTER_FAILURE = 0.02  # seconds a lane rests: a server that is gone must not cost a processor
SPREAD = 0.2  # seconds within which those who think begin
KEPT = 500  # failures described; beyond, they are only counted
PATIENCE = 60.0


class Failure(NamedTuple):
    kind: Kind
    text: str
    at: float  # seconds since the load began


@dataclass
class Report:
    """What came of the load so far."""

    answers: int = 0  # good ones
    failures: Counter[Kind] = field(default_factory=Counter)
    details: list[Failure] = field(default_factory=list)
    workers: Counter[int] = field(default_factory=Counter)  # answers by the field `worker`
    seen: set[int] = field(default_factory=set)  # workers that answered what was asked since a mark
    opened: int = 0  # connections
    announced: int = 0  # answers with `Connection: close`
    closed_idle: int = 0  # connections that the server closed while nothing was under way on them
    goaways: int = 0
    resent: Counter[str] = field(default_factory=Counter)  # requests, by "goaway", "refused_stream"
    began: float = field(default_factory=time.monotonic)
    marked: float = 0.0

    def note_answer(self, worker: bytes | None, asked: float) -> None:
        self.answers += 1
        if worker is not None:
            pid = int(worker)
            self.workers[pid] += 1
            if asked >= self.marked:
                self.seen.add(pid)

    def note_failure(self, kind: Kind, text: str) -> None:
        self.failures[kind] += 1
        if len(self.details) < KEPT:
            self.details.append(Failure(kind, text, time.monotonic() - self.began))

    def __str__(self) -> str:
        failed = "".join(f"\n  {one.at:.3f} s {one.kind}: {one.text}" for one in self.details[:20])
        return (
            f"{self.answers} answers by {dict(self.workers)} (since the mark {sorted(self.seen)}), "
            f"{self.opened} connections, {self.announced} announced closes, "
            f"{self.closed_idle} closed idle, {self.goaways} GOAWAYs, resent {dict(self.resent)}, "
            f"failures { ({str(kind): count for kind, count in self.failures.items()}) }{failed}"
        )


class Steady:
    """Keeps `connections` busy as long as the block lasts; its end waits for what is under way.

    `where` is a port of 127.0.0.1 or the path of a Unix socket; `tls` the authority to trust;
    `streams` the requests at a time on each HTTP/2 connection; `think` the seconds between an answer
    and the next request, give or take half; with `fresh`, each request has its own connection.
    """

    def __init__(
        self,
        where: int | str | Path,
        connections: int = 16,
        *,
        tls: trustme.CA | None = None,
        http2: bool = False,
        streams: int = 4,
        path: str = "/",
        expect: Callable[[bytes], bool] = lambda body: True,
        think: float = 0.0,
        fresh: bool = False,
        timeout: float = 20.0,
    ) -> None:
        port = isinstance(where, int)
        self.family = socket.AF_INET if port else socket.AF_UNIX
        self.address: Any = ("127.0.0.1", where) if port else str(where)
        self.context = None if tls is None else client_context(tls)
        self.path, self.expect, self.fresh = path, expect, fresh
        self.report = Report()
        self.selector = selectors.DefaultSelector()
        self.lines: set[Line] = set()
        self.under_way = 0  # requests
        self.stopping = False
        self._think, self._timeout = think, timeout
        self._lanes = self._make_lanes(connections, streams if http2 else 0)
        self._ready: deque[Lane] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._set_timers = 0
        self._looked = 0.0
        self._news = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="steady", daemon=True)

    def _make_lanes(self, connections: int, streams: int) -> list[Lane]:
        if self.context is not None:
            self.context.set_alpn_protocols(["h2" if streams else "http/1.1"])
        if not streams:
            return [Http1Lane(self) for _ in range(connections)]
        from tests.support.steady_http2 import Http2Lane, Http2Slot

        slots = [Http2Slot(self) for _ in range(connections)]
        return [Http2Lane(slot) for slot in slots for _ in range(streams)]

    # For the test.

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._news:
            self.stopping = True
        # Every request under way ends within its own patience.
        self._thread.join(self._timeout + PATIENCE)
        if exc[0] is None:
            assert not self._thread.is_alive(), f"the load does not end: {self.report}"
            self._check()

    def wait_until(
        self, condition: Callable[[Report], Any], timeout: float = PATIENCE, what: str = "it"
    ) -> None:
        """Wait until the condition holds for the live report; it is asked after every change."""
        with self._news:
            self._news.wait_for(lambda: condition(self.report) or self._ended, timeout)
            self._check()
            assert condition(self.report), f"{what} never came: {self.report}"

    def wait_for(self, answers: int, timeout: float = PATIENCE) -> None:
        """Wait for so many more good answers."""
        with self._news:
            goal = self.report.answers + answers
        self.wait_until(lambda report: report.answers >= goal, timeout, f"answer {goal}")

    def mark(self) -> None:
        """Forget who was seen: `report.seen` becomes those who answer what is asked from now on."""
        with self._news:
            self.report.marked = time.monotonic()
            self.report.seen = set()

    def _check(self) -> None:
        if self._error is not None:
            raise AssertionError(f"the load has failed itself: {self.report}") from self._error

    # For lanes and lines, in the load's thread.

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._set_timers += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._set_timers, call))

    def rest(self, lane: Lane, failed: bool) -> None:
        """The lane has its answer, or none; its next request follows."""
        seconds = self._think * random.uniform(0.5, 1.5)
        if failed:
            seconds = max(seconds, AFTER_FAILURE)
        if seconds:
            self.later(seconds, lane.begin)
        else:
            self._ready.append(lane)

    def note_line(self, line: Line) -> None:
        self.report.opened += 1
        self.lines.add(line)

    # The thread.

    def _run(self) -> None:
        try:
            for lane in self._lanes:
                self.later(min(self._think, SPREAD) * random.random(), lane.begin)
            while not (self.stopping and not self.under_way):
                self._turn()
        except BaseException as error:
            self._error = error
        finally:
            with self._news:
                for line in list(self.lines):
                    with contextlib.suppress(OSError):
                        line.close()
                self.selector.close()
                self._ended = True
                self._news.notify_all()

    def _turn(self) -> None:
        due = self._timers[0][0] - time.monotonic() if self._timers else TICK
        events = self.selector.select(0 if self._ready else max(0.0, min(due, TICK)))
        with self._news:
            before = self.report.answers, self.report.failures.total(), self.report.goaways
            for key, mask in events:
                key.data.on_ready(mask)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            if now - self._looked > TICK:
                self._look(now)
            for _ in range(len(self._ready)):
                self._ready.popleft().begin()
            report = self.report
            if before != (report.answers, report.failures.total(), report.goaways):
                self._news.notify_all()

    def _look(self, now: float) -> None:
        self._looked = now
        for lane in self._lanes:
            if lane.asked is not None and now - lane.asked > self._timeout:
                lane.overdue()
        self._news.notify_all()  # whatever else a condition may be about


@dataclass(frozen=True)
class WrkReport:
    """What wrk printed. It counts one `read` for each connection that ended under a request."""

    requests: int
    connect: int
    read: int
    write: int
    timeout: int
    not_2xx: int
    text: str

    @property
    def failed(self) -> int:
        return self.connect + self.read + self.write + self.timeout + self.not_2xx


class Wrk:
    """wrk beside the test: as a block, with `join` for its report. Skips the test without wrk."""

    def __init__(
        self,
        port: int,
        seconds: int,
        connections: int,
        *,
        tls: bool = False,
        path: str = "/",
        threads: int = 1,
    ) -> None:
        url = f"http{'s' if tls else ''}://127.0.0.1:{port}{path}"
        sizes = [f"-t{threads}", f"-c{connections}", f"-d{seconds}"]
        self._seconds = seconds
        self._running = running(need("wrk"), *sizes, "--timeout", "20s", url)

    def __enter__(self) -> Self:
        self._program = self._running.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._running.__exit__(*exc)

    def join(self) -> WrkReport:
        code = self._program.wait(self._seconds + PATIENCE)
        text = self._program.output
        assert code == 0, text
        return read_wrk(text)


def wrk(port: int, seconds: int, connections: int, *, tls: bool = False) -> WrkReport:
    """Run wrk to its end."""
    with Wrk(port, seconds, connections, tls=tls) as program:
        return program.join()


def read_wrk(text: str) -> WrkReport:
    def number(pattern: str) -> int:
        found = re.search(pattern, text)
        return int(found[1]) if found else 0

    assert " requests in " in text, text
    return WrkReport(
        requests=number(r"(\d+) requests in "),
        connect=number(r"Socket errors:.*\bconnect (\d+)"),
        read=number(r"Socket errors:.*\bread (\d+)"),
        write=number(r"Socket errors:.*\bwrite (\d+)"),
        timeout=number(r"Socket errors:.*\btimeout (\d+)"),
        not_2xx=number(r"Non-2xx or 3xx responses: (\d+)"),
        text=text,
    )
