"""Statements 33 to 44: the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.apps import Replies, answer, body, start
from tests.support.behaviour import Gate, Http, IncompleteError, News, Transport, turns

OK = body(b"ok")


def replies(*script: Any) -> Replies:
    """Answers every request with these messages."""

    class Always(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return list(script)

    return Replies(Always())


def test_statement_33_head_may_wait_for_the_first_body(http: Http, transport: Transport) -> None:
    """It does here, and so an application that fails in between still gets a clean 500."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, [(b"x-lost", b"1")]))
        await turns()
        raise ValueError("before the body")

    with http.serve(app, transport) as site:
        client = site.client()
        for _ in range(2):
            found = client.request()
            assert (found.status, found.all(b"x-lost")) == (500, [])


@pytest.mark.parametrize("coding", [b"chunked", b"gzip, chunked", b"identity"])
def test_statement_34_transfer_encoding_is_the_servers_affair(http: Http, coding: bytes) -> None:
    app = replies(start(200, [(b"transfer-encoding", coding)]), body(b"a", more_body=True), OK)
    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == b"aok"


LENGTHS = {
    "none": [],
    "content-length": [(b"content-length", b"3")],
}


@pytest.mark.parametrize("headers", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("old", [False, True], ids=["", "old"])
def test_statement_35_end_of_the_body_is_known(http: Http, headers: Any, old: bool) -> None:
    if old and http.old_version is None:
        pytest.skip("there is no older version of it")
    app = replies(start(200, headers), body(b"a", more_body=True), OK)
    with http.serve(app) as site:
        client = site.client()
        assert client.request(old=old).body == b"aok"
        if old:
            client.wait_closed()
        else:
            assert client.request().body == b"aok"


def test_statement_35_older_version_keeps_alive_where_the_length_is_known(http: Http) -> None:
    if http.old_version is None:
        pytest.skip("there is no older version of it")
    with http.serve(replies(start(200, LENGTHS["content-length"]), body(b"abc"))) as site:
        client = site.client()
        for _ in range(2):
            assert client.request(headers=[(b"Connection", b"keep-alive")], old=True).body == b"abc"


def test_statement_36_response_header_order_is_kept(http: Http) -> None:
    headers = [(b"x-c", b"1"), (b"x-a", b"2"), (b"x-c", b"3"), (b"vary", b"x"), (b"x-b", b"")]
    with http.serve(replies(start(200, headers), OK)) as site:
        assert site.request().own() == headers


def test_statement_36_headers_may_be_missing(http: Http) -> None:
    with http.serve(replies({"type": "http.response.start", "status": 202}, OK)) as site:
        found = site.request()
        assert (found.status, found.body, found.own()) == (202, b"ok", [])


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["lists", "tuples", "iterators"])
def test_statement_36_headers_are_any_iterable_of_pairs(http: Http, kind: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pairs = [(b"x-a", b"1"), (b"x-b", b"2")]
        headers = iter(pairs) if kind is iter else kind(kind(pair) for pair in pairs)
        await answer_with(send, headers)

    async def answer_with(send: Any, headers: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(OK)

    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().own() == [(b"x-a", b"1"), (b"x-b", b"2")]


BAD_HEADERS = {
    "name a str": ("x", b"1"),
    "value a str": (b"x", "1"),
    "value None": (b"x", None),
    "pseudo": (b":status", b"200"),
    "empty name": (b"", b"1"),
    "space in the name": (b"x y", b"1"),
    "line break in the name": (b"x\r\ny", b"1"),
    "colon in the name": (b"x:", b"1"),
    "CR": (b"x", b"1\r2"),
    "LF": (b"x", b"1\n2"),
    "CRLF": (b"x", b"1\r\ny: 2"),
    "NUL": (b"x", b"1\x002"),
}


@pytest.mark.parametrize("pair", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_statement_37_bad_header_raises(http: Http, pair: Any) -> None:
    raised = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(start(200, [(b"x-good", b"1"), pair]))
        except Exception as error:
            raised.put(error)
        await answer(send, body=b"ok")

    with http.serve(app) as site:
        found = site.request()
        assert isinstance(raised.next(), Exception)
        assert (found.status, found.body, found.own()) == (200, b"ok", [])


def test_statement_37_upper_case_names_pass(http: Http) -> None:
    headers = [(b"X-Upper", b"Value"), (b"Content-Length", b"2")]
    with http.serve(replies(start(200, headers), OK)) as site:
        found = site.request()
        assert found.all(b"x-upper") == [b"Value"]
        assert found.all(b"content-length") == [b"2"]
        assert (b"X-Upper" if http.keeps_name_case else b"x-upper") in found.names


def test_statement_38_body_is_taken_before_send_returns(http: Http) -> None:
    """What the application does to its buffer afterwards changes nothing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        buffer = bytearray(b"as it was")
        await send(body(buffer, more_body=True))
        buffer[:] = b"scribbled"
        await send(body(memoryview(buffer)))
        buffer[:] = b"~~~~~~~~~"

    with http.serve(app) as site:
        assert site.request().body == b"as it wasscribbled"


HUGE = 16 * 1024 * 1024  # more than the socket buffers of both sides hold


@pytest.mark.parametrize("piece", [65536, 1024 * 1024, HUGE], ids=["64K", "1M", "16M"])
def test_statement_38_send_waits_while_the_client_does_not_read(
    http: Http, transport: Transport, piece: int
) -> None:
    waiting = Gate()
    data = b"x" * piece

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent = 0

        async def produce() -> None:
            nonlocal sent
            await send(start(200, [(b"content-length", b"%d" % HUGE)]))
            while sent < HUGE:
                await send(body(data, more_body=True))
                sent += piece

        producer = asyncio.create_task(produce())
        seen = -1
        while seen != sent:  # until it comes no further
            seen = sent
            await turns(500)
        assert not producer.done(), "all of it was taken"
        waiting.open()
        await producer
        await send(body())

    with http.serve(app, transport) as site:
        call = site.client().begin()
        waiting.wait()
        assert len(call.read().body) == HUGE


def test_statement_39_more_body_false_completes(http: Http, transport: Transport) -> None:
    """The client has the whole answer while the application still runs."""
    done, after = Gate(), News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/next":
            return await answer(send, body=b"next")
        await answer(send, body=b"whole")
        await done.passed()
        await send(body(b"ignored", more_body=True))
        await send(start(500))
        after.put(True)
        return None

    with http.serve(app, transport) as site:
        client = site.client()
        assert client.request().body == b"whole"
        assert client.request(target="/next").body == b"next"
        done.open()
        assert after.next()
        assert client.request(target="/next").body == b"next"


OUT_OF_ORDER = {
    "body before start": ([], OK, [start(), OK]),
    "trailers before start": ([], {"type": "http.response.trailers"}, [start(), OK]),
    "second start": ([start()], start(500), [OK]),
    "start within the body": ([start(), body(b"", more_body=True)], start(500), [OK]),
    "trailers unannounced": ([start()], {"type": "http.response.trailers"}, [OK]),
}


@pytest.mark.parametrize("case", OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_statement_40_message_out_of_order_raises(http: Http, case: Any) -> None:
    before, wrong, after = case
    raised = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in before:
            await send(message)
        try:
            await send(wrong)
        except Exception as error:
            raised.put(error)
        for message in after:
            await send(message)

    with http.serve(app) as site:
        found = site.request()
        assert isinstance(raised.next(), Exception)
        assert (found.status, found.body) == (200, b"ok")


@pytest.mark.parametrize("headers", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("GET", 304)]
)
def test_statement_41_no_body_bytes(http: Http, method: str, status: int, headers: Any) -> None:
    app = replies(start(status, headers), body(b"a", more_body=True), OK)
    with http.serve(app) as site:
        client = site.client()
        for _ in range(2):  # a byte too many would break the second one
            found = client.request(method)
            assert (found.status, found.body) == (status, b"")
        assert not site.log.lines()


def test_statement_41_head_tells_the_length(http: Http) -> None:
    with http.serve(replies(start(200, [(b"content-length", b"12345")]), body())) as site:
        assert site.request("HEAD").all(b"content-length") == [b"12345"]


def test_statement_41_files_of_an_answer_without_body(http: Http, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    app = replies(start(), {"type": "http.response.pathsend", "path": str(path)})
    with http.serve(app) as site:
        client = site.client()
        assert client.request("HEAD").body == b""
        assert client.request().body == b"content"


@pytest.mark.parametrize("script", [[], [start()]], ids=["nothing", "start"])
def test_statement_42_no_answer_is_500(http: Http, script: Any) -> None:
    with http.serve(replies(*script)) as site:
        client = site.client()
        for _ in range(2):
            assert client.request("GET", "/silent").status == 500
        assert "GET /silent" in site.log.lines()[0]


HALF = {
    "unknown length": [start(), body(b"half", more_body=True)],
    "known length": [start(200, [(b"content-length", b"8")]), body(b"half", more_body=True)],
    "trailers": [start(trailers=True), body(b"half")],
}


@pytest.mark.parametrize("script", HALF.values(), ids=HALF)
def test_statement_42_half_an_answer_is_no_clean_end(
    http: Http, transport: Transport, script: Any
) -> None:
    with http.serve(replies(*script), transport) as site:
        client = site.client()
        with pytest.raises(IncompleteError):
            client.request("GET", "/half", [(b"TE", b"trailers")])
        if http.failure_ends_connection:
            client.wait_closed()
        assert "GET /half" in site.log.expect("/half").getMessage()


def test_statement_42_half_an_answer_to_the_older_version(http: Http, transport: Transport) -> None:
    """Its only end is the connection's: that must be no orderly one."""
    if http.old_version is None:
        pytest.skip("there is no older version of it")
    with (
        http.serve(replies(*HALF["unknown length"]), transport) as site,
        pytest.raises(IncompleteError),
    ):
        site.request(old=True)


def test_statement_42_all_the_bytes_that_were_promised_are_an_answer(http: Http) -> None:
    """Nothing is missing on the wire, so the client need not suffer."""
    script = [start(200, [(b"content-length", b"4")]), body(b"full", more_body=True)]
    with http.serve(replies(*script)) as site:
        client = site.client()
        for _ in range(2):
            assert client.request().body == b"full"


def test_statement_43_set_cookie_lines_are_never_merged(http: Http) -> None:
    cookies = [b"a=1; Path=/", b"b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"a=1; Path=/"]
    headers = [(b"set-cookie", cookie) for cookie in cookies]
    with http.serve(replies(start(200, headers), OK)) as site:
        assert site.request().all(b"set-cookie") == cookies


def test_statement_44_answer_does_not_end_before_its_trailers(
    http: Http, transport: Transport
) -> None:
    if not http.supports_trailers:
        pytest.skip("this version has no trailers")
    gate = Gate()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(trailers=True))
        await send(body(b"the whole body"))
        await gate.passed()
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    with http.serve(app, transport) as site:
        client = site.client()
        call = client.begin("GET", "/", [(b"TE", b"trailers")])
        call.read_until(b"the whole body")
        gate.open()
        found = call.read()
        assert (found.body, found.trailers) == (b"the whole body", [(b"x-sum", b"1")])


def test_statement_44_more_body_after_the_last_raises(http: Http) -> None:
    raised = News()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(trailers=True))
        await send(body(b"ok"))
        try:
            await send(body(b"more"))
        except Exception as error:
            raised.put(error)
        await send({"type": "http.response.trailers"})

    with http.serve(app) as site:
        assert site.request("GET", "/", [(b"TE", b"trailers")]).body == b"ok"
        assert isinstance(raised.next(), RuntimeError)
