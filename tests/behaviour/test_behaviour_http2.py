"""What only exists with streams (statement 28), and what HTTP/2 makes of fields (21 to 24, 34, 37)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from tests.support.apps import answer, body, start
from tests.support.behaviour import (
    AUTHORITY,
    TCP,
    Gate,
    Http,
    IncompleteError,
    News,
    Site,
    Transport,
)
from tests.support.behaviour_http2 import H2, H2Client
from tests.support.http2_frames import INITIAL_WINDOW, PREFACE, get, settings, window_update
from tests.support.http2_peer import Http2Client
from tests.support.socket_apps import Echo
from tests.support.socket_client import TEXT, SocketClient, closing, masked


@pytest.fixture
def http() -> Http:
    return H2()


@contextmanager
def served(app: Any, transport: Transport = TCP, **options: Any) -> Iterator[tuple[Site, H2Client]]:
    """A site and one connection to it."""
    with H2().serve(app, transport, **options) as site:
        client = site.client()
        assert isinstance(client, H2Client)
        yield site, client


class Seen:
    def __init__(self, headers: Any = ()) -> None:
        self.scopes = News()
        self.headers = headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.put(scope)
        await answer(send, headers=self.headers, body=b"ok")


# ---------------------------------------------------------------------------------- streams


def test_statement_28_each_stream_has_a_scope_of_its_own(transport: Transport) -> None:
    app = Seen()
    with served(app, transport) as (_, client):
        calls = [client.begin("GET", f"/{number}", [(b"x-n", b"1")]) for number in range(3)]
        assert [call.stream for call in calls] == [1, 3, 5]
        assert [call.read().body for call in calls] == [b"ok"] * 3
    scopes = [app.scopes.next() for _ in calls]
    assert sorted(scope["path"] for scope in scopes) == ["/0", "/1", "/2"]
    assert {(scope["http_version"], scope["scheme"]) for scope in scopes} == {
        ("2", transport.scheme)
    }
    assert len({scope["client"] for scope in scopes}) == 1
    for name in ("headers", "extensions", "asgi"):
        assert len({id(scope[name]) for scope in scopes}) == 3, name


def test_statement_28_bodies_that_come_in_turns_are_kept_apart(transport: Transport) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        data, more = b"", True
        while more:
            message = await receive()
            data, more = data + message["body"], message["more_body"]
        await answer(send, body=scope["path"].encode() + b":" + data)

    with served(app, transport) as (_, client):
        calls = [client.begin("POST", f"/{number}", body=None) for number in range(4)]
        for piece in (b"a", b"b", b"c"):
            for number, call in enumerate(calls):
                call.send_body(b"%b%d" % (piece, number))
        for call in reversed(calls):
            call.send_body(b"", end=True)
        for number, call in enumerate(calls):
            assert call.read().body == b"/%d:a%db%dc%d" % (number, number, number, number)


class Waits:
    """`/wait` tells that it began, and how it ended; anything else is answered at once."""

    def __init__(self) -> None:
        self.begun, self.over, self.gate = News(), News(), Gate()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].startswith("/wait"):
            return await answer(send, body=b"ok")
        await receive()
        await send(start())
        await send(body(b"first ", more_body=True))
        self.begun.put(scope["path"])
        waiting = [asyncio.ensure_future(receive()), asyncio.ensure_future(self.gate.passed())]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        waiting[0].cancel()
        if waiting[0] in done:
            return self.over.put((scope["path"], waiting[0].result()["type"]))
        await send(body(b"last"))
        return self.over.put((scope["path"], "answered"))


def test_cancelled_stream_disconnects_its_own_application_alone(transport: Transport) -> None:
    app = Waits()
    with served(app, transport) as (site, client):
        left, stays = client.begin(target="/wait/left"), client.begin(target="/wait/stays")
        assert {app.begun.next(), app.begun.next()} == {"/wait/left", "/wait/stays"}
        left.leave()
        assert app.over.next() == ("/wait/left", "http.disconnect")
        assert client.request(target="/other").body == b"ok"
        assert app.over.empty()
        app.gate.open()
        assert stays.read().body == b"first last"
        assert app.over.next() == ("/wait/stays", "answered")
        assert client.goaways == []
        assert not site.log.lines()


def test_lost_connection_disconnects_all_of_its_streams() -> None:
    app = Waits()
    with served(app) as (_, client):
        for number in range(3):
            client.begin(target=f"/wait/{number}")
            app.begun.next()
        client.close()
        told = {app.over.next() for _ in range(3)}
    assert told == {(f"/wait/{number}", "http.disconnect") for number in range(3)}


def test_statement_8_application_that_fails_half_way_resets_its_stream_alone(
    transport: Transport,
) -> None:
    waits, fail = Waits(), Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/fails":
            return await waits(scope, receive, send)
        await send(start())
        await send(body(b"half", more_body=True))
        await fail.passed()
        raise ValueError("half way")

    with served(app, transport) as (site, client):
        bystander = client.begin(target="/wait")
        waits.begun.next()
        failing = client.begin(target="/fails")
        failing.read_until(b"half")
        fail.open()
        with pytest.raises(IncompleteError) as caught:
            failing.read()
        assert caught.value.partial == b"half"
        assert failing.reset_code == ErrorCodes.INTERNAL_ERROR
        assert client.request(target="/other").body == b"ok"
        waits.gate.open()
        assert bystander.read().body == b"first last"
        assert client.goaways == []
        assert len(site.log.lines()) == 1


def test_slow_reader_of_one_stream_does_not_stop_the_others(transport: Transport) -> None:
    """Its window is shut; `send` waits there, and the connection's other streams go on."""
    large = b"x" * 1_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, body=large if scope["path"] == "/large" else b"ok")

    with served(app, transport) as (_, client):
        slow = client.begin(target="/large")
        slow.held = True
        slow.wait(lambda: len(slow.body) == 65535)
        for _ in range(3):
            assert client.request(target="/small").body == b"ok"
        assert client.request(target="/large").body == large
        assert len(slow.body) == 65535  # RFC 9113 6.9: not a byte beyond its window
        assert slow.read().body == large


@pytest.mark.parametrize("length", [True, False], ids=["length", "no length"])
def test_file_whose_sending_is_cancelled_is_not_sent_on(
    transport: Transport, tmp_path: Path, length: bool
) -> None:
    """Its descriptor is closed, and may be another file's by then: what waits for a window goes."""
    path, cancel = tmp_path / "file", Gate()
    path.write_bytes(b"x" * 1_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/small":
            return await answer(send, body=b"ok")
        await send(start(headers=[(b"content-length", b"1000000")] if length else []))
        sending = asyncio.create_task(
            send({"type": "http.response.pathsend", "path": str(path)})  # type: ignore[arg-type]
        )
        await cancel.passed()
        sending.cancel()
        return None

    with served(app, transport) as (_, client):
        held = client.begin(target="/file")
        held.held = True
        held.wait(lambda: len(held.body) == 65535)
        cancel.open()
        held.wait(lambda: held.reset_code is not None)
        with pytest.raises(IncompleteError) as caught:
            held.read()
        assert caught.value.partial == b"x" * 65535
        assert held.reset_code == ErrorCodes.INTERNAL_ERROR
        assert client.request(target="/small").body == b"ok"


def test_application_that_does_not_read_stops_its_own_stream_alone(transport: Transport) -> None:
    gate, sizes = Gate(), News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/behind":
            await gate.passed()
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        sizes.put(size)
        await answer(send, body=b"%d" % size)

    total = 20_000_000
    with served(app, transport) as (_, client):
        behind = client.begin("POST", "/behind", body=None)
        rest = b"x" * total
        left = None
        while left != len(rest):  # until a ping there and back opens no window any more
            left = len(rest)
            rest = behind.push(rest)
            client.ping()
        assert rest, "all of it was taken for an application that reads nothing"
        assert client.request("POST", "/other", body=b"y" * 300_000).body == b"300000"
        gate.open()
        behind.send_body(rest, end=True)
        assert behind.read().body == b"%d" % total
        assert (sizes.next(), sizes.next()) == (300_000, total)


def test_answer_before_the_body_has_come_asks_for_no_more_of_it(transport: Transport) -> None:
    """RFC 9113 8.1: the whole answer, then RST_STREAM with NO_ERROR."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 403, body=b"no")

    with served(app, transport) as (site, client):
        call = client.begin("POST", "/", body=None)
        call.send_body(b"some")
        found = call.read()
        assert (found.status, found.body) == (403, b"no")
        while call.reset_code is None:
            assert client.advance()
        assert call.reset_code == ErrorCodes.NO_ERROR
        assert client.request().status == 403
        assert not site.log.lines()


def test_stop_lets_the_streams_in_flight_end_and_says_which_they_are() -> None:
    """RFC 9113 6.8: a first GOAWAY that refuses nobody, then one that names the last stream."""
    app = Waits()
    with served(app, timeout_graceful_shutdown=None) as (site, client):
        calls = [client.begin(target=f"/wait/{number}") for number in range(2)]
        assert {app.begun.next() for _ in calls} == {"/wait/0", "/wait/1"}
        site.begin_stop()
        while len(client.goaways) < 2:
            assert client.advance()
        assert client.goaways == [(2**31 - 1, ErrorCodes.NO_ERROR), (3, ErrorCodes.NO_ERROR)]
        app.gate.open()
        assert [call.read().body for call in calls] == [b"first last"] * 2
        client.wait_closed()
        site.wait_ended()
    assert site.server.clean


# ---------------------------------------------------------------------------------- fields


def headers_of(*headers: tuple[bytes, bytes]) -> list[Any]:
    """The scope's for these, beside the pseudo-header fields."""
    app = Seen()
    with served(app) as (_, client):
        assert client.request("GET", "/", headers).body == b"ok"
        return [tuple(pair) for pair in app.scopes.next()["headers"]]


def test_statement_23_authority_is_the_first_header_and_the_only_host() -> None:
    other = (b"x-other", b"1")
    assert headers_of(other) == [(b"host", AUTHORITY), other]
    assert headers_of(other, (b"host", AUTHORITY)) == [(b"host", AUTHORITY), other]


def test_statement_24_cookies_that_arrive_split_are_joined_by_semicolons() -> None:
    found = headers_of(
        (b"cookie", b"a=1"), (b"x-between", b"1"), (b"cookie", b"b=2"), (b"cookie", b"c=3; d=4")
    )
    assert [value for name, value in found if name == b"cookie"] == [b"a=1; b=2; c=3; d=4"]
    assert (b"x-between", b"1") in found


def test_statement_37_upper_case_names_of_the_answer_arrive_lower_cased() -> None:
    app = Seen([(b"X-Upper", b"Value"), (b"Set-Cookie", b"A=B"), (b"X-UPPER", b"2")])
    with served(app) as (_, client):
        found = client.request()
    assert found.own() == [(b"x-upper", b"Value"), (b"set-cookie", b"A=B"), (b"x-upper", b"2")]
    assert all(name == name.lower() for name in found.names)


CONNECTION_SPECIFIC = [
    (b"Connection", b"close, x-hop"),
    (b"Keep-Alive", b"timeout=5"),
    (b"Proxy-Connection", b"keep-alive"),
    (b"Transfer-Encoding", b"chunked"),
    (b"Upgrade", b"h2c"),
]


@pytest.mark.parametrize("pair", CONNECTION_SPECIFIC, ids=lambda pair: pair[0].decode())
def test_statement_34_connection_specific_fields_of_the_answer_are_dropped(pair: Any) -> None:
    """RFC 9113 8.2.2: they would make the answer malformed. `Connection: close` is obeyed no more
    than the others: the connection belongs to all of its streams."""
    with served(Seen([pair, (b"x-kept", b"1")])) as (_, client):
        for _ in range(2):
            found = client.request()
            assert (found.body, found.all(b"x-kept")) == (b"ok", [b"1"])
            assert not found.all(pair[0].lower())


# ---------------------------------------------------------------------------------- WebSockets


def test_websockets_and_requests_share_a_connection() -> None:
    """RFC 8441: each socket is a stream like any other, and ends alone."""
    echo = Echo()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return await echo(scope, receive, send)
        return await answer(send, body=b"ok")

    with served(app) as (_, client):
        streams = [client.knock(f"/{number}") for number in range(3)]
        sockets = [SocketClient(stream, stream.read_head()) for stream in streams]
        for number, socket in reversed([*enumerate(sockets)]):
            assert socket.ask(f"{number}") == f"{number}"
        assert client.request().body == b"ok"
        sockets[0].send(closing(1000))
        assert sockets[0].read_close() == (1000, "")
        assert streams[0].read_eof() == b""
        assert [socket.ask("still") for socket in sockets[1:]] == ["still"] * 2
        assert client.request().body == b"ok"


def test_many_websockets_that_say_a_little_at_a_time() -> None:
    """What each of them keeps to itself of the connection's window may never be all of it."""
    with served(Echo(), http2_max_streams=48) as (_, client):
        sockets = []
        for _ in range(48):
            stream = client.knock()
            sockets.append(SocketClient(stream, stream.read_head()))
        for _ in range(8):  # 8 x 48 x 1000 bytes: more than the window is wide
            for socket in sockets:
                assert socket.ask("x" * 1000) == "x" * 1000


@pytest.mark.parametrize("how", ["reset", "ended"])
def test_statement_62_stream_that_ends_without_a_close_is_1006(how: str) -> None:
    app = Echo()
    with served(app) as (site, client):
        stream, other = client.knock(), client.knock()
        assert SocketClient(stream, stream.read_head()).ask("a") == "a"
        assert SocketClient(other, other.read_head()).ask("b") == "b"
        assert {app.news.next()["text"], app.news.next()["text"]} == {"a", "b"}
        if how == "reset":
            stream.call.leave()
        else:
            stream.call.send_body(b"", end=True)
        assert app.news.next()["code"] == 1006
        assert app.news.empty()
        assert SocketClient(other, other.read_head()).ask("c") == "c"
        assert not site.log.lines()


def test_websocket_whose_application_is_behind_stops_its_own_stream_alone() -> None:
    gate, total = Gate(), 3000
    frame = masked(TEXT, b"x" * 1000)
    got = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await answer(send, body=b"ok")
        await receive()
        await send({"type": "websocket.accept"})
        await gate.passed()
        count = 0
        while (message := await receive())["type"] == "websocket.receive":
            assert message["text"] == "x" * 1000
            count += 1
        return got.put(count)

    with served(app) as (_, client):
        stream = client.knock()
        assert stream.read_head().status == 200
        rest, left = frame * total + closing(1000), None
        while left != len(rest):
            left = len(rest)
            rest = stream.call.push(rest)
            client.ping()
        assert rest, "all of it was taken for an application that reads nothing"
        assert client.request().body == b"ok"
        gate.open()
        stream.send(rest)
        assert got.next() == total


def test_without_websockets_extended_connect_is_not_announced() -> None:
    """RFC 8441 3"""
    with served(Seen(), ws="none") as (_, client):
        client.ping()
        assert not client.h2.remote_settings.enable_connect_protocol


# ---------------------------------------------------------------------------------- each for itself


def test_sender_is_woken_while_a_download_goes_on() -> None:
    """It waits for its own bytes to leave, not for the moment when nobody has any.

    With windows as wide as they can be it is the kernel that takes the download piece by piece.
    """
    large = bytes(60_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/large":
            return await answer(send, body=large)
        await send(start())
        for _ in range(5):
            await send(body(bytes(70_000), more_body=True))
        return await send(body())

    wide = (INITIAL_WINDOW, 2**31 - 1)
    with H2().serve(app) as site, Http2Client(site.server.address, wide) as client:
        client.send(window_update(0, 2**30) + get(1, b"/large"))
        client.pump(lambda: len(client.streams[1].body) > 1_000_000)
        client.send(get(3, b"/pieces", (b"priority", b"u=0")))
        client.pump(lambda: client.streams[3].ended)
        assert len(client.streams[3].body) == 350_000
        assert len(client.streams[1].body) < len(large)
        client.pump(lambda: client.streams[1].ended)


def test_requests_behind_a_lost_connection_are_not_left_running() -> None:
    """All of them came in one piece, and the first answers find that nobody is there."""
    begun = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.put(True)
        await send(start())
        while True:
            await send(body(bytes(100_000), more_body=True))

    wide = settings((INITIAL_WINDOW, 2**31 - 1)) + window_update(0, 2**30)
    asked = PREFACE + wide + b"".join(get(number) for number in range(1, 13, 2))
    with H2().serve(app, timeout_graceful_shutdown=2) as site:
        for _ in range(10):
            with socket.create_connection(site.server.address) as raw:
                raw.sendall(asked)
        begun.next()
        site.begin_stop()
        site.wait_ended()
        assert not [line for line in site.log.lines() if "Not done" in line]
