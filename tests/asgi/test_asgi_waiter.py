"""A waiter speaks with tasks as a future does, but goes on at once where it is told to."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import tasks
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from tidegate.asgi.waiter import IDLE, Waiter

MAKERS = [
    pytest.param(asyncio.Task, id="C task"),
    pytest.param(tasks._PyTask, id="Python task"),  # type: ignore[attr-defined]
]
Play = Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, None]]


def run(play: Play) -> None:
    """Run `play` on a loop of its own; what the loop complains of fails the test."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        await asyncio.wait_for(play(loop), 10)

    asyncio.run(main())
    assert complaints == []


def in_callback(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> Awaitable[Any]:
    """Call it where no task is running."""
    done = loop.create_future()

    def call() -> None:
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    loop.call_soon(call)
    return done


@pytest.mark.parametrize("maker", MAKERS)
def test_the_task_goes_on_before_wake_returns(maker: Any) -> None:
    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter, steps = Waiter(loop), []

        async def work() -> None:
            for step in range(3):
                await waiter
                assert asyncio.current_task() is task
                steps.append(step)

        task = maker(work(), loop=loop)
        await asyncio.sleep(0)

        def wake() -> list[int]:
            waiter.wake()
            first = list(steps)
            waiter.wake()
            return first

        assert await in_callback(loop, wake) == [0]
        assert steps == [0, 1]
        await in_callback(loop, waiter.wake)
        assert task.done()

    run(play)


@pytest.mark.parametrize("maker", MAKERS)
def test_wake_soon_leaves_it_to_the_loop(maker: Any) -> None:
    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)

        async def work() -> str:
            await waiter
            return "done"

        task = maker(work(), loop=loop)
        await asyncio.sleep(0)
        waiter.wake_soon()  # while another task, this one, is running
        waiter.wake_soon()
        assert not task.done()
        await in_callback(loop, waiter.wake)  # has been woken already
        assert await task == "done"

    run(play)


@pytest.mark.parametrize("maker", MAKERS)
def test_nobody_waits(maker: Any) -> None:
    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)
        waiter.wake()
        waiter.wake_soon()
        assert not waiter.cancel()

        async def work() -> None:
            await waiter

        task = maker(work(), loop=loop)
        await asyncio.sleep(0)
        assert not task.done()
        await in_callback(loop, waiter.wake)
        assert task.done()

    run(play)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_cancelled_task_ends_and_the_waiter_is_good_again(maker: Any) -> None:
    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)

        async def work() -> None:
            await waiter

        task = maker(work(), loop=loop)
        await asyncio.sleep(0)
        assert task.cancel("enough")
        waiter.wake_soon()  # too late
        with pytest.raises(asyncio.CancelledError):
            await task
        again = maker(work(), loop=loop)
        await asyncio.sleep(0)
        await in_callback(loop, waiter.wake)
        assert again.done()
        assert not again.cancelled()

    run(play)


@pytest.mark.parametrize("maker", MAKERS)
def test_cancelled_after_it_was_woken(maker: Any) -> None:
    """As with a future: the cancellation arrives all the same, at the place that waited."""

    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter, seen = Waiter(loop), []

        async def work() -> None:
            try:
                await waiter
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = maker(work(), loop=loop)
        await asyncio.sleep(0)
        waiter.wake_soon()
        assert task.cancel()
        await asyncio.wait([task])
        assert seen == ["cancelled"]
        assert task.cancelled()

    run(play)


@pytest.mark.parametrize("maker", MAKERS)
def test_the_tasks_own_context(maker: Any) -> None:
    name = contextvars.ContextVar("name", default="outside")

    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter, seen = Waiter(loop), []

        async def work() -> None:
            name.set("inside")
            for _ in range(2):
                await waiter
                seen.append(name.get())

        task = maker(work(), loop=loop)
        await asyncio.sleep(0)
        await in_callback(loop, waiter.wake)
        waiter.wake_soon()
        await task
        assert seen == ["inside", "inside"]
        assert name.get() == "outside"

    run(play)


def test_what_the_task_raises_is_its_own() -> None:
    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)

        async def work() -> None:
            await waiter
            raise ValueError("mine")

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        await in_callback(loop, waiter.wake)
        with pytest.raises(ValueError, match="mine"):
            await task

    run(play)


async def by_timeout(waiter: Waiter) -> bool:
    try:
        async with asyncio.timeout(0):
            await waiter
    except TimeoutError:
        return True
    return False


async def by_wait_for(waiter: Waiter) -> bool:
    async def wait() -> None:
        await waiter

    try:
        await asyncio.wait_for(wait(), 0.001)
    except TimeoutError:
        return True
    return False


async def by_task_group(waiter: Waiter) -> bool:
    async def wait() -> None:
        await waiter

    async def fail() -> None:
        raise LookupError

    given_up = False
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(fail())
    except* LookupError:
        given_up = True
    return given_up


async def by_anyio(waiter: Waiter) -> bool:
    with anyio.move_on_after(0.001) as scope:
        await waiter
    return bool(scope.cancelled_caught)


async def by_shield(waiter: Waiter) -> bool:
    async def wait() -> None:
        await waiter

    inner = asyncio.ensure_future(wait())
    try:
        await asyncio.wait_for(asyncio.shield(inner), 0.001)
    except TimeoutError:
        assert not inner.done()
        waiter.wake_soon()
        await inner
        return True
    return False


@pytest.mark.parametrize("way", [by_timeout, by_wait_for, by_task_group, by_anyio, by_shield])
def test_giving_up_the_wait(way: Callable[[Waiter], Coroutine[Any, Any, bool]]) -> None:
    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)
        for _ in range(2):
            assert await way(waiter)

    run(play)


def test_it_is_nobody_elses_from_the_first_step_to_the_last() -> None:
    async def play(loop: asyncio.AbstractEventLoop) -> None:
        waiter = Waiter(loop)
        states = []

        async def wait() -> None:
            try:
                await waiter
            finally:
                states.append(waiter.state)

        by_hand = wait()
        by_hand.send(None)  # begun, though no task has said yet that it waits
        states.append(waiter.state)
        waiter.wake()
        by_hand.close()
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        states.append(waiter.state)
        waiter.wake_soon()
        states.append(waiter.state)
        await task
        assert [state is IDLE for state in states] == [False, True, False, False, True]

    run(play)
