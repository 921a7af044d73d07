"""`--reload` as the supervisor sees it: a watcher to listen to, and what to do with what it tells.

Whoever has just saved a file waits for the next answer to come from it. So the workers with the old
code stop at once and briefly, while the new ones start; who asks meanwhile waits in the listener's
backlog, not in vain. A file that does not compile changes nothing: the next change is awaited.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys

from tidegate.config import Config
from tidegate.process.births import Birth, Births, Role
from tidegate.process.channel import Channel
from tidegate.process.handle import send_signal
from tidegate.process.warming import Warmth
from tidegate.process.watch_filter import WatchTerms, watch_terms
from tidegate.process.watching import Batch, check, syntax_errors, watch

MOST = 500  # changed files that are told of; a branch that was switched may have more

__all__ = ["Reloading", "watch_for"]


def terms_of(config: Config) -> WatchTerms:
    files = [config.env_file] if config.env_file else []
    files += [name for name in ("tidegate.toml", "pyproject.toml") if os.path.exists(name)]
    return watch_terms(config, files)


class Reloading:
    """The watcher, in a process of its own. Raises ConfigurationError if there can be none."""

    def __init__(self, config: Config, log: logging.Logger) -> None:
        self._log = log
        self._channel: Channel | None = None
        self._pid = 0
        self.watching = False  # what changes from now on is told, or nobody watches at all
        self._broken: set[str] = set()  # files that did not compile when last looked at
        self.warmth = Warmth()
        self.loaded = frozenset(sys.modules)  # what every child finds loaded
        check(terms_of(config))

    def start(self, births: Births) -> Birth | None:
        """Start the watcher if there is none, and who warms up; in the child: its birth."""
        if self._channel is None:
            born = births.fork_aside(Role.WATCHER)
            if isinstance(born, Birth):
                return born
            self._pid, self._channel = born
        if self.warmth.wanted:
            self.warmth.wanted = False
            return births.fork_warmer()
        if not self.warmth.fits:
            births.end_warmers()
        return None

    @property
    def channels(self) -> list[Channel]:
        return [] if self._channel is None else [self._channel]

    def hear(self) -> str:
        """What has changed, if that calls for new workers."""
        changed = ""
        if self._channel is None:
            return changed
        for line in self._channel.receive():
            word, _, rest = line.partition(" ")
            if word == "ready":
                self.watching = True
            elif word == "changed":
                batch = Batch(tuple(json.loads(rest)))
                changed = str(batch) if self._compiles(batch) else ""
            elif word == "failed":
                self._log.error("%s", json.loads(rest)["text"])
        return changed

    def _compiles(self, batch: Batch) -> bool:
        suspects = sorted({*batch.paths, *self._broken})
        found = {path: errors for path in suspects if (errors := syntax_errors([path]))}
        self._broken = set(found)
        if found:
            said = "\n".join(error for errors in found.values() for error in errors)
            self._log.error("%s\nNothing is restarted until that is put right.", said)
        return not found

    def reap(self, births: Births, *, stopping: bool) -> None:
        """A watcher that has ended said why; without it there is nothing to wait for."""
        if self._pid and births.wait_for(self._pid) is not None:
            self._pid, self.watching = 0, True
            if not stopping:
                self._log.error("Changes are not watched any more; restart the server for that.")

    def stop(self) -> None:
        if self._pid:
            # it holds nothing, and must not be waited for
            if send_signal(self._pid, signal.SIGKILL):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def forget(self) -> None:
        if self._channel is not None:
            self._channel.close()


def watch_for(config: Config, channel: Channel) -> None:
    """In the watcher's process: tell of every change until the supervisor is gone."""
    watch(
        terms_of(config),
        lambda batch: channel.send(f"changed {json.dumps(batch.paths[:MOST])}"),
        channel.fileno(),
        ready=lambda: channel.send("ready"),
    )
