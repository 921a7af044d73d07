"""What is this object? ASGI 3, ASGI 2, WSGI, something that makes an application, or nothing.

Told from the call signature, because that is all the three interfaces have in common, and from the
module names in the class's `__mro__`, so that no framework is imported to recognise its objects.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from enum import Enum
from typing import Any

# Top-level module of a class in the __mro__ -> the name users know it by.
FRAMEWORKS = {
    "django": "Django",
    "channels": "Django Channels",
    "fastapi": "FastAPI",
    "starlette": "Starlette",
    "litestar": "Litestar",
    "quart": "Quart",
    "flask": "Flask",
    "falcon": "Falcon",
    "sanic": "Sanic",
    "blacksheep": "BlackSheep",
    "connexion": "Connexion",
    "socketio": "Socket.IO",
    "engineio": "Engine.IO",
    "bottle": "Bottle",
    "pyramid": "Pyramid",
    "lilya": "Lilya",
    "ravyn": "Ravyn",
    "esmerald": "Esmerald",
}

# Callable or not, these speak neither ASGI nor WSGI (aiohttp's application returns itself when
# called, Typer's and Celery's take any arguments: their signatures alone would mislead).
STRANGERS = {
    "aiohttp": "an aiohttp application, which brings its own server",
    "tornado": "a Tornado application, which brings its own server",
    "robyn": "a Robyn application, which brings its own server",
    "typer": "a Typer command line",
    "click": "a Click command line",
    "celery": "a Celery application",
}

_MAKES = r"(create|make|build|get|new|init|setup)_|factory"


class Shape(Enum):
    """What an object can be called as."""

    ASGI3 = "asgi3"
    ASGI2 = "asgi2"
    WSGI = "wsgi"
    FACTORY = "factory"
    OTHER = "other"


def shape_of(thing: Any) -> Shape:
    """The interface `thing` is written to, without calling it."""
    if not callable(thing) or stranger(thing):
        return Shape.OTHER
    signature = signature_of(thing)
    if signature is None:
        # Compiled callables may hide their parameters; ASGI 3 is what everybody writes.
        return Shape.ASGI3
    if isinstance(thing, type):
        return _shape_of_class(thing, signature)
    if required_keywords(signature):
        return Shape.OTHER
    if is_async(thing):
        if takes(signature, 3):
            return Shape.ASGI3
        return Shape.FACTORY if not required(signature) else Shape.OTHER
    return _shape_of_plain(thing, signature)


def _shape_of_plain(thing: Any, signature: inspect.Signature) -> Shape:
    names = [name.lstrip("_") for name in _positional(signature)]
    needed = len(required(signature))
    if needed == 3 or (needed in (1, 2) and names[:3] == ["scope", "receive", "send"]):
        return Shape.ASGI3
    if needed == 2:
        return Shape.OTHER if names[:2] == ["receive", "send"] else Shape.WSGI
    if needed == 1:
        return Shape.ASGI2 if names[0] == "scope" else Shape.OTHER
    if needed > 3:
        return Shape.OTHER
    if _any_number(signature):
        # `*args` alone: a proxy or decorator around an application, unless named as a maker.
        name = getattr(thing, "__name__", "")
        return Shape.FACTORY if re.search(_MAKES, name) else Shape.ASGI3
    return Shape.FACTORY


def _shape_of_class(thing: type, signature: inspect.Signature) -> Shape:
    if required_keywords(signature):
        return Shape.OTHER
    call = vars(type)["__call__"] if "__call__" not in dir(thing) else thing.__call__
    inner = signature_of(call) if inspect.isfunction(call) else None
    if takes(signature, 3) and hasattr(thing, "__await__"):
        return Shape.ASGI3
    if len(required(signature)) == 1 and inner is not None and len(required(inner)) == 3:
        return Shape.ASGI2  # (self, receive, send)
    if len(required(signature)) == 2 and hasattr(thing, "__iter__"):
        return Shape.WSGI
    return Shape.FACTORY if not required(signature) and inner is not None else Shape.OTHER


def signature_of(thing: Any) -> inspect.Signature | None:
    """The parameters of a call, or None where they cannot be read."""
    try:
        return inspect.signature(thing)
    except (TypeError, ValueError):
        return None


def required(signature: inspect.Signature) -> list[str]:
    """Positional parameters without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters.values()
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def required_keywords(signature: inspect.Signature) -> list[str]:
    """Keyword-only parameters without a default: no server passes any."""
    parameters = signature.parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]


def takes(signature: inspect.Signature, count: int) -> bool:
    """Whether a call with `count` positional arguments would be accepted."""
    return len(required(signature)) <= count and (
        _any_number(signature) or count <= len(_positional(signature))
    )


def _positional(signature: inspect.Signature) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in signature.parameters.values() if p.kind in kinds]


def _any_number(signature: inspect.Signature) -> bool:
    return any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())


def is_async(thing: Any) -> bool:
    """Whether calling it gives a coroutine; looks through partials and instances."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    if inspect.iscoroutinefunction(thing):
        return True
    return not isinstance(thing, type) and inspect.iscoroutinefunction(
        getattr(type(thing), "__call__", None)  # noqa: B004 - the function itself is wanted
    )


def framework_of(thing: Any) -> str:
    """The framework an object comes from, looking through middleware; "" when none is known."""
    for _ in range(8):
        for name in _homes(thing):
            if name in FRAMEWORKS:
                return FRAMEWORKS[name]
        attributes = getattr(thing, "__dict__", None) or {}
        inner = [attributes[key] for key in ("app", "application", "_app") if key in attributes]
        if isinstance(thing, functools.partial):
            inner = [thing.func]
        if not inner:
            return ""
        thing = inner[0]
    return ""


def stranger(thing: Any) -> str:
    """What a well-known object is that no web server can call; "" for all others."""
    return next((STRANGERS[name] for name in _homes(thing) if name in STRANGERS), "")


def is_framework_object(thing: Any) -> bool:
    """Whether it is an instance (not a class, not a function) of a known framework."""
    return not isinstance(thing, type) and any(name in FRAMEWORKS for name in _homes(thing))


def _homes(thing: Any) -> list[str]:
    kind = thing if isinstance(thing, type) else type(thing)
    return [str(getattr(base, "__module__", "")).partition(".")[0] for base in kind.__mro__]


def origin_of(thing: Any) -> str:
    """The import string of an object that was handed over, or what it is."""
    home = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None)
    if isinstance(home, str) and isinstance(name, str) and "<" not in name:
        return f"{home}:{name}"
    main = sys.modules.get("__main__")
    for key, value in vars(main).items() if main is not None else ():
        if value is thing and not key.startswith("_"):
            return f"__main__:{key}"
    return f"<{type(thing).__name__} object>"


def describe(thing: Any) -> str:
    """One noun phrase for messages: "a FastAPI application", "the module x", "a str"."""
    if thing is None:
        return "None"
    if inspect.ismodule(thing):
        return f"the module {thing.__name__}"
    if stranger(thing):
        return stranger(thing)
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    framework = framework_of(thing)
    if framework and callable(thing):
        return f"{article(framework)} {framework} application"
    signature = signature_of(thing) if callable(thing) else None
    if inspect.isroutine(thing) and signature is not None:
        word = "async function" if is_async(thing) else "function"
        return f"the {word} {getattr(thing, '__name__', '')}{signature}"
    kind = type(thing).__name__
    return f"{article(kind)} {kind} object"


def article(noun: str) -> str:
    """ "a" or "an", by the first letter."""
    return "an" if noun[:1].lower() in "aeiou" else "a"
