"""Routing by what agents tell of themselves: a query goes to whoever it is worth most to ask."""

from __future__ import annotations

import math

from agents.policies.base import Answer, Decision, Decline, Draft, Forward, Look, Policy, View


class Reservation(Policy):
    """Go on with a query iff that is worth at least as much as asking anybody else, and else leave it to whom it is
    worth most to ask: a neighbour, or one before, who keeps a draft or a chance in reserve.

    What it is worth follows from the query's text and the agents' profiles, and once this agent has looked or drafted,
    from what it says of itself. So a query is looked at only where that may change something (Weitzman 1979). An agent
    without a profile is asked when nobody else is left, and answers with what it is sure of.
    """

    staged = True
    needs_probability = True

    def decide(self, view: View) -> Decision:
        here, step = self._here(view)
        best, worth = None, -math.inf
        for card in view.neighbours:
            profile = card.profile
            value = profile.value(profile.prior(view.text), view.alpha)[0] if profile else -math.inf
            if best is None or value > worth:
                best, worth = card.name, value
        reserve = -math.inf if view.reserve is None else view.reserve
        if here >= max(worth, reserve):
            return step
        if best is None or reserve >= worth:
            return Decline()
        kept = max(here, reserve)
        return Forward(best, kept if kept > -math.inf else None)

    def _here(self, view: View) -> tuple[float, Decision]:
        """What it is worth to go on here, and how."""
        profile, alpha = view.agent.profile, view.alpha
        if profile is None:
            if not view.looked:
                return -math.inf, Look()
            return (-1.0 if view.confidence is None else view.confidence - alpha * view.agent.cost), Answer()
        prior = profile.prior(view.text)
        if view.has_draft and view.looked:
            return profile.once_both(prior, view.confidence, view.drafted, alpha), Answer()
        if view.has_draft:
            return profile.once_drafted(prior, view.drafted, alpha), Answer()
        if view.looked:
            return profile.once_looked(prior, view.confidence, alpha), Draft()
        value, look = profile.value(prior, alpha)
        return value, Look() if look else Draft()
