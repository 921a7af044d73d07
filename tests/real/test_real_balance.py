"""Keep-alive connections are spread evenly over the workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.workers import APP, Server, serving, spread

pytestmark = pytest.mark.real

WORKERS, CONNECTIONS, ROUNDS = 4, 64, 3
MOST = 1.25 * CONNECTIONS / WORKERS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("balance")
    with serving(folder, APP, "--workers", str(WORKERS)) as server:
        yield server


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("burst", [True, False])
def test_the_busiest_has_little_more_than_its_share(
    burst: bool, round_: int, server: Server
) -> None:
    shares = spread(server.port, CONNECTIONS, burst=burst)
    assert len(shares) == WORKERS and max(shares.values()) <= MOST, shares


@pytest.mark.parametrize("burst", [True, False])
def test_after_one_was_replaced(burst: bool, tmp_path: Path) -> None:
    """The row of a worker that is gone holds nobody back, and draws nobody."""
    with serving(tmp_path, APP, "--workers", str(WORKERS)) as server:
        lost = server.pids[1]
        os.kill(lost, signal.SIGKILL)
        successor = int(server.expect_line(r"Worker (\d+) is ready")[0])
        shares = spread(server.port, CONNECTIONS, burst=burst)
        assert set(shares) == {*server.pids, successor} - {lost}
        assert max(shares.values()) <= MOST, shares
