"""What Gunicorn has loaded: an ASGI application, something else, or a page about a mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tidegate.discover.shape import Shape, describe, framework_of, shape_of
from tidegate.errors import ConfigurationError


def speaks_asgi2(app: Any, interface: str) -> bool:
    """Whether it is ASGI 2 rather than 3; ConfigurationError where it is neither."""
    shape = shape_of(app) if interface == "auto" else Shape(interface)
    if shape in {Shape.ASGI3, Shape.ASGI2}:
        return shape is Shape.ASGI2
    what = describe(app)
    if shape is Shape.WSGI:
        what = f"The application is written to WSGI ({what}); Tidegate's worker class serves ASGI."
        hint = "For WSGI use one of Gunicorn's own worker classes: -k sync, -k gthread, -k gevent."
        if framework_of(app) == "Django":
            hint = f"Django's ASGI application is mysite.asgi:application. {hint}"
        raise ConfigurationError(what, hint)
    if shape is Shape.FACTORY:
        hint = "If it returns one, write the call, in quotes: gunicorn ... 'main:create_app()'."
    else:
        hint = "If it is one all the same, say so: TIDEGATE_INTERFACE=asgi3."
    raise ConfigurationError(f"The application is no ASGI application but {what}.", hint)


def page_of(stand_in: Callable[..., Sequence[bytes]]) -> Any:
    """Gunicorn's WSGI page about a syntax error, as an ASGI application."""
    page = b"".join(stand_in({}, lambda *_: None))
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(page))]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": page})
        else:
            await send({"type": "websocket.close"})

    return app
