"""The env file: its grammar, line by line, and what it does to the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidegate.config.dotenv import load_env_file, read_env_file
from tidegate.errors import ConfigurationError


def read(folder: Path, text: str, **environ: str) -> dict[str, str]:
    path = folder / ".env"
    path.write_text(text)
    return read_env_file(str(path), environ)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("  export A = 1  ", "1"),
        ("A=", ""),
        ("A= # nothing", ""),
        ("A=#b", "#b"),
        ("A=b#c # d", "b#c"),
        ("A='b # c'", "b # c"),
        (r"A='\n ${H}'", r"\n ${H}"),
        (r'A="b\n\t\"\\ c" # d', 'b\n\t"\\ c'),
        (r'A="\${H}"', "${H}"),
        (r'A="\x"', r"\x"),
        ('A="b\n\nc"', "b\n\nc"),
        ("A='b\nc'", "b\nc"),
        ("A=${H}/x", "here/x"),
        ('A="${H}/${NO:-y}"', "here/y"),
        ("A=${NO}", ""),
        ('A={"b": 1}', '{"b": 1}'),
        ("A=it's", "it's"),
        ("A=b=c", "b=c"),
        ("# A=2\n\n  # B\nA=1", "1"),
        ("A=2\r\nA=1\r\n", "1"),
    ],
)
def test_value(tmp_path: Path, line: str, value: str) -> None:
    assert read(tmp_path, line, H="here") == {"A": value}


def test_several_and_references_between_them(tmp_path: Path) -> None:
    assert read(tmp_path, "A=1\nB=${A}2\n\nC='3'\n") == {"A": "1", "B": "12", "C": "3"}


def test_a_byte_order_mark(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffA=1") == {"A": "1"}


@pytest.mark.parametrize("wrong", ["A", "A: 1", "1A=2", "A='b", 'A="b', "A='b' c", 'A="b"c', "=1"])
def test_a_line_that_is_wrong_is_named(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\.env, line 3:"):
        read(tmp_path, f"X=1\n# c\n{wrong}\nY=2\n")


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_env_file(str(tmp_path / ".env"), {})


def test_the_environment_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDE_A", "outside")
    monkeypatch.delenv("TIDE_B", raising=False)
    path = tmp_path / ".env"
    path.write_text("TIDE_A=file\nTIDE_B=${TIDE_A}\n")
    try:
        load_env_file(str(path))
        assert os.environ["TIDE_A"] == "outside"
        assert os.environ["TIDE_B"] == "outside"
    finally:
        os.environ.pop("TIDE_B", None)
