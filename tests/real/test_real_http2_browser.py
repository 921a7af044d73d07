"""Chromium over TLS, where it speaks HTTP/2: many resources, streams both ways, a WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import trustme
from examples.demo.application import Demo
from tests.support.apps import answer, body, lifespan, start
from tests.support.browser import PATIENCE, Ticks, browsers, expect, new_page
from tests.support.programs import free_port
from tests.support.serve import Running, serve
from tests.support.tls import Files

pytestmark = pytest.mark.real

RESOURCES = 60
PAGE = b"<!doctype html><meta charset=utf-8><title>tide</title>" + b"".join(
    b"<script src='/code/%d.js'></script>" % number for number in range(RESOURCES)
)
HTML = (b"content-type", b"text/html; charset=utf-8")
SCRIPT = (b"content-type", b"text/javascript")
TEXT = (b"content-type", b"text/plain; charset=utf-8")


class Site:
    """A page with many scripts, and handlers that its own scripts are pointed at."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.told: SimpleQueue[str] = SimpleQueue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            return await self.echo(scope, receive, send)
        name = scope["path"].split("/")[1]
        if name == "code":
            line = b"window.ran = (window.ran || 0) + 1;"
            return await answer(send, 200, [SCRIPT, (b"cache-control", b"no-store")], line)
        handler = getattr(self, f"do_{name}", None)
        if handler is None:
            return await answer(send, 200 if name == "" else 404, [HTML], PAGE)
        return await handler(scope, receive, send)

    def asked(self, path: str) -> Any:
        """The scope of the one request for `path`; the browser asks for an icon when it likes."""
        (scope,) = [scope for scope in self.scopes if scope["path"] == path]
        return scope

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.told.put(f"{message['code']} {message['reason']}")

    async def do_stream(self, scope: Any, receive: Any, send: Any) -> None:
        """A piece for each request of the page, so that the page sees each before the next."""
        self.steps: asyncio.Queue[bytes | None] = asyncio.Queue()
        await send(start(headers=[TEXT]))
        await send(body(b"begun", more_body=True))
        while (piece := await self.steps.get()) is not None:
            await send(body(piece, more_body=True))
        await send(body())

    async def do_step(self, scope: Any, receive: Any, send: Any) -> None:
        self.steps.put_nowait(scope["query_string"] or None)
        await answer(send, 204)

    async def do_endless(self, scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[TEXT]))
        await send(body(b"first", more_body=True))
        await receive()
        self.told.put((await receive())["type"])

    async def do_upload(self, scope: Any, receive: Any, send: Any) -> None:
        size, total, more = 0, 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
            total += sum(message["body"])
        await answer(send, 200, [TEXT], b"%d %d" % (size, total))

    async def do_refused(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 403, [TEXT], b"no uploads here")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    own = Files(tmp_path_factory.mktemp("tls"), "own")
    own.write(trustme.CA().issue_cert("127.0.0.1", "localhost"))
    return {"ssl_certfile": own.cert, "ssl_keyfile": own.key}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsers() as started:
        browser = started.start()
        yield browser
        browser.close()


class Opened:
    """A page of the browser, the application behind it and the server between them."""

    def __init__(self, page: Any, app: Site, server: Running) -> None:
        self.page, self.app, self.server = page, app, server

    def run(self, script: str, argument: Any = None) -> Any:
        return ask(self.page, script, argument)


def ask(page: Any, script: str, argument: Any = None) -> Any:
    """What an asynchronous function of the page comes back with; fails where it waits in vain."""
    late = f"new Promise((_, no) => setTimeout(no, {PATIENCE}, new Error('nothing came')))"
    return page.evaluate(f"given => Promise.race([({script})(given), {late}])", argument)


def protocols(page: Any) -> list[str]:
    script = "performance.getEntries().filter(e => e.nextHopProtocol !== undefined)"
    return list(page.evaluate(f"{script}.map(e => e.nextHopProtocol)"))


@pytest.fixture
def opened(browser: Any, tls: dict[str, Any]) -> Iterator[Opened]:
    app = Site()
    page = new_page(browser)
    with serve(app, **tls) as server:
        page.goto(f"https://127.0.0.1:{server.port}/")
        yield Opened(page, app, server)
        assert set(protocols(page)) == {"h2"}
        assert {scope["http_version"] for scope in app.scopes} == {"2"}
        page.close()
        assert server.logged() == []


def test_many_resources_on_one_connection(opened: Opened) -> None:
    assert opened.run("() => window.ran") == RESOURCES
    seen = protocols(opened.page)
    assert len(seen) >= RESOURCES + 1 and set(seen) == {"h2"}
    served = [scope for scope in opened.app.scopes if scope["path"].startswith("/code/")]
    assert len(served) == RESOURCES
    assert len({tuple(scope["client"]) for scope in opened.app.scopes}) == 1


def test_streamed_answer_arrives_as_it_goes(opened: Opened) -> None:
    """The page asks for the next piece once it has read the one before."""
    seen = opened.run("""async () => {
        const answer = await fetch("/stream");
        const reader = answer.body.getReader();
        const read = async () => new TextDecoder().decode((await reader.read()).value);
        const pieces = [await read()];
        for (const piece of ["one", "two", "three"]) {
            await fetch("/step?" + piece);
            pieces.push(await read());
        }
        await fetch("/step");
        return [pieces, (await reader.read()).done];
    }""")
    assert seen == [["begun", "one", "two", "three"], True]


def test_aborted_fetch_reaches_the_application(opened: Opened) -> None:
    """An RST_STREAM: the stream ends alone, and its application is told."""
    opened.run("""async () => {
        const abort = new AbortController();
        const answer = await fetch("/endless", {signal: abort.signal});
        await answer.body.getReader().read();
        abort.abort();
    }""")
    assert opened.app.told.get(timeout=PATIENCE / 1000) == "http.disconnect"
    assert opened.run("async () => (await fetch('/')).status") == 200
    assert len({tuple(scope["client"]) for scope in opened.app.scopes}) == 1


UPLOAD = """async ([path, size]) => {
    const bytes = new Uint8Array(size).map((_, n) => n % 251);
    const answer = await fetch(path, {method: "POST", body: bytes});
    return [answer.status, await answer.text(), bytes.reduce((sum, each) => sum + each, 0)];
}"""


@pytest.mark.parametrize("size", [0, 1, 100_000, 20_000_000])
def test_upload(opened: Opened, size: int) -> None:
    status, text, total = opened.run(UPLOAD, ["/upload", size])
    assert (status, text) == (200, f"{size} {total}")


def test_uploads_at_once(opened: Opened) -> None:
    script = f"async sizes => Promise.all(sizes.map(size => ({UPLOAD})(['/upload', size])))"
    sizes = [n * 100_003 for n in range(20)]
    answers = opened.run(script, sizes)
    assert [one[:2] for one in answers] == [
        [200, f"{n} {one[2]}"] for n, one in zip(sizes, answers, strict=True)
    ]


def test_streamed_upload(opened: Opened) -> None:
    """A body without a length, made while it is sent: browsers do this over HTTP/2 alone."""
    seen = opened.run("""async () => {
        let left = 50;
        const stream = new ReadableStream({
            pull(sink) {
                if (left-- > 0) sink.enqueue(new Uint8Array(10000).fill(1)); else sink.close();
            },
        });
        const answer = await fetch("/upload", {method: "POST", body: stream, duplex: "half"});
        return await answer.text();
    }""")
    assert seen == "500000 500000"
    fields = dict(opened.app.asked("/upload")["headers"])
    assert b"content-length" not in fields and b"transfer-encoding" not in fields


@pytest.mark.parametrize("size", [1000, 100_000, 3_000_000])
def test_upload_that_is_refused_unread(opened: Opened, size: int) -> None:
    """The answer is what the page gets, not a broken connection."""
    assert opened.run(UPLOAD, ["/refused", size])[:2] == [403, "no uploads here"]
    assert opened.run("async () => (await fetch('/')).status") == 200


SOCKET = """async ([path, protocols]) => new Promise((done) => {
    const socket = new WebSocket(`wss://${location.host}${path}`, protocols);
    socket.binaryType = "arraybuffer";
    const said = [];
    socket.onopen = () => socket.send("h\\u00e9llo".repeat(20000));
    socket.onmessage = (event) => {
        if (typeof event.data === "string") {
            said.push(socket.protocol, event.data.length);
            socket.send(new Uint8Array(300000).fill(7));
        } else {
            said.push(event.data.byteLength, new Uint8Array(event.data)[299999]);
            socket.close(3333, "enough");
        }
    };
    socket.onclose = (event) => done([...said, event.code, event.reason, event.wasClean]);
})"""


def test_socket_is_a_stream_of_the_connection(opened: Opened) -> None:
    """RFC 8441: Chromium takes our SETTINGS_ENABLE_CONNECT_PROTOCOL at its word."""
    said = opened.run(SOCKET, ["/chat?a=b", ["chat"]])
    assert said == ["chat", 100_000, 300_000, 7, 3333, "enough", True]
    scope = opened.app.asked("/chat")
    assert (scope["type"], scope["http_version"], scope["scheme"]) == ("websocket", "2", "wss")
    assert scope["query_string"] == b"a=b"
    assert len({tuple(one["client"]) for one in opened.app.scopes}) == 1
    assert opened.app.told.get(timeout=PATIENCE / 1000) == "3333 enough"


def test_sockets_beside_requests(opened: Opened) -> None:
    script = f"""async () => Promise.all(
        [...Array(10).keys()].map((n) => n % 2
            ? ({SOCKET})(["/chat", ["chat"]])
            : ({UPLOAD})(["/upload", 500000]))
    )"""
    said = opened.run(script)
    assert [one[1] for one in said[1::2]] == [100_000] * 5
    assert {one[0] for one in said[::2]} == {200}
    assert len({tuple(one["client"]) for one in opened.app.scopes}) == 1


def test_socket_is_refused(browser: Any, tls: dict[str, Any]) -> None:
    """Where the server does not want it, the page is told; and h1 carries it without HTTP/2."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            return await answer(send, 200, [HTML], b"<!doctype html>")
        versions.append(scope["http_version"])
        await receive()
        return await send({"type": "websocket.close"})

    versions: list[str] = []
    for http2, version in ((True, "2"), (False, "1.1")):
        page = new_page(browser)
        with serve(app, lifespan="off", http2=http2, **tls) as server:
            page.goto(f"https://127.0.0.1:{server.port}/")
            assert ask(page, SOCKET, ["/", []])[-3:] == [1006, "", False]
            assert server.logged() == []
            page.close()
        assert versions.pop() == version


def test_the_demo_page_is_alive(browser: Any, tls: dict[str, Any], tmp_path: Path) -> None:
    """Its event stream, its upload and its download, all at once on a connection."""
    page = new_page(browser)
    with serve(Demo(), **tls) as server:
        page.goto(f"https://127.0.0.1:{server.port}/")
        expect(page, "#state-text").to_have_text("live over server-sent events")
        Ticks(page).wait_for_more(2)
        expect(page, "#facts").to_contain_text("HTTP/2")
        page.click("#made")
        page.click("[data-size='67108864']")
        expect(page, "#upload-result").to_contain_text("64.0 MB in")
        expect(page, "#download-result").to_contain_text("67.1 MB in")
        assert set(protocols(page)) == {"h2"}
        facts = ask(page, "async () => (await fetch('/facts')).json()")
        assert facts["scheme"] == "https", json.dumps(facts)
        page.close()
        assert server.logged() == []


def test_event_stream_comes_back_after_a_restart(browser: Any, tls: dict[str, Any]) -> None:
    """A stop ends the stream; the browser asks again, on a new connection, where it was."""
    page = new_page(browser)
    port = free_port()
    with serve(Demo(), port=port, **tls):
        page.goto(f"https://127.0.0.1:{port}/")
        ticks = Ticks(page)
        ticks.wait_for_more(2)
    with serve(Demo(), port=port, **tls):
        expect(page, "#reconnects").to_have_text("1")
        ticks.wait_for_more(2)
        assert set(protocols(page)) == {"h2"}
        page.close()
