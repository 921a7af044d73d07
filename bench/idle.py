"""Ten thousand clients that asked once and then stay silent.

Each has had an answer, so that every server has seen a whole request and holds the connection
for the keep-alive reason, not for an unfinished head.
"""

from __future__ import annotations

import selectors
import socket
from types import TracebackType

from bench.load import PATIENCE, Address, VoidError

BATCH = 128


class IdleConnections:
    """Opened on entry, closed on exit; `check_open` voids the row if the server closed any."""

    def __init__(self, address: Address, count: int, expect: bytes) -> None:
        self._address = address
        self._count = count
        self._expect = expect
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> IdleConnections:
        try:
            while len(self._sockets) < self._count:
                self._open(min(BATCH, self._count - len(self._sockets)))
        except OSError as error:
            self._close()
            raise VoidError(
                f"idle connection {len(self._sockets):,} of {self._count:,} failed: {error}"
            ) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _open(self, count: int) -> None:
        request = f"GET {self._address.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        batch = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self._address.port), PATIENCE)
            self._sockets.append(client)
            batch.append(client)
            client.sendall(request)
        for client in batch:
            answer = b""
            while self._expect not in answer:
                piece = client.recv(65536)
                if not piece:
                    raise ConnectionError("closed before its one answer was whole")
                answer += piece

    def check_open(self) -> None:
        """An idle client hears nothing, so whatever is readable is the server's close."""
        with selectors.DefaultSelector() as selector:
            for client in self._sockets:
                selector.register(client, selectors.EVENT_READ)
            closed = len(selector.select(timeout=0))
        if closed:
            raise VoidError(f"closed {closed:,} of {self._count:,} idle connections")

    def _close(self) -> None:
        for client in self._sockets:
            client.close()
        self._sockets.clear()
