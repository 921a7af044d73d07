"""The same bytes through other people's codecs: `websockets` and `wsproto`, in both directions.

Where they are known to be less strict, or otherwise than RFC 6455 says, it is named and left out:
`websockets` takes lengths in longer forms, looks at text only once a message is whole, and calls a
close inside a message a fault; `wsproto` does not know code 1014.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.websocket_frames import (
    CLOSE,
    CONT,
    PONG,
    TEXT,
    Drive,
    Sent,
    cut,
    drive,
    fragments,
    frame,
    head,
    join_sent,
    masked,
    parse_sent,
    text,
)
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side
from websockets.server import ServerProtocol

from tidegate.protocol.websocket.engine import Closed, Pong

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CODES = [1000, 1001, 1002, 1003, *range(1007, 1014), 3000, 3999, 4000, 4999]

# what every codec's account is brought to: messages, pongs as ("pong", payload), and an end
Account = tuple[list[Any], list[Sent]]


def ours(raw: bytes) -> Account:
    found = drive(raw)
    told: list[Any] = []
    for one in found.told:
        if isinstance(one, Closed):
            told.append(("fault", one.code) if one.fault else ("close", one.code, one.reason))
        else:
            told.append(("pong", one.payload) if isinstance(one, Pong) else one)
    return told, [_bare(one) for one in found.sent]


def _bare(one: Sent) -> Sent:
    """A close with its code alone: the reasons of answers are everybody's own."""
    return Sent(CLOSE, one.payload[:2]) if one.opcode == CLOSE else one


def _joined(frames: list[Frame]) -> list[Any]:
    told: list[Any] = []
    kind, held = 0, b""
    for one in frames:
        data = bytes(one.data)
        if one.opcode is Opcode.PONG:
            told.append(("pong", data))
        elif one.opcode < 8:
            kind, held = kind or one.opcode, held + data
            if one.fin:
                told.append(held.decode() if kind == TEXT else held)
                kind, held = 0, b""
    return told


def by_websockets(raw: bytes) -> Account:
    peer = ServerProtocol(max_size=None)
    peer.receive_data(REQUEST)
    (request,) = peer.events_received()
    peer.send_response(peer.accept(request))
    peer.data_to_send()
    peer.receive_data(raw)
    told = _joined(peer.events_received())
    sent = [_bare(one) for one in parse_sent(b"".join(peer.data_to_send()))]
    if peer.parser_exc is not None:
        told.append(("fault", peer.close_sent.code))
    elif peer.close_rcvd is not None:
        told.append(("close", int(peer.close_rcvd.code), peer.close_rcvd.reason))
    return told, sent


def by_wsproto(raw: bytes) -> Account:
    connection = pytest.importorskip("wsproto.connection")
    events = pytest.importorskip("wsproto.events")
    peer = connection.Connection(connection.ConnectionType.SERVER)
    peer.receive_data(raw)
    told: list[Any] = []
    sent, held = b"", None
    for event in peer.events():
        if isinstance(event, events.Ping):
            sent += peer.send(event.response())
        elif isinstance(event, events.Pong):
            told.append(("pong", bytes(event.payload)))
        elif isinstance(event, events.CloseConnection):
            fault = peer.state is connection.ConnectionState.OPEN
            code = int(event.code)
            told.append(("fault", code) if fault else ("close", code, event.reason or ""))
            sent += peer.send(events.CloseConnection(event.code))
        else:
            piece = event.data if isinstance(event.data, str) else bytes(event.data)
            held = piece if held is None else held + piece
            if event.message_finished:
                told.append(held)
                held = None
    return told, [_bare(one) for one in parse_sent(sent)]


# --- scripts: messages in fragments, with pings and pongs among them, and an end


MASKS = st.binary(min_size=4, max_size=4)
CONTROLS = st.tuples(st.sampled_from([9, 10]), st.binary(max_size=125), st.just(True))
LENGTHS = st.sampled_from([0, 1, 125, 126, 127, 65535, 65536])
BYTES = st.one_of(st.binary(max_size=30), LENGTHS.map(lambda size: b"\xe2\x82\xac!" * (size // 4)))

Step = tuple[int, bytes, bool]


@st.composite
def scripts(draw: st.DrawFn) -> list[Step]:
    """Right sequences: (opcode, payload, fin) of each frame; all of it stays below a pong's pile."""
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 4))):
        opcode = draw(st.sampled_from([1, 2]))
        parts = draw(
            st.lists(
                st.text(max_size=20).map(str.encode) if opcode == 1 else BYTES,
                min_size=1,
                max_size=4,
            )
        )
        for at, part in enumerate(parts):
            steps.append((CONT if at else opcode, part, at == len(parts) - 1))
            steps += draw(st.lists(CONTROLS, max_size=2))
    if draw(st.booleans()):
        code = draw(st.sampled_from([None, *CODES]))
        reason = draw(st.text(max_size=30)).encode()[:123].decode(errors="ignore").encode()
        steps.append((CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason, True))
    return steps


def wire(steps: list[Step], mask: bytes = b"abcd") -> bytes:
    return b"".join(frame(opcode, data, fin=fin, mask=mask) for opcode, data, fin in steps)


@settings(max_examples=80)
@given(scripts(), MASKS)
def test_right_sequences(steps: list[Step], mask: bytes) -> None:
    raw = wire(steps, mask)
    assert ours(raw) == by_websockets(raw)


@settings(max_examples=80)
@given(scripts(), MASKS)
def test_right_sequences_as_wsproto_sees_them(steps: list[Step], mask: bytes) -> None:
    raw = wire(steps, mask)
    assert ours(raw) == by_wsproto(raw)


@st.composite
def wrong_frames(draw: st.DrawFn) -> bytes:
    """One frame that is wrong after whole messages, whatever else comes later."""
    opcode, payload = draw(st.sampled_from([1, 2, 9, 10])), draw(st.binary(max_size=10))
    return draw(
        st.sampled_from(
            [
                frame(opcode, payload, rsv=draw(st.integers(1, 7))),
                frame(opcode, payload, mask=None),
                frame(draw(st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])), payload),
                frame(draw(st.sampled_from([8, 9, 10])), b"\x03\xe8", fin=False),
                frame(draw(st.sampled_from([8, 9, 10])), b"\x03\xe8" + b"x" * 124),
                frame(CONT, payload, fin=draw(st.booleans())),
                frame(CLOSE, b"\x03"),
                frame(CLOSE, draw(st.sampled_from([0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])).to_bytes(2, "big")),
                frame(CLOSE, b"\x03\xe8" + draw(st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82"]))),
                text("a", fin=False) + frame(draw(st.sampled_from([1, 2])), payload),
            ]
        )
    )  # fmt: skip


def unclosed(steps: list[Step]) -> list[Step]:
    return [step for step in steps if step[0] != CLOSE]


@settings(max_examples=80)
@given(scripts().map(unclosed), wrong_frames(), scripts())
def test_wrong_frames(before: list[Step], wrong: bytes, after: list[Step]) -> None:
    raw = wire(before) + wrong + wire(after)
    told, sent = ours(raw)
    assert told[-1][0] == "fault"
    assert (told, sent) == by_websockets(raw)
    assert (told, sent) == by_wsproto(raw)


NEARLY_TEXT = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=4).map(str.encode),
    st.sampled_from([b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xe2\x82", b"\xf0\x9f"]),
)


@settings(max_examples=80)
@given(st.lists(NEARLY_TEXT, min_size=1, max_size=5), scripts())
def test_text_that_may_be_none(pieces: list[bytes], after: list[Step]) -> None:
    raw = b"".join(fragments(TEXT, pieces)) + wire(after)
    assert ours(raw) == by_wsproto(raw)


@pytest.mark.parametrize(("length", "form"), [(0, 16), (125, 16), (0, 64), (126, 64), (65535, 64)])
def test_lengths_in_longer_forms(length: int, form: int) -> None:
    raw = text("a") + frame(2, b"x" * length, length_form=form)
    assert ours(raw) == by_wsproto(raw) == (["a", ("fault", 1002)], [Sent(CLOSE, b"\x03\xea")])


def test_the_top_bit_of_a_length() -> None:
    raw = head(2, 1 << 63)
    assert ours(raw) == by_wsproto(raw) == ([("fault", 1002)], [Sent(CLOSE, b"\x03\xea")])


def test_a_close_inside_a_message() -> None:
    raw = text("a", fin=False) + frame(CLOSE, b"\x03\xe8bye")
    assert ours(raw) == by_wsproto(raw) == ([("close", 1000, "bye")], [Sent(CLOSE, b"\x03\xe8")])


@settings(max_examples=80)
@given(scripts().map(wire), st.integers(0, 400), st.integers(0, 255))
def test_one_wrong_octet(raw: bytes, place: int, octet: int) -> None:
    """Whole or broken off, with whatever the octet makes of it, against the stricter of the two."""
    if raw:
        place %= len(raw)
        raw = raw[:place] + bytes((octet,)) + raw[place + 1 :]
    (told, sent), theirs = ours(raw), by_wsproto(raw)
    if (told, sent) != theirs:
        # ours knows 1014, and sees what is wrong before the rest of a head or character is there
        sooner = told[-1] in [("fault", 1002), ("fault", 1007)] and theirs == (told[:-1], sent[:-1])
        assert sooner or told[-1][:2] == ("close", 1014)


# --- what other people's clients send


@settings(max_examples=80)
@given(scripts())
def test_a_websockets_client_sends(steps: list[Step]) -> None:
    raw = b"".join(
        Frame(Opcode(opcode), data, fin).serialize(mask=True, extensions=[])
        for opcode, data, fin in steps
    )
    assert ours(raw) == ours(wire(steps))


@settings(max_examples=80)
@given(st.lists(st.one_of(st.lists(st.text(max_size=20), min_size=1, max_size=4),
                          st.lists(BYTES, min_size=1, max_size=3)), max_size=5),
       st.binary(max_size=125), st.sampled_from(CODES), st.text(max_size=30))  # fmt: skip
def test_a_wsproto_client_sends(
    messages: list[list[Any]], payload: bytes, code: int, reason: str
) -> None:
    client = pytest.importorskip("wsproto.frame_protocol").FrameProtocol(True, [])
    raw = bytearray()
    for pieces in messages:
        for at, piece in enumerate(pieces):
            raw += client.send_data(piece, at == len(pieces) - 1)
            raw += client.ping(payload)
    raw += client.pong(payload) + client.close(code, reason)
    told, sent = ours(bytes(raw))
    expected = [type(pieces[0])().join(pieces) for pieces in messages]
    assert told == [*expected, ("pong", payload), ("close", code, reason)]
    assert sent[-1] == Sent(CLOSE, code.to_bytes(2, "big"))
    if payload and sum(map(len, messages)) < 4096 // 130:
        assert sent[:-1] == [Sent(PONG, payload)] * sum(map(len, messages))


# --- what other people's clients make of what we send


MESSAGES = st.lists(
    st.one_of(st.text(max_size=50), BYTES, LENGTHS.map("\u00e9".__mul__)), max_size=6
)


def rendered(messages: list[Any], payload: bytes, code: int, reason: str) -> tuple[bytes, str]:
    """Messages, a ping and a close of ours; the reason is what fits a close frame."""
    engine = Drive().engine
    raw = b"".join(b"".join(engine.render(message)) for message in messages)
    assert join_sent(parse_sent(raw)) == messages
    engine.send_ping(payload)
    engine.send_close(code, reason)
    return raw + engine.take_output(), reason.encode()[:123].decode(errors="ignore")


ENDS = (st.binary(max_size=125), st.sampled_from(CODES), st.text(max_size=80))


@settings(max_examples=80)
@given(MESSAGES, *ENDS)
def test_a_websockets_client_reads(
    messages: list[Any], payload: bytes, code: int, reason: str
) -> None:
    raw, fits = rendered(messages, payload, code, reason)
    client = Protocol(Side.CLIENT, state=OPEN, max_size=None)
    client.receive_data(raw)
    assert _joined(client.events_received()) == messages
    assert client.parser_exc is None
    assert (client.close_rcvd.code, client.close_rcvd.reason) == (code, fits)
    answered = drive(b"".join(client.data_to_send()))
    assert answered.told == [Pong(payload), Closed(code, fits, False)]


@settings(max_examples=80)
@given(MESSAGES, *ENDS)
def test_a_wsproto_client_reads(
    messages: list[Any], payload: bytes, code: int, reason: str
) -> None:
    connection = pytest.importorskip("wsproto.connection")
    events = pytest.importorskip("wsproto.events")
    raw, fits = rendered(messages, payload, code, reason)
    client = connection.Connection(connection.ConnectionType.CLIENT)
    client.receive_data(raw)
    told = list(client.events())
    *data, pinged, closed = told
    whole = [one.data if isinstance(one.data, str) else bytes(one.data) for one in data]
    if all(one.message_finished for one in data):
        assert whole == messages
    assert isinstance(pinged, events.Ping) and pinged.payload == payload
    assert (int(closed.code), closed.reason or "") == (code, fits)
    assert client.state is connection.ConnectionState.REMOTE_CLOSING


@pytest.mark.parametrize("chop", [1, 7, 4096])
def test_a_whole_conversation_with_a_websockets_client(chop: int) -> None:
    """Echo, ping both ways, close from the client: both ends agree on everything."""
    client = Protocol(Side.CLIENT, state=OPEN, max_size=None)
    server = Drive()
    said = ["hello", "\u20ac" * 100, "x" * 70_000 if chop > 1 else "x" * 300, ""]
    for message in said:
        client.send_text(message.encode())
        client.send_ping(message.encode()[:99])
    server.feed(*cut(b"".join(client.data_to_send()), chop))
    assert server.told == said
    server.engine.send_ping(b"and you?")
    echo = b"".join(b"".join(server.engine.render(message)) for message in server.messages)
    for piece in cut(bytes(server.output) + echo + server.engine.take_output(), chop):
        client.receive_data(piece)
    assert _joined(client.events_received()) == [
        *(("pong", one.encode()[:99]) for one in said),
        *said,
    ]
    client.send_close(1000, "thanks")
    server.output.clear()
    server.feed(*cut(b"".join(client.data_to_send()), chop))
    assert server.told[-2:] == [Pong(b"and you?"), Closed(1000, "thanks", False)]
    client.receive_data(bytes(server.output))
    assert client.close_rcvd.code == 1000
    assert client.parser_exc is None


def test_masks_are_those_of_websockets() -> None:
    one = Frame(Opcode.BINARY, bytes(range(256)), True).serialize(mask=True, extensions=[])
    assert masked(one[8:], one[4:8]) == bytes(range(256))
