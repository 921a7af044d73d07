"""No target: the files are read, one is chosen, the others are named."""

from __future__ import annotations

import sys

import pytest
from tests.support.projects import clean_imports, write

from tidegate.discover import discover
from tidegate.discover.search import search
from tidegate.errors import ConfigurationError

FASTAPI = "from fastapi import FastAPI\n{} = FastAPI()\n"
APP = FASTAPI.format("app")
FACTORY = "from fastapi import FastAPI\ndef create_app():\n    return FastAPI()\n"
FLASK = "from flask import Flask\napp = Flask(__name__)\n"


def chosen(root):
    choice = search(str(root))
    assert choice.target is not None
    return choice.target.text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"main.py": APP}, "main:app"),
        ({"app.py": APP}, "app:app"),
        ({"application.py": FASTAPI.format("application")}, "application:application"),
        ({"server.py": FASTAPI.format("web")}, "server:web"),
        ({"asgi.py": APP, "main.py": APP}, "asgi:app"),
        ({"main.py": APP, "app.py": APP}, "main:app"),
        ({"main.py": "from app import app", "app.py": APP}, "app:app"),
        ({"asgi.py": "from app import app", "app.py": APP}, "asgi:app"),
        ({"main.py": FASTAPI.format("admin") + "app = FastAPI()"}, "main:app"),
        ({"app/__init__.py": "", "app/main.py": APP}, "app.main:app"),
        ({"app/main.py": APP}, "main:app"),
        ({"app/__init__.py": "from .main import app", "app/main.py": APP}, "app.main:app"),
        ({"src/main.py": APP}, "main:app"),
        ({"src/shop/__init__.py": "", "src/shop/main.py": APP}, "shop.main:app"),
        ({"shop/__init__.py": APP}, "shop:app"),
        ({"shop/web.py": APP}, "web:app"),
        ({"hello.py": APP}, "hello:app"),
        ({"main.py": FACTORY}, "main:create_app()"),
        ({"main.py": FACTORY + "app = create_app()"}, "main:app"),
        ({"main.py": FACTORY, "app.py": APP}, "app:app"),
        ({"app.py": FLASK, "server.py": APP}, "server:app"),
        ({"app.py": FLASK}, "app:app"),
        ({"main.py": "import typer\napp = typer.Typer()", "app.py": APP}, "app:app"),
        ({"main.py": APP, "venv/pyvenv.cfg": "", "venv/main.py": APP}, "main:app"),
        ({"main.py": APP, "tests/app.py": APP, "other.py": APP}, "main:app"),
        ({"__init__.py": "", "main.py": APP}, "main:app"),
    ],
)
def test_which_one_is_taken(tmp_path, files, expected):
    assert chosen(write(tmp_path, files)) == expected


def test_inside_a_package_that_imports_relatively(tmp_path):
    inside = {"pkg/__init__.py": "", "pkg/main.py": "from .x import y\n" + APP}
    write(tmp_path, inside)
    choice = search(str(tmp_path / "pkg"))
    assert choice.target is not None
    assert choice.target.text == "pkg.main:app"
    assert choice.target.paths == (str(tmp_path), str(tmp_path / "pkg"))


def test_the_notes_say_what_was_found_and_passed_over(tmp_path):
    files = {"main.py": APP, "app.py": FLASK, "server.py": "def broken(:\n"}
    notes = search(str(write(tmp_path, files))).notes
    assert notes[0] == "Found main:app, a FastAPI application (main.py)."
    assert notes[1] == "Passed over: app:app, a Flask application."
    assert "Passed over server.py: SyntaxError, line 1" in notes[2]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("async def app(scope, receive, send): ...\n", "Found main:app, an ASGI application"),
        ("from esmerald import Esmerald\napp = Esmerald()\n", "main:app, an Esmerald application"),
        ("from quart import Quart\napp = Quart(__name__)\n", "main:app, a Quart application"),
    ],
)
def test_the_note_speaks_english(tmp_path, source, said):
    assert said in search(str(write(tmp_path, {"main.py": source}))).notes[0]


def test_other_files_are_not_even_read_where_a_usual_one_holds_an_application(tmp_path):
    files = {"main.py": APP, "other.py": APP, "broken.py": "def broken(:\n"}
    assert len(search(str(write(tmp_path, files))).notes) == 1


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"main.py": FASTAPI.format("one") + "two = FastAPI()"}, ("main:one", "main:two")),
        ({"a/main.py": APP, "b/main.py": APP, "a/__init__.py": "", "b/__init__.py": ""},
         ("a.main:app", "b.main:app")),
        ({"first.py": APP, "second.py": APP}, ("first:app", "second:app")),
    ],
)  # fmt: skip
def test_two_that_are_equally_likely(tmp_path, files, names):
    with pytest.raises(ConfigurationError) as caught:
        search(str(write(tmp_path, files)))
    assert all(name in caught.value.message for name in names)
    assert f"`tidegate {names[0]}`" in caught.value.hint


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "tidegate main:app"),
        ({"main.py": "print('hello')"}, "tidegate main:app"),
        ({"backend/manage.py": "import django"}, "`tidegate backend/`"),
        ({"main.py": "x = (\n"}, "`tidegate main.py`"),
        ({"manage.py": "print('not that one')"}, "tidegate main:app"),
    ],
)
def test_nothing_found(tmp_path, files, words):
    with pytest.raises(ConfigurationError) as caught:
        search(str(write(tmp_path, files)))
    assert "No application found" in caught.value.message
    assert words in caught.value.hint


def test_below_a_django_project(tmp_path):
    write(tmp_path, {"manage.py": "import django", "static/x.css": ""})
    with pytest.raises(ConfigurationError) as caught:
        search(str(tmp_path / "static"))
    assert str(tmp_path) in caught.value.hint


def test_files_without_an_application_are_not_imported(tmp_path, monkeypatch):
    marker = "import pathlib; pathlib.Path('imported').touch()\n"
    app = "async def app(scope, receive, send): ...\n"
    write(tmp_path, {"main.py": marker, "app.py": app, "helper.py": marker})
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with clean_imports():
        found = discover(None, cwd=tmp_path)
    assert found.origin == "app:app"
    assert not (tmp_path / "imported").exists()


def test_a_factory_is_called_when_it_is_all_there_is(tmp_path):
    source = (
        "async def app(scope, receive, send): ...\ndef create_app() -> 'object':\n    return app"
    )
    write(
        tmp_path,
        {
            "tg_made.py": source.replace("app(scope", "_app(scope").replace(
                "return app", "return _app"
            )
        },
    )
    with clean_imports():
        found = discover("tg_made", factory=True, cwd=tmp_path)
    assert (found.origin, found.interface) == ("tg_made:create_app()", "asgi3")


def test_a_directory_as_target(tmp_path):
    write(tmp_path, {"code/tg_dir.py": "async def app(scope, receive, send): ...\n"})
    for target in ("code/", "./code/."):
        with clean_imports():
            assert discover(target, cwd=tmp_path).origin == "tg_dir:app"


def test_only_factories_with_the_option(tmp_path):
    choice = search(str(write(tmp_path, {"main.py": APP, "app.py": FACTORY})), factory=True)
    assert choice.target is not None
    assert choice.target.text == "app:create_app()"
