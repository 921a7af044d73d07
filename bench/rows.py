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
from bench.http2 import H2load
from bench.load import Load, Wrk
from bench.reloading import MODULE, OPTIONS
from bench.websocket import Echo, Fanout, Handshakes, Held, records
from bench.websocket_http2 import StreamEcho

BEST = "the best peer"


class Figure(Enum):
    """A figure of a sample: its key, what it is, its unit, which way is better."""

    CPU = ("cpu_us", "server CPU per request", "µs", Better.LOWER)
    MESSAGE = ("cpu_us", "server CPU per message", "µs", Better.LOWER)
    HANDSHAKE = ("cpu_us", "server CPU per handshake", "µs", Better.LOWER)
    DELIVERY = ("cpu_us", "server CPU per delivery", "µs", Better.LOWER)
    EACH = ("each_kb", "memory per open connection", "KB", Better.LOWER)
    RATE = ("rate", "requests per second", "/s", Better.HIGHER)
    MEMORY = ("worker_mb", "resident memory of the worker", "MB", Better.LOWER)
    FACTOR = ("factor", "CPU per request, with idle connections / without", "x", Better.LOWER)
    STARTUP = ("start_ms", "from start to first answer", "ms", Better.LOWER)
    RELOAD = ("reload_ms", "from a saved file to the new answer", "ms", Better.LOWER)

    def __init__(self, key: str, title: str, unit: str, better: Better) -> None:
        self.key = key
        self.title = title
        self.unit = unit
        self.better = better


class Method(Enum):
    """How one sample of one server is taken (bench.methods)."""

    REQUESTS = "load for a round"
    MEMORY = "load for a round, then look at the memory"
    WORKERS = "load for a round, look at how the workers shared it"
    IDLE = "load for a round without, then with idle connections open"
    RELOAD = "save a file, wait for the answer of the new code"
    STARTUP = "start a process, wait for its first answer, end it"
    HELD = "start a process, open connections, look at how its memory grew, end it"

    @property
    def afresh(self) -> bool:
        """Whether each sample has a process of its own."""
        return self in (Method.STARTUP, Method.HELD)


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


def quicker(times: float, peer: str) -> Target:
    """So many times the peer's messages per second, said as CPU: on a whole core it is 1 / that."""
    return Target(round(1 / times, 3), peer)


@dataclass(frozen=True, slots=True)
class Column:
    """A further figure of the samples, shown and not judged."""

    key: str
    head: str
    share: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison.

    `what` is counted per second; `most_rounds` bounds the rounds where one is as good as the next.
    """

    name: str
    title: str
    app: str
    path: str
    load: Load | Held
    servers: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    figure: Figure = Figure.CPU
    method: Method = Method.REQUESTS
    tls: bool = False
    idle: int = 0
    workers: int = 0
    what: str = "req"
    also: tuple[Column, ...] = ()
    most_rounds: int | None = None
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


# Who is told how many workers there shall be, all by the same option.
SEVERAL = ("tidegate", "uvicorn", "granian", "hypercorn", "gunicorn")


def _workers(name: str, title: str, workers: int, *peers: str) -> Row:
    return Row(
        name=name,
        title=title,
        app="bench.tally_app:plaintext",
        path="/",
        load=PLAIN,
        servers=("tidegate", *peers),
        method=Method.WORKERS,
        workers=workers,
        also=(
            Column("spread", "req max/mean"),
            Column("spread_connections", "conn max/mean"),
            Column("overhead_us", "supervisor"),
        ),
        options={family: ("--workers", str(workers)) for family in SEVERAL},
    )


# All workers share one core with each other: what is compared is cost and spread, not scaling.
WORKER_ROWS = (
    _workers("workers-1", "one worker: GET 13 bytes, 64 connections kept alive", 1),
    _workers("workers-2", "two workers on one core, the same load", 2),
    _workers("workers-4", "four workers on one core, the same load", 4),
    _workers(
        "workers-peers",
        "two workers of each on one core, the same load",
        2,
        *("uvicorn", "granian", "gunicorn", "gunicorn-uvicorn", "gunicorn-tidegate"),
    ),
)

# Who speaks WebSocket. uvicorn has three implementations; the one on the websockets library
# without its input and output is the quickest by far, and its default.
SOCKETS = ("tidegate", "uvicorn", "granian", "socketify", "hypercorn", "daphne")
SOCKET_OPTIONS = {
    "uvicorn": ("--ws", "websockets-sansio"),
    "granian": ("--ws",),
}
# The others compress by default, or (daphne) cannot be told to.
COMPRESSING = {**SOCKET_OPTIONS, "socketify": ("--compress",)}
# granian lets in as many as its backlog is long.
CROWDED = {**SOCKET_OPTIONS, "granian": ("--ws", "--backlog", "20000", "--backpressure", "20000")}

LOAD_BUSY = Column("load_busy", "load", share=True)
LARGE = 64 << 10
SMALL_BINARY = bytes(range(240, 256))
SMALL_TEXT = b'{"id":7,"v":1.5}'
NEWS = b'{"from":"ada","room":"harbour","text":"high tide at six tonight"}'


def _echo(name: str, title: str, load: Echo, *targets: Target) -> Row:
    return Row(
        name=name,
        title=title,
        app="bench.apps:echo",
        path="/",
        load=load,
        servers=SOCKETS,
        targets=targets,
        figure=Figure.MESSAGE,
        what="msg",
        also=(LOAD_BUSY,),
        options=COMPRESSING if load.deflate else SOCKET_OPTIONS,
    )


def _held(connections: int) -> Row:
    return Row(
        name=f"ws-idle-{connections}",
        title=f"{connections:,} open WebSockets, the application waiting in receive()",
        app="bench.apps:echo",
        path="/",
        load=Held(connections),
        servers=SOCKETS,
        targets=(Target(6.0),),
        figure=Figure.EACH,
        method=Method.HELD,
        most_rounds=3,
        options=CROWDED,
    )


WEBSOCKET_ROWS = (
    _echo(
        "ws-echo",
        "WebSocket echo of 16 bytes, binary, 64 connections",
        Echo(64, SMALL_BINARY),
        quicker(1.10, "socketify"),
        quicker(1.5, "uvicorn"),
    ),
    _echo(
        "ws-echo-64k",
        "WebSocket echo of 64 KiB, binary, 8 connections",
        Echo(8, bytes(range(256)) * (LARGE // 256)),
        quicker(1.10, "socketify"),
    ),
    _echo(
        "ws-echo-deflate",
        "WebSocket echo of 16 bytes of JSON, permessage-deflate, 64 connections",
        Echo(64, SMALL_TEXT, text=True, deflate=True),
    ),
    _echo(
        "ws-echo-64k-deflate",
        "WebSocket echo of 64 KiB of JSON, permessage-deflate, 8 connections",
        Echo(8, records(LARGE), text=True, deflate=True),
    ),
    Row(
        name="ws-handshakes",
        title="WebSocket opened, accepted and reset, 32 at a time",
        app="bench.apps:echo",
        path="/",
        load=Handshakes(32),
        servers=SOCKETS,
        figure=Figure.HANDSHAKE,
        what="opened",
        also=(LOAD_BUSY,),
        options=SOCKET_OPTIONS,
    ),
    _held(4_000),
    _held(15_000),
    Row(
        name="ws-fanout",
        title="one WebSocket message to 5,000 others, from one process",
        app="bench.apps:fanout",
        path="/",
        load=Fanout(5_000, NEWS),
        servers=SOCKETS,
        figure=Figure.DELIVERY,
        what="sent",
        also=(LOAD_BUSY, Column("last_ms", "ms to the last")),
        options=CROWDED,
    ),
    Row(
        name="ws-echo-h2",
        title="WebSocket echo of 16 bytes over HTTP/2, binary, 8 connections x 8 streams",
        app="bench.apps:echo",
        path="/",
        load=StreamEcho(8, 8, SMALL_BINARY),
        # Nobody else has extended CONNECT (RFC 8441).
        servers=("tidegate", "hypercorn"),
        figure=Figure.MESSAGE,
        what="msg",
        also=(LOAD_BUSY,),
    ),
)

# Who speaks HTTP/2 with ASGI behind it. uvicorn's is an experiment that ends a connection after
# 4,096 requests; daphne's needs TLS and a part of Twisted that is no longer kept up.
STREAMING = ("tidegate", "granian", "hypercorn")
STREAM_OPTIONS = {"granian": ("--http", "2")}


def _http2(name: str, title: str, load: H2load, *targets: Target, tls: bool = False) -> Row:
    app = {"upload": "upload", "download": "download"}.get(name.removeprefix("h2-"), "plaintext")
    return Row(
        name=name,
        title=title,
        app=f"bench.apps:{app}",
        path="/",
        load=load,
        servers=STREAMING,
        targets=targets,
        tls=tls,
        also=(Column("head_bytes", "head bytes"),),
        options=STREAM_OPTIONS,
    )


HTTP2_ROWS = (
    _http2(
        "h2",
        "HTTP/2: GET 13 bytes, 16 connections x 32 streams",
        H2load(16, 32, HELLO, len(HELLO)),
        Target(0.60, "granian"),
    ),
    _http2(
        "h2-one",
        "HTTP/2: GET 13 bytes, one stream at a time on one connection",
        H2load(1, 1, HELLO, len(HELLO)),
    ),
    _http2(
        "h2-tls",
        "HTTP/2: GET 13 bytes over TLS 1.3, 16 connections x 32 streams",
        H2load(16, 32, HELLO, len(HELLO)),
        tls=True,
    ),
    _http2(
        "h2-upload",
        "HTTP/2: POST 1 MiB, read to the end, 8 connections",
        H2load(8, 1, b"1048576", 7, body=UPLOAD),
    ),
    _http2(
        "h2-download",
        "HTTP/2: GET 10 MiB in one body, 8 connections",
        H2load(8, 1, bytes(1024), len(DOWNLOAD)),
    ),
)

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
        name="reload",
        title="--reload of a small FastAPI project: a saved file to the new answer",
        app=f"{MODULE}:application",
        path="/",
        load=Wrk(1, expect=b"1001", length=4),
        servers=tuple(OPTIONS),
        figure=Figure.RELOAD,
        method=Method.RELOAD,
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
    *WORKER_ROWS,
    *HTTP2_ROWS,
    *WEBSOCKET_ROWS,
)
