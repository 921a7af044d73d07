"""Keys that only root may read, for workers that are not root (`--user`).

The supervisor reads them before anybody is forked, looks for changes as a worker would, and sends
what has changed to those that run. A worker finds the rest in the memory it was forked with.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable

from tidegate.config import Config
from tidegate.net.tls_files import DiskFiles, HandedFiles, tls_paths
from tidegate.process.channel import Channel

log = logging.getLogger("tidegate")


class Keys:
    """`files` is what workers read their certificates from; None where they read the disk."""

    def __init__(self, config: Config, *, handed: bool) -> None:
        self.files: HandedFiles | None = None
        self._interval = config.ssl_reload_interval
        self._next_look = 0.0
        self._missed: list[Channel] = []
        self._paths: list[str] = []
        if handed and config.ssl_certfile is not None:
            self._paths = tls_paths(
                config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs, config.ssl_sni
            )
            self.files = HandedFiles.from_disk(self._paths)

    def look(self, now: float, channels: Iterable[Channel]) -> None:
        """Now and then, what `renew` does."""
        if self._missed:
            self._send([one for one in self._missed if one.fileno() >= 0 and not one.ended])
        if self._interval and now >= self._next_look:
            self._next_look = now + self._interval
            self.renew(channels)

    def renew(self, channels: Iterable[Channel]) -> None:
        """See whether a file has changed, and send the new ones to whoever listens."""
        if self.files is None:
            return
        disk = DiskFiles()
        if {path: disk.stamp(path) for path in self._paths} == self.files.stamps():
            return
        self.files = HandedFiles.from_disk(self._paths)
        self._send(channels)

    def _send(self, channels: Iterable[Channel]) -> None:
        assert self.files is not None
        descriptor = _in_memory(self.files.dump())
        try:
            # who is too busy to take them is sent them again
            self._missed = [one for one in channels if not one.send_with("files", (descriptor,))]
        finally:
            os.close(descriptor)

    def receive(self, channel: Channel) -> None:
        """In a worker or importer: what the supervisor has sent."""
        descriptors = channel.take_descriptors()
        if not descriptors:
            log.error("New certificates were sent, and no descriptor is free for them.")
            return
        (descriptor,) = descriptors
        try:
            if self.files is not None:
                # `pread`: the position belongs to all who were sent this descriptor
                size = os.fstat(descriptor).st_size
                self.files.take(os.pread(descriptor, size, 0))
        finally:
            os.close(descriptor)


def _in_memory(data: bytes) -> int:
    """A descriptor of a file that has no name, with this content."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tidegate", os.MFD_CLOEXEC)
        os.write(descriptor, data)
        return descriptor
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return os.dup(file.fileno())
