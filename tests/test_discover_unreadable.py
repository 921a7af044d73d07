"""Folders and files that the user who serves may not read: said so, with the user's name.

Whoever runs these tests may be root, who may read everything: each look is taken by a child process
that is a nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tidegate.discover.django
import tidegate.discover.failures
import tidegate.discover.search  # noqa: F401 - a nobody may not be able to read Python itself
from tidegate import discover as room
from tidegate.discover import discover, nearby
from tidegate.errors import ConfigurationError

NOBODY = 65534


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an application and another below, on a way that is open to all."""
    root = Path(tempfile.mkdtemp()).resolve()
    root.chmod(0o755)
    (root / "inner").mkdir()
    for folder in (root, root / "inner"):
        (folder / "tg_shut.py").write_text("async def app(scope, receive, send): ...\n")
    monkeypatch.chdir(root)
    yield root
    for folder in (root, root / "inner"):
        folder.chmod(0o755)
    shutil.rmtree(root)


def in_a_child(look: Callable[[], object]) -> object:
    """What this gives to a user who owns nothing, by way of JSON."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            if os.getuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(writing, json.dumps(look()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


def refused(target: str | None, **options: str) -> tuple[str, str]:
    def look() -> tuple[str, str]:
        try:
            return f"found {discover(target, **options)}", ""
        except ConfigurationError as error:
            return error.message, error.hint

    message, hint = in_a_child(look)  # type: ignore[misc]
    return message, hint


def user() -> str:
    return f"the user {pwd.getpwuid(NOBODY if os.getuid() == 0 else os.getuid()).pw_name}"


@pytest.mark.parametrize("mode", [0o000, 0o111])
@pytest.mark.parametrize(
    ("target", "lead"),
    [
        ("tg_shut:app", "The module 'tg_shut' cannot be looked for"),
        (None, "The application cannot be loaded"),
    ],
)
def test_the_folder_of_the_application(
    here: Path, target: str | None, lead: str, mode: int
) -> None:
    here.chmod(mode)
    message, hint = refused(target)
    assert message == f"{lead}: {user()} may not read {here}."
    assert f"`chmod o+rx {here}`" in hint


def test_a_file_in_it(here: Path) -> None:
    here.chmod(0)
    message, _ = refused("tg_shut.py")
    assert message == f"The file tg_shut.py cannot be looked for: {user()} may not read {here}."


def test_an_app_dir(here: Path) -> None:
    (here / "inner").chmod(0)
    message, _ = refused("tg_shut:app", app_dir="inner")
    assert message.endswith(f"{user()} may not read {here}/inner.")


def test_a_folder_on_the_way(here: Path) -> None:
    here.chmod(0)
    message, _ = refused("tg_shut:app", app_dir=f"{here}/inner")
    assert message == f"{here}/inner cannot be looked into: {user()} may not read {here}."


@pytest.mark.parametrize("target", ["tg_shut:app", "tg_shut.py", "tg_shut"])
def test_the_file_itself(here: Path, target: str) -> None:
    (here / "tg_shut.py").chmod(0)
    message, hint = refused(target)
    assert message == (
        f"The application cannot be loaded: {user()} may not read {here}/tg_shut.py."
    )
    assert f"`chmod o+r {here}/tg_shut.py`" in hint


def test_an_error_that_is_not_about_reading_is_passed_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(here))

    monkeypatch.setattr(room, "load", refuse)
    with pytest.raises(PermissionError):
        discover("tg_shut:app")


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_001)
    assert "the user 4000000001 may not read /srv" in nearby.not_readable("/srv").message


def test_what_is_not_there_is_not_barred(here: Path) -> None:
    assert nearby.barred(f"{here}/gone/app") == ""
    assert nearby.barred(str(here)) == ""
