"""The loads of the WebSocket rows: websocket_load.c does the work, this starts it and reads it.

The server's CPU is read when every connection is open and again when every answer is in: opening
and closing are in no figure but that of the handshakes.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.load import PATIENCE, Address, Meter, Report, VoidError
from bench.websocket_probe import OFFER, Message, Probe, compress

HERE = Path(__file__).parent
SOURCE = HERE / "websocket_load.c"
SOURCES = (SOURCE, HERE / "websocket_tools.h")
PROGRAM = HERE.parent / "build" / "bench" / "websocket_load"
COMPILERS = ("cc", "gcc", "clang")


class NoCompilerError(Exception):
    """The load generator cannot be made here; the message says what is missing."""


def generator() -> Path:
    """The load generator, compiled if it is older than its source."""
    return compiled(SOURCES, PROGRAM)


def compiled(sources: tuple[Path, ...], program: Path) -> Path:
    """The first of the sources as a program; the others are what it includes."""
    if program.exists() and program.stat().st_mtime > max(s.stat().st_mtime for s in sources):
        return program
    named = shlex.split(os.environ.get("CC", ""))
    found = named or [name for name in COMPILERS if shutil.which(name)][:1]
    if not found or not shutil.which(found[0]):
        raise NoCompilerError(
            "a C compiler is missing, for the load generator of the WebSocket rows. "
            "Install one (Debian: apt-get install gcc libc6-dev)."
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = Path(folder) / program.name
        command = [*found, "-std=c11", "-O2", "-Wall", "-Wextra", str(sources[0]), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoCompilerError(f"the load generator does not compile: {done.stderr.strip()}")
        # Into its place in one step: another run may be about to start the old one.
        made.replace(program)
    return program


def read_line(line: str, kind: str) -> dict[str, Any]:
    """`READY {...}` or `REPORT {...}` of the load generator; VoidError with whatever it found."""
    word, _, text = line.partition(" ")
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise VoidError(f"the load generator gave no report: {line.strip()[-300:]!r}")
    if "error" in told:
        raise VoidError(str(told["error"]))
    if word != kind:
        raise VoidError(f"the load generator said {word}, not {kind}")
    return told


def read_report(told: dict[str, Any]) -> Report:
    """What a round of the load generator came to; VoidError if nothing was answered in it."""
    if not told["done"]:
        raise VoidError("no answer in a whole round")
    extra = {
        "load_busy": told["cpu_seconds"] / told["seconds"],
        "load_cpu_us": told["cpu_seconds"] / told["done"] * 1e6,
    }
    return Report(told["done"], told["seconds"], told["p50_us"], told["p99_us"], extra)


class Generator:
    """The load generator with all its connections open; leaving closes them."""

    def __init__(self, address: Address, mode: str, **options: object) -> None:
        self._prepare(generator(), address, {"mode": mode, **options})

    def _prepare(self, program: Path, address: Address, options: Mapping[str, object]) -> None:
        told = {"port": address.port, "path": address.path, **options}
        self._command = [str(program), *(f"{name}={value}" for name, value in told.items())]
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Generator:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        try:
            self.ready = self._read("READY")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._process.stdout.close()

    def play(self) -> dict[str, Any]:
        """One round."""
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), b"go\n")
        except BrokenPipeError:
            pass  # it has found something wrong and said so before it ended
        return self._read("REPORT")

    def _read(self, kind: str) -> dict[str, Any]:
        # It waits for nothing longer than PATIENCE, so there is always a line.
        assert self._process.stdout is not None
        return read_line(self._process.stdout.readline(), kind)


@dataclass(frozen=True, slots=True)
class Echo:
    """`message` goes out and must come back, on each connection, `depth` of them in flight."""

    connections: int
    message: bytes
    text: bool = False
    deflate: bool = False
    depth: int = 1

    def check(self, address: Address) -> str:
        """One message looked at closely; returns what was agreed on and how it came back."""
        agreed, answer = self._answer(address)
        if not self.deflate:
            return "WebSocket"
        size = len(self.message)
        if not answer.compressed:
            return f"{agreed}; but a message of {size:,} bytes comes uncompressed"
        return f"{agreed}; {size:,} bytes come as {len(answer.payload):,}"

    def run(self, address: Address, seconds: float, meter: Meter) -> Report:
        """One round."""
        _, answer = self._answer(address)
        with tempfile.TemporaryDirectory() as folder:
            message, back = Path(folder) / "message", Path(folder) / "answer"
            message.write_bytes(self._sent())
            back.write_bytes(answer.payload)
            options = {
                "connections": self.connections,
                "seconds": seconds,
                "depth": self.depth,
                "message": message,
                "answer": back,
                "text": int(self.text),
                "deflate": int(self.deflate),
                "plain": int(not answer.compressed),
            }
            with Generator(address, "echo", **options) as load, meter:
                told = load.play()
        return read_report(told)

    def _sent(self) -> bytes:
        return compress(self.message) if self.deflate else self.message

    def _answer(self, address: Address) -> tuple[str, Message]:
        """What is agreed on and the answer to every message, twice to be sure that it is."""
        with Probe(address, offer=OFFER if self.deflate else "") as probe:
            if self.deflate:
                _must_compress_each_alone(probe.agreed)
            answers = []
            for _ in range(2):
                probe.send(self._sent(), text=self.text, compressed=self.deflate)
                answers.append(probe.receive())
        for answer in answers:
            if answer.content != self.message or answer.text is not self.text:
                raise VoidError(f"answered another message: {answer.content[:60]!r}")
        if answers[0] != answers[1]:
            raise VoidError("compresses the same message differently, though without context")
        return probe.agreed, answers[0]


def _must_compress_each_alone(agreed: str) -> None:
    words = [word.strip() for word in agreed.split(";")]
    if words[0] != "permessage-deflate":
        raise VoidError("does not compress: permessage-deflate was offered and not agreed to")
    if "server_no_context_takeover" not in words:
        raise VoidError(f"does not compress each message on its own: agreed to {agreed!r}")


@dataclass(frozen=True, slots=True)
class Handshakes:
    """Opens, has its 101, resets; `at_once` of them at any time."""

    at_once: int

    def check(self, address: Address) -> str:
        """One handshake looked at closely."""
        with Probe(address):
            return "WebSocket"

    def run(self, address: Address, seconds: float, meter: Meter) -> Report:
        """One round."""
        options = {"connections": self.at_once, "seconds": seconds}
        with Generator(address, "handshakes", **options) as load, meter:
            told = load.play()
        return read_report(told)


@dataclass(frozen=True, slots=True)
class Fanout:
    """`message` comes in on one connection and must go out on all the others; then the next."""

    connections: int
    message: bytes

    def check(self, address: Address) -> str:
        """One message from one to two others."""
        with Probe(address) as speaker, Probe(address) as one, Probe(address) as other:
            speaker.send(self.message, text=True)
            for listener in (one, other):
                heard = listener.receive()
                if heard != Message(text=True, compressed=False, payload=self.message):
                    raise VoidError(f"delivered another message: {heard.payload[:60]!r}")
        return "WebSocket"

    def run(self, address: Address, seconds: float, meter: Meter) -> Report:
        """One round."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.message)
            file.flush()
            options = {"connections": self.connections, "seconds": seconds, "text": 1}
            with Generator(address, "fanout", message=file.name, **options) as load:
                meter.settle()
                with meter:
                    told = load.play()
        # Thousands that leave are work too, and not the next round's.
        meter.settle()
        report = read_report(told)
        extra = {
            **report.extra,
            "last_ms": report.p50_us / 1e3,
            "broadcasts": told["broadcasts"],
        }
        return Report(report.requests, report.seconds, report.p50_us, report.p99_us, extra)


@dataclass(frozen=True, slots=True)
class Held:
    """Connections that are open, and that is all."""

    connections: int

    def check(self, address: Address) -> str:
        """One handshake looked at closely."""
        with Probe(address):
            return "WebSocket"

    def hold(self, address: Address, connections: int) -> Generator:
        """So many open connections, their pings answered; `play` fails if one was closed."""
        return Generator(address, "hold", connections=connections)


def records(size: int) -> bytes:
    """JSON as an API sends it, cut to the byte: the same in every run."""
    chance = random.Random(6455)
    names = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Ken", "Frances")
    text = '{"orders":['
    while len(text) < size:
        item = {
            "id": chance.randrange(10_000_000),
            "customer": f"{chance.choice(names)} {chance.choice(names)}son",
            "total": round(chance.uniform(1, 900), 2),
            "currency": chance.choice(("EUR", "GBP", "SEK")),
            "paid": chance.random() < 0.8,
            "placed": f"2026-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}T"
            f"{chance.randrange(24):02}:{chance.randrange(60):02}:00Z",
            "note": "".join(chance.choice("aeiourstnlmd ") for _ in range(chance.randrange(24))),
        }
        text += json.dumps(item, separators=(",", ":")) + ","
    return text[:size].encode()
