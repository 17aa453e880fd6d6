"""Our own way to route, on recorded outcomes: real policies on real topologies, hop by hop, with the confidences that
agents had. What a mesh does, without its models; ``tests/models/test_walking.py`` holds it to a live one.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from msgspec import structs

from agents.messages import Card, Hop, Outcome, Verdict
from agents.offers import Offer, comes_to
from agents.policies import Answer, Ask, Decline, Draft, Forward, Look, Policy, View, Wait
from agents.profile import Profile
from benchmarks.outcomes import Floats, Outcomes, Routed
from topologies import Topology

Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Way:
    """One of our own ways to route: each agent's policy, and what agents tell of themselves (where they do)."""

    policies: Mapping[str, Policy]
    profiles: Mapping[str, Profile] | None = None


def walk(
    outcomes: Outcomes,
    policies: Mapping[str, Policy],
    topology: Topology,
    alpha: float,
    profiles: Mapping[str, Profile] | None = None,
    feedback: Bools | None = None,
) -> tuple[Routed, list[tuple[int, ...]]]:
    """Send every question through the mesh, one after the other. Policies that learn hear what became of each.

    Args:
        policies: each agent's.
        profiles: what agents tell of themselves, if they do.
        feedback: (Q,), for which of them agents are told whether the reply was right; None: for none.

    Raises:
        ValueError: nothing was recorded at this alpha, or not what a look costs.

    Returns:
        What became of the questions, and whom each one met, the last of whom answered.
    """
    told = profiles or {}
    cards = tuple(
        Card(name, float(cost), profile=told.get(name))
        for name, cost in zip(outcomes.agents, outcomes.costs, strict=True)
    )
    if outcomes.looks is None or alpha not in outcomes.beliefs:
        raise ValueError(f"no confidences were recorded at alpha {alpha:g}; there are {sorted(outcomes.beliefs)}")
    places = {name: place for place, name in enumerate(outcomes.agents)}
    world = _World(outcomes, places, cards, policies, topology, alpha, outcomes.looks)
    walks = [_Walk(world, number) for number in range(len(outcomes))]
    for each in walks:
        each.visit(topology.entries()[0], ())
        each.tell(None)
        if feedback is not None and feedback[each.number]:
            each.tell(each.right >= 0.5)
    agent, everyone = np.array([each.met[-1] for each in walks]), np.arange(len(walks))
    spent = np.array([each.spent for each in walks])
    hops = np.array([len(each.met) - 1 for each in walks])
    found = Routed(agent, outcomes.right[agent, everyone], outcomes.costs[agent], spent, hops)
    return found, [tuple(each.met) for each in walks]


@dataclass(frozen=True, slots=True)
class _World:
    outcomes: Outcomes
    places: Mapping[str, int]
    cards: tuple[Card, ...]
    policies: Mapping[str, Policy]
    topology: Topology
    alpha: float
    looks: Floats


@dataclass(slots=True)
class _Seen:
    """What an agent has found out about a question."""

    looked: bool = False
    confidence: float | None = None
    draft: str | None = None
    drafted: float | None = None
    together: bool = False
    begun: tuple[str, ...] = ()
    votes: tuple[Offer, ...] = ()


@dataclass(slots=True)
class _Walk:
    """One question's way: whom it has met, and what that has cost."""

    world: _World
    number: int
    met: list[int] = field(default_factory=list)
    spent: float = 0.0
    hops: tuple[Hop, ...] = ()

    def visit(self, name: str, given: tuple[Offer, ...]) -> tuple[Offer, ...] | None:
        """Have an agent decide until somebody has answered. Returns what was found out, where it hands it back."""
        at, policy, seen = self.world.places[name], self.world.policies[name], _Seen()
        self.met.append(at)
        known = given
        while True:
            peers = self._peers(name)
            if not (peers or given) or not policy.assesses:
                return self._answer(at, seen)
            if not seen.looked and not policy.staged:
                self._look(at, seen)
            match policy.decide(self._view(at, seen, peers, known)):
                case Look():
                    self._look(at, seen)
                case Draft():
                    self._draft(at, seen)
                case Ask() as ask:
                    self._ask(ask, at, seen)
                case Forward(peer) if any(vote.agent == peer for vote in seen.votes):
                    return self._take(peer, at, seen)
                case Forward(peer, offers):
                    self._hop(at, "refused", seen)
                    back = self.visit(peer, offers)
                    if back is None:
                        return None
                    known = back or known
                    self.met.append(at)
                case Decline(offers) if given:
                    self._hop(at, "refused", seen)
                    return offers
                case Answer() | Decline() | Wait():
                    for peer in seen.begun:  # it was told to stop, at the latest when it had its answer
                        self._beside(peer, float(self.world.outcomes.work[self.world.places[peer], self.number]))
                    return self._answer(at, seen)

    def _ask(self, ask: Ask, at: int, seen: _Seen) -> None:
        """Have several begin at once; those who vote do all their work."""
        seen.together = True
        if ask.vote:
            seen.votes = tuple(vote for peer in ask.peers if (vote := self._vote(peer)) is not None)
        else:
            seen.begun = ask.peers
        if isinstance(ask.then, Draft):
            self._draft(at, seen)
        elif isinstance(ask.then, Look):
            self._look(at, seen)

    def _vote(self, name: str) -> Offer | None:
        """What an agent would answer, if it would."""
        world, seen, begun = self.world, _Seen(), self.spent
        at, policy = world.places[name], world.policies[name]
        if not policy.staged:
            self._look(at, seen)
        for _ in range(3):
            decision = policy.decide(self._view(at, seen, self._peers(name), (), aside=True))
            if isinstance(decision, Look):
                self._look(at, seen)
            elif isinstance(decision, Draft):
                self._draft(at, seen)
            else:
                break
        votes = isinstance(decision, Answer)
        if votes and seen.draft is None:
            self.spent += float(world.outcomes.work[at, self.number])
        sure = seen.confidence if seen.drafted is None else seen.drafted
        self._beside(name, self.spent - begun, sure, paid=True)
        price = world.alpha * float(world.outcomes.costs[at])
        said = comes_to(world.outcomes.texts[at][self.number])
        return Offer(name, 0.5 if sure is None else sure, price, said) if votes else None

    def _beside(self, name: str, spent: float, sure: float | None = None, paid: bool = False) -> None:
        """Write down who worked beside others."""
        self.spent += 0.0 if paid else spent
        self.hops += (Hop(name, "cancelled", sure, full_cost=spent),)

    def _take(self, name: str, at: int, seen: _Seen) -> None:
        """Take an answer that is there already."""
        self._hop(at, "refused", seen)
        (taken,) = [hop for hop in self.hops if hop.agent == name and hop.verdict == "cancelled"]
        kept = tuple(hop for hop in self.hops if hop is not taken)
        self.hops = (*kept, structs.replace(taken, verdict="answered"))
        self.met.append(self.world.places[name])

    def _peers(self, name: str) -> tuple[Card, ...]:
        places = (self.world.places[peer] for peer in self.world.topology.neighbours(name))
        return tuple(self.world.cards[place] for place in places if place not in self.met)

    def _view(
        self, at: int, seen: _Seen, peers: tuple[Card, ...], offers: tuple[Offer, ...], aside: bool = False
    ) -> View:
        name, question = self.world.cards[at].name, self.world.outcomes.questions[self.number]
        return View(
            self.world.cards[at],
            self.world.alpha,
            seen.confidence,
            seen.looked and seen.confidence is None,
            peers,
            seed=zlib.crc32(f"{name}:{question.id}".encode()),
            looked=seen.looked,
            draft=seen.draft,
            text=question.text,
            offers=offers,
            drafted=seen.drafted,
            id=question.id,
            aside=aside,
            together=seen.together,
            votes=seen.votes,
        )

    def _answer(self, at: int, seen: _Seen) -> None:
        if seen.draft is None:
            self.spent += float(self.world.outcomes.work[at, self.number])
        self._hop(at, "answered", seen)

    def _hop(self, at: int, verdict: Verdict, seen: _Seen) -> None:
        """Write down what an agent did."""
        sure = seen.confidence if seen.drafted is None else seen.drafted
        spent = self.spent - sum(hop.full_cost for hop in self.hops)
        self.hops += (Hop(self.world.outcomes.agents[at], verdict, sure, full_cost=spent),)

    @property
    def right(self) -> float:
        """How good the answer is that it has got."""
        return float(self.world.outcomes.right[self.met[-1], self.number])

    def _outcome(self, right: bool | None) -> Outcome:
        """What is told of it along its path."""
        told, alpha = self.world.outcomes, self.world.alpha
        return Outcome(
            told.questions[self.number].id, alpha, self.hops, float(told.costs[self.met[-1]]), self.spent, right
        )

    def tell(self, right: bool | None) -> None:
        """Those on the way that learn hear what became of the question."""
        policies = self.world.policies
        for name in dict.fromkeys(hop.agent for hop in self.hops):
            if policies[name].learns:
                policies[name].learn(self._outcome(right))

    def _look(self, at: int, seen: _Seen) -> None:
        """An agent that judges itself by its draft drafts; whoever answers then has its draft."""
        outcomes, look = self.world.outcomes, float(self.world.looks[at, self.number])
        if math.isnan(look):
            seen.draft, look = outcomes.texts[at][self.number], float(outcomes.work[at, self.number])
        self.spent += look
        seen.looked, seen.confidence = True, outcomes.looked(at, self.number, self.world.alpha)

    def _draft(self, at: int, seen: _Seen) -> None:
        outcomes = self.world.outcomes
        self.spent += float(outcomes.work[at, self.number])
        seen.draft, seen.drafted = outcomes.texts[at][self.number], outcomes.drafted(at, self.number)
