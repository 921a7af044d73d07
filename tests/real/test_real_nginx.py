"""nginx in front, as most people run a Python server: TCP and Unix socket, keep-alive upstreams."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from examples.demo.application import Demo
from tests.support.nginx import nginx
from tests.support.programs import need, short_folder
from tests.support.serve import serve

pytestmark = pytest.mark.real

SITES = """
    client_max_body_size 50m;
    upstream tidegate {
        server @UPSTREAM@;
        keepalive 8;
    }
    server {
        listen @PORT@;
        location / {
            proxy_pass http://tidegate;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
        }
        location /events {
            proxy_pass http://tidegate;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }
        location /straight/ {
            proxy_pass http://tidegate/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_buffering off;
        }
        location /old/ {
            proxy_pass http://tidegate/;
        }
    }
"""


@dataclass(frozen=True)
class Behind:
    """The application, a client of the nginx before it, and the kind of the upstream."""

    app: Demo
    client: httpx.Client
    upstream: str


@pytest.fixture(scope="module", params=["tcp", "unix"])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    need("nginx")
    app = Demo()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        if request.param == "tcp":
            server = stack.enter_context(serve(app))
            upstream = f"{server.host}:{server.port}"
        else:
            path = folder / "tide.sock"
            stack.enter_context(serve(app, uds=str(path), forwarded_allow_ips="unix:"))
            upstream = f"unix:{path}"
        port = stack.enter_context(nginx(SITES.replace("@UPSTREAM@", upstream), folder))
        url = f"http://127.0.0.1:{port}"
        client = stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=60))
        yield Behind(app, client, request.param)


def test_the_real_client_is_known(behind: Behind) -> None:
    client = behind.client
    facts = client.get("/facts").json()
    assert facts["scheme"] == "https"
    assert facts["client"] is not None and facts["client"].startswith("127.0.0.1")
    assert dict(facts["headers"])["host"] == f"127.0.0.1:{client.base_url.port}"


def test_upstream_connections_are_kept(behind: Behind) -> None:
    """One connection after another request: nginx keeps ours open, and so do we."""
    client = behind.client
    clients = {client.get("/straight/facts").json()["client"] for _ in range(20)}
    if behind.upstream == "tcp":
        assert len(clients) == 1
    else:
        assert clients == {None}  # a peer on a Unix socket has no address


def test_upload_of_8_mb(behind: Behind) -> None:
    client = behind.client
    for path in ("/upload", "/straight/upload"):  # buffered by nginx, and passed on as it comes
        answer = client.post(path, content=b"n" * 8_000_000)
        assert answer.json()["bytes"] == 8_000_000


def test_chunked_upload(behind: Behind) -> None:
    client = behind.client
    answer = client.post("/straight/upload", content=(b"k" * 40_000 for _ in range(50)))
    assert answer.json()["bytes"] == 2_000_000


def test_download(behind: Behind) -> None:
    client = behind.client
    for path in ("/download", "/straight/download", "/old/download"):  # the last one: HTTP/1.0
        answer = client.get(path, params={"size": 8_000_001})
        assert len(answer.content) == 8_000_001


def test_http_1_0_upstream(behind: Behind) -> None:
    """nginx without proxy_http_version speaks 1.0 and closes each time."""
    client = behind.client
    assert client.get("/old/facts").json()["protocol"] == "HTTP/1.0"


def test_events_arrive_as_they_go_and_end_with_the_client(behind: Behind) -> None:
    client = behind.client
    with client.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        seen = [next(line for line in lines if line.startswith("id: ")) for _ in range(2)]
        assert seen == ["id: 1", "id: 2"]
        assert behind.app.streams >= 1
    # nginx closes its upstream connection when its client goes; the handler then ends.
    with client.stream("GET", "/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and json.loads(line[6:])["streams"] == 1:
                break


def test_a_client_that_aborts_its_upload(behind: Behind) -> None:
    """Half a body and gone: the application is told, and the next request is served."""
    client = behind.client
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as rude:
        rude.sendall(
            b"POST /straight/upload HTTP/1.1\r\nHost: tide.test\r\n"
            b"Content-Length: 1000000\r\n\r\n" + b"h" * 300_000
        )
        with client.stream("GET", "/events") as answer:
            for line in answer.iter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["uploads"]:
                    break  # it has begun
    with client.stream("GET", "/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and not json.loads(line[6:])["uploads"]:
                break  # and was given up
    assert client.post("/straight/upload", content=b"ok").json()["bytes"] == 2


def test_a_client_that_aborts_its_download(behind: Behind) -> None:
    client = behind.client
    with client.stream("GET", "/straight/download", params={"size": 500_000_000}) as answer:
        next(answer.iter_raw())
    assert client.get("/facts").status_code == 200
