"""Reading what was typed: `pkg.mod:attr`, `pkg.mod`, `dir/mod.py`, `mod.py:attr`, `mod:make()`.

A path becomes the module name Python itself would give it: directories with `__init__.py` are
packages, the first one without is where imports start.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from tidegate.errors import ConfigurationError

_RELATIVE_IMPORT = rb"(?m)^[ \t]*from[ \t]+\."
_GRAMMAR = (
    "Write `module:attribute`, for example `mysite.asgi:application` or `main:app`; "
    "a path such as `src/main.py` works too."
)


class Target(NamedTuple):
    """Where an application is: `attribute` "" means look for it, `call` that it makes one."""

    text: str
    module: str
    attribute: str
    paths: tuple[str, ...]  # to stand first on sys.path
    call: bool = False

    def at(self, attribute: str) -> Target:
        """The same module with the attribute found in it."""
        return self._replace(attribute=attribute, text=f"{self.module}:{attribute}")

    def called(self) -> Target:
        """What a factory gave back, by its import string."""
        return self if self.text.endswith("()") else self._replace(text=f"{self.text}()")


def parse(text: str, here: str, base: str) -> Target:
    """Take an import string or a path apart; nothing is imported yet."""
    place, attribute = _split(text)
    call = attribute.endswith("()")
    attribute = attribute.removesuffix("()")
    if text.endswith(":") or (attribute and not _dotted(attribute)):
        raise _mistake(text) or _bad(text, "after the colon")
    if _is_path(place):
        module, paths = _from_path(place, here, base)
    else:
        module, paths = place, (base,)
        if not exists(place.partition(".")[0], base):
            mistake = _mistake(text)
            if mistake is not None:
                raise mistake
    if not _dotted(module):
        raise _bad(text, "before the colon")
    name = f"{module}:{attribute}" if attribute else module
    return Target(name + "()" * call, module, attribute, paths, call)


def exists(module: str, base: str) -> str:
    """The file a dotted module name stands for below `base`; "" when there is none."""
    path = os.path.join(base, *module.split("."))
    candidates = (os.path.join(path, "__init__.py"), f"{path}.py")
    found = next((name for name in candidates if os.path.isfile(name)), "")
    return found or (path if os.path.isdir(path) else "")


def module_for(path: str, base: str) -> tuple[str, tuple[str, ...]]:
    """The module name of a file and the directories that must be on sys.path to import it."""
    root, filename = os.path.split(path)
    parts = [] if filename == "__init__.py" else [filename.removesuffix(".py")]
    while os.path.isfile(os.path.join(root, "__init__.py")) and _may_climb(root, base, path):
        root, package = os.path.split(root)
        parts.insert(0, package)
    return ".".join(parts), (root,) if root == base else (root, base)


def _may_climb(root: str, base: str, path: str) -> bool:
    # A stray __init__.py beside main.py is common and means nothing; leave the start directory
    # only when the file cannot work otherwise.
    if root != base:
        return True
    if os.path.isfile(os.path.join(os.path.dirname(root), "manage.py")):
        return True
    with open(path, "rb") as file:
        return re.search(_RELATIVE_IMPORT, file.read()) is not None


def _from_path(place: str, here: str, base: str) -> tuple[str, tuple[str, ...]]:
    if os.path.basename(place) == "manage.py":
        raise _mistake(place) or _bad(place, "as a path")
    for start in (here, base):
        path = os.path.normpath(os.path.join(start, place))
        if os.path.isfile(path):
            return _from_file(path, place, base)
    from tidegate.discover.nearby import no_such_file

    raise no_such_file(place, here)


def _from_file(path: str, place: str, base: str) -> tuple[str, tuple[str, ...]]:
    name = os.path.basename(path)
    if not name.endswith(".py"):
        raise ConfigurationError(f"{place} is not a Python file.", _GRAMMAR)
    if not name.removesuffix(".py").isidentifier():
        better = re.sub(r"\W", "_", name.removesuffix(".py")).lstrip("0123456789")
        raise ConfigurationError(
            f"{place} cannot be imported: {name.removesuffix('.py')!r} is not a module name.",
            f"Rename it, for example to {better or 'main'}.py.",
        )
    return module_for(path, base)


def _mistake(text: str) -> ConfigurationError | None:
    from tidegate.discover.mistakes import mistaken_command

    return mistaken_command([text])


def _split(text: str) -> tuple[str, str]:
    place, colon, attribute = text.rpartition(":")
    if not colon or "/" in attribute or "\\" in attribute:
        return text, ""
    return place, attribute


def _is_path(place: str) -> bool:
    return "/" in place or os.sep in place or place.endswith(".py")


def _dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _bad(text: str, where: str) -> ConfigurationError:
    return ConfigurationError(
        f"{text!r} does not name an application: what stands {where} is not a Python name.",
        _GRAMMAR,
    )
