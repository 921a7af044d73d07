"""Which version of HTTP a connection speaks: by ALPN over TLS, by its first bytes in the clear.

Over TLS nothing but ALPN counts (RFC 9113 3.2). In the clear every connection begins as HTTP/1,
whose engine knows the preface of HTTP/2; a request may also ask to go on in HTTP/2 (`Upgrade: h2c`,
RFC 7540 3.2, obsolete), where `--h2c-upgrade` allows it.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from tidegate.protocol.http1.engine import Http1Engine

if TYPE_CHECKING:
    from tidegate.protocol.events import Request
    from tidegate.serving.site import Site

H2 = "h2"
H2C = b"h2c"


def alpn(http2: bool) -> list[str]:
    """What is offered in a TLS handshake, in the order of our preference."""
    return [H2, "http/1.1"] if http2 else ["http/1.1"]


def first_engine(site: Site, *, clear: bool) -> Http1Engine:
    """The engine for a connection on which HTTP/2 has not been agreed."""
    engine = Http1Engine(site.limits, site.defaults)
    engine.switches = clear and site.streams is not None
    return engine


def settings_of(request: Request) -> bytes | None:
    """The settings in a request that asks for h2c (RFC 7540 3.2.1); None: it cannot be granted.

    A request with a body goes on in HTTP/1: its body would have to be read before the first frame.
    """
    values = [value for name, value in request.head.headers if name == b"http2-settings"]
    if not request.end or len(values) != 1:
        return None
    try:
        return base64.urlsafe_b64decode(values[0] + b"=" * (-len(values[0]) % 4))
    except binascii.Error:
        return None
