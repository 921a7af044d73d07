"""Which version of HTTP a connection speaks: by ALPN over TLS, by its first bytes in the clear.

Over TLS nothing but ALPN counts (RFC 9113 3.2). In the clear every connection begins as HTTP/1,
whose engine knows the preface of HTTP/2; a request may also ask to go on in HTTP/2 (`Upgrade: h2c`,
RFC 7540 3.2, obsolete), where `--h2c-upgrade` allows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.protocol.http1.engine import Http1Engine

if TYPE_CHECKING:
    from tidegate.serving.site import Site

H2 = "h2"


def alpn(http2: bool) -> list[str]:
    """What is offered in a TLS handshake, in the order of our preference."""
    return [H2, "http/1.1"] if http2 else ["http/1.1"]


def first_engine(site: Site, *, clear: bool) -> Http1Engine:
    """The engine for a connection on which HTTP/2 has not been agreed."""
    engine = Http1Engine(site.limits, site.defaults)
    engine.switches = clear and site.streams is not None
    return engine
