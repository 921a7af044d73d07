"""Small projects written to a directory, and `discover` run on them.

`project` writes the files; `in_process` keeps what an import leaves behind from other tests;
`in_subprocess` is for real frameworks, whose imports cannot be undone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"

_PROGRAM = """
import json, os, sys
from tidegate.discover import discover
from tidegate.errors import ConfigurationError
def answer(target, options):
    try:
        found = discover(target, **options)
    except ConfigurationError as error:
        return {"message": error.message, "hint": error.hint}
    return {
        "interface": found.interface, "origin": found.origin, "framework": found.framework,
        "notes": list(found.notes), "type": type(found.application).__name__,
        "settings": os.environ.get("DJANGO_SETTINGS_MODULE"),
    }
targets, options = json.loads(sys.argv[1])
print("\\n" + json.dumps([answer(target, options) for target in targets]))
"""


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write the files of a project; names are paths below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return root


@contextlib.contextmanager
def clean_imports() -> Iterator[None]:
    """Forget every module imported inside, and what it did to sys.path."""
    modules, path = set(sys.modules), list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if not name.startswith("tidegate"):
                del sys.modules[name]


def in_subprocess(
    root: Path, target: str | None = None, *, python: tuple[str, ...] = (), **options: Any
) -> dict[str, Any]:
    """`discover(target, **options)` with `root` as the current directory, in a fresh Python."""
    return each_in_subprocess(root, target, python=python, **options)[0]


def each_in_subprocess(
    root: Path, *targets: str | None, python: tuple[str, ...] = (), **options: Any
) -> list[dict[str, Any]]:
    """One fresh Python for several targets, in their order."""
    done = subprocess.run(
        [sys.executable, "-P", *python, "-c", _PROGRAM, json.dumps([targets, options])],
        cwd=root,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("DJANGO")},
            "PYTHONPATH": str(SOURCE),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers
