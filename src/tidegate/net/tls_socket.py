"""One TLS connection in the place of a plain non-blocking socket, and what is known of its peer.

The same calls as on a plain socket, with two differences that TLS brings: a read may have to write
first and a write to read (so `wants` says which way to watch), and bytes may wait inside, already
decrypted, where no poller sees them (so `pending` is asked before going back to the poller).

Calls go to `SSLSocket.read` and `.write`, bound once per connection: `recv` is one Python frame
more around `read`, and this class puts that frame's cost (0.15 us) to use for `wants`. A request
and its answer cost 10.4 us in all three ways (loopback, TLS 1.3), nearly all of it OpenSSL and the
kernel.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.net.tls import ServerContext

# One TLS record (RFC 8446 5.1). A write that could not finish must be repeated with the same bytes,
# and tells nothing of the records that went: longer slices would hide how far a slow peer has come.
# (64 KiB would save 3 to 10 % of a 10 MiB download's CPU.)
SLICE = 16384

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class Wants(Enum):
    """What a call that would block waits for."""

    NOTHING = 0
    READ = 1
    WRITE = 2


class HandshakeFailed(OSError):
    """No TLS connection came about; with `plain_http` the peer spoke HTTP to a TLS port."""

    def __init__(self, reason: str, plain_http: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.plain_http = plain_http


class ServerSocket(ssl.SSLSocket):
    """An `SSLSocket` that remembers the name its client asked for (`server_hostname` is ours)."""

    sni: str | None = None


@dataclass(frozen=True, slots=True)
class TlsDetail:
    """What the ASGI tls extension (version 0.2) tells, and what was negotiated."""

    server_cert: str
    client_cert_chain: tuple[str, ...]
    client_cert_name: str | None
    client_cert_error: str | None
    tls_version: int | None
    cipher_suite: int | None
    alpn: str | None
    sni: str | None


class TlsSocket:
    """A server's end of a TLS connection on a non-blocking socket."""

    __slots__ = ("_detail", "_over", "_read", "_sock", "_write", "wants")

    def __init__(self, sock: ServerSocket) -> None:
        self._sock = sock
        self._read: Callable[[int], bytes] = sock.read
        self._write = sock.write
        self._detail: TlsDetail | None = None
        self._over = False  # close_notify is sent: from here on only raw bytes to discard
        self.wants = Wants.NOTHING

    def fileno(self) -> int:
        """The descriptor to poll; -1 once closed."""
        return self._sock.fileno()

    def handshake(self) -> bool:
        """Go on with the handshake; True when done, else watch for what `wants` says."""
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self.wants = Wants.READ
            return False
        except ssl.SSLWantWriteError:
            self.wants = Wants.WRITE
            return False
        except ssl.SSLError as error:
            reason = error.reason or str(error)
            raise HandshakeFailed(_spoken(reason), self._is_http(reason)) from error
        except OSError as error:  # reset, or gone before we looked
            raise HandshakeFailed(error.strerror or str(error), False) from error
        self.wants = Wants.NOTHING
        return True

    def recv(self, n: int) -> bytes:
        """Up to `n` bytes, b"" at the end of input; BlockingIOError with `wants` set.

        One call returns one record at most. After `shutdown_write` the bytes are as they came from
        the wire, undecrypted: to be counted and thrown away.
        """
        try:
            return self._read(n)
        except ssl.SSLWantReadError:
            self.wants = Wants.READ
        except ssl.SSLWantWriteError:
            self.wants = Wants.WRITE
        raise BlockingIOError

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send a first part of `data` and tell how much; BlockingIOError with `wants` set.

        After BlockingIOError the next call must begin with the same bytes (more may follow them).
        """
        try:
            if len(data) > SLICE:
                with memoryview(data) as view, view[:SLICE] as part:
                    return self._write(part)
            return self._write(data)
        except ssl.SSLWantWriteError:
            self.wants = Wants.WRITE
        except ssl.SSLWantReadError:
            self.wants = Wants.READ
        raise BlockingIOError

    def pending(self) -> int:
        """Decrypted bytes that a `recv` returns without the socket becoming readable."""
        return self._sock.pending()

    def shutdown_write(self) -> None:
        """Send close_notify and FIN, await nothing. Only after all output: it says "complete"."""
        if self._over:
            return
        self._over = True
        try:
            self._sock.unwrap()
        except (OSError, ValueError):
            # Sent, and unwrap() went on to look for the peer's: it found none (SSLWantReadError),
            # or data instead, which makes OpenSSL end the reading side as well, so that the rest
            # of the input could no longer be told from its end. Hence raw bytes from here on. Or
            # not sent, because the handshake or room in the buffers was missing: FIN has to do.
            pass
        try:
            self._sock.shutdown(socket.SHUT_WR)  # drops the TLS state, and its memory
        except OSError:
            pass  # the peer has gone
        self._read = self._sock.recv  # without TLS state it is the plain socket's
        self.wants = Wants.READ

    def close(self) -> None:
        """Close at once. Without `shutdown_write` before, the peer can tell it was cut off."""
        self._sock.close()

    def release(self) -> socket.socket:
        """The bare socket, for a word in plain text to whoever spoke plain HTTP; ends this one."""
        plain = socket.socket(
            self._sock.family, self._sock.type, self._sock.proto, fileno=self._sock.detach()
        )
        plain.setblocking(False)
        return plain

    @property
    def detail(self) -> TlsDetail:
        """About the finished handshake; ask before `shutdown_write`. Put together once."""
        if self._detail is None:
            self._detail = _detail(self._sock)
        return self._detail

    def _is_http(self, reason: str) -> bool:
        """Whether the handshake failed because the first bytes were an HTTP request."""
        if reason == "HTTP_REQUEST":  # OpenSSL knows GET, POST, HEAD and PUT
            return True
        if reason not in {"WRONG_VERSION_NUMBER", "HTTPS_PROXY_REQUEST"}:
            return False
        # It has taken five octets, a record's head; the rest of the line is still there.
        try:
            rest = socket.socket.recv(self._sock, 8192, socket.MSG_PEEK)
        except OSError:
            return False
        return b" HTTP/1." in rest.partition(b"\n")[0]


def _spoken(reason: str) -> str:
    """OpenSSL's NO_SHARED_CIPHER as people read it."""
    return reason.replace("_", " ").lower() if reason.isupper() else reason


# -- detail ----------------------------------------------------------------------------------------


def _detail(sock: ServerSocket) -> TlsDetail:
    context = sock.context
    chain = _client_chain(sock)
    cipher = sock.cipher()
    return TlsDetail(
        server_cert=_server_cert(context),
        client_cert_chain=tuple(map(ssl.DER_cert_to_PEM_cert, chain)),
        client_cert_name=subject_name(chain[0]) if chain else None,
        client_cert_error=None,  # a certificate that fails verification fails the handshake
        tls_version=_VERSIONS.get(sock.version() or ""),
        cipher_suite=_suite(context, cipher[0]) if cipher else None,
        alpn=sock.selected_alpn_protocol(),
        sni=sock.sni,
    )


def _server_cert(context: ssl.SSLContext) -> str:
    chosen: ServerContext = context  # type: ignore[assignment]
    return chosen.certificate


def _client_chain(sock: ServerSocket) -> list[bytes]:
    """The client's certificates as DER, its own first."""
    # Asked first, because get_unverified_chain trips over a client that was asked for a
    # certificate and sent none (CPython 3.13.0). It is public from 3.13 on; before, and in a
    # resumed session, the ssl module knows the client's own certificate only.
    own = sock.getpeercert(binary_form=True)
    if not own:
        return []
    sent = getattr(sock, "get_unverified_chain", None)
    chain: list[bytes] = sent() if sent is not None else []
    return chain or [own]


_suites: dict[str, int] = {}


def _suite(context: ssl.SSLContext, name: str) -> int | None:
    """The IANA number of a cipher suite that OpenSSL calls `name`."""
    if name not in _suites:
        # OpenSSL's id is 0x03000000 plus the two octets of the wire.
        _suites.update((suite["name"], suite["id"] & 0xFFFF) for suite in context.get_ciphers())
    return _suites.get(name)


# -- the client's name, RFC 4514 -------------------------------------------------------------------
#
# Read from the certificate itself: getpeercert() gives OpenSSL's names for attributes instead of
# their object identifiers, and nothing at all for a certificate it was not told to verify.

_OID = 0x06

# RFC 4514 3: the table every implementation knows; others are written as dotted numbers.
_ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}

# X.690 string types by tag, and how their octets read
_STRINGS = {
    0x0C: "utf-8",
    0x12: "ascii",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1A: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}


def subject_name(certificate: bytes) -> str | None:
    """The subject of a DER certificate as an RFC 4514 string; None where it cannot be read."""
    try:
        _, start, end = _element(certificate, 0)
        _, start, end = _element(certificate, start)  # tbsCertificate
        fields = list(_elements(certificate, start, end))
        # RFC 5280 4.1: [0] version where given, serial, signature, issuer, validity, subject
        at = 5 if fields[0][0] == 0xA0 else 4
        return ",".join(_relative_names(certificate, *fields[at][1:]))
    except (ValueError, IndexError):
        return None


def _relative_names(der: bytes, start: int, end: int) -> list[str]:
    names = [
        "+".join(_attribute(der, *pair[1:]) for pair in _elements(der, *group[1:]))
        for group in _elements(der, start, end)
    ]
    names.reverse()  # RFC 4514 2.1: the last one first
    return names


def _attribute(der: bytes, start: int, end: int) -> str:
    (kind, *oid), (tag, *value) = _elements(der, start, end)
    if kind != _OID:
        raise ValueError("an attribute without a type")
    dotted = _dotted(der[oid[0] : oid[1]])
    name = _ATTRIBUTES.get(dotted)
    encoding = _STRINGS.get(tag)
    if name is None or encoding is None:
        # RFC 4514 2.4: no short name, or no string form: # and the BER encoding in hex
        return f"{name or dotted}=#{der[oid[1] : end].hex()}"
    return f"{name}={_escaped(der[value[0] : value[1]].decode(encoding))}"


def _escaped(text: str) -> str:
    """RFC 4514 2.4: a value with what has a meaning in the string escaped."""
    out = []
    last = len(text) - 1
    for at, char in enumerate(text):
        edge = (at == 0 and char in " #") or (at == last and char == " ")
        if edge or char in '"+,;<>\\':
            out.append("\\" + char)
        elif char < " " or char == "\x7f":
            out.append(f"\\{ord(char):02x}")  # only NUL must be; none of them belongs into a log
        else:
            out.append(char)
    return "".join(out)


def _dotted(octets: bytes) -> str:
    """X.690 8.19: an object identifier; its first number holds two arcs."""
    numbers, value = [], 0
    for octet in octets:
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of the DER element at `at`."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start], "big")
    if start + length > len(der):
        raise ValueError("an element reaches beyond the certificate")
    return tag, start, start + length


def _elements(der: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    while start < end:
        found = _element(der, start)
        yield found
        start = found[2]
