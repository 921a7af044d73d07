"""What is there to serve?

From an import string, a path, an object or nothing at all to one application, its interface and
sentences that say what was taken. Strategy: a target that names module and attribute takes the
short road (import, attribute, look at the object); everything that searches, guesses or explains
lives in rooms imported only when needed. Frameworks are recognised by the module names of an
object's classes, never imported; without a target, sources are parsed before any is imported.

Rooms: `target` reads what was typed, `loading` imports and picks, `shape` tells ASGI 3, ASGI 2,
WSGI and factories apart; `search`, `source` and `django` find an application where none was named;
`failures`, `nearby` and `mistakes` word what went wrong (`mistaken_command` there is for the CLI).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from tidegate.discover.loading import call_factory, importing_application, load
from tidegate.discover.shape import Shape, framework_of, origin_of, shape_of
from tidegate.discover.target import Target, parse
from tidegate.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Found", "discover", "importing_application"]


class Found(NamedTuple):
    """An application, ready to be served: `interface` is "asgi3" or "asgi2"."""

    application: Any
    interface: str
    origin: str
    framework: str
    notes: tuple[str, ...] = ()


def discover(
    target: object | str | None,
    *,
    app_dir: str = "",
    factory: bool = False,
    interface: str = "auto",
    cwd: Path | None = None,
) -> Found:
    """Find, import and inspect the application; `ConfigurationError` says why there is none.

    `target` is an import string, a path, an application object, or None to search in `app_dir`.
    """
    try:
        return _discover(target, app_dir, cwd, factory=factory, interface=interface)
    except PermissionError as error:  # ours, from reading: what an application raises is wrapped
        from tidegate.discover.nearby import barred, not_readable

        shut = barred(os.path.abspath(error.filename)) if isinstance(error.filename, str) else ""
        if not shut:
            raise
        raise not_readable(shut, "The application cannot be loaded: ") from error


def _discover(
    target: object | str | None,
    app_dir: str,
    cwd: Path | None,
    *,
    factory: bool,
    interface: str,
) -> Found:
    if interface == "wsgi":
        raise ConfigurationError(
            "--interface wsgi: this release serves ASGI; WSGI comes with a later one.",
            "Until then wrap the application: `from asgiref.wsgi import WsgiToAsgi`, "
            "`asgi = WsgiToAsgi(app)`, and serve `asgi`.",
        )
    if target is not None and not isinstance(target, str):
        named = Target(text=origin_of(target), module="", attribute="", paths=())
        return _found(target, named, interface, factory=factory, notes=())
    here = os.path.abspath(cwd or os.getcwd())
    base = _base(here, app_dir)
    text = (target or "").strip()
    directory = os.path.join(here, text) if text.endswith(("/", os.sep, ".")) else ""
    if not text or os.path.isdir(directory):
        return _searched(os.path.normpath(directory) if text else base, interface, factory)
    parsed = parse(text, here, base)
    loaded = load(parsed, base, factory=factory)
    return _found(
        loaded.application,
        loaded.target,
        interface,
        factory=factory or parsed.call,
        notes=loaded.notes,
    )


def _base(here: str, app_dir: str) -> str:
    base = os.path.normpath(os.path.join(here, app_dir))
    if not os.path.isdir(base):
        from tidegate.discover.nearby import barred, not_readable

        if shut := barred(base):
            raise not_readable(shut, f"{base} cannot be looked into: ")
        raise ConfigurationError(
            f"--app-dir {app_dir}: there is no such directory in {here}.",
            "Give the directory that the application is imported from; it defaults to the "
            "current one.",
        )
    return base


def _searched(base: str, interface: str, factory: bool) -> Found:
    from tidegate.discover.search import search

    choice = search(base, factory=factory)
    if choice.target is None:
        from tidegate.discover.django import application_of

        application = application_of(choice.settings, base)
        named = Target("django.core.asgi:get_asgi_application()", "", "", ())
        return _found(application, named, interface, factory=False, notes=choice.notes)
    loaded = load(choice.target, base, factory=factory)
    return _found(
        loaded.application,
        loaded.target,
        interface,
        factory=choice.target.call,
        notes=(*choice.notes, *loaded.notes),
    )


def _found(
    application: Any, target: Target, interface: str, *, factory: bool, notes: tuple[str, ...]
) -> Found:
    if factory:
        application = call_factory(application, target)
        target = target.called()
    shape = shape_of(application) if interface == "auto" else Shape(interface)
    if shape not in (Shape.ASGI3, Shape.ASGI2) or not callable(application):
        from tidegate.discover.failures import not_an_application

        raise not_an_application(application, shape, target)
    return Found(application, shape.value, target.text, framework_of(application) or "ASGI", notes)
