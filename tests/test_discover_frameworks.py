"""Real applications of real frameworks, found and recognised."""

from __future__ import annotations

import importlib.util

import pytest
from tests.support.projects import each_in_subprocess, in_subprocess, write


def needs(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize(
    ("module", "framework", "source"),
    [
        ("fastapi", "FastAPI", "from fastapi import FastAPI\napp = FastAPI()"),
        (
            "starlette",
            "Starlette",
            "from starlette.applications import Starlette\napp = Starlette()",
        ),
        ("litestar", "Litestar", "from litestar import Litestar\napp = Litestar([])"),
        ("quart", "Quart", "from quart import Quart\napp = Quart(__name__)"),
        (
            "fastapi",
            "FastAPI",
            "from fastapi import FastAPI\nfrom starlette.middleware.gzip import GZipMiddleware\n"
            "inner = FastAPI()\nclass Own:\n    def __init__(self, app): self.app = app\n"
            "    async def __call__(self, scope, receive, send): ...\napp = Own(inner)",
        ),
        (
            "fastapi",
            "FastAPI",
            "from fastapi import FastAPI\ndef create_app():\n    return FastAPI()\n",
        ),
    ],
)
def test_beside_main_py(tmp_path, module, framework, source):
    needs(module)
    write(tmp_path, {"main.py": source})
    made = "create_app" in source
    for answer in each_in_subprocess(tmp_path, None, "main.py", factory=made):
        assert answer.get("framework") == framework, answer
        assert answer["interface"] == "asgi3"
        assert answer["origin"] == ("main:create_app()" if made else "main:app")
        assert answer["notes"]


def test_parts_of_a_framework_do_not_count_as_applications(tmp_path):
    needs("fastapi")
    source = """
        from fastapi import APIRouter, Depends, FastAPI
        router = APIRouter()
        needs = Depends(lambda: 1)
        shop = FastAPI()
        shop.include_router(router)
    """
    write(tmp_path, {"main.py": source})
    answer = in_subprocess(tmp_path, "main")
    assert answer["origin"] == "main:shop"


def test_flask_says_how_to_wrap_it(tmp_path):
    needs("flask")
    write(tmp_path, {"app.py": "from flask import Flask\napp = Flask(__name__)"})
    for answer in each_in_subprocess(tmp_path, None, "app:app", "app"):
        assert answer["message"].startswith("app:app is a Flask application, written to WSGI")
        assert "asgi = WsgiToAsgi(app)" in answer["hint"]
        assert "tidegate app:asgi" in answer["hint"]


def test_flask_wrapped_as_told(tmp_path):
    needs("flask")
    needs("asgiref")
    source = """
        from flask import Flask
        from asgiref.wsgi import WsgiToAsgi
        app = Flask(__name__)
        asgi = WsgiToAsgi(app)
    """
    write(tmp_path, {"app.py": source})
    for answer in each_in_subprocess(tmp_path, None, "app", "app:asgi"):
        assert (answer.get("origin"), answer.get("interface")) == ("app:asgi", "asgi3"), answer


def test_aiohttp_is_told_apart(tmp_path):
    needs("aiohttp")
    write(tmp_path, {"main.py": "from aiohttp import web\napp = web.Application()"})
    answer = in_subprocess(tmp_path, "main:app")
    assert "an aiohttp application" in answer["message"]


def test_a_main_that_is_run_under_a_guard(tmp_path):
    needs("fastapi")
    source = """
        from fastapi import FastAPI
        app = FastAPI()
        if __name__ == "__main__":
            import uvicorn
            uvicorn.run(app)
    """
    write(tmp_path, {"main.py": source})
    assert in_subprocess(tmp_path)["origin"] == "main:app"


def test_a_missing_framework_is_the_error_that_matters(tmp_path):
    write(tmp_path, {"main.py": "from fastapi_is_gone import FastAPI\napp = FastAPI()"})
    answer = in_subprocess(tmp_path, "main.py")
    assert "from fastapi_is_gone import FastAPI" in answer["message"]
    assert len(answer["message"].splitlines()) <= 6
    assert "pip install fastapi_is_gone" in answer["hint"]
