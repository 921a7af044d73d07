"""The dataclass: the same names and values as uvicorn, its checks, and what it says at start."""

from __future__ import annotations

import dataclasses
import pickle
import re
import traceback
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from tidegate.config import Config
from tidegate.config.fields import GROUPS
from tidegate.config.option import Kind, option_of
from tidegate.config.sources import FIELDS
from tidegate.errors import ConfigurationError

# uvicorn 0.54's options and defaults; those that differ are named in docs/configuration.md.
UVICORN: dict[str, Any] = {
    "host": "127.0.0.1", "port": 8000, "uds": None, "fd": None, "reload": False, "reload_dir": (),
    "reload_include": (), "reload_exclude": (), "reload_delay": 0.25, "workers": 1, "loop": "auto",
    "http": "auto", "ws": "auto", "ws_max_size": 16777216, "ws_max_queue": 32,
    "ws_ping_interval": 20, "ws_ping_timeout": 20, "ws_per_message_deflate": True,
    "lifespan": "auto", "interface": "auto", "env_file": None, "log_config": None,
    "log_level": "info", "access_log": True, "use_colors": None, "proxy_headers": True,
    "server_header": True, "date_header": True, "forwarded_allow_ips": "127.0.0.1,::1",
    "root_path": "", "limit_concurrency": None, "backlog": 2048, "limit_max_requests": None,
    "limit_max_requests_jitter": 0, "ssl_keyfile": None, "ssl_certfile": None, "ssl_keyfile_password": None, "ssl_version": 17, "ssl_cert_reqs": 0,
    "ssl_ca_certs": None, "ssl_ciphers": None, "header": (), "app_dir": "",
    "h11_max_incomplete_event_size": None, "reset_contextvars": False, "factory": False,
}  # fmt: skip
DIFFERENT = {
    "timeout_keep_alive": 75, "timeout_graceful_shutdown": 30, "timeout_worker_healthcheck": 30,
    "http2": True,
}  # fmt: skip
OURS = {
    "uds_mode": 0o660, "bind": (), "poller": "auto", "access_log_format": "default",
    "access_log_file": None, "proxy_protocol": "", "limit_request_line": 8192,
    "limit_header_size": 65536, "limit_header_count": 100, "limit_body_size": 1 << 30,
    "timeout_head": 10, "timeout_tls_handshake": 10, "timeout_request": 0, "timeout_linger": 2,
    "min_body_rate": 240, "grace_body": 5, "min_send_rate": 240, "grace_send": 10, "ssl_sni": (),
    "ssl_reload_interval": 10, "app": None, "h2c_upgrade": False, "http2_max_streams": 128,
    "http2_max_window": 1 << 20, "http2_max_resets": 1000, "http2_max_idle_frames": 1000,
    "limit_max_memory": None, "limit_max_lifetime": None, "supervise": None, "preload": False,
    "pid_file": None, "user": None, "group": None, "umask": None, "health_bind": (),
    "drain_delay": 0, "drain_idle": 5,
}  # fmt: skip


def pem(folder: Path) -> str:
    path = folder / "a.pem"
    path.write_text("x")
    return str(path)


class TestFields:
    @pytest.mark.parametrize(("name", "value"), [*(UVICORN | DIFFERENT | OURS).items()])
    def test_default(self, name: str, value: object) -> None:
        assert getattr(Config(), name) == value

    def test_that_is_all_of_them(self) -> None:
        assert set(FIELDS) == set(UVICORN | DIFFERENT | OURS)

    @pytest.mark.parametrize("name", FIELDS)
    def test_each_field_carries_everything(self, name: str) -> None:
        about = option_of(FIELDS[name])
        assert isinstance(about.kind, Kind)
        assert about.group in GROUPS
        assert about.text and not about.text.endswith(".")
        assert about.kind.right and about.kind.metavar

    @pytest.mark.parametrize("name", FIELDS)
    def test_the_default_passes_its_own_check(self, name: str) -> None:
        value = FIELDS[name].default
        if value is None:
            assert option_of(FIELDS[name]).optional
        else:
            found = option_of(FIELDS[name]).kind.read(value)
            assert (found, type(found)) == (value, type(value))

    @pytest.mark.parametrize("name", FIELDS)
    def test_none_is_allowed_where_the_type_says_so(self, name: str) -> None:
        hint = get_type_hints(Config)[name]
        assert option_of(FIELDS[name]).optional == (type(None) in getattr(hint, "__args__", ()))

    def test_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Config().port = 1  # type: ignore[misc]

    def test_can_go_to_another_process(self) -> None:
        config = Config("main:app", port=1, header=["A: b"])
        assert pickle.loads(pickle.dumps(config)) == config

    def test_in_place_and_by_name(self) -> None:
        config = Config("main:app", True)
        assert config == Config(factory=True, app="main:app")
        assert hash(config) == hash(Config("main:app", factory=True))
        assert config != Config("main:app")
        assert config != "main:app"
        assert repr(config).startswith("Config(app='main:app', factory=True, ")
        assert dataclasses.replace(config, port="9").port == 9

    @pytest.mark.parametrize(
        ("given", "more", "message"),
        [
            ((), {"prot": 9}, "there is no option 'prot'. Did you mean port?"),
            (("a:b",), {"app": "c:d"}, "the option 'app' is given twice"),
            (range(999), {}, "999 values for "),
        ],
    )
    def test_a_wrong_call(self, given: Any, more: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=re.escape(message)):
            Config(*given, **more)

    def test_the_password_is_in_no_traceback(self, tmp_path: Path) -> None:
        config = Config(ssl_certfile=pem(tmp_path), ssl_keyfile_password="hunter2")
        assert "hunter2" not in repr(config)


class TestChecks:
    def test_values_become_canonical(self) -> None:
        config = Config(
            port="80", limit_body_size="1MiB", timeout_head="2m", bind=["a:1", "b:2"],
            header=[("A", "b")], access_log="off", log_level=30, uds_mode="600", umask="0027",
            limit_max_memory="512MiB", limit_max_lifetime="12h", user=33, health_bind="a:1,unix:h",
        )  # fmt: skip
        assert config.port == 80
        assert config.limit_body_size == 1 << 20
        assert config.timeout_head == 120.0
        assert config.bind == ("a:1", "b:2")
        assert config.header == ("A: b",)
        assert config.access_log is False
        assert config.log_level == "warning"
        assert config.uds_mode == 0o600
        assert config.umask == 0o27
        assert config.limit_max_memory == 512 << 20
        assert config.limit_max_lifetime == 43200.0
        assert config.user == "33"
        assert config.health_bind == ("a:1", "unix:h")

    @pytest.mark.parametrize(
        ("name", "value", "least"),
        [("limit_max_memory", "1000KiB", "1MiB"), ("limit_max_lifetime", "999ms", "1s")],
    )
    def test_a_limit_that_would_only_replace_workers(
        self, name: str, value: str, least: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config(**{name: value})  # type: ignore[arg-type]
        assert f"at least {least}." in caught.value.hint

    def test_a_wrong_value(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config(port=70000)
        assert caught.value.message == "port is 70000: out of range."
        assert caught.value.hint == "Right would be a whole number from 0 to 65535."

    def test_whoever_calls_from_code_sees_the_hint_as_well(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config(port=70000)
        assert str(caught.value) == f"{caught.value.message}\n{caught.value.hint}"
        assert "".join(traceback.format_exception_only(caught.value)).endswith(
            "ConfigurationError: port is 70000: out of range.\n"
            "Right would be a whole number from 0 to 65535.\n"
        )
        assert str(ConfigurationError("that is all")) == "that is all"

    def test_an_application_object_needs_a_name_where_workers_import_it(self) -> None:
        for options, said in (
            ({"workers": 2}, "workers=2"),
            ({"workers": "auto"}, 'workers="auto"'),
            ({"reload": True}, "reload=True"),
            ({"supervise": True}, "..."),
        ):
            with pytest.raises(ConfigurationError) as caught:
                Config(app=object(), **options)  # type: ignore[arg-type]
            assert caught.value.hint == f'Give its name: tidegate.run("main:app", {said}).'

    def test_an_unknown_option(self) -> None:
        with pytest.raises(TypeError, match=r"'worker'\. Did you mean workers\?$"):
            Config(worker=2)  # type: ignore[call-arg]

    def test_a_long_wrong_value_is_cut(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config(loop="x" * 500)
        assert len(caught.value.message) < 150

    def test_a_wrong_secret_is_not_shown(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config(ssl_keyfile_password="hunter2\n")
        assert "hunter2" not in caught.value.message

    def test_none_where_a_value_is_due(self) -> None:
        with pytest.raises(ConfigurationError):
            Config(port=None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [None, "none"])
    def test_none_where_it_means_something(self, value: Any) -> None:
        assert Config(timeout_graceful_shutdown=value).timeout_graceful_shutdown is None

    @pytest.mark.parametrize(
        "name", ["ssl_keyfile", "ssl_keyfile_password", "ssl_cert_reqs", "ssl_ca_certs", "ssl_sni",
                 "ssl_ciphers"]
    )  # fmt: skip
    def test_tls_without_a_certificate(self, name: str, tmp_path: Path) -> None:
        path = pem(tmp_path)
        values: dict[str, Any] = {"ssl_cert_reqs": 2, "ssl_sni": [f"a.org={path}:{path}"]}
        with pytest.raises(ConfigurationError, match=r"ssl_.*nothing would be encrypted"):
            Config(**{name: values.get(name, path)})

    def test_client_certificates_without_an_authority(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config(ssl_certfile=pem(tmp_path), ssl_cert_reqs="required")
        assert "--ssl-ca-certs" in caught.value.hint
        assert Config(
            ssl_certfile=pem(tmp_path), ssl_cert_reqs=2, ssl_ca_certs=pem(tmp_path)
        ).ssl_cert_reqs == 2  # fmt: skip

    def test_a_factory_of_nothing(self) -> None:
        with pytest.raises(ConfigurationError, match="factory"):
            Config(factory=True)


class TestProcesses:
    """Whether a supervisor watches the workers, and what only it can do."""

    NEEDING: tuple[tuple[dict[str, Any], str], ...] = (
        ({"workers": 2}, "--workers 2"),
        ({"workers": "auto"}, "--workers auto"),
        ({"preload": True}, "--preload"),
        ({"reload": True}, "--reload"),
        ({"limit_max_memory": "1GiB"}, "--limit-max-memory"),
        ({"limit_max_lifetime": "1h"}, "--limit-max-lifetime"),
        ({"user": "www-data"}, "--user"),
        ({"group": "www-data"}, "--group"),
    )
    ALONE: tuple[dict[str, Any], ...] = (
        {}, {"workers": 1}, {"limit_max_requests": 9}, {"pid_file": "a.pid"}, {"umask": "027"},
        {"health_bind": "127.0.0.1:9"}, {"drain_delay": 9},
    )  # fmt: skip

    @pytest.mark.parametrize("values", ALONE)
    @pytest.mark.parametrize("supervise", [None, False])
    def test_one_process_does_it(self, values: dict[str, Any], supervise: bool | None) -> None:
        config = Config("main:app", supervise=supervise, **values)
        assert not config.supervised
        assert config.notes() == []

    @pytest.mark.parametrize("values", [values for values, _ in NEEDING])
    def test_a_supervisor_comes_by_itself(self, values: dict[str, Any]) -> None:
        assert Config("main:app", **values).supervised
        assert Config("main:app", supervise=True, **values).notes() == []

    def test_a_supervisor_for_a_single_worker(self) -> None:
        config = Config("main:app", supervise=True, timeout_worker_healthcheck=9, drain_idle=9)
        assert config.supervised
        assert config.notes() == []

    @pytest.mark.parametrize(("values", "flag"), NEEDING)
    def test_what_needs_it_beside_its_refusal(self, values: dict[str, Any], flag: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config("main:app", supervise=False, **values)
        assert caught.value.message == f"supervise is off, and {flag} needs it."
        assert caught.value.hint.startswith("Leave out --no-supervise")
        assert ("--workers 1" in caught.value.hint) == ("workers" in values)

    def test_one_worker_would_not_be_enough(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config("main:app", supervise=False, workers=4, preload=True)
        assert caught.value.message == "supervise is off, and --preload needs it."
        assert caught.value.hint == "Leave out --no-supervise."

    @pytest.mark.parametrize("values", [{"supervise": True}, *(values for values, _ in NEEDING)])
    def test_an_application_without_a_name(self, values: dict[str, Any]) -> None:
        assert Config(len).app is len
        with pytest.raises(ConfigurationError) as caught:
            Config(len, **values)
        assert caught.value.message.startswith("app is an object, and a supervisor needs its name")
        assert '"main:app"' in caught.value.hint

    def test_an_application_that_is_to_be_found(self) -> None:
        assert Config(workers=2).supervised

    def test_keeping_the_code_and_replacing_it(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Config("main:app", preload=True, reload=True)
        assert caught.value.message.startswith("preload and --reload exclude each other")
        assert "--preload" in caught.value.hint


class TestNotes:
    def test_nothing_to_say(self) -> None:
        assert (
            Config("main:app", port=1, timeout_keep_alive=5, http="auto", ws="none").notes() == []
        )

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"http": "h11"}, "--http h11 has no effect"),
            ({"h11_max_incomplete_event_size": 9}, "--limit-header-size"),
            ({"ws": "wsproto"}, "--ws wsproto has no effect"),
            ({"reload_dir": ["a"]}, "--reload-dir has no effect without --reload"),
            ({"reload_include": ["a"]}, "--reload-include has no effect without --reload"),
            ({"reload_exclude": ["a"]}, "--reload-exclude has no effect without --reload"),
            ({"reload_delay": 9}, "--reload-delay has no effect without --reload"),
            (
                {"timeout_worker_healthcheck": 9},
                "--timeout-worker-healthcheck has no effect without a supervisor",
            ),
            (
                {"timeout_worker_healthcheck": 9, "reload": True},
                "--timeout-worker-healthcheck has no effect with --reload",
            ),
            ({"drain_idle": 9}, "--drain-idle has no effect without a supervisor"),
            ({"limit_max_requests_jitter": 9}, "without --limit-max-requests"),
            ({"access_log_file": "a.log", "access_log": False}, "with --no-access-log"),
            ({"bind": ["a:1"], "port": 9}, "--port has no effect: --bind says where to listen"),
            ({"fd": 3, "uds": "a.sock"}, "--uds has no effect: --fd says where to listen"),
            ({"uds": "a.sock", "host": "::"}, "--host has no effect: --uds says where to listen"),
        ],
    )
    def test_one_sentence_for_each(self, values: dict[str, Any], said: str) -> None:
        notes = Config("main:app", **values).notes()
        assert len(notes) == 1
        assert said in notes[0]
        assert notes[0].endswith(".")

    def test_what_belongs_to_reloading_beside_it(self) -> None:
        config = Config(
            "main:app", reload=True, reload_dir="a", reload_include="*.html", reload_exclude="b",
            reload_delay=1,
        )  # fmt: skip
        assert config.notes() == []
