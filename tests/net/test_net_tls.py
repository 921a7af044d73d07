"""Which certificate a client gets, which clients are let in, and new certificates on the fly."""

from __future__ import annotations

import logging
import os
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from tests.support.tls import (
    Files,
    client_context,
    connect,
    handshake,
    patiently,
    replace,
    wrap_client,
)

from tidegate.config import Config
from tidegate.errors import ConfigurationError
from tidegate.net.tls import Certificates
from tidegate.net.tls_socket import HandshakeFailed

LOG = logging.getLogger("tidegate.test")
INTERVAL = 10.0


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def issued(ca):
    """Certificates by name, each made once."""
    made = {}

    def issue(*names):
        if names not in made:
            made[names] = ca.issue_cert(*names)
        return made[names]

    return issue


@pytest.fixture
def files(tmp_path, issued):
    return Files(tmp_path, "server").write(issued("localhost"))


def configured(files, **more):
    return Config(ssl_certfile=files.cert, ssl_keyfile=files.key, **more)


def certificates(config, alpn=("http/1.1",)):
    return Certificates(config, alpn, LOG)


class Visit:
    """One connection to `certificates`, from handshake to its end."""

    def __init__(self, certificates, context, name="localhost"):
        server, client = connect()
        self.server = certificates.wrap(server)
        self.client = wrap_client(client, context, name)

    def __enter__(self):
        handshake(self.server, self.client)
        return self

    def __exit__(self, *_):
        self.server.close()
        self.client.close()

    def names(self):
        return {value for _, value in self.client.getpeercert()["subjectAltName"]}


def names_shown(certificates, context, name="localhost"):
    with Visit(certificates, context, name) as visit:
        return visit.names()


# -- by name ---------------------------------------------------------------------------------------


@pytest.fixture
def hosts(tmp_path, issued, files, ca):
    entries = []
    for name in ("www.example.com", "*.example.com", "example.org"):
        own = Files(tmp_path, name.replace("*", "any")).write(issued(name))
        entries.append(f"{name}={own.cert}:{own.key}")
    return certificates(configured(files, ssl_sni=tuple(entries)))


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("www.example.com", "www.example.com"),
        ("WWW.Example.COM", "www.example.com"),
        ("api.example.com", "*.example.com"),
        ("example.org", "example.org"),
        ("example.com", "localhost"),  # the asterisk stands for one label, not for none
        ("a.b.example.com", "localhost"),  # nor for two
        ("www.example.org", "localhost"),
        ("com", "localhost"),
    ],
)
def test_a_client_gets_the_certificate_of_the_name_it_asks_for(hosts, ca, asked, shown):
    context = client_context(ca)
    server, client = connect()
    tls = hosts.wrap(server)
    context.check_hostname = False
    theirs = context.wrap_socket(client, server_hostname=asked, do_handshake_on_connect=False)
    handshake(tls, theirs)
    assert {value for _, value in theirs.getpeercert()["subjectAltName"]} == {shown}
    assert tls.detail.sni == asked.lower() or tls.detail.sni == asked
    assert tls.detail.server_cert == ssl.DER_cert_to_PEM_cert(theirs.getpeercert(binary_form=True))
    assert theirs.selected_alpn_protocol() is None
    tls.close()
    theirs.close()


def test_without_a_name_a_client_gets_the_default(hosts, ca):
    assert names_shown(hosts, client_context(ca), None) == {"localhost"}


def test_alpn_and_client_certificates_hold_for_every_name(tmp_path, files, issued, ca):
    authority = str(tmp_path / "ca.pem")
    ca.cert_pem.write_to_path(authority)
    own = Files(tmp_path, "own").write(issued("www.example.com"))
    config = configured(
        files,
        ssl_sni=(f"www.example.com={own.cert}:{own.key}",),
        ssl_cert_reqs=2,
        ssl_ca_certs=authority,
    )
    context = client_context(ca, ca.issue_cert("ada@example.org"))
    context.set_alpn_protocols(["http/1.1"])
    with Visit(certificates(config), context, "www.example.com") as visit:
        assert visit.client.selected_alpn_protocol() == "http/1.1"
        assert visit.server.detail.client_cert_chain
    with pytest.raises((HandshakeFailed, OSError)):
        talk(certificates(config), client_context(ca), "www.example.com")


def talk(certificates, context, name="localhost"):
    """A handshake and a byte each way: under TLS 1.3 a refusal arrives after the handshake."""
    with Visit(certificates, context, name) as visit:
        visit.server.send(b"x")
        assert patiently(lambda: visit.client.recv(1), visit.client) == b"x"
        return visit.server.detail


# -- the context's options -------------------------------------------------------------------------


def test_tls_1_2_and_1_3_are_served_and_renegotiation_and_compression_are_not(files, ca):
    # Python's own default already forbids compression; OpenSSL's configuration may say otherwise
    ours = certificates(configured(files))._default.context
    assert ours.minimum_version is ssl.TLSVersion.TLSv1_2
    assert ours.maximum_version is ssl.TLSVersion.MAXIMUM_SUPPORTED
    assert ours.options & ssl.OP_NO_RENEGOTIATION
    assert ours.options & ssl.OP_NO_COMPRESSION
    assert not ours.options & ssl.OP_NO_TICKET
    assert talk(certificates(configured(files)), client_context(ca)).tls_version == 0x0304


def test_ssl_version_5_is_tls_1_2_alone(files, ca):
    only = certificates(configured(files, ssl_version=5))
    assert talk(only, client_context(ca)).tls_version == 0x0303
    modern = client_context(ca)
    modern.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises((HandshakeFailed, ssl.SSLError)):
        talk(only, modern)


def test_ciphers(files, ca):
    chosen = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
    context = client_context(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    detail = talk(certificates(configured(files, ssl_ciphers=chosen)), context)
    assert detail.cipher_suite in {0xCCA8, 0xCCA9}  # RFC 7905


def test_a_client_that_knows_no_protocol_of_ours_is_served_without(files, ca):
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    assert talk(certificates(configured(files)), context).alpn is None


@pytest.mark.parametrize(
    ("reqs", "identity", "served"),
    [
        (0, None, True),
        (1, None, True),
        (1, "ours", True),
        (1, "strange", False),
        (2, None, False),
        (2, "ours", True),
        (2, "strange", False),
    ],
)
def test_client_certificates(files, ca, tmp_path, reqs, identity, served):
    authority = str(tmp_path / "ca.pem")
    ca.cert_pem.write_to_path(authority)
    issuers = {"ours": ca, "strange": trustme.CA()}
    theirs = issuers[identity].issue_cert("ada@example.org") if identity else None
    config = configured(files, ssl_cert_reqs=reqs, ssl_ca_certs=authority)
    context = client_context(ca, theirs)
    if not served:
        with pytest.raises((HandshakeFailed, OSError)):
            talk(certificates(config), context)
        return
    assert bool(talk(certificates(config), context).client_cert_chain) == (identity is not None)


def test_authorities_without_a_request_for_certificates_are_pointed_out(
    files, ca, tmp_path, caplog
):
    authority = str(tmp_path / "ca.pem")
    ca.cert_pem.write_to_path(authority)
    certificates(configured(files, ssl_ca_certs=authority))
    assert "--ssl-cert-reqs" in caplog.text


# -- files that cannot be used ---------------------------------------------------------------------


def encrypted(leaf, password):
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )


def test_a_key_with_a_password_and_one_file_for_both(files, issued, ca, tmp_path):
    leaf = issued("localhost")
    replace(files.key, encrypted(leaf, "sesame"))
    assert talk(certificates(configured(files, ssl_keyfile_password="sesame")), client_context(ca))
    both = str(tmp_path / "both.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(both)
    assert talk(certificates(Config(ssl_certfile=both)), client_context(ca))


def refused(config):
    with pytest.raises(ConfigurationError) as caught:
        certificates(config)
    assert caught.value.hint
    return caught.value


def test_a_key_of_another_certificate(files, issued):
    replace(files.key, issued("other.example").private_key_pem.bytes())
    error = refused(configured(files))
    assert "does not belong to" in error.message
    assert files.key in error.message and files.cert in error.message


def test_a_password_that_is_missing_or_wrong(files, issued):
    replace(files.key, encrypted(issued("localhost"), "sesame"))
    assert "is encrypted" in refused(configured(files)).message
    assert "--ssl-keyfile-password" in refused(configured(files)).hint
    error = refused(configured(files, ssl_keyfile_password="guess"))
    assert "password does not open" in error.message
    assert "guess" not in error.message + error.hint


@pytest.mark.parametrize(
    ("which", "content", "why"),
    [
        ("cert", b"", "no whole certificate in PEM form"),
        ("cert", b"0\x82\x01\x00DER", "no whole certificate in PEM form"),
        ("cert", b"-----BEGIN CERTIFICATE-----\nMIIB", "no whole certificate"),
        (
            "cert",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be used",
        ),
        (
            "cert",
            b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
            "is damaged",
        ),
        ("key", b"", "no private key in PEM form"),
        ("key", b"-----BEGIN PRIVATE KEY-----\nMIIB", "cannot be used"),
    ],
)
def test_content_that_cannot_be_used_is_named(files, which, content, why):
    path = getattr(files, which)
    replace(path, content)
    error = refused(configured(files))
    assert why in error.message and path in error.message


def test_a_file_that_went_away_between_configuration_and_start(files):
    config = configured(files)
    os.unlink(files.key)
    error = refused(config)
    assert f"The key {files.key} cannot be read: No such file" in error.message


def test_authorities_that_are_none(files, tmp_path):
    path = str(tmp_path / "ca.pem")
    replace(path, b"nothing")
    error = refused(configured(files, ssl_cert_reqs=2, ssl_ca_certs=path))
    assert path in error.message and "--ssl-ca-certs" in error.message


def test_ciphers_openssl_does_not_know(files):
    assert "'ROT13'" in refused(configured(files, ssl_ciphers="ROT13")).message


def test_a_name_given_twice(files):
    entry = f"a.example={files.cert}:{files.key}"
    error = refused(configured(files, ssl_sni=(entry, entry.replace("a.e", "A.e"))))
    assert "twice" in error.message


# -- renewal ---------------------------------------------------------------------------------------


@pytest.fixture
def renewed(files, ca, issued, caplog):
    """A server whose certificate has just been looked at, and its files."""
    caplog.set_level(logging.INFO)
    ours = certificates(configured(files, ssl_reload_interval=INTERVAL))
    ours.refresh(100.0)
    assert not caplog.records
    return ours


def test_new_connections_get_the_new_certificate_and_open_ones_go_on(
    renewed, files, ca, issued, caplog
):
    context = client_context(ca)
    with Visit(renewed, context) as old:
        before = old.server.detail.server_cert
        files.write(issued("localhost", "new.example"))
        renewed.refresh(100.0 + INTERVAL)
        assert names_shown(renewed, context) == {"localhost", "new.example"}
        old.server.send(b"still here")
        assert patiently(lambda: old.client.recv(100), old.client) == b"still here"
        assert old.server.detail.server_cert == before
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_a_handshake_under_way_ends_with_what_it_began_with(renewed, files, ca, issued):
    server, client = connect()
    tls = renewed.wrap(server)
    files.write(issued("localhost", "new.example"))
    renewed.refresh(100.0 + INTERVAL)
    theirs = wrap_client(client, client_context(ca), "localhost")
    handshake(tls, theirs)
    assert theirs.getpeercert()["subjectAltName"] == (("DNS", "localhost"),)
    tls.close()
    theirs.close()


def test_files_are_looked_at_once_an_interval(renewed, files, ca, issued, monkeypatch):
    looks = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *a, **k: looks.append(a) or stat(*a, **k))
    renewed.refresh(100.0 + INTERVAL - 0.01)
    assert not looks
    renewed.refresh(100.0 + INTERVAL)
    assert {path for (path,) in looks} == {files.cert, files.key}


def test_unchanged_files_are_not_read_again(renewed, monkeypatch):
    context = renewed._default.context
    renewed.refresh(100.0 + INTERVAL)
    assert renewed._default.context is context


def test_interval_0_never_looks(files, monkeypatch):
    ours = certificates(configured(files, ssl_reload_interval=0))
    monkeypatch.setattr(os, "stat", None)
    ours.refresh(1e9)


def test_a_half_written_pair_keeps_the_old_one_and_says_so_once(renewed, files, ca, issued, caplog):
    new = issued("localhost", "new.example")
    replace(files.cert, b"".join(blob.bytes() for blob in new.cert_chain_pems))
    for turn in range(1, 4):
        renewed.refresh(100.0 + turn * INTERVAL)
        assert names_shown(renewed, client_context(ca)) == {"localhost"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "does not belong" in caplog.text and "Going on with the one before" in caplog.text
    replace(files.key, new.private_key_pem.bytes())
    renewed.refresh(100.0 + 4 * INTERVAL)
    assert names_shown(renewed, client_context(ca)) == {"localhost", "new.example"}


def test_a_file_that_is_gone_and_comes_back(renewed, files, ca, issued, caplog):
    os.unlink(files.cert)
    for turn in range(1, 3):
        renewed.refresh(100.0 + turn * INTERVAL)
    assert names_shown(renewed, client_context(ca)) == {"localhost"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    files.write(issued("localhost", "new.example"))
    renewed.refresh(100.0 + 3 * INTERVAL)
    assert "new.example" in names_shown(renewed, client_context(ca))


def test_the_certificate_of_a_name_is_renewed_too(files, tmp_path, issued, ca, caplog):
    own = Files(tmp_path, "own").write(issued("www.example.com"))
    ours = certificates(configured(files, ssl_sni=(f"www.example.com={own.cert}:{own.key}",)))
    ours.refresh(100.0)
    default = ours._default.context
    own.write(issued("www.example.com", "new.example"))
    caplog.set_level(logging.INFO)
    ours.refresh(200.0)
    assert "for www.example.com" in caplog.text
    assert "new.example" in names_shown(ours, client_context(ca), "www.example.com")
    assert ours._default.context is default


def test_new_authorities_are_read_too(files, tmp_path, ca):
    path = str(tmp_path / "ca.pem")
    other = trustme.CA()
    replace(path, ca.cert_pem.bytes())
    ours = certificates(configured(files, ssl_cert_reqs=2, ssl_ca_certs=path))
    theirs = client_context(ca, other.issue_cert("ada@example.org"))
    with pytest.raises((HandshakeFailed, OSError)):
        talk(ours, theirs)
    replace(path, other.cert_pem.bytes())
    ours.refresh(100.0)
    assert talk(ours, theirs).client_cert_chain


@pytest.mark.parametrize("what", ["time", "inode", "size"])
def test_any_difference_of_a_file_is_a_change(renewed, files, what):
    context = renewed._default.context
    before = os.stat(files.cert)
    with open(files.cert, "rb") as file:
        content = file.read()
    times = [before.st_atime_ns, before.st_mtime_ns]
    if what == "inode":
        replace(files.cert, content)
    elif what == "size":
        with open(files.cert, "ab") as file:
            file.write(b"\n")
    else:
        times[1] += 1_000_000_000
    os.utime(files.cert, ns=(times[0], times[1]))
    renewed.refresh(100.0 + INTERVAL)
    assert renewed._default.context is not context


def test_a_link_that_is_turned_counts_as_a_change(tmp_path, issued, ca):
    """certbot and Kubernetes renew by turning a symbolic link."""
    for version, names in (("1", ("localhost",)), ("2", ("localhost", "new.example"))):
        folder = tmp_path / version
        folder.mkdir()
        Files(folder, "server").write(issued(*names))
    live = tmp_path / "live"
    live.symlink_to(tmp_path / "1")
    ours = certificates(configured(Files(live, "server")))
    ours.refresh(100.0)
    (tmp_path / "next").symlink_to(tmp_path / "2")
    (tmp_path / "next").replace(live)
    ours.refresh(200.0)
    assert "new.example" in names_shown(ours, client_context(ca))
