"""Where a request to become a WebSocket turns into a session, or is refused.

Loaded, with all that sockets need, when the first one asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.asgi.exchange import Exchange
from tidegate.asgi.scope import Origin, http_scope, name_of, websocket_scope
from tidegate.asgi.session import Session
from tidegate.protocol.events import Request
from tidegate.protocol.websocket.handshake import Offer, Refused, read_offer

if TYPE_CHECKING:
    from tidegate.asgi.service import Service
    from tidegate.protocol.websocket.engine import Deflate
    from tidegate.serving.tcp import TcpConnection


def open_session(
    service: Service, connection: TcpConnection, origin: Origin, request: Request
) -> Session | None:
    """The session for a handshake; None: it was refused, and has its answer."""
    try:
        if not request.end:
            raise Refused(400, "a WebSocket handshake has no body", "RFC 6455 4.1")
        offer = read_offer(request.head)
        extensions, deflate = _compression(service, offer)
    except Refused as refused:
        text = f"{refused.status}: {refused.reason} ({refused.section})\n".encode()
        scope = http_scope(origin, connection.engine, request)
        refusal = Exchange(service, connection, connection.engine, request, scope)
        refusal.answer(refused.status, text, ((b"connection", b"close"), *refused.headers))
        told = (name_of(scope["client"]), refused.status, refused.reason, refused.section)
        service.log.debug("WebSocket of %s refused with %d: %s (%s)", *told)
        return None
    session = Session(service, connection, connection.engine, request, offer)
    session.extensions, session.deflate = extensions, deflate
    session.scope = websocket_scope(origin, connection.engine, request, offer.subprotocols)
    return session


def _compression(service: Service, offer: Offer) -> tuple[bytes, Deflate | None]:
    """What is agreed on, as the response says it, and what does it; raises Refused."""
    if not offer.extensions:
        return b"", None
    from tidegate.protocol.websocket.deflate import BadOffer, MessageDeflate, Terms, negotiate

    terms = Terms()
    try:
        agreed = negotiate(offer.extensions, terms)
    except BadOffer as error:
        raise Refused(400, str(error), "RFC 6455 9.1") from error
    if agreed is None or service.sockets is None or not service.sockets.deflate:
        return b"", None
    return agreed[0], MessageDeflate(agreed[1], terms)
