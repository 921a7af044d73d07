"""How an application's call ends: by returning or raising in every state, by deadline, by the stop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.support.apps import body, start
from tests.support.exchange_lab import LOG, STREAM, Lab, run, turns

from tidegate.asgi.exchange import State
from tidegate.errors import ClientDisconnected
from tidegate.protocol.events import Body, Reset

BEGINNINGS: dict[State, list[Any]] = {
    State.WAITING: [],
    State.STARTED: [start()],
    State.STREAMING: [start(), body(b"a", more_body=True)],
    State.TRAILERS: [start(trailers=True), body(b"a")],
    State.COMPLETE: [start(), body(b"a")],
}
EACH_STATE = pytest.mark.parametrize("state", BEGINNINGS, ids=lambda state: state.name)
EVENTS = [(b"content-type", b"text/event-stream")]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, LOG.name)
    return caplog


class ClientDisconnect(Exception):
    """What a framework makes of a client's leaving."""


def played(state: State, end: Any = None) -> Lab:
    """An application that comes so far, then ends by `end`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in BEGINNINGS[state]:
            await send(message)
        if end is not None:
            await end()

    async def test() -> Lab:
        lab = Lab(app)
        await lab.run()
        return lab

    lab: Lab = run(test)
    return lab


def raising(error: BaseException) -> Any:
    async def end() -> None:
        raise error

    return end


def check_answer(lab: Lab, state: State) -> None:
    """500 where nothing is out, a reset within the answer, nothing where it is whole."""
    if state <= State.STARTED:
        head, text = lab.engine.sent()[-2:]
        assert head[:2] == ("head", 500)
        assert text == ("body", b"Internal Server Error\n", True)
        assert lab.exchange.status == 500
    elif state < State.COMPLETE:
        assert lab.engine.sent()[-1] == ("reset", STREAM)
    else:
        assert lab.engine.sent()[-1] == ("body", b"a", True)
    assert not lab.exchange.answering
    assert lab.recorded == [lab.exchange]
    assert lab.wire.ended == [lab.exchange]
    assert lab.exchange.task is None


@EACH_STATE
def test_application_that_returns(state: State, log: Any) -> None:
    lab = played(state)
    check_answer(lab, state)
    assert len(log.messages) == (state < State.COMPLETE)
    if log.messages:
        assert log.messages[0].startswith("The application returned")
        assert log.messages[0].endswith("GET /there")


FAILURES = {
    "Exception": ValueError("mine"),
    "sys.exit": SystemExit(1),
    "group": BaseExceptionGroup("g", [ValueError(), SystemExit(1)]),
    "cancelled": asyncio.CancelledError(),
    "OSError": OSError("a file of its own"),
}


@EACH_STATE
@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES)
def test_application_that_raises(state: State, error: BaseException, log: Any) -> None:
    check_answer(played(state, raising(error)), state)
    (record,) = log.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().endswith("GET /there")
    if not isinstance(error, asyncio.CancelledError):
        assert record.exc_info[1] is error


def plain(error: BaseException) -> BaseException:
    return error


def in_groups(error: BaseException) -> BaseException:
    return BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [error]), error])


def translated(error: BaseException) -> BaseException:
    made = ClientDisconnect()
    made.__context__ = error
    return made


@pytest.mark.parametrize("wrap", [plain, in_groups, translated])
def test_clients_leaving_is_no_error(wrap: Any, log: Any) -> None:
    async def test() -> Lab:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(start())
            lab.exchange.lose()
            with pytest.raises(ClientDisconnected) as caught:
                await send(body(b"a"))
            raise wrap(caught.value) from None

        lab = Lab(app)
        await lab.run()
        return lab

    lab = run(test)
    assert not log.records
    assert lab.engine.sent() == [("head", 200, [])]
    assert lab.recorded == [lab.exchange]


def test_another_error_beside_the_clients_leaving_is_one(log: Any) -> None:
    async def test() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            lab.exchange.lose()
            raise ExceptionGroup("both", [ClientDisconnected(), ValueError("mine")])

        lab = Lab(app)
        await lab.run()

    run(test)
    assert len(log.records) == 1


def test_disconnect_the_application_made_up_is_an_error(log: Any) -> None:
    """Its client is still there, and would wait for ever."""
    check_answer(played(State.WAITING, raising(ClientDisconnected())), State.WAITING)
    assert len(log.records) == 1


def test_bug_in_cleaning_up_after_the_client_left_is_logged(log: Any) -> None:
    async def test() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            lab.exchange.lose()
            try:
                await send(start())
            finally:
                {}["a bug"]

        lab = Lab(app)
        await lab.run()

    run(test)
    assert log.records


# ---------------------------------------------------------------------------------- deadline


@EACH_STATE
def test_expire(state: State, log: Any) -> None:
    async def test() -> tuple[Lab, list[str]]:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in BEGINNINGS[state]:
                await send(message)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        lab = Lab(app)
        task = lab.run()
        await turns()
        lab.exchange.expire(1.5)
        await asyncio.wait({task})
        return lab, seen

    lab, seen = run(test)
    assert seen == ["cancelled"]
    assert log.messages[0] == "The application took longer than 1.5 s: GET /there"
    if state <= State.STARTED:
        head, text = lab.engine.sent()[-2:]
        assert head[:2] == ("head", 503)
        assert (b"retry-after", b"1") in head[2]
        assert text[2] is True
    else:
        check_answer(lab, state)


def test_expire_of_an_application_that_goes_on(log: Any) -> None:
    """It learns that nobody waits any more; its own answer goes nowhere."""

    async def test() -> Lab:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert (await receive())["type"] == "http.disconnect"
                await send(start())

        lab = Lab(app)
        task = lab.run()
        await turns()
        lab.exchange.expire(1)
        await asyncio.wait({task})
        return lab

    assert [call[:2] for call in run(test).engine.sent() if call[0] == "head"] == [("head", 503)]
    assert len(log.records) == 1


# ---------------------------------------------------------------------------------- the stop


def test_end_event_stream(log: Any) -> None:
    async def test() -> Lab:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(start(200, EVENTS))
            await send(body(b"data: 1\n\n", more_body=True))
            seen.append((await receive())["type"])
            await send(body(b"data: 2\n\n", more_body=True))

        lab = Lab(app)
        task = lab.run()
        await turns()
        lab.exchange.stop()
        await task
        assert seen == ["http.disconnect"]
        return lab

    lab = run(test)
    assert lab.engine.sent()[-1] == ("body", b"", True)
    assert lab.recorded == [lab.exchange]
    assert not log.records


@pytest.mark.parametrize(
    "headers", [[], [(b"content-type", b"text/plain")], [(b"x-type", b"text/event-stream")]]
)
def test_other_answers_may_end_by_themselves(headers: Any) -> None:
    async def test() -> None:
        lab = Lab()
        await lab.send(start(200, headers))
        await lab.send(body(b"a", more_body=True))
        lab.exchange.stop()
        assert lab.exchange.answering
        await lab.send(body(b"b"))
        assert lab.engine.sent()[-1] == ("body", b"b", True)

    run(test)


@pytest.mark.parametrize("state", [State.WAITING, State.COMPLETE], ids=lambda state: state.name)
def test_end_event_stream_outside_of_an_answer_does_nothing(state: State) -> None:
    async def test() -> None:
        lab = Lab()
        for message in BEGINNINGS[state]:
            await lab.send(message)
        before = list(lab.engine.calls)
        lab.exchange.stop()
        assert lab.engine.calls == before
        assert lab.exchange.answering is (state < State.COMPLETE)

    run(test)


def test_end_event_stream_whose_headers_came_from_a_generator() -> None:
    async def test() -> None:
        lab = Lab()
        await lab.send(start(200, iter(EVENTS)))
        await lab.send(body(b"a", more_body=True))
        lab.exchange.stop()
        assert not lab.exchange.answering

    run(test)


def test_answer_of_the_servers_own() -> None:
    async def test() -> Lab:
        lab = Lab(end=False)
        waiting = asyncio.create_task(lab.receive())
        await turns()
        lab.exchange.answer(503, b"full\n", ((b"retry-after", b"1"),))
        assert (await waiting)["type"] == "http.disconnect"
        with pytest.raises(ClientDisconnected):
            await lab.send(start())
        return lab

    lab = run(test)
    head, text = lab.engine.sent()
    assert head[1] == 503
    assert dict(head[2])[b"content-length"] == b"5"
    assert text == ("body", b"full\n", True)
    assert (lab.exchange.status, lab.exchange.size, lab.recorded) == (503, 5, [lab.exchange])


def test_a_stream_that_is_gone_ends_the_answer() -> None:
    """A Reset that is final leaves nobody to send to; one that is not is a half-close."""

    async def test() -> Lab:
        lab = Lab()
        await lab.send({"type": "http.response.start", "status": 200})
        lab.exchange.feed(Reset(STREAM, "half-closed"))
        await lab.send({"type": "http.response.body", "body": b"a", "more_body": True})
        lab.exchange.feed(Reset(STREAM, "cancelled", final=True))
        with pytest.raises(ClientDisconnected):
            await lab.send({"type": "http.response.body", "body": b"b"})
        assert await lab.exchange.receive() == {"type": "http.disconnect"}
        return lab

    assert ("body", b"b", True) not in run(test).engine.calls


def test_small_pieces_of_a_body_are_joined() -> None:
    """They would take forty times their size; long ones are kept as they came."""

    async def test() -> list[bytes]:
        lab = Lab(end=False)
        for _ in range(5000):
            lab.exchange.feed(Body(STREAM, b"x", False))
        lab.exchange.feed(Body(STREAM, bytes(5000), False))
        pieces = list(lab.exchange._body or ())
        assert (await lab.exchange.receive())["body"] == b"x" * 5000 + bytes(5000)
        return pieces

    assert len(run(test)) < 5
