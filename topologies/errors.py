"""The one error of this package."""

from __future__ import annotations


class TopologyError(ValueError):
    """A graph of agents is wrong; the message names the agent or option, its value and what would be right."""
