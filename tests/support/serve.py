"""A Tidegate in a thread of the test's process, on a free loopback port, stopped at the end.

`TIDEGATE_TEST_POLLER` and `TIDEGATE_TEST_LOOP` choose what the suites run on where a test does not
say so itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import tidegate
from tidegate.config import Config

WAIT = 20  # seconds a server may take to start or stop before the test fails


class Records(logging.Handler):
    """Keeps what the server logged."""

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)


class Running:
    """A served application: where it listens, and what it logged."""

    def __init__(self, records: Records) -> None:
        self.host = ""
        self.port = 0
        self.path = ""
        self.server: Any = None
        self.loop: Any = None
        self.clean: bool | None = None
        self.error: BaseException | None = None
        self._records = records
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def records(self) -> list[str]:
        """The messages of the server's log, in order."""
        return [record.getMessage() for record in self._records.kept]

    def logged(self, level: int = logging.WARNING) -> list[str]:
        """Messages of at least this level."""
        return [r.getMessage() for r in self._records.kept if r.levelno >= level]

    @property
    def worker(self) -> Any:
        return self.server._worker

    def call(self, function: Any, *arguments: Any) -> None:
        """Call something in the server's loop."""
        self.loop.call_soon_threadsafe(function, *arguments)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The loop stands still meanwhile, and then finds at once whatever has come."""
        stands, goes = threading.Event(), threading.Event()
        self.call(lambda: (stands.set(), goes.wait(WAIT)))
        try:
            assert stands.wait(WAIT)
            yield
        finally:
            goes.set()

    def stop(self) -> None:
        """Stop gracefully and wait for the end."""
        assert self._thread is not None
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it was ending already, its loop is closed
                self.call(self.server.stop)
            self._thread.join(WAIT)
        assert not self._thread.is_alive(), "the server did not stop"


@contextlib.contextmanager
def serve(app: Any, **options: Any) -> Iterator[Running]:
    """Serve `app` with the options of Config; raises what the server's start raised."""
    options.setdefault("access_log", False)
    options.setdefault("poller", os.environ.get("TIDEGATE_TEST_POLLER", "auto"))
    kind = options.setdefault("loop", os.environ.get("TIDEGATE_TEST_LOOP", "asyncio"))
    options.setdefault("timeout_graceful_shutdown", 5)
    options.setdefault("lifespan", "auto")
    if not {"uds", "bind", "fd"} & set(options):
        options.setdefault("port", 0)
    records = Records()
    logger = logging.getLogger("tidegate")
    logger.addHandler(records)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    running = Running(records)
    started = threading.Event()
    running._thread = threading.Thread(
        target=_serve, args=(running, Config(app=app, **options), kind, started), daemon=True
    )
    running._thread.start()
    try:
        assert started.wait(WAIT), "the server did not start"
        if running.error is not None:
            raise running.error
        yield running
    finally:
        if running.error is None:
            running.stop()
        logger.removeHandler(records)
        logger.setLevel(before)


def _serve(running: Running, config: Config, kind: str, started: threading.Event) -> None:
    def on_started() -> None:
        first = running.server.listeners[0]
        name = first.sock.getsockname()
        if first.is_unix:
            running.path = name
        else:
            running.host, running.port = name[:2]
        started.set()

    async def main() -> None:
        running.loop = asyncio.get_running_loop()
        running.server = tidegate.Server(config, on_started=on_started)
        running.clean = await running.server.serve()

    factory = None
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    except BaseException as error:
        running.error = error
    finally:
        started.set()
