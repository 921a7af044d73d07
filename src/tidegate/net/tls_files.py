"""Where certificates and keys are read from: the disk, or what somebody with more rights has read.

A server that gives up root after binding can no longer read a key that only root may read, nor its
renewed successor. So the process that stays root reads the files and hands their content on, and
OpenSSL, which only takes paths, gets them lent as files that exist in memory alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Protocol

Stamp = tuple[int, ...]


class Files(Protocol):
    """What is needed of files: `stamp` tells one state from the next, `lend` gives a path."""

    def stamp(self, path: str) -> Stamp: ...
    def read(self, path: str) -> bytes: ...
    def lend(self, path: str) -> contextlib.AbstractContextManager[str]: ...


class DiskFiles:
    """Files that this process may read itself."""

    def stamp(self, path: str) -> Stamp:
        try:
            found = os.stat(path)  # through links: certbot and Kubernetes renew by changing them
        except OSError as error:
            return (error.errno or 0,)
        return (found.st_mtime_ns, found.st_ino, found.st_size)

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    @contextlib.contextmanager
    def lend(self, path: str) -> Iterator[str]:
        yield path


class HandedFiles:
    """Files that another process has read; `take` replaces all of them."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp] = {}
        self._contents: dict[str, bytes] = {}
        self._errors: dict[str, int] = {}

    @classmethod
    def from_disk(cls, paths: Iterable[str]) -> HandedFiles:
        """Read them now. What cannot be read is remembered as that."""
        disk, handed = DiskFiles(), cls()
        for path in paths:
            handed._stamps[path] = disk.stamp(path)  # before the reading: a change shows later
            try:
                handed._contents[path] = disk.read(path)
            except OSError as error:
                handed._errors[path] = error.errno or 0
        return handed

    def stamps(self) -> dict[str, Stamp]:
        return dict(self._stamps)

    def stamp(self, path: str) -> Stamp:
        return self._stamps.get(path, ())

    def read(self, path: str) -> bytes:
        if path not in self._contents:
            number = self._errors.get(path, 2)
            raise OSError(number, os.strerror(number), path)
        return self._contents[path]

    @contextlib.contextmanager
    def lend(self, path: str) -> Iterator[str]:
        content = self.read(path)
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("tidegate", os.MFD_CLOEXEC)
            try:
                os.write(descriptor, content)
                yield f"/proc/self/fd/{descriptor}"
            finally:
                os.close(descriptor)
        else:
            import tempfile

            with tempfile.NamedTemporaryFile() as file:  # readable to this user alone
                file.write(content)
                file.flush()
                yield file.name

    # ------------------------------------------------------------------------ on their way

    def dump(self) -> bytes:
        """All of it, for `take` in another process."""
        import base64
        import json

        contents = {path: base64.b64encode(data).decode() for path, data in self._contents.items()}
        return json.dumps([self._stamps, contents, self._errors]).encode()

    def take(self, dump: bytes) -> None:
        import base64
        import json

        stamps, contents, errors = json.loads(dump)
        self._stamps = {path: tuple(stamp) for path, stamp in stamps.items()}
        self._contents = {path: base64.b64decode(data) for path, data in contents.items()}
        self._errors = errors


def tls_paths(
    certfile: str, keyfile: str | None, authorities: str | None, sni: Iterable[str]
) -> list[str]:
    """Every file that the `ssl_*` options name."""
    paths = [certfile, keyfile, authorities]
    for text in sni:
        paths += text.partition("=")[2].split(":")
    return list(dict.fromkeys(path for path in paths if path))
