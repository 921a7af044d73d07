"""socketify: its command writes a line to stdout and lower-cases the application's name.

Usage: python -m bench.launch.socketify_asgi module:attribute port [certificate key] [--compress]
"""

from __future__ import annotations

import importlib
import sys

from socketify import ASGI, AppListenOptions, AppOptions

COMPRESS = "--compress"


def main(target: str, port: str, *rest: str) -> None:
    """Serve until a signal comes."""
    module, _, attribute = target.partition(":")
    application = getattr(importlib.import_module(module), attribute)
    options = None
    tls = [word for word in rest if word != COMPRESS]
    if tls:
        certificate, key = tls
        options = AppOptions(cert_file_name=certificate, key_file_name=key)
    # What its own command passes on for --ws-per-message-deflate.
    sockets = {"compression": int(COMPRESS in rest)}
    server = ASGI(
        application, options=options, websocket=True, websocket_options=sockets, lifespan=True
    )
    server.listen(AppListenOptions(port=int(port), host="127.0.0.1"), lambda _: None)
    server.run(workers=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
