"""The steady client over HTTP/2: several streams on a connection, and what a GOAWAY asks for.

The `h2` library speaks the protocol, but believes every GOAWAY to be the end: it takes no frame
after one. RFC 9113 6.8 wants the streams up to the last one answered, so GOAWAY frames are taken out
of the stream of bytes and understood here.
"""

from __future__ import annotations

import ssl
import struct
from collections import deque
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from tests.support.steady_http1 import AGAIN, Kind, Lane, Line, Step, kind_of_end

if TYPE_CHECKING:
    from tests.support.steady import Steady

GOAWAY = 7
LARGEST = (1 << 31) - 1
SMALLEST_LIMIT = 100  # 6.5.2: without a word of the server there is no limit; be modest


class Broken(Exception):
    """The server has broken the rules of HTTP/2."""


class Stream:
    """One request under way, and as much of its answer as has come."""

    __slots__ = ("body", "lane", "status", "worker")

    def __init__(self, lane: Http2Lane) -> None:
        self.lane = lane
        self.status = 0
        self.worker: bytes | None = None
        self.body = bytearray()


class Http2Line(Line):
    """A connection; lanes bring their requests, and those it cannot have are given back to them."""

    def __init__(self, load: Steady) -> None:
        self.last = LARGEST  # the highest stream the server has not disowned
        self.retiring = False  # it takes no further request
        self._was_open = False
        self._waiting: deque[Http2Lane] = deque()
        self._streams: dict[int, Stream] = {}
        self._disowned: set[int] = set()
        self._unread = bytearray()
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        super().__init__(load)

    # For the lanes.

    def bring(self, lane: Http2Lane) -> None:
        self._waiting.append(lane)
        if self.step is Step.OPEN:
            if not self._streams:
                self.read()  # it may have been closed, or told to go, while it rested
            self._start_waiting()

    def retire(self) -> None:
        """No request beyond those it was brought; closed when they are answered."""
        self.retiring = True
        self._close_if_done()

    def give_up(self, lane: Http2Lane) -> str:
        """The lane has waited too long; how far its request has come. Nobody waits here again."""
        if lane in self._waiting:
            self._waiting.remove(lane)
            self.retire()
            return "it was never sent: " + ("no free stream" if self._streams else self.step.name)
        found = next(n for n, stream in self._streams.items() if stream.lane is lane)
        stream = self._streams.pop(found)
        self._h2.reset_stream(found, ErrorCodes.CANCEL)
        self._push()
        self.retire()
        return f"status {stream.status}, {len(stream.body)} bytes of the body came in time"

    def close(self) -> None:
        if self.step is Step.OPEN:
            try:
                self._h2.close_connection()
                self._push()
            except h2.exceptions.ProtocolError:  # the server has broken the rules before
                pass
        super().close()

    # What the connection does.

    def on_open(self) -> None:
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.selected_alpn_protocol() != "h2":
            self._leave()
            return self._lose(Kind.WRONG, "the server did not choose h2 by ALPN")
        self._was_open = True
        self._h2.initiate_connection()
        return self._start_waiting()

    def on_bytes(self, data: bytes) -> None:
        self._unread += data
        try:
            self._take_frames()
            self._push()
        except (h2.exceptions.ProtocolError, Broken) as error:
            self._break(f"{type(error).__name__}: {error}")
        self._start_waiting()
        self._close_if_done()

    def on_end(self, error: OSError | None, where: str) -> None:
        if self._was_open and not self._streams and not self.retiring:
            self.load.report.closed_idle += 1
        if isinstance(error, ssl.SSLError):
            return self._lose(Kind.TLS, str(error))
        return self._lose(None, where, error)

    # Requests and answers.

    def _start_waiting(self) -> None:
        limit = min(self._h2.remote_settings.max_concurrent_streams, SMALLEST_LIMIT)
        if self.step is Step.OPEN:
            while self._waiting and len(self._streams) < limit:
                lane = self._waiting.popleft()
                number = self._h2.get_next_available_stream_id()
                self._h2.send_headers(number, lane.request, end_stream=True)
                self._streams[number] = Stream(lane)
            self._push()

    def _push(self) -> None:
        if out := self._h2.data_to_send():
            self.send(out)

    def _take_frames(self) -> None:
        """Hand whole frames to `h2`, in order, and keep each GOAWAY from it."""
        at = begin = 0
        while len(self._unread) >= at + 9:
            end = at + 9 + int.from_bytes(self._unread[at : at + 3], "big")
            if len(self._unread) < end:
                break
            if self._unread[at + 3] == GOAWAY:
                self._hand_over(bytes(self._unread[begin:at]))
                self._on_goaway(bytes(self._unread[at + 9 : end]))
                begin = end
            at = end
        self._hand_over(bytes(self._unread[begin:at]))
        del self._unread[:at]

    def _hand_over(self, data: bytes) -> None:
        for event in self._h2.receive_data(data) if data else ():
            number = getattr(event, "stream_id", None)
            if number in self._disowned and isinstance(event, h2.events.ResponseReceived):
                raise Broken(f"stream {number} is answered, after a GOAWAY has disowned it")
            if isinstance(event, h2.events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if number in self._streams:
                self._on_event(event, number, self._streams[number])

    def _on_event(self, event: h2.events.Event, number: int, stream: Stream) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            fields = dict(event.headers)
            stream.status = int(fields[b":status"])
            stream.worker = fields.get(b"worker")
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            del self._streams[number]
            stream.lane.answered(stream.status, bytes(stream.body), stream.worker)
        elif isinstance(event, h2.events.StreamReset):
            del self._streams[number]
            if event.error_code == ErrorCodes.REFUSED_STREAM:  # 8.7: it was not processed
                self.load.report.resent["refused_stream"] += 1
                stream.lane.ask_later()
            else:
                text = f"stream {number} with error {event.error_code!s}, status {stream.status}"
                stream.lane.failed(Kind.RESET, text)

    def _on_goaway(self, payload: bytes) -> None:
        last, code = struct.unpack_from("!II", payload)
        report, last = self.load.report, last & LARGEST
        report.goaways += 1
        if code != ErrorCodes.NO_ERROR:
            report.note_failure(Kind.GOAWAY, f"error {code}, {payload[8:200]!r}")
        if last > self.last:
            raise Broken(f"6.8: a GOAWAY raised the last stream from {self.last} to {last}")
        self.last, self.retiring = last, True
        above = [number for number in self._streams if number > last]
        self._disowned.update(above)
        if above:
            report.resent["goaway"] += len(above)
        lanes = [self._streams.pop(number).lane for number in above]
        for lane in (*lanes, *self._waiting):
            lane.ask()
        self._waiting.clear()

    # Ends.

    def _close_if_done(self) -> None:
        if self.retiring and not self._streams and not self._waiting:
            self.close()

    def _break(self, text: str) -> None:
        """The server has broken the rules: nothing more is believed on this connection."""
        self._leave()
        if not self._streams:
            self.load.report.note_failure(Kind.WRONG, text)
        self._lose(Kind.WRONG, text)

    def _lose(self, kind: Kind | None, where: str, error: OSError | None = None) -> None:
        """It has ended with these requests under way. Those that wait for a free stream were never
        sent and go elsewhere; where no connection ever was, they have failed with it."""
        self.retiring = True
        streams, self._streams = self._streams, {}
        waiting, self._waiting = self._waiting, deque()
        text = where if kind else f"{error or 'an end'} {where}"
        for number, stream in streams.items():
            came = (
                f", stream {number}, status {stream.status}, {len(stream.body)} bytes of the body"
            )
            stream.lane.failed(kind or kind_of_end(error, stream.status > 0), text + came)
        for lane in waiting:
            if self._was_open:
                lane.ask()
            else:
                lane.failed(kind or kind_of_end(error, begun=False), text)


class Http2Slot:
    """The place of one connection: the one that takes requests now."""

    def __init__(self, load: Steady) -> None:
        self.load = load
        self._line: Http2Line | None = None

    def line(self) -> Http2Line:
        if self._line is None or self._line.retiring or self.load.fresh:
            self._line = Http2Line(self.load)
            self.load.note_line(self._line)
        return self._line


class Http2Lane(Lane):
    """One of the streams that a connection keeps busy."""

    def __init__(self, slot: Http2Slot) -> None:
        super().__init__(slot.load)
        self._slot = slot
        self._line: Http2Line | None = None
        scheme = b"http" if slot.load.context is None else b"https"
        self.request = [
            (b":method", b"GET"),
            (b":scheme", scheme),
            (b":authority", b"127.0.0.1"),
            (b":path", slot.load.path.encode()),
        ]

    def ask(self) -> None:
        self._line = self._slot.line()
        self._line.bring(self)
        if self.load.fresh:
            self._line.retire()

    def ask_later(self) -> None:
        """Once more in a moment, unless the request is overdue by then."""
        asked, self._line = self.asked, None
        self.load.later(AGAIN, lambda: self.ask() if self.asked == asked else None)

    def overdue(self) -> None:
        line = self._line
        text = line.give_up(self) if line is not None else "it was never sent"
        self.failed(Kind.TIMEOUT, text)
