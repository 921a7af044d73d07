"""How WebSockets end: cancelled waits, the server's stop, peers that do not answer or do not read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import pytest
from tests.support.behaviour import PATIENCE, Gate, Http
from tests.support.serve import Running, serve
from tests.support.socket_apps import Echo, Script, address
from tests.support.socket_client import (
    TEXT,
    SocketClient,
    closing,
    connected,
    masked,
)

from tidegate.asgi import session as session_module
from tidegate.serving import drain

# ---------------------------------------------------------------------------- cancelling, stopping


def test_a_cancelled_receive_loses_no_message(http: Http) -> None:
    waiting = Gate()

    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(3):
            task = asyncio.create_task(receive())
            await asyncio.sleep(0)
            task.cancel()
        waiting.open()
        return [(await receive())["text"] for _ in range(3)]

    app = Script(play)
    with serve(app) as server, http.connected(server) as client:
        waiting.wait()
        client.send(*(masked(TEXT, b"%d" % number) for number in range(3)))
        assert app.news.next() == ["0", "1", "2"]


def test_stopping_tells_every_socket_1012(http: Http) -> None:
    app = Echo()
    with serve(app) as server:
        with http.connected(server) as client:
            assert client.ask("a") == "a"
            server.call(server.server.stop)
            assert client.read_close()[0] == 1012
            client.send(closing(1012))
            assert client.raw.read_eof() == b""
        assert app.news.next()["text"] == "a"
        assert app.news.next()["code"] == 1012
        server.stop()
        assert server.clean


def test_a_socket_that_is_let_in_after_the_stop_is_told_1012_as_well(http: Http) -> None:
    gate, asked = Gate(), Gate()

    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        asked.open()
        await gate.passed()
        await send({"type": "websocket.accept"})
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "too late"})
        return await receive()

    app = Script(play)
    with serve(app) as server:
        with (
            contextlib.closing(http.connect(address(server), None)) as idle,
            http.knocking(server) as raw,
        ):
            asked.wait()
            server.call(server.server.stop)
            idle.wait_closed()  # the stop has reached everybody
            gate.open()
            response = raw.read_head()
            assert response.status == http.socket_status
            client = SocketClient(raw, response)
            assert client.read_close()[0] == 1012
            client.send(closing(1012))
            assert raw.read_eof() == b""
            assert app.news.next()["code"] == 1012
        server.stop()
        assert server.clean


def test_what_keeps_a_stop_waiting_is_named(http: Http) -> None:
    gate = Gate()

    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.accept"})
        await gate.passed()

    def wait_for(server: Running, words: str) -> None:
        limit = time.monotonic() + PATIENCE
        while not any(words in line for line in server.logged(logging.INFO)):
            assert time.monotonic() < limit, server.records
            time.sleep(0)  # hands the interpreter to the server's thread

    def end(client: SocketClient) -> None:
        assert client.read_close()[0] == 1012
        client.send(closing(1012))
        assert client.raw.read_eof() == b""

    app = Script(play)
    with serve(app) as server:
        with http.connected(server) as client:
            server.call(server.server.stop)
            wait_for(server, "Stopping: waiting for WebSocket / (")
            gate.open()
            end(client)
        server.stop()
        assert server.clean
    with serve(Echo()) as server:
        with http.connected(server) as client:
            server.call(server.server.stop)
            wait_for(server, "Stopping: waiting for 1 connection whose peer has not closed yet")
            end(client)
        server.stop()


def test_a_stop_that_takes_no_time_says_nothing_of_waiting(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "QUIET", PATIENCE)  # the client's answer may take its time here
    with serve(Echo()) as server:
        with http.connected(server) as client:
            assert client.ask("a") == "a"
            server.call(server.server.stop)
            assert client.read_close()[0] == 1012
            client.send(closing(1012))
            assert client.raw.read_eof() == b""
        server.stop()
        assert server.clean
        assert not any("waiting" in line for line in server.records)


def test_a_refused_handshake_has_its_client_in_the_access_log(http: Http, tmp_path: Any) -> None:
    file = tmp_path / "access.log"
    options = {"access_log": True, "access_log_file": str(file), "access_log_format": "common"}
    with serve(Echo(), **options) as server, http.knocking(server, version=b"8") as raw:
        response = raw.read_response()
        assert response.all(b"server") == [b"tidegate"]
    (line,) = file.read_text().splitlines()
    assert line.startswith("127.0.0.1 ")
    assert f" {response.status} " in line


def test_a_peer_that_does_not_answer_our_close_is_not_waited_for_for_ever(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "CLOSE_WAIT", 0.0)

    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    with serve(Script(play)) as server, http.connected(server) as client:
        assert client.read_close()[0] == 1000
        assert client.raw.read_eof() == b""


def test_an_application_behind_stops_the_reading_and_goes_on() -> None:
    """The connection's, over HTTP/1.1; the stream's own window does it where there are streams."""
    gate = Gate()

    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        await send({"type": "websocket.accept"})
        await gate.passed()
        got = 0
        while (message := await receive())["type"] == "websocket.receive":
            got += 1
            assert message["text"] == "x" * 1000
        return got

    app = Script(play)
    with serve(app) as server, connected(address(server)) as client:
        [connection] = server.worker._floor.connections
        client.raw.send_beside(masked(TEXT, b"x" * 1000) * 3000 + closing(1000))
        deadline = time.monotonic() + PATIENCE
        while connection.reading and time.monotonic() < deadline:
            time.sleep(0)  # hands the interpreter to the server's thread
        assert not connection.reading
        gate.open()
        assert app.news.next() == 3000
        assert client.read_close()[0] == 1000
