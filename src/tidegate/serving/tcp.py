"""One connection over TCP, TLS or a Unix socket: bytes in to the engine, the engine's bytes out.

Strategy: the poller calls `on_readable`; what was read goes to the engine, its events go to the
exchange, and what all of them want to say leaves in one write at the end of the callback ("cork").
An application that answers later marks the connection (`flush_soon`), and its bytes leave at the
end of that loop turn (turn.py). The next pipelined request is begun only here, never inside an
application's `send`, and no connection gets more than its share of a batch.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from logging import DEBUG, INFO
from typing import TYPE_CHECKING, Any

from tidegate.asgi.exchange import Exchange
from tidegate.asgi.scope import Origin, http_scope, name_of
from tidegate.asgi.wire import HIGH_WATER, NEVER
from tidegate.net.ends import reset_on_close
from tidegate.net.tasks import start
from tidegate.protocol.engine import Ending, Waiting
from tidegate.protocol.events import Body, Event, Fault, Request, Switch
from tidegate.serving.negotiate import H2, first_engine
from tidegate.serving.site import TURN, Site
from tidegate.serving.writing import READING, Phase, Writing

if TYPE_CHECKING:
    from tidegate.asgi.session import Session
    from tidegate.net.tls_socket import TlsSocket
    from tidegate.serving.lingering import Lingering
    from tidegate.serving.streams import StreamsConnection

READ_SIZE = 68 * 1024  # what is 64 KiB long, a WebSocket message say, comes whole with its head
BODY_READ_SIZE = 256 * 1024  # while a body comes in: a quarter of the system calls
LATE_READ_SIZE = 16 * 1024  # for who comes late in a batch
SHARE = 32  # pipelined requests, or reads, a connection may have of one batch

BETWEEN = (Waiting.IDLE, Waiting.HEAD)  # no request is under way


class TcpConnection(Writing):
    """See the module. `deadline` is when the sweep shall look at it next."""

    # fmt: off
    __slots__ = (
        "_batch", "_exchange", "_exchanges", "_fd", "_lingering", "_origin", "_read_size", "_recv",
        "_sock", "_tls", "begun", "eof", "opening", "received",
    )
    # fmt: on
    talks = False  # its peer sends while it reads an answer

    def __init__(self, site: Site, sock: socket.socket) -> None:
        super().__init__(site, sock)
        self._batch = site.poller.batch
        self._sock: socket.socket | TlsSocket = sock
        self._fd = sock.fileno()
        self._recv: Callable[[int], bytes] = sock.recv
        self._tls: TlsSocket | None = None
        self._read_size = READ_SIZE
        self._exchange: Exchange | Session | None = None
        self._exchanges: dict[int, Exchange | Session]  # by stream, where there are many
        self._lingering: Lingering  # once our side is shut
        self.begun = 0  # requests
        self.eof = False
        self.received = 0
        self.opening: Any = None
        site.poller.add(self._fd, self)
        site.deadlines.add(self)
        site.floor.connections.add(self)
        site.floor.counters.connections += 1

    def open(self, origin: Origin, tls: TlsSocket | None, alpn: str | None) -> None:
        """From here on HTTP is spoken."""
        if tls is not None:
            self._tls = tls
            self._recv = tls.recv
            self._write_through(tls)
        self._origin = origin
        self.opening = None
        self._phase = Phase.OPEN
        self.deadline = self._patience.on_open(self._clock.now)
        if alpn == H2:
            self.carry_streams()
        else:
            self.engine = first_engine(self._site, clear=tls is None)
            if self._site.floor.leaving is not None:
                self.retire()

    def carry_streams(self) -> StreamsConnection:
        """From here on HTTP/2 is spoken, by a connection that is the same but for its class."""
        from tidegate.serving.streams import StreamsConnection

        self.__class__ = StreamsConnection
        assert isinstance(self, StreamsConnection)
        self.begin_streams()
        return self

    def adopt(self, tls: TlsSocket) -> None:
        """TLS has wrapped the socket; the descriptor stays, whoever closes it changes."""
        self._sock = tls

    def await_handshake(self, *, write: bool) -> None:
        """Watch for what a handshake waits for."""
        if self._watched != (not write, write):
            self._watched = (False, True) if write else READING
            self._site.poller.watch(self._fd, not write, write)

    def decline(self, answer: bytes) -> None:
        """A peer that speaks no TLS on a port for it: tell it in plain words, and no more."""
        assert not isinstance(self._sock, socket.socket)
        self._sock = plain = self._sock.release()
        self._recv = plain.recv
        self._write_through(plain)
        try:
            plain.send(answer)
        except OSError:
            self.close()
        else:
            self._linger()

    # ------------------------------------------------------------------------ reading

    def on_readable(self) -> None:
        if self._phase:
            if self._phase is Phase.OPENING:
                self.opening.on_readable()
            elif self._phase is Phase.LINGERING and not self._lingering.discard(self._recv):
                self.close()
            return
        size = self._read_size
        if size != READ_SIZE and self._clock.read() > self._clock.now + TURN:
            size = LATE_READ_SIZE
        try:
            data = self._recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if data:
            self.received += len(data)
            self._handle(self.engine.receive(data))
        elif self.eof:
            self.close()  # a hang-up, reported though reading had ended: nobody is there
            return
        else:
            self.eof = True
            self._handle(self.engine.receive_eof())
        if self._tls is not None and self._tls.more:
            self.on_batch_end()
            self._read_more(self._tls)
        elif self._batch is None:
            self.on_batch_end()
        else:
            self._batch.append(self)

    def _read_more(self, tls: TlsSocket) -> None:
        """What TLS has taken in already, where no poller sees it; within a share of the batch."""
        for _ in range(SHARE):
            if self._phase or not tls.more or not self._watched[0]:
                return
            try:
                data = self._recv(self._read_size)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            self.received += len(data)
            self.eof = not data
            self._turn(self.engine.receive(data) if data else self.engine.receive_eof())
        self.flush_soon()

    def _turn(self, events: list[Event]) -> None:
        self._handle(events)
        self.on_batch_end()

    def _handle(self, events: list[Event]) -> None:
        """Route events, and go on with what the engine has buffered; what is said leaves later."""
        self.flush_due = True
        for event in events:
            kind = type(event)
            if kind is Body:
                if self._exchange is not None:
                    self._exchange.feed(event)
            elif kind is Request:
                self._begin(event)  # type: ignore[arg-type]
            else:
                self._route(event)
        if self.engine.stalled:
            self._go_on()

    def on_batch_end(self) -> None:
        """Write what the turn has brought, and see what is awaited next."""
        self.flush_due = False
        self.flush()
        if self.engine.resting and self._watched is READING:
            self.idle_since = self._clock.now
        elif not self._phase:
            self._settle()

    def _go_on(self) -> None:
        """Pipelined requests: one after the other, while each is answered and taken at once."""
        engine = self.engine
        clock = self._clock
        for _ in range(SHARE):
            if not engine.stalled or engine.ending is not Ending.NO or self._phase:
                return
            if clock.read() > clock.now + TURN:
                return
            if engine.queued(0) > HIGH_WATER:
                self.flush()
            if self._outbox.backlog:
                return
            for event in engine.receive(b""):
                if self._phase:
                    return
                if type(event) is Request:
                    self._begin(event)
                else:
                    self._route(event)

    def _route(self, event: Event) -> None:
        if self._exchange is not None:
            self._exchange.feed(event)
        if type(event) is Switch:
            self.carry_streams().receive(event.data)
        elif type(event) is Fault:
            told = (name_of(self._origin.client), event.status, event.reason, event.section)
            self._site.service.log.debug("%s refused with %d: %s (%s)", *told)
            self._site.floor.counters.fire(str(event.status))

    def _begin(self, request: Request) -> None:
        """Start the application on a request."""
        site = self._site
        service = site.service
        self.begun += 1
        if request.head.upgrade is None:
            scope = http_scope(self._origin, self.engine, request)
            exchange: Exchange | Session = Exchange(service, self, self.engine, request, scope)
        else:
            from tidegate.serving.upgrade import upgrade

            upgraded = upgrade(site, self, self._origin, request)
            if upgraded is None:
                return
            exchange = upgraded
        self._exchange = exchange
        if not (request.end and site.plain) and not self._admit(exchange):
            return
        task = start(service.loop, exchange.run(), site.context())
        if task.done():
            if not exchange.closing:
                self._exchange = None
        else:
            exchange.task = task
            site.floor.running.add(exchange)
        counters = site.floor.counters
        counters.requests = number = counters.requests + 1
        if number == site.floor.last_request:
            site.floor.on_last_request()

    def _admit(self, exchange: Exchange | Session) -> bool:
        """See to a body, a deadline and a limit; False: the server was full and has said so."""
        if not exchange.request.end:
            self._read_size = BODY_READ_SIZE
        limit = self._site.terms.request
        if limit:
            self.deadline = min(self.deadline, self._clock.now + limit)
        if self._site.floor.full:
            exchange.answer(503, b"Service Unavailable\n", ((b"retry-after", b"1"),))
            return False
        return True

    def on_end(self, exchange: Exchange | Session) -> None:
        """The application's task is over."""
        self._site.floor.end(exchange)
        if self._exchange is exchange and not exchange.closing:
            self._exchange = None

    # ------------------------------------------------------------------------ writing

    def on_turn_end(self) -> None:
        if self._phase:
            self.flush_due = False
            return
        try:
            if self.engine.stalled and not self._outbox.backlog:
                self._turn(self.engine.receive(b""))
            else:
                self.on_batch_end()
            if self._tls is not None and self._tls.more and not self._phase:
                self._read_more(self._tls)
        except Exception as error:
            self.on_error(error)

    def on_writable(self) -> None:
        if self._phase:
            if self._phase is Phase.OPENING:
                self.opening.on_readable()
            return
        self.flush()
        if self._phase is Phase.OPEN:
            self._settle()

    def _settle(self) -> None:
        """After writing: see what is awaited, or whether this is the end."""
        if self._drained and not self._outbox.backlog:
            self._wake_drained()
        engine = self.engine
        if engine.ending is not Ending.NO:
            self._end(engine.ending)
            return
        if engine.stalled and not self._outbox.backlog:
            self.flush_soon()  # its share is used up
        waiting = engine.waiting
        if waiting is Waiting.HEAD:
            self.deadline = min(self.deadline, self._patience.on_head(self._clock.now, self.begun))
        elif waiting is Waiting.BODY:
            self.deadline = min(self.deadline, self._patience.on_body(self._clock.now, self))
        elif waiting is Waiting.IDLE:
            self.idle_since = self._clock.now
            self._read_size = READ_SIZE
        self._watch()

    def _watch(self) -> None:
        """Tell the poller what to watch for, if that has changed."""
        read = self.engine.hungry and not self.eof
        if read and self._outbox.backlog and self.engine.waiting in BETWEEN:
            read = False  # whose answers wait to be taken gets no more of them
        write = self._outbox.backlog > 0
        if (read, write) != self._watched:
            if read and not self._watched[0]:
                self._patience.on_resume(self._clock.now, self.received)
                if self._tls is not None and self._tls.more:
                    self.flush_soon()  # what TLS holds no poller sees
            self._watched = READING if read and not write else (read, write)
            self._site.poller.watch(self._fd, read, write)

    # ------------------------------------------------------------------------ ends

    def retire(self) -> None:
        """End after one more request: others serve here, and the client cannot be told so."""
        if self._phase is Phase.OPEN:
            self.engine.retire()
            self.look_by(self._patience.on_retire(self._clock.now, self._site.floor.leaving))
            self._turn([])

    def stop(self) -> None:
        """Graceful: end after the answer under way, at once where there is none."""
        if self._phase is Phase.OPENING:
            self.close()
        elif not self._phase and self.engine.waiting is Waiting.IDLE:
            self.engine.retire()
            self.on_readable()  # a request may lie in the kernel already
        self._stop_engine()

    def _stop_engine(self) -> None:
        if not self._phase:
            self.engine.stop()
            self._turn([])

    def _end(self, ending: Ending) -> None:
        if ending is Ending.ABORT:
            self.abort("the answer cannot be completed")
        elif not self._outbox.backlog:
            if ending is Ending.CLOSE or self.eof:
                self.close(clean=True)
            else:
                self._linger()
        else:
            self._watch()

    def _linger(self) -> None:
        """Shut our side and throw input away for a while, so that no reset eats the answer."""
        from tidegate.serving.lingering import Lingering

        self._phase = Phase.LINGERING
        self._lose_exchange()
        try:
            if self._tls is not None:
                self._tls.shutdown_write()
            else:
                self._sock.shutdown(socket.SHUT_WR)  # type: ignore[union-attr]
        except OSError:
            self.close()
            return
        terms, now = self._site.terms, self._clock.now
        self._lingering = Lingering(terms, now, self._outbox.in_kernel(), talks=self.talks)
        self.deadline = now + terms.linger
        if self._watched is not READING:
            self._watched = READING
            self._site.poller.watch(self._fd, True, False)

    def end_now(self) -> None:
        """The grace is over: an answer that is not complete must not look so."""
        if self._exchange is not None and self._exchange.answering:
            self.abort("the server stops")
        self.close()

    def close(self, *, clean: bool = False) -> None:
        """Close now; whoever waits for this connection learns that it is gone."""
        if self._phase is Phase.CLOSED:
            return
        if self._phase is Phase.OPEN:
            self.engine.drop_output()  # whoever waits for it is to go on
        self._phase = Phase.CLOSED
        site = self._site
        site.poller.remove(self._fd)  # before the descriptor is closed: see net/epoll.py
        if clean and self._tls is not None:
            self._tls.shutdown_write()
        self._sock.close()
        self._outbox.clear()
        site.deadlines.discard(self)
        site.floor.leave(self)
        self._wake_drained()
        self._lose_exchange()

    def abort(self, reason: str, level: int = DEBUG) -> None:
        """Close with a reset: for an answer that a plain close would seem to complete."""
        if self._phase is Phase.CLOSED:
            return
        client = self._origin.client
        if self._exchange is not None:  # whom a trusted proxy names
            client = self._exchange.scope.get("client", client)
        self._site.service.log.log(level, "Connection of %s reset: %s", name_of(client), reason)
        if self._tls is None:  # over TLS a close without close_notify says the same
            reset_on_close(self._sock)  # type: ignore[arg-type]
        self.close()

    def abandon(self, stream: int, reason: str) -> None:
        """An answer was given up while a file of it may be on its way: the rest must not follow."""
        self.abort(reason)

    def _lose_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lose()

    def on_error(self, error: Exception) -> None:
        """A bug of ours in a callback: tell it, end this connection, let the others live."""
        self._site.service.log.error("Internal error on a connection", exc_info=error)
        self.close()

    # ------------------------------------------------------------------------ deadlines

    def on_deadline(self, now: float) -> None:
        """The sweep: see whether what is awaited is overdue, and when to look again."""
        if self._phase is not Phase.OPEN:
            if self._phase is Phase.OPENING:
                self._site.floor.counters.fire("timeout_tls_handshake")
            elif self._phase is Phase.LINGERING:
                self.deadline = self._lingering.look(now, self._outbox.in_kernel())
            if self.deadline <= now:
                self.close()
            return
        exchange = self._exchange
        look = self._patience.check(now, self)
        if self._phase is not Phase.OPEN:
            return
        self.deadline = look
        if exchange is not None:
            self._check_request(now, exchange)

    def _check_request(self, now: float, exchange: Exchange | Session) -> None:
        """The deadline for a whole request, if there is one."""
        limit = self._site.terms.request
        if not limit or not exchange.answering:
            return
        if now >= exchange.since + limit:
            self._site.floor.counters.fire("timeout_request")
            exchange.expire(limit)
        else:
            self.deadline = min(self.deadline, exchange.since + limit)

    def give_up_idle(self, option: str) -> None:
        """Nothing was asked for in time: close without a word."""
        self._site.floor.counters.fire(option)
        self.engine.stop()
        self._turn([])

    def give_up_request(self, option: str) -> None:
        """The head or body did not come in time: 408, or a reset once the answer has begun."""
        self._site.floor.counters.fire(option)
        self._turn(self.engine.receive_timeout())

    def give_up_peer(self, stream: int, option: str, what: str) -> None:
        """The peer does not read, or does not answer: what is queued for it is dropped."""
        self._site.floor.counters.fire(option)
        self.abort(f"it {what} (--{option.replace('_', '-')})", INFO)

    def look_by(self, when: float) -> None:
        """The sweep shall come by then."""
        self.deadline = min(self.deadline, when)

    def look(self, now: float) -> float:
        """Let what is carried see to its own waits; returns when it has the next."""
        return NEVER if self._exchange is None else self._exchange.look(now)
