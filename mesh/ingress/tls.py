"""Certificate files: what a server shows, whom it lets in, and what a client shows. Read where they are used.

They are read when something starts: who renews a certificate starts it again.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from agents.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """A server's certificate chain and its key, as PEM files. With ``client_ca``, gRPC lets in only clients that show
    a certificate which one of these authorities has signed.

    Raises:
        ConfigError: one of the files is named without those that it needs.
    """

    cert: str = ""
    key: str = ""
    client_ca: str = ""

    def __post_init__(self) -> None:
        _together(self.cert, self.key)
        if self.client_ca and not self.cert:
            raise ConfigError(f"tls_client_ca: {self.client_ca!r}; it needs tls_cert and tls_key, the server's own")

    def __bool__(self) -> bool:
        return bool(self.cert)

    def checked(self) -> ServerTLS:
        """The same by absolute paths, since who listens has another working directory.

        Raises:
            ConfigError: a file cannot be read, is of another kind, or the key is that of another certificate.
        """
        if not self:
            return self
        _check_pair(self.cert, self.key)
        if self.client_ca:
            _check_certificates("tls_client_ca", self.client_ca)
        paths = {name: path and str(Path(path).expanduser().resolve()) for name, path in self.named().items()}
        return replace(self, **paths)

    def named(self) -> dict[str, str]:
        """The files by their fields."""
        return {"cert": self.cert, "key": self.key, "client_ca": self.client_ca}


@dataclass(frozen=True, slots=True)
class ClientTLS:
    """Whom a client trusts (``ca``; "": the authorities that gRPC knows) and what it shows, as PEM files; without any
    of them it does not encrypt.

    Raises:
        ConfigError: ``cert`` without ``key``, or the other way round.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        _together(self.cert, self.key)

    def __bool__(self) -> bool:
        return bool(self.ca or self.cert)

    def contents(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """What stands in ``ca``, ``key`` and ``cert``, as gRPC wants them.

        Raises:
            ConfigError: as ``ServerTLS.checked``.
        """
        if self.ca:
            _check_certificates("tls_ca", self.ca)
        if self.cert:
            _check_pair(self.cert, self.key)
        files = (("tls_ca", self.ca), ("tls_key", self.key), ("tls_cert", self.cert))
        ca, key, cert = [read(field, path) if path else None for field, path in files]
        return ca, key, cert


def read(field: str, path: str) -> bytes:
    """What stands in a file. Raises ConfigError, which names the field."""
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"{field}: {path!r} cannot be read: {error.strerror or error}") from None


def _together(cert: str, key: str) -> None:
    if bool(cert) != bool(key):
        given, missing = ("tls_cert", "tls_key") if cert else ("tls_key", "tls_cert")
        raise ConfigError(f"{given}: {cert or key!r}; it needs {missing} too")


def _check_certificates(field: str, path: str) -> None:
    text = read(field, path).decode("ascii", "ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"{field}: {path!r} holds no certificate; it must be a PEM file of some") from None


def _check_pair(cert: str, key: str) -> None:
    _check_certificates("tls_cert", cert)
    read("tls_key", key)
    chain, private = Path(cert).expanduser(), Path(key).expanduser()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, private, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"tls_key: {key!r} is not the key of the certificate in {cert!r}") from None
        raise ConfigError(f"tls_key: {key!r} holds no private key; it must be a PEM file of one, unencrypted") from None


PLAIN = ServerTLS()  # no TLS
