"""The access log: one line a request, written in batches.

A request costs one `list.append` while it runs. Every `BATCH` entries, and whenever the worker's
timer calls `flush()`, all lines are rendered in one go and leave in one call of `write`.

A format is compiled once into a function that renders a whole batch: the source of one list
comprehension around one f-string is built from the fields of the template and handed to `exec`, as
`dataclasses` does it: 1.1 us a line in the default format, where a list of getters called one by
one took 1.8.

Everything that comes from the peer is escaped where it is rendered, so that no request can forge a
line, end a quoted field early or send a sequence to the terminal of whoever reads the log. Octets
outside printable ASCII, the double quote and the backslash become `\\xhh`: one rule, safe even for
readers that split at quotes without knowing of escapes.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from tidegate.errors import ConfigurationError
from tidegate.types import Headers

# client, method, target (raw path and query), version ("1.1"), status, octets of content sent,
# seconds it took, request headers with lower-case names, wall time when it ended.
Entry: TypeAlias = tuple[str, str, bytes, str, int, int, float, Headers, float]
Lines: TypeAlias = Callable[[Sequence[Entry], Mapping[int, str]], str]

BATCH = 256

FORMATS = {
    "default": (
        '{time} {client} "{method} {target} HTTP/{version}" {status} {size}B {duration_ms}ms'
    ),
    "common": (
        '{client} - - [{time_common}] "{method} {target} HTTP/{version}" {status} {size_common}'
    ),
    "combined": (
        '{client} - - [{time_common}] "{method} {target} HTTP/{version}" {status} {size_common}'
        ' "{referer}" "{user_agent}"'
    ),
}

# Each field of a template, as the expression that renders it.
_FIELDS = {
    "time": "local_time(int(ended))",
    "time_iso": "iso_time(ended)",
    "time_common": "common_time(int(ended))",
    "client": "clean(client)",
    "method": "clean(method)",
    "target": "clean_octets(target)",
    "path": "clean_octets(target.partition(b'?')[0])",
    "query": "clean_octets(target.partition(b'?')[2])",
    "version": "version",
    "status": "paint[status]",
    "size": "size",
    "size_common": "size or '-'",
    "duration_ms": "seconds * 1000:.2f",
    "request_id": "request_id(found)",
    "referer": "clean_octets(found.get(b'referer', b''))",
    "user_agent": "clean_octets(found.get(b'user-agent', b''))",
}
_HEADER_FIELD = "clean_octets(found.get({name!r}, b''))"
# RFC 9110 5.6.2 token, without the two quotes of the language the field is compiled to.
_HEADER_NAME = r"header:([A-Za-z0-9!#$%&*+.^_|~-]+)"
_UNPACKED = "client, method, target, version, status, size, seconds, headers, ended"

_SAFE = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\')
_ESCAPED = [chr(octet) if octet in _SAFE else f"\\x{octet:02x}" for octet in range(256)]
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/=+@~-]{1,128}")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Formatter(NamedTuple):
    """A compiled format. Where `needs_headers` is false, entries may carry `()` for headers."""

    lines: Lines
    needs_headers: bool


class AccessLog:
    """Collects entries, renders them in batches; `write` takes one string of whole lines."""

    __slots__ = ("_entries", "_lines", "_lost", "_paint", "_write", "needs_headers")

    def __init__(
        self, formatter: Formatter, write: Callable[[str], object], *, colors: bool = False
    ) -> None:
        self.needs_headers = formatter.needs_headers
        self._lines = formatter.lines
        self._write = write
        self._paint: dict[int, str] = _Painted(_UNANSWERED) if colors else _Plain(_UNANSWERED)
        self._entries: list[Entry] = []
        self._lost = 0

    def add(self, entry: Entry) -> None:
        """Remember one answered request; a full batch is written at once."""
        entries = self._entries
        entries.append(entry)
        if len(entries) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was collected. Never raises: lines that cannot be written are dropped."""
        entries = self._entries
        if not entries:
            return
        self._entries = []
        try:
            self._write(self._lines(entries, self._paint))
        except Exception as error:
            self._lose(len(entries), error)
        else:
            if self._lost:
                self._recover()

    def _lose(self, count: int, error: Exception) -> None:
        first = not self._lost
        self._lost += count
        if first:
            logging.getLogger("tidegate").error(
                "The access log cannot be written (%s: %s). Its lines are dropped until it can; "
                "requests are served as before.",
                type(error).__name__,
                error,
            )

    def _recover(self) -> None:
        lost, self._lost = self._lost, 0
        logging.getLogger("tidegate").warning(
            "The access log can be written again; %d lines were lost.", lost
        )


def compile_format(spec: str) -> Formatter:
    """The formatter for a format's name ("default", "common", "combined", "json") or a template."""
    if spec == "json":
        return _json_formatter()
    template = FORMATS.get(spec)
    if template is None:
        if not re.search(r"[{}]", spec):
            raise _not_a_format(spec)
        template = spec
    return _compile_template(template)


def _compile_template(template: str) -> Formatter:
    body = []
    needs_headers = False
    at = 0
    for match in re.finditer(r"\{\{|\}\}|\{([^{}]*)\}|[{}]", template):
        body.append(_literal(template[at : match.start()]))
        at = match.end()
        name = match[1]
        if name is not None:
            expression = _expression(name, template)
            needs_headers = needs_headers or "found" in expression
            body.append(f"{{{expression}}}")
        elif len(match[0]) == 2:
            body.append(match[0])
        else:
            raise ConfigurationError(
                f"access log format: single {match[0]!r} at character {match.start() + 1} "
                f"of {template!r}",
                f"Write {match[0] * 2!r} for the character itself, {{client}} for a field.",
            )
    body.append(_literal(template[at:]))
    # `for x in (y,)` is an assignment inside a comprehension, at no cost.
    headers = " for found in (dict(headers),)" if needs_headers else ""
    line = f'f"{"".join(body)}\\n" for {_UNPACKED} in entries{headers}'
    names: dict[str, Any] = dict(_HELPERS)
    exec(f"def lines(entries, paint): return ''.join([{line}])", names)
    return Formatter(names["lines"], needs_headers)


def _literal(text: str) -> str:
    """The text between two fields, as it has to stand inside the generated f-string."""
    return text.encode("unicode_escape").decode("ascii").replace('"', '\\"')


def _expression(name: str, template: str) -> str:
    expression = _FIELDS.get(name)
    if expression is not None:
        return expression
    if header := re.fullmatch(_HEADER_NAME, name):
        return _HEADER_FIELD.format(name=header[1].lower().encode("ascii"))
    raise ConfigurationError(
        f"access log format: there is no field {{{name}}} in {template!r}",
        _near(name, _FIELDS) + f"Fields: {', '.join(_FIELDS)}, header:<name>.",
    )


def _not_a_format(spec: str) -> ConfigurationError:
    if "%(" in spec:
        hint = "Fields are written in braces here: {client}, {status}, {header:x-name}."
    else:
        names = [*FORMATS, "json"]
        hint = _near(spec, names) + f"Give one of {', '.join(names)}, or a template such as "
        hint += "'{client} {status}'."
    return ConfigurationError(f"access log format: {spec!r} is no format, and holds no field", hint)


def _near(word: str, known: Mapping[str, str] | list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def _json_formatter() -> Formatter:
    from json.encoder import encode_basestring_ascii

    def quote(octets: bytes | None) -> str:
        if octets is None:
            return "null"
        # Octets that are not UTF-8 stay readable as \xhh; a lone surrogate would not be JSON
        # to most readers.
        return encode_basestring_ascii(str(octets, "utf-8", "backslashreplace"))

    def line(entry: Entry) -> str:
        client, method, target, version, status, size, seconds, headers, ended = entry
        found = dict(headers)
        path, _, query = target.partition(b"?")
        identity = found.get(b"x-request-id", b"")
        return (
            f'{{"time":"{_iso_time(ended)}"'
            f',"client":{encode_basestring_ascii(client) if client else "null"}'
            f',"method":{encode_basestring_ascii(method)}'
            f',"path":{quote(path)},"query":{quote(query)},"version":"{version}"'
            f',"status":{status or "null"},"size":{size},"duration_ms":{seconds * 1000:.2f}'
            f',"request_id":{quote(identity if _SANE_REQUEST_ID.fullmatch(identity) else None)}'
            f',"referer":{quote(found.get(b"referer"))}'
            f',"user_agent":{quote(found.get(b"user-agent"))}}}\n'
        )

    def lines(entries: Sequence[Entry], _paint: Mapping[int, str]) -> str:
        return "".join([line(entry) for entry in entries])

    return Formatter(lines, needs_headers=True)


# What a template's fields call. Clients and methods repeat, and a hit in the cache costs a fifth
# of looking at the text; targets do not, and would fill it with whatever strangers ask for.


def _clean_octets(octets: bytes) -> str:
    """The octets as printable ASCII, all else as `\\xhh`; `-` where there is nothing."""
    # Taking away all that is safe was quicker than a regular expression, and than str's tests.
    if octets.translate(None, _SAFE):
        return "".join([_ESCAPED[octet] for octet in octets])
    return str(octets, "ascii") or "-"


@lru_cache(maxsize=512)
def _clean(text: str) -> str:
    return _clean_octets(text.encode("utf-8", "backslashreplace"))


def _request_id(found: dict[bytes, bytes]) -> str:
    identity = found.get(b"x-request-id", b"")
    return str(identity, "ascii") if _SANE_REQUEST_ID.fullmatch(identity) else "-"


@lru_cache(maxsize=4)
def _local_time(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


@lru_cache(maxsize=4)
def _zone(second: int) -> tuple[str, str]:
    """Sign with hours, and minutes, of the local offset from UTC at that time."""
    minutes = time.localtime(second).tm_gmtoff // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}", f"{abs(minutes) % 60:02}"


@lru_cache(maxsize=4)
def _iso_parts(second: int) -> tuple[str, str]:
    return _local_time(second).replace(" ", "T"), ":".join(_zone(second))


def _iso_time(ended: float) -> str:
    second = int(ended)
    date, zone = _iso_parts(second)
    return f"{date}.{int((ended - second) * 1000):03d}{zone}"


@lru_cache(maxsize=4)
def _common_time(second: int) -> str:
    # Not strftime's %b: month names are English here, whatever locale the application set.
    at = time.localtime(second)
    date = f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}"
    return f"{date}:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} {''.join(_zone(second))}"


_HELPERS = {
    "clean": _clean,
    "clean_octets": _clean_octets,
    "request_id": _request_id,
    "local_time": _local_time,
    "iso_time": _iso_time,
    "common_time": _common_time,
}


# The status of a request that was ended by force, before there was an answer.
_UNANSWERED = {0: "-"}


class _Plain(dict[int, str]):
    """status -> its text, remembered: a look-up is half the price of formatting the number."""

    def __missing__(self, status: int) -> str:
        text = self[status] = str(status)
        return text


class _Painted(dict[int, str]):
    """status -> its text in the colour of its class."""

    _COLORS: tuple[str, ...] = ("0", "36", "32", "36", "33", "1;31")

    def __missing__(self, status: int) -> str:
        color = self._COLORS[status // 100] if 100 <= status < 600 else "0"
        text = self[status] = f"\x1b[{color}m{status}\x1b[0m"
        return text
