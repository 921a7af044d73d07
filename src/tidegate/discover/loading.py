"""Importing the module, picking the application in it, calling a factory.

Before a user's file is imported it is looked at for a server started at import: that import would
never return. While it runs, `importing_application()` tells `tidegate.run` that it was called from
inside. Whatever the application's code raises is handed to `failures`, which keeps what matters.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NamedTuple

from tidegate.discover.shape import (
    Shape,
    describe,
    framework_of,
    is_async,
    is_framework_object,
    required,
    required_keywords,
    shape_of,
    signature_of,
)
from tidegate.discover.target import Target, exists
from tidegate.errors import ConfigurationError

_importing: ContextVar[str] = ContextVar("tidegate_importing_application", default="")

# Where no attribute was named, in this order.
NAMES = ("application", "app", "api", "asgi", "asgi_app", "asgi_application", "server")
FACTORY_NAMES = (
    "create_app", "make_app", "create_application", "app_factory", "build_app",
    "get_app", "get_application", "get_asgi_application", "factory", "create_api",
)  # fmt: skip
# What a call that starts a server looks like; only then is the source worth parsing.
_STARTERS = (
    b"run(", b"run_app(", b"serve(", b"serve_forever(", b"server(", b"quickstart(",
    b"execute_from_command_line(", b"waitress",
)  # fmt: skip


class Loaded(NamedTuple):
    """What the target named: an application, or the factory that makes it."""

    application: Any
    target: Target
    notes: tuple[str, ...] = ()


def importing_application() -> str:
    """The import string being imported or called right now in this context, or ""."""
    return _importing.get()


def load(target: Target, base: str, *, factory: bool = False) -> Loaded:
    """Import the target's module and get the attribute, or find one where none was named."""
    put_on_path(target.paths)
    refuse_server_at_import(target)
    module = import_module(target, base)
    if target.attribute:
        return Loaded(_attribute(module, target, base), target)
    return _pick(module, target, base, factory=factory)


def put_on_path(paths: tuple[str, ...]) -> None:
    """Make `paths` the first places that imports look in."""
    for path in reversed(paths):
        if sys.path[:1] != [path]:
            sys.path.insert(0, path)


def refuse_server_at_import(target: Target) -> None:
    """Raise for a module that would start a server, and so never come back from its import."""
    path = next((found for p in target.paths if (found := exists(target.module, p))), "")
    if not path.endswith(".py") or target.module in sys.modules:
        return
    with open(path, "rb") as file:
        source = file.read()
    if not any(word in source for word in _STARTERS):
        return
    from tidegate.discover.source import server_call

    call, line = server_call(source)
    if call:
        raise ConfigurationError(
            f"{path}, line {line}: `{call}(...)` starts a server while the module is imported, "
            f"so {target.module} can never be imported.",
            f'Move it under a guard: `if __name__ == "__main__": {call}(...)`.',
        )


def import_module(target: Target, base: str) -> ModuleType:
    """Import by name; every failure comes out as a `ConfigurationError` about the user's code."""
    token = _importing.set(target.text)
    try:
        module = importlib.import_module(target.module)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        from tidegate.discover.failures import import_failure

        raise import_failure(error, target, base) from error
    finally:
        _importing.reset(token)
    _refuse_shadowed(module, target)
    return module


def _refuse_shadowed(module: ModuleType, target: Target) -> None:
    # `tidegate types:app` beside a types.py of one's own: Python's was imported long ago.
    path = next((found for p in target.paths if (found := exists(target.module, p))), "")
    file = getattr(module, "__file__", None)
    if not path.endswith(".py") or (file and os.path.exists(file) and os.path.samefile(file, path)):
        return
    raise ConfigurationError(
        f"{path} cannot be imported as {target.module!r}: that name already belongs to "
        f"{file or 'a module built into Python'}.",
        "Rename the file, or put it into a package of its own.",
    )


def _attribute(module: ModuleType, target: Target, base: str) -> Any:
    thing: Any = module
    for name in target.attribute.split("."):
        try:
            thing = getattr(thing, name)
        except AttributeError as error:
            from tidegate.discover.failures import import_failure, no_such_attribute

            if not isinstance(thing, ModuleType) and hasattr(type(thing), name):
                # It is there: a property whose own code failed.
                raise import_failure(error, target, base) from error
            raise no_such_attribute(thing, name, target, base) from error
    return thing


def _pick(module: ModuleType, target: Target, base: str, *, factory: bool) -> Loaded:
    if factory or target.call:
        name = next((n for n in FACTORY_NAMES if callable(getattr(module, n, None))), "")
        if not name:
            raise ConfigurationError(
                f"{target.module} holds no function with a name usual for a factory "
                f"({', '.join(FACTORY_NAMES[:4])}, ...).",
                f"Name it: `tidegate --factory {target.module}:<function>`.",
            )
        return _taken(module, target.at(name), [])
    found = applications(module)
    served = [name for name in found if found[name] is not Shape.WSGI] or list(found)
    usual = [name for name in NAMES if name in served]
    distinct = {id(getattr(module, name)) for name in served}
    if not usual and len(distinct) > 1:
        raise ConfigurationError(
            f"{target.module} holds several applications: {', '.join(served)}.",
            f"Say which one: `tidegate {target.module}:{served[0]}`.",
        )
    if not served:
        from tidegate.discover.failures import no_application_in

        raise no_application_in(module, target, base)
    chosen = (usual or served)[0]
    same = getattr(module, chosen)
    others = [name for name in found if getattr(module, name) is not same]
    return _taken(module, target.at(chosen), others)


def _taken(module: ModuleType, target: Target, others: list[str]) -> Loaded:
    application = getattr(module, target.attribute)
    notes = [f"Took `{target.attribute}` from {target.module}, {describe(application)}."]
    if others:
        notes.append(f"Passed over in {target.module}: {', '.join(others)}.")
    return Loaded(application, target, tuple(notes))


def applications(module: ModuleType) -> dict[str, Shape]:
    """The names in a module that hold an application, in the order they were bound.

    A usual name counts whatever it holds as long as it can be served; any other name only as an
    instance of a framework, or as a function of the module's own with ASGI's parameter names.
    """
    found: dict[str, Shape] = {}
    for name, value in list(vars(module).items()):
        if name.startswith("_") or not callable(value):
            continue
        if name in NAMES or is_framework_application(value) or _is_own_function(value, module):
            shape = shape_of(value)
            if shape in (Shape.ASGI3, Shape.ASGI2, Shape.WSGI):
                found[name] = shape
    return found


def is_framework_application(value: Any) -> bool:
    """An application object of a known framework, not one of its many callable parts."""
    if not is_framework_object(value):
        return False
    kinds = [base.__name__ for base in type(value).__mro__]
    return any(kind in _APPLICATION_CLASSES for kind in kinds)


_APPLICATION_CLASSES = {
    "FastAPI", "Starlette", "Litestar", "Quart", "Flask", "Sanic", "Application", "App",
    "ASGIApp", "ASGIHandler", "WSGIHandler", "ProtocolTypeRouter", "AsyncApp", "Bottle",
}  # fmt: skip


def _is_own_function(value: Any, module: ModuleType) -> bool:
    if getattr(value, "__module__", None) != module.__name__ or isinstance(value, type):
        return False
    signature = signature_of(value)
    names = [name.lstrip("_") for name in signature.parameters] if signature else []
    return names in (["scope", "receive", "send"], ["environ", "start_response"])


def call_factory(factory: Any, target: Target) -> Any:
    """Call it without arguments and hand back the application it made."""
    name = target.text.removesuffix("()")
    shape = shape_of(factory)
    if shape in (Shape.ASGI3, Shape.WSGI) and (
        not callable(factory) or framework_of(factory) or not _callable_empty(factory)
    ):
        raise ConfigurationError(
            f"{name} is {describe(factory)}: the application itself, not a function that makes it.",
            "Leave out --factory.",
        )
    if not callable(factory):
        raise ConfigurationError(
            f"--factory: {name} is {describe(factory)}, which cannot be called.",
            "Name a function that takes no arguments and returns the application.",
        )
    _refuse_uncallable(factory, name)
    token = _importing.set(target.text)
    try:
        application = factory()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        from tidegate.discover.failures import factory_failure

        raise factory_failure(error, name) from error
    finally:
        _importing.reset(token)
    if application is None:
        raise ConfigurationError(
            f"The factory {name} returned None.", "Does it end with `return app`?"
        )
    return application


def _refuse_uncallable(factory: Any, name: str) -> None:
    signature = signature_of(factory)
    needed = [*required(signature), *required_keywords(signature)] if signature else []
    short = name.rpartition(":")[2]
    if needed:
        raise ConfigurationError(
            f"The factory {name} cannot be called without arguments: it needs {', '.join(needed)}.",
            "Give the parameters defaults, or write a function without any that calls it: "
            f"`def make_app(): return {short}({', '.join(f'{n}=...' for n in needed)})`.",
        )
    if is_async(factory):
        raise ConfigurationError(
            f"The factory {name} is an async function; it is called before any event loop runs.",
            "Make it a plain `def`, and move what must be awaited into the application's "
            "lifespan startup.",
        )


def _callable_empty(factory: Any) -> bool:
    signature = signature_of(factory)
    return signature is None or not (required(signature) or required_keywords(signature))
