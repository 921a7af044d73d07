"""nginx in front of a server under test: a configuration of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.support.programs import free_port, need, running, wait_for_port

_MAIN = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{sites}
}}
"""


@contextlib.contextmanager
def nginx(sites: str, folder: Path) -> Iterator[int]:
    """nginx with what `sites` says inside `http`, `@PORT@` in it replaced; the port it serves."""
    program = need("nginx")
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # its workers must reach our folder
    configuration = _MAIN.format(
        user=user, folder=folder, sites=sites.replace("@PORT@", f"127.0.0.1:{port}")
    )
    (folder / "nginx.conf").write_text(configuration)
    with running(program, "-p", folder, "-c", folder / "nginx.conf") as process:
        wait_for_port(port, process)
        yield port
