"""Nothing was named: what would the user mean? A Django project, or the one file with an app.

Files are read, never imported, until one is chosen. A Django project (manage.py) comes first, then
asgi.py, main.py, app.py and their like, here, in app/, src/ and the packages, then the other files
of the directory. What is found in a more usual place wins and the rest is named in the notes; two
that are equally likely are an error that lists them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from tidegate.discover import nearby
from tidegate.discover.django import Project, project_in
from tidegate.discover.loading import NAMES
from tidegate.discover.shape import article
from tidegate.discover.source import Candidate, Kind, scan
from tidegate.discover.target import Target, module_for
from tidegate.errors import ConfigurationError

_FILES = ("asgi.py", "main.py", "app.py", "application.py", "server.py", "api.py", "web.py",
          "wsgi.py", "__init__.py")  # fmt: skip
_NO_PACKAGES = {"test", "tests", "docs", "doc", "examples", "scripts", "migrations", "bench", "src"}
_MOST = 100  # files looked at in one directory of unusually named ones
_USUAL, _PACKAGES, _OTHER = range(3)


class Choice(NamedTuple):
    """What to load; `target` None: a Django project whose asgi.py is gone, with `settings`."""

    target: Target | None
    notes: tuple[str, ...]
    settings: str = ""


class _Hit(NamedTuple):
    candidate: Candidate
    path: str
    group: int
    place: int
    target: Target

    @property
    def rank(self) -> tuple[int, int]:
        """The lower the likelier, before place and name decide."""
        kind = self.candidate.kind
        if kind is Kind.WSGI:
            return self.group == _OTHER, 4
        if kind is Kind.FACTORY:
            return self.group == _OTHER, 3
        if os.path.basename(self.path) == "asgi.py":
            return self.group == _OTHER, 0
        return self.group == _OTHER, 2 if self.candidate.imported else 1

    @property
    def usual(self) -> int:
        """Place of the name among the usual ones."""
        name = self.candidate.name
        return NAMES.index(name) if name in NAMES else len(NAMES)

    def __str__(self) -> str:
        made = self.candidate.kind is Kind.FACTORY
        noun = f"{self.candidate.framework} {'factory' if made else 'application'}".lstrip()
        return f"{self.target.text}, {article(noun)} {noun}"


def search(base: str, *, factory: bool = False) -> Choice:
    """The application that is meant in `base`; `factory`: only functions that make one."""
    project = next(filter(None, map(project_in, (base, os.path.join(base, "src")))), None)
    if project is not None and not factory:
        return _django(project, base)
    hits, broken = _hits(base)
    if factory:
        hits = [hit for hit in hits if hit.candidate.kind is Kind.FACTORY]
    if not hits:
        raise _nothing(base, broken, factory=factory)
    hits.sort(key=lambda hit: (hit.rank, hit.group, hit.place, hit.usual))
    best = hits[0]
    _refuse_unclear(best, hits)
    notes = [f"Found {best} ({os.path.relpath(best.path, base)})."]
    others = [str(hit) for hit in hits[1:] if hit.candidate.home != best.candidate.home]
    if others:
        notes.append(f"Passed over: {'; '.join(others[:5])}{'; ...' * (len(others) > 5)}.")
    notes += [f"Passed over {os.path.relpath(path, base)}: {error}." for path, error in broken]
    return Choice(best.target, tuple(notes))


def _django(project: Project, base: str) -> Choice:
    manage = os.path.relpath(os.path.join(project.root, "manage.py"), base)
    found = f"Found a Django project ({manage}"
    named = f", settings {project.settings}" if project.settings else ""
    notes = []
    if not project.asgi:
        notes.append(f"{found}{named}) without an asgi.py: Django's get_asgi_application() serves.")
    else:
        notes.append(f"{found}{named}).")
    others = [":".join(filter(None, pair)) for pair in project.asgi[1:]]
    hits, _ = _hits(base, ("main.py", "app.py"))
    others += [str(hit) for hit in hits if hit.candidate.kind is not Kind.FACTORY]
    if others:
        notes.append(f"Passed over: {'; '.join(others[:5])}.")
    if not project.asgi:
        return Choice(None, tuple(notes), project.settings)
    module, attribute = project.asgi[0]
    text = f"{module}:{attribute}" if attribute else module
    return Choice(Target(text, module, attribute, (project.root,)), tuple(notes))


def _refuse_unclear(best: _Hit, hits: list[_Hit]) -> None:
    """Two that nothing sets apart: unusual names in one file, or the same in two packages."""
    rivals = [
        hit
        for hit in hits
        if hit.rank == best.rank
        and hit.usual == best.usual
        and hit.candidate.home != best.candidate.home
        and (hit.path == best.path or (hit.group == best.group and best.group != _USUAL))
    ]
    if rivals:
        raise ConfigurationError(
            f"Several applications could be meant: {'; '.join(map(str, [best, *rivals]))}.",
            f"Name one: `tidegate {best.target.text.removesuffix('()')}`.",
        )


def _hits(base: str, files: tuple[str, ...] = ()) -> tuple[list[_Hit], list[tuple[str, str]]]:
    """Everything that looks like an application, and the files that could not be parsed."""
    hits: list[_Hit] = []
    broken: list[tuple[str, str]] = []
    for place, (group, path) in enumerate(_places(base, files)):
        if group == _OTHER and any(hit.group != _OTHER for hit in hits):
            break  # the usual places hold something
        try:
            found = scan(path, base)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            at = f", line {line}" if line else ""
            broken.append((path, f"{type(error).__name__}{at}: {getattr(error, 'msg', error)}"))
            continue
        except OSError as error:
            broken.append((path, str(error)))
            continue
        hits += [_hit(each, path, group, place, base) for each in found]
    return hits, broken


def _hit(candidate: Candidate, path: str, group: int, place: int, base: str) -> _Hit:
    module, paths = module_for(path, base)
    call = candidate.kind is Kind.FACTORY
    text = f"{module}:{candidate.name}{'()' * call}"
    return _Hit(candidate, path, group, place, Target(text, module, candidate.name, paths, call))


def _places(base: str, files: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(group, file), the usual places first."""
    usual = [base, os.path.join(base, "app"), os.path.join(base, "src")]
    usual.append(os.path.join(base, "src", "app"))
    if files:
        usual = usual[:1]
    for directory in usual:
        for name in files or _FILES:
            path = os.path.join(directory, name)
            # Below a directory that is the package itself, __init__.py says nothing new.
            if os.path.isfile(path) and not (name == "__init__.py" and directory == base):
                yield _USUAL, path
    if files:
        return
    for directory in [*nearby.directories_in(base), *nearby.directories_in(usual[2])]:
        if directory in usual or os.path.basename(directory) in _NO_PACKAGES:
            continue
        for name in _FILES:
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                yield _PACKAGES, path
    seen = {*_FILES, "manage.py", "setup.py", "conftest.py"}
    for name in [each for each in sorted(os.listdir(base)) if each.endswith(".py")][:_MOST]:
        module = name.removesuffix(".py")
        if name not in seen and module.isidentifier() and not module.startswith("test_"):
            yield _OTHER, os.path.join(base, name)


def _nothing(base: str, broken: list[tuple[str, str]], *, factory: bool) -> ConfigurationError:
    if broken:
        path, error = broken[0]
        name = os.path.relpath(path, base)
        return ConfigurationError(
            f"No application found in {base}; {name} could not be read: {error}.",
            f"Correct it, or see the whole error with `tidegate {name}`.",
        )
    what = "function that makes an application" if factory else "application"
    parent = os.path.dirname(base)
    inner = [os.path.basename(each) for each in nearby.directories_in(base) if project_in(each)]
    if inner:
        hint = f"There is a Django project in {inner[0]}/: `tidegate {inner[0]}/`."
    elif project_in(parent):
        hint = f"There is a Django project in {parent}: change to that directory."
    else:
        hint = (
            "Name it, for example `tidegate main:app` or `tidegate mysite.asgi:application`, or "
            "start where manage.py, main.py or app.py is."
        )
    return ConfigurationError(
        f"No {what} found in {base}: no manage.py, and no Django, FastAPI, Starlette, Litestar, "
        "Quart, Flask or plain ASGI application in the usual files.",
        hint,
    )
