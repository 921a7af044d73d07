"""Who is measured, and how each is started: no access log, the fastest parts it has.

One worker, unless the row's options say how many. Only options that make a server faster or let it
take part are given; the rest is its default.
`make bench SERVERS="tidegate tidegate-reader uvicorn"` picks by these names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of a certificate made for this run."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Place:
    """What to serve and where."""

    app: str
    port: int
    tls: Certificate | None
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Server:
    """`family` names the server a variant belongs to; `parts` are the packages to report."""

    name: str
    command: Callable[[Place], list[str]]
    parts: tuple[str, ...]
    family: str

    @property
    def ours(self) -> bool:
        """Whether this is Tidegate."""
        return self.family == "tidegate"

    def versions(self) -> dict[str, str]:
        """What is installed; a package that is missing says so."""
        return {part: _version(part) for part in self.parts}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _tls(place: Place, certificate: str, key: str) -> list[str]:
    if place.tls is None:
        return []
    return [certificate, place.tls.certificate, key, place.tls.key]


def _tidegate(*variant: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [
            *_python("tidegate", place.app, "--port", str(place.port), "--no-access-log"),
            *variant,
            *_tls(place, "--ssl-certfile", "--ssl-keyfile"),
            *place.options,
        ]

    return command


def _uvicorn(place: Place) -> list[str]:
    return [
        *_python("uvicorn", place.app, "--port", str(place.port), "--no-access-log"),
        *("--loop", "uvloop", "--http", "httptools", "--log-level", "warning"),
        *_tls(place, "--ssl-certfile", "--ssl-keyfile"),
        *place.options,
    ]


def _granian(place: Place) -> list[str]:
    return [
        *_python("granian", place.app, "--port", str(place.port), "--interface", "asgi"),
        *("--workers", "1", "--loop", "uvloop", "--http", "1", "--no-ws"),
        *("--log-level", "warning"),
        *_tls(place, "--ssl-certificate", "--ssl-keyfile"),
        *place.options,
    ]


def _hypercorn(place: Place) -> list[str]:
    return [
        *_python("hypercorn", place.app, "--bind", f"127.0.0.1:{place.port}"),
        *("--workers", "1", "--worker-class", "uvloop", "--log-level", "warning"),
        *_tls(place, "--certfile", "--keyfile"),
        *place.options,
    ]


def _daphne(place: Place) -> list[str]:
    if place.tls is None:
        where = ["--port", str(place.port)]
    else:
        files = f"privateKey={place.tls.key}:certKey={place.tls.certificate}"
        where = ["--endpoint", f"ssl:{place.port}:{files}:interface=127.0.0.1"]
    return [*_python("daphne", place.app, *where, "--verbosity", "0"), *place.options]


def _gunicorn(*worker: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [
            *_python("gunicorn", place.app, "--bind", f"127.0.0.1:{place.port}"),
            *("--workers", "1", "--worker-class", *worker),
            # Between its turns it is frozen, which its watchdog must not take for a hang.
            *("--log-level", "warning", "--no-control-socket", "--timeout", "0"),
            *_tls(place, "--certfile", "--keyfile"),
            *place.options,
        ]

    return command


def _launched(name: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        files = [place.tls.certificate, place.tls.key] if place.tls else []
        where = (place.app, str(place.port), *files)
        return _python(f"bench.launch.{name}_asgi", *where, *place.options)

    return command


OURS = ("tidegate", "uvloop")
GUNICORN = ("gunicorn", "gunicorn_h1c", "uvloop")
# uvicorn's worker for gunicorn takes uvloop and httptools where they are installed.
BOTH = ("gunicorn", "uvicorn-worker", "uvicorn", "uvloop", "httptools")
UNDER = ("gunicorn", "tidegate", "uvloop")

SERVERS = {
    server.name: server
    for server in (
        Server("tidegate", _tidegate(), OURS, "tidegate"),
        Server("tidegate-uvloop", _tidegate("--loop", "uvloop"), OURS, "tidegate"),
        Server("tidegate-asyncio", _tidegate("--loop", "asyncio"), OURS, "tidegate"),
        Server("tidegate-reader", _tidegate("--poller", "reader"), OURS, "tidegate"),
        Server("tidegate-epoll", _tidegate("--poller", "epoll"), OURS, "tidegate"),
        Server("uvicorn", _uvicorn, ("uvicorn", "uvloop", "httptools"), "uvicorn"),
        Server("granian", _granian, ("granian", "uvloop"), "granian"),
        Server("fastpysgi", _launched("fastpysgi"), ("fastpysgi",), "fastpysgi"),
        Server("socketify", _launched("socketify"), ("socketify",), "socketify"),
        Server("hypercorn", _hypercorn, ("hypercorn", "uvloop"), "hypercorn"),
        Server("daphne", _daphne, ("daphne", "twisted"), "daphne"),
        Server("gunicorn", _gunicorn("asgi", "--asgi-loop", "uvloop"), GUNICORN, "gunicorn"),
        Server("gunicorn-uvicorn", _gunicorn("uvicorn_worker.UvicornWorker"), BOTH, "gunicorn"),
        Server("gunicorn-tidegate", _gunicorn("tidegate.gunicorn.Worker"), UNDER, "gunicorn"),
    )
}
