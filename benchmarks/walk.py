"""Queries walking the graph of agents, drawn: live while they walk, and one by one afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agents.errors import MeshError
from agents.messages import Reply
from mesh.config import MeshConfig

BAR = 24  # characters
LATEST = 8  # replies in sight


class Walk:
    """A live view: what each agent has in hand, has refused and has answered, and the latest replies.

    Args:
        config: of the mesh that is asked.
        look: gives a row an agent, as ``Mesh.status``; called whenever the view is drawn.
    """

    def __init__(self, config: MeshConfig, look: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        graph = config.build_topology()
        self._costs = dict(graph.agents)
        self._ways = {name: ", ".join(graph.neighbours(name)) or "answers what comes" for name in graph.names}
        self._look = look
        self.begin("")

    def begin(self, title: str, total: int = 0) -> None:
        """Start anew: other questions, or another alpha."""
        self._title, self._total, self._done = title, total, 0
        self._refused, self._answered = dict.fromkeys(self._costs, 0), dict.fromkeys(self._costs, 0)
        self._latest: deque[Text] = deque(maxlen=LATEST)

    def add(self, text: str, outcome: Reply | MeshError, right: bool) -> None:
        """A query has ended."""
        self._done += 1
        self._latest.append(drawn(text, outcome, right))
        for hop in outcome.path if isinstance(outcome, Reply) else ():
            counts = {"answered": self._answered, "refused": self._refused}.get(hop.verdict, {})
            counts[hop.agent] = counts.get(hop.agent, 0) + 1

    def __rich__(self) -> RenderableType:
        rows = {row["agent"]: row for row in self._look()}
        table = Table(title=f"{self._title}: {self._done} of {self._total}", title_justify="left")
        for column in ("agent", "cost", "forwards to", "in hand", "refused", "answered", ""):
            table.add_column(column, justify="left" if column in ("agent", "forwards to", "") else "right")
        for name, cost in self._costs.items():
            answered, row = self._answered[name], rows.get(name, {})
            bar = Text("█" * round(BAR * answered / max(self._done, 1)), style="green")
            counts = (str(row.get("in_hand", row.get("state", ""))), str(self._refused[name]), str(answered))
            table.add_row(name, f"{cost:g}", self._ways[name], *counts, bar)
        return Group(table, *self._latest)


def drawn(text: str, outcome: Reply | MeshError, right: bool) -> Text:
    """One query's way: ``37+58=  nano ✗ .31 → micro ✓ .97  95``, green where the answer is right."""
    line = Text(f"{text:<26} ", no_wrap=True, overflow="ellipsis")
    if isinstance(outcome, MeshError):
        return line.append(str(outcome), style="red")
    for place, hop in enumerate(outcome.path):
        sure = "" if hop.confidence is None else f" {hop.confidence:.2f}".replace("0.", ".")
        answered = hop.verdict == "answered"
        how = hop.reason if hop.verdict == "failed" else "✓" if answered else "✗"
        line.append(" → " if place else "", style="dim")
        line.append(f"{hop.agent} {how}{sure}", style="bold" if answered else "dim")
    return line.append(f"  {outcome.text}", style="green" if right else "red")
