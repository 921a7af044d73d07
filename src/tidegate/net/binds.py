"""Where to listen: what the user wrote, as data, and the listening sockets made from it.

A name may stand for several addresses, so one bind opens one listener or more. A Unix socket
appears with its final mode, a file somebody still answers on is never touched, and whatever is in
the way is said with the step that helps.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from tidegate.errors import ConfigurationError
from tidegate.net.listener import Listener

if TYPE_CHECKING:
    from tidegate.config import Config

__all__ = [
    "Bind",
    "BindKind",
    "Listener",
    "binds_of",
    "check_apart",
    "open_listener",
    "open_listeners",
    "parse_bind",
]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
FIRST_PASSED = 3  # sd_listen_fds(3): inherited descriptors begin here
CHOICES = 10  # of a port of the kernel's choice, for a name with several addresses
_FORMS = (
    "Give HOST:PORT, :PORT, [IPV6]:PORT, PORT, unix:/path/to.sock, fd://3, systemd or systemd:NAME."
)
# This machine does not have that one address (IPv6 switched off, say); its siblings may do.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class BindKind(Enum):
    TCP = "tcp"
    UNIX = "unix"
    FD = "fd"
    SYSTEMD = "systemd"


class Bind(NamedTuple):
    """One place to listen; which fields count follows from `kind`."""

    kind: BindKind
    host: str = ""  # TCP; empty: every address of this machine
    port: int = 0
    path: str = ""  # UNIX
    mode: int | None = None  # UNIX; None: the mode all sockets get
    fd: int = -1  # FD
    name: str = ""  # SYSTEMD; empty: every descriptor passed

    def __str__(self) -> str:
        if self.kind is BindKind.UNIX:
            return f"unix:{self.path}"
        if self.kind is BindKind.FD:
            return f"fd://{self.fd}"
        if self.kind is BindKind.SYSTEMD:
            return f"systemd:{self.name}" if self.name else "systemd"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# -- what the user wrote ---------------------------------------------------------------------------


def parse_bind(text: str) -> Bind:
    """One `--bind` value; raises `ConfigurationError` for anything that is not one."""
    text = text.strip()
    if text.startswith("unix:"):
        return _parse_unix(text)
    if text.startswith("fd://"):
        number = text[5:]
        if not (number.isascii() and number.isdecimal()):
            _refuse(text, "after fd:// comes the number of an open descriptor")
        return Bind(BindKind.FD, fd=int(number))
    if text == "systemd" or text.startswith("systemd:"):
        return Bind(BindKind.SYSTEMD, name=text[8:])
    if "://" in text:
        _refuse(text, "a URL is not an address to listen on")
    return _parse_tcp(text)


def _parse_unix(text: str) -> Bind:
    from urllib.parse import parse_qsl  # 3 ms: only who writes unix: pays for it

    path, _, query = text[5:].partition("?")
    if path.startswith("//"):  # unix:///run/x.sock, as other programs write it
        path = path[2:]
    if not path:
        _refuse(text, "the path of the socket is missing")
    mode = None
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key != "mode":
            _refuse(text, f"{key!r} is not known here, only mode is")
        try:
            mode = int(value, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            _refuse(text, f"mode is an octal number up to 777, not {value!r}")
    if query and mode is None:
        _refuse(text, "after ? comes mode=, as in ?mode=0660")
    return Bind(BindKind.UNIX, path=path, mode=mode)


def _parse_tcp(text: str) -> Bind:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not host or (rest and not rest.startswith(":")):
            _refuse(text, "an IPv6 address stands in brackets, then :PORT")
        return Bind(BindKind.TCP, host, _port(text, rest[1:]) if rest else DEFAULT_PORT)
    if text.count(":") > 1:
        _refuse(text, f"an IPv6 address needs brackets: [{text}]:{DEFAULT_PORT}")
    host, colon, port = text.partition(":")
    if colon:
        return Bind(BindKind.TCP, "" if host == "*" else host, _port(text, port))
    if host.isascii() and host.isdecimal():
        return Bind(BindKind.TCP, DEFAULT_HOST, _port(text, host))
    if not host:
        _refuse(text, "it is empty")
    if "/" in host:
        _refuse(text, f"a path is written unix:{host}")
    return Bind(BindKind.TCP, "" if host == "*" else host, DEFAULT_PORT)


def _port(text: str, digits: str) -> int:
    if not (digits.isascii() and digits.isdecimal()) or int(digits) > 65535:
        _refuse(text, f"a port is a number from 0 to 65535, not {digits!r}")
    return int(digits)


def _refuse(text: str, why: str) -> NoReturn:
    raise ConfigurationError(f"Cannot listen on {text!r}: {why}.", _FORMS)


def binds_of(config: Config) -> tuple[Bind, ...]:
    """`bind` when given, else `fd`, `uds`, or `host` with `port`, in uvicorn's order."""
    if config.bind:
        binds = tuple(parse_bind(text) for text in config.bind)
        check_apart(binds)
        return binds
    if config.fd is not None:
        return (Bind(BindKind.FD, fd=config.fd),)
    if config.uds is not None:
        return (Bind(BindKind.UNIX, path=config.uds),)
    return (Bind(BindKind.TCP, config.host.removeprefix("[").removesuffix("]"), config.port),)


def check_apart(binds: Sequence[Bind]) -> None:
    """No descriptor or address may be taken twice."""
    names = [str(bind) for bind in binds if bind.kind is not BindKind.TCP or bind.port]
    for name in names:
        twice = names.count(name) > 1
        if twice or (name.startswith("systemd:") and "systemd" in names):
            raise ConfigurationError(f"{name} is listened on twice.", "Give each --bind once.")


# -- the sockets -----------------------------------------------------------------------------------


def open_listeners(
    binds: Iterable[Bind], backlog: int, uds_mode: int, inherited: Sequence[Listener] = ()
) -> list[Listener]:
    """All of them, or none: those already open are closed before the error leaves.

    Of what a predecessor has left to us, the same bind takes what it had there.
    """
    left = list(inherited)
    opened: list[Listener] = []
    try:
        for bind in binds:
            for listener in _take(bind, left) or open_listener(bind, backlog, uds_mode):
                listener.bind = str(bind)
                opened.append(listener)
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _take(bind: Bind, left: list[Listener]) -> list[Listener]:
    """Take out what this bind had; of those that are written alike, the first has the first."""
    found = [one for one in left if one.bind == str(bind)]
    if bind.kind is BindKind.TCP:  # what stems from one bind has one port, also with port 0
        found = [one for one in found if one.server[1] == found[0].server[1]]
    for listener in found:
        left.remove(listener)
    return found


def open_listener(bind: Bind, backlog: int, uds_mode: int) -> list[Listener]:
    """Every listener this bind stands for, bound, listening and non-blocking."""
    if bind.kind is BindKind.TCP:
        return _open_tcp(bind, backlog)
    if bind.kind is BindKind.UNIX:
        return [_open_unix(bind, backlog, uds_mode if bind.mode is None else bind.mode)]
    if bind.kind is BindKind.FD:
        return [_adopt(bind, bind.fd, backlog)]
    return [_adopt(bind, fd, backlog) for fd in passed_descriptors(bind.name, os.environ)]


def _open_tcp(bind: Bind, backlog: int) -> list[Listener]:
    addresses = _resolve(bind)
    # What the kernel chooses for the first address may be taken at another: it shall choose again.
    for _ in range(0 if bind.port else CHOICES):
        try:
            return _open_addresses(addresses, 0, backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                break  # and say why, as for any port
    try:
        return _open_addresses(addresses, bind.port, backlog)
    except OSError as error:
        raise _explain_tcp(bind, bind.port, error) from error


def _open_addresses(
    addresses: list[tuple[int, tuple[object, ...]]], port: int, backlog: int
) -> list[Listener]:
    """One listener each, on one port; with port 0 the others follow the first."""
    opened: list[Listener] = []
    missing: OSError | None = None
    try:
        for family, address in addresses:
            try:
                sock = _tcp_socket(family, (address[0], port, *address[2:]), backlog)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
                continue
            opened.append(Listener(sock))
            port = sock.getsockname()[1]
        if missing is not None and not opened:
            raise missing
    except OSError:
        for listener in opened:
            listener.close()
        raise
    return opened


def _literal(bind: Bind) -> tuple[int, tuple[object, ...]] | None:
    """The address, where it is written out: asking the resolver loads 60 KB that stay."""
    for family, rest in ((socket.AF_INET, ()), (socket.AF_INET6, (0, 0))):
        try:
            socket.inet_pton(family, bind.host)
        except (OSError, ValueError):  # ValueError: a NUL in it
            continue
        return family, (bind.host, bind.port, *rest)
    return None


def _resolve(bind: Bind) -> list[tuple[int, tuple[object, ...]]]:
    literal = _literal(bind)
    if literal is not None:
        return [literal]
    try:
        # As octets where that is the same: for a text the whole idna codec is imported (1.5 ms).
        host = bind.host.encode("ascii") if bind.host.isascii() else bind.host
        found = socket.getaddrinfo(
            host or None, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"Cannot listen on {bind}: {bind.host!r} is no address and no name known here "
            f"({getattr(error, 'strerror', None) or error}).",
            "Give an address of this machine, 127.0.0.1 for this machine only, "
            "or 0.0.0.0 for every IPv4 address.",
        ) from error
    # A hosts file may name an address twice; a dict keeps the order and one of each.
    return list(dict.fromkeys((item[0], item[4]) for item in found))


def _tcp_socket(family: int, address: tuple[object, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # A restart must not wait for TIME_WAIT. (On Windows this would allow a hijack.)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # 0.0.0.0 and :: are opened each for itself, whatever net.ipv6.bindv6only says.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Linux, the BSDs and macOS hand this on to accepted sockets: no call per connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _explain_tcp(bind: Bind, port: int, error: OSError) -> ConfigurationError:
    where = f"Cannot listen on {bind}: "
    if error.errno == errno.EADDRINUSE:
        holder = _holder(port)
        return ConfigurationError(
            f"{where}port {port} is already in use{f' by {holder}' if holder else ''}.",
            "Stop the program that listens there, or choose another port with --port or --bind.",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ConfigurationError(
            f"{where}this user may not open port {port}.",
            "Choose a port from 1024 up, such as 8000, or give the right to open low ones: "
            "AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit, or socket activation.",
        )
    if error.errno in _NOT_HERE:
        return ConfigurationError(
            f"{where}{bind.host or 'that'} is not an address of this machine.",
            "127.0.0.1 listens for this machine only, 0.0.0.0 on every IPv4 address, "
            "[::] on every IPv6 address.",
        )
    return ConfigurationError(f"{where}{error.strerror or error}.", _FORMS)


def _holder(port: int) -> str:
    """Who listens on this port, as far as /proc lets us see; empty when it does not."""
    sockets: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        # proc_net_tcp: 1 local address:port in hex, 3 state (0A is LISTEN), 9 inode
        sockets |= {
            f"socket:[{row[9]}]"
            for row in rows
            if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
        }
    for pid in filter(str.isdecimal, os.listdir("/proc") if sockets else ()):
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                if not any(os.readlink(entry.path) in sockets for entry in entries):
                    continue
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                return f"{comm.read().strip()} (process {pid})"
        except OSError:
            continue
    return ""


def _open_unix(bind: Bind, backlog: int, mode: int) -> Listener:
    path = bind.path
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(f"Cannot listen on {bind}: no Unix sockets on this system.", "")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            _bind_with_mode(sock, path, mode)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(bind)
            _bind_with_mode(sock, path, mode)
        listener = Listener(sock, made_path=path)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _explain_unix(bind, error) from error
    except BaseException:
        sock.close()
        raise
    return listener


def _bind_with_mode(sock: socket.socket, path: str, mode: int) -> None:
    """The file is never wider than `mode`, not for an instant; nobody connects before listen()."""
    # bind(2) makes the file with 0777 less the umask: the one portable way to have it born narrow.
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _remove_stale(bind: Bind) -> None:
    """Unlink a socket file nobody answers on; raises for one that is alive or no socket."""
    seen = os.lstat(bind.path)
    if not stat.S_ISSOCK(seen.st_mode):
        raise ConfigurationError(
            f"Cannot listen on {bind}: there is a file of that name and it is no socket.",
            "Choose another path, or move that file away.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # Only a refusal says that nobody listens; a full backlog (EAGAIN) or another type of
        # socket (EPROTOTYPE) has an owner.
        alive = probe.connect_ex(bind.path) != errno.ECONNREFUSED
    if alive:
        raise ConfigurationError(
            f"Cannot listen on {bind}: another server answers on that socket.",
            "Stop it, or choose another path.",
        )
    now = os.lstat(bind.path)
    if (now.st_dev, now.st_ino) == (seen.st_dev, seen.st_ino):  # not one born meanwhile
        os.unlink(bind.path)


def _explain_unix(bind: Bind, error: OSError) -> ConfigurationError:
    where = f"Cannot listen on {bind}: "
    directory = os.path.dirname(os.path.abspath(bind.path))
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return ConfigurationError(
            f"{where}there is no directory {directory}.",
            f"Make it first (mkdir -p {directory}; RuntimeDirectory= in a systemd unit).",
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return ConfigurationError(
            f"{where}this user may not create a file in {directory}.",
            "Choose a directory this user owns, or change the owner of that one.",
        )
    if error.errno is None or error.errno == errno.ENAMETOOLONG:  # Python checks sun_path itself
        return ConfigurationError(
            f"{where}the path is longer than the system allows (107 bytes).",
            "Choose a shorter one, under /run for example.",
        )
    return ConfigurationError(f"{where}{error.strerror}.", "Choose another path.")


# -- inherited -------------------------------------------------------------------------------------


def passed_descriptors(name: str, environ: Mapping[str, str]) -> list[int]:
    """The descriptors of sd_listen_fds(3), all or those called `name`."""
    bind = Bind(BindKind.SYSTEMD, name=name)
    hint = "Start it through a systemd .socket unit, or with systemd-socket-activate -l 8000."
    pid, count = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    if not pid.isdecimal() or not count.isdecimal() or not int(count):
        raise ConfigurationError(
            f"Cannot listen on {bind}: no sockets were passed (LISTEN_FDS is not set).", hint
        )
    if int(pid) != os.getpid():
        raise ConfigurationError(
            f"Cannot listen on {bind}: the sockets were passed to process {pid}, "
            f"this one is {os.getpid()}.",
            "A shell or wrapper stands between? Let it start the server with exec.",
        )
    descriptors = list(range(FIRST_PASSED, FIRST_PASSED + int(count)))
    if not name:
        return descriptors
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    chosen = [fd for fd, called in zip(descriptors, names, strict=False) if called == name]
    if not chosen:
        raise ConfigurationError(
            f"Cannot listen on {bind}: no socket of that name was passed, "
            f"only {', '.join(filter(None, names)) or 'unnamed ones'}.",
            f"Give the .socket unit FileDescriptorName={name}, or listen on plain systemd.",
        )
    return chosen


def _adopt(bind: Bind, fd: int, backlog: int) -> Listener:
    """Make a listener of an inherited descriptor, which is ours from here on."""
    where = f"Cannot listen on {bind}: descriptor {fd} "
    hint = "The program that starts the server has to pass a bound stream socket (TCP or Unix)."
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        why = "is not a socket" if error.errno == errno.ENOTSOCK else "is not open"
        raise ConfigurationError(f"{where}{why}.", hint) from error
    try:
        is_tcp = sock.family in {socket.AF_INET, socket.AF_INET6}
        if sock.type != socket.SOCK_STREAM or not (is_tcp or sock.family == socket.AF_UNIX):
            raise ConfigurationError(f"{where}is not a TCP or Unix stream socket.", hint)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            # Bound by the parent, to be listened on by us; an unbound one would get a random port.
            name = sock.getsockname()
            if not (name[1] if is_tcp else name):
                raise ConfigurationError(f"{where}is not bound to an address.", hint)
            try:
                sock.listen(backlog)
            except OSError as error:  # a connection, for example
                raise ConfigurationError(
                    f"{where}cannot be listened on ({error.strerror}).", hint
                ) from error
        if is_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.set_inheritable(False)  # sd_listen_fds(3) asks for it: not for our subprocesses
        return Listener(sock)
    except BaseException:
        sock.detach()  # what is not ours stays open
        raise
