"""A worker in the test's own thread, whose clock is set and whose loop is turned by hand.

Nothing sleeps and nothing is timed: `advance` moves the clock in the sweep's own steps and sweeps
after each, `until` turns the loop as long as something is still on its way through the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from tests.support.serve import Records

from tidegate.config import Config
from tidegate.net.deadlines import PERIOD
from tidegate.serving.opening import Opening
from tidegate.serving.worker import Worker

PATIENCE = 10  # real seconds until a test that hangs fails
TURNS = 4  # turns of the loop that carry a read through an application and out again


class Peer:
    """The client's end of a connection, never blocking; `connection` is the server's."""

    def __init__(self, station: Station, sock: socket.socket, connection: Any) -> None:
        self._station = station
        self.sock = sock
        self.connection = connection
        self.received = bytearray()
        self.end = ""  # how the server ended it: "closed" or "reset"

    @property
    def alive(self) -> bool:
        """Whether the server still holds this connection."""
        return self.connection in self._station.floor.connections

    def send(self, data: bytes) -> None:
        """Send all of it, and turn the loop until the server has read it or is gone."""
        sent = 0

        def taken() -> bool:
            nonlocal sent
            with contextlib.suppress(BlockingIOError):
                sent += self.sock.send(data[sent:]) if sent < len(data) else 0
            return sent == len(data) and not self.unread

        try:
            self._station.until(lambda: taken() or not self.alive)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the server said before is what a test looks at

    def stuff(self, data: bytes) -> int:
        """Send as much as the server takes until it takes no more; returns how much that was."""
        sent = 0
        idle = 0
        while idle < 20 and sent < len(data):
            try:
                sent += self.sock.send(data[sent : sent + 65536])
                idle = 0
            except BlockingIOError:
                idle += 1
            except OSError:
                break
            self._station.turn()
        return sent

    @property
    def unread(self) -> int:
        """Bytes on their way to a server that is still there."""
        if not self.alive:
            return 0
        return waiting(self.sock.fileno(), termios.TIOCOUTQ) + waiting(
            self.connection._fd, termios.FIONREAD
        )

    def look(self) -> bytes:
        """Everything that has arrived so far."""
        while not self.end and self.read(1 << 20):
            pass
        return bytes(self.received)

    def read(self, most: int) -> int:
        """Read once, at most so much; returns how much there was."""
        try:
            data = self.sock.recv(most)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            self.end = "reset"
            return 0
        if not data:
            self.end = "closed"
        self.received += data
        return len(data)

    def expect(self, mark: bytes) -> bytes:
        """Turn the loop until `mark` has arrived; returns and forgets what has."""
        self._station.until(lambda: mark in self.look() or self.end != "")
        assert mark in self.received, (bytes(self.received[:2000]), self.end)
        answer = bytes(self.received)
        self.received.clear()
        return answer

    def finish(self) -> bytes:
        """Turn the loop until the server has ended the connection; what came before that."""
        self._station.until(lambda: (self.look() is not None and self.end != "") or self.gone)
        return self.look()

    @property
    def gone(self) -> bool:
        """The server has let go, and nothing was left in the pipe to say so."""
        return not self.alive and self.end != ""

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)


class Station:
    """One worker without listeners; connections are handed to it by `accept`."""

    def __init__(self, app: Any, **options: Any) -> None:
        options.setdefault("poller", os.environ.get("TIDEGATE_TEST_POLLER", "auto"))
        self.now = 1000.0
        self.records = Records()
        self.log = logging.Logger("tidegate.by-hand", logging.DEBUG)
        self.log.addHandler(self.records)
        self.loop = asyncio.new_event_loop()
        self.loop_errors: list[Any] = []
        self.loop.set_exception_handler(lambda loop, context: self.loop_errors.append(context))
        self.loop.run_until_complete(self._open(Config(app=app, lifespan="off", **options), app))
        self._peers: list[Peer] = []

    async def _open(self, config: Config, app: Any) -> None:
        self.worker = Worker(config, app, (), self.log)
        self.worker.clock.read = lambda: self.now
        self.worker.clock.tick()
        if config.ssl_certfile is not None:
            from tidegate.net.tls import Certificates

            self.worker._certificates = Certificates(config, ["http/1.1"], self.log)
        listener: Any = SimpleNamespace(
            server_for=lambda sock: ("127.0.0.1", 80), is_unix=False, sock=None
        )
        self.site = self.worker._site(listener)
        await self.worker._lifespan.startup()

    @property
    def floor(self) -> Any:
        return self.worker._floor

    @property
    def fired(self) -> dict[str, int]:
        """Which limits have acted, and how often."""
        return self.worker.counters.fired

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records.kept]

    def logged(self, level: int = logging.WARNING) -> list[str]:
        return [r.getMessage() for r in self.records.kept if r.levelno >= level]

    def accept(self, *, small: bool = False) -> Peer:
        """A new connection over loopback TCP; `small`: with the least of kernel buffers."""
        with socket.socket() as listener:
            client = socket.socket()
            if small:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            client.connect(listener.getsockname())
            sock, address = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.take(sock, client, address)

    def accept_unix(self) -> Peer:
        """A new connection over a pair of Unix sockets."""
        sock, client = socket.socketpair()
        return self.take(sock, client, ("127.0.0.1", 1))

    def take(self, sock: socket.socket, client: socket.socket, address: Any) -> Peer:
        """Serve one end of a connection; the other is the peer's."""
        sock.setblocking(False)
        client.setblocking(False)
        before = set(self.floor.connections)
        Opening(self.site, sock, address)
        (connection,) = self.floor.connections - before
        peer = Peer(self, client, connection)
        self._peers.append(peer)
        return peer

    def turn(self, times: int = TURNS) -> None:
        """Let the loop go round, without waiting for anything."""

        async def turns() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def until(self, done: Callable[[], bool]) -> None:
        """Turn the loop until something holds."""
        limit = time.monotonic() + PATIENCE
        self.turn()
        while not done():
            assert time.monotonic() < limit, "what was waited for did not come"
            self.turn()

    def advance(self, seconds: float, each: Callable[[], object] | None = None) -> None:
        """Let time pass, in the sweep's steps; `each` is called after every whole second."""
        for step in range(1, round(seconds / PERIOD) + 1):
            self.now += PERIOD
            self.worker._deadlines.sweep(self.worker.clock.tick())
            self.turn()
            if each is not None and step % round(1 / PERIOD) == 0:
                each()

    def close(self) -> None:
        async def end() -> None:
            self.worker._close_all()
            await asyncio.sleep(0)
            await self.worker.close()

        self.loop.run_until_complete(end())
        self.loop.close()
        for peer in self._peers:
            peer.sock.close()


@contextlib.contextmanager
def station(app: Any, **options: Any) -> Iterator[Station]:
    """A worker for the length of a test."""
    made = Station(app, **options)
    try:
        yield made
    finally:
        made.close()


def waiting(fd: int, queue: int) -> int:
    """Bytes in one of a socket's queues: FIONREAD for what came, TIOCOUTQ for what is not taken."""
    raw = fcntl.ioctl(fd, queue, b"\0" * 4)
    return int(struct.unpack("i", raw)[0])
