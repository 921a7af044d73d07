"""HTTP/2 for the behaviour suite: a client on the `h2` library, the judge that is not our own.

One thread drives it: whoever waits for something of his call reads the socket, and gives to the
other calls what came for them. So a client that waits for nothing reads nothing, and its windows
stay as they are. What `h2` finds wrong with the server raises its ProtocolError in the test.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings
from tests.support.behaviour import (
    AUTHORITY,
    H1,
    PATIENCE,
    Answer,
    Call,
    Client,
    Http,
    IncompleteError,
    Pairs,
    TlsRawClient,
)
from tests.support.raw import RawClient, RawResponse

FRAME_HEAD = 9  # RFC 9113 4.1
GOAWAY = 7


class GoAway(NamedTuple):
    last: int
    code: int


class H2Call(Call):
    """One stream. `held`: what comes for it is kept, but its window is not opened again."""

    def __init__(self, client: H2Client, stream: int) -> None:
        self.stream = stream
        self.status = 0  # until the final head has come
        self.headers: Pairs = []
        self.body = bytearray()
        self.trailers: Pairs = []
        self.informational: list[tuple[int, Pairs]] = []
        self.ended = False
        self.broken: str | None = None  # why it will never end
        self.reset_code: int | None = None  # of the server's RST_STREAM
        self.held = False
        self._owed = 0  # received while it was held
        self._told = 0
        self._client = client

    # ------------------------------------------------------------------------ what a test does

    def send_body(self, data: bytes, end: bool = False) -> None:
        """Waits for the windows; what a server no longer wants is dropped: `read` tells why."""
        while True:
            data = self.push(data, end)
            if not data:
                return
            if self.broken is not None or not self._client.advance():
                return

    def push(self, data: bytes, end: bool = False) -> bytes:
        """Send what the windows have room for; the rest is returned."""
        wire = self._client.h2
        try:
            while room := min(wire.local_flow_control_window(self.stream), len(data)):
                piece, data = data[:room], data[room:]
                last = end and not data
                for at in range(0, room, wire.max_outbound_frame_size):
                    part = piece[at : at + wire.max_outbound_frame_size]
                    done = last and at + len(part) == room
                    wire.send_data(self.stream, part, end_stream=done)
                if last:
                    end = False
            if end and not data:
                wire.end_stream(self.stream)
        except StreamClosedError:
            data = b""
        self._client.flush()
        return data

    def read_informational(self) -> tuple[int, Pairs]:
        self.wait(lambda: len(self.informational) > self._told or self.status > 0)
        assert len(self.informational) > self._told, f"not informational: {self.status}"
        self._told += 1
        return self.informational[self._told - 1]

    def read_until(self, mark: bytes) -> None:
        self.wait(lambda: mark in self.body or self.ended)
        assert mark in self.body, f"ended without {mark!r}: {bytes(self.body[:100])!r}"

    def read(self) -> Answer:
        self.release()
        self.wait(lambda: self.ended)
        return Answer(
            self.status,
            [(name.lower(), value) for name, value in self.headers],
            bytes(self.body),
            self.trailers,
            self.informational,
            [name for name, _ in self.headers],
        )

    def leave(self) -> None:
        """Where the answer is whole already, a connection that takes no more requests is closed."""
        if not self.ended and self.broken is None:
            self.broken = "given up"
            self._client.h2.reset_stream(self.stream, ErrorCodes.CANCEL)
            self._client.flush()
        elif self._client.goaways:
            self._client.close()

    def release(self) -> None:
        """No longer `held`: the windows are opened for all that has come."""
        self.held = False
        self._acknowledge(0)
        self._client.flush()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until something is true of this call; IncompleteError where it cannot become so."""
        while not condition():
            if self.broken is not None:
                raise IncompleteError(self.broken, bytes(self.body))
            if not self._client.advance():
                raise IncompleteError(self._client.ended or "", bytes(self.body))

    # ------------------------------------------------------------------------ what the server does

    def on_event(self, event: Any) -> None:
        match event:
            case InformationalResponseReceived():
                status, *headers = event.headers
                self.informational.append((int(status[1]), pairs(headers)))
            case ResponseReceived():
                status, *headers = event.headers
                assert status[0] == b":status", status
                self.status, self.headers = int(status[1]), pairs(headers)
            case DataReceived():
                self.body += event.data
                self._acknowledge(event.flow_controlled_length)
            case TrailersReceived():
                self.trailers = pairs(event.headers)
            case StreamEnded():
                self.ended = True
            case StreamReset():
                self.reset_code = int(event.error_code)
                self.broken = f"reset with {event.error_code!r}"

    def _acknowledge(self, size: int) -> None:
        self._owed += size
        if self._owed and not self.held:
            self._client.h2.acknowledge_received_data(self._owed, self.stream)
            self._owed = 0


def pairs(headers: Iterable[Any]) -> Pairs:
    return [(bytes(name), bytes(value)) for name, value in headers]


class H2Client(Client):
    """A connection; `socket` may be over TLS. Pushes are not wanted."""

    def __init__(self, sock: socket.socket, scheme: bytes) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.local_settings = Settings(True, {SettingCodes.ENABLE_PUSH: 0})
        self.goaways: list[GoAway] = []
        self.ended: str | None = None  # why nothing more comes
        self.scheme = scheme
        self.socket = sock
        self._calls: dict[int, H2Call] = {}
        self._input = bytearray()
        self._pongs = 0
        self.h2.initiate_connection()
        # so that a call whose window is shut never stops the others
        self.h2.increment_flow_control_window(1 << 30)
        self.flush()

    # ------------------------------------------------------------------------ what a test does

    def begin(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes | None = b"",
        *,
        old: bool = False,
    ) -> H2Call:
        assert not old, "there is no older version of it"
        fields = [(name.lower(), value) for name, value in headers]
        if body and not any(name == b"content-length" for name, _ in fields):
            fields.append((b"content-length", b"%d" % len(body)))
        call = self.open(
            [
                (b":method", method.encode("latin-1")),
                (b":scheme", self.scheme),
                (b":authority", AUTHORITY),
                (b":path", target.encode("latin-1")),
                *fields,
            ],
            end=body == b"",
        )
        if body:
            call.send_body(body, end=True)
        return call

    def open(self, fields: Pairs, end: bool) -> H2Call:
        """A new stream with this head."""
        stream = self.h2.get_next_available_stream_id()
        call = self._calls[stream] = H2Call(self, stream)
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()
        return call

    def knock(
        self, path: str = "/", headers: Iterable[tuple[bytes, bytes]] = (), version: bytes = b"13"
    ) -> H2Tunnel:
        """RFC 8441 4 and 5; the server must have said that it knows of it (3)."""
        while not self.h2.remote_settings.enable_connect_protocol:
            assert self.advance(), "the server does not announce extended CONNECT"
        fields = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", self.scheme),
            (b":authority", AUTHORITY),
            (b":path", path.encode("latin-1")),
            (b"sec-websocket-version", version),
        ]
        fields += [(name.lower(), value) for name, value in headers]
        return H2Tunnel(self.open(fields, end=False))

    def silent(self) -> bool:
        """By an answer to a ping: what the server sent before it has come."""
        before = self._heard()
        self.ping()
        return self._heard() == before

    def ping(self) -> None:
        """There and back."""
        expected = self._pongs + 1
        self.h2.ping(b"tidegate")
        self.flush()
        while self._pongs < expected:
            assert self.advance(), f"no answer to a ping: {self.ended}"

    def wait_closed(self) -> None:
        while self.advance():
            pass

    def close(self) -> None:
        self.ended = self.ended or "closed by the test"
        self.socket.close()

    # ------------------------------------------------------------------------ the wire

    def flush(self) -> None:
        """A server that is gone is found out by reading, which may still bring what it said."""
        data = self.h2.data_to_send()
        if self.ended is None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                self.socket.sendall(data)

    def advance(self) -> bool:
        """Read once and tell the calls; False: the connection has ended."""
        if self.ended is not None:
            return False
        try:
            data = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError) as error:
            self.ended = str(error)
            return False
        if not data:
            self.ended = "the connection ended"
            self.socket.close()
            return False
        self._input += data
        while (frame := self._next_frame()) is not None:
            if frame[3] == GOAWAY:
                self._on_goaway(frame[FRAME_HEAD:])
                continue
            for event in self.h2.receive_data(frame):
                self._on_event(event)
        self.flush()
        return True

    def _next_frame(self) -> bytes | None:
        size = FRAME_HEAD + int.from_bytes(self._input[:3], "big")
        if len(self._input) < max(size, FRAME_HEAD):
            return None
        frame = bytes(self._input[:size])
        del self._input[:size]
        return frame

    def _on_goaway(self, payload: bytes) -> None:
        """Not for `h2`, which takes no frame after it: streams up to `last` go on (6.8)."""
        last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        self.goaways.append(GoAway(last, int.from_bytes(payload[4:8], "big")))
        for stream, call in self._calls.items():
            if stream > last and not call.ended and call.broken is None:
                call.broken = f"not processed: {self.goaways[-1]}"

    def _on_event(self, event: Event) -> None:
        if isinstance(event, PingAckReceived):
            self._pongs += 1
        call = self._calls.get(getattr(event, "stream_id", None) or 0)
        if call is not None:
            call.on_event(event)

    def _heard(self) -> list[Any]:
        return [
            (call.status, len(call.informational), len(call.body), call.ended, call.broken)
            for call in self._calls.values()
        ]


class H2Tunnel:
    """A stream that carries another protocol's bytes, with the interface of a `RawClient`."""

    def __init__(self, call: H2Call) -> None:
        self.call = call
        self._taken = 0

    def send(self, data: bytes) -> None:
        self.call.send_body(data)

    def read_head(self) -> RawResponse:
        self.call.wait(lambda: self.call.status > 0)
        return RawResponse(self.call.status, "", self.call.headers, version=b"HTTP/2")

    def read_response(self) -> RawResponse:
        found = self.call.read()
        self._taken = len(found.body)
        return RawResponse(found.status, "", found.headers, found.body, version=b"HTTP/2")

    def read_eof(self) -> bytes:
        """All that is left, up to END_STREAM."""
        self.call.wait(lambda: self.call.ended)
        return self._take(len(self.call.body) - self._taken)

    def _exactly(self, count: int, partial: bytes) -> bytes:
        call, needed = self.call, self._taken + count
        call.wait(lambda: len(call.body) >= needed or call.ended)
        assert len(call.body) >= needed, f"ended: {bytes(call.body[self._taken :])!r}"
        return self._take(count)

    def _take(self, count: int) -> bytes:
        self._taken += count
        return bytes(self.call.body[self._taken - count : self._taken])


class H2(Http):
    name = "h2"
    version = "2"
    alpn = "h2"
    many_at_once = True
    socket_status = 200
    socket_fields: ClassVar = {name: [] for name in H1.socket_fields}
    keeps_name_case = False
    joins_cookies = True
    host_comes_first = True
    failure_ends_connection = False

    def connect(self, address: tuple[str, int] | str, context: ssl.SSLContext | None) -> H2Client:
        if context is None:
            return H2Client(RawClient(address, PATIENCE).socket, b"http")
        assert isinstance(address, tuple)
        return H2Client(TlsRawClient(address, context, self.alpn).socket, b"https")
