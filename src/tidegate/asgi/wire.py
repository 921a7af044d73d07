"""What an exchange and a session ask of the connection that carries them, and share otherwise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from tidegate.errors import ClientDisconnected

if TYPE_CHECKING:
    from tidegate.asgi.exchange import Exchange
    from tidegate.asgi.session import Session

HIGH_WATER = 64 * 1024  # bytes nobody has taken yet, from which on `send` sees to them
NEVER = float("inf")


class Wire(Protocol):
    """What an exchange asks of the connection that carries it."""

    flush_due: bool

    @property
    def backlog(self) -> int: ...
    def reads(self, stream: int) -> bool: ...
    def flush(self) -> None: ...
    def flush_soon(self) -> None: ...
    def finish(self) -> None: ...
    def on_end(self, exchange: Exchange | Session) -> None: ...
    def look_by(self, when: float) -> None: ...
    def give_up_peer(self, stream: int, option: str, what: str) -> None: ...
    def drained(self, stream: int, least: int) -> asyncio.Future[None]: ...
    def abandon(self, stream: int, reason: str) -> None: ...


def comes_of_leaving(error: BaseException | None) -> bool:
    """Our ClientDisconnected, or what was made of it: task groups wrap it, Starlette raises one of
    its own in its place. Anything else raised on the way out is a bug of the application's."""
    if isinstance(error, ClientDisconnected):
        return True
    if isinstance(error, BaseExceptionGroup):
        return all(comes_of_leaving(inner) for inner in error.exceptions)
    if error is None or "disconnect" not in type(error).__name__.lower():
        return False
    return comes_of_leaving(error.__cause__ or error.__context__)
