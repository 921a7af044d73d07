"""How a TLS connection ends, and handshakes that come to nothing."""

from __future__ import annotations

import select
import socket
import ssl

import pytest
from tests.support.tls import (
    Kernel,
    arrived,
    assert_empty,
    client_context,
    connect,
    fail,
    handshake,
    patiently,
    receive_all,
    wrap_client,
)

from tidegate.net.tls_socket import HandshakeFailed, Wants

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
    arrived(server, 43)
    server.shutdown_write()  # with data unread, OpenSSL would give a false end of input from here
    assert server.wants is Wants.READ
    assert len(server.recv(65536)) == 43
    with pytest.raises(BlockingIOError):
        server.recv(65536)
    assert not server.more
    assert patiently(lambda: client.recv(100), client) == b""  # close_notify
    client.send(b"more of it")
    assert len(patiently(lambda: server.recv(65536), server)) > 10
    client.close()
    assert patiently(lambda: server.recv(65536), server) == b""


def test_input_that_is_not_read_yet_is_dropped_by_shutdown_write(pair):
    server, client = pair()
    client.send(b"x" * 1000)
    client.send(b"y" * 1000)
    arrived(server, 2 * 1022)
    server.recv(10)
    assert server.more
    assert server._held
    server.shutdown_write()
    assert not server.more
    assert not server._held
    assert_empty(server)
    socket.socket.shutdown(client, socket.SHUT_WR)
    assert patiently(lambda: server.recv(100), server) == b""


def test_close_notify_right_behind_the_last_bytes_is_told_after_them(pair):
    server, client = pair()
    client.send(b"the last")
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    arrived(server, 30 + 24)
    assert server.recv(65536) == b"the last"
    assert server.more
    assert server.recv(65536) == b""
    assert_empty(server)


def test_a_damaged_record_behind_good_ones_is_told_after_them(pair):
    server, client = pair()
    client.send(b"good")
    broken = socket.socket(fileno=client.detach())
    broken.send(b"\x17\x03\x03\x00\x20" + bytes(32) + b"\x17\x03\x03")
    arrived(server, 26 + 37 + 3)
    assert server.recv(65536) == b"good"
    assert server.more
    assert_empty(server)
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            server.recv(65536)
    broken.close()


def test_close_notify_goes_after_all_that_was_sent(pair):
    server, client = pair()
    kernel = Kernel(server, 100)
    first = server.send(b"x" * 200)
    assert 0 < first < 100
    kernel.room = 1 << 30
    assert server.send(b"x" * (200 - first)) == 200 - first
    server.shutdown_write()
    assert receive_all(client, 200) == b"x" * 200
    client.suppress_ragged_eofs = False
    assert patiently(lambda: client.recv(100), client) == b""


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
