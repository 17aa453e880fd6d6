"""Policies: given what an agent knows about a query, answer it, forward it, or decline it."""

from __future__ import annotations

from agents.policies.base import Answer, Ask, Decision, Decline, Draft, Forward, Look, Policy, View, Wait
from agents.policies.more import MORE
from agents.policies.reservation import Reservation
from agents.policies.threshold import Always, Bar, RefusalPolicy, Reliability

POLICIES: dict[str, type[Policy]] = {
    "refusal": RefusalPolicy,
    "reliability": Reliability,
    "bar": Bar,
    "reservation": Reservation,
    "always": Always,
    **MORE,
}

__all__ = [
    "POLICIES",
    "Always",
    "Answer",
    "Ask",
    "Bar",
    "Decision",
    "Decline",
    "Draft",
    "Forward",
    "Look",
    "Policy",
    "RefusalPolicy",
    "Reliability",
    "Reservation",
    "View",
    "Wait",
]
