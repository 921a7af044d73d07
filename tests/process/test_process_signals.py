"""SIGINT and SIGTERM: the first asks, the second insists, and both are given back afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import traceback
import types

import pytest

from tidegate.process import signals
from tidegate.process.signals import ENDING, EndingSignals, Insistence


class Asked:
    """What the server was told, in order; `told` waits for the next word."""

    def __init__(self):
        self.words = []
        self._next = asyncio.Event()

    def stop(self, number):
        self.words.append(("stop", number))
        self._next.set()

    def force(self):
        self.words.append("force")
        self._next.set()

    async def told(self, number):
        self._next.clear()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            await self._next.wait()


def run(test):
    async def main():
        asked = Asked()
        await test(asked, EndingSignals(asyncio.get_running_loop(), asked.stop, asked.force))
        return asked.words

    return asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks(number):
    async def test(asked, signals):
        with signals:
            assert signals.received is None
            await asked.told(number)
            assert signals.received is number

    assert run(test) == [("stop", number)]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_insists_whichever_it_is(first, second):
    async def test(asked, signals):
        with signals:
            await asked.told(first)
            await asked.told(second)
            await asked.told(second)
            assert signals.received is first

    assert run(test) == [("stop", first), "force", "force"]


def test_afterwards_the_signals_are_pythons_again():
    async def test(asked, signals):
        with signals:
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    assert run(test) == []


def test_they_are_given_back_when_serving_fails():
    async def test(asked, signals):
        with pytest.raises(RuntimeError), signals:
            raise RuntimeError("no server")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    run(test)


def test_outside_the_main_thread_nothing_is_touched():
    before = {number: signal.getsignal(number) for number in ENDING}
    during = []

    async def test(asked, signals):
        with signals:
            during.append({number: signal.getsignal(number) for number in ENDING})

    thread = threading.Thread(target=run, args=(test,))
    thread.start()
    thread.join(10)
    assert during == [before]
    assert {number: signal.getsignal(number) for number in ENDING} == before


def test_both_signals_of_posix_are_meant():
    assert set(ENDING) >= {signal.SIGINT, signal.SIGTERM}


def test_where_loops_know_no_signals(monkeypatch):
    """Windows: Python's own handlers, which wake the loop."""
    monkeypatch.setattr(signals, "os", types.SimpleNamespace(name="nt"))
    before = signal.getsignal(signal.SIGTERM)

    async def test(asked, ending):
        with ending:
            await asked.told(signal.SIGTERM)
            await asked.told(signal.SIGTERM)
        assert asked.words == [("stop", signal.SIGTERM), "force"]

    run(test)
    assert signal.getsignal(signal.SIGTERM) is before


# -- a loop that does not turn ---------------------------------------------------------------------


def blocked_by(*numbers, patience=0.0, blocks=True):
    """The signals come while a callback holds the loop; until it is noticed, if it `blocks`.

    What was noticed, and what the loop was told after all.
    """
    noticed, there = [], threading.Event()
    words = []

    def on_blocked(number, frame):
        noticed.append((number, [one.name for one in traceback.extract_stack(frame)]))
        there.set()

    async def main():
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        insistence = Insistence(on_blocked)
        insistence.PATIENCE = patience

        def hear(word):
            insistence.heard()
            words.append(word)
            if len(words) == len(numbers):
                over.set()

        ending = EndingSignals(loop, lambda number: hear("stop"), lambda: hear("force"))
        with ending:
            loop.add_signal_handler(signal.SIGQUIT, hear, "quit")
            insistence.cover(*ENDING, signal.SIGQUIT)

            def resize_the_picture():
                for number in numbers:
                    os.kill(os.getpid(), number)
                if blocks:
                    assert there.wait(30)

            loop.call_soon(resize_the_picture)
            async with asyncio.timeout(30):
                await over.wait()
            insistence.heard()
            loop.remove_signal_handler(signal.SIGQUIT)

    before = set(threading.enumerate())
    asyncio.run(main())
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
    return noticed, words


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((signal.SIGINT, signal.SIGTERM), ["stop", "force"]),
        ((signal.SIGTERM, signal.SIGINT), ["stop", "force"]),
        ((signal.SIGQUIT,), ["quit"]),
    ],
)
def test_who_insists_and_is_not_heard_is_noticed(numbers, words):
    ((number, stack),), told = blocked_by(*numbers)
    assert number is numbers[-1]
    assert "resize_the_picture" in stack
    assert told == words, "the loop hears what it would have heard"


@pytest.mark.parametrize(
    "numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGQUIT,), (signal.SIGTERM,)]
)
def test_a_loop_that_was_merely_busy_is_left_alone(numbers):
    noticed, told = blocked_by(*numbers, patience=600.0, blocks=False)
    assert noticed == [] and len(told) == len(numbers)


def test_the_first_signal_does_not_insist():
    """However long it is not heard: what runs may still end in good order."""
    noticed, told = blocked_by(signal.SIGTERM, blocks=False)
    assert (noticed, told) == ([], ["stop"])
