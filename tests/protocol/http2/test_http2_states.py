"""The table of a stream's states, row by row, beside what RFC 9113 5.1 says of each."""

from __future__ import annotations

import pytest

from tidegate.protocol.http2.frames import Code, ConnectionFault, StreamFault
from tidegate.protocol.http2.states import State, Step, after

# "receiving ..." of 5.1 in each state: what follows, or whose fault it is and its code
CONNECTION = (ConnectionFault, Code.PROTOCOL_ERROR)
CLOSED_STREAM = (StreamFault, Code.STREAM_CLOSED)
CLOSED_CONNECTION = (ConnectionFault, Code.STREAM_CLOSED)
OURS = (ConnectionFault, Code.INTERNAL_ERROR)

RECEIVED = {
    # idle: "any frame other than HEADERS or PRIORITY ... connection error PROTOCOL_ERROR"
    State.IDLE: (State.OPEN, CONNECTION, CONNECTION, CONNECTION, CONNECTION),
    # reserved (local): "any type of frame other than RST_STREAM, PRIORITY, or WINDOW_UPDATE ..."
    State.RESERVED: (CONNECTION, CONNECTION, CONNECTION, State.CLOSED, State.RESERVED),
    State.OPEN: (State.OPEN, State.OPEN, State.HALF_REMOTE, State.CLOSED, State.OPEN),
    # half-closed (remote): "other than WINDOW_UPDATE, PRIORITY, or RST_STREAM ... stream error
    # STREAM_CLOSED"
    State.HALF_REMOTE: (
        CLOSED_STREAM,
        CLOSED_STREAM,
        CLOSED_STREAM,
        State.CLOSED,
        State.HALF_REMOTE,
    ),
    # half-closed (local): "can receive any type of frame"
    State.HALF_LOCAL: (
        State.HALF_LOCAL,
        State.HALF_LOCAL,
        State.CLOSED,
        State.CLOSED,
        State.HALF_LOCAL,
    ),
    # closed: after END_STREAM a connection error STREAM_CLOSED, but for what may be under way
    State.CLOSED: (
        CLOSED_CONNECTION,
        CLOSED_CONNECTION,
        CLOSED_CONNECTION,
        State.CLOSED,
        State.CLOSED,
    ),
}
RECEIVING = (
    Step.RECEIVE_HEADERS, Step.RECEIVE_DATA, Step.RECEIVE_END, Step.RECEIVE_RESET, Step.RECEIVE_WINDOW,
)  # fmt: skip
SENT = {
    State.IDLE: (OURS, OURS, OURS),
    State.RESERVED: (State.HALF_REMOTE, OURS, State.CLOSED),
    State.OPEN: (State.OPEN, State.HALF_LOCAL, State.CLOSED),
    State.HALF_REMOTE: (State.HALF_REMOTE, State.CLOSED, State.CLOSED),
    State.HALF_LOCAL: (OURS, OURS, State.CLOSED),  # "only WINDOW_UPDATE, PRIORITY, RST_STREAM"
    State.CLOSED: (OURS, OURS, State.CLOSED),  # a stream error is still answered by a reset
}
SENDING = (Step.SEND_HEADERS, Step.SEND_END, Step.SEND_RESET)

ROWS = [
    pytest.param(state, step, follows, id=f"{state.name}-{step.name}")
    for table, steps in ((RECEIVED, RECEIVING), (SENT, SENDING))
    for state, row in table.items()
    for step, follows in zip(steps, row, strict=True)
]


@pytest.mark.parametrize(("state", "step", "follows"), ROWS)
def test_every_row_of_the_table(state: State, step: Step, follows: object) -> None:
    if isinstance(follows, State):
        assert after(state, step) is follows
        return
    kind, code = follows  # type: ignore[misc]
    with pytest.raises(kind) as raised:
        after(state, step)
    assert raised.value.code is code
    assert raised.value.section == "RFC 9113 5.1"


def test_the_rows_are_all_there_is() -> None:
    assert len(ROWS) == len(State) * len(Step)


@pytest.mark.parametrize("state", State)
def test_a_reset_closes_from_wherever_it_may_be_sent(state: State) -> None:
    if state not in (State.IDLE, State.CLOSED):
        assert after(state, Step.SEND_RESET) is State.CLOSED
        assert after(state, Step.RECEIVE_RESET) is State.CLOSED
