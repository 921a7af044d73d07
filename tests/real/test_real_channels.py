"""The chat of Django Channels: in one process, and in two with a real Redis between them.

What must not be seen is waited for without a clock: whoever is in another room says something
itself, and that is the first thing it hears.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.browser import browsers, expect
from tests.support.chat import FILES
from tests.support.programs import (
    REPOSITORY,
    Running,
    free_port,
    need,
    running,
    short_folder,
    wait_for_port,
)
from tests.support.projects import write
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

pytestmark = pytest.mark.real

pytest.importorskip("channels")


_names = itertools.count(1)


@dataclass(frozen=True)
class Chat:
    """The processes that serve it, one or two, and where they listen."""

    programs: list[Running]
    ports: list[int]

    def page(self, number: int, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[number]}/{path}/"

    def members(self, room: str) -> int:
        """How many channels are in a room's group."""
        return int(httpx.get(self.page(0, f"members/{room}"), trust_env=False).text)

    @contextlib.contextmanager
    def enter(self, number: int, path: str, **headers: str) -> Iterator[ClientConnection]:
        """Somebody in a room, who has heard of their own coming by now. At the end the consumer is
        over: a read of Redis that is cancelled may take the next one's message with it."""
        port, name = self.ports[number], f"{path}/?{next(_names)}"
        headers = {"Origin": f"http://127.0.0.1:{port}", **headers}
        url = f"ws://127.0.0.1:{port}/{name}"
        with connect(url, additional_headers=headers, proxy=None) as client:
            assert heard(client).endswith(" came")
            yield client
        self.programs[number].expect(f"over: /{name};")


def say(client: ClientConnection, line: str) -> None:
    client.send(json.dumps({"line": line}))


def heard(client: ClientConnection) -> str:
    line = json.loads(client.recv(30))["line"]
    assert isinstance(line, str)
    return line


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A Redis of our own, on a Unix socket, that keeps nothing."""
    program = need("redis-server")
    with short_folder() as folder:
        path = folder / "redis.sock"
        options = ["--port", "0", "--save", "", "--appendonly", "no", "--dir", folder]
        with running(program, "--unixsocket", path, *options) as process:
            process.expect("eady to accept connections")
            yield f"unix://{path}"


@contextlib.contextmanager
def serving(layer: str, folder: Path) -> Iterator[Chat]:
    """One Tidegate with the layer in memory, two with Redis; the command is what a user types."""
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
        if layer == "redis":
            pytest.importorskip("channels_redis")
            url = stack.enter_context(redis())
            settings = {
                "BACKEND": "channels_redis.core.RedisChannelLayer",
                # redis-py 8 gives up a read after 5 s, which is how long the layer waits for a message
                "CONFIG": {"hosts": [{"address": url, "socket_timeout": None}]},
            }
        write(folder, FILES)
        env = {
            "PYTHONPATH": str(REPOSITORY / "src"),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "quay.settings",
            "QUAY_LAYERS": json.dumps({"default": settings}),
        }
        migrate = ["-m", "django", "migrate", "-v0", "--pythonpath", str(folder)]
        with running(sys.executable, *migrate, env=env, cwd=folder) as migrating:
            assert migrating.wait() == 0, migrating.output
        chat = Chat([], [])
        for _ in range(2 if layer == "redis" else 1):
            port = free_port()
            command = [sys.executable, "-m", "tidegate", "quay.asgi", "--port", str(port)]
            chat.programs.append(stack.enter_context(running(*command, cwd=folder, env=env)))
            chat.ports.append(port)
        for port, program in zip(chat.ports, chat.programs, strict=True):
            wait_for_port(port, program)
        yield chat


@pytest.fixture(scope="module", params=["memory", "redis"])
def chat(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Chat]:
    with serving(request.param, tmp_path_factory.mktemp("quay")) as chat:
        yield chat
        for program in chat.programs:
            assert "Traceback" not in program.output, program.output


@pytest.mark.parametrize("kinds", [("async", "async"), ("async", "sync"), ("sync", "sync")])
def test_two_talk_and_a_third_in_another_room_hears_nothing(
    chat: Chat, kinds: tuple[str, str]
) -> None:
    rooms = [f"{kind}/{'-'.join(kinds)}" for kind in kinds]
    with (
        chat.enter(0, f"{rooms[0]}-elsewhere") as stranger,
        chat.enter(0, rooms[0]) as one,
        chat.enter(-1, rooms[1]) as other,
    ):
        assert heard(one) == "somebody came"
        say(one, "Ist da wer? ⚓")
        assert heard(one) == heard(other) == "somebody said Ist da wer? ⚓"
        say(other, "aye " * 10_000)
        assert heard(one) == heard(other) == "somebody said " + "aye " * 10_000
        say(stranger, "alone")
        assert heard(stranger) == "somebody said alone"


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_who_vanishes_has_left_the_room(chat: Chat, kind: str) -> None:
    """No close is said: the line is cut, and the consumer's disconnect runs."""
    with chat.enter(-1, f"async/cut-{kind}") as stays:
        with chat.enter(0, f"{kind}/cut-{kind}") as goes:
            assert heard(stays) == "somebody came"
            assert chat.members(f"cut-{kind}") == 2
            goes.socket.shutdown(socket.SHUT_RDWR)
            assert heard(stays) == "somebody left"
        assert chat.members(f"cut-{kind}") == 1
        say(stays, "and nobody is listening")
        assert heard(stays) == "somebody said and nobody is listening"


def test_many_at_once(chat: Chat) -> None:
    """Twenty in a room, in both kinds of consumer: all hear all, in one order per speaker."""
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(
                chat.enter(number % 2 - 1, f"{('async', 'sync')[number % 2]}/crowd")
            )
            for number in range(20)
        ]
        for number, client in enumerate(crowd):
            for _ in crowd[number + 1 :]:
                assert heard(client) == "somebody came"
        for line in range(5):
            say(crowd[0], f"a{line}")
            say(crowd[-1], f"b{line}")
        for client in crowd:
            lines = [heard(client).removeprefix("somebody said ") for _ in range(10)]
            for speaker in "ab":
                said = [line for line in lines if line.startswith(speaker)]
                assert said == [f"{speaker}{line}" for line in range(5)]


def test_the_session_tells_who_it_is(chat: Chat) -> None:
    """A login over HTTP, its cookie in the handshake, the user in the consumer's scope."""
    with httpx.Client(trust_env=False) as client:
        client.get(f"http://127.0.0.1:{chat.ports[0]}/come-aboard/ahab").raise_for_status()
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    with chat.enter(-1, "sync/cabin", Cookie=cookie) as captain:
        say(captain, "steady")
        assert heard(captain) == "ahab said steady"


@pytest.mark.parametrize("path", ["async/yard", "nowhere/at-all"])
def test_what_is_refused(chat: Chat, path: str) -> None:
    """A page of somebody else's: 403, by Channels' own check of the Origin."""
    url = f"ws://127.0.0.1:{chat.ports[0]}/{path}/"
    with pytest.raises(InvalidStatus) as caught:
        connect(url, additional_headers={"Origin": "http://elsewhere.test"}, proxy=None)
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("layer", ["memory", "redis"])
def test_at_the_end_all_are_told_and_leave(layer: str, tmp_path: Path) -> None:
    """SIGTERM: 1012 for the clients; the consumers' disconnect runs, and reaches the others."""
    with serving(layer, tmp_path) as chat, chat.enter(-1, "async/pier") as stays:
        with chat.enter(0, "async/pier") as one, chat.enter(0, "sync/pier") as other:
            assert [heard(stays), heard(stays)] == ["somebody came"] * 2
            assert heard(one) == "somebody came"
            chat.programs[0].signal(signal.SIGTERM)
            for client in (one, other):
                with pytest.raises(ConnectionClosed) as caught:
                    deque(client, 0)  # who left before it may be told first
                assert caught.value.rcvd and caught.value.rcvd.code == 1012
        assert chat.programs[0].wait() == 0, chat.programs[0].output
        assert "Traceback" not in chat.programs[0].output, chat.programs[0].output
        if layer == "redis":
            assert [heard(stays), heard(stays)] == ["somebody left"] * 2
            say(stays, "just me")
            assert heard(stays) == "somebody said just me"


def test_two_browsers_talk(chat: Chat) -> None:
    """Each types, the other sees it; a page in another room sees only its own; a tab is closed."""
    with browsers() as starter:
        first, second = starter.start(), starter.start()
        stranger = starter.open(second, chat.page(0, "async/attic"))
        expect(stranger, "#log").to_have_text("somebody came")
        one = starter.open(first, chat.page(0, "async/parlour"))
        expect(one, "#log").to_have_text("somebody came")
        other = starter.open(second, chat.page(-1, "sync/parlour"))
        expect(other, "#log li").to_have_text(["somebody came"])
        expect(one, "#log li").to_have_text(["somebody came"] * 2)

        one.fill("#line", "Ahoi <b>there</b>")
        one.click("button")
        expect(other, "#log li:last-child").to_have_text("somebody said Ahoi <b>there</b>")
        other.fill("#line", "und zurück")
        other.press("#line", "Enter")
        expect(one, "#log li:last-child").to_have_text("somebody said und zurück")
        expect(other, "#log li").to_have_count(3)
        stranger.fill("#line", "nobody here")
        stranger.click("button")
        expect(stranger, "#log li").to_have_text(["somebody came", "somebody said nobody here"])

        other.close()
        expect(one, "#log li:last-child").to_have_text("somebody left")
        assert chat.members("parlour") == 1
        one.fill("#line", "gone")
        one.click("button")
        expect(one, "#log li:last-child").to_have_text("somebody said gone")
        expect(one, "#end").to_be_empty()
        one.close()
        stranger.close()
    for number, path in ((0, "async/attic"), (0, "async/parlour"), (-1, "sync/parlour")):
        chat.programs[number].expect(f"over: /{path}/?;")


def test_a_browser_is_told_at_the_end(tmp_path: Path) -> None:
    with serving("memory", tmp_path) as chat, browsers() as starter:
        page = starter.open(starter.start(), chat.page(0, "async/pier"))
        expect(page, "#log").to_have_text("somebody came")
        chat.programs[0].signal(signal.SIGTERM)
        expect(page, "#end").to_have_text("1012 true")
        assert chat.programs[0].wait() == 0, chat.programs[0].output
