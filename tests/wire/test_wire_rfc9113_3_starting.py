"""RFC 9113 section 3: how a connection begins, on clear TCP with prior knowledge."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.http2_frames import (
    CONNECT_PROTOCOL,
    ENABLE_PUSH,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_LIST,
    MAX_STREAMS,
    NO_PRIORITIES,
    PREFACE,
    SETTINGS,
    TABLE_SIZE,
    Code,
    data,
    frame,
    get,
    headers,
    ping,
    post,
    priority,
    rst,
    settings,
    window_update,
)
from tests.support.http2_peer import Answer, Http2Client, connect
from tests.support.raw import RawClient
from tests.wire.served import HOST, Served, seen, served
from tests.wire.served import get as http1_get


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served[Echo]]:
    """Over a Unix socket, where the kernel tells cheaply when the server has read a piece."""
    with served(Echo(), uds=str(tmp_path_factory.mktemp("wire") / "s")) as running:
        yield running


@pytest.fixture(scope="module")
def upgrading() -> Iterator[Served[Echo]]:
    with served(Echo(), h2c_upgrade=True) as running:
        yield running


def follows(client: RawClient) -> bytes:
    """All the server says until it ends the connection."""
    client.half_close()
    return client.read_eof()


class TestPriorKnowledge:
    """3.3"""

    def test_the_preface_makes_it_http2(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            answer = client.get(b"/a?b=c")
            told = json.loads(answer.body)
            assert (told["http_version"], told["path"], told["query"]) == ("2", "/a", "b=c")

    def test_the_other_connections_stay_http1(self, server: Served[Echo]) -> None:
        assert seen(server.ask(http1_get("/a")))["http_version"] == "1.1"

    @pytest.mark.parametrize("method", ["PRI", "PRIZE", "P", "PROPFIND", "PUT", "PR"])
    def test_what_begins_like_the_preface_and_is_http1(
        self, local: Served[Echo], method: str
    ) -> None:
        """Cut anywhere: nothing is decided before it is known."""
        raw = f"{method} /a HTTP/1.1\r\n".encode() + HOST + b"Content-Length: 0\r\n\r\n"
        for at in range(1, len(method) + 4):
            with local.connect() as client:
                client.send_pieces([raw[:at]])
                client.send(raw[at:])
                assert seen(client.read_response())["method"] == method

    def test_http2_turned_off(self) -> None:
        with served(Echo(), http2=False) as plain, plain.connect() as client:
            client.send(PREFACE + settings() + get(1))
            answer = follows(client)
            assert answer.startswith((b"HTTP/1.1 505 ", b"HTTP/1.1 400 "))
            assert plain.app.calls == []


class TestUpgrade:
    """3.1: the token `h2c` and HTTP2-Settings are obsolete; RFC 7540 3.2 where they are asked for."""

    LINES = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: %b\r\n"
    VALUE = base64.urlsafe_b64encode(struct.pack("!HI", MAX_STREAMS, 100)).rstrip(b"=")

    @pytest.mark.parametrize("token", [b"h2c", b"h2", b"h2c, x/1"])
    def test_is_ignored(self, server: Served[Echo], token: bytes) -> None:
        lines = (self.LINES % self.VALUE).replace(b"h2c", token)
        answer = server.ask(http1_get("/a", lines))
        assert seen(answer)["http_version"] == "1.1"
        assert not answer.all(b"upgrade")

    @staticmethod
    def hello(upgrading: Served[Echo], raw: bytes) -> Http2Client:
        client = Http2Client(upgrading.server.address, hello=False)
        client.push(raw)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client._exactly(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert b"\r\nupgrade: h2c\r\n" in head.lower()
        assert b"\r\nconnection: upgrade\r\n" in head.lower()
        client.streams[1], client.highest = Answer(65535, 0), 1
        client.send(PREFACE + settings())
        return client

    def test_where_it_is_asked_for(self, upgrading: Served[Echo]) -> None:
        raw = http1_get("/a", self.LINES % self.VALUE)
        with self.hello(upgrading, raw) as client:
            told = json.loads(client.answer(1).body)
            assert (told["path"], told["method"]) == ("/a", "GET")
            names = {name for name, _ in told["headers"]}
            assert not names & {"connection", "upgrade", "http2-settings"}
            assert json.loads(client.get(b"/b").body)["path"] == "/b"

    def test_the_first_stream_is_half_closed(self, upgrading: Served[Echo]) -> None:
        """RFC 7540 3.2.1: its settings count before anything of the client's frames has come."""
        value = base64.urlsafe_b64encode(struct.pack("!HI", INITIAL_WINDOW, 0)).rstrip(b"=")
        raw = http1_get("/a", self.LINES % value)
        with self.hello(upgrading, raw) as client:
            client._initial = client.streams[1].window = 0
            client.pump(lambda: client.streams[1].status == 200)
            client.send(data(1, b"x"))
            assert client.reset_of(1) == Code.STREAM_CLOSED
            assert not client.streams[1].body
            client.send(settings((INITIAL_WINDOW, 65535)))
            client.expect_alive()

    def test_the_preface_is_still_due(self, upgrading: Served[Echo]) -> None:
        upgrading.app.calls.clear()
        with upgrading.connect() as client:
            client.send(http1_get("/a", self.LINES % self.VALUE) + http1_get("/b"))
            assert client.read_head().status == 101
            client.half_close()
            client.read_eof()
        assert "/b" not in [call.path for call in upgrading.app.calls]

    @pytest.mark.parametrize(
        "lines",
        [
            b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
            LINES % VALUE + b"HTTP2-Settings: %b\r\n" % VALUE,
            b"Connection: HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: %b\r\n" % VALUE,
        ],
        ids=["none", "two", "no-upgrade"],
    )
    def test_is_not_done_where_it_is_badly_asked(
        self, upgrading: Served[Echo], lines: bytes
    ) -> None:
        """RFC 7540 3.2.1: never without exactly one HTTP2-Settings."""
        assert seen(upgrading.ask(http1_get("/a", lines)))["http_version"] == "1.1"

    @pytest.mark.parametrize(
        "value",
        [b"AAA", b"!!!!", VALUE.replace(b"A", b"A=", 1), VALUE + b"A", b"AAUAAAAA", VALUE],
        ids=["two-octets", "no-base64", "padding", "one-more", "frame-size-0", "good"],
    )
    def test_settings_that_are_wrong(self, upgrading: Served[Echo], value: bytes) -> None:
        """They are read as a SETTINGS frame: no upgrade, or a connection error."""
        with Http2Client(upgrading.server.address, hello=False) as client:
            client.push(http1_get("/a", self.LINES % value))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client._exactly(1)
            assert head.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 "))
            if head.startswith(b"HTTP/1.1 200 "):
                return
            client.streams[1], client.highest = Answer(65535, 0), 1
            client.send(PREFACE + settings())
            if value == self.VALUE:
                client.expect_ignored()
            else:
                client.expect_connection_error(Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR)


class TestServerPreface:
    """3.4"""

    def test_settings_come_first_and_unasked(self, server: Served[Echo]) -> None:
        """The judge in the client looks at the first frame; here nothing but the preface was sent."""
        with connect(server, hello=False) as client:
            client.send(PREFACE)
            first = client.read_frame()
            client.send(settings())
            client.file(first)
            client.pump(lambda: client.acks == 1)
            client.expect_alive()

    def test_settings_come_before_an_early_answer(self, server: Served[Echo]) -> None:
        with connect(server, hello=False) as client:
            client.send(PREFACE + settings() + get(1, b"/early") + get(3))
            kinds = []
            while not kinds or kinds[-1] != HEADERS:
                one = client.read_frame()
                client.file(one)
                kinds.append(one.kind)
            assert kinds[0] == SETTINGS
            assert client.answer(1).status == client.answer(3).status == 200

    def test_what_is_announced(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            told = client.settings
            assert told[MAX_STREAMS] == 128
            assert told[MAX_LIST] == 65536
            assert told[CONNECT_PROTOCOL] == 1
            assert told[NO_PRIORITIES] == 1
            assert ENABLE_PUSH not in told
            assert told.get(INITIAL_WINDOW, 65535) == 65535
            assert told.get(MAX_FRAME, 16384) == 16384
            assert told.get(TABLE_SIZE, 4096) == 4096

    def test_ours_are_acknowledged_once(self, server: Served[Echo]) -> None:
        with connect(server, (MAX_STREAMS, 1), (0x7F7F, 5)) as client:
            client.expect_alive()
            assert client.acks == 1


class TestClientPreface:
    """3.4: an invalid one is a connection error PROTOCOL_ERROR; GOAWAY may be omitted."""

    @pytest.mark.parametrize(
        "raw",
        [
            PREFACE[:-8] + b"XX\r\n\r\n",
            PREFACE[:-2] + b"\n\n",
            PREFACE[:-1] + b"x",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n\r",
            b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
            b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"pri * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\r\n" + PREFACE,
            settings() + PREFACE,
            b"PRI * HTTP/2.0\r\nHost: a\r\n\r\nSM\r\n\r\n",
        ],
    )
    def test_another_string(self, server: Served[Echo], raw: bytes) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(raw + settings() + get(1, b"/bad"))
            answer = follows(client)
        assert not answer.startswith(b"HTTP/1.1 2")
        assert server.app.calls == []

    @pytest.mark.parametrize("size", range(1, 24))
    def test_half_of_it(self, server: Served[Echo], size: int) -> None:
        server.app.calls.clear()
        with server.connect() as client:
            client.send(PREFACE[:size])
            answer = follows(client)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 ", b"\0\0"))
        assert server.app.calls == []

    @pytest.mark.parametrize(
        "first",
        [
            get(1),
            data(1, b"x"),
            priority(1),
            rst(1),
            ping(),
            window_update(0, 1),
            frame(GOAWAY, bytes(8)),
            frame(0x77, b"unknown"),
            settings(ack=True),
            PREFACE,
        ],
        ids=["headers", "data", "priority", "rst", "ping", "window", "goaway", "new", "ack", "pri"],
    )
    def test_settings_must_follow(self, server: Served[Echo], first: bytes) -> None:
        server.app.calls.clear()
        with connect(server, hello=False) as client:
            client.send(PREFACE + first + settings() + get(1))
            client.expect_connection_error(Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR)
        assert server.app.calls == []

    def test_empty_settings_are_enough(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.expect_alive()


# A conversation in which each kind of frame a client may send has its place.

LONG = b"v" * 40
TALK = b"".join(
    (
        PREFACE,
        settings((INITIAL_WINDOW, 70000), (0x5A5A, 1)),
        get(1, b"/one"),
        post(3, b"/two", (b"content-length", b"5")),
        data(3, b"he", pad=3),
        window_update(0, 10),
        window_update(3, 10),
        data(3, b"llo", end=True),
        priority(5, 3),
        headers(5, b"\x82\x86\x44\x03/fi", done=False, pad=2, depends=(0, 15)),
        frame(9, b"A\x0bexample.com", flags=4, stream=5),
        frame(0xEE, b"unknown", stream=5, flags=0xFF),
        ping(b"12345678"),
        post(7, b"/trailers"),
        data(7, b"body"),
        headers(7, b"\x00\x01a\x01b"),
        post(9, b"/cancelled"),
        rst(9),
    )
)
PATHS = {1: ("/one", ""), 3: ("/two", "hello"), 5: ("/fi", ""), 7: ("/trailers", "body")}


def check_talk(client: Http2Client) -> None:
    client.send(get(11, b"/last"))
    for stream, expected in {**PATHS, 11: ("/last", "")}.items():
        told = json.loads(client.answer(stream).body)
        assert (told["path"], told["body"]) == expected
    assert client.pongs == [b"12345678"]
    assert client.acks == 1


class TestPieces:
    """4.1: frames are a stream of octets; where a packet ends means nothing."""

    def test_at_once(self, local: Served[Echo]) -> None:
        with connect(local, hello=False) as client:
            client.send(TALK)
            check_talk(client)

    def test_cut_in_two_anywhere(self, local: Served[Echo]) -> None:
        for at in range(1, len(TALK)):
            with connect(local, hello=False) as client:
                client.send_pieces([TALK[:at]])
                client.send(TALK[at:])
                check_talk(client)

    def test_byte_by_byte(self, local: Served[Echo]) -> None:
        with connect(local, hello=False) as client:
            client.send_pieces([TALK[at : at + 1] for at in range(len(TALK))])
            check_talk(client)

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (window_update(0, 0), Code.PROTOCOL_ERROR),
            (frame(6, b"1234567"), Code.FRAME_SIZE_ERROR),
            (headers(13, b"\xff\xff\xff\xff\xff\x0f"), Code.COMPRESSION_ERROR),
            (settings((INITIAL_WINDOW, 1 << 31)), Code.FLOW_CONTROL_ERROR),
            (data(2, b"x"), Code.PROTOCOL_ERROR),
        ],
        ids=["window", "ping", "hpack", "settings", "data"],
    )
    def test_a_fault_cut_in_two_is_the_same_fault(
        self, local: Served[Echo], fault: bytes, code: Code
    ) -> None:
        for at in range(1, len(fault)):
            with connect(local) as client:
                client.send_pieces([fault[:at]])
                client.send(fault[at:] + get(15))
                client.expect_connection_error(code)
