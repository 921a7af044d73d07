"""h2load: thousands of requests over many streams, and not one answer goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
from examples.demo.application import Demo
from tests.support.programs import Finished, need, run, short_folder
from tests.support.serve import Running, serve
from tests.support.tls import Files

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=["clear", "tls"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = {}
    if request.param == "tls":
        issued = trustme.CA().issue_cert("127.0.0.1")
        own = Files(tmp_path_factory.mktemp("tls"), "own").write(issued)
        options = {"ssl_certfile": own.cert, "ssl_keyfile": own.key}
    with serve(Demo(), **options) as server:
        yield f"{'https' if options else 'http'}://127.0.0.1:{server.port}"
        assert server.logged() == []


def h2load(*arguments: str | Path, count: int) -> Finished:
    """All of `count` requests are answered with 2xx, in the version asked for."""
    done = run(need("h2load"), "-n", str(count), *arguments)
    assert done.code == 0, done
    expected = f"{count} total, {count} started, {count} done, {count} succeeded, 0 failed"
    assert f"requests: {expected}, 0 errored, 0 timeout" in done.text, done.text
    assert f"status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx" in done.text, done.text
    protocol = re.search(r"Application protocol: (\S+)", done.text)
    wanted = ("http/1.1",) if "--h1" in arguments else ("h2", "h2c")
    assert protocol and protocol[1] in wanted, done.text
    return done


def body_bytes(done: Finished) -> int:
    """What came in DATA frames, or in bodies."""
    found = re.search(r"\((\d+)\) data$", done.text, re.MULTILINE)
    assert found, done.text
    return int(found[1])


@pytest.mark.parametrize("old", [False, True], ids=["h2", "h1"])
def test_requests(url: str, old: bool) -> None:
    h2load("-c4", "-m32", *(["--h1"] if old else []), f"{url}/facts", count=10_000)


def test_both_versions_beside_each_other(url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        new = pool.submit(h2load, "-c8", "-m8", f"{url}/", f"{url}/facts", count=5000)
        old = pool.submit(h2load, "-c8", "--h1", f"{url}/", f"{url}/facts", count=5000)
        new.result()
        old.result()


def test_more_streams_than_are_announced(url: str) -> None:
    """h2load is told of 128 and keeps to it, whatever it was asked for."""
    h2load("-c2", "-m1000", f"{url}/facts", count=5000)


def test_downloads(url: str) -> None:
    done = h2load("-c4", "-m16", f"{url}/download?size=300000", count=200)
    assert body_bytes(done) == 200 * 300_000


@pytest.mark.parametrize("bits", ["10", "16"])
def test_downloads_through_small_windows(url: str, bits: str) -> None:
    done = h2load("-c2", "-m8", f"-w{bits}", "-W16", f"{url}/download?size=100000", count=100)
    assert body_bytes(done) == 100 * 100_000


@pytest.mark.parametrize("old", [False, True], ids=["h2", "h1"])
@pytest.mark.parametrize(("size", "count"), [(1, 1000), (1000, 3000), (1_000_000, 60)])
def test_uploads(url: str, old: bool, size: int, count: int, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"u" * size)
    data = ["-d", tmp_path / "body", *(["--h1"] if old else [])]
    done = h2load("-c4", "-m16", *data, f"{url}/upload", count=count)
    # Each answer says how many bytes came: `{"bytes": 1000, ...}`
    assert body_bytes(done) > count * (len(str(size)) + 60)


def test_unix_socket() -> None:
    with short_folder() as folder, serve(Demo(), uds=str(folder / "sock")):
        where = f"--base-uri=unix:{folder / 'sock'}"
        h2load("-c4", "-m32", where, "http://tide.test/facts", count=3000)


def test_every_road(url: str) -> None:
    """uvloop and the other poller have their turn, whatever the suite runs on."""
    pytest.importorskip("uvloop")
    for poller, loop in (("reader", "asyncio"), ("reader", "uvloop"), ("epoll", "uvloop")):
        with serve(Demo(), poller=poller, loop=loop) as server:
            h2load("-c4", "-m32", f"{server.url}/facts", count=2000)


def test_stop_under_load() -> None:
    """What was started is answered; the rest h2load never began, and no stream was reset."""
    seen = 0

    class Counting(Demo):
        async def __call__(self, scope, receive, send):  # type: ignore[no-untyped-def]
            nonlocal seen
            seen += scope["type"] == "http"
            if seen == 1000:
                server.server.stop()
            await super().__call__(scope, receive, send)

    server: Running
    with serve(Counting()) as server:
        done = run(need("h2load"), "-n", "100000", "-c4", "-m32", f"{server.url}/facts")
        server.stop()
        assert server.clean is True
        assert server.logged() == []
    found = re.search(r"(\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.text)
    assert found and list(map(int, found.groups())) == [seen, 0, 0, 0], done.text
    assert 1000 <= seen < 100_000
