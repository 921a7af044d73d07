"""A worker's states, row by row, and what is kept of what it writes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from tidegate.process.board import Board
from tidegate.process.channel import Channel
from tidegate.process.handle import NEXT, Handle, State

S = State
MAY = {
    (S.STARTING, S.READY), (S.STARTING, S.LEAVING), (S.STARTING, S.HANGING), (S.STARTING, S.GONE),
    (S.READY, S.LEAVING), (S.READY, S.HANGING), (S.READY, S.GONE),
    (S.LEAVING, S.HANGING), (S.LEAVING, S.GONE),
    (S.HANGING, S.GONE),
}  # fmt: skip


class Ends:
    """A handle and the worker's side of it."""

    def __init__(self):
        ours, self.channel = Channel.pair()
        stack, self.stack_in = os.pipe()
        os.set_blocking(stack, False)
        self.handle = Handle(ours, stack, Board(4).seat(0), generation=0)


@pytest.fixture
def ends():
    made = Ends()
    yield made
    made.channel.close()
    if made.stack_in >= 0:
        os.close(made.stack_in)


def bare(state=S.STARTING):
    handle = Handle(None, -1, SimpleNamespace(number=0), generation=0)
    handle.state = state
    return handle


@pytest.mark.parametrize("after", State)
@pytest.mark.parametrize("before", State)
def test_what_may_follow(before, after):
    handle = bare(before)
    if (before, after) in MAY:
        handle.enter(after, 7.0)
        assert (handle.state, handle.since) == (after, 7.0)
    else:
        with pytest.raises(RuntimeError, match=f"from {before.name} to {after.name}"):
            handle.enter(after, 7.0)
        assert (handle.state, handle.since) == (before, 0.0)


def test_every_state_has_its_row():
    assert set(NEXT) == set(State)


def test_it_remembers_that_it_has_served():
    handle = bare()
    assert not handle.was_ready
    for state in (S.READY, S.LEAVING, S.GONE):
        handle.enter(state, 1.0)
        assert handle.was_ready


def test_it_is_active_while_it_serves_or_will():
    assert [state for state in State if bare(state).active] == [S.STARTING, S.READY]


def test_a_stack_is_read_as_it_comes(ends):
    ends.handle.read_stack()
    assert ends.handle.stack == ""
    os.write(ends.stack_in, b"\nThread 1:\n")
    ends.handle.read_stack()
    os.write(ends.stack_in, b"  File \xff\n")
    os.close(ends.stack_in)
    ends.stack_in = -1
    ends.handle.read_stack()
    ends.handle.read_stack()
    assert ends.handle.stack == "Thread 1:\n  File \ufffd"
    ends.handle.let_go()


def test_of_a_long_stack_the_beginning_is_kept(ends):
    os.write(ends.stack_in, b"first")
    for _ in range(4):
        os.write(ends.stack_in, b"x" * 60000)
        ends.handle.read_stack()
    assert ends.handle.stack.startswith("firstx")
    assert len(ends.handle.stack) == 16384
    ends.handle.let_go()


def test_letting_go_closes_both(ends):
    ends.handle.let_go()
    assert (ends.channel.receive(), ends.channel.ended) == ([], True)
    with pytest.raises(BrokenPipeError):
        os.write(ends.stack_in, b"x")


@pytest.mark.parametrize(
    ("pid", "state", "killed"),
    [(0, S.READY, []), (42, S.GONE, []), (42, S.STARTING, [42]), (42, S.HANGING, [42])],
)
def test_only_a_process_that_may_be_there_is_sent_a_signal(monkeypatch, pid, state, killed):
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(pid))
    handle = bare(state)
    handle.pid = pid
    handle.kill(15)
    assert sent == killed


def test_a_process_that_has_just_ended_is_no_error(monkeypatch):
    def gone(pid, number):
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", gone)
    handle = bare()
    handle.pid = 42
    handle.kill(15)
