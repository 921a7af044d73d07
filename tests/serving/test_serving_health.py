"""The answers for health checks: ready only while requests are wanted, live to the end."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.serving.health import LIVE, READY, health_app


def ask(path, *, leaving=False):
    """Status, fields and body of the answer."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        raise AssertionError("nobody asks for the body")

    asyncio.run(health_app(lambda: leaving)({"type": "http", "path": path}, receive, send))
    start, body = sent
    assert start["type"] == "http.response.start"
    assert body == {"type": "http.response.body", "body": body["body"]}
    return start["status"], dict(start["headers"]), body["body"]


@pytest.mark.parametrize(
    ("path", "leaving", "status", "text"),
    [
        (READY, False, 200, b"ready\n"),
        (READY, True, 503, b"leaving\n"),
        (READY + "/", False, 200, b"ready\n"),
        (LIVE, False, 200, b"live\n"),
        (LIVE, True, 200, b"live\n"),
        (LIVE + "/", True, 200, b"live\n"),
        ("/", False, 404, b"/ready and /live are answered here\n"),
        ("/ready/x", False, 404, b"/ready and /live are answered here\n"),
        ("/READY", False, 404, b"/ready and /live are answered here\n"),
        ("", False, 404, b"/ready and /live are answered here\n"),
    ],
)
def test_answers(path, leaving, status, text):
    got, fields, body = ask(path, leaving=leaving)
    assert (got, body) == (status, text)
    assert fields == {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": b"%d" % len(text),
        b"cache-control": b"no-store",
    }


def test_it_asks_each_time():
    said = [False, True, False]
    app = health_app(lambda: said.pop(0))
    statuses = []

    async def send(message):
        if "status" in message:
            statuses.append(message["status"])

    async def main():
        for _ in range(3):
            await app({"type": "http", "path": READY}, None, send)

    asyncio.run(main())
    assert statuses == [200, 503, 200]
