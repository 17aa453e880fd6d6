"""Routing by learnt values: answer, unless somebody else has been found to make more of such queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from agents.errors import ConfigError
from agents.policies.base import Answer, Decision, Forward, Look, View, number
from agents.policies.cells import Means, restored, save
from agents.policies.learner import Done, Learner, Lesson
from agents.profile import near

ALPHAS = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)  # values are kept at these, and between two of them interpolated
EVERY = 50  # outcomes learnt from until they are saved again
LOOKING = ""  # in place of a neighbour's name: what it is worth to look at a query oneself


class Value(Learner):
    """Answer iff ``p - alpha * c >= max_j V_j(alpha, x) - hop``, else forward to the j that is worth most.

    ``V_j(alpha, x)``, what forwarding to j yields, obeys Bellman's equation
    ``V_j(alpha, x) = E[max(p_j - alpha * c_j, max_k V_k(alpha, x') - hop) | x]`` where j goes by the same rule. It is
    learnt from what comes back along the path, as packets learn their way (Q-routing, Boyan and Littman, NIPS 1993):
    ``V <- V + (right - alpha * cost - hop * hops - V) / n``. ``x`` is the sort of query (``cells.cluster``) and the bin
    of this agent's own p; cells with few outcomes borrow from coarser ones. Before there are any, whoever may be asked
    is believed to be always right, so that everybody is tried (optimism in the face of uncertainty). An agent that
    joins should get as ``values`` what a neighbour has learnt: else it tries everybody with what others send to it.

    Args:
        values: learnt before: a file, or what is in it. None: nothing.
        keep: file in which what is learnt is kept; read when the agent starts again, if it is there.
        hop: what it costs to pass a query on, in utility.
        full: count the price of all work, not only that of the answer; then a query is looked at only where that pays.
        explore: share of queries that go to a neighbour drawn at random, so that who has become better is found.

    Raises:
        ConfigError: an option is out of bounds, or a file is none of ours.
    """

    def __init__(
        self,
        values: str | Path | Mapping[str, Any] | None = None,
        keep: str | Path | None = None,
        hop: float = 0.0,
        full: bool = False,
        explore: float = 0.0,
    ) -> None:
        super().__init__()
        self.hop, self.explore = number("value: hop", hop, 0, 1), number("value: explore", explore, 0, 1)
        if not isinstance(full, bool):
            raise ConfigError(f"policy value: full is {full!r}, it must be true or false")
        self.full = full
        self.values, self.heard = Means(), 0
        self.keep = None if keep is None else Path(keep)
        if self.keep is not None and self.keep.exists():
            values = self.keep
        if values is not None:
            self.restore(restored(values) if isinstance(values, str | Path) else values)

    # ------------------------------------------------------------------ deciding

    def decide(self, view: View) -> Decision:
        if view.looked or not self.full or not view.neighbours:
            return super().decide(view)
        done = self.remembered(view)
        best, worth = self._best(view, done)
        looking = self.value(LOOKING, done, view.alpha, 1 - view.alpha * view.agent.cost)
        return Look() if looking >= worth else best

    def choose(self, view: View, done: Done) -> Decision:
        best, worth = self._best(view, done)
        paid = view.alpha * view.agent.cost if self.full and view.draft is not None else 0.0
        return Answer() if self.own(view, done) + paid >= worth else best

    def _best(self, view: View, done: Done) -> tuple[Forward, float]:
        """To whom one would forward, and what that is worth."""
        if self.explore and (rng := Random(view.seed)).random() < self.explore:
            return Forward(rng.choice(view.neighbours).name), 2.0  # more than anything is worth
        priors = {card.name: 1 - view.alpha * card.cost for card in view.neighbours}
        worth = {name: self.value(name, done, view.alpha, prior) for name, prior in priors.items()}
        best = max(worth, key=worth.__getitem__)
        return Forward(best), worth[best] - self.hop

    def value(self, peer: str, done: Done, alpha: float, prior: float) -> float:
        """What forwarding to ``peer`` is worth, which was thought to be ``prior`` before anything was learnt."""
        return sum(share * self.values.value(done.cells(peer, place), prior) for place, share in near(ALPHAS, alpha))

    # ------------------------------------------------------------------ learning

    def taught(self, done: Done, lesson: Lesson) -> None:
        alpha, after = lesson.outcome.alpha, lesson.after
        spent = sum(hop.full_cost for hop in after) if self.full else lesson.outcome.cost
        gained = lesson.right - alpha * spent - self.hop * max(len(after) - 1, 0)
        if lesson.peer is not None:
            self._update(lesson.peer, done, lesson, gained)
        if self.full and done.p is not None:
            unseen = Done(done.me, done.sort, done.text, None, done.guessed)
            self._update(LOOKING, unseen, lesson, gained - alpha * lesson.own.full_cost)
        self.heard += 1
        if self.keep is not None and self.heard % EVERY == 0:
            save(self.keep, self.learnt())

    def _update(self, peer: str, done: Done, lesson: Lesson, gained: float) -> None:
        for place, share in near(ALPHAS, lesson.outcome.alpha):
            if lesson.again and done.guessed is not None:
                self.values.correct(done.cells(peer, place), lesson.right - done.guessed, share)
            else:
                self.values.learn(done.cells(peer, place), gained, share)

    @contextmanager
    def rehearsing(self, explore: float, window: int) -> Iterator[None]:
        usual = self.explore, self.values.window
        self.explore, self.values.window = explore, window
        try:
            with super().rehearsing(explore, window):
                yield
        finally:
            self.explore, self.values.window = usual

    def doubted(self, agent: str) -> None:
        self.values.doubt(agent)

    # ------------------------------------------------------------------ keeping

    def learnt(self) -> dict[str, Any]:
        """What was learnt, as JSON can hold it; ``values`` takes it."""
        return {"alphas": list(ALPHAS), "values": self.values.written(), "words": self.words.written()}

    def restore(self, learnt: Mapping[str, Any]) -> None:
        """Take what ``learnt`` gave. Raises ConfigError where it is something else."""
        try:
            if tuple(learnt["alphas"]) != ALPHAS:
                raise ValueError(f"alphas are {learnt['alphas']!r:.80}, they must be {list(ALPHAS)}")
            self.values.read(learnt["values"])
            self.words.read(learnt["words"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"policy value: values are none that were learnt: {error!r}") from error
