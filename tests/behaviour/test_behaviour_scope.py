"""Statements 13 to 28: the scope of a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.apps import answer, lifespan
from tests.support.behaviour import AUTHORITY, Gate, Http, News, Transport
from tests.support.programs import short_folder


class Seen:
    """Answers `ok`, and keeps the scopes."""

    def __init__(self) -> None:
        self.scopes = News()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        self.scopes.put(scope)
        return await answer(send, body=b"ok")


def scope_of(http: Http, *request: Any, old: bool = False, **options: Any) -> dict[str, Any]:
    """The scope that one request gives."""
    app = Seen()
    with http.serve(app, **options) as site:
        assert site.request(*request, old=old).body == b"ok"
        scope: dict[str, Any] = app.scopes.next()
    return scope


def own(scope: dict[str, Any]) -> list[Any]:
    """The fields that the test sent, without those that its client adds."""
    added = {b"host", b"content-length", b"transfer-encoding"}
    return [tuple(pair) for pair in scope["headers"] if pair[0] not in added]


def test_statement_13_http_version(http: Http) -> None:
    assert scope_of(http)["http_version"] == http.version


def test_statement_13_older_http_version(http: Http) -> None:
    if http.old_version is None:
        pytest.skip("there is no older version of it")
    assert scope_of(http, old=True)["http_version"] == http.old_version


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PURGE", "M-SEARCH"])
def test_statement_14_method_in_upper_case(http: Http, method: str) -> None:
    found = scope_of(http, method)["method"]
    assert type(found) is str
    assert found == method


def test_statement_15_scheme(http: Http, transport: Transport) -> None:
    assert scope_of(http, transport=transport)["scheme"] == transport.scheme


TARGETS = {
    "/": ("/", b"/", b""),
    "/plain?a=b": ("/plain", b"/plain", b"a=b"),
    "/caf%C3%A9": ("/café", b"/caf%C3%A9", b""),
    "/a%2Fb%2fc": ("/a/b/c", b"/a%2Fb%2fc", b""),
    "/%25%32%35": ("/%25", b"/%25%32%35", b""),  # decoded once
    "/a%3Fb?c": ("/a?b", b"/a%3Fb", b"c"),
    "/%e2%82%ac/%F0%9F%8C%8A": ("/€/🌊", b"/%e2%82%ac/%F0%9F%8C%8A", b""),
    "//double//": ("//double//", b"//double//", b""),
    "/a/../b/./c": ("/a/../b/./c", b"/a/../b/./c", b""),
    "/+%20;x=y": ("/+ ;x=y", b"/+%20;x=y", b""),
    "/q?": ("/q", b"/q", b""),
    "/q?a=%20%2B+&b=%C3%A9?/": ("/q", b"/q", b"a=%20%2B+&b=%C3%A9?/"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_statements_16_17_18_path_raw_path_query_string(http: Http, target: str) -> None:
    scope = scope_of(http, "GET", target)
    found = (scope["path"], scope["raw_path"], scope["query_string"])
    assert [type(each) for each in found] == [str, bytes, bytes]
    assert found == TARGETS[target]


def test_statement_16_path_that_is_no_utf8_is_still_a_str(http: Http) -> None:
    scope = scope_of(http, "GET", "/%ff%fe")
    assert (scope["path"], scope["raw_path"]) == ("/��", b"/%ff%fe")


def test_statement_19_root_path_is_part_of_the_path(http: Http) -> None:
    scope = scope_of(http, "GET", "/a%20b", root_path="/mount/point")
    assert scope["root_path"] == "/mount/point"
    assert scope["path"] == "/mount/point/a b"


def test_statement_19_no_root_path(http: Http) -> None:
    assert scope_of(http)["root_path"] == ""


FIELDS = [(b"x-b", b"2"), (b"x-a", b"1"), (b"x-b", b"1"), (b"accept", b"a, b"), (b"x-b", b"")]


def test_statement_20_headers_keep_order_and_repetition(http: Http) -> None:
    scope = scope_of(http, "GET", "/", FIELDS)
    assert own(scope) == FIELDS
    for pair in scope["headers"]:
        assert len(pair) == 2
        assert all(type(part) is bytes for part in pair)


def test_statement_20_header_values_are_bytes_as_sent(http: Http) -> None:
    value = b'"quoted, \\" text"; caf\xc3\xa9 \xff'
    assert own(scope_of(http, "GET", "/", [(b"x-value", value)])) == [(b"x-value", value)]


def test_statement_21_header_names_are_lower_cased(http: Http) -> None:
    sent = [(b"X-Mixed-Case" if http.keeps_name_case else b"x-mixed-case", b"Value")]
    assert own(scope_of(http, "GET", "/", sent)) == [(b"x-mixed-case", b"Value")]


def test_statement_22_no_pseudo_headers(http: Http) -> None:
    names = [name for name, _ in scope_of(http, "POST", "/a?b")["headers"]]
    assert names
    assert not [name for name in names if name.startswith(b":")]


def test_statement_23_authority_is_the_one_host(http: Http) -> None:
    scope = scope_of(http, "GET", "/", [(b"x-other", b"1")])
    hosts = [place for place, (name, _) in enumerate(scope["headers"]) if name == b"host"]
    assert len(hosts) == 1
    assert scope["headers"][hosts[0]][1] == AUTHORITY
    if http.host_comes_first:
        assert hosts == [0]


def test_statement_24_cookies_are_never_joined_by_commas(http: Http) -> None:
    sent = [(b"cookie", b"a=1"), (b"cookie", b"b=2; c=3")]
    joined = [(b"cookie", b"a=1; b=2; c=3")]
    assert own(scope_of(http, "GET", "/", sent)) == (joined if http.joins_cookies else sent)


def test_statements_25_26_client_and_server_of_tcp(http: Http, transport: Transport) -> None:
    app = Seen()
    with http.serve(app, transport) as site:
        site.request()
        scope = app.scopes.next()
        host, port = scope["client"]
        assert host == "127.0.0.1"
        assert type(port) is int
        assert port not in (0, site.server.port)
        assert tuple(scope["server"]) == site.server.address


def test_statements_25_26_client_and_server_of_ipv6(http: Http) -> None:
    try:
        scope = scope_of(http, host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert scope["client"][0] == scope["server"][0] == "::1"
    assert len(scope["client"]) == len(scope["server"]) == 2


def test_statements_25_26_client_and_server_of_a_unix_socket(http: Http) -> None:
    with short_folder() as folder:
        path = str(Path(folder) / "s")
        scope = scope_of(http, uds=path)
    assert scope["client"] is None
    assert tuple(scope["server"]) == (path, None)


def test_statement_27_state_is_a_shallow_copy_for_each_request(http: Http) -> None:
    inner: list[str] = []
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["inner"] = inner
            return await lifespan(receive, send)
        state = scope["state"]
        seen.put((sorted(state), state["inner"] is inner, list(inner)))
        state[scope["path"]] = 1
        inner.append(scope["path"])
        return await answer(send)

    with http.serve(app, lifespan="on") as site:
        client = site.client()
        client.request("GET", "/1")
        client.request("GET", "/2")
    assert seen.next() == (["inner"], True, [])
    assert seen.next() == (["inner"], True, ["/1"])


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_statement_27_no_state_without_lifespan(http: Http, mode: str) -> None:
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        seen.put(scope)
        await answer(send)

    with http.serve(app, lifespan=mode) as site:
        site.request()
        assert "state" not in seen.next()


def test_statement_28_each_answer_goes_to_its_own_request(http: Http, transport: Transport) -> None:
    """All are under way at once, and are answered in the reverse of their order."""
    count = 4
    arrived = News()
    gates = {f"/{number}": Gate() for number in range(count)}
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        arrived.put(scope["path"])
        await gates[scope["path"]].passed()
        await answer(send, body=scope["path"].encode() + b" of " + scope["query_string"])

    with http.serve(app, transport) as site:
        clients = site.clients(count)
        calls = [client.begin("GET", f"/{n}?q={n}") for n, client in enumerate(clients)]
        assert sorted(arrived.next() for _ in calls) == sorted(gates)
        for number in reversed(range(count)):
            gates[f"/{number}"].open()
            assert calls[number].read().body == b"/%d of q=%d" % (number, number)
    assert len({id(scope) for scope in scopes}) == count
