"""A TLS connection in place of a plain socket: blocking both ways, endings, failures, detail."""

from __future__ import annotations

import datetime
import logging
import select
import socket
import ssl
from types import SimpleNamespace

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from tests.support.tls import Files, client_context, connect, handshake, patiently, wrap_client

from tidegate.config import Config
from tidegate.net import tls_socket as tls_socket_module
from tidegate.net.tls import Certificates
from tidegate.net.tls_socket import SLICE, HandshakeFailed, TlsSocket, Wants, subject_name

LOG = logging.getLogger("tidegate.test")


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
    return Certificates(config(files), ["http/1.1"], LOG)


def config(files, **more):
    return Config(ssl_certfile=files.cert, ssl_keyfile=files.key, **more)


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


# -- bytes -----------------------------------------------------------------------------------------


def test_bytes_go_both_ways(pair):
    server, client = pair()
    client.send(b"GET /")
    assert patiently(lambda: server.recv(65536), server) == b"GET /"
    assert server.send(b"hello") == 5
    assert patiently(lambda: client.recv(100), client) == b"hello"


def test_a_read_without_data_would_block_and_waits_for_reading(pair):
    server, _ = pair()
    with pytest.raises(BlockingIOError):
        server.recv(65536)
    assert server.wants is Wants.READ


def test_what_is_decrypted_and_not_taken_is_pending(pair):
    server, client = pair()
    client.send(b"x" * 1000)
    assert patiently(lambda: server.recv(100), server) == b"x" * 100
    assert not select.select([server], [], [], 0)[0]  # no poller would tell
    assert server.pending() == 900
    assert server.recv(65536) == b"x" * 900
    assert server.pending() == 0


def test_a_send_takes_one_slice_and_a_full_socket_would_block(pair):
    server, client = pair()
    data = bytes(range(256)) * 64 * 1024  # 16 MiB, more than any buffers on the way
    assert server.send(data) == SLICE
    sent = SLICE
    view = memoryview(data)
    sent += send_until_full(server, view[sent:])
    assert server.wants is Wants.WRITE
    assert not select.select([], [server], [], 0)[1]

    got = bytearray()
    while len(got) < len(data):
        got += patiently(lambda: client.recv(1 << 20), client)
        sent += send_until_full(server, view[sent:])  # begins with the bytes that could not go
    assert got == data


def send_until_full(server, data):
    sent = 0
    try:
        while sent < len(data):
            sent += server.send(data[sent:])
    except BlockingIOError:
        pass
    return sent


def test_after_blocking_the_same_bytes_may_be_followed_by_more(pair):
    server, client = pair()
    while send_until_full(server, b"a" * 3000):
        pass
    while not select.select([], [server], [], 0)[1]:
        patiently(lambda: client.recv(1 << 20), client)
    assert server.send(b"a" * 3000 + b"b" * 3000) in {3000, 6000}


def test_wants_says_which_way_whatever_the_call():
    """A read may have to write and a write to read (key updates): as the ssl module says it."""

    def script(error):
        def call(*_):
            raise error

        return call

    for error, wants in (
        (ssl.SSLWantReadError, Wants.READ),
        (ssl.SSLWantWriteError, Wants.WRITE),
    ):
        fake = SimpleNamespace(read=script(error), write=script(error), do_handshake=script(error))
        tls = TlsSocket(fake)
        with pytest.raises(BlockingIOError):
            tls.recv(1)
        assert tls.wants is wants
        tls.wants = Wants.NOTHING
        with pytest.raises(BlockingIOError):
            tls.send(b"x")
        assert tls.wants is wants
        tls.wants = Wants.NOTHING
        assert tls.handshake() is False
        assert tls.wants is wants


# -- endings ---------------------------------------------------------------------------------------


def test_close_notify_from_the_peer_is_the_end_of_input(pair):
    server, client = pair()
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    assert patiently(lambda: server.recv(100), server) == b""


def test_a_peer_gone_without_close_notify_is_the_end_of_input(pair):
    server, client = pair()
    socket.socket.shutdown(client, socket.SHUT_WR)
    assert patiently(lambda: server.recv(100), server) == b""


def test_shutdown_write_sends_close_notify_and_does_not_wait(pair):
    server, client = pair()
    server.send(b"the answer")
    server.shutdown_write()
    assert patiently(lambda: client.recv(100), client) == b"the answer"
    assert patiently(lambda: client.recv(100), client) == b""
    client.suppress_ragged_eofs = False
    client.unwrap()  # the server's close_notify was there: no error, nothing awaited
    server.shutdown_write()  # twice does no harm


def test_after_shutdown_write_what_still_comes_can_be_discarded_to_its_end(pair):
    """RFC 9112 9.6: read on within bounds, or the reset eats the answer."""
    server, client = pair()
    client.send(b"the body nobody reads")
    select.select([server], [], [], 10)
    server.shutdown_write()  # with data unread, OpenSSL would give a false end of input from here
    assert server.wants is Wants.READ
    with pytest.raises(BlockingIOError):
        server.recv(65536)
    assert server.pending() == 0
    assert patiently(lambda: client.recv(100), client) == b""  # close_notify
    client.send(b"more of it")
    assert len(patiently(lambda: server.recv(65536), server)) > 10
    client.close()
    assert patiently(lambda: server.recv(65536), server) == b""


def test_close_alone_lets_the_peer_tell_it_was_cut_off(pair, ca):
    context = client_context(ca)
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    server, client = pair(context)
    client.suppress_ragged_eofs = False
    server.close()
    assert server.fileno() == -1
    with pytest.raises(ssl.SSLEOFError):
        patiently(lambda: client.recv(100), client)


def test_shutdown_write_before_the_handshake_and_after_the_peer_left(certificates):
    server, client = connect()
    tls = certificates.wrap(server)
    tls.shutdown_write()
    assert patiently(lambda: client.recv(100), client) == b""
    client.close()
    assert patiently(lambda: tls.recv(100), tls) == b""
    tls.close()


def test_a_damaged_record_is_an_error_of_the_connection(pair):
    server, client = pair()
    raw = socket.socket(fileno=client.detach())
    raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        patiently(lambda: server.recv(100), server)
    raw.close()


# -- handshakes that fail --------------------------------------------------------------------------


def fail(certificates, first_bytes):
    server, client = connect()
    tls = certificates.wrap(server)
    client.sendall(first_bytes)
    with pytest.raises(HandshakeFailed) as caught:
        go_on(tls)
    return tls, client, caught.value


def go_on(tls):
    while not tls.handshake():
        assert any(select.select([tls], [], [], 10)), "the handshake hangs"


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "PATCH", "CONNECT"]
)
def test_plain_http_on_a_tls_port_is_recognised_and_can_be_answered(certificates, method):
    tls, client, failure = fail(certificates, f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert failure.plain_http
    plain = tls.release()
    assert tls.fileno() == -1
    assert plain.gettimeout() == 0.0
    plain.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert patiently(lambda: client.recv(100), client).startswith(b"HTTP/1.1 400")
    plain.close()
    client.close()


@pytest.mark.parametrize(
    "junk",
    [b"\0" * 64, b"SSH-2.0-OpenSSH_9.2\r\n", b"* / is no request\n", b"\x16\x03\x01\x00\x04zzzz"],
)
def test_other_bytes_are_only_a_failed_handshake(certificates, junk):
    tls, client, failure = fail(certificates, junk)
    assert not failure.plain_http
    assert failure.reason
    tls.close()
    client.close()


def test_a_peer_that_leaves_in_the_handshake(certificates):
    server, client = connect()
    tls = certificates.wrap(server)
    assert tls.handshake() is False
    assert tls.wants is Wants.READ
    client.close()
    select.select([tls], [], [], 10)
    with pytest.raises(HandshakeFailed) as caught:
        tls.handshake()
    assert not caught.value.plain_http
    tls.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_a_client_too_old_is_refused(certificates, ca):
    context = client_context(ca)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    server, client = connect()
    tls, theirs = certificates.wrap(server), wrap_client(client, context, "localhost")
    with pytest.raises((HandshakeFailed, ssl.SSLError)) as caught:
        handshake(tls, theirs)
    assert "protocol" in str(caught.value).lower()
    tls.close()
    theirs.close()


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
    assert tls_socket_module._suite(context, "NO-SUCH-SUITE") is None
