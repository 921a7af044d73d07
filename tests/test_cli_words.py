"""Reading the words of the command line: two roads that must agree, and click only on one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.cli import read_plainly, read_with_click
from tidegate.config.kinds import Many, Switch
from tidegate.config.option import flag_of, option_of
from tidegate.config.sources import FIELDS

# Every flag that uvicorn 0.54 prints in its --help, with a value it accepts.
UVICORN_FLAGS = """
--host=::1 --port=80 --uds=a.sock --fd=3 --reload --reload-dir=a --reload-include=b
--reload-exclude=c --reload-delay=0.25 --workers=4 --loop=auto --http=h11 --http2 --ws=wsproto
--ws-max-size=1 --ws-max-queue=1 --ws-ping-interval=1.5 --ws-ping-timeout=1.5
--ws-per-message-deflate=false --lifespan=on --interface=asgi3 --env-file=e --log-config=l
--log-level=trace --access-log --no-access-log --use-colors --no-use-colors --proxy-headers
--no-proxy-headers --server-header --no-server-header --date-header --no-date-header
--forwarded-allow-ips=* --root-path=/a --limit-concurrency=1 --backlog=1 --limit-max-requests=1
--limit-max-requests-jitter=1 --timeout-keep-alive=1 --timeout-graceful-shutdown=1
--timeout-worker-healthcheck=1 --ssl-keyfile=k --ssl-certfile=c --ssl-keyfile-password=p
--ssl-version=17 --ssl-cert-reqs=0 --ssl-ca-certs=a --ssl-ciphers=TLSv1 --header=A:b --version
--app-dir=d --h11-max-incomplete-event-size=1 --reset-contextvars --factory
"""


def option_words() -> st.SearchStrategy[list[str]]:
    """The words of one option, in either spelling."""
    value = st.text("abc:/=.,* 019€", min_size=1, max_size=6).filter(lambda text: text[0] != "-")
    choices: list[st.SearchStrategy[list[str]]] = []
    for name, named in FIELDS.items():
        kind = option_of(named).kind
        if name == "app":
            continue
        if isinstance(kind, Switch) and not kind.spelled:
            choices.append(st.sampled_from([[flag_of(name)], [flag_of(f"no_{name}")]]))
        else:
            flag = flag_of(name)
            choices.append(value.map(lambda text, flag=flag: [flag, text]))  # type: ignore[misc]
            choices.append(value.map(lambda text, flag=flag: [f"{flag}={text}"]))  # type: ignore[misc]
    return st.one_of(choices)


def as_said(said: Any) -> dict[str, Any]:
    assert isinstance(said, dict)
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in said.items()
    }


class TestTwoRoads:
    @given(st.lists(option_words(), max_size=8), st.sampled_from([[], ["main:app"]]), st.randoms())
    @settings(max_examples=150)
    def test_agree(self, options: list[list[str]], app: list[str], random: Any) -> None:
        groups = [*options, app]
        random.shuffle(groups)
        words = [word for group in groups for word in group]
        plain = read_plainly(words)
        assert plain is not None
        assert plain == as_said(read_with_click(words))

    def test_repeated(self) -> None:
        words = ["--bind", "a:1", "--bind=b:2", "--port=1", "--port", "2"]
        assert read_plainly(words) == {"bind": ["a:1", "b:2"], "port": "2"}
        words = ["--health-bind", "a:1", "--health-bind=b:2", "--supervise", "--no-supervise"]
        assert read_plainly(words) == {"health_bind": ["a:1", "b:2"], "supervise": False}

    @pytest.mark.parametrize(
        "words",
        [["--help"], ["-h"], ["--version"], ["--print-config"], ["--prot", "1"], ["a:b", "c:d"],
         ["--port"], ["--port", "--host"], ["--access-log=1"], ["--"], ["-"], ["--fd", "-1"],
         ["--header", "-x"]],
    )  # fmt: skip
    def test_what_is_left_to_click(self, words: list[str]) -> None:
        assert read_plainly(words) is None

    @pytest.mark.parametrize(
        "words",
        [
            ["m:a", "--port", "0"],
            ["m:a", "--workers", "auto", "--preload", "--user=www-data", "--umask=027"],
            ["m:a", "--reload", "--reload-dir", "src", "--health-bind=127.0.0.1:9"],
        ],
    )
    def test_starting_a_server_takes_no_click(self, words: list[str], tmp_path: Path) -> None:
        program = (
            "import sys, os\n"
            "from tidegate.cli import read_plainly\n"
            "from tidegate.config import resolve\n"
            f"resolve(read_plainly({words!r}), {{}}, os.getcwd())\n"
            "heavy = {'click', 'tomllib', 'difflib', 'ipaddress', 'asyncio', 'ssl'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        )  # fmt: skip
        assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("word", UVICORN_FLAGS.split())
def test_uvicorns_flags_are_known(word: str) -> None:
    said = as_said(read_with_click([word]))
    flag, equals, value = word.partition("=")
    (name,) = said
    assert flag.replace("no-", "") == flag_of(name)
    if name in FIELDS and isinstance(option_of(FIELDS[name]).kind, Many):
        assert said[name] == [value]
    else:
        assert said[name] == (value if equals else not flag.startswith("--no-"))
