"""The kinds of value that many options have: words, numbers, measures, paths, lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from tidegate.config.option import Kind, WrongValueError, listed, near


def line_of_text(value: object, right: str) -> str:
    """The value, if it is a text that fits one line: nothing after it can be forged."""
    if not isinstance(value, str):
        raise WrongValueError("not a text", f"Right would be {right}.")
    if re.search(r"[\x00\r\n]", value):
        raise WrongValueError("it has a line break or a NUL in it", f"Right would be {right}.")
    return value


class Text(Kind):
    """One line of anything."""

    knows_none = False

    def __init__(self, right: str = "a text", *, metavar: str = "TEXT", empty: bool = False):
        self.right = right
        self.metavar = metavar
        self.may_be_empty = empty

    def read(self, value: object) -> str:
        text = line_of_text(value, self.right)
        if not text and not self.may_be_empty:
            raise WrongValueError("it is empty", f"Right would be {self.right}.")
        return text


class Switch(Kind):
    """On or off: `--x` and `--no-x`, or with `spelled` a flag that takes the word as its value."""

    metavar = "BOOL"
    right = "on or off (true/false, yes/no and 1/0 will do as well)"
    _words = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
        ("0", "false", "no", "off"), False
    )

    def __init__(self, *, spelled: bool = False) -> None:
        self.spelled = spelled

    def read(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        known = (
            self._words.get(str(value).strip().lower()) if isinstance(value, str | int) else None
        )
        if known is None:
            raise WrongValueError("neither on nor off", f"Right would be {self.right}.")
        return known

    def show(self, value: Any) -> str:
        return "on" if value else "off"


class Choice(Kind):
    """One of a few words; `aliases` are other values that stand for one of them."""

    metavar = "NAME"

    def __init__(self, *words: str, aliases: Mapping[object, str] | None = None) -> None:
        self.words = words
        self.aliases = aliases or {}
        self.right = listed(words)

    def read(self, value: object) -> str:
        if isinstance(value, str | int):
            word = self.aliases.get(value, str(value).strip().lower())
            if word in self.words:
                return word
        close = near(value, self.words) if isinstance(value, str) else ""
        raise WrongValueError("not one of the choices", f"Right would be {self.right}.{close}")


class Whole(Kind):
    """A whole number in a range; `names` are words for some of them."""

    metavar = "INT"

    def __init__(self, low: int, high: int | None = None, names: Mapping[str, int] | None = None):
        self.low, self.high, self.names = low, high, names or {}
        reach = f"from {low} to {high}" if high is not None else f"from {low} upwards"
        words = f" ({', '.join(f'{value} = {name}' for name, value in self.names.items())})"
        self.right = f"a whole number {reach}" + (words if self.names else "")

    def read(self, value: object) -> int:
        number = self.names.get(value.strip().lower()) if isinstance(value, str) else None
        if number is None:
            number = self._number(value)
        if number < self.low or (self.high is not None and number > self.high):
            raise WrongValueError("out of range", f"Right would be {self.right}.")
        return number

    def _number(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)  # an IntEnum, such as ssl.CERT_REQUIRED, becomes a plain number
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
            return int(value)
        raise WrongValueError("not a whole number", f"Right would be {self.right}.")


class _Bare(int):
    """A number as it stands in a TOML file, without quotes."""


class Mode(Kind):
    """Permission bits, written in octal as chmod does, always with four digits when shown."""

    metavar = "MODE"

    def __init__(self, example: str) -> None:
        self.example = example
        self.right = f"permissions in octal, such as {example}"

    def from_toml(self, value: object) -> object:
        number = isinstance(value, int) and not isinstance(value, bool)
        return _Bare(value) if number else value  # type: ignore[call-overload]

    def read(self, value: object) -> int:
        if isinstance(value, _Bare):
            # 0o027 comes out of the parser as 23, so nothing tells it from a 23 meant as 023.
            raise WrongValueError(
                f"a decimal number in TOML, octal {value:04o}",
                f'Write it in octal and in quotes, such as "{self.example}".',
            )
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
            return value
        if isinstance(value, str) and re.fullmatch(r"\s*(0o)?0?[0-7]{1,3}\s*", value):
            return int(value.strip().removeprefix("0o"), 8)
        raise WrongValueError("not a file mode", f"Right would be {self.right}.")

    def show(self, value: Any) -> str:
        return f"{value:04o}"


class _Measure(Kind):
    """A number with a unit, from `low` upwards."""

    units: Mapping[str, float]

    def __init__(self, low: float = 0) -> None:
        self.low = low

    def measured(self, value: object) -> float:
        number = self._number(value)
        if number < self.low:
            raise WrongValueError(
                "too little",
                f"Right would be {self.right}, and at least {self.show(self.low)}.",
            )
        return number

    def _number(self, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
            return value
        if isinstance(value, str):
            found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*", value)
            unit = self.units.get(found[2].lower()) if found else None
            if found and unit is not None:
                return float(found[1]) * unit
        raise WrongValueError("not understood", f"Right would be {self.right}.")


class Duration(_Measure):
    """A length of time, in seconds."""

    metavar = "TIME"
    units = MappingProxyType({"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600})
    right = "a length of time such as 75, 75s, 2m or 500ms"

    def read(self, value: object) -> float:
        return round(float(self.measured(value)), 6)

    def show(self, value: Any) -> str:
        if 0 < value < 1:
            return f"{value * 1000:.6g}ms"
        return f"{value:.15g}s" if value else "0"


class Size(_Measure):
    """A number of bytes."""

    metavar = "SIZE"
    units = MappingProxyType(
        {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9}
        | {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
    )
    right = "a size in bytes such as 65536, 64KiB, 10MB or 1GiB"

    def read(self, value: object) -> int:
        number = self.measured(value)
        if number != int(number):
            raise WrongValueError("not a whole number of bytes", f"Right would be {self.right}.")
        return int(number)

    def show(self, value: Any) -> str:
        for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
            if value and value % (1 << shift) == 0:
                return f"{int(value) >> shift}{unit}"
        return str(value)


class Rate(Size):
    metavar = "RATE"
    right = "bytes per second, such as 240 or 1KiB"


def joined(folder: str, path: str) -> str:
    return os.path.join(folder, os.path.expanduser(path))


class Path(Kind):
    """Where something is, or is to be."""

    metavar = "PATH"
    right = "a path"

    def read(self, value: object) -> str:
        path = line_of_text(
            os.fspath(value) if isinstance(value, os.PathLike) else value, self.right
        )
        if not path:
            raise WrongValueError("it is empty", f"Right would be {self.right}.")
        return os.path.expanduser(path)

    def beside(self, value: object, folder: str) -> object:
        return joined(folder, value) if isinstance(value, str) and value else value


class File(Path):
    """A file that must be there and be readable."""

    def __init__(self, right: str) -> None:
        self.right = right

    def read(self, value: object) -> str:
        path = super().read(value)
        if os.path.isdir(path):
            raise WrongValueError("that is a directory", f"Right would be {self.right}.")
        if not os.path.exists(path):
            looked = os.path.abspath(path)
            raise WrongValueError(
                "there is no such file", f"Looked for {looked}. Right would be {self.right}."
            )
        if not os.access(path, os.R_OK):
            raise WrongValueError("the file cannot be read", "Let the server's user read it.")
        return path


class NewFile(Path):
    """A file the server will make: its directory must be there."""

    def __init__(self, right: str, longest: int | None = None) -> None:
        self.right = right
        self.longest = longest

    def read(self, value: object) -> str:
        path = super().read(value)
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise WrongValueError("its directory is not there", f"Make {folder} first.")
        if self.longest is not None and len(os.fsencode(path)) > self.longest:
            raise WrongValueError(
                "too long", f"The system takes at most {self.longest} bytes here."
            )
        return path


class Directory(Path):
    """A directory that must be there; empty means the working directory."""

    right = "a directory"
    may_be_empty = True

    def read(self, value: object) -> str:
        if value == "":
            return ""
        path = super().read(value)
        if not os.path.isdir(path):
            looked = os.path.abspath(path)
            raise WrongValueError("there is no such directory", f"Looked for {looked}.")
        return path


class Many(Kind):
    """Several of a kind: a list, or a text with one on each line, or between commas if `commas`."""

    may_be_empty = True
    knows_none = False

    def __init__(self, item: Kind, *, commas: bool = True) -> None:
        self.item = item
        self.metavar = item.metavar
        self.separator = r"[,\n]" if commas else r"\n"
        self.right = item.right + (", several between commas" if commas else ", one a line")

    def read(self, value: object) -> tuple[Any, ...]:
        return tuple(self.item.read(entry) for entry in self._entries(value))

    def _entries(self, value: object) -> Iterator[object]:
        for entry in value if isinstance(value, list | tuple) else (value,):
            if isinstance(entry, str):
                parts = [part.strip() for part in re.split(self.separator, entry)]
                yield from (part for part in parts if part)
            else:
                yield entry

    def beside(self, value: object, folder: str) -> object:
        return [self.item.beside(entry, folder) for entry in self._entries(value)]

    def show(self, value: Any) -> str:
        return ", ".join(self.item.show(item) for item in value) or "none"
