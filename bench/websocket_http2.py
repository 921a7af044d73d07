"""The load of the row of WebSockets over HTTP/2 (RFC 8441): websocket_http2_load.c does the work.

The harness's own look is a WebSocket like any other, in the DATA frames of a stream.
"""

from __future__ import annotations

import socket
import struct
import tempfile
from dataclasses import dataclass

from bench.load import Address, Meter, Report, VoidError
from bench.websocket import HERE, Generator, compiled, read_report
from bench.websocket_probe import Message, Probe

SOURCES = tuple(
    HERE / name for name in ("websocket_http2_load.c", "http2_tools.h", "websocket_tools.h")
)
PROGRAM = HERE.parent / "build" / "bench" / "websocket_http2_load"

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM = ACK = 1
END_HEADERS = 4
CONNECT_PROTOCOL = 8
FRAME = 16384
# The static table (RFC 7541 A): these names, and :status 200 as a whole.
METHOD, SCHEME_HTTP, PATH, AUTHORITY, NEW_NAME, STATUS_200 = 2, 0x86, 4, 1, 0, 0x88


class StreamGenerator(Generator):
    """The load generator with all its streams open; leaving closes their connections."""

    def __init__(self, address: Address, **options: object) -> None:
        self._prepare(compiled(SOURCES, PROGRAM), address, options)


@dataclass(frozen=True, slots=True)
class StreamEcho:
    """`message` goes out and must come back, on each of the `streams` of each connection."""

    connections: int
    streams: int
    message: bytes

    def check(self, address: Address) -> str:
        """Two messages looked at closely."""
        due = Message(text=False, compressed=False, payload=self.message)
        with StreamProbe(address) as probe:
            for _ in range(2):
                probe.send(self.message, text=False)
                came = probe.receive()
                if came != due:
                    raise VoidError(f"answered another message: {came.payload[:60]!r}")
        return "WebSocket over HTTP/2"

    def run(self, address: Address, seconds: float, meter: Meter) -> Report:
        """One round."""
        self.check(address)
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.message)
            file.flush()
            options = {"connections": self.connections, "streams": self.streams}
            with (
                StreamGenerator(address, seconds=seconds, message=file.name, **options) as load,
                meter,
            ):
                told = load.play()
        return read_report(told)


class StreamProbe(Probe):
    """One open WebSocket on the only stream of a connection."""

    def _greet(self, address: Address, offer: str) -> str:
        self._socket = _Stream(self._socket, address)
        return ""


class _Stream:
    """What a probe needs of a socket, over stream 1. Its few bytes fit into the first windows."""

    def __init__(self, connection: socket.socket, address: Address) -> None:
        self._connection = connection
        connection.sendall(PREFACE + _frame(SETTINGS))
        self._await_settings()
        connection.sendall(_frame(HEADERS, END_HEADERS, 1, _request(address)))
        flags, block = self._next(HEADERS)
        while block and block[0] & 0xE0 == 0x20:  # an update of the table's size: RFC 7541 6.3
            block = block[1:]
        if block[:1] != bytes([STATUS_200]) or flags & END_STREAM:
            raise VoidError(f"answered the WebSocket handshake with {block[:8].hex(' ')}, not 88")

    def sendall(self, octets: bytes) -> None:
        for at in range(0, len(octets), FRAME):
            self._connection.sendall(_frame(DATA, 0, 1, octets[at : at + FRAME]))

    def recv(self, _: int) -> bytes:
        """A DATA frame's payload; nothing when the stream is ended."""
        flags, payload = self._next(DATA)
        while not payload and not flags & END_STREAM:
            flags, payload = self._next(DATA)
        return payload

    def close(self) -> None:
        self._connection.close()

    def _await_settings(self) -> None:
        kind, flags, payload = self._read()
        if kind != SETTINGS or flags & ACK:
            raise VoidError("does not answer the preface of HTTP/2 with SETTINGS")
        if dict(struct.iter_unpack("!HI", payload)).get(CONNECT_PROTOCOL) != 1:
            raise VoidError("does not offer extended CONNECT (SETTINGS_ENABLE_CONNECT_PROTOCOL)")
        self._connection.sendall(_frame(SETTINGS, ACK))

    def _next(self, wanted: int) -> tuple[int, bytes]:
        while True:
            kind, flags, payload = self._read()
            if kind == wanted:
                return flags, payload
            if kind == RST_STREAM:
                raise VoidError(f"reset the stream with error {int.from_bytes(payload, 'big')}")
            if kind == GOAWAY:
                raise VoidError(f"said GOAWAY with error {int.from_bytes(payload[4:8], 'big')}")
            if kind in (DATA, HEADERS):
                raise VoidError(f"sent a frame of kind {kind}, not {wanted}")
            if kind in (SETTINGS, PING) and not flags & ACK:
                echoed = payload if kind == PING else b""
                self._connection.sendall(_frame(kind, ACK, 0, echoed))

    def _read(self) -> tuple[int, int, bytes]:
        head = self._exactly(9)
        return head[3], head[4], self._exactly(int.from_bytes(head[:3], "big"))

    def _exactly(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            piece = self._connection.recv(size - len(taken))
            if not piece:
                raise VoidError("closed the connection in the middle of a WebSocket over HTTP/2")
            taken += piece
        return taken


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


def _request(address: Address) -> bytes:
    """RFC 8441 4, in literals without indexing."""
    return b"".join(
        (
            bytes([METHOD]) + _string("CONNECT"),
            bytes([SCHEME_HTTP]),
            bytes([PATH]) + _string(address.path),
            bytes([AUTHORITY]) + _string(f"127.0.0.1:{address.port}"),
            bytes([NEW_NAME]) + _string(":protocol") + _string("websocket"),
            bytes([NEW_NAME]) + _string("sec-websocket-version") + _string("13"),
        )
    )


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
