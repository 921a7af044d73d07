"""A Tidegate with workers for the tests: started by its command line, told by signals, read in its log.

    with serving(tmp_path, APP, "--workers", "2") as server:
        first, second = server.pids
        server.signal(signal.SIGHUP)
        server.expect_line(r"Worker (\\d+) is ready", times=2)

Nothing here sleeps: a wait is for a line of the log, for the end of a process (pidfd), for an answer.
The server leads a process group of its own, which is what a terminal's Ctrl+C is sent to; whoever
of the group is left at the end of the block is killed.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.programs import REPOSITORY, Running, free_port

PATIENCE = 30.0

# Answers with its process in the field `worker`. What a path does stands below.
APP = """
import asyncio, ctypes, os, signal, sys, threading, time

def say(text):  # in one piece: several processes write to the same pipe
    os.write(1, f"{os.getpid()} {text}\\n".encode())

def fetch_the_report():
    threading.Event().wait(600)

def decode_the_picture():
    ctypes.string_at(0)

async def answer(send, body=b"ok"):
    fields = [(b"worker", str(os.getpid()).encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})

async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    path = scope["path"]
    if path == "/hang":
        say("hangs now")
        fetch_the_report()
    elif path == "/crash":
        decode_the_picture()
    elif path == "/exit":
        os._exit(int(scope["query_string"]))
    elif path == "/kill":
        os.kill(os.getpid(), int(scope["query_string"]))
    elif path == "/forever":
        say(f"has {path}")
        await asyncio.Event().wait()
    elif path == "/upload":  # the client says when it is over
        say(f"has {path}")
        while (await receive()).get("more_body"):
            pass
    elif path == "/grow":
        app.kept = b"x" * (int(scope["query_string"]) << 20)
    await answer(send)
"""


class Answer(NamedTuple):
    status: int
    worker: int
    body: bytes
    closes: bool


class Client:
    """One keep-alive connection to a server; it does not open another by itself."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._http.connect()
        self._http.auto_open = 0

    def ask(self, path: str = "/") -> Answer:
        self._http.request("GET", path)
        return self.read()

    def begin(self, path: str, body: bytes = b"") -> None:
        """Ask with a body of so many bytes, and keep the last of them back; see `finish`."""
        assert self._http.sock is not None
        head = f"POST {path} HTTP/1.1\r\nHost: tide.test\r\nContent-Length: {len(body) + 1}\r\n\r\n"
        self._http.sock.sendall(head.encode() + body)

    def finish(self) -> Answer:
        assert self._http.sock is not None
        self._http.sock.sendall(b".")
        answer = http.client.HTTPResponse(self._http.sock, method="POST")
        answer.begin()
        taken = self._taken(answer)
        if taken.closes:
            self.close()  # the server waits for that, a while
        return taken

    def read(self) -> Answer:
        return self._taken(self._http.getresponse())

    def _taken(self, answer: http.client.HTTPResponse) -> Answer:
        closes = answer.getheader("connection", "").lower() == "close"
        worker = int(answer.getheader("worker", "0"))
        return Answer(answer.status, worker, answer.read(), closes)

    def hangs_up(self) -> bool:
        """Wait until the server closes."""
        sock = self._http.sock
        if sock is None:
            return True
        try:
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def spread(port: int, connections: int, *, burst: bool) -> Counter[int]:
    """Which worker has how many of so many connections, opened at once or one by one."""
    with contextlib.ExitStack() as open_ones:

        def connect() -> Client:
            return open_ones.enter_context(Client(port))

        if burst:
            clients = [connect() for _ in range(connections)]
            return Counter(client.ask().worker for client in clients)
        return Counter(connect().ask().worker for _ in range(connections))


class Server(Running):
    """The program that was started: the supervisor, or the one process that serves."""

    port = 0

    @property
    def pids(self) -> list[int]:
        """The workers of the start, by the log."""
        found = self.expect_line(r"\d+ workers?: ([\d, ]+)")[0]
        return [int(pid) for pid in found.split(",")]

    def expect_line(self, pattern: str, *, times: int = 1, after: int = 0) -> list[str]:
        """Wait until the pattern has matched so often in the output; its first groups.

        `after` leaves out so much of the beginning of the output; see `mark`.
        """
        compiled = re.compile(pattern, re.MULTILINE)

        def found() -> list[str]:
            matches = compiled.finditer("".join(self._lines)[after:])
            return [match[1] if compiled.groups else match[0] for match in matches]

        with self._news:
            self._news.wait_for(lambda: len(found()) >= times or self._ended, PATIENCE)
            matches = found()
        said = f"{pattern!r} came {len(matches)} times, not {times}. The output:\n{self.output}"
        assert len(matches) >= times, said
        return matches

    def mark(self) -> int:
        return len(self.output)

    def lines(self, pattern: str) -> list[str]:
        """Those of the output that match, by now."""
        return [line for line in self.output.splitlines() if re.search(pattern, line)]

    def client(self) -> Client:
        return Client(self.port)

    def ask(self, path: str = "/") -> Answer:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.ask(path)

    def client_of(self, worker: int) -> Client:
        """A connection that a certain worker has accepted."""
        others = []
        try:
            for _ in range(200):
                client = self.client()
                if client.ask().worker == worker:
                    return client
                others.append(client)
            raise AssertionError(f"worker {worker} accepts nothing. The output:\n{self.output}")
        finally:
            for client in others:
                client.close()

    def signal_group(self, number: int) -> None:
        """As a terminal sends it: to the server and all its children."""
        os.killpg(self.pid, number)

    def kill_all(self) -> None:
        """End the whole group, whoever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.end()

    def children(self, of: int | None = None) -> list[int]:
        """The processes whose parent this is, by /proc."""
        return children(self.pid if of is None else of)

    def descendants(self) -> list[int]:
        """Its children and theirs."""
        direct = self.children()
        return sorted(direct + [pid for child in direct for pid in children(child)])


def children(pid: int) -> list[int]:
    """The children of a process that have not ended."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.append(int(entry))
    return sorted(found)


def wait_for_end(*pids: int, timeout: float = PATIENCE) -> None:
    """Wait until the processes have ended; they need not be our children."""
    for pid in pids:
        try:
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ended, _, _ = select.select([watched], [], [], timeout)
        finally:
            os.close(watched)
        assert ended, f"process {pid} does not end"


def is_free(port: int) -> bool:
    """Whether a server could be started on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


@contextlib.contextmanager
def starting(folder: Path, source: str, *options: str | Path, target: str = "app:app",
             wrapper: Sequence[str] = ()) -> Iterator[Server]:  # fmt: skip
    """A server that has just been started with this application, ready or not."""
    (folder / "app.py").write_text(source)
    port = free_port()
    command = [*wrapper, sys.executable, "-m", "tidegate", target, "--port", str(port),
               "--no-access-log", *map(str, options)]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY / "src"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # a file that is written twice in a second is read twice
        "NO_COLOR": "1",
    }
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    server = Server(process)
    server.port = port
    try:
        yield server
    finally:
        server.kill_all()


@contextlib.contextmanager
def serving(folder: Path, source: str, *options: str | Path, **more: object) -> Iterator[Server]:
    """The same, once all its workers serve."""
    with starting(folder, source, *options, **more) as server:  # type: ignore[arg-type]
        server.expect_line(r"Listening on ")
        texts = " ".join(map(str, options)) + " "
        if re.search(r"--workers (?!1 )|--supervise|--preload", texts):
            server.expect_line(r"\d+ workers?: ")
        yield server
