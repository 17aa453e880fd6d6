"""Asking several neighbours at once, and taking what they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from agents.errors import ConfigError
from agents.offers import Offer, logit
from agents.policies.base import Answer, Ask, Decision, Decline, Forward, Look, View, Wait, number, pass_on
from agents.policies.threshold import Reliability

LEAST = 0.05  # what the vote of an agent that is not sure at all still weighs


class Committee(Reliability):
    """Who would forward, by the reliability rule, asks ``members`` neighbours at once; of the answers they give the one
    with the most weight is taken, from the cheapest who gave it. A vote weighs its log-odds, which is best where voters
    err by themselves (Nitzan and Paroush 1982; AgentRouter weighs votes as well, by weights that it learns). It is
    decided once ``quorum`` have voted and no vote that is still out could change it, or as ``within_s`` is over; who
    has not voted then is told to stop. Where nobody has voted, the query is forwarded as it would be without.

    Of more neighbours than ``members`` those are asked whose profiles promise most of the query's text; of agents that
    publish none, the first.

    Raises:
        ConfigError: an option is out of bounds.
    """

    staged = True

    def __init__(self, gamma: float = 0.5, members: int = 3, quorum: int = 2, within_s: float = 10.0) -> None:
        super().__init__(gamma)
        for name, value in (("members", members), ("quorum", quorum)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"policy committee: {name} is {value!r}, it must be a whole number from 1 on")
        if quorum > members:
            raise ConfigError(f"policy committee: quorum is {quorum}, it must be at most members, {members}")
        self.members, self.quorum = members, quorum
        self.within_s = number("committee: within_s", within_s, 0, above=True)

    def decide(self, view: View) -> Decision:
        if not view.looked:
            return Look()
        if view.aside:  # its vote, whatever it is worth
            return Decline() if view.refused else Answer()
        if view.together:
            return self._counted(view)
        if isinstance(super().decide(view), Answer):
            return Answer()
        return Ask(self._chosen(view), None, True, self.within_s) if len(view.neighbours) > 1 else pass_on(view)

    def _chosen(self, view: View) -> tuple[str, ...]:
        def promised(place: int) -> tuple[float, int]:
            profile = view.neighbours[place].profile
            worth = -1.0 if profile is None else profile.value(profile.prior(view.text), view.alpha)[0]
            return -worth, place

        best = sorted(range(len(view.neighbours)), key=promised)[: self.members]
        return tuple(view.neighbours[place].name for place in sorted(best))

    def _counted(self, view: View) -> Decision:
        weights = tally(view.votes)
        ranked = sorted(weights.values(), reverse=True)
        if view.asked:
            lead = ranked[0] - (ranked[1] if len(ranked) > 1 else 0.0) if ranked else 0.0
            if len(view.votes) < self.quorum or lead <= len(view.asked) * max(map(weight, view.votes)):
                return Wait()
        if not view.votes:
            return pass_on(view)
        said = max(weights, key=weights.__getitem__)
        return Forward(min((vote for vote in view.votes if vote.said == said), key=lambda vote: vote.price).agent)


def weight(vote: Offer) -> float:
    """Of one vote."""
    return max(logit(vote.sure), LEAST)


def tally(votes: Sequence[Offer]) -> dict[str, float]:
    """What each answer weighs."""
    found: dict[str, list[float]] = {}
    for vote in votes:
        found.setdefault(vote.said or "", []).append(weight(vote))
    return {said: fsum(weights) for said, weights in found.items()}
