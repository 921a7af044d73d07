"""Words meant for another command are answered with the command to type."""

from __future__ import annotations

import pytest

from tidegate.discover.mistakes import mistaken_command


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["manage.py", "runserver"], "Run `tidegate` alone beside manage.py"),
        (["manage.py"], "Run `tidegate` alone beside manage.py"),
        (["./manage.py", "runserver", "0.0.0.0:8080"], "`tidegate --host 0.0.0.0 --port 8080`"),
        (["manage.py", "migrate"], "python manage.py migrate"),
        (["migrate"], "python manage.py migrate"),
        (["runserver"], "Run `tidegate` alone beside manage.py"),
        (["runserver", "8080"], "`tidegate --port 8080` alone"),
        (["run", "main:app"], "Run `tidegate main:app`."),
        (["serve"], "Run `tidegate`."),
        (["dev", "main.py"], "Run `tidegate main.py`."),
        (["uvicorn", "main:app"], "Run `tidegate main:app`."),
        (["python", "asgi.py"], "Run `tidegate asgi.py`."),
        (["8080"], "`tidegate --port 8080`"),
        (["0.0.0.0:8080"], "`tidegate --host 0.0.0.0 --port 8080`"),
        (["[::]:8080"], "`tidegate --host :: --port 8080`"),
        (["main:app", "127.0.0.1:9000"], "`tidegate main:app --host 127.0.0.1 --port 9000`"),
    ],
)
def test_each_mistake_gets_its_sentence(words, instead):
    error = mistaken_command(words)
    assert error is not None
    assert instead in error.hint


@pytest.mark.parametrize("words", [[], ["main:app"], ["mysite.asgi"], ["main.py"], ["99999"]])
def test_no_mistake(words):
    assert mistaken_command(words) is None
