"""The tree: no agent costs less than the one that forwards to it."""

from __future__ import annotations

from topologies.graph import Option, Topology


class Tree(Topology):
    """A heap over the cost order: rank r forwards to ``branching`` ranks from branching * r + 1; leaves must answer."""

    takes = (Option("branching", 2, least=1),)

    def _successors(self, name: str) -> tuple[str, ...]:
        width = self.options["branching"]
        first = width * self.rank[name] + 1
        return self.names[first : first + width]
