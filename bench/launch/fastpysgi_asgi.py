"""fastpysgi: its command cannot switch Nagle's algorithm off, which every other server does.

Usage: python -m bench.launch.fastpysgi_asgi module:attribute port [certificate key]
"""

from __future__ import annotations

import importlib
import sys

import fastpysgi


def main(target: str, port: str, *tls: str) -> None:
    """Serve until a signal comes."""
    module, _, attribute = target.partition(":")
    application = getattr(importlib.import_module(module), attribute)
    server = fastpysgi.server
    server.tcp_nodelay = 1
    server.max_content_length = 64 << 20
    if tls:
        certificate, key = tls
        server.tls_list = [(certificate, key, None)]
    server.init(application, "127.0.0.1", int(port), fastpysgi.LL_ERROR)
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
