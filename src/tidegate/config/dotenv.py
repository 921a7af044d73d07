"""Reads an env file: `NAME=value` lines, as shells and other servers write them.

`export` may stand in front, `#` begins a comment, quotes keep blanks and line breaks (single ones
everything, double ones with \\n, \\t, \\" and \\\\), and outside single quotes `${NAME}` and
`${NAME:-default}` stand for a variable of the environment or of a line before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from tidegate.errors import ConfigurationError

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=")
_SINGLE = re.compile(r"[ \t]*'([^']*)'[ \t]*(?:#[^\n]*)?(?=\n|\Z)")
_DOUBLE = re.compile(r'[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(?:#[^\n]*)?(?=\n|\Z)', re.DOTALL)
_PLAIN = re.compile(r"(?![ \t]*[\"'])([^\n]*)")
_COMMENT = re.compile(r"[ \t]#.*")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_.]*)(?::-([^}]*))?\}")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}


def read_env_file(path: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of an env file, in its order; raises ConfigurationError with the line."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"The env file {path} cannot be read: {error}.", "Give a text file in UTF-8."
        ) from None
    found: dict[str, str] = {}
    at = 0
    while (at := _skip_blank(text, at)) < len(text):
        named = _NAME.match(text, at)
        value = _value(text, named.end(), {**found, **environ}) if named else None
        if named is None or value is None:
            line = text.count("\n", 0, at) + 1
            raise ConfigurationError(
                f"{path}, line {line}: that is no NAME=value.",
                "Write NAME=value, quote a value with line breaks, and begin a comment with #.",
            )
        found[named[1]], at = value
    return found


def load_env_file(path: str) -> None:
    """Put the variables of an env file where the application looks; what is set there stays."""
    for name, value in read_env_file(path, os.environ).items():
        os.environ.setdefault(name, value)


def _skip_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int, known: Mapping[str, str]) -> tuple[str, int] | None:
    """The value that begins here and where it ends; None for an open quote or what follows one."""
    if single := _SINGLE.match(text, at):
        return single[1], single.end()
    if double := _DOUBLE.match(text, at):
        return _unescaped(double[1], known), double.end()
    if plain := _PLAIN.match(text, at):
        return _expanded(_COMMENT.sub("", plain[1]).strip(), known), plain.end()
    return None


def _unescaped(text: str, known: Mapping[str, str]) -> str:
    # Split first, so that an escaped dollar sign or backslash never begins a reference.
    parts = re.split(r"(\\.)", text, flags=re.DOTALL)
    return "".join(
        _ESCAPES.get(part[1], part) if part.startswith("\\") else _expanded(part, known)
        for part in parts
    )


def _expanded(text: str, known: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda found: known.get(found[1]) or found[2] or "", text)
