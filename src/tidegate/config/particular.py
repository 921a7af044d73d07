"""The kinds of value that only one or two options have."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from tidegate.config.kinds import File, Path, Text, Whole, joined, line_of_text
from tidegate.config.option import Kind, WrongValueError, listed, near


class Application(Kind):
    """An import string, or the application itself."""

    metavar = "APP"
    right = "an application such as main:app or mysite.asgi:application"
    knows_none = False

    def read(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not value.strip() or value.startswith("-") or re.search(r"[\s\x00]", value):
            raise WrongValueError("that names no application", f"Right would be {self.right}.")
        return value


class Port(Whole):
    def __init__(self) -> None:
        super().__init__(0, 65535)

    def read(self, value: object) -> int:
        if isinstance(value, str) and value.startswith("tcp://"):
            # Kubernetes gives every container <SERVICE>_PORT=tcp://address:port of each Service.
            raise WrongValueError(
                "Kubernetes sets this variable for a Service named 'tidegate'",
                "Set enableServiceLinks: false in the pod, or rename the Service.",
            )
        return super().read(value)


class RootPath(Kind):
    """Where the application is mounted: empty, or a path without the slash at its end."""

    metavar = "PATH"
    right = "a path such as /api"
    may_be_empty = True
    knows_none = False

    def read(self, value: object) -> str:
        path = line_of_text(value, self.right).rstrip("/")
        if path and not path.startswith("/"):
            raise WrongValueError("it does not begin with a slash", f"Right would be /{path}.")
        if re.search(r"[?#\s\x00-\x1f\x7f]", path):
            raise WrongValueError("that is not the path of a URL", f"Right would be {self.right}.")
        return path


class TrustedPeers(Kind):
    """Addresses, networks, paths of sockets or `*`, between commas; kept as that text."""

    metavar = "PEERS"
    right = "addresses, networks or socket paths between commas, such as 10.0.0.0/8,::1, or *"
    may_be_empty = True
    knows_none = False

    def read(self, value: object) -> str:
        entries = value if isinstance(value, list | tuple) else [value]
        parts = [
            part.strip() for entry in entries for part in line_of_text(entry, self.right).split(",")
        ]
        for part in parts:
            # Anything else is a literal, such as the path of a socket: compared as it stands.
            if re.fullmatch(r"[0-9A-Fa-f.:]+[.:][0-9A-Fa-f.:]*(/[0-9]*)?", part):
                self._check_network(part)
        return ",".join(part for part in parts if part)

    def _check_network(self, text: str) -> None:
        from ipaddress import ip_network

        try:
            ip_network(text)
        except ValueError:
            pass
        else:
            return
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise WrongValueError(
                f"{text!r} is no address or network", f"Right would be {self.right}."
            ) from None
        raise WrongValueError(f"{text!r} has bits beyond its mask", f"Right would be {meant}.")


class HeaderField(Kind):
    """A response header, as `Name: value` or as a pair."""

    metavar = "FIELD"
    right = "a header such as 'X-Frame-Options: DENY'"
    # What frames a message (RFC 9112 6, RFC 9110 7.6.1) follows from the message, not from a wish.
    _framing = frozenset(
        (
            "connection",
            "content-length",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        )
    )

    def read(self, value: object) -> str:
        if isinstance(value, list | tuple) and len(value) == 2:
            value = ": ".join(line_of_text(part, self.right) for part in value)
        name, colon, content = line_of_text(value, self.right).partition(":")
        if not colon:
            raise WrongValueError("it has no colon", f"Right would be {self.right}.")
        if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):  # RFC 9110 5.6.2
            raise WrongValueError(f"{name!r} is no header name", f"Right would be {self.right}.")
        content = content.strip(" \t")
        if re.search(r"[^\t\x20-\x7e\x80-\xff]", content):  # RFC 9110 5.5
            raise WrongValueError("its value has a character HTTP cannot carry", "Take it out.")
        if name.lower() in self._framing:
            raise WrongValueError(f"{name} belongs to the server", "Leave it out.")
        return f"{name}: {content}"


class NamedCertificate(Kind):
    """`name=cert.pem:key.pem`, the certificate for clients that ask for this name."""

    metavar = "NAME=CERT:KEY"
    right = "name=cert.pem:key.pem, the name being such as example.org or *.example.org"
    _pem = File("a PEM file")

    def read(self, value: object) -> str:
        text = line_of_text(value, self.right)
        name, equals, files = text.partition("=")
        certificate, colon, key = files.partition(":")
        if not (equals and colon and certificate and key):
            raise WrongValueError("a part of it is missing", f"Right would be {self.right}.")
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", name):
            raise WrongValueError(f"{name!r} is no host name", f"Right would be {self.right}.")
        for path in (certificate, key):
            try:
                self._pem.read(path)
            except WrongValueError as wrong:
                raise WrongValueError(f"{path!r}: {wrong.what}", wrong.right) from None
        return text

    def beside(self, value: object, folder: str) -> object:
        if not isinstance(value, str):
            return value
        name, _, files = value.partition("=")
        paths = [joined(folder, path) for path in files.split(":") if path]
        return f"{name}={':'.join(paths)}"


class LogConfig(File):
    """The path of a logging configuration, or (in Python and TOML) the dictionary itself."""

    def __init__(self) -> None:
        super().__init__("a .json, .yaml or .ini file as logging.config reads it")

    def read(self, value: object) -> Any:
        return dict(value) if isinstance(value, Mapping) else super().read(value)

    def show(self, value: Any) -> str:
        return "(a dictionary)" if isinstance(value, dict) else str(value)


class AccessLogFormat(Text):
    """The name of a format, or a template with {fields}."""

    def __init__(self, *names: str) -> None:
        right = f"{listed(names)}, or a template such as '{{method}} {{path}} {{status}}'"
        super().__init__(right, metavar="FORMAT")
        self.names = names

    def read(self, value: object) -> str:
        text = super().read(value)
        if text not in self.names and "{" not in text:
            close = near(text, self.names)
            raise WrongValueError("no format has this name", f"Right would be {self.right}.{close}")
        return text


class Workers(Whole):
    """A number of processes; 0 stands for `auto`."""

    metavar = "N"

    def __init__(self) -> None:
        super().__init__(1, 256)
        self.right += ", or auto for the processors this process may use"

    def read(self, value: object) -> int:
        if value == 0 and not isinstance(value, bool) and isinstance(value, int):
            return 0
        if isinstance(value, str) and value.strip().lower() == "auto":
            return 0
        return super().read(value)

    def show(self, value: int) -> str:
        return str(value) if value else "auto"


class Account(Text):
    """A user or group, by name or number: `user = 33` in TOML is a number."""

    def __init__(self, right: str) -> None:
        super().__init__(right, metavar="NAME")

    def read(self, value: object) -> str:
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return super().read(str(value) if number else value)


class Folder(Path):
    """A directory by its path; whether it is there matters only to who watches it."""

    right = "a directory"


class Pattern(Text):
    """A glob or a directory for `--reload`: one that nothing can match is a mistake.

    A bracket that is never closed is no such: it stands for itself, as in the shell.
    """

    def __init__(self) -> None:
        super().__init__("a pattern such as *.html or templates/*.html, or a directory")

    def read(self, value: object) -> str:
        text = super().read(value)
        if not os.path.isdir(text) and not self._may_match(text):
            raise WrongValueError("no file can ever match that", f"Right would be {self.right}.")
        return text

    @staticmethod
    def _may_match(text: str) -> bool:
        from fnmatch import translate

        parts = text.replace(os.sep, "/").rstrip("/").split("/")
        if parts[0] == "..":  # which is resolved
            parts = os.path.normpath(text).replace(os.sep, "/").split("/")
        while parts and parts[0] in ("", ".", ".."):
            del parts[0]
        # `(?!)` is what a range such as [z-a] becomes; a real parenthesis would be escaped
        return bool(parts) and all(
            part not in ("", ".", "..") and "(?!)" not in translate(part) for part in parts
        )


class TlsVersion(Whole):
    """A protocol constant of the ssl module; those older than TLS 1.2 are not served."""

    def __init__(self) -> None:
        super().__init__(2, 17)
        self.right = "17 for TLS 1.2 and 1.3, or 5 for TLS 1.2 alone"

    def read(self, value: object) -> int:
        number = super().read(value)
        if number == 2:  # PROTOCOL_TLS, the old spelling of "the best both sides know"
            return 17
        if number not in (5, 17):
            raise WrongValueError("that protocol is not served", f"Right would be {self.right}.")
        return number
