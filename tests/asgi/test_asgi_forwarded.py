"""Trusted proxies: what is believed, and above all what is not.

Addresses: 10.x and 192.0.2.x are ours, 203.0.113.x is a client's, 6.6.6.x is what an attacker wrote.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.asgi import forwarded
from tidegate.asgi.forwarded import Origin, TrustedProxies, apply
from tidegate.errors import ConfigurationError

PEER = ("10.0.0.1", 4000)
TRUSTED = TrustedProxies("10.0.0.0/8, fd00::/8, unix:, _edge")

CLIENT = "203.0.113.7"
HIDDEN = None


def resolve(*headers: tuple[str, str], trusted: TrustedProxies = TRUSTED) -> Origin:
    lines = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    origin = trusted.resolve([(b"host", b"inner"), *lines], PEER)
    assert origin is not None
    return origin


def x_for(value: str) -> tuple[str, str]:
    return ("x-forwarded-for", value)


class TestAllow:
    @pytest.mark.parametrize(
        ("allow", "peer", "unix", "trusted"),
        [
            ("", "127.0.0.1", None, False),
            (" , ,", "127.0.0.1", None, False),
            ("", None, "", False),
            ("127.0.0.1,::1", "127.0.0.1", None, True),
            ("127.0.0.1,::1", "::1", None, True),
            ("127.0.0.1,::1", "0:0:0:0:0:0:0:1", None, True),
            ("127.0.0.1,::1", "127.0.0.2", None, False),
            ("127.0.0.1,::1", None, "", False),
            ("127.0.0.1,::1", None, None, False),
            ("127.0.0.1", "::ffff:127.0.0.1", None, True),
            ("127.0.0.1", "::127.0.0.1", None, False),
            ("::ffff:10.0.0.5", "10.0.0.5", None, True),
            ("::ffff:10.0.0.0/104", "10.200.0.5", None, True),
            ("::ffff:10.0.0.0/104", "11.0.0.5", None, False),
            ("10.0.0.0/8", "10.255.255.255", None, True),
            ("10.0.0.0/8", "11.0.0.0", None, False),
            ("10.0.0.0/8", "::ffff:10.1.2.3", None, True),
            ("10.0.0.0/8", "a00::", None, False),
            ("10.0.0.4/31", "10.0.0.5", None, True),
            ("10.0.0.4/31", "10.0.0.6", None, False),
            ("10.0.0.4/32", "10.0.0.4", None, True),
            ("0.0.0.0/0", "203.0.113.7", None, True),
            ("0.0.0.0/0", "2001:db8::1", None, False),
            ("::/0", "2001:db8::1", None, True),
            ("::/0", "203.0.113.7", None, False),
            ("fe80::/10", "fe80::1%eth0", None, True),
            ("2001:db8::/33", "2001:db8:7fff::1", None, True),
            ("2001:db8::/33", "2001:db8:8000::1", None, False),
            ("*", "203.0.113.7", None, True),
            ("*", None, "", True),
            ("*", None, None, True),
            ("127.0.0.1,*", "203.0.113.7", None, True),
            ("unix:", None, "", True),
            ("unix:", None, "/run/app.sock", True),
            ("unix:", "127.0.0.1", None, False),
            ("unix:/run/app.sock", None, "/run/app.sock", True),
            ("unix:///run/app.sock", None, "/run/app.sock", True),
            ("/run/app.sock", None, "/run/app.sock", True),
            ("/run/app.sock", None, "/run/other.sock", False),
            ("/run/app.sock", None, "", False),
            ("unix:@abstract", None, "@abstract", True),
            ("_edge", "10.0.0.1", None, False),
            ("10.0.0.0/8", "", None, False),
            ("10.0.0.0/8", "no address", None, False),
            ("10.0.0.0/8", "10.0.0.1\x00", None, False),
        ],
    )
    def test_peers(self, allow: str, peer: str | None, unix: str | None, trusted: bool) -> None:
        address = None if peer is None else (peer, 1)
        assert TrustedProxies(allow).trusts(address, unix) is trusted

    @pytest.mark.parametrize(
        "entry",
        [
            "localhost",
            "proxy.internal",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "10.0.0.1:80",
            "[::1]",
            "::1::",
            "fe80::1%eth0",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/²",
            "fd00::/129",
            "::ffff:10.0.0.0/8",
            "fe80::%eth0/64",
            "nowhere/8",
            "_bad!",
            "_",
            "**",
        ],
    )
    def test_wrong_entries_are_named(self, entry: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            TrustedProxies(f"127.0.0.1,{entry}", "--proxy-protocol")
        assert f"'{entry}'" in caught.value.message
        assert caught.value.message.startswith("--proxy-protocol:")
        assert caught.value.hint

    @pytest.mark.parametrize(
        ("entry", "network"), [("10.1.2.3/8", "10.0.0.0/8"), ("2001:db8::1/32", "2001:db8::/32")]
    )
    def test_a_network_with_bits_of_a_host_is_told_the_network(
        self, entry: str, network: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            TrustedProxies(entry)
        assert network in caught.value.hint


class TestClientFromXForwardedFor:
    @pytest.mark.parametrize(
        ("value", "client"),
        [
            # what proxies write
            (CLIENT, (CLIENT, 0)),
            (f"{CLIENT}:5060", (CLIENT, 5060)),
            ("2001:db8::7", ("2001:db8::7", 0)),
            ("[2001:db8::7]", ("2001:db8::7", 0)),
            ("[2001:db8::7]:5060", ("2001:db8::7", 5060)),
            ("2001:0DB8:0::7", ("2001:db8::7", 0)),
            ("::ffff:203.0.113.7", (CLIENT, 0)),
            ("[::ffff:203.0.113.7]:1", (CLIENT, 1)),
            ("fe80::7%eth0", ("fe80::7", 0)),
            (f"{CLIENT}, 10.0.0.2", (CLIENT, 0)),
            (f"{CLIENT},10.0.0.2,\t10.0.0.3 ", (CLIENT, 0)),
            (f"{CLIENT}, fd00::1, [fd00::2]:80", (CLIENT, 0)),
            (f"{CLIENT}, unix:", (CLIENT, 0)),
            (f"{CLIENT}, _edge", (CLIENT, 0)),
            # everybody is trusted: the first
            ("10.0.0.2", ("10.0.0.2", 0)),
            ("10.0.0.3, 10.0.0.2", ("10.0.0.3", 0)),
            # what attackers write on the left of it
            (f"6.6.6.6, {CLIENT}", (CLIENT, 0)),
            (f"10.0.0.9, {CLIENT}", (CLIENT, 0)),
            (f"6.6.6.6, {CLIENT}, 10.0.0.2", (CLIENT, 0)),
            (f"6.6.6.6, 10.0.0.9, {CLIENT}, 10.0.0.2", (CLIENT, 0)),
            (f"127.0.0.1, {CLIENT}", (CLIENT, 0)),
            (f'for="6.6.6.6, {CLIENT}', (CLIENT, 0)),
            (f"[6.6.6.6, {CLIENT}", (CLIENT, 0)),
            ("," * 5000 + CLIENT, (CLIENT, 0)),
            (f"{'9' * 60000}, {CLIENT}", (CLIENT, 0)),
            # empty members do not count
            (f"{CLIENT}, ", (CLIENT, 0)),
            (f", ,{CLIENT},, 10.0.0.2,,", (CLIENT, 0)),
            ("", PEER),
            (" , ", PEER),
            # an address nobody can tell hides the client; what is left of it is not looked at
            ("unknown", HIDDEN),
            ("_hidden", HIDDEN),
            ("_hidden:_port", HIDDEN),
            ("6.6.6.6, unknown", HIDDEN),
            ("6.6.6.6, _secret, 10.0.0.2", HIDDEN),
            ("6.6.6.6, garbage", HIDDEN),
            ("6.6.6.6, 203.0.113.256", HIDDEN),
            ("6.6.6.6, 203.0.113.007", HIDDEN),
            ("6.6.6.6, 0xcb.0.0x71.7", HIDDEN),
            ("6.6.6.6, 203.0.113", HIDDEN),
            ("6.6.6.6, 203.0.113.7:65536", HIDDEN),
            ("6.6.6.6, 203.0.113.7:", HIDDEN),
            ("6.6.6.6, 203.0.113.7:-1", HIDDEN),
            ("6.6.6.6, 203.0.113.7:²", HIDDEN),
            ("6.6.6.6, 203.0.113.7:٣", HIDDEN),
            ("6.6.6.6, [2001:db8::7", HIDDEN),
            ("6.6.6.6, [2001:db8::7]x", HIDDEN),
            ("6.6.6.6, [203.0.113.7]", HIDDEN),
            ("6.6.6.6, []", HIDDEN),
            ("6.6.6.6, :::", HIDDEN),
            ("6.6.6.6, :", HIDDEN),
            ("6.6.6.6, %", HIDDEN),
            ("6.6.6.6, 203.0.113.7 10.0.0.2", HIDDEN),
            ("6.6.6.6, 203.0.113.7\x00", HIDDEN),
            ("6.6.6.6, \xff\xfe", HIDDEN),
            ("6.6.6.6, /run/app.sock", HIDDEN),
            (f"6.6.6.6, {'1' * 60000}", HIDDEN),
        ],
    )
    def test_walk(self, value: str, client: tuple[str, int] | None) -> None:
        if "٣" in value:
            value = value.encode().decode("latin-1")
        assert resolve(x_for(value)).client == client

    def test_lines_are_joined_in_order(self) -> None:
        assert resolve(x_for("6.6.6.6"), x_for(CLIENT)).client == (CLIENT, 0)
        assert resolve(x_for(CLIENT), x_for("10.0.0.2"), x_for("")).client == (CLIENT, 0)

    def test_trusting_everybody_takes_the_leftmost(self) -> None:
        everybody = TrustedProxies("*")
        assert resolve(x_for(f"{CLIENT}, 6.6.6.6"), trusted=everybody).client == (CLIENT, 0)
        assert resolve(x_for(f"{CLIENT}, unknown"), trusted=everybody).client == (CLIENT, 0)
        assert resolve(x_for("unknown, 6.6.6.6"), trusted=everybody).client is HIDDEN

    def test_a_unix_hop_is_trusted_by_its_path_only(self) -> None:
        one = TrustedProxies("unix:/run/a.sock")
        assert resolve(x_for(f"{CLIENT}, unix:/run/a.sock"), trusted=one).client == (CLIENT, 0)
        assert resolve(x_for(f"{CLIENT}, unix:/run/b.sock"), trusted=one).client is HIDDEN
        assert resolve(x_for(f"{CLIENT}, unix:"), trusted=one).client is HIDDEN

    def test_nobody_trusted_believes_one_hop(self) -> None:
        assert resolve(x_for(f"{CLIENT}, 10.0.0.2"), trusted=TrustedProxies("")).client == (
            "10.0.0.2",
            0,
        )

    def test_no_such_header(self) -> None:
        headers = [(b"host", b"a"), (b"x-forwarded", b"6.6.6.6"), (b"x_forwarded_for", b"6.6.6.6")]
        assert TRUSTED.resolve(headers, PEER) is None

    def test_a_unix_peer_has_no_address(self) -> None:
        origin = TRUSTED.resolve([(b"x-forwarded-proto", b"https")], None)
        assert origin == Origin(None, "https", None, None, None)

    def test_connections_share_what_is_kept_and_not_their_peers(self) -> None:
        trusted = TrustedProxies("*")
        headers = [(b"x-forwarded-proto", b"https")]
        for peer in (PEER, ("10.0.0.2", 1), None, PEER):
            origin = trusted.resolve(headers, peer)
            assert origin is not None and origin.client == peer
        assert trusted._remembered.cache_info().misses == 1

    def test_long_headers_are_not_kept(self) -> None:
        trusted = TrustedProxies("*")
        for value in (b"a" * 512, b"a" * 513, b"a" * 60000):
            trusted.resolve([(b"x-forwarded-for", value)], PEER)
        assert trusted._remembered.cache_info().currsize == 1

    def test_what_is_kept_of_addresses_has_a_bound(self) -> None:
        kept = forwarded._cached_node.cache_info().currsize
        resolve(x_for("a" * 60000))
        assert forwarded._cached_node.cache_info().currsize == kept
        assert forwarded._cached_node.cache_info().maxsize == 1024


class TestTheOtherXForwarded:
    """k is how many trusted hops stand right of the client's entry in X-Forwarded-For."""

    @pytest.mark.parametrize(
        ("x_forwarded_for", "protos", "scheme"),
        [
            (None, "https", "https"),
            (None, "HTTPS", "https"),
            (None, "http", "http"),
            (None, "wss", "https"),
            (None, "ws", "http"),
            (None, "", None),
            (None, "ftp", None),
            (None, "https ", "https"),
            (None, "https;", None),
            (None, '"https"', None),
            (None, "https\x00", None),
            (None, "http, https", "https"),
            (None, "https, http", "http"),
            (CLIENT, "https, http", "http"),  # k=0: the left one is the client's own
            (f"6.6.6.6, {CLIENT}", "https, http", "http"),
            (f"{CLIENT}, 10.0.0.2", "https, http", "https"),  # k=1
            (f"{CLIENT}, 10.0.0.2", "https", "https"),  # overwritten on the way
            (f"{CLIENT}, 10.0.0.2", "http, https, http", "https"),
            (f"6.6.6.6, {CLIENT}, 10.0.0.2", "http, https, http", "https"),
            (f"{CLIENT}, 10.0.0.2, 10.0.0.3", "https, http", "https"),
            (f"{CLIENT}, 10.0.0.2", "https, ftp, http", None),
        ],
    )
    def test_scheme_of_the_hop(
        self, x_forwarded_for: str | None, protos: str, scheme: str | None
    ) -> None:
        lines = [("x-forwarded-proto", protos)]
        if x_forwarded_for is not None:
            lines.append(x_for(x_forwarded_for))
        assert resolve(*lines).scheme == scheme

    @pytest.mark.parametrize(
        ("value", "host"),
        [
            ("example.com", b"example.com"),
            ("example.com:8443", b"example.com:8443"),
            ("EXAMPLE.com", b"EXAMPLE.com"),
            ("my_service", b"my_service"),
            ("192.0.2.1:80", b"192.0.2.1:80"),
            ("[2001:db8::1]", b"[2001:db8::1]"),
            ("[2001:db8::1]:8443", b"[2001:db8::1]:8443"),
            ("evil.example, example.com", b"example.com"),
            ("", None),
            ("example.com:", None),
            ("example.com:0", None),
            ("example.com:65536", None),
            ("example.com:80:80", None),
            ("example.com/path", None),
            ("example.com?x", None),
            ("user@example.com", None),
            ("example.com#", None),
            ("exam ple.com", None),
            ("example.com\r\nset-cookie: a=b", None),
            ("example.com\n", None),
            ("example.com\x00", None),
            ("ex\xe4mple.com", None),
            ("ex%61mple.com", None),
            ("<script>", None),
            ("a'b", None),
            ("[::1", None),
            ("[]", None),
            ("[127.0.0.1]", None),
            ("[::g]", None),
            ("[::1]x", None),
            ("[fe80::1%25eth0]", None),
            ("::1", None),
            ("a" * 256, None),
        ],
    )
    def test_host_is_an_authority(self, value: str, host: bytes | None) -> None:
        assert resolve(("x-forwarded-host", value)).host == host

    def test_host_of_the_hop(self) -> None:
        lines = x_for(f"{CLIENT}, 10.0.0.2"), ("x-forwarded-host", "evil, outer, inner")
        assert resolve(*lines).host == b"outer"

    @pytest.mark.parametrize(
        ("value", "port"),
        [
            ("443", 443),
            ("80, 8443", 8443),
            ("65535", 65535),
            ("0", None),
            ("65536", None),
            ("-1", None),
            ("+1", None),
            ("4_4", None),
            ("0x50", None),
            ("443x", None),
            ("²", None),
            ("9" * 5000, None),
            ("", None),
        ],
    )
    def test_port(self, value: str, port: int | None) -> None:
        assert resolve(("x-forwarded-port", value)).port == port

    @pytest.mark.parametrize(
        ("value", "prefix"),
        [
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/api/v1.2/~me", "/api/v1.2/~me"),
            ("/.well-known", "/.well-known"),
            ("/...", "/..."),
            ("/", None),
            ("", None),
            ("api", None),
            ("//evil.example", None),
            ("//", None),
            ("/api//v1", None),
            ("/api//", None),
            ("/../api", None),
            ("/api/..", None),
            ("/api/../v1", None),
            ("/./api", None),
            ("/api/.", None),
            ("/api/../", None),
            ("/%2e%2e", None),
            ("/a%20b", None),
            ("/a b", None),
            ("/a\\b", None),
            ("/a?b", None),
            ("/a#b", None),
            ("/a;b", None),
            ("/a\r\nb", None),
            ("/a\n", None),
            ("/a\x00", None),
            ("/a\x7f", None),
            ("/\xe4", None),
            ("https://evil.example/", None),
            ("javascript:alert(1)", None),
        ],
    )
    def test_prefix_is_a_plain_path(self, value: str, prefix: str | None) -> None:
        assert resolve(("x-forwarded-prefix", value)).prefix == prefix

    @pytest.mark.parametrize(
        ("x_forwarded_for", "prefixes", "prefix"),
        [
            (CLIENT, "/evil, /api", "/api"),
            (f"{CLIENT}, 10.0.0.2", "/outer, /inner", "/outer/inner"),
            (f"{CLIENT}, 10.0.0.2", "/evil, /outer, /inner", "/outer/inner"),
            (f"{CLIENT}, 10.0.0.2", "/api", "/api"),
            (f"{CLIENT}, 10.0.0.2", "/, /api", "/api"),
            (f"{CLIENT}, 10.0.0.2", "/../x, /api", None),
        ],
    )
    def test_each_trusted_hop_took_its_part(
        self, x_forwarded_for: str, prefixes: str, prefix: str | None
    ) -> None:
        origin = resolve(x_for(x_forwarded_for), ("x-forwarded-prefix", prefixes))
        assert origin.prefix == prefix

    def test_without_x_forwarded_for_the_client_stays(self) -> None:
        assert resolve(("x-forwarded-host", "example.com")).client == PEER


class TestForwarded:
    @pytest.mark.parametrize(
        ("value", "client", "scheme", "host"),
        [
            (f"for={CLIENT}", (CLIENT, 0), None, None),
            (f"For={CLIENT};Proto=HTTPS;HOST=a.example", (CLIENT, 0), "https", b"a.example"),
            (f"for={CLIENT}; proto=https ;\thost=a", (CLIENT, 0), "https", b"a"),
            (f"for={CLIENT};by=10.0.0.1;secret=x", (CLIENT, 0), None, None),
            (f'for="{CLIENT}:5060"', (CLIENT, 5060), None, None),
            (f"for={CLIENT}:5060;host=a:8443", (CLIENT, 5060), None, b"a:8443"),
            ('for="[2001:db8::7]"', ("2001:db8::7", 0), None, None),
            ('for="[2001:db8::7]:5060"', ("2001:db8::7", 5060), None, None),
            ("for=[2001:db8::7]", ("2001:db8::7", 0), None, None),
            ('for="[2001:db8::7]:_port"', ("2001:db8::7", 0), None, None),
            (r'for="203.0.\113.7"', (CLIENT, 0), None, None),
            (f'for={CLIENT};note="a,b;c\\"d"', (CLIENT, 0), None, None),
            (f'for={CLIENT};note="\\\\"', (CLIENT, 0), None, None),
            (f'for={CLIENT};note="\\\\\\""', (CLIENT, 0), None, None),
            (f'for={CLIENT};note=""', (CLIENT, 0), None, None),
            (f";;for={CLIENT};;", (CLIENT, 0), None, None),
            # the walk
            (f"for=6.6.6.6;proto=http, for={CLIENT};proto=https", (CLIENT, 0), "https", None),
            (f"for={CLIENT};proto=https, for=10.0.0.2;proto=http", (CLIENT, 0), "https", None),
            (f"for={CLIENT}, for=10.0.0.2;proto=https;host=x", (CLIENT, 0), None, None),
            (f'for={CLIENT}, for="[fd00::1]:9"', (CLIENT, 0), None, None),
            (f"for={CLIENT}, for=_edge", (CLIENT, 0), None, None),
            ("for=10.0.0.3;proto=https, for=10.0.0.2", ("10.0.0.3", 0), "https", None),
            (f"for={CLIENT}, , ", (CLIENT, 0), None, None),
            # hidden, and never what is left of it
            ("for=6.6.6.6, for=unknown;proto=https", HIDDEN, "https", None),
            ("for=6.6.6.6, for=_hidden", HIDDEN, None, None),
            ("for=6.6.6.6, for=_SEVKISEK:47011", HIDDEN, None, None),
            ("for=6.6.6.6, for=garbage", HIDDEN, None, None),
            ('for=6.6.6.6, for=""', HIDDEN, None, None),
            # a proxy that keeps its client to itself: the nearest hop known
            ("for=6.6.6.6, proto=https", PEER, "https", None),
            (f"for={CLIENT}, proto=https, for=10.0.0.2", ("10.0.0.2", 0), "https", None),
            ("", PEER, None, None),
            (" , ,", PEER, None, None),
            # quotes left open by an attacker swallow nothing of the proxy's own
            (f'for="6.6.6.6, for={CLIENT}', (CLIENT, 0), None, None),
            (f'for="6.6.6.6\\, for={CLIENT};proto=https', (CLIENT, 0), "https", None),
            ('for=6.6.6.6;a=", for="[2001:db8::7]:1"', ("2001:db8::7", 1), None, None),
            ('for=6.6.6.6;a="\\, for="[2001:db8::7]:1"', ("2001:db8::7", 1), None, None),
            (f'", for={CLIENT};note="x"', (CLIENT, 0), None, None),
            # malformed: nothing of it is believed
            (f'for="{CLIENT}', HIDDEN, None, None),
            (f'for={CLIENT}"', HIDDEN, None, None),
            (f'for="{CLIENT}\\"', HIDDEN, None, None),
            (f"for={CLIENT};for=6.6.6.6", HIDDEN, None, None),
            (f"for={CLIENT};FOR=6.6.6.6", HIDDEN, None, None),
            (f"for={CLIENT};proto=https;proto=http", HIDDEN, None, None),
            (f"for = {CLIENT}", HIDDEN, None, None),
            (f"for={CLIENT} proto=https", HIDDEN, None, None),
            ("for=", HIDDEN, None, None),
            ("for", HIDDEN, None, None),
            ("=", HIDDEN, None, None),
            (CLIENT, HIDDEN, None, None),
            (f"for={CLIENT};proto=h\xe4", HIDDEN, None, None),
            (f"for=6.6.6.6, for={CLIENT};x", HIDDEN, None, None),
            ('"', HIDDEN, None, None),
            ("\\", HIDDEN, None, None),
            # well-formed, and wrong in one value
            (f"for={CLIENT};proto=ftp;host=a", (CLIENT, 0), None, b"a"),
            (f'for={CLIENT};host="a/b";proto=http', (CLIENT, 0), "http", None),
            (f'for={CLIENT};host="u@a"', (CLIENT, 0), None, None),
        ],
    )
    def test_walk(
        self, value: str, client: tuple[str, int] | None, scheme: str | None, host: bytes | None
    ) -> None:
        assert resolve(("forwarded", value)) == Origin(client, scheme, host, None, None)

    def test_lines_are_joined_in_order(self) -> None:
        origin = resolve(("forwarded", 'for="6.6.6.6'), ("forwarded", f"for={CLIENT}"))
        assert origin.client == (CLIENT, 0)

    def test_trusting_everybody_takes_the_leftmost(self) -> None:
        origin = resolve(
            ("forwarded", f"for={CLIENT};proto=https, for=6.6.6.6;proto=http"),
            trusted=TrustedProxies("*"),
        )
        assert origin == Origin((CLIENT, 0), "https", None, None, None)

    @pytest.mark.parametrize(
        "text", ['"' * 60000, '\\"' * 30000, "," * 60000, ";" * 60000, "\\" * 60000]
    )
    def test_a_long_header_costs_no_more_than_its_length(self, text: str) -> None:
        """Counted, not timed: every character is looked at a bounded number of times."""
        looked_at = 0

        class Text(str):
            __slots__ = ()

            def __getitem__(self, key: Any) -> str:
                nonlocal looked_at
                part = str.__getitem__(self, key)
                looked_at += len(part)
                return part

        list(forwarded._elements_from_the_right(Text(text)))
        assert looked_at <= 4 * len(text)


class TestBothFamilies:
    """A proxy overwrites the one it knows; a client may have added the other."""

    def test_x_forwarded_wins_whatever_the_order(self) -> None:
        ours = [x_for(CLIENT), ("x-forwarded-proto", "https")]
        theirs = ("forwarded", "for=6.6.6.6;proto=http;host=evil.example")
        expected = Origin((CLIENT, 0), "https", None, None, None)
        assert resolve(theirs, *ours) == expected
        assert resolve(*ours, theirs) == expected

    @pytest.mark.parametrize("name", ["for", "proto", "host", "port", "prefix"])
    def test_facts_are_never_mixed(self, name: str) -> None:
        """Not even where the X-Forwarded-* that is there says nothing usable."""
        origin = resolve(
            ("forwarded", "for=6.6.6.6;proto=https;host=evil"), (f"x-forwarded-{name}", "")
        )
        assert origin == Origin(PEER, None, None, None, None)


def scope(**more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "http",
        "path": "/users",
        "raw_path": b"/users",
        "root_path": "",
        "headers": [(b"accept", b"*/*"), (b"host", b"inner:8000"), (b"x-a", b"1")],
        "client": PEER,
        "server": ("10.0.0.9", 8000),
        **more,
    }


class TestApply:
    def test_everything(self) -> None:
        it = scope()
        apply(it, Origin((CLIENT, 7), "https", b"example.com", None, "/api"))
        assert it == scope(
            client=(CLIENT, 7),
            scheme="https",
            server=("example.com", 443),
            headers=[(b"host", b"example.com"), (b"accept", b"*/*"), (b"x-a", b"1")],
            root_path="/api",
            path="/api/users",
        )

    def test_nothing_said_changes_nothing(self) -> None:
        it = scope()
        apply(it, Origin(PEER, None, None, None, None))
        assert it == scope()

    def test_a_hidden_client_is_none(self) -> None:
        it = scope()
        apply(it, Origin(None, None, None, None, None))
        assert it["client"] is None

    @pytest.mark.parametrize(("said", "scheme"), [("https", "wss"), ("http", "ws")])
    def test_websocket_scheme(self, said: str, scheme: str) -> None:
        it = scope(type="websocket", scheme="ws")
        apply(it, Origin(PEER, said, b"a", None, None))
        assert it["scheme"] == scheme
        assert it["server"] == ("a", 443 if said == "https" else 80)

    @pytest.mark.parametrize(
        ("host", "port", "server"),
        [
            (b"a", None, ("a", 80)),
            (b"a:81", None, ("a", 81)),
            (b"a:81", 82, ("a", 82)),
            (b"[2001:db8::1]", None, ("2001:db8::1", 80)),
            (b"[2001:db8::1]:81", None, ("2001:db8::1", 81)),
            (None, 82, ("10.0.0.9", 82)),
        ],
    )
    def test_server(self, host: bytes | None, port: int | None, server: tuple[str, int]) -> None:
        it = scope()
        apply(it, Origin(PEER, None, host, port, None))
        assert it["server"] == server

    @pytest.mark.parametrize("server", [("/run/app.sock", None), None])
    def test_a_port_is_not_put_on_a_unix_socket(self, server: tuple[str, None] | None) -> None:
        it = scope(server=server)
        apply(it, Origin(None, None, None, 443, None))
        assert it["server"] == server

    def test_the_port_does_not_touch_the_host_header(self) -> None:
        it = scope()
        apply(it, Origin(PEER, None, b"a", 8080, None))
        assert it["headers"][0] == (b"host", b"a")

    def test_other_host_lines_go_and_the_list_given_stays(self) -> None:
        headers = [(b"host", b"a"), (b"host", b"b"), (b"x-forwarded-host", b"c")]
        it = scope(headers=headers)
        apply(it, Origin(PEER, None, b"c", None, None))
        assert it["headers"] == [(b"host", b"c"), (b"x-forwarded-host", b"c")]
        assert headers == [(b"host", b"a"), (b"host", b"b"), (b"x-forwarded-host", b"c")]

    def test_19_path_includes_the_prefix_and_17_raw_path_is_as_received(self) -> None:
        it = scope(path="/a b", raw_path=b"/a%20b")
        apply(it, Origin(PEER, None, None, None, "/api"))
        assert (it["root_path"], it["path"], it["raw_path"]) == ("/api", "/api/a b", b"/a%20b")

    def test_a_path_that_looks_prefixed_is_prefixed_all_the_same(self) -> None:
        """Else /api/api/admin, stripped once, would reach /admin past the proxy's rules."""
        it = scope(path="/api/admin")
        apply(it, Origin(PEER, None, None, None, "/api"))
        assert it["path"] == "/api/api/admin"

    def test_the_header_takes_the_place_of_a_configured_root_path(self) -> None:
        it = scope(root_path="/base", path="/base/users")
        apply(it, Origin(PEER, None, None, None, "/api"))
        assert (it["root_path"], it["path"]) == ("/api", "/api/users")

    def test_the_asterisk_is_no_path(self) -> None:
        it = scope(path="*")
        apply(it, Origin(PEER, None, None, None, "/api"))
        assert it["path"] == "*"

    def test_rewrite_reads_the_scope_itself(self) -> None:
        it = scope(headers=[(b"host", b"a"), (b"x-forwarded-for", CLIENT.encode())])
        assert TRUSTED.rewrite(it) is True
        assert it["client"] == (CLIENT, 0)
        untouched = scope()
        assert TRUSTED.rewrite(untouched) is False
        assert untouched == scope()


HOSTILE = st.text(
    alphabet=st.one_of(
        st.sampled_from('",;=\\:[]%_/.* \tfor0123456789abunix'), st.characters(max_codepoint=255)
    ),
    max_size=60,
)
NAMES = st.sampled_from(sorted(forwarded._NAMES))


class TestProperties:
    @given(st.lists(st.tuples(NAMES, HOSTILE), max_size=6), st.booleans())
    def test_nothing_raises_and_only_sound_things_come_out(
        self, lines: list[tuple[bytes, str]], everybody: bool
    ) -> None:
        headers = [(name, value.encode("latin-1")) for name, value in lines]
        trusted = TrustedProxies("*") if everybody else TRUSTED
        origin = trusted.resolve(headers, PEER)
        assert (origin is None) == (not headers)
        if origin is not None:
            assert origin.scheme in (None, "http", "https")
            it = scope()
            apply(it, origin)
            assert it["path"].endswith("/users") and not it["path"].startswith("//")
            assert it["client"] is None or forwarded._pack(it["client"][0]) is not None

    @given(HOSTILE)
    def test_nothing_written_on_the_left_moves_x_forwarded_for(self, left: str) -> None:
        assert resolve(x_for(f"{left}, {CLIENT}, 10.0.0.2")).client == (CLIENT, 0)

    @given(HOSTILE)
    def test_nothing_written_on_the_left_moves_forwarded(self, left: str) -> None:
        own = f'for="{CLIENT}:9";proto=https;host="a:1"'
        expected = Origin((CLIENT, 9), "https", b"a:1", None, None)
        assert resolve(("forwarded", f"{left}, {own}")) == expected
        assert resolve(("forwarded", left), ("forwarded", f'{own}, for="[fd00::1]"')) == expected

    @given(st.ip_addresses(), st.integers(0, 65535))
    def test_every_address_comes_through(self, address: Any, port: int) -> None:
        text = f"[{address}]" if address.version == 6 else str(address)
        client = resolve(("forwarded", f'for="{text}:{port}"'), trusted=TrustedProxies("")).client
        assert client is not None and client[1] == port
        mapped = getattr(address, "ipv4_mapped", None)
        assert forwarded._pack(client[0]) == (mapped or address).packed
