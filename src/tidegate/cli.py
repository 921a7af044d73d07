"""The command line. Its options are the fields of Config; there is no second list of them.

Two roads lead to the same mapping of options to texts, and a test holds them together. Starting a
server takes exact flags and one application: that is read here in a few lines, because importing
click takes 20 ms, a fifth of the time in which a server may give its first answer. Everything else
(help, completion, a mistake) goes to click.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field
from typing import TYPE_CHECKING, Any

from tidegate.config import describe, resolve
from tidegate.config.fields import GROUPS
from tidegate.config.kinds import Choice, Many, Path, Switch
from tidegate.config.option import flag_of, near_option, option_of, show_option
from tidegate.config.sources import FIELDS
from tidegate.errors import ConfigurationError

if TYPE_CHECKING:
    import click

_COMPLETION = "_TIDEGATE_COMPLETE"
_EXTRA = "extra words"
_COLUMN = 32  # where the help texts begin, of 80
_ABOUT = """\
Serve a Python web application. APP says where it is, as in main:app or mysite.asgi:application;
without it Tidegate looks around and tells what it found."""
_SOURCES = """\
Every option can also be set by a variable (TIDEGATE_PORT for --port) or by a key in tidegate.toml
or under [tool.tidegate] in pyproject.toml (port = 8000). The command line goes before the
environment, that before the env file, tidegate.toml and pyproject.toml, in this order.
A TIME is 75, 75s, 2m or 500ms; a SIZE is 65536, 64KiB, 10MB or 1GiB."""
_ALSO = (
    ("print_config", "Print every value and where it comes from"),
    ("version", "Print the version"),
    ("help", "Print this"),
)


def main(argv: Sequence[str] | None = None, *, on_started: Callable[[], None] | None = None) -> int:
    """Run the command with these words (by default the process's own); returns the exit code.

    `on_started` is called once connections are accepted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        plain = None if _COMPLETION in os.environ else read_plainly(words)
        said = read_with_click(words) if plain is None else plain
        return said if isinstance(said, int) else _act(said, on_started)
    except ConfigurationError as error:
        print(f"tidegate: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 2


def read_plainly(words: Sequence[str]) -> dict[str, Any] | None:
    """The options given by exact flags; None where click has to look at the words."""
    said: dict[str, Any] = {}
    rest = iter(words)
    flags = _flags()
    for word in rest:
        if not word.startswith("-"):
            if "app" in said:
                return None
            said["app"] = word
            continue
        flag, equals, value = word.partition("=")
        if flag not in flags or (equals and flags[flag][1] is not None):
            return None
        name, constant = flags[flag]
        if constant is not None:
            said[name] = constant
            continue
        if not equals:
            value = next(rest, "-")
            if value.startswith("-"):
                return None
        if isinstance(option_of(FIELDS[name]).kind, Many):
            said.setdefault(name, []).append(value)
        else:
            said[name] = value
    return said


def read_with_click(words: Sequence[str]) -> dict[str, Any] | int:
    """The options as click reads them, or the exit code where that was all (--help)."""
    import click

    from tidegate.discover.mistakes import mistaken_command

    try:
        outcome = _command().main(list(words), prog_name="tidegate", standalone_mode=False)
    except click.Abort:  # which is what click makes of it
        raise KeyboardInterrupt from None
    except click.NoSuchOption as error:
        known = [*_flags(), *(flag_of(name) for name, _ in _ALSO)]
        names = [flag[2:].replace("-", "_") for flag in known]
        hint = near_option(error.option_name, names, flag_of)
        raise ConfigurationError(
            f"There is no option {error.option_name}.",
            hint.strip() or "tidegate --help lists the options.",
        ) from None
    except click.UsageError as error:
        if mistake := mistaken_command(_bare(words)):
            raise mistake from None
        raise ConfigurationError(
            error.format_message(), "tidegate --help lists the options."
        ) from None
    if isinstance(outcome, int):
        return outcome
    if extra := outcome.pop(_EXTRA):
        raise mistaken_command(_bare(words)) or ConfigurationError(
            f"One application only: {extra[0]!r} is too many.",
            "Leave it out, or quote it together with the value it belongs to.",
        )
    said = {name: value for name, value in outcome.items() if value not in (None, ())}
    for name, value in said.items():
        if value in _flags():
            raise ConfigurationError(
                f"{flag_of(name)} has no value: {value} follows.",
                f"Give it one, or write {flag_of(name)}={value} if that is what you mean.",
            )
    return said


def _bare(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.startswith("-")]


def _act(said: dict[str, Any], on_started: Callable[[], None] | None) -> int:
    if said.pop("version", False):
        from tidegate import __version__

        print(f"tidegate {__version__} on {sys.implementation.name} {sys.version.split()[0]}")
        return 0
    printing = said.pop("print_config", False)
    try:
        here = os.getcwd()
    except OSError as error:
        raise ConfigurationError(
            f"There is no working directory any more ({error.strerror}).",
            "Go to one that is there (cd), and start again.",
        ) from error
    resolved = resolve(said, os.environ, here, origin=_spelling)
    for warning in resolved.warnings:
        print(f"tidegate: {warning}", file=sys.stderr)
    if printing:
        print(describe(resolved))
        return 0
    from tidegate.launch import serve_config

    return serve_config(resolved.config, on_started=on_started)


def _spelling(name: str) -> str:
    return "APP" if name == "app" else flag_of(name)


def _is_flag(named: Field[Any]) -> bool:
    """Whether the option is a pair --x/--no-x, without a value."""
    kind = option_of(named).kind
    return isinstance(kind, Switch) and not kind.spelled


def _flags() -> dict[str, tuple[str, bool | None]]:
    """Every flag of Config: its option, and the value where the flag alone says it."""
    found: dict[str, tuple[str, bool | None]] = {}
    for name, named in FIELDS.items():
        if name == "app":
            continue
        if _is_flag(named):
            found[flag_of(name)] = (name, True)
            found[flag_of(f"no_{name}")] = (name, False)
        else:
            found[flag_of(name)] = (name, None)
    return found


def _command() -> click.Command:
    """The command for click: texts in, texts out; what they mean is checked by the fields."""
    import click

    class Command(click.Command):
        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            _write_help(formatter)

    params: list[click.Parameter] = [click.Argument(["app"], required=False)]
    params += [_click_option(name, named) for name, named in FIELDS.items() if name != "app"]
    params += [
        click.Option(["--print-config"], is_flag=True, default=None, help=_ALSO[0][1]),
        click.Option(["--version"], is_flag=True, default=None, help=_ALSO[1][1]),
    ]
    return Command(
        "tidegate",
        params=params,
        callback=click.pass_context(lambda context, **said: {**said, _EXTRA: context.args}),
        help=_ABOUT,
        context_settings={"help_option_names": ["-h", "--help"], "allow_extra_args": True},
    )


def _click_option(name: str, named: Field[Any]) -> click.Option:
    import click

    about = option_of(named)
    flag = flag_of(name)
    if _is_flag(named):
        return click.Option([f"{flag}/{flag_of(f'no_{name}')}"], default=None, help=about.text)
    complete: Callable[..., list[str]] | None = None
    if isinstance(about.kind, Choice):
        words = about.kind.words

        def complete(_context: Any, _option: Any, begun: str) -> list[str]:
            return [word for word in words if word.startswith(begun)]

    return click.Option(
        [flag, name],
        type=click.Path() if isinstance(about.kind, Path) else click.UNPROCESSED,
        multiple=isinstance(about.kind, Many),
        help=about.text,
        shell_complete=complete,
    )


def _write_help(formatter: click.HelpFormatter) -> None:
    """The options by group, in columns that stand at one place in all of them."""
    for group in GROUPS:
        rows = [
            (_left(name, named), _right(named))
            for name, named in FIELDS.items()
            if option_of(named).group == group and name != "app"
        ]
        with formatter.section(group):
            _write_rows(formatter, rows)
    with formatter.section("Also"):
        _write_rows(formatter, [(flag_of(name), text) for name, text in _ALSO])
    formatter.write_paragraph()
    formatter.write_text(_SOURCES)


def _write_rows(formatter: click.HelpFormatter, rows: Sequence[tuple[str, str]]) -> None:
    padded = [(left.ljust(_COLUMN - 4), right) for left, right in rows]
    formatter.write_dl(padded, col_max=_COLUMN - 4)


def _left(name: str, named: Field[Any]) -> str:
    if _is_flag(named):
        return f"--[no-]{flag_of(name)[2:]}"
    return f"{flag_of(name)} {option_of(named).kind.metavar}"


def _right(named: Field[Any]) -> str:
    text = option_of(named).text
    if named.default in (None, "", (), MISSING):
        return text
    return f"{text} [{show_option(named, named.default)}]"
