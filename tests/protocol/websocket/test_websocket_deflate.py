"""permessage-deflate: what is agreed on, and what comes of a message, by zlib and by a peer."""

from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.websocket.deflate import (
    UNLIMITED,
    Agreed,
    BadOffer,
    MessageDeflate,
    Terms,
    negotiate,
)
from tidegate.protocol.websocket.engine import STEP, Closed, Corrupt, Overfull, WebSocketEngine
from tidegate.protocol.websocket.frames import COMPRESSED, FIN, Opcode, render_head, xor_mask

TAIL = b"\x00\x00\xff\xff"
WIDE = Terms(server_max_window_bits=15, client_max_window_bits=15)
EVERYTHING = Terms(threshold=0)
KEPT = Agreed(False, False, 12, 12)
DROPPED = Agreed(True, True, 12, 12)
COMBINATIONS = [
    Agreed(*each)
    for each in itertools.product((False, True), (False, True), (9, 12, 15), (8, 9, 12, 15))
]
# No byte of it repeats within a window, so what a second one of it shrinks to tells the context.
NOISE = random.Random(7).randbytes(200)
MESSAGES = [
    b'{"type": "tick", "price": 100.25, "volume": 300}' * 3,
    b"a",
    b"",
    b"",
    bytes(range(256)) * 40,
    NOISE,
    b'{"type": "tick", "price": 100.50, "volume": 200}' * 3,
    random.Random(8).randbytes(70_000),
    b"z" * 100_000,
    NOISE,
]


def deflate(agreed: Agreed = KEPT, terms: Terms = EVERYTHING) -> MessageDeflate:
    return MessageDeflate(agreed, terms)


def raw(data: bytes, flush: int = zlib.Z_SYNC_FLUSH, level: int = 6) -> bytes:
    """One payload as a client sends it, or with Z_FINISH a whole stream."""
    maker = zlib.compressobj(level, zlib.DEFLATED, -12)
    made = maker.compress(data) + maker.flush(flush)
    return made if flush == zlib.Z_FINISH else made.removesuffix(TAIL)


def inflate(part: MessageDeflate, payload: bytes) -> bytes:
    return part.decompress(payload, True, UNLIMITED)


def trickle(part: MessageDeflate, payload: bytes, bound: int) -> bytes:
    """Byte by byte, and the message goes on."""
    output = b""
    for byte in payload:
        left = bound - len(output) if bound >= 0 else bound
        output += part.decompress(bytes((byte,)), False, left)
    return output


def traced(work: Callable[[], object]) -> tuple[int, int]:
    """Bytes that `work()` left behind, and the most it had at a time."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


# -------------------------------------------------------------------------------- what is agreed

S12 = "server_max_window_bits=12"
S10 = "server_max_window_bits=10"
BOTH = "server_no_context_takeover; client_no_context_takeover"
ACCEPTED = [
    # the offer, the response after the name, what it means (no contexts: server, client; bits)
    ("", S12, (False, False, 12, 15)),
    ("; client_max_window_bits", f"{S12}; client_max_window_bits=12", (False, False, 12, 12)),
    ("; client_max_window_bits=15", f"{S12}; client_max_window_bits=12", (False, False, 12, 12)),
    ("; client_max_window_bits=9", f"{S12}; client_max_window_bits=9", (False, False, 12, 9)),
    ("; client_max_window_bits=8", f"{S12}; client_max_window_bits=8", (False, False, 12, 8)),
    ("; server_max_window_bits=15", S12, (False, False, 12, 15)),
    ("; server_max_window_bits=9", "server_max_window_bits=9", (False, False, 9, 15)),
    ("; server_no_context_takeover", f"server_no_context_takeover; {S12}", (True, False, 12, 15)),
    ("; client_no_context_takeover", f"client_no_context_takeover; {S12}", (False, True, 12, 15)),
    (
        f"; client_max_window_bits=11; client_no_context_takeover; {S10};server_no_context_takeover",
        f"{BOTH}; {S10}; client_max_window_bits=11",
        (True, True, 10, 11),
    ),
    ('; server_max_window_bits="10"', S10, (False, False, 10, 15)),
    ('; server_max_window_bits="\\1\\0"', S10, (False, False, 10, 15)),
    ("\t ;server_max_window_bits =\t10 ", S10, (False, False, 10, 15)),
]


@pytest.mark.parametrize(("offer", "answer", "agreed"), ACCEPTED)
def test_an_offer_is_accepted(offer: str, answer: str, agreed: tuple[object, ...]) -> None:
    assert negotiate([f"permessage-deflate{offer}".encode()], Terms()) == (
        f"permessage-deflate; {answer}".encode(),
        Agreed(*agreed),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "params",
    [
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=09",
        "server_max_window_bits=+9",
        "server_max_window_bits=1_0",
        "server_max_window_bits=0xa",
        "server_max_window_bits=ten",
        "server_max_window_bits=8",  # zlib cannot
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=08",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits; client_max_window_bits=10",
        "max_window_bits=10",
        "Server_No_Context_Takeover",
        "server_no_context_takeover; mux",
    ],
)
def test_an_offer_is_declined_and_the_next_one_taken(params: str) -> None:
    declined = f"permessage-deflate; {params}".encode()
    assert negotiate([declined], Terms()) is None
    second = b"permessage-deflate; server_max_window_bits=9"
    wanted = (second, Agreed(False, False, 9, 15))
    assert negotiate([declined + b", " + second], Terms()) == wanted
    assert negotiate([declined, second], Terms()) == wanted


def test_the_first_acceptable_offer_is_taken() -> None:
    offers = [
        b' ,mux; max=4;flow="a\\b" , permessage-deflate; server_max_window_bits=10, ',
        b"permessage-deflate; server_no_context_takeover",
    ]
    assert negotiate(offers, Terms()) == (
        b"permessage-deflate; server_max_window_bits=10",
        Agreed(False, False, 10, 15),
    )


@pytest.mark.parametrize(
    "offers", [[], [b"mux"], [b"x-webkit-deflate-frame", b"bbf-usp"], [b"Permessage-Deflate"]]
)
def test_nothing_to_agree_on(offers: list[bytes]) -> None:
    assert negotiate(offers, Terms()) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ,\t, ",
        b"permessage-deflate;",
        b"permessage-deflate; ;client_max_window_bits",
        b"; client_max_window_bits",
        b"permessage-deflate client_max_window_bits",
        b"permessage-deflate; client_max_window_bits=",
        b"permessage-deflate; client_max_window_bits=1 0",
        b'permessage-deflate; client_max_window_bits="10',
        b'permessage-deflate; client_max_window_bits=""',
        b'permessage-deflate; client_max_window_bits=" 10"',
        b'permessage-deflate; client_max_window_bits="1,0"',
        b'permessage-deflate; client_max_window_bits="10\\"',
        b'permessage-deflate; client_max_window_bits="10"0',
        b'"permessage-deflate"',
        b"permessage-deflate=1",
        b"permessage/deflate",
        b"permessage-deflate; caf\xe9",
        b"permessage-deflate\n",
        b"permessage-deflate, mux; a=@",
    ],
)
def test_a_broken_header_is_no_offer(value: bytes) -> None:
    with pytest.raises(BadOffer):
        negotiate([value], Terms())


def test_a_broken_field_after_a_good_one_counts() -> None:
    with pytest.raises(BadOffer):
        negotiate([b"permessage-deflate", b"mux;"], Terms())


def test_an_empty_field_next_to_another_is_an_empty_element() -> None:
    assert negotiate([b"", b"permessage-deflate"], Terms()) is not None


def test_terms_without_contexts_say_so_unasked() -> None:
    assert negotiate([b"permessage-deflate"], WIDE._replace(keep_context=False)) == (
        b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        Agreed(True, True, 15, 15),
    )


def test_the_largest_window_needs_no_words_unless_it_was_asked_for() -> None:
    assert negotiate([b"permessage-deflate; client_max_window_bits"], WIDE) == (
        b"permessage-deflate",
        Agreed(False, False, 15, 15),
    )
    # 7.1.2.1: an offer with the parameter is accepted by saying it back
    assert negotiate([b"permessage-deflate; server_max_window_bits=15"], WIDE) == (
        b"permessage-deflate; server_max_window_bits=15",
        Agreed(False, False, 15, 15),
    )


@pytest.mark.parametrize("terms", [Terms(), WIDE, Terms(keep_context=False), Terms(9, 9)])
@pytest.mark.parametrize("no_contexts", list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("server_bits", [None, 9, 12, 15])
@pytest.mark.parametrize("client_bits", [None, True, 9, 12, 15])
def test_a_peer_understands_the_answer(
    terms: Terms,
    no_contexts: tuple[bool, bool],
    server_bits: int | None,
    client_bits: int | bool | None,
) -> None:
    peer = pytest.importorskip("websockets.extensions.permessage_deflate")
    factory = peer.ClientPerMessageDeflateFactory(
        server_no_context_takeover=no_contexts[0],
        client_no_context_takeover=no_contexts[1],
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
        compress_settings={"memLevel": 5},
    )
    offer = "permessage-deflate" + "".join(
        f"; {name}" if value is None else f"; {name}={value}"
        for name, value in factory.get_request_params()
    )
    answer = negotiate([offer.encode()], terms)
    assert answer is not None
    text, agreed = answer
    name, *params = text.decode().split("; ")
    assert name == "permessage-deflate"
    pairs = [(param.partition("=")[0], param.partition("=")[2] or None) for param in params]
    theirs = factory.process_response_params(pairs, [])
    assert agreed == Agreed(
        theirs.remote_no_context_takeover,
        theirs.local_no_context_takeover,
        theirs.remote_max_window_bits,
        theirs.local_max_window_bits,
    )


# ---------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("agreed", COMBINATIONS)
def test_what_is_compressed_zlib_can_read(agreed: Agreed) -> None:
    part = deflate(agreed)
    reader = zlib.decompressobj(-agreed.server_max_window_bits)
    for message in MESSAGES:
        payload = part.compress(message)
        if payload is None:
            assert not message or agreed.server_no_context_takeover
            continue
        if agreed.server_no_context_takeover:
            reader = zlib.decompressobj(-agreed.server_max_window_bits)
        assert reader.decompress(payload + TAIL) == message
        assert not payload.endswith(TAIL)


@pytest.mark.parametrize("agreed", COMBINATIONS)
def test_what_zlib_compresses_can_be_read(agreed: Agreed) -> None:
    part = deflate(agreed)
    bits = max(agreed.client_max_window_bits, 9)
    maker = zlib.compressobj(6, zlib.DEFLATED, -bits)
    for message in MESSAGES:
        if agreed.client_no_context_takeover:
            maker = zlib.compressobj(6, zlib.DEFLATED, -bits)
        payload = maker.compress(message) + maker.flush(zlib.Z_SYNC_FLUSH)
        assert inflate(part, payload.removesuffix(TAIL)) == message


@pytest.mark.parametrize("agreed", [each for each in COMBINATIONS if each[3] > 8])
def test_a_peer_reads_it_and_is_read(agreed: Agreed) -> None:
    theirs = pytest.importorskip("websockets.extensions.permessage_deflate")
    frames = pytest.importorskip("websockets.frames")
    peer = theirs.PerMessageDeflate(*agreed)
    part = deflate(agreed)
    for message in MESSAGES:
        payload = part.compress(message)
        if payload is not None:
            frame = frames.Frame(frames.Opcode.BINARY, payload, True, True)
            assert peer.decode(frame).data == message
        cut = len(message) // 3
        pieces = [
            peer.encode(frames.Frame(frames.Opcode.BINARY, message[:cut], False)),
            peer.encode(frames.Frame(frames.Opcode.CONT, message[cut:], True)),
        ]
        assert message == b"".join(
            part.decompress(bytes(piece.data), piece.fin, UNLIMITED) for piece in pieces
        )


def test_a_window_is_never_larger_than_agreed() -> None:
    """What lies further back than the window is not referred to."""
    for agreed in (Agreed(False, False, 9, 15), Agreed(False, False, 12, 15)):
        gap = random.Random(9).randbytes(1 << agreed.server_max_window_bits)
        part = deflate(agreed)
        part.compress(NOISE + gap)
        again = part.compress(NOISE)
        assert again is not None and len(again) > len(NOISE)


@given(
    messages=st.lists(
        st.one_of(
            st.binary(max_size=60), st.builds(lambda b, n: b * n, st.binary(), st.integers(0, 200))
        ),
        max_size=5,
    ),
    agreed=st.sampled_from(COMBINATIONS),
    cutter=st.randoms(use_true_random=False),
)
def test_messages_cut_anywhere(
    messages: list[bytes], agreed: Agreed, cutter: random.Random
) -> None:
    theirs = deflate(
        Agreed(
            agreed.client_no_context_takeover,
            agreed.server_no_context_takeover,
            max(agreed.client_max_window_bits, 9),
            agreed.server_max_window_bits,
        )
    )
    ours = deflate(agreed)
    for message in messages:
        payload = theirs.compress(message)
        if payload is None:
            continue
        cuts = sorted(cutter.choices(range(len(payload) + 1), k=cutter.randrange(6)))
        edges = [0, *cuts, len(payload)]
        output = b""
        for start, stop in itertools.pairwise(edges):
            output += ours.decompress(payload[start:stop], False, len(message) - len(output))
        output += ours.decompress(b"", True, len(message) - len(output))
        assert output == message


# ---------------------------------------------------------------------------------------- contexts


def test_a_context_that_is_kept_makes_a_message_shorter() -> None:
    part = deflate()
    first, second = part.compress(NOISE), part.compress(NOISE)
    assert first is not None and second is not None
    assert len(second) < 20 < len(first)
    reader = deflate()
    assert [inflate(reader, first), inflate(reader, second)] == [NOISE, NOISE]


def test_a_context_that_is_dropped_is_not_referred_to() -> None:
    part = deflate(DROPPED)
    message = b"all the waves " * 8
    first, second = part.compress(message), part.compress(message)
    assert first == second
    assert inflate(deflate(), second or b"") == message


def test_a_client_that_refers_to_a_context_it_gave_up_is_not_understood() -> None:
    maker = deflate()
    first, second = maker.compress(NOISE), maker.compress(NOISE)
    assert first is not None and second is not None
    reader = deflate(DROPPED)
    assert inflate(reader, first) == NOISE
    with pytest.raises(Corrupt):
        inflate(reader, second)


def test_what_would_not_shrink_goes_as_it_is_where_nothing_leans_on_it() -> None:
    assert deflate(DROPPED).compress(NOISE) is None
    assert deflate(KEPT).compress(NOISE) is not None


def test_short_messages_go_as_they_are_and_leave_the_context_alone() -> None:
    message = b"just about long enough " * 4
    with_short, without = deflate(terms=Terms()), deflate(terms=Terms())
    assert with_short.compress(message) == without.compress(message)
    assert with_short.compress(b"s" * 63) is None
    assert with_short.compress(b"") is None
    assert with_short.compress(message) == without.compress(message)
    assert with_short.compress(b"s" * 64) is not None


def test_an_empty_message_is_never_compressed() -> None:
    assert deflate().compress(b"") is None


# ------------------------------------------------------------------------------------ coming in


def test_empty_messages_come_in() -> None:
    part = deflate()
    assert inflate(part, b"\x00") == b""  # RFC 7692 7.2.3.6
    assert inflate(part, b"\x02\x00") == b""  # as Chromium writes it
    assert inflate(part, b"") == b""
    assert inflate(part, raw(b"next")) == b"next"


@pytest.mark.parametrize(
    "payload",
    [
        bytes.fromhex("f248cdc9c90700"),  # 7.2.3.1: one block
        bytes.fromhex("000500faff48656c6c6f00"),  # 7.2.3.3: stored
        bytes.fromhex("f348cdc9c9070000"),  # 7.2.3.4: BFINAL
        bytes.fromhex("f248050000 00ffff cac9c90700"),  # 7.2.3.5: two blocks
    ],
)
def test_the_examples_of_the_rfc(payload: bytes) -> None:
    assert inflate(deflate(), payload) == b"Hello"
    part = deflate()
    assert trickle(part, payload, 5) == b"Hello"
    assert part.decompress(b"", True, 0) == b""
    # 7.2.3.2: what was there before is at hand, or (after BFINAL) not needed
    assert inflate(part, raw(b"Hello")) == b"Hello"


def test_a_shared_window() -> None:
    part = deflate()
    assert inflate(part, bytes.fromhex("f248cdc9c90700")) == b"Hello"
    assert inflate(part, bytes.fromhex("f200110000")) == b"Hello"  # 7.2.3.2


@pytest.mark.parametrize("agreed", [KEPT, DROPPED])
@pytest.mark.parametrize("size", [1, 2, 7, 511, 512, 513, 100_000])
def test_streams_that_end_are_followed_by_others(agreed: Agreed, size: int) -> None:
    part = deflate(agreed)
    pieces = [b"first " * 50, b"", NOISE * 9, b"last"]
    payload = b"".join(raw(piece, zlib.Z_FINISH) for piece in pieces) + b"\x00"
    wanted = b"".join(pieces)
    for _ in range(2):
        output = b""
        for at in range(0, len(payload), size):
            end = at + size >= len(payload)
            output += part.decompress(payload[at : at + size], end, len(wanted) - len(output))
        assert output == wanted
    assert inflate(part, payload) == wanted
    assert inflate(part, raw(b"and on as usual")) == b"and on as usual"


def test_a_message_may_go_on_plainly_after_a_stream_has_ended() -> None:
    assert inflate(deflate(), raw(b"one, ", zlib.Z_FINISH) + raw(b"two")) == b"one, two"


@pytest.mark.parametrize("late", [False, True])
def test_a_message_that_ends_with_its_stream_is_corrupt(late: bool) -> None:
    """7.2.3.4: an octet of zeros has to follow, else the tail is no block."""
    part = deflate()
    payload = raw(b"Hello", zlib.Z_FINISH)
    if late:
        assert part.decompress(payload, False, UNLIMITED) == b"Hello"
        payload = b""
    with pytest.raises(Corrupt):
        inflate(part, payload)


def test_a_stream_that_ends_inside_the_tail_is_corrupt() -> None:
    # a fixed block with BFINAL and nothing in it, but for the seven zeros that end it
    with pytest.raises(Corrupt):
        inflate(deflate(), b"\x03")


@pytest.mark.parametrize(
    "payload",
    [
        b"\x07",  # a block type there is none of
        b"\xff" * 20,
        b"\x00\x05\x00\x00\x00Hello",  # a stored block whose length is not confirmed
        bytes.fromhex("f2001100"),  # a reference to before the beginning
        raw(b"one", zlib.Z_FINISH) + b"\x07",
        zlib.compress(b"with zlib's header, not raw"),
    ],
)
def test_corrupt_data(payload: bytes) -> None:
    with pytest.raises(Corrupt):
        inflate(deflate(), payload)
    part = deflate()
    with pytest.raises(Corrupt):
        trickle(part, payload + TAIL, UNLIMITED)


@given(st.binary(max_size=200), st.booleans(), st.integers(-1, 500))
def test_any_bytes_are_read_or_refused(payload: bytes, end: bool, bound: int) -> None:
    try:
        output = deflate().decompress(payload, end, bound)
    except (Corrupt, Overfull):
        return
    assert len(output) <= bound or bound == UNLIMITED


# ------------------------------------------------------------------------------------- the bound


@pytest.mark.parametrize("flush", [zlib.Z_SYNC_FLUSH, zlib.Z_FINISH])
@pytest.mark.parametrize("size", [1, 100, 5000, 100_000])
def test_a_message_fills_its_bound_and_not_more(size: int, flush: int) -> None:
    message = random.Random(size).randbytes(size // 2) + b"x" * (size - size // 2)
    payload = raw(message, flush) + (b"\x00" if flush == zlib.Z_FINISH else b"")
    assert deflate().decompress(payload, True, size) == message
    for bound in (size - 1, size // 2, 0, -2):
        with pytest.raises(Overfull):
            deflate().decompress(payload, True, bound)
        part = deflate()
        with pytest.raises(Overfull):
            trickle(part, payload, bound)


def test_the_bound_counts_over_streams() -> None:
    payload = raw(b"x" * 10, zlib.Z_FINISH) * 3 + b"\x00"
    assert deflate().decompress(payload, True, 30) == b"x" * 30
    for bound in (29, 20, 19, 10, 9):
        with pytest.raises(Overfull):
            deflate().decompress(payload, True, bound)


def test_nothing_is_allowed_and_nothing_comes() -> None:
    part = deflate()
    assert part.decompress(raw(b"full"), False, 4) == b"full"
    assert part.decompress(b"", False, 0) == b""
    assert part.decompress(b"", True, 0) == b""
    assert part.decompress(b"\x00", True, -7) == b""


@pytest.mark.parametrize("flush", [zlib.Z_SYNC_FLUSH, zlib.Z_FINISH])
def test_a_bomb_inflates_to_its_bound_only(flush: int) -> None:
    bomb = raw(b"first", flush) + raw(bytes(16 << 20), zlib.Z_SYNC_FLUSH, 9)
    if flush == zlib.Z_SYNC_FLUSH:
        bomb = raw(bytes(16 << 20), flush, 9)
    bound = 100_000
    part = deflate()

    def work() -> None:
        with pytest.raises(Overfull):
            part.decompress(bomb, True, bound)

    left, peak = traced(work)
    # the copy with the tail, what follows a stream's end, the output, an object of zlib's
    assert peak < 2 * len(bomb) + 3 * bound + 100_000
    assert left < 20_000


def test_a_bomb_inside_the_engine_closes_with_1009() -> None:
    engine = WebSocketEngine(100_000, deflate(terms=Terms()))
    payload = raw(bytes(8 << 20), level=9)
    mask = b"tide"
    head = bytearray(render_head(FIN | COMPRESSED | Opcode.BINARY, len(payload)))
    head[1] |= 0x80
    engine.feed(bytes(head) + mask + xor_mask(payload, mask))
    told = engine.next()
    assert isinstance(told, Closed) and (told.code, told.fault) == (1009, True)


def engine_and_frames(
    size: int, payload: bytes, parts: int = 1, kind: Opcode = Opcode.BINARY
) -> tuple[WebSocketEngine, bytes]:
    """An engine, and one compressed message as a client sends it, in as many frames."""
    wire = bytearray()
    step = len(payload) // parts + 1
    for begin in range(0, len(payload), step):
        first = COMPRESSED | kind if not begin else 0
        fin = FIN if begin + step >= len(payload) else 0
        piece = payload[begin : begin + step]
        head = bytearray(render_head(first | fin, len(piece)))
        head[1] |= 0x80
        wire += bytes(head) + b"tide" + xor_mask(piece, b"tide")
    return WebSocketEngine(size, deflate(terms=Terms())), bytes(wire)


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("size", [10, 200, 1000, 70_000])
def test_what_grows_when_compressed_may_still_fill_the_bound(size: int, parts: int) -> None:
    message = random.Random(size).randbytes(size)
    payload = raw(message)
    assert len(payload) > size
    engine, wire = engine_and_frames(size, payload, parts)
    engine.feed(wire)
    assert engine.next() == message


@pytest.mark.parametrize("parts", [1, 50])
def test_a_payload_that_inflates_to_nothing_is_bounded_too(parts: int) -> None:
    """Empty blocks: the size of a message is never reached, that of what carries it is."""
    engine, wire = engine_and_frames(1000, b"\x00\x00\x00\xff\xff" * 2000 + b"\x00", parts)
    told = None
    for begin in range(0, len(wire), 100):
        engine.feed(wire[begin : begin + 100])
        told = told or engine.next()
    assert isinstance(told, Closed) and (told.code, told.fault) == (1009, True)


@pytest.mark.parametrize("kind", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("size", [STEP - 1, STEP, STEP + 1, 2 * STEP, 5 * STEP + 7])
def test_what_inflates_to_a_lot_comes_in_steps(size: int, parts: int, kind: Opcode) -> None:
    """Each leaves others their turn; a step takes as long whether the message fits or not."""
    message = ("ü" * size)[: size // 2].encode() + b"x" * (size % 2)
    engine, wire = engine_and_frames(size, raw(message), parts, kind)
    engine.feed(wire + engine_and_frames(size, raw(b"next"), 1, kind)[1])
    told, calls = engine.next(), 1
    while told is None:
        assert engine.stalled
        told, calls = engine.next(), calls + 1
    assert told == (message.decode() if kind is Opcode.TEXT else message)
    assert calls >= size / STEP - parts
    told = engine.next()
    assert told == ("next" if kind is Opcode.TEXT else b"next")


@pytest.mark.parametrize("size", [0, STEP, 10 * STEP])
def test_a_bomb_takes_no_longer_a_step_than_a_message(size: int) -> None:
    engine, wire = engine_and_frames(size, raw(bytes(64 << 20), level=9))
    engine.feed(wire)
    told, most = None, 0

    def step() -> None:
        nonlocal told
        told = engine.next()

    while told is None and engine._gathered < 20 * STEP:
        most = max(most, traced(step)[1])
    assert most < 4 * STEP
    if size:
        assert isinstance(told, Closed) and told.code == 1009


def test_many_frames_that_each_inflate_to_less_leave_others_their_turn() -> None:
    half = bytes(STEP // 2)
    engine, wire = engine_and_frames(0, raw(half * 40, level=9), 40)
    engine.feed(wire)
    calls = 1
    while (told := engine.next()) is None:
        assert engine.stalled
        calls += 1
    assert told == half * 40
    assert calls >= 10


def test_thousands_of_streams_do_not_copy_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that zlib sees grow with the payload, not with its square."""
    seen = []
    real = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._real = real(bits)

        def decompress(self, data: bytes, bound: int) -> bytes:
            seen.append(len(data))
            return self._real.decompress(data, bound)

        eof = property(lambda self: self._real.eof)
        unused_data = property(lambda self: self._real.unused_data)
        unconsumed_tail = property(lambda self: self._real.unconsumed_tail)

    monkeypatch.setattr("tidegate.protocol.websocket.deflate.zlib.decompressobj", Counting)
    payload = b"\x03\x00" * 10_000 + b"\x00"
    assert inflate(deflate(), payload) == b""
    assert sum(seen) < 600 * len(payload) / 2


# ------------------------------------------------------------------------------------------ memory


def test_nothing_is_made_before_it_is_needed() -> None:
    parts = []
    left, _ = traced(lambda: parts.append(deflate()))
    assert left < 1000


def test_a_resting_socket_without_contexts_holds_no_memory() -> None:
    part = deflate(DROPPED)
    message = b"to and fro " * 10

    def work() -> None:
        payload = part.compress(message)
        assert payload is not None
        assert inflate(part, payload) == message
        part.rest()

    work()
    assert traced(work)[0] < 1000


def test_a_compressor_is_given_back_and_the_peer_does_not_notice() -> None:
    part, reader = deflate(), zlib.decompressobj(-12)
    left, _ = traced(lambda: (part.compress(NOISE), part.rest()))
    assert left < 1000
    part.compress(NOISE)
    for rests in (False, True, True, False):
        part = part if rests else deflate()
        part.rest()
        payload = part.compress(NOISE)
        assert payload is not None and len(payload) > len(NOISE)  # its context is gone
        assert reader.decompress(payload + TAIL) == NOISE


def test_what_a_client_may_refer_to_survives_a_rest() -> None:
    maker, part = deflate(), deflate()
    for longest in (len(NOISE) + 10, 20):
        payload = maker.compress(NOISE)
        assert payload is not None and len(payload) < longest
        assert inflate(part, payload) == NOISE
        part.rest()


def test_a_rest_in_the_middle_of_a_message_does_not_harm_it() -> None:
    part = deflate(DROPPED)
    payload = raw(MESSAGES[0])
    output = part.decompress(payload[:20], False, UNLIMITED)
    part.rest()
    assert output + part.decompress(payload[20:], True, UNLIMITED) == MESSAGES[0]
