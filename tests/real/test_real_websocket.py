"""WebSocket with clients that others wrote: the `websockets` library and aiohttp."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.support.serve import Running, serve

SIZES = [0, 1, 125, 126, 127, 4096, 65535, 65536, 1 << 20, 3_000_000]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[0] if offered else None})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "close":
            await send({"type": "websocket.close", "code": 3001, "reason": "asked to"})
        else:
            await send({**message, "type": "websocket.send"})


def url(server: Running) -> str:
    return f"ws://{server.host}:{server.port}/a?b=c"


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("deflate", [True, False])
def test_websockets_gets_every_message_back(compression: Any, deflate: bool) -> None:
    client = pytest.importorskip("websockets.sync.client")
    with (
        serve(echo, ws_per_message_deflate=deflate) as server,
        client.connect(url(server), compression=compression, max_size=None) as socket,
    ):
        agreed = "permessage-deflate" in (
            socket.response.headers.get("Sec-WebSocket-Extensions") or ""
        )
        assert agreed is (deflate and compression is not None)
        for size in SIZES:
            for message in ("é" * (size // 2), bytes(size), json.dumps(list(range(size // 7)))):
                socket.send(message)
                assert socket.recv() == message
        socket.send(["a", "b", "c"])  # in fragments
        assert socket.recv() == "abc"


def test_websockets_reads_our_close_and_our_pong() -> None:
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")
    with serve(echo) as server, client.connect(url(server), subprotocols=["chat"]) as socket:
        assert socket.subprotocol == "chat"
        assert socket.ping("are you there").wait(10)
        socket.send("close")
        with pytest.raises(exceptions.ConnectionClosed) as caught:
            socket.recv()
        assert caught.value.rcvd.code == 3001
        assert caught.value.rcvd.reason == "asked to"
        assert not server.logged()


def test_websockets_is_refused_with_a_status() -> None:
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

    with (
        serve(refuses, lifespan="off") as server,
        pytest.raises(exceptions.InvalidStatus) as caught,
    ):
        client.connect(url(server))
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("compress", [0, 15])
def test_aiohttp_gets_every_message_back(compress: int) -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def talk(server: Running) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url(server), compress=compress, max_msg_size=0) as socket,
        ):
            assert bool(socket.compress) is bool(compress)
            for size in SIZES:
                await socket.send_bytes(bytes(range(256)) * (size // 256))
                assert await socket.receive_bytes() == bytes(range(256)) * (size // 256)
            await socket.send_str("close")
            message = await socket.receive()
            assert (message.data, message.extra) == (3001, "asked to")

    with serve(echo) as server:
        asyncio.run(asyncio.wait_for(talk(server), 30))
