"""Who may forward to whom: pure graphs over agents and their costs."""

from __future__ import annotations

from topologies.cascade import Cascade
from topologies.errors import TopologyError
from topologies.graph import Edges, Topology
from topologies.mesh import Mesh, Nearest, SmallWorld
from topologies.tree import Tree

__all__ = ["TOPOLOGIES", "Topology", "TopologyError"]

TOPOLOGIES: dict[str, type[Topology]] = {"cascade": Cascade, "tree": Tree, "mesh": Mesh, "nearest": Nearest}
TOPOLOGIES |= {"small_world": SmallWorld, "edges": Edges}
