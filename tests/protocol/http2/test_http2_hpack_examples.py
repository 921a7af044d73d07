"""RFC 7541 appendix C: every example, decoded, with the table it says must stand afterwards.

Our encoder may choose other representations, so of its output only what the RFC leaves no choice in is
compared: the forms of integers (C.1) and, once the fields are known to repeat, the requests of C.4.
"""

from __future__ import annotations

from copy import deepcopy

import pytest

from tidegate.protocol.http2.hpack.decoder import Decoder, HpackError
from tidegate.protocol.http2.hpack.encoder import Encoder

Fields = list[tuple[bytes, bytes]]


def fields(*lines: str) -> Fields:
    """`name: value`, where a pseudo-header field's name keeps its colon."""
    found = []
    for line in lines:
        name, _, value = line[1:].partition(": ")
        found.append(((line[0] + name).encode(), value.encode()))
    return found


def table_of(decoder: Decoder) -> Fields:
    """The dynamic table as indexes show it, the newest first, in a copy: errors leave no trace."""
    decoder = deepcopy(decoder)
    found: Fields = []
    while True:
        index = 62 + len(found)
        assert index < 127
        try:
            found += decoder.decode(bytes((0x80 | index,)))
        except HpackError:
            return found


AGENT = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"

LITERALS = [
    (
        "C.2.1 with indexing",
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
        fields("custom-key: custom-header"),
        fields("custom-key: custom-header"),
    ),
    (
        "C.2.2 without indexing",
        "040c 2f73 616d 706c 652f 7061 7468",
        fields(":path: /sample/path"),
        [],
    ),
    (
        "C.2.3 never indexed",
        "1008 7061 7373 776f 7264 0673 6563 7265 74",
        fields("password: secret"),
        [],
    ),
    ("C.2.4 indexed", "82", fields(":method: GET"), []),
]

REQUESTS = [
    (
        fields(":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"),
        fields(":authority: www.example.com"),
    ),
    (
        fields(
            ":method: GET",
            ":scheme: http",
            ":path: /",
            ":authority: www.example.com",
            "cache-control: no-cache",
        ),
        fields("cache-control: no-cache", ":authority: www.example.com"),
    ),
    (
        fields(
            ":method: GET",
            ":scheme: https",
            ":path: /index.html",
            ":authority: www.example.com",
            "custom-key: custom-value",
        ),
        fields(
            "custom-key: custom-value", "cache-control: no-cache", ":authority: www.example.com"
        ),
    ),
]

PLAIN_REQUESTS = [  # C.3
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "8286 84be 5808 6e6f 2d63 6163 6865",
    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
]
CODED_REQUESTS = [  # C.4
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
]

RESPONSES = [
    (
        fields(
            ":status: 302",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com",
        ),
        fields(
            "location: https://www.example.com",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "cache-control: private",
            ":status: 302",
        ),
    ),
    (
        fields(
            ":status: 307",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com",
        ),
        fields(
            ":status: 307",
            "location: https://www.example.com",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "cache-control: private",
        ),
    ),
    (
        fields(
            ":status: 200",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
            "location: https://www.example.com",
            "content-encoding: gzip",
            f"set-cookie: {AGENT}",
        ),
        fields(
            f"set-cookie: {AGENT}",
            "content-encoding: gzip",
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
        ),
    ),
]

PLAIN_RESPONSES = [  # C.5
    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a"
    "3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "4803 3330 37c1 c0bf",
    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04"
    "677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49"
    "553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
]
CODED_RESPONSES = [  # C.6
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e"
    "919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    "4883 640e ffc1 c0bf",
    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7"
    "821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed"
    "4ee5 b106 3d50 07",
]


@pytest.mark.parametrize(
    ("block", "said", "table"), [each[1:] for each in LITERALS], ids=[each[0] for each in LITERALS]
)
def test_C_2_representations(block: str, said: Fields, table: Fields) -> None:
    decoder = Decoder(65536)
    assert list(decoder.decode(bytes.fromhex(block))) == said
    assert table_of(decoder) == table


@pytest.mark.parametrize(
    ("blocks", "expected", "size"),
    [
        pytest.param(PLAIN_REQUESTS, REQUESTS, 4096, id="C.3 requests"),
        pytest.param(CODED_REQUESTS, REQUESTS, 4096, id="C.4 requests, Huffman-coded"),
        pytest.param(PLAIN_RESPONSES, RESPONSES, 256, id="C.5 responses, evicting"),
        pytest.param(CODED_RESPONSES, RESPONSES, 256, id="C.6 responses, Huffman-coded, evicting"),
    ],
)
def test_C_3_to_6_sequences(
    blocks: list[str], expected: list[tuple[Fields, Fields]], size: int
) -> None:
    decoder = Decoder(65536, size)
    for block, (said, table) in zip(blocks, expected, strict=True):
        assert list(decoder.decode(bytes.fromhex(block))) == said
        assert table_of(decoder) == table


@pytest.mark.parametrize(("size", "octets"), [(10, "2a"), (1337, "3f9a0a")], ids=["C.1.1", "C.1.2"])
def test_C_1_integers_with_a_prefix_of_five_bits(size: int, octets: str) -> None:
    """Said and read as a table's size, whose prefix has five bits as well."""
    encoder = Encoder()
    encoder.resize(size)
    assert encoder.encode([]) == bytes.fromhex(octets)
    assert Decoder(65536, size).decode(bytes.fromhex(octets)) == ()
    with pytest.raises(HpackError):
        Decoder(65536, size - 1).decode(bytes.fromhex(octets))


def test_C_4_requests_as_our_encoder_says_them() -> None:
    """With fields that the process has sent before, nothing in them is left to choice."""
    for said, _ in REQUESTS:
        Encoder().encode(said)
    encoder = Encoder()
    blocks = [encoder.encode(said) for said, _ in REQUESTS]
    assert blocks == [bytes.fromhex(block) for block in CODED_REQUESTS]
