"""Every row of the corpus, over one server: refused with its status, ended, and not let through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.apps import Echo
from tests.support.raw import RawClient
from tests.wire.corpus import CASES, Case, Seen
from tests.wire.served import Served, closes, get, served

SHORT = [case for case in CASES if len(case.raw) <= 300]


def check(case: Case, client: RawClient, app: Echo) -> None:
    response = client.read_response()
    assert response.status in case.status, (case.section, response)
    assert response.informational == []
    assert closes(response), "9.6: the last answer says so"
    assert client.read_eof() == b"", "nothing behind a fault may be answered"
    if case.seen is Seen.NOTHING:
        assert app.calls == []
    else:
        assert [call.path for call in app.calls if call.path != "/"] == []
        assert [call for call in app.calls if call.ended] == []


@pytest.fixture(scope="module")
def server() -> Iterator[Served[Echo]]:
    with served(Echo()) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served[Echo]]:
    """Over a Unix socket, where the kernel tells cheaply when the server has read a piece."""
    with served(Echo(), uds=str(tmp_path_factory.mktemp("wire") / "s")) as running:
        yield running


def test_the_corpus_is_large_and_each_row_its_own() -> None:
    assert len(CASES) >= 180
    assert len({case.id for case in CASES}) == len(CASES)
    assert len({case.raw for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_refused(case: Case, server: Served[Echo]) -> None:
    server.app.calls.clear()
    with server.connect() as client:
        client.send(case.raw)
        check(case, client, server.app)


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.id)
def test_refused_byte_by_byte(case: Case, local: Served[Echo]) -> None:
    """A fault cut in two is the same fault; what comes after the answer must not reset it."""
    local.app.calls.clear()
    with local.connect() as client:
        client.send_pieces(bytes([code]) for code in case.raw)
        check(case, client, local.app)


def test_clients_that_leave_without_reading_do_no_harm(server: Served[Echo]) -> None:
    for case in CASES:
        with server.connect() as client:
            client.send(case.raw)
    with server.connect() as client:
        client.send(get("/after"))
        assert client.read_response().status == 200
