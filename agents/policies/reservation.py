"""Routing by what agents tell of themselves: a query goes to whoever it is worth most to ask."""

from __future__ import annotations

import math

from agents.offers import Ballots, Offer, comes_to
from agents.policies.base import Answer, Decision, Decline, Draft, Forward, Look, Policy, View
from agents.profile import Profile


class Reservation(Policy):
    """Go on with a query iff that is worth at least as much as asking anybody else, and else leave it to whom it is
    worth most to ask: a neighbour, or one before, who keeps a draft or a chance as an offer.

    What it is worth follows from the query's text and the agents' profiles, and once this agent has looked or drafted,
    from what it says of itself. So a query is looked at only where that may change something (Weitzman 1979). Another
    draft may also be worth having because it may say what the best one does (``agents.offers``). An agent without a
    profile is asked when nobody else is left, and answers with what it is sure of.
    """

    staged = True
    needs_probability = True

    def decide(self, view: View) -> Decision:
        profile, alpha, name = view.agent.profile, view.alpha, view.agent.name
        place = next((at for at, offer in enumerate(view.offers) if offer.agent == name), len(view.offers))
        before, after = view.offers[:place], view.offers[place + 1 :]
        mine, step, p = self._mine(view)
        known = (*before, *mine, *after)
        ballots = Ballots(profile.agreed if profile else (), known)

        def worth(offer: Offer) -> float:
            return ballots.worth(offer, alpha)

        def asked(told: Profile | None, p: float, alone: float, best: Offer | None) -> float:
            """What it is worth to ask one more agent: for its own answer, or for what it says of the best one."""
            if told is None or best is None:
                return alone
            return max(alone, worth(best) + ballots.gain(best, p, told.price, told.work, alpha))

        back = max(before, key=worth, default=None)
        reserve = worth(back) if back else -math.inf
        here = worth(mine[0]) if mine else -math.inf
        best = mine[0] if here > reserve else back
        if p is not None:
            here = asked(profile, p, here, back)
        peer, most = None, -math.inf
        for card in view.neighbours:
            told, prior, alone = card.profile, 0.0, -math.inf
            if told is not None:
                prior = told.prior(view.text)
                alone, _ = told.value(prior, alpha)
            value = asked(told, prior, alone, best)
            if peer is None or value > most:
                peer, most = card.name, value
        if here >= max(most, reserve):
            return step
        if peer is None or reserve >= most:
            return Decline(known)
        return Forward(peer, known)

    def _mine(self, view: View) -> tuple[tuple[Offer, ...], Decision, float | None]:
        """What this agent can offer, how it would go on, and where it may yet draft, how likely that would be right."""
        profile, alpha, name = view.agent.profile, view.alpha, view.agent.name
        if profile is None:
            sure = -1.0 if view.confidence is None else view.confidence - alpha * view.agent.cost
            return ((Offer(name, sure),), Answer(), None) if view.looked else ((), Look(), None)
        prior = profile.prior(view.text)
        if view.draft is not None:
            if view.looked:
                sure = profile.once_both(prior, view.confidence, view.drafted)
            else:
                sure = profile.once_drafted(prior, view.drafted)
            return (Offer(name, sure, profile.price, comes_to(view.draft)),), Answer(), None
        if view.looked:
            worth, p = profile.once_looked(prior, view.confidence, alpha)
            return (Offer(name, worth),), Draft(), p
        value, look = profile.value(prior, alpha)
        return (Offer(name, value),), Look() if look else Draft(), prior
