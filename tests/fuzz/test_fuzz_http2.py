"""Short, repeatable runs of the HTTP/2 fuzz target, so that the target itself stays in order."""

from __future__ import annotations

import itertools
import random

import pytest
from tests.fuzz.drive import inputs
from tests.fuzz.http2 import HELLO, TARGET, Drive, check, corpus, same, structured
from tests.support.http2_frames import get


def test_damaged_input() -> None:
    for raw, cuts in itertools.islice(inputs(TARGET, seed=1), 1500):
        check(raw, cuts)


def test_structured_frames() -> None:
    chance = random.Random(2)
    for _ in range(1500):
        check(b"\0" + structured(chance), [chance.randrange(4096) for _ in range(4)])


def test_random_bytes_behind_the_preface() -> None:
    chance = random.Random(3)
    for _ in range(400):
        check(b"\0" + chance.randbytes(chance.randrange(400)), [chance.randrange(500)])


def test_the_corpus_itself() -> None:
    for raw in corpus():
        check(raw, [7, 19, 43])


def test_it_notices_when_a_cut_changes_what_is_told() -> None:
    with pytest.raises(AssertionError):
        same(
            Drive(hello=False).feed(HELLO + get(1, b"/a")),
            Drive(hello=False).feed(HELLO + get(1, b"/b")),
        )
