"""A raw HTTP/1.1 client that can send nonsense, over TCP or a Unix socket.

It knows just enough to cut an answer out of the stream, and is strict about it: an answer with a
malformed line, or one that ends early, raises `ResponseError`, so that no test mistakes a broken
answer for a good one. Every wait has a deadline; nothing here can hang.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from tests.support.unread import unread_by_peer

TEXT = rb"([\t \x21-\x7e\x80-\xff]*)"
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) " + TEXT)
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):" + TEXT)
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + TEXT + rb")?")


class ResponseError(Exception):
    """What came is not a complete, well-formed answer; `partial` holds the bytes of its body so far."""

    def __init__(self, message: str, partial: bytes = b"") -> None:
        super().__init__(message)
        self.partial = partial


@dataclass(slots=True)
class RawResponse:
    status: int
    reason: str
    headers: list[tuple[bytes, bytes]]  # names lower-cased, order and repetition kept
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    informational: list[RawResponse] = field(default_factory=list)
    version: bytes = b"HTTP/1.1"

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    def tokens(self, name: bytes) -> set[bytes]:
        """The members of a list field, lower-cased."""
        return {part.strip().lower() for value in self.all(name) for part in value.split(b",")}


class RawClient:
    """`address` is (host, port), or the path of a Unix socket."""

    def __init__(self, address: tuple[str, int] | str, timeout: float = 30.0) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # pieces stay pieces
        self.timeout = timeout
        self.unread = bytearray()
        self.received = bytearray()  # all there ever was, to look for what must not be there

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_beside(self, data: bytes) -> None:
        """Send while the caller goes on; a server that will not take it all just ends it."""

        def push() -> None:
            with contextlib.suppress(OSError):
                self.socket.sendall(data)

        threading.Thread(target=push, daemon=True).start()

    def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Send each piece alone: the next one leaves once the server has read the last (on Linux)."""
        for piece in pieces:
            self.socket.sendall(piece)
            deadline = time.monotonic() + self.timeout
            while unread_by_peer(self.socket):
                assert time.monotonic() < deadline, "the server does not read what was sent"
                time.sleep(0)  # hands the interpreter to a server in another thread

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def read_eof(self) -> bytes:
        """Everything up to the server's orderly end; a reset or a silence raises."""
        while self._more():
            pass
        return self._take(len(self.unread))

    def read_until(self, mark: bytes) -> None:
        """Wait until these bytes have arrived; nothing is taken."""
        while mark not in self.received:
            if not self._more():
                raise ResponseError(f"ended without {mark!r}: {bytes(self.unread)!r}")

    def read_response(self, method: str = "GET") -> RawResponse:
        """The next final answer to a request of this method, with the 1xx ones before it."""
        informational = []
        while (response := self.read_head()).status < 200 and response.status != 101:
            informational.append(response)
        response.informational = informational
        if method != "HEAD" and response.status not in (101, 204, 304):
            self._read_body(response)
        return response

    def read_head(self) -> RawResponse:
        """The next head, an informational one too, and nothing behind it."""
        line = self._line()
        if (match := STATUS_LINE.fullmatch(line)) is None:
            raise ResponseError(f"not a status line: {line!r}")
        headers = self._fields()
        return RawResponse(int(match[1]), match[2].decode("latin-1"), headers, version=line[:8])

    def _read_body(self, response: RawResponse) -> None:
        codings, lengths = response.all(b"transfer-encoding"), response.all(b"content-length")
        if len(codings) + len(lengths) > 1:
            raise ResponseError(f"the answer's length is ambiguous: {response.headers}")
        if codings:
            self._read_chunks(response, codings[0])
        elif lengths:
            if re.fullmatch(rb"[0-9]+", lengths[0]) is None:
                raise ResponseError(f"not a Content-Length: {lengths[0]!r}")
            response.body = self._exactly(int(lengths[0]), b"")
        else:
            response.body = self.read_eof()

    def _read_chunks(self, response: RawResponse, coding: bytes) -> None:
        if coding != b"chunked":
            raise ResponseError(f"a coding nobody asked for: {coding!r}")
        while True:
            line = self._line(response.body)
            if (match := CHUNK_LINE.fullmatch(line)) is None:
                raise ResponseError(f"not a chunk: {line!r}", response.body)
            if size := int(match[1], 16):
                response.body += self._exactly(size, response.body)
                if self._exactly(2, response.body) != b"\r\n":
                    raise ResponseError("the chunk does not end in CRLF", response.body)
            else:
                response.trailers = self._fields()
                return

    def _fields(self) -> list[tuple[bytes, bytes]]:
        fields = []
        while line := self._line():
            if (match := FIELD_LINE.fullmatch(line)) is None:
                raise ResponseError(f"not a field line: {line!r}")
            fields.append((match[1].lower(), match[2].strip(b" \t")))
        return fields

    def _line(self, partial: bytes = b"") -> bytes:
        while b"\r\n" not in self.unread:
            if not self._more():
                raise ResponseError(
                    f"the stream ended inside a line: {bytes(self.unread)!r}", partial
                )
        return self._take(self.unread.index(b"\r\n") + 2)[:-2]

    def _exactly(self, count: int, partial: bytes) -> bytes:
        while len(self.unread) < count:
            if not self._more():
                raise ResponseError("the body ended early", partial + bytes(self.unread))
        return self._take(count)

    def _take(self, count: int) -> bytes:
        taken = bytes(self.unread[:count])
        del self.unread[:count]
        return taken

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self.unread += data
        self.received += data
        return data != b""
