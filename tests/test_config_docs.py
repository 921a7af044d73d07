"""The table of options in docs/configuration.md is the one of the fields.

Run this file as a program to write the table anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from tidegate.config.fields import GROUPS
from tidegate.config.option import flag_of, option_of, show_option
from tidegate.config.sources import FIELDS

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- options -->\n", "<!-- /options -->\n"


def tables() -> str:
    parts: list[str] = []
    for group in GROUPS:
        parts.append(
            f"\n### {group}\n\n| Option | Default | What it does | Values |\n|---|---|---|---|\n"
        )
        parts += [row(name) for name, named in FIELDS.items() if option_of(named).group == group]
    return "".join(parts) + "\n"


def row(name: str) -> str:
    named = FIELDS[name]
    about = option_of(named)
    flag = "APP" if name == "app" else flag_of(name)
    default = show_option(named, named.default)
    values = about.kind.right + ("; `none`" if about.optional and about.kind.knows_none else "")
    cells = (f"`{flag}`", default.replace("(empty)", "empty"), about.text, values)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def renewed(page: str) -> str:
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + tables() + END + after


def test_the_table_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert page == renewed(page), "run: python tests/test_config_docs.py"


def test_every_option_is_in_it() -> None:
    page = PAGE.read_text()
    for name in FIELDS:
        assert f"| `{'APP' if name == 'app' else flag_of(name)}` |" in page


def test_no_other_option_is_spoken_of() -> None:
    """In the text or in a help: an option that was renamed leaves no trace."""
    known = {flag_of(name) for name in FIELDS} | {"--help", "--print-config", "--x"}
    negative = {flag_of(f"no_{name}") for name in (*FIELDS, "x")}
    assert set(re.findall(r"(?<!\w)--[a-z][a-z0-9-]*", PAGE.read_text())) <= known | negative


def test_the_defaults_that_differ_are_the_ones_of_the_fields() -> None:
    _, part = PAGE.read_text().split("### Defaults that differ\n")
    rows = re.findall(r"^\| `--(\S+)` \| (.+?) \| (.+?) \|", part.split("\n###")[0], re.MULTILINE)
    said = {flag.replace("-", "_"): (theirs, ours) for flag, theirs, ours in rows}
    assert {"timeout_keep_alive", "timeout_worker_healthcheck", "http2"} <= set(said)
    for name, (theirs, ours) in said.items():
        assert ours.replace(" ", "") == show_option(FIELDS[name], FIELDS[name].default)
        assert ours != theirs


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
