"""Where values come from, in which order, and how a mistake names its origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidegate.config import Resolved, describe, resolve
from tidegate.config.option import variable_of
from tidegate.config.sources import FIELDS
from tidegate.errors import ConfigurationError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mistake(flags: dict[str, object], environ: dict[str, str], cwd: Path) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        resolve(flags, environ, cwd)
    return caught.value


class TestPrecedence:
    LAYERS = ("flag", "variable", "env file", "tidegate.toml", "pyproject.toml", "default")

    def start(self, here: Path, first: int) -> Resolved:
        """Give the port in every place from `first` on, each place its own number."""
        given = dict(zip(self.LAYERS, range(1, 6), strict=False))
        flags: dict[str, object] = {"env_file": ".env"}
        environ = {}
        (here / ".env").write_text("")
        for layer in self.LAYERS[first:-1]:
            port = given[layer]
            if layer == "flag":
                flags["port"] = str(port)
            elif layer == "variable":
                environ["TIDEGATE_PORT"] = str(port)
            elif layer == "env file":
                (here / ".env").write_text(f"TIDEGATE_PORT={port}\n")
            elif layer == "tidegate.toml":
                (here / layer).write_text(f"port = {port}\n")
            else:
                (here / layer).write_text(f"[tool.tidegate]\nport = {port}\n")
        return resolve(flags, environ, here)

    @pytest.mark.parametrize(
        ("first", "port", "source"),
        [
            (0, 1, "--port"),
            (1, 2, "$TIDEGATE_PORT"),
            (2, 3, ".env:TIDEGATE_PORT"),
            (3, 4, "tidegate.toml:port"),
            (4, 5, "pyproject.toml:port"),
            (5, 8000, "default"),
        ],
    )
    def test_the_first_that_speaks(self, here: Path, first: int, port: int, source: str) -> None:
        resolved = self.start(here, first)
        assert resolved.config.port == port
        assert resolved.sources["port"] == source

    def test_option_by_option(self, here: Path) -> None:
        (here / "tidegate.toml").write_text('host = "::1"\n')
        (here / "pyproject.toml").write_text('[tool.tidegate]\nhost = "::"\nbacklog = 5\n')
        resolved = resolve({"port": "1"}, {"TIDEGATE_LOOP": "asyncio"}, here)
        config = resolved.config
        assert (config.host, config.backlog, config.port, config.loop) == ("::1", 5, 1, "asyncio")


class TestEnvironment:
    @pytest.mark.parametrize("name", FIELDS)
    def test_each_option_has_a_variable(self, name: str, here: Path) -> None:
        error = mistake({}, {variable_of(name): "\0"}, here)
        assert error.message.startswith(f"${variable_of(name)}")

    def test_what_other_servers_read(self, here: Path) -> None:
        environ = {"FORWARDED_ALLOW_IPS": "*", "WEB_CONCURRENCY": "1"}
        resolved = resolve({}, environ, here)
        assert resolved.config.forwarded_allow_ips == "*"
        assert resolved.sources["forwarded_allow_ips"] == "$FORWARDED_ALLOW_IPS"
        assert resolved.sources["workers"] == "$WEB_CONCURRENCY"
        both = resolve({}, environ | {"TIDEGATE_FORWARDED_ALLOW_IPS": "::1"}, here)
        assert both.config.forwarded_allow_ips == "::1"

    def test_several_workers_wanted_by_the_platform(self, here: Path) -> None:
        resolved = resolve({}, {"WEB_CONCURRENCY": "4"}, here)
        assert resolved.config.workers == 4
        assert resolved.config.supervised
        assert resolved.sources["workers"] == "$WEB_CONCURRENCY"
        error = mistake({}, {"WEB_CONCURRENCY": "many"}, here)
        assert error.message == "$WEB_CONCURRENCY is 'many': not a whole number."
        assert "from 1 to 256, or auto" in error.hint

    def test_the_platforms_wish_is_the_last_of_the_environment(self, here: Path) -> None:
        environ = {"WEB_CONCURRENCY": "4"}
        both = resolve({}, environ | {"TIDEGATE_WORKERS": "auto"}, here)
        assert both.config.workers == 0
        assert both.sources["workers"] == "$TIDEGATE_WORKERS"
        (here / "tidegate.toml").write_text("workers = 2\n")
        assert resolve({}, environ, here).config.workers == 4
        single = resolve({"workers": "1"}, environ, here).config
        assert (single.workers, single.supervised) == (1, False)

    def test_an_empty_variable_is_not_set(self, here: Path) -> None:
        resolved = resolve({}, {"TIDEGATE_PORT": "", "TIDEGATE_LOG_CONFIG": ""}, here)
        assert resolved.config.port == 8000
        assert resolved.sources["log_config"] == "default"

    def test_an_empty_list_of_trusted_proxies_trusts_nobody(self, here: Path) -> None:
        resolved = resolve({}, {"FORWARDED_ALLOW_IPS": ""}, here)
        assert resolved.config.forwarded_allow_ips == ""

    def test_several_values(self, here: Path) -> None:
        environ = {"TIDEGATE_BIND": "a:1,b:2", "TIDEGATE_HEADER": "A: 1, 2\nB: 3"}
        config = resolve({}, environ, here).config
        assert config.bind == ("a:1", "b:2")
        assert config.header == ("A: 1, 2", "B: 3")

    def test_a_variable_that_is_nearly_ours(self, here: Path) -> None:
        environ = {"TIDEGATE_PROT": "1", "TIDEGATE_ZZZZZZZZZZ": "1", "TIDEGATE_PORT": "1"}
        (warning,) = resolve({}, environ, here).warnings
        assert warning.startswith("$TIDEGATE_PROT is not read")
        assert "Did you mean TIDEGATE_PORT" in warning

    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("TIDEGATE_WORKER", "TIDEGATE_WORKERS"),
            ("TIDEGATE_TIMEOUT", "TIDEGATE_TIMEOUT_WORKER_HEALTHCHECK"),
            ("TIDEGATE_CHDIR", "TIDEGATE_APP_DIR"),
        ],
    )
    def test_the_warning_names_the_variable(self, here: Path, variable: str, meant: str) -> None:
        (warning,) = resolve({}, {variable: "1"}, here).warnings
        assert warning.endswith(f" Did you mean {meant}?")


class TestEnvFile:
    def test_named_by_a_file(self, here: Path) -> None:
        (here / "tidegate.toml").write_text('env_file = "my.env"\n')
        (here / "my.env").write_text("FORWARDED_ALLOW_IPS=*\nTIDEGATE_ENV_FILE=other\n")
        resolved = resolve({}, {}, here)
        assert resolved.config.forwarded_allow_ips == "*"
        assert resolved.config.env_file == "my.env"
        assert resolved.sources["env_file"] == "tidegate.toml:env_file"

    def test_does_not_overrule_the_environment(self, here: Path) -> None:
        (here / ".env").write_text("FORWARDED_ALLOW_IPS=*\n")
        resolved = resolve({"env_file": ".env"}, {"FORWARDED_ALLOW_IPS": "::1"}, here)
        assert resolved.config.forwarded_allow_ips == "::1"

    def test_a_variable_in_it_that_is_nearly_ours(self, here: Path) -> None:
        (here / ".env").write_text("TIDEGATE_PROT=5\n")
        (warning,) = resolve({"env_file": ".env"}, {}, here).warnings
        assert "$TIDEGATE_PROT" in warning

    def test_a_wrong_value_in_it(self, here: Path) -> None:
        (here / ".env").write_text("TIDEGATE_PORT=x\n")
        assert mistake({"env_file": ".env"}, {}, here).message.startswith(
            ".env:TIDEGATE_PORT is 'x'"
        )

    def test_that_is_not_there(self, here: Path) -> None:
        error = mistake({}, {"TIDEGATE_ENV_FILE": "no.env"}, here)
        assert error.message == "$TIDEGATE_ENV_FILE is 'no.env': there is no such file."


class TestFiles:
    def test_dashes_and_toml_types(self, here: Path) -> None:
        (here / "tidegate.toml").write_text(
            'access-log = false\ntimeout-head = 2.5\nbind = ["a:1", "b:2"]\nuds_mode = "0600"\n'
            'limit-body-size = "1MiB"\nlog_config = {version = 1}\n'
            'workers = "auto"\nuser = 33\numask = "027"\nhealth-bind = "127.0.0.1:9"\n'
            "limit_max_lifetime = 3600\nsupervise = true\n"
        )
        config = resolve({}, {}, here).config
        assert config.access_log is False
        assert config.timeout_head == 2.5
        assert config.bind == ("a:1", "b:2")
        assert config.uds_mode == 0o600
        assert config.limit_body_size == 1 << 20
        assert config.log_config == {"version": 1}
        assert config.workers == 0
        assert config.user == "33"
        assert config.umask == 0o27
        assert config.health_bind == ("127.0.0.1:9",)
        assert config.limit_max_lifetime == 3600.0
        assert config.supervise is True

    @pytest.mark.parametrize(
        ("text", "message", "hint"),
        [
            ("prot = 1", "tidegate.toml: there is no option 'prot'.", "Did you mean port"),
            ("zzzz = 1", "tidegate.toml: there is no option 'zzzz'.", "--help"),
            ("port = 99999", "tidegate.toml:port is 99999: out of range.", "65535"),
            ("http-2 = 1\nport = 'x'", "tidegate.toml: there is no option 'http-2'.", "http2"),
            (
                "log-level = 'info'\nlog_level = 'info'",
                "tidegate.toml: log_level is there twice.",
                "",
            ),
            ("worker = 2", "tidegate.toml: there is no option 'worker'.", "Did you mean workers?"),
            ("max-requests = 2", "there is no option 'max-requests'", "mean limit_max_requests?"),
            ("umask = 27", "tidegate.toml:umask is 27: a decimal number in TOML", 'such as "0027"'),
            ("umask = 0o027", "umask is 23: a decimal number in TOML, octal 0027.", '"0027"'),
            ("uds_mode = 660", "tidegate.toml:uds_mode is 660: a decimal", 'such as "0660"'),
            ("port = ", "tidegate.toml is not valid TOML", ""),
            ("[port]\na = 1", "tidegate.toml:port is {'a': 1}: not a whole number.", ""),
        ],
    )
    def test_mistakes(self, here: Path, text: str, message: str, hint: str) -> None:
        (here / "tidegate.toml").write_text(text)
        error = mistake({}, {}, here)
        assert message in error.message
        assert hint in error.hint

    def test_a_mode_that_is_overruled_is_not_looked_at(self, here: Path) -> None:
        (here / "tidegate.toml").write_text("umask = 27\n")
        assert resolve({"umask": "077"}, {}, here).config.umask == 0o77

    def test_a_project_that_does_not_speak_of_us(self, here: Path) -> None:
        (here / "pyproject.toml").write_text("[this is = not TOML")
        assert resolve({}, {}, here).config.port == 8000
        (here / "pyproject.toml").write_text('[project]\ndependencies = ["tidegate"]\n')
        assert resolve({}, {}, here).config.port == 8000

    @pytest.mark.parametrize(
        "text",
        [
            "[tool.tidegate]\nport = 9",
            "[ \"tool\" . 'tidegate' ]\nport = 9",
            "[tool]\ntidegate.port = 9",
            "[ tool ]\ntidegate = {port = 9}",
            "tool.tidegate.port = 9",
            "tool . 'tidegate' = {port = 9}",
            "tool = {tidegate = {port = 9}}",
            '"t\\u006Fol".tidegate.port = 9',
        ],
    )
    def test_every_way_to_write_the_table(self, here: Path, text: str) -> None:
        (here / "pyproject.toml").write_text(text)
        assert resolve({}, {}, here).config.port == 9

    def test_our_name_alone_is_no_table(self, here: Path) -> None:
        text = '[project.scripts]\ntidegate = "tidegate:run"\n[tool.ruff]\n[this is = not TOML'
        (here / "pyproject.toml").write_text(text)
        assert resolve({}, {}, here).config.port == 8000

    def test_a_table_that_is_none(self, here: Path) -> None:
        (here / "pyproject.toml").write_text("[tool]\ntidegate = 5\n")
        assert mistake({}, {}, here).message.endswith("tool.tidegate is not a table.")

    def test_in_the_app_dir_first(self, here: Path) -> None:
        (here / "inner").mkdir()
        (here / "tidegate.toml").write_text("port = 1\n")
        assert resolve({"app_dir": "inner"}, {}, here).config.port == 1
        (here / "inner" / "tidegate.toml").write_text("port = 2\n")
        resolved = resolve({"app_dir": "inner"}, {}, here)
        assert resolved.config.port == 2
        assert resolved.sources["port"].endswith("inner/tidegate.toml:port")
        assert resolve({}, {"TIDEGATE_APP_DIR": "inner"}, here).config.port == 2
        assert resolve({}, {}, here).config.port == 1

    def test_paths_beside_the_application(self, here: Path) -> None:
        inner = here / "inner"
        inner.mkdir()
        for name in ("c.pem", "k.pem"):
            (inner / name).write_text("x")
        (inner / "tidegate.toml").write_text(
            'ssl_certfile = "c.pem"\nssl_sni = ["a.org=c.pem:k.pem"]\nhost = "c.pem"\n'
            'pid_file = "a.pid"\nreload_dir = ["src", "/srv"]\nreload = true\n'
        )
        config = resolve({"app_dir": str(inner)}, {}, here).config
        assert config.ssl_certfile == f"{inner}/c.pem"
        assert config.ssl_sni == (f"a.org={inner}/c.pem:{inner}/k.pem",)
        assert config.host == "c.pem"
        assert config.pid_file == f"{inner}/a.pid"
        assert config.reload_dir == (f"{inner}/src", "/srv")


class TestMistakes:
    def test_a_flag(self, here: Path) -> None:
        error = mistake({"port": "x"}, {}, here)
        assert error.message == "--port is 'x': not a whole number."
        assert "65535" in error.hint

    def test_an_argument(self, here: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"run\(port\) is 'x'"):
            resolve({"port": "x"}, {}, here, origin=lambda name: f"run({name})")

    def test_an_unknown_argument(self, here: Path) -> None:
        error = mistake({"prot": 1}, {}, here)
        assert error.message == "There is no option 'prot'."
        assert "port" in error.hint

    def test_a_conflict_names_the_origin(self, here: Path) -> None:
        (here / "k.pem").write_text("x")
        error = mistake({}, {"TIDEGATE_SSL_KEYFILE": "k.pem"}, here)
        assert error.message.startswith("$TIDEGATE_SSL_KEYFILE is given without --ssl-certfile")

    @pytest.mark.parametrize(
        ("flags", "environ", "text", "message"),
        [
            ({"supervise": False}, {"WEB_CONCURRENCY": "4"}, "",
             "--supervise is off, and --workers 4 needs it."),
            ({"preload": True}, {"TIDEGATE_SUPERVISE": "no"}, "",
             "$TIDEGATE_SUPERVISE is off, and --preload needs it."),
            ({"reload": True}, {}, "preload = true",
             "tidegate.toml:preload and --reload exclude each other"),
        ],
    )  # fmt: skip
    def test_a_conflict_of_processes_names_the_origin(
        self, flags: dict[str, object], environ: dict[str, str], text: str, message: str, here: Path
    ) -> None:
        (here / "tidegate.toml").write_text(text)
        assert mistake(flags, environ, here).message.startswith(message)

    def test_a_secret_stays_one(self, here: Path) -> None:
        error = mistake({"ssl_keyfile_password": "hunter2\n"}, {}, here)
        assert "hunter2" not in error.message + error.hint


class TestDescribe:
    def printed(self, here: Path, flags: dict[str, Any]) -> dict[str, list[str]]:
        text = describe(resolve(flags, {}, here))
        rows = [line for line in text.splitlines() if line.startswith("  ")]
        return {row.split()[0]: row.split()[1:] for row in rows}

    def test_every_value_and_its_source(self, here: Path) -> None:
        rows = self.printed(here, {"port": "1", "timeout_head": "90s"})
        assert set(rows) == set(FIELDS)
        assert rows["port"] == ["1", "--port"]
        assert rows["timeout_head"] == ["90s", "--timeout-head"]
        assert rows["limit_body_size"] == ["1GiB", "default"]
        assert rows["access_log"] == ["on", "default"]
        assert rows["uds"] == ["none", "default"]
        assert rows["root_path"] == ["(empty)", "default"]
        assert rows["supervise"] == ["none", "default"]

    def test_processes(self, here: Path) -> None:
        rows = self.printed(here, {"workers": "auto", "umask": "0027", "user": "www-data"})
        assert rows["workers"] == ["auto", "--workers"]
        assert rows["supervise"] == ["none", "default"]  # it follows from the others
        assert rows["umask"] == ["0027", "--umask"]
        assert rows["uds_mode"] == ["0660", "default"]
        assert rows["user"] == ["www-data", "--user"]
        assert rows["limit_max_memory"] == ["none", "default"]

    def test_aligned(self, here: Path) -> None:
        rows = describe(resolve({}, {}, here)).splitlines()
        ends = {row.rindex("  default") for row in rows if row.startswith("  ")}
        assert len(ends) == 1

    def test_secrets_are_masked(self, here: Path) -> None:
        (here / "c.pem").write_text("x")
        flags = {"ssl_certfile": "c.pem", "ssl_keyfile_password": "hunter2"}
        text = describe(resolve(flags, {}, here))
        assert "hunter2" not in text
        assert "********" in text
