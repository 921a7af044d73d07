"""The access log: formats, escaping, batches, and a destination that fails."""

import json
import logging
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ConfigurationError
from tidegate.observe.access_log import BATCH, AccessLog, compile_format

# 2023-11-14 22:13:20 UTC
ENDED = 1_700_000_000.25


@pytest.fixture(autouse=True)
def _zone(monkeypatch):
    monkeypatch.setenv("TZ", "XXX-05:30")  # POSIX writes it the other way round: UTC+05:30
    time.tzset()
    _forget_times()
    yield
    monkeypatch.undo()
    time.tzset()
    _forget_times()


def _forget_times():
    from tidegate.observe import access_log

    for cached in ("_local_time", "_zone", "_iso_parts", "_common_time"):
        getattr(access_log, cached).cache_clear()


def entry(
    client="192.0.2.7",
    method="GET",
    target=b"/items?page=2",
    version="1.1",
    status=200,
    size=13,
    seconds=0.00125,
    headers=(),
    ended=ENDED,
):
    return (client, method, target, version, status, size, seconds, tuple(headers), ended)


def render(spec, *entries, colors=False):
    written = []
    log = AccessLog(compile_format(spec), written.append, colors=colors)
    for each in entries:
        log.add(each)
    log.flush()
    return "".join(written)


# --- formats


def test_default_tells_when_who_what_and_how_long():
    assert render("default", entry()) == (
        '2023-11-15 03:43:20 192.0.2.7 "GET /items?page=2 HTTP/1.1" 200 13B 1.25ms\n'
    )


def test_common_is_the_ncsa_form():
    assert render("common", entry()) == (
        '192.0.2.7 - - [15/Nov/2023:03:43:20 +0530] "GET /items?page=2 HTTP/1.1" 200 13\n'
    )


def test_common_writes_a_dash_for_no_content():
    assert render("common", entry(size=0)).endswith('" 200 -\n')


def test_combined_adds_referer_and_user_agent():
    headers = [(b"user-agent", b"curl/8.5.0"), (b"referer", b"https://example.org/a b")]
    assert render("combined", entry(headers=headers)) == (
        '192.0.2.7 - - [15/Nov/2023:03:43:20 +0530] "GET /items?page=2 HTTP/1.1" 200 13'
        ' "https://example.org/a b" "curl/8.5.0"\n'
    )
    assert render("combined", entry()).endswith(' 200 13 "-" "-"\n')


@pytest.mark.parametrize(
    ("zone", "common", "iso"),
    [
        ("XXX+03:45", "14/Nov/2023:18:28:20 -0345", "2023-11-14T18:28:20.250-03:45"),
        ("UTC0", "14/Nov/2023:22:13:20 +0000", "2023-11-14T22:13:20.250+00:00"),
    ],
)
def test_offsets_west_of_greenwich_and_at_it(monkeypatch, zone, common, iso):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    _forget_times()
    assert render("{time_common}|{time_iso}", entry()) == f"{common}|{iso}\n"


def test_each_line_has_its_own_second():
    assert render("{time}", entry(), entry(ended=ENDED + 1), entry(ended=ENDED)) == (
        "2023-11-15 03:43:20\n2023-11-15 03:43:21\n2023-11-15 03:43:20\n"
    )


def test_json_holds_every_field():
    headers = [(b"x-request-id", b"7f-3a"), (b"user-agent", "Möwe".encode())]
    assert json.loads(render("json", entry(headers=headers))) == {
        "time": "2023-11-15T03:43:20.250+05:30",
        "client": "192.0.2.7",
        "method": "GET",
        "path": "/items",
        "query": "page=2",
        "version": "1.1",
        "status": 200,
        "size": 13,
        "duration_ms": 1.25,
        "request_id": "7f-3a",
        "referer": None,
        "user_agent": "Möwe",
    }


def test_json_has_null_for_a_client_without_address():
    assert json.loads(render("json", entry(client="")))["client"] is None


@pytest.mark.parametrize("colors", [False, True])
def test_no_status_is_a_dash_where_a_request_ended_without_an_answer(colors):
    unanswered = entry(status=0, size=0)
    assert ' HTTP/1.1" - 0B ' in render("default", unanswered, colors=colors)
    assert render("common", unanswered, colors=colors).endswith(' HTTP/1.1" - -\n')
    assert render("{status}", unanswered, colors=colors) == "-\n"
    assert json.loads(render("json", unanswered, colors=colors))["status"] is None


# --- templates


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{client} {status}", "192.0.2.7 200"),
        ("{method}|{path}|{query}|{target}", "GET|/items|page=2|/items?page=2"),
        ("{version} {size} {size_common} {duration_ms}", "1.1 13 13 1.25"),
        ("{referer} {user_agent} {request_id}", "- - -"),
        ("{header:x-tenant}", "blue"),
        ("{header:X-Tenant}", "blue"),
        ("{header:absent}", "-"),
        ("{{{client}}}", "{192.0.2.7}"),
        ('"{status}" it\'s \\n \t%s é', '"200" it\'s \\n \t%s é'),
    ],
)
def test_template(template, line):
    assert render(template, entry(headers=[(b"x-tenant", b"blue")])) == line + "\n"


def test_nothing_is_a_dash():
    assert render("{client} {query}", entry(client="", target=b"/")) == "- -\n"


def test_the_last_of_several_headers_counts():
    headers = [(b"x-request-id", b"forged"), (b"x-request-id", b"from-the-proxy")]
    assert render("{request_id}", entry(headers=headers)) == "from-the-proxy\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        (b"Root=1-67891233-abcdef012345678912345678", "Root=1-67891233-abcdef012345678912345678"),
        (b"a" * 128, "a" * 128),
        (b"a" * 129, "-"),
        (b"", "-"),
        (b"two words", "-"),
        (b"line\nfeed", "-"),
        (b'quo"te', "-"),
        (b"\xff", "-"),
        (b"ends\n", "-"),
    ],
)
def test_request_id_only_where_it_is_sane(value, shown):
    headers = [(b"x-request-id", value)]
    assert render("{request_id}", entry(headers=headers)) == shown + "\n"
    expected = None if shown == "-" else shown
    assert json.loads(render("json", entry(headers=headers)))["request_id"] == expected


def test_headers_are_wanted_only_by_formats_that_show_them():
    assert not compile_format("default").needs_headers
    assert not compile_format("common").needs_headers
    assert not compile_format("{client} {path}").needs_headers
    for spec in (
        "combined",
        "json",
        "{request_id}",
        "{header:x-a}",
        "{referer} {status}",
        "{user_agent}",
    ):
        assert compile_format(spec).needs_headers, spec
    assert AccessLog(compile_format("json"), print).needs_headers


# --- formats that are wrong


def test_unknown_field_names_the_near_ones():
    with pytest.raises(ConfigurationError) as caught:
        compile_format("{client} {statsu}")
    assert "no field {statsu} in '{client} {statsu}'" in caught.value.message
    assert "Did you mean status" in caught.value.hint
    assert "header:<name>" in caught.value.hint


@pytest.mark.parametrize(
    "template",
    [
        "{client.__class__}",
        "{status!r}",
        "{size:>8}",
        "{}",
        "{0}",
        "{header:}",
        "{header:a b}",
        "{header:x')}",
        "{header:x\\}",
        "{__import__('os')}",
    ],
)
def test_only_known_fields_are_fields(template):
    with pytest.raises(ConfigurationError, match="there is no field"):
        compile_format(template)


@pytest.mark.parametrize("template", ["{client", "client}", "{client} {", "{{}"])
def test_a_brace_alone_is_refused(template):
    with pytest.raises(ConfigurationError, match="single"):
        compile_format(template)


def test_unknown_format_names_the_near_ones():
    with pytest.raises(ConfigurationError) as caught:
        compile_format("combind")
    assert "Did you mean combined" in caught.value.hint


def test_the_other_way_to_write_fields_is_explained():
    with pytest.raises(ConfigurationError) as caught:
        compile_format("%(h)s %(s)s")
    assert "{client}" in caught.value.hint


# --- nothing a peer sends forges a line

OCTETS = st.binary(max_size=30)
TEXTS = [
    "default",
    "common",
    "combined",
    "{client} {method} {path} {query} {target} {referer} {user_agent} {request_id} {header:x-a}",
]


@pytest.mark.parametrize("spec", TEXTS)
@given(target=OCTETS, value=OCTETS, client=st.text(max_size=10), method=st.text(max_size=10))
def test_text_lines_stay_one_printable_line(spec, target, value, client, method):
    headers = [(name, value) for name in (b"referer", b"user-agent", b"x-request-id", b"x-a")]
    hostile = entry(client=client, method=method, target=target, headers=headers)
    text = render(spec, hostile, entry())
    assert text.endswith("\n") and text.count("\n") == 2
    assert text.replace("\n", "").isascii() and text.replace("\n", "").isprintable()
    # Nobody but the template writes a quote.
    first, second = text.splitlines()
    assert first.count('"') == second.count('"')


@given(target=OCTETS, value=OCTETS, client=st.text(max_size=10), method=st.text(max_size=10))
def test_json_lines_stay_json(target, value, client, method):
    headers = [(name, value) for name in (b"referer", b"user-agent", b"x-request-id")]
    hostile = entry(client=client, method=method, target=target, headers=headers)
    text = render("json", hostile, entry())
    assert text.replace("\n", "").isascii() and text.replace("\n", "").isprintable()
    first, second = text.splitlines()
    found = json.loads(first)
    assert list(found) == list(json.loads(second))
    # No lone surrogates: strict readers refuse them.
    found["path"].encode("utf-8")
    assert found["method"] == method


def test_what_is_escaped_can_be_read():
    line = render("{target}", entry(target=b'/a"b\\c\r\n\x1b[31m\x7f\xc3\xa9'))
    assert line == "/a\\x22b\\x5cc\\x0d\\x0a\\x1b[31m\\x7f\\xc3\\xa9\n"


def test_a_target_without_surprises_is_as_it_was():
    every = bytes(octet for octet in range(0x21, 0x7F) if octet not in b'"\\')
    assert render("{target}", entry(target=every)) == every.decode() + "\n"


# --- batches


def test_nothing_is_written_before_a_flush_and_all_of_it_at_once():
    written = []
    log = AccessLog(compile_format("{status}"), written.append)
    log.add(entry(status=200))
    log.add(entry(status=404))
    assert written == []
    log.flush()
    assert written == ["200\n404\n"]
    log.flush()
    assert written == ["200\n404\n"]


def test_a_full_batch_is_written_without_a_flush():
    written = []
    log = AccessLog(compile_format("{size}"), written.append)
    for size in range(BATCH + 1):
        log.add(entry(size=size))
    assert written == ["".join(f"{size}\n" for size in range(BATCH))]
    log.flush()
    assert written[1:] == [f"{BATCH}\n"]


# --- colours


def test_status_is_coloured_by_class():
    text = render(
        "{status} {path}", *[entry(status=n) for n in (101, 200, 304, 404, 500)], colors=True
    )
    codes = re.findall(r"\x1b\[([\d;]+)m(\d+)\x1b\[0m /items\n", text)
    assert codes == [("36", "101"), ("32", "200"), ("36", "304"), ("33", "404"), ("1;31", "500")]


def test_no_colours_unless_asked_and_never_in_json():
    assert "\x1b" not in render("default", entry())
    assert "\x1b" not in render("json", entry(), colors=True)


# --- a destination that fails


class Failing:
    def __init__(self):
        self.error = None
        self.written = []

    def __call__(self, text):
        if self.error is not None:
            raise self.error
        self.written.append(text)


def test_a_full_disk_is_told_once_and_dropped(caplog):
    logging.getLogger("tidegate").propagate = True
    write = Failing()
    log = AccessLog(compile_format("{status}"), write)
    write.error = OSError(28, "No space left on device")
    with caplog.at_level(logging.WARNING, "tidegate"):
        for _ in range(3):
            log.add(entry(status=200))
            log.flush()
        assert len(caplog.records) == 1
        assert "No space left on device" in caplog.text
        write.error = None
        log.add(entry(status=201))
        log.flush()
        assert "3 lines were lost" in caplog.records[1].getMessage()
        log.add(entry(status=202))
        log.flush()
    assert write.written == ["201\n", "202\n"]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("closed file"), RuntimeError("x")])
def test_whatever_write_raises_a_full_batch_does_not_reach_the_request(error):
    write = Failing()
    write.error = error
    log = AccessLog(compile_format("{status}"), write)
    for _ in range(BATCH * 2):
        log.add(entry())
    write.error = None
    log.add(entry())
    log.flush()
    assert write.written == ["200\n"]
