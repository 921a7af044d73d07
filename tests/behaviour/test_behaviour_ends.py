"""Limits, failures and the end of the server, as clients, applications and operators see them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.support.apps import answer, body, start
from tests.support.behaviour import Gate, Http, IncompleteError, News, Site, Transport

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Stream:
    """An event stream that never ends by itself; `over` tells how it ended."""

    def __init__(self, first: bytes = b"data: first\n\n", headers: Any = EVENTS) -> None:
        self.over = News()
        self.first, self.headers = first, headers
        self.begun = Gate()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start(200, self.headers))
        if self.first:
            await send(body(self.first, more_body=True))
        asyncio.get_running_loop().call_soon(self.begun.open)
        message = await receive()
        self.over.put(message["type"])
        try:
            await send(body(b"data: late\n\n", more_body=True))
        except OSError as error:
            self.over.put(type(error).__name__)


def test_stop_ends_an_event_stream_cleanly(http: Http, transport: Transport) -> None:
    app = Stream()
    with http.serve(app, transport, timeout_graceful_shutdown=None) as site:
        call = site.client().begin()
        call.read_until(b"first")
        site.begin_stop()
        assert call.read().body == b"data: first\n\n"
        assert app.over.next() == "http.disconnect"
        assert app.over.next() == "ClientDisconnected"
        call.leave()
        site.wait_ended()
    assert site.server.clean
    assert not site.log.lines()


def test_stop_ends_an_event_stream_before_its_first_event(http: Http) -> None:
    app = Stream(first=b"")
    with http.serve(app, timeout_graceful_shutdown=0.1) as site:
        call = site.client().begin()
        app.begun.wait()
        site.begin_stop()
        found = call.read()
        assert (found.status, found.body) == (200, b"")
        assert found.all(b"content-type") == [EVENTS[0][1]]
        assert app.over.next() == "http.disconnect"


@pytest.mark.parametrize(
    "headers",
    [
        [[b"Content-Type", b"text/event-stream"]],
        [(b"content-type", b"Text/Event-Stream")],
    ],
    ids=["lists", "case"],
)
def test_stop_knows_an_event_stream_in_other_clothes(http: Http, headers: Any) -> None:
    app = Stream(headers=headers)
    with http.serve(app, timeout_graceful_shutdown=0.1) as site:
        call = site.client().begin()
        call.read_until(b"first")
        site.begin_stop()
        assert call.read().body == b"data: first\n\n"


class Held:
    """Answers `/held` when told, anything else at once."""

    def __init__(self) -> None:
        self.arrived, self.gate, self.over = News(), Gate(), News()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/held"):
            self.arrived.put(scope["path"])
            try:
                await self.gate.passed()
            except asyncio.CancelledError:
                self.over.put("cancelled")
                raise
        await answer(send, body=b"ok")
        self.over.put("answered")

    def hold(self, site: Site, path: str = "/held") -> Any:
        """A call that has reached the application and is not answered yet."""
        call = site.client().begin("GET", path)
        assert self.arrived.next() == path
        return call


def test_stop_lets_a_long_request_end_within_the_grace(http: Http, transport: Transport) -> None:
    app = Held()
    with http.serve(app, transport, timeout_graceful_shutdown=None) as site:
        call = app.hold(site, "/held/long")
        site.begin_stop()
        assert "GET /held/long" in site.log.expect("Stopping: waiting for").getMessage()
        app.gate.open()
        assert call.read().body == b"ok"
        call.leave()
        site.wait_ended()
    assert site.server.clean
    assert not site.log.lines()


def test_stop_accepts_nobody_new_and_closes_who_is_idle(http: Http, transport: Transport) -> None:
    app = Held()
    with http.serve(app, transport) as site:
        idle = site.client()
        assert idle.request().body == b"ok"
        call = app.hold(site)
        site.begin_stop()
        idle.wait_closed()
        with pytest.raises(OSError):
            site.client()
        app.gate.open()
        assert call.read().body == b"ok"
        call.leave()


def test_stop_ends_what_is_not_done_within_the_grace_and_names_it(http: Http) -> None:
    app = Held()
    with http.serve(app, timeout_graceful_shutdown=0.05) as site:
        call = app.hold(site, "/held/for-ever")
        site.begin_stop()
        record = site.log.expect("Not done within 0.05 s")
        assert record.levelno == logging.WARNING
        assert "GET /held/for-ever (" in record.getMessage()
        with pytest.raises(IncompleteError):
            call.read()
        site.wait_ended()
    assert app.over.next() == "cancelled"
    assert site.server.clean is False


def test_stop_that_is_forced(http: Http, transport: Transport) -> None:
    app = Held()
    with http.serve(app, transport, timeout_graceful_shutdown=None) as site:
        calls = [app.hold(site, f"/held/{number}") for number in range(2)]
        site.begin_stop()
        site.log.expect("Stopping: waiting for")
        site.server.call(site.server.worker.force)
        line = site.log.expect("Forced to stop").getMessage()
        assert "GET /held/0 (" in line
        assert "GET /held/1 (" in line
        for call in calls:
            with pytest.raises(IncompleteError):
                call.read()
        site.wait_ended()
    assert {app.over.next(), app.over.next()} == {"cancelled"}
    assert site.server.clean is False


# ---------------------------------------------------------------------------------- limits


def test_limit_concurrency_answers_503_with_retry_after(http: Http, transport: Transport) -> None:
    app = Held()
    with http.serve(app, transport, limit_concurrency=1) as site:
        call = app.hold(site)
        refused = site.request()
        assert refused.status == 503
        assert refused.all(b"retry-after") != []
        assert int(refused.all(b"retry-after")[0]) > 0
        app.gate.open()
        assert call.read().body == b"ok"


def test_limit_concurrency_serves_again_afterwards(http: Http) -> None:
    app = Held()
    with http.serve(app, limit_concurrency=1) as site:
        first = site.client()
        call = first.begin(target="/held")
        assert app.arrived.next() == "/held"
        second = first if http.many_at_once else site.client()
        assert second.request().status == 503
        if not http.many_at_once:
            second.close()
        app.gate.open()
        assert call.read().body == b"ok"
        # at the latest when the server has learned that the second connection is gone
        assert 200 in (first.request().status for _ in range(10_000))


def test_timeout_request_answers_503_and_cancels(http: Http, transport: Transport) -> None:
    app = Held()
    with http.serve(app, transport, timeout_request=0.2) as site:
        found = app.hold(site, "/held/long").read()
        assert found.status == 503
        assert found.all(b"retry-after") != []
        assert app.over.next() == "cancelled"
        assert "GET /held/long" in site.log.expect("longer than 0.2 s").getMessage()
        assert site.request().body == b"ok"


def test_timeout_request_cuts_off_an_answer_that_has_begun(http: Http) -> None:
    over = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"half", more_body=True))
        try:
            await asyncio.Event().wait()
        finally:
            over.put(True)

    with http.serve(app, timeout_request=0.2) as site:
        with pytest.raises(IncompleteError) as caught:
            site.request()
        assert caught.value.partial == b"half"
        assert over.next()


def test_limit_max_requests_ends_the_server_after_that_many(
    http: Http, transport: Transport
) -> None:
    app = Held()
    with http.serve(app, transport, limit_max_requests=3) as site:
        client = site.client()
        for _ in range(3):
            assert client.request().body == b"ok"
        client.wait_closed()
        site.wait_ended()
    assert site.server.clean
    assert [app.over.next() for _ in range(3)] == ["answered"] * 3


# ---------------------------------------------------------------------------------- failures


def test_500_tells_strangers_nothing_and_the_log_everything(
    http: Http, transport: Transport
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        secret = "the password is tide"
        raise ValueError(secret)

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            found = client.request("GET", "/broken?secret=query")
            assert found.status == 500
            assert found.body == b"Internal Server Error\n"
            told = repr(found.headers)
            assert not [word for word in ("password", "ValueError", "query") if word in told]
        record = site.log.expect("GET /broken")
        assert record.levelno == logging.ERROR
        shown = logging.Formatter().format(record)
        assert "Traceback" in shown
        assert "ValueError: the password is tide" in shown
        assert __file__ in shown


def test_500_to_head_has_no_body(http: Http) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):
            found = client.request("HEAD")
            assert (found.status, found.body) == (500, b"")


def test_failure_after_the_answer_is_logged_and_harms_nobody(http: Http) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, body=b"ok")
        raise ValueError("in the background")

    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):
            assert client.request("GET", "/late").body == b"ok"
        assert site.log.expect("GET /late").exc_info is not None


def test_application_that_cancels_itself_is_a_failure(http: Http) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):
            assert client.request("GET", "/cancelled").status == 500
        assert "GET /cancelled" in site.log.lines()[0]
