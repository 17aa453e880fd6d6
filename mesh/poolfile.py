"""Writing a pool as a file that ``mesh.config.load`` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mesh.config import MeshConfig


def write_pool(config: MeshConfig, name: str, changes: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Write ``config`` under another name, with ``changes`` to the settings of some agents; returns ``path``."""
    agents = [
        agent.model_dump(exclude_unset=True, mode="json") | dict(changes.get(agent.name, {})) for agent in config.agents
    ]
    pool = {**config.model_dump(exclude_unset=True, mode="json"), "name": name, "agents": agents}
    path.write_text(yaml.safe_dump(pool, sort_keys=False), encoding="utf-8")
    return path
