"""A short, repeatable run of the fuzz target, so that the target itself stays in order."""

from __future__ import annotations

import itertools

import pytest
from tests.fuzz.drive import inputs
from tests.fuzz.http1 import TARGET, Play, check, same_requests


def test_damaged_input() -> None:
    for raw, cuts in itertools.islice(inputs(TARGET, seed=1), 1500):
        check(raw, cuts)


def test_it_notices_when_a_cut_changes_the_requests() -> None:
    one = Play().run([b"GET /a HTTP/1.1\r\nHost: tide.test\r\n\r\n"])
    other = Play().run([b"GET /b HTTP/1.1\r\nHost: tide.test\r\n\r\n"])
    with pytest.raises(AssertionError):
        same_requests(one.asked, other.asked)
