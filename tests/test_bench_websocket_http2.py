"""The load of WebSockets over HTTP/2 on servers that are right and on servers that are wrong."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import apps, websocket, websocket_http2
from bench.load import Address, Meter, VoidError
from bench.rows import ROWS
from bench.websocket import NoCompilerError
from bench.websocket_http2 import StreamEcho, StreamGenerator
from tests.support.http2_frames import (
    ACK,
    CONNECT_PROTOCOL,
    DATA,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    MAX_STREAMS,
    PING,
    PREFACE,
    SETTINGS,
    Code,
    continuation,
    data,
    frame,
    goaway,
    headers,
    literal,
    ping,
    priority,
    rst,
    settings,
    window_update,
)
from tests.support.serve import serve

ROUND = 0.05
MESSAGE = b"sixteen bytes do"
ECHO = b"\x82\x10" + MESSAGE
OFFERED = settings((CONNECT_PROTOCOL, 1))
ACCEPTED = headers(1, b"\x88", end=False)
Frame = tuple[int, int, int, bytes]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    try:
        websocket.compiled(websocket_http2.SOURCES, websocket_http2.PROGRAM)
    except NoCompilerError as error:
        pytest.skip(str(error))


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    file = tmp_path / "message"
    file.write_bytes(MESSAGE)
    return file


def meter() -> Meter:
    return Meter(lambda: 0.0, lambda: None)


@contextlib.contextmanager
def tidegate(app: Any, **options: Any) -> Iterator[Address]:
    with serve(app, lifespan="off", **options) as running:
        yield Address(running.port, "/", tls=False)


def played(address: Address, message: Path, **options: object) -> dict[str, Any]:
    with StreamGenerator(address, message=message, **{"seconds": ROUND, **options}) as load:
        return load.play()


# --- a server of raw bytes


class Peer:
    """The server's end of the only connection, whose only stream is 1."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.seen: list[Frame] = []

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def read(self) -> Frame:
        head = self._exactly(9)
        payload = self._exactly(int.from_bytes(head[:3], "big"))
        self.seen.append((head[3], head[4], int.from_bytes(head[5:], "big"), payload))
        return self.seen[-1]

    def read_until(self, kind: int, flags: int = 0) -> bytes:
        while (found := self.read())[:2] != (kind, flags):
            pass
        return found[3]

    def accept(self, hello: bytes = OFFERED, answer: bytes = ACCEPTED) -> None:
        assert self._exactly(len(PREFACE)) == PREFACE
        self.send(hello)
        self.read_until(HEADERS, 4)
        self.send(answer)

    def message(self) -> bytes:
        """What the next DATA frame holds: one short masked frame, unmasked."""
        return unmasked(self.read_until(DATA))

    def echo(self) -> None:
        while True:
            assert self.message() == b"\x82\x90" + MESSAGE
            self.send(data(1, ECHO))

    def _exactly(self, size: int) -> bytes:
        taken = self.socket.recv(size, socket.MSG_WAITALL) if size else b""
        if len(taken) < size:
            raise ConnectionError
        return taken


def unmasked(one: bytes) -> bytes:
    mask, masked = one[2:6], one[6:]
    return one[:2] + bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))


@contextlib.contextmanager
def scripted(play: Callable[[Peer], None]) -> Iterator[Address]:
    """One connection, which is `play`'s, and then read to its end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve_one() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.settimeout(20)
                play(Peer(connection))
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=serve_one)
        thread.start()
        try:
            yield Address(listener.getsockname()[1], "/chat", tls=False)
        finally:
            thread.join(20)


# --- right answers are counted


@pytest.mark.parametrize("size", [0, 1, 125, 126, 16000])
def test_every_form_of_length_is_echoed_on_every_stream(size):
    with tidegate(apps.echo) as address:
        load = StreamEcho(2, 3, bytes(size))
        assert load.check(address) == "WebSocket over HTTP/2"
        report = load.run(address, ROUND, meter())
    assert report.requests >= 6
    assert report.extra["load_cpu_us"] > 0
    assert 0 < report.p50_us <= report.p99_us


def test_the_meter_runs_only_while_all_streams_are_open():
    served = []

    async def app(scope, receive, send):
        served.append(1)
        try:
            await apps.echo(scope, receive, send)
        finally:
            served.append(-1)

    seen = []
    with tidegate(app) as address:
        watch = Meter(lambda: seen.append(sum(served)) or 0.0, lambda: None)
        StreamEcho(2, 3, b"x").run(address, ROUND, watch)
    assert len(seen) == 2 and min(seen) >= 6


def test_the_request_is_that_of_rfc_8441(sent):
    peers = []

    def play(peer: Peer) -> None:
        peers.append(peer)
        peer.accept()
        peer.echo()

    with scripted(play) as address:
        told = played(address, sent)
    assert told["done"] > 1
    assert told["bytes"] == told["done"] * 18
    block = next(one[3] for one in peers[0].seen if one[0] == HEADERS)
    authority = f"127.0.0.1:{address.port}".encode()
    assert block == b"".join(
        (
            b"\x02\x07CONNECT",
            b"\x86",
            b"\x04\x05/chat",
            b"\x01" + bytes([len(authority)]) + authority,
            literal(b":protocol", b"websocket"),
            literal(b"sec-websocket-version", b"13"),
        )
    )


@pytest.mark.parametrize(
    "block",
    [
        b"\x88",
        b"\x20\x3f\xe1\x1f\x88",
        b"\x08\x03200",
        b"\x48\x03200",
        b"\x18\x82\x10\x01",
    ],
)
def test_a_status_is_read_however_it_is_written(block, sent):
    def play(peer: Peer) -> None:
        peer.accept(answer=headers(1, block, end=False))
        peer.echo()

    with scripted(play) as address:
        assert played(address, sent)["done"] > 0


def test_answers_cut_anywhere_and_pings_between_them_are_fine(sent):
    peers, ponged = [], []

    def play(peer: Peer) -> None:
        peers.append(peer)
        peer.accept()
        peer.message()
        octets = data(1, b"\x89\x05there") + data(1, ECHO[:1]) + ping(b"12345678") + data(1)
        octets += settings() + priority(1) + frame(0xFA, b"of a kind that is not known")
        octets += data(1, ECHO[1:9]) + data(1, ECHO[9:])
        for octet in octets:
            peer.send(bytes([octet]))
        ponged.append(peer.message())
        peer.echo()

    with scripted(play) as address:
        told = played(address, sent)
    assert told["done"] > 1
    assert (told["pings"], ponged) == (1, [b"\x8a\x85there"])
    assert (PING, ACK, 0, b"12345678") in peers[0].seen
    assert peers[0].seen.count((SETTINGS, ACK, 0, b"")) == 2


@pytest.mark.parametrize(
    ("stream", "size", "room", "fit"),
    [(1, 16, 30, 1), (0, 16000, 1 << 20, 65535 // 16008)],
    ids=["stream", "connection"],
)
def test_nothing_is_sent_beyond_a_window(stream, size, room, fit, sent):
    sent.write_bytes(bytes(size))
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    answer = data(1, b"\x82" + length + bytes(size))
    between: list[Frame] = []

    def play(peer: Peer) -> None:
        peer.accept(settings((CONNECT_PROTOCOL, 1), (INITIAL_WINDOW, room)))
        for _ in range(fit):
            peer.read_until(DATA)
            peer.send(answer)
        before = len(peer.seen)
        for mark in (b"first...", b"second.."):
            peer.send(ping(mark))
            peer.read_until(PING, ACK)
        between.extend(one for one in peer.seen[before:] if one[0] == DATA)
        peer.send(window_update(stream, 1 << 20))
        for _ in range(2):
            peer.read_until(DATA)
            peer.send(answer)
        peer.socket.shutdown(socket.SHUT_WR)

    with scripted(play) as address, pytest.raises(VoidError, match="closed by the server"):
        # It lasts until the script is over.
        played(address, sent, seconds=20)
    assert not between


# --- wrong answers are noticed


def after_a_message(octets: bytes) -> Callable[[Peer], None]:
    def play(peer: Peer) -> None:
        peer.accept()
        peer.message()
        peer.send(octets)

    return play


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (data(1, ECHO[:-1] + b"O"), "byte 17 of its frame is 4f, not 6f"),
        (data(1, ECHO[:9]) + data(1, b"?"), "byte 9 of its frame is 3f, not 20"),
        (data(1, b"\x81" + ECHO[1:]), "byte 0 of its frame is 81, not 82"),
        (data(1, b"\xc2" + ECHO[1:]), "byte 0 of its frame is c2, not 82"),
        (data(1, b"\x82\x0d" + MESSAGE[:13]), "byte 1 of its frame is 0d, not 10"),
        (data(1, b"\x82\x90" + bytes(20)), "byte 1 of its frame is 90, not 10"),
        (data(1, b"\x88\x02\x0f\xa1"), "closed by the server with 4001"),
        (data(1, b"\x88\x00"), "closed by the server with 1005"),
        (data(1, b"\x09\x00"), "a frame that begins with 09"),
        (data(1, b"\x89\x7e"), "a control frame that RFC 6455 forbids"),
        (data(1, ECHO, end=True), "stream 1 was ended by the server"),
        (data(1, ECHO, pad=3), "DATA with padding"),
        (data(3, ECHO), "kind 0 on stream 3, which nobody opened"),
        (data(2, ECHO), "kind 0 on stream 2, which nobody opened"),
        (data(1, bytes(16385)), "a frame of 16385 bytes"),
        (headers(1, b"\x88"), "trailers"),
        (continuation(1), "a frame of kind 9"),
        (rst(1, Code.CANCEL), "stream 1 was reset with error 8"),
        (goaway(1, Code.NO_ERROR), "GOAWAY with error 0"),
        (goaway(1, Code.ENHANCE_YOUR_CALM, b'"calm"'), "GOAWAY with error 11: .calm"),
        (window_update(1, 0), "a WINDOW_UPDATE by 0"),
        (window_update(0, (1 << 31) - 1), "a WINDOW_UPDATE by 2147483647"),
        (settings((CONNECT_PROTOCOL, 0)), "does not offer extended CONNECT"),
    ],
)
def test_one_wrong_answer_ends_the_round(octets, reason, sent):
    with scripted(after_a_message(octets)) as address, pytest.raises(VoidError, match=reason):
        played(address, sent)


def test_an_answer_that_comes_twice_is_noticed(sent):
    with (
        scripted(after_a_message(data(1, ECHO) * 2)) as address,
        pytest.raises(VoidError, match="nobody asked for"),
    ):
        played(address, sent)


def test_an_answer_that_comes_again_when_the_round_is_over_is_noticed(sent):
    def play(peer: Peer) -> None:
        after_a_message(data(1, ECHO) + ping())(peer)
        peer.read_until(PING, ACK)
        peer.send(data(1, ECHO))

    def play_on(load: StreamGenerator) -> None:
        while True:
            load.play()

    with (
        scripted(play) as address,
        StreamGenerator(address, seconds=0, message=sent) as load,
        pytest.raises(VoidError, match="nobody asked for"),
    ):
        play_on(load)


def test_the_end_of_a_connection_ends_the_round(sent):
    def play(peer: Peer) -> None:
        peer.accept()
        peer.message()
        peer.socket.shutdown(socket.SHUT_WR)

    with scripted(play) as address, pytest.raises(VoidError, match="closed by the server"):
        played(address, sent)


@pytest.mark.parametrize(
    ("hello", "answer", "reason"),
    [
        (settings(), b"", "does not offer extended CONNECT"),
        (settings((CONNECT_PROTOCOL, 0)), b"", "does not offer extended CONNECT"),
        (settings((CONNECT_PROTOCOL, 1), (MAX_STREAMS, 0)), b"", "takes 0 streams"),
        (settings(ack=True), b"", "does not begin with SETTINGS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", "does not begin with SETTINGS"),
        (goaway(0, Code.HTTP_1_1_REQUIRED), b"", "does not begin with SETTINGS"),
        (OFFERED, headers(1, b"\x8d"), "handshake was answered 404"),
        (OFFERED, headers(1, b"\x48\x03501", end=False), "handshake was answered 501"),
        # 403 in Huffman code: 011010 00000 011001.
        (OFFERED, headers(1, b"\x48\x83\x68\x0c\xff"), "handshake was answered 403"),
        (OFFERED, headers(1, b"\xbe", end=False), "status cannot be read"),
        (OFFERED, headers(1, b"", end=False), "status cannot be read"),
        (OFFERED, headers(1, b"\x48\x04200", end=False), "status cannot be read"),
        (OFFERED, headers(1, b"\x88"), "answer ended its stream"),
        (OFFERED, headers(1, b"\x88", end=False, done=False), "in several frames"),
        (OFFERED, data(1, ECHO), "before the handshake was answered"),
        (OFFERED, rst(1, Code.REFUSED_STREAM), "stream 1 was reset with error 7"),
        (OFFERED, goaway(0, Code.PROTOCOL_ERROR), "GOAWAY with error 1"),
    ],
)
def test_a_wrong_handshake_ends_the_round(hello, answer, reason, sent):
    with (
        scripted(lambda peer: peer.accept(hello, answer)) as address,
        pytest.raises(VoidError, match=reason),
    ):
        played(address, sent)


def test_a_server_without_websockets_on_streams_is_said_so(sent):
    with (
        tidegate(apps.echo, http2=False) as address,
        pytest.raises(VoidError, match="does not begin with SETTINGS"),
    ):
        played(address, sent)


def test_an_application_that_fails_refuses(sent):
    with (
        tidegate(apps.plaintext) as address,
        pytest.raises(VoidError, match="answered 500"),
    ):
        played(address, sent)


def test_nobody_there_is_said_so(sent):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(VoidError, match="not taken: Connection refused"):
        played(Address(port, "/", tls=False), sent)


def test_an_option_that_does_not_exist_is_refused(sent):
    with pytest.raises(VoidError, match="no such option: colour=red"):
        played(Address(1, "/", tls=False), sent, colour="red")


def test_a_path_too_long_for_the_request_is_refused(sent):
    with scripted(Peer.accept) as address, pytest.raises(VoidError, match="longer than a request"):
        played(Address(address.port, "/" * 127, tls=False), sent)


def test_a_message_that_no_data_frame_holds_is_refused(sent):
    sent.write_bytes(bytes(16384))
    with pytest.raises(VoidError, match="does not fit"):
        played(Address(1, "/", tls=False), sent)


# --- the harness's own look


@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (after_a_message(data(1, b"\x82\x03two")), "another message: b'two'"),
        (after_a_message(data(1, b"\x81\x03one")), "another message: b'one'"),
        (after_a_message(rst(1)), "reset the stream with error 8"),
        (after_a_message(goaway(1, 2)), "GOAWAY with error 2"),
        (after_a_message(data(1, end=True)), "closed the connection"),
        (after_a_message(headers(1, b"\x88")), "kind 1, not 0"),
        (lambda peer: peer.accept(settings()), "does not offer extended CONNECT"),
        (lambda peer: peer.accept(ping()), "does not answer the preface"),
        (lambda peer: peer.accept(answer=headers(1, b"\x8e")), "with 8e, not 88"),
        (lambda peer: peer.accept(answer=headers(1, b"\x88")), "with 88, not 88"),
        (lambda peer: peer.accept(answer=data(1, ECHO)), "kind 0, not 1"),
    ],
)
def test_the_look_before_a_round_sees_what_is_wrong(play, reason):
    with scripted(play) as address, pytest.raises(VoidError, match=reason):
        StreamEcho(1, 1, b"one").check(address)


def test_the_look_before_a_round_answers_what_has_to_be_answered():
    peers = []

    def play(peer: Peer) -> None:
        peers.append(peer)
        peer.accept(answer=headers(1, b"\x20\x88", end=False))
        for _ in range(2):
            assert peer.message() == b"\x82\x83one"
            peer.send(ping(b"12345678") + data(1) + data(1, b"\x82\x03o") + data(1, b"ne"))
        peer.read_until(PING, ACK)

    with scripted(play) as address:
        StreamEcho(1, 1, b"one").check(address)
    assert (PING, ACK, 0, b"12345678") in peers[0].seen
    assert (SETTINGS, ACK, 0, b"") in peers[0].seen
    assert not any(one[0] == GOAWAY for one in peers[0].seen)


# --- rows


def test_the_row_asks_for_what_it_says():
    row = next(row for row in ROWS if row.name == "ws-echo-h2")
    assert isinstance(row.load, StreamEcho)
    assert (row.load.connections, row.load.streams, len(row.load.message)) == (8, 8, 16)
