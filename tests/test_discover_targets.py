"""A target that was named: taken, or an error that says what to type instead."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.projects import clean_imports, write

from tidegate.discover import Found, discover, importing_application
from tidegate.errors import ConfigurationError

APP = "async def app(scope, receive, send): ...\n"
SEVERAL = """
    async def application(scope, receive, send): ...
    async def second(scope, receive, send): ...
    def legacy(environ, start_response): ...
    class Nest:
        async def app(self, scope, receive, send): ...
        @property
        def broken(self):
            return {}.nothing
    nest = Nest()
    def make():
        return application
    def create_app(config=None):
        return application
    def with_arguments(name, *, port): ...
    def nothing(): ...
    def fails():
        raise ValueError("no database")
    async def later(): ...
    text = "hello"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    root = tmp_path.resolve()
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with clean_imports():
        yield root


def refused(target, **options) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        discover(target, **options)
    return caught.value


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("tg_main:app", "tg_main:app"),
        ("tg_main", "tg_main:app"),
        ("tg_main.py", "tg_main:app"),
        ("./tg_main.py:app", "tg_main:app"),
        ("tg_pkg.web:app", "tg_pkg.web:app"),
        ("tg_pkg/web.py", "tg_pkg.web:app"),
        ("tg_loose/tg_inner.py:app", "tg_inner:app"),
        ("tg_pkg", "tg_pkg:app"),
        ("tg_pkg/__init__.py", "tg_pkg:app"),
        ("  tg_main:app ", "tg_main:app"),
    ],
)
def test_forms_of_a_target(here, target, origin):
    write(
        here,
        {
            "tg_main.py": APP,
            "tg_pkg/__init__.py": "from .web import app",
            "tg_pkg/web.py": APP,
            "tg_loose/tg_inner.py": "import tg_beside\n" + APP,
            "tg_loose/tg_beside.py": "import tg_main",
        },
    )
    found = discover(target)
    assert (found.origin, found.interface, found.framework) == (origin, "asgi3", "ASGI")
    assert found.application.__name__ == "app"


def test_an_absolute_path(here):
    write(here, {"elsewhere/tg_abs.py": APP})
    assert discover(str(here / "elsewhere" / "tg_abs.py")).origin == "tg_abs:app"


def test_a_module_without_attribute_says_what_was_taken_and_passed_over(here):
    write(here, {"tg_several.py": SEVERAL})
    found = discover("tg_several")
    assert found.origin == "tg_several:application"
    assert "Took `application`" in found.notes[0]
    assert "second" in found.notes[1] and "legacy" in found.notes[1]


def test_a_module_with_several_and_no_usual_name_is_unclear(here):
    write(here, {"tg_two.py": APP.replace("app", "one") + APP.replace("app", "two")})
    error = refused("tg_two")
    assert "one, two" in error.message
    assert "tg_two:one" in error.hint


def test_attributes_with_dots(here):
    write(here, {"tg_several.py": SEVERAL})
    assert discover("tg_several:nest.app").origin == "tg_several:nest.app"
    assert "has no attribute 'ap'" in refused("tg_several:nest.ap").message
    assert "Did you mean app" in refused("tg_several:nest.ap").hint


def test_a_property_that_fails_is_not_called_missing(here):
    write(here, {"tg_several.py": SEVERAL})
    message = refused("tg_several:nest.broken").message
    assert "return {}.nothing" in message


def test_app_dir_goes_first_on_the_path(here):
    write(here, {"tg_main.py": "app = 1", "code/tg_main.py": APP})
    assert discover("tg_main:app", app_dir="code").interface == "asgi3"
    assert sys.path[0] == str(here / "code")


def test_app_dir_that_is_not_there(here):
    assert "there is no such directory" in refused("m:app", app_dir="nowhere").message


def test_cwd_stands_for_the_current_directory(here):
    write(here, {"other/tg_main.py": APP})
    assert discover("tg_main:app", cwd=Path(here / "other")).origin == "tg_main:app"


def test_interface_asgi2_and_forced(here):
    write(here, {"tg_old.py": "def app(scope): ...\nasync def odd(one): ..."})
    assert discover("tg_old:app").interface == "asgi2"
    assert "--interface asgi3" in refused("tg_old:odd").hint
    assert discover("tg_old:odd", interface="asgi3").interface == "asgi3"
    assert "this release serves ASGI" in refused("tg_old:app", interface="wsgi").message


def test_objects_are_inspected_only():
    async def app(scope, receive, send): ...

    def factory():
        return app

    found = discover(app)
    assert found == Found(app, "asgi3", found.origin, "ASGI", ())
    assert discover(factory, factory=True).application is app
    assert "looks like a factory" in refused(factory).message
    assert "int object" in refused(3).message


class TestFactories:
    @pytest.fixture(autouse=True)
    def files(self, here):
        write(here, {"tg_several.py": SEVERAL})

    def test_called(self):
        found = discover("tg_several:make", factory=True)
        assert (found.origin, found.application.__name__) == ("tg_several:make()", "application")

    def test_written_with_parentheses(self):
        assert discover("tg_several:make()").application.__name__ == "application"

    def test_found_in_a_module(self):
        assert discover("tg_several", factory=True).origin == "tg_several:create_app()"

    @pytest.mark.parametrize("name", ["make", "create_app"])
    def test_not_called_without_the_option(self, name):
        assert f"`tidegate --factory tg_several:{name}`" in refused(f"tg_several:{name}").hint

    def test_that_needs_arguments(self):
        error = refused("tg_several:with_arguments", factory=True)
        assert "it needs name, port" in error.message
        assert "with_arguments(name=..., port=...)" in error.hint

    def test_that_returns_nothing(self):
        assert "return app" in refused("tg_several:nothing", factory=True).hint

    def test_that_is_async(self):
        assert "async function" in refused("tg_several:later", factory=True).message

    def test_that_is_an_application(self):
        assert refused("tg_several:application", factory=True).hint == "Leave out --factory."

    def test_that_is_a_string(self):
        assert "cannot be called" in refused("tg_several:text", factory=True).message

    def test_that_raises(self):
        error = refused("tg_several:fails", factory=True)
        assert error.message.endswith("ValueError: no database")
        assert 'raise ValueError("no database")' in error.message
        assert "loading.py" not in error.message


class TestNames:
    @pytest.fixture(autouse=True)
    def files(self, here):
        write(
            here,
            {
                "tg_main.py": APP + "value = 3",
                "tg_shop/__init__.py": "",
                "tg_shop/asgi.py": APP,
                "backend/tg_deep.py": APP,
            },
        )

    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("tg_mian:app", "`tg_main:app`"),
            ("TG_Main:app", "`tg_main:app`"),
            ("tg_shop.agsi:app", "`tg_shop.asgi:app`"),
            ("tg_shp.asgi:app", "`tg_shop.asgi:app`"),
            ("tg_shop.agsi", "`tg_shop.asgi`"),
            ("tg_main:ap", "Did you mean tg_main:app"),
            ("tg_main:something", "It holds app (the async function app(scope, receive, send))"),
            ("tg_main.app", "`tidegate tg_main:app`"),
            ("tg_shop", "`tg_shop.asgi`"),
            ("tg_shop:asgi", "`tg_shop.asgi`"),
            ("tg_deep:app", "`--app-dir backend`"),
            ("tg_deep.py", "backend/tg_deep.py"),
            ("tg_mian.py", "tg_main.py"),
            ("tg_main:value", "takes (scope, receive, send)"),
            ("main:", "module:attribute"),
            (":app", "module:attribute"),
            ("tg-main:app", "module:attribute"),
            ("tg_main:app()", "Leave out --factory"),
            ("runserver", "alone beside manage.py"),
            ("0.0.0.0:8000", "--host 0.0.0.0 --port 8000"),
            ("manage.py", "alone beside manage.py"),
        ],
    )
    def test_the_hint_names_what_was_meant(self, target, words):
        assert words in refused(target).hint

    def test_from_inside_the_package(self, here):
        assert "--app-dir .." in refused("tg_shop.asgi:app", cwd=here / "tg_shop").hint

    def test_a_module_called_like_a_command_is_a_module(self, here):
        write(here, {"server.py": APP})
        assert discover("server").origin == "server:app"

    def test_a_file_whose_name_is_no_module(self, here):
        write(here, {"my-app.py": APP})
        assert "my_app.py" in refused("my-app.py").hint

    def test_a_file_named_like_a_module_already_imported(self, here):
        write(here, {"json.py": APP})
        error = refused("json:app")
        assert "already belongs to" in error.message and "Rename" in error.hint

    def test_a_submodule_named_as_attribute(self, here):
        write(here, {"tg_p/__init__.py": "from . import app", "tg_p/app.py": APP})
        error = refused("tg_p:app")
        assert "is the module tg_p.app" in error.message
        assert "tg_p.app:app" in error.hint


class TestBrokenImports:
    def error(self, here, source, **files):
        write(here, {"tg_broken.py": source, **{f"{k}.py": v for k, v in files.items()}})
        return refused("tg_broken:app")

    def test_only_the_users_frames(self, here):
        error = self.error(here, "import tg_helper", tg_helper="def f():\n    return 1 / 0\nf()\n")
        assert "import tg_helper" in error.message
        assert error.message.endswith("ZeroDivisionError: division by zero")
        assert error.message.count("File ") == 3
        for plumbing in ("importlib", "loading.py", "tidegate/discover"):
            assert plumbing not in error.message

    def test_frames_of_libraries_are_folded(self, here):
        error = self.error(here, "import json\njson.loads('{')")
        assert "json.loads('{')" in error.message
        assert "frame not shown" in error.message or "frames not shown" in error.message
        assert error.message.count("File ") == 2

    def test_the_cause_is_told_too(self, here):
        source = """
            try:
                {}["key"]
            except KeyError as error:
                raise RuntimeError("no key") from error
        """
        error = self.error(here, source)
        assert error.message.index("KeyError: 'key'") < error.message.index("RuntimeError: no key")

    def test_what_was_being_handled_is_told_too(self, here):
        error = self.error(here, "try:\n    {}['key']\nexcept KeyError:\n    1 / 0\n")
        assert error.message.index("KeyError: 'key'") < error.message.index("ZeroDivisionError")

    def test_a_package_that_imports_the_missing_part_itself(self, here):
        write(here, {"tg_pack/__init__.py": "import tg_pack.web\n"})
        assert "import tg_pack.web" in refused("tg_pack.web:app").message

    def test_a_syntax_error_with_its_line_and_caret(self, here):
        error = self.error(here, "x = 1\napp = (2,\n")
        assert "tg_broken has a syntax error" in error.message
        assert "line 2" in error.message and "^" in error.message
        assert error.message.count("File ") == 1
        assert error.hint == "Correct the line above, then try again."

    def test_a_syntax_error_further_in_names_that_file(self, here):
        error = self.error(here, "import tg_inner", tg_inner="def f(:\n")
        assert "import tg_inner" in error.message and "tg_inner.py" in error.message
        assert "def f(:" in error.message

    def test_something_it_imports_is_not_installed(self, here):
        error = self.error(here, "import yaml_is_not_there")
        assert "No module named 'yaml_is_not_there'" in error.message
        assert "tg_broken was found" in error.hint
        assert "pip install yaml_is_not_there" in error.hint

    def test_the_distribution_has_another_name(self, here):
        source = "raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')"
        assert "pip install opencv-python" in self.error(here, source).hint

    def test_a_file_of_ones_own_that_is_gone(self, here):
        hint = self.error(here, "import tg_helper").hint
        assert "pip install tg_helper` installs it" in hint
        assert hint.endswith(", or put tg_helper.py back, if it was a file of yours.")

    @pytest.mark.parametrize("name", ["whitenoise", "yaml", "Gone", "tg_gone.part"])
    def test_what_can_be_no_file_of_ones_own(self, here, name):
        source = f"raise ModuleNotFoundError('No module named {name}', name='{name}')"
        hint = self.error(here, source).hint
        assert hint.endswith("installs it, if it is a package from outside.")

    def test_a_local_module_misspelt_inside(self, here):
        error = self.error(here, "import tg_settigns", tg_settings="")
        assert "Did you mean tg_settings" in error.hint
        assert "pip" not in error.hint

    def test_another_virtual_environment_is_active(self, here, monkeypatch):
        monkeypatch.setenv("VIRTUAL_ENV", str(here / "venv"))
        assert "install tidegate into the active one" in self.error(here, "import zzz_gone").hint

    def test_a_virtual_environment_that_is_not_active(self, here, monkeypatch):
        monkeypatch.delenv("VIRTUAL_ENV", raising=False)
        monkeypatch.setattr(sys, "prefix", sys.base_prefix)
        write(here, {".venv/pyvenv.cfg": ""})
        assert ".venv/ that is not active" in self.error(here, "import zzz_gone").hint

    def test_a_module_that_exits(self, here):
        error = self.error(here, "import sys\nsys.exit('usage: broken')")
        assert "ended the process" in error.message and "usage: broken" in error.message
        assert error.hint.startswith("The application ended itself: do what it says. If it did so")
        assert '`if __name__ == "__main__":`' in error.hint

    def test_a_module_that_exits_without_a_word(self, here):
        error = self.error(here, "import sys\nsys.exit(4)")
        assert "(exit 4)" in error.message
        assert error.hint.startswith("The application ended itself: see what it printed. If it")

    def test_a_long_recursion_is_cut(self, here):
        error = self.error(here, "def f():\n    return f()\nf()\n")
        assert error.message.count("File ") < 20
        assert "frames not shown" in error.message

    def test_an_event_loop_started_at_import(self, here):
        write(
            here,
            {
                "tg_broken.py": "import asyncio\nasync def f(): ...\nc = f()\ntry:\n    asyncio.run(c)\nfinally:\n    c.close()\n"
            },
        )

        async def inside():
            return refused("tg_broken:app")

        assert "__main__" in asyncio.run(inside()).hint


def test_a_server_started_at_import_is_refused_before_the_import(here):
    source = APP + "import tidegate\ntidegate.run(app)\n"  # refuses itself, were it reached
    write(here, {"tg_runs.py": source})
    error = refused("tg_runs:app")
    assert "line 3: `tidegate.run(...)` starts a server" in error.message
    assert '`if __name__ == "__main__": tidegate.run(...)`' in error.hint
    assert "tg_runs" not in sys.modules


@pytest.mark.parametrize(
    "source",
    [
        "from waitress import serve\nserve(app)",
        "from waitress import serve as go\ngo(app)",
        "import eventlet\neventlet.wsgi.server(app)",
        "import cherrypy\ncherrypy.quickstart(app)",
        "from wsgiref.simple_server import make_server\nmake_server('', 1, app).serve_forever()",
        "import granian\ngranian.Granian('m:app').serve()",
        "from aiohttp import web\nweb.run_app(app)",
    ],
)
def test_every_way_to_start_a_server_is_worth_a_look(here, source):
    write(here, {"tg_runs.py": APP + source})
    assert "starts a server" in refused("tg_runs:app").message


def test_an_import_knows_that_it_is_one(here):
    source = "from tidegate.discover import importing_application\nseen = importing_application()\n"
    write(here, {"tg_seen.py": source + APP})
    discover("tg_seen:app")
    assert sys.modules["tg_seen"].seen == "tg_seen:app"
    assert importing_application() == ""


def test_what_the_server_itself_refuses_during_an_import_is_passed_on(here):
    source = "from tidegate.errors import ConfigurationError\nraise ConfigurationError('own', 'h')"
    write(here, {"tg_own.py": source})
    assert refused("tg_own:app").message == "own"
    assert importing_application() == ""


def test_the_short_road_imports_no_explanations():
    program = (
        "import sys; from tidegate.discover import discover\n"
        "async def app(scope, receive, send): ...\n"
        "discover(app)\n"
        "print([m for m in ('ast', 'difflib', 'asyncio', 'traceback', 'pathlib', 'glob')"
        " if m in sys.modules and m not in before])"
    )
    # `inspect` takes ast with it, and dataclasses takes inspect: those are there anyway.
    program = "import sys, dataclasses; before = set(sys.modules)\n" + program
    env = {**os.environ, "PYTHONPATH": str(Path(discover.__code__.co_filename).parents[2])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.strip() == "[]"
