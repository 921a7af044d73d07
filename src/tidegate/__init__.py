"""Tidegate, the application server for Python on the web.

The command is `tidegate mysite.asgi:application`. From code: `tidegate.run(app, port=8000)`, or
inside a loop of your own `await tidegate.Server(tidegate.Config(app=app)).serve()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidegate.version import __version__

if TYPE_CHECKING:
    from tidegate.config import Config
    from tidegate.errors import ClientDisconnected, ConfigurationError, TidegateError
    from tidegate.launch import Server, run

__all__ = [
    "ClientDisconnected",
    "Config",
    "ConfigurationError",
    "Server",
    "TidegateError",
    "__version__",
    "run",
]

_HOMES = {
    "ClientDisconnected": "tidegate.errors",
    "Config": "tidegate.config",
    "ConfigurationError": "tidegate.errors",
    "Server": "tidegate.launch",
    "TidegateError": "tidegate.errors",
    "run": "tidegate.launch",
}


def __getattr__(name: str) -> Any:
    # imported when asked for: a start needs only part of it, and `import tidegate` nearly nothing
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tidegate' has no attribute {name!r}")
