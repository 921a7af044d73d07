"""The HTTP/1 engine under damaged input: `make fuzz`, or `python -m tests.fuzz.http1 60`.

One input is a stream of bytes and a way to cut it. Whatever the bytes are, the engine must not
raise, must give the same requests however the stream was cut, and must put out nothing but whole
answers of its own. Where atheris installs it drives, steered by coverage; elsewhere the rows of
the wire tests' corpus are damaged at random, with the seed printed to repeat a run.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.fuzz.drive import LONGEST, Target, main

from tidegate.protocol.engine import Ending, Limits
from tidegate.protocol.events import Body, Event, Fault, Request
from tidegate.protocol.headers import Defaults
from tidegate.protocol.http1.engine import Http1Engine

LIMITS = Limits(request_line=200, header_size=600, header_count=12, body_size=2000)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"
HEAD_OF_ANSWER = re.compile(
    rb"HTTP/1\.1 (\d{3})[^\r\n]*\r\n((?:[!-9;-~]+: [^\r\n]*\r\n)*)\r\n"
)  # as strict as what the engine may write
FRAGMENTS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b"0\r\n\r\n", b"ffffffffffffffff",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n", b"Expect: 100-continue\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive, TE\r\nTE: trailers\r\n", b"HTTP/1.0", b";x=\"y\"", b"%00", b"\xff",
)  # fmt: skip


@dataclass
class Asked:
    """A request as an application would have got it."""

    head: tuple[str, bytes, bytes, object]
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False


class Play:
    """An engine, and an application that reads every body and answers two bytes."""

    def __init__(self) -> None:
        self.engine = Http1Engine(LIMITS, Defaults())
        self.asked: list[Asked] = []
        self.faults: list[tuple[int, str]] = []
        self.output = bytearray()

    def run(self, pieces: Iterable[bytes]) -> Play:
        for piece in pieces:
            self._handle(self.engine.receive(piece))
        self._handle(self.engine.receive_eof())
        return self

    def _handle(self, events: list[Event]) -> None:
        while True:
            for event in events:
                self._on_event(event)
            self.output += b"".join(bytes(part) for part in self.engine.take_output())  # type: ignore[arg-type]
            if not self.engine.stalled:
                return
            events = self.engine.receive(b"")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Request):
            seen = event.head
            head = (seen.method, seen.raw_path, seen.query, seen.headers)
            self.asked.append(Asked(head, whole=event.end))
            if event.end:
                self._answer(event.stream)
        elif isinstance(event, Body):
            asked = self.asked[-1]
            assert not asked.whole, "a body after its end"
            asked.body += event.data
            asked.whole = event.end
            self.engine.take_body(event.stream, len(event.data))
            if event.end:
                self._answer(event.stream)
        elif isinstance(event, Fault):
            self.faults.append((event.status, event.reason))

    def _answer(self, stream: int) -> None:
        self.engine.send_head(stream, 200, [(b"content-length", b"2")])
        self.engine.send_body(stream, b"ok", True)


def check(stream: bytes, cuts: Iterable[int]) -> None:
    """Hold the engine to its promises for one input; raises AssertionError."""
    edges = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    whole = Play().run([stream])
    cut = Play().run(stream[a:b] for a, b in itertools.pairwise(edges) if a < b)
    same_requests(whole.asked, cut.asked)
    assert whole.faults == cut.faults, (whole.faults, cut.faults)
    for play in (whole, cut):
        check_answers(play)


def same_requests(one: list[Asked], other: list[Asked]) -> None:
    assert [each.head for each in one] == [each.head for each in other]
    assert [each.whole for each in one] == [each.whole for each in other]
    for a, b in zip(one, other, strict=True):
        # Of a body that broke off, how much had been seen depends on how it came.
        assert a.body == b.body or (
            not a.whole and (a.body.startswith(b.body) or b.body.startswith(a.body))
        )


def check_answers(play: Play) -> None:
    """As many answers as whole requests, and at most one refusal after them."""
    output, statuses = bytes(play.output), []
    while output:
        head = HEAD_OF_ANSWER.match(output)
        assert head, output
        status = int(head[1])
        length = re.search(rb"(?m)^content-length: (\d+)\r$", head[2])
        assert length or status == 100, head[0]
        size = int(length[1]) if length else 0
        body, output = output[head.end() : head.end() + size], output[head.end() + size :]
        if status == 200 and play.asked[statuses.count(200)].head[0] == "HEAD":
            output = body + output  # to a HEAD, the length is told and nothing sent
        else:
            # the last answer may refuse a HEAD, and then has no body either
            assert len(body) == size or (status >= 400 and not body), head[0]
        if status != 100:
            statuses.append(status)
    answered = sum(asked.whole for asked in play.asked)
    assert statuses[:answered] == [200] * answered, statuses
    assert statuses[answered:] in ([], [status for status, _ in play.faults]), statuses
    assert len(play.faults) <= 1
    if play.faults:
        assert play.engine.ending is not Ending.NO


def corpus() -> list[bytes]:
    """The rows of the wire tests: every fault and every oddity they know."""
    from tests.wire.corpus import CASES
    from tests.wire.good import GOOD

    return [row.raw for row in (*GOOD, *CASES) if len(row.raw) <= LONGEST]


TARGET = Target("http1", "tidegate.protocol.http1.", check, corpus, FRAGMENTS)

if __name__ == "__main__":
    main(TARGET)
