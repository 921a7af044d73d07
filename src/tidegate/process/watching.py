"""The watcher behind `--reload`: waits for changes that count, and tells of them in batches.

The kernel says when, a look at the folders says what. Every folder that counts is watched by
itself, so that a virtual environment or node_modules beside the code costs nothing. When folders
come or go, the tree is looked at anew and compared with what it was: nothing is lost while the
watches change hands. Where the kernel is not told of changes (folders shared with another machine),
the look and the comparison are repeated. It needs a process of its own: watchfiles has threads.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tidegate.errors import ConfigurationError
from tidegate.process.watch_filter import ENVIRONMENTS, View, WatchFilter, WatchTerms, look, within

_NAMED = 3  # paths in a batch's line
_STEP = 0.05  # s of silence that end a batch; also how soon the parent's end is noticed
_GATHER = 1.6  # s after which a batch ends without silence
_POLL = 0.3  # s between two looks where the kernel says nothing
_SHARE = 4  # a look may take up to this part of the time: 1 s of looking, 4 s of rest
_ATTEMPTS = 50  # to watch a tree that changes meanwhile
_MODIFIED = 2  # watchfiles' number for it; 1 is added, 3 is deleted

# File systems whose changes are made elsewhere, without a word to this kernel.
_FOREIGN = frozenset(
    {
        *("9p", "drvfs"),  # Windows' drives in WSL, and in containers there
        # A Mac's in containers: some changes are passed on, deletions are not.
        *("fakeowner", "virtiofs", "osxfs", "fuse.osxfs", "grpcfuse", "fuse.grpcfuse"),
        *("vboxsf", "prl_fs", "vmhgfs", "fuse.vmhgfs-fuse"),  # shared with a virtual machine
        *("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph"),
    }
)


class _Notify(Protocol):
    """What is used of watchfiles."""

    def watch(
        self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: object
    ) -> set[tuple[int, str]] | Literal["signal", "stop", "timeout"]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that belong together: absolute paths, in order. Its text is one line."""

    paths: tuple[str, ...]

    def __str__(self) -> str:
        names = [shown(path) for path in self.paths[:_NAMED]]
        more = len(self.paths) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")


def shown(path: str) -> str:
    """As the user writes it: from the working directory on, on one line."""
    name = path
    try:
        here = os.getcwd()
        if within(path, here):
            name = os.path.relpath(path, here)
    except OSError:  # the working directory is gone: on another branch, perhaps
        pass
    return name if name.isprintable() else ascii(name)[1:-1]


def check(terms: WatchTerms) -> None:
    """Raises ConfigurationError where `watch` would at once. Imports nothing, starts nothing."""
    WatchFilter(terms)
    _find_watchfiles()


def watch(
    terms: WatchTerms,
    report: Callable[[Batch], None],
    stop_fd: int,
    ready: Callable[[], None] | None = None,
) -> None:
    """Report changes until the other end of `stop_fd` is closed. A signal that raises ends it too.

    `ready` is called once: what changes from then on will be reported. Raises ConfigurationError.
    """
    chosen = WatchFilter(terms)
    parent = Parent(stop_fd)
    source = Looks(chosen, parent) if _must_look(chosen.roots) else Notices(chosen, parent, terms)
    try:
        if ready is not None:
            ready()
        while (paths := source.wait()) is not None:
            if paths:
                report(Batch(tuple(sorted(paths))))
                if parent.gone_within(terms.delay):
                    return
    finally:
        source.close()


def syntax_errors(paths: Iterable[str]) -> list[str]:
    """`file:line: SyntaxError: message` for each Python file that does not compile.

    Nothing is imported or run. Files that are gone or cannot be read are nobody's mistake.
    """
    import warnings

    errors: list[str] = []
    for path in paths:
        if not path.endswith(".py"):
            continue
        try:
            with open(path, "rb") as file:
                source = file.read()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its own process will warn, if it is asked to
                compile(source, path, "exec", dont_inherit=True)
        except SyntaxError as error:
            kind = type(error).__name__
            errors.append(f"{shown(path)}:{error.lineno or 1}: {kind}: {error.msg}")
        except ValueError as error:  # a null byte, until Python 3.12
            errors.append(f"{shown(path)}:1: SyntaxError: {error}")
        except (OSError, RecursionError, MemoryError):
            continue
    return errors


class Parent:
    """Who started us, as seen through a pipe or a socket: gone once it reads as ended."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def is_set(self) -> bool:
        """The name by which watchfiles asks whether to stop, once every step."""
        return self.gone_within(0)

    def gone_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self._poll.poll(max(0.0, end - time.monotonic()) * 1000):
            try:
                if not os.read(self._fd, 4096):
                    return True
            except BlockingIOError:
                continue
            except ConnectionError:
                return True
        return False


# -- the kernel says when -------------------------------------------------------------------------


class Notices:
    """Changes as the kernel tells of them, through watchfiles."""

    def __init__(self, chosen: WatchFilter, parent: Parent, terms: WatchTerms) -> None:
        self._chosen = chosen
        self._parent = parent
        self._step = round(1000 * min(_STEP, max(terms.delay, 0.01)))
        self._make = _load_watchfiles()
        self._view, self._notify = self._begin()

    def wait(self) -> set[str] | None:
        """What changed, perhaps nothing that counts; None once it is over."""
        try:
            told = self._notify.watch(round(_GATHER * 1000), self._step, 0, self._parent)
        except RuntimeError:
            # Such as a file's name that is not UTF-8. It has stopped, so look and begin anew.
            return self._renew()
        if isinstance(told, str):
            return None if told in {"stop", "signal"} else set()
        changed: set[str] = set()
        anew = False
        for kind, path in told:
            if self._moves_folders(kind, path):
                anew = True
            elif self._counts(path):
                changed.add(path)
        changed = {path for path in changed if self._view.note(path)}
        return changed | self._renew() if anew else changed

    def close(self) -> None:
        self._notify.close()

    def _counts(self, path: str) -> bool:
        if path in self._chosen.files:
            return True
        folder, name = os.path.split(path)
        return folder in self._view.folders and self._chosen.counts(path, name)

    def _moves_folders(self, kind: int, path: str) -> bool:
        """Does this change which folders are to be watched?"""
        if path in self._view.watched:
            return kind != _MODIFIED
        folder, name = os.path.split(path)
        if folder in self._view.folders and name in ENVIRONMENTS:
            return True
        if not os.path.isdir(path):
            return False
        if any(within(root, path) for root in self._chosen.roots):
            return True
        if any(within(file, path) for file in self._chosen.files):
            return True
        return folder in self._view.folders and self._chosen.enters(path, name)

    def _renew(self) -> set[str]:
        old, notify = self._view, self._notify
        self._view, self._notify = self._begin()
        notify.close()
        return old.changes_to(self._view)

    def _begin(self) -> tuple[View, _Notify]:
        """Watch, then look: what comes before the look is in it, what comes after will be told."""
        before = look(self._chosen)
        trouble: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                notify = self._make(*_places(before, self._chosen))
            except (FileNotFoundError, PermissionError) as error:  # it has changed meanwhile
                trouble, before = error, look(self._chosen)
                continue
            except (OSError, RuntimeError) as error:
                raise _out_of_watches(error, len(before.watched)) from error
            after = look(self._chosen)
            if after.watched == before.watched:
                return after, notify
            notify.close()
            before = after
        raise ConfigurationError(
            f"--reload cannot watch its folders: {trouble or 'they never stop changing'}.",
            "Leave out what changes all the time with --reload-exclude.",
        )


def _places(view: View, chosen: WatchFilter) -> tuple[list[str], bool, bool, int, bool, bool]:
    """The arguments of watchfiles' notifier: paths, debug, polling, its delay, recursive, lenient.

    Never lenient: it would then pass over every error, that there are no watches left among them.
    """
    if sys.platform == "linux":
        return sorted(view.watched), False, False, 0, False, False
    # Elsewhere a tree is one watch, however large, and many small ones are slow to set up.
    trees = [path for path in (*chosen.roots, *chosen.files) if os.path.exists(path)]
    return trees or sorted(view.watched), False, False, 0, True, False


def _out_of_watches(error: Exception, number: int) -> ConfigurationError:
    text = str(error)
    other = "or set WATCHFILES_FORCE_POLLING=true to do without."
    if "MaxFilesWatch" in text or "os error 28" in text:
        return ConfigurationError(
            f"--reload needs to watch {number} folders; the system allows this user no more.",
            "Raise it with: sysctl fs.inotify.max_user_watches=524288; or name fewer folders with "
            f"--reload-dir, leave some out with --reload-exclude, {other}",
        )
    if "os error 24" in text:
        return ConfigurationError(
            "--reload cannot watch: too many programs of this user watch files already.",
            f"Raise it with: sysctl fs.inotify.max_user_instances=1024; {other}",
        )
    return ConfigurationError(
        f"--reload cannot watch its folders: {text}.", "WATCHFILES_FORCE_POLLING=true may help."
    )


# -- the kernel says nothing ----------------------------------------------------------------------


class Looks:
    """Changes found by looking again and again.

    watchfiles can do that too, but it compares whole seconds: of two changes in one second it
    misses the later, and it looks into every folder.
    """

    def __init__(self, chosen: WatchFilter, parent: Parent) -> None:
        self._chosen = chosen
        self._parent = parent
        self._pause = _poll_delay(os.environ)
        self._view, self._rest = self._look()

    def wait(self) -> set[str] | None:
        """What changed, most often nothing; None once it is over."""
        changed: set[str] = set()
        pause = self._rest
        end = math.inf
        while not self._parent.gone_within(pause):
            old = self._view
            self._view, self._rest = self._look()
            more = old.changes_to(self._view)
            changed |= more
            if not more or time.monotonic() > end:
                return changed
            pause, end = _STEP, min(end, time.monotonic() + _GATHER)  # until it is quiet
        return None

    def close(self) -> None:
        pass

    def _look(self) -> tuple[View, float]:
        began = time.monotonic()
        view = look(self._chosen)
        return view, max(self._pause, _SHARE * (time.monotonic() - began))


def _poll_delay(environment: Mapping[str, str]) -> float:
    given = environment.get("WATCHFILES_POLL_DELAY_MS", "")
    return int(given) / 1000 if given.isdecimal() else _POLL


def _must_look(roots: Iterable[str]) -> bool:
    """By watchfiles' own variable when it is set, else by the file systems."""
    said = os.environ.get("WATCHFILES_FORCE_POLLING", "").lower()
    if said:
        return said not in {"false", "disable", "disabled"}
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = list(_mounts(file))
    except OSError:  # not Linux
        return False
    return any(_kind_of(root, mounts) in _FOREIGN for root in roots)


def _mounts(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Where, and what kind of file system (proc_pid_mountinfo(5))."""
    for line in lines:
        before, _, after = line.partition(" - ")
        where = before.split(" ")[4]
        for octal, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            where = where.replace(octal, letter)
        yield where, after.split(" ")[0]


def _kind_of(path: str, mounts: Iterable[tuple[str, str]]) -> str:
    """The last of the longest: a later mount covers an earlier one."""
    best = ("", "")
    for where, kind in mounts:
        if len(where) >= len(best[0]) and within(path, where):
            best = (where, kind)
    return best[1]


# -- watchfiles -----------------------------------------------------------------------------------


def _find_watchfiles() -> list[str]:
    """Where its modules lie. Without importing it."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("watchfiles")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "--reload needs watchfiles, which is not installed.",
            "Install it with: pip install 'tidegate[reload]'",
        )
    return list(spec.submodule_search_locations)


def _load_watchfiles() -> Callable[..., _Notify]:
    """Its notifier, a compiled module, by itself: the package imports anyio, 40 ms and 7 MB."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("watchfiles._rust_notify", _find_watchfiles())
    if spec is None or spec.loader is None:
        raise ConfigurationError(
            "--reload found watchfiles, but not its compiled part.",
            "Install it anew: pip install --force-reinstall 'tidegate[reload]'",
        )
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[..., _Notify] = module.RustNotify
    return made
