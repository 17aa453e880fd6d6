"""What becomes of Serve's HTTP proxy, which is told by its environment to ask us before it listens: it waits for nobody
for ever (``patience``), and asks another or says so when a replica dies (``ending``).
"""

from __future__ import annotations

import os

from starlette.middleware import Middleware

from mesh.ingress import patience
from mesh.ingress.ending import Ending
from mesh.ingress.limits import Limits

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
_LIMITS = "MESH_HTTP_LIMITS"


def environment(limits: Limits) -> dict[str, str]:
    """What the proxy's process must find in its environment."""
    return {CALLBACK: f"{__name__}:prepare", _LIMITS: limits.model_dump_json()}


def prepare() -> list[Middleware]:
    """What Serve calls in that process, and puts around its application."""
    limits = Limits.model_validate_json(os.environ[_LIMITS])
    patience.install(limits)
    return [Middleware(Ending, most=limits.body_bytes)]
