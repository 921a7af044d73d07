"""RFC 7541 as the server's decoder and encoder live by it, seen from the wire.

A block that cannot be decoded is a connection error COMPRESSION_ERROR (RFC 9113 4.3). What the
decoder has understood is told back by the application; what the encoder says is read by `hpack`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from tests.support.apps import Echo, Replies, body, start
from tests.support.http2_frames import (
    IGNORED,
    TABLE_SIZE,
    Code,
    Fields,
    block,
    connection_error,
    get,
    headers,
    integer,
    literal,
    request,
    settings,
    string,
    window_update,
)
from tests.support.http2_peer import Http2Client, connect
from tests.wire.served import Served, served

HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
START = b"\x82\x86\x84\x01\x0bexample.com"  # GET, http, /, :authority: leaves no entry


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


def huffman(raw: bytes) -> bytes:
    coded = HUFFMAN.encode(raw)
    return integer(len(coded), 7, 0x80) + coded


def told(client: Http2Client, raw: bytes) -> list[list[str]]:
    """The fields that reached the application, `host` aside."""
    stream = client.next_stream()
    client.send(headers(stream, raw))
    found = client.answer(stream)
    assert found.status == 200, found
    return [one for one in json.loads(found.body)["headers"] if one[0] != "host"]


def fails(server: Served[Echo], *blocks: bytes) -> None:
    """All are good but the last."""
    server.app.calls.clear()
    with connect(server) as client:
        for raw in blocks[:-1]:
            told(client, raw)
        client.send(headers(client.next_stream(), blocks[-1]))
        client.expect_connection_error(Code.COMPRESSION_ERROR)
    assert len(server.app.calls) == len(blocks) - 1


class TestExamples:
    """Appendix C.3 and C.4: three requests on one connection."""

    PLAIN = (
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    )
    CODED = (
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    )

    @pytest.mark.parametrize("blocks", [PLAIN, CODED], ids=["plain", "huffman"])
    def test_requests(self, server: Served[Echo], blocks: tuple[str, ...]) -> None:
        with connect(server) as client:
            for at, raw in enumerate(blocks):
                client.send(headers(2 * at + 1, bytes.fromhex(raw)))
            heard = [json.loads(client.answer(2 * at + 1).body) for at in range(3)]
        hosts = [dict(one["headers"])["host"] for one in heard]
        assert hosts == ["www.example.com"] * 3
        assert [one["path"] for one in heard] == ["/", "/", "/index.html"]
        assert ["cache-control", "no-cache"] in heard[1]["headers"]
        assert ["custom-key", "custom-value"] in heard[2]["headers"]


class TestIntegers:
    """5.1"""

    def test_in_more_octets_than_they_need(self, server: Served[Echo]) -> None:
        """Zeros behind the last bits mean nothing; a few may be refused, never misread."""
        for zeros in range(1, 4):
            length = b"\x7f\x80" + b"\x80" * (zeros - 1) + b"\x00"  # 127
            with connect(server) as client:
                client.send(headers(1, START + b"\x00\x03x-a" + length + b"v" * 127))
                if client.reaction(1) == IGNORED:
                    heard = json.loads(client.answer(1).body)["headers"]
                    assert ["x-a", "v" * 127] in heard
                else:
                    assert client.goaways[-1][1] == Code.COMPRESSION_ERROR

    @pytest.mark.parametrize(
        "raw",
        [
            b"\xff" + b"\xff" * 10 + b"\x7f",
            b"\xff" + b"\x80" * 5000 + b"\x01",
            b"\xff\xff\xff\xff\xff\x7f",
            b"\x00\x7f" + b"\xff" * 9 + b"\x01",
            b"\x00\x7f\x80\xff\xff\xff\x0fshort",
            b"\x40\x01a\x7f\x81\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x3f" + b"\xff" * 20 + b"\x01",
        ],
    )
    def test_too_large(self, server: Served[Echo], raw: bytes) -> None:
        fails(server, START + raw)
        fails(server, raw)

    @pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 256, 16000])
    def test_lengths_around_their_limits(self, server: Served[Echo], size: int) -> None:
        with connect(server) as client:
            field = string(b"x-a") + string(b"v" * size)
            assert told(client, START + b"\x00" + field) == [["x-a", "v" * size]]


class TestStrings:
    """5.2"""

    def test_huffman_for_every_octet(self, server: Served[Echo]) -> None:
        allowed = bytes(
            octet for octet in range(256) if octet not in (0, 10, 13, 127) and octet > 31
        )
        with connect(server) as client:
            for at in range(0, len(allowed), 32):
                value = b"<" + allowed[at : at + 32] + b">"
                heard = told(client, START + b"\x00" + huffman(b"x-a") + huffman(value))
                assert heard == [["x-a", value.decode("latin-1")]]

    @pytest.mark.parametrize("size", range(1, 20))
    def test_huffman_padding_of_every_length(self, server: Served[Echo], size: int) -> None:
        for letter in (b"0", b"a", b"%", b"&", b"X", b"!", b"~"):
            with connect(server) as client:
                field = string(b"x-a") + huffman(letter * size)
                assert told(client, START + b"\x00" + field) == [["x-a", (letter * size).decode()]]

    @pytest.mark.parametrize(
        "coded",
        [
            b"\xff",  # eight bits of padding
            b"\x1c\x64\xff",  # h2spec: "abc" by way of padding longer than 7 bits
            b"\x1f\xff\xff",
            b"\x18",  # "a" and 000: padding of zeros
            b"\x1e",  # "a" and 110
            b"\xff\xff\xff\xff",  # EOS and more
            b"\xff\xff\xff\xfc",  # EOS itself
            b"\x1f\xff\xff\xff\xff",  # "a", EOS
            b"\xff\xff\xff\xff\x1f",
        ],
        ids=lambda coded: coded.hex(),
    )
    def test_bad_huffman(self, server: Served[Echo], coded: bytes) -> None:
        """In a value and in a name; EOS, too much padding, padding that is not its beginning."""
        string_of = integer(len(coded), 7, 0x80) + coded
        fails(server, START + b"\x00\x03x-a" + string_of)
        fails(server, START + b"\x40" + string_of + b"\x01v")
        fails(server, START + b"\x0f\x04" + string_of)

    def test_a_block_cut_anywhere(self, server: Served[Echo]) -> None:
        """Each piece of it is a shorter block or none at all."""
        pieces = [
            b"\x82",
            b"\x86",
            b"\x84",
            b"\x01\x0bexample.com",
            b"\x40" + string(b"x-a") + huffman(b"value"),
            b"\x0f\x2b" + string(b"x" * 130),
            b"\x10" + huffman(b"x-never") + string(b""),
        ]
        whole, good = b"".join(pieces), {0}
        for piece in pieces:
            good.add(max(good) + len(piece))
        for at in range(1, len(whole)):
            with connect(server) as client:
                client.send(headers(1, whole[:at]))
                if at in good:
                    client.pump(lambda: client.streams[1].over)
                    client.expect_alive()
                else:
                    client.expect_connection_error(Code.COMPRESSION_ERROR)

    def test_a_string_longer_than_its_block(self, server: Served[Echo]) -> None:
        fails(server, START + b"\x00\x03x-a\x05abcd")
        fails(server, START + b"\x00\x10x-a")
        fails(server, START + b"\x00\x03x-a\x85\x1f")
        fails(server, START + b"\x00\x03x-a")
        fails(server, START + b"\x00")


class TestIndexing:
    """2.3, 6.1"""

    def test_zero(self, server: Served[Echo]) -> None:
        fails(server, START + b"\x80")

    def test_beyond_the_tables(self, server: Served[Echo]) -> None:
        for raw in (b"\xbe", b"\xff\x00", b"\xff\x80\x01", b"\x7e\x01v", b"\x0f\x2f\x01v"):
            fails(server, START + raw)
        one = b"\x40\x03x-a\x01b"
        fails(server, START + one, START + b"\xbf")
        fails(server, START + one, START + one, START + b"\xc0")

    def test_all_of_the_static_table(self, server: Served[Echo]) -> None:
        """Appendix A, where a request may have it."""
        skipped = {b"transfer-encoding", b"host", b"content-length", b"expect", b"cookie"}
        for index, (name, value) in enumerate(hpack.table.HeaderTable.STATIC_TABLE, 1):
            if name.startswith(b":") or name in skipped:
                continue
            with connect(server) as client:
                assert told(client, START + integer(index, 7, 0x80)) == [
                    [name.decode(), value.decode()]
                ]
                field = integer(index, 4) + string(b"own")
                assert told(client, START + field) == [[name.decode(), "own"]]

    def test_pseudo_headers_of_the_static_table(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, b"\x83\x87\x85\x01\x01a"))
            heard = json.loads(client.answer(1).body)
            assert (heard["method"], heard["path"]) == ("POST", "/index.html")
            client.send(headers(3, START + b"\x88"))
            client.expect_malformed(3)


class TestLiterals:
    """6.2"""

    @pytest.mark.parametrize(("pattern", "bits"), [(0x00, 4), (0x10, 4), (0x40, 6)])
    @pytest.mark.parametrize("coded", [False, True])
    def test_each_representation(
        self, server: Served[Echo], pattern: int, bits: int, coded: bool
    ) -> None:
        write = huffman if coded else string
        with connect(server) as client:
            new = bytes((pattern,)) + write(b"x-new") + write(b"one")
            static = integer(58, bits, pattern) + write(b"agent")
            assert told(client, START + new + static) == [["x-new", "one"], ["user-agent", "agent"]]
            if pattern == 0x40:
                again = b"\xbe\xbf" + integer(63, bits, pattern) + write(b"two")
                assert told(client, START + again) == [
                    ["user-agent", "agent"],
                    ["x-new", "one"],
                    ["x-new", "two"],
                ]
                assert told(client, START + b"\xbe") == [["x-new", "two"]]
            else:
                client.send(headers(client.next_stream(), START + b"\xbe"))
                client.expect_connection_error(Code.COMPRESSION_ERROR)


class TestDynamicTable:
    """2.3.2, 4"""

    def test_first_in_first_out(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            for at in range(20):
                raw = literal(b"x-%d" % at, b"%d" % at, pattern=0x40)
                told(client, START + raw)
            for at in range(20):
                heard = told(client, START + integer(62 + at, 7, 0x80))
                assert heard == [[f"x-{19 - at}", str(19 - at)]]

    def test_eviction(self, server: Served[Echo]) -> None:
        """4.1: an entry is as large as its name and its value and 32; 4096 is the table."""
        entry = [literal(b"x", bytes((97 + at,)) * 991, pattern=0x40) for at in range(5)]
        with connect(server) as client:
            for raw in entry[:4]:
                told(client, START + raw)  # 4 x 1024
            assert told(client, START + b"\xc1") == [["x", "a" * 991]]
            told(client, START + entry[4])
            assert told(client, START + b"\xc1") == [["x", "b" * 991]]
            client.send(headers(client.next_stream(), START + b"\xc2"))
            client.expect_connection_error(Code.COMPRESSION_ERROR)

    def test_an_entry_larger_than_the_table(self, server: Served[Echo]) -> None:
        """4.4: it is no error; it empties the table."""
        with connect(server) as client:
            told(client, START + literal(b"x-a", b"b", pattern=0x40))
            assert told(client, START + literal(b"x", b"v" * 4064, pattern=0x40)) == [
                ["x", "v" * 4064]
            ]
            client.send(headers(client.next_stream(), START + b"\xbe"))
            client.expect_connection_error(Code.COMPRESSION_ERROR)

    def test_an_entry_as_large_as_the_table(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            told(client, START + literal(b"x", b"v" * 4063, pattern=0x40))
            assert told(client, START + b"\xbe") == [["x", "v" * 4063]]

    def test_a_name_that_is_evicted_by_its_own_entry(self, server: Served[Echo]) -> None:
        """4.4: it is used before it goes."""
        name = b"n" * 3000
        with connect(server) as client:
            told(client, START + literal(name, b"1", pattern=0x40))
            raw = START + b"\x7e" + string(b"v" * 1000)
            assert told(client, raw) == [[name.decode(), "v" * 1000]]
            assert told(client, START + b"\xbe") == [[name.decode(), "v" * 1000]]

    def test_the_same_twice(self, server: Served[Echo]) -> None:
        """2.3.2: duplicates are no error."""
        one = literal(b"x-a", b"b", pattern=0x40)
        with connect(server) as client:
            told(client, START + one + one)
            assert told(client, START + b"\xbe\xbf") == [["x-a", "b"]] * 2

    def test_a_cached_block_is_not_the_same_block_later(self, server: Served[Echo]) -> None:
        """The same octets mean another thing once the table has moved."""
        with connect(server) as client:
            for at in range(50):
                told(client, START + literal(b"x-%d" % at, b"%d" % at, pattern=0x40))
                for _ in range(3):
                    assert told(client, START + b"\xbe") == [[f"x-{at}", str(at)]]
                if at:
                    assert told(client, START + b"\xbf") == [[f"x-{at - 1}", str(at - 1)]]

    def test_connections_share_nothing(self, server: Served[Echo]) -> None:
        with connect(server) as one, connect(server) as other:
            told(one, START + literal(b"x-a", b"one", pattern=0x40))
            told(other, START + literal(b"x-a", b"other", pattern=0x40))
            assert told(one, START + b"\xbe") == [["x-a", "one"]]
            assert told(other, START + b"\xbe") == [["x-a", "other"]]


class TestSizeUpdate:
    """4.2, 6.3"""

    @pytest.mark.parametrize("size", [4097, 65536, 1 << 30])
    def test_beyond_the_limit(self, server: Served[Echo], size: int) -> None:
        """The server's SETTINGS_HEADER_TABLE_SIZE is 4096."""
        fails(server, integer(size, 5, 0x20) + START)
        fails(server, START, integer(4096, 5, 0x20) + integer(size, 5, 0x20) + START)

    def test_after_a_field(self, server: Served[Echo]) -> None:
        fails(server, START + b"\x20")
        fails(server, b"\x82\x20" + START[1:])
        fails(server, b"\x20" + START + b"\x3f\xe1\x1f")

    def test_to_nothing_and_back(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            told(client, START + literal(b"x-a", b"b", pattern=0x40))
            told(client, b"\x20" + integer(4096, 5, 0x20) + START)
            client.send(headers(client.next_stream(), START + b"\xbe"))
            client.expect_connection_error(Code.COMPRESSION_ERROR)

    def test_to_less(self, server: Served[Echo]) -> None:
        """4.3: the oldest go."""
        with connect(server) as client:
            for value in (b"1", b"2", b"3"):
                told(client, START + literal(b"x-a", value, pattern=0x40))  # 36 each
            assert told(client, integer(72, 5, 0x20) + START + b"\xbe\xbf") == [
                ["x-a", "3"],
                ["x-a", "2"],
            ]
            told(client, START + literal(b"x-a", b"4", pattern=0x40))
            assert told(client, START + b"\xbe\xbf") == [["x-a", "4"], ["x-a", "3"]]
            client.send(headers(client.next_stream(), START + b"\xc0"))
            client.expect_connection_error(Code.COMPRESSION_ERROR)

    def test_several(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            assert told(client, b"\x20\x3f\xe1\x1f" + START) == []
            assert told(client, b"\x3f\xe1\x1f" + START) == []

    def test_nothing_but_an_update(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, b"\x20"))
            client.expect_malformed(1)


class TestDifferential:
    """Thousands of fields by `hpack`'s encoder, told back by the application."""

    @pytest.mark.parametrize("seed", range(8))
    def test_requests(self, server: Served[Echo], seed: int) -> None:
        chance = random.Random(seed)
        encoder = hpack.Encoder()
        names = [b"x-%d" % at for at in range(30)] + [b"accept", b"user-agent", b"x-forwarded-for"]
        with connect(server) as client:
            client.send(window_update(0, 1 << 30))
            for _ in range(60):
                if chance.random() < 0.1:
                    encoder.header_table_size = chance.choice([0, 40, 100, 1000, 4096])
                more: Fields = []
                for _ in range(chance.randrange(20)):
                    size = chance.choice([0, 1, 5, 30, 300])
                    value = bytes(chance.choice(b"abcABC019-_./%~\xe9\xff") for _ in range(size))
                    more.append((chance.choice(names), value))
                pairs = [
                    hpack.NeverIndexedHeaderTuple(*pair) if chance.random() < 0.1 else pair
                    for pair in request(b"/", *more)
                ]
                raw = encoder.encode(pairs, huffman=chance.random() < 0.5)
                heard = told(client, raw)
                assert heard == [[n.decode(), v.decode("latin-1")] for n, v in more]


class TestEncoder:
    """What the server sends is decoded by `hpack`, whose table must never disagree with it."""

    def test_many_answers(self) -> None:
        chance = random.Random(5)
        scripts = {}
        for number in range(100):
            fields = [
                (
                    b"x-%d" % chance.randrange(40),
                    b"v%d" % chance.randrange(1 << chance.randrange(16)),
                )
                for _ in range(chance.randrange(25))
            ]
            fields += [
                (b"set-cookie", b"s=%d" % number),
                (b"x-long", b"z" * chance.randrange(3000)),
            ]
            scripts[f"/{number}"] = [start(200, fields), body(b"ok")]
        with served(Replies(scripts)) as replies, connect(replies) as client:
            client.send(window_update(0, 1 << 30))
            for turn in range(600):
                if turn % 50 == 25:
                    size = chance.choice([0, 10, 200, 4096, 100_000])
                    client.send(settings((TABLE_SIZE, size)))
                number = chance.randrange(100)
                found = client.get(b"/%d" % number)
                expected = list(scripts[f"/{number}"][0]["headers"])
                ours = [one for one in found.headers if one[0] in {name for name, _ in expected}]
                assert ours == expected

    def test_no_update_beyond_what_we_allow(self, server: Served[Echo]) -> None:
        """4.2: the judge raises for a larger one, and for one that is missing."""
        with connect(server, (TABLE_SIZE, 64)) as client:
            for _ in range(5):
                client.get()
            client.send(settings((TABLE_SIZE, 0)))
            client.get()
            client.send(settings((TABLE_SIZE, 4096)))
            for _ in range(5):
                client.get()

    def test_a_failed_block_is_the_end(self, server: Served[Echo]) -> None:
        with connect(server) as client:
            client.send(headers(1, block(request()) + b"\x80") + get(3, b"/after"))
            assert client.reaction() == connection_error(Code.COMPRESSION_ERROR)
        assert "/after" not in [call.path for call in server.app.calls]
