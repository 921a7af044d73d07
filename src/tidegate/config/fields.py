"""All options, each written once: type, default, kind (what is allowed), group and help.

The command line, the environment variables, the files, `--print-config` and the table in the docs
are generated from these fields. Where uvicorn has an option, ours has its name and meaning.
Seconds and bytes; None means "not set", and what 0 means is said where it is special.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tidegate.config.kinds import (
    Choice,
    Directory,
    Duration,
    File,
    Many,
    Mode,
    NewFile,
    Rate,
    Size,
    Switch,
    Text,
    Whole,
)
from tidegate.config.option import Settings, flag_of, option, settings
from tidegate.config.particular import (
    AccessLogFormat,
    Account,
    Application,
    Folder,
    HeaderField,
    LogConfig,
    NamedCertificate,
    Pattern,
    Port,
    RootPath,
    TlsVersion,
    TrustedPeers,
    Workers,
)
from tidegate.errors import ConfigurationError

APPLICATION = "Application"
LISTEN = "Where to listen"
TLS = "TLS"
PROXY = "Behind a proxy"
ANSWERS = "Response headers"
LIMITS = "Limits"
TIMEOUTS = "Timeouts"
LOGS = "Logs"
HTTP2 = "HTTP/2"
SOCKETS = "WebSocket"
PROCESS = "Process & loop"
OPERATIONS = "Restarts and operations"
RELOAD = "Reloading while you write"
COMPATIBILITY = "Compatibility"
GROUPS = (
    APPLICATION, LISTEN, TLS, PROXY, ANSWERS, LIMITS, TIMEOUTS, HTTP2, SOCKETS, LOGS, PROCESS,
    OPERATIONS, RELOAD, COMPATIBILITY,
)  # fmt: skip

# sockaddr_un.sun_path has 108 bytes on Linux and 104 on the BSDs and macOS, with the closing NUL.
_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_LEVELS = {50: "critical", 40: "error", 30: "warning", 20: "info", 10: "debug", 5: "trace"}
_CERT_REQS = {"none": 0, "optional": 1, "required": 2}
_PEM = "a PEM file"


class ConflictError(ConfigurationError):
    """An option that cannot be beside the others: `name`, and `what` completes the sentence."""

    def __init__(self, name: str, what: str, hint: str) -> None:
        super().__init__(f"{name} {what}", hint)
        self.name = name
        self.what = what


@settings
class Config(Settings):
    """Every setting of a server, checked; raises ConfigurationError. Reads no environment."""

    app: object | None = option(
        None, Application(), APPLICATION, "What to serve: main:app; found by itself if left out"
    )
    factory: bool = option(False, Switch(), APPLICATION, "APP is a function that returns the app")
    app_dir: str = option("", Directory(), APPLICATION, "Directory to import APP from")
    interface: str = option(
        "auto", Choice("auto", "asgi3", "asgi2", "wsgi"), APPLICATION, "auto, asgi3, asgi2 or wsgi"
    )
    lifespan: str = option(
        "auto",
        Choice("auto", "on", "off"),
        APPLICATION,
        "Startup and shutdown events: auto, on, off",
    )
    root_path: str = option("", RootPath(), APPLICATION, "Path the application is mounted at")
    env_file: str | None = option(
        None, File("a file of NAME=value lines"), APPLICATION, "File of NAME=value lines to export"
    )
    reset_contextvars: bool = option(
        False, Switch(), APPLICATION, "Hide lifespan's context variables from requests"
    )

    host: str = option("127.0.0.1", Text("a host or address"), LISTEN, "Host to listen on")
    port: int = option(8000, Port(), LISTEN, "Port to listen on; 0 takes a free one")
    uds: str | None = option(
        None, NewFile("the path of a socket", _LONGEST_SOCKET_PATH), LISTEN, "Unix socket instead"
    )
    uds_mode: int = option(0o660, Mode("0660"), LISTEN, "Permissions of Unix sockets")
    fd: int | None = option(None, Whole(0), LISTEN, "Inherited socket instead")
    bind: tuple[str, ...] = option(
        (),
        Many(Text("HOST:PORT, unix:PATH, fd://N or systemd", metavar="WHERE")),
        LISTEN,
        "HOST:PORT, unix:PATH, fd://N or systemd; repeatable; replaces the others",
    )
    backlog: int = option(2048, Whole(1), LISTEN, "Connections the kernel keeps in wait")

    ssl_keyfile: str | None = option(None, File(_PEM), TLS, "Private key, if not in the certfile")
    ssl_certfile: str | None = option(None, File(_PEM), TLS, "Certificate chain; turns TLS on")
    ssl_keyfile_password: str | None = option(
        None, Text("a password"), TLS, "Password of the private key", secret=True
    )
    ssl_version: int = option(17, TlsVersion(), TLS, "17: TLS 1.2 and 1.3; 5: TLS 1.2 alone")
    ssl_cert_reqs: int = option(
        0, Whole(0, 2, _CERT_REQS), TLS, "Client certificate: 0 none, 1 optional, 2 required"
    )
    ssl_ca_certs: str | None = option(None, File(_PEM), TLS, "CAs that vouch for clients")
    ssl_ciphers: str | None = option(
        None, Text("a list in OpenSSL's format"), TLS, "TLS 1.2 ciphers, in OpenSSL's format"
    )
    ssl_sni: tuple[str, ...] = option(
        (), Many(NamedCertificate()), TLS, "Certificate for one host name; repeatable"
    )
    ssl_reload_interval: float = option(
        10.0, Duration(), TLS, "How often to look for changed certificates; 0: never"
    )

    proxy_headers: bool = option(True, Switch(), PROXY, "Believe (X-)Forwarded of trusted proxies")
    forwarded_allow_ips: str = option(
        "127.0.0.1,::1",
        TrustedPeers(),
        PROXY,
        "Proxies to trust: addresses, networks, socket paths or *",
        fallback="FORWARDED_ALLOW_IPS",
    )
    proxy_protocol: str = option(
        "", TrustedPeers(), PROXY, "Peers that speak the PROXY protocol (v1 or v2)"
    )

    server_header: bool = option(True, Switch(), ANSWERS, "Send the Server header")
    date_header: bool = option(True, Switch(), ANSWERS, "Send the Date header")
    header: tuple[str, ...] = option(
        (),
        Many(HeaderField(), commas=False),
        ANSWERS,
        "Header for every response, 'Name: value'; repeatable",
    )

    limit_concurrency: int | None = option(
        None, Whole(1), LIMITS, "Connections or requests at once; beyond: 503"
    )
    limit_max_requests: int | None = option(
        None, Whole(1), LIMITS, "Requests after which a worker is replaced; a lone one stops"
    )
    limit_max_requests_jitter: int = option(0, Whole(0), LIMITS, "At random up to so many more")
    limit_max_memory: int | None = option(
        None, Size(1 << 20), LIMITS, "Memory at which a worker is replaced by a new one"
    )
    limit_max_lifetime: float | None = option(
        None, Duration(1.0), LIMITS, "Age at which a worker is replaced by a new one"
    )
    limit_request_line: int = option(8192, Size(64), LIMITS, "Longest request line")
    limit_header_size: int = option(65536, Size(256), LIMITS, "All request headers together")
    limit_header_count: int = option(100, Whole(1), LIMITS, "Request headers, in number")
    limit_body_size: int = option(1 << 30, Size(), LIMITS, "Longest request body; 0: any")
    min_body_rate: int = option(240, Rate(), LIMITS, "Bytes/s a body must come at; 0: any")
    min_send_rate: int = option(240, Rate(), LIMITS, "Bytes/s a client must read at; 0: any")

    timeout_head: float = option(10.0, Duration(0.001), TIMEOUTS, "For a whole request head")
    timeout_tls_handshake: float = option(10.0, Duration(0.001), TIMEOUTS, "For a TLS handshake")
    timeout_keep_alive: float = option(75.0, Duration(), TIMEOUTS, "An idle connection is kept")
    timeout_request: float = option(0.0, Duration(), TIMEOUTS, "For a whole request; 0: any time")
    timeout_linger: float = option(
        2.0, Duration(), TIMEOUTS, "For a client to take the last answer before the close"
    )
    timeout_graceful_shutdown: float | None = option(
        30.0, Duration(), TIMEOUTS, "For open requests at the end; none: any time", optional=True
    )
    grace_body: float = option(5.0, Duration(), TIMEOUTS, "Before --min-body-rate is asked for")
    grace_send: float = option(10.0, Duration(), TIMEOUTS, "Before --min-send-rate is asked for")

    http2: bool = option(True, Switch(), HTTP2, "Serve HTTP/2 beside HTTP/1.1")
    h2c_upgrade: bool = option(False, Switch(), HTTP2, "Allow Upgrade: h2c, which is obsolete")
    http2_max_streams: int = option(128, Whole(1), HTTP2, "Requests at once on a connection")
    http2_max_window: int = option(
        1 << 20, Size(1024), HTTP2, "Bytes of bodies read ahead, of a connection"
    )
    http2_max_resets: int = option(
        1000, Whole(1), HTTP2, "Requests a client may cancel; a tenth more each second"
    )
    http2_max_idle_frames: int = option(
        1000, Whole(1), HTTP2, "Frames without content; a tenth more each second"
    )

    log_level: str = option(
        "info",
        Choice(*_LEVELS.values(), aliases=_LEVELS),  # type: ignore[arg-type]
        LOGS,
        "critical, error, warning, info, debug or trace",
    )
    log_config: str | Mapping[str, Any] | None = option(
        None, LogConfig(), LOGS, "logging.config file: .json, .yaml, .toml, .ini"
    )
    access_log: bool = option(True, Switch(), LOGS, "A line for each request")
    access_log_format: str = option(
        "default",
        AccessLogFormat("default", "common", "combined", "json"),
        LOGS,
        "default, common, combined, json or a {template}",
    )
    access_log_file: str | None = option(
        None, NewFile("the path of a log file"), LOGS, "File for it, instead of standard output"
    )
    use_colors: bool | None = option(None, Switch(), LOGS, "Colours; by default on a terminal only")

    loop: str = option(
        "auto", Choice("auto", "asyncio", "uvloop"), PROCESS, "auto, asyncio or uvloop"
    )
    poller: str = option(
        "auto", Choice("auto", "epoll", "reader"), PROCESS, "auto, epoll or reader"
    )
    workers: int = option(
        1,
        Workers(),
        PROCESS,
        "Processes that serve; auto: one for each processor",
        fallback="WEB_CONCURRENCY",
    )
    supervise: bool | None = option(
        None, Switch(), PROCESS, "Watch and replace the workers; on by itself where needed"
    )
    preload: bool = option(
        False, Switch(), PROCESS, "Import the application once, then fork the workers"
    )
    timeout_worker_healthcheck: float = option(
        30.0, Duration(), PROCESS, "A worker that hangs for so long is replaced; 0: never"
    )

    pid_file: str | None = option(
        None, NewFile("the path of a file"), OPERATIONS, "File to write the process number to"
    )
    user: str | None = option(
        None, Account("the name or number of a user"), OPERATIONS, "User to serve as, after binding"
    )
    group: str | None = option(
        None, Account("the name or number of a group"), OPERATIONS, "Group to serve as"
    )
    umask: int | None = option(None, Mode("0027"), OPERATIONS, "Permissions new files do not get")
    health_bind: tuple[str, ...] = option(
        (),
        Many(Text("HOST:PORT or unix:PATH", metavar="WHERE")),
        OPERATIONS,
        "Where /ready and /live are answered; repeatable",
    )
    drain_delay: float = option(
        0.0, Duration(), OPERATIONS, "Before a stop: time to serve on while /ready says no"
    )
    drain_idle: float = option(
        5.0, Duration(), OPERATIONS, "At a restart: time for idle connections to ask once more"
    )

    reload: bool = option(False, Switch(), RELOAD, "Restart when files change")
    reload_dir: tuple[str, ...] = option(
        (), Many(Folder()), RELOAD, "Directory to watch, instead of the working one"
    )
    reload_include: tuple[str, ...] = option(
        (), Many(Pattern()), RELOAD, "Beside *.py: a pattern such as *.html, or a directory"
    )
    reload_exclude: tuple[str, ...] = option(
        (), Many(Pattern()), RELOAD, "Files or directories that do not count"
    )
    reload_delay: float = option(0.25, Duration(), RELOAD, "How long to wait for further changes")
    http: str = option(
        "auto",
        Choice("auto", "h11", "httptools", "zttp"),
        COMPATIBILITY,
        "Tidegate has its own parser",
    )
    h11_max_incomplete_event_size: int | None = option(
        None, Size(1), COMPATIBILITY, "See --limit-request-line, --limit-header-size"
    )
    ws: str = option(
        "auto",
        Choice("auto", "none", "websockets", "websockets-sansio", "wsproto"),
        SOCKETS,
        "none: not served. Other names: Tidegate has its own implementation",
    )
    ws_max_size: int = option(16777216, Size(1), SOCKETS, "Of one message")
    ws_max_queue: int = option(
        32, Whole(0), SOCKETS, "Messages read ahead of the application; 0: 64 KiB of them"
    )
    ws_ping_interval: float | None = option(
        20.0, Duration(), SOCKETS, "Between two pings", optional=True
    )
    ws_ping_timeout: float | None = option(
        20.0, Duration(), SOCKETS, "For the answer to a ping", optional=True
    )
    ws_per_message_deflate: bool = option(
        True, Switch(spelled=True), SOCKETS, "Compress messages, for clients that can"
    )

    @property
    def supervised(self) -> bool:
        """Whether a supervisor watches the workers, rather than one process doing all."""
        return bool(self._needing_supervisor()) if self.supervise is None else self.supervise

    def check(self) -> None:
        if self.factory and self.app is None:
            raise ConflictError(
                "factory",
                "is given without an application.",
                "Name the function: tidegate --factory main:create_app",
            )
        self._check_tls()
        self._check_processes()

    def _check_processes(self) -> None:
        """What only a supervisor can do is not asked of a single process."""
        needing = self._needing_supervisor()
        if self.supervise is False and needing:
            raise ConflictError(
                "supervise",
                f"is off, and {needing[0]} needs it.",
                "Leave out --no-supervise"
                + (", or start with --workers 1." if "--workers" in needing[0] else "."),
            )
        if self.supervised and self.app is not None and not isinstance(self.app, str):
            raise ConflictError(
                "app",
                "is an object, and a supervisor needs its name: each worker imports it anew.",
                f'Give its name: tidegate.run("main:app", {self._workers_said()}).',
            )
        if self.preload and self.reload:
            raise ConflictError(
                "preload",
                "and --reload exclude each other: one keeps the code, the other replaces it.",
                "Leave out --preload while you write.",
            )

    def _workers_said(self) -> str:
        if self.workers != 1:
            return f"workers={self.workers}" if self.workers else 'workers="auto"'
        return "reload=True" if self.reload else "..."

    def _needing_supervisor(self) -> list[str]:
        """The options, as flags, that one process alone could not heed."""
        needing = self._changed(
            "preload", "limit_max_memory", "limit_max_lifetime", "user", "group", "reload"
        )
        if self.workers != 1:
            needing.append(f"--workers {Workers().show(self.workers)}")
        return needing

    def _check_tls(self) -> None:
        """TLS options without a certificate would leave the traffic in the clear, unnoticed."""
        if self.ssl_certfile is None:
            for name in (
                "ssl_keyfile",
                "ssl_keyfile_password",
                "ssl_cert_reqs",
                "ssl_ca_certs",
                "ssl_ciphers",
                "ssl_sni",
            ):
                if getattr(self, name):
                    raise ConflictError(
                        name,
                        "is given without --ssl-certfile: nothing would be encrypted.",
                        "Add --ssl-certfile with the certificate, or leave the TLS options out.",
                    )
        elif self.ssl_cert_reqs and self.ssl_ca_certs is None:
            raise ConflictError(
                "ssl_cert_reqs",
                "asks for client certificates, and nothing says which to trust.",
                "Add --ssl-ca-certs with the certificates of the authorities that sign them.",
            )

    def _changed(self, *names: str) -> list[str]:
        """Those of the named options that are not at their default, as flags."""
        defaults = {named.name: named.default for named in fields(self)}
        return [flag_of(name) for name in names if getattr(self, name) != defaults[name]]

    def notes(self) -> list[str]:
        """A sentence to log at start for each option that was given and has no effect."""
        return [*self._parser_notes(), *self._idle_notes(), *self._process_notes()]

    def _parser_notes(self) -> list[str]:
        said = []
        if self.http != "auto":
            said.append(
                f"--http {self.http} has no effect: Tidegate reads HTTP with its own parser."
            )
        if self.ws not in ("auto", "none"):
            said.append(
                f"--ws {self.ws} has no effect: Tidegate has its own WebSocket implementation."
            )
        if self.h11_max_incomplete_event_size is not None:
            said.append(
                "--h11-max-incomplete-event-size has no effect: --limit-request-line and"
                " --limit-header-size bound what is read."
            )
        return said

    def _idle_notes(self) -> list[str]:
        """Options that another one overrules or leaves without work."""
        said = []
        order = (("bind",), ("fd",), ("uds",), ("host", "port"))
        chosen = next((rank for rank, names in enumerate(order) if self._changed(*names)), 3)
        for names in order[chosen + 1 :]:
            said += [
                f"{flag} has no effect: {flag_of(order[chosen][0])} says where to listen."
                for flag in self._changed(*names)
            ]
        if self.limit_max_requests_jitter and self.limit_max_requests is None:
            said.append("--limit-max-requests-jitter has no effect without --limit-max-requests.")
        if self.access_log_file is not None and not self.access_log:
            said.append("--access-log-file has no effect with --no-access-log.")
        return said

    def _process_notes(self) -> list[str]:
        """Options that belong to a supervisor or to --reload, where neither is."""
        said = []
        if not self.supervised:
            said += [
                f"{flag} has no effect without a supervisor (--workers 2, or --supervise)."
                for flag in self._changed("timeout_worker_healthcheck", "drain_idle")
            ]
        if self.reload and self._changed("timeout_worker_healthcheck"):
            said.append(  # a worker that stands at a breakpoint is not to be killed
                "--timeout-worker-healthcheck has no effect with --reload:"
                " a worker may stand still in a debugger."
            )
        if not self.reload:
            said += [
                f"{flag} has no effect without --reload."
                for flag in self._changed(
                    "reload_dir", "reload_include", "reload_exclude", "reload_delay"
                )
            ]
        return said
