"""The servers most WebSocket wire tests speak with; a module that needs another has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.wire.dialogue import SocketEcho
from tests.wire.served import Served, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served[SocketEcho]]:
    with served(SocketEcho(), ws_ping_interval=None) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served[SocketEcho]]:
    """Over a Unix socket, where the kernel tells cheaply when the server has read a piece."""
    path = tmp_path_factory.mktemp("wire") / "s"
    with served(SocketEcho(), ws_ping_interval=None, uds=str(path)) as running:
        yield running
