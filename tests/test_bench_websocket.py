"""The WebSocket load generator on servers that are right and on servers that are wrong on purpose."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bench import apps, websocket
from bench.load import Address, Meter, Report, VoidError
from bench.rows import ROWS
from bench.websocket import (
    Echo,
    Fanout,
    Generator,
    Handshakes,
    Held,
    NoCompilerError,
    read_line,
    read_report,
    records,
)
from bench.websocket_probe import GUID, Message, Probe, compress
from tests.support.serve import serve

ROUND = 0.05
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    try:
        websocket.generator()
    except NoCompilerError as error:
        pytest.skip(str(error))


def meter() -> Meter:
    return Meter(lambda: 0.0, lambda: None)


@contextlib.contextmanager
def tidegate(app: Any, **options: Any) -> Iterator[Address]:
    with serve(app, lifespan="off", **options) as running:
        yield Address(running.port, "/", tls=False)


def changed(change: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> Any:
    """The echo application, each of its messages made others."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def deliver(message: dict[str, Any]) -> None:
            made = change(message) if message["type"] == "websocket.send" else [message]
            for one in made:
                await send(one)

        await apps.echo(scope, receive, deliver)

    return app


# --- a server of raw bytes


def frame(opcode: int, payload: bytes, *, final: bool = True, flags: int = 0) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([(0x80 if final else 0) | flags | opcode]) + length + payload


def accept_of(head: bytes) -> bytes:
    found = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
    assert found
    assert len(base64.b64decode(found[1])) == 16
    return base64.b64encode(hashlib.sha1(found[1] + GUID).digest())


def right(head: bytes) -> bytes:
    lines = [b"HTTP/1.1 101 Switching Protocols", b"upgrade: websocket", b"connection: upgrade"]
    return b"\r\n".join([*lines, b"sec-WebSocket-accept:  " + accept_of(head) + b" ", b"", b""])


Play = Callable[[socket.socket], None]


@contextlib.contextmanager
def scripted(play: Play, greet: Callable[[bytes], bytes] = right) -> Iterator[Address]:
    """One connection: the handshake is answered by `greet`, the rest is `play`'s."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve_one() -> None:
            peer, _ = listener.accept()
            with peer, contextlib.suppress(ConnectionError):
                peer.settimeout(20)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += peer.recv(1)
                peer.sendall(greet(head))
                play(peer)
                while peer.recv(65536):
                    pass

        thread = threading.Thread(target=serve_one)
        thread.start()
        try:
            yield Address(listener.getsockname()[1], "/", tls=False)
        finally:
            thread.join(20)


def client_frame(peer: socket.socket) -> tuple[int, bytes]:
    """A short masked frame of the client's, unmasked."""
    first, size = peer.recv(2, socket.MSG_WAITALL)
    assert size & 0x80
    mask = peer.recv(4, socket.MSG_WAITALL)
    masked = peer.recv(size & 127, socket.MSG_WAITALL)
    return first, bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    file = tmp_path / "message"
    file.write_bytes(b"sixteen bytes do")
    return file


def played(address: Address, mode: str, **options: object) -> dict[str, Any]:
    with Generator(address, mode, seconds=ROUND, **options) as load:
        return load.play()


# --- right answers are counted


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_every_form_of_length_is_echoed(size):
    with tidegate(apps.echo) as address:
        load = Echo(2, bytes(size))
        load.check(address)
        assert load.run(address, ROUND, meter()).requests > 2


def test_several_messages_in_flight_and_text():
    with tidegate(apps.echo) as address:
        load = Echo(2, "Grüße".encode(), text=True, depth=8)
        report = load.run(address, ROUND, meter())
    assert report.requests >= 16
    assert report.extra["load_cpu_us"] > 0
    assert 0 < report.p50_us <= report.p99_us


def test_the_meter_runs_only_while_all_connections_are_open():
    """Opening and closing are in no figure of a message."""
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
        Echo(5, b"x").run(address, ROUND, watch)
    # The harness's own look before it may be on its way out still.
    assert len(seen) == 2 and min(seen) >= 5


@pytest.mark.parametrize("size", [16, 5000])
def test_compressed_answers_are_known_to_the_byte(size):
    message = records(size)
    with tidegate(apps.echo) as address:
        load = Echo(2, message, text=True, deflate=True)
        agreed = load.check(address)
        assert load.run(address, ROUND, meter()).requests > 2
    assert agreed.startswith("permessage-deflate")
    if size == 5000:
        assert re.search(r"5,000 bytes come as [1-4],\d\d\d$", agreed)


def test_a_server_that_does_not_compress_is_not_compared():
    load = Echo(2, records(100), text=True, deflate=True)
    with tidegate(apps.echo, ws_per_message_deflate=False) as address:
        with pytest.raises(VoidError, match="does not compress"):
            load.check(address)
        with pytest.raises(VoidError, match="does not compress"):
            load.run(address, ROUND, meter())


def test_the_generator_itself_wants_deflate_agreed_to(sent):
    with (
        tidegate(apps.echo, ws_per_message_deflate=False) as address,
        pytest.raises(VoidError, match="does not compress"),
    ):
        played(address, "echo", message=sent, deflate=1)


def test_fragments_split_anywhere_and_pings_between_them_are_fine(sent):
    ponged = []

    def play(peer: socket.socket) -> None:
        _, message = client_frame(peer)
        answer = frame(BINARY, message[:3], final=False) + frame(PING, b"are you there")
        answer += frame(0, b"", final=False) + frame(0, message[3:])
        for byte in answer:
            peer.sendall(bytes([byte]))
        while True:
            first, payload = client_frame(peer)
            if first == 0x80 | PONG:
                ponged.append(payload)
            else:
                peer.sendall(frame(BINARY, payload))

    with scripted(play) as address:
        told = played(address, "echo", message=sent)
    assert told["done"] > 1
    assert told["bytes"] == told["done"] * 16
    assert (told["pings"], ponged) == (1, [b"are you there"])


def test_handshakes_are_counted():
    with tidegate(apps.echo) as address:
        load = Handshakes(4)
        assert load.check(address) == "WebSocket"
        report = load.run(address, ROUND, meter())
    assert report.requests >= 4


def test_held_connections_stay_open_and_a_round_says_how_many():
    with tidegate(apps.echo) as address, Held(1).hold(address, 50) as crowd:
        assert crowd.ready["opened"] == 50
        assert crowd.play()["open"] == 50
        assert crowd.play()["open"] == 50


def play_for_ever(crowd: Generator) -> None:
    while True:
        crowd.play()


def test_a_held_connection_that_the_server_closes_is_noticed():
    with (
        serve(apps.echo, lifespan="off") as running,
        Held(1).hold(Address(running.port, "/", tls=False), 3) as crowd,
    ):
        running.call(running.server.stop)
        with pytest.raises(VoidError, match="closed by the server with 1012"):
            play_for_ever(crowd)


def test_a_message_reaches_every_other_and_deliveries_are_counted():
    load = Fanout(20, b"news")
    with tidegate(apps.fanout) as address:
        load.check(address)
        report = load.run(address, ROUND, meter())
    assert report.requests == 20 * report.extra["broadcasts"]
    assert report.extra["last_ms"] * 1e3 == report.p50_us


def test_a_message_that_comes_back_to_its_sender_is_noticed(sent):
    with tidegate(apps.echo) as address, pytest.raises(VoidError, match="nobody asked for"):
        played(address, "fanout", message=sent, text=1, connections=1)


# --- wrong answers are noticed


def wrong(**content: Any) -> Any:
    return changed(lambda _: [{"type": "websocket.send", **content}])


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (wrong(bytes=b"sixteen bytes dO"), "a wrong answer"),
        (wrong(bytes=b"sixteen bytes"), "an answer of 13 bytes, not of 16"),
        (wrong(bytes=b"sixteen bytes do!"), "a wrong answer"),
        (wrong(bytes=b""), "an answer of 0 bytes"),
        (wrong(text="sixteen bytes do"), "opcode 1, not 2"),
        (changed(lambda message: [message, message]), "nobody asked for"),
        (changed(lambda _: [{"type": "websocket.close", "code": 4001}]), "server with 4001"),
        (apps.plaintext, "handshake was answered HTTP/1.1 500"),
    ],
)
def test_one_wrong_answer_ends_the_round(app, reason, sent):
    with tidegate(app) as address, pytest.raises(VoidError, match=reason):
        played(address, "echo", message=sent, connections=2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x82\x90" + bytes(20), "a masked frame"),
        (b"\xc2\x10" + bytes(16), "flags 40, not 00"),
        (b"\x80\x10" + bytes(16), "opcode 0, not 2"),
        (b"\x02\x01s\x82\x01i", "opcode 2, not 0"),
        (b"\x09\x00", "a control frame that RFC 6455 forbids"),
        (b"\x88\x00", "closed by the server with 1005"),
    ],
)
def test_one_wrong_frame_ends_the_round(answer, reason, sent):
    with (
        scripted(lambda peer: peer.sendall(answer)) as address,
        pytest.raises(VoidError, match=reason),
    ):
        played(address, "echo", message=sent)


def test_the_end_of_a_connection_ends_the_round(sent):
    with (
        scripted(lambda peer: peer.shutdown(socket.SHUT_WR)) as address,
        pytest.raises(VoidError, match="closed without a close frame"),
    ):
        played(address, "echo", message=sent)


def with_line(line: bytes, head: bytes) -> bytes:
    return right(head)[:-2] + line + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("greet", "reason"),
    [
        (lambda head: right(head).replace(accept_of(head), b"x" * 28), "wrong Sec-WebSocket-Acc"),
        (lambda head: right(head).replace(b"accept", b"axept"), "wrong Sec-WebSocket-Accept"),
        (partial(with_line, b"Sec-WebSocket-Extensions: permessage-deflate"), "was not offered"),
        (lambda head: right(head).replace(b"101", b"200"), "answered HTTP/1.1 200"),
        (lambda _: b'HTTP/1.1 403 "No\\"\r\n\r\n', "403 .No"),
        (lambda head: right(head).replace(b"upgrade: w", b"upgrade:\0w"), "NUL"),
    ],
)
def test_a_wrong_handshake_ends_the_round(greet, reason, sent):
    with scripted(lambda _: None, greet) as address, pytest.raises(VoidError, match=reason):
        played(address, "echo", message=sent)


def test_nobody_there_is_said_so(sent):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(VoidError, match="not taken: Connection refused"):
        played(Address(port, "/", tls=False), "echo", message=sent)


def test_an_option_that_does_not_exist_is_refused():
    with pytest.raises(VoidError, match="no such option: colour=red"):
        played(Address(1, "/", tls=False), "hold", colour="red")


# --- the harness's own look


def test_the_probe_inflates_what_was_compressed():
    content = records(3000)
    packed = compress(content)
    assert len(packed) < 1500
    assert Message(text=True, compressed=True, payload=packed).content == content
    with pytest.raises(VoidError, match="cannot be inflated"):
        _ = Message(text=True, compressed=True, payload=b"\xff" + packed).content


def test_the_probe_puts_fragments_together_and_answers_pings():
    ponged = []

    def play(peer: socket.socket) -> None:
        peer.sendall(frame(TEXT, b"a", final=False) + frame(PING, b"?") + frame(0, b"b"))
        ponged.append(client_frame(peer))

    with scripted(play) as address, Probe(address) as probe:
        assert probe.receive() == Message(text=True, compressed=False, payload=b"ab")
    assert ponged == [(0x80 | PONG, b"?")]


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (wrong(bytes=b"another"), "another message: b'another'"),
        (wrong(text="one"), "another message: b'one'"),
        (apps.plaintext, "answered the WebSocket handshake with HTTP/1.1 500"),
    ],
)
def test_the_look_before_a_round_sees_a_wrong_answer(app, reason):
    with tidegate(app) as address, pytest.raises(VoidError, match=reason):
        Echo(1, b"one").check(address)


def test_without_context_the_same_message_must_be_compressed_the_same_way():
    def greet(head: bytes) -> bytes:
        agreed = b"permessage-deflate; server_no_context_takeover"
        return with_line(b"Sec-WebSocket-Extensions: " + agreed, head)

    def play(peer: socket.socket) -> None:
        once = frame(TEXT, compress(b"aaaa"), flags=0x40)
        peer.sendall(once + frame(TEXT, b"aaaa"))

    load = Echo(1, b"aaaa", text=True, deflate=True)
    with scripted(play, greet) as address, pytest.raises(VoidError, match="differently"):
        load.check(address)


def test_a_server_that_keeps_its_context_is_not_compared():
    greet = partial(with_line, b"Sec-WebSocket-Extensions: permessage-deflate")
    load = Echo(1, b"aaaa", text=True, deflate=True)
    with scripted(lambda _: None, greet) as address, pytest.raises(VoidError, match="on its own"):
        load.check(address)


# --- what the generator says


def test_a_report_is_read():
    told = {"done": 50_000, "seconds": 2.0, "cpu_seconds": 0.5, "p50_us": 9, "p99_us": 20}
    assert read_report(told) == Report(50_000, 2.0, 9, 20, {"load_busy": 0.25, "load_cpu_us": 10.0})


def test_a_round_without_answers_is_void():
    with pytest.raises(VoidError, match="no answer"):
        read_report({"done": 0, "seconds": 1.0, "cpu_seconds": 0.0, "p50_us": 0, "p99_us": 0})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('REPORT {"error": "a wrong answer"}', "^a wrong answer$"),
        ('READY {"opened": 1}', "said READY, not REPORT"),
        ("", "no report: ''"),
        ("REPORT {", "no report"),
        ("REPORT 5", "no report"),
    ],
)
def test_anything_but_a_report_is_void(line, reason):
    with pytest.raises(VoidError, match=reason):
        read_line(line, "REPORT")


def test_records_are_text_of_that_size_and_the_same_in_every_run():
    assert len(records(65536)) == 65536
    assert records(4000) == records(4000)
    assert 3 < 65536 / len(compress(records(65536))) < 8


# --- compiling


def test_it_is_compiled_once_and_again_when_the_source_is_newer(tmp_path, monkeypatch):
    source = tmp_path / "load.c"
    source.write_text("int main(void) { return 0; }\n")
    program = tmp_path / "build" / "load"
    monkeypatch.setattr(websocket, "SOURCE", source)
    monkeypatch.setattr(websocket, "SOURCES", (source,))
    monkeypatch.setattr(websocket, "PROGRAM", program)
    assert websocket.generator() == program
    first = program.stat().st_ino, program.stat().st_mtime_ns
    assert websocket.generator() == program
    assert (program.stat().st_ino, program.stat().st_mtime_ns) == first
    source.write_text("this is no C\n")
    later = program.stat().st_mtime + 10
    os.utime(source, (later, later))
    with pytest.raises(NoCompilerError, match="does not compile"):
        websocket.generator()
    assert program.exists()


def test_a_missing_compiler_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(websocket, "PROGRAM", tmp_path / "load")
    monkeypatch.setenv("CC", "no-such-compiler -x")
    with pytest.raises(NoCompilerError, match="a C compiler is missing"):
        websocket.generator()


# --- rows


def test_a_message_of_a_row_is_what_the_row_says():
    loads = {row.name: row.load for row in ROWS}
    for name, size in (("ws-echo", 16), ("ws-echo-deflate", 16), ("ws-echo-64k", 65536)):
        echo = loads[name]
        assert isinstance(echo, Echo)
        assert len(echo.message) == size
        assert echo.deflate is name.endswith("deflate")
    held = [row.load for row in ROWS if isinstance(row.load, Held)]
    assert [load.connections for load in held] == [4000, 15000]
