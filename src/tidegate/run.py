"""From a configuration to a running server, in this process.

`serve_config` is what the command calls; `run` and `Server` are for those who start the server from
their own code. All three do the same in the same order: find the application, bind, start the
application, accept, announce.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.net.listener import Listener
from tidegate.process.signals import EndingSignals
from tidegate.version import __version__

if TYPE_CHECKING:
    from tidegate.discover import Found
    from tidegate.observe.access_log import AccessLog
    from tidegate.serving.worker import Worker

log = logging.getLogger("tidegate")


class Server:
    """A server to be run inside somebody's own event loop: `await Server(config).serve()`."""

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
        from tidegate.net.binds import binds_of, open_listeners
        from tidegate.serving.worker import Worker

        config = self.config
        _set_up_logs(config)
        found = self._found or find(config)
        for note in (*found.notes, *config.notes()):
            log.info("%s", note)
        access, close_access = _access_log(config)
        self.listeners = open_listeners(binds_of(config), config.backlog, config.uds_mode)
        asgi2 = found.interface == "asgi2"
        worker = Worker(config, found.application, self.listeners, log, asgi2=asgi2, access=access)
        self._worker = worker
        try:
            if self._stop_asked:
                worker.stop()
            if not handle_signals:
                return await self._run(worker, found)
            loop = asyncio.get_running_loop()
            with EndingSignals(loop, self._on_signal, worker.force):
                return await self._run(worker, found)
        finally:
            for listener in self.listeners:
                listener.close()
            await worker.close()
            close_access()

    def stop(self) -> None:
        """Begin the graceful end. To be called in the loop's thread."""
        self._stop_asked = True
        if self._worker is not None:
            self._worker.stop()

    def _on_signal(self, number: signal.Signals) -> None:
        log.info("%s: stopping. Once more ends at once.", number.name)
        self.stop()

    async def _run(self, worker: Worker, found: Found) -> bool:
        starting = asyncio.ensure_future(worker.start())
        stopped = asyncio.ensure_future(worker.stopped())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            return False
        stopped.cancel()
        starting.result()
        self._announce(worker, found)
        if self._on_started is not None:
            self._on_started()
        try:
            clean = await worker.run()
        except asyncio.CancelledError:  # by whoever awaits serve(): nothing is left running
            worker.force()
            await worker.run()
            raise
        log.info("Stopped.")
        return clean

    def _announce(self, worker: Worker, found: Found) -> None:
        from tidegate.observe.logs import address_url, banner

        tls = self.config.ssl_certfile is not None
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        lines = banner(
            version=__version__,
            loop=loop,
            poller=worker.poller_name,
            app=found.origin,
            kind=_kind(found),
            listening=[address_url(one.sock.getsockname(), tls=tls) for one in self.listeners],
            protocols=("HTTP/1.1", "HTTP/2") if self.config.http2 else ("HTTP/1.1",),
            interactive=sys.stdin is not None and sys.stdin.isatty(),
        )
        for line in lines:
            log.info("%s", line)


def _kind(found: Found) -> tuple[str, ...]:
    interface = "ASGI 3" if found.interface == "asgi3" else "ASGI 2"
    return (interface,) if found.framework == "ASGI" else (found.framework, interface)


def run(app: object | str | None = None, **options: Any) -> None:
    """Serve `app` with the options of `Config` until a signal ends it; blocks."""
    from tidegate.discover import importing_application

    if being_imported := importing_application():
        raise ConfigurationError(
            f"{being_imported} starts a server while it is being imported by one",
            'Put the call of tidegate.run() under `if __name__ == "__main__":`.',
        )
    serve_config(Config(app=app, **options))


def serve_config(config: Config, *, on_started: Callable[[], None] | None = None) -> int:
    """Serve until a signal ends it; the exit status for the command. See `Server` for the rest."""
    _set_up_logs(config)
    # before there is a loop: at import, and in Django's ready(), synchronous queries are welcome
    found = find(config)
    with asyncio.Runner(loop_factory=_loop_factory(config.loop)) as runner:
        server = Server(config, found=found, on_started=on_started)
        clean = runner.run(server.serve(handle_signals=True))
    return 0 if clean else 1


def _set_up_logs(config: Config) -> None:
    """Unless whoever embeds the server has configured its logger already."""
    from tidegate.observe import logs

    if config.log_config is not None or not (log.handlers or log.level):
        logs.setup(config.log_level, config.log_config, config.use_colors)


def find(config: Config) -> Found:
    """The application that `config` names, or that is to be found around here."""
    from tidegate.discover import discover
    from tidegate.observe import logs

    if config.env_file is not None:
        from tidegate.config.dotenv import load_env_file

        load_env_file(config.env_file)
    found = discover(
        config.app, app_dir=config.app_dir, factory=config.factory, interface=config.interface
    )
    logs.restore()  # a Django project's LOGGING may have switched ours off
    return found


def _loop_factory(kind: str) -> Any:
    """The maker of the event loop; None: asyncio's own."""
    if kind == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if kind == "uvloop":
            raise ConfigurationError(
                "--loop uvloop: uvloop is not installed",
                "pip install 'tidegate[uvloop]', or leave the choice to --loop auto.",
            ) from None
        return None
    return uvloop.new_event_loop


def _access_log(config: Config) -> tuple[AccessLog | None, Any]:
    """The access log, and how to close it."""
    from tidegate.observe import logs

    if not config.access_log:
        return None, lambda: None
    from tidegate.observe.access_log import AccessLog, compile_format

    formatter = compile_format(config.access_log_format)
    if not logs.access_enabled(config.access_log_file):
        return None, lambda: None
    writer = logs.access_writer(config.access_log_file, log_config=config.log_config)
    colors = logs.access_colors(writer, config.use_colors)
    return AccessLog(formatter, writer.write, colors=colors), writer.close
