"""The loggers, --log-config, where access lines go, and the banner."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest

from tidegate.errors import ConfigurationError
from tidegate.observe import logs
from tidegate.observe.logs import (
    TRACE,
    FileWriter,
    LogFormatter,
    LoggerWriter,
    StreamWriter,
    access_colors,
    access_enabled,
    access_writer,
    address_url,
    banner,
    setup,
    wants_colors,
)

OURS = ("tidegate", "tidegate.access", "tidegate.error")


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    loggers = [logging.getLogger(), *map(logging.getLogger, OURS)]
    # --log-config disables whatever loggers there are, those of other tests too
    loggers += [
        one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)
    ]
    before = [(one, one.level, one.propagate, one.disabled, list(one.handlers)) for one in loggers]
    for one in loggers[1 : 1 + len(OURS)]:
        one.handlers, one.propagate, one.disabled = [], True, False
        one.setLevel(logging.NOTSET)
    yield
    for one, level, propagate, disabled, handlers in before:
        one.setLevel(level)
        one.propagate, one.disabled, one.handlers = propagate, disabled, handlers


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Captured:
    def __init__(self, capsys):
        self._capsys = capsys

    def getvalue(self):
        return self._capsys.readouterr().err


@pytest.fixture
def stderr(capsys):
    return Captured(capsys)


def watched(monkeypatch):
    """A terminal as standard error; in the test's body, where pytest has set its own."""
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


# --- the loggers without a configuration of the user's


def test_a_message_has_time_level_and_text(monkeypatch):
    terminal = watched(monkeypatch)
    setup("info", None, use_colors=False)
    logging.getLogger("tidegate").info("Started with %d sockets.", 2)
    time, level, text = terminal.getvalue().rstrip("\n").split(maxsplit=2)
    assert [len(part) for part in time.split(":")] == [2, 2, 2]
    assert (level, text) == ("INFO", "Started with 2 sockets.")


def test_levels_are_aligned_and_children_are_heard(monkeypatch):
    terminal = watched(monkeypatch)
    setup("debug", None, use_colors=False)
    logger = logging.getLogger("tidegate.error")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logger.log(level, "x")
    rows = [line[9:] for line in terminal.getvalue().splitlines()]
    assert rows == ["DEBUG x", "INFO  x", "WARN  x", "ERROR x", "FATAL x"]


def test_the_date_is_told_where_nobody_watches(stderr):
    setup("info", None)
    logging.getLogger("tidegate").info("x")
    date, _, rest = stderr.getvalue().partition(" ")
    assert [len(part) for part in date.split("-")] == [4, 2, 2]
    assert rest.endswith(" INFO  x\n")


@pytest.mark.parametrize(
    ("level", "heard"), [("trace", 3), ("debug", 2), ("INFO", 1), ("warning", 0), ("critical", 0)]
)
def test_level(stderr, level, heard):
    setup(level, None)
    logger = logging.getLogger("tidegate")
    logger.log(TRACE, "x")
    logger.debug("x")
    logger.info("x")
    assert len(stderr.getvalue().splitlines()) == heard


def test_trace_has_a_name(stderr):
    setup("trace", None)
    logging.getLogger("tidegate").log(5, "x")
    assert " TRACE x\n" in stderr.getvalue()


def test_an_unknown_level_names_the_known():
    with pytest.raises(ConfigurationError, match="'loud'") as caught:
        setup("loud", None)
    assert "trace" in caught.value.hint and "info" in caught.value.hint


def test_setup_twice_writes_once(stderr):
    setup("info", None)
    setup("info", None)
    logging.getLogger("tidegate").info("x")
    assert len(stderr.getvalue().splitlines()) == 1


def test_the_root_logger_is_the_applications(stderr):
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    seen = []
    handler = logging.Handler()
    handler.emit = seen.append
    root.addHandler(handler)
    setup("debug", None)
    logging.getLogger("tidegate").error("x")
    root.removeHandler(handler)
    assert seen == []
    assert (root.level, list(root.handlers)) == before


# --- the form of a record


def record(message, *args, level=logging.INFO, exc_info=None):
    return logging.LogRecord("tidegate", level, __file__, 1, message, args, exc_info)


def test_no_message_forges_a_record_or_speaks_to_the_terminal():
    text = LogFormatter().format(record("%s", "a\r\n12:00:01 INFO  b\x1b[2J\x7f\x9b\tc"))
    first, second = text.split("\n")
    assert first.endswith(" INFO  a\\x0d")
    assert second == "  12:00:01 INFO  b\\x1b[2J\\x7f\\x9b\tc"


def test_a_traceback_follows_indented():
    try:
        raise ValueError("no\nway")
    except ValueError:
        text = LogFormatter().format(record("It broke", exc_info=sys.exc_info()))
    lines = text.split("\n")
    assert lines[1] == "  Traceback (most recent call last):"
    assert lines[-2:] == ["  ValueError: no", "  way"]
    assert all(line.startswith("  ") for line in lines[1:])


# --- colours


def test_colours_on_a_terminal_only(monkeypatch):
    terminal = watched(monkeypatch)
    setup("info", None)
    logging.getLogger("tidegate").error("x")
    assert "\x1b[1;31mERROR\x1b[0m x\n" in terminal.getvalue()


def test_no_colours_in_a_file(stderr):
    setup("info", None)
    logging.getLogger("tidegate").error("x")
    assert "\x1b" not in stderr.getvalue()


@pytest.mark.parametrize(
    ("stream", "environment", "told", "expected"),
    [
        (Terminal(), {}, None, True),
        (io.StringIO(), {}, None, False),
        (None, {}, None, False),
        (Terminal(), {"TERM": "dumb"}, None, False),
        (Terminal(), {"NO_COLOR": "1"}, None, False),
        (Terminal(), {"NO_COLOR": ""}, None, True),
        (io.StringIO(), {"FORCE_COLOR": "1"}, None, True),
        (Terminal(), {"NO_COLOR": "1", "FORCE_COLOR": "1"}, None, False),
        (Terminal(), {"NO_COLOR": "1"}, True, True),
        (Terminal(), {"FORCE_COLOR": "1"}, False, False),
    ],
)
def test_who_decides_on_colours(monkeypatch, stream, environment, told, expected):
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_colors(stream, told) is expected


def test_a_closed_stream_has_no_colours():
    stream = io.StringIO()
    stream.close()
    assert wants_colors(stream, None) is False


# --- --log-config

JSON = {
    "version": 1,
    "formatters": {"plain": {"format": "user %(levelname)s %(message)s"}},
    "handlers": {"here": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"tidegate": {"handlers": ["here"], "level": "INFO"}},
}
TOML = """
version = 1
formatters.plain.format = "user %(levelname)s %(message)s"
handlers.here = {class = "logging.StreamHandler", formatter = "plain"}
loggers.tidegate = {handlers = ["here"], level = "INFO"}
"""
YAML = """
version: 1
formatters: {plain: {format: "user %(levelname)s %(message)s"}}
handlers: {here: {class: logging.StreamHandler, formatter: plain}}
loggers: {tidegate: {handlers: [here], level: INFO}}
"""
INI = """
[loggers]
keys=root,tidegate
[handlers]
keys=here
[formatters]
keys=plain
[logger_root]
handlers=
[logger_tidegate]
handlers=here
level=INFO
qualname=tidegate
[handler_here]
class=StreamHandler
formatter=plain
args=()
[formatter_plain]
format=user %(levelname)s %(message)s
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.json", json.dumps(JSON)),
        ("log.toml", TOML),
        ("log.yaml", YAML),
        ("log.YML", YAML),
        ("log.ini", INI),
        ("log.conf", INI),
    ],
)
def test_log_config_of_each_form_replaces_ours(tmp_path, stderr, name, text):
    if name.lower().endswith(("yaml", "yml")):
        pytest.importorskip("yaml")
    path = tmp_path / name
    path.write_text(text)
    setup("critical", str(path))
    logging.getLogger("tidegate").info("hello")
    logging.getLogger("tidegate.error").warning("again")
    assert stderr.getvalue() == "user INFO hello\nuser WARNING again\n"


def test_log_config_may_be_a_dict(stderr):
    setup("info", JSON)
    logging.getLogger("tidegate").info("hello")
    assert stderr.getvalue() == "user INFO hello\n"


def test_log_config_that_does_not_name_us_does_not_silence_us(stderr):
    logging.getLogger("tidegate.error")
    root = {"handlers": ["here"], "level": "INFO"}
    setup("info", {**JSON, "loggers": {}, "root": root, "disable_existing_loggers": True})
    logging.getLogger("tidegate.error").error("heard")
    assert stderr.getvalue() == "user ERROR heard\n"


def test_restore_after_an_application_configured_logging(stderr):
    from logging.config import dictConfig

    setup("info", None)
    dictConfig({"version": 1, "disable_existing_loggers": True})
    logs.restore()
    logging.getLogger("tidegate").info("still here")
    assert stderr.getvalue().endswith("still here\n")


def refused(log_config):
    with pytest.raises(ConfigurationError) as caught:
        setup("info", str(log_config))
    assert str(log_config) in caught.value.message
    return caught.value


def test_log_config_that_is_not_there(tmp_path):
    assert "No such file" in refused(tmp_path / "none.ini").message
    assert "No such file" in refused(tmp_path / "none.json").message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "JSONDecodeError"),
        ("a.json", "[1]", "holds a list"),
        ("a.json", "{}", "version"),
        (
            "a.json",
            '{"version": 1, "handlers": {"f": {"class": "no.Such"}}}',
            "No module named 'no'",
        ),
        ("a.toml", "=", "TOMLDecodeError"),
        ("a.ini", "nothing", "nothing"),
        ("a.ini", "[loggers]\nkeys=root\n", "KeyError"),
    ],
)
def test_log_config_that_is_wrong(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    assert said in refused(path).message


def test_broken_yaml_is_told_in_one_line(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "a.yaml"
    path.write_text("a: [")
    message = refused(path).message
    assert "ParserError" in message and "\n" not in message


def test_yaml_without_pyyaml_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "a.yaml"
    path.write_text(YAML)
    error = refused(path)
    assert "PyYAML" in error.message
    assert "tidegate[yaml]" in error.hint


# --- where access lines go


def test_access_lines_go_to_standard_output(capsys):
    setup("info", None)
    writer = access_writer(None, log_config=None)
    assert isinstance(writer, StreamWriter)
    writer.write("one\ntwo\n")
    assert capsys.readouterr() == ("one\ntwo\n", "")


def test_no_line_waits_in_a_buffer(monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    StreamWriter().write("one\n")
    assert raw.getvalue() == b"one\n"


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u2028"])
def test_what_a_pipe_takes_in_one_piece_is_whole_lines(monkeypatch, letter):
    """Otherwise lines of two workers would be torn into each other."""
    pieces = []

    class Pipe(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            pieces.append(bytes(data))
            return len(data)

    stream = io.TextIOWrapper(io.BufferedWriter(Pipe()), "utf-8", newline="")
    monkeypatch.setattr(sys, "stdout", stream)
    lines = [f"{number} {letter * (number % 300)}\n" for number in range(256)]
    StreamWriter().write("".join(lines))
    assert b"".join(pieces).decode() == "".join(lines)
    assert len(pieces) > 4
    assert all(len(piece) <= 4096 and piece.endswith(b"\n") for piece in pieces)


def test_a_line_longer_than_a_piece_goes_alone(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), "utf-8"))
    text = f"one\n{'x' * 9000}\ntwo\n"
    StreamWriter().write(text)
    assert raw.getvalue().decode() == text


def collecting(name):
    handler = logging.Handler()
    handler.seen = []
    handler.emit = lambda record: handler.seen.append((record.levelname, record.getMessage()))
    logging.getLogger(name).addHandler(handler)
    return handler


def test_access_lines_go_through_handlers_the_application_gave(capsys):
    setup("info", None)
    handler = collecting("tidegate.access")
    writer = access_writer(None, log_config=None)
    writer.write("GET 100%s\nGET /b\n")
    assert handler.seen == [("INFO", "GET 100%s"), ("INFO", "GET /b")]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["tidegate.access", "tidegate", ""])
def test_access_lines_go_through_handlers_of_the_log_config(name, stderr):
    given = {"handlers": ["here"], "level": "INFO"}
    setup("info", {**JSON, "loggers": {name: given} if name else {}, "root": {} if name else given})
    access_writer(None, log_config="given").write("one\n")
    assert stderr.getvalue() == "user INFO one\n"


def test_a_log_config_without_handlers_leaves_standard_output():
    logging.getLogger("tidegate.access").propagate = False
    assert isinstance(access_writer(None, log_config="given"), StreamWriter)


def test_a_file_asked_for_goes_before_handlers(tmp_path):
    handler = collecting("tidegate.access")
    path = tmp_path / "access.log"
    path.write_text("before\n")
    writer = access_writer(str(path), log_config="given")
    writer.write("\xe9\udcff\n")
    writer.close()
    writer.close()
    assert path.read_bytes() == b"before\n\xc3\xa9\\udcff\n"
    assert handler.seen == []


def test_a_dash_is_standard_output_whatever_the_handlers(capsys):
    handler = collecting("tidegate.access")
    access_writer("-", log_config="given").write("one\n")
    assert capsys.readouterr().out == "one\n" and handler.seen == []


def test_no_standard_output_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ConfigurationError, match="no standard output") as caught:
        access_writer(None, log_config=None)
    assert "--access-log-file" in caught.value.hint


def test_a_file_that_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file") as caught:
        access_writer(str(tmp_path / "none" / "access.log"), log_config=None)
    assert "directory" in caught.value.hint


def test_a_new_file_is_not_for_everybody(tmp_path):
    path = tmp_path / "access.log"
    FileWriter(str(path)).close()
    assert path.stat().st_mode & 0o007 == 0


def test_a_file_moved_away_is_followed_by_a_new_one(tmp_path):
    path = tmp_path / "access.log"
    writer = FileWriter(str(path))
    writer.write("old\n")
    path.rename(tmp_path / "access.log.1")
    writer.write("new\n")
    writer.write("more\n")
    path.unlink()
    path.write_text("of somebody else\n")
    writer.write("last\n")
    writer.close()
    assert (tmp_path / "access.log.1").read_text() == "old\n"
    assert path.read_text() == "of somebody else\nlast\n"


def test_reopen_makes_the_new_file_at_once(tmp_path):
    path = tmp_path / "access.log"
    writer = FileWriter(str(path))
    path.rename(tmp_path / "access.log.1")
    writer.reopen()
    assert path.exists()
    writer.close()


def test_a_place_that_is_gone_is_told_once_and_the_old_file_kept(tmp_path, caplog):
    path = tmp_path / "logs" / "access.log"
    path.parent.mkdir()
    writer = FileWriter(str(path))
    path.parent.rename(tmp_path / "moved")
    writer.write("kept\n")
    writer.write("too\n")
    assert (tmp_path / "moved" / "access.log").read_text() == "kept\ntoo\n"
    assert len(caplog.records) == 1 and "cannot be opened again" in caplog.text
    path.parent.mkdir()
    writer.write("new\n")
    assert path.read_text() == "new\n"
    path.unlink()
    path.parent.rmdir()
    writer.write("lost sight of\n")
    writer.close()
    assert len(caplog.records) == 2


def test_reopen_leaks_no_descriptor(tmp_path):
    writer = FileWriter(str(tmp_path / "access.log"))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("no /proc")
    writer.reopen()
    assert len(os.listdir("/proc/self/fd")) == before
    writer.close()


def test_a_short_write_is_completed(tmp_path, monkeypatch):
    path = tmp_path / "access.log"
    writer = FileWriter(str(path))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    writer.write("one two three\n")
    monkeypatch.undo()
    writer.close()
    assert path.read_text() == "one two three\n"


@pytest.mark.parametrize(
    ("level", "enabled"), [("info", True), ("debug", True), ("warning", False)]
)
def test_a_level_above_info_switches_access_lines_off(stderr, level, enabled):
    setup(level, None)
    assert access_enabled(None) is enabled
    assert access_enabled("access.log") is True


def test_logger_writer_keeps_quiet_below_the_level():
    handler = collecting("tidegate.access")
    logging.getLogger("tidegate.access").setLevel(logging.WARNING)
    LoggerWriter(logging.getLogger("tidegate.access")).write("one\n")
    assert handler.seen == []


def test_access_lines_are_coloured_on_standard_output_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    file = FileWriter(str(tmp_path / "access.log"))
    assert access_colors(StreamWriter(), None) is True
    assert access_colors(StreamWriter(), False) is False
    assert access_colors(LoggerWriter(logging.getLogger("tidegate.access")), True) is False
    assert access_colors(file, True) is False
    file.close()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert access_colors(StreamWriter(), None) is False


# --- the banner


@pytest.mark.parametrize(
    ("address", "tls", "url"),
    [
        (("127.0.0.1", 8000), False, "http://127.0.0.1:8000"),
        (("::1", 8443, 0, 0), True, "https://[::1]:8443"),
        ("/run/site.sock", False, "unix:/run/site.sock"),
        (b"\0site", False, "unix:@site"),
    ],
)
def test_address_url(address, tls, url):
    assert address_url(address, tls=tls) == url


def test_banner():
    lines = banner(
        version="0.1.0",
        loop="uvloop",
        poller="epoll",
        app="mysite.asgi:application",
        kind=("Django", "ASGI 3"),
        listening=["http://127.0.0.1:8000", "unix:/run/site.sock"],
        protocols=["HTTP/1.1"],
        interactive=True,
    )
    release = ".".join(map(str, sys.version_info[:3]))
    assert lines[0].startswith("Tidegate 0.1.0 on ")
    assert lines[0].endswith(f" {release}, uvloop loop, epoll poller")
    assert lines[1:] == [
        "Serving mysite.asgi:application (Django, ASGI 3)",
        "Listening on http://127.0.0.1:8000 (HTTP/1.1)",
        "Listening on unix:/run/site.sock (HTTP/1.1)",
        "Press Ctrl+C to stop.",
    ]


def test_banner_where_nobody_can_press_keys():
    lines = banner(
        version="0.1.0",
        loop="asyncio",
        poller="reader",
        app="app:app",
        kind=(),
        listening=[],
        protocols=[],
        interactive=False,
    )
    assert lines[1:] == ["Serving app:app"]


# --- start-up


def test_nothing_heavy_is_imported():
    code = (
        "import sys, tidegate.observe.access_log as a, tidegate.observe.logs as l\n"
        "l.setup('info', None); a.compile_format('combined')\n"
        "print([m for m in ('asyncio', 'json', 'logging.config', 'difflib', 'tomllib', 'yaml')"
        " if m in sys.modules])"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(logs.__file__)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
