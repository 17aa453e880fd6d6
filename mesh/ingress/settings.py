"""What a server is told when it starts; pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from agents.errors import ConfigError
from mesh.ingress.curves import Curves
from mesh.ingress.keys import Key
from mesh.ingress.limits import Limits
from mesh.ingress.tls import PLAIN, ServerTLS


@dataclass(frozen=True, slots=True)
class Settings:
    """A server of one running mesh. Raises ConfigError where it would be open to anybody.

    ``grpc_port`` 0: no gRPC. ``trust_admins``: see ``Door``. ``otlp``: where spans of queries go (see ``open_spans``).
    ``curves`` None: those installed with the mesh, if they are of its agents.
    """

    mesh: str
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 0
    replicas: int = 1
    keys: tuple[Key, ...] = ()
    limits: Limits = field(default_factory=Limits)
    insecure: bool = False
    trust_admins: bool = False
    tls: ServerTLS = PLAIN
    otlp: str = ""
    curves: Curves | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("port", self.port, 1), ("grpc_port", self.grpc_port, 0)):
            if not least <= value <= 65_535:
                raise ConfigError(f"{name}: {value}; it must be a port, from {least} to 65535")
        if self.replicas < 1:
            raise ConfigError(f"replicas: {self.replicas}; it must be 1 or more")
        if self.grpc_port == self.port:
            raise ConfigError(f"grpc_port: {self.grpc_port}; it must be another port than that of HTTP")
        if self.tls.client_ca and not self.grpc_port:
            raise ConfigError(f"tls_client_ca: {self.tls.client_ca!r}; only gRPC asks for certificates: give grpc_port")
        if not (self.keys or self.insecure or is_loopback(self.host)):
            raise ConfigError(
                f"host: {self.host!r}; without API keys a server listens on this machine only (127.0.0.1, ::1, "
                "localhost): give it --keys FILE, or say --insecure where whoever reaches it may use it"
            )

    @property
    def local_only(self) -> bool:
        """Whether requests for other hosts than this one are refused."""
        return not (self.keys or self.insecure)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
