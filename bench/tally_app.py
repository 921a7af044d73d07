"""Thirteen bytes, and each worker counts what it answers where the harness can read it.

`BENCH_TALLY` names a folder. A worker makes a file there as it starts, named by its process id:
the number of its requests, in shared memory. Counting costs about 0.1 µs a request, for every
server.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import MutableSequence
from pathlib import Path
from typing import Any, cast

from bench import apps

_PLAIN = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(apps.HELLO))],
}
_BODY = {"type": "http.response.body", "body": apps.HELLO}
_answered: MutableSequence[int] = array("Q", [0])


def _open_tally() -> None:
    global _answered  # noqa: PLW0603 - the cheapest place to count in
    path = Path(os.environ["BENCH_TALLY"]) / str(os.getpid())
    path.write_bytes(bytes(8))
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    _answered = cast("MutableSequence[int]", memoryview(shared).cast("Q"))


async def plaintext(scope: Any, receive: Any, send: Any) -> None:
    """The plaintext application, counted. The lifespan runs in the worker itself."""
    if scope["type"] == "lifespan":
        _open_tally()
        await apps.plaintext(scope, receive, send)
        return
    _answered[0] += 1
    # Not apps.plaintext: one more coroutine would cost more than the counting does.
    await send(_PLAIN)
    await send(_BODY)
