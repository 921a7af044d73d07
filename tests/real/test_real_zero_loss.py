"""Not one failed request, whatever workers come and go for: real processes, signals and clients.

A request has failed if its connection was reset, refused, cut off within the answer or closed before
it, if the answer was not 200 with the whole body, or if it never came. Each test waits for evidence
that the event has happened under load: a line in the log, the end of all old processes, and answers
of all new ones. What lasts longer is in tests/soak/test_soak_restarts.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from tests.support.http2_drive import raw_frames
from tests.support.http2_frames import (
    DATA,
    END_STREAM,
    INITIAL_WINDOW,
    PREFACE,
    get,
    settings,
    window_update,
)
from tests.support.mixed_load import APP, KEPT, Mixed
from tests.support.programs import need, running
from tests.support.steady import read_wrk
from tests.support.tls import Files, client_context
from tests.support.workers import Server, serving, wait_for_end

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

ROADS = ["clear", "TLS"]


@contextlib.contextmanager
def server_on(
    folder: Path, road: str, *options: str, workers: int = 2, source: str = APP
) -> Iterator[tuple[Server, trustme.CA | None]]:
    """A server, and whom to trust if it speaks TLS. Its log is shown with whatever fails."""
    authority = trustme.CA() if road == "TLS" else None
    words = ["--workers", str(workers), "--drain-idle", "1", *options]
    if authority is not None:
        files = Files(folder, "own").write(authority.issue_cert("127.0.0.1"))
        words += ["--ssl-certfile", files.cert, "--ssl-keyfile", files.key]
    with serving(folder, source, *words) as server:
        try:
            yield server, authority
        except BaseException as error:
            error.add_note(f"The server's log:\n{server.output}")
            raise
        assert "Traceback" not in server.output, server.output


READY = r"Worker (\d+) is ready"


def ready(server: Server, after: int) -> set[int]:
    """The workers that came to serve after this much of the log."""
    return set(map(int, re.findall(READY, server.output[after:])))


# -- what may happen -------------------------------------------------------------------------------
# Each takes a server with its workers, makes it happen, and returns the workers that serve then.


def restart(server: Server, before: set[int]) -> set[int]:
    mark = server.mark()
    server.signal(signal.SIGHUP)
    wait_for_end(*before)
    return set(map(int, server.expect_line(READY, times=len(before), after=mark)))


def upgrade(server: Server, before: set[int]) -> set[int]:
    mark = server.mark()
    server.signal(signal.SIGUSR2)
    server.expect_line(r"Process \d+ has taken over", after=mark)
    wait_for_end(*before, server.pid)
    workers = server.expect_line(r"2 workers: ([\d, ]+)$", after=mark)[-1]
    return set(map(int, workers.split(", ")))


def one_more_and_two_less(server: Server, before: set[int]) -> set[int]:
    mark = server.mark()
    server.signal(signal.SIGTTIN)
    third = int(server.expect_line(r"Worker (\d+) is ready", after=mark)[0])
    server.signal(signal.SIGTTOU)
    wait_for_end(third)
    server.signal(signal.SIGTTOU)
    server.expect_line("SIGTTOU: 1 worker ", after=mark)
    watched = [(pid, os.pidfd_open(pid)) for pid in before]
    try:
        return {wait_for_one(watched)}
    finally:
        for _, descriptor in watched:
            os.close(descriptor)


def wait_for_one(watched: list[tuple[int, int]]) -> int:
    """Wait until one of two has ended; the other one."""
    ended, _, _ = select.select([descriptor for _, descriptor in watched], [], [], 30)
    assert len(ended) == 1, f"of {watched} one should have ended, not {ended}"
    return next(pid for pid, descriptor in watched if descriptor not in ended)


def terminate_one(server: Server, before: set[int]) -> set[int]:
    mark = server.mark()
    first, other = sorted(before)
    os.kill(first, signal.SIGTERM)
    server.expect_line(rf"Worker {first} leaves: it was sent SIGTERM", after=mark)
    wait_for_end(first)
    return {other} | ready(server, mark)


EVENTS: dict[str, Callable[[Server, set[int]], set[int]]] = {
    "SIGHUP": restart,
    "SIGUSR2": upgrade,
    "SIGTTIN and SIGTTOU": one_more_and_two_less,
    "SIGTERM to a worker": terminate_one,
}


# -- through a mixed load --------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("event", EVENTS)
def test_no_request_is_lost(event: str, road: str, tmp_path: Path) -> None:
    with server_on(tmp_path, road) as (server, authority):
        before = set(server.pids)
        with Mixed(server.port, authority) as load:
            load.wait_until_only(before)
            now = EVENTS[event](server, before)
            load.wait_until_only(now)
            load.wait_for_more()
        assert load.failed == 0, str(load)


def test_no_request_is_lost_with_preload(tmp_path: Path) -> None:
    """Workers come at once, and are the children of another process each time."""
    with server_on(tmp_path, "clear", "--preload") as (server, _):
        workers = set(server.pids)
        with Mixed(server.port) as load:
            for event in (restart, terminate_one, restart):
                workers = event(server, workers)
                load.wait_until_only(workers)
                load.wait_for_more()
        assert load.failed == 0, str(load)


@pytest.mark.parametrize("road", ROADS)
def test_no_request_is_lost_when_workers_are_recycled(road: str, tmp_path: Path) -> None:
    options = ("--limit-max-requests", "400", "--limit-max-requests-jitter", "100")
    with server_on(tmp_path, road, *options) as (server, authority):
        with Mixed(server.port, authority) as load:
            left = server.expect_line(r"Worker (\d+) leaves: it has served", times=5)
            wait_for_end(*map(int, left))
            load.wait_for_more()
        assert load.failed == 0, str(load)
        assert len(load.workers) >= 6, str(load)


@pytest.mark.parametrize("road", ROADS)
def test_no_request_is_lost_with_a_worker_without_connections(road: str, tmp_path: Path) -> None:
    """Nobody comes back for what a killed worker had in hand: so it must not take what it cannot
    have, a newcomer in the queue, say."""
    with server_on(tmp_path, road) as (server, authority):
        with Mixed(server.port, authority, KEPT) as load:
            mark = server.mark()
            server.signal(signal.SIGTTIN)  # all connections stand by now
            third = int(server.expect_line(r"Worker (\d+) is ready", after=mark)[0])
            os.kill(third, signal.SIGKILL)
            server.expect_line(rf"Worker {third} is gone: .*SIGKILL", after=mark)
            server.expect_line(r"Worker (\d+) is ready", times=2, after=mark)
            load.wait_for_more()
            with Mixed(server.port, authority, ["fresh", "h2 fresh"]) as fresh:
                # newcomers are for who has the fewest connections
                fresh.wait_until_seen(ready(server, mark) - {third})
        assert load.failed == fresh.failed == 0, f"{load}\n{fresh}"
        assert third not in load.workers, str(load)


@pytest.mark.parametrize("road", ROADS)
def test_connections_that_rest_are_closed_in_good_order(road: str, tmp_path: Path) -> None:
    """Who asks nothing for longer than --drain-idle is closed, by an orderly end, and asks anew."""
    with server_on(tmp_path, road) as (server, authority), contextlib.ExitStack() as stack:

        def answered(sock: socket.socket) -> bytes:
            sock.sendall(GET)
            return read_to(sock, b"0\r\n\r\n")

        resting = [stack.enter_context(connected(server.port, authority)) for _ in range(10)]
        for sock in resting:
            assert b"connection: close" not in answered(sock)
        new = restart(server, set(server.pids))
        assert [sock.recv(1) for sock in resting] == [b""] * 10
        answer = answered(stack.enter_context(connected(server.port, authority)))
        assert any(b"worker: %d\r\n" % pid in answer for pid in new)


# -- answers that end after their worker was told to leave ------------------------------------------

LARGE = 1_500_000
LATE = f"""
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    if scope["path"] == "/late":  # until the client ends its request
        await send({{"type": "http.response.body", "body": b"begun", "more_body": True}})
        while (await receive()).get("more_body"):
            pass
    body = b"x" * {LARGE} if scope["path"] == "/large" else b"done"
    await send({{"type": "http.response.body", "body": body}})
"""
LATE_POST = b"POST /late HTTP/1.1\r\nHost: tide.test\r\nContent-Length: 1\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: tide.test\r\n\r\n"
LONE = ("--supervise", "--grace-body", "60s")


def connected(port: int, authority: trustme.CA | None, protocol: str = "http/1.1") -> socket.socket:
    """With little room for what comes."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", port))
    if authority is None:
        return sock
    context = client_context(authority)
    context.set_alpn_protocols([protocol])
    # without close_notify its end is an error
    return context.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)


def read_to(sock: socket.socket, end: bytes) -> bytes:
    got = b""
    while end not in got:
        data = sock.recv(65536)
        assert data, f"closed after {got!r}"
        got += data
    return got


@pytest.mark.parametrize("road", ROADS)
def test_who_was_promised_another_request_may_ask_it(road: str, tmp_path: Path) -> None:
    """The answer began before the restart, and ends when --drain-idle is over for those who rest."""
    with server_on(tmp_path, road, *LONE, workers=1, source=LATE) as (server, authority):
        (old,) = server.pids
        with (
            connected(server.port, authority) as late,
            connected(server.port, authority) as resting,
        ):
            late.sendall(LATE_POST)
            assert b"connection: close" not in read_to(late, b"begun")
            resting.sendall(GET)
            read_to(resting, b"done")
            server.signal(signal.SIGHUP)
            assert resting.recv(1) == b""
            late.sendall(b".")
            read_to(late, b"0\r\n\r\n")
            late.sendall(GET)
            assert b"connection: close" in read_to(late, b"done")
        wait_for_end(old)


@pytest.mark.parametrize("road", ROADS)
def test_a_slow_reader_of_http2_gets_all_of_its_answer(road: str, tmp_path: Path) -> None:
    """Long after the server has handed it to its kernel, and said its last word."""
    options = (*LONE, "--drain-idle", "5.5s")
    with server_on(tmp_path, road, *options, workers=1, source=LATE) as (server, authority):
        with (
            connected(server.port, authority, "h2") as reader,
            connected(server.port, authority) as resting,
        ):
            resting.sendall(GET)
            read_to(resting, b"done")
            reader.sendall(PREFACE + settings((INITIAL_WINDOW, 1 << 23)) + settings(ack=True))
            reader.sendall(window_update(0, 1 << 23) + get(1, b"/large"))
            got = reader.recv(8192)
            server.signal(signal.SIGHUP)
            # 160 KB/s, until there was time for all that may end the connection
            while not select.select([resting], [], [], 0.05)[0]:
                got += (data := reader.recv(8192))
                reader.sendall(window_update(0, len(data)))
            assert resting.recv(1) == b""
            assert len(got) < LARGE
            while data := reader.recv(65536):
                got += data
        frames = raw_frames(got)
        assert sum(len(payload) for kind, _, _, payload in frames if kind == DATA) == LARGE
        assert [kind for kind, flags, _, _ in frames if kind == DATA and flags & END_STREAM]


# -- as wrk sees it --------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("event", ["SIGHUP", "SIGUSR2", "recycling"])
def test_wrk_loses_nothing(event: str, road: str, tmp_path: Path) -> None:
    options = ("--limit-max-requests", "3000") if event == "recycling" else ()
    with server_on(tmp_path, road, *options) as (server, authority):
        workers = set(server.pids)
        url = f"http{'s' if authority else ''}://127.0.0.1:{server.port}/"
        sizes = ("-t1", "-c48", "-d120", "--timeout", "20s")
        with (
            Mixed(server.port, authority, ["thinking", "fresh"]) as load,
            running(need("wrk"), *sizes, url) as wrk,
        ):
            if event == "recycling":
                left = server.expect_line(r"Worker (\d+) leaves: it has served", times=5)
                wait_for_end(*map(int, left))
            else:
                load.wait_for_none_but(EVENTS[event](server, workers))
            load.wait_for_more()
            wrk.signal(signal.SIGINT)  # it prints what it has
            assert wrk.wait() == 0, wrk.output
        report = read_wrk(wrk.output)
        assert report.failed == 0, report.text
        assert report.requests > 100, report.text
        assert load.failed == 0, str(load)
