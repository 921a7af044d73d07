"""The error that matters: a user's exception without the frames of importlib and the server.

Frames of the user's files stay, runs of library frames are folded to one line (the innermost stays:
it is where it happened), and the hint tells a module that is missing from one that is there but
imports something missing.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from types import ModuleType
from typing import Any

from tidegate.discover import nearby
from tidegate.discover.shape import Shape, describe, framework_of, is_async
from tidegate.discover.target import Target
from tidegate.errors import ConfigurationError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_CAUSE = "That was the direct cause of:"
_CONTEXT = "While that was being handled, this happened:"
_KEPT_FIRST, _KEPT_LAST = 4, 12  # of the user's frames, when a recursion makes them many


def import_failure(error: BaseException, target: Target, base: str) -> ConfigurationError:
    """What stopped an application's import, in the user's terms."""
    if isinstance(error, ModuleNotFoundError) and not user_frames(error):
        missing = error.name or ""
        if target.module == missing or target.module.startswith(f"{missing}."):
            return nearby.no_such_module(missing, target, base)
    if isinstance(error, SystemExit):
        return _ended(error, f"{target.module} ended the process while it was imported")
    what = "has a syntax error" if _own_syntax(error, target) else "could not be imported"
    return ConfigurationError(
        f"{target.module} {what}:\n\n{shortened(error)}", _hint(error, target.module, base)
    )


def factory_failure(error: BaseException, name: str) -> ConfigurationError:
    """What a factory (or `get_asgi_application`) raised."""
    if isinstance(error, SystemExit):
        return _ended(error, f"{name}() ended the process")
    return ConfigurationError(
        f"{name}() failed:\n\n{shortened(error)}", _hint(error, name, os.getcwd())
    )


def _ended(error: SystemExit, what: str) -> ConfigurationError:
    text = isinstance(error.code, str)
    said = f" and said: {str(error.code).rstrip('.')}" if text else f" (exit {error.code!r})"
    return ConfigurationError(
        f"{what}{said}.\n\n{shortened(error)}",
        f"The application ended itself: {'do what it says' if text else 'see what it printed'}. "
        "If it did so as a script, by parsing arguments for example, move that part under "
        '`if __name__ == "__main__":`.',
    )


def _own_syntax(error: BaseException, target: Target) -> bool:
    if not isinstance(error, SyntaxError) or not error.filename:
        return False
    return os.path.basename(error.filename) == target.module.rpartition(".")[2] + ".py"


def _hint(error: BaseException, module: str, base: str) -> str:
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        return nearby.missing_import(error.name or "", module, base)
    if "DJANGO_SETTINGS_MODULE" in text or "settings are not configured" in text:
        return (
            "Django does not know its settings. Set DJANGO_SETTINGS_MODULE, or in asgi.py: "
            '`os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")` before anything '
            "else."
        )
    if type(error).__name__ == "AppRegistryNotReady":
        return (
            "In asgi.py, call get_asgi_application() first; only after it import what imports "
            "models (consumers, routing)."
        )
    if "cannot be called from a running event loop" in text:
        return (
            "Something in it starts an event loop or a server while it is imported: move that "
            'under `if __name__ == "__main__":`.'
        )
    if isinstance(error, SyntaxError):
        return "Correct the line above, then try again."
    if isinstance(error, ImportError) and "circular import" in text:
        return "Two modules import each other: move one of the imports into the function using it."
    return "The application's own code raised this; Tidegate only imported it."


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an exception that are neither importlib's nor ours."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_plumbing(frame)]


def shortened(error: BaseException) -> str:
    """The traceback, as Python writes it, of the frames that matter and of what led to them."""
    whole = traceback.TracebackException.from_exception(error)
    parts: list[str] = []
    step: traceback.TracebackException | None = whole
    while step is not None:
        parts.insert(0, _one(step))
        if step.__cause__ is not None:
            parts.insert(0, f"\n{_CAUSE}\n\n")
            step = step.__cause__
        elif step.__context__ is not None and not step.__suppress_context__:
            parts.insert(0, f"\n{_CONTEXT}\n\n")
            step = step.__context__
        else:
            step = None
    return "".join(parts).rstrip()


def _one(step: traceback.TracebackException) -> str:
    lines: list[str] = []
    folded = 0
    frames = [frame for frame in step.stack if not _is_plumbing(frame)]
    cut = range(_KEPT_FIRST, len(frames) - _KEPT_LAST)
    for index, frame in enumerate(frames):
        if index in cut or (index < len(frames) - 1 and _is_library(frame)):
            folded += 1
            continue
        lines += _folded(folded)
        folded = 0
        lines.append(step.stack.format_frame_summary(frame))
    inner = getattr(step, "exceptions", None)
    if inner:
        return "".join([*lines, *step.format_exception_only(), *(_one(each) for each in inner)])
    return "".join([*lines, *step.format_exception_only()])


def _folded(count: int) -> list[str]:
    return [f"  ... {count} frame{'s' * (count > 1)} not shown ...\n"] if count else []


def _is_plumbing(frame: traceback.FrameSummary) -> bool:
    name = frame.filename
    return name.startswith(("<frozen importlib", _PACKAGE)) or name == _IMPORTLIB


def _is_library(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith((*_LIBRARIES, "<frozen "))


_IMPORTLIB = sys.modules["importlib"].__file__


def no_such_attribute(thing: Any, name: str, target: Target, base: str) -> ConfigurationError:
    """The module is there, the name in it is not."""
    if not isinstance(thing, ModuleType):
        owner = f"{target.module}:{target.attribute.partition('.' + name)[0]}"
        near = nearby.near(name, [each for each in dir(thing) if not each.startswith("_")])
        hint = f"Did you mean {nearby.either(near)}?" if near else "Check the name."
        return ConfigurationError(f"{owner}, {describe(thing)}, has no attribute {name!r}.", hint)
    return nearby.no_such_name(thing, name, target, base)


def no_application_in(module: ModuleType, target: Target, base: str) -> ConfigurationError:
    """A module was named without an attribute, and nothing in it looks like an application."""
    return nearby.no_such_name(module, "", target, base)


def not_an_application(thing: Any, shape: Shape, target: Target) -> ConfigurationError:
    """The object is there, and it cannot be served."""
    what = f"{target.text} is {describe(thing)}"
    if shape is Shape.WSGI:
        return _wsgi(thing, what, target)
    if isinstance(thing, ModuleType):
        inner = target.text.replace(":", ".")
        return ConfigurationError(f"{what}, not an application.", f"Try `tidegate {inner}:app`.")
    if shape is Shape.FACTORY and not target.call and not target.text.endswith("()"):
        if is_async(thing):
            return ConfigurationError(
                f"{what}, which takes no arguments: not an ASGI application.",
                "An ASGI application is `async def app(scope, receive, send)`; a factory is a "
                "plain `def`, served with --factory.",
            )
        return ConfigurationError(
            f"{what}, which takes no arguments: it looks like a factory, not like an application.",
            f"Let Tidegate call it: `tidegate --factory {target.text}`.",
        )
    if not callable(thing):
        return ConfigurationError(
            f"{what}, which cannot be called and so is no application.",
            "An ASGI application is a callable that takes (scope, receive, send).",
        )
    return ConfigurationError(
        f"{what}: neither ASGI nor WSGI.",
        "An ASGI application takes (scope, receive, send). If it is one that hides its "
        "parameters, say so: `--interface asgi3`.",
    )


def _wsgi(thing: Any, what: str, target: Target) -> ConfigurationError:
    framework = framework_of(thing)
    if framework == "Django":
        package = target.module.rpartition(".")[0]
        asgi = f"{package}.asgi" if package else "mysite.asgi"
        there = any(nearby.exists(asgi, path) for path in target.paths)
        how = (
            f"Serve its ASGI twin: `tidegate {asgi}:application`."
            if there
            else "Run `tidegate` alone beside manage.py (no asgi.py is needed), or write "
            f"{asgi.replace('.', '/')}.py with `application = get_asgi_application()` from "
            "django.core.asgi."
        )
        return ConfigurationError(f"{what} over WSGI, and this release serves ASGI.", how)
    how = (
        "WSGI comes with a later release. Until then wrap it: "
        "`from asgiref.wsgi import WsgiToAsgi`, `asgi = WsgiToAsgi("
        f"{target.attribute or 'app'})`, and run `tidegate {target.module or 'main'}:asgi`."
    )
    if framework == "Flask":
        how += " (Quart is Flask's sibling for ASGI.)"
    return ConfigurationError(
        f"{what}, written to WSGI (environ, start_response); this release serves ASGI.", how
    )
