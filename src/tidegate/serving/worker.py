"""One process's server: start, serve, drain, stop.

Strategy: everything a connection shares is made here once and handed down in a `Site` per listener.
Nothing here knows signals or processes: whoever does calls `stop`, and `force` when that takes too
long for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tidegate.asgi.exchange import Exchange
from tidegate.asgi.forwarded import TrustedProxies
from tidegate.asgi.lifespan import Lifespan
from tidegate.asgi.service import Clock, Service, SocketTerms
from tidegate.config import Config
from tidegate.net.deadlines import Deadlines
from tidegate.net.listener import Acceptor, Listener
from tidegate.net.poller import choose
from tidegate.observe.counters import Counters
from tidegate.protocol.engine import Limits, StreamTerms
from tidegate.protocol.headers import Defaults
from tidegate.serving.drain import Drain, Farewell
from tidegate.serving.health import health_app
from tidegate.serving.negotiate import alpn
from tidegate.serving.opening import Opening
from tidegate.serving.site import Floor, Site, Terms
from tidegate.types import Application

if TYPE_CHECKING:
    from tidegate.asgi.handshaking import Handshaking
    from tidegate.net.tls_files import Files
    from tidegate.observe.access_log import AccessLog

HEALTH_IDLE = 1.0  # seconds for a health check's connection to ask once more
LOG_EVERY = 0.25  # seconds an access line may wait for others
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Post(Protocol):
    """The place of one of several workers (process/post.py)."""

    @property
    def leaving(self) -> bool: ...
    @property
    def patient(self) -> bool:
        """Whoever ends us waits for --drain-idle beyond all grace."""

    def is_fuller(self, connections: int, taken: int) -> bool: ...
    def progress(self) -> int: ...
    def show(self, connections: int) -> None: ...
    def leave(self) -> None: ...
    def ask_for_successor(self, why: str) -> None: ...


class Worker:
    """Serves one application on some listeners; made and used inside one running loop."""

    _certificates: Any = None  # where there is TLS

    def __init__(  # noqa: PLR0913 - what only some have is named
        self,
        config: Config,
        app: Application,
        listeners: Sequence[Listener],
        log: logging.Logger,
        *,
        asgi2: bool = False,
        access: AccessLog | None = None,
        health: Sequence[Listener] = (),
        post: Post | None = None,
        tls_files: Files | None = None,
    ) -> None:
        """`health`: listeners on which nothing but health checks is answered; `post`: where this
        worker stands, if it is one of several; `tls_files`: where to read certificates from."""
        app = _of_version_3(app) if asgi2 else app
        self.counters = Counters()
        self.clock = Clock()
        self._config = config
        self._listeners = listeners
        self._log = log
        self._access = access
        self._health = health
        self._post = post
        self._tls_files = tls_files
        self._access_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._lifespan = Lifespan(app, config.lifespan, self._context, log)  # type: ignore[arg-type]
        self._stopping: asyncio.Future[Farewell] = self._loop.create_future()
        self._forced: asyncio.Future[None] = self._loop.create_future()
        self._delay: asyncio.TimerHandle | None = None
        self._poller = choose(config.poller, self._loop, self.clock.tick, self.clock.read)
        self._deadlines = Deadlines(self._loop, self._on_sweep)
        self._defaults = Defaults(b"tidegate" if config.server_header else b"", _extra(config))
        self._dated = 0
        self._floor = Floor.of(config, self.counters, self._on_last_request)
        self._drain = Drain(self._floor, self.clock, config, log, self._forced)
        self._service = self._make_service(app)
        self._acceptors: list[Acceptor] = []
        self._health_acceptors: list[Acceptor] = []
        self._health_floor = Floor(Counters(), None, lambda: None)

    def _make_service(self, app: Application) -> Service:
        return Service(
            app,
            self._loop,
            self.clock,
            self._log,
            record=self._record if self._access else None,
            sockets=_socket_terms(self._config),
        )

    @property
    def poller_name(self) -> str:
        return self._poller.name

    async def start(self) -> None:
        """Wait for the application's startup, then accept; LifespanFailed if there is none."""
        if self._config.ssl_certfile is not None:
            from tidegate.net.tls import Certificates

            self._certificates = Certificates(
                self._config, alpn(self._config.http2), self._log, self._tls_files
            )
        await self._lifespan.startup()
        # what is loaded by now stays: the collector need not look at it again
        gc.freeze()
        share = None
        if self._post is not None:
            share = Share(self._post, self._floor)
            share.is_fuller()  # shows the others that we are here
            self._floor.on_leave = self._post.show
        for listener in self._listeners:
            self._acceptors.append(self._accept(listener, self._site(listener), share))
        for listener in self._health:
            self._health_acceptors.append(self._accept(listener, self._health_site(listener)))

    def _accept(self, listener: Listener, site: Site, share: Share | None = None) -> Acceptor:
        on_accept = _on_accept(site)
        acceptor = Acceptor(listener, self._poller, self._loop, on_accept, self._log, share=share)
        acceptor.start()
        return acceptor

    def _health_site(self, listener: Listener) -> Site:
        """The same server without what is the application's: its log, its limits, its TLS."""
        app = health_app(lambda: self.leaving)
        config = Config(timeout_keep_alive=self._config.timeout_keep_alive)
        site = self._site(listener, config)
        site.service = Service(app, self._loop, self.clock, self._log, record=None, sockets=None)
        site.floor = self._health_floor
        site.certificates = site.state = site.streams = None
        return site

    @property
    def leaving(self) -> bool:
        """The end is announced: who asks whether we are ready is told no."""
        said = self._post is not None and self._post.leaving
        stopping = self._stopping.done() and self._stopping.result() is Farewell.STOP
        return said or stopping or self._delay is not None

    def _site(self, listener: Listener, config: Config | None = None) -> Site:
        config = config or self._config
        trusted = config.forwarded_allow_ips
        return Site(
            service=self._service,
            floor=self._floor,
            poller=self._poller,
            deadlines=self._deadlines,
            limits=Limits(
                config.limit_request_line,
                config.limit_header_size,
                config.limit_header_count,
                config.limit_body_size,
            ),
            defaults=self._defaults,
            terms=Terms.of(config),
            context=contextvars.Context if config.reset_contextvars else self._context.copy,
            server=listener.server_for,
            is_unix=listener.is_unix,
            root_path=config.root_path,
            state=self._lifespan.state if self._lifespan.supported else None,
            proxies=TrustedProxies(trusted) if config.proxy_headers and trusted else None,
            proxy_protocol=(
                TrustedProxies(config.proxy_protocol, "--proxy-protocol")
                if config.proxy_protocol
                else None
            ),
            certificates=self._certificates,
            streams=_stream_terms(config),
            plain=config.limit_concurrency is None and not config.timeout_request,
        )

    # ------------------------------------------------------------------------ while serving

    def _on_sweep(self) -> float:
        now = self.clock.tick()
        second = int(time.time())
        if second != self._dated:
            self._dated = second
            self._defaults.set_date(_http_date(second) if self._config.date_header else b"")
        if self._certificates is not None:
            self._certificates.refresh(now)
        return now

    def _record(self, exchange: Exchange | Handshaking) -> None:
        """One answered request for the access log."""
        access = self._access
        assert access is not None
        line = exchange.request.head
        client = exchange.scope.get("client")  # which the application may have changed
        access.add(
            (
                str(client[0]) if client and isinstance(client, list | tuple) else "",
                line.method,
                b"%b?%b" % (line.raw_path, line.query) if line.query else line.raw_path,
                line.version,
                exchange.status,
                exchange.size,
                self.clock.read() - exchange.since,
                line.headers if access.needs_headers else (),
                time.time(),
            )
        )
        if self._access_timer is None:
            self._access_timer = self._loop.call_later(LOG_EVERY, self._flush_access)

    def _flush_access(self) -> None:
        self._access_timer = None
        if self._access is not None:
            self._access.flush()

    # ------------------------------------------------------------------------ the end

    @property
    def requests(self) -> int:
        return self.counters.requests

    def _on_last_request(self) -> None:
        if self._post is None:
            self._log.info(
                "It has served its requests (--limit-max-requests): stopping. Whoever started it "
                "starts it again; with --supervise a new worker takes over without a gap."
            )
            self.stop()
        else:
            self._post.ask_for_successor("it has served its requests (--limit-max-requests)")

    def retire(self) -> None:
        """Begin the graceful end; a successor serves on the same listeners."""
        if not self._stopping.done():
            self._stopping.set_result(Farewell.RETIRE)

    def stop(self) -> None:
        """Begin the graceful end; `run` goes on from there."""
        if self._stopping.done():
            self._drain.end_idle()
        elif self._config.drain_delay and self._post is None and self._acceptors:
            if self._delay is None:
                delay = self._config.drain_delay
                self._log.info("Not ready any more; draining begins in %g s.", delay)
                self._delay = self._loop.call_later(delay, self._stop_now)
        else:
            self._stop_now()

    def _stop_now(self) -> None:
        if not self._stopping.done():
            self._stopping.set_result(Farewell.STOP)

    def force(self) -> None:
        """End now, whatever is still running."""
        if self._delay is not None:
            self._delay.cancel()
        self._stop_now()
        if not self._forced.done():
            self._forced.set_result(None)

    @property
    def told_to_end(self) -> bool:
        return self._stopping.done()

    async def stopped(self) -> None:
        """Wait for `stop`."""
        await asyncio.shield(self._stopping)

    async def run(self) -> bool:
        """Serve until stopped, drain, end the application; True if all of it went in good order."""
        farewell = await asyncio.shield(self._stopping)
        self._stop_accepting(farewell)
        patient = self._post is None or self._post.patient
        drained = await self._drain.run(farewell, tail=patient)
        self._close_all()
        clean = await self._end_lifespan()
        if self._health:
            await self._end_health(farewell)
        if self._access_timer is not None:
            self._access_timer.cancel()
        self._flush_access()
        return drained and clean

    async def _end_health(self, farewell: Farewell) -> None:
        """A check that has only just connected gets its answer, too."""
        for acceptor in self._health_acceptors:
            acceptor.stop()
        config = Config(drain_idle=HEALTH_IDLE, timeout_graceful_shutdown=2 * HEALTH_IDLE)
        drain = Drain(self._health_floor, self.clock, config, self._log, self._forced)
        await drain.run(farewell)

    def _stop_accepting(self, farewell: Farewell) -> None:
        acceptors = self._acceptors
        if farewell is Farewell.STOP and not self._config.reload:
            for acceptor in acceptors:
                acceptor.take_all()  # who waits in the backlog would be turned away
        else:
            acceptors = [*acceptors, *self._health_acceptors]  # the successor answers for us
        for acceptor in acceptors:
            acceptor.stop()
            acceptor.listener.close()
        if self._post is not None:
            self._post.leave()

    async def _end_lifespan(self) -> bool:
        ending = asyncio.ensure_future(
            self._lifespan.shutdown(self._config.timeout_graceful_shutdown)
        )
        ends: set[asyncio.Future[Any]] = {ending, self._forced}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            return ending.result()
        ending.cancel()
        self._log.warning("Forced to stop before the application's shutdown was complete")
        return False

    def _close_all(self) -> None:
        """Cancel what is left, close every connection."""
        for exchange in list(self._floor.running):
            if exchange.task is not None:
                exchange.task.cancel()
        for connection in list(self._floor.connections):
            connection.end_now()

    async def close(self) -> None:
        """Let cancelled tasks unwind, and let go of the loop."""
        left = [exchange.task for exchange in self._floor.running if exchange.task is not None]
        if left:
            await asyncio.wait(left, timeout=1.0)
        self._deadlines.close()
        self._poller.close()


def _of_version_3(app: Any) -> Application:
    from tidegate.asgi.asgi2 import wrap_asgi2

    return wrap_asgi2(app)


class Share:
    """What the workers on one listener know of each other."""

    def __init__(self, post: Post, floor: Floor) -> None:
        self._post = post
        self._floor = floor

    def is_fuller(self) -> bool:
        floor = self._floor
        return self._post.is_fuller(len(floor.connections), floor.counters.connections)

    def progress(self) -> int:
        return self._post.progress()


def _socket_terms(config: Config) -> SocketTerms | None:
    if config.ws == "none":
        return None
    return SocketTerms(
        config.ws_max_size,
        config.ws_max_queue,
        config.ws_ping_interval,
        config.ws_ping_timeout,
        config.ws_per_message_deflate,
    )


def _on_accept(site: Site) -> Any:
    def on_accept(sock: socket.socket, peer: Any) -> None:
        Opening(site, sock, peer)

    return on_accept


def _extra(config: Config) -> tuple[tuple[bytes, bytes], ...]:
    pairs = (field.partition(":") for field in config.header)
    return tuple(
        (name.strip().encode("latin-1"), value.strip().encode("latin-1"))
        for name, _, value in pairs
    )


def _http_date(second: int) -> bytes:
    """IMF-fixdate (RFC 9110 5.6.7), whatever the locale."""
    at = time.gmtime(second)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year} "
        f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
    ).encode()


def _stream_terms(config: Config) -> StreamTerms | None:
    if not config.http2:
        return None
    return StreamTerms(
        streams=config.http2_max_streams,
        window=config.http2_max_window,
        resets=config.http2_max_resets,
        idle_frames=config.http2_max_idle_frames,
        upgrade=config.h2c_upgrade,
        tunnels=config.ws != "none",
    )
