"""The one exception tree.

    MeshError
    ├── ConfigError (ValueError)         a pool file, an option, or a component's setting is wrong
    │   ├── ModelNotFound                neither in the models folder nor on a reachable hub
    │   └── AdapterError                 an adapter that does not fit its model
    ├── QueryError (ValueError)          what was asked cannot be asked
    │   ├── NotUnderstood                the pool knows no language, and this is not what it reads
    │   ├── QueryTooLong                 no agent's context holds it
    │   └── BudgetExceeded               no agent can answer within max_cost
    ├── PlacementError                   the cluster cannot place an agent: names who waits, for what
    ├── AgentError                       one agent let us down; carries ``agent``
    │   ├── AgentDied                    its process is gone
    │   ├── AgentStalled                 it lives, but nothing moves
    │   ├── AgentBusy                    its queue is full
    │   └── EngineError                  its engine raised
    ├── NoAgentLeft                      every agent that could have answered failed; carries ``hops``
    ├── DeadlineExceeded (TimeoutError)  the caller's deadline passed; carries the partial ``text``
    └── MeshClosed                       asked after close() or mesh down

``TopologyError`` lives with the topologies, which know nothing of agents.
"""

from __future__ import annotations


class MeshError(Exception):
    """Anything that Mesh raises on purpose."""


class ConfigError(MeshError, ValueError):
    """A setting is wrong; the message names the key, the value and what would be right."""


class ModelNotFound(ConfigError):
    """A model is neither in the models folder nor on a reachable hub."""


class AdapterError(ConfigError):
    """An adapter does not fit the model it is meant for."""


class QueryError(MeshError, ValueError):
    """The query itself is wrong; the message names the field, the value and what would be right."""


class NotUnderstood(QueryError):
    """The pool reads a language of its own, in which this is not written; the message shows what is."""


class QueryTooLong(QueryError):
    """No agent that could be reached has a context long enough."""


class BudgetExceeded(QueryError):
    """No agent that could be reached can answer within ``max_cost``."""


class PlacementError(MeshError):
    """The cluster cannot place an agent; the message says which agent waits and for what."""


class AgentError(MeshError):
    """One agent let the query down.

    Args:
        agent: its name.
        detail: what happened, in words.
    """

    reason = "failed"

    def __init__(self, agent: str, detail: str = "") -> None:
        super().__init__(agent, detail)
        self.agent, self.detail = agent, detail

    def __str__(self) -> str:
        return f"agent {self.agent!r} {self.reason}" + (f": {self.detail}" if self.detail else "")


class AgentDied(AgentError):
    """The agent's process is gone."""

    reason = "died"


class AgentStalled(AgentError):
    """The agent lives, but nothing moves."""

    reason = "stalled"


class AgentBusy(AgentError):
    """The agent's queue is full."""

    reason = "busy"


class EngineError(AgentError):
    """The agent's engine raised while it generated."""

    reason = "failed"


class NoAgentLeft(MeshError):
    """Every agent that could have answered has failed; ``hops`` tells how each one did."""

    def __init__(self, message: str, hops: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.hops = hops


class DeadlineExceeded(MeshError, TimeoutError):
    """The deadline passed; ``text`` is what had been answered by then."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class MeshClosed(MeshError):
    """The mesh was closed or taken down."""
