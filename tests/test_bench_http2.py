"""What h2load reports is believed only where every request had its answer."""

from __future__ import annotations

import pytest
from bench.http2 import read_report
from bench.load import VoidError

GOOD = """\
Application protocol: h2c
finished in 1.50s, 33.33 req/s, 3.80MB/s
requests: 50 total, 50 started, 50 done, 50 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 50 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 361.71KB (3700) total, 88.04KB (450) headers (space savings 90.51%), 97.66KB (650) data
"""


def test_a_round_without_an_error() -> None:
    report = read_report(GOOD, 13, "h2c")
    assert (report.requests, report.seconds) == (50, 1.5)
    assert report.extra == {"wire_bytes": 74, "head_bytes": 9}


def test_a_round_shorter_than_a_second() -> None:
    assert read_report(GOOD.replace("1.50s", "950.20ms"), 13, "h2c").seconds == pytest.approx(
        0.9502
    )


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ("0 failed", "1 failed", "1 failed"),
        ("0 errored", "2 errored", "2 errored"),
        ("0 timeout", "3 timeout", "3 timed out"),
        ("50 succeeded", "49 succeeded", "1 not 2xx"),
        ("(650) data", "(649) data", "held only 649 bytes"),
        ("protocol: h2c", "protocol: http/1.1", "spoke http/1.1 and not h2c"),
        ("50 done, 50 succeeded", "0 done, 0 succeeded", "no answer in a whole round"),
        ("finished", "ended", "no report"),
    ],
)
def test_anything_else_voids_the_row(good: str, bad: str, why: str) -> None:
    with pytest.raises(VoidError, match=why):
        read_report(GOOD.replace(good, bad), 13, "h2c")
