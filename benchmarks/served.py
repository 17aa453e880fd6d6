"""A server of a mesh, for benchmarks: the same that ``mesh serve`` starts, on a free port of this machine."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from mesh.config import MeshConfig

PORTS = range(20_000, 32_000)  # above those of Ray's workers, below those that systems lend to outgoing connections
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that no connection is lent before somebody does: the system itself would give
    one of those. None is given twice.
    """
    while True:
        port = random.SystemRandom().choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


@contextlib.contextmanager
def served(config: MeshConfig, replicas: int = 1, models_dir: Path | None = None) -> Iterator[str]:
    """Start the mesh and its server; gives its address, without ``/v1``, and ends both. Raises as ``mesh serve``."""
    from mesh import running
    from mesh.ingress import serving
    from mesh.ingress.settings import Settings
    from mesh.runtimes.ray import ensure_cluster

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ensure_cluster()
    settings = Settings(config.name, port=free_port(), replicas=replicas)
    running.up(config, models_dir=models_dir)
    try:
        serving.start(settings)
        try:
            yield f"http://{settings.host}:{settings.port}"
        finally:
            serving.stop(settings)
    finally:
        running.down(settings.mesh)
