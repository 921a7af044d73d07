"""Every kind of client at once, for the tests that ask whether a restart loses a request.

    with serving(tmp_path, APP, "--workers", "2") as server, Mixed(server.port) as load:
        server.signal(signal.SIGHUP)
        ...
    assert load.failed == 0, f"{load}\\n{server.output}"

Each of `KINDS` is a `Steady` of its own: clients that never rest and clients that do, longer answers
which arrive in pieces, several streams on a connection, and a new connection for each request.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

import trustme
from tests.support.steady import PATIENCE, Steady

# `/` answers at once; `/slow` in four pieces, so that a worker has to leave in the midst of it.
APP = """
import asyncio, os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    worker = (b"worker", str(os.getpid()).encode())
    pieces = [b"ok"] if scope["path"] == "/" else [b"piece by piece "] * 4
    await send({"type": "http.response.start", "status": 200, "headers": [worker]})
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": pieces[-1]})
"""

BODIES = {"/": b"ok", "/slow": b"piece by piece " * 4}

# Who rests does so for less than the second that an idle connection has (--drain-idle): who rests
# for longer may send just when it is closed, which HTTP/1.1 cannot prevent.
KINDS: dict[str, dict[str, Any]] = {
    "busy": {"connections": 2},
    "thinking": {"connections": 12, "think": 0.015},
    "resting": {"connections": 8, "think": 0.4},
    "slow": {"connections": 4, "path": "/slow", "think": 0.01},
    "fresh": {"connections": 2, "think": 0.02, "fresh": True},
    "h2 busy": {"connections": 1, "http2": True, "think": 0.005},
    "h2 thinking": {"connections": 4, "http2": True, "think": 0.1},
    "h2 slow": {"connections": 2, "http2": True, "path": "/slow"},
    "h2 fresh": {"connections": 2, "streams": 1, "http2": True, "fresh": True, "think": 0.03},
}
KEPT = [kind for kind, words in KINDS.items() if not words.get("fresh")]


class Mixed:
    """Loads of these kinds as long as the block lasts; all of them have had answers at its start."""

    def __init__(
        self, port: int, tls: trustme.CA | None = None, kinds: Iterable[str] = tuple(KINDS)
    ) -> None:
        self.loads = {kind: _load(port, tls, KINDS[kind]) for kind in kinds}
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for load in self.loads.values():
                stack.enter_context(load)
            for kind, load in self.loads.items():
                load.wait_for(answers=_at_a_time(kind))
            self._running = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._running.__exit__(*exc)

    # ------------------------------------------------------------------------ waiting

    def mark(self) -> None:
        for load in self.loads.values():
            load.mark()

    def wait_for_more(self) -> None:
        """Each kind has had as many answers again as it has requests at a time."""
        for kind, load in self.loads.items():
            load.wait_for(answers=_at_a_time(kind))

    def wait_until_only(self, workers: set[int]) -> None:
        """All of these workers answer what is asked from now on, and nobody else does."""
        self.wait_until_seen(workers)
        assert self.seen == workers, f"{workers} should answer: {self}"

    def wait_for_none_but(self, workers: set[int]) -> None:
        """Each kind is answered, and only by these workers, what is asked from now on."""
        self.mark()
        for kind, load in self.loads.items():
            load.wait_until(lambda report: report.seen, PATIENCE, f"an answer for {kind}")
        assert self.seen <= workers, f"nobody but {workers} should answer: {self}"

    def wait_until_seen(self, workers: set[int]) -> None:
        """These workers answer what is asked from now on, whoever else does.

        One kind may never meet one of them: newcomers go to whoever has fewer connections, and who
        keeps a connection keeps its worker. Among all kinds there is somebody for each worker.
        """
        self.mark()
        any_load = next(iter(self.loads.values()))  # it asks again at every tick
        any_load.wait_until(lambda _: self.seen >= workers, PATIENCE, f"an answer of all {workers}")

    # ------------------------------------------------------------------------ figures

    @property
    def seen(self) -> set[int]:
        return set[int]().union(*(load.report.seen for load in self.loads.values()))

    @property
    def failed(self) -> int:
        return sum(load.report.failures.total() for load in self.loads.values())

    @property
    def answers(self) -> int:
        return sum(load.report.answers for load in self.loads.values())

    @property
    def workers(self) -> Counter[int]:
        return sum((load.report.workers for load in self.loads.values()), Counter[int]())

    def __repr__(self) -> str:
        return "\n".join(f"{kind}: {load.report}" for kind, load in self.loads.items())


def _at_a_time(kind: str) -> int:
    words = KINDS[kind]
    streams: int = words.get("streams", 4) if words.get("http2") else 1
    return streams * int(words["connections"])


def _load(port: int, tls: trustme.CA | None, words: dict[str, Any]) -> Steady:
    body = BODIES[words.get("path", "/")]
    return Steady(port, tls=tls, expect=lambda got: got == body, **words)
