"""The server's certificates: which one a client gets, and new ones without a restart.

Every certificate has a context of its own. A client that names a host (SNI) is moved to that
host's context during its handshake. When a file changes, a fresh context is built and takes the
place of the old one only if all of it loaded: loading into the live context would leave a new
certificate with an old key in use whenever the files are caught half-way, and would keep a
certificate of another key type that is no longer in the files. Open connections hold the context
they began with. The price is that session tickets of the old context are not taken by the new one:
one full handshake per client and renewal.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, cast

from tidegate.errors import ConfigurationError
from tidegate.net.tls_detail import ServerObject
from tidegate.net.tls_files import DiskFiles, Files
from tidegate.net.tls_socket import Bios, TlsSocket

if TYPE_CHECKING:
    import logging
    import socket

    from tidegate.config import Config

_Stamp = tuple[tuple[int, ...], ...]

# --ssl-version as `config` lets it through: the numbers of ssl's PROTOCOL_TLS_SERVER (its newer
# name for "the best both know") and PROTOCOL_TLSv1_2
_VERSIONS = {
    17: (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED),
    5: (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
}


class ServerContext(ssl.SSLContext):
    """A context that knows the certificate it shows, as PEM."""

    certificate: str = ""


class _Entry:
    """One certificate: its files, what they looked like when last read, and its context."""

    __slots__ = ("cert", "context", "key", "name", "stamp")

    def __init__(self, name: str, cert: str, key: str | None) -> None:
        self.name = name  # "" for the default
        self.cert = cert
        self.key = key
        self.stamp: _Stamp = ()
        self.context: ServerContext


class Certificates:
    """All certificates of one worker, from the `ssl_*` options; `wrap` gives a new TLS end."""

    def __init__(
        self,
        config: Config,
        alpn: Sequence[str],
        log: logging.Logger,
        files: Files | None = None,
    ) -> None:
        self._files = files or DiskFiles()
        self._config = config
        self._alpn = list(alpn)
        self._log = log
        self._verify = ssl.VerifyMode(config.ssl_cert_reqs)
        self._interval = config.ssl_reload_interval
        self._next_look = 0.0
        self._bios = Bios()
        if config.ssl_ca_certs and self._verify is ssl.CERT_NONE:
            log.warning(
                "--ssl-ca-certs is given, but client certificates are not asked for: "
                "add --ssl-cert-reqs 1 (optional) or 2 (required)"
            )
        self._default = _default_entry(config)
        self._named = {entry.name: entry for entry in map(_named_entry, config.ssl_sni)}
        if len(self._named) < len(config.ssl_sni):
            raise ConfigurationError(
                "--ssl-sni names a host twice.", "Give each name one certificate."
            )
        for entry in self._entries():
            entry.stamp = self._look(entry)
            entry.context = self._build(entry)

    def wrap(self, sock: socket.socket) -> TlsSocket:
        """Take over a non-blocking socket."""
        return TlsSocket(sock, self._default.context, self._bios)

    def refresh(self, now: float) -> None:
        """Look for changed files, at most once an interval; for the worker's timer."""
        if not self._interval or now < self._next_look:
            return
        self._next_look = now + self._interval
        for entry in self._entries():
            stamp = self._look(entry)
            if stamp == entry.stamp:
                continue
            # Remembered before it is known to be good: a broken state is said once.
            entry.stamp = stamp
            whose = f"for {entry.name}" if entry.name else "of this server"
            try:
                entry.context = self._build(entry)
            except ConfigurationError as error:
                self._log.warning(
                    "The certificate %s has changed and cannot be used: %s "
                    "Going on with the one before",
                    whose,
                    error.message,
                )
            else:
                self._log.info("The certificate %s has changed: new connections get it", whose)

    def _entries(self) -> list[_Entry]:
        return [self._default, *self._named.values()]

    def _look(self, entry: _Entry) -> _Stamp:
        """What tells one state of the files from the next; taken before they are read."""
        return tuple(
            self._files.stamp(path)
            for path in (entry.cert, entry.key, self._config.ssl_ca_certs)
            if path
        )

    def _choose(self, end: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """The client has said which host it wants: show it that host's certificate."""
        # OpenSSL gives back what `wrap_bio` made: our own class.
        cast("ServerObject", end).sni = name
        if name is None or not self._named:
            return
        host = _host(name)
        entry = self._named.get(host)
        if entry is None:
            # RFC 9525 6.3: the asterisk stands for exactly one label, the leftmost
            entry = self._named.get("*." + host.partition(".")[2])
        if entry is not None:
            end.context = entry.context

    def _build(self, entry: _Entry) -> ServerContext:
        context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
        context.sslobject_class = ServerObject
        context.minimum_version, context.maximum_version = _VERSIONS[self._config.ssl_version]
        # RFC 9113 9.2.1 forbids both, and either is a way to attack (CRIME; endless handshakes).
        # Session tickets stay as they are: on.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        password = self._config.ssl_keyfile_password
        context.certificate = _load_pair(context, entry, self._files, password)
        if self._config.ssl_ca_certs:
            _load_authorities(context, self._config.ssl_ca_certs, self._files)
        context.verify_mode = self._verify
        if self._config.ssl_ciphers:
            _set_ciphers(context, self._config.ssl_ciphers)
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        # The handshake asks the context it began with, and ends with the chosen one: so all the
        # rest is the same in each.
        context.sni_callback = self._choose
        return context


# -- entries ---------------------------------------------------------------------------------------


def _default_entry(config: Config) -> _Entry:
    if config.ssl_certfile is None:
        _fail("TLS needs a certificate.", "Add --ssl-certfile.")
    return _Entry("", config.ssl_certfile, config.ssl_keyfile)


def _named_entry(text: str) -> _Entry:
    """One --ssl-sni value, `name=cert.pem:key.pem`; `config` has checked its form."""
    name, _, files = text.partition("=")
    cert, _, key = files.partition(":")
    return _Entry(_host(name), cert, key)


def _host(name: str) -> str:
    """RFC 9110 4.2.3, RFC 1034 3.1: names differ neither by case nor by the final dot."""
    return name.lower().rstrip(".")


# -- files -----------------------------------------------------------------------------------------


def _load_pair(context: ssl.SSLContext, entry: _Entry, files: Files, password: str | None) -> str:
    """Load certificate chain and key; gives the certificate itself as PEM."""
    leaf = _first_certificate(entry.cert, _read(files, entry.cert, "certificate"))
    key = entry.key or entry.cert
    if b"PRIVATE KEY-----" not in _read(files, key, "key"):
        way = "holds the key that was made with the certificate"
        _fail(
            f"The key file {key} holds no private key in PEM form.",
            f"Check that --ssl-keyfile {way}." if entry.key else f"Add --ssl-keyfile, which {way}.",
        )
    asked = False

    def answer() -> str:
        # Without this OpenSSL would ask at the terminal, in the middle of a start or a renewal.
        nonlocal asked
        asked = True
        return password or ""

    try:
        with files.lend(entry.cert) as cert_path, files.lend(key) as key_path:
            context.load_cert_chain(cert_path, key_path, answer)
    except (ssl.SSLError, OSError, ValueError) as error:
        _explain(entry, key, error, asked=asked, given=bool(password))
    return leaf


def _explain(entry: _Entry, key: str, error: Exception, *, asked: bool, given: bool) -> NoReturn:
    reason = getattr(error, "reason", None) or ""
    if "MISMATCH" in reason:
        _fail(
            f"The key {key} does not belong to the certificate {entry.cert}.",
            "Give the pair that was made together.",
        )
    if asked and not given:
        _fail(f"The key {key} is encrypted.", "Give its password with --ssl-keyfile-password.")
    if asked:
        _fail(f"The password does not open the key {key}.", "Check --ssl-keyfile-password.")
    said = reason.replace("_", " ").lower() or str(error)
    _fail(
        f"The certificate {entry.cert} with the key {key} cannot be used: {said}.",
        "Both have to be in PEM form, whole, and with a key of 2048 bits (RSA) or more.",
    )


def _first_certificate(path: str, content: bytes) -> str:
    """The first certificate in a file, the server's own, in the usual PEM form."""
    begin, end = content.find(b"-----BEGIN CERTIFICATE-----"), 0
    if begin >= 0:
        end = content.find(b"-----END CERTIFICATE-----", begin)
    if begin < 0 or end < 0:
        _fail(
            f"The certificate file {path} holds no whole certificate in PEM form.",
            "Its first line should be -----BEGIN CERTIFICATE-----; openssl x509 -inform der "
            "turns a DER file into one.",
        )
    block = content[begin:end].decode("latin-1") + "-----END CERTIFICATE-----\n"
    try:
        return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(block))
    except ValueError:
        _fail(f"The certificate in {path} is damaged.", "Copy it again from where it was issued.")


def _load_authorities(context: ssl.SSLContext, path: str, files: Files) -> None:
    try:
        content = _read(files, path, "file of authorities")
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"The authorities in {path} (--ssl-ca-certs) cannot be used: "
            f"{getattr(error, 'reason', None) or error}.",
            "Give a file with the certificates of the authorities in PEM form.",
        ) from error


def _set_ciphers(context: ssl.SSLContext, ciphers: str) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--ssl-ciphers {ciphers!r} leaves no cipher this OpenSSL knows.",
            "`openssl ciphers 'LIST'` shows what a list means; it is about TLS 1.2 only.",
        ) from error


def _read(files: Files, path: str, what: str) -> bytes:
    try:
        return files.read(path)
    except OSError as error:
        hint = f"Check the path, and that this user may read it (working directory: {os.getcwd()})."
        raise ConfigurationError(
            f"The {what} {path} cannot be read: {error.strerror}.", hint
        ) from error


def _fail(message: str, hint: str) -> NoReturn:
    raise ConfigurationError(message, hint)
