"""The load client of the restart tests: it misses no failure, and takes nothing good for one.

Small servers misbehave in each way on their first connections and answer well on those that follow.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from tests.support import http2_frames as frames
from tests.support.apps import answer, lifespan
from tests.support.programs import short_folder
from tests.support.serve import serve
from tests.support.steady import Report, Steady, Wrk, WrkReport, read_wrk
from tests.support.steady_http1 import Kind
from tests.support.tls import Files

PATIENCE = 20
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
HEAD = frames.block([(b":status", b"200"), (b"worker", b"7")])
BUSY = frames.block([(b":status", b"503")])
BEGUN = frames.headers(1, HEAD, end=False) + frames.data(1, b"o")
WHOLE = BEGUN + frames.data(1, b"k", end=True)
WARNING = frames.goaway(frames.LARGEST)
REFUSED = frames.rst(3, frames.Code.REFUSED_STREAM)


class Peer:
    """The server's end of one connection; EOFError is the client's end of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.unread = b""

    def send(self, *pieces: bytes) -> None:
        self.sock.sendall(b"".join(pieces))

    def more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.unread += data

    def take(self, size: int) -> bytes:
        while len(self.unread) < size:
            self.more()
        taken, self.unread = self.unread[:size], self.unread[size:]
        return taken

    def request(self) -> None:
        """Wait for one request of HTTP/1.1."""
        while b"\r\n\r\n" not in self.unread:
            self.more()
        _, _, self.unread = self.unread.partition(b"\r\n\r\n")

    def serve_one(self) -> None:
        self.request()
        self.send(GOOD)

    def serve(self) -> None:
        while True:
            self.serve_one()

    def linger(self, more: Callable[[Peer], Any] = more) -> None:
        """Wait for the client's end; it must not send another byte, or whatever is meant."""
        with pytest.raises(EOFError):
            more(self)

    def end(self) -> None:
        """Orderly: without reading what still comes, it would be a reset."""
        with contextlib.suppress(OSError):  # the client may have ended it before
            self.sock.shutdown(socket.SHUT_WR)
        while True:
            self.more()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        raise EOFError

    def greet(self) -> None:
        assert self.take(len(frames.PREFACE)) == frames.PREFACE
        self.send(frames.settings())

    def stream(self) -> int:
        """Wait for the next request of HTTP/2; everything else is passed over."""
        kind = -1
        while kind != frames.HEADERS:
            head = self.take(9)
            kind = head[3]
            self.take(int.from_bytes(head[:3], "big"))
        return int.from_bytes(head[5:], "big")

    def answer(self, stream: int) -> None:
        self.send(frames.headers(stream, HEAD, end=False), frames.data(stream, b"ok", end=True))

    def serve_streams(self) -> None:
        while True:
            self.answer(self.stream())


Part = Callable[[Peer, int], None]  # a connection's, with its number from 0 on


class Stage(socketserver.ThreadingTCPServer):
    """Plays its part on each connection, numbered in the order they come."""

    def get_request(self) -> tuple[socket.socket, int]:
        sock, _ = super().get_request()
        sock.settimeout(PATIENCE)
        return sock, next(self.numbers)

    def finish_request(self, sock: Any, number: Any) -> None:
        peer = Peer(sock)
        try:
            self.part(peer, number)
            peer.end()
        except (EOFError, ConnectionError, ssl.SSLError):
            pass
        except BaseException as error:  # a failure of pytest's is no Exception
            self.errors.append(error)
        peer.sock.close()


@contextlib.contextmanager
def playing(part: Part) -> Iterator[int]:
    """A server on a port of its own; what a part raises is raised here."""
    with Stage(("127.0.0.1", 0), socketserver.BaseRequestHandler) as stage:
        stage.part, stage.numbers, stage.errors = part, itertools.count(), []
        thread = threading.Thread(target=stage.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield stage.server_address[1]
        finally:
            stage.shutdown()
            thread.join(PATIENCE)
    for error in stage.errors:
        raise error


BAD = 3  # connections on which a server misbehaves
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal"
CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n"


def first(said: bytes, then: Callable[[Peer], None] = Peer.end) -> Part:
    """On the first connections this follows a request; the rest are served well."""

    def part(peer: Peer, number: int) -> None:
        if number >= BAD:
            peer.serve()
        peer.request()
        peer.send(said)
        then(peer)

    return part


def load_on(part: Part, **options: Any) -> Report:
    """What has come of a load on two connections when it had some good answers."""
    options = {"expect": lambda body: body == b"ok", **options}
    with playing(part) as port, Steady(port, 2, **options) as load:
        load.wait_for(answers=5, timeout=PATIENCE)
    return load.report


@pytest.mark.parametrize(
    ("part", "kind", "text"),
    [
        (first(b"", Peer.reset), Kind.RESET, "after 0 bytes"),
        (first(HALF, Peer.reset), Kind.RESET, "reset"),
        (first(b""), Kind.CLOSED, "an end"),
        (first(HALF), Kind.TRUNCATED, f"after {len(HALF)} bytes"),
        (first(CHUNK), Kind.TRUNCATED, f"after {len(CHUNK)} bytes"),
        (first(HALF[:20]), Kind.TRUNCATED, "after 20 bytes"),
        (first(LAST.replace(b"200 OK", b"503 Busy")), Kind.STATUS, "503: b'ok'"),
        (first(b"HTTP/1.1 304 Same\r\nConnection: close\r\n\r\n"), Kind.STATUS, "304"),
        (first(LAST.replace(b"ok", b"no")), Kind.WRONG, "2 bytes, b'no'"),
        (first(GOOD + b"more"), Kind.WRONG, "more"),
        (first(b"SSH-2.0-tide\r\n\r\n"), Kind.WRONG, "not a status line"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_way_to_fail(part: Part, kind: Kind, text: str) -> None:
    report = load_on(part)
    assert report.failures == {kind: BAD}, report
    assert [text in one.text for one in report.details] == [True] * BAD, report


@pytest.mark.parametrize("http2", [False, True])
def test_nobody_listens(http2: bool) -> None:
    with socket.socket() as bound, short_folder() as folder:
        bound.bind(("127.0.0.1", 0))
        for where in (bound.getsockname()[1], folder / "nobody"):
            with Steady(where, 2, http2=http2) as load:
                load.wait_until(lambda report: report.failures.total() >= 4)
            assert set(load.report.failures) == {Kind.REFUSED}, load.report


def test_no_answer_in_time() -> None:
    report = load_on(first(b"", Peer.linger), timeout=0.5)
    assert report.failures == {Kind.TIMEOUT: max(BAD, report.failures.total())}, report


def test_no_answer_in_time_on_a_stream() -> None:
    """The other stream's answer still counts; then the connection is left for a new one."""
    report = streams(lambda peer: (peer.answer(3), peer.linger(Peer.serve_streams)), timeout=0.5)
    assert report.failures == {Kind.TIMEOUT: max(1, report.failures.total())}, report


@pytest.mark.parametrize(
    ("unasked", "failures"),
    [(b"", {}), (frames.goaway(1), {}), (GOOD, {Kind.WRONG: 2})],
    ids=["end", "goaway", "bytes"],
)
def test_what_comes_on_a_resting_connection(unasked: bytes, failures: Any) -> None:
    """Its end is no failure; a 408, say, is, which the next request would take for its answer."""
    rests = threading.Event()
    http2 = unasked == frames.goaway(1)

    def part(peer: Peer, number: int) -> None:
        if http2:
            peer.greet()
            peer.answer(peer.stream())
        else:
            peer.serve_one()
        assert rests.wait(PATIENCE)
        peer.send(unasked)

    with playing(part) as port, Steady(port, 2, http2=http2, streams=1, think=100) as load:
        load.wait_for(answers=2)
        rests.set()
        load.wait_until(lambda it: it.failures.total() + it.closed_idle + it.goaways == 2)
    assert load.report.failures == failures, load.report


def test_an_end_is_looked_for_before_the_next_request() -> None:
    """Also where the selector has not told of it yet: here the load is taken turn by turn."""
    leave = threading.Semaphore(0)

    def part(peer: Peer, number: int) -> None:
        peer.serve_one()
        assert leave.acquire(timeout=PATIENCE)

    with playing(part) as port:
        load = Steady(port, 1, think=100)
        for answers in (1, 2, 3):
            load._lanes[0].begin()
            while load.report.answers < answers:
                load._turn()
                assert not load.report.failures, load.report
            leave.release()
            (line,) = load.lines
            assert select.select([line.sock], [], [], PATIENCE)[0]
        line.close()
    assert load.report.closed_idle == 2


def test_an_announced_close_is_heeded() -> None:
    def part(peer: Peer, number: int) -> None:
        peer.request()
        peer.send(LAST)
        peer.linger()

    report = load_on(part)
    assert (report.failures, report.opened, report.announced) == ({}, *[report.answers] * 2), report


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
    ],
    ids=["until the end", "1.0", "chunked"],
)
def test_other_forms_of_an_answer(text: bytes) -> None:
    def part(peer: Peer, number: int) -> None:
        peer.request()
        for at in range(len(text)):
            peer.send(text[at : at + 1])

    report = load_on(part)
    assert report.failures == {}, report


def test_a_handshake_that_ends() -> None:
    def part(peer: Peer, number: int) -> None:
        peer.more()
        if number % 2:
            peer.reset()

    with playing(part) as port, Steady(port, 2, tls=trustme.CA()) as load:
        load.wait_until(lambda report: len(report.failures) == 2)
    assert set(load.report.failures) == {Kind.CLOSED, Kind.RESET}, load.report
    assert all("TLS handshake" in one.text for one in load.report.details)


def test_tls_cut_without_its_own_end() -> None:
    """A body that lasts until the end of the connection is not whole without a close_notify."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)

    def part(peer: Peer, number: int) -> None:
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nok")
        if number >= BAD:
            peer.sock.unwrap()

    report = load_on(part, tls=ca)
    assert report.failures == {Kind.TRUNCATED: BAD}, report


def test_an_error_in_the_load_itself_is_told() -> None:
    with pytest.raises(AssertionError, match="failed itself"):
        load_on(lambda peer, number: peer.serve(), expect=lambda body: body[99] == 0)


def test_who_was_seen_since_the_mark() -> None:
    """Only those who answered what was asked after it."""
    report = Report(marked=2.0)
    report.note_answer(b"7", asked=1.0)
    report.note_answer(b"8", asked=2.0)
    assert (report.seen, report.workers) == ({8}, {7: 1, 8: 1})


def streams(first: Callable[[Peer], Any], **options: Any) -> Report:
    """One connection with two streams; `first` plays the first one, the rest is served well."""

    def part(peer: Peer, number: int) -> None:
        peer.greet()
        if number:
            peer.serve_streams()
        assert (peer.stream(), peer.stream()) == (1, 3)
        first(peer)

    with playing(part) as port, Steady(port, 1, http2=True, streams=2, **options) as load:
        load.wait_until(lambda report: report.workers[7] >= 10 and report.opened > 1)
    return load.report


@pytest.mark.parametrize(
    ("said", "resent", "goaways"),
    [
        (frames.goaway(1) + WHOLE, {"goaway": 1}, 1),
        (WARNING + frames.ping() + frames.goaway(1) + WHOLE, {"goaway": 1}, 2),
        (REFUSED + WHOLE + WARNING, {"refused_stream": 1}, 1),
    ],
    ids=["goaway", "goaway in two steps", "refused"],
)
def test_what_was_not_processed_is_sent_again(said: bytes, resent: Any, goaways: int) -> None:
    """Stream 3 was not, and goes elsewhere; stream 1 gets its answer here."""
    report = streams(lambda peer: (peer.send(said), peer.linger(Peer.stream)))
    assert report.failures == {}, report
    assert (report.resent, report.goaways) == (resent, goaways), report


def test_after_the_warning_the_next_request_goes_elsewhere_at_once() -> None:
    elsewhere = threading.Event()

    def part(peer: Peer, number: int) -> None:
        peer.greet()
        if number:
            elsewhere.set()
            peer.serve_streams()
        assert (peer.stream(), peer.stream()) == (1, 3)
        peer.send(WARNING)
        peer.answer(1)
        assert elsewhere.wait(PATIENCE)  # with stream 3 still open
        peer.answer(3)
        peer.linger(Peer.stream)

    with playing(part) as port, Steady(port, 1, http2=True, streams=2) as load:
        load.wait_for(answers=10)
    assert (load.report.failures, load.report.resent, load.report.opened) == ({}, {}, 2)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", {Kind.CLOSED: 2}),
        (WHOLE + frames.goaway(3), {Kind.CLOSED: 1}),
        (BEGUN, {Kind.CLOSED: 1, Kind.TRUNCATED: 1}),
        (BEGUN + frames.goaway(1), {Kind.TRUNCATED: 1}),
        (frames.goaway(3), {Kind.CLOSED: 2}),
        (WARNING, {Kind.CLOSED: 2}),
        (WHOLE + frames.rst(3) + frames.goaway(3), {Kind.RESET: 1}),
        (WHOLE + frames.headers(3, BUSY) + frames.goaway(3), {Kind.STATUS: 1}),
        (frames.goaway(0, frames.Code.INTERNAL_ERROR), {Kind.GOAWAY: 1}),
        (frames.goaway(1) + frames.goaway(3), {Kind.WRONG: 1}),
        (frames.goaway(1) + frames.headers(3, HEAD), {Kind.WRONG: 1}),
        (frames.data(1, b"no head"), {Kind.WRONG: 2}),
    ],
    ids=[
        "end", "end of one", "end within one", "cut below the last", "none of two answered",
        "only warned", "reset", "status", "error code", "raised", "disowned", "nonsense",
    ],
)  # fmt: skip
def test_each_way_to_fail_with_streams(said: bytes, expected: dict[Kind, int]) -> None:
    """With two streams open, this comes, and then the end."""
    report = streams(lambda peer: peer.send(said))
    assert report.failures == expected, report


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    headers = [(b"worker", str(os.getpid()).encode())]
    return await answer(send, 200, headers, scope["http_version"].encode())


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, dict[str, Any]]:
    """An authority, and the server's options for a certificate of it."""
    ca = trustme.CA()
    own = Files(tmp_path_factory.mktemp("tls"), "own").write(ca.issue_cert("127.0.0.1"))
    return ca, {"ssl_certfile": own.cert, "ssl_keyfile": own.key}


@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])
@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_tidegate(version: str, tls: bool, fresh: bool, trusted: Any) -> None:
    ca, certificate = trusted if tls else (None, {})
    options = {"http2": version == "2", "expect": lambda body: body == version.encode()}
    with serve(application, **certificate) as server:
        with Steady(server.port, 8, tls=ca, fresh=fresh, **options) as load:
            load.wait_for(answers=100)
            load.mark()
            load.wait_until(lambda report: report.seen)
            load.wait_for(answers=50)
        assert server.logged() == []
    report = load.report
    assert not report.failures, report
    assert (report.workers, report.seen) == ({os.getpid(): report.answers}, {os.getpid()})
    assert report.opened == (report.answers if fresh else 8)


def test_tidegate_on_a_unix_socket() -> None:
    with (
        short_folder() as folder,
        serve(application, uds=str(folder / "sock")) as server,
        Steady(server.path, 4) as one,
        Steady(server.path, 2, http2=True) as two,
    ):
        one.wait_for(answers=50)
        two.wait_for(answers=50)
    assert not (one.report.failures or two.report.failures), (one.report, two.report)


def test_tidegates_goaway_loses_nothing() -> None:
    """Two servers on one listening socket; the one that stops tells its connections to go."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        serve(application, fd=os.dup(listener.fileno())) as leaving,
        contextlib.ExitStack() as successor,
        Steady(listener.getsockname()[1], 4, http2=True) as load,
    ):
        load.wait_for(answers=50)
        successor.enter_context(serve(application, fd=os.dup(listener.fileno())))
        leaving.stop()
        load.wait_until(lambda report: report.goaways)
        load.wait_for(answers=50)
    assert not load.report.failures, load.report


def test_what_wrk_says() -> None:
    text = "  7 requests in 1.00s, 1KB read\n"
    text += "  Socket errors: connect 1, read 2, write 3, timeout 4\n"
    text += "  Non-2xx or 3xx responses: 5\n"
    assert read_wrk(text) == WrkReport(7, 1, 2, 3, 4, 5, text)
    assert (read_wrk(text).failed, read_wrk(text.partition("\n")[0]).failed) == (15, 0)


@pytest.mark.real
def test_wrk_beside() -> None:
    with serve(application) as server, Wrk(server.port, 1, 8) as program:
        report = program.join()
    assert report.requests > 8 and report.failed == 0, report.text
