"""`--preload`: an importer forks the workers, and what its own end means. In processes apart."""

from __future__ import annotations

import signal

from tests.support.forks import run

# A parent whose importer "imports" at once, and whose workers tell of themselves.
PARENT = """
from tidegate.config import Config
from tidegate.process.importer import ImporterLoop
from tidegate.process.keys import Keys

board = Board(8)
handles = []

def forget():
    for handle in handles:
        handle.let_go()
    for importer in births.importers:
        importer.channel.close()

births = Births(board, preload=True, forget=forget)
hold = os.pipe()

def be(birth):
    birth.channel.send("i am %d" % os.getpid())
    for line in iter(lambda: (hear(birth.channel) or ["end"])[0], "end"):
        if line == "die":
            os._exit(5)
        if line == "inodes":
            birth.channel.send(json.dumps(list(inodes().values())))
    os._exit(0)

def bear(number, generation=1, held=False):
    born = births.bear(board.seat(number), generation, 0)
    if isinstance(born, Birth):
        if born.role is Role.IMPORTER:
            release_signals()
            if held:
                os.read(hold[0], 1)
            born = ImporterLoop(born.channel, board, (), Keys(Config(), handed=False)).run()
        if born is not None:
            be(born)
        os._exit(0)
    if born is not None:
        handles.append(born)
    return born

def obey(importer, lines):
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "ready":
            importer.ready = True
        if word in ("born", "died"):
            seat, _, number = rest.partition(" ")
            for handle in handles:
                if handle.seat.number == int(seat) and handle.importer == importer.pid:
                    setattr(handle, "pid" if word == "born" else "status", int(number))

def listen(until):
    while not until():
        for importer in births.importers:
            if not importer.channel.ended:
                select.select([importer.channel], [], [], 0.01)
                obey(importer, importer.channel.receive())
        for handle in handles:
            if not handle.channel.ended and select.select([handle.channel], [], [], 0)[0]:
                heard.setdefault(handle, []).extend(handle.channel.receive())

heard = {}

def ready():
    bear(0)
    (importer,) = births.importers
    listen(lambda: importer.ready)
    return importer

def end():
    for importer in births.importers:
        importer.channel.send("end")
    for importer in births.importers:
        os.waitpid(importer.pid, 0)
"""


def test_an_importer_forks_workers_once_it_is_ready():
    told = run(
        PARENT
        + """
assert bear(0) is None and bear(0) is None
(importer,) = births.importers  # asked twice, forked once
listen(lambda: importer.ready)
workers = [bear(number) for number in range(3)]
listen(lambda: all(one.pid and heard.get(one) for one in workers))
for one in workers:
    tell(said=heard[one] == [f"i am {one.pid}"], of=one.importer == importer.pid)
    one.channel.send("end")
listen(lambda: all(one.status is not None for one in workers))
tell(ended=births.reap(handles) == workers, statuses=[one.status for one in workers])
end()
"""
    )
    assert told == [*[{"said": True, "of": True}] * 3, {"ended": True, "statuses": [0, 0, 0]}]


def test_siblings_asked_for_in_one_go_do_not_hold_each_others_ends():
    """Their descriptors reach the importer together, before the first of them is forked."""
    told = run(
        PARENT
        + """
bear(0, held=True)
(importer,) = births.importers
importer.ready = True
workers = [bear(number) for number in range(3)]
os.write(hold[1], b"x")
listen(lambda: all(one.pid and heard.get(one) for one in workers))
for one in workers:
    one.channel.send("inodes")
listen(lambda: all(len(heard[one]) == 2 for one in workers))
stacks = [os.fstat(one.stack_fd).st_ino for one in workers]
for one in workers:
    held = json.loads(heard[one][1])
    tell(stacks=[held.count(stack) for stack in stacks], own=stacks.index(
        os.fstat(one.stack_fd).st_ino))
    one.channel.send("end")
end()
"""
    )
    assert [one["stacks"] for one in told] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_worker_whose_importer_is_gone_is_seen_to_end():
    told = run(
        PARENT
        + """
bear(0, held=True)
(importer,) = births.importers
importer.ready = True
first, second = bear(0), bear(1)
os.write(hold[1], b"x")
listen(lambda: first.pid and second.pid and len(heard) == 2)
os.kill(importer.pid, signal.SIGKILL)
while not births.reap_importers():
    select.select([], [], [], 0.01)
tell(alive=births.reap(handles) == [], importers=len(births.importers))
second.channel.send("die")
listen(lambda: second.channel.ended)
tell(ended=births.reap(handles) == [second], status=second.status)
first.channel.send("end")
listen(lambda: first.channel.ended)
"""
    )
    assert told == [{"alive": True, "importers": 0}, {"ended": True, "status": None}]


def test_one_asked_for_of_an_importer_that_ends_before_it_forks():
    told = run(
        PARENT
        + """
bear(0, held=True)
(importer,) = births.importers
importer.ready = True
handle = bear(0)
os.kill(importer.pid, signal.SIGKILL)
while not births.reap_importers():
    select.select([], [], [], 0.01)
importer.channel.close()
listen(lambda: handle.channel.ended)
tell(ended=births.reap(handles) == [handle], pid=handle.pid)
tell(next=bear(0), importers=len(births.importers))
os.write(hold[1], b"x")
end()
"""
    )
    assert told == [{"ended": True, "pid": 0}, {"next": None, "importers": 1}]


def test_the_status_of_a_worker_comes_through_its_importer():
    told = run(
        PARENT
        + """
importer = ready()
crash, die = bear(0), bear(1)
listen(lambda: crash.pid and die.pid and len(heard) == 2)
os.kill(crash.pid, signal.SIGSEGV)
die.channel.send("die")
listen(lambda: crash.status is not None and die.status is not None)
tell(codes=[os.waitstatus_to_exitcode(one.status) for one in (crash, die)])
end()
"""
    )
    assert told == [{"codes": [-signal.SIGSEGV, 5]}]


def test_a_restart_has_an_importer_of_its_own_and_the_old_one_stays_for_its_children():
    told = run(
        PARENT
        + """
old = ready()
worker = bear(0)
listen(lambda: worker.pid and heard.get(worker))
assert bear(1, generation=2) is None
new = births.importers[1]
listen(lambda: new.ready)
births.dismiss_idle_importers(handles, 2)
other = bear(1, generation=2)
listen(lambda: other.pid and heard.get(other))
tell(of=[worker.importer == old.pid, other.importer == new.pid], both=not births.reap_importers())
worker.channel.send("end")
listen(lambda: worker.status is not None)
handles.remove(worker)
births.dismiss_idle_importers(handles, 2)
while not (ended := births.reap_importers()):
    select.select([], [], [], 0.01)
tell(dismissed=ended == [old], left=births.importers == [new])
other.channel.send("end")
end()
"""
    )
    assert told == [{"of": [True, True], "both": True}, {"dismissed": True, "left": True}]


def test_an_importer_whose_supervisor_is_gone_ends_and_takes_no_signal_of_the_terminal():
    told = run(
        PARENT
        + """
importer = ready()
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTERM):
    os.kill(importer.pid, number)
worker = bear(0)
listen(lambda: worker.pid and heard.get(worker))
tell(serves=True)
worker.channel.send("end")
listen(lambda: worker.status is not None)
importer.channel.close()
tell(code=os.waitstatus_to_exitcode(os.waitpid(importer.pid, 0)[1]))
"""
    )
    assert told == [{"serves": True}, {"code": 0}]


def test_an_importer_that_hangs_in_its_import_does_not_keep_the_supervisor_from_ending():
    told = run(
        PARENT
        + """
born = births.bear(board.seat(0), 1, 0)
if isinstance(born, Birth):
    signal.alarm(6)
    release_signals()
    while True:
        signal.pause()
signal.alarm(3)
births.end_importers()
tell(ended=True)
"""
    )
    assert told == [{"ended": True}]


def test_an_importer_that_can_fork_nobody_says_so():
    """Whoever is not born would be waited for, for ever."""
    told = run(
        PARENT
        + """
import errno, resource
from tidegate.process import importer as module
said = []
held = [os.dup(0) for _ in range(3)]
ours, theirs = Channel.pair()
loop = ImporterLoop(theirs, board, (), Keys(Config(), handed=False))
tell(fork=loop._obey("fork 5"))  # its descriptors found no room
ours.send_with("fork 6", held[:1])  # one of them did
theirs.receive()
loop._obey("fork 6")
def no():
    raise BlockingIOError(errno.EAGAIN, "too many processes")
module.fork = no
ours.send_with("fork 7", held[:2])
before = len(inodes())
theirs.receive()
loop._obey("fork 7")
tell(said=ours.receive(), closed=len(inodes()) == before)
"""
    )
    assert told == [
        {"fork": None},
        {
            "said": [
                "unborn 5 no descriptor is free in the importer",
                "unborn 6 no descriptor is free in the importer",
                "unborn 7 too many processes",
            ],
            "closed": True,
        },
    ]


def test_an_importer_that_stands_still_is_killed_with_those_it_should_have_forked():
    told = run(
        PARENT
        + """
importer = ready()
served = bear(0)
listen(lambda: served.pid and heard.get(served))
os.kill(importer.pid, signal.SIGSTOP)
unborn = bear(1)
unborn.kill(signal.SIGKILL)  # there is nobody to kill
tell(ended=len(births.reap(handles)))
while not births.reap_importers():
    select.select([], [], [], 0.01)
tell(unborn=births.reap(handles) == [unborn], alive=served.pid > 0)
served.channel.send("end")
listen(lambda: served.channel.ended)
"""
    )
    assert told == [{"ended": 0}, {"unborn": True, "alive": True}]


def test_a_worker_whose_end_its_importer_does_not_tell_is_not_waited_for():
    told = run(
        PARENT
        + """
importer = ready()
worker = bear(0)
listen(lambda: worker.pid and heard.get(worker))
os.kill(importer.pid, signal.SIGSTOP)
worker.kill(signal.SIGKILL)
tell(ended=len(births.reap(handles)), importer=births.reap_importers() == [importer])
worker.kill(signal.SIGKILL)  # in vain: it is a zombie
births.reap(handles)
while not births.reap_importers():
    select.select([], [], [], 0.01)
while births.reap(handles) != [worker]:  # its end is its new parent's to take down
    select.select([], [], [], 0.01)
tell(over=True)
"""
    )
    assert told == [{"ended": 0, "importer": False}, {"over": True}]


def test_an_importer_that_does_not_read_is_not_asked_again():
    told = run(
        PARENT
        + """
from tidegate.process import channel
channel._PATIENCE = 0.01
importer = ready()
os.kill(importer.pid, signal.SIGSTOP)
while not importer.channel.unsent:
    importer.channel.send("x" * 1000)
handle = bear(0)
while not births.reap_importers():
    select.select([], [], [], 0.01)
tell(ended=births.reap(handles) == [handle])
"""
    )
    assert told == [{"ended": True}]
