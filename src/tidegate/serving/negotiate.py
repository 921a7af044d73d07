"""Which engine speaks on a connection: by what TLS negotiated (ALPN), HTTP/1.1 where nothing was.

A new protocol is a new line in `ENGINES`; the order is the server's preference.
"""

from __future__ import annotations

from collections.abc import Callable

from tidegate.protocol.engine import Engine, Limits
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1.engine import Http1Engine

ENGINES: dict[str, Callable[[Limits, Defaults], Engine]] = {"http/1.1": Http1Engine}
ALPN = list(ENGINES)


def engine_for(alpn: str | None, limits: Limits, defaults: Defaults) -> Engine:
    """The engine for a protocol name of ALPN; None for a connection without."""
    return ENGINES.get(alpn or "http/1.1", Http1Engine)(limits, defaults)
