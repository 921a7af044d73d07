"""Good requests, some of them unusual, and what the application must see of each: data.

`seen` holds the parts of the scope that matter for the row, as `tests.support.apps.describe` names
them. A row's request leaves the connection open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HOST = b"Host: example.com\r\n"


@dataclass(frozen=True, slots=True)
class Good:
    id: str
    section: str
    raw: bytes
    seen: dict[str, Any] = field(default_factory=dict)


GOOD: list[Good] = []


def line(id: str, section: str, request_line: bytes, **seen: Any) -> None:
    GOOD.append(Good(id, section, request_line + b"\r\n" + HOST + b"\r\n", seen))


def header(id: str, section: str, lines: bytes, *headers: list[str]) -> None:
    raw = b"GET / HTTP/1.1\r\n" + HOST + lines + b"\r\n\r\n"
    GOOD.append(Good(id, section, raw, {"headers": [["host", "example.com"], *headers]}))


def host(id: str, value: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"
    GOOD.append(Good(f"host-{id}", "3.2", raw, {"headers": [["host", value.decode().strip()]]}))


def body(id: str, section: str, lines: bytes, raw: bytes, seen: str) -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + lines + b"\r\n\r\n"
    GOOD.append(Good(f"body-{id}", section, head + raw, {"method": "POST", "body": seen}))


def chunked(id: str, section: str, raw: bytes, seen: str) -> None:
    body(f"chunked-{id}", section, b"Transfer-Encoding: chunked", raw, seen)


line("plain", "3.2.1", b"GET / HTTP/1.1", method="GET", path="/", query="", http_version="1.1")
line("query", "3.2.1", b"GET /a?b=c&d HTTP/1.1", path="/a", query="b=c&d")
line("empty-query", "3.2.1", b"GET /a? HTTP/1.1", path="/a", query="")
line("question-in-query", "3.2.1", b"GET /a?b?c HTTP/1.1", path="/a", query="b?c")
line("percent", "3.2.1", b"GET /a%2Fb%20c HTTP/1.1", path="/a/b c", raw_path="/a%2Fb%20c")
line("percent-utf-8", "3.2.1", b"GET /caf%C3%A9 HTTP/1.1", path="/café", raw_path="/caf%C3%A9")
line("dots-kept", "3.2.1", b"GET /a/../b/./c HTTP/1.1", path="/a/../b/./c")
line("two-slashes", "3.2.1", b"GET //evil.example/a HTTP/1.1", path="//evil.example/a")
line("url-in-path", "3.2.1", b"GET /http://b.example/ HTTP/1.1", path="/http://b.example/")
line("url-in-query", "3.2.1", b"GET /?u=http://b/ HTTP/1.1", path="/", query="u=http://b/")
line("long-target", "3", b"GET /" + b"a" * 8_000 + b" HTTP/1.1", path="/" + "a" * 8_000)
line("absolute", "3.2.2", b"GET http://example.com/a?b HTTP/1.1", path="/a", query="b")
line("absolute-bare", "3.2.2", b"GET http://example.com HTTP/1.1", path="/", query="")
line("absolute-bare-query", "3.2.2", b"GET http://example.com?b HTTP/1.1", path="/", query="b")
line("absolute-upper-scheme", "3.2.2", b"GET HTTP://example.com/a HTTP/1.1", path="/a")
line("asterisk", "3.2.4", b"OPTIONS * HTTP/1.1", method="OPTIONS", path="*")
line("options-path", "3.2.4", b"OPTIONS /a HTTP/1.1", method="OPTIONS", path="/a")
line("delete", "3.1", b"DELETE /a HTTP/1.1", method="DELETE")
line("unknown-method", "3.1", b"BREW /pot HTTP/1.1", method="BREW")
line("method-of-all-signs", "3.1", b"A!#$%&'*+-.^_`|~09 / HTTP/1.1", method="A!#$%&'*+-.^_`|~09")
line("version-1.2", "2.3", b"GET / HTTP/1.2", method="GET", http_version="1.1")
line("version-1.9", "2.3", b"GET / HTTP/1.9", method="GET", http_version="1.1")
line("blank-line-first", "2.2", b"\r\nGET /a HTTP/1.1", path="/a")
line("two-blank-lines-first", "2.2", b"\r\n\r\nGET /a HTTP/1.1", path="/a")

host("port", b"example.com:8000")
host("empty-port", b"example.com:")
host("ipv4", b"127.0.0.1:80")
host("ipv6", b"[::1]")
host("ipv6-port", b"[2001:db8::1]:8000")
host("ipv6-mapped", b"[::ffff:192.0.2.1]")
host("future", b"[v1.fe80:a]")
host("underscore", b"my_service")
host("final-dot", b"example.com.")
host("percent", b"ex%C3%A4mple.com")
host("spaces-around", b" \texample.com \t")

header("value-empty", "5", b"X-A:", ["x-a", ""])
header("value-only-spaces", "5", b"X-A: \t ", ["x-a", ""])
header("no-space", "5.1", b"X-A:b", ["x-a", "b"])
header("spaces-around", "5.1", b"X-A: \t b c\td \t", ["x-a", "b c\td"])
header("colons-in-value", "5", b"X-A: :b:c:", ["x-a", ":b:c:"])
header("name-of-all-signs", "5", b"!#$%&'*+-.^_`|~09Az: b", ["!#$%&'*+-.^_`|~09az", "b"])
header("obs-text", "5", b"X-A: caf\xe9 \x80\xff", ["x-a", "caf\xe9 \x80\xff"])
header("repeated", "5", b"X-A: b\r\nX-B: c\r\nx-a: d", ["x-a", "b"], ["x-b", "c"], ["x-a", "d"])
header("ninety-nine", "5", b"\r\n".join([b"X-A: b"] * 99), *[["x-a", "b"]] * 99)
header("long-value", "5", b"X-A: " + b"b" * 60_000, ["x-a", "b" * 60_000])
header("quoted-signs", "5", b'X-A: "\\"<>(){}[],;"', ["x-a", '"\\"<>(){}[],;"'])
header("unwanted-upgrade", "9110 7.8", b"Upgrade: tea/1", ["upgrade", "tea/1"])

body("length", "6.2", b"Content-Length: 5", b"hello", "hello")
body("length-zero", "6.2", b"Content-Length: 0", b"", "")
body("length-spaces-around", "6.2", b"Content-Length: \t5 ", b"hello", "hello")
body("length-lower-name", "6.2", b"content-length:5", b"hello", "hello")
body("none", "6.3", b"X-A: b", b"", "")
body(
    "looks-like-request",
    "6.2",
    b"Content-Length: 18",
    b"GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
)
body("binary", "6.2", b"Content-Length: 4", b"\x00\xff\r\n", "\x00\xff\r\n")
body("other-case-of-coding", "6.1", b"transfer-encoding: CHUNKED", b"1\r\nx\r\n0\r\n\r\n", "x")
body("coding-spaces-around", "6.1", b"Transfer-Encoding: \tchunked ", b"1\r\nx\r\n0\r\n\r\n", "x")
chunked("one", "7.1", b"5\r\nhello\r\n0\r\n\r\n", "hello")
chunked("several", "7.1", b"2\r\nhe\r\n2\r\nll\r\n1\r\no\r\n0\r\n\r\n", "hello")
chunked("nothing", "7.1", b"0\r\n\r\n", "")
chunked("hexadecimal", "7.1", b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "0123456789" * 2)
chunked("leading-zeros", "7.1", b"0005\r\nhello\r\n000\r\n\r\n", "hello")
chunked("crlf-in-data", "7.1", b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", "\r\n0\r\n\r")
chunked("extension", "7.1.1", b"5;a\r\nhello\r\n0;b=c;d\r\n\r\n", "hello")
chunked("extension-quoted", "7.1.1", b'5;a="b;\\"c d"\r\nhello\r\n0\r\n\r\n', "hello")
chunked("extension-spaces", "7.1.1", b"5 ; a = b\r\nhello\r\n0\r\n\r\n", "hello")
chunked("trailer", "7.1.2", b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n", "hello")
chunked("trailer-of-length", "7.1.2", b"5\r\nhello\r\n0\r\nContent-Length: 99\r\n\r\n", "hello")
chunked("trailers-of-framing", "7.1.2", b"0\r\nTransfer-Encoding: gzip\r\nHost: b\r\n\r\n", "")
GOOD.append(
    Good(
        "body-on-get",
        "9110 9.3.1",
        b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
        {"method": "GET", "body": "hello"},
    )
)
