"""What the server says about itself, and where access lines go.

Two loggers: `tidegate` for messages, with children where a part wants its own name, and
`tidegate.access` for access lines. `setup()` gives `tidegate` one handler on standard error and
never touches the root logger, which is the application's. A log configuration of the user's
replaces that altogether, as the standard library would have it.

Access lines go past `logging` to standard output or a file, in the batches `AccessLog` makes: a
LogRecord per request costs several times the line. They pass through the logger where the user
gave `tidegate.access` handlers, and only there.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TextIO

from tidegate.errors import ConfigurationError

TRACE = 5
PIPE_BUF = 4096  # Linux and macOS; POSIX promises 512
LEVELS = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
ACCESS_LOGGER = "tidegate.access"

# Tab and line feed are kept: tracebacks are made of them.
_ESCAPES = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}


def setup(
    level: str,
    log_config: str | Mapping[str, Any] | None,
    use_colors: bool | None = None,
) -> None:
    """Configure the server's loggers; with a `log_config` (path or dict), nothing but that."""
    logging.addLevelName(TRACE, "TRACE")
    if log_config is not None:
        _apply(log_config)
        return
    if level.lower() not in LEVELS:
        raise ConfigurationError(
            f"log level: there is no level {level!r}", f"Give one of {', '.join(LEVELS)}."
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        LogFormatter(
            colors=wants_colors(sys.stderr, use_colors),
            dated=not _is_terminal(sys.stderr),
        )
    )
    handler.set_name("tidegate")
    logger = logging.getLogger("tidegate")
    for old in [old for old in logger.handlers if old.get_name() == "tidegate"]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(LEVELS[level.lower()])


def set_label(label: str) -> None:
    """What stands before every message from here on, if `setup` has made the handler: which of
    several processes it is from."""
    for handler in logging.getLogger("tidegate").handlers:
        if isinstance(handler.formatter, LogFormatter):
            handler.formatter.label = label


def set_up_again(log_config: str | Mapping[str, Any]) -> None:
    """Apply the user's configuration as it stands now, in a forked process without an application.

    Loggers that exist by now are kept: which of them a first start would find depends on what was
    imported before the fork, and that is our doing.
    """
    _apply(log_config, keep=True)


class LogFormatter(logging.Formatter):
    """`12:00:01 INFO  message`, with the date before it where nobody is watching.

    A record starts in the first column and everything after its first line is indented; control
    characters are escaped. So what a peer or an exception puts into a message cannot pass for
    another record, nor speak to the terminal.
    """

    _LABELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}  # noqa: RUF012
    _COLORS = ((logging.ERROR, "1;31"), (logging.WARNING, "33"), (logging.INFO, "32"), (0, "36"))

    def __init__(self, *, colors: bool = False, dated: bool = False) -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")
        self._colored = colors
        self.label = ""

    def format(self, record: logging.LogRecord) -> str:
        """The whole text of a record, without the line feed at its end."""
        at = self.formatTime(record, self.datefmt)
        level = f"{self._LABELS.get(record.levelname, record.levelname):<5}"
        if self._colored:
            color = next(color for least, color in self._COLORS if record.levelno >= least)
            at, level = f"\x1b[2m{at}\x1b[0m", f"\x1b[{color}m{level}\x1b[0m"
        label = f"[{self.label}] " if self.label else ""
        return f"{at} {level} {label}{self._text(record)}"

    def _text(self, record: logging.LogRecord) -> str:
        parts = [record.getMessage()]
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            parts.append(record.exc_text)
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts).translate(_ESCAPES).replace("\n", "\n  ")


def wants_colors(stream: TextIO | None, use_colors: bool | None) -> bool:
    """Whether to colour what goes to `stream`: as told, else as NO_COLOR, FORCE_COLOR and isatty
    have it, in this order."""
    if use_colors is not None:
        return use_colors
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return _is_terminal(stream) and os.environ.get("TERM") != "dumb"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _apply(log_config: str | Mapping[str, Any], *, keep: bool = False) -> None:
    """Hand the user's configuration to `logging.config`; every failure becomes one sentence.

    `keep`: loggers that exist are not silenced, whatever it says of them.
    """
    from logging.config import dictConfig, fileConfig

    source = log_config if isinstance(log_config, str) else "the dict given"
    try:
        settings = _read(log_config) if isinstance(log_config, str) else dict(log_config)
        if settings is None:
            fileConfig(source, disable_existing_loggers=False, encoding="utf-8")
        else:
            dictConfig({**settings, "disable_existing_loggers": False} if keep else settings)
    except ConfigurationError:
        raise
    except Exception as error:
        # `logging.config` raises whatever the handlers it makes raise; the cause says more.
        raise ConfigurationError(
            f"log config: {source} cannot be used: {_reason(error)}",
            "Its form is that of logging.config in the standard library: dictConfig for .json, "
            ".yaml and .toml files, fileConfig for .ini.",
        ) from error
    restore()


def restore() -> None:
    """Switch the server's loggers on again; call it once the application is loaded.

    dictConfig silences every logger that exists already and is not named, unless told otherwise:
    Django's LOGGING would make the server mute only because the server came first.
    """
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and f"{name}.".startswith("tidegate."):
            logger.disabled = False


def reopen(owner: tuple[int, int] | None = None) -> None:
    """Begin new files where those that the handlers of `logging` write to were moved away.

    What cannot be opened goes on in the old file. `owner`: the user and group of those who write,
    where this process is not one of them.
    """
    for handler in file_handlers():
        try:
            stream = _open_again(handler, owner)
        except OSError as error:
            logging.getLogger("tidegate").error(
                "%s cannot be opened again (%s); it goes on in the old file.",
                handler.baseFilename,
                error.strerror,
            )
            continue
        handler.acquire()
        try:
            old, handler.stream = handler.stream, stream
        finally:
            handler.release()
        if old is not None:
            old.close()


def _open_again(handler: logging.FileHandler, owner: tuple[int, int] | None) -> Any:
    # a pipe that somebody has put in its place would be waited for
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    if owner is not None:
        flags |= os.O_NOFOLLOW  # the folder may be theirs, and a link lead anywhere
    descriptor = os.open(handler.baseFilename, flags, 0o666)
    try:
        if not is_regular(descriptor):
            raise OSError(errno.EINVAL, "it is no regular file any more")
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.set_blocking(descriptor, True)
        return open(descriptor, "a", encoding=handler.encoding, errors=handler.errors)
    except BaseException:
        os.close(descriptor)
        raise


def file_handlers() -> list[logging.FileHandler]:
    """Those of all loggers that write to regular files: not to /dev/null, nor to a pipe."""
    found = [each for each in _all_handlers() if isinstance(each, logging.FileHandler)]
    return [each for each in found if each.stream is None or is_regular(each.stream.fileno())]


def is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _all_handlers() -> set[logging.Handler]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
    }


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    words = " ".join(str(error).split())
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return said if cause is None else f"{said} ({_reason(cause)})"


def _read(path: str) -> dict[str, Any] | None:
    """The dict a configuration file holds; None for a file in the form of `fileConfig`."""
    form = os.path.splitext(path)[1].lower()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read() if form in {".json", ".toml", ".yaml", ".yml"} else None
    except OSError as error:
        raise ConfigurationError(
            f"log config: {path} cannot be read: {error.strerror}",
            "Give the path of a .json, .yaml, .toml or .ini file, seen from where you start.",
        ) from error
    if text is None:
        return None
    settings = _parse(text, form, path)
    if not isinstance(settings, dict):
        raise ConfigurationError(
            f"log config: {path} holds a {type(settings).__name__}, not a mapping",
            "Its top level is the dict of logging.config.dictConfig, starting with version: 1.",
        )
    return settings


def _parse(text: str, form: str, path: str) -> Any:
    if form == ".json":
        import json

        return json.loads(text)
    if form == ".toml":
        import tomllib

        return tomllib.loads(text)
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError(
            f"log config: {path} is YAML, and PyYAML is not installed",
            "Install it (pip install 'tidegate[yaml]'), or write the file as .json or .toml.",
        ) from error
    return yaml.safe_load(text)


class AccessWriter(Protocol):
    """Where access lines go. `write` takes whole lines and may raise; `AccessLog` sees to that."""

    def write(self, text: str) -> None:
        """Write some whole lines, each with its line feed."""

    def reopen(self) -> None:
        """Start a new file where the old one was moved away (log rotation)."""

    def close(self) -> None:
        """Let go of what `access_writer` opened."""


def access_writer(path: str | None, *, log_config: object | None) -> AccessWriter:
    """The place for access lines: the file at `path` (`-` is standard output); else the logger
    `tidegate.access` where the user gave it handlers; else standard output.

    Call it once the application is loaded: Django's LOGGING may give those handlers, too.
    """
    if path is not None and path != "-":
        return FileWriter(path)
    logger = logging.getLogger(ACCESS_LOGGER)
    # With a configuration of the user's, handlers of the parents up to the root are meant for
    # these lines. Without one the parent's handler is ours, and it writes to standard error.
    if path is None and (logger.hasHandlers() if log_config is not None else logger.handlers):
        return LoggerWriter(logger)
    if sys.stdout is None:
        raise ConfigurationError(
            "access log: this process has no standard output to write it to",
            "Name a file with --access-log-file, or switch it off with --no-access-log.",
        )
    return StreamWriter()


def access_enabled(path: str | None) -> bool:
    """Access lines are of level info: a log level above it switches them off, as in uvicorn,
    unless a file was asked for by name."""
    return path is not None or logging.getLogger(ACCESS_LOGGER).isEnabledFor(logging.INFO)


def access_colors(writer: AccessWriter, use_colors: bool | None) -> bool:
    """Whether access lines are coloured: only on standard output, never in files or records."""
    return isinstance(writer, StreamWriter) and wants_colors(sys.stdout, use_colors)


class StreamWriter:
    """Standard output, whatever `sys.stdout` is at that moment.

    Several workers share it, and a pipe takes at most so much in one piece (pipe(7)): of more, the
    lines of two processes could be torn into each other.
    """

    def write(self, text: str) -> None:
        """Write and flush, so that no line waits for the next one."""
        for piece in _whole_lines(text, PIPE_BUF):
            sys.stdout.write(piece)
            sys.stdout.flush()

    def reopen(self) -> None:
        """Nothing to do: standard output belongs to whoever started the server."""

    def close(self) -> None:
        """Nothing to do: nothing was opened."""


def _whole_lines(text: str, most: int) -> Iterator[str]:
    """The text in pieces of whole lines, of at most so many bytes where the lines allow it."""
    if len(text) * 4 <= most or len(text.encode("utf-8", "backslashreplace")) <= most:
        yield text
        return
    piece, size = "", 0
    for line in text.removesuffix("\n").split("\n"):
        length = len(line.encode("utf-8", "backslashreplace")) + 1
        if size and size + length > most:
            yield piece
            piece, size = "", 0
        piece += line + "\n"
        size += length
    yield piece


class LoggerWriter:
    """A logger of the user's: one record of level INFO a line."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def write(self, text: str) -> None:
        """Log each line by itself."""
        for line in text.removesuffix("\n").split("\n"):
            self._logger.info(line)

    def reopen(self) -> None:
        """Nothing to do: rotation is the handler's (`WatchedFileHandler`)."""

    def close(self) -> None:
        """Nothing to do: `logging` closes its handlers at exit."""


class FileWriter:
    """A file opened to append: with O_APPEND the batches of several processes do not mix.

    A file moved away or deleted is noticed before the next batch (one `stat` a batch, 1 us), so
    rotating it takes no signal; `reopen()` is for those who would rather say so.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._fd = self._open()
        except OSError as error:
            raise ConfigurationError(
                f"access log: {path} cannot be opened: {error.strerror}",
                "Make its directory, and make it writable for the user the server runs as.",
            ) from error
        self._stays = False

    def _open(self) -> int:
        # Not readable to everybody: the lines hold addresses and queries of visitors.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        return os.open(self._path, flags, 0o640)

    def write(self, text: str) -> None:
        """Append in one system call; a second one only where the first was cut short."""
        if self._was_moved():
            self.reopen()
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            data = data[os.write(self._fd, data) :]

    def _was_moved(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return True

    def reopen(self) -> None:
        """Go on in a new file at the same path; in the old one where that cannot be opened."""
        try:
            fd = self._open()
        except OSError as error:
            if not self._stays:
                logging.getLogger("tidegate").error(
                    "The access log %s cannot be opened again (%s); it goes on in the old file.",
                    self._path,
                    error.strerror,
                )
            self._stays = True
            return
        old, self._fd = self._fd, fd
        self._stays = False
        os.close(old)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def address_url(address: tuple[Any, ...] | str | bytes, *, tls: bool) -> str:
    """What `getsockname()` says, as people write it: a URL, or `unix:` and a path."""
    if isinstance(address, bytes):
        address = os.fsdecode(address)
    if isinstance(address, str):
        # An address in Linux's abstract namespace starts with NUL; it is written with an @.
        return "unix:" + ("@" + address[1:] if address.startswith("\0") else address)
    host, port = address[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def banner(  # noqa: PLR0913 - all of it is named
    *,
    version: str,
    loop: str,
    poller: str,
    app: str,
    kind: Sequence[str],
    listening: Sequence[str],
    protocols: Sequence[str],
    health: Sequence[str] = (),
    interactive: bool,
) -> list[str]:
    """The lines a start is announced with: what runs, what it serves, and where.

    `kind` is what is known of the application, such as ("Django", "ASGI 3"); `listening`
    holds URLs of `address_url`; `health` says where health is told, and what to ask for.
    """
    names = {"cpython": "CPython", "pypy": "PyPy", "graalpy": "GraalPy"}
    python = names.get(sys.implementation.name, sys.implementation.name)
    release = ".".join(map(str, sys.version_info[:3]))
    lines = [
        f"Tidegate {version} on {python} {release}, {loop} loop, {poller} poller",
        f"Serving {app}{_in_brackets(kind)}",
    ]
    lines += [f"Listening on {url}{_in_brackets(protocols)}" for url in listening]
    lines += [f"Health checks on {where}" for where in health]
    if interactive:
        lines.append("Press Ctrl+C to stop.")
    return lines


def _in_brackets(words: Sequence[str]) -> str:
    return f" ({', '.join(words)})" if words else ""
