"""What can go wrong, by who has to act on it.

The person who starts the server (`ConfigurationError`), the application (`ApplicationError`,
`ClientDisconnected`) or nobody: a peer's fault on the wire is an event, never an exception that
leaves `protocol/`.
"""

from __future__ import annotations


class TidegateError(Exception):
    """Everything the server raises on purpose."""


class ConfigurationError(TidegateError):
    """Something in the way of starting: `message` says what is wrong, `hint` what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Both: at the foot of a traceback in somebody's own code nothing else is shown."""
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ApplicationError(TidegateError, RuntimeError):
    """The application broke the ASGI contract; raised out of its `send()` or `receive()`."""


class ClientDisconnected(TidegateError, OSError):
    """Raised out of `send()` once the client has left (ASGI HTTP 2.4). Nothing to log."""
