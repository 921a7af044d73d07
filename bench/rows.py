"""What is measured, as data. A new row is a new entry here, and nothing else.

A row names the application, how it is loaded (`load`), which of a sample's figures is compared
(`figure`), how a sample is taken (`method`), who takes part and what Tidegate must reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from bench.apps import DOWNLOAD, EVENT, EVENTS, HELLO, UPLOAD
from bench.figures import Better
from bench.load import Load, Wrk

BEST = "the best peer"


class Figure(Enum):
    """A figure of a sample: its key, what it is, its unit, which way is better."""

    CPU = ("cpu_us", "server CPU per request", "µs", Better.LOWER)
    RATE = ("rate", "requests per second", "/s", Better.HIGHER)
    MEMORY = ("worker_mb", "resident memory of the worker", "MB", Better.LOWER)
    FACTOR = ("factor", "CPU per request, with idle connections / without", "x", Better.LOWER)
    STARTUP = ("start_ms", "from start to first answer", "ms", Better.LOWER)

    def __init__(self, key: str, title: str, unit: str, better: Better) -> None:
        self.key = key
        self.title = title
        self.unit = unit
        self.better = better


class Method(Enum):
    """How one sample of one server is taken (bench.methods)."""

    REQUESTS = "load for a round"
    MEMORY = "load for a round, then look at the memory"
    IDLE = "load for a round without, then with idle connections open"
    STARTUP = "start a process, wait for its first answer, end it"


@dataclass(frozen=True, slots=True)
class Target:
    """What Tidegate must reach.

    `limit` bounds the ratio to `peer` (a server, or BEST), or, with no peer, the figure itself.
    `before_eager_tasks` is the limit on Python 3.11; with `tie`, undecided is good enough.
    """

    limit: float
    peer: str = ""
    before_eager_tasks: float | None = None
    tie: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison."""

    name: str
    title: str
    app: str
    path: str
    load: Load
    servers: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    figure: Figure = Figure.CPU
    method: Method = Method.REQUESTS
    tls: bool = False
    idle: int = 0
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


EVERYBODY = (
    "tidegate",
    "uvicorn",
    "granian",
    "fastpysgi",
    "socketify",
    "hypercorn",
    "daphne",
    "gunicorn",
)
FASTEST = ("tidegate", "uvicorn", "granian", "fastpysgi")
STEADY = ("tidegate", "uvicorn", "granian", "hypercorn", "daphne", "gunicorn")

PLAIN = Wrk(connections=64, expect=HELLO, length=len(HELLO))

# Idle connections must outlive the round, and be let in: no server's default is about ten
# thousand silent clients. Variants of Tidegate share its options (bench.servers).
ROOM_FOR_IDLE = {
    "tidegate": ("--timeout-keep-alive", "600"),
    "uvicorn": ("--timeout-keep-alive", "600"),
    "granian": ("--backlog", "16384", "--backpressure", "16384"),
    "hypercorn": ("--keep-alive", "600"),
    "gunicorn": ("--keep-alive", "600", "--worker-connections", "20000"),
}

ROWS = (
    Row(
        name="plaintext",
        title="GET 13 bytes, 64 connections kept alive",
        app="bench.apps:plaintext",
        path="/",
        load=PLAIN,
        servers=EVERYBODY,
        targets=(
            Target(0.62, "uvicorn", before_eager_tasks=1.0),
            Target(0.58, "granian", before_eager_tasks=1.0),
            Target(0.78, "fastpysgi", before_eager_tasks=1.0),
        ),
    ),
    Row(
        name="browser",
        title="the same with a browser's twelve header fields",
        app="bench.apps:plaintext",
        path="/",
        load=Wrk(64, expect=HELLO, length=len(HELLO), scripts=("browser",)),
        servers=FASTEST,
    ),
    Row(
        name="varied",
        title="the twelve fields, one of them new in every request",
        app="bench.apps:plaintext",
        path="/",
        load=Wrk(64, expect=HELLO, length=len(HELLO), scripts=("browser", "varied")),
        servers=FASTEST,
    ),
    Row(
        name="tls",
        title="GET 13 bytes over TLS 1.3, 64 connections kept alive",
        app="bench.apps:plaintext",
        path="/",
        load=PLAIN,
        servers=("tidegate", "uvicorn", "granian", "hypercorn", "gunicorn"),
        targets=(Target(0.75, "granian"),),
        tls=True,
    ),
    Row(
        name="upload",
        title="POST 1 MiB, read to the end, 8 connections",
        app="bench.apps:upload",
        path="/",
        load=Wrk(8, expect=b"1048576", length=7, scripts=("upload",), body=UPLOAD),
        servers=STEADY,
        targets=(Target(0.95, "granian"),),
    ),
    Row(
        name="download",
        title="GET 10 MiB in one body, 8 connections",
        app="bench.apps:download",
        path="/",
        load=Wrk(8, expect=bytes(1024), length=len(DOWNLOAD)),
        servers=STEADY,
        targets=(Target(0.95, "hypercorn"),),
    ),
    Row(
        name="events",
        title="1,000 events of 9 bytes in one response, 8 connections",
        app="bench.apps:events",
        path="/",
        load=Wrk(8, expect=EVENT * 2, length=len(EVENT) * EVENTS),
        servers=STEADY,
        targets=(Target(0.90, "uvicorn"),),
    ),
    Row(
        name="memory",
        title="one worker after at least 20,000 requests",
        app="bench.apps:plaintext",
        path="/",
        load=PLAIN,
        servers=EVERYBODY,
        targets=(Target(26.0),),
        figure=Figure.MEMORY,
        method=Method.MEMORY,
    ),
    Row(
        name="idle",
        title="the cost of 10,000 idle connections to a request",
        app="bench.apps:plaintext",
        path="/",
        load=PLAIN,
        servers=("tidegate", "uvicorn", "granian"),
        targets=(Target(1.15),),
        figure=Figure.FACTOR,
        method=Method.IDLE,
        idle=10_000,
        options=ROOM_FOR_IDLE,
    ),
    Row(
        name="startup",
        title="start of the process to its first answer",
        app="bench.apps:plaintext",
        path="/",
        load=PLAIN,
        servers=EVERYBODY,
        targets=(Target(0.70, "uvicorn"),),
        figure=Figure.STARTUP,
        method=Method.STARTUP,
    ),
    Row(
        name="django",
        title="a Django view: middleware, routing, template, 8 connections",
        app="bench.django_app:application",
        path="/orders/2026/",
        load=Wrk(8, expect=b"<td>Customer 10<td>199.00", length=300),
        servers=("tidegate", "uvicorn", "granian", "fastpysgi", "hypercorn", "gunicorn"),
        targets=(Target(1.0, BEST, tie=True),),
    ),
    Row(
        name="fastapi",
        title="a FastAPI endpoint: validated in, a model out, 64 connections",
        app="bench.fastapi_app:application",
        path="/orders/42?open=true",
        load=Wrk(64, expect=b'{"number":42,"open":true,"lines":[{"article"', length=150),
        servers=("tidegate", "uvicorn", "granian", "fastpysgi", "hypercorn", "gunicorn"),
        targets=(Target(1.0, BEST, tie=True),),
    ),
)
