"""Names near the one that was typed, and the reasons a module is missing."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType

from tidegate.discover.loading import FACTORY_NAMES, applications
from tidegate.discover.mistakes import mistaken_command
from tidegate.discover.shape import describe
from tidegate.discover.target import Target, exists
from tidegate.errors import ConfigurationError

__all__ = ["either", "exists", "missing_import", "near", "no_such_file", "no_such_module"]

# Imported by one name, installed by another.
_DISTRIBUTIONS = {
    "attr": "attrs", "bs4": "beautifulsoup4", "corsheaders": "django-cors-headers",
    "Crypto": "pycryptodome", "cv2": "opencv-python", "dateutil": "python-dateutil",
    "debug_toolbar": "django-debug-toolbar", "decouple": "python-decouple",
    "django_filters": "django-filter", "dotenv": "python-dotenv", "environ": "django-environ",
    "jose": "python-jose", "jwt": "PyJWT", "magic": "python-magic",
    "multipart": "python-multipart", "MySQLdb": "mysqlclient", "ninja": "django-ninja",
    "OpenSSL": "pyOpenSSL", "PIL": "pillow", "psycopg2": "psycopg2-binary",
    "rest_framework": "djangorestframework", "sentry_sdk": "sentry-sdk",
    "sklearn": "scikit-learn", "socketio": "python-socketio", "yaml": "PyYAML",
}  # fmt: skip
# Known by one name for both: nobody has lost a file that is called so.
_PACKAGES = _DISTRIBUTIONS.keys() | {
    "aiohttp", "alembic", "anyio", "asgiref", "asyncpg", "boto3", "celery", "channels", "django",
    "fastapi", "flask", "gunicorn", "httpx", "jinja2", "litestar", "numpy", "orjson", "pandas",
    "psycopg", "pydantic", "pydantic_settings", "pymongo", "quart", "redis", "requests",
    "sqlalchemy", "sqlmodel", "starlette", "strawberry", "structlog", "tortoise", "uvicorn",
    "uvloop", "whitenoise",
}  # fmt: skip
_SKIPPED = {"node_modules", "__pycache__", "site-packages", "build", "dist"}


def near(name: str, names: Iterable[str]) -> list[str]:
    """Up to three names close to `name`, the closest first; case does not matter."""
    folded = {each.lower(): each for each in sorted(set(names))}
    found = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)
    return [folded[each] for each in found]


def either(names: Sequence[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def modules_in(directory: str) -> list[str]:
    """The names importable from a directory, without importing any."""
    names = []
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return []
    for entry in entries:
        name = entry.name.removesuffix(".py")
        if not name.isidentifier() or name in _SKIPPED or name.startswith("__"):
            continue
        if entry.name.endswith(".py") or (entry.is_dir() and _holds_python(entry.path)):
            names.append(name)
    return sorted(names)


def _holds_python(directory: str) -> bool:
    try:
        return any(name.endswith(".py") for name in os.listdir(directory))
    except OSError:
        return False


def directories_in(base: str) -> list[str]:
    """Directories below `base` that may hold sources: no virtual environments, nothing hidden."""
    try:
        entries = sorted(os.scandir(base), key=lambda entry: entry.name)
    except OSError:
        return []
    return [
        entry.path
        for entry in entries
        if entry.is_dir()
        and not entry.name.startswith(".")
        and entry.name not in _SKIPPED
        and not os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
    ]


def barred(path: str) -> str:
    """What on the way to `path`, or at its end, this user may not read; "" if that is not why."""
    way = [path]
    while way[0] != os.path.dirname(way[0]):
        way.insert(0, os.path.dirname(way[0]))
    for each in way:
        if not os.path.lexists(each):
            return ""
        last = os.R_OK * (each == path)
        if not os.access(each, os.X_OK | last if os.path.isdir(each) else last):
            return each
    return ""


def not_readable(shut: str, lead: str = "") -> ConfigurationError:
    """`shut` is what `barred` has found; `lead` says what was looked for."""
    user, right = _user(), "o+rx" if os.path.isdir(shut) else "o+r"
    return ConfigurationError(
        f"{lead}{user} may not read {shut}.",
        f"Let that user read it (`chmod {right} {shut}`, or another owner by chown), or put the "
        "application where it may.",
    )


def _user() -> str:
    """Who this process is, by name; by number where nobody has given that one a name."""
    try:
        import pwd
    except ImportError:  # Windows
        return "this user"
    number = os.geteuid()
    try:
        return f"the user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the user {number}"


def no_such_module(missing: str, target: Target, base: str) -> ConfigurationError:
    """The module that was named is not there: where it may be instead."""
    if shut := barred(base):
        return not_readable(shut, f"The module {missing!r} cannot be looked for: ")
    message = f"There is no module {missing!r} in {base}"
    parent, _, last = target.module.rpartition(".")
    attribute = f":{target.attribute}" if target.attribute else ""
    holder = exists(parent, base) if parent and not target.attribute else ""
    if holder.endswith(".py") and not holder.endswith("__init__.py"):
        hint = f"{parent} is a module: with a colon, `tidegate {parent}:{last}`."
        return ConfigurationError(f"{message}.", hint)
    elsewhere = _elsewhere(target.module, base)
    if elsewhere:
        return ConfigurationError(f"{message}.", elsewhere)
    package, _, name = missing.rpartition(".")
    rest = target.module[len(missing) :]
    directory = os.path.join(base, *package.split(".")) if package else base
    siblings = modules_in(directory)
    close = [f"{package}.{each}{rest}".lstrip(".") for each in near(name, siblings)]
    close = [each for each in close if exists(each, base)] or close
    if close:
        hint = f"Did you mean {either([f'`{each}{attribute}`' for each in close])}?"
    elif siblings:
        hint = f"There are: {', '.join(siblings[:8])}{', ...' * (len(siblings) > 8)}."
    else:
        hint = "Change to the directory the application is imported from, or give it by --app-dir."
    return ConfigurationError(f"{message}.", hint)


def _elsewhere(module: str, base: str) -> str:
    for directory in directories_in(base):
        if exists(module, directory):
            name = os.path.basename(directory)
            return f"It is in {name}/: add `--app-dir {name}`."
    parent = os.path.dirname(base)
    if parent != base and exists(module, parent).endswith(".py"):
        return f"It is importable from {parent}: change to that directory, or add `--app-dir ..`."
    return ""


def no_such_file(place: str, here: str) -> ConfigurationError:
    """A path was named, and there is nothing at it."""
    if shut := barred(os.path.dirname(os.path.normpath(os.path.join(here, place)))):
        return not_readable(shut, f"The file {place} cannot be looked for: ")
    name = os.path.basename(place)
    found = []
    for directory in [here, *directories_in(here)]:
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            found.append(os.path.relpath(path, here))
    if not found:
        directory = os.path.join(here, os.path.dirname(place))
        close = near(name.removesuffix(".py"), modules_in(directory))
        found = [os.path.join(os.path.dirname(place), f"{each}.py") for each in close]
    hint = f"Did you mean {either([f'`tidegate {each}`' for each in found[:3]])}?"
    return ConfigurationError(
        f"There is no file {place} in {here}.", hint if found else "Check the path."
    )


def no_such_name(module: ModuleType, name: str, target: Target, base: str) -> ConfigurationError:
    """A module without the attribute: near names, then what in it looks like an application."""
    where = f"{module.__name__} ({getattr(module, '__file__', None) or 'a directory'})"
    public = [key for key in vars(module) if not key.startswith("_")]
    held = applications(module)
    close = near(name, [*held, *FACTORY_NAMES]) if name else []
    close = [key for key in close if key in public] or (near(name, public) if name else [])
    found = [key for key in held if key not in close]
    factories = [key for key in FACTORY_NAMES if callable(vars(module).get(key))]
    hints = []
    if close:
        hints.append(f"Did you mean {either([f'{module.__name__}:{each}' for each in close])}?")
    if found:
        kinds = [f"{key} ({describe(getattr(module, key))})" for key in found]
        hints.append(f"It holds {', '.join(kinds)}.")
    if not close and not found and factories:
        hints.append(f"A factory is there: `tidegate --factory {module.__name__}:{factories[0]}`.")
    if not hints:
        hints.append(_inside(module) or _nothing(module))
    message = f"{where} has no {name!r}." if name else f"{where} holds no application."
    mistake = (
        mistaken_command([target.text]) if not name and not exists(target.module, base) else None
    )
    return mistake or ConfigurationError(message, " ".join(hints))


def _nothing(module: ModuleType) -> str:
    return (
        "Nothing in it looks like an application. If one is made by a function, name that: "
        f"`tidegate --factory {module.__name__}:create_app`."
    )


def _inside(module: ModuleType) -> str:
    """For a package: the submodules that usually hold the application."""
    for path in getattr(module, "__path__", ()):
        usual = [each for each in ("asgi", "main", "app", "server", "api") if exists(each, path)]
        if usual:
            return f"Did you mean {either([f'`{module.__name__}.{each}`' for each in usual])}?"
    return ""


def missing_import(missing: str, module: str, base: str) -> str:
    """`module` was found; what it imports was not: why that may be, and what to do."""
    top, _, rest = missing.partition(".")
    package, _, name = missing.rpartition(".")
    directory = os.path.join(base, *package.split(".")) if package else base
    close = [f"{package}.{each}".lstrip(".") for each in near(name, modules_in(directory))]
    if close:
        return f"{module} was found, {missing} was not. Did you mean {either(close)}?"
    if rest and exists(top, base):
        return f"{module} was found; there is no {missing} in {exists(top, base)}."
    distribution = _DISTRIBUTIONS.get(top, top)
    own = missing.islower() and missing.isidentifier() and missing not in _PACKAGES
    return (
        f"{module} was found; {missing}, which it needs, is not installed for "
        f"{sys.executable}. {_environment(base)}"
        f"`{os.path.basename(sys.executable) or 'python'} -m pip install {distribution}` "
        f"installs it, if it is a package from outside"
        f"{f', or put {missing}.py back, if it was a file of yours' * own}."
    )


def _environment(base: str) -> str:
    active = os.environ.get("VIRTUAL_ENV", "")
    if active and os.path.realpath(active) != os.path.realpath(sys.prefix):
        return (
            f"The virtual environment {active} is active, but this `tidegate` is installed in "
            f"{sys.prefix}: install tidegate into the active one. Otherwise "
        )
    if sys.prefix == sys.base_prefix:
        for name in (".venv", "venv", "env"):
            if os.path.exists(os.path.join(base, name, "pyvenv.cfg")):
                return f"There is a virtual environment in {name}/ that is not active. Otherwise "
    return "Is the right virtual environment active? "
