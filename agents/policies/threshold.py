"""The paper's rules: by the verdict alone, by a threshold on confidence, and the trivial one."""

from __future__ import annotations

from collections.abc import Mapping

from agents.calibration import knots
from agents.errors import ConfigError
from agents.policies.base import Answer, Decision, Policy, View, number, pass_on


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
        self.gamma = number("reliability: gamma", gamma, 0, above=True)

    def decide(self, view: View) -> Decision:
        return _answer_above((1 - view.alpha) ** self.gamma, view)


class Bar(Policy):
    """Answer iff p is above this agent's bar for this alpha, as learnt from what those behind it get.

    Args:
        bars: ``{alpha: bar}``, both in [0, 1]; between two alphas a bar is interpolated. Without them it is 1 - alpha.

    Raises:
        ConfigError: ``bars`` is something else.
    """

    needs_probability = True

    def __init__(self, bars: Mapping[float, float] = {0.0: 1.0, 1.0: 0.0}) -> None:
        pairs = sorted(bars.items()) if isinstance(bars, Mapping) else []
        if not pairs or not all(isinstance(n, int | float) and 0 <= n <= 1 for pair in pairs for n in pair):
            raise ConfigError(
                f"policy bar: bars is {bars!r:.80}, it must be a mapping of alphas to bars, all in [0, 1]"
            )
        self.bars = (tuple(alpha for alpha, _ in pairs), tuple(bar for _, bar in pairs))

    def decide(self, view: View) -> Decision:
        return _answer_above(knots(self.bars, view.alpha), view)


class Always(Policy):
    """Answer everything."""

    assesses = False

    def decide(self, view: View) -> Decision:
        return Answer()


def _answer_above(bar: float, view: View) -> Decision:
    sure = not view.refused and view.confidence is not None and view.confidence > bar
    return Answer() if sure else pass_on(view)
