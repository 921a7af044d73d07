"""What the tests of TLS connections share: certificates in files, and finished connections."""

from __future__ import annotations

import logging

import pytest
import trustme
from tests.support.tls import Files, client_context, connect, handshake, wrap_client

from tidegate.config import Config
from tidegate.net.tls import Certificates


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def files(ca, tmp_path_factory):
    return Files(tmp_path_factory.mktemp("tls"), "server").write(ca.issue_cert("localhost"))


@pytest.fixture(scope="module")
def ca_file(ca, files):
    path = files.cert + ".ca"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def certificates(files):
    return Certificates(
        Config(ssl_certfile=files.cert, ssl_keyfile=files.key),
        ["http/1.1"],
        logging.getLogger("tidegate.test"),
    )


@pytest.fixture
def pair(certificates, ca):
    """A finished connection: the server's end and the client's."""
    opened = []

    def make(context=None, certificates=certificates, name="localhost"):
        server, client = connect()
        ends = certificates.wrap(server), wrap_client(client, context or client_context(ca), name)
        opened.extend(ends)
        handshake(*ends)
        return ends

    yield make
    for end in opened:
        end.close()
