"""The workers of a server: who they are, that they stay, and how the load was spread over them.

They make themselves known through the application (bench.tally_app): a process that only
supervises never does. Their connections are the sockets that come with the load. Requests and
connections are both counted, because workers that share a core get equal time whatever they hold:
there the requests can look even where the connections are not.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from bench.load import VoidError
from bench.processes import ServerProcess, alive, birth, cpu_seconds, family

START_TIMEOUT = 30.0


class Team:
    """So many workers of one server, each with its tally in the folder."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._members: dict[int, str] = {}

    @property
    def members(self) -> list[int]:
        """Their process ids, in the order of everything that is told about them."""
        return list(self._members)

    def gather(self, process: ServerProcess) -> None:
        """Wait for all of them. Once they are known they must be the same for the whole row."""
        deadline = time.perf_counter() + START_TIMEOUT
        while len(self._told()) < self._size:
            if process.ended is not None:
                raise VoidError(f"ended by itself with status {process.ended}")
            if time.perf_counter() > deadline:
                raise VoidError(f"{len(self._told())} of {self._size} workers started")
            time.sleep(0.001)
        if not self._members:
            self._members = {pid: birth(pid) for pid in sorted(self._told())}
            strangers = self._members.keys() - set(family(process.pid))
            if strangers:
                raise VoidError(f"{len(strangers)} workers are not its descendants")
        self.check()

    def check(self) -> None:
        """VoidError if one is gone or another has come."""
        gone = [pid for pid, born in self._members.items() if not alive(pid, born)]
        if gone:
            raise VoidError(f"lost {len(gone)} of its {self._size} workers")
        if len(self._told()) > self._size:
            raise VoidError(f"started {len(self._told())} workers, and {self._size} were asked for")

    def requests(self) -> list[int]:
        """How many each has answered so far."""
        files = (self._folder / str(pid) for pid in self._members)
        return [int.from_bytes(file.read_bytes(), "little") for file in files]

    def sockets(self) -> list[set[str]]:
        """What sockets each has open; those that come with a load are its connections."""
        self.check()
        return [_sockets(pid) for pid in self._members]

    def overhead(self, process: ServerProcess) -> float:
        """CPU seconds so far of everybody who is no worker: the supervisor and its helpers."""
        others = [pid for pid in family(process.pid) if pid not in self._members]
        return sum(cpu_seconds(pid) for pid in others)

    def _told(self) -> set[int]:
        return {int(name) for name in os.listdir(self._folder)}


def _sockets(pid: int) -> set[str]:
    found = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return {name for name in found if name.startswith("socket:")}
