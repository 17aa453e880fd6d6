"""The decisions of an agent that is a mesh elsewhere (see ``federation``): those of any agent; pure, as a node is."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict, replace

from agents import messages as msg
from agents.node import Node, Turn


class Passed(msg.Request, frozen=True, gc=False):
    """A request with all that another mesh must know of its query. ``max_cost`` is what is left, in our costs."""

    alpha: float | None = None
    remaining_s: float | None = None
    max_cost: float | None = None
    meshes: tuple[str, ...] = ()
    priority: int = 1


class Gateway(Node):
    """Decides for another mesh as for any agent: hands queries on as they came, and writes down who worked there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reported: dict[msg.Key, tuple[msg.Hop, ...]] = {}  # and not yet written down
        self._led: tuple[msg.Hop, ...] = ()

    def _handle(self, event: msg.NodeEvent, now: float, out: list[msg.NodeCommand]) -> None:
        if isinstance(event, msg.Drafted) and event.piece.hops:
            turn = self.turns.get(event.key)
            if turn is not None and turn.generation == event.generation:
                self._reported[event.key] = self._reported.get(event.key, ()) + event.piece.hops
        super()._handle(event, now, out)

    def _generate(self, turn: Turn, out: list[msg.NodeCommand]) -> None:
        super()._generate(turn, out)
        query, asked = turn.query, out.pop()
        assert isinstance(asked, msg.Generate)
        request = replace(asked.request, messages=query.messages, max_work=None)  # it has its own price and scenario
        bounds: dict[str, Any] = {"remaining_s": turn.deadline - turn.moved, "max_cost": self._budget(turn)}
        bounds |= {"priority": query.priority}
        out.append(msg.Generate(Passed(**asdict(request), alpha=query.alpha, meshes=query.meshes, **bounds)))

    def _hop(self, turn: Turn, verdict: Any, now: float, reason: str = "") -> None:
        """The hops of those who worked there; this agent's own after them, unless one of them has answered."""
        theirs = self._reported.pop(turn.query.key, ())
        turn.path += theirs
        if theirs:
            turn.prompt_tokens = turn.generated_tokens = 0  # stand in theirs
        answered = bool(theirs) and verdict == "answered"
        self._led = theirs[:-1] if answered else theirs
        if not answered:
            super()._hop(turn, verdict, now, reason)

    def _end(self, turn: Turn, finish: msg.Finish, hop: msg.Hop, out: list[msg.NodeCommand]) -> None:
        at, before = len(out), self._led
        turn.path = (*turn.path[: -1 - len(before)], hop)
        super()._end(turn, finish, hop, out)
        end = out[at]
        assert isinstance(end, msg.End)
        out[at] = replace(end, before=before)

    def _remember(self, turn: Turn, result: msg.Accepted | msg.Rejected) -> None:
        self._reported.pop(turn.query.key, None)
        super()._remember(turn, result)
