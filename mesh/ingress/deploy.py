"""The same server from a file for ``serve deploy``, which KubeRay's RayService takes too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict
from ray import serve

from mesh import running
from mesh.ingress import serving
from mesh.ingress.curves import read_curves
from mesh.ingress.keys import gather_keys
from mesh.ingress.ledger import open_ledger
from mesh.ingress.limits import Limits
from mesh.ingress.settings import Settings
from mesh.ingress.tls import ServerTLS

_HEAD = """\
# `serve deploy FILE` puts this server on a Ray cluster; as `serveConfigV2` it is what KubeRay's RayService takes.
# Paths are those of the cluster's machines. API keys come from keys_file and from the environment of the cluster
# (MESH_USER_KEYS, MESH_ADMIN_KEYS); without any, the host must be this machine's own, or insecure true.
"""


class Deployed(BaseModel):
    """The arguments of ``app``: a pool to start, unless a mesh of that name is up, and how to serve it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mesh: str
    pool: str | None = None
    models_dir: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 0
    replicas: int = 1
    keys_file: str | None = None
    limits: Limits = Limits()
    insecure: bool = False
    trust_admins: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    otlp: str | None = None
    results_file: str | None = None


def app(settings: Mapping[str, Any]) -> serve.Application:
    """What ``import_path: mesh.ingress.deploy:app`` builds from the fields of ``Deployed``.

    Raises:
        ValueError, ConfigError: one is wrong. PlacementError: an agent of the pool finds no place.
    """
    args = Deployed.model_validate(settings)
    keys = gather_keys(Path(args.keys_file) if args.keys_file else None, os.environ)
    ports = args.host, args.port, args.grpc_port
    curves = read_curves(Path(args.results_file)) if args.results_file else None
    may = args.insecure, args.trust_admins
    tls = ServerTLS(args.tls_cert or "", args.tls_key or "", args.tls_client_ca or "").checked()
    checked = Settings(args.mesh, *ports, args.replicas, keys, args.limits, *may, tls, args.otlp or "", curves)
    if args.pool is not None and args.mesh not in running.running():
        running.up(args.pool, name=args.mesh, models_dir=args.models_dir)
    open_ledger(args.mesh)
    return serving.deployment(checked)


def written(
    settings: Settings, pool: str | None, keys: Path | None, models_dir: Path | None, results: Path | None = None
) -> str:
    """The file, as YAML."""
    args = Deployed(
        mesh=settings.mesh,
        pool=pool,
        models_dir=str(models_dir) if models_dir else None,
        host=settings.host,
        port=settings.port,
        grpc_port=settings.grpc_port,
        replicas=settings.replicas,
        keys_file=str(keys) if keys else None,
        limits=settings.limits,
        insecure=settings.insecure,
        trust_admins=settings.trust_admins,
        otlp=settings.otlp or None,
        **{f"tls_{name}": path or None for name, path in settings.tls.named().items()},
        results_file=str(results) if results else None,
    )
    file: dict[str, Any] = {
        **serving.proxy_options(settings),
        "applications": [
            {
                "name": serving.APP,
                "route_prefix": "/",
                "import_path": "mesh.ingress.deploy:app",
                "args": args.model_dump(mode="json", exclude_none=True),
                "deployments": [{"name": "ingress", "num_replicas": settings.replicas}],
            }
        ],
    }
    return _HEAD + yaml.safe_dump(file, sort_keys=False)
