"""Statements 1 to 12: what holds for every call of an application."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.apps import answer, body, lifespan, start
from tests.support.behaviour import Http, IncompleteError, News, Transport

OK = [start(), body(b"ok")]


class Scripted:
    """Sends the messages, one after the other; what a `send` raises is kept, and only then goes on
    to an orderly answer, so that a test sees that a refused message has done no harm."""

    def __init__(self, before: list[Any], wrong: Any, after: list[Any]) -> None:
        self.before, self.wrong, self.after = before, wrong, after
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for message in self.before:
            await send(message)
        try:
            await send(self.wrong)
        except Exception as error:
            self.error = error
        for message in self.after:
            await send(message)


def test_statement_1_one_call_per_request(http: Http) -> None:
    calls: list[tuple[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append((scope["type"], scope.get("path", "")))
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await answer(send, body=b"ok")

    with http.serve(app, lifespan="on") as site:
        client = site.client()
        for path in ("/1", "/2", "/3"):
            assert client.request(target=path).body == b"ok"
        assert site.request(target="/4").status == 200
    expected = ["/1", "/2", "/3", "/4"]
    assert calls == [("lifespan", ""), *(("http", path) for path in expected)]


def scope_of(http: Http, transport: Transport, *request: Any, **options: Any) -> dict[str, Any]:
    """The scope that one request gives."""
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            seen.put(scope)
            return await lifespan(receive, send)
        seen.put(scope)
        return await answer(send)

    with http.serve(app, transport, **options) as site:
        if options.get("lifespan") == "on":
            seen.next()
        site.request(*request)
        scope = seen.next()
    assert isinstance(scope, dict)
    return scope


def test_statement_2_scope_is_a_dict_with_type_and_version(
    http: Http, transport: Transport
) -> None:
    scope = scope_of(http, transport)
    assert type(scope) is dict
    assert scope["type"] == "http"
    assert scope["asgi"]["version"] == "3.0"


def test_statement_3_spec_version(http: Http) -> None:
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.put((scope["type"], scope["asgi"]["spec_version"]))
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        return await answer(send)

    with http.serve(app, lifespan="on") as site:
        site.request()
    assert seen.next() == ("lifespan", "2.0")
    assert seen.next() == ("http", "2.5")


def check_plain(value: Any, where: str) -> None:
    """Only what the specification allows; its typing has the pairs and addresses as tuples."""
    if isinstance(value, dict):
        for key, inner in value.items():
            assert type(key) is str, where
            check_plain(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            check_plain(inner, f"{where}[{number}]")
    else:
        assert value is None or type(value) in (bytes, str, int, float, bool), (where, value)
        if type(value) is int:
            assert -(2**63) <= value < 2**63, where


def test_statement_4_only_plain_values(http: Http, transport: Transport) -> None:
    request = ("POST", "/a%20b?c=d", [(b"TE", b"trailers"), (b"X-Forwarded-For", b"10.1.2.3")])
    scope = scope_of(http, transport, *request, lifespan="on", root_path="/root")
    assert scope["state"] == {}
    check_plain(scope, "scope")


def test_statement_5_asgi2_application_is_wrapped(http: Http) -> None:
    class Double:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            message = await receive()
            await answer(send, body=self.scope["path"].encode() + b" " + message["body"])

    with http.serve(Double) as site:
        assert site.request("POST", "/double", body=b"body").body == b"/double body"


WRONG_AT_START = {
    "unknown type": {"type": "http.response.begin"},
    "of another protocol": {"type": "websocket.accept"},
    "no type": {"status": 200},
    "not a message": None,
    "type not a str": {"type": b"http.response.start"},
    "no status": {"type": "http.response.start"},
    "status not an int": start("200"),
    "status out of range": start(99),
    "status informational": start(103),
    "headers not iterable": start(200, 7),
    "headers None": start(200, None),
    "headers a dict": start(200, {b"a": b"b"}),
    "header not a pair": start(200, [(b"a",)]),
    "header of three": start(200, [(b"a", b"b", b"c")]),
    "name a str": start(200, [("a", b"b")]),
    "value a str": start(200, [(b"a", "b")]),
    "value an int": start(200, [(b"content-length", 2)]),
    "links a str": {"type": "http.response.early_hint", "links": ["</a>"]},
    "links not iterable": {"type": "http.response.early_hint", "links": 7},
}


@pytest.mark.parametrize("wrong", WRONG_AT_START.values(), ids=WRONG_AT_START)
def test_statement_6_wrong_message_raises_before_the_answer(http: Http, wrong: Any) -> None:
    app = Scripted([], wrong, OK)
    with http.serve(app) as site:
        found = site.request()
    assert app.error is not None
    assert (found.status, found.body) == (200, b"ok")


def test_statement_6_status_is_an_int_and_nothing_equal_to_one(http: Http) -> None:
    app = Scripted([], start(200.0), OK)
    with http.serve(app) as site:
        site.request()
    assert app.error is not None


WRONG_IN_BODY = {
    "unknown type": {"type": "http.response.end"},
    "no type": {"body": b"x"},
    "body a str": body("x"),
    "body None": body(None),
    "body a list": body([1, 2]),
    "path relative": {"type": "http.response.pathsend", "path": "conftest.py"},
    "path bytes": {"type": "http.response.pathsend", "path": b"/etc/hostname"},
    "no path": {"type": "http.response.pathsend"},
    "no file": {"type": "http.response.zerocopysend"},
    "file without descriptor": {"type": "http.response.zerocopysend", "file": object()},
}


@pytest.mark.parametrize("wrong", WRONG_IN_BODY.values(), ids=WRONG_IN_BODY)
def test_statement_6_wrong_message_raises_in_the_body(http: Http, wrong: Any) -> None:
    app = Scripted([start()], wrong, [body(b"ok")])
    with http.serve(app) as site:
        found = site.request()
    assert app.error is not None
    assert (found.status, found.body) == (200, b"ok")


WRONG_TRAILERS = {
    "name a str": [("a", b"b")],
    "value a str": [(b"a", "b")],
    "line break": [(b"a", b"b\r\nc: d")],
    "framing": [(b"content-length", b"5")],
}


@pytest.mark.parametrize("more", [False, True], ids=["last", "more"])
@pytest.mark.parametrize("headers", WRONG_TRAILERS.values(), ids=WRONG_TRAILERS)
def test_statement_6_wrong_trailers_raise(http: Http, headers: Any, more: bool) -> None:
    wrong = {"type": "http.response.trailers", "headers": headers, "more_trailers": more}
    good = {"type": "http.response.trailers", "headers": [(b"x-good", b"1")]}
    app = Scripted([start(trailers=True), body(b"ok")], wrong, [good])
    with http.serve(app) as site:
        found = site.request(headers=[(b"TE", b"trailers")])
    assert app.error is not None
    assert (found.body, found.trailers) == (b"ok", [(b"x-good", b"1")])


def test_statement_7_extra_keys_are_welcome(http: Http, tmp_path: Any) -> None:
    more = {"x": object(), "extra": 1, "": None}
    sent = [
        {"type": "http.response.early_hint", "links": [b"</a>"], **more},
        {**start(trailers=True), **more},
        {**body(b"ok"), **more},
        {"type": "http.response.trailers", "headers": [(b"x", b"y")], **more},
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in sent:
            await send(message)

    with http.serve(app) as site:
        found = site.request(headers=[(b"TE", b"trailers")])
        assert (found.status, found.body, found.trailers) == (200, b"ok", [(b"x", b"y")])
        assert not site.log.lines()


FAILURES = {
    "Exception": ValueError("of the application"),
    "SystemExit": SystemExit(3),
    "BaseExceptionGroup": BaseExceptionGroup("several", [ValueError(1), SystemExit(2)]),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_statement_8_failure_ends_the_call_and_not_the_server(
    http: Http, failure: BaseException
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/before":
            raise failure
        await send(start())
        if scope["path"] == "/good":
            return await send(body(b"ok"))
        await send(body(b"part", more_body=True))
        raise failure

    with http.serve(app) as site:
        client, bystander = site.client(), site.client()
        assert bystander.request(target="/good").body == b"ok"
        assert client.request(target="/before").status == 500
        assert client.request(target="/good").body == b"ok"
        with pytest.raises(IncompleteError):
            client.request(target="/half")
        if http.failure_ends_connection:
            client.wait_closed()
        assert bystander.request(target="/good").body == b"ok"
        assert len(site.log.lines()) == 2


def test_statement_9_error_of_the_servers_own_send_does_no_harm(http: Http) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/good":
            return await answer(send, body=b"ok")
        return await send({"type": "http.response.nonsense"})

    with http.serve(app) as site:
        client = site.client()
        assert client.request(target="/bad").status == 500
        assert client.request(target="/good").body == b"ok"


def test_statement_10_send_after_the_end_does_nothing(http: Http) -> None:
    later = [start(500), body(b"more"), {"type": "http.response.trailers", "headers": []}]
    over = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, body=b"ok")
        for message in later:
            await send(message)
        over.put(True)

    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):
            found = client.request()
            assert (found.status, found.body, found.trailers) == (200, b"ok", [])
            assert over.next()
        assert not site.log.lines()


def extensions(http: Http, transport: Transport, te: bool) -> set[str]:
    """What a version and a transport bring."""
    names = {"http.response.pathsend", "http.response.zerocopysend"}
    if http.supports_early_hints:
        names.add("http.response.early_hint")
    if te and http.supports_trailers:
        names.add("http.response.trailers")
    if transport.context is not None:
        names.add("tls")
    return names


@pytest.mark.parametrize("te", [False, True], ids=["", "te"])
def test_statement_11_extensions_are_those_supported(
    http: Http, transport: Transport, te: bool
) -> None:
    scope = scope_of(http, transport, "GET", "/", [(b"TE", b"trailers")] if te else [])
    assert set(scope["extensions"]) == extensions(http, transport, te)
    assert all(type(value) is dict for value in scope["extensions"].values())


def test_statement_11_older_version_has_fewer_extensions(http: Http) -> None:
    if http.old_version is None:
        pytest.skip("there is no older version of it")
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.put((scope["http_version"], "http.response.early_hint" in scope["extensions"]))
        await send({"type": "http.response.early_hint", "links": [b"</a>"]})
        await answer(send, headers=[(b"content-length", b"0")])

    with http.serve(app) as site:
        client = site.client()
        old = client.request(headers=[(b"Connection", b"keep-alive")], old=True)
        assert (seen.next(), old.informational) == ((http.old_version, False), [])
        new = client.request()
        assert (seen.next(), len(new.informational)) == ((http.version, True), 1)


def scribble(value: Any) -> None:
    """Change everything in there that can be changed."""
    if isinstance(value, dict):
        for inner in value.values():
            scribble(inner)
        value.clear()
        value["scribbled"] = True
    elif isinstance(value, list):
        for inner in value:
            scribble(inner)
        value.append("scribbled")


def test_statement_12_scopes_share_nothing_that_can_change(
    http: Http, transport: Transport
) -> None:
    seen = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        seen.put(repr({key: scope[key] for key in scope if key not in {"client"}}))
        scribble(scope)
        return await answer(send)

    with http.serve(app, transport, lifespan="on") as site:
        client = site.client()
        for _ in range(3):
            client.request("GET", "/same", [(b"TE", b"trailers")])
        first = seen.next()
        assert "scribbled" not in first
        assert seen.next() == seen.next() == first
