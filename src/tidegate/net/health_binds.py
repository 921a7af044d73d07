"""Where health checks are answered (`--health-bind`): beside the application, never in its place.

What goes wrong here is said with the name of this option: whoever reads that port 8000 is in use
would look for it in `--port`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from itertools import count

from tidegate.errors import ConfigurationError
from tidegate.net.binds import Bind, BindKind, check_apart, open_listeners, parse_bind
from tidegate.net.listener import Listener

_OPTION = "--health-bind"
_USUAL = 9000  # the port in examples, or the next one that is not the application's
_EVERYWHERE = ("", "0.0.0.0", "::")


def health_binds(texts: Iterable[str], serving: Sequence[Bind]) -> list[Bind]:
    """What the option says; ConfigurationError where that cannot be beside the application."""
    binds: list[Bind] = []
    for text in texts:
        try:
            bind = parse_bind(text)
        except ConfigurationError as error:
            raise _of_health(error) from None
        ports = [one.port for one in serving]
        if bind.kind is BindKind.TCP and not _says_port(text.strip()):
            raise ConfigurationError(
                f"{_OPTION} {text.strip()} has no port.",
                f"Give it one of its own, such as {_example(bind, ports)}.",
            )
        if _overlaps(bind, serving):
            raise _shared(bind, ports)
        if _overlaps(bind, binds):
            raise ConfigurationError(f"{_OPTION} {bind} is given twice.", "Give it once.")
        binds.append(bind)
    return binds


def open_health_listeners(
    binds: Iterable[Bind],
    serving: Sequence[Listener],
    backlog: int,
    uds_mode: int,
    inherited: Sequence[Listener] = (),
) -> list[Listener]:
    """All of them, or none, as `open_listeners`; `serving` are the application's."""
    opened: list[Listener] = []
    try:
        for bind in binds:
            left = [one for one in inherited if one not in opened]
            opened += _open(bind, serving, backlog, uds_mode, left)
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _open(
    bind: Bind,
    serving: Sequence[Listener],
    backlog: int,
    uds_mode: int,
    inherited: Sequence[Listener],
) -> list[Listener]:
    try:
        return open_listeners([bind], backlog, uds_mode, inherited)
    except ConfigurationError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.EADDRINUSE:
            raise _of_health(error) from cause
        ports = [one.server[1] or 0 for one in serving]
        if any(_is_taken_by(one, bind) for one in serving):
            raise _shared(bind, ports) from cause
        hint = f"Stop the program that listens there, or take {_example(bind, ports)} for example."
        raise _of_health(error, hint) from cause


def _says_port(text: str) -> bool:
    """Whether a TCP address says its port, rather than leaving it to the default."""
    return text.isdecimal() or ":" in text.rpartition("]")[2]


def _overlaps(bind: Bind, others: Sequence[Bind]) -> bool:
    try:
        check_apart([*others, bind])
    except ConfigurationError:
        return True
    return False


def _is_taken_by(listener: Listener, bind: Bind) -> bool:
    """Whether it is this listener that is in the way; a name is taken to be its address."""
    host, port = listener.server
    name = ":" not in bind.host and not bind.host.replace(".", "").isdecimal()
    same = name or listener.wildcard or bind.host in (host, *_EVERYWHERE)
    return port == bind.port and same


def _example(bind: Bind, ports: Sequence[int]) -> Bind:
    free = next(port for port in count(_USUAL) if port not in (bind.port, *ports))
    return bind._replace(port=free)


def _shared(bind: Bind, ports: Sequence[int]) -> ConfigurationError:
    ways = {
        BindKind.TCP: f"Give it a port of its own, such as {_example(bind, ports)}.",
        BindKind.UNIX: f"Give it a path of its own, such as unix:{bind.path}.health.",
        BindKind.FD: "Pass a second socket, and give the number of that one.",
        BindKind.SYSTEMD: "Name the sockets of both: --bind systemd:web, "
        f"{_OPTION} systemd:health (FileDescriptorName= in the .socket units).",
    }
    return ConfigurationError(
        f"{_OPTION} {bind} is where the application listens too.", ways[bind.kind]
    )


def _of_health(error: ConfigurationError, hint: str = "") -> ConfigurationError:
    """The same, said of this option."""
    said = f"{_OPTION} {error.message[:1].lower()}{error.message[1:]}"
    return ConfigurationError(said, hint or error.hint)
