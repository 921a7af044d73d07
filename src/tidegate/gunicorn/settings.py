"""Gunicorn's settings, `TIDEGATE_` variables and the class's own options -> our configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tidegate.config import Config
from tidegate.config.option import option_of, variable_of
from tidegate.config.sources import FIELDS, resolve
from tidegate.errors import ConfigurationError

UNLIMITED = 1 << 30  # Gunicorn's 0
MOST_FIELDS = 32768  # Gunicorn's own ceiling for --limit-request-fields

# What is Gunicorn's business (its setting, or "" where it has none), and our options for it.
_THEIRS = {
    "APP": "app factory",
    "--chdir": "app_dir",
    "--bind": "host port uds fd bind",
    "--backlog": "backlog",
    "--umask": "umask uds_mode",
    "--user": "user",
    "--group": "group",
    "--pid": "pid_file",
    "--workers": "workers",
    "--preload": "preload",
    "--timeout": "timeout_worker_healthcheck",
    "--max-requests": "limit_max_requests limit_max_memory limit_max_lifetime",
    "--max-requests-jitter": "limit_max_requests_jitter",
    "--reload": "reload reload_delay",
    "--reload-extra-file": "reload_dir reload_include",
    "--log-level": "log_level",
    "--log-config": "log_config use_colors",
    "--access-logfile": "access_log access_log_file",
    "--access-logformat": "access_log_format",
    "": "supervise health_bind drain_delay reload_exclude",
}
GUNICORNS = {name: theirs for theirs, names in _THEIRS.items() for name in names.split()}

# Settings of Gunicorn's that mean something to its own worker classes only.
NOT_HERE = "threads worker_connections pre_request post_request secure_scheme_headers http_parser"


def read_settings(
    cfg: Any, options: Mapping[str, object], *, unix: bool = False
) -> tuple[Config, list[str]]:
    """The class's options, then TIDEGATE_ variables, Gunicorn's settings, files, our defaults;
    and a note on each that was given and has no effect. Raises ConfigurationError.

    `unix`: one of Gunicorn's sockets is a Unix socket.
    """
    _refuse(cfg, options)
    said = {name: one for name, one in _said(cfg, unix).items() if not _has_variable(name)}
    flags = {name: value for name, (value, _) in said.items()} | dict(options)
    theirs = {variable_of(name) for name in GUNICORNS} | {"WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"}
    resolved = resolve(
        flags,
        {name: value for name, value in os.environ.items() if name not in theirs},
        os.getcwd(),
        origin=lambda name: f"options[{name!r}]" if name in options else said[name][1],
    )
    notes = [*_idle_options(resolved.sources), *_idle_settings(cfg), *resolved.warnings]
    return resolved.config, notes


def _refuse(cfg: Any, options: Mapping[str, object]) -> None:
    for name in options:
        if name in GUNICORNS:
            raise ConfigurationError(f"options[{name!r}] {_no_effect(name)}", "Take it out.")
    if getattr(cfg, "protocol", "http") != "http":
        raise ConfigurationError(
            f"--protocol {cfg.protocol} is not served by Tidegate's worker class.",
            "Let the proxy speak HTTP (proxy_pass), or use a worker class of Gunicorn's own.",
        )
    hook = cfg.settings.get("ssl_context")
    if hook is not None and cfg.is_ssl and hook.get() is not hook.default:
        raise ConfigurationError(
            "Tidegate's worker class makes its TLS contexts itself, and calls no hook ssl_context.",
            "Take it out; --certfile, --ciphers and the TIDEGATE_SSL_ variables are read.",
        )


def _said(cfg: Any, unix: bool) -> dict[str, tuple[object, str]]:
    """Gunicorn's settings, its defaults included, as options of ours: value and origin."""
    grace = _grace(cfg)
    proxied = getattr(cfg, "proxy_protocol", False) not in (False, "off")
    message = getattr(cfg, "websocket_max_message_size", None)
    # fmt: off
    given = {
        "ssl_certfile": (cfg.certfile, "--certfile"),
        "ssl_keyfile": (cfg.keyfile, "--keyfile"),
        "ssl_ca_certs": (cfg.ca_certs, "--ca-certs"),
        "ssl_cert_reqs": (int(cfg.cert_reqs or 0), "--cert-reqs"),
        "ssl_ciphers": (cfg.ciphers, "--ciphers"),
        "proxy_protocol": (proxied and _peers(cfg.proxy_allow_ips, unix), "--proxy-protocol"),
        "root_path": (getattr(cfg, "root_path", ""), "--root-path"),
        "loop": (getattr(cfg, "asgi_loop", "auto"), "--asgi-loop"),
        "lifespan": (getattr(cfg, "asgi_lifespan", "auto"), "--asgi-lifespan"),
        "ws_max_size": (UNLIMITED if message == 0 else message, "--websocket-max-message-size"),
    }
    always = {
        "timeout_keep_alive": (cfg.keepalive, "--keep-alive"),
        "timeout_graceful_shutdown": (grace, "--graceful-timeout"),
        "drain_idle": (min(5.0, grace / 2), "--graceful-timeout"),
        "timeout_linger": (min(2.0, grace / 2), "--graceful-timeout"),
        "limit_request_line": (cfg.limit_request_line or UNLIMITED, "--limit-request-line"),
        "limit_header_count": (cfg.limit_request_fields or MOST_FIELDS, "--limit-request-fields"),
        "limit_header_size": (_fields_size(cfg), "--limit-request-field_size"),
        "forwarded_allow_ips": (_peers(cfg.forwarded_allow_ips, unix), "--forwarded-allow-ips"),
    }
    # fmt: on
    return always | {name: one for name, one in given.items() if one[0] and one[0] != "auto"}


def _grace(cfg: Any) -> float:
    """Seconds to drain: what is left of --graceful-timeout, after which Gunicorn kills, is for the
    application's shutdown. With --reload somebody waits for the new code."""
    whole = float(cfg.graceful_timeout)
    grace = max(whole * 0.8, whole - 2.0)
    return min(grace, 2.0) if cfg.reload else grace


def _fields_size(cfg: Any) -> int:
    """We bound all fields together: 64 KiB, or one of the size Gunicorn allows where that is more;
    less where all of Gunicorn's together are less."""
    one: int = cfg.limit_request_field_size or UNLIMITED
    return min(max(65536, one), (cfg.limit_request_fields or MOST_FIELDS) * (one + 2))


def _peers(addresses: Any, unix: bool) -> str:
    """To Gunicorn whoever comes by a Unix socket is a trusted proxy."""
    listed = [addresses] if isinstance(addresses, str) else [*addresses]
    return ",".join([*listed, "unix:"] if unix else listed)


def _has_variable(name: str) -> bool:
    value = os.environ.get(variable_of(name))
    return bool(value) or (value == "" and option_of(FIELDS[name]).kind.may_be_empty)


def _no_effect(name: str) -> str:
    theirs = GUNICORNS[name]
    return "has no effect under Gunicorn" + (f": its own {theirs} counts." if theirs else ".")


def _idle_options(sources: Mapping[str, str]) -> list[str]:
    given = {name: sources[name] for name in GUNICORNS if sources[name] != "default"}
    given |= {name: f"${variable_of(name)}" for name in GUNICORNS if _has_variable(name)}
    return [f"{origin} {_no_effect(name)}" for name, origin in given.items()]


def _idle_settings(cfg: Any) -> list[str]:
    known = [cfg.settings[name] for name in NOT_HERE.split() if name in cfg.settings]
    given = [one.name for one in known if one.get() != type(one)().get()]
    return [f"Gunicorn's setting {name} has no effect with Tidegate's workers." for name in given]
