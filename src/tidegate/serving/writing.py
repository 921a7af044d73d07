"""The writing half of a connection: when what the engine has to say goes to the socket.

Strategy: everything said in one callback leaves in one write at its end ("cork"). An application
that answers later asks for a write at the end of the loop's turn (`flush_soon`), or, with the last
piece of its answer, for one at once (`finish`). What the kernel does not take waits in the outbox,
and whoever made it waits for `drained`.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from typing import TYPE_CHECKING

from tidegate.protocol.engine import Engine
from tidegate.serving.outbox import FileFailedError, Outbox
from tidegate.serving.patience import Patience
from tidegate.serving.site import Site

if TYPE_CHECKING:
    from tidegate.net.tls_socket import TlsSocket

READING = (True, False)  # what is watched most of the time: (readable, writable)


class Phase(enum.IntEnum):
    OPEN = 0
    OPENING = 1  # a PROXY header or a TLS handshake comes first (serving/opening.py)
    LINGERING = 2  # our side is shut, input is discarded (RFC 9112 9.6)
    CLOSED = 3


class Writing:
    """The other half (tcp.py) reads, ends the connection and says what follows from a write."""

    __slots__ = (
        "_clock",
        "_drained",
        "_outbox",
        "_patience",
        "_phase",
        "_site",
        "_watched",
        "deadline",
        "engine",
        "flush_due",
        "idle_since",
    )

    def __init__(self, site: Site, sock: socket.socket) -> None:
        self._site = site
        self._clock = site.service.clock
        self._phase = Phase.OPENING
        self._outbox = Outbox(sock, self._clock)
        self._drained: list[tuple[asyncio.Future[None], int, int]] = []
        self._patience = Patience(site.terms, self._clock.now)
        self._watched = READING
        self.engine: Engine
        self.deadline = self._patience.first_deadline
        self.idle_since = 0.0  # 0: no request yet
        self.flush_due = False

    def _write_through(self, sock: socket.socket | TlsSocket) -> None:
        """From here on everything is encrypted, or nothing is any more."""
        self._outbox = Outbox(sock, self._clock)

    @property
    def backlog(self) -> int:
        return self._outbox.backlog

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._outbox.backlog

    @property
    def gone(self) -> bool:
        return self._phase is Phase.CLOSED

    @property
    def taken(self) -> int:
        return self._outbox.taken()

    @property
    def untaken(self) -> int:
        """Bytes that the peer has not acknowledged, as far as the system can tell."""
        return self._outbox.backlog + (self._outbox.in_kernel() or 0)

    @property
    def reading(self) -> bool:
        return self._watched[0]

    def reads(self, stream: int) -> bool:
        """The peer may send: if nothing comes, that is its own doing."""
        return self._watched[0]

    def flush_soon(self) -> None:
        """At the end of this callback or loop turn."""
        if not self.flush_due:
            self.flush_due = True
            self._site.turn.add(self)

    def finish(self) -> None:
        """An answer is complete: write it now, leave what follows from it to the loop's turn."""
        self.flush()
        if self.engine.resting and self._watched is READING:
            self.idle_since = self._clock.now
        else:
            self.flush_soon()

    def flush(self) -> None:
        """Write what the engine has, as far as the kernel takes it."""
        if self._phase:
            return
        outbox = self._outbox
        try:
            if outbox.backlog and not outbox.resume():
                return
            output = self.engine.take_output()
            if output:
                outbox.write(output)
                if outbox.backlog:
                    self._on_backlog()
        except FileFailedError as error:
            self._site.service.log.error("A file could not be sent to its end: %s", error)
            self.abort("a file could not be sent")
        except OSError:
            self.close()

    def _on_backlog(self) -> None:
        self.deadline = min(self.deadline, self._patience.on_backlog(self._clock.now, self.taken))
        self._watch()

    def drained(self, stream: int, least: int) -> asyncio.Future[None]:
        """Done once the backlog is gone, or the connection is."""
        future = self._site.service.loop.create_future()
        if self._phase is Phase.OPEN and self._outbox.backlog:
            self._drained.append((future, stream, least))
        else:
            future.set_result(None)
        return future

    def _wake_drained(self) -> None:
        while self._drained:
            future, _, _ = self._drained.pop()
            if not future.done():
                future.set_result(None)

    # ------------------------------------------------------------------------ the other half's

    def on_turn_end(self) -> None:
        raise NotImplementedError

    def _watch(self) -> None:
        raise NotImplementedError

    def close(self, *, clean: bool = False) -> None:
        raise NotImplementedError

    def abort(self, reason: str) -> None:
        raise NotImplementedError
