"""What the behaviour suite speaks to a server with: one small client interface for every HTTP version.

`Http` is a version: how to connect, and as data whatever differs between versions. A test begins a
`Call` on a `Client` and reads an `Answer`; it never asks which version it runs on. A WebSocket is
begun by `knock`, and goes on as a `SocketClient`. HTTP/1.1 is here; a new version is a new `Http` with
its `Client` in a file of its own, and a member of `VERSIONS` in tests/behaviour/conftest.py.
"""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import contextlib
import logging
import select
import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, ClassVar

from tests.support.raw import RawClient, RawResponse, ResponseError
from tests.support.serve import Running, serve
from tests.support.socket_client import ACCEPT, SocketClient, Stream, handshake

PATIENCE = 10.0  # seconds until a test that waits in vain fails
AUTHORITY = b"example.com"

Pairs = list[tuple[bytes, bytes]]


class IncompleteError(Exception):
    """The answer did not come to its proper end; `partial` is what came of its body."""

    def __init__(self, why: str, partial: bytes = b"") -> None:
        super().__init__(why)
        self.partial = partial


@dataclass(slots=True)
class Answer:
    status: int
    headers: Pairs  # names lower-cased, order and repetition kept
    body: bytes = b""
    trailers: Pairs = field(default_factory=list)
    informational: list[tuple[int, Pairs]] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)  # of the headers, as they came

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    def own(self) -> Pairs:
        """The headers without those that servers add by themselves."""
        added = {b"date", b"server", b"content-length", b"transfer-encoding", b"connection"}
        return [pair for pair in self.headers if pair[0] not in added]


class Call(abc.ABC):
    """One request under way."""

    @abc.abstractmethod
    def send_body(self, data: bytes, end: bool = False) -> None:
        """The next piece of a body that was begun with `body=None`."""

    @abc.abstractmethod
    def read_informational(self) -> tuple[int, Pairs]:
        """The next 1xx answer."""

    @abc.abstractmethod
    def read_until(self, mark: bytes) -> None:
        """Wait until these bytes of the body have arrived; the answer can still be read whole."""

    @abc.abstractmethod
    def read(self) -> Answer:
        """The whole answer; IncompleteError where it has no proper end."""

    @abc.abstractmethod
    def leave(self) -> None:
        """Give the request up: the server shall learn that nobody waits any more."""


class Client(abc.ABC):
    """One connection."""

    @abc.abstractmethod
    def begin(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes | None = b"",
        *,
        old: bool = False,
    ) -> Call:
        """Send a request. `body=None`: it follows by `send_body`. `old`: by the older version."""

    def request(self, *request: Any, **more: Any) -> Answer:
        return self.begin(*request, **more).read()

    @abc.abstractmethod
    def knock(
        self, path: str = "/", headers: Iterable[tuple[bytes, bytes]] = (), version: bytes = b"13"
    ) -> Stream:
        """Send a WebSocket's handshake; its answer, and what follows, are read from the stream."""

    @abc.abstractmethod
    def silent(self) -> bool:
        """Whether nothing has come that was not read."""

    @abc.abstractmethod
    def wait_closed(self) -> None:
        """Wait until the server has ended the connection."""

    @abc.abstractmethod
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Transport:
    """What a connection runs over, and what the server must be told for it."""

    name: str = "tcp"
    options: dict[str, Any] = field(default_factory=dict)
    context: ssl.SSLContext | None = None

    @property
    def scheme(self) -> str:
        return "http" if self.context is None else "https"


TCP = Transport()


class Log(logging.Handler):
    """What the server logged, to be waited for."""

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self.kept: list[logging.LogRecord] = []
        self._news = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._news:
            self.kept.append(record)
            self._news.notify_all()

    def expect(self, text: str) -> logging.LogRecord:
        """Wait for a record whose message holds a text."""

        def found() -> logging.LogRecord | None:
            return next((one for one in self.kept if text in one.getMessage()), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None, PATIENCE)
            record = found()
        assert record is not None, f"{text!r} was not logged, but {self.lines(logging.DEBUG)}"
        return record

    def lines(self, level: int = logging.WARNING) -> list[str]:
        return [record.getMessage() for record in self.kept if record.levelno >= level]


@dataclass(slots=True)
class Site:
    """A served application."""

    http: Http
    server: Running
    transport: Transport
    log: Log
    _open: contextlib.ExitStack
    stopping: bool = False

    def client(self) -> Client:
        """A new connection, closed with the site."""
        address = self.server.path or self.server.address
        client = self.http.connect(address, self.transport.context)
        self._open.callback(client.close)
        return client

    def clients(self, count: int) -> list[Client]:
        """Clients that can each have a request under way at once; on one connection if it can."""
        if self.http.many_at_once:
            return [self.client()] * count
        return [self.client() for _ in range(count)]

    def request(self, *request: Any, **more: Any) -> Answer:
        """One request on a connection of its own."""
        client = self.client()
        try:
            return client.request(*request, **more)
        finally:
            client.close()

    def begin_stop(self) -> None:
        """Ask the server to stop, and do not wait."""
        self.stopping = True
        self.server.call(self.server.server.stop)

    def wait_ended(self) -> None:
        """Wait until a server that was asked to stop has."""
        thread = self.server._thread
        assert thread is not None
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server did not stop"


class Http(abc.ABC):
    """One version of HTTP, and what differs between versions, as data."""

    name: ClassVar[str]
    version: ClassVar[str]  # as the scope names it
    alpn: ClassVar[str]
    old_version: ClassVar[str | None] = None  # what `old=True` speaks
    many_at_once: ClassVar[bool]  # several requests at a time on one connection
    supports_trailers: ClassVar[bool] = True
    supports_early_hints: ClassVar[bool] = True
    supports_continue: ClassVar[bool] = True
    keeps_name_case: ClassVar[bool]  # a response header's name arrives as the application wrote it
    joins_cookies: ClassVar[bool]  # Cookie fields that arrive split reach the application as one
    host_comes_first: ClassVar[bool]  # because it is the :authority
    failure_ends_connection: ClassVar[bool]  # an answer cut short takes the connection with it
    socket_status: ClassVar[int]  # of a handshake that succeeds
    socket_fields: ClassVar[dict[bytes, list[bytes]]]  # its answer's, where versions differ

    @abc.abstractmethod
    def connect(self, address: tuple[str, int] | str, context: ssl.SSLContext | None) -> Client: ...

    @contextlib.contextmanager
    def knocking(
        self,
        server: Running,
        path: str = "/",
        headers: Iterable[tuple[bytes, bytes]] = (),
        version: bytes = b"13",
    ) -> Iterator[Stream]:
        """A WebSocket's handshake is sent on a connection of its own, and nothing is read."""
        client = self.connect(server.path or server.address, None)
        with contextlib.closing(client):
            yield client.knock(path, headers, version)

    @contextlib.contextmanager
    def connected(
        self, server: Running, path: str = "/", headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> Iterator[SocketClient]:
        """A WebSocket on a connection of its own, after the head of the handshake's answer."""
        with self.knocking(server, path, headers) as stream:
            yield SocketClient(stream, stream.read_head())

    @contextlib.contextmanager
    def serve(self, app: Any, transport: Transport = TCP, **options: Any) -> Iterator[Site]:
        """Serve `app`; without lifespan where the test does not ask for it."""
        options = {"lifespan": "off", **transport.options, **options}
        log = Log()
        logger = logging.getLogger("tidegate")
        logger.addHandler(log)
        try:
            with serve(app, **options) as server:
                with contextlib.ExitStack() as stack:
                    site = Site(self, server, transport, log, stack)
                    yield site
                if site.stopping:
                    site.wait_ended()
        finally:
            logger.removeHandler(log)


# ---------------------------------------------------------------------------------------- HTTP/1.1


class TlsRawClient(RawClient):
    """The raw client over TLS, for what ALPN agrees on; an end without close_notify raises."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, alpn: str) -> None:
        super().__init__(address, PATIENCE)
        context.set_alpn_protocols([alpn])  # each time: versions share the context
        self.socket = context.wrap_socket(
            self.socket, server_hostname=address[0], suppress_ragged_eofs=False
        )
        assert self.socket.selected_alpn_protocol() == alpn


class H1Call(Call):
    def __init__(self, raw: RawClient, method: str, chunked: bool) -> None:
        self._raw = raw
        self._method = method
        self._chunked = chunked
        self._informational: list[tuple[int, Pairs]] = []

    def send_body(self, data: bytes, end: bool = False) -> None:
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._chunked and end:
            data += b"0\r\n\r\n"
        self._raw.send(data)

    def read_informational(self) -> tuple[int, Pairs]:
        head = self._raw.read_head()
        assert head.status < 200, f"not informational: {head}"
        self._informational.append((head.status, head.headers))
        return self._informational[-1]

    def read_until(self, mark: bytes) -> None:
        self._raw.read_until(mark)

    def read(self) -> Answer:
        try:
            found = self._raw.read_response(self._method)
        except ResponseError as error:
            raise IncompleteError(str(error), error.partial) from error
        except (ConnectionError, ssl.SSLError) as error:
            raise IncompleteError(str(error)) from error
        informational = self._informational + [
            (one.status, one.headers) for one in found.informational
        ]
        return Answer(
            found.status,
            found.headers,
            found.body,
            found.trailers,
            informational,
            self._names(found),
        )

    def _names(self, found: RawResponse) -> list[bytes]:
        """The raw client lower-cases names: look at what came."""
        came = bytes(self._raw.received)
        head = came[came.rindex(b"HTTP/1.1 %d " % found.status) :].partition(b"\r\n\r\n")[0]
        return [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]

    def leave(self) -> None:
        self._raw.socket.close()


class H1Client(Client):
    def __init__(self, raw: RawClient) -> None:
        self._raw = raw

    def begin(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes | None = b"",
        *,
        old: bool = False,
    ) -> Call:
        fields = [(b"Host", AUTHORITY), *headers]
        told = any(name.lower() == b"content-length" for name, _ in fields)
        if body is None and not told:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif body and not told:
            fields.append((b"Content-Length", b"%d" % len(body)))
        version = "1.0" if old else "1.1"
        line = f"{method} {target} HTTP/{version}\r\n".encode("latin-1")
        block = b"".join(b"%b: %b\r\n" % pair for pair in fields)
        self._raw.send(line + block + b"\r\n" + (body or b""))
        return H1Call(self._raw, method, chunked=body is None and not told)

    def knock(
        self, path: str = "/", headers: Iterable[tuple[bytes, bytes]] = (), version: bytes = b"13"
    ) -> RawClient:
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        self._raw.send(handshake(path, lines, version))
        return self._raw

    def silent(self) -> bool:
        return not self._raw.unread and not select.select([self._raw.socket], [], [], 0)[0]

    def wait_closed(self) -> None:
        try:
            self._raw.read_eof()
        except (ConnectionError, ssl.SSLError):
            pass  # a reset ends it too

    def close(self) -> None:
        self._raw.socket.close()


class H1(Http):
    name = "h1"
    version = "1.1"
    alpn = "http/1.1"
    old_version = "1.0"
    many_at_once = False
    keeps_name_case = True
    joins_cookies = False
    host_comes_first = False
    failure_ends_connection = True
    socket_status = 101
    socket_fields: ClassVar = {
        b"sec-websocket-accept": [ACCEPT],
        b"upgrade": [b"websocket"],
        b"connection": [b"upgrade"],
    }

    def connect(self, address: tuple[str, int] | str, context: ssl.SSLContext | None) -> Client:
        if context is None:
            return H1Client(RawClient(address, PATIENCE))
        assert isinstance(address, tuple)
        return H1Client(TlsRawClient(address, context, self.alpn))


# ------------------------------------------------------------------- between a test and its application


class Gate:
    """Opened on one side, waited for on the other: the test's thread or the server's loop."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[None] = concurrent.futures.Future()

    def open(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> None:
        """In the test's thread."""
        self._future.result(PATIENCE)

    async def passed(self) -> None:
        """In the server's loop; shielded, so that being cancelled closes nothing."""
        await asyncio.shield(asyncio.wrap_future(self._future))


class News(SimpleQueue[Any]):
    """What the application tells the test, in order."""

    def next(self) -> Any:
        return self.get(timeout=PATIENCE)


async def turns(count: int = 50) -> None:
    """Let everything else in this loop have its turn, several times."""
    for _ in range(count):
        await asyncio.sleep(0)
