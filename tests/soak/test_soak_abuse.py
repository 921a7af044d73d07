"""Abuse at full size against a real server process, with the figures: `make soak`.

A swarm of hostile clients works on the server while one well-behaved client, in a process of its
own, goes on asking. It has to be answered within 250 ms all the while, and the server must not
grow by 64 MB. Loopback only; every attack is over in less than 20 seconds.
"""

from __future__ import annotations

import contextlib
import itertools
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.raw import RawClient

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not hasattr(select, "epoll"), reason="the swarm needs epoll, and /proc"),
]

SOURCE = Path(__file__).resolve().parents[2] / "src"
ANSWER_WITHIN = 0.250  # seconds, the longest wait of the well-behaved client
GROWTH = 64 << 20  # bytes the server may grow by
LONG = 13.0  # seconds: long enough for the limits of 10 s to act on the first wave
SHORT = 6.0
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

APP = """
LARGE = b"x" * (100 << 20)
PIECE = b"x" * 65536


async def app(scope, receive, send):
    path = scope["path"]
    if path == "/upload":
        while (await receive()).get("more_body"):
            pass
    body = LARGE if path == "/large" else b"fine"
    headers = [] if path == "/endless" else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while path == "/endless":
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": body})
"""

# The well-behaved client: asks on a connection it keeps, and every fifth time on a new one, until
# its input ends; then tells how long each answer took.
GOOD = """
import json, select, socket, sys, time
host, port, fresh = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fresh"
request = b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"

def connect():
    sock = socket.create_connection((host, port), 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock

def ask(sock):
    sock.sendall(request)
    data = b""
    while not data.endswith(b"fine"):
        more = sock.recv(65536)
        assert more, "the well-behaved client was cut off"
        data += more

kept, took = connect(), []
ask(kept)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    begun = time.perf_counter()
    if fresh and len(took) % 5 == 4:
        with connect() as sock:
            ask(sock)
    else:
        ask(kept)
    took.append(time.perf_counter() - begun)
print(json.dumps(took))
"""


@dataclass
class Swarm:
    """Hostile clients: each sends `first`, then `drip` every second or, flooding, without end.

    Whoever the server gets rid of is replaced by a new one.
    """

    size: int
    first: bytes = b""
    drip: bytes = b""
    flood: bool = False
    reads: bool = True
    receive_buffer: int = 0
    opened: int = 0
    ended: int = 0
    sent: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

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
        for status in re.findall(rb"HTTP/1\.1 (\d{3})", data):
            self.statuses[int(status)] = self.statuses.get(int(status), 0) + 1
        if not data:
            self._end(fd)

    def _end(self, fd: int) -> None:
        self.ended += 1
        self._close(fd)

    def _close(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._left[fd]
        self._socks.pop(fd).close()


class Server:
    """`python -m tidegate` on a listening socket of ours."""

    def __init__(self, folder: Path, descriptors: int = 0) -> None:
        (folder / "soaked.py").write_text(APP)
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.address: tuple[str, int] = listener.getsockname()
        limit = f"ulimit -n {descriptors} && " if descriptors else ""
        tidegate = f"{sys.executable} -m tidegate soaked:app --fd {listener.fileno()}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f"{limit} exec {tidegate} --no-access-log"],
                pass_fds=[listener.fileno()],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
            )
        listener.close()
        with RawClient(self.address, 20) as client:
            for _ in range(200):  # what every process takes once is taken before the first figure
                client.send(GET)
                assert client.read_response().status == 200
        self.before = self._memory("VmRSS")

    def growth(self) -> int:
        """How much more it held at its worst than before the attack."""
        return self._memory("VmHWM") - self.before

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


HEAD = ("attack", "opened", "ended", "statuses", "asked", "p50 ms", "p99 ms", "max ms", "+MB")
ROW = "{:<26} {:>7} {:>7}  {:<22} {:>6} {:>8} {:>8} {:>8} {:>7}"


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """The head of the table; as many descriptors as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("\n" + ROW.format(*HEAD))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def under(swarm: Swarm, server: Server, seconds: float, *, fresh: bool = True) -> list[float]:
    """Let the swarm loose; how long the well-behaved client waited for each answer, sorted."""
    host, port = server.address
    good = subprocess.Popen(
        [sys.executable, "-c", GOOD, host, str(port), "fresh" if fresh else "kept"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert good.stdout is not None
        assert good.stdout.readline() == b"ready\n"
        swarm.run(server.address, seconds)
        out, _ = good.communicate(b"\n", timeout=25)
        assert good.returncode == 0, "the well-behaved client was not served"
    finally:
        good.kill()
        good.wait()
    return sorted(json.loads(out))


def report(name: str, swarm: Swarm, took: list[float], growth: int) -> None:
    statuses = " ".join(f"{code}:{times}" for code, times in sorted(swarm.statuses.items()))
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
def serving(folder: Path, descriptors: int = 0) -> Iterator[Server]:
    server = Server(folder, descriptors)
    try:
        yield server
    finally:
        said = server.stop()
    assert "Traceback" not in said, said


def withstands(
    name: str, server: Server, swarm: Swarm, seconds: float, *, fresh: bool = True
) -> None:
    took = under(swarm, server, seconds, fresh=fresh)
    growth = server.growth()
    report(name, swarm, took, growth)
    assert took[-1] < ANSWER_WITHIN
    assert growth < GROWTH


def fields() -> Iterator[bytes]:
    return (b"X-%06d: %s\r\n" % (n, b"y" * 50) for n in itertools.count())


def test_slow_heads(tmp_path):
    swarm = Swarm(500, b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x")
    with serving(tmp_path) as server:
        withstands("500 slow heads", server, swarm, LONG)
    assert swarm.statuses[408] >= 500


def test_slow_bodies(tmp_path):
    first = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    swarm = Swarm(500, first, b"x")
    with serving(tmp_path) as server:
        withstands("500 slow bodies", server, swarm, LONG)
    assert swarm.statuses[408] >= 500


@pytest.mark.parametrize("path", ["large", "endless"])
def test_answers_nobody_reads(path, tmp_path):
    request = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode()
    swarm = Swarm(50, request, reads=False, receive_buffer=4096)
    with serving(tmp_path) as server:
        withstands(f"50 never read /{path}", server, swarm, LONG)
    assert swarm.ended >= 50


def test_silent_connections(tmp_path):
    size = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    swarm = Swarm(size)
    with serving(tmp_path) as server:
        withstands(f"{size} silent", server, swarm, LONG)
    assert swarm.ended >= size


@pytest.mark.parametrize("kind", ["many", "long"])
def test_header_bombs(kind, tmp_path):
    head = b"GET / HTTP/1.1\r\nHost: a\r\n"
    bomb = b"".join(itertools.islice(fields(), 1000)) if kind == "many" else b"x" * 65536
    swarm = Swarm(50, head, bomb, flood=True)
    with serving(tmp_path) as server:
        withstands(f"50 header bombs, {kind}", server, swarm, SHORT)
    assert set(swarm.statuses) == {431}


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "not reading"])
def test_endless_pipelines(reads, tmp_path):
    swarm = Swarm(8, drip=GET * 500, flood=True, reads=reads)
    with serving(tmp_path) as server:
        name = "8 endless pipelines" + ("" if reads else ", unread")
        withstands(name, server, swarm, SHORT)


def test_used_up_descriptors(tmp_path):
    swarm = Swarm(400, GET)
    with serving(tmp_path, descriptors=128) as server:
        withstands("descriptors used up", server, swarm, SHORT, fresh=False)
        with RawClient(server.address, 10) as late:  # and afterwards newcomers are served again
            late.send(GET)
            assert late.read_response().status == 200
        assert server.log.read_text().count("Cannot accept") == 1
