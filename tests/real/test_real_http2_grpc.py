"""Exchanges as gRPC makes them, straight and through nginx; and nginx with HTTP/2 in front.

What gRPC asks of a server: messages of a length and bytes both ways at once, and the status in
trailers. nginx speaks HTTP/2 to what is behind it with `grpc_pass` alone.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from examples.demo.application import Demo
from tests.support.apps import body, lifespan, start
from tests.support.behaviour_http2 import H2, H2Call, H2Client
from tests.support.nginx import nginx
from tests.support.programs import curl, need, short_folder
from tests.support.serve import serve
from tests.support.tls import Files, client_context

pytestmark = pytest.mark.real

TYPE = (b"content-type", b"application/grpc")
FIELDS = [TYPE, (b"te", b"trailers")]
OK = [(b"grpc-status", b"0")]

SITES = """
    server {
        listen @PORT@ ssl http2;
        ssl_certificate @CERT@;
        ssl_certificate_key @KEY@;
        client_max_body_size 50m;
        location / {
            proxy_pass http://@UPSTREAM@;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto https;
            proxy_request_buffering off;
            proxy_buffering off;
        }
        location /tide.Echo/ { grpc_pass grpc://tidegate; }
    }
    upstream tidegate {
        server @UPSTREAM@;
        keepalive 4;
    }
"""


def message(data: bytes) -> bytes:
    return struct.pack(">BI", 0, len(data)) + data


def messages(data: bytes) -> list[bytes]:
    """What lies in a body, which must be whole messages."""
    found = []
    while data:
        compressed, size = struct.unpack_from(">BI", data)
        assert not compressed and len(data) >= 5 + size, data[:50]
        found.append(data[5 : 5 + size])
        data = data[5 + size :]
    return found


class Service:
    """The demo, and beside it a service that sends back every message as it comes.

    `Echo` ends well, `Fail` with a status after its first message, `Unknown` with one at once.
    """

    def __init__(self) -> None:
        self.demo = Demo()
        self.versions: set[str] = set()
        self.clients: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        self.versions.add(scope["http_version"])
        self.clients.add(tuple(scope["client"]))
        if not scope["path"].startswith("/tide.Echo/"):
            return await self.demo(scope, receive, send)
        assert "http.response.trailers" in scope["extensions"]
        method = scope["path"].rpartition("/")[2]
        if method == "Unknown":
            status = [TYPE, (b"grpc-status", b"12"), (b"grpc-message", b"no such method")]
            await send(start(headers=status))
            return await send(body())
        await send(start(headers=[TYPE], trailers=True))
        status = await self.echo(receive, send, once=method == "Fail")
        return await send({"type": "http.response.trailers", "headers": status})

    async def echo(self, receive: Any, send: Any, *, once: bool) -> list[tuple[bytes, bytes]]:
        data, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return OK  # nobody is there to read it
            data, more = data + event["body"], event["more_body"]
            while len(data) >= 5 and len(data) >= (end := 5 + struct.unpack(">I", data[1:5])[0]):
                await send(body(data[:end], more_body=True))
                data = data[end:]
                if once:
                    await send(body())
                    return [(b"grpc-status", b"3"), (b"grpc-message", b"one%20is%20enough")]
        await send(body())
        return OK


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def own(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Files:
    issued = ca.issue_cert("127.0.0.1")
    return Files(tmp_path_factory.mktemp("tls"), "own").write(issued)


class Site:
    """The service, and where its clients knock: at ours or at nginx's port."""

    def __init__(self, app: Service, port: int, context: ssl.SSLContext) -> None:
        self.app, self.port, self.context = app, port, context

    def client(self) -> H2Client:
        return H2().connect(("127.0.0.1", self.port), self.context)

    def http(self) -> httpx.Client:
        url = f"https://127.0.0.1:{self.port}"
        return httpx.Client(
            base_url=url, http2=True, verify=self.context, trust_env=False, timeout=60
        )


@contextlib.contextmanager
def behind_nginx(own: Files, context: ssl.SSLContext) -> Iterator[Site]:
    app = Service()
    with short_folder() as folder, serve(app) as server:
        sites = SITES.replace("@UPSTREAM@", f"127.0.0.1:{server.port}")
        sites = sites.replace("@CERT@", own.cert).replace("@KEY@", own.key)
        with nginx(sites, folder) as port:
            yield Site(app, port, context)
        assert server.logged() == []


@pytest.fixture(scope="module")
def proxied(own: Files, ca: trustme.CA) -> Iterator[Site]:
    need("nginx")
    with behind_nginx(own, client_context(ca)) as site:
        yield site


@pytest.fixture(scope="module", params=["straight", "nginx"])
def site(request: pytest.FixtureRequest, own: Files, ca: trustme.CA) -> Iterator[Site]:
    if request.param == "nginx":
        yield request.getfixturevalue("proxied")
        return
    app = Service()
    with serve(app, ssl_certfile=own.cert, ssl_keyfile=own.key) as server:
        yield Site(app, server.port, client_context(ca))
        assert server.logged() == []


# ---------------------------------------------------------------------------------- gRPC


def ask(client: H2Client, method: str, sent: Iterable[bytes]) -> H2Call:
    data = b"".join(map(message, sent))
    call = client.begin("POST", f"/tide.Echo/{method}", FIELDS, body=None)
    call.send_body(data, end=True)
    return call


def test_one_message_each_way(site: Site) -> None:
    answer = ask(site.client(), "Echo", [b"hello"]).read()
    assert (answer.status, messages(answer.body)) == (200, [b"hello"])
    assert TYPE in answer.headers
    assert answer.trailers == OK
    assert "2" in site.app.versions


def test_messages_both_ways_in_turns(site: Site) -> None:
    """Each is sent when the one before has come back: nothing on the way may wait for more."""
    call = site.client().begin("POST", "/tide.Echo/Echo", FIELDS, body=None)
    for number in range(20):
        call.send_body(message(b"number %d" % number))
        call.read_until(b"number %d" % number)
        assert not call.ended
    call.send_body(b"", end=True)
    answer = call.read()
    assert messages(answer.body) == [b"number %d" % number for number in range(20)]
    assert answer.trailers == OK


def test_large_messages(site: Site) -> None:
    sent = [bytes([number]) * 700_000 for number in range(8)]
    call = site.client().begin("POST", "/tide.Echo/Echo", FIELDS, body=None)
    for each in sent:
        call.send_body(message(each))
    call.send_body(b"", end=True)
    answer = call.read()
    assert messages(answer.body) == sent
    assert answer.trailers == OK


def test_many_calls_at_once(site: Site) -> None:
    client = site.client()
    calls = [ask(client, "Echo", [b"%d" % n, b"x" * 1000 * n]) for n in range(40)]
    for number, call in enumerate(calls):
        answer = call.read()
        assert messages(answer.body) == [b"%d" % number, b"x" * 1000 * number]
        assert answer.trailers == OK


def test_failure_while_the_client_still_sends(site: Site) -> None:
    """The status comes in the trailers although the client has not ended its side."""
    call = site.client().begin("POST", "/tide.Echo/Fail", FIELDS, body=None)
    call.send_body(message(b"first"))
    call.wait(lambda: call.ended)
    assert messages(bytes(call.body)) == [b"first"]
    assert call.trailers == [(b"grpc-status", b"3"), (b"grpc-message", b"one%20is%20enough")]


def test_status_without_a_body(site: Site) -> None:
    """ "Trailers-Only": one HEADERS frame is the whole answer."""
    call = ask(site.client(), "Unknown", [b"hello"])
    call.wait(lambda: call.ended)
    assert (call.status, bytes(call.body)) == (200, b"")
    fields = [*call.headers, *call.trailers]
    assert (b"grpc-status", b"12") in fields and (b"grpc-message", b"no such method") in fields


def test_cancelled_call_leaves_the_others(site: Site) -> None:
    client = site.client()
    left, stays = (client.begin("POST", "/tide.Echo/Echo", FIELDS, body=None) for _ in range(2))
    for call in (left, stays):
        call.send_body(message(b"begun"))
        call.read_until(b"begun")
    left.leave()
    stays.send_body(message(b"over"), end=True)
    answer = stays.read()
    assert (messages(answer.body), answer.trailers) == ([b"begun", b"over"], OK)


def test_curl_sees_the_trailers(site: Site, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(message(b"hello"))
    done = curl(
        "-k", "--http2", "-D", tmp_path / "head", "-H", "content-type: application/grpc",
        "-H", "te: trailers", "--data-binary", f"@{tmp_path / 'body'}",
        f"https://127.0.0.1:{site.port}/tide.Echo/Echo",
    )  # fmt: skip
    assert messages(done.out) == [b"hello"], done
    head, trailers = (tmp_path / "head").read_bytes().split(b"\r\n\r\n")[:2]
    assert head.startswith(b"HTTP/2 200") and b"grpc-status" not in head
    assert b"grpc-status: 0" in trailers


def test_nginx_keeps_its_connections_to_us(proxied: Site) -> None:
    """One call after another: a connection that carried one has to be good for the next."""
    client = proxied.client()
    ask(client, "Echo", [b"first"]).read()
    proxied.app.clients.clear()
    for number in range(20):
        assert ask(client, "Echo", [b"%d" % number]).read().trailers == OK
    assert len(proxied.app.clients) == 1


# ------------------------------------------------- HTTP/2 up to nginx, HTTP/1.1 from there on


def test_page_behind_nginx(proxied: Site) -> None:
    with proxied.http() as client:
        answer = client.get("/facts")
        facts = answer.json()
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    assert (facts["protocol"], facts["scheme"]) == ("HTTP/1.1", "https")
    assert dict(facts["headers"])["host"] == f"127.0.0.1:{proxied.port}"


def test_bodies_behind_nginx(proxied: Site) -> None:
    with proxied.http() as client:
        known = client.post("/upload", content=b"n" * 8_000_001)
        unknown = client.post("/upload", content=(b"k" * 40_000 for _ in range(50)))
        download = client.get("/download?size=8000001")
        with client.stream("GET", "/events") as events:
            lines = (line for line in events.iter_lines() if line.startswith("data: "))
            numbers = [json.loads(next(lines).removeprefix("data: "))["number"] for _ in "ab"]
    assert {one.status_code for one in (known, unknown, download, events)} == {200}
    assert (known.json()["bytes"], unknown.json()["bytes"]) == (8_000_001, 2_000_000)
    assert len(download.content) == 8_000_001
    assert numbers == [1, 2]
