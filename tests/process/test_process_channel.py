"""Lines between two processes: cut anywhere, too many for the kernel, with descriptors, to the end."""

from __future__ import annotations

import os
import socket

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
    ours.send("two", (pipes[0][1], pipes[1][1]))
    ours.send("one", (pipes[2][1],))
    ours.send("after")
    for _, writing in pipes:
        os.close(writing)
    assert theirs.receive() == ["before", "two", "one", "after"]
    assert len(theirs.descriptors) == 3
    for number, descriptor in enumerate(theirs.descriptors):
        os.write(descriptor, b"%d" % number)
        os.close(descriptor)
    theirs.descriptors.clear()
    for number, (reading, _) in enumerate(pipes):
        assert os.read(reading, 10) == b"%d" % number
        os.close(reading)


def test_received_descriptors_are_not_inherited(pair):
    ours, theirs = pair
    ours.send("x", (0,))
    theirs.receive()
    assert not os.get_inheritable(theirs.descriptors[0])
    os.close(theirs.descriptors.pop())


def test_descriptors_nobody_took_end_with_the_channel():
    """An importer's child holds what was meant for its siblings, if they came in one go."""
    ours, theirs = Channel.pair()
    reading, writing = os.pipe()
    ours.send("x", (writing,))
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


@pytest.mark.parametrize("descriptors", [(), (0,)])
def test_speaking_to_nobody_is_no_error(pair, descriptors):
    ours, theirs = pair
    theirs.close()
    ours.send("anybody?", descriptors)
    assert ours.ended
    ours.send("once more", descriptors)
    assert not ours.unsent


def test_what_was_kept_for_one_who_is_gone_is_forgotten(pair):
    ours, theirs = pair
    while not ours.unsent:
        ours.send("x" * 1000)
    theirs.close()
    ours.flush()
    assert (ours.unsent, ours.ended) == (False, True)
