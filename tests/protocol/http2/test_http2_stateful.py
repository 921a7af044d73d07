"""The engine and `h2` as its client, in conversations made up by hypothesis.

Requests, bodies, trailers, cancels, settings, windows, pings, priorities, and answers of every shape
come in any order and in any pieces. `h2` judges every byte on its way: it raises on whatever a
server may not send. In the end everything is finished, and every answer has to have arrived, byte
for byte on its stream, all windows have to add up, and the engine's tables have to be empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.support.http2_frames import priority_update

from tidegate.protocol.engine import Ending, FileSlice, Limits, StreamTerms
from tidegate.protocol.events import Body, Fault, Request, Reset
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http2.engine import Http2Engine

Codes = h2.settings.SettingCodes
FIELDS = {
    "a": (b"x-a", b"1"), "b": (b"x-b", b"\xff \xe4"), "long": (b"x-long", b"l" * 3000),
    "cookie": (b"set-cookie", b"c=1"), "vary": (b"vary", b"accept"),
    "location": (b"location", b"/elsewhere"), "huge": (b"x-huge", b"h" * 20000),
}  # fmt: skip
NAMES = st.lists(st.sampled_from(sorted(FIELDS)), max_size=3)
SIZES = st.sampled_from([0, 1, 9, 100, 5000, 16384, 16385, 40000, 90000])
PICK = st.integers(0, 1 << 16)
FILE = bytes(range(256)) * 1200


@dataclass
class Talk:
    """A stream: what the client sent and got, and what the application got and answered."""

    id: int
    method: str
    trailing: bool = False  # the client reads trailers
    known: bool = True  # to the client: not yet, if it is a push
    sent: bytearray = field(default_factory=bytearray)
    sent_all: bool = False
    seen: bool = False  # by the application
    got: bytearray = field(default_factory=bytearray)
    got_all: bool = False
    unread: int = 0
    status: int = 0  # of the answer
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    answered: bool = False
    early: bool = False  # it was answered before it was whole
    hints: int = 0
    given_up: bool = False  # reset by either side before its end
    # what has arrived at the client
    answer: list[tuple[bytes, bytes]] | None = None
    content: bytearray = field(default_factory=bytearray)
    tail: list[tuple[bytes, bytes]] | None = None
    hinted: int = 0
    ended: bool = False
    reset: int | None = None


class Conversation(RuleBasedStateMachine):
    @initialize(
        window=st.sampled_from([0, 1, 1000, 65535, 65535, 1 << 20]),
        frame=st.sampled_from([16384, 20000]),
        table=st.sampled_from([0, 60, 4096, 65536]),
        streams=st.sampled_from([2, 100]),
    )
    def begin(self, window: int, frame: int, table: int, streams: int) -> None:
        terms = StreamTerms(streams=streams, window=1 << 17)
        self.streams = streams
        self.engine = Http2Engine(Limits(), terms, Defaults(b"tide"), self.read_file)
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self.client = h2.connection.H2Connection(config)
        self.talks: dict[int, Talk] = {}
        self.wire = bytearray()  # from the client
        self.back = bytearray()  # to the client
        self.pings = self.pongs = 0
        self.client.initiate_connection()
        self.update(
            {Codes.INITIAL_WINDOW_SIZE: window, Codes.MAX_FRAME_SIZE: frame}
            | {Codes.HEADER_TABLE_SIZE: table}
        )

    @staticmethod
    def read_file(piece: FileSlice, size: int) -> bytes:
        return FILE[piece.offset : piece.offset + min(size, 7000)]

    # ------------------------------------------------------------------------ the way

    def say(self) -> None:
        self.wire += self.client.data_to_send()

    def to_server(self, size: int) -> None:
        self.say()
        data = bytes(self.wire[:size])
        del self.wire[:size]
        events = self.engine.receive(data)
        while True:
            for event in events:
                self.on_server(event)
            if not self.engine.stalled:
                return
            events = self.engine.receive(b"")

    def to_client(self, size: int) -> None:
        self.back += b"".join(bytes(part) for part in self.engine.take_output())  # type: ignore[arg-type]
        while self.back and size > 0:
            # frame by frame: h2 looks at a setting of its own once a call
            length = 9 + int.from_bytes(self.back[:3], "big")
            data = bytes(self.back[:length])
            del self.back[:length]
            size -= length
            for event in self.client.receive_data(data):
                self.on_client(event)

    def update(self, values: dict[Any, int]) -> None:
        """Of two SETTINGS under way, h2 takes the first acknowledgement for both."""
        self.to_server(1 << 30)
        self.to_client(1 << 30)
        self.client.update_settings(values)

    def on_server(self, event: object) -> None:
        assert not (isinstance(event, Fault) and not event.stream), (event.reason, event.section)
        if isinstance(event, Request) and not event.stream & 1:
            self.talks[event.stream] = Talk(event.stream, "GET", sent_all=True, known=False)
        talk = self.talks[event.stream]  # type: ignore[attr-defined]
        if isinstance(event, Request):
            assert (event.head.method, event.head.raw_path) == (talk.method, b"/%d" % talk.id)
            assert not talk.seen
            talk.seen, talk.got_all = True, event.end
        elif isinstance(event, Body):
            assert not talk.got_all
            talk.got += event.data
            talk.unread += len(event.data)
            talk.got_all = event.end
            assert talk.sent.startswith(talk.got)
        elif isinstance(event, Reset):
            assert talk.given_up
        else:
            raise AssertionError(event)

    def on_client(self, event: object) -> None:
        talk = self.talks.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, h2.events.InformationalResponseReceived):
            talk.hinted += 1  # type: ignore[union-attr]
        elif isinstance(event, h2.events.ResponseReceived):
            talk.answer = event.headers  # type: ignore[union-attr, assignment]
        elif isinstance(event, h2.events.DataReceived):
            talk.content += event.data  # type: ignore[union-attr]
        elif isinstance(event, h2.events.TrailersReceived):
            talk.tail = event.headers  # type: ignore[union-attr, assignment]
        elif isinstance(event, h2.events.StreamEnded):
            talk.ended = True  # type: ignore[union-attr]
        elif isinstance(event, h2.events.StreamReset) and event.remote_reset:
            talk.reset = event.error_code  # type: ignore[union-attr]
        elif isinstance(event, h2.events.PushedStreamReceived):
            self.talks[event.pushed_stream_id].known = True
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        else:
            assert not isinstance(event, h2.events.ConnectionTerminated), event.error_code

    @rule(size=st.integers(1, 300))
    def a_few_bytes_arrive(self, size: int) -> None:
        self.to_server(size)

    @rule(size=st.integers(1, 300))
    def a_few_bytes_come_back(self, size: int) -> None:
        self.to_client(size)

    @rule()
    def everything_arrives(self) -> None:
        self.to_server(1 << 30)

    @rule()
    def everything_comes_back(self) -> None:
        self.to_client(1 << 30)

    # ------------------------------------------------------------------------ the client

    def some(self, **wanted: Any) -> bool:
        return hasattr(self, "talks") and self.pick(0, **wanted) is not None

    def pick(self, pick: int, **wanted: Any) -> Talk | None:
        found = [
            talk
            for talk in self.talks.values()
            if not talk.given_up
            and talk.reset is None
            and all(getattr(talk, name) == value for name, value in wanted.items())
        ]
        return found[pick % len(found)] if found else None

    @rule(
        method=st.sampled_from(["GET", "HEAD", "POST", "POST", "PUT"]),
        said=st.sampled_from([b"", b"u=0", b"u=7, i", b"i=?0", b"u=3, i"]),
        trailing=st.booleans(),
        end=st.booleans(),
        first=st.sampled_from([None, 0, 10, 3000]),
    )
    def request(
        self, method: str, said: bytes, trailing: bool, end: bool, first: int | None
    ) -> None:
        # 5.1.2: a stream counts until both sides have ended it, though its answer be whole
        taken = [
            talk
            for talk in self.talks.values()
            if talk.reset is None and not (talk.ended and talk.sent_all)
        ]
        if len(taken) >= min(self.client.remote_settings.max_concurrent_streams, self.streams):
            return
        number = self.client.get_next_available_stream_id()
        talk = self.talks[number] = Talk(number, method, trailing)
        fields = [(":method", method), (":scheme", "http"), (":authority", "tide.test")]
        fields.append((":path", f"/{number}"))
        if said:
            fields.append(("priority", said.decode()))
        if trailing:
            fields.append(("te", "trailers"))
        bare = method in ("GET", "HEAD") or (first is None and end)
        self.client.send_headers(number, fields, end_stream=bare)
        talk.sent_all = bare
        if first is not None:
            if not bare and self.client.local_flow_control_window(number) >= first:
                talk.sent += bytes(range(256)) * (first // 256) + bytes(range(first % 256))
                self.client.send_data(number, bytes(talk.sent), end_stream=end)
                talk.sent_all = end
            self.to_server(1 << 30)

    @precondition(lambda self: self.some(sent_all=False))
    @rule(pick=PICK, size=SIZES, pad=st.sampled_from([None, 0, 100]), end=st.booleans())
    def body(self, pick: int, size: int, pad: int | None, end: bool) -> None:
        talk = self.pick(pick, sent_all=False)
        if talk is None:
            return
        room = self.client.local_flow_control_window(talk.id) - (0 if pad is None else pad + 1)
        size = min(size, room, self.client.max_outbound_frame_size - 256)
        if size < 0:
            return
        data = bytes(number & 0xFF for number in range(len(talk.sent), len(talk.sent) + size))
        self.client.send_data(talk.id, data, end_stream=end, pad_length=pad)
        talk.sent += data
        talk.sent_all = end

    @precondition(lambda self: self.some(sent_all=False))
    @rule(pick=PICK)
    def request_trailers(self, pick: int) -> None:
        talk = self.pick(pick, sent_all=False)
        if talk is not None:
            self.client.send_headers(talk.id, [("x-sum", "1")], end_stream=True)
            talk.sent_all = True

    @precondition(lambda self: self.some(ended=False))
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        talk = self.pick(pick, ended=False)
        if talk is not None:
            # h2 has no room for a 103 or a promise that crosses the reset
            self.to_client(1 << 30)
            if talk.ended or talk.reset is not None:
                return
            self.client.reset_stream(talk.id, 8)
            talk.given_up = True

    @rule()
    def ping(self) -> None:
        self.client.ping(b"12345678")
        self.pings += 1

    @rule(
        name=st.sampled_from(
            [Codes.INITIAL_WINDOW_SIZE, Codes.MAX_FRAME_SIZE, Codes.HEADER_TABLE_SIZE]
        ),
        value=st.sampled_from([0, 10, 16384, 70000, 1 << 20]),
    )
    def change_settings(self, name: Any, value: int) -> None:
        if name == Codes.MAX_FRAME_SIZE:
            value = min(max(value, 16384), 1 << 20)
        self.update({name: value})

    @rule(pick=PICK, increment=st.sampled_from([1, 100, 5000, 100000]))
    def open_window(self, pick: int, increment: int) -> None:
        talk = self.pick(pick, ended=False, known=True)
        if pick & 1 or talk is None:
            self.client.increment_flow_control_window(increment)
        else:
            self.client.increment_flow_control_window(increment, talk.id)

    @precondition(lambda self: self.some())
    @rule(pick=PICK, value=st.sampled_from([b"u=0", b"u=5,i", b"i=?0", b"", b"nonsense=("]))
    def change_priority(self, pick: int, value: bytes) -> None:
        talk = self.pick(pick)
        if talk is not None and talk.id & 1:
            self.say()
            self.wire += priority_update(talk.id, value)
            self.client.prioritize(talk.id, weight=7)

    # ------------------------------------------------------------------------ the application

    @precondition(lambda self: self.some(seen=True))
    @rule(pick=PICK, all_of_it=st.booleans())
    def read(self, pick: int, all_of_it: bool) -> None:
        talk = self.pick(pick, seen=True)
        if talk is not None:
            size = talk.unread if all_of_it else min(talk.unread, pick)
            talk.unread -= size
            self.engine.take_body(talk.id, size)

    @staticmethod
    def end_answer(talk: Talk) -> None:
        talk.answered, talk.early = True, not talk.got_all

    @precondition(lambda self: self.some(seen=True, status=0))
    @rule(pick=PICK)
    def hint(self, pick: int) -> None:
        talk = self.pick(pick, seen=True, status=0)
        if talk is not None and talk.id & 1:  # h2 takes none on a promised stream
            self.engine.send_informational(talk.id, 103, [(b"link", b"</a.css>; rel=preload")])
            talk.hints += 1

    @precondition(lambda self: self.some(seen=True, answered=False))
    @rule(pick=PICK)
    def push(self, pick: int) -> None:
        talk = self.pick(pick, seen=True, answered=False)
        if talk is not None:
            self.engine.push(talk.id, f"/{self.engine._last_push + 2}", [])
            self.to_server(0)

    @precondition(lambda self: self.some(seen=True, status=0))
    @rule(
        pick=PICK,
        status=st.sampled_from([200, 200, 200, 404, 204, 304]),
        names=NAMES,
        size=SIZES,
        told=st.booleans(),
    )
    def answer_whole(self, pick: int, status: int, names: Any, size: int, told: bool) -> None:
        talk = self.pick(pick, seen=True, status=0)
        if talk is None:
            return
        fields = [FIELDS[name] for name in names]
        body = FILE[:size]
        if told:
            fields = [*fields, (b"content-length", b"%d" % size)]
        talk.status, talk.fields = status, fields
        self.end_answer(talk)
        self.engine.send_head(talk.id, status, fields)
        self.engine.send_body(talk.id, body, True)
        talk.body += body

    @precondition(lambda self: self.some(seen=True, status=0))
    @rule(pick=PICK, names=NAMES)
    def answer_begins(self, pick: int, names: Any) -> None:
        talk = self.pick(pick, seen=True, status=0)
        if talk is not None:
            talk.status, talk.fields = 200, [FIELDS[name] for name in names]
            self.engine.send_head(talk.id, 200, talk.fields)

    @precondition(lambda self: self.some(status=200, answered=False))
    @rule(pick=PICK, size=SIZES, end=st.booleans(), file=st.booleans())
    def answer_goes_on(self, pick: int, size: int, end: bool, file: bool) -> None:
        talk = self.pick(pick, status=200, answered=False)
        if talk is None:
            return
        at = pick % 1000
        data = FILE[at : at + size]
        self.engine.send_body(talk.id, FileSlice(0, at, size) if file else data, end)
        talk.body += data
        if end:
            self.end_answer(talk)

    @precondition(lambda self: self.some(status=200, answered=False))
    @rule(pick=PICK)
    def answer_trailers(self, pick: int) -> None:
        talk = self.pick(pick, status=200, answered=False)
        if talk is not None:
            self.engine.send_trailers(talk.id, [(b"x-check", b"ok")])
            talk.trailers = [(b"x-check", b"ok")]
            self.end_answer(talk)

    @precondition(lambda self: self.some(seen=True, answered=False))
    @rule(pick=PICK)
    def give_up(self, pick: int) -> None:
        talk = self.pick(pick, seen=True, answered=False)
        if talk is not None:
            self.engine.reset(talk.id)
            talk.given_up = True

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.engine.rest(float(seconds))

    # ------------------------------------------------------------------------ the end

    def settle(self) -> None:
        for _ in range(10_000):
            self.to_server(1 << 30)
            self.to_client(1 << 30)
            self.say()
            if not self.wire and not self.back and not self.engine.more and not self.engine._out:
                return
        raise AssertionError("it never comes to rest")

    def finish(self) -> None:
        """Everybody finishes what was begun."""
        self.settle()
        self.update({Codes.INITIAL_WINDOW_SIZE: 1 << 24})
        room = self.client.inbound_flow_control_window
        self.client.increment_flow_control_window((1 << 30) - room)
        self.settle()
        for talk in self.talks.values():
            if talk.given_up or talk.reset is not None:
                continue
            if not talk.sent_all:
                self.client.end_stream(talk.id)
                talk.sent_all = True
                self.settle()
            if not talk.answered:
                if not talk.status:
                    self.engine.send_head(talk.id, 200, [])
                    talk.status = 200
                self.engine.send_body(talk.id, b"", True)
                self.end_answer(talk)
        self.settle()

    def teardown(self) -> None:
        if not hasattr(self, "talks"):
            return
        self.finish()
        for talk in self.talks.values():
            if not talk.given_up:
                self.check(talk)
        assert self.pongs == self.pings
        engine = self.engine
        assert engine.ending is Ending.NO
        assert engine.resting
        assert not engine._streams
        assert engine._pushes == 0
        assert engine._schedule.count == 0
        assert not engine._schedule._queues
        assert engine._out_size == 0
        assert engine._window == self.client.inbound_flow_control_window
        # h2 counts what it may send on the connection by itself
        assert engine._receive_window == self.client.outbound_flow_control_window
        assert engine._receive_window + engine._credit == engine._receive_size

    def check(self, talk: Talk) -> None:
        assert talk.seen, talk
        assert talk.ended, talk
        assert talk.reset in (None, 0), talk
        if not talk.early:
            assert talk.reset is None
            assert bytes(talk.got) == bytes(talk.sent)
            assert talk.got_all
        assert talk.hinted == talk.hints
        assert talk.answer is not None
        assert talk.answer[0] == (b":status", b"%d" % talk.status)
        told = [pair for pair in talk.answer[1:] if pair[0] != b"server"]
        said = [pair for pair in talk.fields if talk.status != 204 or pair[0] != b"content-length"]
        assert told == said
        silent = talk.method == "HEAD" or talk.status in (204, 304)
        assert talk.content == (b"" if silent else talk.body)
        assert talk.tail == (talk.trailers or None if talk.trailing and not silent else None)


Conversation.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=50,
    suppress_health_check=[*HealthCheck],
    phases=[Phase.generate, Phase.shrink],
)
TestConversation = Conversation.TestCase
