"""Gunicorn as the supervisor: real processes, real signals, and what its settings mean here."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from tests.support.programs import (
    REPOSITORY,
    Running,
    free_port,
    run,
    running,
    short_folder,
    wait_for_port,
)
from tests.support.raw import RawClient
from tests.support.socket_client import connected
from tests.support.steady import Steady
from tests.support.tls import Files, client_context
from tests.support.workers import spread

from tidegate.config import Config
from tidegate.errors import ConfigurationError

pytest.importorskip("gunicorn", reason="gunicorn is not installed")
gunicorn_config: Any = pytest.importorskip("gunicorn.config", exc_type=ImportError)

pytestmark = pytest.mark.real

SITE = """
import asyncio, os, time

TEXT = b"one"
print(f"imported {TEXT.decode()}", flush=True)

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            print(kind, flush=True)
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        return
    body = TEXT
    if scope["path"] == "/hang":
        time.sleep(600)
    if scope["method"] == "POST":
        print("one with a body is here", flush=True)
        while (await receive()).get("more_body"):
            pass
    if scope["path"].startswith("/never"):
        print("one without an end is here", flush=True)
        await asyncio.sleep(600)
    if scope["path"] == "/accepting":
        body = accepting()
    if scope["path"] == "/seen":
        body = f"{scope['http_version']} {scope['scheme']} {scope['client']}".encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"worker", b"%d" % os.getpid())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

def accepting():  # workers, by the board that they share
    from tidegate.gunicorn.worker import _SEATS
    if _SEATS._board is None:
        return b"no board"
    words = _SEATS._board.words
    return b"%d" % sum(load < 1 << 62 for load in words[8 : words[0] : 8])

def second(scope):
    async def instance(receive, send):
        await application(scope, receive, send)
    return instance

def create():
    return application

def wsgi(environ, start_response):
    raise AssertionError

async def broken(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})
"""

ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"}
# The control socket of newer ones has one path for all of a user's Gunicorns.
QUIET = ["--no-control-socket"] if "control_socket" in gunicorn_config.make_settings() else []
GUNICORN = [sys.executable, "-m", "gunicorn", *QUIET, "-k", "tidegate.gunicorn.Worker"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site_.py").write_text(SITE)
    return tmp_path


@contextlib.contextmanager
def serving(
    site: Path, *arguments: str | Path, app: str = "site_:application", **env: str
) -> Iterator[tuple[Running, int]]:
    """Gunicorn on a free port, all of whose first workers serve."""
    port = free_port()
    command = [*GUNICORN, "-b", f"127.0.0.1:{port}", *arguments, app]
    with running(*command, cwd=site, env={**ENVIRONMENT, **env}) as program:
        wait_for_port(port, program)
        workers = int(arguments[arguments.index("-w") + 1]) if "-w" in arguments else 1
        served(program, workers)
        yield program, port


def served(program: Running, count: int) -> list[int]:
    """Wait until so many workers have begun to serve; the process numbers of all that have."""
    found: list[str] = []

    def enough() -> bool:
        found[:] = re.findall(r"serves \(pid: (\d+)\)", "".join(program._lines))
        return len(found) >= count or program._ended

    with program._news:
        program._news.wait_for(enough, 30)
    assert len(found) >= count, program.output
    return [int(pid) for pid in found]


def get(url: str, **options: Any) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=20, **options)


def refused(site: Path, *arguments: str, app: str = "site_:application", **env: str) -> Any:
    """Gunicorn, which ends by itself; what it said goes into one text."""
    environ = {**os.environ, **ENVIRONMENT, **env}
    command = [*GUNICORN, "-b", f"127.0.0.1:{free_port()}", *arguments, app]
    done = run(*command, cwd=site, env=environ)
    assert "Traceback" not in done.err, done
    return done


# -- what is served --------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_http1_http2_and_websocket(site: Path, loop: str) -> None:
    with serving(site, TIDEGATE_LOOP=loop) as (program, port):
        assert f"{loop} loop" in program.output
        assert get(f"http://127.0.0.1:{port}/seen").text.startswith("1.1 http ")
        with httpx.Client(http1=False, http2=True, trust_env=False) as client:
            assert client.get(f"http://127.0.0.1:{port}/seen").text.startswith("2 http ")
        with connected(("127.0.0.1", port)) as client_socket:
            assert client_socket.ask("the tide") == "the tide"
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.output
    assert program.output.count("lifespan.shutdown") == 1
    assert "Traceback" not in program.output


def test_tls_with_both_versions(site: Path) -> None:
    ca = trustme.CA()
    own = Files(site, "own").write(ca.issue_cert("127.0.0.1"))
    with serving(site, "--certfile", own.cert, "--keyfile", own.key) as (_, port):
        for http2, version in ((False, "1.1"), (True, "2")):
            with httpx.Client(http2=http2, verify=client_context(ca), trust_env=False) as client:
                text = client.get(f"https://127.0.0.1:{port}/seen").text
            assert text.startswith(f"{version} https ")


def test_who_comes_by_a_unix_socket_is_a_trusted_proxy(site: Path) -> None:
    """As with Gunicorn's own workers, and other than with ours."""
    with short_folder() as folder:
        command = [*GUNICORN, "-b", f"unix:{folder}/g.sock", "site_:application"]
        with running(*command, cwd=site, env=ENVIRONMENT) as program:
            served(program, 1)
            transport = httpx.HTTPTransport(uds=f"{folder}/g.sock")
            with httpx.Client(transport=transport, trust_env=False) as client:
                told = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
                text = client.get("http://tide.test/seen", headers=told).text
    assert text.startswith("1.1 https ") and "203.0.113.7" in text


def test_asgi_2(site: Path) -> None:
    with serving(site, app="site_:second") as (_, port):
        assert get(f"http://127.0.0.1:{port}/").text == "one"


def test_hooks_options_and_preload(site: Path) -> None:
    """A subclass with `options`; what those say goes before the environment."""
    (site / "own_.py").write_text(
        "from tidegate.gunicorn import Worker\n"
        "class Own(Worker):\n    options = {'server_header': False, 'http2': False}\n"
    )
    (site / "gunicorn.conf.py").write_text(
        "worker_class = 'own_.Own'\npreload_app = True\n"
        "def post_worker_init(worker): print(f'hook with {worker.wsgi.__name__}', flush=True)\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", *QUIET, "-w", "2", "-b", f"127.0.0.1:{port}"]
    environ = {**ENVIRONMENT, "TIDEGATE_SERVER_HEADER": "1", "TIDEGATE_HEADER": "x-tide: high"}
    with running(*command, "site_:application", cwd=site, env=environ) as program:
        served(program, 2)
        answer = get(f"http://127.0.0.1:{port}/")
        assert "server" not in answer.headers and answer.headers["x-tide"] == "high"
        assert program.output.count("hook with application") == 2
        assert program.output.count("imported one") == 1


def test_connections_are_spread_evenly(site: Path) -> None:
    """Over those who are there, also after one was killed, whose seat its successor has."""
    (site / "gunicorn.conf.py").write_text(
        "def post_worker_init(worker):\n"
        "    print(f'{worker.pid} sits on {worker._seat.number}\\n', end='', flush=True)\n"
    )
    with serving(site, "-w", "4", "--keep-alive", "30") as (program, port):
        workers = served(program, 4)
        for burst in (True, False):
            shares = spread(port, 64, burst=burst)
            assert set(shares) == set(workers) and max(shares.values()) <= 20, shares
        os.kill(workers[1], signal.SIGKILL)
        *_, successor = served(program, 5)
        for burst in (True, False):
            shares = spread(port, 64, burst=burst)
            assert set(shares) == {*workers, successor} - {workers[1]}
            assert max(shares.values()) <= 20, shares
        seats = dict(re.findall(r"(\d+) sits on (\d+)", program.output))
        assert sorted(seats.values()) == sorted(["0", "1", "2", "3", seats[str(workers[1])]])
        assert seats[str(successor)] == seats[str(workers[1])]


def until(url: str, text: str) -> None:
    limit = time.monotonic() + 30
    while (found := get(url).text) != text:
        assert time.monotonic() < limit, found


def test_who_stands_still_is_passed_over_until_it_goes_on(site: Path) -> None:
    """It has fewer connections than the others, who would wait for it with each newcomer."""
    with serving(site, "-w", "2") as (program, port):
        url = f"http://127.0.0.1:{port}/accepting"
        stopped = served(program, 2)[0]
        until(url, "2")
        os.kill(stopped, signal.SIGSTOP)
        try:
            until(url, "1")
        finally:
            os.kill(stopped, signal.SIGCONT)
        until(url, "2")


def test_with_queues_of_their_own_nobody_waits_for_another(site: Path) -> None:
    with serving(site, "-w", "2", "--reuse-port") as (_, port):
        assert get(f"http://127.0.0.1:{port}/accepting").text == "no board"


# -- restarts and ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_restart_under_load_loses_nothing(site: Path, http2: bool) -> None:
    """HUP: every worker is replaced; clients with keep-alive notice nothing."""
    with serving(site, "-w", "2", "--keep-alive", "30") as (program, port):
        with Steady(port, 12, http2=http2, think=0.004) as load:
            load.wait_for(300)
            for _ in range(2):
                told = served(program, 2)
                program.signal(signal.SIGHUP)
                served(program, len(told) + 2)
                for pid in told[-2:]:
                    program.expect(f"Worker exiting (pid: {pid})")
                old = set(told)
                load.mark()
                load.wait_until(lambda report, gone=old: report.seen - gone)
            load.wait_for(300)
        assert not load.report.failures, load.report
        assert len(load.report.workers) >= 3 and load.report.seen.isdisjoint(old), load.report


def test_max_requests_under_load_loses_nothing(site: Path) -> None:
    limits = ["--max-requests", "150", "--max-requests-jitter", "50"]
    with serving(site, "-w", "2", *limits) as (program, port):
        with Steady(port, 8, think=0.004) as load:
            load.wait_until(lambda report: len(report.workers) >= 5, what="the fifth worker")
        assert not load.report.failures, load.report
        counts = re.findall(r"Leaving after (\d+) requests", program.output)
        assert len(counts) >= 3 and all(150 <= int(count) <= 200 for count in counts)


def test_a_worker_that_hangs_is_replaced(site: Path) -> None:
    """Its loop stands still, so do its signs of life; the log says where it stood."""
    with serving(site, "--timeout", "3") as (program, port):
        first = served(program, 1)[0]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /hang HTTP/1.1\r\nHost: tide.test\r\n\r\n")
            output = program.expect(f"Told to abort (pid: {first})")
            served(program, 2)
        assert f"WORKER TIMEOUT (pid:{first})" in output
        program.expect("time.sleep(600)")
        program.expect(f"Worker (pid:{first}) exited with code 1")
        assert get(f"http://127.0.0.1:{port}/").headers["worker"] != str(first)


@contextlib.contextmanager
def begun(program: Running, port: int, path: str) -> Iterator[RawClient]:
    """A client whose request has reached the application, but for the byte of its body."""
    with RawClient(("127.0.0.1", port), 20) as client:
        client.send(
            f"POST {path} HTTP/1.1\r\nHost: tide.test\r\nContent-Length: 1\r\n\r\n".encode()
        )
        program.expect("one with a body is here")
        yield client


def test_a_request_under_way_is_finished(site: Path) -> None:
    with serving(site) as (program, port):
        with begun(program, port, "/body") as client:
            program.signal(signal.SIGTERM)
            program.expect("Stopping: waiting for POST /body")
            client.send(b"x")
            answer = client.read_response()
            assert answer.body == b"one" and answer.tokens(b"connection") == {b"close"}
        assert program.wait() == 0, program.output
    assert "lifespan.shutdown" in program.output


def test_what_takes_too_long_is_named_and_the_application_still_ends(site: Path) -> None:
    """All within --graceful-timeout: beyond it Gunicorn would kill, and nobody would learn why."""
    arguments = ["--graceful-timeout", "6"]
    with serving(site, *arguments) as (program, port), RawClient(("127.0.0.1", port)) as client:
        client.send(b"GET /never%1B%0Amore HTTP/1.1\r\nHost: tide.test\r\n\r\n")
        program.expect("one without an end is here")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0, program.output
    assert "ended while still running: GET /never\\x1b\n  more (" in program.output
    assert "lifespan.shutdown" in program.output and "SIGKILL" not in program.output


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_a_quick_end(site: Path, number: int) -> None:
    with serving(site) as (program, port), RawClient(("127.0.0.1", port)) as client:
        client.send(b"GET /never HTTP/1.1\r\nHost: tide.test\r\n\r\n")
        program.expect("one without an end is here")
        program.signal(number)
        assert program.wait(20) == 0, program.output
    assert "SIGKILL" not in program.output and "ended while still running" in program.output


def test_workers_leave_when_gunicorn_is_killed(site: Path) -> None:
    with serving(site) as (program, _):
        pid = served(program, 1)[0]
        program.signal(signal.SIGKILL)
        try:
            program.expect(f"Worker exiting (pid: {pid})")
        except AssertionError:
            os.kill(pid, signal.SIGKILL)  # nobody else would end it
            raise
    assert "Gunicorn's master is gone" in program.output
    assert "lifespan.shutdown" in program.output


def test_reload(site: Path) -> None:
    """New code after a change; a mistake in it becomes a page, and Gunicorn goes on watching."""
    with serving(site, "--reload", "--reload-engine", "poll") as (program, port):
        assert get(f"http://127.0.0.1:{port}/").text == "one"
        for number, (text, status, shown) in enumerate(
            [("TEXT = = 1", 500, "in load_wsgi"), ('TEXT = b"two"', 200, "two")], 1
        ):
            change(site / "site_.py", SITE.replace('TEXT = b"one"', text), number)
            served(program, number + 1)
            answer = get(f"http://127.0.0.1:{port}/")
            assert answer.status_code == status and shown in answer.text


def change(path: Path, text: str, number: int) -> None:
    """A file is new to the reloader by its time, which some file systems keep in whole seconds."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    at = path.stat().st_mtime + 10 * number
    os.utime(fresh, (at, at))
    fresh.replace(path)


# -- what cannot be served -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "code", "said"),
    [
        ("site_:wsgi", 4, "own worker classes: -k sync, -k gthread, -k gevent"),
        ("mute_:wsgi", 4, "own worker classes"),  # whatever Django's LOGGING has switched off
        ("site_:create", 4, "write the call, in quotes"),
        ("site_:broken", 3, "the database is away"),
    ],
)
def test_an_application_that_cannot_be_served(site: Path, app: str, code: int, said: str) -> None:
    mute = "import logging.config; logging.config.dictConfig({'version': 1})"
    (site / "mute_.py").write_text(f"{mute}\nfrom site_ import wsgi\n")
    done = refused(site, app=app)
    assert done.code == code and said in done.err, done


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--limit-request-line", "10"], {}, "--limit-request-line is 10"),
        ([], {"TIDEGATE_TIMEOUT_HEAD": "soon"}, "$TIDEGATE_TIMEOUT_HEAD is 'soon'"),
        (["--keyfile", __file__], {}, "--keyfile is given without"),
        (["--certfile", __file__], {}, "no whole certificate in PEM form"),
        (["--protocol", "uwsgi"], {}, "--protocol uwsgi is not served"),
    ],
)
def test_a_wrong_setting(site: Path, arguments: list[str], env: dict[str, str], said: str) -> None:
    if "--protocol" in arguments and "protocol" not in gunicorn_config.make_settings():
        pytest.skip("this Gunicorn has no --protocol")
    done = refused(site, *arguments, **env)
    assert done.code == 3 and done.err.count(said) == 1, done


def test_what_has_no_effect_is_said_once(site: Path) -> None:
    """And no more than that: Kubernetes gives every container such a variable."""
    env = {"TIDEGATE_PORT": "tcp://10.0.0.1:80", "TIDEGATE_HTTP3": "1", "WEB_CONCURRENCY": "2"}
    with serving(site, "-w", "2", "--threads", "3", **env) as (program, _):
        output = program.output
    assert output.count("$TIDEGATE_PORT has no effect under Gunicorn: its own --bind counts.") == 1
    assert output.count("Gunicorn's setting threads has no effect") == 1
    assert "Did you mean" in output and "WEB_CONCURRENCY" not in output


# -- logs ------------------------------------------------------------------------------------------


def test_the_access_log_is_gunicorns_and_begins_anew(site: Path) -> None:
    log, old = site / "access.log", site / "access.log.1"
    form = "%(h)s|%(r)s|%(s)s|%(b)s|%(a)s|%({x-tide}i)s|%(q)s|%(M)s|%({none}o)s"
    arguments = ["--access-logfile", log, "--access-logformat", form]
    with serving(site, *arguments) as (program, port):
        get(f"http://127.0.0.1:{port}/a?b=c", headers={"user-agent": 'x\\"', "x-tide": b"\xc3\xa9"})
        pid = served(program, 1)[0]
        program.signal(signal.SIGHUP)
        program.expect(f"Worker exiting (pid: {pid})")  # its lines are written by then
        expected = (
            r'127\.0\.0\.1\|GET /a\?b=c HTTP/1\.1\|200\|3\|x\\x5c\\"\|\\xc3\\xa9\|b=c\|\d+\|-\n'
        )
        assert re.fullmatch(expected, log.read_text()), log.read_text()
        log.rename(old)
        with begun(program, port, "/after") as client:
            program.signal(signal.SIGUSR1)
            program.expect("Handling signal: usr1")
            program.signal(signal.SIGTERM)  # which a worker gets after the other
            program.expect("Stopping: waiting for POST /after")
            client.send(b"x")
            client.read_response()
        assert program.wait() == 0, program.output
    assert "/after" in log.read_text() and "/after" not in old.read_text()


def test_no_access_log_unless_asked_for(site: Path) -> None:
    with serving(site) as (program, port):
        get(f"http://127.0.0.1:{port}/quiet")
        program.signal(signal.SIGTERM)
        program.wait()
    assert "/quiet" not in program.output


# -- what Gunicorn's settings are here -------------------------------------------------------------


def read(options: dict[str, object] | None = None, *, unix: bool = False, **given: Any) -> Config:
    from tidegate.gunicorn.settings import read_settings

    cfg = gunicorn_config.Config()
    for name, value in given.items():
        cfg.set(name, value)
    return read_settings(cfg, options or {}, unix=unix)[0]


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({}, "timeout_keep_alive", 2),
        ({"keepalive": 65}, "timeout_keep_alive", 65),
        ({}, "limit_request_line", 4094),
        ({"limit_request_line": 0}, "limit_request_line", 1 << 30),
        ({"limit_request_fields": 7}, "limit_header_count", 7),
        ({"limit_request_fields": 0}, "limit_header_count", 32768),
        ({}, "limit_header_size", 65536),
        ({"limit_request_field_size": 100_000}, "limit_header_size", 100_000),
        ({"limit_request_field_size": 98}, "limit_header_size", 10_000),
        ({"graceful_timeout": 30}, "timeout_graceful_shutdown", 28),
        ({"graceful_timeout": 5}, "timeout_graceful_shutdown", 4),
        ({"graceful_timeout": 5}, "drain_idle", 2),
        ({"graceful_timeout": 30, "reload": True}, "timeout_graceful_shutdown", 2),
        ({"forwarded_allow_ips": "10.0.0.1,::1"}, "forwarded_allow_ips", "10.0.0.1,::1"),
        ({}, "proxy_protocol", ""),
        ({"proxy_protocol": True}, "proxy_protocol", "127.0.0.1,::1"),
        ({"proxy_protocol": True, "proxy_allow_ips": "*"}, "proxy_protocol", "*"),
        ({"certfile": __file__, "ciphers": "AES128"}, "ssl_ciphers", "AES128"),
        ({"certfile": __file__, "ca_certs": __file__, "cert_reqs": 2}, "ssl_cert_reqs", 2),
    ],
)
def test_a_setting_of_gunicorns(given: dict[str, Any], name: str, value: object) -> None:
    assert getattr(read(**given), name) == value


def test_who_goes_before_whom(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class's options, the environment, Gunicorn's settings, files, our own defaults."""
    monkeypatch.chdir(site)
    text = "timeout_keep_alive = 1\ntimeout_head = 3\nlimit_body_size = 4\n"
    Path("tidegate.toml").write_text(text)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    config = read(keepalive=2, forwarded_allow_ips="10.0.0.2")
    assert (config.timeout_keep_alive, config.timeout_head, config.limit_body_size) == (2, 3, 4)
    assert config.forwarded_allow_ips == "10.0.0.2"
    monkeypatch.setenv("TIDEGATE_TIMEOUT_KEEP_ALIVE", "5")
    monkeypatch.setenv("TIDEGATE_TIMEOUT_HEAD", "6")
    monkeypatch.setenv("TIDEGATE_FORWARDED_ALLOW_IPS", "")
    config = read({"timeout_head": 7}, keepalive=2)
    assert (config.timeout_keep_alive, config.timeout_head) == (5, 7)
    assert config.forwarded_allow_ips == "" and config.timeout_tls_handshake == 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 80}, "its own --bind counts"),
        ({"htp2": False}, "no option 'htp2'"),
        ({"timeout_head": "soon"}, r"options\['timeout_head'\] is 'soon'"),
    ],
)
def test_a_wrong_option_of_the_class(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read(options)


def test_a_hook_that_would_not_be_called_is_refused() -> None:
    """Nobody is to believe that TLS is stricter than it is."""
    with pytest.raises(ConfigurationError, match="ssl_context"):
        read(certfile=__file__, ssl_context=lambda conf, factory: factory())
