"""Statements 81 and 82: what the application learns of TLS."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.support.apps import answer
from tests.support.behaviour import Http, News, Transport
from tests.support.tls import Files, client_context

# RFC 8446 B.4 and RFC 5289 3
SUITES = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
}


class Seen:
    def __init__(self) -> None:
        self.scopes = News()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.put(scope)
        await answer(send)


def tls_of(http: Http, transport: Transport) -> dict[str, Any] | None:
    """The extension as one request's scope has it."""
    app = Seen()
    with http.serve(app, transport) as site:
        site.request()
        found: dict[str, Any] | None = app.scopes.next()["extensions"].get("tls")
    return found


def with_client_certificate(
    tls: Transport, ca: trustme.CA, ca_file: str, identity: trustme.LeafCert | None, needed: bool
) -> Transport:
    """The server asks for certificates, and the client may have one."""
    required = ssl.CERT_REQUIRED if needed else ssl.CERT_OPTIONAL
    options = {**tls.options, "ssl_ca_certs": ca_file, "ssl_cert_reqs": int(required)}
    return Transport("tls", options, client_context(ca, identity))


def test_statement_81_absent_on_plain_connections(http: Http) -> None:
    assert tls_of(http, Transport()) is None


def test_statement_81_server_certificate_and_version(
    http: Http, tls: Transport, certificate: Files
) -> None:
    found = tls_of(http, tls)
    assert found is not None
    own = Path(certificate.cert).read_text().split("-----END CERTIFICATE-----")[0]
    assert ssl.PEM_cert_to_DER_cert(found["server_cert"]) == ssl.PEM_cert_to_DER_cert(
        own + "-----END CERTIFICATE-----\n"
    )
    assert found["tls_version"] == 0x0304
    assert found["cipher_suite"] in SUITES.values()


def test_statement_81_every_key_is_there(http: Http, tls: Transport) -> None:
    found = tls_of(http, tls)
    assert found is not None
    assert set(found) == {
        "server_cert",
        "client_cert_chain",
        "client_cert_name",
        "client_cert_error",
        "tls_version",
        "cipher_suite",
    }


def test_statement_81_older_tls(http: Http, tls: Transport, ca: trustme.CA) -> None:
    context = client_context(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    found = tls_of(http, Transport("tls", tls.options, context))
    assert found is not None
    assert found["tls_version"] == 0x0303
    assert found["cipher_suite"] == SUITES["ECDHE-ECDSA-AES256-GCM-SHA384"]


def test_statement_82_no_client_certificate_asked(http: Http, tls: Transport) -> None:
    found = tls_of(http, tls)
    assert found is not None
    assert found["client_cert_chain"] == []
    assert found["client_cert_name"] is None
    assert found["client_cert_error"] is None


def test_statement_82_no_client_certificate_given(
    http: Http, tls: Transport, ca: trustme.CA, ca_file: str
) -> None:
    found = tls_of(http, with_client_certificate(tls, ca, ca_file, None, needed=False))
    assert found is not None
    assert found["client_cert_chain"] == []
    assert found["client_cert_name"] is None


@pytest.mark.parametrize("needed", [True, False], ids=["required", "optional"])
def test_statement_82_client_certificate(
    http: Http, tls: Transport, ca: trustme.CA, ca_file: str, needed: bool
) -> None:
    identity = ca.issue_cert(
        "client@example.org", common_name="Ada, Countess", organization_name="O"
    )
    found = tls_of(http, with_client_certificate(tls, ca, ca_file, identity, needed))
    assert found is not None
    chain = found["client_cert_chain"]
    assert type(chain) is list
    assert all(type(pem) is str for pem in chain)
    leaf = identity.cert_chain_pems[0].bytes().decode()
    assert ssl.PEM_cert_to_DER_cert(chain[0]) == ssl.PEM_cert_to_DER_cert(leaf)
    assert found["client_cert_error"] is None
    # RFC 4514: most specific first, the comma escaped
    from cryptography import x509

    assert found["client_cert_name"].startswith("CN=Ada\\, Countess")
    subject = x509.load_pem_x509_certificate(chain[0].encode()).subject
    assert found["client_cert_name"] == subject.rfc4514_string()


def test_statement_82_chain_begins_with_the_leaf(
    http: Http, tls: Transport, ca: trustme.CA, ca_file: str
) -> None:
    """Also where it comes with its intermediate; before 3.13 Python tells the leaf alone."""
    identity = ca.create_child_ca().issue_cert("client@example.org")
    found = tls_of(http, with_client_certificate(tls, ca, ca_file, identity, needed=True))
    assert found is not None
    sent = [ssl.PEM_cert_to_DER_cert(pem.bytes().decode()) for pem in identity.cert_chain_pems]
    told = [ssl.PEM_cert_to_DER_cert(pem) for pem in found["client_cert_chain"]]
    assert told == sent[: len(told)]
    assert told


def test_statement_82_stranger_does_not_reach_the_application(
    http: Http, tls: Transport, ca: trustme.CA, ca_file: str
) -> None:
    """So `client_cert_error` is always None: who fails verification fails the handshake."""
    stranger = trustme.CA().issue_cert("client@example.org")
    app = Seen()
    with http.serve(app, with_client_certificate(tls, ca, ca_file, stranger, needed=False)) as site:
        with pytest.raises(Exception, match=r"(?i)alert|reset|EOF"):
            site.request()
        assert app.scopes.empty()
