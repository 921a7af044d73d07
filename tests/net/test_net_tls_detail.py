"""What is told of a finished TLS handshake, and a client's name as RFC 4514 writes it."""

from __future__ import annotations

import datetime
import logging
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from tests.support.tls import (
    client_context,
    connect,
    handshake,
    patiently,
)

from tidegate.config import Config
from tidegate.net import tls_detail
from tidegate.net.tls import Certificates
from tidegate.net.tls_detail import subject_name

LOG = logging.getLogger("tidegate.test")


def config(files, **more):
    return Config(ssl_certfile=files.cert, ssl_keyfile=files.key, **more)


# -- detail ----------------------------------------------------------------------------------------


def pem(certificate):
    return ssl.DER_cert_to_PEM_cert(certificate)


def test_detail_of_a_tls_1_3_connection(pair, ca):
    context = client_context(ca)
    context.set_alpn_protocols(["h9", "http/1.1"])
    server, client = pair(context)
    detail = server.detail
    assert detail.server_cert == pem(client.getpeercert(binary_form=True))
    assert detail.tls_version == 0x0304
    assert detail.cipher_suite in {0x1301, 0x1302, 0x1303}
    assert {0x1301: "AES_128", 0x1302: "AES_256", 0x1303: "CHACHA20"}[
        detail.cipher_suite
    ] in client.cipher()[0]
    assert detail.alpn == "http/1.1"
    assert detail.sni == "localhost"
    assert detail.client_cert_chain == ()
    assert detail.client_cert_name is None
    assert detail.client_cert_error is None
    assert server.detail is detail


def test_detail_of_a_tls_1_2_connection(pair, ca):
    context = client_context(ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    server, _ = pair(context)
    assert server.detail.tls_version == 0x0303
    assert server.detail.cipher_suite in {0xC02B, 0xC02F}  # RFC 5289
    assert server.detail.alpn is None


def test_no_name_asked_for_is_no_sni(pair, ca):
    server, _ = pair(client_context(ca), name=None)
    assert server.detail.sni is None


def test_a_client_certificate_is_told_leaf_first(pair, ca, files, ca_file):
    asking = Certificates(config(files, ssl_cert_reqs=2, ssl_ca_certs=ca_file), [], LOG)
    between = ca.create_child_ca()
    identity = between.issue_cert(
        "client@example.org", common_name="Ada, Countess", organization_name="Engines"
    )
    server, client = pair(client_context(ca, identity), asking)
    detail = server.detail
    sent = [
        pem(ssl.PEM_cert_to_DER_cert(blob.bytes().decode())) for blob in identity.cert_chain_pems
    ]
    assert detail.client_cert_chain[0] == sent[0]
    if hasattr(client, "get_unverified_chain"):  # 3.13
        assert list(detail.client_cert_chain) == sent
    assert "CN=Ada\\, Countess" in detail.client_cert_name.split(",O=")[0]
    assert detail.client_cert_name == rfc4514(identity)
    assert detail.client_cert_error is None


def rfc4514(identity):
    leaf = x509.load_pem_x509_certificate(identity.cert_chain_pems[0].bytes())
    return leaf.subject.rfc4514_string()


def test_a_resumed_session_still_knows_its_client(pair, ca, files, ca_file):
    asking = Certificates(config(files, ssl_cert_reqs=2, ssl_ca_certs=ca_file), [], LOG)
    context = client_context(ca, ca.issue_cert("client@example.org", common_name="Ada"))
    server, client = pair(context, asking)
    server.send(b"x")
    patiently(lambda: client.recv(1), client)  # brings the session ticket
    sock, other = connect()
    again = asking.wrap(sock)
    theirs = context.wrap_socket(
        other, server_hostname="localhost", do_handshake_on_connect=False, session=client.session
    )
    handshake(again, theirs)
    assert theirs.session_reused
    assert again.detail.client_cert_chain == server.detail.client_cert_chain[:1]
    assert again.detail.client_cert_name == server.detail.client_cert_name
    again.close()
    theirs.close()


def certificate(*names):
    """DER of a certificate whose subject has these relative names (lists of attributes)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(x509.RelativeDistinguishedName(name) for name in names)
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the issuer")]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.DER)


def attribute(oid, value, kind=None):
    if kind is not None:
        return x509.NameAttribute(oid, value, kind)
    return x509.NameAttribute(oid, value)


CN, ORG, OU, C, DC = (
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.COUNTRY_NAME,
    NameOID.DOMAIN_COMPONENT,
)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ""),
        ([[attribute(CN, "Ada")]], "CN=Ada"),
        # RFC 4514 2.1: the last relative name first
        (
            [[attribute(C, "GB")], [attribute(ORG, "Engines")], [attribute(CN, "Ada")]],
            "CN=Ada,O=Engines,C=GB",
        ),
        ([[attribute(DC, "org")], [attribute(DC, "example")]], "DC=example,DC=org"),
        ([[attribute(NameOID.USER_ID, "ada")]], "UID=ada"),
        ([[attribute(NameOID.STREET_ADDRESS, "1")]], "STREET=1"),
        (
            [
                [attribute(NameOID.LOCALITY_NAME, "L")],
                [attribute(NameOID.STATE_OR_PROVINCE_NAME, "S")],
            ],
            "ST=S,L=L",
        ),
        # 2.4: escapes
        ([[attribute(CN, 'a"b+c,d;e<f>g\\h')]], 'CN=a\\"b\\+c\\,d\\;e\\<f\\>g\\\\h'),
        ([[attribute(CN, "#1 = two")]], "CN=\\#1 = two"),
        ([[attribute(CN, " x ")]], "CN=\\ x\\ "),
        ([[attribute(CN, "a\0b\r\nc")]], "CN=a\\00b\\0d\\0ac"),
        ([[attribute(CN, "Lučić 日本")]], "CN=Lučić 日本"),
        ([[attribute(CN, "日本", x509.name._ASN1Type.BMPString)]], "CN=日本"),
        # no short name in RFC 4514 3: dotted, and the BER of the value in hex
        (
            [[attribute(NameOID.EMAIL_ADDRESS, "a@b.c")]],
            "1.2.840.113549.1.9.1=#160561" + b"@b.c".hex(),
        ),
        (
            [[attribute(ObjectIdentifier("2.999.3"), "Z")]],
            "2.999.3=#0c015a",
        ),
    ],
)
def test_client_cert_name_is_written_as_rfc_4514_says(names, expected):
    assert subject_name(certificate(*names)) == expected


def test_a_multi_valued_name_is_joined_with_plus():
    name = subject_name(
        certificate([attribute(ORG, "Engines")], [attribute(CN, "Ada"), attribute(OU, "R&D")])
    )
    head, _, tail = name.rpartition(",")
    assert tail == "O=Engines"
    assert sorted(head.split("+")) == ["CN=Ada", "OU=R&D"]


def test_octets_that_are_no_certificate_have_no_name():
    whole = certificate([attribute(CN, "Ada")])
    assert subject_name(b"") is None
    for cut in range(150):
        assert subject_name(whole[:cut]) is None


def test_a_suite_openssl_does_not_list_has_no_number():
    context = ssl.create_default_context()
    assert tls_detail._suite(context, "NO-SUCH-SUITE") is None
