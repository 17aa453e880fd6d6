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
from mesh.ingress.ending import PROXY
from mesh.ingress.keys import gather_keys
from mesh.ingress.ledger import open_ledger
from mesh.ingress.limits import Limits
from mesh.ingress.settings import Settings

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


def app(settings: Mapping[str, Any]) -> serve.Application:
    """What ``import_path: mesh.ingress.deploy:app`` builds from the fields of ``Deployed``.

    Raises:
        ValueError, ConfigError: one is wrong. PlacementError: an agent of the pool finds no place.
    """
    args = Deployed.model_validate(settings)
    keys = gather_keys(Path(args.keys_file) if args.keys_file else None, os.environ)
    ports = args.host, args.port, args.grpc_port
    may = args.insecure, args.trust_admins
    checked = Settings(args.mesh, *ports, args.replicas, keys, args.limits, *may)
    if args.pool is not None and args.mesh not in running.running():
        running.up(args.pool, name=args.mesh, models_dir=args.models_dir)
    open_ledger(args.mesh)
    return serving.deployment(checked)


def written(settings: Settings, pool: str | None, keys: Path | None, models_dir: Path | None) -> str:
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
    )
    file: dict[str, Any] = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": settings.host, "port": settings.port},
        "controller_options": {"runtime_env": {"env_vars": PROXY}},
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
