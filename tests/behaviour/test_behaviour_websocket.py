"""WebSocket as an application and its client see it; named after the statements 49 to 66 and 75."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from tests.support.behaviour import Gate, Http
from tests.support.raw import RawClient
from tests.support.serve import serve
from tests.support.socket_apps import Echo, Script, address
from tests.support.socket_client import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    closing,
    handshake,
    masked,
)


def text_of(client: Any) -> str:
    opcode, payload = client.read()
    assert opcode == TEXT
    return str(payload, "utf-8")


# ---------------------------------------------------------------------------- the handshake


def test_49_connect_comes_during_the_handshake_and_its_answer_not_before_accept(http: Http) -> None:
    gate, asked = Gate(), Gate()

    async def play(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        asked.open()
        await gate.passed()
        await send({"type": "websocket.accept"})

    with (
        serve(Script(play)) as server,
        contextlib.closing(http.connect(address(server), None)) as client,
    ):
        raw = client.knock()
        asked.wait()
        assert client.silent()
        gate.open()
        response = raw.read_head()
        assert response.status == http.socket_status
        for name, values in http.socket_fields.items():
            assert response.all(name) == values
        assert not response.all(b"sec-websocket-protocol")


def test_50_close_before_accept_is_403(http: Http) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return await receive()

    app = Script(play)
    with serve(app) as server, http.knocking(server) as raw:
        response = raw.read_response()
        assert response.status == 403
        assert raw.read_eof() == b""
        told = app.news.next()
        assert (told["type"], told["code"]) == ("websocket.disconnect", 1006)


@pytest.mark.parametrize("fails", [False, True])
def test_51_an_application_that_ends_before_it_answers_is_a_500(http: Http, fails: bool) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if fails:
            raise RuntimeError("a bug")

    with serve(Script(play)) as server, http.knocking(server) as raw:
        response = raw.read_response()
        assert response.status == 500
        assert b"bug" not in response.body
        [line] = server.logged(logging.ERROR)
        assert ("failed" in line) is fails
        assert "WebSocket" in line


@pytest.mark.parametrize("chosen", ["chat", "superchat", None])
def test_52_the_subprotocol_of_accept_is_selected(http: Http, chosen: str | None) -> None:
    offered = [(b"Sec-WebSocket-Protocol", b"superchat, chat")]
    with (
        serve(Echo(subprotocol=chosen)) as server,
        http.connected(server, headers=offered) as client,
    ):
        expected = [] if chosen is None else [chosen.encode()]
        assert client.response.all(b"sec-websocket-protocol") == expected


def test_52_a_subprotocol_nobody_offered_is_left_out_and_named_in_the_log(http: Http) -> None:
    with serve(Echo(subprotocol="mqtt")) as server, http.connected(server) as client:
        assert not client.response.all(b"sec-websocket-protocol")
        assert client.ask("a") == "a"
        assert any("'mqtt'" in line for line in server.logged())


def test_53_headers_of_accept_are_sent_in_order(http: Http) -> None:
    headers = [(b"X-B", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2"), (b"set-cookie", b"b=2")]
    with serve(Echo(headers=headers)) as server, http.connected(server) as client:
        lowered = [(name.lower(), value) for name, value in headers]
        assert [pair for pair in client.response.headers if pair in lowered] == lowered


@pytest.mark.parametrize(
    "pair",
    [(b"Sec-WebSocket-Protocol", b"chat"), (b"x-a", b"1\r\nx-b: 2"), (b"x a", b"1"), ("x", "y")],
)
def test_53_a_subprotocol_or_a_line_break_among_them_is_refused(http: Http, pair: Any) -> None:
    with serve(Echo(headers=[pair])) as server, http.knocking(server) as raw:
        assert raw.read_response().status == 500
        assert server.logged(logging.ERROR)


def test_54_and_55_the_scope(http: Http) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.accept"})
        return {key: value for key, value in scope.items() if key != "state"}

    app = Script(play)
    name = b"Sec-WebSocket-Protocol"
    headers = [(name, b"a, b"), (name, b"c"), (b"Origin", b"http://o")]
    with serve(app, root_path="/r") as server, http.connected(server, "/p%20q?x=%41", headers):
        scope = app.news.next()
        assert scope["type"] == "websocket"
        assert scope["subprotocols"] == ["a", "b", "c"]
        assert (scope["scheme"], scope["http_version"]) == ("ws", http.version)
        assert (scope["path"], scope["raw_path"]) == ("/r/p q", b"/p%20q")
        assert (scope["query_string"], scope["root_path"]) == (b"x=%41", "/r")
        assert "method" not in scope
        assert scope["extensions"] == {"websocket.http.response": {}}
        assert (b"origin", b"http://o") in scope["headers"]
        assert scope["server"] == address(server)


def test_55_the_scheme_a_trusted_proxy_names(http: Http) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.accept"})
        return scope["scheme"], scope["client"]

    app = Script(play)
    headers = [(b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-For", b"192.0.2.7")]
    with serve(app) as server, http.connected(server, headers=headers):
        assert app.news.next() == ("wss", ("192.0.2.7", 0))


@pytest.mark.parametrize("version", [b"8", b"13, 8", b""])
def test_a_version_that_is_not_13_is_refused_and_told_of_13(http: Http, version: bytes) -> None:
    app = Echo()
    with serve(app) as server, http.knocking(server, version=version) as raw:
        response = raw.read_response()
        assert response.status in (400, 426)
        assert response.all(b"sec-websocket-version") == [b"13"]
        assert raw.read_eof() == b""
        assert app.news.empty()


# ------------------------------------------------------- what only the handshake of HTTP/1.1 knows


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (handshake(version=b"8"), 426),
        (handshake(version=b"13, 8"), 426),
        (handshake().replace(b"Sec-WebSocket-Version: 13\r\n", b""), 400),
        (handshake().replace(b"Sec-WebSocket-Key: dGhl", b"Sec-WebSocket-Key: dGh"), 400),
        (handshake(lines=b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400),
        (handshake().replace(b"GET", b"POST"), 400),
        (handshake(lines=b"Content-Length: 1\r\n") + b"x", 400),
    ],
)
def test_a_handshake_that_is_none_is_refused(raw: bytes, status: int) -> None:
    app = Echo()
    with serve(app) as server, RawClient(address(server)) as client:
        client.send(raw)
        response = client.read_response()
        assert response.status == status
        expected = [b"13"] if b"Version: 13\r\n" not in raw else []
        assert response.all(b"sec-websocket-version") == expected
        assert response.all(b"upgrade") == ([b"websocket"] if status == 426 else [])
        assert client.read_eof() == b""
        assert app.news.empty()


@pytest.mark.parametrize("value", [b"WebSocket", b"h2c, websocket", b"h2c\r\nUpgrade: websocket"])
def test_the_protocol_may_be_one_of_several(value: bytes) -> None:
    with serve(Echo()) as server, RawClient(address(server)) as raw:
        raw.send(handshake().replace(b"Upgrade: websocket", b"Upgrade: " + value))
        assert raw.read_head().status == 101


@pytest.mark.parametrize(
    "raw",
    [
        handshake().replace(b"Connection: Upgrade\r\n", b""),
        handshake().replace(b"Upgrade: websocket", b"Upgrade: websockets"),
        handshake().replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_what_asks_for_no_upgrade_is_a_request_like_any_other(raw: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    with serve(app, lifespan="off") as server, RawClient(address(server)) as client:
        client.send(raw)
        assert client.read_response().status == 204


def test_with_ws_none_a_handshake_is_a_request_like_any_other() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    with serve(app, ws="none", lifespan="off") as server, RawClient(address(server)) as raw:
        raw.send(handshake())
        assert raw.read_response().status == 204


# ---------------------------------------------------------------------------- messages


def test_56_fragments_are_put_together(http: Http) -> None:
    app = Echo()
    with serve(app) as server, http.connected(server) as client:
        client.send(masked(TEXT, b"on", fin=False), masked(PING, b"p"), masked(0, b"e", fin=False))
        assert client.read() == (PONG, b"p")
        client.send(masked(0, b"!"))
        assert text_of(client) == "one!"
        assert app.news.next()["text"] == "one!"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (masked(TEXT, "é".encode()), {"text": "é", "bytes": None}),
        (masked(BINARY, b"\xff\0"), {"text": None, "bytes": b"\xff\0"}),
        (masked(TEXT), {"text": "", "bytes": None}),
        (masked(BINARY), {"text": None, "bytes": b""}),
    ],
)
def test_57_one_of_text_and_bytes_is_there(http: Http, frame: bytes, message: Any) -> None:
    app = Echo()
    with serve(app) as server, http.connected(server) as client:
        client.send(frame)
        assert app.news.next() == {"type": "websocket.receive", **message}
        assert client.read() == (frame[0] & 15, (message["text"] or "").encode() or message["bytes"] or b"")  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [{}, {"text": None}, {"text": "a", "bytes": b"a"}, {"text": b"a"}, {"bytes": "a"},
     {"bytes": 5}],
)  # fmt: skip
def test_58_a_message_that_is_neither_or_both_raises(http: Http, message: Any) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", **message})

    app = Script(play)
    with serve(app) as server, http.connected(server) as client:
        assert client.read_close()[0] == 1011
        assert isinstance(app.news.next(), RuntimeError)
        assert server.logged(logging.ERROR)


def test_58_bytes_of_other_kinds_are_sent_as_they_are_now(http: Http) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        data = bytearray(b"abc")
        await send({"type": "websocket.send", "bytes": data, "text": None})
        data[0] = 0
        await send({"type": "websocket.send", "bytes": memoryview(b"def")})

    with serve(Script(play)) as server, http.connected(server) as client:
        assert client.read() == (BINARY, b"abc")
        assert client.read() == (BINARY, b"def")


def test_59_pings_are_answered_in_order(http: Http) -> None:
    with serve(Echo()) as server, http.connected(server) as client:
        client.send(*(masked(PING, b"%d" % number) for number in range(10)))
        assert [client.read() for _ in range(10)] == [(PONG, b"%d" % n) for n in range(10)]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ((masked(TEXT, b"\xff"),), 1007),
        ((masked(TEXT, b"a" * 33),), 1009),
        ((masked(TEXT, b"a" * 20, fin=False), masked(0, b"a" * 13)), 1009),
        ((masked(3, b"a"),), 1002),
        ((b"\x81\x01a",), 1002),
    ],
)
def test_60_what_is_wrong_closes_and_is_not_delivered(
    http: Http, frames: tuple[bytes, ...], code: int
) -> None:
    app = Echo()
    with serve(app, ws_max_size=32) as server, http.connected(server) as client:
        client.send(masked(TEXT, b"before"), *frames)
        assert text_of(client) == "before"
        assert client.read_close()[0] == code
        assert client.raw.read_eof() == b""
        assert app.news.next()["text"] == "before"
        assert app.news.next()["code"] == code
        said = any("--ws-max-size" in line for line in server.logged(logging.INFO))
        assert said is (code == 1009)


# ---------------------------------------------------------------------------- ends


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, (1000, "")),
        ({"code": 3000, "reason": "bye"}, (3000, "bye")),
        ({"code": 1011, "reason": None}, (1011, "")),
        ({"reason": "é" * 61}, (1000, "é" * 61)),
    ],
)
def test_61_close_uses_code_and_reason(http: Http, message: Any, expected: tuple[int, str]) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", **message})

    with serve(Script(play)) as server, http.connected(server) as client:
        assert client.read_close() == expected
        client.send(closing(expected[0]))
        assert client.raw.read_eof() == b""


@pytest.mark.parametrize("message", [{"code": 1005}, {"code": 99}, {"code": "x"}, {"reason": "a" * 124}, {"reason": "\ud800"}, {"reason": b"a"}])  # fmt: skip
def test_61_a_close_that_cannot_be_sent_raises(http: Http, message: Any) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", **message})

    with serve(Script(play)) as server, http.connected(server) as client:
        assert client.read_close()[0] == 1011
        assert server.logged(logging.ERROR)


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [(closing(1000, "bye"), 1000, "bye"), (closing(4999), 4999, ""), (masked(CLOSE), 1005, "")],
)
def test_62_disconnect_has_the_client_s_code(
    http: Http, frame: bytes, code: int, reason: str
) -> None:
    app = Echo()
    with serve(app) as server, http.connected(server) as client:
        client.send(frame)
        assert client.read_close()[0] == (None if code == 1005 else code)
        assert client.raw.read_eof() == b""
        told = {"type": "websocket.disconnect", "code": code, "reason": reason}
        assert app.news.next() == told


def test_62_a_connection_that_is_lost_is_1006(http: Http) -> None:
    app = Echo()
    with serve(app) as server:
        with http.connected(server) as client:
            assert client.ask("a") == "a"
        assert app.news.next()["text"] == "a"
        assert app.news.next()["code"] == 1006
        assert not server.logged(logging.WARNING)


def test_63_after_any_close_receive_tells_disconnect_again_and_again(http: Http) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 3333, "reason": "enough"})
        return [await receive() for _ in range(3)]

    app = Script(play)
    with serve(app) as server, http.connected(server):
        told = {"type": "websocket.disconnect", "code": 3333, "reason": "enough"}
        assert app.news.next() == [told] * 3


def test_64_send_after_close_raises_an_oserror_that_nobody_logs(http: Http) -> None:
    gone = Gate()

    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        gone.open()
        await send({"type": "websocket.send", "text": "late"})

    app = Script(play)
    with serve(app) as server:
        with http.connected(server) as client:
            client.send(closing(1000))
            gone.wait()
        assert isinstance(app.news.next(), OSError)
        server.stop()
        assert not server.logged(logging.WARNING)


def test_64_an_application_that_only_sends_learns_of_the_end(http: Http) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0)

    app = Script(play)
    with serve(app) as server:
        with http.connected(server) as client:
            assert text_of(client) == "tick"
        assert isinstance(app.news.next(), OSError)


@pytest.mark.parametrize(("fails", "code"), [(False, 1000), (True, 1011)])
def test_65_an_application_that_ends_closes_the_socket(http: Http, fails: bool, code: int) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await send({"type": "websocket.accept"})
        if fails:
            raise RuntimeError("a bug")

    with serve(Script(play)) as server, http.connected(server) as client:
        assert client.read_close() == (code, "")
        client.send(closing(code))
        assert client.raw.read_eof() == b""
        assert bool(server.logged(logging.ERROR)) is fails


def test_66_nothing_is_received_before_accept(http: Http) -> None:
    accepted = Gate()

    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        early = asyncio.ensure_future(receive())
        await accepted.passed()
        assert not early.done()
        await send({"type": "websocket.accept"})
        return await early

    app = Script(play)
    with serve(app) as server, http.knocking(server) as raw:
        raw.send(masked(TEXT, b"early"))
        accepted.open()
        assert raw.read_head().status == http.socket_status
        assert app.news.next()["text"] == "early"


def test_75_the_application_s_own_response_refuses_the_handshake(http: Http) -> None:
    async def play(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        headers = [(b"x-why", b"closed")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"you"})
        told = await receive()
        try:
            await send({"type": "websocket.accept"})
        except OSError:
            return told

    app = Script(play)
    with serve(app) as server, http.knocking(server) as raw:
        response = raw.read_response()
        assert (response.status, response.body) == (401, b"not you")
        assert response.all(b"x-why") == [b"closed"]
        assert raw.read_eof() == b""
        assert app.news.next()["type"] == "websocket.disconnect"
