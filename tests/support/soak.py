"""What the soak tests share: a swarm of hostile clients, the server they work on, and the table.

The server is a process of its own, whose memory is watched; a well-behaved client, in another
process, goes on asking all the while and tells how long each answer took. Loopback only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
ANSWER_WITHIN = 0.250  # seconds, the longest wait of the well-behaved client
GROWTH = 64 << 20  # bytes the server may grow by
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
# A server's close frame with a code; what the swarms send has no byte of its first two in it.
CLOSE_FRAME = re.compile(rb"\x88[\x02-\x7d]([\x03-\x13].)", re.DOTALL)


@dataclass
class Swarm:
    """Hostile clients: each sends `first`, then `drip` every second or, flooding, without end; or
    it leaves without a word, once it has "sent" it all or was "answered".

    Whoever the server gets rid of, or has left, is replaced by a new one.
    """

    size: int
    first: bytes = b""
    drip: bytes = b""
    flood: bool = False
    reads: bool = True
    leaves: str = ""
    receive_buffer: int = 0
    marks: re.Pattern[bytes] = CLOSE_FRAME  # what ends in a code that is counted
    opened: int = 0
    ended: int = 0
    sent: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)  # of WebSocket close frames, say

    def run(self, address: tuple[str, int], seconds: float) -> None:
        self._address = address
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._left: dict[int, bytes] = {}
        until = time.monotonic() + seconds
        drip_at = time.monotonic() + 1
        while (now := time.monotonic()) < until:
            for _ in range(min(200, self.size - len(self._socks))):
                self._open()
            for fd, ready in self._poll.poll(0.02, 1000):
                self._on_ready(fd, ready)
            if self.drip and not self.flood and now >= drip_at:
                drip_at += 1
                for fd in list(self._socks):
                    self._send(fd, self.drip)
        for fd in list(self._socks):
            self._close(fd)
        self._poll.close()

    def _open(self) -> None:
        sock = socket.socket()
        if self.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._address)
        self._socks[sock.fileno()] = sock
        self._left[sock.fileno()] = self.first
        self._poll.register(sock.fileno(), select.EPOLLOUT | self._in)
        self.opened += 1

    @property
    def _in(self) -> int:
        return select.EPOLLIN if self.reads else 0

    def _on_ready(self, fd: int, ready: int) -> None:
        if fd in self._socks and ready & (select.EPOLLERR | select.EPOLLHUP):
            self._end(fd)
        if fd in self._socks and ready & select.EPOLLOUT:
            self._write(fd)
        if fd in self._socks and ready & select.EPOLLIN:
            self._read(fd)

    def _write(self, fd: int) -> None:
        if not self._left[fd] and self.flood:
            self._left[fd] = self.drip
        if self._left[fd]:
            sent = self._send(fd, self._left[fd])
            if fd in self._left:
                self._left[fd] = self._left[fd][sent:]
        elif not self.flood:
            self._poll.modify(fd, self._in)
        if self.leaves == "sent" and self._left.get(fd) == b"":
            self._close(fd)

    def _send(self, fd: int, data: bytes) -> int:
        try:
            sent = self._socks[fd].send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._end(fd)
            return 0
        self.sent += sent
        return sent

    def _read(self, fd: int) -> None:
        try:
            data = self._socks[fd].recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for status in STATUS.findall(data):
            self.statuses[int(status)] = self.statuses.get(int(status), 0) + 1
        for code in self.marks.findall(data):
            number = int.from_bytes(code, "big")
            self.codes[number] = self.codes.get(number, 0) + 1
        if not data:
            self._end(fd)
        elif self.leaves == "answered":
            self._close(fd)

    def _end(self, fd: int) -> None:
        self.ended += 1
        self._close(fd)

    def _close(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._left[fd]
        self._socks.pop(fd).close()


class Server:
    """`python -m tidegate` on a listening socket of ours, with more words of its command line.

    `warm` takes the server through what every process takes memory for once, before the figures.
    """

    def __init__(
        self,
        folder: Path,
        app: str,
        warm: Callable[[tuple[str, int]], None],
        options: tuple[str, ...] = (),
        descriptors: int = 0,
    ) -> None:
        (folder / "soaked.py").write_text(app)
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.address: tuple[str, int] = listener.getsockname()
        limit = f"ulimit -n {descriptors} && " if descriptors else ""
        tidegate = f"{sys.executable} -m tidegate soaked:app --fd {listener.fileno()}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f"{limit} exec {tidegate} --no-access-log {' '.join(options)}"],
                pass_fds=[listener.fileno()],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
            )
        listener.close()
        warm(self.address)
        self.before = self._memory("VmRSS")

    def growth(self) -> int:
        """How much more it held at its worst than before the attack."""
        return self._memory("VmHWM") - self.before

    def kept(self) -> int:
        """How much more it holds now."""
        return self._memory("VmRSS") - self.before

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def stop(self) -> str:
        """Ask it to end, and insist; what it has logged."""
        self.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self.log.read_text()


HEAD = ("attack", "opened", "ended", "answers", "asked", "p50 ms", "p99 ms", "max ms", "+MB")
ROW = "{:<34} {:>7} {:>7}  {:<22} {:>6} {:>8} {:>8} {:>8} {:>7}"


@contextlib.contextmanager
def table() -> Iterator[None]:
    """The head of the table; as many descriptors as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("\n" + ROW.format(*HEAD))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass(frozen=True)
class Good:
    """The well-behaved client: a program that is given host, port, and whether to ask on `fresh`
    connections too. It says "ready", asks until its input ends, and prints the waits as JSON."""

    program: str
    fresh: bool = True


def under(swarm: Swarm, server: Server, seconds: float, good: Good) -> list[float]:
    """Let the swarm loose; how long the well-behaved client waited for each answer, sorted."""
    host, port = server.address
    client = subprocess.Popen(
        [sys.executable, "-c", good.program, host, str(port), "fresh" if good.fresh else "kept"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        swarm.run(server.address, seconds)
        out, _ = client.communicate(b"\n", timeout=25)
        assert client.returncode == 0, "the well-behaved client was not served"
    finally:
        client.kill()
        client.wait()
    return sorted(json.loads(out))


def report(name: str, swarm: Swarm, took: list[float], growth: int) -> None:
    told = {**swarm.codes, **{at: n for at, n in swarm.statuses.items() if at != 101}}
    statuses = " ".join(f"{code}:{times}" for code, times in sorted(told.items()))
    figures = [
        f"{1000 * at:.1f}" for at in (took[len(took) // 2], took[-len(took) // 100], took[-1])
    ]
    print(
        ROW.format(
            name,
            swarm.opened,
            swarm.ended,
            statuses[:22],
            len(took),
            *figures,
            f"{growth / 1e6:.1f}",
        )
    )


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Ended in the end, whatever happens; it must not have failed anywhere."""
    try:
        yield server
    finally:
        said = server.stop()
    assert "Traceback" not in said, said[said.find("Traceback") :][:3000]


def withstands(name: str, server: Server, swarm: Swarm, seconds: float, good: Good) -> None:
    """The attack, its row in the table, and the two limits."""
    took = under(swarm, server, seconds, good)
    growth = server.growth()
    report(name, swarm, took, growth)
    assert took[-1] < ANSWER_WITHIN
    assert growth < GROWTH
