"""Where a request that asks to go on in another protocol is granted it, or served as it is.

Loaded when the first one asks.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from tidegate.asgi.exchange import Exchange
from tidegate.asgi.scope import Origin, http_scope
from tidegate.protocol.events import Request

if TYPE_CHECKING:
    from tidegate.asgi.session import Session
    from tidegate.serving.site import Site
    from tidegate.serving.tcp import TcpConnection

H2C = b"h2c"
_TOKEN68 = re.compile(rb"[A-Za-z0-9_-]*")  # base64url without padding


def upgrade(
    site: Site, connection: TcpConnection, origin: Origin, request: Request
) -> Exchange | Session | None:
    """What serves the request; None: it is seen to already."""
    service = site.service
    protocol = request.head.upgrade
    if protocol == b"websocket" and service.sockets is not None:
        from tidegate.serving.sockets import open_session

        return open_session(service, connection, origin, request)
    streams = site.streams
    if protocol == H2C and streams is not None and streams.upgrade and origin.scheme == "http":
        settings = settings_of(request)
        if settings is not None:
            rest = connection.engine.open_tunnel(request.stream, H2C, ())
            connection.flush()
            if connection.gone:
                return None
            connection.carry_streams().go_on(request, settings, rest)
            return None
    scope = http_scope(origin, connection.engine, request)
    return Exchange(service, connection, connection.engine, request, scope)


def settings_of(request: Request) -> bytes | None:
    """The settings in a request that asks for h2c (RFC 7540 3.2.1); None: it cannot be granted.

    A request with a body goes on in HTTP/1: its body would have to be read before the first frame.
    """
    values = [value for name, value in request.head.headers if name == b"http2-settings"]
    if not request.end or len(values) != 1 or _TOKEN68.fullmatch(values[0]) is None:
        return None
    try:
        return base64.urlsafe_b64decode(values[0] + b"=" * (-len(values[0]) % 4))
    except binascii.Error:
        return None
