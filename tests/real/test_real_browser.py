"""Chromium on the demo page: its live figures move, and an upload and a download come through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from examples.demo.application import Demo
from tests.support.browser import Ticks, browsers, expect
from tests.support.programs import free_port
from tests.support.serve import serve

pytestmark = pytest.mark.real


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a real browser; whatever it complained about fails the test."""
    with browsers() as started:
        browser = started.start()
        yield started.open(browser, "about:blank")
        browser.close()


def test_the_demo_page_is_alive(page: Any) -> None:
    with serve(Demo()) as server:
        page.goto(f"{server.url}/")
        expect(page, "#state-text").to_have_text("live over server-sent events")
        Ticks(page).wait_for_more(2)
        expect(page, "#facts").to_contain_text("HTTP/1.1")
        page.click("#made")
        expect(page, "#upload-result").to_have_text(re.compile(r"^64\.0 MB in"))
        page.click("[data-size='67108864']")
        expect(page, "#download-result").to_have_text(re.compile(r"^67\.1 MB in"))
        expect(page, "#download-result").to_have_class("good")
        page.goto("about:blank")


def test_the_stream_comes_back_after_a_restart(page: Any) -> None:
    """The browser reconnects by itself, and its Last-Event-ID goes on where it was."""
    port = free_port()
    with serve(Demo(), port=port):
        page.goto(f"http://127.0.0.1:{port}/")
        ticks = Ticks(page)
        ticks.wait_for_more(2)
    with serve(Demo(), port=port):
        expect(page, "#reconnects").to_have_text("1")
        ticks.wait_for_more(2)
        page.goto("about:blank")


SOCKET_PAGE = rb"""<!doctype html><p id=said></p><script>
const socket = new WebSocket(`ws://${location.host}/socket`, ["chat"]);
socket.binaryType = "arraybuffer";
const said = [];
socket.onopen = () => { socket.send("h\u00e9llo".repeat(20000)); };
socket.onmessage = (event) => {
  if (typeof event.data === "string") {
    said.push(socket.protocol, socket.extensions !== "", event.data.length);
    socket.send(new Uint8Array([0, 255]));
  } else {
    said.push(...new Uint8Array(event.data));
    socket.close(3333, "enough");
  }
};
socket.onclose = (event) => {
  said.push(event.code, event.reason, event.wasClean);
  document.getElementById("said").textContent = said.join(" ");
};
</script>"""


@pytest.mark.parametrize("deflate", [True, False])
def test_a_page_opens_a_socket(page: Any, deflate: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", b"text/html; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": SOCKET_PAGE})
            return
        await receive()
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    with serve(app, lifespan="off", ws_per_message_deflate=deflate) as server:
        page.goto(f"{server.url}/")
        agreed = str(deflate).lower()
        expect(page, "#said").to_have_text(f"chat {agreed} 100000 0 255 3333 enough true")
        page.goto("about:blank")
