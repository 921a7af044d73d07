"""Our messages and the access log, by Gunicorn's logger."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from tidegate.observe.access_log import AccessLog, Entry, Formatter

# Tab and line feed are kept, as tracebacks are made of them; the rest could speak to a terminal.
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}
# Gunicorn writes a quote as `\"`: a backslash of the client's before it would undo that.
_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100), ord("\\"))}


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
