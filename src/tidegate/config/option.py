"""What an option is, and what every kind of value has to know.

A kind knows how its values are written (in a flag, a variable, a file or in Python), which are
allowed, what would be right instead, and how to show one so that it can be given back. Reading is
idempotent: what a kind has read it reads again unchanged, so a value may come from any source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar, dataclass_transform

from tidegate.errors import ConfigurationError

T = TypeVar("T")


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

    def from_toml(self, value: object) -> object:
        """The value as a TOML file has it, in the form that `read` takes."""
        return value

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


class Settings:
    """A dataclass of options, each of them read and checked when it is made.

    What `dataclass` would write out for each field goes through the fields here instead: with
    seventy of them, compiling those methods took 3 ms of every start.
    """

    __slots__ = ()

    def __init__(self, *given: object, **more: object) -> None:
        own = _options(self)
        names = [named.name for named in own]
        said = dict(zip(names, given, strict=False))
        if len(given) > len(names):
            raise TypeError(f"{len(given)} values for {len(names)} options")
        for name in said.keys() & more.keys():
            raise TypeError(f"the option {name!r} is given twice")
        said |= more
        for name in said.keys() - set(names):
            raise TypeError(f"there is no option {name!r}.{near_option(name, names)}")
        for named in own:
            value = said.get(named.name, named.default)
            if value is not named.default:
                value = read_option(named, value, named.name)
            object.__setattr__(self, named.name, value)
        self.check()

    def check(self) -> None:
        """What concerns more than one option; raises ConfigurationError."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash(_values(self))

    def __repr__(self) -> str:
        shown = (
            f"{named.name}={getattr(self, named.name)!r}" for named in _options(self) if named.repr
        )
        return f"{type(self).__qualname__}({', '.join(shown)})"


@dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """The frozen dataclass; a type checker sees its fields as the parameters of a call."""
    return dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)(cls)


def _options(of: Any) -> tuple[Field[Any], ...]:
    return fields(of)


def _values(of: object) -> tuple[Any, ...]:
    return tuple(getattr(of, named.name) for named in _options(of))


# What other servers call it, Gunicorn before all, and a slip that is near to too much.
_ELSEWHERE = {
    "b": "bind",
    "chdir": "app_dir",
    "graceful_timeout": "timeout_graceful_shutdown",
    "keep_alive": "timeout_keep_alive",
    "keepalive": "timeout_keep_alive",
    "max_requests": "limit_max_requests",
    "max_requests_jitter": "limit_max_requests_jitter",
    "pid": "pid_file",
    "pidfile": "pid_file",
    "timeout": "timeout_worker_healthcheck",
    "w": "workers",
    "worker": "workers",
}


def near(word: str, known: Sequence[str]) -> str:
    """' Did you mean ...?' with the closest of the known words, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=3, cutoff=0.6)
    return f" Did you mean {listed(close)}?" if close else ""


def near_option(word: str, names: Sequence[str], shown: Callable[[str], str] = str) -> str:
    """The same for what is no option, in whichever spelling; `shown` writes the option's name."""
    from difflib import get_close_matches

    said = word.lstrip("-").replace("-", "_").lower()
    known = _ELSEWHERE.get(said)
    close = [known] if known else get_close_matches(said, names, n=3, cutoff=0.6)
    return f" Did you mean {listed([shown(name) for name in close])}?" if close else ""


def listed(words: Sequence[str]) -> str:
    """'a, b or c'."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
