"""Statements 29 to 32 and 45 to 48: the request's body, and how an application learns of the end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.support.apps import answer, body, start
from tests.support.behaviour import Gate, Http, News, Transport


class Reader:
    """Reads the whole body, tells every message, and answers the body."""

    def __init__(self) -> None:
        self.messages = News()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        data = b""
        while True:
            message = await receive()
            self.messages.put(message)
            data += message.get("body", b"")
            if not message.get("more_body", False):
                break
        await answer(send, body=data)

    def told(self) -> list[Any]:
        """The messages of one request."""
        found = [self.messages.next()]
        while found[-1].get("more_body", False):
            found.append(self.messages.next())
        return found


PIECES = [b"one", b"\r\n0\r\n\r\n", b"x" * 100_000, b"", b"last"]


def test_statement_29_only_the_bodys_own_bytes(http: Http, transport: Transport) -> None:
    app = Reader()
    with http.serve(app, transport) as site:
        call = site.client().begin("POST", "/", body=None)
        for piece in PIECES:
            call.send_body(piece)
        call.send_body(b"", end=True)
        assert call.read().body == b"".join(PIECES)
    assert b"".join(message["body"] for message in app.told()) == b"".join(PIECES)


@pytest.mark.parametrize("length", [b"", b"8"], ids=["unknown", "known"])
def test_statement_30_more_body_is_false_once_at_the_end(http: Http, length: bytes) -> None:
    app = Reader()
    headers = [(b"content-length", length)] if length else []
    with http.serve(app) as site:
        call = site.client().begin("POST", "/", headers, None)
        call.send_body(b"half")
        first = app.messages.next()
        assert first == {"type": "http.request", "body": b"half", "more_body": True}
        call.send_body(b"rest", end=True)
        assert call.read().body == b"halfrest"
    rest = app.told()
    assert [message["more_body"] for message in rest] == [True] * (len(rest) - 1) + [False]
    assert b"".join(message["body"] for message in rest) == b"rest"


def test_statement_30_keys_are_always_there(http: Http) -> None:
    app = Reader()
    with http.serve(app) as site:
        site.request("POST", "/", body=b"some")
    for message in app.told():
        assert set(message) == {"type", "body", "more_body"}
        assert type(message["body"]) is bytes
        assert type(message["more_body"]) is bool


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST"])
def test_statement_31_no_body_is_one_empty_message(http: Http, method: str) -> None:
    app = Reader()
    headers = [(b"content-length", b"0")] if method == "POST" else []
    with http.serve(app) as site:
        assert site.request(method, "/", headers).status == 200
    assert app.told() == [{"type": "http.request", "body": b"", "more_body": False}]
    assert app.messages.empty()


def test_statement_32_100_is_sent_when_the_application_receives(http: Http) -> None:
    """The early hint that the application sends first comes first."""
    if not (http.supports_continue and http.supports_early_hints):
        pytest.skip("this version has no 100-continue, or no early hints to tell the order by")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a>"]})
        message = await receive()
        await answer(send, body=message["body"])

    with http.serve(app) as site:
        headers = [(b"Expect", b"100-continue"), (b"Content-Length", b"4")]
        call = site.client().begin("POST", "/", headers, None)
        assert call.read_informational()[0] == 103
        assert call.read_informational()[0] == 100
        call.send_body(b"body", end=True)
        found = call.read()
        assert (found.status, found.body) == (200, b"body")
        assert [status for status, _ in found.informational] == [103, 100]


def test_statement_32_no_100_for_who_never_receives(http: Http) -> None:
    if not http.supports_continue:
        pytest.skip("this version has no 100-continue")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 403, body=b"no")

    with http.serve(app) as site:
        headers = [(b"Expect", b"100-continue"), (b"Content-Length", b"4")]
        found = site.client().begin("POST", "/", headers, None).read()
        assert (found.status, found.informational) == (403, [])


# ------------------------------------------------------------------------------- how it ends


def test_statement_45_disconnect_after_the_answer_repeatedly(
    http: Http, transport: Transport
) -> None:
    after = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, body=b"ok")
        after.put([await receive() for _ in range(3)])

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == b"ok"
            assert after.next() == [{"type": "http.disconnect"}] * 3


def test_statement_45_disconnect_after_the_client_left_repeatedly(http: Http) -> None:
    begun, after = Gate(), News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        begun.open()
        after.put([await receive() for _ in range(3)])

    with http.serve(app) as site:
        call = site.client().begin()
        begun.wait()
        call.leave()
        assert after.next() == [{"type": "http.disconnect"}] * 3


def test_statement_45_answer_ends_a_receive_that_is_waiting(http: Http) -> None:
    """As Starlette does it: one task listens for the disconnect while another answers."""
    heard = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        listener = asyncio.create_task(receive())
        await asyncio.sleep(0)
        assert not listener.done()
        await answer(send, body=b"ok")
        heard.put(await listener)

    with http.serve(app) as site:
        assert site.request().body == b"ok"
        assert heard.next() == {"type": "http.disconnect"}


@pytest.mark.parametrize("streaming", [False, True], ids=["before", "streaming"])
def test_statement_46_waiting_receive_wakes_when_the_client_leaves(
    http: Http, transport: Transport, streaming: bool
) -> None:
    begun, heard = Gate(), News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if streaming:
            await send(start())
            await send(body(b"first", more_body=True))
        asyncio.get_running_loop().call_soon(begun.open)
        heard.put(await receive())

    with http.serve(app, transport) as site:
        call = site.client().begin()
        begun.wait()
        if streaming:
            call.read_until(b"first")
        call.leave()
        assert heard.next() == {"type": "http.disconnect"}


def test_statement_46_leaving_in_the_middle_of_the_body(http: Http) -> None:
    heard = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            heard.put(message)
            if message["type"] == "http.disconnect":
                return

    with http.serve(app) as site:
        call = site.client().begin("POST", "/", [(b"content-length", b"10")], None)
        call.send_body(b"half")
        assert heard.next() == {"type": "http.request", "body": b"half", "more_body": True}
        call.leave()
        assert heard.next() == {"type": "http.disconnect"}


async def stream_for_ever(send: Any) -> None:
    await send(start())
    while True:
        await send(body(b"x" * 65536, more_body=True))


def bubbling(error: BaseException) -> BaseException:
    return error


def grouped(error: BaseException) -> BaseException:
    return BaseExceptionGroup("task group", [BaseExceptionGroup("inner", [error])])


@pytest.mark.parametrize("wrap", [bubbling, grouped])
def test_statements_47_48_send_raises_os_error_which_is_no_error(
    http: Http, transport: Transport, wrap: Any
) -> None:
    raised = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await stream_for_ever(send)
        except Exception as error:
            raised.put(error)
            raise wrap(error) from None

    with http.serve(app, transport) as site:
        client = site.client()
        call = client.begin()
        call.read_until(b"xxxx")
        call.leave()
        error = raised.next()
        assert isinstance(error, OSError)
        client.close()
        site.server.stop()
        assert not site.log.lines(logging.WARNING)


def test_statement_47_every_later_send_raises_too(http: Http) -> None:
    raised = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            try:
                await stream_for_ever(send)
            except OSError as error:
                raised.put(error)

    with http.serve(app) as site:
        call = site.client().begin()
        call.read_until(b"xxxx")
        call.leave()
        assert all(isinstance(raised.next(), OSError) for _ in range(3))


def test_statement_48_other_errors_of_an_abandoned_request_are_logged(http: Http) -> None:
    begun = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        begun.open()
        await receive()
        raise ValueError("a bug of the application")

    with http.serve(app) as site:
        call = site.client().begin("GET", "/abandoned")
        begun.wait()
        call.leave()
        record = site.log.expect("/abandoned")
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)
