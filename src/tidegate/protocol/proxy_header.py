"""The PROXY protocol, versions 1 and 2: who is behind the balancer that speaks to us. Sans-IO.

`needed` never asks for a byte beyond the header: what follows it may be a TLS handshake, which the
ssl module has to read from the socket itself. So the caller reads exactly what is asked until
`needed` says 0, or peeks generously and takes `ProxyHeader.length` bytes; either way the next byte
on the socket is the client's first. Anything that cannot become a header is refused at the first
byte that shows it, as the specification recommends. Section numbers are those of HAProxy's
proxy-protocol.txt.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from tidegate.errors import TidegateError

Endpoint: TypeAlias = tuple[str, int | None]  # host and port, or a Unix socket's path and None

V1_START = b"PROXY "
V1_FAMILIES = (b"TCP4", b"TCP6", b"UNKNOWN")
V1_LONGEST = 107  # 2.1: the worst case, CRLF included
V2_START = b"\r\n\r\n\0\r\nQUIT\n"
V2_FIXED = 16  # signature, version and command, family and protocol, length
SHORTEST = 15  # "PROXY UNKNOWN\r\n"; every header of either version has as many bytes
TYPE_CRC32C = 0x03

# 2.2: bytes of the address block by family nibble: AF_INET, AF_INET6, AF_UNIX
_BLOCK = {1: 12, 2: 36, 3: 216}


class ProxyHeaderError(TidegateError, ValueError):
    """These bytes are no PROXY header: abort the connection (2.1, 2.2)."""


class ProxyHeader(NamedTuple):
    """`source` and `destination` are None where the real endpoints of the connection hold."""

    length: int  # octets of the header; the client's own bytes begin here
    source: Endpoint | None = None
    destination: Endpoint | None = None
    local: bool = False  # the balancer speaks for itself: a health check
    tlvs: tuple[tuple[int, bytes], ...] = ()


def needed(data: bytes) -> int:
    """How many further bytes certainly belong to the header; 0 once it is complete."""
    if data[:12] == V2_START[: len(data)]:
        if len(data) < V2_FIXED:
            # An empty buffer may become either version: ask for no more than the shorter one has.
            return (V2_FIXED if data else SHORTEST) - len(data)
        _check_v2_fixed(data)
        return max(0, V2_FIXED + _v2_length(data) - len(data))
    return _needed_v1(data)


def parse(data: bytes) -> ProxyHeader:
    """The header at the beginning of `data`; bytes behind it are left alone."""
    missing = needed(data)
    if missing:
        raise ProxyHeaderError(f"the PROXY header is cut short by {missing} bytes or more")
    if data.startswith(V2_START):
        return _parse_v2(data[: V2_FIXED + _v2_length(data)])
    return _parse_v1(data[: data.index(b"\r\n") + 2])


# -- version 1, 2.1 --------------------------------------------------------------------------------


def _needed_v1(data: bytes) -> int:
    if data[: len(V1_START)] != V1_START[: len(data)]:
        raise ProxyHeaderError("the connection does not begin with a PROXY header")
    end = data.find(b"\n", 0, V1_LONGEST)
    line = data[: end + 1] if end >= 0 else data[:V1_LONGEST]
    if line.endswith(b"\r\n"):
        if line.index(b"\r") != len(line) - 2:
            raise ProxyHeaderError("a bare CR in a PROXY line")
        return 0
    # 2.1: a single CR or LF does not end the line
    if end >= 0 or b"\r" in line[:-1]:
        raise ProxyHeaderError("a PROXY line that does not end in CRLF")
    missing = _shortest_rest(line)
    if len(line) + missing > V1_LONGEST:
        raise ProxyHeaderError(f"a PROXY line longer than {V1_LONGEST} bytes")
    return missing


def _shortest_rest(line: bytes) -> int:
    """The least that can still follow an unfinished version 1 line."""
    if line.endswith(b"\r"):
        return 1
    fields = line.split(b" ")
    if len(fields) < 2:
        return SHORTEST - len(line)
    family = fields[1]
    if family not in V1_FAMILIES:
        if len(fields) > 2 or not any(name.startswith(family) for name in V1_FAMILIES):
            raise ProxyHeaderError(f"{_shown(family)} is no PROXY protocol family")
        return SHORTEST - len(line)
    if len(fields) == 2 or family == b"UNKNOWN":
        return max(2, SHORTEST - len(line))
    # The fields not yet begun, each with the space before it, and CRLF: addresses have at least
    # two characters ("::"), ports one.
    least = (2, 2, 1, 1)[len(fields) - 2 :]
    return sum(least) + len(least) + 2 + (0 if fields[-1] else 1)


def _parse_v1(line: bytes) -> ProxyHeader:
    fields = line[len(V1_START) : -2].split(b" ")
    if fields[0] == b"UNKNOWN":
        return ProxyHeader(len(line))  # 2.1: whatever stands before the CRLF is ignored
    if fields[0] not in V1_FAMILIES or len(fields) != 5:
        raise ProxyHeaderError("a PROXY line has a family, two addresses and two ports")
    version = 4 if fields[0] == b"TCP4" else 6
    return ProxyHeader(
        len(line),
        source=(_v1_address(fields[1], version), _v1_port(fields[3])),
        destination=(_v1_address(fields[2], version), _v1_port(fields[4])),
    )


def _v1_address(field: bytes, version: int) -> str:
    from ipaddress import IPv4Address, IPv6Address

    try:
        text = field.decode("ascii")
        if version == 4:
            return str(IPv4Address(text))  # refuses leading zeros, as 2.1 does
        if "%" in text:
            raise ValueError  # ipaddress takes a zone, the protocol knows none
        return str(IPv6Address(text))
    except ValueError:
        raise ProxyHeaderError(f"{_shown(field)} is no IPv{version} address") from None


def _v1_port(field: bytes) -> int:
    # bytes.isdigit() is ASCII only; 2.1: no leading zeros, for fear of octal
    if not field.isdigit() or (field[:1] == b"0" and field != b"0") or int(field) > 65535:
        raise ProxyHeaderError(f"{_shown(field)} is no port")
    return int(field)


def _shown(field: bytes) -> str:
    return repr(field[:40].decode("latin-1"))


# -- version 2, 2.2 --------------------------------------------------------------------------------


def _v2_length(data: bytes) -> int:
    return int.from_bytes(data[14:16], "big")


def _check_v2_fixed(data: bytes) -> None:
    version, command = data[12] >> 4, data[12] & 15
    family, protocol = data[13] >> 4, data[13] & 15
    if version != 2:
        raise ProxyHeaderError(f"PROXY protocol version {version} is not known")
    if command > 1:
        raise ProxyHeaderError(f"PROXY command {command} is not assigned")
    if command == 0:
        return  # LOCAL: the family is ignored
    if family > 3 or protocol > 2:
        raise ProxyHeaderError(f"PROXY family and protocol {data[13]:#04x} are not assigned")
    if protocol and _v2_length(data) < _BLOCK.get(family, 0):
        raise ProxyHeaderError("a PROXY header too short for its addresses")


def _parse_v2(header: bytes) -> ProxyHeader:
    if header[12] & 15 == 0:
        # LOCAL: the whole block is discarded, and with its family unknown, so would be where
        # TLVs begin in it.
        return ProxyHeader(len(header), local=True)
    family, protocol = header[13] >> 4, header[13] & 15
    if not family or not protocol:
        return ProxyHeader(len(header))  # UNSPEC: the real endpoints hold, the block is ignored
    block = header[V2_FIXED : V2_FIXED + _BLOCK[family]]
    tlvs = _tlvs(header, V2_FIXED + len(block))
    source, destination = _v2_unix(block) if family == 3 else _v2_inet(block)
    return ProxyHeader(len(header), source, destination, tlvs=tlvs)


def _v2_inet(block: bytes) -> tuple[Endpoint, Endpoint]:
    from ipaddress import ip_address  # four octets give IPv4, sixteen IPv6

    size = (len(block) - 4) // 2
    ports = int.from_bytes(block[-4:-2], "big"), int.from_bytes(block[-2:], "big")
    source, destination = ip_address(block[:size]), ip_address(block[size : 2 * size])
    return (str(source), ports[0]), (str(destination), ports[1])


def _v2_unix(block: bytes) -> tuple[Endpoint | None, Endpoint | None]:
    return _unix_path(block[:108]), _unix_path(block[108:])


def _unix_path(field: bytes) -> Endpoint | None:
    """A path up to its NUL, `@name` for an abstract socket, None for one without a name."""
    abstract = field[0] == 0
    name = field[1 if abstract else 0 :].partition(b"\0")[0]
    if not name:
        return None
    return ("@" if abstract else "") + name.decode("utf-8", "surrogateescape"), None


def _tlvs(header: bytes, start: int) -> tuple[tuple[int, bytes], ...]:
    """All type-length-value fields from `start` on; verifies the checksum where there is one."""
    found: list[tuple[int, bytes]] = []
    at = start
    while at < len(header):
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : value], "big")
        if end > len(header) or value > len(header):
            raise ProxyHeaderError("a PROXY field reaches beyond its header")
        if header[at] == TYPE_CRC32C:
            _verify(header, value, end)
        found.append((header[at], header[value:end]))
        at = end
    return tuple(found)


def _verify(header: bytes, at: int, end: int) -> None:
    """2.2.3: the sum over the whole header, its own four octets taken as zero."""
    told = int.from_bytes(header[at:end], "big")
    if end - at != 4 or crc32c(header[:at] + bytes(4) + header[end:]) != told:
        raise ProxyHeaderError("the PROXY header's CRC32C does not match")


_table: list[int] = []


def crc32c(data: bytes) -> int:
    """RFC 9260 Appendix A (Castagnoli, reflected); zlib's crc32 is another polynomial."""
    if not _table:
        for value in range(256):
            for _ in range(8):
                value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
            _table.append(value)
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ _table[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF
