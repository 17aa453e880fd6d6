"""What all policies have in common that go by their own confidence and by what became of what they forwarded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from agents.messages import Hop, Outcome, given_id
from agents.policies.base import Answer, Decision, Look, Policy, View
from agents.policies.cells import Drift, Key, Means, Memory, bin_of, cluster
from agents.profile import MOST

DOUBTFUL = 0.9  # whose promises are true to a smaller share is told in a status


class Done(Struct, frozen=True):
    """What an agent knew of a query when it decided: its own name, what sort of query it is, its text, and how sure it
    was. ``guessed`` is how likely the reply was taken to be right, before anybody said.
    """

    me: str
    sort: tuple[str, int]
    text: str
    p: float | None
    guessed: float | None = None

    def cells(self, name: str, place: int) -> tuple[Key, ...]:
        """Keys from coarse to fine of what is known of an agent, where this one is as sure as it is."""
        (kind, size), bin = self.sort, bin_of(self.p)
        return (name, place), (name, place, bin), (name, place, kind, size), (name, place, kind, size, bin)


class Lesson(Struct, frozen=True):
    """What an outcome teaches an agent on its path.

    ``right`` is whether the reply was, or how likely that is where nobody says; ``again`` that only this is new, and
    something had been guessed before. ``own`` is what the agent itself did, ``after`` what came after that, from the
    one to whom it forwarded.
    """

    outcome: Outcome
    right: float
    again: bool
    own: Hop
    after: tuple[Hop, ...]

    @property
    def peer(self) -> str | None:
        """To whom it was forwarded; None where to nobody, or one who failed."""
        first = next((hop for hop in self.after if hop.verdict != "cancelled"), None)
        return first.agent if first is not None and first.verdict != "failed" else None

    @property
    def last(self) -> str:
        """Who answered."""
        return self.outcome.path[-1].agent

    @property
    def utility(self) -> float:
        """What the reply was worth."""
        return self.right - self.outcome.alpha * self.outcome.cost


class Learner(Policy):
    """A policy that looks at a query, decides, and hears what became of it.

    Where nobody says whether a reply was right, the answering agent's word stands in, as good as words of that agent
    have turned out: for each a mean of ``right - p``, which also corrects this agent's own p, so that it answers less
    where it has become worse. When somebody's words suddenly promise too much, only a share of them is believed
    (``cells.Drift``), and what was learnt of forwarding to it counts for little more than what happens from then on.
    """

    staged = needs_probability = learns = True

    def __init__(self) -> None:
        self.words = Means()
        self.memory: Memory[Done] = Memory()
        self.drift = Drift()
        self.doubting = True

    # ------------------------------------------------------------------ for those that derive from it

    def choose(self, view: View, done: Done) -> Decision:
        """Decide, where it has looked and there are neighbours."""
        raise NotImplementedError

    def taught(self, done: Done, lesson: Lesson) -> None:
        """Learn from an outcome."""

    def doubted(self, agent: str) -> None:
        """An agent is not any more what it was."""

    @contextmanager
    def rehearsing(self, explore: float, window: int) -> Iterator[None]:
        """What is heard meanwhile was recorded: nobody becomes any other, so nobody is doubted. Who can spends a share
        ``explore`` on trying, and forgets after so many outcomes (``Means.window``).
        """
        usual, self.words.window, self.doubting = self.words.window, window, False
        try:
            yield
        finally:
            self.words.window, self.doubting = usual, True

    # ------------------------------------------------------------------ what they need not care about

    def decide(self, view: View) -> Decision:
        if not view.looked:
            return Look()
        done = self.remembered(view)
        return self.choose(view, done) if view.neighbours else Answer()

    def remembered(self, view: View) -> Done:
        """What is known of this query, kept until its outcome comes."""
        sure = None if view.refused or not view.looked else view.confidence
        done = Done(view.agent.name, cluster(view.text), view.text[:MOST], sure)
        self.memory.keep(given_id(view.id), done)
        return done

    def right(self, agent: str, done: Done) -> float:
        """How likely an agent is right that says ``done.p``."""
        return self._promised(agent, done) * self.drift.share(agent)

    def own(self, view: View, done: Done) -> float:
        """What this agent's own answer is worth; next to nothing where it refused."""
        return (-1.0 if view.refused else self.right(done.me, done)) - view.alpha * view.agent.cost

    def learn(self, outcome: Outcome) -> None:
        done = self.memory.of(outcome.query_id)
        places = [] if done is None else [at for at, hop in enumerate(outcome.path) if hop.agent == done.me]
        if done is None or not places or outcome.path[-1].verdict != "answered":
            return
        path, at = outcome.path, places[-1]
        said = replace(done, me=path[-1].agent, p=path[-1].confidence)
        again = done.guessed is not None
        if outcome.right is None:
            right = self.right(said.me, said)
            self.drift.passes(said.me)
            self.memory.keep(outcome.query_id, replace(done, guessed=right))
        else:
            right = float(outcome.right)
            self._check(said, right)
        self.taught(done, Lesson(outcome, right, again, path[at], path[at + 1 :]))

    def _check(self, said: Done, right: float) -> None:
        """Hold somebody's word against what came of it."""
        if self.doubting and self.drift.hear(said.me, self._promised(said.me, said), right):
            self.doubted(said.me)
        self.words.learn(said.cells(said.me, -1), right - _said(said))

    def _promised(self, agent: str, done: Done) -> float:
        """How likely an agent is right that says ``done.p``, as its words have turned out in the long run."""
        return min(max(_said(done) + self.words.value(done.cells(agent, -1), 0.0), 0.0), 1.0)

    def status(self) -> dict[str, Any]:
        shares = {name: round(self.drift.share(name), 2) for name in self.drift.held}
        doubts = {name: share for name, share in sorted(shares.items()) if share < DOUBTFUL}
        return {"doubts": doubts} if doubts else {}


def _said(done: Done) -> float:
    return 0.5 if done.p is None else done.p
