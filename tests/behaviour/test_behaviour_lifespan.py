"""Statements 67 to 74, the worker's half: when the lifespan happens, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support.apps import answer, body, lifespan, start
from tests.support.behaviour import Call, Client, Gate, Http, News
from tests.support.programs import free_port, short_folder

from tidegate.asgi.lifespan import LifespanFailed

STARTED = {"type": "lifespan.startup.complete"}
ENDED = {"type": "lifespan.shutdown.complete"}


def test_statement_67_once_on_the_loop_that_serves(http: Http) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], (threading.get_ident(), id(asyncio.get_running_loop()))))
        await (answer(send) if scope["type"] == "http" else lifespan(receive, send))

    with http.serve(app, lifespan="on") as site:
        for _ in range(3):
            site.request()
    assert [kind for kind, _ in seen] == ["lifespan", "http", "http", "http"]
    assert len({where for _, where in seen}) == 1


def test_statement_68_scope_of_the_lifespan(http: Http) -> None:
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            seen.put(repr(scope))
            await lifespan(receive, send)

    with http.serve(app, lifespan="on"):
        pass
    expected = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    assert seen.next() == repr(expected)


@pytest.mark.parametrize("when", ["scope", "startup"])
def test_statement_69_exception_means_to_go_on_without(http: Http, when: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if when == "startup":
                await receive()
            raise ValueError("no lifespan here")
        await answer(send, body=b"served")

    with http.serve(app, lifespan="auto") as site:
        assert site.request().body == b"served"
        site.server.stop()
    assert site.server.clean


def knock(http: Http, path: str) -> Client | None:
    """A connection, as soon as somebody listens on a Unix socket; None where nobody does."""
    try:
        return http.connect(path, None)
    except OSError:
        return None


def test_statement_70_nothing_is_processed_before_startup_is_complete(http: Http) -> None:
    """A client that comes early is not answered early, and is not lost either."""
    order: list[str] = []
    early: list[tuple[Client, Call]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            order.append("request")
            return await answer(send, body=b"ok")
        await receive()
        if client := await asyncio.to_thread(knock, http, path):
            early.append((client, client.begin()))
        for _ in range(200):
            await asyncio.sleep(0)
        order.append("startup complete")
        await send(STARTED)
        await receive()
        return await send(ENDED)

    with short_folder() as folder:
        path = str(Path(folder) / "s")
        with http.serve(app, lifespan="on", uds=path):
            for client, call in early:
                with contextlib.closing(client):
                    assert call.read().body == b"ok"
            if late := knock(http, path):
                with contextlib.closing(late):
                    assert late.request().body == b"ok"
    assert order[0] == "startup complete"
    assert "request" in order


def test_statement_71_startup_failed_is_logged_and_ends_the_server(
    http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the database is away"})

    with (
        pytest.raises(LifespanFailed, match="the database is away"),
        http.serve(app, lifespan="auto"),
    ):
        pytest.fail("it serves")
    assert any("the database is away" in line for line in caplog.messages)


def test_statement_72_shutdown_comes_last(http: Http) -> None:
    """After accepting stopped, the requests ended and the connections are closed."""
    order: list[str] = []
    begun, gate, closed = Gate(), Gate(), Gate()
    port = free_port()  # which nobody else takes when the server has let it go

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            begun.open()
            await gate.passed()
            await answer(send, body=b"ok")
            order.append("answered")
            await asyncio.sleep(0)
            order.append("request over")
            return
        assert (await receive())["type"] == "lifespan.startup"
        await send(STARTED)
        assert (await receive())["type"] == "lifespan.shutdown"
        order.append("shutdown")
        with contextlib.suppress(ConnectionRefusedError):
            await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port), 5)
            order.append("still listening")
        await closed.passed()
        await send(ENDED)

    with http.serve(app, lifespan="on", port=port) as site:
        idle, busy = site.client(), site.client()
        call = busy.begin()
        begun.wait()
        site.begin_stop()
        idle.wait_closed()
        gate.open()
        assert call.read().body == b"ok"
        busy.wait_closed()
        busy.close()
        # nobody but the server's own end keeps the lifespan waiting for this
        closed.open()
        site.wait_ended()
    assert order == ["answered", "request over", "shutdown"]
    assert site.server.clean


def test_statement_72_shutdown_comes_after_what_is_cut_off(http: Http) -> None:
    """A request that outlasts the grace is cancelled before the application is told to end."""
    order: list[str] = []
    begun = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send(STARTED)
            await receive()
            await asyncio.sleep(0)
            order.append("shutdown")
            return await send(ENDED)
        try:
            begun.open()
            await asyncio.Event().wait()
        finally:
            order.append("cancelled")

    with http.serve(app, lifespan="on", timeout_graceful_shutdown=0.05) as site:
        site.client().begin()
        begun.wait()
        site.begin_stop()
        site.wait_ended()
    assert order == ["cancelled", "shutdown"]


@pytest.mark.parametrize("failed", [False, True], ids=["complete", "failed"])
def test_statement_73_shutdown_is_waited_for(http: Http, failed: bool) -> None:
    asked, gate = Gate(), Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        await receive()
        asked.open()
        await gate.passed()
        wrong = {"type": "lifespan.shutdown.failed", "message": "could not flush"}
        await send(wrong if failed else ENDED)

    with http.serve(app, lifespan="on") as site:
        site.begin_stop()
        asked.wait()
        assert site.server.clean is None  # it has not ended
        gate.open()
        site.wait_ended()
    assert site.server.clean is not failed
    assert any("could not flush" in line for line in site.log.lines()) is failed


def test_statement_74_state_is_the_applications_alone(http: Http) -> None:
    """Never looked into, never changed: it is shallow-copied, and that is all."""

    class Guarded:
        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("deep copy")

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = None  # type: ignore[assignment]

    value = Guarded()
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        state = scope["state"]
        if scope["type"] == "http":
            seen.put(state["value"] is value)
            state.clear()
            await send(start())
            return await send(body(b"ok"))
        await receive()
        state["value"] = value
        await send(STARTED)
        await receive()
        seen.put([*state] == ["value"] and state["value"] is value)
        return await send(ENDED)

    with http.serve(app, lifespan="on") as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == b"ok"
            assert seen.next()
    assert seen.next()
