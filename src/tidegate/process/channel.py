"""Lines of text between two processes, over a pair of sockets; a line may carry descriptors.

Neither side ever waits for the other: what the kernel does not take at once is kept until it does.
When one side is gone the other reads the end, which is all that is needed to notice a death.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

LONGEST = 1 << 20  # a line that is longer is cut: whoever writes that is not to fill our memory
_READS = 64  # in one go: who never stops writing must not hold us for ever
_PATIENCE = 1.0  # seconds for the other side to make room for a descriptor
_FDS = 4  # descriptors a line may carry


class Channel:
    """One end. Both ends close when either process ends, whatever way it ends."""

    __slots__ = ("_descriptors", "_got", "_sock", "_takes", "_unsent", "ended")

    def __init__(self, sock: socket.socket, *, takes_descriptors: bool = False) -> None:
        """Who takes none has none pressed upon it: the kernel drops them."""
        sock.setblocking(False)
        self._takes = takes_descriptors
        self._sock = sock
        self._got = b""
        self._unsent = b""
        self._descriptors: list[list[int]] = []  # received, not taken yet: one list a line
        self.ended = False

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """The supervisor's end, and the one that descriptors are sent to."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs, takes_descriptors=True)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, line: str) -> None:
        """Say a line; to nobody if the other side is gone."""
        self._unsent += _encoded(line)
        self.flush()

    def send_with(self, line: str, descriptors: Sequence[int]) -> bool:
        """Say a line that carries descriptors; False where there is no room for them: who does not
        read is not waited for."""
        data = _encoded(line)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        # A descriptor cannot be kept for later without a copy.
        self._sock.settimeout(_PATIENCE)
        try:
            self.flush()
            if self._unsent:
                return False
            self._unsent = data[self._sock.sendmsg([data], [rights]) :]
        except ConnectionError:
            self.ended = True
        except OSError:  # no room within that time, or for so many descriptors under way
            return False
        finally:
            self._sock.setblocking(False)
        self.flush()
        return True

    def take_descriptors(self) -> list[int]:
        """Those of the earliest line that carried any: fewer than were sent where there was no
        room for more."""
        return self._descriptors.pop(0) if self._descriptors else []

    def flush(self) -> None:
        """Try again with what the kernel did not take."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except (BlockingIOError, InterruptedError, TimeoutError):
            pass
        except OSError:
            self._unsent = b""
            self.ended = True

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def receive(self) -> list[str]:
        """The lines that have come; sets `ended` at the end."""
        try:
            for _ in range(_READS):
                data = self._receive_with_descriptors() if self._takes else self._sock.recv(65536)
                if not data:
                    self.ended = True
                    break
                self._got += data
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.ended = True
        *lines, self._got = self._got.split(b"\n")
        self._got = self._got[:LONGEST]
        return [line.decode("utf-8", "replace") for line in lines]

    def _receive_with_descriptors(self) -> bytes:
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        data, rights, told, _ = socket.recv_fds(self._sock, 65536, _FDS, flags)
        for descriptor in rights:  # not for the programs that an application starts
            os.set_inheritable(descriptor, False)
        if rights or told & socket.MSG_CTRUNC:
            self._descriptors.append(rights)
        return data

    def close(self) -> None:
        self._sock.close()
        while self._descriptors:  # also in a child: these were for its siblings
            for descriptor in self._descriptors.pop():
                os.close(descriptor)


def _encoded(line: str) -> bytes:
    return line.replace("\n", " ").encode("utf-8", "backslashreplace")[: LONGEST - 1] + b"\n"
