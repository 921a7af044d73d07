"""Bytes on their way to the kernel: nothing lost, doubled or out of order, whatever it takes."""

from __future__ import annotations

import os
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tls import connect

from tidegate.asgi.service import Clock
from tidegate.protocol.engine import FileSlice
from tidegate.serving import outbox as outbox_module
from tidegate.serving.outbox import (
    FILE_BOUND,
    IOV_BOUND,
    LATE_SHARE,
    SHARE,
    FileFailedError,
)
from tidegate.serving.outbox import Outbox as OutboxWithClock
from tidegate.serving.site import TURN


def Outbox(sock, clock=None):
    """One whose batch has only just begun, for ever."""
    return OutboxWithClock(sock, clock or Clock(lambda: 7.0))


class Taking:
    """Takes as many bytes a call as it is told to, then everything; 0: it would block."""

    def start(self, takes):
        self.takes = list(takes)
        self.got = bytearray()
        self.offered = []
        self.buffers = []

    def send(self, data, flags=0):
        return self.sendmsg([data])

    def sendmsg(self, buffers, *rest):
        self.buffers.append(len(buffers))
        data = b"".join(buffers)
        self.offered.append(data)
        room = self.takes.pop(0) if self.takes else len(data)
        if not room:
            raise BlockingIOError
        self.got += data[:room]
        return min(room, len(data))


class Kernel(Taking):
    """In place of a TlsSocket, to which no file can be copied."""

    def __init__(self, takes=()):
        self.start(takes)

    def fileno(self):
        return -1


class PlainKernel(Taking, socket.socket):
    """In place of a plain socket."""

    def __init__(self, takes=()):
        super().__init__()
        self.start(takes)


def drain(outbox: OutboxWithClock) -> None:
    for _ in range(10_000):
        if outbox.resume():
            return
    raise AssertionError("the backlog does not go")


def test_what_the_kernel_takes_at_once_leaves_no_backlog():
    kernel = Kernel()
    outbox = Outbox(kernel)
    outbox.write([b"answer"])
    assert (kernel.got, outbox.backlog, outbox.sent) == (b"answer", 0, 6)
    assert kernel.offered == [b"answer"]


@pytest.mark.parametrize("kind", [Kernel, PlainKernel])
def test_what_the_kernel_does_not_take_is_kept_and_goes_on(kind):
    kernel = kind([3, 0, 2, 0])
    outbox = Outbox(kernel)
    outbox.write([b"0123456789"])
    assert (outbox.backlog, outbox.sent) == (7, 3)
    drain(outbox)
    assert (kernel.got, outbox.backlog, outbox.sent) == (b"0123456789", 0, 10)


@pytest.mark.parametrize("kind", [Kernel, PlainKernel])
def test_a_short_write_is_not_tried_again_at_once(kind):
    """The kernel has said that it is full: asking once more would be a system call for nothing."""
    kernel = kind([3])
    outbox = Outbox(kernel)
    outbox.write([b"01234", b"56789"])
    assert (bytes(kernel.got), outbox.backlog) == (b"012", 7)


def test_what_tls_refused_is_offered_again_from_the_same_byte_on():
    """OpenSSL wants a write that would block repeated with the same bytes."""
    kernel = Kernel([0, 0, 4, 0])
    outbox = Outbox(kernel)
    outbox.write([b"abcdefgh"])
    drain(outbox)
    assert [bytes(offer)[:1] for offer in kernel.offered] == [b"a", b"a", b"a", b"e", b"e"]


@pytest.mark.parametrize("takes", [[], [0], [2], [5], [7], [100_001]])
def test_a_long_piece_and_its_head_go_in_one_call(takes):
    kernel = PlainKernel(takes)
    outbox = Outbox(kernel)
    outbox.write([b"head-", b"x" * 100_000])
    taken = takes[0] if takes else 100_005
    assert kernel.buffers == [2]
    assert (len(kernel.got), outbox.sent, outbox.backlog) == (taken, taken, 100_005 - taken)
    drain(outbox)
    assert kernel.got == b"head-" + b"x" * 100_000


def test_a_very_long_piece_is_not_sent_past_its_share():
    kernel = PlainKernel()
    outbox = Outbox(kernel, Late(2 * TURN))
    outbox.write([b"head-", b"x" * (4 * LATE_SHARE)])
    assert 0 < len(kernel.got) <= LATE_SHARE + 5
    drain(outbox)


PIECES = st.lists(st.binary(max_size=40), max_size=12)


@given(PIECES, st.lists(st.integers(0, 60), max_size=40), st.sampled_from([Kernel, PlainKernel]))
def test_any_pieces_through_any_kernel_come_out_whole(pieces, takes, kind):
    kernel = kind(takes)
    outbox = Outbox(kernel)
    outbox.write([memoryview(p) if i % 3 == 1 else p for i, p in enumerate(pieces)])
    assert outbox.backlog + outbox.sent == len(b"".join(pieces))
    drain(outbox)
    assert kernel.got == b"".join(pieces)
    assert outbox.sent == len(kernel.got)


def test_many_small_pieces_go_in_few_calls_of_a_bounded_number_of_buffers():
    kernel = PlainKernel()
    outbox = Outbox(kernel)
    outbox.write([b"x"] * (IOV_BOUND * 3))
    assert kernel.buffers == [IOV_BOUND] * 3
    assert outbox.backlog == 0


def test_clear_forgets_everything():
    outbox = Outbox(Kernel([0]))
    outbox.write([b"a", b"b"])
    outbox.clear()
    assert (outbox.backlog, outbox.resume()) == (0, True)


@pytest.mark.parametrize("data", [[b"one"], [b"one", b"two"], [b"x" * 100_000]])
def test_a_broken_connection_is_the_callers_affair(data):
    server, client = connect()
    client.close()
    outbox = Outbox(server)
    outbox.write([b"the first is answered with a reset"])
    with pytest.raises(OSError):
        outbox.write(data)
    server.close()


# ---------------------------------------------------------------------------------- files


@pytest.fixture
def file(tmp_path):
    content = random.Random(1).randbytes(3 * FILE_BOUND + 77)
    path = tmp_path / "file"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    yield fd, content
    os.close(fd)


@pytest.fixture
def pair():
    server, client = connect()
    yield server, client
    server.close()
    client.close()


def pump(outbox: Outbox, client: socket.socket, size: int) -> bytes:
    got = bytearray()
    client.settimeout(10)
    while len(got) < size:
        outbox.resume()
        got += client.recv(1 << 20)
    return bytes(got)


def test_a_file_between_bytes_arrives_in_its_place(file, pair):
    fd, content = file
    server, client = pair
    outbox = Outbox(server)
    outbox.write([b"head", FileSlice(fd, 10, len(content) - 20), b"tail"])
    wanted = b"head" + content[10:-10] + b"tail"
    assert pump(outbox, client, len(wanted)) == wanted
    assert (outbox.backlog, outbox.sent) == (0, len(wanted))


@given(takes=st.lists(st.integers(0, 70_000), max_size=30))
def test_a_file_is_read_where_the_kernel_cannot_copy_it(tmp_path_factory, takes):
    path = tmp_path_factory.getbasetemp() / "read-by-us"
    content = bytes(range(256)) * 700
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        kernel = Kernel(takes)
        outbox = Outbox(kernel)
        outbox.write([b"head", FileSlice(fd, 1, len(content) - 1), b"tail"])
        drain(outbox)
        assert kernel.got == b"head" + content[1:] + b"tail"
    finally:
        os.close(fd)


@pytest.mark.parametrize("plain", [True, False])
def test_a_file_that_ends_short_is_no_answer(file, pair, plain):
    fd, content = file
    server, _ = pair
    outbox = Outbox(server if plain else Kernel())
    with pytest.raises(FileFailedError):
        outbox.write([FileSlice(fd, len(content) - 5, 10)])


@pytest.mark.parametrize("plain", [True, False])
def test_a_file_leaves_others_their_turn(file, pair, plain, monkeypatch):
    """A peer that takes all it is given must not be served its whole file in one go."""
    fd, _ = file
    size = 256 << 20
    monkeypatch.setattr(os, "sendfile", lambda out, source, offset, count: count)
    monkeypatch.setattr(outbox_module.os, "pread", lambda fd, count, at: bytes(count))
    outbox = Outbox(pair[0] if plain else Kernel())
    outbox.write([FileSlice(fd, 0, size)])
    assert outbox.sent <= SHARE
    assert outbox.backlog == size - outbox.sent


@pytest.mark.parametrize("kind", [Kernel, PlainKernel])
@pytest.mark.parametrize("output", [[bytes(16 << 20)], [bytes(1 << 20)] * 16])
def test_bytes_leave_others_their_turn(output, kind):
    """50 requests for 100 MB in one batch: what 50 kernels' buffers take is copied before the 51st."""
    outbox = Outbox(kind())
    outbox.write(output)
    assert outbox.sent <= SHARE
    drain(outbox)
    assert outbox.sent == 16 << 20


class Late:
    """A clock that has moved on by so much since the batch began, and with every piece written."""

    def __init__(self, since, each=0.0):
        self.now, self._time, self._each = 100.0, 100.0 + since, each

    def read(self):
        self._time += self._each
        return self._time


@pytest.mark.parametrize("kind", [Kernel, PlainKernel])
@pytest.mark.parametrize("output", [[bytes(16 << 20)], [bytes(1 << 16)] * 256])
def test_who_comes_late_in_a_long_batch_writes_little(output, kind):
    outbox = Outbox(kind(), Late(2 * TURN))
    outbox.write(output)
    assert 0 < outbox.sent <= LATE_SHARE
    drain(outbox)
    assert outbox.sent == 16 << 20


def test_who_comes_late_with_a_file_writes_little_of_it(file, pair):
    fd, content = file
    outbox = Outbox(pair[0], Late(2 * TURN))
    outbox.write([FileSlice(fd, 0, len(content))])
    assert 0 < outbox.sent <= LATE_SHARE


@pytest.mark.parametrize("kind", [Kernel, PlainKernel])
def test_a_batch_that_grows_long_under_one_writer_is_cut(kind):
    outbox = Outbox(kind(), Late(0.0, each=TURN * 0.4))
    outbox.write([bytes(100)] * (IOV_BOUND * 9))
    assert outbox.sent == 2 * IOV_BOUND * 100
