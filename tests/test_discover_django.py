"""Django projects: found by manage.py, served with asgi.py or without, and what stands in the way."""

from __future__ import annotations

import pytest
from tests.support.projects import each_in_subprocess, in_subprocess, write

from tidegate.discover.django import project_in

MANAGE = """
    import os, sys
    def main():
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
    if __name__ == "__main__":
        main()
"""
SETTINGS = """
    SECRET_KEY = "x"
    INSTALLED_APPS = []
    ROOT_URLCONF = "mysite.urls"
"""
ASGI = """
    import os
    from django.core.asgi import get_asgi_application
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    application = get_asgi_application()
"""
PROJECT = {
    "manage.py": MANAGE,
    "mysite/__init__.py": "",
    "mysite/settings.py": SETTINGS,
    "mysite/urls.py": "urlpatterns = []",
    "mysite/asgi.py": ASGI,
    "mysite/wsgi.py": ASGI.replace("asgi", "wsgi"),
}


@pytest.fixture
def site(tmp_path):
    return write(tmp_path, PROJECT)


class TestReading:
    """Nothing is imported to find a project."""

    @pytest.mark.parametrize(
        "line",
        [
            'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")',
            'os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"',
            'os.environ.setdefault("DJANGO_SETTINGS_MODULE", os.getenv("S", "mysite.settings"))',
            'os.environ["DJANGO_SETTINGS_MODULE"] = config("S", default="mysite.settings")',
        ],
    )
    def test_the_settings_manage_py_names(self, site, line, monkeypatch):
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        write(site, {"manage.py": f"import os, django\nif True:\n    {line}\n"})
        project = project_in(str(site))
        assert project is not None
        assert project.settings == "mysite.settings"

    def test_the_environment_goes_first(self, site, monkeypatch):
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.production")
        project = project_in(str(site))
        assert project is not None
        assert project.settings == "mysite.production"

    @pytest.mark.parametrize(
        ("files", "settings", "asgi"),
        [
            ({"config/settings/local.py": "", "config/asgi.py": ""}, "config.settings.local", "config.asgi"),
            ({"conf/settings.py": "", "web/asgi.py": "", "web/__init__.py": ""}, "conf.settings", "web.asgi"),
            ({"conf/settings.py": "", "asgi.py": ""}, "conf.settings", "asgi"),
            (
                {"conf/settings.py": "ASGI_APPLICATION = 'conf.routing.app'", "conf/asgi.py": "",
                 "conf/routing.py": ""}, "conf.settings", "conf.routing",
            ),
        ],
    )  # fmt: skip
    def test_where_asgi_py_is(self, tmp_path, files, settings, asgi, monkeypatch):
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        write(tmp_path, {"manage.py": MANAGE.replace("mysite.settings", settings), **files})
        project = project_in(str(tmp_path))
        assert project is not None
        assert project.asgi[0][0] == asgi


class TestServing:
    @pytest.fixture(autouse=True)
    def django(self):
        pytest.importorskip("django")

    def test_with_asgi_py(self, site):
        targets = (None, ".", "mysite.asgi", "mysite.asgi:application", "mysite/asgi.py")
        for answer in each_in_subprocess(site, *targets):
            assert answer.get("origin") == "mysite.asgi:application", answer
            assert (answer["framework"], answer["type"]) == ("Django", "ASGIHandler")
            assert answer["settings"] == "mysite.settings"

    def test_notes(self, site):
        write(site, {"main.py": "from fastapi import FastAPI\napp = FastAPI()"})
        notes = in_subprocess(site)["notes"]
        assert notes[0] == "Found a Django project (manage.py, settings mysite.settings)."
        assert notes[1] == "Passed over: main:app, a FastAPI application."

    def test_asgi_py_deleted(self, site):
        (site / "mysite" / "asgi.py").unlink()
        answer = in_subprocess(site)
        assert answer.get("origin") == "django.core.asgi:get_asgi_application()", answer
        assert answer["settings"] == "mysite.settings"
        assert answer["type"] == "ASGIHandler"
        assert "without an asgi.py" in answer["notes"][0]

    def test_asgi_py_deleted_and_no_settings_named(self, site):
        (site / "mysite" / "asgi.py").unlink()
        write(site, {"manage.py": "import django"})
        assert "DJANGO_SETTINGS_MODULE=mysite.settings tidegate" in in_subprocess(site)["hint"]

    def test_in_src(self, tmp_path):
        write(tmp_path / "src", PROJECT)
        assert in_subprocess(tmp_path)["origin"] == "mysite.asgi:application"

    def test_inside_the_package(self, site):
        targets = (None, "asgi.py", "asgi.py:application")
        for answer in each_in_subprocess(site / "mysite", *targets):
            assert answer.get("origin") == "mysite.asgi:application", answer

    def test_inside_the_package_by_module_name(self, site):
        assert "--app-dir .." in in_subprocess(site / "mysite", "mysite.asgi")["hint"]

    def test_wsgi_where_asgi_was_meant(self, site):
        targets = ("mysite.wsgi", "mysite.wsgi:application", "mysite/wsgi.py")
        for answer in each_in_subprocess(site, *targets):
            assert "is a Django application over WSGI" in answer["message"]
            assert "`tidegate mysite.asgi:application`" in answer["hint"]

    def test_wsgi_where_asgi_py_was_deleted(self, site):
        (site / "mysite" / "asgi.py").unlink()
        assert "Run `tidegate` alone" in in_subprocess(site, "mysite.wsgi")["hint"]

    def test_asgi_py_that_is_not_where_it_was_typed(self, site):
        assert "mysite/asgi.py" in in_subprocess(site, "asgi.py")["hint"]

    def test_the_package_alone(self, site):
        assert "`mysite.asgi`" in in_subprocess(site, "mysite")["hint"]

    @pytest.mark.parametrize("deleted", [True, False])
    def test_broken_settings(self, site, deleted):
        if deleted:
            (site / "mysite" / "asgi.py").unlink()
        write(site, {"mysite/settings.py": "import os\nKEY = os.environ['NOT_SET']\n"})
        message = in_subprocess(site)["message"]
        assert "KEY = os.environ['NOT_SET']" in message
        assert "KeyError: 'NOT_SET'" in message
        assert len(message.splitlines()) < 14
        assert "tidegate" not in message

    def test_a_missing_app(self, site):
        write(site, {"mysite/settings.py": "SECRET_KEY = 'x'\nINSTALLED_APPS = ['rest_framework']"})
        answer = in_subprocess(site)
        assert "No module named 'rest_framework'" in answer["message"]
        assert "pip install djangorestframework" in answer["hint"]

    def test_models_imported_before_django_is_ready(self, site):
        write(site, {"mysite/models.py": "from django.contrib.auth import models\n"})
        write(
            site,
            {
                "mysite/asgi.py": "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'\nimport mysite.models\n"
            },
        )
        answer = in_subprocess(site)
        assert "Apps aren't loaded yet" in answer["message"]
        assert "call get_asgi_application() first" in answer["hint"]

    def test_settings_nobody_named(self, site):
        write(
            site,
            {
                "mysite/asgi.py": "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()"
            },
        )
        hint = in_subprocess(site, "mysite.asgi")["hint"]
        assert "DJANGO_SETTINGS_MODULE" in hint


def test_django_that_is_not_installed(site):
    (site / "mysite" / "asgi.py").unlink()
    answer = in_subprocess(site, python=("-S",))
    assert "Django is not there" in answer["message"]
    assert "pip install django" in answer["hint"]
