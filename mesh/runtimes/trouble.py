"""Virtual time with all that befalls a cluster: agents stall, slow down, are cut off, come, go and change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from agents.assess import ASSESSORS
from agents.engines import ENGINES
from agents.messages import Accepted, Alive, Key, NodeEvent, Pulled, Rejected, Request, Rewired, ScoreRequest
from agents.plugins import build
from agents.spec import AgentSpec
from mesh.runtimes.sim import Simulation
from mesh.runtimes.virtual import Caller, VirtualHost

# Seconds after which a call that nobody answers is given up, as in ``agents.actor`` and ``mesh.asking``; a route is
# not: whoever waits for one probes.
PATIENCE_S: dict[Callable[..., None], float] = {VirtualHost.probe: 5.0, VirtualHost.pull: 10.0}


class TroubledHost(VirtualHost):
    """An agent that may stand still until ``until``: what happens to it meanwhile happens then."""

    world: Troubled
    until = 0.0

    def catch_up(self) -> None:
        """Hear the news, unless they cannot reach it."""
        if self.world.now >= self.until and self.name not in self.world.sides:
            super().catch_up()

    def hear(self, event: NodeEvent) -> None:
        """Give the node an event, once it moves again."""
        if self.until <= self.world.now:
            super().hear(event)
        else:
            self.world.at(self.until, self.hear, event)

    def still(self, do: Callable[..., None], *what: Any) -> bool:
        """Whether it stands still; ``do`` is then done afterwards."""
        stands = self.until > self.world.now
        if stands:
            self.world.at(self.until, do, *what)
        return stands

    def _draft(self, request: Request, steps: list[Any], place: int) -> None:
        if not self.still(self._draft, request, steps, place):
            super()._draft(request, steps, place)

    def _judge(self, request: ScoreRequest) -> None:
        if not self.still(self._judge, request):
            super()._judge(request)

    def _tick(self) -> None:
        if not self.still(self._tick):
            super()._tick()


class Troubled(Simulation):
    """A simulation in which more can be made to happen than deaths.

    ``sides`` names the agents that are cut off, and with whom: agents and callers of different sides do not hear each
    other. The supervisor takes one that it does not hear for ``silence_s`` for dead, and starts it anew when it can.
    """

    host = TroubledHost
    agents: dict[str, TroubledHost]  # type: ignore[assignment]
    silence_s = 18.0

    def __init__(self, *args: Any, **options: Any) -> None:
        self.sides: dict[str, int] = {}
        self._cuts = 0
        super().__init__(*args, **options)

    # ------------------------------------------------------------------ what is to happen

    def stall(self, name: str, at: float, seconds: float) -> None:
        """Have an agent stand still for a while, engine and all, as a process does that gets no processor."""
        self.at(at, self._stall, name, seconds)

    def slow(self, name: str, at: float, seconds: float, pace: float = 10.0) -> None:
        """Have an agent's engine take ``pace`` times as long for a while."""
        self.at(at, self._pace, name, pace)
        self.at(at + seconds, self._pace, name, 1.0)

    def cut(self, names: Iterable[str], at: float, seconds: float) -> None:
        """Cut agents off from all others for a while, not from each other."""
        self.at(at, self._cut, tuple(names), seconds)

    def join(self, spec: AgentSpec, at: float) -> None:
        """Start one more agent, which joins the topology; nothing happens where one of its name is there."""
        self.at(at, self._join, spec)

    def leave(self, name: str, at: float) -> None:
        """Let an agent leave the topology, finish what it has, and end; nothing happens to the last one."""
        self.at(at, self._leave, name)

    def update(self, spec: AgentSpec, at: float) -> None:
        """Have an agent serve another version, as ``agents.host.Host.serve`` does."""
        self.at(at, self._update, spec)

    # ------------------------------------------------------------------ messages that arrive late, or never

    def answer(self, agent: str, caller: Caller, event: Accepted | Rejected | Pulled | Alive) -> None:
        self.send(self._heard, agent, caller, event)

    def apart(self, one: str, other: str) -> bool:
        """Whether two cannot hear each other; a caller, who has no name, is where most agents are."""
        return self.sides.get(one, 0) != self.sides.get(other, 0)

    def _heard(self, agent: str, caller: Caller, event: Accepted | Rejected | Pulled | Alive) -> None:
        if self.sides and self.apart(agent, caller.name):
            if isinstance(event, Pulled | Alive):
                method = VirtualHost.pull if isinstance(event, Pulled) else VirtualHost.probe
                self._unheard(caller, agent, event.key, method)
        else:
            caller.hear(event)

    def _arrive(self, caller: Caller, name: str, key: Key, method: Callable[..., None], what: tuple[Any, ...]) -> None:
        agent = self.agents.get(name)
        if self.sides and self.apart(caller.name, name):
            self._unheard(caller, name, key, method)
        elif agent is not None and agent.until > self.now:
            if agent.until - self.now < PATIENCE_S.get(method, float("inf")):
                agent.still(self._arrive, caller, name, key, method, what)
            else:
                self._unheard(caller, name, key, method)
        else:
            super()._arrive(caller, name, key, method, what)

    def _unheard(self, caller: Caller, name: str, key: Key, method: Callable[..., None]) -> None:
        """Nobody will answer this call."""
        if method in PATIENCE_S:
            self.at(self.now + PATIENCE_S[method], caller.hear, Rejected(key, name, "stalled"))

    # ------------------------------------------------------------------ troubles

    def _stall(self, name: str, seconds: float) -> None:
        if name in self.agents:
            self.agents[name].until = self.now + seconds

    def _pace(self, name: str, pace: float) -> None:
        if name in self.agents:
            self.agents[name].pace = pace

    def _cut(self, names: Sequence[str], seconds: float) -> None:
        self._cuts += 1
        names = [name for name in dict.fromkeys(names) if name in self.agents and name not in self.sides]
        self.sides.update(dict.fromkeys(names, self._cuts))
        self.at(self.now + self.silence_s, self._silent, names, self._cuts)
        self.at(self.now + seconds, self._heal, names)

    def _silent(self, names: Sequence[str], cut: int) -> None:
        """The supervisor gives up those that are still cut off; Ray ends them when it hears of them again."""
        for name in names:
            if self.sides.get(name) == cut and name in self._specs and name not in self._gone:
                self.give_up(name)

    def _heal(self, names: Sequence[str]) -> None:
        for name in names:
            del self.sides[name]
            if name in self._gone:
                self._kill(name)
                self._revive(name)
            elif name in self.agents:
                self.agents[name].catch_up()

    # ------------------------------------------------------------------ membership

    def _join(self, spec: AgentSpec) -> None:
        name = spec.name
        if name in self._specs or name in self.agents:  # the last one of that name may still be finishing
            return
        assert self.directory.topology is not None
        self._specs[name] = spec
        agent = self.host(spec, self, self._news)
        topology = self.directory.topology.join(name, spec.card.cost)
        self._know(topology, {**self.directory.cards, name: agent.node.card})
        self._tell_all(Rewired(self.directory))
        self._launch(name)

    def _leave(self, name: str) -> None:
        topology = self.directory.topology
        if name not in self._specs or topology is None or len(topology.names) == 1:
            return
        del self._specs[name]
        self._gone.pop(name, None)
        cards = {other: card for other, card in self.directory.cards.items() if other != name}
        self._know(topology.leave(name), cards)
        self._tell_all(Rewired(self.directory))
        self._drain(name)

    def _drain(self, name: str) -> None:
        agent = self.agents.get(name)
        if agent is not None and name not in self._specs:
            if agent.node.turns or agent.outboxes or agent.until > self.now:
                self.at(self.now + self.tick_s, self._drain, name)
            else:
                self._kill(name)

    def _update(self, spec: AgentSpec) -> None:
        if spec.name in self._specs:
            self._specs[spec.name] = spec
        if spec.name in self.agents:
            agent = self.agents[spec.name]
            assessor = build(ASSESSORS, spec.assessor[0], "assessor", **spec.assessor[1])
            agent.engine = build(ENGINES, spec.engine[0], "engine", spec.setup, **spec.engine[1])
            agent.node.assessor, agent.node.settings = assessor, spec.settings
