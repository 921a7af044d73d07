"""The world an application's code runs in: context variables, tasks, cancellation, time limits."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import anyio
from tests.support.apps import answer, body, start
from tests.support.behaviour import Gate, Http, News, Transport

SET = contextvars.ContextVar("SET", default="nothing")
STARTED = {"type": "lifespan.startup.complete"}
ENDED = {"type": "lifespan.shutdown.complete"}


async def lifespan_that_sets(receive: Any, send: Any) -> None:
    await receive()
    SET.set("by the lifespan")
    await send(STARTED)
    await receive()
    await send(ENDED)


class Leaky:
    """Tells what it finds in the variable, then leaves something there, at every point it can."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan_that_sets(receive, send)
        found = SET.get()
        SET.set("by a request")
        data = b""
        while True:
            message = await receive()
            SET.set("by a request that waited")
            data += message["body"]
            if not message["more_body"]:
                break
        await send(start())
        SET.set("by a request that answers")
        await send(body(found.encode()))
        return None


def test_variable_of_the_lifespan_is_seen_by_requests(http: Http, transport: Transport) -> None:
    with http.serve(Leaky(), transport, lifespan="on") as site:
        assert site.request().body == b"by the lifespan"


def test_variable_of_a_request_is_not_seen_by_the_next(http: Http, transport: Transport) -> None:
    with http.serve(Leaky(), transport, lifespan="on") as site:
        client = site.client()
        for _ in range(3):
            assert client.request().body == b"by the lifespan"
        assert site.request().body == b"by the lifespan"


def test_variable_of_a_request_that_waited_is_not_seen_by_the_next(
    http: Http, transport: Transport
) -> None:
    """What is registered with the loop inside `receive()` must not carry the request's context."""
    with http.serve(Leaky(), transport, lifespan="on") as site:
        client = site.client()
        for _ in range(3):
            call = client.begin("POST", "/", body=None)
            call.send_body(b"x" * 300_000)  # so much that reading stops and begins again
            call.send_body(b"y", end=True)
            assert call.read().body == b"by the lifespan"
            assert client.request().body == b"by the lifespan"


def test_variable_is_not_seen_by_a_request_begun_while_another_waits(http: Http) -> None:
    arrived, gate = Gate(), Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = SET.get()
        SET.set("by a request")
        if scope["path"] == "/wait":
            arrived.open()
            await gate.passed()
            found += ", " + SET.get()
        await answer(send, body=found.encode())

    with http.serve(app) as site:
        first, second = site.clients(2)
        call = first.begin(target="/wait")
        arrived.wait()
        assert second.request().body == b"nothing"
        gate.open()
        assert call.read().body == b"nothing, by a request"
        assert first.request().body == b"nothing"


def test_reset_contextvars_begins_with_nothing(http: Http) -> None:
    with http.serve(Leaky(), lifespan="on", reset_contextvars=True) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == b"nothing"


def test_variable_of_the_application_is_one_over_the_whole_call(http: Http) -> None:
    """Its tasks inherit it, and what comes in by `receive` leaves it alone."""

    async def child() -> str:
        return SET.get()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        SET.set(scope["path"])
        await receive()
        found = await asyncio.create_task(child())
        await send(start())
        await send(body(b"", more_body=True))
        await send(body(f"{found} {SET.get()}".encode()))

    with http.serve(app) as site:
        client = site.client()
        for path in ("/a", "/b"):
            assert client.request(target=path).body == f"{path} {path}".encode()


def test_current_task_is_the_applications(http: Http) -> None:
    """From its first step on, where Python starts tasks eagerly too."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        first = asyncio.current_task()
        await receive()
        await asyncio.sleep(0)
        second = asyncio.current_task()
        assert first is not None
        assert first is second
        await answer(send, body=str(id(first)).encode())
        assert asyncio.current_task() is first

    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().status == 200
        assert not site.log.lines()


def test_time_limit_around_receive_loses_nothing(http: Http) -> None:
    timed_out = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        data = b""
        for _ in range(3):
            try:
                async with asyncio.timeout(0):
                    data += (await receive())["body"]
            except TimeoutError:
                timed_out.put(True)
        while True:
            message = await receive()
            data += message["body"]
            if not message["more_body"]:
                break
        await answer(send, body=data)

    with http.serve(app) as site:
        call = site.client().begin("POST", "/", body=None)
        for _ in range(3):
            assert timed_out.next()
        call.send_body(b"late")
        call.send_body(b", but whole", end=True)
        assert call.read().body == b"late, but whole"


def test_time_limit_in_the_first_step(http: Http) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.move_on_after(0) as scope_:
            await anyio.sleep_forever()
        assert scope_.cancelled_caught
        await answer(send, body=b"ok")

    with http.serve(app) as site:
        assert site.request().body == b"ok"


async def listen(receive: Any, cancel_scope: anyio.CancelScope, heard: News) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    heard.put("disconnect")
    cancel_scope.cancel()


def test_task_group_that_streams_and_listens_ends_in_good_order(
    http: Http, transport: Transport
) -> None:
    """As Starlette's streaming response: the answer's end wakes the listener."""
    heard = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(listen, receive, group.cancel_scope, heard)
            await send(start())
            for number in range(3):
                await send(body(b"%d" % number, more_body=True))
                await anyio.sleep(0)
            await send(body())

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == b"012"
            assert heard.next() == "disconnect"
        assert not site.log.lines()


def test_task_group_ends_when_the_client_leaves(http: Http, transport: Transport) -> None:
    heard = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(listen, receive, group.cancel_scope, heard)
                await send(start())
                await send(body(b"first", more_body=True))
                await anyio.sleep_forever()
        finally:
            heard.put("over")

    with http.serve(app, transport) as site:
        call = site.client().begin()
        call.read_until(b"first")
        call.leave()
        assert [heard.next(), heard.next()] == ["disconnect", "over"]


def test_two_receives_at_once(http: Http) -> None:
    """Each message goes to one of them, the disconnect to both."""
    begun, seen = Gate(), News()

    async def one(receive: Any) -> None:
        while True:
            message = await receive()
            seen.put(message)
            if message["type"] == "http.disconnect":
                return

    async def app(scope: Any, receive: Any, send: Any) -> None:
        both = [asyncio.create_task(one(receive)) for _ in range(2)]
        await asyncio.sleep(0)
        begun.open()
        await asyncio.gather(*both)

    with http.serve(app) as site:
        call = site.client().begin("POST", "/", [(b"content-length", b"2")], None)
        begun.wait()
        call.send_body(b"a")
        assert seen.next() == {"type": "http.request", "body": b"a", "more_body": True}
        call.send_body(b"b", end=True)
        assert seen.next() == {"type": "http.request", "body": b"b", "more_body": False}
        call.leave()
        assert [seen.next(), seen.next()] == [{"type": "http.disconnect"}] * 2
        assert seen.empty()


def test_work_goes_on_after_the_answer(http: Http, transport: Transport) -> None:
    """A background task is neither cancelled nor in the way of the next request."""
    gate, over = Gate(), News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, body=scope["path"].encode())
        if scope["path"] == "/background":
            await gate.passed()
            over.put("done")

    with http.serve(app, transport) as site:
        client = site.client()
        assert client.request(target="/background").body == b"/background"
        for _ in range(3):
            assert client.request(target="/next").body == b"/next"
        gate.open()
        assert over.next() == "done"
