"""One TLS connection in the place of a plain non-blocking socket.

Strategy: OpenSSL never sees the socket. What one `recv` brings, several records perhaps, goes into
a memory BIO and is decrypted there; several encrypted records leave in one system call. Left alone
with a socket, OpenSSL asks the kernel twice for each record (its head of five bytes, then its body)
and the ssl module has no switch for that. A request and its answer cost 8.3 us this way, 9.0 us
through `SSLSocket`, 5.3 us without TLS (loopback, TLS 1.3); a long upload costs two thirds.

A memory BIO never gives memory back: after one large answer an idle connection would hold 22 KiB
more. So one pair of them serves all connections of a worker, and every call here leaves both empty,
by keeping what OpenSSL does not take now (`_held`) and what the kernel does not take (`_unsent`).
`close` empties them whatever went wrong before: one connection's bytes never reach another.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING

from tidegate.net.tls_detail import ServerObject, TlsDetail, detail_of

if TYPE_CHECKING:
    from tidegate.net.tls import ServerContext

RECORD = 16384  # the plain text of one record at most (RFC 8446 5.1)
WINDOW = 65536  # bytes received at once, and encrypted before the kernel has taken them

# What may wait for a peer that makes OpenSSL answer (TLS 1.2: for a new handshake, which is refused
# every time) and takes no answers: some two thousand of them.
ANSWERS_BOUND = 65536

_NOTHING = memoryview(b"")


class Wants(Enum):
    """What a call that would block waits for."""

    NOTHING = 0
    READ = 1
    WRITE = 2


class HandshakeFailed(OSError):
    """No TLS connection came about; with `plain_http` the peer spoke HTTP to a TLS port."""

    def __init__(self, reason: str, plain_http: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.plain_http = plain_http


class Bios:
    """The memory BIOs of one worker: empty whenever no call of a `TlsSocket` is under way."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()


class TlsSocket:
    """A server's end of a TLS connection on a non-blocking socket, which it takes over.

    `more`: a `recv` has something to say without the socket becoming readable.
    `wants`: what the call waits for that would have blocked; a `recv` always for reading.
    """

    # fmt: off
    __slots__ = (
        "_ahead", "_detail", "_error", "_feed", "_heard", "_held", "_incoming", "_object",
        "_outgoing", "_over", "_read", "_sock", "_sock_recv", "_sock_send", "_take", "_unsent",
        "_write", "more", "wants",
    )
    # fmt: on

    def __init__(self, sock: socket.socket, context: ServerContext, bios: Bios) -> None:
        self._sock = sock
        self._incoming = bios.incoming
        self._outgoing = bios.outgoing
        made = context.wrap_bio(bios.incoming, bios.outgoing, server_side=True)
        assert isinstance(made, ServerObject)
        self._object = made
        # bound once: each of these is called for every request
        self._sock_recv = sock.recv
        self._sock_send: Callable[[bytes | memoryview], int] = sock.send
        self._feed = bios.incoming.write
        self._take = bios.outgoing.read
        self._read: Callable[[int], bytes] = made.read
        self._write: Callable[[bytes | bytearray | memoryview], int] = made.write
        self._heard = b""  # the client's first bytes, until the handshake is done
        self._held = b""  # come, and not yet read by OpenSSL
        self._unsent = _NOTHING  # encrypted, and not yet taken by the kernel
        self._ahead = 0  # bytes of plain text encrypted that no `send` has counted yet
        self._error: ssl.SSLError | None = None  # comes after the bytes that were just given
        self._detail: TlsDetail | None = None
        self._over = False  # close_notify is sent: from here on only raw bytes to discard
        self.more = False
        self.wants = Wants.NOTHING

    def fileno(self) -> int:
        """The descriptor to poll; -1 once closed."""
        return self._sock.fileno()

    # -- the handshake -----------------------------------------------------------------------------

    def handshake(self) -> bool:
        """Go on with the handshake; True when done, else watch for what `wants` says."""
        try:
            done = self._shake_hands()
        except ssl.SSLError as error:
            self._last_words()
            reason = error.reason or str(error)
            raise HandshakeFailed(_spoken(reason), self._is_http(reason)) from error
        except OSError as error:  # reset, or gone before we looked
            raise HandshakeFailed(error.strerror or str(error), False) from error
        if done:
            self._heard = b""
            self.more = bool(self._held)
        return done

    def _shake_hands(self) -> bool:
        while True:
            try:
                self._object.do_handshake()
                done = True
                self._held += self._incoming.read()  # a first request may have come with it
            except ssl.SSLWantReadError:
                done = False
            self._flush()
            if self._unsent:
                self.wants = Wants.WRITE
                return False
            if done:
                self.wants = Wants.NOTHING
                return True
            try:
                data = self._sock_recv(RECORD)
            except BlockingIOError:
                self.wants = Wants.READ
                return False
            if not data:
                raise ConnectionResetError("the peer has left")
            self._heard = self._heard or data
            self._feed(data)

    def _is_http(self, reason: str) -> bool:
        """Whether the handshake failed because the first bytes were an HTTP request."""
        if reason == "HTTP_REQUEST":  # OpenSSL knows GET, POST, HEAD and PUT by five bytes
            return True
        return self._heard[:1].isalpha() and b" HTTP/1." in self._heard.partition(b"\n")[0]

    # -- reading -----------------------------------------------------------------------------------

    def recv(self, n: int) -> bytes:
        """Up to `n` bytes, b"" at the end of input; BlockingIOError.

        After `shutdown_write` the bytes are as they came from the wire, undecrypted: to be counted
        and thrown away.
        """
        if self.more or self._over:
            return self._recv_inside(n)
        try:
            data = self._sock_recv(WINDOW)
        except BlockingIOError:
            self.wants = Wants.READ
            raise
        if not data:  # without close_notify too: HTTP knows by itself when an end comes too early
            return data
        self._feed(data)
        try:
            data = self._read(n)
        except ssl.SSLError as error:
            return self._stop(error, [])
        if self._incoming.pending or self._outgoing.pending or len(data) == n:
            return self._read_on(n, [data] if data else [])
        return data

    def _recv_inside(self, n: int) -> bytes:
        if self._over:
            return self._sock_recv(n)
        if self._error is not None:
            raise self._error
        self.more = False
        self._feed(self._held)
        self._held = b""
        return self._read_on(n, [])

    def _read_on(self, n: int, got: list[bytes]) -> bytes:
        """Decrypt what is there, up to `n` bytes in all: one record in each call of OpenSSL."""
        room = n - sum(map(len, got))
        while room:
            try:
                data = self._read(min(room, RECORD))
            except ssl.SSLError as error:
                return self._stop(error, got)
            if not data:  # close_notify: said after what came before it, and nothing counts after
                self._incoming.read()
                self.more = bool(got)
                break
            got.append(data)
            room -= len(data)
        else:
            self._held = self._incoming.read()
            self.more = bool(self._held or self._object.pending())
        self._answer()
        return got[0] if len(got) == 1 else b"".join(got)

    def _stop(self, error: ssl.SSLError, got: list[bytes]) -> bytes:
        """Reading cannot go on: give what there is, then say why."""
        blocked = isinstance(error, ssl.SSLWantReadError)  # OpenSSL has taken all there was
        if blocked:
            self._answer()
        else:
            self._last_words()
        if not got:
            if not blocked:
                raise error
            self.wants = Wants.READ
            raise BlockingIOError
        if not blocked:
            self._error = error
            self.more = True
        return got[0] if len(got) == 1 else b"".join(got)

    def _answer(self) -> None:
        """Send what OpenSSL says of its own.

        What the kernel does not take goes before our next bytes. That is soon enough: new keys for
        new keys are due only then (RFC 8446 4.6.3), and nothing else has to be answered.
        """
        if self._outgoing.pending:
            self._flush()
            if len(self._unsent) > 2 * WINDOW + ANSWERS_BOUND:
                raise ConnectionAbortedError("The peer takes no answers from TLS")

    # -- writing -----------------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send a first part of `data` and tell how much; BlockingIOError with `wants` set.

        What is counted is with the kernel. What is not may be encrypted already: the next call
        must begin with the same bytes (more may follow them).
        """
        if self._unsent or len(data) > WINDOW:
            return self.sendmsg((data,))
        self._write(data)
        records = self._take()
        try:
            sent = self._sock_send(records)
        except BlockingIOError:
            sent = 0
        if sent == len(records):
            return len(data)
        self._unsent = memoryview(records)[sent:]
        self._ahead = len(data)
        return self._progress()

    def sendmsg(self, buffers: Iterable[bytes | bytearray | memoryview]) -> int:
        """`send` for several buffers, as if they were one."""
        self._flush()
        if not self._unsent:
            # What was encrypted is with the kernel, and the buffers begin with what of it no call
            # has counted.
            skip, room = self._ahead, WINDOW
            for buffer in buffers:
                size = len(buffer)
                end = min(size, skip + room)
                if skip < end:
                    with memoryview(buffer) as view, view[skip:end] as part:
                        self._write(part)
                    room -= end - skip
                    self._ahead += end - skip
                    if not room:
                        break
                skip = max(0, skip - size)
            self._flush()
        return self._progress()

    def _progress(self) -> int:
        """How many bytes more of what was encrypted are with the kernel.

        Records are longer than what they carry. So while any byte of them is here this is less
        than the whole, and it is never more than what the kernel took.
        """
        gone = self._ahead - min(self._ahead, len(self._unsent))
        if not gone:
            self.wants = Wants.WRITE
            raise BlockingIOError
        self._ahead -= gone
        return gone

    def _flush(self) -> None:
        """Put what was encrypted before the kernel, and keep what it does not take."""
        if self._outgoing.pending:
            fresh = self._take()
            self._unsent = memoryview(self._unsent.tobytes() + fresh if self._unsent else fresh)
        if self._unsent:
            try:
                sent = self._sock_send(self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[sent:] or _NOTHING

    def _last_words(self) -> None:
        """The alert that says what was wrong; nobody waits for it, and the peer may have gone."""
        self._incoming.read()
        try:
            self._flush()
        except OSError:
            pass

    # -- the end -----------------------------------------------------------------------------------

    def shutdown_write(self) -> None:
        """Send close_notify and FIN, await nothing. Only after all output: it says "complete"."""
        if self._over:
            return
        self._over = True
        self.more = False
        try:
            self._object.unwrap()
        except (OSError, ValueError):
            # Written, and unwrap() went on to look for the peer's: it found none (SSLWantReadError)
            # or data instead, which makes OpenSSL end the reading side as well, so that the rest
            # of the input could no longer be told from its end. Hence raw bytes from here on. Or
            # not written, because the handshake was not done: FIN has to do.
            pass
        self._last_words()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer has gone
        self._held = b""
        self.wants = Wants.READ

    def close(self) -> None:
        """Close at once. Without `shutdown_write` before, the peer can tell it was cut off."""
        self._sock.close()
        self._forget()

    def release(self) -> socket.socket:
        """The bare socket, for a word in plain text to whoever spoke plain HTTP; ends this one."""
        plain = socket.socket(
            self._sock.family, self._sock.type, self._sock.proto, fileno=self._sock.detach()
        )
        plain.setblocking(False)
        self._forget()
        return plain

    def _forget(self) -> None:
        self._held = b""
        self._unsent = _NOTHING
        self._incoming.read()
        self._outgoing.read()

    @property
    def detail(self) -> TlsDetail:
        """About the finished handshake; ask before `shutdown_write`. Put together once."""
        if self._detail is None:
            self._detail = detail_of(self._object)
        return self._detail


def _spoken(reason: str) -> str:
    """OpenSSL's NO_SHARED_CIPHER as people read it."""
    return reason.replace("_", " ").lower() if reason.isupper() else reason
