"""What a connection still has to write: bytes and pieces of files on their way to the kernel.

Strategy: nearly every answer leaves whole in one `send`, and then nothing is kept. What the kernel
does not take stays here as views on the same bytes, and goes on when the socket is writable again.
A file on a plain socket is copied by the kernel (`os.sendfile`); over TLS it has to be read, since
sendfile would put plain text on the wire.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tidegate.protocol.engine import FileSlice, Output

if TYPE_CHECKING:
    from tidegate.net.tls_socket import TlsSocket

IOV_BOUND = 64  # buffers in one sendmsg; the kernel's own bound is 1024
FILE_BOUND = 1024 * 1024  # bytes of a file in one sendfile: others want their turn
READ_BOUND = 64 * 1024  # bytes of a file read for TLS at once: what a TLS socket takes (its WINDOW)

_NOTHING = memoryview(b"")


class FileEndedShortError(Exception):
    """A file held fewer bytes than the answer had promised of it."""


class Outbox:
    """Writes to one socket. `backlog` bytes wait for it; `sent` counts what the kernel took.

    Every method may raise the OSError of a broken connection.
    """

    __slots__ = ("_chunk", "_copies", "_pending", "_send", "_sock", "backlog", "sent")

    def __init__(self, sock: socket.socket | TlsSocket) -> None:
        self._sock = sock
        self._send: Callable[[bytes | memoryview], int] = sock.send
        self._copies = isinstance(sock, socket.socket)  # the kernel can copy a file to it
        self._pending: deque[Output] = deque()
        self._chunk = _NOTHING  # read from a file, not yet sent (TLS only)
        self.backlog = 0
        self.sent = 0

    def write(self, output: list[Output]) -> None:
        """Send as much as the kernel takes, keep the rest. Only with an empty backlog."""
        if len(output) == 1:
            data = output[0]
            if type(data) is bytes and len(data) <= READ_BOUND:
                try:
                    sent = self._send(data)
                except (BlockingIOError, InterruptedError):
                    sent = 0
                self.sent += sent
                if sent == len(data):
                    return
                output = [memoryview(data)[sent:]]
        for piece in output:
            size = piece.count if isinstance(piece, FileSlice) else len(piece)
            if size:
                self._pending.append(piece)
                self.backlog += size
        self.resume()

    def resume(self) -> bool:
        """Go on with the backlog; True when it is gone."""
        pending = self._pending
        try:
            while pending:
                first = pending[0]
                if isinstance(first, FileSlice):
                    if not self._send_file(first):
                        return False
                elif not self._send_some(first):
                    return False
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def clear(self) -> None:
        self._pending.clear()
        self._chunk = _NOTHING
        self.backlog = 0

    def _send_some(self, first: bytes | memoryview) -> bool:
        """One system call's worth; False when the kernel wanted less than it was offered."""
        if len(self._pending) == 1:
            sent = self._send(first)
            offered = len(first)
        else:
            buffers = list(_leading_buffers(self._pending))
            sent = self._sock.sendmsg(buffers)
            offered = sum(map(len, buffers))
        self._take(sent)
        return sent >= (offered if self._copies else min(offered, READ_BOUND))

    def _take(self, sent: int) -> None:
        """Forget `sent` bytes of the leading buffers."""
        self.backlog -= sent
        self.sent += sent
        pending = self._pending
        while sent:
            first = pending[0]
            assert not isinstance(first, FileSlice)
            size = len(first)
            if sent < size:
                pending[0] = memoryview(first)[sent:]
                return
            pending.popleft()
            sent -= size

    def _send_file(self, piece: FileSlice) -> bool:
        if self._copies:
            sent = os.sendfile(
                self._sock.fileno(), piece.fd, piece.offset, min(piece.count, FILE_BOUND)
            )
        else:
            sent = self._send_read(piece)
        if not sent:
            raise FileEndedShortError
        self.backlog -= sent
        self.sent += sent
        piece.offset += sent
        piece.count -= sent
        if not piece.count:
            self._pending.popleft()
        return True

    def _send_read(self, piece: FileSlice) -> int:
        # What TLS has encrypted and the kernel not taken is asked for again: it is kept.
        if not self._chunk:
            size = min(piece.count, READ_BOUND)
            self._chunk = memoryview(os.pread(piece.fd, size, piece.offset))
            if not self._chunk:
                return 0
        sent = self._send(self._chunk)
        self._chunk = self._chunk[sent:] or _NOTHING
        return sent


def _leading_buffers(pending: Iterable[Output]) -> Iterable[bytes | memoryview]:
    for count, piece in enumerate(pending):
        if isinstance(piece, FileSlice) or count == IOV_BOUND:
            return
        yield piece
