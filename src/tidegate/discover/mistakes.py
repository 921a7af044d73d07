"""Words typed out of habit for another command, each answered with what to type instead."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from tidegate.errors import ConfigurationError

_ADDRESS = r"(?:(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):)?(?P<port>\d{1,5})"
_SUBCOMMANDS = {"run", "serve", "start", "dev", "server", "up"}
_SERVERS = {"uvicorn", "gunicorn", "hypercorn", "daphne", "granian"}
_DJANGO = {"migrate", "makemigrations", "collectstatic", "shell", "createsuperuser", "check"}


def mistaken_command(words: Sequence[str]) -> ConfigurationError | None:
    """The sentence for command-line words that were meant for another program, or None."""
    if not words:
        return None
    first, rest = words[0], list(words[1:])
    name = os.path.basename(first)
    if name.removesuffix(".exe") in ("python", "python3") and rest:
        return _other("python", "Tidegate imports the application itself", rest)
    if name in ("manage.py", "django-admin", "runserver"):
        return _django(name, rest)
    if name in _SERVERS:
        return _other(name, f"This is Tidegate; {name} is not needed with it", rest)
    if name in _DJANGO:
        return ConfigurationError(
            f"`{name}` is a command of Django, not of Tidegate.", f"Run `python manage.py {name}`."
        )
    if name in _SUBCOMMANDS:
        return _other(name, f"Tidegate has no command `{name}`: serving is all it does", rest)
    return _address(words)


def _django(name: str, rest: list[str]) -> ConfigurationError:
    command = next((word for word in rest if word.isidentifier()), "")
    if name != "runserver" and command not in ("", "runserver", "testserver"):
        return ConfigurationError(
            f"`{command}` is a command of Django, not of Tidegate.",
            f"Run `python manage.py {command}`.",
        )
    what = f"{name} {command}".strip()
    bound = next((_options(word) for word in rest if _options(word)), "")
    return ConfigurationError(
        f"`{what}` belongs to Django's own command line; it is not an application.",
        f"Run `tidegate{bound}` alone beside manage.py: it finds the project and serves it.",
    )


def _other(name: str, reason: str, rest: list[str]) -> ConfigurationError:
    typed = next((word for word in rest if not word.startswith("-")), "")
    instead = f"tidegate {typed}".strip()
    return ConfigurationError(
        f"There is no application `{name}` here. {reason}.", f"Run `{instead}`."
    )


def _address(words: Sequence[str]) -> ConfigurationError | None:
    word = words[-1]
    options = _options(word)
    if not options:
        return None
    target = f" {words[0]}" if len(words) > 1 else ""
    return ConfigurationError(
        f"`{word}` is an address, not an application.",
        f"Say where to listen with options: `tidegate{target}{options}`.",
    )


def _options(word: str) -> str:
    match = re.fullmatch(_ADDRESS, word)
    if match is None or int(match["port"]) > 65535:
        return ""
    host = (match["host"] or "").strip("[]")
    return f" --host {host} --port {match['port']}" if host else f" --port {match['port']}"
