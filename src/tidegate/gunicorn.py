"""A worker class for Gunicorn: `gunicorn -k tidegate.gunicorn.Worker mysite.asgi:application`.

For those who keep Gunicorn as their supervisor. It binds, forks, watches and replaces; each of its
workers is one server of ours on the sockets it was born with. Signal handlers only note what is
wanted, and wake the loop by the pipe that Gunicorn's base class has for this; so a signal counts
from before the application's import, and those that must not wait also act while the loop hangs.

Gunicorn replaces a worker only after it has gone, and holds the sockets meanwhile: who connects
then waits in the kernel's queue. So a worker always leaves as one whose successor serves here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import FrameType, SimpleNamespace
from typing import Any, NoReturn

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker as Base  # type: ignore[import-untyped]

from tidegate.config import Config
from tidegate.config.dotenv import load_env_file
from tidegate.config.option import option_of, variable_of
from tidegate.config.sources import FIELDS, resolve
from tidegate.discover.shape import Shape, describe, framework_of, shape_of
from tidegate.errors import ConfigurationError
from tidegate.hosting import loop_factory, start
from tidegate.net.listener import Listener
from tidegate.observe import logs
from tidegate.observe.access_log import AccessLog, Entry, Formatter
from tidegate.serving.worker import Worker as Server
from tidegate.version import __version__

BEAT = 1.0  # seconds between two signs of life; fewer where --timeout is short
HANGS = 4.0  # seconds without one: a quick end does not wait for the loop
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

# Tab and line feed are kept, as tracebacks are made of them; the rest could speak to a terminal.
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}
# Gunicorn writes a quote as `\"`: a backslash of the client's before it would undo that.
_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100), ord("\\"))}


class Worker(Base):  # type: ignore[misc]
    """One of Gunicorn's workers; a subclass may set `options`, which go before all else."""

    options: Mapping[str, object] = {}
    alive: bool
    wsgi: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server: Server | None = None  # while the loop runs
        self._wanted: deque[Callable[[], object]] = deque()  # by signals
        self._asgi2 = False
        self._beaten = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """In Gunicorn's own process, before it forks: say once what will have no effect."""
        try:
            _, notes = read_settings(cfg, cls.options)
        except ConfigurationError:
            return  # a worker says so: when it gives up, Gunicorn ends in good order
        for note in notes:
            log.info("%s", note)

    # ------------------------------------------------------------------------ before serving

    def load_wsgi(self) -> None:
        """Read the settings and load the application; neither being right ends Gunicorn."""
        forward_messages(self.log)
        try:
            self._config = self._settings()
            if self._config.env_file is not None:
                load_env_file(self._config.env_file)
        except ConfigurationError as error:
            self._give_up(error, Arbiter.WORKER_BOOT_ERROR)
        super().load_wsgi()
        logs.restore()  # a Django project's LOGGING may have switched ours off, and Gunicorn's
        for name in ("gunicorn.error", "gunicorn.access"):
            logging.getLogger(name).disabled = False
        try:
            if getattr(self.app, "callable", self.wsgi) is None:
                self.wsgi = page_of(self.wsgi)  # a syntax error, with --reload
            else:
                self._asgi2 = speaks_asgi2(self.wsgi, self._config.interface)
        except ConfigurationError as error:
            self._give_up(error, Arbiter.APP_LOAD_ERROR)

    def _settings(self) -> Config:
        unix = any(one.sock.family == socket.AF_UNIX for one in self.sockets)
        config, _ = read_settings(self.cfg, self.options, unix=unix)
        given = {name: getattr(config, name) for name in FIELDS if name not in GUNICORNS}
        if self.cfg.max_requests > 0:
            given["limit_max_requests"] = self.max_requests  # its jitter is in it
        return Config(**given)

    def _give_up(self, error: ConfigurationError, code: int) -> NoReturn:
        """End with a code that makes Gunicorn stop too: trying again would be no use."""
        self.log.error("%s", f"{error.message} {error.hint}".rstrip())
        raise SystemExit(code)

    # ------------------------------------------------------------------------ serving

    def run(self) -> None:
        """Serve until this worker is to go."""
        try:
            with asyncio.Runner(loop_factory=loop_factory(self._config.loop)) as runner:
                runner.run(self._serve())
        except ConfigurationError as error:
            self._give_up(error, Arbiter.WORKER_BOOT_ERROR)
        if self.aborted:
            raise SystemExit(1)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = server = Server(
            self._config,
            self.wsgi,
            [Listener(one.sock) for one in self.sockets],
            logging.getLogger("tidegate"),
            asgi2=self._asgi2,
            access=access_log(self.cfg, self.log),
            post=_Post(self._on_last_request),
        )
        loop.add_reader(self.PIPE[0], self._on_wake)
        beating = asyncio.ensure_future(self._beat())
        try:
            self._on_wake()  # for what was asked while the application was loaded
            if await start(server):
                how = f"{type(loop).__module__.partition('.')[0]} loop, {server.poller_name} poller"
                self.log.info("Tidegate %s serves (pid: %s), %s", __version__, self.pid, how)
                await server.run()
        finally:
            self._server = None
            loop.remove_reader(self.PIPE[0])
            beating.cancel()
            await server.close()

    async def _beat(self) -> None:
        """Signs of life, which cease while the loop hangs; and a look whether Gunicorn lives."""
        while True:
            self.notify()
            self._beaten = time.monotonic()
            if self.ppid != os.getppid() and self._server is not None:
                if self.alive:
                    self.log.info("Leaving: Gunicorn's master is gone (pid: %s)", self.pid)
                self.alive = False
                self._server.stop()  # nobody serves here afterwards
            # `timeout` is half of --timeout here
            await asyncio.sleep(min(BEAT, self.timeout / 2 or BEAT))

    def _on_last_request(self) -> None:
        self.log.info("Leaving after %d requests (pid: %s)", self.max_requests, self.pid)
        self.alive = False
        self._leave()

    def _leave(self) -> None:
        if self._server is not None and self.cfg.reload:
            self._server.stop()  # somebody waits for the new code, which comes after our end
        elif self._server is not None:
            self._server.retire()

    # ------------------------------------------------------------------------ signals

    def _want(self, call: Callable[[], object]) -> None:
        self._wanted.append(call)
        with suppress(BlockingIOError):  # full: it will wake up anyway
            os.write(self.PIPE[1], b"1")

    def _on_wake(self) -> None:
        """The pipe: a signal, or the reloader's thread, which has set `alive` to False."""
        with suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)
        while self._wanted:
            self._wanted.popleft()()
        if not self.alive:
            self._leave()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: leave; Gunicorn may say it every second, which changes nothing."""
        self.alive = False
        self._want(self._leave)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT, SIGQUIT: end now."""
        self.alive = False
        if self._server is not None and time.monotonic() - self._beaten < HANGS:
            self._want(self._quit)
            return
        self._want(self._force)  # whoever called the code that stands there may catch this:
        super().handle_quit(sig, frame)  # SystemExit

    def _quit(self) -> None:
        self.cfg.worker_int(self)
        self._force()

    def _force(self) -> None:
        if self._server is not None:
            self._server.force()

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        """SIGUSR1: begin new log files where the old ones were moved away."""
        self._want(self.log.reopen_files)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """SIGABRT: Gunicorn has had no sign of life for --timeout seconds."""
        stack = "".join(traceback.format_stack(frame, limit=12)).rstrip()
        self.log.critical("Told to abort (pid: %s). It stands here:\n%s", self.pid, stack)
        self.aborted = True
        self._want(self._force)  # as above
        super().handle_abort(sig, frame)


class _Post:
    """A place beside workers that know nothing of each other; see `serving.worker.Post`."""

    leaving = False
    patient = False  # --graceful-timeout is all there is

    def __init__(self, on_last_request: Callable[[], None]) -> None:
        self._on_last_request = on_last_request

    def is_fuller(self, connections: int, taken: int) -> bool:
        return False

    def progress(self) -> int:
        return 0

    def show(self, connections: int) -> None:
        pass

    def leave(self) -> None:
        pass

    def ask_for_successor(self, why: str) -> None:
        self._on_last_request()  # Gunicorn has one once this worker is gone


# -- settings --------------------------------------------------------------------------------------


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


# -- the application -------------------------------------------------------------------------------


def speaks_asgi2(app: Any, interface: str) -> bool:
    """Whether it is ASGI 2 rather than 3; ConfigurationError where it is neither."""
    shape = shape_of(app) if interface == "auto" else Shape(interface)
    if shape in {Shape.ASGI3, Shape.ASGI2}:
        return shape is Shape.ASGI2
    what = describe(app)
    if shape is Shape.WSGI:
        what = f"The application is written to WSGI ({what}); Tidegate's worker class serves ASGI."
        hint = "For WSGI use one of Gunicorn's own worker classes: -k sync, -k gthread, -k gevent."
        if framework_of(app) == "Django":
            hint = f"Django's ASGI application is mysite.asgi:application. {hint}"
        raise ConfigurationError(what, hint)
    if shape is Shape.FACTORY:
        hint = "If it returns one, write the call, in quotes: gunicorn ... 'main:create_app()'."
    else:
        hint = "If it is one all the same, say so: TIDEGATE_INTERFACE=asgi3."
    raise ConfigurationError(f"The application is no ASGI application but {what}.", hint)


def page_of(stand_in: Callable[..., Sequence[bytes]]) -> Any:
    """Gunicorn's WSGI page about a syntax error, as an ASGI application."""
    page = b"".join(stand_in({}, lambda *_: None))
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(page))]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": page})
        else:
            await send({"type": "websocket.close"})

    return app


# -- logs ------------------------------------------------------------------------------------------


def forward_messages(log: Any) -> None:
    """Let our messages go where Gunicorn's go, unless our logger was configured by the user."""
    logger = logging.getLogger("tidegate")
    if not (logger.handlers or logger.level):
        logger.addHandler(_Forward(log))
        logger.setLevel(getattr(log, "loglevel", logging.INFO))
        logger.propagate = False


class _Forward(logging.Handler):
    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """As one record, whatever a path or an exception from outside holds."""
        text = self.format(record).translate(_CONTROLS).replace("\n", "\n  ")
        self._log.log(record.levelno, "%s", text)


def access_log(cfg: Any, log: Any) -> AccessLog | None:
    """Gunicorn's access log, with its format, its statistics and whatever a logger class of the
    user's makes of it; None where nobody would read it."""
    given = (cfg.accesslog, cfg.logconfig, cfg.logconfig_dict, cfg.logconfig_json)
    syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
    if not any(given) and not syslog and type(log).access is Logger.access:
        return None

    def tell(entries: Sequence[Entry], _: Mapping[int, str]) -> str:
        for entry in entries:
            log.access(*_as_gunicorn_has_it(entry))
        return ""  # all is said already

    return AccessLog(Formatter(tell, needs_headers=True), lambda _: None)


def _as_gunicorn_has_it(entry: Entry) -> tuple[Any, Any, dict[str, str], timedelta]:
    """Response, request, WSGI environment and duration, as far as an access log looks at them."""
    client, method, target, version, status, size, seconds, headers, _ = entry
    pairs = [(_text(name).upper(), _text(value)) for name, value in headers]
    uri = _text(target)
    path, _, query = uri.partition("?")
    environ = {
        "REMOTE_ADDR": client or "-",
        "REQUEST_METHOD": method,
        "RAW_URI": uri,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": f"HTTP/{version}",
        **{f"HTTP_{name.replace('-', '_')}": value for name, value in pairs},
    }
    response = SimpleNamespace(status=status, headers=[], sent=size)
    request = SimpleNamespace(headers=pairs, method=method, uri=uri, path=path, query=query)
    return response, request, environ, timedelta(seconds=seconds)


def _text(octets: bytes) -> str:
    return octets.decode("latin-1").translate(_UNPRINTABLE)
