"""From a request to the scope an application is called with (ASGI HTTP 2.5).

What does not change while a connection lives is worked out once, in `Origin`; a request adds its
own. Every dict and list is made anew for each request: an application may scribble on its scope
without another one seeing it (checklist 12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidegate.protocol.engine import Engine
from tidegate.protocol.events import Request
from tidegate.types import Address

Forwarded = Callable[[dict[str, Any]], bool]
"""Rewrites a scope by what a trusted proxy said of its client; False: it said nothing."""


class Origin:
    """Where a connection's requests come from: what all of its scopes share."""

    __slots__ = ("client", "forwarded", "plain", "root_path", "scheme", "server", "state", "tls")

    def __init__(
        self,
        client: Address | None,
        server: tuple[str, int | None] | None,
        scheme: str,
        *,
        root_path: str = "",
        state: dict[str, Any] | None = None,
        tls: dict[str, Any] | None = None,
        forwarded: Forwarded | None = None,
    ) -> None:
        self.client = client
        self.server = server
        self.scheme = scheme
        self.root_path = root_path
        self.state = state
        self.tls = tls
        self.forwarded = forwarded
        self.plain = not root_path and tls is None


def http_scope(origin: Origin, engine: Engine, request: Request) -> dict[str, Any]:
    """The scope of one HTTP request."""
    head = request.head
    extensions: dict[str, dict[str, Any]]
    if engine.supports_early_hints:
        extensions = {
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
            "http.response.early_hint": {},
        }
    else:
        extensions = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
    if engine.supports_push and request.stream & 1:  # a promised one, which has none, is even
        extensions["http.response.push"] = {}
    if head.trailers and engine.supports_trailers:
        extensions["http.response.trailers"] = {}
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": head.version,
        "method": head.method,
        "scheme": origin.scheme,
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query,
        "root_path": origin.root_path,
        "headers": [*head.headers],
        "client": origin.client,
        "server": origin.server,
        "extensions": extensions,
    }
    if origin.state is not None:
        scope["state"] = origin.state.copy()
    if not origin.plain:
        _add_unusual(scope, origin, head.path)
    if origin.forwarded is not None and head.forwarded is not False:
        head.forwarded = origin.forwarded(scope)
    return scope


def websocket_scope(
    origin: Origin, engine: Engine, request: Request, subprotocols: list[str]
) -> dict[str, Any]:
    """The scope of one WebSocket: that of the request which asks for it, in other words."""
    scope = http_scope(origin, engine, request)
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = _SOCKET_SCHEMES.get(scope["scheme"], scope["scheme"])
    scope["subprotocols"] = subprotocols
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    if "tls" in scope["extensions"]:
        extensions["tls"] = scope["extensions"]["tls"]
    scope["extensions"] = extensions
    return scope


_SOCKET_SCHEMES = {"http": "ws", "https": "wss"}


def _add_unusual(scope: dict[str, Any], origin: Origin, path: str) -> None:
    if origin.root_path and path != "*":
        # ASGI 2.5: path includes root_path; a proxy that stripped the prefix left it to us
        scope["path"] = origin.root_path + path
    if origin.tls is not None:
        tls = origin.tls.copy()
        tls["client_cert_chain"] = list(tls["client_cert_chain"])
        scope["extensions"]["tls"] = tls


def name_of(client: object) -> str:
    """A scope's client as a log says it; an application may have put anything there."""
    if not isinstance(client, list | tuple) or not client:
        return "a client without an address"
    host, *port = (str(part) for part in client)
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{port[0]}" if port and port[0] not in ("0", "None") else host
