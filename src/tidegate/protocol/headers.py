"""Field grammar and checks, for requests and for what the application hands out.

Names repeat for the life of a process, so what was found good once is remembered in bounded tables:
a lookup costs 30 ns where the regular expression costs 250.
"""

from __future__ import annotations

import re
from typing import Any

from tidegate.errors import ApplicationError

# RFC 9110 5.6.2: token
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 5.5: field-content is VCHAR, obs-text, SP and HTAB; everything else is refused
BAD_VALUE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
# RFC 3986 3.2.2 without userinfo, and without the comma: it is what two merged Host fields leave
_AUTHORITY = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})*"
    rb"|\[(?:([0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+;=:]+)\])(?::[0-9]{0,5})?"
)

BODILESS = frozenset((204, 304))  # RFC 9110 6.4.1
# RFC 9110 7.6.1, RFC 9113 8.2.2: what is said of the connection, which is the server's to say
OF_THE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
# those that a server reads, and that no trailer section may hold beside Host
SPECIAL = OF_THE_CONNECTION | {b"content-length", b"date", b"server"}

MEMORY = 1024  # entries a table keeps
_LONGEST = 128  # and how long one may be


class Memory(dict[bytes, bytes]):
    """A table that forgets everything when full: bounded, and as quick as a dict."""

    def keep(self, key: bytes, value: bytes) -> bytes:
        if len(key) <= _LONGEST:
            if len(self) >= MEMORY:
                self.clear()
            self[key] = value
        return value


def check_name(name: object) -> bytes:
    """The name as it is, if an application may send it; ApplicationError otherwise."""
    if not isinstance(name, bytes):
        raise ApplicationError(
            f"a response header's name must be bytes, not {type(name).__name__}: {name!r}"
        )
    if TOKEN.fullmatch(name) is None:
        raise ApplicationError(f"not a header name (RFC 9110 5.1): {name!r}")
    return name


def check_value(name: bytes, value: object) -> bytes:
    """The value as it is, if an application may send it; ApplicationError otherwise."""
    if not isinstance(value, bytes):
        raise ApplicationError(
            f"the value of response header {name.decode()!r} must be bytes, "
            f"not {type(value).__name__}: {value!r}"
        )
    if BAD_VALUE.search(value) is not None:
        raise ApplicationError(
            f"the value of response header {name.decode()!r} holds a line break or control "
            f"character (RFC 9110 5.5), it was not sent: {value!r}"
        )
    return value


def check_status(status: object) -> int:
    """The status of an application's response, where it is not simply an int."""
    if isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599:
        return int(status)
    raise ApplicationError(
        f"a response's status must be an int from 200 to 599 (RFC 9110 15), not {status!r}"
    )


def read_length(value: bytes) -> int:
    """A response's Content-Length; raises ApplicationError."""
    if not value.isdigit() or len(value) > 18:
        raise ApplicationError(f"Content-Length must be a number, not {value!r}")
    return int(value)


def check_trailer(name: bytes) -> None:
    """Fields of framing and routing are refused; raises ApplicationError."""
    if name.lower() in SPECIAL or name.lower() == b"host":
        raise ApplicationError(f"{name.decode()!r} cannot be a trailer (RFC 9110 6.5.1)")


def broken_promise(due: int, size: int) -> str:
    """What an application is told whose body does not fit its Content-Length."""
    word = "more" if size > due else "fewer"
    return (
        f"{word} body bytes than the response's Content-Length promised: "
        f"{due} were due, {size} came"
    )


def is_authority(value: bytes) -> bool:
    """host[:port] as a Host field may say it; empty is allowed (RFC 9112 3.2)."""
    match = _AUTHORITY.fullmatch(value)
    if match is None or match[1] is None:
        return match is not None
    from ipaddress import AddressValueError, IPv6Address

    try:
        IPv6Address(match[1].decode())
    except AddressValueError:
        return False
    return True


class Defaults:
    """The fields every response gets: `--header`, and server and date unless the application's own.

    Shared by all connections of a worker, whose timer sets `date` once a second. `rendered` and
    `answers` are where the engines keep whole heads made with them: emptied with every new date.
    """

    __slots__ = (
        "answers", "block", "date", "dateless", "extra", "rendered", "server", "serverless",
    )  # fmt: skip

    def __init__(self, server: bytes = b"", extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.server = server
        self.extra = extra
        self.rendered: dict[object, Any] = {}
        self.answers: dict[object, Any] = {}
        self.date = self.block = self.dateless = self.serverless = b""
        self.set_date(b"")

    def set_date(self, date: bytes) -> None:
        """Render the fields anew; an empty date is left out."""
        self.rendered.clear()
        self.answers.clear()
        self.date = date
        extra = b"".join(b"%b: %b\r\n" % pair for pair in self.extra)
        server = b"server: %b\r\n" % self.server if self.server else b""
        dated = b"date: %b\r\n" % date if date else b""
        self.block = dated + server + extra
        self.dateless = server + extra
        self.serverless = dated + extra

    def without(self, date: bool, server: bool) -> bytes:
        """The block for a response that has its own Date or Server field."""
        if date and server:
            return b"".join(b"%b: %b\r\n" % pair for pair in self.extra)
        return self.dateless if date else self.serverless

    def pairs(self, *, date: bool, server: bool) -> list[tuple[bytes, bytes]]:
        """The same as pairs with lower-case names; `date`, `server`: whether they are wanted."""
        found = [(name.lower(), value) for name, value in self.extra]
        if server and self.server:
            found.insert(0, (b"server", self.server))
        if date and self.date:
            found.insert(0, (b"date", self.date))
        return found
