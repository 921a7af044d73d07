"""SIGINT and SIGTERM: the first asks, the second insists, and both are given back afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import types

import pytest

from tidegate.process import signals
from tidegate.process.signals import ENDING, EndingSignals


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
