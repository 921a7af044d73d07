"""Starting a task: how far it has come when `start` returns, and in whose context it runs."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from tidegate.net.tasks import EAGER, start

variable = contextvars.ContextVar("variable", default="untouched")


def run(test):
    """Call `test` inside a running loop, from a callback, as a poller does."""

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        async def call():
            try:
                done.set_result(await test(loop))
            except BaseException as error:
                done.set_exception(error)

        keep = asyncio.ensure_future(call())
        result = await done
        await keep
        return result

    return asyncio.run(main())


def test_a_task_that_never_waits_is_over_at_once_where_python_can():
    async def test(loop):
        ran = []

        async def work():
            ran.append(True)

        task = start(loop, work(), contextvars.Context())
        assert (task.done(), ran) == ((True, [True]) if EAGER else (False, []))
        await task
        assert ran == [True]

    run(test)


def test_a_task_that_waits_goes_on_later():
    async def test(loop):
        gate = loop.create_future()
        seen = []

        async def work():
            seen.append("begun")
            seen.append(await gate)

        task = start(loop, work(), contextvars.Context())
        await asyncio.sleep(0)
        assert (task.done(), seen) == (False, ["begun"])
        gate.set_result("gone on")
        await task
        assert seen == ["begun", "gone on"]

    run(test)


def test_a_task_runs_in_the_context_it_is_given_and_in_no_other():
    async def test(loop):
        variable.set("the caller's")
        seen = []

        async def work():
            seen.append(variable.get())
            variable.set("the task's")
            await asyncio.sleep(0)
            seen.append(variable.get())

        context = contextvars.Context()
        await start(loop, work(), context)
        assert seen == ["untouched", "the task's"]
        assert variable.get() == "the caller's"
        assert context[variable] == "the task's"

    run(test)


def test_a_task_is_its_own_current_task():
    async def test(loop):
        outer = asyncio.current_task()
        seen = []

        async def work():
            seen.append(asyncio.current_task())
            async with asyncio.timeout(60):  # needs a current task
                await asyncio.sleep(0)

        task = start(loop, work(), contextvars.Context())
        await task
        assert seen == [task]
        assert asyncio.current_task() is outer

    run(test)


def test_what_a_task_raises_stays_in_it():
    async def test(loop):
        async def work():
            raise RuntimeError("a bug")

        task = start(loop, work(), contextvars.Context())
        with pytest.raises(RuntimeError, match="a bug"):
            await task

    run(test)


def test_a_task_can_be_cancelled():
    async def test(loop):
        async def work():
            await asyncio.Event().wait()

        task = start(loop, work(), contextvars.Context())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test)


def test_a_waiting_task_is_known_to_the_loop():
    """asyncio.all_tasks() is what debuggers and shutdown code look at."""

    async def test(loop):
        async def work():
            await asyncio.Event().wait()

        task = start(loop, work(), contextvars.Context())
        assert task in asyncio.all_tasks(loop)
        task.cancel()

    run(test)
