"""The application's startup and shutdown (ASGI lifespan 2.0), once per worker.

One task runs the application's lifespan call from start to end, in the context given, so that what
it sets in context variables is there for every request that copies that context. A phase and the
table of messages each phase allows say all there is to say about order; every wait here is on one
of two futures, resolved by the application's messages or by its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import logging
from collections.abc import Mapping
from typing import Any, Literal

from tidegate.errors import ApplicationError, ConfigurationError
from tidegate.types import Application, Message

HINT_AFTER = 10.0  # seconds of starting before the log says what is being waited for
CLEANUP_TIME = 5.0  # for an application to unwind after startup.failed
CANCEL_TIME = 1.0  # for an application to take note that it was cancelled


class LifespanFailed(ConfigurationError):
    """The application did not start; `message` and `hint` are for the person at the console."""


class Phase(enum.Enum):
    """Where the application is in its life."""

    IDLE = "not started"
    STARTING = "lifespan.startup"
    START_FAILED = "lifespan.startup.failed"
    SERVING = "lifespan.startup.complete"
    STOPPING = "lifespan.shutdown"
    STOP_FAILED = "lifespan.shutdown.failed"
    STOPPED = "lifespan.shutdown.complete"
    ABSENT = "no lifespan"  # switched off, or the application does not know it
    LEFT = "returned"  # in good order, without waiting for the end
    BROKEN = "raised"  # after its startup was complete


# What the application may send, and where it leads; in every other phase it may send nothing.
_NEXT = {
    Phase.STARTING: {
        "lifespan.startup.complete": Phase.SERVING,
        "lifespan.startup.failed": Phase.START_FAILED,
    },
    Phase.STOPPING: {
        "lifespan.shutdown.complete": Phase.STOPPED,
        "lifespan.shutdown.failed": Phase.STOP_FAILED,
    },
}
_SUPPORTED = frozenset(Phase) - {Phase.IDLE, Phase.STARTING, Phase.START_FAILED, Phase.ABSENT}
_OVER = frozenset({Phase.STOPPED, Phase.STOP_FAILED})
_CLEAN = frozenset({Phase.IDLE, Phase.ABSENT, Phase.LEFT, Phase.STOPPED})


class Lifespan:
    """Runs the application's lifespan; `state` is what every request gets a shallow copy of."""

    # Made by startup(), on the loop that serves.
    _task: asyncio.Task[None]
    _started: asyncio.Future[None]
    _stopping: asyncio.Future[None]
    _ended: asyncio.Future[None]

    def __init__(
        self,
        app: Application,
        mode: Literal["auto", "on", "off"],
        context: contextvars.Context,
        log: logging.Logger,
    ) -> None:
        self.state: dict[str, Any] = {}
        self.phase = Phase.IDLE
        self._app = app
        self._mode = mode
        self._context = context
        self._log = log
        self._events = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]
        self._error: BaseException | None = None  # raised before startup.complete
        self._forced = False  # whoever waited for its end does so no longer
        self._failure: LifespanFailed | None = None

    @property
    def supported(self) -> bool:
        """Whether the application completed its startup: only then do requests carry `state`."""
        return self.phase in _SUPPORTED

    async def startup(self) -> None:
        """Wait until the application is ready to serve; LifespanFailed if it will not be."""
        if self._mode == "off":
            self.phase = Phase.ABSENT
            return
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._stopping = loop.create_future()
        self._ended = loop.create_future()
        self.phase = Phase.STARTING
        self._task = asyncio.Task(self._run(), loop=loop, name="lifespan", context=self._context)
        hint = loop.call_later(HINT_AFTER, self._on_slow)
        try:
            await self._started
        except asyncio.CancelledError:
            await self._cancel()
            raise
        finally:
            hint.cancel()
        if self._failure is not None:
            await self._finish(CLEANUP_TIME)
            raise self._failure
        if self.phase is Phase.ABSENT:
            self._go_on_without()

    async def shutdown(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Tell the application to end and wait for it; True if everything ended in good order."""
        if self.phase is Phase.SERVING:
            self.phase = Phase.STOPPING
            self._stopping.set_result(None)
            await self._finish(timeout)
        return self.phase in _CLEAN

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError as error:
            self._on_end(error)
            raise
        except Exception as error:
            self._on_end(error)
        else:
            self._on_end(None)

    async def _receive(self) -> Message:
        if not self._events or self.phase is Phase.START_FAILED:
            # Nothing will come; but it is no fault to wait while the answer is still being sent.
            if self.phase is Phase.STOPPING:
                await self._ended
            raise ApplicationError(
                f"receive() called again after {self.phase.value}: no lifespan event follows, "
                f"so the application should return."
            )
        if len(self._events) == 1:
            # Shielded: cancelling one receive() must not take the news from the next.
            await asyncio.shield(self._stopping)
            if not self._events:
                return await self._receive()
        return self._events.pop()

    async def _send(self, message: Message) -> None:
        kind, words = _read(message)
        allowed = _NEXT.get(self.phase, {})
        if kind not in allowed:
            expected = " or ".join(allowed) or f"nothing, after {self.phase.value}"
            raise ApplicationError(
                f"The application sent {kind!r} during its lifespan; expected here: {expected}."
            )
        self.phase = allowed[kind]
        if self.phase is Phase.START_FAILED:
            self._log.error("The application's startup failed: %s", words or "it gave no reason")
            self._failure = _reported(words)
        elif self.phase is Phase.STOP_FAILED:
            self._log.error("The application's shutdown failed: %s", words or "it gave no reason")
        self._wake()

    def _wake(self) -> None:
        """Release whoever waits for what the present phase brings."""
        if not self._started.done():
            self._started.set_result(None)
        if self.phase in _OVER and not self._ended.done():
            self._ended.set_result(None)

    def _on_end(self, error: BaseException | None) -> None:
        """The application returned or raised; what that means depends on how far it was."""
        if self.phase is Phase.STARTING and self._mode == "on":
            self.phase = Phase.START_FAILED
            self._failure = _unfinished(error)
            self._log.error("%s", self._failure.message, exc_info=error)
        elif self.phase is Phase.STARTING:
            self.phase = Phase.ABSENT
            self._error = error
        elif self.phase in (Phase.SERVING, Phase.STOPPING):
            self._on_early_end(error)
        elif error is not None:
            # It has had its say; frameworks raise the same failure again after reporting it.
            self._log.debug("The application's lifespan raised at its end.", exc_info=error)
        self._wake()

    def _on_early_end(self, error: BaseException | None) -> None:
        during = "while serving" if self.phase is Phase.SERVING else "during shutdown"
        if error is None:
            self.phase = Phase.LEFT
            self._log.debug("The application's lifespan returned %s.", during)
            return
        self.phase = Phase.BROKEN
        if self._forced and isinstance(error, asyncio.CancelledError):  # who forces it has said so
            self._log.debug("The application's lifespan was cancelled %s.", during)
        else:
            self._log.error("The application's lifespan raised %s.", during, exc_info=error)

    def _on_slow(self) -> None:
        self._log.warning(
            "Still waiting for lifespan.startup.complete after %g s: the application is busy "
            "starting, or never sends it. No connection is served before.",
            HINT_AFTER,
        )

    def _go_on_without(self) -> None:
        """Auto mode, no startup.complete: quiet if it knows no lifespan, loud if it tried one."""
        if self._error is None:
            self._log.debug("The application returned from its lifespan call: serving without.")
        elif len(self._events) == 2:
            self._log.debug("The application knows no lifespan.", exc_info=self._error)
        else:
            self._log.warning(
                "The application took lifespan.startup and raised. It is served without lifespan; "
                "--lifespan on makes this an error, --lifespan off skips it.",
                exc_info=self._error,
            )
        self._error = None  # its traceback holds frames of the application

    async def _finish(self, within: float | None) -> None:
        """Let the application's task run to its end, and cancel it when the time is over."""
        try:
            await asyncio.wait({self._task}, timeout=within)
        except asyncio.CancelledError:
            self._forced = True
            self._task.cancel()
            raise
        if self._task.done():
            return
        self._log.error(
            "The application's lifespan did not end within %g s after %s: it is cancelled.",
            within,
            self.phase.value,
        )
        if self.phase is Phase.STOPPING:
            self.phase = Phase.BROKEN
        await self._cancel()

    async def _cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=CANCEL_TIME)


def _read(message: Message) -> tuple[str, str]:
    """The type of a message and its `message`; ApplicationError where they are not strings."""
    if not isinstance(message, Mapping) or not isinstance(message.get("type"), str):
        raise ApplicationError(
            f"The application sent {message!r} during its lifespan; "
            f"a message is a dict whose 'type' is a str."
        )
    kind: str = message["type"]
    words = message.get("message", "") if kind.endswith(".failed") else ""
    if not isinstance(words, str):
        raise ApplicationError(
            f"'message' of {kind} must be a str, and it is a {type(words).__name__}."
        )
    return kind, words


def _reported(words: str) -> LifespanFailed:
    # Frameworks put a whole traceback in there; its last line says what happened.
    last = words.strip().splitlines()[-1:]
    return LifespanFailed(
        f"The application could not start: {''.join(last).strip() or 'it gave no reason'}",
        "It said so itself, with lifespan.startup.failed; the log has its whole message.",
    )


def _unfinished(error: BaseException | None) -> LifespanFailed:
    """Why an application that has to have a lifespan (`--lifespan on`) did not start."""
    how = "returned" if error is None else f"raised {type(error).__name__}: {error}"
    failure = LifespanFailed(
        f"The application did not send lifespan.startup.complete: it {how}",
        "If it has no lifespan, serve it with --lifespan auto or --lifespan off.",
    )
    failure.__cause__ = error
    return failure
