"""An answer's field section: the application's fields, checked and in lower case, beside ours.

Strategy: an application sends the same few heads over and over, so a head is kept by its status and
fields until the date changes (`Answer`); its block is the engine's to make, since it depends on the
connection's table. What belongs to HTTP/1.1's connections is dropped (RFC 9113 8.2.2).
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.errors import ApplicationError
from tidegate.protocol.headers import (
    BODILESS,
    MEMORY,
    OF_THE_CONNECTION,
    SPECIAL,
    Defaults,
    check_name,
    check_status,
    check_trailer,
    check_value,
    read_length,
)
from tidegate.types import Header

ANSWERS = 512  # answers kept, each for a second at most
NO_BODY = -2  # in place of a length: nothing of a body is sent
UNMEASURED = -1

_LONGEST = 256  # longer fields are checked each time: memory stays bounded

_known: dict[Header, Header] = {}


class Answer:
    """A head that is ready to be encoded. `length`: of its body, UNMEASURED or NO_BODY."""

    __slots__ = ("fields", "length")

    def __init__(self, fields: list[Header], length: int) -> None:
        self.fields = fields
        self.length = length


def make_answer(status: object, headers: Iterable[Header], defaults: Defaults) -> Answer:
    """The answer that an application began; raises ApplicationError."""
    status = check_status(status)
    fields: list[Header] = [(b":status", b"%d" % status)]
    length, dated, named = UNMEASURED, False, False
    for name, value in read_fields(headers):
        if name == b"content-length":
            if length >= 0:
                raise ApplicationError("two Content-Length headers in one response")
            length = read_length(value)
            if status == 204:
                continue  # RFC 9110 8.6
        elif name in OF_THE_CONNECTION:
            continue
        dated = dated or name == b"date"
        named = named or name == b"server"
        fields.append((name, value))
    fields.extend(defaults.pairs(date=not dated, server=not named))
    return Answer(fields, NO_BODY if status in BODILESS else length)


def read_fields(headers: Iterable[Header]) -> list[Header]:
    """An application's fields, checked, their names in lower case; raises ApplicationError."""
    fields = []
    try:
        for name, value in headers:
            known = _known.get((name, value))
            fields.append(known if known is not None else _learn(name, value))
    except (TypeError, ValueError) as error:
        raise ApplicationError(
            "response headers must be an iterable of (name, value) pairs of bytes"
        ) from error
    return fields


def _learn(name: bytes, value: bytes) -> Header:
    pair = check_name(name).lower(), check_value(name, value).strip(b" \t")
    if len(name) + len(value) <= _LONGEST:
        if len(_known) >= MEMORY:
            _known.clear()
        _known[name, value] = pair
    return pair


def informational(status: int, headers: Iterable[Header]) -> list[Header]:
    """The fields of a 1xx answer."""
    fields = [(b":status", b"%d" % status)]
    fields += [pair for pair in read_fields(headers) if pair[0] not in SPECIAL | {b"host"}]
    return fields


def trailer_fields(headers: Iterable[Header]) -> list[Header]:
    """Fields behind a body; those of framing and routing are refused."""
    fields = read_fields(headers)
    for name, _ in fields:
        check_trailer(name)
    return fields
