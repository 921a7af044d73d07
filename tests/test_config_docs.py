"""The table of options in docs/configuration.md is the one of the fields.

Run this file as a program to write the table anew.
"""

from __future__ import annotations

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


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
