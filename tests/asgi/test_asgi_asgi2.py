"""ASGI 2 applications are called in two steps (statement 5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tidegate.asgi.asgi2 import wrap_asgi2
from tidegate.errors import ApplicationError
from tidegate.types import Receive, Send


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"hello"}


def call(app: Any, scope: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(wrap_asgi2(app)(scope, receive, send))
    return sent


def http() -> dict[str, Any]:
    return {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.5"}, "path": "/"}


class TestAsgi2:
    def test_05_a_class_is_made_once_per_scope(self) -> None:
        made = []

        class App:
            def __init__(self, scope: Any) -> None:
                self.scope = scope
                made.append(self)

            async def __call__(self, receive: Receive, send: Send) -> None:
                await send({"scope": self.scope, "body": (await receive())["body"]})

        (first,) = call(App, http())
        (second,) = call(App, http())
        assert first["body"] == b"hello"
        assert first["scope"] is not second["scope"]
        assert len(made) == 2

    def test_05_a_function_returning_a_coroutine_function(self) -> None:
        def app(scope: Any) -> Any:
            async def instance(receive: Receive, send: Send) -> None:
                await send({"path": scope["path"]})

            return instance

        assert call(app, http()) == [{"path": "/"}]

    def test_02_the_scope_says_2_0_and_the_servers_own_stays(self) -> None:
        scope = http()

        def app(given: Any) -> Any:
            given["mine"] = True

            async def instance(receive: Receive, send: Send) -> None:
                await send(given["asgi"])

            return instance

        assert call(app, scope) == [{"version": "2.0", "spec_version": "2.5"}]
        assert scope == http()

    def test_08_an_exception_comes_out(self) -> None:
        def app(scope: Any) -> Any:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            call(app, http())

    @pytest.mark.parametrize("returned", [None, "text"])
    def test_an_application_that_is_not_asgi2_is_told(self, returned: Any) -> None:
        with pytest.raises(ApplicationError, match=f"returned {type(returned).__name__}"):
            call(lambda scope: returned, http())
