"""A policy for tests: forward whatever can be forwarded."""

from __future__ import annotations

from agents.policies import Decision, Policy, View
from agents.policies.base import pass_on


class Forwarding(Policy):
    """Never answers where there is somebody else."""

    def decide(self, view: View) -> Decision:
        return pass_on(view)
