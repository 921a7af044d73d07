"""The lifespan: statements 67 to 74, and everything an application may do wrong on the way."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tidegate.asgi import lifespan as module
from tidegate.asgi.lifespan import Lifespan, LifespanFailed, Phase
from tidegate.errors import ApplicationError, ConfigurationError

LOG = logging.getLogger("tests.lifespan")
STARTED = {"type": "lifespan.startup.complete"}
ENDED = {"type": "lifespan.shutdown.complete"}
AUTO_AND_ON = pytest.mark.parametrize("mode", ["auto", "on"])


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, LOG.name)
    return caplog


def make(app: Any, mode: Any = "auto", context: contextvars.Context | None = None) -> Lifespan:
    return Lifespan(app, mode, contextvars.copy_context() if context is None else context, LOG)


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    async def guarded() -> Any:
        async with asyncio.timeout(20):  # a guard against hanging, never reached
            return await test()

    return asyncio.run(guarded())  # type: ignore[arg-type]


def live(app: Any, mode: Any = "auto", timeout: float | None = None) -> tuple[Lifespan, bool]:
    """A whole life: start, stop."""

    async def test() -> tuple[Lifespan, bool]:
        it = make(app, mode)
        await it.startup()
        return it, await it.shutdown(timeout)

    return run(test)


def refused(app: Any, mode: Any = "auto") -> LifespanFailed:
    with pytest.raises(LifespanFailed) as caught:
        live(app, mode)
    return caught.value


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


async def polite(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive()) == {"type": "lifespan.startup"}
    await send(STARTED)
    assert (await receive()) == {"type": "lifespan.shutdown"}
    await send(ENDED)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class TestStatements:
    def test_67_one_call_on_the_serving_loop(self, log: Any) -> None:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(asyncio.get_running_loop())
            await polite(scope, receive, send)

        async def test() -> None:
            it = make(app)
            await it.startup()
            assert seen == [asyncio.get_running_loop()]
            assert it.supported
            assert await it.shutdown() is True
            assert len(seen) == 1
            assert it.phase is Phase.STOPPED

        run(test)
        assert not lines(log, logging.ERROR) + lines(log, logging.WARNING)

    def test_68_scope(self) -> None:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(dict(scope))
            await polite(scope, receive, send)

        live(app)
        assert seen == [
            {
                "type": "lifespan",
                "asgi": {"version": "3.0", "spec_version": "2.0"},
                "state": {},
            }
        ]

    def test_69_raising_on_the_scope_means_no_lifespan(self, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise ValueError("only http here")

        it, clean = live(app)
        assert clean and not it.supported
        assert it.phase is Phase.ABSENT
        (record,) = log.records
        assert record.levelno == logging.DEBUG and "only http here" in str(record.exc_info[1])

    def test_69_raising_before_the_coroutine_is_the_same(self) -> None:
        def app(scope: Any, receive: Any, send: Any) -> Any:
            raise ValueError("only http here")

        assert live(app)[0].phase is Phase.ABSENT

    def test_69_raising_on_startup_goes_on_and_warns(self, log: Any) -> None:
        """It knows lifespan, so that this is hardly meant; still the spec says to go on."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            raise ValueError("no database")

        it, clean = live(app)
        assert clean and not it.supported
        (record,) = log.records
        assert record.levelno == logging.WARNING
        assert "--lifespan on" in record.getMessage()
        assert "no database" in str(record.exc_info[1])

    def test_69_no_event_is_sent_to_an_application_without(self) -> None:
        calls = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            calls.append(scope["type"])
            raise ValueError

        live(app)
        assert calls == ["lifespan"]

    @pytest.mark.parametrize("takes", [0, 1])
    def test_69_raising_is_fatal_when_on(self, takes: int, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(takes):
                await receive()
            raise ValueError("no database")

        failure = refused(app, "on")
        assert "ValueError: no database" in failure.message
        assert isinstance(failure.__cause__, ValueError)
        (record,) = log.records
        assert record.levelno == logging.ERROR and record.exc_info[2] is not None

    def test_70_startup_waits_for_complete(self) -> None:
        async def test() -> None:
            gate = asyncio.Event()

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await receive()
                await gate.wait()
                await send(STARTED)
                await receive()
                await send(ENDED)

            it = make(app)
            starting = asyncio.ensure_future(it.startup())
            await turns()
            assert not starting.done() and it.phase is Phase.STARTING and not it.supported
            gate.set()
            await starting
            assert it.phase is Phase.SERVING and it.supported
            assert await it.shutdown()

        run(test)

    @AUTO_AND_ON
    def test_71_startup_failed_is_logged_and_ends_the_start(self, mode: str, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "Trace:\n  a\nno database\n"})

        failure = refused(app, mode)
        assert isinstance(failure, ConfigurationError)
        assert failure.message == "The application could not start: no database"
        assert failure.hint
        (text,) = lines(log, logging.ERROR)
        assert "Trace:\n  a\nno database" in text

    @pytest.mark.parametrize("message", [{}, {"message": ""}, {"message": " \n"}])
    def test_71_without_a_message(self, message: dict[str, str]) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", **message})

        assert "it gave no reason" in refused(app).message

    def test_71_raising_again_after_failed_is_not_told_twice(self, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            raise ValueError("no database")

        assert "no database" in refused(app).message
        assert len(lines(log, logging.ERROR)) == 1

    def test_71_cleaning_up_after_failed_is_waited_for(self) -> None:
        done = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no"})
            await turns()
            done.append(True)

        refused(app)
        assert done

    def test_71_receiving_after_failed_does_not_hang(self) -> None:
        caught = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no"})
            try:
                await receive()
            except ApplicationError as error:
                caught.append(str(error))

        refused(app)
        assert "lifespan.startup.failed" in caught[0]

    def test_72_shutdown_is_not_sent_before_it_is_called_for(self) -> None:
        """That accepting has stopped and connections are closed by then is the worker's part."""
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((await receive())["type"])
            await send(STARTED)
            seen.append((await receive())["type"])
            await send(ENDED)

        async def test() -> None:
            it = make(app)
            await it.startup()
            await turns()
            assert seen == ["lifespan.startup"]
            await it.shutdown()
            assert seen == ["lifespan.startup", "lifespan.shutdown"]

        run(test)

    def test_73_shutdown_waits_for_complete(self) -> None:
        async def test() -> None:
            gate = asyncio.Event()

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await receive()
                await send(STARTED)
                await receive()
                await gate.wait()
                await send(ENDED)

            it = make(app)
            await it.startup()
            stopping = asyncio.ensure_future(it.shutdown(60))
            await turns()
            assert not stopping.done()
            gate.set()
            assert await stopping is True

        run(test)

    @pytest.mark.parametrize("raises", [False, True])
    def test_73_shutdown_failed_is_logged_once(self, raises: bool, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            await receive()
            await send({"type": "lifespan.shutdown.failed", "message": "lost the queue"})
            if raises:
                raise ValueError("lost the queue")

        assert live(app)[1] is False
        (text,) = lines(log, logging.ERROR)
        assert "shutdown failed: lost the queue" in text

    def test_74_the_state_is_the_applications_alone(self) -> None:
        inner: list[int] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["state"]["pool"] = inner
            await polite(scope, receive, send)

        it, _ = live(app)
        assert it.state == {"pool": inner}
        assert it.state["pool"] is inner

    def test_07_extra_keys_never_raise(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({**STARTED, "message": 1, "more": None})
            await receive()
            await send({**ENDED, "message": None})

        assert live(app, "on")[1]


class TestModes:
    def test_off_never_calls(self) -> None:
        called = []
        it, clean = live(lambda *given: called.append(given), "off")
        assert not called
        assert clean and not it.supported and it.phase is Phase.ABSENT

    def test_returning_at_once_means_no_lifespan(self, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            return

        it, clean = live(app)
        assert clean and it.phase is Phase.ABSENT
        assert [record.levelno for record in log.records] == [logging.DEBUG]

    def test_returning_at_once_is_fatal_when_on(self, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()

        failure = refused(app, "on")
        assert "lifespan.startup.complete: it returned" in failure.message
        assert "--lifespan off" in failure.hint
        assert lines(log, logging.ERROR) == [failure.message]

    def test_a_cancellation_of_its_own_is_an_exception_like_others(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise asyncio.CancelledError

        assert live(app)[0].phase is Phase.ABSENT
        assert "CancelledError" in refused(app, "on").message

    def test_completing_without_receiving_is_fine(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(STARTED)
            assert (await receive())["type"] == "lifespan.startup"
            assert (await receive())["type"] == "lifespan.shutdown"
            await send(ENDED)

        assert live(app, "on")[1]

    def test_shutdown_before_startup_has_nothing_to_do(self) -> None:
        async def test() -> None:
            assert await make(polite).shutdown() is True

        run(test)

    def test_shutdown_twice(self) -> None:
        async def test() -> None:
            it = make(polite)
            await it.startup()
            assert await it.shutdown() is True
            assert await it.shutdown() is True

        run(test)


class TestContext:
    def test_variables_set_in_startup_are_in_the_context_given(self) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
        context = contextvars.copy_context()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            variable.set("set in startup")
            await polite(scope, receive, send)

        async def test() -> None:
            it = make(app, context=context)
            await it.startup()
            assert context.copy().run(variable.get) == "set in startup"
            assert variable.get("unset here") == "unset here"
            await it.shutdown()

        run(test)


class TestSlow:
    def test_a_slow_start_is_told_once(self, log: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(module, "HINT_AFTER", 0.0)

        async def test() -> None:
            gate = asyncio.Event()

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await receive()
                await gate.wait()
                await send(STARTED)
                await receive()
                await send(ENDED)

            it = make(app)
            starting = asyncio.ensure_future(it.startup())
            await turns()
            assert not starting.done()
            gate.set()
            await starting
            await it.shutdown()

        run(test)
        (text,) = lines(log, logging.WARNING)
        assert text.startswith("Still waiting for lifespan.startup.complete")

    def test_the_hint_does_not_outlive_the_start(self) -> None:
        async def test() -> None:
            handles: list[asyncio.TimerHandle] = []
            loop = asyncio.get_running_loop()
            call_later = loop.call_later

            def watched(delay: float, callback: Any, *args: Any, **kw: Any) -> asyncio.TimerHandle:
                handle = call_later(delay, callback, *args, **kw)
                if delay == module.HINT_AFTER:
                    handles.append(handle)
                return handle

            loop.call_later = watched  # type: ignore[method-assign]
            it = make(polite)
            await it.startup()
            await it.shutdown()
            assert [handle.cancelled() for handle in handles] == [True]

        run(test)

    def test_a_start_that_is_cancelled_ends_the_application(self, log: Any) -> None:
        ended = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append(True)

        async def test() -> None:
            it = make(app)
            starting = asyncio.ensure_future(it.startup())
            await turns()
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert ended
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run(test)
        assert not log.records


class TestWhileServing:
    @pytest.mark.parametrize("error", [ValueError("gone"), asyncio.CancelledError("gone")])
    def test_a_failure_in_the_background_is_logged(self, error: BaseException, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            raise error

        async def test() -> None:
            it = make(app)
            await it.startup()
            await turns()
            assert it.phase is Phase.BROKEN
            assert it.supported, "its state is there still"
            assert await it.shutdown() is False

        run(test)
        (record,) = log.records
        assert record.levelno == logging.ERROR and "while serving" in record.getMessage()
        assert "gone" in str(record.exc_info[1])

    def test_returning_after_complete_is_its_right(self, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            scope["state"]["a"] = 1
            await send(STARTED)

        async def test() -> None:
            it = make(app)
            await it.startup()
            await turns()
            assert it.phase is Phase.LEFT and it.supported
            assert await it.shutdown() is True

        run(test)
        assert not lines(log, logging.ERROR)


class TestShutdown:
    def test_returning_without_complete_ends_it_as_well(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            await receive()

        it, clean = live(app)
        assert clean and it.phase is Phase.LEFT

    def test_raising_instead_of_complete(self, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            await receive()
            raise ValueError("lost")

        assert live(app)[1] is False
        (record,) = log.records
        assert "during shutdown" in record.getMessage() and record.exc_info[2] is not None

    def test_work_after_complete_is_waited_for(self) -> None:
        done = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await polite(scope, receive, send)
            await turns()
            done.append(True)

        assert live(app)[1]
        assert done

    @pytest.mark.parametrize("finish", [False, True])
    def test_past_the_deadline_it_is_cancelled(self, finish: bool, log: Any) -> None:
        """After shutdown.complete as well, which is a clean end none the less."""
        ended = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            await receive()
            if finish:
                await send(ENDED)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append(True)

        async def test() -> None:
            it = make(app)
            await it.startup()
            assert await it.shutdown(0.001) is finish
            assert ended

        run(test)
        (text,) = lines(log, logging.ERROR)
        assert "within 0.001 s" in text

    def test_an_application_deaf_to_cancelling_is_left(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(module, "CANCEL_TIME", 0.001)

        async def test() -> None:
            gate = asyncio.Event()

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await receive()
                await send(STARTED)
                await receive()
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    await gate.wait()

            it = make(app)
            await it.startup()
            assert await it.shutdown(0) is False
            gate.set()
            await turns()

        run(test)

    def test_cancelling_the_wait_cancels_the_application(self, log: Any) -> None:
        """Who forces the end has said so: nothing is added to that, least of all a traceback."""
        ended = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            await receive()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append(True)

        async def test() -> None:
            it = make(app)
            await it.startup()
            stopping = asyncio.ensure_future(it.shutdown())
            await turns()
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            await turns()
            assert ended and it.phase is Phase.BROKEN

        run(test)
        assert not lines(log, logging.ERROR)

    @pytest.mark.parametrize("during", ["while serving", "during shutdown"])
    def test_one_that_cancels_itself_is_told(self, during: str, log: Any) -> None:
        """A timeout of a library's, say: nobody else knows that it is gone."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            if during == "during shutdown":
                await receive()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.get_running_loop().create_future()

        async def test() -> None:
            it = make(app)
            await it.startup()
            await turns()
            assert await it.shutdown() is False

        run(test)
        assert lines(log, logging.ERROR) == [f"The application's lifespan raised {during}."]

    def test_an_endless_loop_of_receive_does_not_hang(self, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})

        assert live(app)[1] is True
        assert not lines(log, logging.ERROR)

    def test_receiving_while_another_task_still_answers(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(STARTED)
            await receive()

            async def answer() -> None:
                await turns()
                await send(ENDED)

            task = asyncio.ensure_future(answer())
            with pytest.raises(ApplicationError, match=r"again after lifespan\.shutdown\.complete"):
                await receive()
            await task

        it, clean = live(app)
        assert clean and it.phase is Phase.STOPPED

    def test_a_receive_that_was_cancelled_loses_nothing(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            pending = asyncio.ensure_future(receive())
            await turns()
            pending.cancel()
            await turns()
            await send(STARTED)
            assert (await receive())["type"] == "lifespan.shutdown"
            await send(ENDED)

        assert live(app, "on")[1]

    def test_two_pending_receives_get_one_event(self) -> None:
        got: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            both = [asyncio.ensure_future(receive()) for _ in range(2)]
            await send(STARTED)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await send(ENDED)
            got.extend(await asyncio.gather(*both, return_exceptions=True))

        assert live(app)[1]
        assert got[0] == {"type": "lifespan.shutdown"}
        assert isinstance(got[1], ApplicationError)


class TestOrder:
    """Statement 6: what is sent out of turn raises out of send, naming both sides."""

    BEFORE: tuple[Any, ...] = ("receive",)
    SERVING = (*BEFORE, STARTED)
    STOPPING = (*SERVING, "receive")
    START = "lifespan.startup.complete or lifespan.startup.failed"
    STOP = "lifespan.shutdown.complete or lifespan.shutdown.failed"

    @pytest.mark.parametrize(
        ("steps", "message", "expected"),
        [
            ((), ENDED, START),
            (BEFORE, ENDED, START),
            (BEFORE, {"type": "lifespan.shutdown.failed"}, START),
            (BEFORE, {"type": "lifespan.startup.completed"}, START),
            (BEFORE, {"type": "lifespan.startup"}, START),
            (BEFORE, {"type": "http.response.start"}, START),
            (SERVING, STARTED, "nothing, after lifespan.startup.complete"),
            (SERVING, ENDED, "nothing, after lifespan.startup.complete"),
            (
                SERVING,
                {"type": "lifespan.startup.failed"},
                "nothing, after lifespan.startup.complete",
            ),
            (STOPPING, STARTED, STOP),
            ((*STOPPING, ENDED), ENDED, "nothing, after lifespan.shutdown.complete"),
            (BEFORE, {}, "'type' is a str"),
            (BEFORE, {"type": None}, "'type' is a str"),
            (BEFORE, {"type": ["lifespan.startup.complete"]}, "'type' is a str"),
            (BEFORE, None, "'type' is a str"),
            (BEFORE, "lifespan.startup.complete", "'type' is a str"),
            (BEFORE, {"type": "lifespan.startup.failed", "message": b"no"}, "is a bytes"),
            (STOPPING, {"type": "lifespan.shutdown.failed", "message": None}, "is a NoneType"),
        ],
    )
    def test_06_out_of_turn(self, steps: tuple[Any, ...], message: Any, expected: str) -> None:
        raised: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for step in steps:
                await (receive() if step == "receive" else send(step))
            try:
                await send(message)
            except ApplicationError as error:
                raised.append(str(error))
            if STARTED not in steps:
                await send(STARTED)

        async def test() -> None:
            it = make(app)
            await it.startup()
            await turns()
            await it.shutdown()

        run(test)
        assert expected in raised[0]
        if isinstance(message, dict) and isinstance(message.get("type"), str):
            assert message["type"] in raised[0]

    def test_06_a_misspelt_complete_is_not_passed_over_in_silence(self, log: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.completed"})

        live(app)
        (record,) = log.records
        assert record.levelno == logging.WARNING
        assert "startup.completed" in str(record.exc_info[1])

    def test_10_sending_after_a_failed_start_raises_and_changes_nothing(self) -> None:
        raised = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no"})
            try:
                await send(STARTED)
            except ApplicationError as error:
                raised.append(str(error))

        assert "no" in refused(app).message
        assert "nothing, after lifespan.startup.failed" in raised[0]
