"""What the connections of one listener share: the worker's parts, the listener's, and the terms.

Everything here is set before the first connection; only the two sets and the counters move.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple

from tidegate.asgi.exchange import Exchange
from tidegate.asgi.forwarded import TrustedProxies
from tidegate.asgi.service import Service
from tidegate.config import Config
from tidegate.net.deadlines import Deadlines
from tidegate.net.poller import Poller
from tidegate.observe.counters import Counters
from tidegate.protocol.engine import Limits, StreamTerms
from tidegate.protocol.headers import Defaults
from tidegate.serving.turn import Turn

if TYPE_CHECKING:
    from tidegate.asgi.session import Session
    from tidegate.net.tls import Certificates
    from tidegate.serving.tcp import TcpConnection

TURN = 0.005  # seconds into a batch from which on a connection gets less of it: others are waiting


class Terms(NamedTuple):
    """How long a peer is waited for (seconds), and how fast it must be (bytes a second)."""

    head: float
    keep_alive: float
    handshake: float
    linger: float
    request: float
    body_rate: float
    body_grace: float
    send_rate: float
    send_grace: float

    @classmethod
    def of(cls, config: Config) -> Terms:
        return cls(
            head=config.timeout_head,
            keep_alive=config.timeout_keep_alive,
            handshake=config.timeout_tls_handshake,
            linger=config.timeout_linger,
            request=config.timeout_request,
            body_rate=config.min_body_rate,
            body_grace=config.grace_body,
            send_rate=config.min_send_rate,
            send_grace=config.grace_send,
        )


class Floor:
    """One worker's open connections and running requests, and when it has had enough of them.

    `last_request` is the number of the request that ends this worker; with -1 none does.
    """

    __slots__ = (
        "concurrency",
        "connections",
        "counters",
        "last_request",
        "leaving",
        "on_empty",
        "on_last_request",
        "on_leave",
        "running",
    )

    def __init__(
        self,
        counters: Counters,
        concurrency: int | None,
        on_last_request: Callable[[], None],
        last_request: int = -1,
    ) -> None:
        self.counters = counters
        self.concurrency = concurrency
        self.on_last_request = on_last_request
        self.last_request = last_request
        self.on_empty: Callable[[], None] | None = None  # set while draining
        self.on_leave: Callable[[int], None] | None = None  # told how many are left
        # a successor serves: seconds in which each connection may ask once more (--drain-idle)
        self.leaving: float | None = None
        self.connections: set[TcpConnection] = set()
        self.running: set[Exchange | Session] = set()

    @classmethod
    def of(cls, config: Config, counters: Counters, on_last_request: Callable[[], None]) -> Floor:
        last = -1
        if config.limit_max_requests is not None:
            import random

            last = config.limit_max_requests + random.randint(0, config.limit_max_requests_jitter)
        return cls(counters, config.limit_concurrency, on_last_request, last)

    @property
    def full(self) -> bool:
        """One more request would be more than `--limit-concurrency` allows."""
        limit = self.concurrency
        return limit is not None and (len(self.running) >= limit or len(self.connections) > limit)

    def leave(self, connection: TcpConnection) -> None:
        """A connection is closed."""
        self.connections.discard(connection)
        if self.on_leave is not None:
            self.on_leave(len(self.connections))
        if self.on_empty is not None and not self.connections and not self.running:
            self.on_empty()

    def end(self, exchange: Exchange | Session) -> None:
        """An application's task is over."""
        self.running.discard(exchange)
        if self.on_empty is not None and not self.connections and not self.running:
            self.on_empty()


class Site:
    """All that a connection needs from outside. Set once, never changed.

    `plain` says that there is neither a limit on requests at once nor a deadline for one;
    `streams` is None where HTTP/2 is off.
    """

    # Written out: the same as a frozen dataclass takes 1.5 ms of every start to generate.
    __slots__ = (
        "certificates",
        "context",
        "deadlines",
        "defaults",
        "floor",
        "is_unix",
        "limits",
        "plain",
        "poller",
        "proxies",
        "proxy_protocol",
        "root_path",
        "server",
        "service",
        "state",
        "streams",
        "terms",
        "turn",
    )

    def __init__(  # noqa: PLR0913 - all of them named, none with a default
        self,
        *,
        service: Service,
        floor: Floor,
        poller: Poller,
        deadlines: Deadlines,
        limits: Limits,
        defaults: Defaults,
        terms: Terms,
        context: Callable[[], Context],
        server: Callable[[Any], tuple[str, int | None]],
        is_unix: bool,
        root_path: str,
        state: dict[str, Any] | None,
        proxies: TrustedProxies | None,
        proxy_protocol: TrustedProxies | None,
        certificates: Certificates | None,
        streams: StreamTerms | None,
        plain: bool,
    ) -> None:
        self.service = service
        self.floor = floor
        self.poller = poller
        self.deadlines = deadlines
        self.limits = limits
        self.defaults = defaults
        self.terms = terms
        self.context = context
        self.server = server
        self.is_unix = is_unix
        self.root_path = root_path
        self.state = state
        self.proxies = proxies
        self.proxy_protocol = proxy_protocol
        self.certificates = certificates
        self.streams = streams
        self.plain = plain
        self.turn = Turn(service.loop, service.clock)
