"""Certificates in files, and a TLS client on a loopback socket driven step by step.

Nothing waits for a clock: each step is repeated when `select` says its socket is ready.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import trustme

from tidegate.net.tls import Certificates
from tidegate.net.tls_socket import HandshakeFailed, TlsSocket, Wants

T = TypeVar("T")
PATIENCE = 10  # seconds until a test that hangs fails


class Files:
    """A certificate and its key as files, which can be exchanged for another pair."""

    def __init__(self, folder: Path, name: str) -> None:
        self.cert = str(folder / f"{name}.crt")
        self.key = str(folder / f"{name}.key")

    def write(self, issued: trustme.LeafCert) -> Files:
        """Put a pair there, whole, as new files in place of the old (as certbot does)."""
        for path, content in (
            (self.cert, b"".join(blob.bytes() for blob in issued.cert_chain_pems)),
            (self.key, issued.private_key_pem.bytes()),
        ):
            replace(path, content)
        return self


def replace(path: str, content: bytes) -> None:
    """New content under an old name, by another inode: any stat tells it from the one before."""
    fresh = Path(path + ".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def client_context(ca: trustme.CA, identity: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if identity is not None:
        identity.configure_cert(context)
    return context


def connect() -> tuple[socket.socket, socket.socket]:
    """Both ends of a loopback TCP connection, non-blocking: the server's, the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    server.setblocking(False)
    client.setblocking(False)
    return server, client


def wrap_client(sock: socket.socket, context: ssl.SSLContext, name: str | None) -> ssl.SSLSocket:
    context.check_hostname = name is not None
    return context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)


def handshake(server: TlsSocket, client: ssl.SSLSocket) -> None:
    """Both sides' handshakes, in turns; raises what either raises."""
    done = {"server": False, "client": False}
    while not all(done.values()):
        if not done["server"] and server.handshake():
            done["server"] = True
        if not done["client"]:
            try:
                client.do_handshake()
                done["client"] = True
            except ssl.SSLWantReadError:
                pass
        if not all(done.values()):
            waiting: list[Any] = [
                end for end, key in ((server, "server"), (client, "client")) if not done[key]
            ]
            assert any(select.select(waiting, [], [], PATIENCE)), "the handshake hangs"


def patiently(call: Callable[[], T], sock: TlsSocket | ssl.SSLSocket | socket.socket) -> T:
    """`call`, again whenever the socket is ready, until it no longer would block."""
    while True:
        try:
            return call()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            writing = isinstance(error, ssl.SSLWantWriteError) or (
                isinstance(sock, TlsSocket) and sock.wants is Wants.WRITE
            )
            ready = select.select(
                [] if writing else [sock], [sock] if writing else [], [], PATIENCE
            )
            assert any(ready), "nothing comes"


# -- looking inside --------------------------------------------------------------------------------


def arrived(server: TlsSocket, size: int) -> None:
    """Wait until `size` raw bytes lie in the server's socket."""
    while True:
        assert select.select([server], [], [], PATIENCE)[0], "nothing comes"
        if len(server._sock.recv(1 << 20, socket.MSG_PEEK)) >= size:
            return


def assert_empty(server: TlsSocket) -> None:
    """Nothing is left in what all connections share."""
    assert server._incoming.pending == server._outgoing.pending == 0


class Kernel:
    """Between a TLS socket and the real one: takes no more than `room` bytes."""

    def __init__(self, server: TlsSocket, room: int) -> None:
        self.room = room
        self.took = 0
        self._send = server._sock_send
        server._sock_send = self

    def __call__(self, data: bytes | memoryview) -> int:
        if not self.room:
            raise BlockingIOError
        sent = self._send(memoryview(data)[: self.room])
        self.room -= sent
        self.took += sent
        return sent


def receive_all(client: ssl.SSLSocket, size: int) -> bytearray:
    """The next `size` bytes a client gets."""
    got = bytearray()
    while len(got) < size:
        got += patiently(lambda: client.recv(1 << 20), client)
    return got


def go_on(tls: TlsSocket) -> None:
    """A server's handshake with a client that acts by itself."""
    while not tls.handshake():
        assert any(select.select([tls], [], [], PATIENCE)), "the handshake hangs"


def fail(
    certificates: Certificates, first_bytes: bytes
) -> tuple[TlsSocket, socket.socket, HandshakeFailed]:
    """A handshake that fails by what the client says first."""
    server, client = connect()
    tls = certificates.wrap(server)
    client.sendall(first_bytes)
    try:
        go_on(tls)
    except HandshakeFailed as failure:
        return tls, client, failure
    raise AssertionError("the handshake did not fail")
