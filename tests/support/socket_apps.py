"""Applications for WebSocket tests, which tell what they met."""

from __future__ import annotations

from typing import Any

from tests.support.behaviour import News
from tests.support.serve import Running


class Echo:
    """Accepts, sends back what it receives, and tells what it met."""

    def __init__(self, **accept: Any) -> None:
        self.news = News()
        self.accept = accept

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            raise NotImplementedError
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", **self.accept})
        while True:
            message = await receive()
            self.news.put(message)
            if message["type"] == "websocket.disconnect":
                return
            await send({**message, "type": "websocket.send"})


class Script:
    """An application made of one coroutine function; its error, if any, is in the news."""

    def __init__(self, play: Any) -> None:
        self.play = play
        self.news = News()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            raise NotImplementedError
        try:
            self.news.put(await self.play(scope, receive, send))
        except BaseException as error:
            self.news.put(error)
            raise


def address(server: Running) -> Any:
    return (server.host, server.port)
