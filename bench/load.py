"""Loads: something that asks a server for a while and says how many answers were good.

`check` is one request by the harness itself, the answer looked at byte by byte; `run` is a round
by the load generator. Either raises `VoidError` at the first thing that is not right.
"""

from __future__ import annotations

import http.client
import json
import math
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

LUA = Path(__file__).parent / "lua"
REPORT = "REPORT "
# wrk counts an answer later than this as an error; a server on a busy machine may be slow.
PATIENCE = 10


class VoidError(Exception):
    """This row says nothing about this server; the message says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server of a row answers."""

    port: int
    path: str
    tls: bool

    @property
    def url(self) -> str:
        """As the load generator wants it."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Report:
    """A round without a single error. `p50_us`, `p99_us`: 0 where the generator does not tell."""

    requests: int
    seconds: float
    p50_us: float = 0.0
    p99_us: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)


class Meter:
    """The server's CPU time over what is done inside `with`; a load knows best what that is.

    `amid` is for who wants to look at the server while all is going on; wrk's rounds call it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        settle: Callable[[], None],
        amid: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self.settle = settle
        self.amid = amid
        self.used = 0.0

    def __enter__(self) -> None:
        self._before = self._clock()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What ending the last requests costs belongs to them. A fixed moment: waiting for
        # idleness would bill a server that polls for the wait.
        time.sleep(0.01)
        self.used = self._clock() - self._before


class Check(Protocol):
    """What can at least be asked once."""

    def check(self, address: Address) -> str:
        """One request looked at closely; returns the protocol that was agreed on."""


class Load(Check, Protocol):
    """What a row is loaded with."""

    def run(self, address: Address, seconds: float, meter: Meter) -> Report:
        """One round; what the meter saw is what it cost the server."""


@dataclass(frozen=True, slots=True)
class Wrk:
    """wrk, one thread: `scripts` (bench/lua) shape the request, `body` bytes go up with it.

    A good answer is 200, holds `expect` and has at least `length` bytes of body.
    """

    connections: int
    expect: bytes
    length: int
    scripts: tuple[str, ...] = ()
    body: int = 0

    def check(self, address: Address) -> str:
        """One request looked at closely; returns the protocol that was agreed on."""
        connection = _connect(address)
        try:
            if self.body:
                connection.request("POST", address.path, bytes(self.body))
            else:
                connection.request("GET", address.path)
            secured = _negotiated(connection)
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as error:
            raise VoidError(f"the answer is no HTTP: {type(error).__name__} {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise VoidError(f"answered {answer.status} {answer.reason}")
        if self.expect not in body or len(body) < self.length:
            raise VoidError(f"answered {len(body)} bytes, not the expected ones: {body[:60]!r}")
        return secured

    def run(self, address: Address, seconds: float, meter: Meter) -> Report:
        """One round, its connections' opening and closing included.

        wrk's -d knows whole seconds only, so SIGINT ends it: it still reports.
        """
        names = ("report", *self.scripts)
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write("\n".join((LUA / f"{name}.lua").read_text() for name in names))
            script.flush()
            command = ["wrk", "-t1", f"-c{self.connections}", f"-d{math.ceil(seconds) + 60}s"]
            command += ["--timeout", f"{PATIENCE}s", "-s", script.name, address.url]
            with meter:
                output = _for_a_while(command, seconds, meter.amid)
        return read_report(output, self.length)


def read_report(output: str, length: int) -> Report:
    """wrk's output -> a report; VoidError if anything at all went wrong in it."""
    lines = [line for line in output.splitlines() if line.startswith(REPORT)]
    if not lines:
        raise VoidError(f"wrk gave no report: {output.strip()[-300:]}")
    told = json.loads(lines[-1][len(REPORT) :])
    wrong = {
        "answers that were not 2xx": told["status"],
        "connections refused": told["connect"],
        "read errors": told["read"],
        "write errors": told["write"],
        f"answers later than {PATIENCE} s": told["timeout"],
    }
    reasons = [f"{count:,} {what}" for what, count in wrong.items() if count]
    if reasons:
        raise VoidError(f"{', '.join(reasons)} beside {told['requests']:,} answers")
    if not told["requests"]:
        raise VoidError("no answer in a whole round")
    # wrk takes a redirect for a success, so the bytes must be there as well.
    if told["bytes"] < told["requests"] * length:
        raise VoidError(f"{told['requests']:,} answers held only {told['bytes']:,} bytes")
    seconds = told["duration_us"] / 1e6
    return Report(told["requests"], seconds, told["p50_us"], told["p99_us"])


def _for_a_while(command: list[str], seconds: float, amid: Callable[[], None]) -> str:
    """Run, SIGINT after `seconds`, and give what it wrote. `amid` is called just before that."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as generator:
        try:
            time.sleep(seconds)
            amid()
            generator.send_signal(signal.SIGINT)
            output, _ = generator.communicate(timeout=PATIENCE + 20)
        except BaseException:
            generator.kill()
            raise
    return output


def _connect(address: Address) -> http.client.HTTPConnection:
    if not address.tls:
        return http.client.HTTPConnection("127.0.0.1", address.port, timeout=PATIENCE)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", address.port, timeout=PATIENCE, context=context)


def _negotiated(connection: http.client.HTTPConnection) -> str:
    """Only like is compared with like: anything but TLS 1.3 voids the row."""
    if not isinstance(connection.sock, ssl.SSLSocket):
        return "HTTP/1.1"
    version, cipher = connection.sock.version(), connection.sock.cipher()
    if version != "TLSv1.3" or cipher is None:
        raise VoidError(f"speaks {version}, and the row is about TLSv1.3")
    return f"HTTP/1.1 over {version}, {cipher[0]}"
