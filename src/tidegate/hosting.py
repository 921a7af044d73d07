"""What a process that serves does around its worker: logs, application, loop, banner."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.version import __version__

if TYPE_CHECKING:
    from tidegate.discover import Found
    from tidegate.net.sockets import Sockets
    from tidegate.observe.access_log import AccessLog
    from tidegate.observe.logs import AccessWriter
    from tidegate.serving.worker import Worker

log = logging.getLogger("tidegate")


def set_up_logs(config: Config) -> None:
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


def kind_of(found: Found) -> tuple[str, ...]:
    interface = "ASGI 3" if found.interface == "asgi3" else "ASGI 2"
    return (interface,) if found.framework == "ASGI" else (found.framework, interface)


def loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The maker of the event loop; None: asyncio's own."""
    if sys.platform == "win32":
        return asyncio.SelectorEventLoop  # asyncio's usual one there cannot watch a socket
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
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class AccessLogs:
    """The access log of this process, if it keeps one."""

    def __init__(self, config: Config) -> None:
        self.log: AccessLog | None = None
        self._writer: AccessWriter | None = None
        if config.access_log:
            self._open(config)

    def _open(self, config: Config) -> None:
        from tidegate.observe import logs
        from tidegate.observe.access_log import AccessLog, compile_format

        formatter = compile_format(config.access_log_format)
        if not logs.access_enabled(config.access_log_file):
            return
        writer = logs.access_writer(config.access_log_file, log_config=config.log_config)
        colors = logs.access_colors(writer, config.use_colors)
        self._writer = writer
        self.log = AccessLog(formatter, writer.write, colors=colors)

    def reopen(self) -> None:
        """Begin new files where the old ones were moved away, for these lines and all others."""
        from tidegate.observe import logs

        logs.reopen()
        if self._writer is not None:
            self._writer.reopen()

    def flush(self) -> None:
        if self.log is not None:
            self.log.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def start(worker: Worker) -> bool:
    """Start the application and accept; False if the worker was told to stop before that."""
    if worker.told_to_end:
        return False  # an orphan, too: whoever serves here now has the listeners to itself
    starting = asyncio.ensure_future(worker.start())
    stopped = asyncio.ensure_future(worker.stopped())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:  # Ctrl+C before there is a handler for it
        starting.cancel()
        stopped.cancel()
        await asyncio.wait({starting, stopped})
        raise
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return False
    stopped.cancel()
    starting.result()
    return True


def announce(config: Config, facts: dict[str, Any], sockets: Sockets) -> None:
    """The banner: what runs, what it serves, and where."""
    from tidegate.observe.logs import address_url, banner
    from tidegate.serving.health import LIVE, READY

    tls = config.ssl_certfile is not None
    health = [address_url(one.sock.getsockname(), tls=False) for one in sockets.health]
    lines = banner(
        version=__version__,
        loop=facts["loop"],
        poller=facts["poller"],
        app=facts["app"],
        kind=facts["kind"],
        listening=[address_url(one.sock.getsockname(), tls=tls) for one in sockets.serving],
        protocols=("HTTP/1.1", "HTTP/2") if config.http2 else ("HTTP/1.1",),
        health=[f"{url} ({READY}, {LIVE})" for url in health],
        interactive=sys.stdin is not None and sys.stdin.isatty(),
    )
    for line in lines:
        log.info("%s", line)


def facts_of(worker: Worker, found: Found) -> dict[str, Any]:
    """What the banner tells of a worker and its application."""
    return {
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "poller": worker.poller_name,
        "app": found.origin,
        "kind": kind_of(found),
        "notes": found.notes,
    }
