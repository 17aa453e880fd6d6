"""Which agents may be added over the network; pure.

A pool file may name any ``package.module:attr`` and any environment variable, since whoever starts a mesh may run what
they like there anyhow. Somebody with an admin's key may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.assess import ASSESSORS
from agents.engines import ENGINES
from agents.policies import POLICIES
from mesh.ingress.errors import Refused

_TABLES: Mapping[str, Mapping[str, Any]] = {"engine": ENGINES, "policy": POLICIES, "assessor": ASSESSORS}
_ALLOWED = "unless the server is started with --trust-admins"


def check_newcomer(settings: Mapping[str, Any], trusted: bool = False) -> None:
    """Whether an agent's settings name only our own plug-ins, and no secret of the server's to be sent away.

    Raises:
        Refused: 400 where they do, and nobody has said that admins may.
    """
    if trusted:
        return
    for field, table in _TABLES.items():
        value = settings.get(field)
        kind = value.get("kind") if isinstance(value, Mapping) else value
        if isinstance(kind, str) and kind not in table:
            told = f"{field}: {kind[:80]!r}; over the network it must be one of {', '.join(table)}, {_ALLOWED}"
            raise Refused(400, "invalid_value", told, field)
    engine = settings.get("engine")
    options = engine if isinstance(engine, Mapping) else {"kind": engine}
    sends = options.get("kind") == "openai" and options.get("api_key_env") != ""  # by default it sends OPENAI_API_KEY
    if files := [name for name in options if isinstance(name, str) and name.startswith("tls_")]:
        told = f"engine.{files[0]}: over the network no file of the server's may be named, {_ALLOWED}"
        raise Refused(400, "invalid_value", told, "engine")
    if sends or options.get("api_key_env"):
        told = f"engine.api_key_env: over the network it must be '' (the server's keys are not sent), {_ALLOWED}"
        raise Refused(400, "invalid_value", told, "engine")
