"""Field grammar and the fields every response gets."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.errors import ApplicationError
from tidegate.protocol.headers import (
    MEMORY,
    TOKEN,
    Defaults,
    Memory,
    check_name,
    check_value,
    is_authority,
)

TCHAR = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize("code", range(256))
def test_each_byte_of_names_and_values(code: int) -> None:
    byte = bytes([code])
    assert (TOKEN.fullmatch(byte) is not None) == (code in TCHAR)
    if code in TCHAR:
        assert check_name(b"x" + byte) == b"x" + byte
    else:
        with pytest.raises(ApplicationError):
            check_name(b"x" + byte)
    if code == 9 or 0x20 <= code <= 0x7E or code >= 0x80:
        assert check_value(b"x", b"a" + byte) == b"a" + byte
    else:
        with pytest.raises(ApplicationError, match=r"RFC 9110 5\.5"):
            check_value(b"x", b"a" + byte)


@pytest.mark.parametrize("thing", ["x", 1, None, bytearray(b"x"), memoryview(b"x")])
def test_only_bytes(thing: Any) -> None:
    with pytest.raises(ApplicationError, match=f"bytes, not {type(thing).__name__}"):
        check_name(thing)
    with pytest.raises(ApplicationError, match="'x-a' must be bytes"):
        check_value(b"x-a", thing)


def test_nothing_is_no_name_but_may_be_a_value() -> None:
    with pytest.raises(ApplicationError):
        check_name(b"")
    assert check_value(b"x", b"") == b""


@pytest.mark.parametrize(
    "value",
    [b"", b"a", b"a.b-c_d~", b"a:", b"a:0", b"a:65535", b"127.0.0.1", b"[::]", b"[::1]:8",
     b"[1:2:3:4:5:6:7:8]", b"[::ffff:1.2.3.4]", b"[v1.a:b]", b"%20", b"a!$&'()*+;="],
)  # fmt: skip
def test_authorities(value: bytes) -> None:
    assert is_authority(value)


@pytest.mark.parametrize(
    "value",
    [b"a b", b"a@b", b"a/b", b"a?b", b"a#b", b"a,b", b"a:b", b"a:1:2", b"a:123456", b"a:-1",
     b"%2", b"%zz", b"[", b"[]", b"[:]", b"[::1", b"::1", b"[::1]a", b"[1.2.3.4]", b"[v.a]",
     b"[vg.a]", b"[v1.]", b"[::1%25eth0]", b"a\n", b"a\x00", b"\xe9", b'"a"', b"a\\b", b"[1:::2]"],
)  # fmt: skip
def test_what_is_no_authority(value: bytes) -> None:
    assert not is_authority(value)


def test_a_memory_keeps_what_is_short_and_forgets_all_when_full() -> None:
    memory = Memory()
    for number in range(5 * MEMORY):
        key = b"%d" % number
        assert memory.keep(key, b"v" + key) == b"v" + key
        assert memory[key] == b"v" + key
        assert len(memory) <= MEMORY
    assert memory.keep(b"k" * 5000, b"v") == b"v"
    assert b"k" * 5000 not in memory


@pytest.mark.parametrize("date", [b"", b"today"])
@pytest.mark.parametrize("server", [b"", b"tidegate"])
@pytest.mark.parametrize("extra", [(), ((b"x", b"1"), (b"x", b"2"))])
def test_defaults(date: bytes, server: bytes, extra: tuple[tuple[bytes, bytes], ...]) -> None:
    defaults = Defaults(server, extra)
    defaults.set_date(b"yesterday")
    defaults.set_date(date)
    dated = b"date: today\r\n" if date else b""
    served = b"server: tidegate\r\n" if server else b""
    rest = b"x: 1\r\nx: 2\r\n" if extra else b""
    assert defaults.block == dated + served + rest
    assert defaults.without(date=True, server=False) == served + rest
    assert defaults.without(date=False, server=True) == dated + rest
    assert defaults.without(date=True, server=True) == rest
