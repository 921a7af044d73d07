"""The states of a stream (RFC 9113 5.1) as a table: what may happen in which, and what follows.

`END_STREAM` is a step of its own, behind that of the frame which carries it. A stream that becomes
CLOSED is dropped from the engine's table, so most rows are about streams that live.
"""

from __future__ import annotations

import enum

from tidegate.protocol.http2.frames import Code, ConnectionFault, StreamFault


class State(enum.IntEnum):
    IDLE = 0
    RESERVED = 1  # "reserved (local)": we have promised it
    OPEN = 2
    HALF_REMOTE = 3  # "half-closed (remote)": the request is whole
    HALF_LOCAL = 4  # "half-closed (local)": the answer is whole
    CLOSED = 5


class Step(enum.IntEnum):
    RECEIVE_HEADERS = 0
    RECEIVE_DATA = 1
    RECEIVE_END = 2
    RECEIVE_RESET = 3
    RECEIVE_WINDOW = 4
    SEND_HEADERS = 5
    SEND_END = 6
    SEND_RESET = 7


IDLE, RESERVED, OPEN = State.IDLE, State.RESERVED, State.OPEN
HALF_REMOTE, HALF_LOCAL, CLOSED = State.HALF_REMOTE, State.HALF_LOCAL, State.CLOSED

# A fault in place of a state: is it the connection's, its code, why, and where it is written
_NOT_BEGUN = (True, Code.PROTOCOL_ERROR, "a frame for a stream that has not begun", "5.1")
_PROMISED = (True, Code.PROTOCOL_ERROR, "a frame for a stream that is ours", "5.1")
_ENDED = (False, Code.STREAM_CLOSED, "a frame behind END_STREAM", "5.1")
_GONE = (True, Code.STREAM_CLOSED, "a frame for a closed stream", "5.1")
_OURS = (
    True,
    Code.INTERNAL_ERROR,
    "the server took a step that its stream does not allow",
    "5.1",
)

Entry = State | tuple[bool, Code, str, str]
TABLE: tuple[tuple[Entry, ...], ...] = (
    # HEADERS     DATA          END          RESET       WINDOW       | HEADERS     END      RESET
    (OPEN, _NOT_BEGUN, _NOT_BEGUN, _NOT_BEGUN, _NOT_BEGUN, _OURS, _OURS, _OURS),  # IDLE
    (_PROMISED, _PROMISED, _PROMISED, CLOSED, RESERVED, HALF_REMOTE, _OURS, CLOSED),  # RESERVED
    (OPEN, OPEN, HALF_REMOTE, CLOSED, OPEN, OPEN, HALF_LOCAL, CLOSED),  # OPEN
    (_ENDED, _ENDED, _ENDED, CLOSED, HALF_REMOTE, HALF_REMOTE, CLOSED, CLOSED),  # HALF_REMOTE
    (HALF_LOCAL, HALF_LOCAL, CLOSED, CLOSED, HALF_LOCAL, _OURS, _OURS, CLOSED),  # HALF_LOCAL
    (_GONE, _GONE, _GONE, CLOSED, CLOSED, _OURS, _OURS, CLOSED),  # CLOSED
)


def after(state: State, step: Step) -> State:
    """The state that follows; raises the fault that the section names."""
    entry = TABLE[state][step]
    if type(entry) is State:
        return entry
    connection, code, reason, section = entry  # type: ignore[misc]
    raise (ConnectionFault if connection else StreamFault)(code, reason, section)
