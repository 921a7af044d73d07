"""What an option is, and what every kind of value has to know.

A kind knows how its values are written (in a flag, a variable, a file or in Python), which are
allowed, what would be right instead, and how to show one so that it can be given back. Reading is
idempotent: what a kind has read it reads again unchanged, so a value may come from any source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, field
from typing import Any, NamedTuple

from tidegate.errors import ConfigurationError


class WrongValueError(Exception):
    """A value that cannot be: `what` is wrong with it, what would be `right`."""

    def __init__(self, what: str, right: str) -> None:
        super().__init__(what)
        self.what = what
        self.right = right


class Kind:
    """A kind of value: `metavar` for --help, `right` completes "Right would be ..."."""

    metavar = "TEXT"
    right = "a text"
    may_be_empty = False  # else an empty environment variable counts as not set
    knows_none = True  # whether the word "none" switches an optional value off

    def read(self, value: object) -> Any:
        """The value in its canonical form; raises WrongValueError."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """The value as a user would write it."""
        return str(value)

    def beside(self, value: object, folder: str) -> object:
        """The value as given, with a path in it taken as relative to `folder`."""
        return value


class Option(NamedTuple):
    """All that is known of an option beside its name, type and default, which the field has."""

    kind: Kind
    group: str
    text: str
    optional: bool
    secret: bool
    fallback: str


def option(
    default: Any,
    kind: Kind,
    group: str,
    text: str,
    *,
    optional: bool = False,
    secret: bool = False,
    fallback: str = "",
) -> Any:
    """A dataclass field that is an option; `fallback` names a variable that others also read."""
    about = Option(kind, group, text, optional or default is None, secret, fallback)
    return field(default=default, repr=not secret, metadata={"option": about})


def option_of(named: Field[Any]) -> Option:
    found: Option = named.metadata["option"]
    return found


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    return "TIDEGATE_" + name.upper()


def read_option(named: Field[Any], value: object, origin: str) -> Any:
    """The value of this field as it was given at `origin`, checked; raises ConfigurationError."""
    about = option_of(named)
    if about.optional and (value is None or (value == "none" and about.kind.knows_none)):
        return None
    try:
        return about.kind.read(value)
    except WrongValueError as wrong:
        bare = about.secret or value is True  # a secret stays one, and `--x` has no value to show
        said = origin if bare else f"{origin} is {_brief(value)}"
        raise ConfigurationError(f"{said}: {wrong.what}.", wrong.right) from None


def show_option(named: Field[Any], value: Any) -> str:
    """The value as a user would write it; a secret only says that it is there."""
    about = option_of(named)
    if value is None:
        return "none"
    return "********" if about.secret else about.kind.show(value) or "(empty)"


def near(word: str, known: Sequence[str]) -> str:
    """' Did you mean ...?' with the closest of the known words, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=3, cutoff=0.6)
    return f" Did you mean {listed(close)}?" if close else ""


def listed(words: Sequence[str]) -> str:
    """'a, b or c'."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
