"""Lines between two processes: cut anywhere, too many for the kernel, with descriptors, to the end."""

from __future__ import annotations

import os
import resource
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.process.channel import LONGEST, Channel


@pytest.fixture
def pair():
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def raw():
    """A channel, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def test_lines_arrive_in_order(pair):
    ours, theirs = pair
    for line in ("one", "", "zwei ist länger", "{}"):
        ours.send(line)
    assert theirs.receive() == ["one", "", "zwei ist länger", "{}"]
    theirs.send("back")
    assert ours.receive() == ["back"]
    assert not ours.ended


def test_nothing_there_is_no_end(pair):
    _, theirs = pair
    assert (theirs.receive(), theirs.ended) == ([], False)


def test_a_line_is_one_line_whatever_it_says(pair):
    ours, theirs = pair
    ours.send("a\nb\udc80")
    assert theirs.receive() == ["a b\\udc80"]


SAID = "erste\n\nzweite Zeile ü€😀\nx\n".encode()


@pytest.mark.parametrize("cut", range(len(SAID) + 1))
def test_a_line_may_be_cut_at_any_byte(raw, cut):
    channel, peer = raw
    peer.sendall(SAID[:cut])
    got = channel.receive()
    peer.sendall(SAID[cut:])
    got += channel.receive()
    assert got == ["erste", "", "zweite Zeile ü€😀", "x"]


@given(st.lists(st.binary(max_size=30)))
def test_any_bytes_are_lines(pieces):
    ours, peer = socket.socketpair()
    channel = Channel(ours)
    with ours, peer:
        got = []
        for piece in pieces:
            if piece:
                peer.sendall(piece)
            got += channel.receive()
        whole = b"".join(pieces)
        assert got == [one.decode("utf-8", "replace") for one in whole.split(b"\n")[:-1]]


def test_what_the_kernel_does_not_take_is_kept(pair):
    ours, theirs = pair
    count = 0
    while not ours.unsent:
        ours.send(f"{count} {'x' * 1000}")
        count += 1
    for _ in range(5):
        ours.send(f"{count} {'x' * 1000}")
        count += 1
    got = []
    while ours.unsent:
        got += theirs.receive()
        ours.flush()
    got += theirs.receive()
    assert [line.split()[0] for line in got] == [str(number) for number in range(count)]


def test_a_line_that_is_too_long_is_cut_by_who_says_it(pair):
    ours, theirs = pair
    ours.send("ä" * LONGEST)
    ours.send("next")
    got = []
    while ours.unsent:
        got += theirs.receive()
        ours.flush()
    got += theirs.receive()
    assert got[1:] == ["next"]
    assert LONGEST // 2 - 2 <= len(got[0]) <= LONGEST // 2
    assert set(got[0][:-1]) == {"ä"}


def test_who_never_ends_a_line_does_not_fill_our_memory(raw):
    channel, peer = raw
    peer.setblocking(False)
    sent = 0
    while sent < 4 * LONGEST:
        try:
            sent += peer.send(b"x" * 65536)
        except BlockingIOError:
            assert channel.receive() == []
    channel.receive()
    assert len(channel._got) <= LONGEST


def test_descriptors_come_with_their_lines(pair):
    ours, theirs = pair
    pipes = [os.pipe() for _ in range(3)]
    ours.send("before")
    ours.send_with("two", (pipes[0][1], pipes[1][1]))
    ours.send_with("one", (pipes[2][1],))
    ours.send("after")
    for _, writing in pipes:
        os.close(writing)
    assert theirs.receive() == ["before", "two", "one", "after"]
    two, one = theirs.take_descriptors(), theirs.take_descriptors()
    assert (len(two), len(one), theirs.take_descriptors()) == (2, 1, [])
    for number, descriptor in enumerate(two + one):
        os.write(descriptor, b"%d" % number)
        os.close(descriptor)
    for number, (reading, _) in enumerate(pipes):
        assert os.read(reading, 10) == b"%d" % number
        os.close(reading)


def test_received_descriptors_are_not_inherited(pair):
    ours, theirs = pair
    ours.send_with("x", (0,))
    theirs.receive()
    (descriptor,) = theirs.take_descriptors()
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel tells it in other ways")
@pytest.mark.parametrize("room", [0, 1])
def test_descriptors_without_room_do_not_pass_for_the_next_lines(pair, room):
    ours, theirs = pair
    ours.send_with("first", (0, 0))
    free = os.dup(0)
    os.close(free)  # the lowest number there is
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, limits[1]))
    try:
        assert theirs.receive() == ["first"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    ours.send_with("second", (0, 0))
    assert theirs.receive() == ["second"]
    came = [theirs.take_descriptors(), theirs.take_descriptors()]
    assert [len(descriptors) for descriptors in came] == [room, 2]
    for descriptor in [*came[0], *came[1]]:
        os.close(descriptor)


def test_who_does_not_read_is_not_waited_for(pair, monkeypatch):
    """And is not taken for gone: it may only be busy."""
    monkeypatch.setattr("tidegate.process.channel._PATIENCE", 0.01)
    ours, theirs = pair
    while not ours.unsent:
        ours.send("x" * 1000)
    assert not ours.send_with("files", (0,))
    assert not ours.ended
    while ours.unsent:
        theirs.receive()
        ours.flush()
    theirs.receive()
    assert theirs.take_descriptors() == []
    assert ours.send_with("files", (0,))
    assert theirs.receive() == ["files"]
    os.close(*theirs.take_descriptors())


def test_descriptors_nobody_took_end_with_the_channel():
    """An importer's child holds what was meant for its siblings, if they came in one go."""
    ours, theirs = Channel.pair()
    reading, writing = os.pipe()
    ours.send_with("x", (writing,))
    os.close(writing)
    theirs.receive()
    theirs.close()
    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""  # the end: nobody can write any more
    os.close(reading)
    ours.close()


def test_the_last_words_come_before_the_end(pair):
    ours, theirs = pair
    ours.send("farewell")
    ours.close()
    assert theirs.receive() == ["farewell"]
    assert theirs.ended
    assert theirs.receive() == []


def test_speaking_to_nobody_is_no_error(pair):
    ours, theirs = pair
    theirs.close()
    ours.send("anybody?")
    assert ours.ended
    ours.send("once more")
    assert not ours.unsent


def test_giving_to_nobody_is_no_error(pair):
    ours, theirs = pair
    theirs.close()
    assert ours.send_with("anybody?", (0,))
    assert ours.ended
    assert ours.send_with("once more", (0,))
    assert not ours.unsent


def test_what_was_kept_for_one_who_is_gone_is_forgotten(pair):
    ours, theirs = pair
    while not ours.unsent:
        ours.send("x" * 1000)
    theirs.close()
    ours.flush()
    assert (ours.unsent, ours.ended) == (False, True)
