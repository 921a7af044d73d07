"""RFC 9113 sections 5.4 and 5.5: how errors end a stream or a connection, and what is no error."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.http2_frames import (
    GOAWAY,
    LARGEST,
    PREFACE,
    Code,
    block,
    data,
    frame,
    get,
    headers,
    ping,
    post,
    request,
    rst,
    settings,
    stream_error,
    window_update,
)
from tests.support.http2_peer import connect
from tests.wire.served import PATIENCE, Served, served


@pytest.fixture
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


class TestConnectionErrors:
    """5.4.1: GOAWAY with the last stream that was taken, then the end of the connection."""

    def test_the_last_stream_is_named(self, server: Served[Echo]) -> None:
        """What was begun must be within it (8.7); what was answered is."""
        with connect(server) as client:
            client.get()
            client.send(get(5) + get(9))
            client.answer(9)
            client.push(window_update(0, 0))
            client.expect_connection_error(Code.PROTOCOL_ERROR)
            assert client.goaways[-1][0] == 9

    def test_it_names_none_where_there_was_none(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.push(window_update(0, 0))
            client.expect_connection_error(Code.PROTOCOL_ERROR)
            assert client.goaways == [(0, Code.PROTOCOL_ERROR)]

    def test_one_error_is_reported_and_nothing_more_is_done(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.push(frame(6, b"short") + window_update(0, 0) + frame(7, b"") + ping())
            client.push(get(1, b"/after") + PREFACE + bytes(1000))
            client.expect_connection_error(Code.FRAME_SIZE_ERROR)
            assert len(client.goaways) == 1
            assert client.pongs == []
        assert server.app.calls == []

    def test_answers_before_the_fault_are_given(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(get(1, b"/before") + window_update(0, 0))
            client.expect_connection_error(Code.PROTOCOL_ERROR)
        assert [call.path for call in server.app.calls] in ([], ["/before"])

    def test_open_requests_are_told(self, server: Served[Echo]) -> None:
        """A content that was cut is never taken for a whole one."""
        with connect(server) as client:
            client.send(post(1) + data(1, b"half") + post(3) + window_update(0, 0))
            client.expect_connection_error(Code.PROTOCOL_ERROR)
        for call in [server.app.over.get(timeout=PATIENCE) for _ in server.app.calls]:
            assert call.disconnected and not call.ended

    def test_the_end_is_orderly_however_much_is_still_sent(self, server: Served[Echo]) -> None:
        """5.4.1: the GOAWAY must be able to arrive; a reset would eat it."""
        with connect(server) as client:
            client.push(window_update(0, 0) + data(1, bytes(16384)) * 3)
            client.push(get(1) * 10)
            client.expect_connection_error(Code.PROTOCOL_ERROR)

    def test_others_go_on(self, server: Served[Echo]) -> None:
        with connect(server) as one, connect(server) as other:
            one.push(window_update(0, 0))
            one.expect_connection_error(Code.PROTOCOL_ERROR)
            other.expect_alive()


class TestStreamErrors:
    """5.4.2"""

    def test_the_others_are_not_touched(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1, b"/one") + post(3, b"/three") + post(5, b"/five"))
            client.send(data(1, b"a") + window_update(3, LARGEST) + data(5, b"b"))
            assert client.reaction(3) == stream_error(Code.FLOW_CONTROL_ERROR)
            client.send(data(5, b"c", end=True) + data(1, b"d", end=True))
            assert json.loads(client.answer(1).body)["body"] == "ad"
            assert json.loads(client.answer(5).body)["body"] == "bc"
            client.expect_alive()

    def test_the_application_is_told(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1, b"/one") + data(1, b"half") + window_update(1, LARGEST))
            assert client.reset_of(1) == Code.FLOW_CONTROL_ERROR
            call = server.app.over.get(timeout=PATIENCE)
            assert call.disconnected and not call.ended
            client.expect_alive()

    def test_no_reset_for_a_reset(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + rst(1, Code.PROTOCOL_ERROR) + rst(1) + rst(1, 0xDEAD))
            client.expect_ignored(1)

    @pytest.mark.parametrize("code", [0, 1, 7, 8, 13, 14, 0xFF, 0xFFFFFFFF])
    def test_any_code_cancels(self, server: Served[Echo], code: int) -> None:
        """7: unknown codes have no special meaning."""
        with connect(server) as client:
            client.send(post(1) + data(1, b"half") + rst(1, code))
            client.expect_ignored(1)
            assert client.streams[1].status is None
        call = server.app.over.get(timeout=PATIENCE)
        assert call.disconnected and call.body in (b"", b"half")

    def test_only_the_first_error_of_a_stream_is_reported(self, server: Served[Echo]) -> None:
        """The judge refuses a second RST_STREAM."""
        with connect(server) as client:
            client.send(post(1) + window_update(1, LARGEST) * 5 + data(1, b"x"))
            client.send(headers(1, block([(b"A", b"b")])))
            client.expect_stream_error(1, Code.FLOW_CONTROL_ERROR)

    def test_a_hundred_of_them(self, server: Served[Echo]) -> None:
        """Among good requests: a clumsy client is no attacker."""
        with connect(server) as client:
            for _ in range(100):
                stream = client.next_stream()
                client.send(headers(stream, block(request(b"/", (b"Bad", b"1")))))
                assert client.reset_of(stream) == Code.PROTOCOL_ERROR
                for _ in range(3):
                    assert client.get().status == 200


class TestTermination:
    """5.4.3: the connection ends under streams that are open."""

    def test_by_a_reset(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"half") + post(3))
            client.barrier()
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(2):
            call = server.app.over.get(timeout=PATIENCE)
            assert call.disconnected and not call.ended
        with connect(server) as client:
            client.expect_alive()

    def test_by_an_end(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + data(1, b"half") + get(3, b"/whole"))
            client.answer(3)
        calls = [server.app.over.get(timeout=PATIENCE) for _ in range(2)]
        assert {call.path: call.ended for call in calls} == {"/": False, "/whole": True}

    @pytest.mark.parametrize("size", [1, 8, 9, 10, 17])
    def test_within_a_frame(self, server: Served[Echo], size: int) -> None:
        with connect(server) as client:
            client.send(post(1) + frame(0, b"12345678", stream=1)[:size])
            client.socket.shutdown(socket.SHUT_WR)
            client.read_eof()
        call = server.app.over.get(timeout=PATIENCE)
        assert call.disconnected and not call.ended

    def test_within_a_block(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, block(request()), done=False))
            client.socket.shutdown(socket.SHUT_WR)
            client.read_eof()
        assert server.app.calls == []

    def test_a_half_close_leaves_whole_requests(self, server: Served[Echo]) -> None:
        """What was asked is answered before the server ends the connection too."""
        with connect(server) as client:
            client.send(get(1, b"/one") + post(3, b"/three") + data(3, b"x", end=True))
            client.socket.shutdown(socket.SHUT_WR)
            assert client.answer(1).status == client.answer(3).status == 200
            client.read_eof()


class TestExtensions:
    """5.5: what is not known is left aside, but not within a block."""

    @pytest.mark.parametrize("kind", [0x0A, 0x0C, 0x11, 0x42, 0xFF])
    @pytest.mark.parametrize("stream", [0, 1, 3])
    def test_an_unknown_frame_within_a_block(
        self, server: Served[Echo], kind: int, stream: int
    ) -> None:
        with connect(server) as client:
            client.send(headers(1, block(request()), done=False))
            client.push(frame(kind, b"", stream=stream))
            client.expect_connection_error(Code.PROTOCOL_ERROR)
        assert server.app.calls == []

    def test_unknown_settings(self, server: Served[Echo]) -> None:
        pairs = [(key, value) for key in (0, 7, 0xA, 0x0A0A, 0xFFFF) for value in (0, 0xFFFFFFFF)]
        with connect(server, *pairs) as client:
            client.send(settings(*pairs))
            client.expect_alive()
            assert client.acks == 2

    def test_unknown_codes(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(post(1) + rst(1, 0xBADC0DE))
            client.expect_ignored(1)
            client.send(post(3) + frame(GOAWAY, struct.pack("!II", 0, 0xBADC0DE)))
            client.send(data(3, end=True))
            assert client.answer(3).status == 200
