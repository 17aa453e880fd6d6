"""Mesh: a pool of LLM agents that route queries among themselves.

>>> import mesh
>>> print(mesh.ask("37+58=", alpha=0.5))  # the mesh that is up, else the tiny models inside  # doctest: +SKIP
>>> with mesh.Mesh.from_yaml("small") as pool:  # or one of one's own  # doctest: +SKIP
...     print(pool.ask("What is 2 + 2?", alpha=0.5))
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from agents.messages import Hop, Reply
    from agents.prompts import REFUSAL as _REFUSAL  # noqa: F401  (they too have a module of that name)
except ImportError as error:
    raise ImportError(
        "the package `agents` that Python finds is not Mesh's own: openai-agents, for one, installs another of that "
        f"name; use an environment without it ({error})"
    ) from error

from agents.errors import (
    AgentError,
    BudgetExceeded,
    ConfigError,
    DeadlineExceeded,
    MeshClosed,
    MeshError,
    NoAgentLeft,
    PlacementError,
    QueryError,
    QueryTooLong,
)
from mesh.client import Mesh
from mesh.config import MeshConfig

__all__ = [
    "AgentError",
    "BudgetExceeded",
    "ConfigError",
    "DeadlineExceeded",
    "Hop",
    "Mesh",
    "MeshClosed",
    "MeshConfig",
    "MeshError",
    "NoAgentLeft",
    "PlacementError",
    "QueryError",
    "QueryTooLong",
    "Reply",
    "ask",
    "connect",
]


_lock = threading.Lock()  # two threads that ask first must not start two


def _default() -> Mesh:
    with _lock:
        return _opened()


@functools.cache
def _opened() -> Mesh:
    from mesh.running import default

    return default()


def connect(name: str | None = None, address: str | None = None) -> Mesh:
    """The mesh that ``mesh up`` left running (``name``, where there are several), on the cluster at ``address``.

    Closing what comes back ends nothing.

    Raises:
        ConfigError: there is no such mesh.
    """
    from mesh.running import connect

    return connect(name, address)


def ask(query: str | Sequence[Mapping[str, str]], alpha: float | None = None, **options: Any) -> Reply:
    """Ask the running mesh, or, where none is up, the lab pool inside the package; see ``Mesh.ask`` for the options.

    Raises:
        ConfigError: several meshes are up.
        QueryError, DeadlineExceeded, NoAgentLeft: as ``Mesh.ask``.
    """
    try:
        return _default().ask(query, alpha, **options)
    except MeshClosed:  # it went down since; another may be up
        _opened.cache_clear()
        return _default().ask(query, alpha, **options)
