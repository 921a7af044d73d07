"""What a Python file holds, told from its syntax tree: applications, factories, a server started.

Used to choose what to import when nothing was named, so that no file is imported in vain, and to
see a server that would start during an import. Names are followed through the file's imports, and
through local files that it imports an application from; nothing is executed.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from tidegate.discover.loading import NAMES
from tidegate.discover.target import exists

_TOO_LARGE = 1 << 20  # nobody writes a megabyte by hand
_FACTORY_NAME = re.compile(
    r"_?(create|make|build|get|init)_(\w+_)?(app|application|asgi|api)(_\w+)?|(app_)?factory"
)
_DEPTH = 4  # how many files an imported name is followed through


class Kind(Enum):
    """What a name is bound to, as far as the source tells."""

    ASGI = "asgi"
    POSSIBLE = "possible"  # made by local code that does not show what it returns
    FACTORY = "factory"
    WSGI = "wsgi"


class Candidate(NamedTuple):
    """A name in a file; `home` is the file and name it was first made under."""

    name: str
    kind: Kind
    framework: str
    home: tuple[str, str]
    imported: bool = False


# (top-level module, class or function) -> (framework, kind of what a call of it gives)
_MAKERS: dict[tuple[str, str], tuple[str, Kind]] = {
    ("fastapi", "FastAPI"): ("FastAPI", Kind.ASGI),
    ("starlette", "Starlette"): ("Starlette", Kind.ASGI),
    ("starlette", "Router"): ("Starlette", Kind.ASGI),
    ("litestar", "Litestar"): ("Litestar", Kind.ASGI),
    ("quart", "Quart"): ("Quart", Kind.ASGI),
    ("quart_trio", "QuartTrio"): ("Quart", Kind.ASGI),
    ("django", "get_asgi_application"): ("Django", Kind.ASGI),
    ("channels", "ProtocolTypeRouter"): ("Django Channels", Kind.ASGI),
    ("channels", "get_default_application"): ("Django Channels", Kind.ASGI),
    ("falcon.asgi", "App"): ("Falcon", Kind.ASGI),
    ("blacksheep", "Application"): ("BlackSheep", Kind.ASGI),
    ("sanic", "Sanic"): ("Sanic", Kind.ASGI),
    ("connexion", "AsyncApp"): ("Connexion", Kind.ASGI),
    ("connexion", "FlaskApp"): ("Connexion", Kind.ASGI),
    ("socketio", "ASGIApp"): ("Socket.IO", Kind.ASGI),
    ("esmerald", "Esmerald"): ("Esmerald", Kind.ASGI),
    ("ravyn", "Ravyn"): ("Ravyn", Kind.ASGI),
    ("lilya", "Lilya"): ("Lilya", Kind.ASGI),
    ("asgiref", "WsgiToAsgi"): ("ASGI", Kind.ASGI),
    ("a2wsgi", "WSGIMiddleware"): ("ASGI", Kind.ASGI),
    ("flask", "Flask"): ("Flask", Kind.WSGI),
    ("apiflask", "APIFlask"): ("Flask", Kind.WSGI),
    ("bottle", "Bottle"): ("Bottle", Kind.WSGI),
    ("falcon", "App"): ("Falcon", Kind.WSGI),
    ("falcon", "API"): ("Falcon", Kind.WSGI),
    ("django", "get_wsgi_application"): ("Django", Kind.WSGI),
}
# Methods whose result is an ASGI application, whatever the object.
_GIVES_ASGI = {"http_app", "sse_app", "streamable_http_app", "as_asgi", "asgi_app", "to_asgi"}
_RUNNERS = {
    "uvicorn.run", "tidegate.run", "waitress.serve", "aiohttp.web.run_app", "hypercorn.run.run",
    "django.core.management.execute_from_command_line", "eventlet.wsgi.server",
    "bottle.run", "bjoern.run", "fastpysgi.run", "cherrypy.quickstart",
}  # fmt: skip
_SERVER_OBJECTS = {"uvicorn.Server", "granian.Granian", "granian.server.Granian", "tidegate.Server",
                   "wsgiref.simple_server.make_server"}  # fmt: skip

_BLOCKING_APPLICATIONS = {("flask", "Flask"), ("quart", "Quart"), ("sanic", "Sanic"),
                          ("bottle", "Bottle")}  # fmt: skip


def scan(path: str, base: str) -> tuple[Candidate, ...]:
    """The applications a file would hold once imported; raises `SyntaxError`."""
    return _scan(path, base, _DEPTH)


def server_call(source: bytes) -> tuple[str, int]:
    """The call that would start a server during import, and its line; ("", 0) if there is none."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return "", 0  # importing it will tell
    return _Runs(tree).find(tree.body)


def _scan(path: str, base: str, depth: int) -> tuple[Candidate, ...]:
    if os.path.getsize(path) > _TOO_LARGE:
        return ()
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), filename=path)
    return tuple(_File(path, base, tree, depth).candidates())


class _File:
    """One file's names; `made` maps them to what they are bound to, in order."""

    def __init__(self, path: str, base: str, tree: ast.Module, depth: int) -> None:
        self.path = path
        self.base = base
        self.depth = depth
        self.tree = tree
        self.imports = _imports(tree)
        self.made: dict[str, Candidate] = {}
        self.classes: dict[str, tuple[str, Kind]] = {}
        self.mounted: set[str] = set()

    def candidates(self) -> Iterator[Candidate]:
        """Everything found, without parts mounted in another application."""
        for node in _top_level(self.tree.body):
            self._visit(node)
        for each in ast.walk(self.tree):
            if (
                isinstance(each, ast.Call)
                and isinstance(each.func, ast.Attribute)
                and each.func.attr in ("mount", "Mount")
            ):
                self.mounted |= _names_in(each)
        yield from (each for each in self.made.values() if each.name not in self.mounted)

    def _visit(self, node: ast.stmt) -> None:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                self._imported(alias.asname or alias.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    self._bind(target.id, node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            self._bind(node.target.id, node.value)
        elif isinstance(node, ast.ClassDef):
            self._class(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._function(node)

    def _add(self, name: str, found: tuple[str, Kind]) -> None:
        self.made[name] = Candidate(name, found[1], found[0], (self.path, name))

    def _imported(self, name: str) -> None:
        if name in NAMES or _FACTORY_NAME.fullmatch(name):
            found = self._follow(name)
            if found is not None:
                self.made[name] = found._replace(name=name, imported=True)

    def _bind(self, name: str, value: ast.expr) -> None:
        if isinstance(value, ast.Name) and value.id in self.made:
            self.made[name] = self.made[value.id]._replace(name=name)
        elif isinstance(value, ast.Call):
            found = self._call(value, usual=name in NAMES)
            if found is not None:
                self._add(name, found)
        elif name in self.made:
            del self.made[name]

    def _call(self, call: ast.Call, *, usual: bool) -> tuple[str, Kind] | None:
        """What the result of a call is; `usual`: bound to a name applications usually have."""
        name = _dotted(call.func)
        known = self._maker(name) or self.classes.get(name)
        if known is not None:
            return known
        if isinstance(call.func, ast.Attribute) and call.func.attr in _GIVES_ASGI and usual:
            return "ASGI", Kind.ASGI
        own = self.made.get(name) or (self._follow(name) if "." not in name else None)
        if own is not None and own.kind is Kind.FACTORY:
            return own.framework, _result_of(own)
        if not usual:
            return None
        wrapped = [self.made[each] for each in sorted(_names_in(call)) if each in self.made]
        inner = next((each for each in wrapped if each.kind in (Kind.ASGI, Kind.POSSIBLE)), None)
        if inner is not None:
            return inner.framework, Kind.ASGI
        return ("", Kind.POSSIBLE) if self._is_local(name) else None

    def _maker(self, name: str) -> tuple[str, Kind] | None:
        origin = self._origin(name)
        module, _, last = origin.rpartition(".")
        return _MAKERS.get((module, last)) or _MAKERS.get((origin.partition(".")[0], last))

    def _origin(self, name: str) -> str:
        first, dot, rest = name.partition(".")
        return self.imports.get(first, first) + dot + rest

    def _is_local(self, name: str) -> bool:
        origin = self.imports.get(name.partition(".")[0])
        if origin is None:
            bound = (each for each in self.tree.body if isinstance(each, _DEFINITIONS))
            return any(each.name == name for each in bound)
        return bool(self._file_of(origin.rpartition(".")[0] or origin))

    def _follow(self, name: str) -> Candidate | None:
        """The same name in the local file that it is imported from."""
        origin = self.imports.get(name, "")
        module, _, last = origin.rpartition(".")
        path = self._file_of(module) if module.strip(".") or origin.startswith(".") else ""
        if not path.endswith(".py") or path == self.path or self.depth <= 0:
            return None
        try:
            found = _scan(path, self.base, self.depth - 1)
        except (SyntaxError, ValueError, OSError):
            return None
        return next((each for each in found if each.name == last), None)

    def _file_of(self, module: str) -> str:
        bare = module.lstrip(".")
        dots = len(module) - len(bare)
        root = self.base if not dots else self.path
        for _ in range(dots):
            root = os.path.dirname(root)
        if bare:
            beside = os.path.dirname(self.path)
            return exists(bare, root) or ("" if dots else exists(bare, beside))
        package = os.path.join(root, "__init__.py")
        return package if dots and os.path.isfile(package) else ""

    def _class(self, node: ast.ClassDef) -> None:
        for parent in node.bases:
            name = _dotted(parent)
            found = self._maker(name) or self.classes.get(name)
            if found is not None:
                self.classes[node.name] = found
                return
        calls = [each for each in node.body if isinstance(each, _FUNCTIONS)]
        shapes = {each.name: _parameters(each)[1:] for each in calls}
        if shapes.get("__call__") == ["scope", "receive", "send"]:
            self.classes[node.name] = ("ASGI", Kind.ASGI)
        elif shapes.get("__call__") == ["environ", "start_response"]:
            self.classes[node.name] = ("WSGI", Kind.WSGI)
        elif shapes.get("__init__") == ["scope"] and "__call__" in shapes:
            self._add(node.name, ("ASGI", Kind.ASGI))  # ASGI 2: the class is the application

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        names = _parameters(node)
        if names == ["scope", "receive", "send"]:
            self._add(node.name, ("ASGI", Kind.ASGI))
        elif names == ["environ", "start_response"]:
            self._add(node.name, ("WSGI", Kind.WSGI))
        elif names == ["scope"] and isinstance(node, ast.FunctionDef):
            self._add(node.name, ("ASGI", Kind.ASGI))
        elif isinstance(node, ast.FunctionDef) and not _needed(node):
            self._factory(node)

    def _factory(self, node: ast.FunctionDef) -> None:
        annotation = _dotted(node.returns) if node.returns is not None else ""
        returns = any(isinstance(each, ast.Return) and each.value for each in ast.walk(node))
        found = self._maker(annotation) or self.classes.get(annotation)
        usual = _FACTORY_NAME.fullmatch(node.name) is not None
        if found is None and usual and returns:
            calls = (each for each in ast.walk(node) if isinstance(each, ast.Call))
            made = (self._maker(_dotted(each.func)) for each in calls)
            found = next((each for each in made if each is not None), None)
        if found is not None and returns:
            self._add(node.name, (found[0], Kind.FACTORY))


def _result_of(factory: Candidate) -> Kind:
    kinds = {kind for name, kind in _MAKERS.values() if name == factory.framework}
    return Kind.WSGI if kinds == {Kind.WSGI} else Kind.ASGI


class _Runs:
    """Looks for a server started by statements that an import executes."""

    def __init__(self, tree: ast.Module) -> None:
        self.imports = _imports(tree)
        self.functions = {
            each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)
        }
        self.servers: set[str] = set()  # names bound to something with a blocking run()

    def find(self, body: list[ast.stmt], *, depth: int = 2) -> tuple[str, int]:
        """The first such call among statements not under a condition."""
        for node in _unconditional(body):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                self._bind(node)
            value = getattr(node, "value", None)
            if not isinstance(node, ast.Expr | ast.Assign | ast.Return):
                continue
            if not isinstance(value, ast.Call):
                continue
            name = _dotted(value.func)
            if self._blocks(value):
                return name or ast.unparse(value.func), value.lineno
            if name in self.functions and depth > 0:
                inner, _ = self.find(self.functions[name].body, depth=depth - 1)
                if inner:
                    return name, value.lineno
        return "", 0

    def _origin(self, name: str) -> str:
        first, dot, rest = name.partition(".")
        return self.imports.get(first, first) + dot + rest

    def _bind(self, node: ast.Assign) -> None:
        assert isinstance(node.value, ast.Call)
        origin = self._origin(_dotted(node.value.func))
        made = (origin.partition(".")[0], origin.rpartition(".")[2])
        if origin in _SERVER_OBJECTS or made in _BLOCKING_APPLICATIONS:
            self.servers |= {each.id for each in node.targets if isinstance(each, ast.Name)}

    def _blocks(self, call: ast.Call) -> bool:
        if self._origin(_dotted(call.func)) in _RUNNERS:
            return True
        if not isinstance(call.func, ast.Attribute):
            return False
        owner = call.func.value
        if call.func.attr not in ("run", "serve", "serve_forever"):
            return False
        if isinstance(owner, ast.Call):
            return self._origin(_dotted(owner.func)) in _SERVER_OBJECTS
        return isinstance(owner, ast.Name) and owner.id in self.servers


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _imports(tree: ast.Module) -> dict[str, str]:
    """Local names -> where they come from; leading dots stand for a relative import."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            joint = "" if module.endswith(".") or not module else "."
            for alias in node.names:
                found[alias.asname or alias.name] = f"{module}{joint}{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                found[name] = alias.name if alias.asname else name
    return found


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements an import may execute: those below `if`, `try` and `with` too, not main's."""
    for node in body:
        if isinstance(node, ast.If):
            if not _is_main_guard(node.test):
                yield from _top_level(node.body)
            yield from _top_level(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _top_level(node.body)
            for handler in node.handlers:
                yield from _top_level(handler.body)
            yield from _top_level([*node.orelse, *node.finalbody])
        elif isinstance(node, ast.With):
            yield from _top_level(node.body)
        else:
            yield node


def _unconditional(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.Try | ast.With):
            yield from _unconditional(node.body)
        else:
            yield node


def _is_main_guard(test: ast.expr) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "__name__" for each in ast.walk(test))


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [each.arg.lstrip("_") for each in (*node.args.posonlyargs, *node.args.args)]


def _needed(node: ast.FunctionDef) -> int:
    positional = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
    return positional + sum(default is None for default in node.args.kw_defaults)


def _dotted(node: ast.expr) -> str:
    """`a.b.c` as text; "" for anything that is not a plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _names_in(call: ast.Call) -> set[str]:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return {value.id for value in values if isinstance(value, ast.Name)}
