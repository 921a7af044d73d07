"""The files an application names in its answers: opened, measured and checked.

A file is sent by the kernel where it can be (serving/outbox.py); what is wrong with what was asked
for is told to the application here, before a byte of the answer has left.
"""

from __future__ import annotations

import os
import stat

from tidegate.errors import ApplicationError
from tidegate.types import Message


def open_whole(path: object) -> tuple[int, int]:
    """For http.response.pathsend: a descriptor, the caller's to close, and the file's size."""
    if not isinstance(path, str) or not os.path.isabs(path):
        raise ApplicationError(f"http.response.pathsend needs an absolute path, not {path!r}")
    # not to wait for the other end, should it be a pipe
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ApplicationError(f"http.response.pathsend: {path!r} is not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd, found.st_size


def part(message: Message) -> tuple[int, int, int]:
    """For http.response.zerocopysend: descriptor, offset and count.

    Without an offset the file's own position counts, and moves on as reading would have done.
    """
    try:
        file = message["file"]
        fd: int = file if isinstance(file, int) else file.fileno()
    except (KeyError, AttributeError, OSError, ValueError) as error:
        raise ApplicationError(
            "http.response.zerocopysend needs an open 'file' with a descriptor"
        ) from error
    offset = _natural("offset", message.get("offset"))
    count = _natural("count", message.get("count"))
    at = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
    there = max(os.fstat(fd).st_size - at, 0)
    size = there if count is None else count
    if size > there:
        raise ApplicationError(
            f"http.response.zerocopysend of {size} bytes from {at} on: the file has {there} there"
        )
    if offset is None:
        os.lseek(fd, at + size, os.SEEK_SET)
    return fd, at, size


def _natural(what: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and value >= 0):
        return value
    raise ApplicationError(
        f"the {what} of http.response.zerocopysend must be an int from 0 on, not {value!r}"
    )
