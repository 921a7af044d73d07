"""What a connection still has to write: bytes and pieces of files on their way to the kernel.

Strategy: nearly every answer leaves whole in one `send`, and then nothing is kept. What the kernel
does not take stays here as views on the same bytes, and goes on when the socket is writable again.
A file on a plain socket is copied by the kernel (`os.sendfile`); over TLS it has to be read, since
sendfile would put plain text on the wire.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tidegate.protocol.engine import FileSlice, Output
from tidegate.serving.site import TURN

if TYPE_CHECKING:
    from tidegate.asgi.service import Clock
    from tidegate.net.tls_socket import TlsSocket

IOV_BOUND = 64  # buffers in one sendmsg; the kernel's own bound is 1024
# Bytes written in one go at most. The more in one system call the better (a download of 10 MiB
# costs a tenth more in pieces of 256 KiB), but 4 MiB are 2 ms of copying while all others wait.
SHARE = 4 * 1024 * 1024
LATE_SHARE = 128 * 1024  # for who comes late in a batch: this much, in one system call
FILE_BOUND = 1024 * 1024  # bytes of a file in one sendfile
READ_BOUND = 64 * 1024  # bytes of a file read for TLS at once: what a TLS socket takes (its WINDOW)

_NOTHING = memoryview(b"")
_NO_PENDING: deque[Output] = deque()  # in place of one that most never need: 0.7 KB a connection


class FileFailedError(Exception):
    """A file ended short of what the answer had promised of it, or cannot be read."""


# what sendfile(2) says of the file; anything else is about the connection
_FILE_ERRORS = frozenset((errno.EBADF, errno.EINVAL, errno.EIO, errno.ESPIPE))


class Outbox:
    """Writes to one socket. `backlog` bytes wait for it; `sent` counts what the kernel took.

    Every method may raise the OSError of a broken connection. `clock.now` is when the batch began:
    who comes late in a batch of many that write a lot gets little of it, so that no batch is long.
    """

    __slots__ = ("_chunk", "_clock", "_copies", "_pending", "_send", "_sock", "backlog", "sent")

    def __init__(self, sock: socket.socket | TlsSocket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock
        self._send: Callable[[bytes | memoryview], int] = sock.send
        self._copies = isinstance(sock, socket.socket)  # the kernel can copy a file to it
        self._pending = _NO_PENDING
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
                if sent != len(data):
                    self._keep([memoryview(data)[sent:]])
                return
        elif len(output) == 2 and self._copies and self._send_pair(output):
            return
        self._keep(output)
        self.resume()

    def _keep(self, output: Iterable[Output]) -> None:
        self._pending = deque()
        for piece in output:
            size = piece.count if isinstance(piece, FileSlice) else len(piece)
            if size:
                self._pending.append(piece)
                self.backlog += size

    def _send_pair(self, output: list[Output]) -> bool:
        """A long piece and its head, in one system call; what is left of them is kept."""
        head, body = output
        if type(head) is not bytes or type(body) is not bytes or len(body) > LATE_SHARE:
            return False
        try:
            sent = self._sock.sendmsg((head, body))
        except (BlockingIOError, InterruptedError):
            sent = 0
        self.sent += sent
        size = len(head)
        if sent != size + len(body):
            self._keep((head[sent:], memoryview(body)[max(0, sent - size) :]))
        return True

    def resume(self) -> bool:
        """Go on with the backlog, within a share of the batch; True when it is gone."""
        pending, clock = self._pending, self._clock
        late = clock.now + TURN
        share = SHARE if clock.read() <= late else LATE_SHARE
        until = self.sent + share
        try:
            while pending and self.sent < until:
                first = pending[0]
                if isinstance(first, FileSlice):
                    self._send_file(first, until - self.sent)
                elif not self._send_some(first, until - self.sent):
                    return False
                if clock.read() > late:
                    break
        except (BlockingIOError, InterruptedError):
            return False
        if pending:
            return False
        self._pending = _NO_PENDING
        return True

    def taken(self) -> int:
        """What the peer has acknowledged of `sent`, where the system can tell.

        The kernel's send buffer may hold megabytes, and becomes writable again only once a third
        of it is free: what it took says little about how fast the peer reads.
        """
        return self.sent - (self.in_kernel() or 0)

    def in_kernel(self) -> int | None:
        """What of `sent` the peer has not acknowledged; None where the system cannot tell."""
        try:
            from fcntl import ioctl
            from termios import TIOCOUTQ

            waiting = ioctl(self._sock.fileno(), TIOCOUTQ, b"\0\0\0\0")
        except (ImportError, OSError):
            return None
        return int.from_bytes(waiting, sys.byteorder)

    def clear(self) -> None:
        self._pending = _NO_PENDING
        self._chunk = _NOTHING
        self.backlog = 0

    def _send_some(self, first: bytes | memoryview, share: int) -> bool:
        """One system call's worth; False when the kernel wanted less than it was offered."""
        if len(self._pending) == 1 or len(first) >= share:
            offered = min(len(first), share)
            sent = self._send(first if offered == len(first) else memoryview(first)[:offered])
        else:
            buffers = list(_leading_buffers(self._pending, share))
            offered = sum(map(len, buffers))
            sent = self._sock.sendmsg(buffers)
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

    def _send_file(self, piece: FileSlice, share: int) -> None:
        try:
            sent = self._copy(piece, share) if self._copies else self._send_read(piece)
        except OSError as error:
            if error.errno in _FILE_ERRORS:
                raise FileFailedError(error.strerror) from error
            raise
        if not sent:
            raise FileFailedError("it became shorter while it was being sent")
        self.backlog -= sent
        self.sent += sent
        piece.offset += sent
        piece.count -= sent
        if not piece.count:
            self._pending.popleft()

    def _copy(self, piece: FileSlice, share: int) -> int:
        count = min(piece.count, share, FILE_BOUND)
        return os.sendfile(self._sock.fileno(), piece.fd, piece.offset, count)

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


def _leading_buffers(pending: Iterable[Output], room: int) -> Iterable[bytes | memoryview]:
    for count, piece in enumerate(pending):
        if isinstance(piece, FileSlice) or count == IOV_BOUND or room <= 0:
            return
        if len(piece) > room:
            yield memoryview(piece)[:room]
            return
        room -= len(piece)
        yield piece
