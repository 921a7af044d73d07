"""Who is missing and who may leave: the rules one by one, and any sequence of events at all."""

from __future__ import annotations

import logging
import os
import signal
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidegate.config import Config
from tidegate.process import births
from tidegate.process import upgrade as upgrade_module
from tidegate.process.channel import Channel
from tidegate.process.crew import FIRST_DELAY, LONGEST_DELAY, TRIES, YOUNG, Crew
from tidegate.process.handle import Handle, State
from tidegate.process.keys import Keys
from tidegate.process.supervisor import Supervisor
from tidegate.process.upgrade import Upgrade

STARTING, READY, LEAVING, HANGING = State.STARTING, State.READY, State.LEAVING, State.HANGING
LATER = 1e9


def handle_of(crew, state=STARTING, *, generation=None, now=0.0, due=""):
    """One more in the crew, in this state."""
    seat = SimpleNamespace(number=crew.lowest_seat())
    generation = crew.generation if generation is None else generation
    handle = Handle(None, -1, seat, generation=generation)
    handle.round = crew.round
    crew.handles.append(handle)
    if state is not STARTING:
        crew.on_ready(handle, now)
    if state not in {STARTING, READY}:
        handle.enter(state, now)
    handle.due = due
    return handle


def crew_of(wanted, *states, **options):
    crew = Crew(wanted)
    return crew, [handle_of(crew, state, **options) for state in states]


def end(crew, handle, now=0.0):
    """It has ended, and the supervisor has noticed."""
    crew.handles.remove(handle)
    before, served = handle.state, now - handle.since
    handle.enter(State.GONE, now)
    if before is LEAVING:
        return
    if handle.was_ready:
        crew.on_lost(served, now)
    else:
        crew.on_failed_start(handle.round, now)
        if crew.rolling and crew.tries and crew.count(READY):
            crew.settle_for_the_old()


# ---------------------------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("wanted", "states", "missing"),
    [
        (3, [], 3),
        (3, [STARTING], 2),
        (3, [STARTING] * 3, 0),
        (3, [READY] * 3, 0),
        (3, [READY, READY], 1),
        (3, [READY], 2),
        (3, [READY, READY, LEAVING], 1),
        (3, [READY, READY, HANGING], 1),
        (2, [READY] * 3, 0),
        (2, [READY, READY, STARTING], 0),
    ],
)
def test_who_is_missing_is_started_at_once(wanted, states, missing):
    crew, _ = crew_of(wanted, *states)
    assert crew.missing(0.0) == missing


@pytest.mark.parametrize("states", [[READY] * 3, [STARTING] * 3, [READY, READY, LEAVING], [READY]])
def test_nobody_leaves_who_is_needed(states):
    crew, handles = crew_of(3, *states)
    for handle in handles:
        handle.due = "it is old"
    assert crew.surplus() is None


def test_one_who_is_due_gets_a_successor_first():
    crew, (old, other) = crew_of(2, READY, READY)
    old.due = "it has grown"
    assert (crew.missing(0.0), crew.surplus()) == (1, None)
    successor = handle_of(crew)
    assert (crew.missing(0.0), crew.surplus()) == (0, None)
    crew.on_ready(successor, 1.0)
    assert crew.surplus() is old
    old.enter(LEAVING, 1.0)
    assert (crew.missing(0.0), crew.surplus()) == (0, None)
    end(crew, old, 2.0)
    assert (crew.missing(2.0), crew.surplus()) == (0, None)
    assert crew.handles == [other, successor]


def test_all_who_are_due_at_once_are_replaced_one_after_the_other():
    crew, old = crew_of(4, *[READY] * 4, due="it has served its requests")
    replaced = []
    for _ in range(4):
        assert crew.missing(0.0) == 1
        crew.on_ready(handle_of(crew), 1.0)
        leaver = crew.surplus()
        leaver.enter(LEAVING, 1.0)
        replaced.append(leaver)
        assert (crew.missing(0.0), crew.surplus()) == (0, None)
        end(crew, leaver, 2.0)
    assert replaced == old
    assert crew.missing(0.0) == 0


def test_a_rolling_restart_replaces_one_at_a_time_the_oldest_first():
    crew, old = crew_of(3, READY, READY, READY)
    crew.renew()
    replaced = []
    for _ in range(3):
        assert crew.rolling
        assert crew.missing(0.0) == 1
        crew.on_ready(handle_of(crew), 1.0)
        replaced.append(leaver := crew.surplus())
        leaver.enter(LEAVING, 1.0)
        assert crew.missing(0.0) == 0
        end(crew, leaver, 2.0)
    assert replaced == old
    assert not crew.rolling
    assert crew.missing(0.0) == 0


def test_a_crash_in_a_rolling_restart_needs_nobody_beside_the_newcomer():
    crew, (first, _) = crew_of(2, READY, READY)
    crew.renew()
    newcomer = handle_of(crew)
    end(crew, first, YOUNG)
    assert crew.missing(YOUNG) == 0
    crew.on_ready(newcomer, YOUNG)
    assert crew.surplus() is None
    assert crew.missing(YOUNG) == 1  # for the one with old code that is left


@pytest.mark.parametrize("state", [LEAVING, HANGING])
def test_one_who_ends_while_it_leaves_or_hangs_lets_the_restart_go_on(state):
    crew, (leaver, *_) = crew_of(2, READY, READY, READY)
    for handle in crew.handles[:2]:
        handle.due = "x"
    leaver.enter(state, 1.0)
    assert (crew.missing(1.0), crew.surplus()) == (0, None)
    end(crew, leaver, 2.0)
    assert crew.missing(2.0) == 1


def test_fewer_are_asked_for_and_the_newest_leaves():
    crew, handles = crew_of(3, READY, READY, READY)
    handles[1].since = 5.0
    crew.wanted = 2
    assert crew.missing(0.0) == 0
    assert crew.surplus() is handles[1]


def test_fewer_are_asked_for_in_a_rolling_restart_and_old_code_leaves_first():
    crew, old = crew_of(3, READY, READY, READY)
    crew.renew()
    newcomer = handle_of(crew)
    crew.wanted = 2
    leaver = crew.surplus()
    assert leaver is old[0]
    leaver.enter(LEAVING, 1.0)
    crew.on_ready(newcomer, 1.0)
    assert crew.surplus() is None  # one at a time
    end(crew, leaver, 2.0)
    assert crew.surplus() is old[1]


def test_more_are_asked_for_and_started_at_once():
    crew, _ = crew_of(2, READY, READY)
    crew.wanted = 4
    assert crew.missing(0.0) == 2


def test_seats_are_given_again_from_the_lowest():
    crew, handles = crew_of(3, READY, READY, READY)
    assert [handle.seat.number for handle in handles] == [0, 1, 2]
    end(crew, handles[1])
    assert crew.lowest_seat() == 1


# ---------------------------------------------------------------------------------- failures


def test_the_failures_of_one_round_count_once():
    crew, handles = crew_of(3, STARTING, STARTING, STARTING)
    assert [crew.on_failed_start(handle.round, 10.0) for handle in handles] == [True, False, False]
    assert crew.tries == 1


def test_after_a_failure_one_goes_ahead():
    crew, handles = crew_of(3, STARTING, STARTING, STARTING)
    for handle in handles:
        end(crew, handle, 10.0)
    assert crew.missing(10.0 + FIRST_DELAY / 2) == 0
    assert crew.missing(10.0 + FIRST_DELAY) == 1
    ahead = handle_of(crew)
    assert crew.missing(LATER) == 0
    crew.on_ready(ahead, 11.0)
    assert crew.missing(11.0) == 2


def test_each_failing_round_waits_twice_as_long_up_to_a_bound():
    crew = Crew(1)
    delays = []
    for _ in range(10):
        end(crew, handle_of(crew), 0.0)
        delays.append(crew.not_before)
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY


def test_failing_for_days_beside_a_worker_that_serves_is_endured():
    crew, _ = crew_of(2, READY)
    for _ in range(3000):  # 25 hours, at one try in 30 s
        end(crew, handle_of(crew), 0.0)
    assert crew.not_before == LONGEST_DELAY
    assert not crew.hopeless


def test_it_is_hopeless_after_some_rounds_without_anybody_who_serves():
    crew = Crew(2)
    for tried in range(TRIES):
        assert not crew.hopeless, tried
        end(crew, handle_of(crew), 0.0)
    assert crew.hopeless


@pytest.mark.parametrize("state", [READY, LEAVING, HANGING])
def test_it_is_not_hopeless_while_anybody_serves(state):
    crew, _ = crew_of(2, state)
    for _ in range(2 * TRIES):
        end(crew, handle_of(crew), 0.0)
    assert not crew.hopeless


def test_a_success_forgets_the_failures():
    crew = Crew(1)
    for _ in range(TRIES - 1):
        end(crew, handle_of(crew), 0.0)
    served = handle_of(crew, READY)
    end(crew, served, YOUNG)
    end(crew, handle_of(crew), YOUNG)
    assert crew.tries == 1
    assert not crew.hopeless


def test_a_crash_after_a_while_is_made_good_at_once():
    crew, handles = crew_of(2, READY, READY)
    for _ in range(20):
        end(crew, handles.pop(0), YOUNG)
        assert crew.missing(YOUNG) == 1
        handles.append(handle_of(crew, READY, now=0.0))


def test_crashes_soon_after_the_start_are_not_made_good_in_haste():
    crew = Crew(2)
    delays = []
    for _ in range(20):
        end(crew, handle_of(crew, READY), 1.0)
        delays.append(max(0.0, crew.not_before - 1.0))
    assert delays[:5] == [0, 0, FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY


def test_one_that_hangs_after_long_service_did_not_end_early():
    """`since` tells when it began to hang: that is not when it began to serve."""
    report = SimpleNamespace(on_lost=lambda handle, *, hung: None)
    house = SimpleNamespace(crew=Crew(1), report=report, reloading=None)
    for _ in range(3):
        handle = handle_of(house.crew, READY, now=0.0)
        handle.enter(HANGING, 1000.0)
        handle.seat = SimpleNamespace(clear=lambda: None)
        handle.channel, other = Channel.pair()
        handle.stack_fd = os.dup(other.fileno())
        other.close()
        Supervisor._on_end(house, handle, 1000.5)
    assert house.crew.missing(1000.5) == 1


def test_new_code_that_does_not_start_leaves_the_old_in_peace():
    crew, old = crew_of(2, READY, READY)
    crew.renew()
    end(crew, handle_of(crew), 1.0)
    assert not crew.rolling
    assert (crew.missing(LATER), crew.surplus()) == (0, None)
    assert crew.handles == old


def test_who_was_due_before_such_a_restart_still_is():
    crew, (first, _) = crew_of(2, READY, READY)
    first.due = "it is old"
    crew.renew()
    end(crew, handle_of(crew), 1.0)
    assert crew.missing(LATER) == 1


def test_awaiting_a_change_starts_nobody_until_there_is_one():
    crew = Crew(2)
    crew.await_change()
    assert crew.missing(LATER) == 0
    crew.renew()
    assert crew.missing(0.0) == 2


def test_a_restart_while_the_first_start_fails_tries_again_at_once():
    crew = Crew(2)
    for _ in range(TRIES - 1):
        end(crew, handle_of(crew), 5.0)
    crew.renew()
    assert crew.missing(5.0) == 2


def test_a_restart_is_not_given_up_for_a_failure_of_the_code_before():
    """HUP with broken code, then HUP with good code, before the broken one has failed."""
    crew, _ = crew_of(2, READY, READY)
    crew.renew()
    broken = handle_of(crew)
    crew.renew()
    end(crew, broken, 1.0)
    assert crew.rolling
    assert crew.tries == 0
    assert crew.missing(1.0) == 1


def test_a_start_that_never_ends_does_not_block_the_next_restart():
    """HUP with code that hangs at its start, then HUP with good code: the first is of no use."""
    crew, _ = crew_of(2, READY, READY)
    crew.renew()
    stuck = handle_of(crew)
    crew.renew()
    assert crew.missing(1.0) == 1 or crew.surplus() is stuck


def test_the_end_of_a_rolling_restart_is_told(caplog):
    """systemd's `reload` waits for it: the last of the old leaves after the last ready was heard."""
    house = a_house()
    first, _first_side = worker_of(house)
    house._on_word(first, "ready", "{}")
    with caplog.at_level(logging.INFO, "tidegate.test"):
        house.restart("SIGHUP")
        second, _second_side = worker_of(house)
        house._on_word(second, "ready", "{}")
        house._let_surplus_go()
        assert first.state is LEAVING
        first.status = 0
        house._on_end(first, 2.0)
        house._let_surplus_go()
        house._see_complete()
    assert "All workers are new." in caplog.messages


def test_where_nothing_can_be_forked_it_is_said_and_tried_again(caplog, monkeypatch):
    house = a_house()

    def fork():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(births, "fork", fork)
    monkeypatch.setattr(upgrade_module, "fork", fork)
    before = len(os.listdir("/proc/self/fd"))
    with caplog.at_level(logging.INFO, "tidegate.test"):
        assert house._start_missing() is None
        house._on_signal(signal.SIGUSR2)
    assert house.crew.handles == []
    assert house.crew.not_before > 0
    assert sum("No process can be started" in text for text in caplog.messages) == 2
    assert sum("Trying again" in text for text in caplog.messages) == 1
    assert len(os.listdir("/proc/self/fd")) == before


def a_house():
    """A supervisor of one worker that nobody has started, with nothing to listen on."""
    config = Config()
    return Supervisor(
        config,
        SimpleNamespace(all=[]),
        1,
        logging.getLogger("tidegate.test"),
        upgrade=Upgrade({}, "."),
        reloading=None,
        keys=Keys(config, handed=False),
        owner=SimpleNamespace(on_ready=lambda facts: None, on_complete=lambda: None),
    )


def worker_of(house):
    """A handle in the house's crew, and the worker's side of its channel."""
    ours, theirs = Channel.pair()
    seat = house.board.seat(house.crew.lowest_seat())
    stack_fd = os.dup(theirs.fileno())
    handle = Handle(ours, stack_fd, seat, generation=house.crew.generation)
    house.crew.handles.append(handle)
    return handle, theirs


# ---------------------------------------------------------------------------------- any sequence


class AnySequence(RuleBasedStateMachine):
    """What the supervisor does each turn, between whatever may happen."""

    def __init__(self):
        super().__init__()
        self.crew = Crew(2)
        self.now = 100.0

    def some(self, pick, *states):
        found = [handle for handle in self.crew.handles if handle.state in states]
        return found[pick % len(found)] if found else None

    def turn(self):
        crew = self.crew
        missing = crew.missing(self.now)
        assert missing == 0 or self.now >= crew.not_before
        assert crew.active + missing <= max(crew.wanted + 1, crew.active)
        if crew.active + missing > crew.wanted and missing:
            assert missing == 1
            assert crew._replaceable()
        for _ in range(missing):
            handle_of(crew)
        while (handle := crew.surplus()) is not None:
            handle.enter(LEAVING, self.now)
            if not handle.was_ready:
                assert handle.generation < crew.generation
                continue
            assert crew.count(READY) >= crew.wanted
            assert sum(one.was_ready for one in crew.handles if one.state is LEAVING) == 1

    @rule()
    def look(self):
        self.turn()

    @rule(pick=st.integers(0, 9))
    def ready(self, pick):
        if handle := self.some(pick, STARTING):
            self.crew.on_ready(handle, self.now)

    @rule(pick=st.integers(0, 9))
    def ends(self, pick):
        if handle := self.some(pick, STARTING, READY, LEAVING, HANGING):
            end(self.crew, handle, self.now)

    @rule(pick=st.integers(0, 9))
    def hangs(self, pick):
        if handle := self.some(pick, READY, LEAVING):
            handle.enter(HANGING, self.now)

    @rule(pick=st.integers(0, 9))
    def due(self, pick):
        if handle := self.some(pick, READY):
            handle.due = "its time is up"

    @rule()
    def all_due(self):
        for handle in self.crew.handles:
            handle.due = "its time is up"

    @rule()
    def renew(self):
        self.crew.renew()

    @rule(workers=st.integers(1, 5))
    def resize(self, workers):
        self.crew.wanted = workers

    @rule(seconds=st.floats(0, 60))
    def time(self, seconds):
        self.now += seconds

    @precondition(lambda self: not self.crew.hopeless)
    @rule()
    def comes_to_rest(self):
        """From here on everything works: then the crew is whole after so many turns."""
        crew = self.crew
        for _ in range(200):
            self.now = max(self.now, crew.not_before)
            self.turn()
            for handle in list(crew.handles):
                if handle.state is STARTING:
                    crew.on_ready(handle, self.now)
                    break
                if handle.state in {LEAVING, HANGING}:
                    crew.handles.remove(handle)
                    break
            else:
                break
        assert [handle.state for handle in crew.handles] == [READY] * crew.wanted
        assert {handle.generation for handle in crew.handles} == {crew.generation}
        assert not any(handle.due for handle in crew.handles)
        assert (crew.missing(self.now), crew.surplus()) == (0, None)

    @invariant()
    def seats_differ(self):
        numbers = [handle.seat.number for handle in self.crew.handles]
        assert len(numbers) == len(set(numbers))


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
