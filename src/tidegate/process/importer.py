"""`--preload`: a process that has the application in memory, and forks the workers.

It waits for lines of the supervisor and for the ends of its children, and runs nothing else: what
the application does when it is imported is done once, here.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence

from tidegate.net.listener import Listener
from tidegate.process.births import MEANT_FOR_THE_SUPERVISOR, Birth, Role, adopt, fork
from tidegate.process.board import Board
from tidegate.process.channel import Channel
from tidegate.process.keys import Keys
from tidegate.process.signals import Inbox

# Whatever ends a process group (Ctrl+C in a terminal) is the supervisor's business.
_DEAF_TO = (*MEANT_FOR_THE_SUPERVISOR, signal.SIGQUIT)


class ImporterLoop:
    """Until the supervisor says so, or is gone. In a child: its birth."""

    def __init__(
        self, channel: Channel, board: Board, listeners: Sequence[Listener], keys: Keys
    ) -> None:
        self._keys = keys
        self._listeners = listeners
        self._channel = channel
        self._board = board
        self._children: dict[int, int] = {}  # process -> seat
        self._inbox = Inbox((signal.SIGCHLD, signal.SIGTERM, *_DEAF_TO))
        self._over = False

    def run(self) -> Birth | None:
        with self._inbox:
            self._channel.send("ready")
            while not self._over:
                poll = select.poll()
                poll.register(self._inbox.fileno(), select.POLLIN)
                poll.register(self._channel.fileno(), select.POLLIN)
                poll.poll()
                self._inbox.take()
                self._reap()
                for line in self._channel.receive():
                    birth = self._obey(line)
                    if birth is not None:
                        return birth
                self._over = self._over or self._channel.ended
        return None

    def _obey(self, line: str) -> Birth | None:
        word, _, rest = line.partition(" ")
        if word == "fork":
            return self._fork(int(rest))
        if word == "shut":  # the end is near: nobody shall wait in a backlog for us
            for listener in self._listeners:
                listener.close()
        if word == "files":
            self._keys.receive(self._channel)
        self._over = self._over or word == "end"
        return None

    def _fork(self, seat: int) -> Birth | None:
        descriptors = self._channel.take_descriptors()
        pid, why = -1, "no descriptor is free in the importer"
        if len(descriptors) == 2:
            try:
                pid = fork()
            except OSError as error:
                why = str(error.strerror)
        if not pid:
            self._channel.close()
            channel, stack = descriptors
            return Birth(Role.WORKER, adopt(channel), self._board.row(seat), stack)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self._children[pid] = seat
            self._channel.send(f"born {seat} {pid}")
        else:
            self._channel.send(f"unborn {seat} {why}")
        return None

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._channel.send(f"died {self._children.pop(pid)} {status}")
