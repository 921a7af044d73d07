"""The steady client's connection, and HTTP/1.1 over it.

A `Line` carries bytes without blocking: it connects, shakes hands, sends and reads, and says how it
came to its end. It reads all that had arrived before it believes in an end, also when a send has
failed: an answer that lies in the socket is an answer. `Http1Lane` asks over one line at a time.
"""

from __future__ import annotations

import enum
import errno
import selectors
import socket
import ssl
import time
from typing import TYPE_CHECKING

from tests.support.raw import CHUNK_LINE, FIELD_LINE, STATUS_LINE

if TYPE_CHECKING:
    from tests.support.steady import Steady

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
AGAIN = 0.01  # seconds until the next try, where a listener's queue or a server's streams are full


class Kind(enum.StrEnum):
    """How a request can fail."""

    REFUSED = "refused"  # nobody listens
    RESET = "reset"  # of the connection, or of an HTTP/2 stream
    TRUNCATED = "truncated"  # the connection ended within the answer
    CLOSED = "closed"  # the connection ended after the request and before the answer
    STATUS = "status"  # not 200
    WRONG = "wrong"  # not the expected body, or against the protocol
    TIMEOUT = "timeout"  # no answer in time
    GOAWAY = "goaway"  # an HTTP/2 connection was ended with an error code
    TLS = "tls"  # the handshake failed, other than by an end of the connection


class Step(enum.Enum):
    CONNECTING = enum.auto()
    SHAKING_HANDS = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()


def kind_of_end(error: OSError | None, begun: bool) -> Kind:
    """What the end of a connection is to a request under way; `begun`: its answer had begun."""
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return Kind.REFUSED
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return Kind.RESET
    if error is not None and error.errno == errno.ENOTCONN:  # reset before TLS could begin
        return Kind.RESET
    return Kind.TRUNCATED if begun else Kind.CLOSED


class Line:
    """One connection to the server, in the selector of the load."""

    def __init__(self, load: Steady) -> None:
        self.load = load
        self.step = Step.CONNECTING
        self.opened = time.monotonic()
        self._out = bytearray()
        self._watched = 0
        self._send_error: OSError | None = None
        self.sock: socket.socket = socket.socket(load.family)
        self._connect()

    # What a protocol does with it.

    def on_open(self) -> None:
        """Connected, and through with the handshake."""

    def on_bytes(self, data: bytes) -> None:
        raise NotImplementedError

    def on_end(self, error: OSError | None, where: str) -> None:
        """The server ended it: orderly, or by an error. `where` says how far it had come."""
        raise NotImplementedError

    # What is done with it.

    def send(self, data: bytes) -> None:
        self._out += data
        if self.step is Step.OPEN:
            self._flush()

    def read(self) -> None:
        """Take in what has come, to the end of the connection where that has come too."""
        while self.step is Step.OPEN:
            try:
                data = self.sock.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except ssl.SSLEOFError:  # an end without close_notify is still an end
                return self._end(self._send_error, "without close_notify")
            except OSError as error:
                return self._end(error, "")
            if not data:
                return self._end(self._send_error, "")
            self.on_bytes(data)
        return None

    def close(self) -> None:
        """Our own end of it."""
        if self.step is Step.ENDED:
            return
        if self.step is Step.OPEN and isinstance(self.sock, ssl.SSLSocket):
            try:
                self.sock.unwrap()  # says close_notify and does not wait for the other
            except OSError:
                pass
        self._leave()

    def on_ready(self, events: int) -> None:
        if self.step is Step.CONNECTING:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return self._end(OSError(code, errno.errorcode.get(code, "")), "connecting")
            return self._connected()
        if self.step is Step.SHAKING_HANDS:
            return self._shake_hands()
        if events & WRITE:
            self._flush()
        return self.read()

    # Within.

    def _connect(self) -> None:
        """A queue that is full makes a Unix socket say EAGAIN, where a patient client would wait."""
        if self.step is not Step.CONNECTING:
            return
        self.sock.setblocking(False)
        code = self.sock.connect_ex(self.load.address)
        if code == errno.EAGAIN:
            self.load.later(AGAIN, self._connect)
        elif code in (0, errno.EINPROGRESS):
            self._watch(WRITE)
        else:  # the lane that opens this line has to have it before it can hear of its end
            self.load.later(0, lambda: self._end(OSError(code, "connect"), "connecting"))

    def _connected(self) -> None:
        if self.load.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.load.context is None:
            return self._open()
        self.load.selector.unregister(self.sock)
        self._watched = 0
        try:
            self.sock = self.load.context.wrap_socket(
                self.sock,
                server_hostname="127.0.0.1",
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except OSError as error:  # it asks for the peer's name, and there may be no peer any more
            return self._end(error, "before the TLS handshake")
        self.step = Step.SHAKING_HANDS
        return self._shake_hands()

    def _shake_hands(self) -> None:
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return self._watch(READ)
        except ssl.SSLWantWriteError:
            return self._watch(WRITE)
        except ssl.SSLEOFError:
            return self._end(None, "in the TLS handshake")
        except OSError as error:
            return self._end(error, "in the TLS handshake")
        return self._open()

    def _open(self) -> None:
        self.step = Step.OPEN
        self._watch(READ)
        self.on_open()
        self._flush()

    def _flush(self) -> None:
        while self._out and self.step is Step.OPEN:
            try:
                sent = self.sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantWriteError):
                return self._watch(READ | WRITE)
            except ssl.SSLWantReadError:
                return None  # tried again by the next flush; TLS 1.3 knows no renegotiation
            except OSError as error:
                if not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                    self._send_error = error
                self._out.clear()
                return self.read()
            del self._out[:sent]
        return self._watch(READ) if self.step is Step.OPEN else None

    def _watch(self, events: int) -> None:
        if events == self._watched:
            return
        if self._watched:
            self.load.selector.modify(self.sock, events, self)
        else:
            self.load.selector.register(self.sock, events, self)
        self._watched = events

    def _end(self, error: OSError | None, where: str) -> None:
        if self.step is not Step.ENDED:
            self._leave()
            self.on_end(error, where)

    def _leave(self) -> None:
        self.step = Step.ENDED
        if self._watched:
            self.load.selector.unregister(self.sock)
        self.load.lines.discard(self)
        self.sock.close()


class Lane:
    """One who asks again and again: the next request comes when the last one is answered."""

    def __init__(self, load: Steady) -> None:
        self.load = load
        self.asked: float | None = None  # when the request under way was first meant to leave

    def begin(self) -> None:
        if self.load.stopping:
            return
        self.asked = time.monotonic()
        self.load.under_way += 1
        self.ask()

    def ask(self) -> None:
        """Bring the request under way, or once more where it surely was not processed."""
        raise NotImplementedError

    def overdue(self) -> None:
        """The answer did not come in time."""
        raise NotImplementedError

    def answered(self, status: int, body: bytes, worker: bytes | None) -> None:
        assert self.asked is not None
        if status != 200:
            return self.failed(Kind.STATUS, f"{status}: {body[:200]!r}")
        if not self.load.expect(body):
            return self.failed(Kind.WRONG, f"{len(body)} bytes, {body[:200]!r}")
        self.load.report.note_answer(worker, self.asked)
        return self._done(failed=False)

    def failed(self, kind: Kind, text: str) -> None:
        self.load.report.note_failure(kind, text)
        self._done(failed=True)

    def _done(self, failed: bool) -> None:
        self.asked = None
        self.load.under_way -= 1
        self.load.rest(self, failed)


class Malformed(Exception):
    """No answer of HTTP/1.1."""


class Http1Answer:
    """One answer, as far as it has come."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.closes = False
        self.body = b""
        self._at = 0  # where the body, or its next chunk, begins
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        """Whether it is whole now; raises Malformed."""
        self.raw += data
        while not self.status:
            if (end := self.raw.find(b"\r\n\r\n")) < 0:
                return False
            self._read_head(bytes(self.raw[:end]))
            if self.status < 200:  # informational: the answer is still to come
                del self.raw[: end + 4]
                self.status = 0
            self._at = end + 4
        if b"transfer-encoding" in self.fields:
            return self._read_chunks()
        if self.status in (204, 304):
            return self._take(self._at)
        length = self.fields.get(b"content-length")
        if length is None:
            self.closes = True
            return False
        return self._whole(self._at + int(length)) and self._take(self._at + int(length))

    def feed_end(self) -> bool:
        """The connection's end; whether that is the end of the body as well."""
        if not self.status or {b"transfer-encoding", b"content-length"} & self.fields.keys():
            return False
        return self._take(len(self.raw))

    def _read_head(self, head: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        if (match := STATUS_LINE.fullmatch(line)) is None:
            raise Malformed(f"not a status line: {line!r}")
        self.status = int(match[1])
        self.fields = {}
        for each in lines:
            if (found := FIELD_LINE.fullmatch(each)) is None:
                raise Malformed(f"not a field line: {each!r}")
            self.fields[found[1].lower()] = found[2].strip()
        self.closes = b"close" in self.fields.get(b"connection", b"").lower()
        self.closes |= line.startswith(b"HTTP/1.0")
        if not self.fields.get(b"content-length", b"0").isdigit():
            raise Malformed(f"not a length: {self.fields[b'content-length']!r}")
        if self.fields.get(b"transfer-encoding", b"chunked") != b"chunked":
            raise Malformed("a coding nobody asked for")

    def _read_chunks(self) -> bool:
        while (end := self.raw.find(b"\r\n", self._at)) >= 0:
            if (match := CHUNK_LINE.fullmatch(self.raw[self._at : end])) is None:
                raise Malformed(f"not a chunk: {bytes(self.raw[self._at : end])!r}")
            after = end + 2 + int(match[1], 16)
            if not self._whole(after + 2):
                return False
            if self.raw[after : after + 2] != b"\r\n":
                raise Malformed("a chunk, or the body without trailers, does not end in CRLF")
            self._pieces.append(bytes(self.raw[end + 2 : after]))
            self._at = after + 2
            if after == end + 2:
                return self._take(self._at)
        return False

    def _whole(self, end: int) -> bool:
        return len(self.raw) >= end

    def _take(self, end: int) -> bool:
        if len(self.raw) > end:
            raise Malformed(f"behind the answer came {bytes(self.raw[end : end + 200])!r}")
        self.body = b"".join(self._pieces) or bytes(self.raw[self._at : end])
        return True


class Http1Line(Line):
    def __init__(self, lane: Http1Lane) -> None:
        super().__init__(lane.load)
        self._lane = lane

    def on_bytes(self, data: bytes) -> None:
        self._lane.on_bytes(data)

    def on_end(self, error: OSError | None, where: str) -> None:
        self._lane.on_end(error, where)


class Http1Lane(Lane):
    """A connection kept alive, one request at a time, and its successor when it has ended."""

    def __init__(self, load: Steady) -> None:
        super().__init__(load)
        self._line: Http1Line | None = None
        self._answer = Http1Answer()
        last = b"Connection: close\r\n" if load.fresh else b""
        host = b"Host: 127.0.0.1\r\n"
        self._request = b"GET %s HTTP/1.1\r\n%s%s\r\n" % (load.path.encode(), host, last)

    def ask(self) -> None:
        self._answer = Http1Answer()
        if self._line is not None:  # it may have been closed while nothing was under way
            asked, self.asked = self.asked, None
            self._line.read()
            self.asked = asked
        if self._line is None:
            self._line = Http1Line(self)
            self.load.note_line(self._line)
        self._line.send(self._request)

    def on_bytes(self, data: bytes) -> None:
        if self.asked is None:
            self._hang_up()
            return self.load.report.note_failure(Kind.WRONG, f"nobody asked for {data[:200]!r}")
        try:
            if self._answer.feed(data):
                self._take_answer()
        except Malformed as error:
            self._hang_up()
            self.failed(Kind.WRONG, str(error))
        return None

    def on_end(self, error: OSError | None, where: str) -> None:
        self._line = None
        if self.asked is None:
            self.load.report.closed_idle += 1
        elif error is None and not where and self._answer.feed_end():
            self._take_answer()
        elif isinstance(error, ssl.SSLError):
            self.failed(Kind.TLS, str(error))
        else:
            came = len(self._answer.raw)
            text = f"{error or 'an end'} {where} after {came} bytes of the answer"
            self.failed(kind_of_end(error, came > 0), text)

    def overdue(self) -> None:
        self._hang_up()
        self.failed(Kind.TIMEOUT, f"{len(self._answer.raw)} bytes of the answer came in time")

    def _take_answer(self) -> None:
        answer = self._answer
        if answer.closes and not self.load.fresh:
            self.load.report.announced += 1
        if answer.closes or self.load.fresh:
            self._hang_up()
        self.answered(answer.status, answer.body, answer.fields.get(b"worker"))

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
