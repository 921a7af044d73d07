"""From a saved file to the first answer of the new code, with each server's --reload."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from bench.load import PATIENCE, Address, VoidError

LONGEST = 30.0
REST = 0.005  # seconds between two looks
MODULE = "reloaded"

# What a small project is: one file of its own, a framework behind it.
SOURCE = """\
from fastapi import FastAPI

application = FastAPI(openapi_url=None)


@application.get("/")
async def version() -> int:
    return {version}
"""

OPTIONS = {
    "tidegate": ("--reload", "--reload-dir"),
    "uvicorn": ("--reload", "--reload-dir"),
    "granian": ("--reload", "--reload-paths"),
}


@dataclass(slots=True)
class Project:
    """The folder that is watched, and the version that stands there."""

    folder: Path
    version: int = 1000

    def save(self) -> None:
        self.version += 1
        (self.folder / f"{MODULE}.py").write_text(SOURCE.format(version=self.version))

    def wait(self, address: Address) -> float:
        """Save a new version; seconds until it answers."""
        self.save()
        began = time.perf_counter()
        while time.perf_counter() < began + LONGEST:
            if _ask(address) == b"%d" % self.version:
                return time.perf_counter() - began
            time.sleep(REST)
        raise VoidError(f"no answer of the new code within {LONGEST:.0f} s")


def _ask(address: Address) -> bytes:
    """The body, on a connection of its own; nothing while nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", address.port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            return answer.partition(b"\r\n\r\n")[2]
    except OSError:
        return b""
