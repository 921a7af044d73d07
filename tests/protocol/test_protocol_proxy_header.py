"""PROXY protocol: every form, every split, every refusal. Sections are of proxy-protocol.txt."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.proxy_header import (
    V2_START,
    ProxyHeader,
    ProxyHeaderError,
    crc32c,
    needed,
    parse,
)

TCP4 = b"PROXY TCP4 192.168.0.1 10.0.0.11 56324 443\r\n"
TCP6 = b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"


def v2(command: int, family: int, block: bytes, version: int = 2) -> bytes:
    return V2_START + struct.pack("!BBH", version << 4 | command, family, len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


INET = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.9") + struct.pack("!HH", 5, 80)
INET6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "fe80::1")
    + struct.pack("!HH", 65535, 0)
)
UNIX = b"/run/a.sock".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")


def checksum_of_five() -> bytes:
    """Five octets whose number is the sum of the header around them: still no checksum."""
    head = v2(1, 0x11, INET + tlv(3, bytes(5)))[:-5]
    return head + b"\0" + struct.pack("!I", crc32c(head + bytes(4)))


def with_checksum(before: bytes = b"", after: bytes = b"", wrong: int = 0) -> bytes:
    empty = v2(1, 0x11, INET + before + tlv(3, bytes(4)) + after)
    at = 16 + 12 + len(before) + 3
    return empty[:at] + struct.pack("!I", crc32c(empty) ^ wrong) + empty[at + 4 :]


GOOD = [
    (TCP4, ProxyHeader(44, ("192.168.0.1", 56324), ("10.0.0.11", 443))),
    (TCP6, ProxyHeader(36, ("2001:db8::1", 1), ("::1", 65535))),
    (b"PROXY TCP6 :: :: 1 2\r\n", ProxyHeader(22, ("::", 1), ("::", 2))),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 0 0\r\n", ProxyHeader(32, ("1.1.1.1", 0), ("2.2.2.2", 0))),
    (b"PROXY UNKNOWN\r\n", ProxyHeader(15)),
    (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", ProxyHeader(107)),
    (b"PROXY UNKNOWN anything at all\r\n", ProxyHeader(31)),
    (v2(0, 0, b""), ProxyHeader(16, local=True)),
    (v2(0, 0xFF, b"discarded"), ProxyHeader(25, local=True)),
    (v2(1, 0, b"ignored"), ProxyHeader(23)),
    (v2(1, 0x10, b""), ProxyHeader(16)),
    (v2(1, 0x11, INET), ProxyHeader(28, ("192.0.2.7", 5), ("198.51.100.9", 80))),
    (v2(1, 0x12, INET), ProxyHeader(28, ("192.0.2.7", 5), ("198.51.100.9", 80))),
    (v2(1, 0x21, INET6), ProxyHeader(52, ("2001:db8::7", 65535), ("fe80::1", 0))),
    (v2(1, 0x31, UNIX), ProxyHeader(232, ("/run/a.sock", None), ("@abstract", None))),
    (v2(1, 0x31, bytes(216)), ProxyHeader(232)),
    (v2(1, 0x31, b"x" * 216), ProxyHeader(232, ("x" * 108, None), ("x" * 108, None))),
    (
        v2(1, 0x11, INET + tlv(2, b"example.com") + tlv(4, b"") + tlv(0xEE, b"1")),
        ProxyHeader(
            49,
            ("192.0.2.7", 5),
            ("198.51.100.9", 80),
            tlvs=((2, b"example.com"), (4, b""), (0xEE, b"1")),
        ),
    ),
]


@pytest.mark.parametrize(("data", "header"), GOOD, ids=range(len(GOOD)))
def test_a_header_is_read(data, header):
    assert parse(data) == header
    assert parse(data + b"GET / HTTP/1.1\r\n\r\n") == header


@pytest.mark.parametrize("data", [data for data, _ in GOOD], ids=range(len(GOOD)))
def test_at_every_split_it_asks_for_bytes_of_the_header_only(data):
    for at in range(len(data)):
        assert 0 < needed(data[:at]) <= len(data) - at, at
        with pytest.raises(ProxyHeaderError, match="cut short"):
            parse(data[:at])
    assert needed(data) == 0
    assert needed(data + b"\x16\x03\x01") == 0


@pytest.mark.parametrize("data", [data for data, _ in GOOD], ids=range(len(GOOD)))
def test_reading_what_it_asks_for_ends_at_the_header_s_last_byte(data):
    wire = data + b"\x16\x03\x01 the client's"
    got = b""
    while more := needed(got):
        got += wire[len(got) : len(got) + more]
    assert got == data


BAD = {
    "http": b"GET / HTTP/1.1\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01",
    "lower case": b"proxy TCP4",
    "another family": b"PROXY TCP5 ",
    "udp": b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
    "two spaces": b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    "empty address": b"PROXY TCP4  2.2.2.2 1 2\r\n",
    "tab": b"PROXY TCP4\t1.1.1.1 2.2.2.2 1 2\r\n",
    "bare LF": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
    "LF after unknown": b"PROXY UNKNOWN\nfoo\r\n",
    "bare CR": b"PROXY UNKNOWN a\rb\r\n",
    "bare CR unfinished": b"PROXY UNKNOWN a\rb",
    "trailing space": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
    "a port missing": b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    "a field more": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
    "no fields": b"PROXY TCP4\r\n",
    "octal address": b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
    "256": b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
    "three octets": b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
    "v6 in TCP4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "v4 in TCP6": b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
    "zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "two gaps": b"PROXY TCP6 1::2::3 ::1 1 2\r\n",
    "port with zero": b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
    "port too big": b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
    "port with sign": b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
    "port negative": b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
    "port in letters": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 http\r\n",
    "not ascii": b"PROXY TCP4 1.1.1.\xb2 2.2.2.2 1 2\r\n",
    "108 bytes": b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    "106 bytes and no CR": b"PROXY UNKNOWN " + b"f" * 92,
    "endless": b"PROXY UNKNOWN " + b"f" * 5000,
    "v2 signature broken": b"\r\n\r\n\0\r\nQUIX\n" + bytes(4),
    "version 1": v2(1, 0x11, INET, version=1),
    "version 3": v2(1, 0x11, INET, version=3),
    "command 2": v2(2, 0x11, INET),
    "family 4": v2(1, 0x41, INET),
    "protocol 3": v2(1, 0x13, INET),
    "block of 11": v2(1, 0x11, INET[:11]),
    "block of 35": v2(1, 0x21, INET6[:35]),
    "block of 215": v2(1, 0x31, UNIX[:215]),
    "TLV without length": v2(1, 0x11, INET + b"\x04"),
    "TLV with half a length": v2(1, 0x11, INET + b"\x04\x00"),
    "TLV too long": v2(1, 0x11, INET + b"\x04\x00\x02a"),
    "checksum wrong": with_checksum(wrong=1),
    "checksum of 3 bytes": v2(1, 0x11, INET + tlv(3, bytes(3))),
    "checksum of 5 bytes": checksum_of_five(),
    "checksum twice": with_checksum(after=tlv(3, bytes(4))),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_anything_else_is_refused(data):
    with pytest.raises(ProxyHeaderError) as caught:
        parse(data)
    assert "cut short" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"G", b"PROXX", b"\r\n\r\nX", b"PROXY T5", b"PROXY UNKNOWNX", b"PROXY TCP4 \n"]
)
def test_2_1_a_stranger_is_refused_at_the_first_byte_that_shows_it(data):
    needed(data[:-1])
    with pytest.raises(ProxyHeaderError):
        needed(data)


def test_2_2_3_the_checksum_is_verified_wherever_it_stands():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the Castagnoli polynomial
    for data in (with_checksum(), with_checksum(tlv(1, b"h2")), with_checksum(after=tlv(1, b"h2"))):
        assert parse(data).source == ("192.0.2.7", 5)
        checksum = data.index(b"\x03\x00\x04") + 3
        for at in (*range(16, 28), *range(checksum, checksum + 4)):
            damaged = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
            with pytest.raises(ProxyHeaderError, match="CRC32C"):
                parse(damaged)


@given(st.binary(max_size=80), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2_START]))
def test_no_bytes_bring_another_exception(junk, start):
    data = start + junk
    try:
        more = needed(data)
    except ProxyHeaderError:
        return
    if more:
        return
    try:
        header = parse(data)
    except ProxyHeaderError:
        return
    assert 0 < header.length <= len(data)
