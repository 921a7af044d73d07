"""socketify: its command writes a line to stdout and lower-cases the application's name.

Usage: python -m bench.launch.socketify_asgi module:attribute port [certificate key]
"""

from __future__ import annotations

import importlib
import sys

from socketify import ASGI, AppListenOptions, AppOptions


def main(target: str, port: str, *tls: str) -> None:
    """Serve until a signal comes."""
    module, _, attribute = target.partition(":")
    application = getattr(importlib.import_module(module), attribute)
    options = None
    if tls:
        certificate, key = tls
        options = AppOptions(cert_file_name=certificate, key_file_name=key)
    server = ASGI(application, options=options, websocket=True, lifespan=True)
    server.listen(AppListenOptions(port=int(port), host="127.0.0.1"), lambda _: None)
    server.run(workers=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
