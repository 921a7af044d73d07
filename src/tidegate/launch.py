"""From a configuration to a running server, in this process.

`serve_config` is what the command calls; `run` and `Server` are for those who start the server from
their own code. All three do the same in the same order: find the application, bind, start the
application, accept, announce.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.hosting import (
    AccessLogs,
    announce,
    facts_of,
    find,
    loop_factory,
    set_up_logs,
    start,
)
from tidegate.net.listener import Listener

if TYPE_CHECKING:
    from tidegate.discover import Found
    from tidegate.net.sockets import Sockets
    from tidegate.process.lone import Lone
    from tidegate.serving.worker import Worker

log = logging.getLogger("tidegate")


class Server:
    """A server to be run inside somebody's own event loop: `await Server(config).serve()`.

    What belongs to the process, `pid_file` and `umask`, is left to whoever that is.
    """

    def __init__(
        self,
        config: Config,
        *,
        found: Found | None = None,
        on_started: Callable[[], None] | None = None,
    ) -> None:
        """`found` is the application where the caller has looked for it already; `on_started` is
        called once connections are accepted and `listeners` are known."""
        self.config = config
        self._found = found
        self._on_started = on_started
        self.listeners: list[Listener] = []
        self._worker: Worker | None = None
        self._stop_asked = False

    async def serve(self, *, handle_signals: bool = False) -> bool:
        """Serve until `stop()`; True if everything ended in good order.

        Raises ConfigurationError where there is nothing to serve or nowhere to listen.
        """
        config = self.config
        if config.supervised:
            raise ConfigurationError(
                "A Server is one process, and this configuration asks for a supervisor.",
                "Call tidegate.run(...) instead, or leave out workers, reload and their like.",
            )
        set_up_logs(config)
        found = self._found or find(config)
        for note in (*found.notes, *config.notes()):
            log.info("%s", note)
        access = AccessLogs(config)
        try:
            if not handle_signals:
                return await self._serve(found, access)
            from tidegate.process.lone import Lone

            with Lone(self, config, log, access) as lone:
                return await self._serve(found, access, lone)
        finally:
            access.close()

    async def _serve(self, found: Found, access: AccessLogs, lone: Lone | None = None) -> bool:
        from tidegate.net.sockets import Sockets
        from tidegate.serving.worker import Worker

        config = self.config
        sockets = Sockets(config)
        self.listeners = sockets.serving
        worker = Worker(
            config,
            found.application,
            sockets.serving,
            log,
            asgi2=found.interface == "asgi2",
            access=access.log,
            health=sockets.health,
        )
        self._worker = worker
        ready = None
        if lone is not None:
            lone.sockets = sockets
            ready = lone.ready
        try:
            if self._stop_asked:
                worker.stop()
            return await self._run(worker, found, sockets, ready)
        finally:
            sockets.close()
            await worker.close()

    def stop(self) -> None:
        """Begin the graceful end. To be called in the loop's thread."""
        self._stop_asked = True
        if self._worker is not None:
            self._worker.stop()

    def force(self) -> None:
        """End now, whatever is still running."""
        if self._worker is not None:
            self._worker.force()

    async def _run(
        self,
        worker: Worker,
        found: Found,
        sockets: Sockets,
        ready: Callable[[], None] | None = None,
    ) -> bool:
        if not await start(worker):
            log.info("Stopped.")
            return True
        announce(self.config, facts_of(worker, found), sockets)
        for tell in (ready, self._on_started):
            if tell is not None:
                tell()
        try:
            clean = await worker.run()
        except asyncio.CancelledError:  # by whoever awaits serve(): nothing is left running
            worker.force()
            await worker.run()
            raise
        log.info("Stopped.")
        return clean


def run(app: object | str | None = None, **options: Any) -> None:
    """Serve `app` with the options of `Config` until a signal ends it; blocks."""
    from tidegate.discover import importing_application

    if being_imported := importing_application():
        raise ConfigurationError(
            f"{being_imported} starts a server while it is being imported by one",
            'Put the call of tidegate.run() under `if __name__ == "__main__":`.',
        )
    code = serve_config(Config(app=app, **options))
    if code:
        raise SystemExit(code)


def serve_config(config: Config, *, on_started: Callable[[], None] | None = None) -> int:
    """Serve until a signal ends it; the exit status for the command. See `Server` for the rest."""
    _hold_standard_streams()
    set_up_logs(config)
    if config.supervised:
        _require_fork()
        from tidegate.supervised import supervise

        return supervise(config, on_started=on_started)
    from tidegate.process.systemd import Extension, Notifier

    # before there is a loop: at import, and in Django's ready(), synchronous queries are welcome
    with Extension(Notifier()):
        found = find(config)
    with asyncio.Runner(loop_factory=loop_factory(config.loop)) as runner:
        server = Server(config, found=found, on_started=on_started)
        clean = runner.run(server.serve(handle_signals=True))
    return 0 if clean else 1


def _hold_standard_streams() -> None:
    """Where one of them is closed, the next socket would get its number, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _require_fork() -> None:
    """A supervisor's modules cannot even be imported on Windows."""
    if not hasattr(os, "fork"):
        raise ConfigurationError(
            "Workers with a supervisor need fork(), which this system does not have.",
            "Serve from one process (--workers 1), or start one server for each port.",
        )
