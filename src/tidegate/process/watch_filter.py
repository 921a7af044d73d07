"""What `--reload` watches: which folders, which files in them count, and how they are now.

The options have uvicorn's names and meaning; what it leaves open is decided here. A pattern without
a slash is compared with names of files and of folders, one with slashes with the end of a path.
What is excluded explicitly never counts. The default excludes keep out what editors, tools and the
interpreter leave behind; an include that names such a file (`.env`, `.*.yml`) is stronger than they
are, `*` is not.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate

from tidegate.config import Config
from tidegate.errors import ConfigurationError

INCLUDES = ("*.py",)
EXCLUDES = (".*", ".py[cod]", ".sw.*", "~*")  # what uvicorn documents
# What those are meant for, once `*` or `*.*` is included: byte code, vim's swap and test files,
# backups, and what JetBrains writes before it renames.
LEFTOVERS = ("*.py[cod]", "*.sw?", "*~", "#*#", "4913", "*___jb_tmp___", "*___jb_old___")

# Folders that are never entered below a watched one. Hidden ones (.git, .venv, .mypy_cache) are
# left out by `.*` above; virtual environments of any name are known by what lies in them.
FOLDERS = frozenset({"__pycache__", "__pypackages__", "node_modules", "site-packages"})
ENVIRONMENTS = frozenset({"pyvenv.cfg", "conda-meta"})

Stamp = tuple[int, int]  # a file's time of modification, in ns, and its size

_WAYS = (os.path.abspath, os.path.realpath)
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class WatchTerms:
    """What the options say. `files` always count, whatever the patterns and folders are."""

    folders: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    delay: float = 0.25


def watch_terms(config: Config, files: Iterable[str] = ()) -> WatchTerms:
    """The terms of a configuration; `files` are those it was read from."""
    return WatchTerms(
        folders=config.reload_dir,
        includes=config.reload_include,
        excludes=config.reload_exclude,
        files=tuple(files),
        delay=config.reload_delay,
    )


class Patterns:
    """Globs, ready to be asked often: those without a slash are one regular expression."""

    def __init__(self, patterns: Iterable[str]) -> None:
        each = [_tidied(pattern) for pattern in patterns]
        names = [pattern for pattern in each if "/" not in pattern]
        self._names = re.compile("|".join(map(translate, names)) if names else r"(?!)")
        self._paths = [tuple(reversed(pattern.split("/"))) for pattern in each if "/" in pattern]

    def match(self, path: str, name: str) -> bool:
        if self._names.match(name):
            return True
        if not self._paths:
            return False
        parts = tuple(reversed(path.replace(os.sep, "/").split("/")))
        return any(_fits(parts, pattern) for pattern in self._paths)


def _tidied(pattern: str) -> str:
    """Without `./` and a slash at the end; `../x` becomes absolute, since paths compared are."""
    pattern = pattern.replace(os.sep, "/")
    if pattern.startswith("../"):
        pattern = os.path.normpath(os.path.join(os.getcwd(), pattern)).replace(os.sep, "/")
    while pattern.startswith("./"):
        pattern = pattern[2:]
    return pattern.rstrip("/")


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Both from right to left. An absolute pattern ends in "", as the path does."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


class WatchFilter:
    """`roots` are watched; `enters` says which folders below them, `counts` which files in these.

    Raises ConfigurationError for folders that do not exist. All paths are absolute.
    """

    def __init__(self, terms: WatchTerms) -> None:
        named = [each for each in terms.includes if os.path.isdir(each)]
        given = [each for each in terms.includes if each not in named]
        exact = [each for each in given if not _WILD.search(each)]
        shut = [each for each in terms.excludes if os.path.isdir(each)]
        excludes = [each for each in terms.excludes if each not in shut]

        self._shut = frozenset(map(os.path.realpath, shut))
        self._excluded = Patterns(excludes)
        self._meant = Patterns([*exact, *filter(_names_hidden, given)])
        self._left_out = Patterns([*EXCLUDES, *LEFTOVERS])
        self._included = Patterns([*INCLUDES, *given])
        self.roots = self._roots(terms.folders or (os.getcwd(),), named)
        single = (*terms.files, *self._single(exact))
        # Written through a link, a file changes where it really lies.
        self.files = frozenset(way(path) for path in single for way in _WAYS)

    def counts(self, path: str, name: str) -> bool:
        """Does a change of this file count? It lies in a folder that is watched."""
        if self._excluded.match(path, name):
            return False
        if self._meant.match(path, name):
            return True
        return self._included.match(path, name) and not self._left_out.match(path, name)

    def enters(self, path: str, name: str) -> bool:
        """Is this folder, which lies in one that is watched, watched as well?"""
        if name in FOLDERS or path in self._shut or self._left_out.match(path, name):
            return False
        return not self._excluded.match(path, name)

    def _single(self, names: Iterable[str]) -> list[str]:
        """Includes that name one file from here are watched wherever it lies."""
        there = [each for each in names if os.path.isfile(each)]
        return [
            each
            for each in there
            if not self._excluded.match(os.path.abspath(each), os.path.basename(each))
        ]

    def _roots(self, folders: Iterable[str], named: Iterable[str]) -> tuple[str, ...]:
        for folder in folders:
            _check_folder(folder)
        wanted = {os.path.realpath(folder) for folder in (*folders, *named)}
        roots = {root for root in wanted if not any(within(root, shut) for shut in self._shut)}
        if not roots:
            raise ConfigurationError(
                "--reload has nothing to watch: --reload-exclude leaves out "
                f"{', '.join(sorted(wanted))}.",
                "Exclude less, or name what is to be watched with --reload-dir.",
            )
        return tuple(sorted(roots))


def within(path: str, folder: str) -> bool:
    """Is `path` this folder, or something in it?"""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _names_hidden(pattern: str) -> bool:
    return _tidied(pattern).rpartition("/")[2].startswith((".", "~"))


def _check_folder(folder: str) -> None:
    if os.path.isdir(folder):
        return
    if os.path.exists(folder):
        raise ConfigurationError(
            f"--reload-dir {folder} is a file, not a folder.",
            f"Give the folder it lies in, and --reload-include {os.path.basename(folder)}.",
        )
    raise ConfigurationError(
        f"--reload-dir {folder} does not exist.",
        f"Give a folder that is there; this one was looked for in {os.getcwd()}."
        if not os.path.isabs(folder)
        else f"Give a folder that is there, or make this one (mkdir -p {folder}).",
    )


# -- what is there --------------------------------------------------------------------------------


@dataclass(slots=True)
class View:
    """`folders` in which files count, all that are `watched` and their inodes, and the `files`."""

    folders: set[str] = field(default_factory=set)
    watched: dict[str, int] = field(default_factory=dict)
    files: dict[str, Stamp] = field(default_factory=dict)

    def note(self, path: str) -> bool:
        """Takes a file as it is now. False where there was none and is none: nothing changed."""
        known = self.files.pop(path, None) is not None
        try:
            status = os.stat(path)
        except OSError:
            return known
        if stat.S_ISREG(status.st_mode):
            self.files[path] = (status.st_mtime_ns, status.st_size)
            return True
        return known

    def changes_to(self, new: View) -> set[str]:
        """Files that came, went or changed. One that is there, but out of view, did nothing."""
        changed = {path for path, stamp in new.files.items() if self.files.get(path) != stamp}
        gone = self.files.keys() - new.files.keys()
        return changed | {path for path in gone if not os.path.lexists(path)}


def look(chosen: WatchFilter) -> View:
    """All that counts, as it is now."""
    view = View()
    seen: set[str] = set()
    for root in chosen.roots:
        if not _look_below(root, chosen, view, seen):
            _add_nearest(root, view)
    for path in chosen.files:
        _add_nearest(os.path.dirname(path), view)
        view.note(path)
    return view


def _look_below(root: str, chosen: WatchFilter, view: View, seen: set[str]) -> bool:
    """Adds a root and all that counts in it; False where there is nothing to be read."""
    rest = [(root, root)]  # a folder's path, and its real one: links may lead in circles
    while rest:
        folder, real = rest.pop()
        if real in seen:
            continue
        try:
            with os.scandir(folder) as found:
                entries = list(found)
            inode = os.stat(folder).st_ino
        except OSError:  # gone meanwhile, or not ours to read
            continue
        if folder != root and any(entry.name in ENVIRONMENTS for entry in entries):
            continue
        seen.add(real)
        view.folders.add(folder)
        view.watched[folder] = inode
        for entry in entries:
            path, name = entry.path, entry.name
            if _is_folder(entry):
                if chosen.enters(path, name) and not _leads_up(entry, chosen.roots):
                    rest.append((path, _real(entry, real)))
            elif chosen.counts(path, name):
                view.note(path)
    return root in view.folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leads_up(entry: os.DirEntry[str], roots: Iterable[str]) -> bool:
    """A link to `/` or to the home directory would have all of it watched."""
    if not entry.is_symlink():
        return False
    target = os.path.realpath(entry.path)
    return any(within(root, target) for root in roots)


def _real(entry: os.DirEntry[str], folder: str) -> str:
    if entry.is_symlink():
        return os.path.realpath(entry.path)
    return os.path.join(folder, entry.name)


def _add_nearest(folder: str, view: View) -> None:
    """What is not there, since it is on another branch perhaps, is waited for as near as can be."""
    while True:
        try:
            view.watched.setdefault(folder, os.stat(folder).st_ino)
            return
        except OSError:
            if folder == os.path.dirname(folder):
                return
            folder = os.path.dirname(folder)
