"""Small programs that fork, run apart from the tests' own process and its threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import tidegate

PATIENCE = 30  # seconds until a program that hangs fails its test

_HEAD = """
import json, os, select, signal, sys, time
from tidegate.process.births import Birth, Births, Role, release_signals
from tidegate.process.board import Board
from tidegate.process.channel import Channel

signal.alarm(%d)  # nobody is left behind, whatever goes wrong

def tell(**what):
    os.write(1, (json.dumps(what) + "\\n").encode())

def inodes():
    # of every descriptor of this process, by number
    found = {}
    for number in range(3, 256):
        try:
            found[number] = os.fstat(number).st_ino
        except OSError:
            pass
    return found

def hear(channel, count=1):
    # the next lines, or what there was before the end
    lines = []
    while len(lines) < count and not channel.ended:
        select.select([channel], [], [])
        lines += channel.receive()
    return lines

def until_end(channel):
    while not channel.ended:
        select.select([channel], [], [])
        channel.receive()
"""


def run(program: str) -> list[dict[str, Any]]:
    """Run it with a few helpers before it; what it and its children have told, in order."""
    source = str(Path(tidegate.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", _HEAD % PATIENCE + program],
        capture_output=True,
        timeout=2 * PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
    return [json.loads(line) for line in ran.stdout.splitlines()]
