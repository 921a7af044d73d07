"""An ASGI 2 application as a guest: called once with the scope, its instance with the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tidegate.errors import ApplicationError
from tidegate.types import Application, Receive, Scope, Send

DoubleCallable: TypeAlias = Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]


def wrap_asgi2(app: DoubleCallable) -> Application:
    """The same application as an ASGI 3 callable; its scope says that it is spoken to in 2.0."""

    async def single(scope: Scope, receive: Receive, send: Send) -> None:
        instance = app({**scope, "asgi": {**scope["asgi"], "version": "2.0"}})
        if not callable(instance):
            raise ApplicationError(
                f"An ASGI 2 application must return a callable when given the scope, "
                f"and {app!r} returned {type(instance).__name__}. "
                f"If it is an ASGI 3 application, serve it with --interface asgi3."
            )
        await instance(receive, send)

    return single
