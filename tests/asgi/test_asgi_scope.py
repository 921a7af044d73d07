"""From a request to its scope, without a server: every key, and what makes it different."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.asgi.scope import Origin, http_scope
from tidegate.protocol.events import Request, RequestHead

CLIENT, SERVER = ("192.0.2.1", 4711), ("192.0.2.2", 8000)
TLS = {
    "server_cert": "PEM",
    "client_cert_chain": ("leaf", "root"),
    "client_cert_name": "CN=a",
    "client_cert_error": None,
    "tls_version": 0x0304,
    "cipher_suite": 0x1301,
}


class Engine:
    supports_trailers = True
    supports_early_hints = True
    supports_push = False


def request(**more: Any) -> Request:
    head = RequestHead()
    head.method, head.version = "GET", "1.1"
    head.path, head.raw_path, head.query = "/a b", b"/a%20b", b"c=%64"
    head.headers = ((b"host", b"a"), (b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"1"))
    head.trailers, head.upgrade, head.forwarded = False, None, None
    for name, value in more.items():
        setattr(head, name, value)
    return Request(1, head, True)


def scope_of(engine: Any = None, *, origin: Any = None, **more: Any) -> dict[str, Any]:
    origin = origin or Origin(CLIENT, SERVER, "http")
    return http_scope(origin, engine or Engine(), request(**more))


def test_whole_scope() -> None:
    assert scope_of() == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=%64",
        "root_path": "",
        "headers": [(b"host", b"a"), (b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"1")],
        "client": CLIENT,
        "server": SERVER,
        "extensions": {
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
            "http.response.early_hint": {},
        },
    }


def test_unix_socket_has_no_client() -> None:
    scope = scope_of(origin=Origin(None, ("/run/tide.sock", None), "http"))
    assert scope["client"] is None
    assert scope["server"] == ("/run/tide.sock", None)


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("supported", [False, True])
def test_trailers_need_a_client_and_an_engine(wanted: bool, supported: bool) -> None:
    engine = Engine()
    engine.supports_trailers = supported
    found = scope_of(engine, trailers=wanted)["extensions"]
    assert ("http.response.trailers" in found) is (wanted and supported)


def test_early_hints_need_an_engine() -> None:
    engine = Engine()
    engine.supports_early_hints = False
    assert "http.response.early_hint" not in scope_of(engine)["extensions"]


def test_root_path_goes_before_the_path_alone() -> None:
    scope = scope_of(origin=Origin(CLIENT, SERVER, "http", root_path="/root"))
    assert scope["root_path"] == "/root"
    assert scope["path"] == "/root/a b"
    assert scope["raw_path"] == b"/a%20b"


def test_root_path_does_not_go_before_the_asterisk() -> None:
    origin = Origin(CLIENT, SERVER, "http", root_path="/root")
    assert scope_of(origin=origin, method="OPTIONS", path="*", raw_path=b"*")["path"] == "*"


def test_state_is_a_shallow_copy() -> None:
    state: dict[str, Any] = {"shared": []}
    origin = Origin(CLIENT, SERVER, "http", state=state)
    first, second = scope_of(origin=origin)["state"], scope_of(origin=origin)["state"]
    assert first == second == state
    assert first is not second
    assert first is not state
    assert first["shared"] is state["shared"]


def test_empty_state_is_there_too() -> None:
    assert scope_of(origin=Origin(CLIENT, SERVER, "http", state={}))["state"] == {}
    assert "state" not in scope_of()


def test_tls_extension() -> None:
    origin = Origin(CLIENT, SERVER, "https", tls=TLS)
    scope = scope_of(origin=origin)
    assert scope["scheme"] == "https"
    assert scope["extensions"]["tls"] == {**TLS, "client_cert_chain": ["leaf", "root"]}
    scope["extensions"]["tls"]["client_cert_chain"].clear()
    scope["extensions"]["tls"].clear()
    assert scope_of(origin=origin)["extensions"]["tls"]["client_cert_chain"] == ["leaf", "root"]


def test_forwarded_comes_last_and_sees_everything() -> None:
    seen: list[dict[str, Any]] = []

    def rewrite(scope: dict[str, Any]) -> bool:
        seen.append(dict(scope))
        scope["client"] = ("198.51.100.1", 0)
        return True

    origin = Origin(
        CLIENT, SERVER, "https", root_path="/r", state={"a": 1}, tls=TLS, forwarded=rewrite
    )
    scope = scope_of(origin=origin)
    assert scope["client"] == ("198.51.100.1", 0)
    assert (seen[0]["path"], seen[0]["state"], seen[0]["client"]) == ("/r/a b", {"a": 1}, CLIENT)
    assert "tls" in seen[0]["extensions"]


@pytest.mark.parametrize("spoken", [True, False])
def test_a_head_in_which_no_proxy_speaks_is_looked_at_once(spoken: bool) -> None:
    looks = []

    def rewrite(scope: dict[str, Any]) -> bool:
        looks.append(scope["client"])
        return spoken

    origin = Origin(CLIENT, SERVER, "http", forwarded=rewrite)
    one = request()
    for _ in range(3):
        http_scope(origin, Engine(), one)
    assert len(looks) == (3 if spoken else 1)


def test_two_scopes_of_one_head_share_nothing_that_can_change() -> None:
    """One head serves many requests: the engine remembers it."""
    origin = Origin(CLIENT, SERVER, "http", state={}, tls=TLS)
    one = request(trailers=True)
    first = http_scope(origin, Engine(), one)
    expected = repr(first)
    for value in first.values():
        if isinstance(value, dict):
            for inner in value.values():
                if isinstance(inner, dict):
                    inner.clear()
            value.clear()
        elif isinstance(value, list):
            value.clear()
    assert repr(http_scope(origin, Engine(), one)) == expected
