"""How a socket ends other than by a plain close."""

from __future__ import annotations

import socket
import struct


def reset_on_close(sock: socket.socket) -> None:
    """Let the close that follows drop what is queued and send RST: nobody takes it for an end."""
    try:
        # SO_LINGER on, 0 seconds
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # the peer has gone: there is nobody to tell
