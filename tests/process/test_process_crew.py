"""Who is missing and who may leave: the rules one by one, and any sequence of events at all."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidegate.process.crew import FIRST_DELAY, LONGEST_DELAY, TRIES, YOUNG, Crew
from tidegate.process.handle import Handle, State

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


def test_who_starts_when_fewer_are_wanted_leaves_before_it_serves():
    """Also where it hangs in its import: it would be counted for ever."""
    crew, _ = crew_of(2, READY, READY)
    crew.wanted = 3
    starting = handle_of(crew)
    assert crew.surplus() is None
    crew.wanted = 2
    assert crew.surplus() is starting
    starting.enter(LEAVING, 1.0)
    assert (crew.missing(1.0), crew.surplus()) == (0, None)


def test_a_successor_that_starts_is_not_one_too_many():
    crew, (first, _) = crew_of(2, READY, READY)
    first.due = "it is old"
    assert crew.missing(1.0) == 1
    handle_of(crew)
    assert crew.surplus() is None


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
                assert handle.generation < crew.generation or crew.count(READY) >= crew.wanted
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
TestAnySequence.settings = settings(max_examples=150, stateful_step_count=40)
