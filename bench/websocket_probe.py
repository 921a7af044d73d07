"""One WebSocket by the harness itself: slow, thorough, and with zlib.

What the load generator compares byte by byte is what came in here and was looked at.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import zlib
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from bench.load import PATIENCE, Address, VoidError

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Each message on its own: then the same message is always answered with the same bytes.
OFFER: Final = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
TAIL: Final = b"\x00\x00\xff\xff"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: its payload may still be compressed."""

    text: bool
    compressed: bool
    payload: bytes

    @property
    def content(self) -> bytes:
        """What it says."""
        if not self.compressed:
            return self.payload
        inflater = zlib.decompressobj(-15)
        try:
            content = inflater.decompress(self.payload + TAIL)
        except zlib.error as error:
            raise VoidError(f"compressed a message that cannot be inflated: {error}") from error
        if inflater.unused_data or inflater.unconsumed_tail:
            raise VoidError("compressed a message with something behind its end")
        return content


def compress(content: bytes) -> bytes:
    """RFC 7692 7.2.1, in a context of its own: valid whatever was agreed on."""
    deflater = zlib.compressobj(wbits=-15)
    made = deflater.compress(content) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return made.removesuffix(TAIL)


def masked(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """One final frame as a client sends it."""
    size = len(payload)
    head = bytes([0x80 | (0x40 if compressed else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Probe:
    """One open WebSocket; anything RFC 6455 does not allow is a `VoidError`."""

    def __init__(self, address: Address, *, offer: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", address.port), PATIENCE)
        self._ahead = b""
        try:
            self.agreed = self._greet(address, offer)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, payload: bytes, *, text: bool, compressed: bool = False) -> None:
        """One message in one frame."""
        self._socket.sendall(masked(TEXT if text else BINARY, payload, compressed=compressed))

    def receive(self) -> Message:
        """The next message, put together; pings on the way are answered."""
        payload, first = b"", None
        while True:
            flags, part = self._frame()
            opcode = flags & 15
            if opcode == PING:
                self._socket.sendall(masked(PONG, part))
            elif opcode == CLOSE:
                raise VoidError(f"closed with {int.from_bytes(part[:2], 'big') or 1005}")
            elif opcode < CLOSE:
                if (opcode == 0) is (first is None) or opcode > BINARY or flags & 0x30:
                    raise VoidError(f"sent a frame that does not belong here: {flags:#04x}")
                first = flags if first is None else first
                payload += part
                if flags & 0x80:
                    return Message(first & 15 == TEXT, bool(first & 0x40), payload)

    def _frame(self) -> tuple[int, bytes]:
        flags, size = self._take(2)
        if size & 0x80:
            raise VoidError("sent a masked frame")
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        return flags, self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._ahead) < size:
            piece = self._socket.recv(1 << 20)
            if not piece:
                raise VoidError("closed the connection in the middle of a WebSocket")
            self._ahead += piece
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return taken

    def _greet(self, address: Address, offer: str) -> str:
        key = base64.b64encode(os.urandom(16))
        lines = [
            f"GET {address.path} HTTP/1.1",
            f"Host: 127.0.0.1:{address.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        lines += [f"Sec-WebSocket-Extensions: {offer}"] if offer else []
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        status, fields = self._head()
        if not status.startswith("HTTP/1.1 101"):
            raise VoidError(f"answered the WebSocket handshake with {status}")
        expected = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        if fields.get("sec-websocket-accept") != expected:
            raise VoidError("answered the WebSocket handshake with a wrong Sec-WebSocket-Accept")
        agreed = fields.get("sec-websocket-extensions", "")
        if agreed and not offer:
            raise VoidError(f"agreed to {agreed}, which was not offered")
        return agreed

    def _head(self) -> tuple[str, dict[str, str]]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._take(1)
        status, *lines = head.decode("latin-1").strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return status, {name.lower(): value.strip() for name, _, value in pairs}
