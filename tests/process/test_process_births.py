"""Forks: who gets what, who closes what, and how ends are noticed. In processes apart."""

from __future__ import annotations

import signal

from tests.support.forks import run

# A parent that does with its handles what the supervisor does, and children that do as told.
PARENT = """
board = Board(8)
handles = []

def forget():
    for handle in handles:
        handle.let_go()

births = Births(board, preload=False, forget=forget)

def bear(number, be):
    born = births.bear(board.seat(number), 3, 0)
    if isinstance(born, Birth):
        release_signals()
        be(born)
        os._exit(0)
    handles.append(born)
    return born

def ended():
    # wait for the next ends
    while not (found := births.reap(handles)):
        select.select([], [], [], 0.01)
    return found
"""


def test_a_worker_is_born_with_its_seat_and_both_ways_to_its_parent():
    told = run(
        PARENT
        + """
def be(birth):
    assert birth.role is Role.WORKER
    birth.seat.beat(17)
    birth.channel.send("hello")
    os.write(birth.stack_fd, b"stack")
    assert hear(birth.channel) == ["go"]

handle = bear(2, be)
tell(hello=hear(handle.channel), seat=handle.seat.number, requests=handle.seat.requests,
     generation=handle.generation, pid=handle.pid > 0)
handle.channel.send("go")
(one,) = ended()
one.read_stack()
tell(same=one is handle, status=one.status, stack=one.stack)
"""
    )
    assert told == [
        {"hello": ["hello"], "seat": 2, "requests": 17, "generation": 3, "pid": True},
        {"same": True, "status": 0, "stack": "stack"},
    ]


def test_no_child_holds_an_end_that_is_not_its():
    """Or the end of one of them would not be seen as an end."""
    told = run(
        PARENT
        + """
def be(birth):
    tell(child=list(inodes().values()))
    until_end(birth.channel)

for number in range(4):
    bear(number, be)
tell(parent=[os.fstat(fd).st_ino for one in handles for fd in (one.channel.fileno(), one.stack_fd)],
     channels=[os.fstat(one.channel.fileno()).st_ino for one in handles])
forget()
for handle in handles:
    os.waitpid(handle.pid, 0)
"""
    )
    (parent,) = [one for one in told if "parent" in one]
    children = [one["child"] for one in told if "child" in one]
    assert len(children) == 4
    for inodes in children:
        assert not set(parent["channels"]) & set(inodes)
        # both ends of a pipe have one number: its own stack's is there once
        assert sum(inodes.count(number) for number in parent["parent"]) == 1


def test_every_way_to_end_is_noticed_with_its_status():
    told = run(
        PARENT
        + """
bear(0, lambda birth: os._exit(3))
bear(1, lambda birth: os.kill(os.getpid(), signal.SIGKILL))
bear(2, lambda birth: None)
while len(handles):
    for handle in ended():
        handles.remove(handle)
        until_end(handle.channel)
        tell(seat=handle.seat.number, code=os.waitstatus_to_exitcode(handle.status))
tell(none_left=births.reap(handles))
"""
    )
    assert sorted((one["seat"], one["code"]) for one in told[:-1]) == [
        (0, 3),
        (1, -signal.SIGKILL),
        (2, 0),
    ]
    assert told[-1] == {"none_left": []}


def test_the_end_of_the_parent_is_noticed_by_every_child():
    told = run(
        PARENT
        + """
done = os.pipe()

def be(birth):
    os.close(done[0])
    birth.channel.send("here")
    until_end(birth.channel)
    tell(noticed=birth.seat.number)

if not os.fork():
    for number in range(3):
        bear(number, be)
    for handle in handles:
        hear(handle.channel)
    os._exit(0)
os.close(done[1])
os.read(done[0], 1)  # until nobody is left
"""
    )
    assert sorted(one["noticed"] for one in told) == [0, 1, 2]


def test_a_fork_that_fails_leaves_the_signals_as_they_were():
    """Else the supervisor would be deaf to all of them, for ever."""
    told = run(
        PARENT
        + """
def no(): raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = no
try:
    births.bear(board.seat(0), 0, 0)
except OSError:
    tell(held=list(signal.pthread_sigmask(0, ())))
"""
    )
    assert told == [{"held": []}]


def test_a_crash_does_not_wait_for_anybody_to_read_its_stack():
    told = run(
        PARENT
        + """
def be(birth):
    tell(waits=os.get_blocking(birth.stack_fd))

bear(0, be)
ended()
"""
    )
    assert told == [{"waits": False}]


def test_signals_are_held_in_a_child_until_it_is_ready_for_them():
    told = run(
        PARENT
        + """
signal.signal(signal.SIGTERM, lambda *_: tell(swallowed=True))

def be(birth):
    os._exit(0)

born = births.bear(board.seat(0), 0, 0)
if isinstance(born, Birth):
    born.channel.send("forked")
    hear(born.channel)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    release_signals()
    os._exit(1)
handles.append(born)
hear(born.channel)
born.kill(signal.SIGTERM)
born.channel.send("go on")
(one,) = ended()
tell(code=os.waitstatus_to_exitcode(one.status), held=list(signal.pthread_sigmask(0, ())))
"""
    )
    assert told == [{"code": -signal.SIGTERM, "held": []}]
