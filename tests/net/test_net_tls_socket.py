"""A TLS connection in place of a plain socket: bytes both ways, and what blocks them."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess

import pytest
from tests.support.tls import (
    Kernel,
    arrived,
    assert_empty,
    client_context,
    connect,
    fail,
    go_on,
    patiently,
    receive_all,
)

from tidegate.net.tls_socket import ANSWERS_BOUND, WINDOW, Wants

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


def test_what_came_and_was_not_taken_is_told_by_more(pair):
    server, client = pair()
    assert not server.more
    client.send(b"x" * 1000)
    assert patiently(lambda: server.recv(100), server) == b"x" * 100
    assert not select.select([server], [], [], 0)[0]  # no poller would tell
    assert server.more
    assert server.recv(900) == b"x" * 900
    while server.more:  # it need not know yet that there is nothing
        with pytest.raises(BlockingIOError):
            server.recv(1)
    with pytest.raises(BlockingIOError):
        server.recv(65536)


def test_several_records_come_in_one_recv(pair):
    server, client = pair()
    parts = [b"one", b"two" * 100, b"three" * 1000]
    for part in parts:
        client.send(part)
    arrived(server, sum(map(len, parts)) + 3 * 22)
    assert server.recv(65536) == b"".join(parts)
    assert not server.more


def test_several_records_read_in_small_pieces(pair):
    server, client = pair()
    parts = [bytes([at]) * 700 for at in range(30)]
    for part in parts:
        client.send(part)
    arrived(server, 30 * 722)
    got = server.recv(101)
    while server.more:
        try:
            got += server.recv(101)
        except BlockingIOError:
            assert not server.more
    assert got == b"".join(parts)


def with_the_handshake(certificates, ca, data):
    """A server's end, its client's socket, and the client's last flight with `data` behind it."""
    sock, client = connect()
    server = certificates.wrap(sock)
    inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client_context(ca).wrap_bio(inside, outside, server_hostname="localhost")
    while not shaken(theirs):
        client.send(outside.read())
        server.handshake()
        inside.write(patiently(lambda: client.recv(65536), client))
    theirs.write(data)
    return server, client, outside.read()


def test_a_first_request_that_comes_with_the_handshake_is_there_at_once(certificates, ca):
    server, client, flight = with_the_handshake(certificates, ca, b"first")
    client.send(flight)
    arrived(server, len(flight))
    assert server.handshake()
    assert server.more
    assert_empty(server)
    assert server.recv(65536) == b"first"
    server.close()
    client.close()


def test_a_record_that_comes_byte_by_byte(certificates, ca):
    server, client, flight = with_the_handshake(certificates, ca, b"slowly")
    got = []
    for at in range(len(flight)):
        assert not got
        client.send(flight[at : at + 1])
        arrived(server, 1)
        if not server.handshake():
            continue
        try:
            got.append(server.recv(65536))
        except BlockingIOError:
            assert server.wants is Wants.READ
        assert not server.more
        assert_empty(server)
    assert got == [b"slowly"]
    server.close()
    client.close()


def shaken(end):
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64, 1000, 1521, 1522, 1523])
def test_a_send_at_every_room_the_kernel_has(pair, size):
    """What the kernel takes of the records is never more than it took, and ends as the whole."""
    server, client = pair()
    kernel = Kernel(server, size)
    data = bytes(range(256)) * 20
    total = 0
    while total < len(data):
        kernel.room = size
        try:
            count = server.send(memoryview(data)[total : total + 1500])
        except BlockingIOError:
            assert server.wants is Wants.WRITE
            continue
        total += count
        assert total <= kernel.took
    assert kernel.took > len(data)
    assert not server._unsent
    assert receive_all(client, len(data)) == data


def test_nothing_counts_as_sent_while_a_byte_of_its_record_is_here(pair):
    server, client = pair()
    kernel = Kernel(server, 0)
    with pytest.raises(BlockingIOError):
        server.send(b"x" * 100)
    left = len(server._unsent)
    assert left > 100
    counted = 0
    for _ in range(left - 1):
        kernel.room = 1
        try:
            counted += server.send(b"x" * (100 - counted))
        except BlockingIOError:
            pass
        assert counted < 100
    kernel.room = 1
    counted += server.send(b"x" * (100 - counted))
    assert counted == 100
    assert receive_all(client, 100) == b"x" * 100


def test_several_buffers_are_sent_as_one_whatever_the_kernel_takes(pair):
    server, client = pair()
    kernel = Kernel(server, 0)
    buffers = [b"head", memoryview(b"a" * 40000), bytearray(b"b" * 10), b"c" * 100000]
    data = b"".join(buffers)
    total, step = 0, 0
    while total < len(data):
        step += 1
        kernel.room = step * 37 % 5000
        try:
            total += server.sendmsg(remaining(buffers, total))
        except BlockingIOError:
            continue
        assert total <= kernel.took
        assert kernel.took - total <= WINDOW + 1000
    assert receive_all(client, len(data)) == data


def remaining(buffers, start):
    for buffer in buffers:
        if start < len(buffer):
            yield memoryview(buffer)[start:]
        start = max(0, start - len(buffer))


def test_a_send_takes_no_more_than_a_window(pair):
    server, client = pair()
    kernel = Kernel(server, 0)
    data = bytes(range(256)) * 4096
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            server.send(data)
        assert WINDOW < len(server._unsent) < WINDOW + 1000
    kernel.room = 1 << 30
    assert server.send(data) == 2 * WINDOW  # what waited, and as much again
    assert receive_all(client, 2 * WINDOW) == data[: 2 * WINDOW]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_slow_reader_gets_all_and_a_full_socket_would_block(pair, ca, version):
    context = client_context(ca)
    context.maximum_version = version
    server, client = pair(context)
    data = bytes(range(256)) * 64 * 1024  # 16 MiB, more than any buffers on the way
    view = memoryview(data)
    sent = send_until_full(server, view)
    assert sent < len(data)
    assert server.wants is Wants.WRITE
    assert not select.select([], [server], [], 0)[1]

    got = bytearray()
    while len(got) < len(data):
        got += patiently(lambda: client.recv(1 << 20), client)
        sent += send_until_full(server, view[sent:])  # begins with the bytes that could not go
    assert got == data
    assert sent == len(data)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_huge_upload_comes_whole_in_long_reads(pair, ca, version):
    context = client_context(ca)
    context.maximum_version = version
    server, client = pair(context)
    data = memoryview(bytes(range(256)) * 32 * 1024)  # 8 MiB
    sent, got, longest = 0, bytearray(), 0
    while len(got) < len(data):
        try:
            while sent < len(data):
                sent += client.send(data[sent:])
        except ssl.SSLWantWriteError:
            pass
        piece = patiently(lambda: server.recv(1 << 18), server)
        assert piece
        longest = max(longest, len(piece))
        got += piece
    assert got == data
    assert longest > 16384


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
    while send_until_full(server, b"a" * 3000) == 3000:
        pass
    while not select.select([], [server], [], 0)[1]:
        patiently(lambda: client.recv(1 << 20), client)
    assert server.send(b"a" * 3000 + b"b" * 3000) > 0


# -- one pair of BIOs for all ----------------------------------------------------------------------


def test_connections_in_turns_do_not_see_each_other(pair):
    """Half a record of one, then the other: nothing may stay in what they share."""
    ends = [pair(), pair(), pair()]
    for turn in range(20):
        for number, (server, client) in enumerate(ends):
            client.send(bytes([number]) * 2000)
            assert patiently(lambda end=server: end.recv(500), server) == bytes([number]) * 500
            assert_empty(server)
        for number, (server, _) in enumerate(ends):
            got = b""
            while len(got) < 1500:
                got += patiently(lambda end=server: end.recv(65536), server)
                assert_empty(server)
            assert got == bytes([number]) * 1500
            assert server.send(bytes([turn])) == 1
            assert_empty(server)
    for _, client in ends:
        assert receive_all(client, 20) == bytes(range(20))


def test_one_connection_that_fails_leaves_nothing_to_the_others(pair, certificates):
    good, client = pair()
    bad, other = pair()
    broken = socket.socket(fileno=other.detach())
    broken.send(b"\x17\x03\x03\x00\x20" + bytes(32) + b"and more of it" * 100)
    with pytest.raises(ssl.SSLError):
        patiently(lambda: bad.recv(100), bad)
    assert_empty(bad)
    with pytest.raises(ssl.SSLError):
        bad.send(b"too late")
    bad.close()
    assert_empty(bad)
    broken.close()
    failed, peer, _ = fail(certificates, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
    assert_empty(failed)
    failed.release()
    peer.close()
    client.send(b"well")
    assert patiently(lambda: good.recv(100), good) == b"well"
    assert good.send(b"and good") == 8
    assert patiently(lambda: client.recv(100), client) == b"and good"


def test_close_empties_what_is_shared_whatever_went_wrong(pair):
    for end in ("close", "release"):
        server, _ = pair()
        server._incoming.write(b"left by a bug")
        server._outgoing.write(b"left by a bug")
        getattr(server, end)()
        assert_empty(server)


# -- what OpenSSL says of its own ------------------------------------------------------------------


@pytest.fixture
def s_client(certificates, ca_file):
    """`openssl s_client` on a connection: a K in its input asks for new keys (RFC 8446 4.6.3), an
    R for a new handshake (RFC 5246 7.4.1.1)."""
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("needs the openssl command")
    opened = []

    def make(version):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            place = f"127.0.0.1:{listener.getsockname()[1]}"
            process = subprocess.Popen(
                [command, "s_client", "-connect", place, version, "-CAfile", ca_file],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            listener.settimeout(10)
            sock, _ = listener.accept()
        sock.setblocking(False)
        server = certificates.wrap(sock)
        opened.append((server, process))
        go_on(server)
        return server, process

    yield make
    for server, process in opened:
        server.close()
        process.kill()
        process.communicate()


def type_in(process, line):
    process.stdin.write(line)
    process.stdin.flush()


def recv_nothing(server):
    """Something comes, and none of it is for us."""
    assert select.select([server], [], [], 10)[0], "nothing comes"
    with pytest.raises(BlockingIOError):
        server.recv(65536)
    assert server.wants is Wants.READ
    assert_empty(server)


def test_a_peer_that_changes_keys_gets_new_ones_before_our_next_bytes(s_client):
    server, process = s_client("-tls1_3")
    kernel = Kernel(server, 1 << 30)
    type_in(process, b"K\n")
    recv_nothing(server)
    type_in(process, b"after it\n")
    assert patiently(lambda: server.recv(65536), server) == b"after it\n"
    assert server.send(b"tide\n") == 5
    assert kernel.took == 27 + 27  # each 5 + 5 + 1 + 16 octets (RFC 8446 5.2, 4.6.3)
    server.shutdown_write()
    assert b"tide\n" in process.communicate(timeout=10)[0]


def test_new_keys_that_the_kernel_takes_in_pieces(s_client):
    server, process = s_client("-tls1_3")
    kernel = Kernel(server, 0)
    type_in(process, b"K\n")
    recv_nothing(server)
    counted = 0
    while counted < 5:
        kernel.room = 1
        try:
            counted += server.send(b"tide\n"[counted:])
        except BlockingIOError:
            pass
    assert kernel.took == 27 + 27
    server.shutdown_write()
    assert b"tide\n" in process.communicate(timeout=10)[0]


def test_a_new_handshake_is_refused_at_once(s_client):
    server, process = s_client("-tls1_2")
    kernel = Kernel(server, 1 << 30)
    type_in(process, b"R\n")
    recv_nothing(server)
    assert kernel.took  # the alert no_renegotiation
    assert b"no renegotiation" in process.communicate(timeout=10)[0]


def test_a_peer_that_takes_no_answers_and_asks_for_more_is_given_up(pair):
    server, client = pair()
    Kernel(server, 0)
    client.send(b"x")
    arrived(server, 23)
    server._outgoing.write(bytes(2 * WINDOW + ANSWERS_BOUND))  # as if OpenSSL had
    assert server.recv(65536) == b"x"
    client.send(b"x")
    arrived(server, 23)
    server._outgoing.write(b"x")
    with pytest.raises(ConnectionAbortedError):
        server.recv(65536)
