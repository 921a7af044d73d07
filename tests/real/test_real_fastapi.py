"""The FastAPI example, served whole: models, dependencies, threads, events, its own docs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from examples.fastapi_app import app
from tests.support.serve import serve

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serve(app) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield client


def test_json_in_and_out(client: httpx.Client) -> None:
    boat = {"name": "Albatros", "draught": 1.8}
    moored = client.put("/boats/a1", json=boat)
    assert (moored.status_code, moored.json()) == (201, boat)
    assert client.get("/boats/a1").json() == boat  # a plain function: answered from a thread


def test_wrong_json_is_told(client: httpx.Client) -> None:
    answer = client.put("/boats/a2", json={"name": "", "draught": "deep"})
    assert answer.status_code == 422
    assert {fault["loc"][-1] for fault in answer.json()["detail"]} == {"name", "draught"}
    assert client.get("/boats/a2").status_code == 404


def test_dependency(client: httpx.Client) -> None:
    assert client.get("/", headers={"user-agent": "gull"}).json()["hello"] == "gull"


def test_upload(client: httpx.Client) -> None:
    body = (b"c" * 10_000 for _ in range(100))
    assert client.post("/cargo", content=body).json() == {"bytes": 1_000_000}


def test_events(client: httpx.Client) -> None:
    answer = client.get("/tide", params={"steps": 50})
    assert answer.text == "".join(f"data: {step}\n\n" for step in range(50))
    assert answer.headers["transfer-encoding"] == "chunked"


def test_plain_functions_side_by_side(client: httpx.Client) -> None:
    client.put("/boats/b1", json={"name": "Mole", "draught": 1})
    with ThreadPoolExecutor(16) as pool:
        names = pool.map(lambda _: client.get("/boats/b1").json()["name"], range(200))
        assert set(names) == {"Mole"}


def test_its_own_docs(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["info"]["title"] == "Harbour"
    assert "swagger" in client.get("/docs").text.lower()
