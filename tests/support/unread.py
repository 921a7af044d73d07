"""What a local peer has not read yet, as the kernel tells it: a way to wait without sleeping."""

from __future__ import annotations

import fcntl
import re
import socket
import struct
import termios
from pathlib import Path


def unread_by_peer(connection: socket.socket) -> bool:
    """Whether bytes sent to a peer on this machine still lie in its buffer (False off Linux)."""
    if connection.family == socket.AF_UNIX:
        # On a Unix socket, what was sent counts as queued until the other side has read it.
        raw = fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4)
        return bool(struct.unpack("i", raw)[0] > 0)
    table = Path("/proc/net/tcp6" if connection.family == socket.AF_INET6 else "/proc/net/tcp")
    if not table.exists():
        return False
    here, there = connection.getsockname()[1], connection.getpeername()[1]
    # The peer's own line: "local:port remote:port state tx_queue:rx_queue"; 01 is ESTABLISHED, and
    # any other state means that it has begun to close and need not read on.
    pattern = rf":{there:04X} [0-9A-F]+:{here:04X} 01 [0-9A-F]+:([0-9A-F]+)"
    found = re.search(pattern, table.read_text())
    return found is not None and int(found[1], 16) > 0
