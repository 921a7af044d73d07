"""Who the client was before the proxies: X-Forwarded-* and Forwarded (RFC 7239).

Every hop writes its entry at the right end of a list, so only the right end can be believed: the
walk starts there, passes over hops that are trusted, and stops at the first that is not. Nothing
left of that point is ever looked at, for a client can write there what it likes. Parsing goes from
the right as well, so a quote left open by a client cannot swallow the entry of the proxy.

The two families are never mixed, and where any X-Forwarded-* is present, `Forwarded` is not read:
nearly every proxy writes the former and hands the latter through untouched. docs/behind-a-proxy.md
says what a proxy that writes only `Forwarded` has to do for that.

Whatever a header holds, nothing here raises while serving. Addresses are parsed by `inet_pton`, a
C function (0.15 us against 2.2 us, and no import of `ipaddress`); no socket is made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping, Sequence
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, NamedTuple

from tidegate.errors import ConfigurationError
from tidegate.types import Address, Header

_FORWARDED = b"forwarded"
_FOR = b"x-forwarded-for"
_PROTO = b"x-forwarded-proto"
_HOST = b"x-forwarded-host"
_PORT = b"x-forwarded-port"
_PREFIX = b"x-forwarded-prefix"
_NAMES = frozenset({_FORWARDED, _FOR, _PROTO, _HOST, _PORT, _PREFIX})

# Traefik writes ws and wss for WebSocket requests; the scope's type says that already.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291 2.5.5.2
# The longest honest entry is a unix path (108 octets); a bound, since entries are cached.
_LONGEST_NODE = 128

# Reading a proxy's headers costs 11 us, and one client sends many requests: the answer is kept.
_LONGEST_CACHED = 512
_UNSAID: Address = ("", 0)  # in place of the peer, so that connections share what is kept

# Texts, which `re` compiles and keeps when they are first used: 1 ms that most starts can spare.
# Narrower than RFC 3986 3.2.2: no userinfo, no sub-delims, no percent: what DNS and URLs use.
_AUTHORITY = r"([A-Za-z0-9._-]{1,255}|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?"
# No empty, `.` or `..` segment, nothing encoded or quoted, so that it can be compared with a path.
_PREFIX_FORM = r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~@:+-]+)+"
_OBFUSCATED = r"_[A-Za-z0-9._-]+"  # RFC 7239 6.3
# RFC 7239 4, with two liberties taken by proxies in the field: spaces around `;`, and a port or
# brackets in a value without quotes.
_PAIR = (
    r"[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r"(?:([!#$%&'*+.^_`|~0-9A-Za-z:\[\]/-]+)|\"((?:[^\"\\]|\\.)*)\"))?[ \t]*(?:;|\Z)"
)
_QUOTED_PAIR = r"\\(.)"
_COMMA_OR_QUOTE = r"[\",]"


class Origin(NamedTuple):
    """What the trusted proxies say. `client` is final; None elsewhere means: not said."""

    client: Address | None
    scheme: str | None
    host: bytes | None
    port: int | None
    prefix: str | None


class _Node(NamedTuple):
    """One hop: an address (`packed` is not empty) or a name (`_hidden`, `unix:`)."""

    host: str
    port: int
    packed: bytes


class TrustedProxies:
    """The proxies whose word is taken; `allow` as in `--forwarded-allow-ips`."""

    __slots__ = ("_any_unix", "_everybody", "_hosts", "_names", "_networks", "_remembered")

    def __init__(self, allow: str, option: str = "--forwarded-allow-ips") -> None:
        self._everybody = False
        self._any_unix = False
        self._hosts: set[bytes] = set()
        self._names: set[str] = set()
        self._networks: list[tuple[int, int, int]] = []
        self._remembered = lru_cache(maxsize=1024)(self._read)
        for entry in allow.split(","):
            if entry.strip():
                self._add(entry.strip(), option)

    def trusts(self, peer: Address | None, unix: str | None = None) -> bool:
        """Whether this peer may speak for others. `unix` is the path of the socket it came in by.

        Evaluated once per connection; `unix` is "" for a socket without a name.
        """
        if self._everybody:
            return True
        if unix is not None:
            return self._any_unix or unix in self._names
        if peer is None:
            return False
        packed = _pack(peer[0])
        return packed is not None and self._trusts_address(packed)

    def resolve(self, headers: Sequence[Header], peer: Address | None) -> Origin | None:
        """Where the request came from, or None without such headers. Only for trusted peers.

        Names in `headers` are lower-case already. `peer` is None for a unix socket.
        """
        found: dict[bytes, bytes] | None = None
        for name, value in headers:
            if name in _NAMES:
                if found is None:
                    found = {name: value}
                else:
                    # Lines of one name are one list, in order (RFC 9110 5.3).
                    found[name] = found[name] + b"," + value if name in found else value
        if found is None:
            return None
        lines = tuple(found.items())
        short = sum(map(len, found.values())) <= _LONGEST_CACHED
        origin = self._remembered(lines) if short else self._read(lines)
        return origin._replace(client=peer) if origin.client is _UNSAID else origin

    def _read(self, lines: tuple[Header, ...]) -> Origin:
        found = dict(lines)
        if len(found) == 1 and _FORWARDED in found:
            return self._from_forwarded(found[_FORWARDED].decode("latin-1"))
        return self._from_x_forwarded(found)

    def rewrite(self, scope: MutableMapping[str, Any]) -> bool:
        """Put into a fresh scope what its own headers say, if they do. Only for trusted peers."""
        origin = self.resolve(scope["headers"], scope["client"])
        if origin is not None:
            apply(scope, origin)
        return origin is not None

    def _from_x_forwarded(self, found: dict[bytes, bytes]) -> Origin:
        client: Address | None = _UNSAID
        hop = 0
        for hop, text in enumerate(reversed(_entries(found, _FOR))):  # noqa: B007
            node = _parse_node(text)
            client = _address(node)
            if not self._trusts_node(node):
                break
        protos = _entries(found, _PROTO)
        hosts = _entries(found, _HOST)
        ports = _entries(found, _PORT)
        return Origin(
            client,
            _SCHEMES.get(_at(protos, hop).lower()),
            _parse_authority(_at(hosts, hop)),
            _parse_port(_at(ports, hop)) or None,
            # Each proxy took its own part off the path, so the parts add up.
            _parse_prefix(_entries(found, _PREFIX)[-1 - hop :]),
        )

    def _from_forwarded(self, text: str) -> Origin:
        client: Address | None = _UNSAID
        element: dict[str, str] = {}
        for text_of_element in _elements_from_the_right(text):
            pairs = _parse_element(text_of_element)
            if pairs is None:
                return Origin(None, None, None, None, None)
            element = pairs
            if "for" not in element:
                break  # this proxy does not say whom it speaks for; the nearest known hop stands
            node = _parse_node(element["for"])
            client = _address(node)
            if not self._trusts_node(node):
                break
        return Origin(
            client,
            _SCHEMES.get(element.get("proto", "").lower()),
            _parse_authority(element.get("host", "")),
            None,
            None,
        )

    def _trusts_node(self, node: _Node | None) -> bool:
        if self._everybody:
            return True
        if node is None:
            return False
        if node.packed:
            return self._trusts_address(node.packed)
        if node.host.startswith("unix:"):
            return self._any_unix or node.host[5:] in self._names
        return node.host in self._names

    def _trusts_address(self, packed: bytes) -> bool:
        if packed in self._hosts:
            return True
        if not self._networks:
            return False
        size, number = len(packed), int.from_bytes(packed, "big")
        return any(
            size == of_size and number >> shift == prefix
            for of_size, shift, prefix in self._networks
        )

    def _add(self, entry: str, option: str) -> None:
        if entry == "*":
            self._everybody = True
        elif entry == "unix:":
            self._any_unix = True
        elif entry.startswith(("unix:", "/")):
            path = entry.removeprefix("unix:")
            # `unix:///run/a.sock` is the same socket as `unix:/run/a.sock`.
            self._names.add("/" + path.lstrip("/") if path.startswith("/") else path)
        elif entry.startswith("_") and re.fullmatch(_OBFUSCATED, entry):
            self._names.add(entry)
        elif "/" in entry:
            self._networks.append(_parse_network(entry, option))
        elif (packed := _pack(entry)) is not None and "%" not in entry:
            self._hosts.add(packed)
        else:
            raise ConfigurationError(
                f"{option}: '{entry}' is not an address, a network or a unix socket.",
                "Use addresses such as 10.0.0.5 or ::1, networks such as 10.0.0.0/8, "
                "unix:/run/app.sock, unix: for every unix socket, or * for everybody. "
                "Names of machines are not looked up.",
            )


def apply(scope: MutableMapping[str, Any], origin: Origin) -> None:
    """Write what the proxies said into a fresh scope."""
    scope["client"] = origin.client
    if origin.scheme is not None:
        scheme = origin.scheme
        scope["scheme"] = _WEBSOCKET_SCHEMES[scheme] if scope["type"] == "websocket" else scheme
    if origin.host is not None:
        others = [header for header in scope["headers"] if header[0] != b"host"]
        scope["headers"] = [(b"host", origin.host), *others]
    if origin.host is not None or origin.port is not None:
        scope["server"] = _server(scope, origin)
    if origin.prefix is not None:
        _set_root_path(scope, origin.prefix)


def _server(scope: MutableMapping[str, Any], origin: Origin) -> tuple[str, int | None] | None:
    if origin.host is None:
        server: tuple[str, int | None] | None = scope.get("server")
        if server is None or server[1] is None:
            return server  # a unix socket has no port (ASGI www 2.5, `server`)
        return server[0], origin.port
    name, colon, port = origin.host.decode("ascii").rpartition(":")
    if not colon or port.endswith("]"):
        name, port = origin.host.decode("ascii"), ""
    default = _DEFAULT_PORTS[scope["scheme"]]
    return name.strip("[]"), origin.port or int(port or default)


def _set_root_path(scope: MutableMapping[str, Any], prefix: str) -> None:
    """The header takes the place of a configured root path: both name what was taken off.

    It is always put in front, never guessed from the path: were `/api/admin` taken as complete
    under `/api`, a client asking a stripping proxy for `/api/api/admin` would arrive at `/admin`
    past every rule of the proxy. `raw_path` stays what was received (ASGI www 2.5).
    """
    path: str = scope["path"]
    if path.startswith("/"):  # the asterisk of OPTIONS (RFC 9112 3.2.4) is no path
        scope["path"] = prefix + path.removeprefix(scope.get("root_path", ""))
    scope["root_path"] = prefix


def _entries(found: dict[bytes, bytes], name: bytes) -> list[str]:
    """The members of a list; empty ones do not count (RFC 9110 5.6.1.2)."""
    value = found.get(name)
    if value is None:
        return []
    text = value.decode("latin-1")
    return [entry for part in text.split(",") if (entry := part.strip(" \t"))]


def _at(entries: list[str], hop: int) -> str:
    """The entry of the hop, counted from the right; a shorter list was overwritten on the way."""
    return entries[max(len(entries) - 1 - hop, 0)] if entries else ""


def _elements_from_the_right(text: str) -> Iterator[str]:
    """Split a Forwarded value at the commas outside of quotes, last element first."""
    end, quoted = len(text), False
    for mark in reversed(list(re.finditer(_COMMA_OR_QUOTE, text))):
        at = mark.start()
        if mark.group() == '"':
            if not (quoted and _is_escaped(text, at)):
                quoted = not quoted
        elif not quoted:
            if text[at + 1 : end].strip(" \t"):
                yield text[at + 1 : end]
            end = at
    if text[:end].strip(" \t"):
        yield text[:end]


def _is_escaped(text: str, at: int) -> bool:
    """Whether an odd number of backslashes stands before this place."""
    start = at
    while start and text[start - 1] == "\\":
        start -= 1
    return (at - start) % 2 == 1


def _parse_element(text: str) -> dict[str, str] | None:
    """The pairs of one element, or None where it is malformed or says a thing twice."""
    pair = re.compile(_PAIR)
    pairs: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = pair.match(text, at)
        if match is None:
            return None
        at = match.end()
        name, plain, quoted = match.groups()
        if name is None:
            continue
        if name.lower() in pairs:
            return None  # RFC 7239 4: each parameter once per element
        pairs[name.lower()] = plain if quoted is None else re.sub(_QUOTED_PAIR, r"\1", quoted)
    return pairs


def _parse_node(text: str) -> _Node | None:
    return _cached_node(text) if len(text) <= _LONGEST_NODE else None


@lru_cache(maxsize=1024)
def _cached_node(text: str) -> _Node | None:
    """A hop as RFC 7239 6 or X-Forwarded-For write it; None where it cannot be told."""
    if text.startswith("unix:"):
        return _Node(text, 0, b"")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and rest[0] != ":") or ":" not in host:
            return None
        port = rest[1:] if rest else None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, None
    number = 0 if port is None or re.fullmatch(_OBFUSCATED, port) else _parse_port(port)
    if number is None:
        return None
    if re.fullmatch(_OBFUSCATED, host):
        return _Node(host, number, b"")
    packed = _pack(host)
    if packed is None:
        return None
    return _Node(inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed), number, packed)


def _address(node: _Node | None) -> Address | None:
    return (node.host, node.port) if node is not None and node.packed else None


def _pack(host: str) -> bytes | None:
    """The octets of an address; IPv4 inside IPv6 becomes IPv4, a zone is dropped."""
    try:
        if ":" not in host:
            return inet_pton(AF_INET, host)
        packed = inet_pton(AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _parse_network(entry: str, option: str) -> tuple[int, int, int]:
    """(octets of the address, bits of the host, the network's number) of a CIDR entry."""
    host, _, length = entry.partition("/")
    packed = _pack(host)
    bits = int(length) if length.isascii() and length.isdigit() else -1
    if packed is not None and ":" in host and len(packed) == 4:
        bits -= 96  # ::ffff:10.0.0.0/104 is 10.0.0.0/8
    if packed is None or "%" in host or not 0 <= bits <= len(packed) * 8:
        raise ConfigurationError(
            f"{option}: '{entry}' is not a network.",
            "Write an address, a slash and the number of bits, such as 10.0.0.0/8 or fd00::/8.",
        )
    shift = len(packed) * 8 - bits
    number = int.from_bytes(packed, "big") >> shift
    start = (number << shift).to_bytes(len(packed), "big")
    if start != packed:
        name = inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, start)
        raise ConfigurationError(
            f"{option}: '{entry}' names one machine and a whole network at once.",
            f"Write {name}/{bits} for the network, or {host} for the machine alone.",
        )
    return len(packed), shift, number


def _parse_port(text: str) -> int | None:
    if len(text) > 5 or not (text.isascii() and text.isdigit()):
        return None
    return number if (number := int(text)) < 65536 else None


def _parse_authority(text: str) -> bytes | None:
    match = re.fullmatch(_AUTHORITY, text)
    if match is None:
        return None
    literal, port = match.group(2), match.group(3)
    if literal is not None and (":" not in literal or _pack(literal) is None):
        return None
    if port is not None and not _parse_port(port):
        return None
    return text.encode("ascii")


def _parse_prefix(parts: list[str]) -> str | None:
    """The path the proxies took off, without a slash at its end."""
    prefix = ""
    for part in parts:
        trimmed = part.removesuffix("/")
        if trimmed and not re.fullmatch(_PREFIX_FORM, trimmed):
            return None
        prefix += trimmed
    return prefix or None
