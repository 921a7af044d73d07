"""wrk for a second: many connections at full speed, and not one answer goes wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from examples.demo.application import Demo
from tests.support.programs import need, run
from tests.support.serve import serve

pytestmark = pytest.mark.real

POST = """
wrk.method = "POST"
wrk.body = string.rep("x", 5000)
"""

# Each thread sends its requests eight at a time, without waiting for the answers.
PIPELINE = """
init = function(args)
  local one = {}
  for i = 1, 8 do one[i] = wrk.format("GET", "/facts") end
  all = table.concat(one)
end
request = function() return all end
"""


@pytest.mark.parametrize(
    ("path", "script"),
    [
        ("/facts", ""),
        ("/download?size=20000", ""),
        ("/upload", POST),
        ("/", PIPELINE),
    ],
    ids=["get", "download", "post", "pipelined"],
)
def test_a_burst(path: str, script: str, tmp_path: Path) -> None:
    wrk = need("wrk")
    (tmp_path / "script.lua").write_text(script)
    with serve(Demo()) as server:
        url = server.url + path
        done = run(wrk, "-t1", "-c32", "-d1", "-s", tmp_path / "script.lua", url)
    assert done.code == 0, done
    answered = re.search(r"(\d+) requests in", done.text)
    assert answered and int(answered[1]) > 32, done
    assert "Non-2xx" not in done.text, done
    assert "Socket errors" not in done.text, done
