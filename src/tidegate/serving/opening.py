"""What comes before HTTP on a connection: a PROXY header from a trusted balancer, a TLS handshake.

Strategy: each stage is called whenever the socket is ready, until it is done. The PROXY header is
read to its exact length and not a byte beyond, since what follows it may belong to TLS, which has
to read from the socket itself.
"""

from __future__ import annotations

import enum
import socket
from typing import TYPE_CHECKING, Any

from tidegate.asgi.scope import Origin
from tidegate.protocol.http1.writer import render_refusal
from tidegate.protocol.target import Refusal
from tidegate.serving.site import Site
from tidegate.serving.tcp import TcpConnection

if TYPE_CHECKING:
    from tidegate.net.tls_detail import TlsDetail
    from tidegate.net.tls_socket import TlsSocket
    from tidegate.protocol.proxy_header import Endpoint


class Stage(enum.Enum):
    PROXY = enum.auto()
    HANDSHAKE = enum.auto()


class Opening:
    """One connection on its way to its first request."""

    __slots__ = (
        "_announced",
        "_client",
        "_connection",
        "_header",
        "_server",
        "_site",
        "_sock",
        "_stage",
        "_tls",
    )

    def __init__(self, site: Site, sock: socket.socket, peer: Any) -> None:
        self._site = site
        self._sock = sock
        self._client: Endpoint | None = None if site.is_unix else (peer[0], peer[1])
        self._server: tuple[str, int | None] = site.server(sock)
        self._header = b""
        self._announced = False
        self._tls: TlsSocket | None = None
        self._connection = TcpConnection(site, sock)
        if self._speaks_proxy():
            self._stage = Stage.PROXY
            self._connection.opening = self
            return
        try:
            self._after_proxy()
        except BaseException:
            self._connection.close()
            raise

    def _peer(self) -> tuple[str, int] | None:
        client = self._client
        return None if client is None or client[1] is None else (client[0], client[1])

    def _speaks_proxy(self) -> bool:
        trusted = self._site.proxy_protocol
        return trusted is not None and trusted.trusts(self._peer(), self._unix())

    def _unix(self) -> str | None:
        # who came through a balancer is judged by what the balancer announced
        return self._server[0] if self._site.is_unix and not self._announced else None

    def on_readable(self) -> None:
        """The socket is ready for what the stage waits for."""
        if self._stage is Stage.PROXY:
            self._read_header()
        else:
            self._shake_hands()

    def _read_header(self) -> None:
        from tidegate.protocol.proxy_header import ProxyHeaderError, needed, parse

        try:
            while missing := needed(self._header):
                data = self._sock.recv(missing)
                if not data:
                    self._connection.close()
                    return
                self._header += data
            header = parse(self._header)
        except (BlockingIOError, InterruptedError):
            return
        except ProxyHeaderError as error:
            self._site.service.log.warning(
                "%s is trusted to speak the PROXY protocol and did not: %s",
                self._client or "a Unix socket",
                error,
            )
            self._site.floor.counters.fire("proxy_protocol")
            self._connection.close()
            return
        except OSError:
            self._connection.close()
            return
        if not header.local:
            self._announced = True
        if header.source is not None:
            self._client = header.source
        if header.destination is not None:
            self._server = header.destination
        self._header = b""
        self._after_proxy()

    def _after_proxy(self) -> None:
        certificates = self._site.certificates
        if certificates is None:
            self._connection.open(self._origin("http", None), None, None)
            return
        self._stage = Stage.HANDSHAKE
        self._connection.opening = self
        self._tls = certificates.wrap(self._sock)
        self._connection.adopt(self._tls)

    def _shake_hands(self) -> None:
        from tidegate.net.tls_socket import HandshakeFailed, Wants

        tls = self._tls
        assert tls is not None
        try:
            done = tls.handshake()
        except HandshakeFailed as error:
            self._site.service.log.debug("TLS handshake with %s failed: %s", self._client, error)
            self._site.floor.counters.fire("tls_handshake")
            if error.plain_http:
                self._answer_plainly()
            else:
                self._connection.close()
            return
        if not done:
            self._connection.await_handshake(write=tls.wants is Wants.WRITE)
            return
        self._connection.await_handshake(write=False)
        detail = tls.detail
        self._connection.open(self._origin("https", detail), tls, detail.alpn)
        if tls.more:
            self._connection.on_readable()  # the first request has come with the handshake

    def _answer_plainly(self) -> None:
        """Somebody speaks HTTP to a TLS port: tell them in words they can read."""
        refusal = Refusal(400, "this port speaks HTTPS, use https://", "RFC 9110 4.2.2")
        self._connection.decline(render_refusal(refusal, self._site.defaults))

    def _origin(self, scheme: str, detail: TlsDetail | None) -> Origin:
        site = self._site
        proxies = site.proxies
        trusted = proxies is not None and proxies.trusts(self._peer(), self._unix())
        return Origin(
            self._peer(),
            self._server,
            scheme,
            root_path=site.root_path,
            state=site.state,
            tls=None if detail is None else _extension(detail),
            forwarded=proxies.rewrite if proxies is not None and trusted else None,
        )


def _extension(detail: TlsDetail) -> dict[str, Any]:
    """The ASGI tls extension (0.2)."""
    return {
        "server_cert": detail.server_cert,
        "client_cert_chain": detail.client_cert_chain,
        "client_cert_name": detail.client_cert_name,
        "client_cert_error": detail.client_cert_error,
        "tls_version": detail.tls_version,
        "cipher_suite": detail.cipher_suite,
    }
