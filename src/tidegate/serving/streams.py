"""A connection on which HTTP/2 was agreed: many requests at once, each with its own exchange.

Strategy: it is a `TcpConnection` that has changed its class, once, when the client's first bytes or
TLS have told; so HTTP/1 pays nothing for it, and this file and the engine are loaded with the first
such client. What differs: events find their exchange by their stream, ends are a stream's and not
the connection's, and a write goes on while the engine has more than one share of output.
"""

from __future__ import annotations

import asyncio
import os
from logging import DEBUG, INFO
from typing import TYPE_CHECKING

from tidegate.asgi.scope import name_of
from tidegate.protocol.engine import FileSlice
from tidegate.protocol.events import Event, Fault, Request, Reset
from tidegate.protocol.http2.control import name_of_code
from tidegate.protocol.http2.engine import SHARE, Http2Engine
from tidegate.protocol.http2.frames import Code
from tidegate.serving.site import TURN
from tidegate.serving.stream_patience import PACE_OF_MANY, StreamPatience
from tidegate.serving.tcp import TcpConnection
from tidegate.serving.writing import READING, Phase, Writing

if TYPE_CHECKING:
    from tidegate.asgi.exchange import Exchange
    from tidegate.asgi.session import Session

LEAVING = 8  # of a connection that is gone, applications that learn of it in one turn
LATE_SHARE = 1  # events of one read, for who comes late in a batch
TURN_SHARE = 8  # and of what was left, at a turn's end: sixteen connections between two clock reads
WRITES = 4  # shares of the engine's output that are written in one go


class StreamsConnection(TcpConnection):
    """See the module."""

    __slots__ = ()

    talks = True
    engine: Http2Engine
    _patience: StreamPatience

    def begin_streams(self) -> None:
        """HTTP/2 from here on."""
        site = self._site
        assert site.streams is not None
        self._exchanges = {}
        self._exchange = None
        self._patience = StreamPatience(site.terms, self._clock.now)
        self.engine = Http2Engine(site.limits, site.streams, site.defaults, self._read_file)
        self.deadline = self._patience.on_open(self._clock.now)
        if site.floor.leaving is not None:
            self.engine.retire()

    def receive(self, data: bytes) -> None:
        """Bytes that came before it was known what they are."""
        self._handle(self.engine.receive(data))

    def go_on(self, request: Request, settings: bytes, rest: bytes) -> None:
        """The request that asked for HTTP/2 is its first stream (RFC 7540 3.2)."""
        self._handle(self.engine.begin_upgraded(request.head, settings))
        if rest:
            self.receive(rest)

    def _read_file(self, piece: FileSlice, size: int) -> bytes:
        try:
            data = os.pread(piece.fd, size, piece.offset)
            reason = "it became shorter while it was being sent"
        except OSError as error:
            data, reason = b"", str(error.strerror)
        if not data:
            self._site.service.log.error("A file could not be sent to its end: %s", reason)
        return data

    # ------------------------------------------------------------------------ reading

    def on_readable(self) -> None:
        clock = self._clock
        self.engine.share = SHARE if clock.read() <= clock.now + TURN else LATE_SHARE
        TcpConnection.on_readable(self)

    def _handle(self, events: list[Event]) -> None:
        self.flush_due = True
        for event in events:
            if self._phase:
                return  # an application has ended it
            if type(event) is Request:
                self._begin(event)
            else:
                self._route(event)
        if self.engine.stalled:
            self._go_on()

    def _route(self, event: Event) -> None:
        exchange = self._exchanges.get(event.stream)
        if exchange is not None:
            exchange.feed(event)
            if type(event) is Reset and exchange.task is None and not exchange.closing:
                self._exchanges.pop(event.stream, None)
        if type(event) is Fault:
            self._tell(event)

    def _tell(self, fault: Fault) -> None:
        """A refused request, a reset stream, or the end of the connection, for the log."""
        code = fault.status
        name = str(code) if code >= 100 else name_of_code(code)
        what = "refused with" if fault.stream else "ended with"
        level = INFO if code == Code.ENHANCE_YOUR_CALM else DEBUG
        told = (name_of(self._origin.client), what, name, fault.reason, fault.section)
        self._site.service.log.log(level, "HTTP/2 of %s %s %s: %s (%s)", *told)
        self._site.floor.counters.fire(f"http2_{name.lower()}")
        if not fault.stream:
            self._lose_exchange()

    def _begin(self, request: Request) -> None:
        """Start the application on a request, unless it is busy with too many that were reset."""
        exchanges = self._exchanges
        if exchanges and len(exchanges) >= self._site.streams.streams:  # type: ignore[union-attr]
            self.engine.cancel(request.stream, Code.REFUSED_STREAM)  # it may be asked again
            return
        TcpConnection._begin(self, request)
        exchange, self._exchange = self._exchange, None
        if exchange is not None and (exchange.task is not None or exchange.closing):
            self._exchanges[request.stream] = exchange
            if self._phase:
                self._lose_exchange()

    def on_end(self, exchange: Exchange | Session) -> None:
        self._site.floor.end(exchange)
        if not exchange.closing:
            self._exchanges.pop(exchange.stream, None)

    # ------------------------------------------------------------------------ writing

    def finish(self) -> None:
        """An answer is complete; others may be about to be."""
        self.flush_soon()

    @property
    def backlog(self) -> int:
        """Nothing: a stream waits for its own queue, and the outbox is a share at most."""
        return 0

    def flush(self) -> None:
        """Write what the engine has, share by share: what is framed has no priority any longer.

        With a backlog the kernel is full: it will say when it is not.
        """
        if self._outbox.backlog:
            return
        Writing.flush(self)
        engine = self.engine
        if engine.lost:
            self._lose_streams()
        for _ in range(WRITES - 1):
            if not engine.more or self._outbox.backlog or self._phase:
                return
            if self._clock.read() > self._clock.now + TURN:
                break
            Writing.flush(self)
        if engine.more and not self._outbox.backlog and not self._phase:
            self.flush_soon()

    def _lose_streams(self) -> None:
        """Files have failed, and their streams with them."""
        lost, self.engine.lost = self.engine.lost, []
        for stream in lost:
            exchange = self._exchanges.get(stream)
            if exchange is not None:
                exchange.lose()
        self.flush_soon()

    def on_batch_end(self) -> None:
        """Write what the turn has brought; a stream's end may be what its application waits for."""
        self.flush_due = False
        self.flush()
        if self.eof:
            for stream in self.engine.stuck():  # who has closed its side opens no windows
                self.abandon(stream, "")
        if self._drained:
            self._wake_drained()
        if self.engine.resting and self._watched is READING:
            self.idle_since = now = self._clock.now
            if self.engine.spent and self.deadline > now + PACE_OF_MANY:
                self.deadline = now + PACE_OF_MANY
        elif not self._phase:
            self._settle()

    def _settle(self) -> None:
        if self._drained:
            self._wake_drained()
        TcpConnection._settle(self)
        if not self._phase:
            look = self._clock.now + self._patience.pace(self.engine)
            self.deadline = min(self.deadline, look)

    def on_turn_end(self) -> None:
        self.engine.share = TURN_SHARE
        TcpConnection.on_turn_end(self)

    def on_writable(self) -> None:
        if self._phase is Phase.OPEN and self._outbox.backlog:
            Writing.flush(self)
        TcpConnection.on_writable(self)

    def drained(self, stream: int, least: int) -> asyncio.Future[None]:
        """Done once no more than `least` bytes of the stream wait, or it is gone."""
        future = self._site.service.loop.create_future()
        if not self._phase and self.engine.queued(stream) > least:
            self._drained.append((future, stream, least))
            if not self._outbox.backlog and (self.engine.more or self.eof):
                self.flush_soon()
        else:
            future.set_result(None)
        return future

    def _wake_drained(self) -> None:
        if self._phase:
            return  # `_lose_exchange` sees to it
        waiting, self._drained = self._drained, []
        for entry in waiting:
            future, stream, least = entry
            if future.done():
                continue
            if self.engine.queued(stream) <= least:
                future.set_result(None)
            else:
                self._drained.append(entry)

    # ------------------------------------------------------------------------ ends

    def retire(self) -> None:
        """A GOAWAY says all that there is to say."""
        TcpConnection.retire(self)
        self._await_round_trip()

    def stop(self) -> None:
        """Graceful: what is open is finished; new requests are told to go elsewhere (6.8)."""
        self._stop_engine()
        self._await_round_trip()

    def give_up_idle(self, option: str) -> None:
        """Nothing was asked for in time: say so, and leave a request on its way its chance."""
        TcpConnection.give_up_idle(self, option)
        self._await_round_trip()

    def _await_round_trip(self) -> None:
        """The final GOAWAY follows the first, answered or not."""
        if self._phase is Phase.OPEN:
            self.deadline = min(self.deadline, self._patience.on_stop(self._clock.now))

    def end_now(self) -> None:
        """The grace is over. What is open has no end of its own, and cannot be taken for whole."""
        self.close()

    def abandon(self, stream: int, reason: str) -> None:
        """The stream ends; the others go on."""
        self._end_stream(stream, Code.INTERNAL_ERROR)

    def give_up_rest(self, stream: int) -> None:
        """The client has had its answer, and has not ended the body that nobody reads (8.1)."""
        self._end_stream(stream, Code.NO_ERROR)

    def _end_stream(self, stream: int, code: Code) -> None:
        self.engine.cancel(stream, code)
        exchange = self._exchanges.get(stream)
        if exchange is not None:
            exchange.lose()
        self.flush_soon()

    def give_up_peer(self, stream: int, option: str, what: str) -> None:
        """The peer does not read, or does not answer: on one stream, or (0) on all of them."""
        if not stream:
            TcpConnection.give_up_peer(self, stream, option, what)
            return
        self._site.floor.counters.fire(option)
        exchange = self._exchanges.get(stream)
        client = self._origin.client if exchange is None else exchange.scope.get("client")
        flag = option.replace("_", "-")
        told = (stream, name_of(client), what, flag)
        self._site.service.log.log(INFO, "Stream %d of %s reset: it %s (--%s)", *told)
        self._end_stream(stream, Code.CANCEL)

    def _lose_exchange(self) -> None:
        TcpConnection._lose_exchange(self)
        waiting, self._drained = self._drained, []
        doomed, self._exchanges = self._exchanges, {}
        of: dict[int, list[asyncio.Future[None]]] = {}
        for future, stream, _ in waiting:
            of.setdefault(stream, []).append(future)
        leave_in_turns(
            self._site.service.loop,
            [(exchange, of.pop(stream, [])) for stream, exchange in doomed.items()],
        )
        for futures in of.values():
            wake(futures)

    # ------------------------------------------------------------------------ deadlines

    def on_deadline(self, now: float) -> None:
        if self._phase is not Phase.OPEN:
            TcpConnection.on_deadline(self, now)
            return
        for stream, exchange in [*self._exchanges.items()]:
            if exchange.task is None and not exchange.closing:
                del self._exchanges[stream]
        look = self._patience.check(now, self)
        if self._phase is not Phase.OPEN:
            return
        self.deadline = look
        for exchange in [*self._exchanges.values()]:
            self._check_request(now, exchange)

    def reads(self, stream: int) -> bool:
        return self.engine.reads(stream)

    def look(self, now: float) -> float:
        """Let what is carried see to its own waits; returns when the first has its next."""
        return min(
            (exchange.look(now) for exchange in [*self._exchanges.values()]), default=now + 60.0
        )


def wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def leave_in_turns(
    loop: asyncio.AbstractEventLoop,
    those: list[tuple[Exchange | Session, list[asyncio.Future[None]]]],
) -> None:
    """A connection is gone, with all that wait on it: some learn now, the others in later turns.

    Fifty connections with a hundred streams each, given up at once, held all for half a second.
    """
    for exchange, futures in those[:LEAVING]:
        exchange.lose()
        wake(futures)
    if len(those) > LEAVING:
        loop.call_soon(leave_in_turns, loop, those[LEAVING:])
