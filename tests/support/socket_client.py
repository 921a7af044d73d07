"""A WebSocket client of the plainest kind: it sends whatever it is told to.

It runs over a `RawClient`, or over anything else that is a `Stream`, as one of HTTP/2 is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tests.support.raw import RawClient, RawResponse

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3, and what it makes of it:
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x37\xfa\x21\x3d"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def handshake(path: str = "/", lines: bytes = b"", version: bytes = b"13") -> bytes:
    return (
        b"GET %b HTTP/1.1\r\nHost: tide.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: %b\r\n%b\r\n"
    ) % (path.encode(), KEY, version, lines)


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    body = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    return bytes(((0x80 if fin else 0) | opcode,)) + length + MASK + body


def closing(code: int, reason: str = "") -> bytes:
    return masked(CLOSE, code.to_bytes(2, "big") + reason.encode())


class Stream(Protocol):
    """What carries a WebSocket's bytes, after the handshake was sent."""

    def send(self, data: bytes) -> None: ...
    def read_head(self) -> RawResponse: ...
    def read_response(self) -> RawResponse: ...
    def read_eof(self) -> bytes: ...
    def _exactly(self, count: int, partial: bytes) -> bytes: ...


class SocketClient:
    """After a handshake that was accepted, or was not: `response` tells."""

    def __init__(self, raw: Stream, response: RawResponse) -> None:
        self.raw = raw
        self.response = response

    def send(self, *frames: bytes) -> None:
        self.raw.send(b"".join(frames))

    def read(self) -> tuple[int, bytes]:
        """The server's next frame: its opcode and payload. It is never masked or fragmented."""
        first, length = self.raw._exactly(2, b"")
        assert first & 0xF0 == 0x80, "neither fragments nor extensions were agreed on"
        assert length < 0x80, "a server's frame is not masked (RFC 6455 5.1)"
        if length == 126:
            length = int.from_bytes(self.raw._exactly(2, b""), "big")
            assert length > 125
        elif length == 127:
            length = int.from_bytes(self.raw._exactly(8, b""), "big")
            assert length >= 1 << 16
        return first & 0x0F, self.raw._exactly(length, b"")

    def read_close(self) -> tuple[int | None, str]:
        """The server's close: its code and reason, nothing before it but what was read."""
        opcode, payload = self.read()
        assert opcode == CLOSE, (opcode, payload[:100])
        if not payload:
            return None, ""
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def ask(self, text: str) -> str:
        """Send a text and read one."""
        self.send(masked(TEXT, text.encode()))
        opcode, payload = self.read()
        assert opcode == TEXT
        return payload.decode()


@contextmanager
def connected(
    address: tuple[str, int] | str, path: str = "/", lines: bytes = b""
) -> Iterator[SocketClient]:
    with RawClient(address) as raw:
        raw.send(handshake(path, lines))
        yield SocketClient(raw, raw.read_head())
