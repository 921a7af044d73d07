"""nghttp, which shows every frame: pushes, upgrades, trailers, assets, padding and table sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.apps import answer, body, lifespan, start
from tests.support.programs import Finished, need, run
from tests.support.serve import Running, serve

pytestmark = pytest.mark.real

PAGE = (
    b"<html><head><link rel=stylesheet href=/style.css><script src=/code.js></script></head>"
    b"<body><img src=/a.png><img src=/b.png></body></html>"
)


class Assets:
    """A page that pushes its style sheet, its assets, and `/trailers`; the scopes it was given."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        self.scopes.append(scope)
        if scope["path"] == "/":
            return await self.show_page(scope, send)
        if scope["method"] == "POST":
            await self.take_body(receive)
        if scope["path"] != "/trailers":
            return await answer(send, 200, [(b"content-length", b"9")], b"an asset\n")
        offered = "http.response.trailers" in scope["extensions"]
        await send(start(trailers=offered))
        await send(body(b"message"))
        if offered:
            trailers = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
            await send(trailers)
        return None

    async def show_page(self, scope: Any, send: Any) -> None:
        if "http.response.push" in scope["extensions"]:
            headers = [(b"accept", b"text/css")]
            await send(
                {"type": "http.response.push", "path": "/pushed.css?v=1", "headers": headers}
            )
        fields = [(b"content-type", b"text/html"), (b"content-length", str(len(PAGE)).encode())]
        await answer(send, 200, fields, PAGE)

    async def take_body(self, receive: Any) -> None:
        got, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request", message
            got, more = got + message["body"], message["more_body"]
        self.bodies.append(got)


class Site:
    def __init__(self, server: Running, app: Assets) -> None:
        self.server, self.app = server, app

    def nghttp(self, path: str, *arguments: str | Path, **options: Any) -> Finished:
        self.app.scopes.clear()
        self.app.bodies.clear()
        done = run(need("nghttp"), *arguments, self.server.url + path, **options)
        assert done.code == 0, done
        return done

    def asked(self) -> list[str]:
        """What the application was asked for, in order."""
        return [scope["path"] for scope in self.app.scopes]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    app = Assets()
    with serve(app, h2c_upgrade=True) as server:
        yield Site(server, app)
        assert server.logged() == []


def shown(done: Finished) -> list[str]:
    """What nghttp said of frames and fields, without the times."""
    return [line.partition("] ")[2] for line in done.text.splitlines() if "] " in line]


def answered(done: Finished) -> dict[str, tuple[int, int, bool]]:
    """nghttp's statistics: path to status, bytes, and whether it was pushed."""
    line = re.compile(r"^ *\d+ +\+\S+ (\*?) +\+\S+ +\S+ +(\d+) +(\S+) (\S+)$", re.MULTILINE)
    found = line.findall(done.text)
    return {path: (int(status), int(size), star == "*") for star, status, size, path in found}


def test_settings_are_announced_and_acknowledged(site: Site) -> None:
    done = site.nghttp("/code.js", "-v")
    lines = "\n".join(shown(done))
    assert "recv SETTINGS frame <length=0, flags=0x01, stream_id=0>" in lines
    for setting in (
        "MAX_CONCURRENT_STREAMS(0x03):128",
        "MAX_HEADER_LIST_SIZE(0x06):65536",
        "NO_RFC7540_PRIORITIES(0x09):1",
        "ENABLE_CONNECT_PROTOCOL(0x08):1",
    ):
        assert f"[SETTINGS_{setting}]" in done.text, setting
    assert "ENABLE_PUSH" not in done.text
    assert "(error_code" not in done.text


def test_page_with_its_assets(site: Site) -> None:
    done = site.nghttp("/", "-ans", "--no-push")
    found = answered(done)
    assert {path: one[0] for path, one in found.items()} == dict.fromkeys(
        ["/", "/style.css", "/code.js", "/a.png", "/b.png"], 200
    ), done.text
    assert site.asked()[0] == "/"
    assert not any("http.response.push" in scope["extensions"] for scope in site.app.scopes)


def test_push(site: Site) -> None:
    """A promise, the answer it belongs to, and the promised answer on a stream of its own."""
    done = site.nghttp("/", "-v")
    lines = shown(done)
    promise = next(n for n, line in enumerate(lines) if line.startswith("recv PUSH_PROMISE"))
    stream = re.search(r"stream_id=(\d+)", lines[promise])
    assert stream, done.text
    mine = f"recv (stream_id={stream[1]}) "
    said = [line.removeprefix(mine) for line in lines[:promise] if line.startswith(mine)]
    assert said == [
        ":method: GET",
        ":scheme: http",
        f":authority: {site.server.url.removeprefix('http://')}",
        ":path: /pushed.css?v=1",
        "accept: text/css",
    ]
    assert "promised_stream_id=2" in done.text
    head = next(n for n, line in enumerate(lines) if line.startswith(f"{mine}:status: 200"))
    assert promise < head  # RFC 9113 8.4.1: before what makes the client ask by itself
    assert "recv (stream_id=2) :status: 200" in lines
    assert site.asked() == ["/", "/pushed.css"]
    pushed = site.app.scopes[1]
    assert (pushed["method"], pushed["query_string"]) == ("GET", b"v=1")
    assert (b"accept", b"text/css") in pushed["headers"]


def test_pushed_requests_are_offered_no_pushes(site: Site) -> None:
    """RFC 9113 8.4: a promise belongs to a stream that the client began."""
    site.nghttp("/", "-v")
    offers = ["http.response.push" in scope["extensions"] for scope in site.app.scopes]
    assert (site.asked(), offers) == (["/", "/pushed.css"], [True, False])


def test_push_beside_what_the_client_asks_for(site: Site) -> None:
    found = answered(site.nghttp("/", "-ans"))
    assert found["/pushed.css?v=1"] == (200, 9, True)
    assert found["/style.css"] == (200, 9, False)
    assert len(found) == 6


@pytest.mark.parametrize("limit", ["0", "1"])
def test_pushes_are_limited_by_the_client(site: Site, limit: str) -> None:
    done = site.nghttp("/", "-v", f"--max-concurrent-streams={limit}")
    assert ("recv PUSH_PROMISE" in done.text) is (limit == "1"), done.text


def test_upgrade(site: Site) -> None:
    done = site.nghttp("/", "-v", "-u")
    assert "HTTP Upgrade success" in done.text, done.text
    assert "recv (stream_id=1) :status: 200" in shown(done)
    assert [scope["http_version"] for scope in site.app.scopes] == ["2", "2"]  # and its push
    assert "promised_stream_id=2" in done.text


def test_upgrade_and_upload(site: Site, tmp_path: Path) -> None:
    """nghttp upgrades with an OPTIONS, and sends what it has to say on another stream."""
    (tmp_path / "body").write_bytes(bytes(range(256)) * 4000)
    site.nghttp("/style.css", "-nu", "-d", tmp_path / "body")
    assert [scope["method"] for scope in site.app.scopes] == ["OPTIONS", "POST"]
    assert site.app.bodies == [bytes(range(256)) * 4000]


def test_trailers_of_an_answer(site: Site) -> None:
    done = site.nghttp("/trailers", "-v", "-H", "te: trailers")
    lines = [line for line in shown(done) if line.startswith("recv ") and "stream_id=13" in line]
    last = [line.partition(" frame")[0] for line in lines[-2:]]
    assert last == ["recv (stream_id=13) grpc-status: 0", "recv HEADERS"], done.text
    assert "END_STREAM" in done.text.partition("grpc-status")[2]
    plain = site.nghttp("/trailers", "-v")
    assert "grpc-status" not in plain.text


@pytest.mark.parametrize("padding", [[], ["-b", "250"], ["--no-content-length"]])
def test_trailers_of_a_request(site: Site, padding: list[str], tmp_path: Path) -> None:
    """They end the body and go no further: ASGI has no place for them."""
    (tmp_path / "body").write_bytes(b"t" * 200_000)
    body = ["-d", tmp_path / "body", "--trailer", "checksum: 12"]
    done = site.nghttp("/style.css", "-v", *padding, *body)
    assert "recv (stream_id=13) :status: 200" in shown(done)
    assert site.app.bodies == [b"t" * 200_000]
    assert b"checksum" not in dict(site.app.scopes[0]["headers"])


def test_continue(site: Site, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"c" * 100_000)
    done = site.nghttp("/style.css", "-v", "--expect-continue", "-d", tmp_path / "body")
    lines = [line for line in shown(done) if "DATA frame" in line or ":status: " in line]
    assert lines[0] == "recv (stream_id=13) :status: 100", done.text
    assert lines[1].startswith("send DATA frame")
    assert site.app.bodies == [b"c" * 100_000]


def test_large_fields_in_continuations(site: Site) -> None:
    done = site.nghttp("/style.css", "-v", "--continuation")
    block = re.search(r"send HEADERS frame <length=(\d+)", done.text)
    assert block and int(block[1]) > 16384, done.text  # so it takes more than one frame
    assert "recv (stream_id=13) :status: 200" in shown(done)
    sent = re.findall(r"^ +(continuation-test-\d+): (\S+)$", done.text, re.MULTILINE)
    got = {n.decode(): v.decode() for n, v in site.app.scopes[0]["headers"]}
    assert sent and all(got[name] == value for name, value in sent)


@pytest.mark.parametrize(
    "arguments",
    [["-c", "0"], ["-c", "0", "-c", "8000"], ["--encoder-header-table-size=0"], ["-b", "255"],
     ["-w", "10"], ["-W", "30", "-w", "30"], ["--no-rfc7540-pri"], ["--no-dep"]],
    ids=["no table", "table shrinks", "no encoder", "padding", "small window", "large window",
         "no priorities", "no dependencies"],
)  # fmt: skip
def test_settings_of_the_client(site: Site, arguments: list[str]) -> None:
    """A hundred times the same request on one connection, however the client is set."""
    done = site.nghttp("/style.css", "-ns", "-m", "100", *arguments)
    assert len(re.findall(r" 200 +9 /style\.css$", done.text, re.MULTILINE)) == 100, done.text
    assert site.asked() == ["/style.css"] * 100


def test_field_names_in_any_case_and_values_with_anything(site: Site) -> None:
    done = site.nghttp("/style.css", "-v", "-H", "priority: u=1, i", "-H", "X-Odd: \t~'\"(,)")
    assert "recv (stream_id=13) :status: 200" in shown(done), done.text
    headers = dict(site.app.scopes[0]["headers"])
    assert (headers[b"priority"], headers[b"x-odd"]) == (b"u=1, i", b"~'\"(,)")
