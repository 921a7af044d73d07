"""One of Gunicorn's workers: a server of ours on the sockets it was born with.

For those who keep Gunicorn as their supervisor: it binds, forks, watches and replaces. Signal
handlers only note what is wanted, and wake the loop by the pipe that Gunicorn's base class has for
this; so a signal counts from before the application's import, and those that must not wait also act
while the loop hangs.

Gunicorn replaces a worker only after it has gone, and holds the sockets meanwhile: who connects
then waits in the kernel's queue. So a worker always leaves as one whose successor serves here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker as Base  # type: ignore[import-untyped]

from tidegate.config import Config
from tidegate.config.dotenv import load_env_file
from tidegate.config.sources import FIELDS
from tidegate.errors import ConfigurationError
from tidegate.gunicorn.application import page_of, speaks_asgi2
from tidegate.gunicorn.logs import access_log, forward_messages
from tidegate.gunicorn.seats import Place, Seats, lone_seat
from tidegate.gunicorn.settings import GUNICORNS, read_settings
from tidegate.hosting import loop_factory, start
from tidegate.net.listener import Listener
from tidegate.observe import logs
from tidegate.serving.worker import Worker as Server
from tidegate.version import __version__

BEAT = 1.0  # seconds between two signs of life; fewer where --timeout is short
HANGS = 4.0  # seconds without one: a quick end does not wait for the loop

_SEATS = Seats()


class Worker(Base):  # type: ignore[misc]
    """One of Gunicorn's workers; a subclass may set `options`, which go before all else."""

    options: Mapping[str, object] = {}
    alive: bool
    wsgi: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """In Gunicorn's own process, which lets go of this at the worker's end: so nothing that is
        kept here may refer to it."""
        super().__init__(*args, **kwargs)
        # with --reuse-port each has a queue of its own, which no other can take from
        self._seat = lone_seat() if self.cfg.reuse_port else _SEATS.take(self)
        self._server: Server | None = None  # while the loop runs
        self._wanted: deque[Callable[[], object]] = deque()  # by signals
        self._asgi2 = False
        self._beaten = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """In Gunicorn's own process, before it forks: say once what will have no effect."""
        try:
            _, notes = read_settings(cfg, cls.options)
        except ConfigurationError:
            return  # a worker says so: when it gives up, Gunicorn ends in good order
        for note in notes:
            log.info("%s", note)

    # ------------------------------------------------------------------------ before serving

    def load_wsgi(self) -> None:
        """Read the settings and load the application; neither being right ends Gunicorn."""
        forward_messages(self.log)
        try:
            self._config = self._settings()
            if self._config.env_file is not None:
                load_env_file(self._config.env_file)
        except ConfigurationError as error:
            self._give_up(error, Arbiter.WORKER_BOOT_ERROR)
        super().load_wsgi()
        logs.restore()  # a Django project's LOGGING may have switched ours off, and Gunicorn's
        for name in ("gunicorn.error", "gunicorn.access"):
            logging.getLogger(name).disabled = False
        try:
            if getattr(self.app, "callable", self.wsgi) is None:
                self.wsgi = page_of(self.wsgi)  # a syntax error, with --reload
            else:
                self._asgi2 = speaks_asgi2(self.wsgi, self._config.interface)
        except ConfigurationError as error:
            self._give_up(error, Arbiter.APP_LOAD_ERROR)

    def _settings(self) -> Config:
        unix = any(one.sock.family == socket.AF_UNIX for one in self.sockets)
        config, _ = read_settings(self.cfg, self.options, unix=unix)
        given = {name: getattr(config, name) for name in FIELDS if name not in GUNICORNS}
        if self.cfg.max_requests > 0:
            given["limit_max_requests"] = self.max_requests  # its jitter is in it
        return Config(**given)

    def _give_up(self, error: ConfigurationError, code: int) -> NoReturn:
        """End with a code that makes Gunicorn stop too: trying again would be no use."""
        self.log.error("%s", f"{error.message} {error.hint}".rstrip())
        raise SystemExit(code)

    # ------------------------------------------------------------------------ serving

    def run(self) -> None:
        """Serve until this worker is to go."""
        try:
            with asyncio.Runner(loop_factory=loop_factory(self._config.loop)) as runner:
                runner.run(self._serve())
        except ConfigurationError as error:
            self._give_up(error, Arbiter.WORKER_BOOT_ERROR)
        if self.aborted:
            raise SystemExit(1)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        place = Place(self._seat, self._on_last_request)
        self._server = server = Server(
            self._config,
            self.wsgi,
            [Listener(one.sock) for one in self.sockets],
            logging.getLogger("tidegate"),
            asgi2=self._asgi2,
            access=access_log(self.cfg, self.log),
            post=place,
        )
        loop.add_reader(self.PIPE[0], self._on_wake)
        beating = asyncio.ensure_future(self._beat(place))
        try:
            self._on_wake()  # for what was asked while the application was loaded
            if await start(server):
                how = f"{type(loop).__module__.partition('.')[0]} loop, {server.poller_name} poller"
                self.log.info("Tidegate %s serves (pid: %s), %s", __version__, self.pid, how)
                await server.run()
        finally:
            self._server = None
            loop.remove_reader(self.PIPE[0])
            beating.cancel()
            await server.close()

    async def _beat(self, place: Place) -> None:
        """Signs of life, which cease while the loop hangs; and a look whether Gunicorn lives."""
        while True:
            self.notify()
            place.beat()
            self._beaten = time.monotonic()
            if self.ppid != os.getppid() and self._server is not None:
                if self.alive:
                    self.log.info("Leaving: Gunicorn's master is gone (pid: %s)", self.pid)
                self.alive = False
                self._server.stop()  # nobody serves here afterwards
            # `timeout` is half of --timeout here
            await asyncio.sleep(min(BEAT, self.timeout / 2 or BEAT))

    def _on_last_request(self) -> None:
        self.log.info("Leaving after %d requests (pid: %s)", self.max_requests, self.pid)
        self.alive = False
        self._leave()

    def _leave(self) -> None:
        if self._server is not None and self.cfg.reload:
            self._server.stop()  # somebody waits for the new code, which comes after our end
        elif self._server is not None:
            self._server.retire()

    # ------------------------------------------------------------------------ signals

    def _want(self, call: Callable[[], object]) -> None:
        self._wanted.append(call)
        with suppress(BlockingIOError):  # full: it will wake up anyway
            os.write(self.PIPE[1], b"1")

    def _on_wake(self) -> None:
        """The pipe: a signal, or the reloader's thread, which has set `alive` to False."""
        with suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)
        while self._wanted:
            self._wanted.popleft()()
        if not self.alive:
            self._leave()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: leave; Gunicorn may say it every second, which changes nothing."""
        self.alive = False
        self._want(self._leave)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT, SIGQUIT: end now."""
        self.alive = False
        if self._server is not None and time.monotonic() - self._beaten < HANGS:
            self._want(self._quit)
            return
        self._want(self._force)  # whoever called the code that stands there may catch this:
        super().handle_quit(sig, frame)  # SystemExit

    def _quit(self) -> None:
        self.cfg.worker_int(self)
        self._force()

    def _force(self) -> None:
        if self._server is not None:
            self._server.force()

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        """SIGUSR1: begin new log files where the old ones were moved away."""
        self._want(self.log.reopen_files)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """SIGABRT: Gunicorn has had no sign of life for --timeout seconds."""
        stack = "".join(traceback.format_stack(frame, limit=12)).rstrip()
        self.log.critical("Told to abort (pid: %s). It stands here:\n%s", self.pid, stack)
        self.aborted = True
        self._want(self._force)  # as above
        super().handle_abort(sig, frame)
