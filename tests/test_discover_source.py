"""What a file holds, told without importing it."""

from __future__ import annotations

import textwrap

import pytest

from tidegate.discover.source import Kind, scan, server_call


def found(tmp_path, source, **files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(textwrap.dedent(text))
    main = tmp_path / "main.py"
    main.write_text(textwrap.dedent(source))
    return {each.name: (each.kind, each.framework) for each in scan(str(main), str(tmp_path))}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from fastapi import FastAPI\napp = FastAPI()", ("app", Kind.ASGI, "FastAPI")),
        ("import fastapi as f\nweb: f.FastAPI = f.FastAPI()", ("web", Kind.ASGI, "FastAPI")),
        (
            "from starlette.applications import Starlette as S\napp = S()",
            ("app", Kind.ASGI, "Starlette"),
        ),
        ("import litestar\napp = litestar.Litestar()", ("app", Kind.ASGI, "Litestar")),
        ("from quart import Quart\nx = Quart(__name__)", ("x", Kind.ASGI, "Quart")),
        ("from flask import Flask\napp = Flask(__name__)", ("app", Kind.WSGI, "Flask")),
        ("async def app(scope, receive, send): ...", ("app", Kind.ASGI, "ASGI")),
        ("def app(environ, start_response): ...", ("app", Kind.WSGI, "WSGI")),
        ("def app(scope): ...", ("app", Kind.ASGI, "ASGI")),
        (
            "try:\n    from fastapi import FastAPI\nfinally:\n    pass\nif 1:\n    app = FastAPI()",
            ("app", Kind.ASGI, "FastAPI"),
        ),
        (
            "from fastapi import FastAPI\nclass Shop(FastAPI): ...\nshop = Shop()",
            ("shop", Kind.ASGI, "FastAPI"),
        ),
        (
            "class A:\n    async def __call__(self, scope, receive, send): ...\nroot = A()",
            ("root", Kind.ASGI, "ASGI"),
        ),
        (
            "class A:\n    def __init__(self, scope): ...\n    async def __call__(self, r, s): ...",
            ("A", Kind.ASGI, "ASGI"),
        ),
        (
            "from fastapi import FastAPI\ndef create_app():\n    app = FastAPI()\n    return app",
            ("create_app", Kind.FACTORY, "FastAPI"),
        ),
        (
            "import fastapi\ndef web() -> fastapi.FastAPI:\n    return build()",
            ("web", Kind.FACTORY, "FastAPI"),
        ),
        ("def build(): ...\napp = build()", ("app", Kind.POSSIBLE, "")),
    ],
)
def test_one_candidate(tmp_path, source, expected):
    name, kind, framework = expected
    assert found(tmp_path, source) == {name: (kind, framework)}


@pytest.mark.parametrize(
    "source",
    [
        "import typer\napp = typer.Typer()",
        "from celery import Celery\napp = Celery()",
        "app = None",
        "app = open('x')",
        "from fastapi import FastAPI\nif __name__ == '__main__':\n    app = FastAPI()",
        "from fastapi import APIRouter\nrouter = APIRouter()",
        "def create_app(config):\n    return config",
        "async def handler(request): ...",
        "from fastapi import FastAPI\napp = FastAPI()\napp = 1",
    ],
)
def test_nothing_to_import(tmp_path, source):
    assert found(tmp_path, source) == {}


def test_wrapped_in_middleware_it_keeps_its_framework(tmp_path):
    source = """
        from fastapi import FastAPI
        from somewhere import Middleware
        inner = FastAPI()
        app = Middleware(inner, on=True)
        handler = Adapter(inner)
    """
    assert found(tmp_path, source) == {
        "inner": (Kind.ASGI, "FastAPI"),
        "app": (Kind.ASGI, "FastAPI"),
    }


def test_flask_behind_an_adapter_is_asgi(tmp_path):
    source = """
        from flask import Flask
        from asgiref.wsgi import WsgiToAsgi
        app = Flask(__name__)
        asgi = WsgiToAsgi(app)
    """
    assert found(tmp_path, source)["asgi"][0] is Kind.ASGI


def test_a_mounted_application_is_not_offered(tmp_path):
    source = """
        from fastapi import FastAPI
        public, admin = FastAPI(), FastAPI()
        root = FastAPI()
        inner = FastAPI()
        root.mount("/inner", inner)
    """
    assert list(found(tmp_path, source)) == ["root"]


def test_an_imported_name_is_followed_to_the_file_that_makes_it(tmp_path):
    inner = "from .deep import app"
    deep = "from quart import Quart\napp = Quart(__name__)"
    got = found(tmp_path, "from pkg import app", **{"pkg/__init__": inner, "pkg/deep": deep})
    assert got == {"app": (Kind.ASGI, "Quart")}


def test_an_imported_factory_called(tmp_path):
    factory = "from flask import Flask\ndef create_app():\n    return Flask(__name__)"
    got = found(tmp_path, "from factory import create_app\napp = create_app()", factory=factory)
    assert got["app"] == (Kind.WSGI, "Flask")


def test_a_second_name_for_the_same(tmp_path):
    got = found(tmp_path, "from quart import Quart\nweb = Quart(__name__)\nsite = web")
    assert got["site"] == got["web"] == (Kind.ASGI, "Quart")


def test_imports_in_a_circle_end(tmp_path):
    got = found(tmp_path, "from other import app", other="from main import app")
    assert got == {}


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("import uvicorn\nuvicorn.run('main:app')", ("uvicorn.run", 2)),
        ("from uvicorn import run as go\n\ngo('main:app')", ("go", 3)),
        ("import tidegate\ntry:\n    tidegate.run('m:a')\nfinally:\n    pass", ("tidegate.run", 3)),
        (
            "import uvicorn\ndef main():\n    x = 1\n    uvicorn.run('m:a')\nmain()",
            ("main", 5),
        ),
        ("from flask import Flask\napp = Flask(__name__)\napp.run(debug=True)", ("app.run", 3)),
        ("import uvicorn\ns = uvicorn.Server(c)\ns.run()", ("s.run", 3)),
        (
            "from django.core.management import execute_from_command_line as e\ne([])",
            ("e", 2),
        ),
        ("import uvicorn\nif __name__ == '__main__':\n    uvicorn.run('m:a')", ("", 0)),
        ("import uvicorn, os\nif os.environ.get('X'):\n    uvicorn.run('m:a')", ("", 0)),
        ("import subprocess\nsubprocess.run(['ls'])", ("", 0)),
        ("import asyncio\nasyncio.run(prepare())", ("", 0)),
        ("syntax error here", ("", 0)),
    ],
)
def test_a_server_started_at_import(source, call):
    assert server_call(source.encode()) == call
