"""Where values come from: flags, environment, env file, tidegate.toml, pyproject.toml, default.

That is the order of precedence, option by option. Every value keeps its origin, for error messages
and for `--print-config`. $FORWARDED_ALLOW_IPS and $WEB_CONCURRENCY, which other servers read as
well, count as environment where the TIDEGATE_ variable is not set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any, NamedTuple, TypeAlias

from tidegate.config.fields import GROUPS, Config, ConflictError
from tidegate.config.option import (
    flag_of,
    near_option,
    option_of,
    read_option,
    show_option,
    variable_of,
)
from tidegate.errors import ConfigurationError

FIELDS: Mapping[str, Field[Any]] = {named.name: named for named in fields(Config)}

Layer: TypeAlias = dict[str, tuple[object, str]]  # option -> (value as given, origin)


class Resolved(NamedTuple):
    """A configuration and the origin of each of its values."""

    config: Config
    sources: dict[str, str]
    warnings: tuple[str, ...]  # variables that look like ours and are not


def resolve(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: str | os.PathLike[str],
    *,
    origin: Callable[[str], str] = flag_of,
) -> Resolved:
    """The configuration for these flags (or arguments: `origin` names one), here and now."""
    unknown = [name for name in flags if name not in FIELDS]
    if unknown:
        raise ConfigurationError(
            f"There is no option {unknown[0]!r}.", near_option(unknown[0], list(FIELDS)).strip()
        )
    said: Layer = {name: (value, origin(name)) for name, value in flags.items()}
    variables = _from_environ(environ, "$")
    files = list(_from_files(_folders((said, variables), os.fspath(cwd))))
    written, from_env_file = _from_env_file((said, variables, *files), environ)
    layers = (said, variables, from_env_file, *files)
    values: dict[str, Any] = {}
    sources = dict.fromkeys(FIELDS, "default")
    for name, named in FIELDS.items():
        found = _first(layers, name)
        if found is not None:
            values[name] = read_option(named, *found)
            sources[name] = found[1]
    try:
        config = Config(**values)
    except ConflictError as conflict:
        message = f"{sources[conflict.name]} {conflict.what}"
        raise ConfigurationError(message, conflict.hint) from None
    return Resolved(config, sources, tuple(_strange({**environ, **written})))


def describe(resolved: Resolved) -> str:
    """Every value and its origin, aligned, by group."""
    shown = {
        name: show_option(named, getattr(resolved.config, name)) for name, named in FIELDS.items()
    }
    wide = max(map(len, FIELDS))
    value_wide = min(max(map(len, shown.values())), 32)
    lines: list[str] = []
    for group in GROUPS:
        lines += ["", group]
        lines += [
            f"  {name:{wide}}  {shown[name]:{value_wide}}  {resolved.sources[name]}"
            for name, named in FIELDS.items()
            if option_of(named).group == group
        ]
    return "\n".join(lines[1:])


def _first(layers: Iterable[Layer], name: str) -> tuple[object, str] | None:
    return next((layer[name] for layer in layers if name in layer), None)


def _from_environ(environ: Mapping[str, str], mark: str) -> Layer:
    found: Layer = {}
    for name, named in FIELDS.items():
        about = option_of(named)
        for variable in (variable_of(name), about.fallback):
            value = environ.get(variable)
            # `NAME=` in a unit or compose file means "not set", but for texts that may be empty:
            # FORWARDED_ALLOW_IPS= trusts nobody, and must not turn into the default.
            if value is not None and (value or about.kind.may_be_empty):
                found[name] = (value, mark + variable)
                break
    return found


def _from_env_file(
    layers: Iterable[Layer], environ: Mapping[str, str]
) -> tuple[dict[str, str], Layer]:
    """All the env file has, and the options among it."""
    found = _first(layers, "env_file")
    path = read_option(FIELDS["env_file"], *found) if found else None
    if path is None:
        return {}, {}
    from tidegate.config.dotenv import read_env_file

    written = read_env_file(path, environ)
    options = _from_environ(written, f"{path}:")
    options.pop("env_file", None)  # one is read, not a chain of them
    return written, options


def _folders(layers: Iterable[Layer], cwd: str) -> list[str]:
    """Where files are looked for: --app-dir if it was given, then the working directory."""
    found = _first(layers, "app_dir")
    app_dir = read_option(FIELDS["app_dir"], *found) if found else None
    return [os.path.join(cwd, app_dir), cwd] if app_dir else [cwd]


def _from_files(folders: list[str]) -> Iterable[Layer]:
    """The options in the first tidegate.toml, then those in the first pyproject.toml with any."""
    for name, within in (("tidegate.toml", ()), ("pyproject.toml", ("tool", "tidegate"))):
        for folder in folders:
            table = _read_toml(os.path.join(folder, name), within)
            if table is not None:
                yield _checked(table, os.path.join(folder, name), folders[-1])
                break


def _read_toml(path: str, within: tuple[str, ...]) -> dict[str, object] | None:
    """The table of this file, or None where there is none."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    if within and not _may_hold(content, within):
        return None  # a project that does not speak to us: spare the parser, 5 ms of the start
    import tomllib

    try:
        table: Any = tomllib.loads(content.decode())
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from None
    for key in within:
        table = table.get(key) if isinstance(table, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigurationError(f"{path}: {'.'.join(within)} is not a table.")
    return table


def _may_hold(content: bytes, path: tuple[str, ...]) -> bool:
    """Whether TOML may have this table, in one of the ways to write it: false only if it has not.

    `[tool.tidegate]` and `tool.tidegate.port = 8000`; else `[tool]` or `tool = {` before the rest.
    A backslash may hide any letter of a quoted key.
    """
    bare = content.translate(None, b" \t\"'")
    first = path[0].encode()
    ways = (".".join(path).encode(), b"[%b]" % first, b"%b=" % first)
    return any(way in bare for way in ways) or b"\\u" in content.lower()


def _checked(table: Mapping[str, object], path: str, cwd: str) -> Layer:
    """The table as a layer. Paths in a file beside the application are relative to that file."""
    folder = os.path.dirname(path)
    shown = os.path.relpath(path, cwd) if folder == cwd else path
    found: Layer = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in FIELDS:
            hint = near_option(name, list(FIELDS)).strip() or "tidegate --help lists the options."
            raise ConfigurationError(f"{shown}: there is no option {key!r}.", hint)
        if name in found:
            raise ConfigurationError(f"{shown}: {name} is there twice.", "Keep one of them.")
        kind = option_of(FIELDS[name]).kind
        given = kind.from_toml(value)
        found[name] = (given if folder == cwd else kind.beside(given, folder), f"{shown}:{key}")
    return found


def _strange(environ: Mapping[str, str]) -> Iterable[str]:
    """A sentence for each variable that is nearly, but not quite, one of ours."""
    names = list(FIELDS)
    ours = set(map(variable_of, names))
    for variable in environ:
        name = variable.removeprefix("TIDEGATE_")
        if name == variable or variable in ours:
            continue
        hint = near_option(name, names, variable_of)
        if hint:
            yield f"${variable} is not read by Tidegate.{hint}"
