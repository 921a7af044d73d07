"""A listening socket, and taking connections off it.

The acceptor takes a batch per wake, so that one loop callback serves a burst, and never more than
a batch, so that a flood of newcomers cannot starve the connections that are open. When the process
is out of descriptors or memory the listener stays readable: polling on would spin, so it rests.

Where several processes share the listener, all of them are woken, and whoever has more connections
than the others stands back for a moment. It takes the newcomer itself in the end, if nobody else
does: the others may be busy, and whether they are is not known here.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    import logging

    from tidegate.net.poller import Poller

BATCH = 64  # connections per wake; the rest of the backlog waits for the next turn of the loop
MOST_WAITING = 65536  # connections; no backlog is longer
REST = 1.0  # seconds without accepting after the kernel had nothing left to give
STEP = 0.002  # seconds to stand back for others, so that they take the newcomer
STEPS = 16  # times in a row; half as many after each time that nobody came

# The whole process or machine is short of something; the connection stays in the backlog.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# accept(2): errors that were already pending on the newcomer, and a firewall's refusal. The kernel
# has dropped that one connection; the next may be fine.
LOST_BEFORE_ACCEPT = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EINTR",
        "EPERM",
        "EPROTO",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "ENETUNREACH",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)

_MAPPED = "::ffff:"  # RFC 4291 2.5.5.2: how a dual-stack socket shows an IPv4 peer


def plain_address(address: Any) -> Any:
    """A socket address without IPv6 dress: an IPv4-mapped one becomes plain IPv4."""
    if isinstance(address, tuple):
        host = address[0]
        if host.startswith(_MAPPED) and "." in host:
            return (host[len(_MAPPED) :], address[1])
    return address


def _shown(path: bytes | str) -> str:
    """A Unix socket's name as people write it; abstract ones begin with NUL, shown as `@`."""
    text = os.fsdecode(path)
    return "@" + text[1:] if text.startswith("\0") else text


class Listener:
    """One bound, listening, non-blocking socket, and how it is called in banner and scope."""

    __slots__ = (
        "_heir",
        "_made",
        "_path",
        "address",
        "bind",
        "is_unix",
        "server",
        "sock",
        "wildcard",
    )

    def __init__(self, sock: socket.socket, *, made_path: str | None = None) -> None:
        """`made_path`: the Unix socket file this process has just created, removed by `close()`."""
        self.sock = sock
        self.is_unix = sock.family == getattr(socket, "AF_UNIX", None)
        self.server: tuple[str, int | None]
        self.bind = ""  # as it was asked for; several listeners may stem from one
        self._path = made_path
        self._made: tuple[int, int, int] | None = None
        self._heir: tuple[int, int] | None = None
        if self.is_unix:
            name = _shown(made_path if made_path is not None else sock.getsockname())
            self.server, self.address = (name, None), f"unix:{name}"
            self.wildcard = False
        else:
            host, port = sock.getsockname()[:2]
            self.wildcard = host in {"0.0.0.0", "::"}
            self.server = (host, port)
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if made_path is not None:
            made = os.lstat(made_path)
            self._made = (os.getpid(), made.st_dev, made.st_ino)

    @property
    def heritage(self) -> str:
        """What another program needs to go on listening here, and to remove the file at its end."""
        import json

        _, device, inode = self._made or (0, *(self._heir or (0, 0)))
        return json.dumps([self.sock.fileno(), device, inode, self._path, self.bind])

    @classmethod
    def inherit(cls, heritage: str) -> Listener:
        """The same listener in another program that has its descriptor; see `heritage`.

        The file of a Unix socket stays its maker's until `take_over`.
        """
        import json

        descriptor, device, inode, path, bind = json.loads(heritage)
        listener = cls(socket.socket(fileno=descriptor))
        listener.sock.set_inheritable(False)
        listener.sock.setblocking(False)
        listener.bind = bind
        if path:
            listener._path, listener._heir = path, (device, inode)
        return listener

    def take_over(self) -> None:
        """Whoever made the file of an inherited socket has left it to us."""
        if self._heir is not None:
            self._made, self._heir = (os.getpid(), *self._heir), None

    @property
    def made_path(self) -> str | None:
        """The file of a Unix socket that this server has made, and still has."""
        return self._path if self._made is not None or self._heir is not None else None

    def disown(self) -> None:
        """The file, if this process made one, is another's to remove."""
        self._made = None

    def server_for(self, sock: socket.socket) -> tuple[str, int | None]:
        """What an accepted connection's scope calls the server; a wildcard asks the connection."""
        if not self.wildcard:
            return self.server
        host, port = plain_address(sock.getsockname())[:2]
        return (host, port)

    def close(self) -> None:
        """Close the socket, and remove its file if this process made it and it is still ours."""
        self.sock.close()
        made, self._made = self._made, None
        if made is None or self._path is None or made[0] != os.getpid():
            return  # inherited, or closed already, or a forked child letting go of its parent's
        try:
            now = os.lstat(self._path)
            if stat.S_ISSOCK(now.st_mode) and (now.st_dev, now.st_ino) == made[1:]:
                os.unlink(self._path)
        except OSError:
            pass  # gone already, or the directory is no longer ours to change


class Share(Protocol):
    """What several processes on one listener know of each other."""

    def is_fuller(self) -> bool:
        """Whether another one has fewer connections, and should take the next."""

    def progress(self) -> int:
        """A number that moves when one of those who should take the next accepts."""


class _State(Enum):
    IDLE = "not registered"
    ACCEPTING = "accepting"
    PAUSED = "paused by the owner"
    RESTING = "out of descriptors"
    STANDING_BACK = "leaving newcomers to others for a moment"
    STOPPED = "stopped"


class Acceptor:
    """Takes connections off one listener and hands them on, non-blocking, with the peer's name."""

    __slots__ = (
        "_fd",
        "_log",
        "_loop",
        "_on_accept",
        "_poller",
        "_seen",
        "_share",
        "_state",
        "_steps",
        "_steps_left",
        "_timer",
        "_told",
        "listener",
        "taken",
    )

    def __init__(
        self,
        listener: Listener,
        poller: Poller,
        loop: asyncio.AbstractEventLoop,
        on_accept: Callable[[socket.socket, Any], None],
        log: logging.Logger,
        *,
        share: Share | None = None,
    ) -> None:
        """`share` knows the other processes that accept on the same listener."""
        self.listener = listener
        self._share = share
        self._steps = self._steps_left = STEPS
        self._seen = 0  # of everybody's progress
        self._poller = poller
        self._loop = loop
        self._on_accept = on_accept
        self._log = log
        self._fd = listener.sock.fileno()
        self._state = _State.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self.taken = 0
        self._told = False  # this episode of exhaustion is in the log

    def start(self) -> None:
        """Begin to accept, or go on after `pause()`."""
        if self._state is _State.IDLE:
            self._poller.add(self._fd, self)
        elif self._state is _State.PAUSED:
            self._poller.watch(self._fd, read=True, write=False)
        else:
            return
        self._state = _State.ACCEPTING

    def pause(self) -> None:
        """Leave newcomers in the kernel's backlog until `start()`."""
        if self._state is _State.ACCEPTING:
            self._poller.watch(self._fd, read=False, write=False)
        elif self._state not in {_State.RESTING, _State.STANDING_BACK}:
            return
        self._cancel_timer()
        self._state = _State.PAUSED

    def take_all(self) -> None:
        """Accept whoever waits, however many: this is the end, and nobody else will."""
        self._share = None
        if self._state is _State.STANDING_BACK:
            self._cancel_timer()
            self._wake()
        for _ in range(MOST_WAITING // BATCH):
            before = self.taken
            self.on_readable()
            if self.taken - before < BATCH:
                return

    def stop(self) -> None:
        """Never accept again; closing the listener is its owner's."""
        if self._state not in {_State.IDLE, _State.STOPPED}:
            self._poller.remove(self._fd)
        self._cancel_timer()
        self._state = _State.STOPPED

    def on_readable(self) -> None:
        """Newcomers wait: take up to a batch of them."""
        accept = self.listener.sock.accept
        mapped = self.listener.sock.family == socket.AF_INET6
        for _ in range(BATCH):
            if self._state is not _State.ACCEPTING:
                return  # on_accept paused or stopped us
            if self._share is not None and self._stands_back(self._share):
                return
            try:
                sock, peer = accept()
            except BlockingIOError:
                self._told = False  # the backlog is empty: whatever was short is there again
                return
            except OSError as error:
                if error.errno in LOST_BEFORE_ACCEPT:
                    continue
                self._rest(error)
                return
            self.taken += 1
            self._hand_over(sock, plain_address(peer) if mapped else peer)

    def _stands_back(self, share: Share) -> bool:
        """Leave a newcomer to others, as long as they take any."""
        if not share.is_fuller():
            return False
        seen, self._seen = self._seen, share.progress()
        if seen != self._seen:
            self._steps = self._steps_left = STEPS
        if self._steps_left:
            self._steps_left -= 1
            self._rest_a_while(_State.STANDING_BACK, STEP)
            return True
        self._steps >>= 1  # nobody came: they are busy, and waiting helps less and less
        self._steps_left = self._steps
        return False

    def on_writable(self) -> None:
        """A listening socket is never watched for this."""

    def on_error(self, error: Exception) -> None:
        """A fault of ours: said, and not at once again."""
        self._log.error("Accepting on %s failed", self.listener.address, exc_info=error)
        if self._state is _State.ACCEPTING:
            self._rest_a_while()

    def _hand_over(self, sock: socket.socket, peer: Any) -> None:
        try:
            sock.setblocking(False)
            self._on_accept(sock, peer)
        except Exception:
            sock.close()
            self._log.exception("A new connection from %s could not be set up; closed it", peer)

    def _rest(self, error: OSError) -> None:
        self._rest_a_while()
        if self._told:
            return
        self._told = True
        where = self.listener.address
        if error.errno in EXHAUSTED:
            self._log.warning(
                "Cannot accept on %s: %s. New connections wait until some are closed; raise the "
                "limit on open files (ulimit -n, LimitNOFILE=) or set --limit-concurrency",
                where,
                error.strerror,
            )
        else:
            self._log.error("Cannot accept on %s: %s. Trying again every second", where, error)

    def _rest_a_while(self, state: _State = _State.RESTING, seconds: float = REST) -> None:
        self._poller.watch(self._fd, read=False, write=False)
        self._state = state
        self._timer = self._loop.call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._state = _State.ACCEPTING
        self._poller.watch(self._fd, read=True, write=False)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
