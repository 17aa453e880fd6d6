"""The line: from the cheapest agent to the dearest."""

from __future__ import annotations

from topologies.graph import Topology


class Cascade(Topology):
    """Every agent forwards to the next dearer one; the dearest must answer."""

    def _successors(self, name: str) -> tuple[str, ...]:
        return self.names[self.rank[name] + 1 : self.rank[name] + 2]
