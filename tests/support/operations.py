"""What an operator has in hand, for tests: an application to look through, clients, systemd's ear.

`serving` starts a server as `tests.support.workers` does, with an environment and a folder of its
own. `ask` and `Client` know Unix sockets and TLS. `Notified` is the socket that systemd listens on.
Nothing here waits by the clock: everything is seen in the log, on a socket, or by a process's end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.workers import PATIENCE, Server, starting

APP = """
import asyncio, json, os

CODE = "first"

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/events":
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"data: hello\\n\\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if scope["path"] == "/hang":
        # the loop stands still until somebody lets it go
        print("the loop stands still", flush=True)
        with open(scope["query_string"].decode()) as gate:
            gate.read()
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if more and body:
            print("the request is here", flush=True)
    facts = {"code": CODE, "pid": os.getpid(), "parent": os.getppid(), "body": body.decode(),
             "home": os.environ.get("HOME"), "umask": umask(), "here": os.getcwd()}
    head = [(b"worker", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": json.dumps(facts).encode()})

def umask():
    value = os.umask(0)
    os.umask(value)
    return value
"""


def write_app(folder: Path, code: str = "first", *, before: str = "") -> Path:
    """`tide.py`, whose answers hold `code`; `before` is run when it is imported."""
    path = folder / "tide.py"
    save(path, before + APP.replace('"first"', repr(code)))
    return path


def save(path: Path, text: str) -> None:
    """Whole, as an editor does: who watches may see a file that is empty yet, otherwise."""
    draft = path.with_name(".draft")
    draft.write_text(text)
    draft.replace(path)


# -- the server ------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(
    folder: Path,
    *options: str | Path,
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    ready: str = r"Listening on ",
) -> Iterator[Server]:
    """A server of `folder`'s tide.py, which is written if there is none, as a shell starts it there.

    The log holds `ready` by now.
    """
    if not (folder / "tide.py").exists():
        write_app(folder)
    told = [f"{name}={value}" for name, value in {"PWD": str(folder), **(env or {})}.items()]
    with starting(
        folder, "", *options, target="tide:app", wrapper=("env", *told, *wrapper)
    ) as server:
        if ready:
            server.expect_line(ready)
        yield server


def exit_code(server: Server) -> int:
    """At its end. `wait` would wait for the end of its output too, which a successor shares."""
    return server._process.wait(PATIENCE)


def status(pid: int) -> dict[str, str]:
    """/proc/<pid>/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# -- clients ---------------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the application tells of itself."""
        told: dict[str, Any] = json.loads(self.text)
        return told


def connect(where: int | str | Path) -> socket.socket:
    """A connection to a port of 127.0.0.1, or to a Unix socket."""
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where), PATIENCE)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(str(where))
    except BaseException:
        sock.close()
        raise
    return sock


class Client(http.client.HTTPConnection):
    """A connection that stays open, on TCP or a Unix socket."""

    def __init__(self, where: int | str | Path, tls: ssl.SSLContext | None = None) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._where = where
        self._tls = tls

    def connect(self) -> None:
        self.sock = connect(self._where)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname="localhost")

    def ask(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        self.request(method, path, headers=headers)
        got = self.getresponse()
        return Answer(got.status, dict(got.getheaders()), got.read().decode())

    def begin(self) -> None:
        """A request of two bytes, of which the second is kept back until `finish`."""
        self.putrequest("POST", "/")
        self.putheader("Content-Length", "2")
        self.endheaders(b"a")

    def finish(self) -> Answer:
        self.send(b"b")
        got = self.getresponse()
        return Answer(got.status, dict(got.getheaders()), got.read().decode())


def ask(
    where: int | str | Path,
    path: str = "/",
    method: str = "GET",
    *,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request on a connection of its own."""
    with contextlib.closing(Client(where, tls)) as client:
        return client.ask(path, method, Connection="close")


# -- systemd ---------------------------------------------------------------------------------------


class Notified:
    """A service manager that listens. A message is the tuple of its lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[tuple[str, ...]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.settimeout(PATIENCE)

    def expect(self, line: str) -> tuple[str, ...]:
        """The next message with a line that begins so; all up to it are in `messages`."""
        while True:
            try:
                data = self._sock.recv(4096)
            except TimeoutError:
                raise AssertionError(f"{line!r} never came, only {self.messages}") from None
            message = tuple(data.decode().split("\n"))
            self.messages.append(message)
            if any(one.startswith(line) for one in message):
                return message

    def comes_within(self, seconds: float) -> bool:
        """Whether a message comes before so much time is over."""
        return bool(select.select([self._sock], [], [], seconds)[0])

    def drain(self) -> list[tuple[str, ...]]:
        """What has come and was not waited for."""
        self._sock.setblocking(False)
        came: list[tuple[str, ...]] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                came.append(tuple(self._sock.recv(4096).decode().split("\n")))
        self._sock.settimeout(PATIENCE)
        self.messages += came
        return came

    def close(self) -> None:
        self._sock.close()
