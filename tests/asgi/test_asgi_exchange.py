"""The exchange between a fake engine and a fake wire: its state table, row by row, and its edges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.apps import body, start
from tests.support.exchange_lab import STREAM, Lab, run, turns

from tidegate.asgi.exchange import FAIR_SHARE, State
from tidegate.asgi.wire import HIGH_WATER
from tidegate.errors import ApplicationError, ClientDisconnected
from tidegate.protocol.events import Body, Fault, Reset

DISCONNECT = {"type": "http.disconnect"}
NO_BODY = {"type": "http.request", "body": b"", "more_body": False}
TRAILERS = {"type": "http.response.trailers", "headers": [(b"x", b"y")]}
HINT = {"type": "http.response.early_hint", "links": [b"</a>"]}


# ---------------------------------------------------------------------------------- the table


async def in_state(state: State) -> Lab:
    """A lab whose answer is that far."""
    lab = Lab()
    if state is State.GONE:
        lab.exchange.lose()
        return lab
    script = {
        State.WAITING: [],
        State.STARTED: [start()],
        State.STREAMING: [start(), body(b"a", more_body=True)],
        State.TRAILERS: [start(trailers=True), body(b"a")],
        State.COMPLETE: [start(), body(b"a")],
    }[state]
    for message in script:
        await lab.send(message)
    lab.engine.calls.clear()
    return lab


REFUSED, IGNORED, LOST = "refused", "ignored", "lost"
MESSAGES = ("start", "hint", "body", "more", "path", "file", "trailers", "unknown")
W, S, T, C = State.WAITING, State.STREAMING, State.TRAILERS, State.COMPLETE
# what each message leads to: another state, or why not
TABLE: dict[State, tuple[Any, ...]] = {
    W: (State.STARTED, W, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED),
    State.STARTED: (REFUSED, State.STARTED, C, S, C, C, REFUSED, REFUSED),
    S: (REFUSED, REFUSED, C, S, REFUSED, C, REFUSED, REFUSED),
    T: (REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, C, REFUSED),
    C: (IGNORED,) * 7 + (REFUSED,),
    State.GONE: (LOST,) * 7 + (REFUSED,),
}
ROWS = [
    pytest.param(state, message, outcome, id=f"{state.name}-{message}")
    for state, row in TABLE.items()
    for message, outcome in zip(MESSAGES, row, strict=True)
]


@pytest.mark.parametrize(("state", "name", "outcome"), ROWS)
def test_each_message_in_each_state(state: State, name: str, outcome: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")

    async def test() -> None:
        with path.open("rb") as file:
            messages = {
                "start": start(),
                "hint": HINT,
                "body": body(b"b"),
                "more": body(b"b", more_body=True),
                "path": {"type": "http.response.pathsend", "path": str(path)},
                "file": {"type": "http.response.zerocopysend", "file": file},
                "trailers": TRAILERS,
                "unknown": {"type": "http.response.nonsense"},
            }
            lab = await in_state(state)
            if outcome is REFUSED:
                with pytest.raises(ApplicationError, match=r"expected|unknown"):
                    await lab.send(messages[name])
            elif outcome is LOST:
                with pytest.raises(ClientDisconnected):
                    await lab.send(messages[name])
            else:
                await lab.send(messages[name])
            expected = outcome if isinstance(outcome, State) else state
            assert lab.exchange._state is expected
            assert lab.exchange.answering is (expected < State.COMPLETE)
            assert bool(lab.engine.calls) is isinstance(outcome, State)

    run(test)


def test_what_the_engine_is_told() -> None:
    async def test() -> Lab:
        lab = Lab()
        for message in (
            HINT,
            start(201, [(b"a", b"b")], trailers=True),
            body(b"one", more_body=True),
            body(bytearray(b"two")),
            {**TRAILERS, "more_trailers": True},
            TRAILERS,
        ):
            await lab.send(message)
        return lab

    lab = run(test)
    assert lab.engine.calls == [
        ("informational", 103, [(b"link", b"</a>")]),
        ("head", 201, [(b"a", b"b")]),
        ("body", b"one", False),
        ("body", b"two", False),
        ("trailers", [(b"x", b"y")], False),
        ("trailers", [(b"x", b"y")], True),
    ]
    assert (lab.exchange.status, lab.exchange.size) == (201, 6)
    assert lab.recorded == [lab.exchange]
    assert lab.wire.finished == 1


def test_engine_without_early_hints_is_told_of_none() -> None:
    async def test() -> Lab:
        lab = Lab()
        lab.engine.supports_early_hints = False
        await lab.send(HINT)
        return lab

    assert run(test).engine.calls == []


def test_a_push_goes_to_the_engine() -> None:
    async def test() -> Lab:
        lab = Lab()
        await lab.send({"type": "http.response.push", "path": "/a.css", "headers": [(b"a", b"b")]})
        await lab.send({"type": "http.response.start", "status": 200})
        await lab.send({"type": "http.response.push", "path": "/b.css"})
        with pytest.raises(ApplicationError, match="needs a 'path'"):
            await lab.send({"type": "http.response.push", "path": b"/c.css"})
        return lab

    pushed = [call for call in run(test).engine.calls if call[0] == "push"]
    assert pushed == [("push", "/a.css", [(b"a", b"b")]), ("push", "/b.css", [])]


def test_flush_that_is_due_is_not_asked_for_again() -> None:
    async def test() -> Lab:
        lab = Lab()
        lab.wire.flush_due = True
        await lab.send(start())
        await lab.send(body(b"a", more_body=True))
        await lab.send(body())
        return lab

    wire = run(test).wire
    assert (wire.flushes, wire.soon, wire.finished) == (0, 0, 0)


# ---------------------------------------------------------------------------------- receive


def test_body_comes_in_pieces_and_its_end_once() -> None:
    async def test() -> list[Any]:
        lab = Lab(end=False)
        lab.exchange.feed(Body(STREAM, b"a", False))
        lab.exchange.feed(Body(STREAM, b"b", False))
        found = [await lab.receive()]
        lab.exchange.feed(Body(STREAM, b"", True))
        found.append(await lab.receive())
        assert [call for call in lab.engine.calls if call[1]] == [("take", 2)]
        waiting = asyncio.create_task(lab.receive())
        await turns()
        assert not waiting.done()  # the body has been told, and the client is still there
        lab.exchange.feed(Reset(STREAM, "left"))
        return [*found, await waiting]

    assert run(test) == [
        {"type": "http.request", "body": b"ab", "more_body": True},
        NO_BODY,
        DISCONNECT,
    ]


def test_waiting_for_the_body_tells_the_engine() -> None:
    async def test() -> None:
        lab = Lab(end=False)
        waiting = asyncio.create_task(lab.receive())
        await turns()
        assert lab.engine.calls == [("take", 0)]  # the 100 is due
        assert lab.wire.soon == 1
        lab.exchange.feed(Body(STREAM, b"all", True))
        assert await waiting == {"type": "http.request", "body": b"all", "more_body": False}

    run(test)


def test_cancelled_receive_loses_nothing() -> None:
    async def test() -> None:
        lab = Lab(end=False)
        waiting = asyncio.create_task(lab.receive())
        await turns()
        # the news and the cancellation in the same turn, in both orders
        lab.exchange.feed(Body(STREAM, b"one", False))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await lab.receive())["body"] == b"one"
        waiting = asyncio.create_task(lab.receive())
        await turns()
        waiting.cancel()
        lab.exchange.feed(Body(STREAM, b"two", True))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await lab.receive())["body"] == b"two"
        assert not lab.exchange._waiters

    run(test)


def test_two_receives_share_what_comes() -> None:
    async def test() -> None:
        lab = Lab(end=False)
        both = [asyncio.create_task(lab.receive()) for _ in range(2)]
        await turns()
        lab.exchange.feed(Body(STREAM, b"one", False))
        await turns()
        assert [task.done() for task in both] == [True, False]
        lab.exchange.feed(Body(STREAM, b"two", True))
        await turns()
        assert [task.result()["body"] for task in both] == [b"one", b"two"]

    run(test)


def test_receive_in_a_task_wakes_when_the_answer_is_complete() -> None:
    async def test() -> None:
        lab = Lab()
        assert await lab.receive() == NO_BODY
        listener = asyncio.create_task(lab.receive())
        await turns()
        await lab.send(start())
        await lab.send(body(b"a", more_body=True))
        await turns()
        assert not listener.done()
        await lab.send(body())
        assert await listener == DISCONNECT
        assert await lab.receive() == DISCONNECT

    run(test)


@pytest.mark.parametrize("how", ["lose", "reset", "fault"])
def test_every_way_to_leave_wakes_receive(how: str) -> None:
    async def test() -> None:
        lab = Lab(end=False)
        listeners = [asyncio.create_task(lab.receive()) for _ in range(2)]
        await turns()
        if how == "lose":
            lab.exchange.lose()
        elif how == "reset":
            lab.exchange.feed(Reset(STREAM, "left"))
        else:
            lab.exchange.feed(Fault(STREAM, 400, "wrong", "RFC 9112 7.1", answered=True))
            assert lab.exchange.status == 400
            assert not lab.exchange.answering
        assert await asyncio.gather(*listeners) == [DISCONNECT, DISCONNECT]

    run(test)


def test_body_that_is_whole_is_told_even_if_the_client_only_half_closed() -> None:
    async def test() -> None:
        lab = Lab(end=False)
        lab.exchange.feed(Body(STREAM, b"all", True))
        lab.exchange.feed(Reset(STREAM, "the client closed its side"))
        assert (await lab.receive())["body"] == b"all"
        assert await lab.receive() == DISCONNECT
        await lab.send(start())  # it may still be reading
        await lab.send(body(b"answer"))
        assert lab.engine.sent()[-1] == ("body", b"answer", True)

    run(test)


# ---------------------------------------------------------------------------------- backpressure


def test_send_waits_while_much_is_queued() -> None:
    async def test() -> None:
        lab = Lab()
        lab.wire.stuck = True
        await lab.send(start())
        lab.engine.pending = HIGH_WATER
        await lab.send(body(b"a", more_body=True))  # not more than the mark
        lab.engine.pending = HIGH_WATER + 1
        sending = asyncio.create_task(lab.send(body(b"b", more_body=True)))
        await turns()
        assert lab.wire.flushes == 1  # what can be written is
        assert not sending.done()
        lab.wire.wake()  # still not all of it
        await turns()
        assert not sending.done()
        lab.wire.release()
        await sending

    run(test)


def test_send_waits_for_what_the_engine_holds_back() -> None:
    """As HTTP/2 does behind a closed window, with nothing left in the socket."""

    async def test() -> None:
        lab = Lab()
        await lab.send(start())
        lab.wire.flush = lambda: None  # type: ignore[method-assign]
        lab.engine.pending = HIGH_WATER + 1
        sending = asyncio.create_task(lab.send(body(b"a", more_body=True)))
        await turns()
        assert not sending.done()
        lab.engine.pending = HIGH_WATER
        lab.wire.wake()
        await sending

    run(test)


def test_send_that_waits_raises_when_the_client_leaves() -> None:
    async def test() -> None:
        lab = Lab()
        lab.wire.stuck = True
        await lab.send(start())
        lab.engine.pending = HIGH_WATER + 1
        sending = asyncio.create_task(lab.send(body(b"a", more_body=True)))
        await turns()
        lab.exchange.lose()
        lab.wire.wake()
        with pytest.raises(ClientDisconnected):
            await sending

    run(test)


async def others_get_a_turn(lab: Lab, queued: int, message: Callable[[], Any]) -> bool:
    """Whether a loop of sends that never wait lets another task run before 16 fair shares."""
    had_turn: list[bool] = []
    asyncio.get_running_loop().call_soon(had_turn.append, True)
    sent = 0
    while not had_turn and sent < 16 * FAIR_SHARE:
        lab.engine.pending = queued
        await lab.send(message())
        sent += 2 * HIGH_WATER
    return bool(had_turn)


def test_send_loop_that_never_waits_yields() -> None:
    async def test() -> None:
        lab = Lab()
        await lab.send(start())
        data = b"x" * (2 * HIGH_WATER)
        assert await others_get_a_turn(lab, len(data), lambda: body(data, more_body=True))

    run(test)


def test_send_loop_of_files_yields(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (2 * HIGH_WATER))

    async def test() -> None:
        lab = Lab()
        await lab.send(start())
        with path.open("rb") as file:
            message = {
                "type": "http.response.zerocopysend",
                "file": file,
                "offset": 0,
                "more_body": True,
            }
            assert await others_get_a_turn(lab, 2 * HIGH_WATER, lambda: message)

    run(test)
