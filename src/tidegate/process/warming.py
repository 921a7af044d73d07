"""Reloading faster than a cold start: what is not the user's own code is imported beforehand.

Once a worker serves it tells which modules it has loaded from the standard library and from
site-packages. A process in the background imports them, and nothing else, and forks the next
workers, which are left with importing the project. It sees no folder of the project: what cannot be
imported without (a framework's models before its settings, say) is left out, in a process begun
anew, since a module that failed half-way leaves traces.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import sysconfig
import threading
from collections.abc import Iterable

ROUNDS = 6  # attempts to find out what can be imported by itself
_PLACES = ("stdlib", "platstdlib", "purelib", "platlib")


def foreign_modules(known: Iterable[str]) -> list[str]:
    """What this process has loaded that is not the user's, in its order; `known` is left out."""
    places = _places()
    left_out = {*known, "__main__"}
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name in left_out or not isinstance(file, str) or name.startswith("tidegate"):
            continue
        if file.startswith(places):
            found.append(name)
    return found


def stamp_of_places() -> tuple[int, ...]:
    """Changes when a package is installed, removed or upgraded."""
    return tuple(os.stat(place).st_mtime_ns for place in _places() if os.path.isdir(place))


def warm(names: Iterable[str]) -> list[str]:
    """Import them without the project in sight; those that failed, or all if threads run now."""
    logging.disable(logging.CRITICAL)  # whatever they say belongs to the worker's start
    path = list(sys.path)
    places = _places()
    sys.path = [each for each in path if each.startswith(places) or f"{each}/".startswith(places)]
    failed = []
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException:
            failed.append(name)
    sys.path = path
    logging.disable(logging.NOTSET)
    sys.path_importer_cache.clear()
    return list(names) if threading.active_count() > 1 else failed


def _places() -> tuple[str, ...]:
    found = {sysconfig.get_path(name) for name in _PLACES} - {None}
    return tuple(os.path.join(place, "") for place in sorted(found))


class Warmth:
    """What the supervisor knows of it: what to import, and which attempt this is."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._failed: set[str] = set()
        self._rounds = 0
        self._stamp: tuple[int, ...] = ()
        self.wanted = False  # a process is to be started

    def learn(self, said: str) -> None:
        """A worker has loaded these."""
        names = [name for name in json.loads(said) if name not in self._failed]
        if not set(names) <= set(self.names) or stamp_of_places() != self._stamp:
            self.names, self._rounds, self.wanted = names, 0, True
            self._stamp = stamp_of_places()

    def on_failed(self, said: str) -> None:
        """These cannot be imported by themselves; without them once more."""
        self._failed |= set(json.loads(said))
        self.names = [name for name in self.names if name not in self._failed]
        self._rounds += 1
        self.wanted = bool(self.names) and self._rounds < ROUNDS

    @property
    def fits(self) -> bool:
        """Nothing has been installed since."""
        return stamp_of_places() == self._stamp
