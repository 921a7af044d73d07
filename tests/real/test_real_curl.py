"""curl against the demo: the client everybody reaches for first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples.demo.application import Demo
from tests.support.programs import curl, curling, short_folder
from tests.support.serve import serve

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve(Demo()) as server:
        yield server.url


def test_get(url: str) -> None:
    done = curl("-i", f"{url}/")
    head, _, page = done.text.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n"), done
    assert f"content-length: {len(page.encode())}" in head.lower()
    assert page.endswith("</html>\n")


def test_two_gets_use_one_connection(url: str) -> None:
    done = curl("-v", f"{url}/facts", f"{url}/facts")
    clients = {json.loads(part + "}")["client"] for part in done.text.split("}") if part}
    assert len(clients) == 1, done


def test_head(url: str) -> None:
    done = curl("--head", f"{url}/download?size=1000", "-w", "%{size_download}")
    assert "content-length: 1000\r\n" in done.text.lower(), done
    assert done.text.endswith("\r\n\r\n0")


def test_post_waits_for_continue(url: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"t" * 3_000_000)
    done = curl(
        "-v", "-H", "Expect: 100-continue", "--expect100-timeout", "20", "--data-binary", f"@{body}",
        f"{url}/upload",
    )  # fmt: skip
    assert json.loads(done.text)["bytes"] == 3_000_000
    # With 20 s of patience, only our 100 can have let the body go.
    assert "< HTTP/1.1 100 Continue" in done.err, done


def test_put_of_a_file(url: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"u" * 500_001)
    assert json.loads(curl("-T", body, f"{url}/upload").text)["bytes"] == 500_001


def test_put_of_a_pipe_is_chunked(url: str) -> None:
    done = curl("-v", "-T", "-", f"{url}/upload", input=b"w" * 70_000)
    assert "> Transfer-Encoding: chunked" in done.err
    assert json.loads(done.text)["bytes"] == 70_000


def test_http_1_0(url: str) -> None:
    done = curl("--http1.0", "-i", f"{url}/facts")
    head, _, body = done.text.partition("\r\n\r\n")
    assert json.loads(body)["protocol"] == "HTTP/1.0", done
    assert "transfer-encoding" not in head.lower()


def test_http_1_0_stream_ends_with_the_connection(url: str) -> None:
    with curling("--http1.0", "-i", f"{url}/events") as stream:
        assert "transfer-encoding" not in stream.expect("event: tick").lower()


def test_event_stream_arrives_as_it_goes(url: str) -> None:
    with curling("-H", "Last-Event-ID: 41", f"{url}/events") as stream:
        text = stream.expect("event: tick\n")
    assert text.startswith("retry: 1000\n\nid: 42\nevent: tick\n")


def test_download(url: str, tmp_path: Path) -> None:
    done = curl("-o", tmp_path / "got", f"{url}/download?size=5000001")
    assert done.code == 0, done
    piece = bytes(range(256)) * 256
    assert (tmp_path / "got").read_bytes() == (piece * 77)[:5_000_001]


def test_early_hint(url: str) -> None:
    done = curl("-i", f"{url}/hints")
    assert done.text.startswith("HTTP/1.1 103 Early Hints\r\nlink: </>; rel=preload"), done
    assert '{"early_hint_sent": true}' in done.text


@pytest.mark.parametrize(
    ("path", "arguments", "status"),
    [
        ("/nothing", [], "404"),
        ("/upload", [], "405"),
        ("/download?size=minus", [], "400"),
        ("/", ["-H", "Host: a b"], "400"),
        ("/", ["-H", "Big: " + "x" * 100_000], "431"),
        ("/" + "y" * 20_000, [], "414"),
    ],
)
def test_refusals_arrive(url: str, path: str, arguments: list[str], status: str) -> None:
    done = curl("-o", "/dev/null", "-w", "%{http_code}", *arguments, url + path)
    assert (done.code, done.text) == (0, status), done


def test_unix_socket() -> None:
    with short_folder() as folder, serve(Demo(), uds=str(folder / "sock")):
        done = curl("--unix-socket", folder / "sock", "http://tide.test/facts")
    facts = json.loads(done.text)
    assert facts["server"] == str(folder / "sock"), done
    assert facts["client"] is None


def test_https(tmp_path: Path) -> None:
    import trustme

    authority = trustme.CA()
    own = authority.issue_cert("tide.test")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    for part in own.cert_chain_pems:
        part.write_to_path(tmp_path / "cert.pem", append=True)
    tls = {"ssl_certfile": str(tmp_path / "cert.pem"), "ssl_keyfile": str(tmp_path / "key.pem")}
    with serve(Demo(), **tls) as server:
        base = f"https://tide.test:{server.port}"
        common = [
            "--cacert",
            tmp_path / "ca.pem",
            "--resolve",
            f"tide.test:{server.port}:127.0.0.1",
        ]
        facts = curl(*common, f"{base}/facts")
        upload = curl(*common, "-T", "-", f"{base}/upload", input=b"x" * 300_000)
        download = curl(
            *common, f"{base}/download?size=3000000", "-o", "/dev/null", "-w", "%{size_download}"
        )
        unknown = curl("--resolve", f"tide.test:{server.port}:127.0.0.1", f"{base}/")
        after = curl(*common, f"{base}/facts")
    assert json.loads(facts.text)["scheme"] == "https", facts
    assert json.loads(upload.text)["bytes"] == 300_000, upload
    assert download.text == "3000000", download
    assert unknown.code == 60, unknown  # curl does not know our authority, and says so
    assert after.code == 0, after
