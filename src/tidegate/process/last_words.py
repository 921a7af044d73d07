"""What is still in a buffer when a process forks, or ends without Python's own end."""

from __future__ import annotations

import contextlib
import logging
import sys


def flush_streams() -> None:
    """What was printed; there may be no such stream, or nobody behind it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()


def last_words() -> None:
    """That, and what was logged: nothing may be said afterwards."""
    logging.shutdown()
    flush_streams()
