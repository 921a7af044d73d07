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


def test_it_notices_when_a_cut_changes_what_is_told() -> None:
    with pytest.raises(AssertionError):
        same(driven(0).feed(text("a")), driven(0).feed(text("b")), compressing=False)
