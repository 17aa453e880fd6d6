"""Routing under a hard budget."""

from __future__ import annotations

from agents.policies.base import Answer, Decision, Forward, View
from agents.policies.threshold import Reliability


class Budget(Reliability):
    """The reliability rule, with an eye on what is left of the query's ``max_cost``, in full cost.

    What is left is spent on the best agent that it can pay for, and not on looks along the way: who would forward does
    so to the dearest neighbour whose price is at most what is left; without a budget, to the first. Nobody in view is
    too dear, and no agent may generate more than is left, so that no budget is ever exceeded (after Budget-Aware
    Agentic Routing, where a budget is a constraint and no penalty).

    Raises:
        ConfigError: ``gamma`` is not a positive number.
    """

    def decide(self, view: View) -> Decision:
        decision = super().decide(view)
        if not isinstance(decision, Forward) or view.budget is None:
            return decision
        left = view.budget
        able = [card for card in view.neighbours if card.cost <= left]
        return Forward(max(able, key=lambda card: card.cost).name) if able else Answer()
