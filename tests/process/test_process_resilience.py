"""What goes wrong around the processes and must stay where it is: lost folders, strange words."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket

import pytest
from tests.support.workers import wait_for_end

from tidegate.config import Config
from tidegate.observe import logs
from tidegate.process import post as post_module
from tidegate.process.births import Birth, Births, Role
from tidegate.process.board import Board
from tidegate.process.channel import Channel
from tidegate.process.handle import STACK_SIGNAL, Failure, Handle
from tidegate.process.keys import Keys
from tidegate.process.post import Post

PATIENCE = 10
OTHER = (54321, 54322)  # the user and group of nobody here

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


# -- log files -------------------------------------------------------------------------------------


@pytest.fixture
def logger(tmp_path, monkeypatch):
    """One that writes to logs/tide.log. Nobody else's files are touched, such as pytest's."""
    (tmp_path / "logs").mkdir()
    handler = logging.FileHandler(tmp_path / "logs" / "tide.log")
    made = logging.Logger("resilience")
    made.addHandler(handler)
    monkeypatch.setattr(logs, "file_handlers", lambda: [handler])
    yield made
    handler.close()


def test_after_a_rename_a_new_log_file_is_written(logger, tmp_path):
    path = tmp_path / "logs" / "tide.log"
    logger.warning("before")
    path.rename(tmp_path / "old.log")
    logs.reopen()
    logger.warning("after")
    assert (path.read_text(), (tmp_path / "old.log").read_text()) == ("after\n", "before\n")


def test_where_the_folder_is_gone_the_old_log_file_is_gone_on_with(logger, tmp_path, caplog):
    (tmp_path / "logs").rename(tmp_path / "moved")
    logging.raiseExceptions, before = True, logging.raiseExceptions
    try:
        logs.reopen()
        logger.warning("after")
        logs.reopen()  # again: the stream is still there to be kept
        logger.warning("later")
    finally:
        logging.raiseExceptions = before
    assert (tmp_path / "moved" / "tide.log").read_text() == "after\nlater\n"
    assert caplog.text.count("cannot be opened again") == 2


@root_only
def test_a_new_log_file_belongs_to_those_who_write_it(logger, tmp_path):
    path = tmp_path / "logs" / "tide.log"
    path.rename(tmp_path / "old.log")
    logs.reopen(OTHER)
    logger.warning("after")
    assert path.read_text() == "after\n"
    assert (path.stat().st_uid, path.stat().st_gid) == OTHER


@root_only
def test_a_link_in_place_of_a_log_file_gives_no_other_file_away(logger, tmp_path, caplog):
    path = tmp_path / "logs" / "tide.log"
    path.rename(tmp_path / "old.log")
    secret = tmp_path / "secret"
    secret.write_text("mine\n")
    path.symlink_to(secret)
    owner = secret.stat().st_uid
    logs.reopen(OTHER)
    logger.warning("after")
    assert secret.read_text() == "mine\n"
    assert secret.stat().st_uid == owner
    assert (tmp_path / "old.log").read_text() == "after\n"
    assert "cannot be opened again" in caplog.text


# -- words of a worker -----------------------------------------------------------------------------


def test_a_failure_may_say_anything():
    assert Failure.read('{"text": 1, "final": "yes"}') == ("1", False)


def test_a_worker_cannot_name_a_process_that_is_not_its_importers_child():
    """Who is named gets our signals, and we may be root."""
    ours, theirs = Channel.pair()
    reader, writer = os.pipe()
    handle = Handle(ours, reader, Board(2).seat(0), generation=0)
    handle.importer = os.getpid()
    try:
        Births.name(handle, 1)
        assert handle.pid == 0
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
        try:
            handle.kill(signal.SIGTERM)  # the end was asked for before its name had come
            Births.name(handle, child)
            assert handle.pid == child
            wait_for_end(child, timeout=PATIENCE)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
            child = 0
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
    finally:
        handle.let_go()
        theirs.close()
        os.close(writer)


def test_descriptors_that_nobody_asked_for_do_not_stay():
    ours, theirs = Channel.pair()
    reader, writer = os.pipe()
    try:
        sender = socket.socket(fileno=os.dup(theirs.fileno()))
        with sender:
            socket.send_fds(sender, [b"limit enough\n"], [writer, writer])
        os.close(writer)
        assert ours.receive() == ["limit enough"]
        assert ours.take_descriptors() == []
        assert os.read(reader, 1) == b""  # the end: nobody has a copy of the writing side
    finally:
        ours.close()
        theirs.close()
        os.close(reader)


# -- the board -------------------------------------------------------------------------------------


class Worker:
    requests = 0

    def stop(self):
        """Nothing to stop."""

    retire = force = stop


@pytest.fixture
def post(monkeypatch):
    """A post at seat 1, attached in the running loop of the test."""
    touched = (signal.SIGTERM, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in touched}
    monkeypatch.setattr(post_module, "BEAT", 0.0)
    ours, theirs = Channel.pair()
    board = Board(4)
    config = Config()
    made = Post(Birth(Role.WORKER, theirs, board.seat(1)), config, Keys(config, handed=False))
    made.other, made.supervisors = board.seat(0), board.row(1)
    yield made
    ours.close()
    theirs.close()
    for number, handler in before.items():
        signal.signal(number, handler)
    if STACK_SIGNAL:
        faulthandler.unregister(STACK_SIGNAL)


async def next_beat(post: Post) -> None:
    last = post.seat.beaten
    async with asyncio.timeout(PATIENCE):
        while post.seat.beaten == last:
            await asyncio.sleep(0)


def test_a_worker_that_turns_again_is_back_on_the_board(post):
    async def main():
        post.attach(Worker(), lambda: None)
        try:
            post.is_fuller(3, 5)
            post.ready({})
            assert post.other.is_fuller(10, 0)
            post.supervisors.leave()  # by the supervisor: it seemed to hang
            assert not post.other.is_fuller(10, 0)
            await next_beat(post)
            assert post.other.is_fuller(10, 0)
            post.leave()  # the worker's own: that is for good
            await next_beat(post)
            assert not post.other.is_fuller(10, 0)
        finally:
            post.detach()

    asyncio.run(main())
