"""FastAPI's and Starlette's ways of holding a WebSocket; Litestar and Quart say an echo."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import (
    Cookie,
    Depends,
    FastAPI,
    Query,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.endpoints import WebSocketEndpoint
from tests.support.browser import browsers, expect
from tests.support.serve import Running, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.real

app = FastAPI()

PAGE = """<!doctype html><p id=said></p><script>
document.cookie = "berth=7; path=/";
const said = [];
const show = () => { document.getElementById("said").textContent = said.join(" | "); };
const socket = new WebSocket(`ws://${location.host}/boats/41/deck`, ["json", "msgpack"]);
socket.onopen = () => socket.send(JSON.stringify({knots: 6.5}));
socket.onmessage = (event) => {
  const told = JSON.parse(event.data);
  said.push(socket.protocol, told.boat, told.ticket, told.heard.knots);
  socket.send(JSON.stringify("cast off"));
};
socket.onclose = (event) => {
  said.push(event.code, event.reason);
  show();
};
</script>"""


class Crew:
    """Who is connected; what one of them says goes to all."""

    def __init__(self) -> None:
        self.aboard: dict[str, WebSocket] = {}

    async def welcome(self, name: str, socket: WebSocket) -> None:
        await socket.accept()
        self.aboard[name] = socket
        await self.tell_all(f"{name} is aboard")

    async def tell_all(self, text: str) -> None:
        for socket in list(self.aboard.values()):
            await socket.send_text(text)

    async def farewell(self, name: str, code: int) -> None:
        del self.aboard[name]
        await self.tell_all(f"{name} went overboard ({code})")


crew = Crew()


def ticket(
    token: Annotated[str | None, Query()] = None, berth: Annotated[str | None, Cookie()] = None
) -> str:
    """A token in the query or a cookie; who has neither is sent away."""
    if token == "forged":
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION, reason="a forged token")
    if token is None and berth is None:
        raise WebSocketException(code=status.WS_1008_POLICY_VIOLATION)
    return f"token {token}" if token else f"berth {berth}"


Ticket = Annotated[str, Depends(ticket)]


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.websocket("/boats/{boat}/deck")
async def deck(socket: WebSocket, boat: int, ticket: Ticket) -> None:
    """JSON both ways; "cast off" ends it, and so does a message that is none."""
    offered = socket.scope["subprotocols"]
    headers = [(b"x-berth", b"north"), (b"x-berth", b"south")]
    await socket.accept(subprotocol="json" if "json" in offered else None, headers=headers)
    while True:
        try:
            heard = await socket.receive_json()
        except json.JSONDecodeError:
            raise WebSocketException(code=4400, reason="that is no JSON") from None
        if heard == "cast off":
            await socket.close(4000, "bon voyage")
            return
        await socket.send_json({"boat": boat, "ticket": ticket, "heard": heard})


@app.websocket("/crew/{name}")
async def meet(socket: WebSocket, name: str) -> None:
    await crew.welcome(name, socket)
    try:
        while True:
            await crew.tell_all(f"{name}: {await socket.receive_text()}")
    except WebSocketDisconnect as gone:
        await crew.farewell(name, gone.code)


@app.websocket("/log")
async def log(socket: WebSocket) -> None:
    """Every line numbered; `iter_text` ends by itself when the client leaves."""
    await socket.accept()
    number = 0
    async for line in socket.iter_text():
        number += 1
        await socket.send_bytes(f"{number} {line}".encode())
    await crew.tell_all(f"the log has {number} lines")


@app.websocket("/full")
async def full(socket: WebSocket) -> None:
    answer = JSONResponse({"berths": 0}, status_code=409, headers={"retry-after": "60"})
    await socket.send_denial_response(answer)


@app.websocket("/fails")
async def fails(socket: WebSocket) -> None:
    await socket.accept()
    await socket.receive()
    raise RuntimeError("a leak")


@app.websocket_route("/winch")
class Winch(WebSocketEndpoint):
    """Starlette's endpoint: bytes are given back turned round."""

    encoding = "bytes"

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="rope")

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_bytes(data[::-1])

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        await crew.tell_all(f"the winch stands ({close_code})")


@pytest.fixture
def server() -> Iterator[Running]:
    with serve(app) as server:
        yield server


def opened(server: Running, path: str, **options: Any) -> ClientConnection:
    return connect(f"ws://{server.host}:{server.port}{path}", proxy=None, **options)


def ends(client: ClientConnection) -> tuple[int, str]:
    """The code and reason the server closes with, nothing before it."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(30)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


@contextlib.contextmanager
def watching(server: Running) -> Iterator[ClientConnection]:
    """One of the crew, who hears what happens elsewhere."""
    with opened(server, "/crew/watch") as client:
        assert client.recv(30) == "watch is aboard"
        yield client


def test_path_token_subprotocol_headers_and_json(server: Running) -> None:
    with opened(server, "/boats/12/deck?token=t%20%26", subprotocols=["xml", "json"]) as client:
        assert client.subprotocol == "json"
        assert client.response.headers.get_all("x-berth") == ["north", "south"]
        for heard in ({"å": [1, None]}, 7, "x" * 100_000):
            client.send(json.dumps(heard))
            assert json.loads(client.recv(30)) == {
                "boat": 12,
                "ticket": "token t &",
                "heard": heard,
            }
        client.send('"cast off"')
        assert ends(client) == (4000, "bon voyage")
    assert not server.logged()


def test_cookie(server: Running) -> None:
    headers = {"Cookie": "other=1; berth=north-4"}
    with opened(server, "/boats/1/deck", additional_headers=headers) as client:
        client.send("[]")
        assert json.loads(client.recv(30))["ticket"] == "berth north-4"
        client.send("[")
        assert ends(client) == (4400, "that is no JSON")
    assert not server.logged()


@pytest.mark.parametrize(
    "path", ["/boats/1/deck", "/boats/1/deck?token=forged", "/boats/x/deck?token=a", "/no/where"]
)
def test_refused_before_it_is_accepted(server: Running, path: str) -> None:
    """A missing or forged token, a boat that is no number, a path that is none."""
    with pytest.raises(InvalidStatus) as caught:
        opened(server, path)
    assert caught.value.response.status_code == 403
    assert not server.logged()


def test_a_denial_response(server: Running) -> None:
    with pytest.raises(InvalidStatus) as caught:
        opened(server, "/full")
    response = caught.value.response
    assert (response.status_code, json.loads(response.body)) == (409, {"berths": 0})
    assert response.headers["retry-after"] == "60"
    assert not server.logged()


def test_everybody_hears_everybody_and_who_leaves(server: Running) -> None:
    with watching(server) as watch, opened(server, "/crew/ann") as ann:
        assert watch.recv(30) == ann.recv(30) == "ann is aboard"
        with opened(server, "/crew/bo") as bo:
            assert {one.recv(30) for one in (watch, ann, bo)} == {"bo is aboard"}
            bo.send("land!")
            assert {one.recv(30) for one in (watch, ann, bo)} == {"bo: land!"}
            bo.close(4321)
        assert watch.recv(30) == ann.recv(30) == "bo went overboard (4321)"
        ann.socket.close()  # without a word
        assert watch.recv(30) == "ann went overboard (1006)"
    assert not server.logged()


def test_iter_text_ends_with_its_client(server: Running) -> None:
    with watching(server) as watch:
        with opened(server, "/log") as client:
            for number in range(1, 501):
                client.send(f"line {number}")
            for number in range(1, 501):
                assert client.recv(30) == f"{number} line {number}".encode()
        assert watch.recv(30) == "the log has 500 lines"
    assert not server.logged()


def test_starlettes_endpoint(server: Running) -> None:
    with watching(server) as watch:
        with opened(server, "/winch", subprotocols=["rope"]) as client:
            client.send(bytes(range(256)) * 1000)
            assert client.recv(30) == (bytes(range(256)) * 1000)[::-1]
            client.close(1001)
        assert watch.recv(30) == "the winch stands (1001)"
        with opened(server, "/winch", subprotocols=["rope"]) as client:
            client.send("this is text")  # the endpoint asks for bytes: it closes, then it fails
            assert ends(client)[0] == 1003
        assert watch.recv(30) == "the winch stands (1011)"  # Starlette's word for its failure


def test_an_application_that_fails(server: Running) -> None:
    with opened(server, "/fails") as client:
        client.send("go")
        assert ends(client) == (1011, "")
    server.stop()
    (line,) = server.logged()
    assert "failed: WebSocket /fails" in line


def test_the_server_stops(server: Running) -> None:
    with watching(server) as watch, opened(server, "/log") as client:
        client.send("one")
        client.recv(30)
        server.stop()
        assert ends(client)[0] == ends(watch)[0] == 1012
    assert server.clean
    assert not server.logged()


def test_a_page_in_chromium(server: Running) -> None:
    with browsers() as starter:
        page = starter.open(starter.start(), f"{server.url}/")
        expect(page, "#said").to_have_text("json | 41 | berth 7 | 6.5 | 4000 | bon voyage")


def litestar_echo() -> Any:
    litestar = pytest.importorskip("litestar")

    @litestar.websocket("/echo")  # type: ignore[untyped-decorator]
    async def echo(socket: Any) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    echo.fn.__annotations__["socket"] = litestar.WebSocket
    return litestar.Litestar([echo])


def quart_echo() -> Any:
    quart = pytest.importorskip("quart")
    app = quart.Quart("echo")

    @app.websocket("/echo")  # type: ignore[untyped-decorator]
    async def echo() -> None:
        while True:
            await quart.websocket.send(await quart.websocket.receive())

    return app


@pytest.mark.parametrize("make", [litestar_echo, quart_echo])
def test_an_echo_of_other_frameworks(make: Any) -> None:
    with serve(make()) as server:
        with opened(server, "/echo") as client:
            for message in ("", "ß", "x" * 200_000):
                client.send(message)
                assert client.recv(30) == message
            client.close(4000)
        with opened(server, "/echo") as client:
            client.send("again")
            client.recv(30)
            server.stop()
            assert ends(client)[0] == 1012
        assert server.clean
        assert not server.logged()
