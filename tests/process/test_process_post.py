"""A worker's side of its supervision, in a real loop: what it is told, and what it asks for."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
from types import SimpleNamespace

import pytest

from tidegate.config import Config
from tidegate.process import post as post_module
from tidegate.process.births import Birth, Role, deaf_to_terminal
from tidegate.process.board import Board
from tidegate.process.channel import LONGEST, Channel
from tidegate.process.handle import STACK_SIGNAL
from tidegate.process.keys import Keys
from tidegate.process.post import Post, resident_memory

PATIENCE = 10
TOUCHED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGQUIT)


class Worker:
    """What a post tells its worker."""

    def __init__(self):
        self.requests = 0
        self.told = []
        self.news = asyncio.Event()

    def _note(self, word):
        self.told.append(word)
        self.news.set()

    def stop(self):
        self._note("stop")

    def retire(self):
        self._note("retire")

    def force(self):
        self._note("force")

    async def hear(self, *words):
        async with asyncio.timeout(PATIENCE):
            while self.told != list(words):
                self.news.clear()
                await self.news.wait()


@pytest.fixture
def signals():
    """Put back what a post changes of the process."""
    before = {number: signal.getsignal(number) for number in TOUCHED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    if STACK_SIGNAL:
        faulthandler.unregister(STACK_SIGNAL)


@pytest.fixture
def place(signals, monkeypatch):
    """Run a test with a post, its worker and the supervisor's side."""

    def run(test, *, attach=True, before=(), **options):
        async def main():
            ours, theirs = Channel.pair()
            for line in before:
                ours.send(line)
            seat = Board(4).seat(1)
            config = Config(**options)
            birth = Birth(Role.WORKER, theirs, seat)
            post = Post(birth, config, Keys(config, handed=False))
            assert ours.receive() == [f"pid {os.getpid()}"]
            it = SimpleNamespace(
                post=post, worker=Worker(), supervisor=ours, seat=seat, reopened=[], theirs=theirs
            )
            if attach:
                post.attach(it.worker, lambda: it.reopened.append(1))
            try:
                await test(it)
            finally:
                post.detach()
                ours.close()
                theirs.close()

        asyncio.run(main())

    return run


@pytest.mark.parametrize("word", ["stop", "retire", "force"])
def test_it_does_what_it_is_told(place, word):
    async def test(it):
        it.supervisor.send(word)
        await it.worker.hear(word)

    place(test)


def test_what_was_said_before_it_listened_is_heard(place):
    async def test(it):
        assert it.worker.told == ["stop"]

    place(test, before=["stop"])


def test_words_it_does_not_know_are_passed_over(place):
    async def test(it):
        it.supervisor.send("dance")
        it.supervisor.send("reopen")
        it.supervisor.send("retire")
        await it.worker.hear("retire")
        assert it.reopened == [1]

    place(test)


def test_without_a_supervisor_it_finishes_and_leaves(place):
    async def test(it):
        it.supervisor.close()
        await it.worker.hear("stop")
        for _ in range(5):
            await asyncio.sleep(0)
        assert it.worker.told == ["stop"]  # once: an end stays readable

    place(test)


def test_ready_is_told_with_the_facts_and_the_heart_beats(place, monkeypatch):
    monkeypatch.setattr(post_module, "BEAT", 0.0)

    async def test(it):
        assert it.seat.beaten == 0
        it.worker.requests = 4
        it.post.ready({"loop": "asyncio"})
        (line,) = it.supervisor.receive()
        word, _, rest = line.partition(" ")
        assert (word, json.loads(rest)) == ("ready", {"loop": "asyncio"})
        first = it.seat.beaten
        assert it.seat.requests == 4
        it.worker.requests = 9
        async with asyncio.timeout(PATIENCE):
            while it.seat.requests != 9:
                await asyncio.sleep(0)
        assert it.seat.beaten > first > 0

    place(test)


def test_a_heart_does_not_beat_once_it_is_detached(place, monkeypatch):
    monkeypatch.setattr(post_module, "BEAT", 0.0)

    async def test(it):
        it.post.ready({})
        it.post.detach()
        it.worker.requests = 9
        for _ in range(20):
            await asyncio.sleep(0)
        assert it.seat.requests == 0

    place(test)


@pytest.mark.parametrize("final", [True, False])
def test_a_failed_start_is_told_in_its_own_words(place, final):
    async def test(it):
        it.post.failed("No module\nnamed 'ä'", final=final)
        (line,) = it.supervisor.receive()
        assert line.startswith("failed ")
        assert json.loads(line[7:]) == {"text": "No module\nnamed 'ä'", "final": final}

    place(test, attach=False)


def test_a_very_long_reason_can_still_be_read(place):
    """What is cut in the middle is no JSON, and the supervisor is not to fail over it."""

    async def test(it):
        it.post.failed("x" * LONGEST + "the reason", final=True)
        lines = []
        while not lines:
            lines = it.supervisor.receive()
            it.theirs.flush()
        told = json.loads(lines[0].partition(" ")[2])
        assert told["final"] is True

    place(test, attach=False)


def test_a_successor_is_asked_for_once(place):
    async def test(it):
        it.post.ask_for_successor("it is old")
        it.post.ask_for_successor("it is large")
        assert it.supervisor.receive() == ["limit it is old"]
        assert it.worker.told == []  # it serves on

    place(test)


def test_a_lifetime_ends_in_asking_for_a_successor(place):
    async def test(it):
        it.post.ready({})
        assert len(it.supervisor.receive()) == 1  # ready; not yet due
        it.post._until = 0.0
        it.post._beat()
        (line,) = it.supervisor.receive()
        assert line.startswith("limit its time is up (--limit-max-lifetime")

    place(test, limit_max_lifetime=3600)


def test_lifetimes_differ_a_little_so_that_not_all_end_at_once(place, monkeypatch):
    ends = []

    async def test(it):
        it.post.ready({})
        ends.append(it.post._until)

    monkeypatch.setattr(post_module.time, "monotonic", lambda: 0.0)
    for share in (0.0, 0.05, 0.1):
        monkeypatch.setattr(post_module.random, "uniform", lambda low, high, share=share: share)
        place(test, limit_max_lifetime=1000)
    assert ends == pytest.approx([1000, 1050, 1100])


@pytest.mark.parametrize(("grown", "asks"), [(1, True), (0, False)])
def test_a_worker_that_has_grown_too_large_asks_for_a_successor(place, monkeypatch, grown, asks):
    limit = 64 << 20
    used = limit // 2
    monkeypatch.setattr(post_module, "resident_memory", lambda: used)

    async def test(it):
        nonlocal used
        it.post.ready({})
        it.supervisor.receive()
        used = limit + grown
        it.post._beat()
        lines = it.supervisor.receive()
        assert any(line.startswith("limit it has grown to 64 MiB") for line in lines) is asks

    place(test, limit_max_memory=limit)


def test_memory_is_what_is_resident():
    before = resident_memory()
    block = bytearray(os.urandom(1) * (64 << 20))
    assert 48 << 20 < resident_memory() - before < 256 << 20
    del block


def test_sigterm_to_one_worker_asks_for_a_successor_and_the_second_makes_it_leave(place):
    """Either way as one of several: whoever waits in the backlog is not its alone."""

    async def test(it):
        it.post.is_fuller(0, 0)  # it accepts
        it.supervisor.receive()
        os.kill(os.getpid(), signal.SIGTERM)
        lines = []
        async with asyncio.timeout(PATIENCE):
            while not lines:
                await asyncio.sleep(0)
                lines = it.supervisor.receive()
        assert lines == ["limit it was sent SIGTERM"]
        assert it.worker.told == []
        os.kill(os.getpid(), signal.SIGTERM)
        await it.worker.hear("retire")

    place(test)


def test_sigterm_before_it_serves_stops_it(place):
    async def test(it):
        os.kill(os.getpid(), signal.SIGTERM)
        await it.worker.hear("stop")

    place(test)


def test_sigquit_ends_it_at_once(place):
    async def test(it):
        os.kill(os.getpid(), signal.SIGQUIT)
        await it.worker.hear("force")

    place(test)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_what_a_terminal_sends_to_all_is_the_supervisors(place, number):
    async def test(it):
        deaf_to_terminal()
        os.kill(os.getpid(), number)
        for _ in range(5):
            await asyncio.sleep(0)
        assert it.worker.told == []
        assert signal.getsignal(number) is not signal.SIG_IGN  # which programs would inherit

    place(test)
