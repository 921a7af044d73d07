"""curl over HTTP/2: with prior knowledge, by ALPN, by `Upgrade: h2c`, and over a Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from examples.demo.application import Demo
from tests.support.apps import answer, lifespan, start
from tests.support.programs import Finished, curl, curling, short_folder
from tests.support.serve import serve
from tests.support.tls import Files

pytestmark = pytest.mark.real

LARGE = 20_000_000
PIECE = bytes(range(256)) * 256  # what the demo's downloads are made of


@dataclass(frozen=True)
class Road:
    """Where a server is, and what curl has to be told to reach it over HTTP/2."""

    url: str
    arguments: tuple[str, ...]

    def curl(self, *arguments: str | Path, **options: Any) -> Finished:
        return curl(*self.arguments, *arguments, **options)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The server's options for TLS, and the file with the authority that curl has to trust."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own = Files(folder, "own").write(authority.issue_cert("127.0.0.1"))
    return {"ssl_certfile": own.cert, "ssl_keyfile": own.key}, str(folder / "ca.pem")


def only_over_http2(app: Any) -> Any:
    """Over TLS curl would be as content with HTTP/1.1; the test is not."""

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        assert scope.get("http_version", "2") == "2", scope
        await app(scope, receive, send)

    return checked


@contextlib.contextmanager
def opened(kind: str, tls: tuple[dict[str, Any], str], app: Any, **limits: Any) -> Iterator[Road]:
    """The application at the end of one kind of road; nothing on it is worth a warning."""
    with short_folder() as folder:
        path = str(folder / "sock")
        options = {"known": {}, "alpn": tls[0], "unix": {"uds": path}}[kind]
        with serve(only_over_http2(app), **options, **limits) as server:
            if kind == "known":
                yield Road(server.url, ("--http2-prior-knowledge",))
            elif kind == "alpn":
                yield Road(f"https://127.0.0.1:{server.port}", ("--http2", "--cacert", tls[1]))
            else:
                arguments = ("--http2-prior-knowledge", "--unix-socket", path)
                yield Road("http://tide.test", arguments)
            assert server.logged() == []


@pytest.fixture(scope="module", params=["known", "alpn", "unix"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def road(kind: str, tls: tuple[dict[str, Any], str]) -> Iterator[Road]:
    with opened(kind, tls, Demo()) as demo:
        yield demo


def test_get(road: Road) -> None:
    done = road.curl("-i", f"{road.url}/facts?a=b%20c")
    head, _, text = done.text.partition("\r\n\r\n")
    assert head.startswith("HTTP/2 200 \r\n"), done
    assert f"\r\ncontent-length: {len(text)}" in head
    assert head.count("\r\ndate: ") == head.count("\r\nserver: tidegate") == 1
    facts = json.loads(text)
    assert facts["protocol"] == "HTTP/2"
    assert facts["scheme"] == road.url.partition(":")[0]
    fields = [name for name, _ in facts["headers"]]
    assert fields == ["host", "user-agent", "accept"]  # nothing of the pseudo-header fields
    assert dict(facts["headers"])["host"] == road.url.partition("//")[2]


def test_head(road: Road) -> None:
    done = road.curl("--head", f"{road.url}/download?size=1000", "-w", "%{size_download}")
    assert done.text.startswith("HTTP/2 200 \r\n"), done
    assert "content-length: 1000\r\n" in done.text
    assert done.text.endswith("\r\n\r\n0")


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_upload(road: Road, method: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(bytes(LARGE))
    expect = ["-H", "Expect: 100-continue"] if method == "PUT" else []
    done = road.curl("-X", method, *expect, "-T", tmp_path / "body", f"{road.url}/upload")
    assert json.loads(done.text)["bytes"] == LARGE, done


def test_upload_of_a_pipe(road: Road) -> None:
    """No content-length, and no chunks either: the end of the stream is the end of the body."""
    done = road.curl("-v", "-T", "-", f"{road.url}/upload", input=b"w" * 700_000)
    assert json.loads(done.text)["bytes"] == 700_000, done
    assert "transfer-encoding" not in done.err.lower(), done
    assert done.err.lower().count("content-length") == 1, done  # the answer's


def test_upload_of_nothing(road: Road) -> None:
    done = road.curl("-d", "", f"{road.url}/upload")
    assert json.loads(done.text)["bytes"] == 0, done


def test_download(road: Road, tmp_path: Path) -> None:
    done = road.curl("-o", tmp_path / "got", f"{road.url}/download?size={LARGE + 1}")
    assert done.code == 0, done
    assert (tmp_path / "got").read_bytes() == (PIECE * 306)[: LARGE + 1]


def test_early_hint(road: Road) -> None:
    done = road.curl("-i", f"{road.url}/hints")
    assert done.text.startswith("HTTP/2 103 \r\nlink: </>; rel=preload; as=fetch\r\n\r\n"), done
    assert done.text.endswith('{"early_hint_sent": true}')


def test_event_stream_arrives_as_it_goes(road: Road) -> None:
    with curling(*road.arguments, "-H", "Last-Event-ID: 41", f"{road.url}/events") as stream:
        text = stream.expect("event: tick\n")
    assert text.startswith("retry: 1000\n\nid: 42\nevent: tick\n")


def test_file_by_pathsend(kind: str, tls: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    """30 MB that no application touched, compared byte by byte; and what HEAD says of it."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_001) * 10)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        size = str(source.stat().st_size).encode()
        await send(start(headers=[(b"content-length", size)]))
        return await send({"type": "http.response.pathsend", "path": str(source)})

    with opened(kind, tls, app) as road:
        done = road.curl("-o", tmp_path / "got", road.url)
        head = road.curl("--head", road.url)
    assert done.code == 0, done
    assert (tmp_path / "got").read_bytes() == source.read_bytes()
    assert "content-length: 30000010\r\n" in head.text, head


@pytest.mark.parametrize("size", [1000, 100_000, LARGE])
def test_answer_before_the_upload_is_over(
    kind: str, tls: tuple[dict[str, Any], str], size: int, tmp_path: Path
) -> None:
    """The application does not want the body: curl learns so from it, not from a broken stream."""
    (tmp_path / "body").write_bytes(bytes(size))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        return await answer(send, 403, [(b"content-length", b"2")], b"no")

    with opened(kind, tls, app) as road:
        for _ in range(5):  # small ones may be under way already, or not
            done = road.curl("-T", tmp_path / "body", "-w", " %{http_code}", road.url)
            assert (done.code, done.text) == (0, "no 403"), done


# ------------------------------------------------------------------ many on one connection

# Over TLS alone: with prior knowledge, curl before 8.0 fails at the second request on a connection.


@pytest.fixture(scope="module")
def shared(tls: tuple[dict[str, Any], str]) -> Iterator[Road]:
    with opened("alpn", tls, Demo(), limit_body_size=10_000_000, limit_header_size=16_000) as demo:
        yield demo


def test_several_requests_share_the_connection(shared: Road) -> None:
    done = shared.curl(
        *(f"{shared.url}/facts" for _ in range(5)), "-w", " %{num_connects} %{http_version}\n"
    )
    ends = [line.rpartition("} ")[2] or line for line in done.text.splitlines()]
    assert ends == ["1 2", *["0 2"] * 4], done


def test_many_downloads_and_uploads_at_once(shared: Road, tmp_path: Path) -> None:
    """All on one connection: 16 downloads of 2 MB, then 16 uploads of as much."""
    (tmp_path / "body").write_bytes(PIECE * 31)
    size = len(PIECE) * 31
    downloads = [f"{shared.url}/download?size={size}", f"{shared.url}/download?[1-15]&size={size}"]
    common = ["--parallel", "--parallel-max", "16", "-w", "%{num_connects} %{http_code}\n"]
    outputs = ["-o", tmp_path / "0", "-o", str(tmp_path / "#1")]
    done = shared.curl(*common, *outputs, *downloads)
    # The first to ask makes the connection, the others wait for it and share it.
    assert sorted(done.text.split("\n")[:-1]) == ["0 200"] * 15 + ["1 200"], done
    for number in range(16):
        assert (tmp_path / str(number)).read_bytes() == PIECE * 31, number
    done = shared.curl(
        *common[:3], "-T", tmp_path / "body", f"{shared.url}/upload?[1-16]", "-o", tmp_path / "u#1"
    )
    assert done.code == 0, done
    sizes = [json.loads((tmp_path / f"u{n + 1}").read_text())["bytes"] for n in range(16)]
    assert sizes == [size] * 16


@pytest.mark.parametrize(
    ("path", "arguments", "status"),
    [
        ("/nothing", [], "404"),
        ("/upload", [], "405"),
        ("/download?size=minus", [], "400"),
        ("/", ["-H", "Big: " + "x" * 17_000], "431"),
        ("/", [item for n in range(120) for item in ("-H", f"X-{n}: y")], "431"),
        ("/upload", ["-T", "@"], "413"),
        ("/upload", ["-H", "Content-Length:", "-T", "@"], "413"),
        ("/upload", ["-H", "Expect: a-miracle", "-d", "a"], "417"),
    ],
    ids=["path", "method", "query", "size", "count", "length", "body", "expectation"],
)
def test_refusals_arrive(
    shared: Road, path: str, arguments: list[str], status: str, tmp_path: Path
) -> None:
    """Each with its status, and the connection goes on."""
    (tmp_path / "body").write_bytes(bytes(LARGE))
    mine = [str(tmp_path / "body") if each == "@" else each for each in arguments]
    said = ["-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n"]
    after = [*shared.arguments, "--noproxy", "*", "-sS", f"{shared.url}/facts"]
    done = shared.curl(*said, *mine, shared.url + path, "--next", *after, *said)
    assert (done.code, done.text) == (0, f"{status} 1\n200 0\n"), done


# ---------------------------------------------------------------- HTTP/1.1 beside it, and h2c


def test_alpn_leaves_the_choice_to_the_client(tls: tuple[dict[str, Any], str]) -> None:
    options, authority = tls
    with serve(Demo(), **options) as server:
        url = f"https://127.0.0.1:{server.port}/facts"
        new, old, none = (
            curl("-v", "--cacert", authority, argument, url)
            for argument in ("--http2", "--http1.1", "--no-alpn")
        )
    assert "ALPN: server accepted h2\n" in new.err, new
    assert json.loads(new.text)["protocol"] == "HTTP/2"
    assert "ALPN: server accepted http/1.1\n" in old.err, old
    assert json.loads(old.text)["protocol"] == "HTTP/1.1"
    assert json.loads(none.text)["protocol"] == "HTTP/1.1", none


def test_no_http2(tls: tuple[dict[str, Any], str]) -> None:
    """Over TLS curl is told to use HTTP/1.1; in the clear its preface is refused."""
    options, authority = tls
    with serve(Demo(), http2=False, **options) as server:
        url = f"https://127.0.0.1:{server.port}/facts"
        done = curl("-v", "--cacert", authority, "--http2", url)
    assert "ALPN: server accepted http/1.1\n" in done.err, done
    assert json.loads(done.text)["protocol"] == "HTTP/1.1"
    with serve(Demo(), http2=False, h2c_upgrade=True) as server:
        known = curl("--http2-prior-knowledge", f"{server.url}/facts")
        asked = curl("-v", "--http2", f"{server.url}/facts")
        assert server.logged() == []
    assert known.code, known
    assert json.loads(asked.text)["protocol"] == "HTTP/1.1"
    assert "< HTTP/1.1 200 OK" in asked.err, asked


@pytest.fixture(scope="module", params=[True, False], ids=["upgrades", "declines"])
def clear(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """A server in the clear, and whether it grants `Upgrade: h2c`."""
    with serve(Demo(), h2c_upgrade=request.param) as server:
        yield server.url, request.param
        assert server.logged() == []


def test_upgrade(clear: tuple[str, bool]) -> None:
    """The request that asked is answered, in the one version or the other; so is the next."""
    url, granted = clear
    done = curl("-v", "--http2", f"{url}/facts", f"{url}/facts")
    facts = [json.loads(part + "]]}") for part in done.text.split("]]}")[:-1]]
    wanted = "HTTP/2" if granted else "HTTP/1.1"
    assert [each["protocol"] for each in facts] == [wanted] * 2, done
    assert len({each["client"] for each in facts}) == 1
    assert ("< HTTP/1.1 101 Switching Protocols" in done.err) is granted
    left = {"upgrade", "http2-settings", "connection"} & {name for name, _ in facts[0]["headers"]}
    assert bool(left) is not granted  # nothing of it is left for the application to see


def test_upgrade_of_a_head(clear: tuple[str, bool]) -> None:
    url, granted = clear
    done = curl("--http2", "--head", f"{url}/download?size=1000")
    last = done.text.split("\r\n\r\n")[-2]
    assert last.startswith("HTTP/2 200" if granted else "HTTP/1.1 200 OK"), done
    assert "content-length: 1000" in last


def test_upgrade_with_a_body_goes_on_in_http_1(clear: tuple[str, bool], tmp_path: Path) -> None:
    url, _ = clear
    (tmp_path / "body").write_bytes(bytes(LARGE))
    done = curl("-v", "--http2", "-T", tmp_path / "body", f"{url}/upload")
    assert json.loads(done.text)["bytes"] == LARGE, done
    assert "< HTTP/1.1 200 OK" in done.err


def test_upgrade_of_a_download(clear: tuple[str, bool], tmp_path: Path) -> None:
    """Older curls have room for 32 KB behind a 101, and fail where more comes with it."""
    url, granted = clear
    common = ["--http2", "-w", "%{http_version}", "-o"]
    done = curl(*common, tmp_path / "got", f"{url}/download?size={LARGE}")
    assert (done.code, done.text) == (0, "2" if granted else "1.1"), done
    assert (tmp_path / "got").read_bytes() == (PIECE * 306)[:LARGE]
