"""Which interface an object is written to, told without calling it."""

from __future__ import annotations

import functools

import pytest

from tidegate.discover.shape import Shape, describe, framework_of, shape_of


async def asgi3(scope, receive, send): ...


async def asgi3_named_freely(a, b, c): ...


async def asgi3_with_extras(scope, receive, send, debug=False): ...


async def asgi3_any(*arguments): ...


def asgi3_plain(scope, receive, send):
    return asgi3(scope, receive, send)


def either_interface(scope, receive=None, send=None): ...


def asgi2(scope):
    async def instance(receive, send): ...

    return instance


def wsgi(environ, start_response):
    return []


def create_app(config=None, debug=False, prefix=""): ...


def make_anything(*args, **kwargs): ...


async def aiohttp_handler(request): ...


def view(request): ...


def needs_a_keyword(scope, receive, send, *, secret): ...


async def async_factory(): ...


class Asgi3:
    async def __call__(self, scope, receive, send): ...

    async def method(self, scope, receive, send): ...


class Asgi3Class:
    def __init__(self, scope, receive, send): ...

    def __await__(self):
        yield


class Asgi2Class:
    def __init__(self, scope): ...

    async def __call__(self, receive, send): ...


class WsgiClass:
    def __init__(self, environ, start_response): ...

    def __iter__(self):
        return iter(())


class Wsgi:
    def __call__(self, environ, start_response): ...


class Middleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send): ...


class Proxy:
    def __call__(self, *args, **kwargs): ...


@functools.wraps(asgi3)
def decorated(*args, **kwargs):
    return asgi3(*args, **kwargs)


@pytest.mark.parametrize(
    ("thing", "shape"),
    [
        (asgi3, Shape.ASGI3),
        (asgi3_named_freely, Shape.ASGI3),
        (asgi3_with_extras, Shape.ASGI3),
        (asgi3_any, Shape.ASGI3),
        (asgi3_plain, Shape.ASGI3),
        (either_interface, Shape.ASGI3),
        (decorated, Shape.ASGI3),
        (Asgi3(), Shape.ASGI3),
        (Asgi3().method, Shape.ASGI3),
        (Asgi3Class, Shape.ASGI3),
        (Proxy(), Shape.ASGI3),
        (functools.partial(asgi3_with_extras, debug=True), Shape.ASGI3),
        (functools.partial(lambda x, scope, receive, send: None, 1), Shape.ASGI3),
        (asgi2, Shape.ASGI2),
        (Asgi2Class, Shape.ASGI2),
        (wsgi, Shape.WSGI),
        (Wsgi(), Shape.WSGI),
        (WsgiClass, Shape.WSGI),
        (create_app, Shape.FACTORY),
        (make_anything, Shape.FACTORY),
        (async_factory, Shape.FACTORY),
        (Asgi3, Shape.FACTORY),
        (Middleware, Shape.OTHER),
        (aiohttp_handler, Shape.OTHER),
        (view, Shape.OTHER),
        (needs_a_keyword, Shape.OTHER),
        (None, Shape.OTHER),
        ("app", Shape.OTHER),
        (functools, Shape.OTHER),
    ],
)
def test_shape(thing, shape):
    assert shape_of(thing) is shape


def test_frameworks_are_told_by_the_module_names_of_their_classes():
    home = type("FastAPI", (Asgi3,), {"__module__": "fastapi.applications"})
    own = type("MyApp", (home,), {"__module__": "shop.main"})
    assert framework_of(own()) == "FastAPI"
    assert framework_of(Middleware(Middleware(own()))) == "FastAPI"
    assert framework_of(asgi3) == ""


def test_middleware_around_itself_ends():
    endless = Middleware(None)
    endless.app = endless
    assert framework_of(endless) == ""


def test_an_aiohttp_application_is_no_factory_though_it_can_be_called():
    kind = type("Application", (), {"__module__": "aiohttp.web_app", "__call__": lambda self: self})
    assert shape_of(kind()) is Shape.OTHER
    assert "aiohttp" in describe(kind())
