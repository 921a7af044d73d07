"""The supervisor's turns, one by one: what it makes of what it hears, without a process behind."""

from __future__ import annotations

import logging
import os
import signal
import time
from types import SimpleNamespace

import pytest
from tests.support.house import LOG, a_house, worker_of

from tidegate.process import births
from tidegate.process import upgrade as upgrade_module
from tidegate.process.channel import Channel
from tidegate.process.crew import TRIES
from tidegate.process.handle import STACK_SIGNAL, State
from tidegate.process.supervisor import HANGUP, REFUSED, Phase
from tidegate.process.watchman import KILL_AFTER, SLOW_START

READY, LEAVING, HANGING = State.READY, State.LEAVING, State.HANGING


def ready(house):
    """A worker that serves; nobody's process."""
    handle, side = worker_of(house)
    house._on_word(handle, "ready", '{"notes": []}')
    return handle, side


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, LOG)
    return caplog


@pytest.fixture
def sent(monkeypatch):
    """The signals that would have gone out."""
    sent = []
    monkeypatch.setattr(
        "tidegate.process.handle.send_signal", lambda pid, number: sent.append((pid, number))
    )
    return sent


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


def test_one_that_hangs_after_long_service_did_not_end_early():
    """`since` tells when it began to hang: that is not when it began to serve."""
    house = a_house()
    for _ in range(3):
        handle, _side = ready(house)
        handle.ready_at = 0.0
        handle.enter(HANGING, 1000.0)
        house._on_end(handle, 1000.5)
    assert house.crew.missing(1000.5) == 1


# -- the end ---------------------------------------------------------------------------------------


def test_a_server_that_is_given_up_ends_those_who_still_start(said, sent):
    house = a_house()
    starting, side = worker_of(house)
    starting.pid = 4711
    house.report.fatal = True
    house._look_for_the_end()
    assert (house.phase, starting.state, house._code) == (Phase.STOPPING, LEAVING, None)
    assert sent == [(4711, signal.SIGTERM)]
    assert side.receive() == ["stop"]
    house.crew.handles.clear()
    house._look_for_the_end()
    assert house._code == REFUSED


def test_a_first_start_that_failed_is_forgotten_once_one_succeeds(said):
    """With --reload it is waited for: the end that follows may be in good order."""
    house = a_house()
    house.report.fatal = True
    ready(house)
    house._on_ending_signal(signal.SIGTERM)
    house.crew.handles.clear()
    house._look_for_the_end()
    assert house._code == 0


def test_it_is_not_given_up_while_a_new_binary_starts(said):
    """Its sockets are what the new one will serve on."""
    house = a_house()
    house.crew.tries = TRIES
    house.upgrade._successor, theirs = Channel.pair()
    house._look_for_the_end()
    assert house.phase is Phase.SERVING
    house.upgrade._successor.close()
    house.upgrade._successor = None
    house._look_for_the_end()
    assert (house.phase, house._code) == (Phase.STOPPING, 1)
    theirs.close()


def test_a_forced_end_does_not_wait_for_a_loop_that_stands_still(said, sent):
    house = a_house()
    deaf, _side = ready(house)
    deaf.pid = 4711
    deaf.ready_at -= 60
    house._on_ending_signal(signal.SIGINT)
    assert sent == []
    house._on_ending_signal(signal.SIGINT)
    assert (deaf.state, sent) == (HANGING, [(4711, STACK_SIGNAL)])
    assert house._watchman.due < time.monotonic() + KILL_AFTER


def test_a_forced_end_gives_a_loop_that_turns_its_time(said, sent):
    house = a_house()
    handle, side = ready(house)
    handle.pid = 4711
    handle.ready_at += 600  # it turns, however long this test takes
    house._on_ending_signal(signal.SIGINT)
    house._on_ending_signal(signal.SIGINT)
    assert (handle.state, sent, side.receive()) == (LEAVING, [], ["stop", "force"])


# -- looks -----------------------------------------------------------------------------------------


def beats(house, handle, now):
    """It turns, and is looked at."""
    handle.seat = SimpleNamespace(beaten=now, leave=lambda: None)
    house._watchman._next_look = 0.0
    house._watchman.look([handle], [], now)


def look(house, after=0.0):
    house._watchman.look(house.crew.handles, house.births.importers, time.monotonic() + after)


def test_one_that_leaves_and_does_not_answer_is_named_once(said):
    house = a_house()
    handle, _side = ready(house)
    handle.pid = 4711
    house._on_ending_signal(signal.SIGTERM)
    for after in (0.5, 1.5, 2.5, 3.5, 4.5):
        look(house, after)
    assert sum("Worker 4711 does not answer" in text for text in said.messages) == 1


@pytest.mark.parametrize(("options", "longest"), [
    ({}, 2 * 30 + 2 * 5 + 2 + KILL_AFTER),
    ({"reload": True, "app": "tide:app"}, 2 * 30 + 2 * 5 + 2 + KILL_AFTER),
    ({"timeout_graceful_shutdown": 1, "drain_idle": 0, "timeout_linger": 0}, 2 + KILL_AFTER),
])  # fmt: skip
def test_one_that_does_not_leave_is_killed_when_all_grace_is_over(options, longest, said, sent):
    house = a_house(**options)
    handle, _side = ready(house)
    handle.pid = 4711
    handle.enter(LEAVING, 1000.0)
    for after, expected in ((0.0, []), (longest, []), (longest + 0.1, [(4711, signal.SIGKILL)])):
        beats(house, handle, 1000.0 + after)
        assert sent == expected
    handle.let_go()


def test_who_does_not_answer_at_a_reload_is_not_waited_for_so_long(said, sent):
    house = a_house(reload=True, app="tide:app")
    handle, _side = ready(house)
    handle.pid = 4711
    handle.enter(LEAVING, 1000.0)
    for after in range(10):
        house._watchman.look([handle], [], 1000.0 + after)
        assert sent == []
    house._watchman.look([handle], [], 1010.0)
    assert sent == [(4711, signal.SIGKILL)]
    handle.let_go()


def test_one_found_deaf_after_the_end_was_forced_is_shown_too(said, sent):
    house = a_house()
    handle, _side = ready(house)
    handle.pid = 4711
    house._on_ending_signal(signal.SIGINT)
    house._on_ending_signal(signal.SIGINT)
    assert sent == []
    for after in (0.5, 1.5, 2.5):
        look(house, after)
    assert sent == [(4711, STACK_SIGNAL)]
    assert "does not answer" not in said.text


def test_a_slow_import_is_named(said):
    house = a_house(preload=True)
    ours, theirs = Channel.pair()
    house.births.importers.append(births.Importer(4711, ours, 0, 0))
    look(house, SLOW_START - 1)
    assert said.messages == []
    look(house, SLOW_START + 1)
    look(house, SLOW_START + 3)
    (line,) = said.messages
    assert "importer (process 4711)" in line
    ours.close()
    theirs.close()


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False])
def test_one_that_is_killed_while_it_leaves_is_a_loss_unless_we_did_it(ours, said, sent):
    house = a_house()
    handle, _side = ready(house)
    handle.pid = 4711
    house.restart("SIGHUP")
    handle.enter(LEAVING, 1.0)
    if ours:
        handle.kill(signal.SIGKILL)
    handle.status = int(signal.SIGKILL)
    said.clear()
    house._on_end(handle, 2.0)
    assert any("Worker 4711 is gone: killed by SIGKILL" in text for text in said.messages) != ours


def test_workers_that_end_soon_after_their_start_are_counted_aloud(said):
    house = a_house()
    for _ in range(3):
        handle, _side = ready(house)
        handle.status = 0x300
        house._on_end(handle, handle.ready_at + 0.1)
    told = [text for text in said.messages if "in a row" in text]
    assert [text.split()[0] for text in told] == ["2", "3"]
    assert "starts in 0.5 s" in told[0] or "starts in 0.4 s" in told[0]


def test_an_importer_that_cannot_fork_is_a_start_that_failed(said):
    house = a_house(preload=True)
    handle, _side = worker_of(house)
    ours, theirs = Channel.pair()
    importer = births.Importer(4711, ours, 0, 0)
    handle.importer = importer.pid
    house._on_importer_word(importer, "unborn", f"{handle.seat.number} too many processes")
    house.births.importers.append(importer)
    assert house.births.reap([handle]) == [handle]
    house._on_end(handle, 1.0)
    assert "No process can be started: too many processes." in said.text
    assert house.crew.tries == 1
    ours.close()
    theirs.close()


# -- keys, systemd, the old code -------------------------------------------------------------------


def test_a_restart_brings_the_renewed_keys_along():
    house = a_house()
    handle, _side = ready(house)
    renewed = []
    house.keys = SimpleNamespace(renew=renewed.extend)
    house.restart("SIGHUP")
    assert renewed == [handle.channel]


def test_a_reload_is_over_for_systemd_when_another_process_takes_over():
    house = a_house()
    told = []
    house.report.notifier = SimpleNamespace(
        ready=lambda text: told.append("ready"),
        reloading=lambda: told.append("reloading"),
        main_pid=told.append,
    )
    house.restart("SIGHUP")
    house.report.leave_to(4711)
    assert told == ["reloading", "ready", 4711]


def test_the_importer_before_bears_who_is_missing_after_a_restart_was_given_up():
    house = a_house(preload=True)
    pairs = [Channel.pair() for _ in range(3)]
    older, old, new = (births.Importer(9, ours, at, 0) for at, (ours, _) in enumerate(pairs))
    older.ready = old.ready = new.ready = True  # `new` imports, but its workers do not start
    house.births.importers += [older, old, new]
    house.births.settle_for_the_old(2)
    assert old.generation == 2
    assert older.generation == 0
    assert new.generation < 0
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


# -- SIGHUP, and a terminal ------------------------------------------------------------------------


def at_a_terminal(monkeypatch, *, there):
    """A supervisor that was started at one; `there`: it is so by now."""
    house = a_house()
    house._terminal = True
    monkeypatch.setattr("tidegate.process.supervisor.has_terminal", lambda: there)
    return house


@pytest.mark.parametrize(("ignored", "phase"), [(False, Phase.STOPPING), (True, Phase.SERVING)])
def test_the_end_of_the_terminal_is_the_end_unless_nohup_was_said(ignored, phase, monkeypatch):
    house = at_a_terminal(monkeypatch, there=False)
    house._inbox.was_ignored = lambda number: ignored
    house._on_signal(signal.SIGHUP)
    assert (house.phase, house.crew.generation) == (phase, 0)
    house._on_signal(signal.SIGHUP)
    assert house.crew.generation == (1 if ignored else 0)


def test_a_hangup_long_after_the_terminal_has_gone_is_for_new_code(monkeypatch):
    """Started with `disown`: the shell has left, and nobody was told."""
    house = at_a_terminal(monkeypatch, there=False)
    house._on_time(time.monotonic() + 60)
    house._closed_at -= HANGUP
    house._on_signal(signal.SIGHUP)
    assert (house.phase, house.crew.generation) == (Phase.SERVING, 1)


def test_a_shell_may_take_its_time_to_pass_the_hangup_on(monkeypatch):
    house = at_a_terminal(monkeypatch, there=False)
    house._on_time(time.monotonic() + 60)
    house._on_signal(signal.SIGHUP)
    assert (house.phase, house.crew.generation) == (Phase.STOPPING, 0)


def test_a_hangup_while_the_terminal_is_there_is_for_new_code(monkeypatch):
    house = at_a_terminal(monkeypatch, there=True)
    house._on_time(time.monotonic() + 60)
    house._on_signal(signal.SIGHUP)
    assert (house.phase, house.crew.generation) == (Phase.SERVING, 1)
