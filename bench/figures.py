"""The arithmetic of a verdict. Pure functions on lists of numbers: no clock, no process.

A round's ratio compares two servers measured a second apart, so whatever slowed the machine in
that round slowed both. The verdict is the median of those ratios, and a limit that lies between
their quartiles is not decided: more rounds are needed.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Better(Enum):
    """Which way a figure improves."""

    LOWER = "<="
    HIGHER = ">="


class Verdict(Enum):
    """What a run says about a target."""

    REACHED = "reached"
    MISSED = "missed"
    UNDECIDED = "undecided"
    TIE = "tie"


@dataclass(frozen=True, slots=True)
class Spread:
    """A median between its quartiles."""

    low: float
    middle: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median and quartiles of at least one value."""
    if not values:
        raise ValueError("there are no values to take the median of")
    middle = statistics.median(values)
    if len(values) == 1:
        return Spread(middle, middle, middle)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low, middle, high)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round; both were measured in the same rounds."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def judge(value: Spread, limit: float, better: Better, *, tie: bool = False) -> Verdict:
    """A limit strictly between the quartiles is undecided, or a tie where ties are good enough."""
    if value.low < limit < value.high:
        return Verdict.TIE if tie else Verdict.UNDECIDED
    good = value.middle <= limit if better is Better.LOWER else value.middle >= limit
    return Verdict.REACHED if good else Verdict.MISSED


def busiest(counts: Sequence[float]) -> float:
    """The largest share over the mean of all: 1 is even, their number is all in one place."""
    if not counts or sum(counts) <= 0:
        raise ValueError("there is nothing that could be spread")
    return max(counts) * len(counts) / sum(counts)


def best(medians: dict[str, float], better: Better) -> str | None:
    """The name with the best median, None where there is nobody."""
    if not medians:
        return None
    choose = min if better is Better.LOWER else max
    return choose(medians, key=lambda name: medians[name])


def number(value: float) -> str:
    """Three digits that matter, thousands apart: 0.615, 9.12, 14.9, 2,156."""
    size = abs(value)
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:,.{digits}f}"
