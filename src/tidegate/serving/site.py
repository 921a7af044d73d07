"""What the connections of one listener share: the worker's parts, the listener's, and the terms.

Everything here is set before the first connection; only the two sets and the counters move.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tidegate.asgi.exchange import Exchange
from tidegate.asgi.forwarded import TrustedProxies
from tidegate.asgi.service import Service
from tidegate.config import Config
from tidegate.net.deadlines import Deadlines
from tidegate.net.poller import Poller
from tidegate.observe.counters import Counters
from tidegate.protocol.engine import Limits
from tidegate.protocol.headers import Defaults

if TYPE_CHECKING:
    from tidegate.net.tls import Certificates
    from tidegate.serving.tcp import TcpConnection


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


@dataclass(slots=True)
class Floor:
    """One worker's open connections and running requests, and when it has had enough of them."""

    counters: Counters
    concurrency: int | None
    on_last_request: Callable[[], None]
    last_request: int = -1  # the number of the request that ends this worker; -1: none does
    on_empty: Callable[[], None] | None = None  # set while draining
    connections: set[TcpConnection] = field(default_factory=set)
    running: set[Exchange] = field(default_factory=set)

    @classmethod
    def of(cls, config: Config, counters: Counters, on_last_request: Callable[[], None]) -> Floor:
        last = -1
        if config.limit_max_requests is not None:
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
        if self.on_empty is not None and not self.connections and not self.running:
            self.on_empty()

    def end(self, exchange: Exchange) -> None:
        """An application's task is over."""
        self.running.discard(exchange)
        if self.on_empty is not None and not self.connections and not self.running:
            self.on_empty()


@dataclass(frozen=True, slots=True)
class Site:
    """All that a connection needs from outside."""

    service: Service
    floor: Floor
    poller: Poller
    deadlines: Deadlines
    limits: Limits
    defaults: Defaults
    terms: Terms
    context: Callable[[], Context]
    server: Callable[[Any], tuple[str, int | None]]
    is_unix: bool
    root_path: str
    state: dict[str, Any] | None
    proxies: TrustedProxies | None
    proxy_protocol: TrustedProxies | None
    certificates: Certificates | None
    plain: bool  # neither a limit on requests at once nor a deadline for one
