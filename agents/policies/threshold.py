"""The paper's rules: by the verdict alone, by a threshold on confidence, and the trivial one."""

from __future__ import annotations

from agents.errors import ConfigError
from agents.policies.base import Answer, Decision, Policy, View, pass_on


class RefusalPolicy(Policy):
    """Forward iff the agent refused."""

    def decide(self, view: View) -> Decision:
        return pass_on(view) if view.refused else Answer()


class Reliability(Policy):
    """Answer iff p > (1 - alpha) ** gamma: where answering pays more than the reward of refusing (DiSRouter).

    Raises:
        ConfigError: ``gamma`` is not a positive number.
    """

    needs_probability = True

    def __init__(self, gamma: float = 0.5) -> None:
        if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not gamma > 0:
            raise ConfigError(f"policy reliability: gamma is {gamma!r}, it must be a positive number")
        self.gamma = gamma

    def decide(self, view: View) -> Decision:
        if view.refused or view.confidence is None:
            return pass_on(view)
        return Answer() if view.confidence > (1 - view.alpha) ** self.gamma else pass_on(view)


class Always(Policy):
    """Answer everything."""

    assesses = False

    def decide(self, view: View) -> Decision:
        return Answer()
