"""The command as a whole: what it prints, where, and with which exit code."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tidegate import __main__ as entry
from tidegate import cli
from tidegate.cli import main
from tidegate.config import Config
from tidegate.config.fields import GROUPS
from tidegate.config.option import flag_of
from tidegate.config.sources import FIELDS
from tidegate.errors import ConfigurationError


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without files, and an environment without our variables."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("TIDEGATE_") or name in {"FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that reached the server, which does nothing and returns 7."""
    configs: list[Config] = []

    def serve_config(config: Config, **_: object) -> int:
        configs.append(config)
        return 7

    stand_in: Any = ModuleType("tidegate.launch")
    stand_in.serve_config = serve_config
    monkeypatch.setitem(sys.modules, "tidegate.launch", stand_in)
    return configs


class TestServing:
    def test_the_configuration_and_the_exit_code(self, served: list[Config]) -> None:
        assert main(["main:app", "--port", "9", "--no-access-log", "--header", "A: b"]) == 7
        assert served == [Config("main:app", port=9, access_log=False, header=("A: b",))]

    def test_processes(self, served: list[Config]) -> None:
        words = ["main:app", "--workers", "auto", "--preload", "--limit-max-memory=1GiB",
                 "--health-bind", "127.0.0.1:9", "--health-bind=unix:h.sock", "--no-supervise",
                 "--supervise", "--timeout-worker-healthcheck=0"]  # fmt: skip
        assert main(words) == 7
        assert served == [
            Config(
                "main:app", workers=0, preload=True, limit_max_memory=1 << 30, supervise=True,
                health_bind=("127.0.0.1:9", "unix:h.sock"), timeout_worker_healthcheck=0,
            )
        ]  # fmt: skip

    def test_reloading(self, served: list[Config]) -> None:
        assert main(["--reload", "--reload-dir", "a", "--reload-dir=b", "--reload-delay=1"]) == 7
        assert served == [Config(reload=True, reload_dir=("a", "b"), reload_delay=1.0)]
        assert served[0].supervised

    def test_nothing_given(self, served: list[Config]) -> None:
        assert main([]) == 7
        assert served == [Config()]

    def test_words_of_the_process(
        self, served: list[Config], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["tidegate", "main:app"])
        with pytest.raises(SystemExit) as left:
            entry.main()
        assert left.value.code == 7
        assert served == [Config("main:app")]

    @pytest.mark.parametrize("chosen", [None, 123])
    def test_garbage_is_collected_as_usual_once_it_serves(
        self, monkeypatch: pytest.MonkeyPatch, chosen: int | None
    ) -> None:
        seen: list[int] = []

        def serve_config(_config: Config, *, on_started: Callable[[], None]) -> int:
            seen.append(gc.get_threshold()[0])
            if chosen is not None:  # by the application
                gc.set_threshold(chosen)
            on_started()
            seen.append(gc.get_threshold()[0])
            return 0

        stand_in: Any = ModuleType("tidegate.launch")
        stand_in.serve_config = serve_config
        monkeypatch.setitem(sys.modules, "tidegate.launch", stand_in)
        monkeypatch.setattr(sys, "argv", ["tidegate", "main:app"])
        usual = gc.get_threshold()
        try:
            with pytest.raises(SystemExit):
                entry.main()
            assert seen == [entry.RARELY, chosen or usual[0]]
        finally:
            gc.set_threshold(*usual)

    def test_the_env_file_goes_with_the_configuration(
        self, served: list[Config], quiet_place: Path
    ) -> None:
        (quiet_place / ".env").write_text("TIDEGATE_PORT=5\n")
        assert main(["--env-file", ".env"]) == 7
        assert served[0].port == 5
        assert str(served[0].env_file).endswith(".env")

    def test_a_mistake_found_later(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def serve_config(_config: Config, **_: object) -> int:
            raise ConfigurationError("There is no 'app' in main.py.", "Did you mean 'api'?")

        stand_in: Any = ModuleType("tidegate.launch")
        stand_in.serve_config = serve_config
        monkeypatch.setitem(sys.modules, "tidegate.launch", stand_in)
        assert main(["main:app"]) == 2
        assert capsys.readouterr().err == (
            "tidegate: There is no 'app' in main.py.\n  Did you mean 'api'?\n"
        )

    def test_a_variable_that_is_nearly_ours(
        self, served: list[Config], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setenv("TIDEGATE_PROT", "1")
        assert main([]) == 7
        assert "tidegate: $TIDEGATE_PROT is not read" in capsys.readouterr().err


class TestInterrupted:
    """Ctrl+C while the server is starting: nothing is printed, and the shell is told why."""

    @pytest.mark.parametrize("when", ["main", "its import"])
    def test_by_the_keyboard(
        self, when: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupted(*_: object, **__: object) -> int:
            raise KeyboardInterrupt

        stand_in: Any = ModuleType("tidegate.cli")
        setattr(stand_in, "main" if when == "main" else "__getattr__", interrupted)
        monkeypatch.setitem(sys.modules, "tidegate.cli", stand_in)
        usual = gc.get_threshold()
        with pytest.raises(SystemExit) as left:
            entry.main()
        assert left.value.code == 130
        assert gc.get_threshold() == usual
        assert capsys.readouterr() == ("", "")

    def test_while_click_reads_the_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("click.Command.parse_args", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main(["--version"])

    def test_while_the_application_is_imported(self, quiet_place: Path) -> None:
        (quiet_place / "slow.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
        done = subprocess.run(
            [sys.executable, "-m", "tidegate", "slow:app", "--port=0"],
            capture_output=True, text=True, check=False, timeout=30, cwd=quiet_place,
            env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "message", "hint"),
        [
            (["--port", "abc"], "--port is 'abc': not a whole number.", "from 0 to 65535"),
            (["--prot", "1"], "There is no option --prot.", "Did you mean --port"),
            (["--no-acces-log"], "There is no option --no-acces-log.", "--no-access-log"),
            (["--zzzzzz"], "There is no option --zzzzzz.", "tidegate --help"),
            (["--port"], "Option '--port' requires an argument.", "tidegate --help"),
            (["--port", "--host", "x"], "--port has no value: --host follows.", "--port=--host"),
            (["a:b", "c:d"], "One application only: 'c:d' is too many.", "Leave it out"),
            (["a:b", "--header", "X:", "b", "--port=1"], "'b' is too many.", "or quote it"),
            (["run", "a:b"], "no application `run`", "Run `tidegate a:b`"),
            (["--worker", "2"], "There is no option --worker.", "Did you mean --workers?"),
            (["-w", "2", "a:b"], "There is no option -w.", "Did you mean --workers?"),
            (["-w2"], "There is no option -w.", "Did you mean --workers?"),
            (["-b", ":80"], "There is no option -b.", "Did you mean --bind?"),
            (["--pid=a"], "There is no option --pid.", "Did you mean --pid-file?"),
            (
                ["--graceful-timeout=1"],
                "no option --graceful-timeout",
                "--timeout-graceful-shutdown?",
            ),
            (["--max-requests", "1"], "no option --max-requests.", "mean --limit-max-requests?"),
            (["--max-requests-jitter=1"], "-jitter.", "mean --limit-max-requests-jitter?"),
            (["--timeout=1"], "no option --timeout.", "mean --timeout-worker-healthcheck?"),
            (["--keep-alive=1"], "no option --keep-alive.", "mean --timeout-keep-alive?"),
            (["--chdir", "/srv"], "no option --chdir.", "mean --app-dir?"),
            (["--reload", "--reload-include=[z-a]"], "no file can ever match that.", "*.html"),
            (["--workers", "0"], "--workers is '0': out of range.", "from 1 to 256, or auto"),
            (["--workers", "many"], "--workers is 'many': not a whole number.", "or auto"),
            (["--preload", "--reload"], "--preload and --reload exclude", "Leave out --preload"),
            (["--no-supervise", "--workers=4"], "--workers 4 needs it.", "or start with --workers"),
            (["--no-supervise", "--user=me"], "--supervise is off, and --user", "--no-supervise."),
            (["--pid-file", "no/a.pid"], "--pid-file is 'no/a.pid': its directory", "no first."),
            (["--umask", "9"], "--umask is '9': not a file mode.", "octal"),
            (["main app"], "APP is 'main app': that names no application.", "main:app"),
            (["--access-log=1"], "--access-log", "tidegate --help"),
        ],
    )
    def test_goes_to_stderr(
        self, words: list[str], message: str, hint: str, served: list[Config],
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        assert main(words) == 2
        said = capsys.readouterr()
        first, second = said.err.splitlines()
        assert first.startswith("tidegate: ")
        assert message in first
        assert second.startswith("  ")
        assert hint in second
        assert said.out == ""
        assert served == []


class TestHelp:
    @pytest.fixture
    def text(self, capsys: pytest.CaptureFixture[str]) -> str:
        assert main(["--help"]) == 0
        return capsys.readouterr().out

    def test_fits_the_terminal(self, text: str) -> None:
        assert max(map(len, text.splitlines())) <= 80

    def test_groups_in_their_order(self, text: str) -> None:
        headings = [line[:-1] for line in text.splitlines() if re.fullmatch(r"\w.*:", line)]
        assert headings == [*GROUPS, "Also"]

    def test_every_option_is_there_once(self, text: str) -> None:
        printed = re.findall(r"^  (--[\[\]\w-]+)", text, flags=re.MULTILINE)
        flags = [flag.replace("[no-]", "") for flag in printed]
        also = ["--print-config", "--version", "--help"]
        assert sorted(flags) == sorted(
            [*(flag_of(name) for name in FIELDS if name != "app"), *also]
        )

    def test_one_column(self, text: str) -> None:
        beside = re.findall(r"^(  --\S+(?: \S+)? {2,})\S", text, flags=re.MULTILINE)
        assert {len(left) for left in beside} == {32}

    def test_defaults(self, text: str) -> None:
        joined = " ".join(text.split())
        for shown in ("Port to listen on; 0 takes a free one [8000]", "[75s]", "[1GiB]", "[on]"):
            assert shown in joined
        assert "for each processor [1]" in joined

    def test_no_option_is_said_to_be_still_to_come(self, text: str) -> None:
        joined = " ".join(text.split())
        assert not re.search(r"not there yet|this version|Goes with", joined)

    def test_the_short_flag(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["-h"]) == 0
        assert capsys.readouterr().out == text


class TestPrinting:
    def test_the_configuration(
        self, served: list[Config], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["main:app", "--print-config", "--port=9"]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["port", "9", "--port"] in rows
        assert ["app", "main:app", "APP"] in rows
        assert ["backlog", "2048", "default"] in rows
        assert ["workers", "1", "default"] in rows
        assert served == []

    def test_a_mistake_is_told_instead(
        self, served: list[Config], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--print-config", "--no-supervise", "--workers=auto"]) == 2
        said = capsys.readouterr()
        assert "--supervise is off, and --workers auto needs it." in said.err
        assert said.out == ""

    def test_the_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        from tidegate import __version__

        assert main(["--version"]) == 0
        assert capsys.readouterr().out.startswith(f"tidegate {__version__} on ")

    def test_completion(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv(cli._COMPLETION, "bash_complete")
        monkeypatch.setenv("COMP_WORDS", "tidegate --loop uv")
        monkeypatch.setenv("COMP_CWORD", "2")
        with pytest.raises(SystemExit):
            main([])
        assert capsys.readouterr().out.split(",")[1].strip() == "uvloop"
