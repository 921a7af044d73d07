"""Chromium for the tests, driven by Playwright; whatever a page complains about fails the test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.programs import need

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000  # milliseconds; a browser on a busy machine takes its time


class Browsers:
    """Starts browsers, each a process of its own, and opens pages in them."""

    def __init__(self, player: Any, path: str) -> None:
        self._player, self._path = player, path
        self.problems: list[str] = []

    def start(self) -> Any:
        return self._player.chromium.launch(executable_path=self._path, args=ARGUMENTS)

    def open(self, browser: Any, url: str) -> Any:
        """A page of the browser, at this address."""
        page = new_page(browser)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(url)
        return page


# Each number the page shows, in order: whoever looks now and then may miss one.
WATCH = """() => {
  const number = document.getElementById("number");
  window.ticks = [Number(number.textContent)].filter(Boolean);
  new MutationObserver(() => {
    ticks.push(Number(number.textContent));
    window.heard?.();
  }).observe(number, {childList: true, characterData: true, subtree: true});
}"""
MORE = """([count, patience]) => new Promise((yes, no) => {
  const goal = ticks.length + count;
  window.heard = () => { if (ticks.length >= goal) yes(ticks); };
  setTimeout(no, patience, new Error("the number stands still"));
})"""


class Ticks:
    """The live number of the demo page, from now on."""

    def __init__(self, page: Any) -> None:
        self._page = page
        page.evaluate(WATCH)

    def wait_for_more(self, count: int) -> None:
        """Wait for so many changes; none was left out, and none came twice."""
        seen = self._page.evaluate(MORE, [count, PATIENCE])
        assert seen == list(range(seen[0], seen[0] + len(seen))), seen


def new_page(browser: Any) -> Any:
    """A page that takes any certificate."""
    page = browser.new_page(ignore_https_errors=True)
    page.set_default_timeout(PATIENCE)
    return page


@contextlib.contextmanager
def browsers() -> Iterator[Browsers]:
    """All browsers end with the block; skips the test where there are none."""
    path = need("chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as player:
        started = Browsers(player, path)
        yield started
    assert not started.problems


def expect(page: Any, selector: str) -> Any:
    """Playwright's assertions about an element, which wait until they hold."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(page.locator(selector))
