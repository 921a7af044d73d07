"""The demo page of `make serve`: a plain ASGI application, no framework, no dependency."""

from .application import Demo

app = Demo()

__all__ = ["app"]
