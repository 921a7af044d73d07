"""Both pollers, one suite: what a handler is told, and when it is no longer."""

from __future__ import annotations

import asyncio
import select
import socket

import pytest

from tidegate.errors import ConfigurationError
from tidegate.net import epoll as epoll_module
from tidegate.net.poller import ReaderPoller, choose

KINDS = ["epoll", "reader"] if hasattr(select, "epoll") else ["reader"]


class Handler:
    """Counts what it is told; reads one byte a time, so that level triggering shows."""

    def __init__(self, sock):
        self.sock = sock
        self.read = b""
        self.reads = self.writes = 0
        self.errors = []
        self.on_read = self.on_write = lambda: None

    def on_readable(self):
        self.reads += 1
        try:
            self.read += self.sock.recv(1)
        except (BlockingIOError, ConnectionResetError):
            pass
        self.on_read()

    def on_writable(self):
        self.writes += 1
        self.on_write()

    def on_error(self, error):
        self.errors.append(error)


class Room:
    """A loop turned by hand with one poller in it."""

    def __init__(self, kind):
        self.loop = asyncio.new_event_loop()
        self.errors = []  # what got past the poller
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        self.ticks = 0
        self.poller = choose(kind, self.loop, self.tick)
        self.socks = []

    def tick(self):
        self.ticks += 1

    def turn(self, times=5):
        async def turns():
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def pair(self, register=True):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.socks += [ours, theirs]
        handler = Handler(ours)
        if register:
            self.poller.add(ours.fileno(), handler)
        return handler, theirs

    def close(self):
        self.poller.close()
        self.loop.close()
        for sock in self.socks:
            sock.close()


def room_left(call):
    """Whether the kernel did it without blocking."""
    try:
        call()
    except BlockingIOError:
        return False
    return True


@pytest.fixture(params=KINDS)
def room(request):
    made = Room(request.param)
    yield made
    made.close()
    assert made.errors == []


def test_a_handler_is_told_until_it_has_read_everything(room):
    handler, client = room.pair()
    client.send(b"abc")
    room.turn(10)
    assert handler.read == b"abc"
    assert handler.reads == 3
    assert handler.writes == 0
    room.turn(10)
    assert handler.reads == 3


def test_nobody_is_told_of_what_happens_to_others(room):
    first, one = room.pair()
    second, two = room.pair()
    one.send(b"1")
    room.turn()
    assert (first.read, second.read) == (b"1", b"")
    two.send(b"2")
    room.turn()
    assert (first.read, second.read) == (b"1", b"2")


def test_the_clock_is_read_before_a_handler_is_told(room):
    handler, client = room.pair()
    ticks = []
    handler.on_read = lambda: ticks.append(room.ticks)
    client.send(b"a")
    room.turn()
    assert ticks[0] >= 1


def test_reading_stops_and_goes_on(room):
    handler, client = room.pair()
    room.poller.watch(handler.sock.fileno(), False, False)
    client.send(b"abc")
    room.turn()
    assert handler.reads == 0
    room.poller.watch(handler.sock.fileno(), True, False)
    room.turn()
    assert handler.read == b"abc"


def test_writing_is_told_only_while_it_is_watched(room):
    handler, _ = room.pair()
    fd = handler.sock.fileno()
    room.turn()
    assert handler.writes == 0
    room.poller.watch(fd, True, True)
    room.turn()
    before = handler.writes
    assert before >= 1
    room.poller.watch(fd, True, False)
    room.turn()
    assert handler.writes == before


def test_a_full_socket_is_told_of_once_there_is_room(room):
    handler, client = room.pair()
    while room_left(lambda: handler.sock.send(bytes(65536))):
        pass
    room.poller.watch(handler.sock.fileno(), False, True)
    room.turn()
    assert handler.writes == 0
    while room_left(lambda: client.recv(1 << 20)):
        pass
    room.turn()
    assert handler.writes >= 1


def test_reading_and_writing_at_once(room):
    handler, client = room.pair()
    client.send(b"a")
    room.poller.watch(handler.sock.fileno(), True, True)
    room.turn()
    assert handler.read == b"a"
    assert handler.writes >= 1


def test_a_hang_up_is_told_as_readable(room):
    handler, client = room.pair()
    client.close()
    room.turn()
    assert handler.reads >= 1
    assert handler.read == b""


def test_after_remove_nothing_is_told(room):
    handler, client = room.pair()
    room.poller.watch(handler.sock.fileno(), True, True)
    room.poller.remove(handler.sock.fileno())
    client.send(b"abc")
    room.turn()
    assert (handler.reads, handler.writes) == (0, 0)


def test_remove_twice_is_remove_once(room):
    handler, _ = room.pair()
    fd = handler.sock.fileno()
    room.poller.remove(fd)
    room.poller.remove(fd)


def test_a_removed_descriptor_is_forgotten_although_a_duplicate_lives(room):
    """epoll watches open files, not descriptors: closing one end of a duplicate is not enough."""
    handler, client = room.pair()
    duplicate = handler.sock.dup()
    room.poller.remove(handler.sock.fileno())
    handler.sock.close()
    client.send(b"abc")
    before = room.ticks
    room.turn(20)
    assert handler.reads == 0
    assert room.ticks <= before + 1  # and the loop is not woken for it
    duplicate.close()


def test_a_number_used_again_belongs_to_its_new_owner(room):
    handler, client = room.pair()
    fd = handler.sock.fileno()
    room.poller.remove(fd)
    handler.sock.close()
    successor, other = room.pair(register=False)
    moved = socket.socket(fileno=successor.sock.detach())
    successor.sock = moved
    room.socks.append(moved)
    room.poller.add(moved.fileno(), successor)
    other.send(b"x")
    room.turn()
    assert successor.read == b"x"
    assert handler.reads == 0
    client.close()


def test_who_is_closed_by_another_in_the_same_batch_is_not_told(room):
    first, one = room.pair()
    second, two = room.pair()

    def close_other(me, other):
        def close():
            room.poller.remove(other.sock.fileno())
            me.on_read = lambda: None

        return close

    first.on_read = close_other(first, second)
    second.on_read = close_other(second, first)
    one.send(b"1")
    two.send(b"2")
    room.turn()
    assert sorted([first.read, second.read]) in ([b"", b"1"], [b"", b"2"])


def test_who_closes_itself_when_writing_is_not_told_to_read(room):
    handler, client = room.pair()
    fd = handler.sock.fileno()
    handler.on_write = lambda: room.poller.remove(fd)
    handler.on_read = handler.on_write
    client.send(b"a")
    room.poller.watch(fd, True, True)
    room.turn()
    assert handler.reads + handler.writes == 1


@pytest.mark.parametrize("what", ["on_read", "on_write"])
def test_a_bug_in_one_handler_is_its_own_affair(room, what):
    bad, one = room.pair()
    good, two = room.pair()

    def bug():
        room.poller.remove(bad.sock.fileno())
        raise RuntimeError("a bug")

    setattr(bad, what, bug)
    one.send(b"1")
    two.send(b"22")
    room.poller.watch(bad.sock.fileno(), what == "on_read", what == "on_write")
    room.turn()
    assert [str(error) for error in bad.errors] == ["a bug"]
    assert good.read == b"22"
    assert good.errors == []


def test_more_ready_descriptors_than_a_batch_are_all_told(room, monkeypatch):
    monkeypatch.setattr(epoll_module, "BATCH", 4)
    pairs = [room.pair() for _ in range(20)]
    for _, client in pairs:
        client.send(b"x")
    room.turn(20)
    assert all(handler.read == b"x" for handler, _ in pairs)


def test_nobody_in_a_full_batch_is_told_for_ever_before_the_others(room, monkeypatch):
    """The endlessly readable must not keep those behind them waiting."""
    monkeypatch.setattr(epoll_module, "BATCH", 4)
    greedy = [room.pair() for _ in range(8)]
    for _, client in greedy:
        client.send(bytes(5000))
    modest, client = room.pair()
    client.send(b"x")
    room.turn(20)
    assert modest.read == b"x"


def test_close_leaves_nothing_watched(room):
    handler, client = room.pair()
    room.poller.watch(handler.sock.fileno(), True, True)
    room.poller.close()
    room.poller.close()
    client.send(b"x")
    room.turn()
    assert (handler.reads, handler.writes) == (0, 0)


@pytest.mark.parametrize("kind", ["epoll", "reader"])
def test_a_hang_up_nobody_watches_for_does_not_wake_the_loop(kind):
    room = Room(kind)
    handler, client = room.pair()
    room.poller.watch(handler.sock.fileno(), False, False)
    client.close()
    room.turn()
    before = room.ticks
    room.turn(50)
    assert room.ticks == before
    room.close()


# ---------------------------------------------------------------------------------- a batch's end


class Batch:
    """Handlers that write down when they are told, and when their batch has ended."""

    def __init__(self, room, count):
        self.diary = []
        self.now = 5.0
        room.poller._read = lambda: self.now
        self.takes = dict.fromkeys(range(count), 0.0)  # seconds each one takes
        self.bugs = set()
        self.members = [self._make(room, name) for name in range(count)]

    def _make(self, room, name):
        handler, client = room.pair()

        def on_read():
            self.diary.append(f"read {name}")
            self.now += self.takes[name]
            room.poller.batch.append(handler)

        def on_batch_end():
            self.diary.append(f"end {name}")
            if name in self.bugs:
                raise RuntimeError("a bug")

        handler.on_read, handler.on_batch_end = on_read, on_batch_end
        client.send(b"x")
        return handler


@pytest.fixture
def batches():
    made = Room("epoll")
    yield made
    made.close()
    assert made.errors == []


def test_the_end_of_a_batch_is_told_once_when_all_have_had_their_turn(batches):
    batch = Batch(batches, 3)
    batches.turn()
    assert batch.diary == ["read 0", "read 1", "read 2", "end 0", "end 1", "end 2"]
    batches.turn()
    assert len(batch.diary) == 6


def test_nobody_waits_long_for_the_others_of_a_batch(batches):
    batch = Batch(batches, 5)
    batch.takes[1] = epoll_module.PATIENCE * 1.5
    batch.takes[3] = epoll_module.PATIENCE * 0.9
    batches.turn()
    assert batch.diary == [
        "read 0", "read 1", "end 0", "end 1", "read 2", "read 3", "read 4", "end 2", "end 3", "end 4"
    ]  # fmt: skip


def test_a_bug_at_the_end_of_a_batch_is_one_handler_s_own_affair(batches):
    batch = Batch(batches, 3)
    batch.bugs = {1}
    batches.turn()
    assert batch.diary[3:] == ["end 0", "end 1", "end 2"]
    assert [len(member.errors) for member in batch.members] == [0, 1, 0]


def test_where_every_handler_has_a_callback_of_its_own_there_is_no_batch():
    room = Room("reader")
    assert room.poller.batch is None
    room.close()


# ---------------------------------------------------------------------------------- the choice


def chosen(kind):
    loop = asyncio.new_event_loop()
    try:
        poller = choose(kind, loop, lambda: None)
        poller.close()
        return poller.name
    finally:
        loop.close()


def test_auto_is_epoll_where_there_is_one(monkeypatch):
    assert chosen("reader") == "reader"
    assert chosen("auto") == KINDS[0]
    monkeypatch.delattr(select, "epoll", raising=False)
    assert chosen("auto") == "reader"


def test_epoll_where_there_is_none_is_a_mistake_to_be_told(monkeypatch):
    monkeypatch.delattr(select, "epoll", raising=False)
    with pytest.raises(ConfigurationError, match="needs Linux"):
        chosen("epoll")


def test_the_portable_poller_works_on_any_loop():
    assert isinstance(choose("reader", asyncio.new_event_loop(), lambda: None), ReaderPoller)
