"""What is known of a TLS connection's two ends once its handshake is done.

The ssl module tells most of it. The client's name in RFC 4514 form is read from its certificate
here: getpeercert() gives OpenSSL's names for attributes instead of their object identifiers, and
nothing at all for a certificate it was not told to verify.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.net.tls import ServerContext

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class ServerObject(ssl.SSLObject):
    """An `SSLObject` that remembers the name its client asked for (`server_hostname` is ours)."""

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


def detail_of(end: ServerObject) -> TlsDetail:
    """What a finished handshake has told."""
    context = end.context
    chain = _client_chain(end)
    cipher = end.cipher()
    return TlsDetail(
        server_cert=_server_cert(context),
        client_cert_chain=tuple(map(ssl.DER_cert_to_PEM_cert, chain)),
        client_cert_name=subject_name(chain[0]) if chain else None,
        client_cert_error=None,  # a certificate that fails verification fails the handshake
        tls_version=_VERSIONS.get(end.version() or ""),
        cipher_suite=_suite(context, cipher[0]) if cipher else None,
        alpn=end.selected_alpn_protocol(),
        sni=end.sni,
    )


def _server_cert(context: ssl.SSLContext) -> str:
    chosen: ServerContext = context  # type: ignore[assignment]
    return chosen.certificate


def _client_chain(end: ServerObject) -> list[bytes]:
    """The client's certificates as DER, its own first."""
    # Asked first, because get_unverified_chain trips over a client that was asked for a
    # certificate and sent none (CPython 3.13.0). It is public from 3.13 on; before, and in a
    # resumed session, the ssl module knows the client's own certificate only.
    own = end.getpeercert(binary_form=True)
    if not own:
        return []
    sent = getattr(end, "get_unverified_chain", None)
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
