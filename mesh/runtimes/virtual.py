"""One agent in virtual time: what ``agents.host`` does around a node, played as events instead of awaited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec.structs import replace

from agents.assess import ASSESSORS
from agents.engines import ENGINES
from agents.engines.scripted import ScriptedEngine, Step
from agents.errors import BudgetExceeded, ConfigError, QueryTooLong
from agents.messages import (
    Accepted,
    Alive,
    Asked,
    Batch,
    Cancel,
    Cancelled,
    Drafted,
    DraftFailed,
    Emit,
    End,
    Generate,
    Judge,
    Key,
    NodeCommand,
    NodeEvent,
    Piece,
    Probe,
    Pulled,
    Query,
    Rejected,
    Request,
    Route,
    Scored,
    ScoreRequest,
    Stop,
    Tick,
)
from agents.node import Node
from agents.plugins import build
from agents.policies import POLICIES
from agents.spec import AgentSpec, check, checks
from mesh.directory import NOBODY


class Caller(Protocol):
    """Who awaits the result of a call: another agent, or an owner, whose name is empty."""

    name: str

    def hear(self, event: Any) -> None: ...


class World(Protocol):
    """What an agent needs of the simulation it lives in."""

    now: float

    def at(self, when: float, do: Callable[..., None], *what: Any) -> None:
        """Do something at a virtual time."""
        ...

    def send(self, do: Callable[..., None], *what: Any) -> None:
        """Do something when a message arrives."""
        ...

    def call(self, caller: Caller, agent: str, key: Key, method: Callable[..., None], *what: Any) -> None:
        """Call a ``VirtualHost``'s method; where that is dead, a caller who waits for something hears a rejection."""
        ...

    def answer(self, agent: str, caller: Caller, event: Accepted | Rejected | Pulled | Alive) -> None:
        """Give what comes of a call back."""
        ...


@dataclass(slots=True)
class _Outbox:
    """An accepted query's pieces; ``puller`` waits for those after ``cursor``."""

    pulled: float
    pieces: list[Piece] = field(default_factory=list)
    end: End | None = None
    puller: Caller | None = None
    cursor: int = 0


class VirtualHost:
    """One life of one agent. For everything that its engine does it takes ``pace`` times as long.

    Args:
        news: what the supervisor tells everybody; it may grow. An agent with nothing in hand does not look.

    Raises:
        ConfigError: an option is wrong, or the engine is not ``scripted``.
    """

    def __init__(self, spec: AgentSpec, world: World, news: Sequence[NodeEvent]) -> None:
        check(spec)
        policy = build(POLICIES, spec.policy[0], "policy", **spec.policy[1])
        assessor = build(ASSESSORS, spec.assessor[0], "assessor", **spec.assessor[1])
        engine = build(ENGINES, spec.engine[0], f"agent {spec.name!r}: engine", spec.setup, **spec.engine[1])
        if not isinstance(engine, ScriptedEngine):
            raise ConfigError(f"agent {spec.name!r}: engine {spec.engine[0]!r} cannot be simulated: use 'scripted'")
        context = min(engine.context, spec.context or engine.context)
        card = replace(spec.card, context=context, learns=policy.learns)
        self.node, self.engine = Node(card, NOBODY, policy, assessor, spec.settings, checks(policy)), engine
        self.spec, self.world, self.news, self.heard = spec, world, news, len(news)
        self.name, self.pace = spec.name, 1.0
        self.dead = self.ticking = False
        self.drafts: dict[Key, list[Step] | ScoreRequest] = {}
        self.outboxes: dict[Key, _Outbox] = {}
        self._callers: dict[Key, list[Caller]] = {}

    # ------------------------------------------------------------------ what others call

    def route(self, caller: Caller, query: Query) -> None:
        self._callers.setdefault(query.key, []).append(caller)
        if not self.ticking:
            self.ticking = True
            self.world.at(self.world.now + self.spec.tick_s, self._tick)
        self.hear(Asked(query))

    def pull(self, caller: Caller, key: Key, cursor: int) -> None:
        box = self.outboxes.get(key)
        if box is None:
            self.world.answer(self.name, caller, Rejected(key, self.name, "failed", "it knows nothing of this query"))
        else:
            box.puller, box.cursor = caller, cursor
            self._answer_pull(key)

    def probe(self, caller: Caller, key: Key) -> None:
        alive = key in self.node.turns or key in self.outboxes
        name = self.name
        self.world.answer(name, caller, Alive(key, name) if alive else Rejected(key, name, "stalled"))

    def cancel(self, caller: Caller, key: Key) -> None:
        self.hear(Cancelled(key))
        box = self.outboxes.pop(key, None)
        if box is not None and box.puller is not None:
            self.world.answer(self.name, box.puller, Rejected(key, self.name, "failed", "it was told to stop"))

    def tell(self, caller: Caller, event: NodeEvent) -> None:
        self.hear(event)

    def hear(self, event: NodeEvent) -> None:
        """Give the node an event and perform what it commands."""
        if not self.dead:
            if self.heard < len(self.news):
                self.catch_up()
            if commands := self.node.step(event, self.world.now):
                self._perform(commands)

    def catch_up(self) -> None:
        """Hear the news."""
        while self.heard < len(self.news):
            self.heard += 1
            self._perform(self.node.step(self.news[self.heard - 1], self.world.now))

    def kill(self) -> None:
        """Die as a process dies: nothing is finished, whoever waits for something hears of it."""
        self.dead = True
        self.drafts.clear()
        waiting = [(key, caller) for key, callers in self._callers.items() for caller in callers]
        waiting += [(key, box.puller) for key, box in self.outboxes.items() if box.puller is not None]
        for key, caller in waiting:
            self.world.send(caller.hear, Rejected(key, self.name, "died"))

    # ------------------------------------------------------------------ performing commands

    def _perform(self, commands: Sequence[NodeCommand]) -> None:
        results: list[Accepted | Rejected] = []
        filled: dict[Key, None] = {}
        for command in commands:
            match command:
                case Route(peer, query):  # the most frequent ones first
                    self.world.call(self, peer, query.key, VirtualHost.route, query)
                case Accepted(key, agent):
                    if agent == self.name:
                        self.outboxes.setdefault(key, _Outbox(self.world.now))
                    results.append(command)
                case Judge(score):
                    self.drafts[score.key] = score
                    self.world.at(self.world.now + self.engine.score_s * self.pace, self._judge, score)
                case Emit(key, piece):
                    self.outboxes[key].pieces.append(piece)
                    filled[key] = None
                case End(key):
                    self.outboxes[key].end = command
                    filled[key] = None
                case Generate(request):
                    self._generate(request)
                case Stop(key):
                    self.drafts.pop(key, None)
                case Probe(peer, key):
                    self.world.call(self, peer, key, VirtualHost.probe, key)
                case Cancel(peer, key):
                    self.world.call(self, peer, key, VirtualHost.cancel, key)
                case Rejected():
                    results.append(command)
        for result in results:
            self._resolve(result)
        for key in filled:
            self._answer_pull(key)

    def _resolve(self, result: Accepted | Rejected) -> None:
        """Tell whoever asked; the first pieces travel with the acceptance."""
        key, box = result.key, self.outboxes.get(result.key)
        if isinstance(result, Accepted) and box is not None:
            if box.pieces or box.end or key in self.node.turns:
                result = Accepted(key, result.agent, result.hops, Batch(tuple(box.pieces), box.end))
            else:  # asked again, after nobody had pulled the answer in time
                del self.outboxes[key]
                result = Rejected(key, result.agent, "failed", "its answer was given up")
        for caller in self._callers.pop(key, ()):
            self.world.answer(self.name, caller, result)

    def _answer_pull(self, key: Key) -> None:
        """Where somebody pulls and there is something new."""
        box = self.outboxes[key]
        if box.puller is not None and (len(box.pieces) > box.cursor or box.end is not None):
            batch = Batch(tuple(box.pieces[box.cursor :]), box.end)
            self.world.answer(self.name, box.puller, Pulled(key, batch))
            box.puller, box.pulled = None, self.world.now
            if box.end is not None:
                del self.outboxes[key]

    def _generate(self, request: Request) -> None:
        try:
            steps = self.drafts[request.key] = self.engine.plan(request)
        except Exception as error:  # as in ``agents.host``: it comes back as an event
            reasons: dict[type[Exception], str] = {QueryTooLong: "too_long", BudgetExceeded: "budget"}
            failure = (request.key, request.generation, reasons.get(type(error), "failed"), str(error))
            self.world.at(self.world.now, self.hear, DraftFailed(*failure))
        else:
            self.world.at(self.world.now + steps[0].delay_s * self.pace, self._draft, request, steps, 0)

    def _draft(self, request: Request, steps: list[Step], place: int) -> None:
        if self.drafts.get(request.key) is not steps:  # stopped
            return
        step, following = steps[place], steps[place + 1 : place + 2]
        if following:
            self.world.at(self.world.now + following[0].delay_s * self.pace, self._draft, request, steps, place + 1)
        elif not step.stall:
            del self.drafts[request.key]
        if step.piece is not None:
            self.hear(Drafted(request.key, request.generation, step.piece))
        elif not step.stall:
            self.hear(DraftFailed(request.key, request.generation, "failed", "scripted failure"))

    def _judge(self, request: ScoreRequest) -> None:
        if self.drafts.get(request.key) is request:
            del self.drafts[request.key]
            self.hear(Scored(request.key, request.generation, self.engine.scores(request)))

    def _tick(self) -> None:
        """While there is anything to look after."""
        now, boxes = self.world.now, self.outboxes
        self.hear(Tick())
        for key in [key for key, box in boxes.items() if not box.puller and now - box.pulled > self.spec.lease_s]:
            self.cancel(self, key)
        self.ticking = not self.dead and bool(self.node.turns or boxes)
        if self.ticking:
            self.world.at(now + self.spec.tick_s, self._tick)
