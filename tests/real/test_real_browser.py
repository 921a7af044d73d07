"""Chromium on the demo page: its live figures move, and an upload and a download come through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from examples.demo.application import Demo
from tests.support.programs import free_port, need
from tests.support.serve import serve

pytestmark = pytest.mark.real

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000  # milliseconds; a browser on a busy machine takes its time


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a real browser; whatever it complained about fails the test."""
    path = need("chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.problems = problems
        yield page
        browser.close()
        assert not problems


def expect(page: Any, selector: str) -> Any:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(page.locator(selector))


def test_the_demo_page_is_alive(page: Any) -> None:
    with serve(Demo()) as server:
        page.goto(f"{server.url}/")
        expect(page, "#state-text").to_have_text("live over server-sent events")
        expect(page, "#number").to_have_text("3")  # so ticks come one by one, not in one lump
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
        expect(page, "#number").to_have_text("2")
    with serve(Demo(), port=port):
        expect(page, "#reconnects").to_have_text("1")
        expect(page, "#number").to_have_text(re.compile(r"^([4-9]|\d\d+)$"))
        page.goto("about:blank")
