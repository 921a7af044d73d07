"""The answering half of the HTTP/1 engine: heads, bodies and trailers on their way out.

Strategy: a head is rendered at once, so that what is wrong with it is told to whoever sent it, and
held until the first body: it can still be replaced by a 500, and it is known only then whether the
connection lives on. Small pieces of a chunked body are gathered into one chunk a write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tidegate.errors import ApplicationError
from tidegate.protocol.engine import FileSlice, Output
from tidegate.protocol.headers import BODILESS, Defaults, broken_promise, check_status
from tidegate.protocol.http1 import writer
from tidegate.protocol.http1.reader import NO_REQUEST
from tidegate.protocol.http1.writer import Flag, Framing

# an Enum's members are looked up in Python: 0.05 us each, on the way of every piece
LENGTH, CHUNKED, NO_BODY, UNTIL_CLOSE, DONE = (
    Framing.LENGTH,
    Framing.CHUNKED,
    Framing.NO_BODY,
    Framing.UNTIL_CLOSE,
    Framing.DONE,
)
HEADS = 512  # heads remembered, each for a second at most
JOINED = 2048  # bytes of a head that is worth remembering, of a body that is copied behind its head
JOIN_BOUND = 64 * 1024  # copying up to here costs less than a second buffer in the system call


class Answering:
    """One answer at a time; the reading half (engine.py) says when the next one begins."""

    __slots__ = (
        "_chunk",
        "_chunk_size",
        "_continue",
        "_defaults",
        "_dropped",
        "_files",
        "_framing",
        "_head",
        "_keep",
        "_out",
        "_out_size",
        "_parsed",
        "_plain",
        "_rendered",
        "_stream",
        "_to_send",
        "_trailer",
    )

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self._rendered: dict[object, tuple[bytes, Framing, int]] = defaults.rendered
        # the request that is answered; plain: nothing stands against the next one after it
        self._stream = 0
        self._parsed = NO_REQUEST
        self._plain = False
        self._keep = True
        self._continue = False  # a 100 is due before the client sends the body
        # its answer; no framing: none has begun
        self._framing: Framing | None = None
        self._head = b""  # rendered, held back until the first body
        self._to_send = 0
        self._dropped = 0  # bytes of a body that is not sent (HEAD, 304)
        self._trailer = b""  # fields of a trailer section that is not complete
        self._chunk: list[bytes] = []  # pieces that will leave as one chunk
        self._chunk_size = 0
        self._out: list[Output] = []
        self._out_size = 0
        self._files = 0  # file slices among the output

    def _may_keep(self, end: bool) -> bool:
        """Decide whether the connection lives on; `end`: the whole answer is known by now."""
        raise NotImplementedError

    def _end_answer(self) -> None:
        raise NotImplementedError

    @property
    def _answered(self) -> bool:
        """The answer to the current request has been sent to its end."""
        return self._framing is Framing.DONE

    def send_informational(
        self, stream: int, status: int, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """103 and its kin, while the head is unsent; an HTTP/1.0 client gets none."""
        rendered = writer.render_informational(status, headers)
        if stream == self._stream and not self._parsed.old and not self._head_left:
            self._put(rendered)

    @property
    def _head_left(self) -> bool:
        return self._framing is not None and not self._head

    def send_head(self, stream: int, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Render the head and hold it until the first body; a held one is replaced."""
        if stream != self._stream:
            return
        if type(status) is not int:
            status = check_status(status)
        key = (status, *headers)
        try:
            known = self._rendered.get(key)
        except TypeError:  # a pair that is a list
            known = None
        self._dropped = 0
        self._trailer = b""
        if known is None or not self._parsed.usual:
            self._render_head(key)
        else:
            self._head, self._framing, self._to_send = known

    def _render_head(self, key: tuple[Any, ...]) -> None:
        """A head that was not sent within this second; an application repeats most of its own."""
        status, *headers = key
        parsed = self._parsed
        lines = [writer.FINAL[status], self._defaults.block]
        length, flags = writer.read_fields(headers, lines)
        if status == 426:
            lines.extend(writer.upgrade_lines(headers))
        framing = LENGTH
        if parsed.is_head or status in BODILESS:
            framing = NO_BODY
            if status == 204:
                lines = writer.without_length(lines)
        elif length >= 0:
            self._to_send = length
        elif not parsed.old:
            framing = CHUNKED
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            framing = UNTIL_CLOSE
            self._keep = False
        if flags:
            if flags & Flag.CLOSE:
                self._keep = self._plain = False
            if flags & (Flag.DATE | Flag.SERVER):
                lines[1] = self._defaults.without(
                    bool(flags & Flag.DATE), bool(flags & Flag.SERVER)
                )
        lines.append(b"\r\n")
        self._framing = framing
        self._head = head = b"".join(lines)
        if not flags and parsed.usual and len(head) <= JOINED and len(self._rendered) < HEADS:
            try:
                self._rendered[key] = (head, framing, self._to_send)
            except TypeError:
                pass  # the pair that is a list

    def _connection_field(self, end: bool) -> bytes:
        """The held head with what has to be said about the connection, which is known only now."""
        if not self._may_keep(end):
            return self._head[:-2] + b"connection: close\r\n\r\n"
        if self._parsed.old:
            return self._head[:-2] + b"connection: keep-alive\r\n\r\n"
        return self._head

    def send_body(self, stream: int, data: bytes | FileSlice, end: bool) -> int:
        """The next piece of the answer; returns the bytes that nobody has taken yet."""
        framing = self._framing
        if stream != self._stream or framing is DONE:
            return self._out_size
        if framing is not LENGTH:
            if framing is CHUNKED and not end and not self._head and type(data) is bytes:
                # gathered: chunk boundaries mean nothing (RFC 9112 7.1)
                if data:
                    self._chunk.append(data)
                    self._chunk_size += len(data)
                return self._out_size + self._chunk_size
            if framing is UNTIL_CLOSE and not end and not self._head and type(data) is bytes:
                self._out.append(data)  # a tunnel, mostly
                self._out_size = size = self._out_size + len(data)
                return size
            return self._send_unmeasured(data, end)
        size = len(data)
        if size != self._to_send and (end or size > self._to_send):
            self._break_promise(size)
        self._to_send -= size
        if self._head:
            head = self._head if self._plain else self._connection_field(end)
            self._head = b""
            if size <= JOINED and type(data) is bytes:
                data = head + data  # nearly every answer: one piece
            else:
                self._put(head)
        self._out.append(data)
        self._out_size += len(data)
        if type(data) is not bytes:
            self._files += 1
        if end:
            self._end_answer()
        return self._out_size

    def _send_unmeasured(self, data: bytes | FileSlice, end: bool) -> int:
        """A piece of a body whose length was not promised, or that is not sent at all."""
        framing = self._framing
        if self._head:
            self._put(self._head if self._plain else self._connection_field(end))
            self._head = b""
        if framing is CHUNKED:
            if type(data) is bytes:
                if data:
                    self._chunk.append(data)
                    self._chunk_size += len(data)
            else:
                self._put_file_chunk(data)  # type: ignore[arg-type]
            if not end:
                return self._out_size + self._chunk_size
            self._seal_chunk()
            self._put(b"0\r\n\r\n")
        elif framing is not NO_BODY:
            self._put_piece(data)
        elif not end:
            # dropped, but whoever makes it shall yield now and then as if it were sent
            self._dropped += len(data)
            return self._dropped
        if end:
            self._end_answer()
        return self._out_size

    def _put_piece(self, data: bytes | FileSlice) -> None:
        self._out.append(data)
        self._out_size += len(data)
        if isinstance(data, FileSlice):
            self._files += 1

    def _put_file_chunk(self, data: FileSlice) -> None:
        if data.count:
            self._seal_chunk()
            self._put(b"%x\r\n" % data.count)
            self._put_piece(data)
            self._put(b"\r\n")

    def _seal_chunk(self) -> None:
        if self._chunk_size:
            out = self._out
            size = b"%x\r\n" % self._chunk_size
            out.append(size)
            out.extend(self._chunk)
            out.append(b"\r\n")
            self._out_size += self._chunk_size + len(size) + 2
            self._chunk.clear()
            self._chunk_size = 0

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size += len(data)

    def _break_promise(self, size: int) -> None:
        """The application's body does not fit its Content-Length: the excess never leaves."""
        raise ApplicationError(broken_promise(self._to_send, size))

    def send_trailers(
        self, stream: int, headers: Iterable[tuple[bytes, bytes]], end: bool = True
    ) -> None:
        """Fields behind a body that is complete; dropped where the client reads none."""
        rendered = writer.render_trailers(headers)
        if stream != self._stream or self._framing is DONE:
            return
        self._trailer += rendered
        if not end:
            return
        if self._framing is CHUNKED and self._parsed.trailers:
            if self._head:
                self._put(self._head if self._plain else self._connection_field(True))
                self._head = b""
            self._seal_chunk()
            self._put(b"0\r\n%b\r\n" % self._trailer)
            self._end_answer()
        else:
            self.send_body(stream, b"", True)
        self._trailer = b""

    def queued(self, stream: int) -> int:
        return self._out_size + self._chunk_size

    def drop_output(self) -> None:
        self.take_output()

    def take_output(self) -> list[Output]:
        if self._chunk_size:
            self._seal_chunk()
        out = self._out
        if len(out) > 1 and self._out_size <= JOIN_BOUND and not self._files:
            out = [b"".join(out)]  # type: ignore[arg-type]
        self._out = []
        self._out_size = self._files = 0
        return out
