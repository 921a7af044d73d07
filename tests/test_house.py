"""The rules of the house, held: sizes of files and functions, and who may import whom.

The layers are those of docs/architecture.md. A room may always import itself; everything else it
takes is listed here, and imports inside functions or under TYPE_CHECKING count like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
FILES = sorted((SOURCE / "tidegate").rglob("*.py"))

FILE_LINES = 500
FUNCTION_LINES = 40
POSITIONAL = 5

LEAVES = {"config", "errors", "types", "version", "observe.counters"}

# room -> what it may import beside itself. The longest name that fits a module is its room.
ALLOWED = {
    "__init__": {"launch", *LEAVES},
    "__main__": {"cli"},
    **dict.fromkeys(LEAVES, LEAVES),
    "protocol": {"errors", "types"},
    "asgi": {"protocol.events", "protocol.engine", "protocol.websocket", *LEAVES},
    "net": LEAVES,
    "observe": LEAVES,
    "discover": LEAVES,
    "serving": {"net", "protocol", "asgi", "observe", *LEAVES},
    "process": {
        "serving.worker",
        "serving.drain",
        "net.listener",
        "net.sockets",
        "net.tls_files",
        "observe",
        *LEAVES,
    },
    "hosting": {
        "serving.worker",
        "serving.health",
        "net.listener",
        "net.sockets",
        "discover",
        "observe",
        *LEAVES,
    },
    "supervised": {
        "hosting",
        "process",
        "serving.worker",
        "asgi.lifespan",
        "net.listener",
        "net.sockets",
        "discover",
        "observe",
        *LEAVES,
    },
    "launch": {
        "hosting",
        "supervised",
        "serving.worker",
        "process",
        "net.listener",
        "net.sockets",
        "discover",
        *LEAVES,
    },
    "gunicorn": {
        "hosting",
        "process.board",
        "serving.worker",
        "net.listener",
        "discover.shape",
        "observe",
        *LEAVES,
    },
    "cli": {"__init__", "launch", "discover", *LEAVES},
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    """`net/poller.py` -> `net.poller`; a package's own file has the package's name."""
    parts = path.relative_to(SOURCE / "tidegate").with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Every module of Tidegate that is imported anywhere in a file, without `tidegate.`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _ours(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*parents, *filter(None, [node.module])))
            for alias in node.names:
                yield from _ours(f"{base}.{alias.name}" if is_module(base, alias.name) else base)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield from _ours(argument.value)


def is_module(base: str, name: str) -> bool:
    place = SOURCE.joinpath(*base.split("."), name)
    return place.with_suffix(".py").exists() or (place.is_dir() and base.startswith("tidegate"))


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", None) or getattr(node.func, "id", "")


def _ours(name: str) -> Iterator[str]:
    if name == "tidegate":
        yield "__init__"
    elif name.startswith("tidegate."):
        yield name.removeprefix("tidegate.")


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def trespasses(module: str, taken: set[str]) -> set[str]:
    """Which of the imports a module may not make."""
    rooms = [room for room in ALLOWED if within(module, room)]
    if not rooms:
        return {f"{module} is in no room of ALLOWED: say in tests/test_house.py what it may take"}
    room = max(rooms, key=len)
    open_to_it = {room, *ALLOWED[room]}
    return {each for each in taken if not any(within(each, door) for door in open_to_it)}


def body_lines(function: Function) -> int:
    """The lines of a function from its `def` on, its docstring not counted."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def positional(function: Function) -> int:
    """How many parameters can be given by position, `self` and `cls` not counted."""
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
class TestHouse:
    def test_file_is_short(self, path: Path) -> None:
        lines = len(path.read_text().splitlines())
        assert lines <= FILE_LINES, f"{path.name} has {lines} lines: give part of it a room"

    def test_functions_are_short(self, path: Path) -> None:
        long = {
            each.name: body_lines(each)
            for each in functions(ast.parse(path.read_text()))
            if body_lines(each) > FUNCTION_LINES
        }
        assert not long, f"longer than {FUNCTION_LINES} lines"

    def test_few_positional_parameters(self, path: Path) -> None:
        many = {
            each.name: positional(each)
            for each in functions(ast.parse(path.read_text()))
            if positional(each) > POSITIONAL
        }
        assert not many, f"more than {POSITIONAL} positional parameters"

    def test_imports_keep_to_the_layers(self, path: Path) -> None:
        module = module_name(path)
        package = ("tidegate", *path.relative_to(SOURCE / "tidegate").parent.parts)
        assert not trespasses(module, set(imported(ast.parse(path.read_text()), package)))


class TestTheJudge:
    """The measures themselves: a judge that sees nothing would find every house in order."""

    def test_there_is_a_house(self) -> None:
        assert len(FILES) > 10

    def test_every_form_of_import_is_seen(self) -> None:
        text = """
import tidegate.net.poller
from tidegate import errors
from ..protocol.events import Request
if TYPE_CHECKING:
    from tidegate.serving.worker import Worker
def late():
    from . import exchange
    import_module("tidegate.launch")
    import asyncio
"""
        found = set(imported(ast.parse(text), ("tidegate", "asgi")))
        assert found == {
            "net.poller",
            "errors",
            "protocol.events",
            "serving.worker",
            "asgi.exchange" if is_module("tidegate.asgi", "exchange") else "asgi",
            "launch",
        }

    @pytest.mark.parametrize(
        ("module", "taken", "wrong"),
        [
            ("protocol.http1.reader", {"errors", "protocol.events"}, set()),
            ("protocol.http1.reader", {"config"}, {"config"}),
            ("asgi.exchange", {"protocol.engine", "observe.counters"}, set()),
            ("asgi.exchange", {"protocol.http1", "net.poller"}, {"protocol.http1", "net.poller"}),
            ("observe.counters", {"observe.access_log"}, {"observe.access_log"}),
            ("net.poller", {"serving.worker"}, {"serving.worker"}),
            ("process.signals", {"serving.worker", "serving.tcp"}, {"serving.tcp"}),
            ("errors", {"__init__"}, {"__init__"}),
        ],
    )
    def test_layers(self, module: str, taken: set[str], wrong: set[str]) -> None:
        assert trespasses(module, taken) == wrong

    def test_a_room_nobody_listed_is_refused(self) -> None:
        assert trespasses("attic.trunk", set())

    def test_sizes(self) -> None:
        text = (
            'class A:\n  def f(self, a, b, /, c, *, d):\n    """One.\n\n    Two."""\n    return a\n'
        )
        (function,) = functions(ast.parse(text))
        assert (body_lines(function), positional(function)) == (2, 3)
