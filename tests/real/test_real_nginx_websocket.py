"""WebSocket through nginx, configured word for word as docs/websocket.md says it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import re
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.nginx import nginx
from tests.support.programs import (
    REPOSITORY,
    free_port,
    need,
    running,
    short_folder,
    wait_for_port,
)
from tests.support.serve import serve
from tests.support.socket_client import PING, TEXT, connected, masked
from websockets.asyncio import client as asyncio_client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.real

PAGE = REPOSITORY / "docs" / "websocket.md"
MIB = 1 << 20
DENIAL = [b"Not without ", b"a ticket.\n"]

APPLICATION = """
async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
"""


def sites(upstream: str) -> str:
    """The configuration of the page; only where it listens, and whom it calls, is ours."""
    found = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    whole = [block for block in found if "upstream" in block]
    assert len(whole) == 1
    text: str = whole[0]
    for theirs, ours in (("listen 80;", "listen @PORT@;"), ("127.0.0.1:8000", upstream)):
        assert text.count(theirs) == 1
        text = text.replace(theirs, ours)
    return text


class Echo:
    """Says what it was sent, does what it is told, and keeps how each socket ended."""

    def __init__(self) -> None:
        self.ended: queue.Queue[Any] = queue.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        client = json.dumps(scope["client"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": client.encode()})
            return
        await receive()
        if scope["path"] == "/refused":
            await send({"type": "websocket.close"})
            return
        if scope["path"] == "/denied":
            headers = [(b"content-type", b"text/plain"), (b"x-desk", b"4")]
            start = {"type": "websocket.http.response.start", "status": 401, "headers": headers}
            await send(start)
            for number, piece in enumerate(DENIAL, 1):
                more = number < len(DENIAL)
                body = {"type": "websocket.http.response.body", "body": piece, "more_body": more}
                await send(body)
            return
        await send(
            {"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)}
        )
        while (message := await receive())["type"] == "websocket.receive":
            if message["text"] == "who am I":
                await send({"type": "websocket.send", "text": client})
            elif message["text"] == "close":
                await send(
                    {"type": "websocket.close", "code": 3210, "reason": "gezeitenbedingt: Ebbe"}
                )
            else:
                await send({**message, "type": "websocket.send"})
        self.ended.put((message["code"], message["reason"]))


@dataclass(frozen=True)
class Behind:
    """The application, and the port of the nginx before it."""

    app: Echo
    port: int

    def connect(self, path: str = "/", **options: Any) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.port}{path}"
        return connect(url, proxy=None, max_size=None, **options)


@pytest.fixture(scope="module", params=["tcp", "unix"])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    need("nginx")
    app = Echo()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        if request.param == "tcp":
            server = stack.enter_context(serve(app, lifespan="off"))
            upstream = f"{server.host}:{server.port}"
        else:
            path = folder / "tide.sock"
            options = {"uds": str(path), "forwarded_allow_ips": "unix:", "lifespan": "off"}
            server = stack.enter_context(serve(app, **options))
            upstream = f"unix:{path}"
        port = stack.enter_context(nginx(sites(upstream), folder))
        yield Behind(app, port)
        assert not server.logged()


@pytest.mark.parametrize("compression", ["deflate", None])
def test_echo(behind: Behind, compression: Any) -> None:
    with behind.connect(compression=compression) as client:
        extensions = client.response.headers.get("Sec-WebSocket-Extensions", "")
        assert ("permessage-deflate" in extensions) is (compression is not None)
        for size in (0, 1, 125, 126, 65_535, 65_536, MIB):
            for message in ("ß" * (size // 2), bytes(range(256)) * (size // 256) + b"end"):
                client.send(message)
                assert client.recv(30) == message
    assert behind.app.ended.get(timeout=30) == (1000, "")


def test_messages_in_flight_both_ways(behind: Behind) -> None:
    """16 MiB each way at once: no buffer between them holds that much, so all have to wait."""

    async def talk() -> None:
        url = f"ws://127.0.0.1:{behind.port}/"
        async with asyncio_client.connect(
            url, proxy=None, compression=None, max_size=None
        ) as client:

            async def push() -> None:
                for number in range(16):
                    await client.send(bytes([number]) * MIB)

            pushing = asyncio.ensure_future(push())
            for number in range(16):
                assert await client.recv() == bytes([number]) * MIB
            await pushing

    asyncio.run(asyncio.wait_for(talk(), 30))
    behind.app.ended.get(timeout=30)


def test_subprotocol(behind: Behind) -> None:
    with behind.connect(subprotocols=["tide.v2", "tide.v1"]) as client:
        assert client.subprotocol == "tide.v2"
    behind.app.ended.get(timeout=30)


def test_our_close_arrives(behind: Behind) -> None:
    with behind.connect() as client:
        client.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(30)
    received = caught.value.rcvd
    assert received and (received.code, received.reason) == (3210, "gezeitenbedingt: Ebbe")
    assert behind.app.ended.get(timeout=30) == (3210, "gezeitenbedingt: Ebbe")


def test_the_clients_close_arrives(behind: Behind) -> None:
    with behind.connect() as client:
        client.close(4001, "genug für heute")
        sent = client.protocol.close_rcvd
    assert behind.app.ended.get(timeout=30) == (4001, "genug für heute")
    assert sent and sent.code == 4001


def test_a_client_that_vanishes(behind: Behind) -> None:
    """nginx drops the upstream connection with its client's, and says nothing of its own."""
    with connected(("127.0.0.1", behind.port)) as client:
        assert client.ask("still here") == "still here"
    assert behind.app.ended.get(timeout=30) == (1006, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_the_real_client_is_known(behind: Behind) -> None:
    """A client that nginx sees as 127.0.0.9, and that writes the header itself."""
    with socket.create_connection(
        ("127.0.0.1", behind.port), source_address=("127.0.0.9", 0)
    ) as sock:
        headers = {"X-Forwarded-For": "203.0.113.7"}
        with behind.connect(sock=sock, additional_headers=headers) as client:
            client.send("who am I")
            assert json.loads(client.recv(30))[0] == "127.0.0.9"
    behind.app.ended.get(timeout=30)


def test_a_refused_handshake(behind: Behind) -> None:
    with pytest.raises(InvalidStatus) as caught:
        behind.connect("/refused")
    assert caught.value.response.status_code == 403


def test_a_denial_with_a_body(behind: Behind) -> None:
    with pytest.raises(InvalidStatus) as caught:
        behind.connect("/denied")
    response = caught.value.response
    assert (response.status_code, response.body) == (401, b"".join(DENIAL))
    assert (response.headers["content-type"], response.headers["x-desk"]) == ("text/plain", "4")


def test_plain_requests_beside_it(behind: Behind) -> None:
    """The same location serves HTTP: what it says of Upgrade is empty then."""
    with httpx.Client(base_url=f"http://127.0.0.1:{behind.port}", trust_env=False) as client:
        assert {client.get("/").json()[0] for _ in range(5)} == {"127.0.0.1"}


def test_pings_keep_an_idle_socket_from_the_proxys_timeout() -> None:
    """Two sockets that say nothing: nginx ends the one whose server does not ping."""
    need("nginx")
    app = Echo()
    with contextlib.ExitStack() as stack:
        ports = []
        for interval in (0.5, None):
            server = stack.enter_context(serve(app, lifespan="off", ws_ping_interval=interval))
            text = sites(f"{server.host}:{server.port}")
            hasty = text.replace("proxy_http_version", "proxy_read_timeout 2s; proxy_http_version")
            assert hasty != text
            folder = stack.enter_context(short_folder())
            ports.append(stack.enter_context(nginx(hasty, folder)))
        pinged = stack.enter_context(connected(("127.0.0.1", ports[0])))
        silent = stack.enter_context(connected(("127.0.0.1", ports[1])))
        assert silent.raw.read_eof() == b""
        assert app.ended.get(timeout=30) == (1006, "")
        pinged.send(masked(TEXT, b"and I?"))
        frames = [pinged.read()]
        while frames[-1][0] == PING:
            frames.append(pinged.read())
        assert frames[-1] == (TEXT, b"and I?")
        assert len(frames) > 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_sigterm_tells_the_client_to_come_again(kind: str, tmp_path: Path) -> None:
    need("nginx")
    (tmp_path / "waits.py").write_text(APPLICATION)
    env = {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"}
    with short_folder() as folder:
        port, path = free_port(), folder / "tide.sock"
        place = ["--port", str(port)] if kind == "tcp" else ["--uds", str(path)]
        command = [sys.executable, "-m", "tidegate", "waits:app", *place]
        with running(*command, cwd=tmp_path, env=env) as program:
            if kind == "tcp":
                wait_for_port(port, program)
            else:
                program.expect(f"Listening on unix:{path}")
            upstream = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:{path}"
            with (
                nginx(sites(upstream), folder) as front,
                connect(f"ws://127.0.0.1:{front}/", proxy=None) as client,
            ):
                program.signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as caught:
                    client.recv(30)
            assert program.wait() == 0, program.output
    assert caught.value.rcvd and caught.value.rcvd.code == 1012
    assert "Traceback" not in program.output
