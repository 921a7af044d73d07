"""A start loads what it needs and no more: start-up time and memory are mostly imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What a start with a plain address and a named application has no use for, and what takes it.
SPARED = {
    "click": "help and mistakes on the command line",
    "difflib": "Did you mean ...?",
    "encodings.idna": "a host name that is not ASCII",
    "http": "reason phrases, which are ours",
    "ipaddress": "a Host that is an IPv6 address",
    "random": "--limit-max-requests-jitter",
    "tidegate.config.dotenv": "--env-file",
    "tidegate.discover.failures": "an application that cannot be imported",
    "tidegate.discover.nearby": "a module that is not there",
    "tidegate.discover.search": "no application named",
    "tidegate.discover.source": "a file that may start a server itself",
    "tidegate.net.tls": "--ssl-certfile",
    "tidegate.net.tls_socket": "--ssl-certfile",
    "tidegate.protocol.proxy_header": "--proxy-protocol",
    "urllib.parse": "a path with percent-encoded octets",
    "tidegate.observe.access_log": "--access-log",
    "tomllib": "a file with options",
}

PROGRAM = """
import sys
before = set(sys.modules)
import tidegate.launch
from tidegate.cli import main

Server = tidegate.launch.Server

class Brief(Server):
    def __init__(self, config, **options):
        super().__init__(config, **{**options, "on_started": self.stop})

tidegate.launch.Server = Brief
assert main(["served_here:app", "--port", "0", "--no-access-log"]) == 0
print(*sorted(set(sys.modules) - before))
"""


def test_nothing_is_loaded_that_a_start_can_spare(tmp_path: Path) -> None:
    (tmp_path / "served_here.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["tidegate"]\n')
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "tidegate.serving.worker" in loaded
    assert [name for name in SPARED if name in loaded] == []
