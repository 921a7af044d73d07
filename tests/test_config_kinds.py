"""Every kind of value: what it reads, what it refuses and why, and that it reads its own output."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config.kinds import (
    Choice,
    Directory,
    Duration,
    File,
    Many,
    Mode,
    NewFile,
    Rate,
    Size,
    Switch,
    Text,
    Whole,
)
from tidegate.config.option import Kind, WrongValueError, near
from tidegate.config.particular import (
    AccessLogFormat,
    Account,
    Application,
    Folder,
    HeaderField,
    LogConfig,
    NamedCertificate,
    Pattern,
    Port,
    RootPath,
    TlsVersion,
    TrustedPeers,
    Workers,
)


def refused(kind: Kind, value: object) -> WrongValueError:
    with pytest.raises(WrongValueError) as caught:
        kind.read(value)
    assert caught.value.right, "a refusal says what would be right"
    return caught.value


class TestMeasures:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("75", 75.0), ("75s", 75.0), ("2m", 120.0), ("500ms", 0.5), ("1h", 3600.0), ("1.5", 1.5),
         (" 2 min ", 120.0), ("0", 0.0), (75, 75.0), (0.25, 0.25)],
    )  # fmt: skip
    def test_durations(self, text: object, seconds: float) -> None:
        assert Duration().read(text) == seconds

    @pytest.mark.parametrize(
        "wrong", ["", "s", "-1", "1d", "1e3", "nan", "inf", "1s2", "٣s", True, None, float("nan"),
                  float("inf"), -1]
    )  # fmt: skip
    def test_what_is_no_duration(self, wrong: object) -> None:
        assert "75s" in refused(Duration(), wrong).right

    def test_the_least(self) -> None:
        assert "at least 1ms" in refused(Duration(0.001), "0").right

    @pytest.mark.parametrize(
        ("text", "size"),
        [("65536", 65536), ("64KiB", 65536), ("1GiB", 1 << 30), ("10MB", 10_000_000), ("1kb", 1000),
         ("1.5 KiB", 1536), ("2b", 2), (7, 7)],
    )  # fmt: skip
    def test_sizes(self, text: object, size: int) -> None:
        found = Size().read(text)
        assert found == size
        assert type(found) is int

    @pytest.mark.parametrize("wrong", ["1K", "64m", "", "0.3KB5", "1.0001KiB", "-5", False, [1]])
    def test_what_is_no_size(self, wrong: object) -> None:
        refused(Size(), wrong)

    @given(st.integers(0, 1 << 45))
    def test_a_size_shown_is_read_again(self, size: int) -> None:
        assert Size().read(Size().show(size)) == size

    @given(st.integers(0, 10**12).map(lambda n: n / 1000))
    def test_a_duration_shown_is_read_again(self, seconds: float) -> None:
        assert Duration().read(Duration().show(seconds)) == Duration().read(seconds)

    def test_a_rate_says_what_it_is(self) -> None:
        assert "per second" in refused(Rate(), "fast").right


class TestWordsAndNumbers:
    @pytest.mark.parametrize("word", ["1", "true", "YES", " on ", True, 1])
    def test_on(self, word: object) -> None:
        assert Switch().read(word) is True

    @pytest.mark.parametrize("word", ["0", "False", "no", "off", False, 0])
    def test_off(self, word: object) -> None:
        assert Switch().read(word) is False

    @pytest.mark.parametrize("wrong", ["", "2", "maybe", 2, None, 1.0])
    def test_neither(self, wrong: object) -> None:
        refused(Switch(), wrong)

    def test_choice(self) -> None:
        kind = Choice("auto", "asyncio", "uvloop")
        assert kind.read(" UVLOOP ") == "uvloop"
        wrong = refused(kind, "uvlop")
        assert "auto, asyncio or uvloop" in wrong.right
        assert "Did you mean uvloop?" in wrong.right
        refused(kind, None)

    def test_choice_by_alias(self) -> None:
        assert Choice("info", aliases={20: "info"}).read(20) == "info"

    @pytest.mark.parametrize(("value", "number"), [("5", 5), (" 10 ", 10), (7, 7), ("all", 9)])
    def test_whole(self, value: object, number: int) -> None:
        assert Whole(5, 10, {"all": 9}).read(value) == number

    @pytest.mark.parametrize("wrong", ["4", "11", "x", "", "5.0", 5.0, True, None, "1_0", "٧"])
    def test_what_is_no_whole_number(self, wrong: object) -> None:
        assert "from 5 to 10" in refused(Whole(5, 10), wrong).right

    def test_an_enum_becomes_a_number(self) -> None:
        found = Whole(0, 2).read(ssl.CERT_REQUIRED)
        assert (found, type(found)) == (2, int)

    def test_port(self) -> None:
        assert Port().read("0") == 0
        refused(Port(), "65536")
        assert "enableServiceLinks" in refused(Port(), "tcp://10.0.0.1:80").right

    @pytest.mark.parametrize("value", ["660", "0660", "0o660", 0o660])
    def test_mode(self, value: object) -> None:
        assert Mode("0660").read(value) == 0o660
        assert Mode("0660").show(0o660) == "0660"
        assert Mode("0027").show(0o27) == "0027"

    @pytest.mark.parametrize("wrong", ["668", "7777", "rw", "", 660, -1, True])
    def test_what_is_no_mode(self, wrong: object) -> None:
        assert "octal" in refused(Mode("0660"), wrong).right

    @pytest.mark.parametrize("wrong", ["", "a\nb", "a\0b", "a\rb", 5, None])
    def test_what_is_no_text(self, wrong: object) -> None:
        refused(Text(), wrong)

    def test_an_empty_text_where_it_may_be(self) -> None:
        assert Text(empty=True).read("") == ""

    @pytest.mark.parametrize("number", [27, 0o27, 660, 0, 1000])
    def test_a_number_of_a_toml_file_is_no_mode(self, number: int) -> None:
        kind = Mode("0027")
        wrong = refused(kind, kind.from_toml(number))
        assert wrong.what == f"a decimal number in TOML, octal {number:04o}"
        assert wrong.right == 'Write it in octal and in quotes, such as "0027".'

    def test_a_text_of_a_toml_file_is_a_mode(self) -> None:
        assert Mode("0027").read(Mode("0027").from_toml("027")) == 0o27
        assert "not a file mode" in refused(Mode("0027"), Mode("0027").from_toml(True)).what

    @pytest.mark.parametrize(
        "pattern",
        ["*.html", "[", "a[b", "[a-z]*", "[!z-a]", "a/*.html", "/srv/*/x", "./a/", "../a/../b", ".",
         "..", "/", "a/**/b", "(?!)"],
    )  # fmt: skip
    def test_a_pattern(self, pattern: str) -> None:
        assert Pattern().read(pattern) == pattern

    @pytest.mark.parametrize("pattern", ["[z-a]", "a/[9-0]*.py", "a//b", "a/./b", "a/../b"])
    def test_a_pattern_that_nothing_can_match(self, pattern: str) -> None:
        assert "no file can ever match" in refused(Pattern(), pattern).what

    def test_near(self) -> None:
        assert near("prot", ["port", "host"]).startswith(" Did you mean port")
        assert near("zzz", ["port"]) == ""


class TestPaths:
    def test_file(self, tmp_path: Path) -> None:
        there = tmp_path / "a.pem"
        there.write_text("x")
        assert File("a PEM file").read(there) == str(there)
        assert str(tmp_path / "b.pem") in refused(File("a PEM file"), str(tmp_path / "b.pem")).right
        assert refused(File("a PEM file"), tmp_path).what == "that is a directory"
        refused(File("a PEM file"), "")
        refused(File("a PEM file"), 3)

    def test_a_file_at_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "log.json").write_text("{}")
        assert File("a file").read("~/log.json") == str(tmp_path / "log.json")

    def test_new_file(self, tmp_path: Path) -> None:
        assert NewFile("a socket").read(f"{tmp_path}/s") == f"{tmp_path}/s"
        assert f"Make {tmp_path}/no first" in refused(NewFile("a socket"), f"{tmp_path}/no/s").right
        long = f"{tmp_path}/{'x' * 200}"
        assert refused(NewFile("a socket", 107), long).what == "too long"

    def test_directory(self, tmp_path: Path) -> None:
        assert Directory().read("") == ""
        assert Directory().read(tmp_path) == str(tmp_path)
        refused(Directory(), str(tmp_path / "no"))

    def test_log_config(self, tmp_path: Path) -> None:
        table = {"version": 1}
        assert LogConfig().read(table) == table
        refused(LogConfig(), str(tmp_path / "no.json"))


class TestMany:
    @pytest.mark.parametrize(
        "value", ["a, b", "a\nb", ["a", "b"], ("a", "b"), ["a,b"], " a ,\n b,", ["a", "", "b"]]
    )
    def test_the_ways_to_say_two(self, value: object) -> None:
        assert Many(Text()).read(value) == ("a", "b")

    def test_lines_only(self) -> None:
        kind = Many(HeaderField(), commas=False)
        assert kind.read("A: 1, 2\nB: 3") == ("A: 1, 2", "B: 3")
        assert kind.read([("A", "1")]) == ("A: 1",)

    def test_nothing(self) -> None:
        assert Many(Text()).read("") == ()


class TestParticular:
    @pytest.mark.parametrize("value", ["main:app", "mysite.asgi:application", "main", 5, len])
    def test_application(self, value: object) -> None:
        assert Application().read(value) is value

    @pytest.mark.parametrize("wrong", ["", " ", "--port", "main app"])
    def test_what_names_no_application(self, wrong: str) -> None:
        refused(Application(), wrong)

    @pytest.mark.parametrize(
        ("value", "path"), [("", ""), ("/", ""), ("/api", "/api"), ("/a/b/", "/a/b")]
    )
    def test_root_path(self, value: str, path: str) -> None:
        assert RootPath().read(value) == path

    @pytest.mark.parametrize("wrong", ["api", "/a?b", "/a b", "/a#b", "/\x7f", 5])
    def test_what_is_no_root_path(self, wrong: object) -> None:
        refused(RootPath(), wrong)

    def test_the_root_path_that_was_meant(self) -> None:
        assert refused(RootPath(), "api").right == "Right would be /api."

    @pytest.mark.parametrize(
        ("value", "peers"),
        [("*", "*"), ("", ""), ("127.0.0.1, ::1", "127.0.0.1,::1"), ("10.0.0.0/8", "10.0.0.0/8"),
         (["fd00::/8", "/run/nginx.sock"], "fd00::/8,/run/nginx.sock"), ("unix", "unix")],
    )  # fmt: skip
    def test_trusted_peers(self, value: object, peers: str) -> None:
        assert TrustedPeers().read(value) == peers

    @pytest.mark.parametrize("wrong", ["10.0.0.0/33", "300.1.1.1", "1.2.3", "1::2::3", 5])
    def test_what_is_no_peer(self, wrong: object) -> None:
        refused(TrustedPeers(), wrong)

    def test_the_network_that_was_meant(self) -> None:
        assert refused(TrustedPeers(), "10.1.2.3/8").right == "Right would be 10.0.0.0/8."

    @pytest.mark.parametrize(
        ("value", "field"),
        [("X-A:1", "X-A: 1"), ("X-A:  a b\t ", "X-A: a b"), (("X-A", "1"), "X-A: 1"),
         ("X-Empty:", "X-Empty: "), ("Server: mine", "Server: mine")],
    )  # fmt: skip
    def test_header(self, value: object, field: str) -> None:
        assert HeaderField().read(value) == field

    @pytest.mark.parametrize(
        "wrong",
        ["X-A", "X A: 1", ": 1", "X-A: a\r\nSet-Cookie: b", "X-A: \x00", "X-A: \x7f", "X-A : 1",
         "X-A: €", "Content-Length: 3", "transfer-encoding: chunked", "Connection: close", 5],
    )  # fmt: skip
    def test_what_is_no_header(self, wrong: object) -> None:
        refused(HeaderField(), wrong)

    def test_named_certificate(self, tmp_path: Path) -> None:
        for name in ("c.pem", "k.pem"):
            (tmp_path / name).write_text("x")
        text = f"*.example.org={tmp_path}/c.pem:{tmp_path}/k.pem"
        assert NamedCertificate().read(text) == text
        assert (
            NamedCertificate().beside("a.org=c.pem:k.pem", "/etc") == "a.org=/etc/c.pem:/etc/k.pem"
        )
        for wrong in ("a.org", f"={tmp_path}/c.pem:{tmp_path}/k.pem", f"a.org={tmp_path}/c.pem",
                      text.replace("*.", "a b."), text.replace("k.pem", "no.pem")):  # fmt: skip
            refused(NamedCertificate(), wrong)

    def test_access_log_format(self) -> None:
        kind = AccessLogFormat("default", "json")
        assert kind.read("json") == "json"
        assert kind.read("{method} {path}") == "{method} {path}"
        assert "Did you mean json?" in refused(kind, "jsn").right

    @pytest.mark.parametrize(("value", "number"), [(17, 17), ("17", 17), (2, 17), (5, 5)])
    def test_tls_version(self, value: object, number: int) -> None:
        assert TlsVersion().read(value) == number

    @pytest.mark.parametrize("wrong", [3, 4, 16, 18, "TLSv1"])
    def test_tls_that_is_not_served(self, wrong: object) -> None:
        assert "TLS 1.2" in refused(TlsVersion(), wrong).right

    @pytest.mark.parametrize(
        ("value", "number"),
        [("1", 1), (1, 1), (" 4 ", 4), ("256", 256), ("auto", 0), (" AUTO ", 0), (0, 0)],
    )
    def test_workers(self, value: object, number: int) -> None:
        assert Workers().read(value) == number

    @pytest.mark.parametrize(
        "wrong", ["0", "257", 257, "-1", -1, "", "1.5", 2.0, 0.0, "all", True, False, None]
    )
    def test_what_is_no_number_of_workers(self, wrong: object) -> None:
        right = refused(Workers(), wrong).right
        assert right.startswith("Right would be a whole number from 1 to 256, or auto for the ")

    @pytest.mark.parametrize(("number", "text"), [(0, "auto"), (1, "1"), (12, "12")])
    def test_workers_shown_are_read_again(self, number: int, text: str) -> None:
        assert Workers().show(number) == text
        assert Workers().read(text) == number

    @pytest.mark.parametrize(
        ("value", "name"), [("www-data", "www-data"), ("33", "33"), (33, "33"), (0, "0")]
    )
    def test_account(self, value: object, name: str) -> None:
        assert Account("a user").read(value) == name

    @pytest.mark.parametrize("wrong", ["", "a\nb", -1, True, 3.0, None])
    def test_what_is_no_account(self, wrong: object) -> None:
        assert refused(Account("a user"), wrong).right == "Right would be a user."

    def test_a_folder_that_may_come_later(self, tmp_path: Path) -> None:
        later = str(tmp_path / "later")
        assert Many(Folder()).read([tmp_path, later]) == (str(tmp_path), later)
        assert Many(Folder()).beside(["src", "/srv"], "/etc") == ["/etc/src", "/srv"]
        assert "directory" in refused(Folder(), 5).right


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Duration(), "500ms"), (Size(), "64KiB"), (Mode("0660"), "660"), (Mode("0027"), 0o27), (Switch(), "on"),
     (Whole(0, 9, {"two": 2}), "two"), (Many(HeaderField(), commas=False), [("A", "b"), "C:d"]),
     (Many(Text()), "a,b"), (RootPath(), "/api/"), (TrustedPeers(), ["::1", "10.0.0.0/8"]),
     (HeaderField(), "A:b"), (TlsVersion(), 2), (Choice("a", aliases={1: "a"}), 1),
     (Workers(), "auto"), (Workers(), "3"), (Account("a user"), 33), (Many(Folder()), "~/a,b")],
)  # fmt: skip
def test_what_was_read_is_read_again_unchanged(kind: Kind, value: Any) -> None:
    once = kind.read(value)
    assert kind.read(once) == once
