"""Accepting: batches, what the kernel may answer, and never a busy loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import select
import socket
from types import SimpleNamespace

import pytest

from tidegate.net import listener as listener_module
from tidegate.net.binds import open_listener, parse_bind
from tidegate.net.listener import BATCH, REST, Acceptor, plain_address
from tidegate.net.poller import choose


class Script:
    """A listening socket whose accept() gives what the test says; then BlockingIOError."""

    family = socket.AF_INET

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = 0

    def fileno(self):
        return 99

    def accept(self):
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else errno.EAGAIN
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer, ("192.0.2.1", 5)


class Newcomer:
    def __init__(self):
        self.blocking = True
        self.closed = False

    def setblocking(self, blocking):
        self.blocking = blocking

    def close(self):
        self.closed = True


class FakePoller:
    name = "fake"

    def __init__(self):
        self.did = []

    def add(self, fd, handler):
        self.did.append(("add", fd))

    def watch(self, fd, read, write):
        self.did.append(("watch", fd, read, write))

    def remove(self, fd):
        self.did.append(("remove", fd))

    @property
    def listening(self):
        last = self.did[-1]
        return last[0] == "add" or (last[0] == "watch" and last[2])


class FakeLoop:
    def __init__(self):
        self.timers = []

    def call_later(self, delay, callback):
        timer = SimpleNamespace(delay=delay, callback=callback, cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    def pass_time(self):
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.cancelled:
                timer.callback()


class Rig:
    def __init__(self, *answers, on_accept=None):
        self.script = Script(*answers)
        self.poller = FakePoller()
        self.loop = FakeLoop()
        self.got = []
        listener = SimpleNamespace(sock=self.script, address="127.0.0.1:8000")
        self.acceptor = Acceptor(
            listener,
            self.poller,
            self.loop,
            on_accept or (lambda sock, peer: self.got.append((sock, peer))),
            logging.getLogger("tidegate.test"),
        )
        self.acceptor.start()


def test_newcomers_are_handed_on_non_blocking_with_their_name():
    first, second = Newcomer(), Newcomer()
    rig = Rig(first, second)
    rig.acceptor.on_readable()
    assert rig.got == [(first, ("192.0.2.1", 5)), (second, ("192.0.2.1", 5))]
    assert not first.blocking
    assert rig.poller.did == [("add", 99)]


def test_one_wake_takes_a_batch_and_leaves_the_rest():
    rig = Rig(*(Newcomer() for _ in range(BATCH + 5)))
    rig.acceptor.on_readable()
    assert len(rig.got) == BATCH
    rig.acceptor.on_readable()
    assert len(rig.got) == BATCH + 5


@pytest.mark.parametrize(
    "code", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH]
)
def test_a_connection_that_was_lost_before_accept_costs_only_itself(code):
    after = Newcomer()
    rig = Rig(code, code, after)
    rig.acceptor.on_readable()
    assert [sock for sock, _ in rig.got] == [after]
    assert rig.poller.listening


def test_a_stream_of_lost_connections_is_bounded_too():
    rig = Rig(*[errno.ECONNABORTED] * (BATCH * 3))
    rig.acceptor.on_readable()
    assert rig.script.calls == BATCH


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_out_of_descriptors_it_rests_says_so_once_and_goes_on(code, caplog):
    late = Newcomer()
    rig = Rig(Newcomer(), code, code, code, late)
    rig.acceptor.on_readable()
    assert len(rig.got) == 1
    for _ in range(2):  # still out of them, twice
        assert not rig.poller.listening
        assert [timer.delay for timer in rig.loop.timers] == [REST]
        rig.loop.pass_time()
        assert rig.poller.listening
        rig.acceptor.on_readable()
    assert len(caplog.records) == 1
    assert "127.0.0.1:8000" in caplog.text and "ulimit -n" in caplog.text
    rig.loop.pass_time()
    rig.acceptor.on_readable()
    assert rig.got[-1][0] is late
    # the backlog was emptied: the next shortage is another episode
    rig.script.answers = [code]
    rig.acceptor.on_readable()
    assert len(caplog.records) == 2


def test_one_descriptor_come_free_does_not_end_the_episode(caplog):
    rig = Rig(errno.EMFILE, Newcomer(), errno.EMFILE)
    rig.acceptor.on_readable()
    rig.loop.pass_time()
    rig.acceptor.on_readable()
    assert len(rig.got) == 1 and len(caplog.records) == 1


def test_an_error_nobody_foresaw_does_not_spin_either(caplog):
    rig = Rig(errno.EINVAL)
    rig.acceptor.on_readable()
    assert not rig.poller.listening
    assert rig.loop.timers
    assert "Trying again" in caplog.text


def test_a_handler_that_raises_costs_that_connection_only(caplog):
    broken, fine = Newcomer(), Newcomer()
    got = []

    def on_accept(sock, peer):
        if sock is broken:
            raise RuntimeError("no room in the inn")
        got.append(sock)

    rig = Rig(broken, fine, on_accept=on_accept)
    rig.acceptor.on_readable()
    assert broken.closed and not fine.closed
    assert got == [fine]
    assert "no room in the inn" in caplog.text


def test_a_fault_of_the_poller_s_is_said_and_not_repeated_at_once(caplog):
    rig = Rig()
    rig.acceptor.on_error(RuntimeError("odd"))
    assert "odd" in caplog.text
    assert not rig.poller.listening
    rig.loop.pass_time()
    assert rig.poller.listening


def test_pause_leaves_newcomers_waiting_and_start_goes_on():
    rig = Rig(Newcomer())
    rig.acceptor.pause()
    assert not rig.poller.listening
    rig.acceptor.on_readable()  # an event that was already under way
    assert not rig.got
    rig.acceptor.start()
    assert rig.poller.listening
    rig.acceptor.on_readable()
    assert len(rig.got) == 1


def test_pause_from_within_on_accept_ends_the_batch():
    rig = Rig(Newcomer(), Newcomer(), on_accept=lambda *_: rig.acceptor.pause())
    rig.acceptor.on_readable()
    assert rig.script.calls == 1


def test_pause_while_resting_is_not_undone_by_the_timer():
    rig = Rig(errno.EMFILE)
    rig.acceptor.on_readable()
    rig.acceptor.pause()
    rig.loop.pass_time()
    assert not rig.poller.listening
    rig.acceptor.start()
    assert rig.poller.listening


def test_stop_unregisters_once_and_for_good():
    rig = Rig(errno.EMFILE)
    rig.acceptor.on_readable()
    rig.acceptor.stop()
    rig.acceptor.stop()
    rig.acceptor.start()
    rig.acceptor.pause()
    rig.loop.pass_time()
    assert rig.poller.did[-1] == ("remove", 99)
    assert rig.poller.did.count(("remove", 99)) == 1


def test_stop_before_start_touches_nothing():
    rig = Rig()
    fresh = Acceptor(rig.acceptor.listener, FakePoller(), rig.loop, print, logging.getLogger("x"))
    fresh.stop()
    fresh.start()
    assert fresh._poller.did == []


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        (("::ffff:192.0.2.1", 5, 0, 0), ("192.0.2.1", 5)),
        (("::1", 5, 0, 0), ("::1", 5, 0, 0)),
        (("::ffff:0:1", 5, 0, 0), ("::ffff:0:1", 5, 0, 0)),
        (("192.0.2.1", 5), ("192.0.2.1", 5)),
        ("", ""),
        ("/run/a.sock", "/run/a.sock"),
    ],
)
def test_an_ipv4_peer_of_a_dual_stack_socket_is_shown_plain(address, plain):
    assert plain_address(address) == plain


def test_a_wildcard_listener_asks_the_connection_for_its_server_address():
    (listener,) = open_listener(parse_bind("0.0.0.0:0"), 16, 0o660)
    listener.sock.setblocking(True)
    with socket.create_connection(("127.0.0.1", listener.server[1])):
        accepted, _ = listener.sock.accept()
        with accepted:
            assert listener.server_for(accepted) == ("127.0.0.1", listener.server[1])
    listener.close()


def test_a_listener_with_an_address_knows_it_without_asking():
    (listener,) = open_listener(parse_bind("127.0.0.1:0"), 16, 0o660)
    assert listener.server_for(None) is listener.server
    listener.close()


# -- for real --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reader", "epoll"])
def test_with_a_real_poller_and_loop(kind):
    if kind == "epoll" and not hasattr(select, "epoll"):
        pytest.skip("no epoll here")

    async def main():
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[tuple[socket.socket, object]] = asyncio.Queue()
        poller = choose(kind, loop, lambda: None)
        (listener,) = open_listener(parse_bind("127.0.0.1:0"), 128, 0o660)
        acceptor = Acceptor(
            listener, poller, loop, lambda *what: arrived.put_nowait(what), logging.getLogger("x")
        )
        acceptor.start()
        clients = [socket.create_connection(listener.server) for _ in range(70)]
        peers = set()
        for _ in clients:
            sock, peer = await asyncio.wait_for(arrived.get(), 10)
            peers.add(peer)
            assert sock.gettimeout() == 0.0
            sock.close()
        assert peers == {client.getsockname() for client in clients}
        acceptor.stop()
        poller.close()
        listener.close()
        for client in clients:
            client.close()

    asyncio.run(main())


def test_really_out_of_descriptors_the_connection_waits_in_the_backlog(monkeypatch, caplog):
    monkeypatch.setattr(listener_module, "REST", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()
        poller = choose("reader", loop, lambda: None)
        (listener,) = open_listener(parse_bind("127.0.0.1:0"), 16, 0o660)
        acceptor = Acceptor(
            listener, poller, loop, lambda sock, _: arrived.set_result(sock), logging.getLogger("x")
        )
        client = socket.create_connection(listener.server)
        os.close(top := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
        try:
            acceptor.start()
            acceptor.on_readable()
            assert not arrived.done()
            assert "Too many open files" in caplog.text
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (await asyncio.wait_for(arrived, 10)).close()
        acceptor.stop()
        listener.close()
        client.close()

    asyncio.run(main())
