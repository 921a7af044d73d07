"""How a log names a client."""

from __future__ import annotations

import pytest

from tidegate.asgi.scope import name_of


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (("192.0.2.1", 4711), "192.0.2.1:4711"),
        (["192.0.2.1", 4711], "192.0.2.1:4711"),
        (("2001:db8::1", 4711), "[2001:db8::1]:4711"),
        (("192.0.2.7", 0), "192.0.2.7"),  # a proxy named the address alone
        (("192.0.2.7", None), "192.0.2.7"),
        (None, "a client without an address"),
        ((), "a client without an address"),
        ("what an application put there", "a client without an address"),
    ],
)
def test_names(client: object, name: str) -> None:
    assert name_of(client) == name
