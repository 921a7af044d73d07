"""Malformed and ambiguous requests, and what each must get: data, judged by the RFCs alone.

A row names the section that condemns it, the bytes, the status (several only where the RFC leaves
the choice open) and what the application may see. Every connection must end after the answer:
nothing that follows a fault can be trusted. Rows about framing therefore drag a second request
behind them, which must never be answered.

Sections are RFC 9112's unless they begin with "9110" or "6585".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Seen(Enum):
    """What the application may know of the request."""

    NOTHING = "it is not called"
    BROKEN_BODY = "it may be called, but never sees the end of the body"


@dataclass(frozen=True, slots=True)
class Case:
    id: str
    section: str
    raw: bytes
    status: frozenset[int] = frozenset({400})
    seen: Seen = Seen.NOTHING


HOST = b"Host: example.com\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
DELIMITERS = b'"(),/:;<=>?@[\\]{}'
CONTROLS = bytes(code for code in [*range(0x20), 0x7F] if code not in b"\t\r\n")
CASES: list[Case] = []


def add(id: str, section: str, raw: bytes, *status: int, seen: Seen = Seen.NOTHING) -> None:
    CASES.append(Case(id, section, raw, frozenset(status or {400}), seen))


def line(id: str, section: str, request_line: bytes, *status: int) -> None:
    """A faulty request line over a faultless rest."""
    add(f"line-{id}", section, request_line + b"\r\n" + HOST + b"\r\n", *status)


def fields(id: str, section: str, lines: bytes, *status: int) -> None:
    """Faulty field lines (without the last CRLF) in a faultless request."""
    add(f"field-{id}", section, b"GET / HTTP/1.1\r\n" + HOST + lines + b"\r\n\r\n", *status)


def host(id: str, value: bytes, *status: int) -> None:
    add(f"host-{id}", "3.2", b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", *status)


def framing(id: str, section: str, lines: bytes, *status: int, body: bytes = b"hello") -> None:
    """A request whose length is in doubt, with another behind it."""
    head = b"POST / HTTP/1.1\r\n" + HOST + lines + b"\r\n\r\n"
    add(f"framing-{id}", section, head + body + SMUGGLED, *status)


def chunked(id: str, section: str, body: bytes, *status: int) -> None:
    """A faulty chunked body: the head is good, so the application may already be at work."""
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    add(f"chunked-{id}", section, head + body + SMUGGLED, *status, seen=Seen.BROKEN_BODY)


# 2.2 Message parsing: line ends, and what stands before the first line

add("bare-lf-everywhere", "2.2", b"GET / HTTP/1.1\nHost: example.com\n\n")
add("bare-lf-after-request-line", "2.2", b"GET / HTTP/1.1\n" + HOST + b"\r\n")
add("bare-lf-after-field", "2.2", b"GET / HTTP/1.1\r\nHost: example.com\nX: y\r\n\r\n")
add("bare-lf-ends-head", "2.2", b"GET / HTTP/1.1\r\n" + HOST + b"\n" + SMUGGLED)
add("two-bare-lf-end-head", "2.2", b"GET / HTTP/1.1\r\nHost: example.com\n\n" + SMUGGLED)
add("lf-crlf-ends-head", "2.2", b"GET / HTTP/1.1\r\nHost: example.com\n\r\n" + SMUGGLED)
add("bare-lf-before-request-line", "2.2", b"\nGET / HTTP/1.1\r\n" + HOST + b"\r\n")
add("bare-cr-before-request-line", "2.2", b"\rGET / HTTP/1.1\r\n" + HOST + b"\r\n")
add("bare-cr-ends-lines", "2.2", b"GET / HTTP/1.1\rHost: example.com\r\r" + SMUGGLED)
add("bare-cr-after-version", "2.2", b"GET / HTTP/1.1\r" + HOST + b"\r\n")
add("cr-cr-lf-after-request-line", "2.2", b"GET / HTTP/1.1\r\r\n" + HOST + b"\r\n")
add("cr-cr-lf-after-field", "2.2", b"GET / HTTP/1.1\r\nHost: example.com\r\r\n\r\n")
add("cr-cr-lf-ends-head", "2.2", b"GET / HTTP/1.1\r\n" + HOST + b"\r\r\n" + SMUGGLED)
add("cr-then-text-ends-head", "2.2", b"GET / HTTP/1.1\r\n" + HOST + b"\rX: y\r\n\r\n")
add("space-before-request-line", "2.2", b" GET / HTTP/1.1\r\n" + HOST + b"\r\n")
add("blank-looking-first-line", "2.2", b" \r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n")
add("endless-blank-lines", "2.2", b"\r\n" * 40_000 + b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
add("space-before-first-field", "2.2", b"GET / HTTP/1.1\r\n " + HOST + b"\r\n")
add("tab-before-first-field", "2.2", b"GET / HTTP/1.1\r\n\t" + HOST + b"\r\n")
add("white-line-before-first-field", "2.2", b"GET / HTTP/1.1\r\n  \r\n" + HOST + b"\r\n")
add("byte-order-mark", "2.2", b"\xef\xbb\xbfGET / HTTP/1.1\r\n" + HOST + b"\r\n")
add("utf-16", "2.2", "GET / HTTP/1.1\r\n\r\n".encode("utf-16-le") + b"\r\n\r\n")
add(
    "tls-hello", "2.2", b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03" + b"\x7e" * 40 + b"\r\n\r\n"
)
add("ssh-hello", "2.2", b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
add("smtp-hello", "2.2", b"EHLO example.com\r\n\r\n")
add("a-response", "2.2", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
add("proxy-header-unasked", "2.2", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + SMUGGLED)
add("json-line", "2.2", b'{"jsonrpc": "2.0"}\r\n\r\n')

# 2.3 HTTP version

line("version-2.0", "2.3", b"GET / HTTP/2.0", 505)
line("version-3.0", "2.3", b"GET / HTTP/3.0", 505)
line("version-9.9", "2.3", b"GET / HTTP/9.9", 505)
line("version-0.9", "2.3", b"GET / HTTP/0.9", 400, 505)
line("version-without-minor", "2.3", b"GET / HTTP/1")
line("version-empty-minor", "2.3", b"GET / HTTP/1.")
line("version-empty-major", "2.3", b"GET / HTTP/.1")
line("version-two-digit-minor", "2.3", b"GET / HTTP/1.10")
line("version-two-digit-major", "2.3", b"GET / HTTP/11.1")
line("version-leading-zero", "2.3", b"GET / HTTP/01.1")
line("version-three-parts", "2.3", b"GET / HTTP/1.1.1")
line("version-comma", "2.3", b"GET / HTTP/1,1")
line("version-letters", "2.3", b"GET / HTTP/x.y")
line("version-arabic-digits", "2.3", "GET / HTTP/١.١".encode())
line("version-negative", "2.3", b"GET / HTTP/-1.1")
line("version-lower-case", "2.3", b"GET / http/1.1")
line("version-mixed-case", "2.3", b"GET / Http/1.1")
line("version-space-before-slash", "2.3", b"GET / HTTP /1.1")
line("version-space-after-slash", "2.3", b"GET / HTTP/ 1.1")
line("version-space-in-number", "2.3", b"GET / HTTP/1. 1")
line("version-no-slash", "2.3", b"GET / HTTP1.1")
line("version-backslash", "2.3", b"GET / HTTP\\1.1")
line("version-other-name", "2.3", b"GET / HTTPS/1.1")
line("version-rtsp", "2.3", b"DESCRIBE / RTSP/1.0")
line("version-icecast", "2.3", b"SOURCE /stream ICE/1.0")
line("version-nul-behind", "2.3", b"GET / HTTP/1.1\x00")
line("version-too-long", "2.3", b"GET / HTTP/1." + b"1" * 10_000, 400, 414)
add("http-0.9-request", "2.3", b"GET /\r\n\r\n")

# 3 Request line

line("empty-method", "3", b" / HTTP/1.1")
line("only-method", "3", b"GET")
line("method-and-space", "3", b"GET ")
line("no-target", "3", b"GET HTTP/1.1")
line("empty-target", "3", b"GET  HTTP/1.1")
line("two-spaces-after-method", "3", b"GET  / HTTP/1.1")
line("two-spaces-before-version", "3", b"GET /  HTTP/1.1")
line("tab-after-method", "3", b"GET\t/ HTTP/1.1")
line("tab-before-version", "3", b"GET /\tHTTP/1.1")
line("vertical-tab-before-version", "3", b"GET /\x0bHTTP/1.1")
line("form-feed-after-method", "3", b"GET\x0c/ HTTP/1.1")
line("cr-after-method", "3", b"GET\r/ HTTP/1.1")
line("no-break-space", "3", b"GET\xa0/ HTTP/1.1")
line("trailing-space", "3", b"GET / HTTP/1.1 ")
line("trailing-tab", "3", b"GET / HTTP/1.1\t")
line("fourth-word", "3", b"GET / HTTP/1.1 HTTP/1.1")
line("second-target", "3", b"GET /a /b HTTP/1.1")
for code in DELIMITERS:
    line(f"method-with-{code:#04x}", "9110 9.1", b"G%cT / HTTP/1.1" % code)
for code in (0x00, 0x01, 0x0B, 0x1B, 0x7F, 0x80, 0xC9, 0xFF):
    line(f"method-with-{code:#04x}", "9110 9.1", b"G%cT / HTTP/1.1" % code)
line("method-too-long", "3.1", b"G" * 20_000 + b" / HTTP/1.1", 400, 501)
add("line-method-without-end", "3.1", b"G" * 200_000, 400, 501)

# 3.2 Request target

for code in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1F, 0x7F, 0x80, 0xA0, 0xC3, 0xFF):
    line(f"target-with-{code:#04x}", "3.2", b"GET /a%cb HTTP/1.1" % code)
    line(f"query-with-{code:#04x}", "3.2", b"GET /?a%cb HTTP/1.1" % code)
line("target-with-space", "3.2", b"GET /a b HTTP/1.1")
line("target-with-tab", "3.2", b"GET /a\tb HTTP/1.1")
line("target-with-utf-8", "3.2", "GET /café HTTP/1.1".encode())
line("target-with-fragment", "3.2", b"GET /a#b HTTP/1.1")
line("target-only-fragment", "3.2", b"GET # HTTP/1.1")
line("query-with-fragment", "3.2", b"GET /?a#b HTTP/1.1")
line("target-too-long", "3", b"GET /" + b"a" * 8_192 + b" HTTP/1.1", 414)
line("query-too-long", "3", b"GET /?" + b"a" * 200_000 + b" HTTP/1.1", 414)
add("line-target-without-end", "3", b"GET /" + b"a" * 200_000, 414)
line("relative-target", "3.2.1", b"GET index.html HTTP/1.1")
line("dot-target", "3.2.1", b"GET ./a HTTP/1.1")
line("query-without-path", "3.2.1", b"GET ?a=b HTTP/1.1")
line("percent-slash", "3.2.1", b"GET %2Fa HTTP/1.1")
line("backslash-target", "3.2.1", b"GET \\a HTTP/1.1")
line("asterisk-with-get", "3.2.4", b"GET * HTTP/1.1")
line("asterisk-with-post", "3.2.4", b"POST * HTTP/1.1")
line("asterisk-and-more", "3.2.4", b"OPTIONS *a HTTP/1.1")
line("asterisk-and-query", "3.2.4", b"OPTIONS *?a HTTP/1.1")
line("two-asterisks", "3.2.4", b"OPTIONS ** HTTP/1.1")

# 3.2.2 Absolute form; its authority obeys RFC 9110 4.2

line("absolute-empty-host", "9110 4.2.1", b"GET http:///a HTTP/1.1")
line("absolute-only-port", "9110 4.2.1", b"GET http://:80/a HTTP/1.1")
line("absolute-no-authority", "9110 4.2.1", b"GET http:/a HTTP/1.1")
line("absolute-no-slashes", "9110 4.2.1", b"GET http:a HTTP/1.1")
line("absolute-only-scheme", "9110 4.2.1", b"GET http:// HTTP/1.1")
line("absolute-no-scheme", "3.2.2", b"GET ://example.com/ HTTP/1.1")
line("absolute-scheme-with-digit-first", "3.2.2", b"GET 1http://example.com/ HTTP/1.1")
line("absolute-userinfo", "9110 4.2.4", b"GET http://user@example.com/ HTTP/1.1")
line("absolute-password", "9110 4.2.4", b"GET http://user:pass@example.com/ HTTP/1.1")
line("absolute-bad-port", "3.2.2", b"GET http://example.com:8a/ HTTP/1.1")
line("absolute-negative-port", "3.2.2", b"GET http://example.com:-1/ HTTP/1.1")
line("absolute-two-ports", "3.2.2", b"GET http://example.com:80:80/ HTTP/1.1")
line("absolute-open-bracket", "3.2.2", b"GET http://[::1/ HTTP/1.1")
line("absolute-bad-ipv6", "3.2.2", b"GET http://[::zz]/ HTTP/1.1")
line("absolute-backslash-in-host", "3.2.2", b"GET http://example.com\\a/ HTTP/1.1")
line("absolute-fragment", "3.2.2", b"GET http://example.com/#a HTTP/1.1")
line("absolute-space", "3.2.2", b"GET http://exam ple.com/ HTTP/1.1")
line("absolute-other-scheme", "3.2.2", b"GET ftp://example.com/ HTTP/1.1", 400, 421)
add("absolute-without-host", "3.2", b"GET http://example.com/ HTTP/1.1\r\n\r\n")
add("absolute-with-bad-host", "3.2", b"GET http://example.com/ HTTP/1.1\r\nHost: a b\r\n\r\n")
add("absolute-two-hosts", "3.2", b"GET http://example.com/ HTTP/1.1\r\n" + HOST * 2 + b"\r\n")

# 3.2.3 Authority form: for CONNECT alone, and no origin server makes tunnels (RFC 9110 9.3.6)

line("authority-with-get", "3.2.3", b"GET example.com:80 HTTP/1.1")
line("authority-with-options", "3.2.3", b"OPTIONS example.com:80 HTTP/1.1")
line("connect", "9110 9.3.6", b"CONNECT example.com:443 HTTP/1.1", 501)
line("connect-ipv6", "9110 9.3.6", b"CONNECT [::1]:443 HTTP/1.1", 501)
line("connect-without-port", "9110 9.3.6", b"CONNECT example.com HTTP/1.1", 400, 501)
line("connect-empty-port", "9110 9.3.6", b"CONNECT example.com: HTTP/1.1", 400, 501)
line("connect-path", "9110 9.3.6", b"CONNECT / HTTP/1.1", 400, 501)
add(
    "connect-then-request",
    "9110 9.3.6",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + SMUGGLED,
    501,
)

# 3.2 Host

add("host-missing", "3.2", b"GET / HTTP/1.1\r\n\r\n")
add("host-missing-among-others", "3.2", b"GET / HTTP/1.1\r\nAccept: */*\r\nX-Host: a\r\n\r\n")
add("host-missing-http-1.2", "3.2", b"GET / HTTP/1.2\r\n\r\n")
add("host-twice-same", "3.2", b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n")
add("host-twice-different", "3.2", b"GET / HTTP/1.1\r\n" + HOST + b"Host: b\r\n\r\n")
add("host-twice-other-case", "3.2", b"GET / HTTP/1.1\r\n" + HOST + b"hOST: b\r\n\r\n")
add("host-twice-apart", "3.2", b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\nHost: b\r\n\r\n")
add("host-twice-one-empty", "3.2", b"GET / HTTP/1.1\r\n" + HOST + b"Host:\r\n\r\n")
add("host-twice-http-1.0", "3.2", b"GET / HTTP/1.0\r\n" + HOST + b"Host: b\r\n\r\n")
add("host-bad-http-1.0", "3.2", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n")
host("with-space", b"exam ple.com")
host("with-tab", b"exam\tple.com")
host("with-comma", b"a.example,b.example")
host("with-comma-and-space", b"a.example, b.example")
host("with-userinfo", b"user@example.com")
host("with-password", b"user:pass@example.com")
host("with-scheme", b"http://example.com")
host("with-path", b"example.com/a")
host("with-query", b"example.com?a")
host("with-fragment", b"example.com#a")
host("with-backslash", b"example.com\\a")
host("with-quotes", b'"example.com"')
host("with-angle-brackets", b"<script>")
host("with-braces", b"{host}")
host("with-caret", b"a^b")
host("with-pipe", b"a|b")
host("with-backtick", b"a`b")
host("with-nul", b"example.com\x00")
host("with-obs-text", b"ex\xe4mple.com")
host("with-utf-8", "exämple.com".encode())
host("with-bad-percent", b"exam%zzple.com")
host("with-cut-percent", b"example.com%2")
host("port-letters", b"example.com:http")
host("port-negative", b"example.com:-80")
host("port-plus", b"example.com:+80")
host("port-hexadecimal", b"example.com:0x50")
host("port-twice", b"example.com:80:80")
host("port-space", b"example.com: 80")
host("port-arabic-digits", "example.com:٨٠".encode())
host("ipv6-bare", b"::1")
host("ipv6-open", b"[::1")
host("ipv6-closed-only", b"::1]")
host("ipv6-empty", b"[]")
host("ipv6-then-text", b"[::1]a")
host("ipv6-letters", b"[::zz]")
host("ipv6-too-long", b"[1:2:3:4:5:6:7:8:9]")
host("ipv6-two-gaps", b"[1::2::3]")
host("ipv6-port-letters", b"[::1]:a")
host("name-in-brackets", b"[example.com]")

# 5 Field syntax

fields("no-colon", "5", b"Accept")
fields("no-colon-with-value", "5", b"Accept text/html")
fields("empty-name", "5.1", b": value")
fields("only-colon", "5.1", b":")
fields("space-before-colon", "5.1", b"X-A : b")
fields("tab-before-colon", "5.1", b"X-A\t: b")
fields("space-before-colon-of-length", "5.1", b"Content-Length : 5")
fields("space-before-colon-of-coding", "5.1", b"Transfer-Encoding : chunked")
fields("space-in-name", "5.1", b"X A: b")
fields("request-line-again", "5.1", b"GET / HTTP/1.1")
for code in DELIMITERS.replace(b":", b""):
    fields(f"name-with-{code:#04x}", "9110 5.1", b"X%cA: b" % code)
for code in (0x00, 0x01, 0x0B, 0x0C, 0x1F, 0x7F, 0x80, 0xE9, 0xFF):
    fields(f"name-with-{code:#04x}", "9110 5.1", b"X%cA: b" % code)
for code in CONTROLS:
    fields(f"value-with-{code:#04x}", "9110 5.5", b"X-A: b%cc" % code)
fields("value-ends-in-nul", "9110 5.5", b"X-A: b\x00")
fields("value-begins-with-nul", "9110 5.5", b"X-A:\x00b")
fields("value-with-cr", "9110 5.5", b"X-A: b\rc")
fields("value-with-cr-and-field", "9110 5.5", b"X-A: b\rContent-Length: 5")
fields("value-with-lf-and-field", "9110 5.5", b"X-A: b\nX-B: c")
fields("fold-with-space", "5.2", b"X-A: b\r\n c")
fields("fold-with-tab", "5.2", b"X-A: b\r\n\tc")
fields("fold-of-nothing", "5.2", b"X-A: b\r\n ")
fields("fold-of-empty-value", "5.2", b"X-A:\r\n b")
fields("fold-looks-like-field", "5.2", b"X-A: b\r\n Content-Length: 5")
fields("fold-hides-coding", "5.2", b"Transfer-Encoding:\r\n chunked")
fields("fold-hides-length", "5.2", b"Content-Length:\r\n 5")
add("fold-of-host", "5.2", b"GET / HTTP/1.1\r\nHost: example.com\r\n .evil\r\n\r\n")
fields("too-many", "6585 5", b"\r\n".join(b"X-%d: y" % n for n in range(100)), 431)
fields("too-long", "6585 5", b"X-A: " + b"b" * 65_536, 431)
fields("name-too-long", "6585 5", b"X" * 70_000 + b": b", 431)
fields("too-long-together", "6585 5", b"\r\n".join([b"X-A: " + b"b" * 1_000] * 70), 431)
add("field-without-end", "6585 5", b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"b" * 200_000, 431)
add("fields-without-end", "6585 5", b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 50_000, 431)

# 6.1 Transfer-Encoding

framing("chunked-not-last", "6.3", b"Transfer-Encoding: chunked, gzip")
framing(
    "chunked-not-last-two-lines", "6.3", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip"
)
framing("coding-gzip", "6.3", b"Transfer-Encoding: gzip")
framing("coding-identity", "6.3", b"Transfer-Encoding: identity")
framing("chunked-then-identity", "6.3", b"Transfer-Encoding: chunked, identity")
framing("coding-unknown", "6.3", b"Transfer-Encoding: cow")
framing("coding-xchunked", "6.3", b"Transfer-Encoding: xchunked")
framing("coding-chunkedx", "6.3", b"Transfer-Encoding: chunkedx")
framing("coding-chunked-space-x", "6.3", b"Transfer-Encoding: chunked x")
framing("coding-quoted", "6.3", b'Transfer-Encoding: "chunked"')
framing("coding-apostrophes", "6.3", b"Transfer-Encoding: 'chunked'")
framing("coding-semicolon", "6.3", b"Transfer-Encoding: chunked;")
framing("coding-parameter", "7.1", b"Transfer-Encoding: chunked;q=1")
framing("coding-empty", "6.3", b"Transfer-Encoding:")
framing("coding-comma-only", "6.3", b"Transfer-Encoding: ,")
framing("coding-vertical-tab", "9110 5.5", b"Transfer-Encoding: \x0bchunked")
framing("coding-no-break-space", "6.3", b"Transfer-Encoding: \xa0chunked")
framing("coding-kelvin-sign", "6.3", "Transfer-Encoding: chun\u212aed".encode())
framing("chunked-twice", "6.1", b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")
framing("chunked-twice-two-lines", "6.1", b"\r\n".join([b"Transfer-Encoding: chunked"] * 2))
framing("gzip-then-chunked", "6.1", b"Transfer-Encoding: gzip, chunked", 501, body=b"0\r\n\r\n")
framing(
    "gzip-then-chunked-two-lines",
    "6.1",
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    501,
)
framing("unknown-then-chunked", "6.1", b"Transfer-Encoding: cow, chunked", 501, body=b"0\r\n\r\n")
for version in (b"1.0", b"1.0\r\nConnection: keep-alive"):
    head = b"POST / HTTP/" + version + b"\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    id = "framing-chunked-in-http-1.0" + ("-kept-alive" if b"keep" in version else "")
    add(id, "6.1", head + b"0\r\n\r\n" + SMUGGLED)

# 6.2 Content-Length, and 6.3 both at once

BOTH = b"0\r\n\r\n"
CODING = b"Transfer-Encoding: chunked"
framing("coding-and-length", "6.3", CODING + b"\r\nContent-Length: 5", body=BOTH)
framing("length-and-coding", "6.3", b"Content-Length: 5\r\n" + CODING, body=BOTH)
framing("coding-and-length-zero", "6.3", CODING + b"\r\nContent-Length: 0", body=BOTH)
framing("coding-and-bad-length", "6.3", CODING + b"\r\nContent-Length: x", body=BOTH)
framing("gzip-and-length", "6.3", b"Transfer-Encoding: gzip\r\nContent-Length: 5")
framing("identity-and-length", "6.3", b"Transfer-Encoding: identity\r\nContent-Length: 5")
framing("bad-coding-and-length", "6.3", b"Transfer-Encoding: xchunked\r\nContent-Length: 5")
framing("empty-coding-and-length", "6.3", b"Transfer-Encoding:\r\nContent-Length: 5")
framing("lengths-differ", "6.3", b"Content-Length: 5\r\nContent-Length: 6")
framing("lengths-same", "6.3", b"Content-Length: 5\r\nContent-Length: 5")
framing("lengths-differ-in-zeros", "6.3", b"Content-Length: 5\r\nContent-Length: 05")
framing("lengths-one-empty", "6.3", b"Content-Length: 5\r\nContent-Length:")
framing("lengths-list-differs", "6.3", b"Content-Length: 5, 6")
framing("lengths-list-same", "6.3", b"Content-Length: 5, 5")
framing("lengths-list-no-space", "6.3", b"Content-Length: 5,5")
framing("length-leading-comma", "6.2", b"Content-Length: ,5")
framing("length-trailing-comma", "6.2", b"Content-Length: 5,")
framing("length-empty", "6.2", b"Content-Length:")
framing("length-plus", "6.2", b"Content-Length: +5")
framing("length-minus", "6.2", b"Content-Length: -5")
framing("length-minus-zero", "6.2", b"Content-Length: -0")
framing("length-hexadecimal", "6.2", b"Content-Length: 0x5")
framing("length-hexadecimal-digit", "6.2", b"Content-Length: a")
framing("length-octal", "6.2", b"Content-Length: 0o5")
framing("length-underscore", "6.2", b"Content-Length: 0_5")
framing("length-decimal-point", "6.2", b"Content-Length: 5.0")
framing("length-exponent", "6.2", b"Content-Length: 5e0")
framing("length-inner-space", "6.2", b"Content-Length: 5 5")
framing("length-semicolon", "6.2", b"Content-Length: 5;")
framing("length-quoted", "6.2", b'Content-Length: "5"')
framing("length-word", "6.2", b"Content-Length: five")
framing("length-bytes-unit", "6.2", b"Content-Length: 5B")
framing("length-arabic-digit", "6.2", "Content-Length: ٥".encode())
framing("length-wide-digit", "6.2", "Content-Length: ５".encode())
framing("length-superscript-digit", "6.2", b"Content-Length: \xb2")
framing("length-no-break-space", "6.2", b"Content-Length: \xa05")
framing("length-vertical-tab", "6.2", b"Content-Length: \x0b5")
framing("length-nul", "6.2", b"Content-Length: 5\x00")
framing("length-beyond-limit", "6.2", b"Content-Length: 1099511627776", 413)
framing("length-wraps-32-bits", "6.2", b"Content-Length: 4294967301", 413)
framing("length-wraps-64-bits", "6.2", b"Content-Length: 18446744073709551621", 400, 413)
framing("length-absurd", "6.2", b"Content-Length: " + b"9" * 5_000, 400, 413)

# 7.1 Chunked coding

chunked("size-empty", "7.1", b"\r\nhello\r\n0\r\n\r\n")
chunked("size-not-hexadecimal", "7.1", b"g\r\nhello\r\n0\r\n\r\n")
chunked("size-prefixed", "7.1", b"0x5\r\nhello\r\n0\r\n\r\n")
chunked("size-plus", "7.1", b"+5\r\nhello\r\n0\r\n\r\n")
chunked("size-minus", "7.1", b"-5\r\nhello\r\n0\r\n\r\n")
chunked("size-minus-zero", "7.1", b"-0\r\n\r\n")
chunked("size-underscore", "7.1", b"0_5\r\nhello\r\n0\r\n\r\n")
chunked("size-decimal-point", "7.1", b"5.0\r\nhello\r\n0\r\n\r\n")
chunked("size-comma", "7.1", b"5,5\r\nhello\r\n0\r\n\r\n")
chunked("size-leading-space", "7.1", b" 5\r\nhello\r\n0\r\n\r\n")
chunked("size-leading-tab", "7.1", b"\t5\r\nhello\r\n0\r\n\r\n")
chunked("size-trailing-space", "7.1", b"5 \r\nhello\r\n0\r\n\r\n")
chunked("size-trailing-tab", "7.1", b"5\t\r\nhello\r\n0\r\n\r\n")
chunked("size-inner-space", "7.1", b"0 5\r\nhello\r\n0\r\n\r\n")
chunked("size-nul", "7.1", b"5\x00\r\nhello\r\n0\r\n\r\n")
chunked("size-vertical-tab", "7.1", b"\x0b5\r\nhello\r\n0\r\n\r\n")
chunked("size-arabic-digit", "7.1", "٥\r\nhello\r\n0\r\n\r\n".encode())
chunked("size-wraps-64-bits", "7.1", b"10000000000000005\r\nhello\r\n0\r\n\r\n", 400, 413)
chunked("size-64-bits", "7.1", b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", 400, 413)
chunked("size-beyond-limit", "7.1", b"fffffffff\r\nhello\r\n0\r\n\r\n", 413)
chunked("size-endless-digits", "7.1", b"1" * 100_000 + b"\r\nhello\r\n0\r\n\r\n", 400, 413)
chunked("size-endless-zeros", "7.1", b"0" * 100_000 + b"\r\n\r\n")
chunked("bare-lf-after-size", "7.1", b"5\nhello\r\n0\r\n\r\n")
chunked("bare-cr-after-size", "7.1", b"5\rhello\r\n0\r\n\r\n")
chunked("cr-cr-lf-after-size", "7.1", b"5\r\r\nhello\r\n0\r\n\r\n")
chunked("data-longer-than-size", "7.1", b"5\r\nhello!\r\n0\r\n\r\n")
chunked("data-shorter-than-size", "7.1", b"6\r\nhello\r\n0\r\n\r\n")
chunked("data-without-line-end", "7.1", b"5\r\nhello0\r\n\r\n")
chunked("data-ends-in-lf", "7.1", b"5\r\nhello\n0\r\n\r\n")
chunked("data-ends-in-cr", "7.1", b"5\r\nhello\r0\r\n\r\n")
chunked("data-ends-in-two-crs", "7.1", b"5\r\nhello\r\r\n0\r\n\r\n")
chunked("data-ends-in-other-bytes", "7.1", b"5\r\nhelloXX0\r\n\r\n")
chunked("second-chunk-bad", "7.1", b"5\r\nhello\r\nzz\r\n\r\n")
chunked("last-chunk-bare-lf", "7.1", b"5\r\nhello\r\n0\n\r\n")
chunked("no-empty-line-behind", "7.1", b"5\r\nhello\r\n0\r\n")
chunked("ends-in-bare-lf", "7.1", b"5\r\nhello\r\n0\r\n\n")
chunked("ends-in-cr-text", "7.1", b"5\r\nhello\r\n0\r\n\rX")

# 7.1.1 Chunk extensions, and 7.1.2 the trailer section

chunked("extension-without-name", "7.1.1", b"5;\r\nhello\r\n0\r\n\r\n")
chunked("extension-only-value", "7.1.1", b"5;=a\r\nhello\r\n0\r\n\r\n")
chunked("extension-without-semicolon", "7.1.1", b"5 a=b\r\nhello\r\n0\r\n\r\n")
chunked("extension-nul", "7.1.1", b"5;a=\x00\r\nhello\r\n0\r\n\r\n")
chunked("extension-control", "7.1.1", b"5;a\x07=b\r\nhello\r\n0\r\n\r\n")
chunked("extension-bare-lf", "7.1.1", b"5;a=b\nhello\r\n0\r\n\r\n")
chunked("extension-bare-lf-inside", "7.1.1", b"5;a=b\nc\r\nhello\r\n0\r\n\r\n")
chunked("extension-bare-cr", "7.1.1", b"5;a=b\rc\r\nhello\r\n0\r\n\r\n")
chunked("extension-lf-in-quotes", "7.1.1", b'5;a="b\nc"\r\nhello\r\n0\r\n\r\n')
chunked("extension-open-quotes", "7.1.1", b'5;a="b\r\nhello\r\n0\r\n\r\n')
chunked("extension-of-last-chunk-bare-lf", "7.1.1", b"5\r\nhello\r\n0;a\n\r\n")
chunked("extension-too-long", "7.1.1", b"5;a=" + b"b" * 20_000 + b"\r\nhello\r\n0\r\n\r\n")
add(
    "chunked-extension-without-end",
    "7.1.1",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5;a=" + b"b" * 500_000,
    seen=Seen.BROKEN_BODY,
)
chunked(
    "extensions-too-long-together",
    "7.1.1",
    (b"1;a=" + b"b" * 500 + b"\r\nx\r\n") * 200 + b"0\r\n\r\n",
)
chunked("trailer-space-before-colon", "7.1.2", b"0\r\nX-A : b\r\n\r\n")
chunked("trailer-no-colon", "7.1.2", b"0\r\nX-A\r\n\r\n")
chunked("trailer-empty-name", "7.1.2", b"0\r\n: b\r\n\r\n")
chunked("trailer-fold", "7.1.2", b"0\r\nX-A: b\r\n c\r\n\r\n")
chunked("trailer-begins-with-space", "7.1.2", b"0\r\n X-A: b\r\n\r\n")
chunked("trailer-bare-lf", "7.1.2", b"0\r\nX-A: b\nX-B: c\r\n\r\n")
chunked("trailer-bare-cr", "7.1.2", b"0\r\nX-A: b\rX-B: c\r\n\r\n")
chunked("trailer-nul", "7.1.2", b"0\r\nX-A: \x00\r\n\r\n")
chunked("trailer-bad-name", "7.1.2", b"0\r\nX(A: b\r\n\r\n")
chunked("trailers-too-many", "7.1.2", b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n", 400, 431)
chunked("trailer-too-long", "7.1.2", b"0\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 400, 431)
chunked("trailers-endless", "7.1.2", b"0\r\n" + b"X: y\r\n" * 50_000, 400, 431)
