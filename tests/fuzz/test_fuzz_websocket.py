"""A short, repeatable run of the WebSocket fuzz target, so that the target itself stays in order."""

from __future__ import annotations

import itertools

import pytest
from tests.fuzz.drive import inputs
from tests.fuzz.websocket import TARGET, check, driven, same
from tests.support.websocket_frames import text


def test_damaged_input() -> None:
    for raw, cuts in itertools.islice(inputs(TARGET, seed=1), 4000):
        check(raw, cuts)


def test_zlib_forgives_in_one_piece_what_it_refuses_in_several() -> None:
    """A distance beyond the window, in a message that does not come to its end."""
    check(
        b"\x0f" + bytes.fromhex(
            "c2c137fa213ddb3b203037fa21ff970d6e5038fd353d37fa213d37fa213d37fa213d"
            "370d6e5038fd35353d37fa79793d37fa7979797979797979797231"
        ),
        [7, 19, 43],
    )  # fmt: skip


@pytest.mark.parametrize("other", [text("a") + text("b"), b""])
def test_it_notices_when_compression_is_no_reason(other: bytes) -> None:
    with pytest.raises(AssertionError):
        same(driven(4).feed(text("a")), driven(4).feed(other), compressing=True)


def test_it_notices_when_a_cut_changes_what_is_told() -> None:
    with pytest.raises(AssertionError):
        same(driven(0).feed(text("a")), driven(0).feed(text("b")), compressing=False)
