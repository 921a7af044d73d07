"""The HTTP versions the suite runs over, and the transports where those matter."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from tests.support.behaviour import H1, TCP, Http, Transport
from tests.support.behaviour_http2 import H2
from tests.support.tls import Files, client_context

VERSIONS: tuple[Http, ...] = (H1(), H2())


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def http(request: pytest.FixtureRequest) -> Http:
    """One version of HTTP."""
    version: Http = request.param
    return version


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope="session")
def certificate(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The server's, for 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("server")
    return Files(folder, "server").write(ca.issue_cert("127.0.0.1"))


@pytest.fixture(scope="session")
def tls(ca: trustme.CA, certificate: Files) -> Transport:
    options = {"ssl_certfile": certificate.cert, "ssl_keyfile": certificate.key}
    return Transport("tls", options, client_context(ca))


@pytest.fixture(params=["tcp", "tls"])
def transport(request: pytest.FixtureRequest, tls: Transport) -> Transport:
    return TCP if request.param == "tcp" else tls
