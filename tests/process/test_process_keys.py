"""Keys that only root may read: handed on when they change, to whoever listens."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from tests.support.tls import replace

from tidegate.config import Config
from tidegate.process.channel import Channel
from tidegate.process.keys import Keys


@pytest.fixture
def pems(tmp_path):
    made = []
    for name in ("cert", "key"):
        path = tmp_path / name
        path.write_bytes(name.encode())
        made.append(str(path))
    return made


def keys_of(pems, interval=10.0, handed=True):
    config = Config(ssl_certfile=pems[0], ssl_keyfile=pems[1], ssl_reload_interval=interval)
    return Keys(config, handed=handed)


@pytest.fixture
def pupils():
    """Channels: the supervisor's ends and the workers'."""
    pairs = [Channel.pair() for _ in range(3)]
    yield [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    for pair in pairs:
        for end in pair:
            end.close()


def test_workers_that_may_read_the_disk_are_handed_nothing(pems, pupils):
    ours, theirs = pupils
    keys = keys_of(pems, handed=False)
    assert keys.files is None
    keys.look(0.0, ours)
    assert theirs[0].receive() == []


def test_without_tls_there_is_nothing_to_hand_on():
    assert Keys(Config(), handed=True).files is None


def test_they_are_there_from_the_beginning(pems):
    files = keys_of(pems).files
    assert [files.read(path) for path in pems] == [b"cert", b"key"]


def test_what_has_not_changed_is_not_sent(pems, pupils):
    ours, theirs = pupils
    keys_of(pems).look(0.0, ours)
    assert [end.receive() for end in theirs] == [[], [], []]


def test_a_change_reaches_everybody(pems, pupils):
    ours, theirs = pupils
    supervisor = keys_of(pems)
    workers = [keys_of(pems) for _ in theirs]
    replace(pems[1], b"renewed " * 10_000)
    supervisor.look(0.0, ours)
    before = len(os.listdir("/dev/fd"))
    for end, worker in zip(theirs, workers, strict=True):  # one descriptor's position for all
        assert end.receive() == ["files"]
        worker.receive(end)
        assert worker.files.read(pems[1]) == b"renewed " * 10_000
        assert worker.files.read(pems[0]) == b"cert"
        assert worker.files.stamps() == supervisor.files.stamps()
    assert len(os.listdir("/dev/fd")) == before  # what was received is closed again


def test_a_change_is_sent_once(pems, pupils):
    ours, theirs = pupils
    keys = keys_of(pems, interval=10.0)
    replace(pems[0], b"renewed")
    keys.look(0.0, ours)
    keys.look(20.0, ours)
    assert theirs[0].receive() == ["files"]


def test_it_looks_in_its_interval(pems, pupils):
    ours, theirs = pupils
    keys = keys_of(pems, interval=10.0)
    keys.look(100.0, ours)
    replace(pems[0], b"renewed")
    keys.look(109.0, ours)
    assert theirs[0].receive() == []
    keys.look(110.0, ours)
    assert theirs[0].receive() == ["files"]


def test_with_an_interval_of_nothing_it_never_looks(pems, pupils):
    ours, theirs = pupils
    keys = keys_of(pems, interval=0)
    replace(pems[0], b"renewed")
    keys.look(1e9, ours)
    assert theirs[0].receive() == []


def test_a_file_that_is_gone_for_a_while_is_told_and_so_is_its_return(pems, pupils):
    ours, theirs = pupils
    keys, worker = keys_of(pems), keys_of(pems)
    os.unlink(pems[0])
    keys.look(0.0, ours)
    theirs[0].receive()
    worker.receive(theirs[0])
    with pytest.raises(FileNotFoundError):
        worker.files.read(pems[0])
    replace(pems[0], b"back")
    keys.look(20.0, ours)
    assert theirs[0].receive() == ["files"]
    worker.receive(theirs[0])
    assert worker.files.read(pems[0]) == b"back"


def test_one_who_is_gone_does_not_keep_it_from_the_others(pems, pupils):
    ours, theirs = pupils
    theirs[0].close()
    keys = keys_of(pems)
    replace(pems[0], b"renewed")
    keys.look(0.0, ours)
    assert theirs[2].receive() == ["files"]


def test_who_was_too_busy_is_sent_the_new_keys_again(tmp_path):
    files = {name: tmp_path / name for name in ("cert.pem", "key.pem")}
    for path in files.values():
        path.write_text("old")
    options = {"ssl_certfile": str(files["cert.pem"]), "ssl_keyfile": str(files["key.pem"])}
    keys = Keys(Config(**options, ssl_reload_interval=0), handed=True)
    files["key.pem"].write_text("renewed")
    told = []

    def channel(name, *answers):
        left = list(answers)

        def send_with(line, descriptors):
            told.append(name)
            return left.pop(0)

        return SimpleNamespace(send_with=send_with, fileno=lambda: 5, ended=False)

    keys.renew([channel("free", True), channel("busy", False, False, True)])
    for now in range(4):
        keys.look(now, [])
    assert told == ["free", "busy", "busy", "busy"]


def test_what_comes_where_nobody_wants_it_is_closed():
    reading, writing = os.pipe()
    Keys(Config(), handed=False).receive(SimpleNamespace(take_descriptors=lambda: [writing]))
    assert os.read(reading, 1) == b""
    os.close(reading)
