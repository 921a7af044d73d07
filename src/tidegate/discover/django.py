"""A Django project, read from its files: manage.py, the settings it names, the asgi.py near them.

Nothing is imported to find it. Where asgi.py was deleted, `application_of` does what it would do.
"""

from __future__ import annotations

import ast
import glob
import os
from importlib.util import find_spec
from typing import Any, NamedTuple

from tidegate.discover import nearby
from tidegate.discover.loading import call_factory, import_module, put_on_path
from tidegate.discover.target import Target, exists, module_for
from tidegate.errors import ConfigurationError

_KEY = "DJANGO_SETTINGS_MODULE"


class Project(NamedTuple):
    """`asgi` are (module, attribute) pairs, the one to serve first; the attribute may be ""."""

    root: str
    settings: str
    asgi: tuple[tuple[str, str], ...]


def project_in(root: str) -> Project | None:
    """The Django project whose manage.py is in `root`, or None."""
    manage = os.path.join(root, "manage.py")
    if not os.path.isfile(manage):
        return None
    with open(manage, "rb") as file:
        source = file.read()
    if b"django" not in source.lower():
        return None
    settings = os.environ.get(_KEY) or _settings_named(source, manage, root)
    return Project(root, settings, tuple(_asgi_modules(root, settings)))


def _settings_named(source: bytes, manage: str, root: str) -> str:
    try:
        tree = ast.parse(source, filename=manage)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        if not any(isinstance(part, ast.Constant) and part.value == _KEY for part in _near(node)):
            continue
        # A literal, or the default in something like getenv("SETTINGS", "mysite.settings").
        texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
        names = [text for text in texts if isinstance(text, str) and text != _KEY]
        there = [name for name in names if exists(name, root)]
        if there or names:
            return (there or names)[-1]
    return ""


def _near(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Call):
        return node.args
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        return [node.targets[0].slice]
    return []


def _asgi_modules(root: str, settings: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    named = _asgi_application(exists(settings, root)) if settings else ""
    module, _, attribute = named.rpartition(".")
    if module and exists(module, root):
        found.append((module, attribute))
    package = settings.rpartition(".")[0]
    while package:
        found.append((f"{package}.asgi", ""))
        package = package.rpartition(".")[0]
    found.append(("asgi", ""))
    for path in sorted(glob.glob("*/asgi.py", root_dir=root)):
        found.append((module_for(os.path.join(root, path), root)[0], ""))
    unique: dict[str, str] = {}
    for name, attr in found:
        if exists(name, root).endswith(".py"):
            unique.setdefault(name, attr)
    return list(unique.items())


def _asgi_application(settings: str) -> str:
    """The value of ASGI_APPLICATION, Channels' setting, where the settings file spells it out."""
    if not settings.endswith(".py"):
        return ""
    with open(settings, "rb") as file:
        source = file.read()
    if b"ASGI_APPLICATION" not in source:
        return ""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return ""  # importing the application will tell it, with line and caret
    for node in reversed(body):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "ASGI_APPLICATION"
            and isinstance(node.value, ast.Constant)
        ):
            return str(node.value.value or "")
    return ""


def application_of(settings: str, root: str) -> Any:
    """What the deleted asgi.py would have made."""
    if not settings:
        raise ConfigurationError(
            f"{root} holds a Django project without an asgi.py, and its manage.py names no {_KEY}.",
            f"Set it: `{_KEY}=mysite.settings tidegate`.",
        )
    os.environ.setdefault(_KEY, settings)
    put_on_path((root,))
    if find_spec("django") is None:
        raise ConfigurationError(
            f"{root} holds a Django project, but Django is not there.",
            nearby.missing_import("django", "manage.py", root),
        )
    target = Target("django.core.asgi:get_asgi_application", "django.core.asgi", "", (root,))
    module = import_module(target, root)
    return call_factory(module.get_asgi_application, target)
