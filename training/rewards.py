"""What a choice earns an agent in training. Rewards are local: they know nothing of other agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Reward(Protocol):
    """What it is worth to have answered right or wrong, or to have refused, at a preference."""

    def __call__(self, right: bool, refused: bool, alpha: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Localized:
    """1 for a right answer, 0 for a wrong one, (1 - alpha) ** gamma for a refusal: so it pays to answer where one's
    chance to be right is above that (DiSRouter, section 3.4).
    """

    gamma: float = 0.5

    def __call__(self, right: bool, refused: bool, alpha: float) -> float:
        return (1 - alpha) ** self.gamma if refused else float(right)


REWARDS: dict[str, type[Reward]] = {"localized": Localized}
